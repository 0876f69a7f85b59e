// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which kernels a case can run on, and which it does.

use nlring_cases::{Case, Group, Kernel};

use crate::names::group_word;

/// A kernel, as far as planning goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidate {
    /// Its name in the matrix.
    pub name: String,
    /// The name of its base.
    pub base: String,
    /// Whether the series is applied to that.
    pub series: bool,
    /// Whether it has memory-mapped netlink.
    pub ringed: bool,
    /// The group of cases that it is for, where it is not for all.
    pub group: Option<String>,
    /// Whether it watches itself; it is used only where it is asked for, or needed.
    pub debug: bool,
}

/// Kernels of one base and one configuration that differ in nothing but the series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trio {
    /// The base as it is.
    pub plain: String,
    /// With the series, the option off.
    pub off: String,
    /// With the series, the option on.
    pub ringed: String,
}

impl Trio {
    /// The three, the one that the others are held against first.
    #[must_use]
    pub fn kernels(&self) -> [&str; 3] {
        [&self.plain, &self.off, &self.ringed]
    }
}

/// Where a planned case runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// On this kernel.
    On(String),
    /// On all of these, to be compared.
    Across(Trio),
    /// Nowhere; the kernel that was asked for, and the requirement that is missing.
    Nowhere {
        /// The kernel asked for.
        kernel: Option<String>,
        /// The missing requirement.
        requirement: String,
    },
}

/// Whether `kernel` has what `case` asks for.
///
/// # Errors
/// The requirement that it does not meet.
pub fn satisfies(case: &Case, kernel: &Candidate) -> Result<(), String> {
    let group = group_word(case.group);
    match &kernel.group {
        Some(other) if *other != group => {
            return Err(format!(
                "{} is for cases of the group {other} only",
                kernel.name
            ));
        }
        None if case.group.is_on_request() && case.kernel != Kernel::Debug => {
            return Err(format!(
                "needs a kernel that is for the group {group}; {} is not",
                kernel.name
            ));
        }
        _ => {}
    }
    let name = &kernel.name;
    match case.kernel {
        Kernel::Ringed if !kernel.ringed => Err(format!(
            "needs a kernel with memory-mapped netlink; {name} has none"
        )),
        Kernel::Plain if kernel.ringed => Err(format!(
            "needs a kernel without memory-mapped netlink; {name} has it"
        )),
        Kernel::Debug if !kernel.debug => Err(format!(
            "needs a kernel that watches itself; {name} does not"
        )),
        _ => Ok(()),
    }
}

/// The kernel for a person who names none: the first of `matrix` that has memory-mapped netlink and is for
/// everything.
#[must_use]
pub fn default_kernel(matrix: &[Candidate]) -> Option<&Candidate> {
    let fits = |kernel: &&Candidate| kernel.ringed && !kernel.debug && kernel.group.is_none();
    matrix.iter().find(fits)
}

/// The place of `case`: on the kernel asked for, else on the first of `matrix` that has what it needs.
#[must_use]
pub fn place(case: &Case, matrix: &[Candidate], asked: Option<&Candidate>) -> Place {
    if case.group == Group::Compat {
        return across(case, matrix, asked);
    }
    if let Some(kernel) = asked {
        return match satisfies(case, kernel) {
            Ok(()) => Place::On(kernel.name.clone()),
            Err(requirement) => Place::Nowhere {
                kernel: Some(kernel.name.clone()),
                requirement,
            },
        };
    }
    let fits = |kernel: &&Candidate| {
        kernel.debug == (case.kernel == Kernel::Debug) && satisfies(case, kernel).is_ok()
    };
    match matrix.iter().find(fits) {
        Some(kernel) => Place::On(kernel.name.clone()),
        None => Place::Nowhere {
            kernel: None,
            requirement: format!(
                "needs a kernel {}; kernels.toml names none",
                match case.kernel {
                    Kernel::Plain => "without memory-mapped netlink",
                    Kernel::Debug => "that watches itself",
                    Kernel::Ringed | Kernel::Any => "with memory-mapped netlink",
                }
            ),
        },
    }
}

/// The kernels for the case's group over the base that was asked for, else over the first that has any.
fn across(case: &Case, matrix: &[Candidate], asked: Option<&Candidate>) -> Place {
    let group = group_word(case.group);
    let for_group = |kernel: &&Candidate| kernel.group.as_ref() == Some(&group);
    let base = asked.or_else(|| matrix.iter().find(for_group));
    let base = base.map(|kernel| kernel.base.as_str());
    let find = |series, ringed| {
        let fits = |kernel: &&Candidate| {
            Some(kernel.base.as_str()) == base && (kernel.series, kernel.ringed) == (series, ringed)
        };
        let found = matrix.iter().filter(for_group).find(fits);
        found.map(|kernel| kernel.name.clone())
    };
    match (find(false, false), find(true, false), find(true, true)) {
        (Some(plain), Some(off), Some(ringed)) => Place::Across(Trio { plain, off, ringed }),
        _ => Place::Nowhere {
            kernel: asked.map(|kernel| kernel.name.clone()),
            requirement: format!(
                "needs three kernels for the group {group} over base {}: without the series, with it and the option off, with both; kernels.toml does not name them all",
                base.unwrap_or("any")
            ),
        },
    }
}
