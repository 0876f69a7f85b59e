// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nlring doctor`: is everything here that a run needs? All of it at once, a line each.

use std::fs::OpenOptions;
use std::path::Path;
use std::process::Command;

use nlring_vm::matrix::Matrix;
use nlring_vm::{Cache, VmError, kernel, virtme};

use crate::packages::{self, Need, Package};
use crate::tree::Tree;

/// A kernel's source, its objects and the result, in bytes: what a first build takes (measured: 2.1 GB for
/// base and work tree, 0.3 GB of objects).
const ROOM_FOR_A_KERNEL: u64 = 4 << 30;

/// How a finding weighs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Weight {
    /// As it should be.
    Good,
    /// Works, and could be better.
    Note,
    /// A run cannot work like this.
    Bad,
}

/// One line of the doctor's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// How it weighs.
    pub weight: Weight,
    /// What was looked at.
    pub what: String,
    /// What was found.
    pub found: String,
}

/// Everything that was found, and the commands that mend what is bad.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnosis {
    /// The lines.
    pub findings: Vec<Finding>,
    /// What to run, if anything.
    pub cure: Option<String>,
}

impl Diagnosis {
    /// Whether a run can work.
    #[must_use]
    pub fn is_healthy(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.weight != Weight::Bad)
    }
}

impl std::fmt::Display for Diagnosis {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        for Finding {
            weight,
            what,
            found,
        } in &self.findings
        {
            let mark = match weight {
                Weight::Good => "ok  ",
                Weight::Note => "note",
                Weight::Bad => "bad ",
            };
            writeln!(formatter, "{mark}  {what}: {found}")?;
        }
        match &self.cure {
            Some(command) => writeln!(formatter, "\nto mend it, run: {command}"),
            None if self.is_healthy() => writeln!(formatter, "\nready: ci/nlring run"),
            None => Ok(()),
        }
    }
}

/// Looks at everything; changes nothing but the times of the cache.
#[must_use]
pub fn examine(tree: &Tree) -> Diagnosis {
    let mut findings = Vec::new();
    let mut missing = Vec::new();
    for package in packages::all() {
        findings.push(package_finding(&package, &mut missing));
    }
    findings.push(qemu());
    findings.push(cargo());
    findings.push(kvm());
    findings.push(virtme_ng(tree));
    match Cache::open() {
        Ok(cache) => {
            let kernels = kernels(tree, &cache);
            let built =
                !kernels.is_empty() && kernels.iter().all(|finding| finding.weight == Weight::Good);
            findings.push(room(cache.root(), built));
            findings.extend(kernels);
        }
        Err(error) => findings.push(bad("cache", error.to_string())),
    }
    let cure = (!missing.is_empty()).then(|| packages::install_command(&missing));
    Diagnosis { findings, cure }
}

fn package_finding(package: &Package, missing: &mut Vec<Package>) -> Finding {
    let what = format!("package {}", package.name);
    if let Some(path) = package.proof.find() {
        return good(&what, path.display().to_string());
    }
    missing.push(*package);
    let when = match package.need {
        Need::Build => "the Rust code cannot be built",
        Need::Kernel => "no kernel can be built",
        Need::Run => "no case can run",
        Need::Lint => "the series cannot be linted",
        Need::Test => "ci/test cannot run",
        Need::Compat => "the group compat cannot run",
        Need::Gdb => "nlring gdb cannot run",
    };
    let found = format!("missing, so {when} ({})", package.reason);
    match package.need {
        Need::Build | Need::Kernel | Need::Run => bad(&what, found),
        Need::Lint | Need::Test | Need::Compat | Need::Gdb => note(&what, found),
    }
}

fn qemu() -> Finding {
    first_line("qemu-system-x86_64", "--version")
        .map_or_else(|why| bad("QEMU", why), |line| good("QEMU", line))
}

