// SPDX-License-Identifier: MIT OR Apache-2.0
//! What there is: cases and kernels.

use comfy_table::{ContentArrangement, Table, presets};
use nlring_cases::Case;
use nlring_vm::matrix::{Entry, Source};
use serde::Serialize;

use crate::mutant::Mutant;
use crate::names::{group_word, topology_word};
use crate::place::{Candidate, satisfies};

/// A case, in the fields of `nlring list --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The sentence it proves.
    pub name: &'static str,
    /// Its group.
    pub group: String,
    /// The kernels of the matrix that have what it needs; it runs on the first.
    pub kernels: Vec<String>,
    /// The network it needs.
    pub topology: String,
    /// What the kernel's log must show, if it provokes a splat on purpose.
    pub expects_splat: Option<&'static str>,
}

/// Lists `cases`.
#[must_use]
pub fn cases(cases: &[Case], matrix: &[Candidate]) -> Vec<Listed> {
    let listed = |case: &Case| Listed {
        name: case.name,
        group: group_word(case.group),
        kernels: matrix
            .iter()
            .filter(|kernel| satisfies(case, kernel).is_ok())
            .map(|kernel| kernel.name.clone())
            .collect(),
        topology: topology_word(case.topology),
        expects_splat: case.expects_splat,
    };
    cases.iter().map(listed).collect()
}

/// A table of cases.
#[must_use]
pub fn cases_table(listed: &[Listed]) -> String {
    let mut table = plain_table(["group", "case", "kernels", "topology"]);
    for case in listed {
        table.add_row([
            &case.group,
            case.name,
            &case.kernels.join(" "),
            &case.topology,
        ]);
    }
    table.to_string()
}

/// A kernel of the matrix, in the fields of `nlring kernel list --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct ListedKernel {
    /// Its name.
    pub name: String,
    /// Where its source comes from.
    pub base: String,
    /// Its configuration fragments, in order.
    pub fragments: Vec<String>,
    /// Whether it has memory-mapped netlink.
    pub ringed: bool,
    /// `uname -r`, if it is built and its inputs have not changed since; else `null`.
    pub cached: Option<String>,
}

impl ListedKernel {
    /// Describes `entry`.
    #[must_use]
    pub fn of(entry: &Entry, cached: Option<String>) -> Self {
        let base = match &entry.base.source {
            Source::Debian(package) => format!("Debian package {package}"),
            Source::Tree(path) => format!("tree {}", path.display()),
            Source::Tarball { path, .. } => format!("tarball {}", path.display()),
        };
        Self {
            name: entry.name.clone(),
            base,
            fragments: entry.fragments.clone(),
            ringed: entry.ringed,
            cached,
        }
    }
}

/// A table of kernels.
#[must_use]
pub fn kernels_table(kernels: &[ListedKernel]) -> String {
    let mut table = plain_table(["kernel", "base", "fragments", "netlink rings", "cached"]);
    for kernel in kernels {
        let rings = if kernel.ringed { "yes" } else { "no" };
        let cached = kernel.cached.as_deref().unwrap_or("not built");
        table.add_row([
            &kernel.name,
            &kernel.base,
            &kernel.fragments.join(" "),
            rings,
            cached,
        ]);
    }
    table.to_string()
}

/// A table of mutants.
#[must_use]
pub fn mutants_table(mutants: &[Mutant]) -> String {
    let mut table = plain_table(["mutant", "fault", "breaks", "seen by"]);
    for mutant in mutants {
        table.add_row([
            &mutant.name,
            &mutant.subject,
            &mutant.breaks.join(" "),
            &mutant.seen_by.join(" "),
        ]);
    }
    table.to_string()
}

fn plain_table<const N: usize>(header: [&str; N]) -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_header(header);
    table
}