fn cargo() -> Finding {
    first_line("cargo", "--version").map_or_else(
        |why| {
            bad(
                "Rust",
                format!("{why}; it builds the guest binary; install it from https://rustup.rs"),
            )
        },
        |line| good("Rust", line),
    )
}

fn first_line(command: &str, argument: &str) -> Result<String, String> {
    let path = packages::find_command(command).ok_or_else(|| format!("no {command} in PATH"))?;
    let output = Command::new(&path)
        .arg(argument)
        .output()
        .map_err(|error| format!("cannot start {}: {error}", path.display()))?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().next() {
        Some(line) if output.status.success() => Ok(line.to_owned()),
        _ => Err(format!(
            "{} {argument} ended with {}",
            path.display(),
            output.status
        )),
    }
}

/// Only whether it opens: whether guests run on it is found out by booting one, in a run.
fn kvm() -> Finding {
    match OpenOptions::new().read(true).write(true).open("/dev/kvm") {
        Ok(_) => good(
            "/dev/kvm",
            String::from(
                "opens; whether guests run on it is probed by the first run with each kernel",
            ),
        ),
        Err(error) => note(
            "/dev/kvm",
            format!("{error}; VMs run under TCG, which is slower and otherwise the same"),
        ),
    }
}

fn virtme_ng(tree: &Tree) -> Finding {
    match virtme::place(tree.root()) {
        Some(place) => good("virtme-ng", place.display().to_string()),
        None => note(
            "virtme-ng",
            String::from(
                "not installed yet; nlring shell, nlring gdb and the group compat get it from PyPI when they need it",
            ),
        ),
    }
}

fn room(directory: &Path, built: bool) -> Finding {
    let what = format!("room in {}", directory.display());
    match nix::sys::statvfs::statvfs(directory) {
        Err(error) => bad(&what, error.to_string()),
        Ok(status) => {
            let free = status.blocks_available() * status.fragment_size();
            #[expect(clippy::cast_precision_loss, reason = "for a person")]
            let found = format!("{:.1} GiB free", free as f64 / f64::from(1 << 30));
            if free >= ROOM_FOR_A_KERNEL {
                good(&what, found)
            } else if built {
                note(&what, format!("{found}; the next base may not fit"))
            } else {
                bad(
                    &what,
                    format!(
                        "{found}, a first kernel takes {} GiB; set XDG_CACHE_HOME to a larger disk",
                        ROOM_FOR_A_KERNEL >> 30
                    ),
                )
            }
        }
    }
}

fn kernels(tree: &Tree, cache: &Cache) -> Vec<Finding> {
    let matrix = match Matrix::load(tree.root()) {
        Ok(matrix) => matrix,
        Err(error) => return vec![bad("kernels", error.to_string())],
    };
    let finding = |entry| {
        let what = format!("kernel {}", nlring_vm::matrix::Entry::clone(entry).name);
        match kernel::cached(cache, tree.root(), entry) {
            Ok(Some(built)) => good(&what, format!("{} in the cache", built.release)),
            Ok(None) => note(
                &what,
                String::from("not built yet; the first run that needs it takes minutes longer"),
            ),
            // What is missing has been told above, with the command that mends it.
            Err(VmError::Missing { tool, .. }) => note(
                &what,
                format!("cannot tell whether it is built without {tool}"),
            ),
            Err(error @ VmError::Base { .. }) => note(&what, error.to_string()),
            Err(error) => bad(&what, error.to_string()),
        }
    };
    matrix.entries().iter().map(finding).collect()
}

fn good(what: &str, found: String) -> Finding {
    Finding {
        weight: Weight::Good,
        what: what.to_owned(),
        found,
    }
}

fn note(what: &str, found: String) -> Finding {
    Finding {
        weight: Weight::Note,
        what: what.to_owned(),
        found,
    }
}

fn bad(what: &str, found: String) -> Finding {
    Finding {
        weight: Weight::Bad,
        what: what.to_owned(),
        found,
    }
}
