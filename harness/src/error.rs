// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong that is nobody's bug: each with one line that says what was tried, what happened
//! and what to do, and with its exit status.

use std::io;
use std::path::PathBuf;

use nlring_vm::{Class, VmError};

use crate::packages::{self, Package};

/// An expected error.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A filter that matches no case.
    #[error("no case matches {filter:?}; {}", match nearest { Some(name) => format!("did you mean {name}?"), None => String::from("ci/nlring list shows them all") })]
    UnknownCase {
        /// The filter.
        filter: String,
        /// A case with a name like it.
        nearest: Option<String>,
    },
    /// A group that no case is in.
    #[error("no group is named {name:?}; there are {}", known.join(", "))]
    UnknownGroup {
        /// The name given.
        name: String,
        /// The groups there are.
        known: Vec<String>,
    },
    /// A kernel that is not in the matrix.
    #[error("kernel-config/kernels.toml names no kernel {name:?}; it names {}", known.join(", "))]
    UnknownKernel {
        /// The name given.
        name: String,
        /// The kernels there are.
        known: Vec<String>,
    },
    /// A mutant whose file is not as it must be.
    #[error("cannot use {}: {reason}", path.display())]
    Mutant {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A name that no mutant has.
    #[error("no mutant is named {name:?}; {}", match nearest { Some(name) => format!("did you mean {name}?"), None => String::from("ci/nlring mutants --list shows them all") })]
    UnknownMutant {
        /// The name given.
        name: String,
        /// A mutant with a name like it.
        nearest: Option<String>,
    },
    /// A part of the mutants that is empty.
    #[error("there is no mutant in this part; ci/nlring mutants --list shows them all")]
    NoMutant,
    /// A selection that is empty although each part of it names something.
    #[error("{0} selects no case; ci/nlring list shows them all")]
    NothingSelected(String),
    /// A directory that is not the project's.
    #[error("cannot find kernel-config/kernels.toml in {}; call ci/nlring, or set NLRING_ROOT to the source tree", .0.display())]
    NoTree(PathBuf),
    /// The report cannot be written where it should.
    #[error("cannot write a report to {}: {source}; {} with --report DIR", path.display(), if is_full(source) { "free some space, or choose another disk" } else { "choose a directory of yours" })]
    Report {
        /// The directory or file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// What says how to have a result again cannot be read.
    #[error("cannot read {}: {source}; name the folder of a case that did not pass, in a report", path.display())]
    Recipe {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A filter that matches more than the one case that is needed.
    #[error("{filter:?} is not one case, but {}; give its whole name", cases.join(", "))]
    SeveralCases {
        /// The filter.
        filter: String,
        /// The cases that it matches.
        cases: Vec<String>,
    },
    /// No search along the series can be made.
    #[error("cannot search the series on {kernel} for what makes {case} fail: {reason}")]
    Unsearchable {
        /// The case.
        case: String,
        /// The kernel.
        kernel: String,
        /// Why not.
        reason: String,
    },
    /// A search along the series does not begin, or end, as it must.
    #[error(
        "cannot search the series: with {count} patches it should {wanted}; it does not: {found}"
    )]
    NoBounds {
        /// How many patches.
        count: usize,
        /// What must come of the case with them.
        wanted: &'static str,
        /// What comes of it.
        found: &'static str,
    },
    /// This tree has another kernel than the one that a result is of.
    #[error(
        "cannot run it on the same kernel: {kernel} had {what} {then}, and here has {now}; check out what it was run with, or add --any-kernel"
    )]
    OtherKernel {
        /// The kernel's name.
        kernel: String,
        /// What is different.
        what: &'static str,
        /// What it was.
        then: String,
        /// What it is.
        now: String,
    },
    /// A report that cannot become part of another.
    #[error("cannot merge {}: {reason}", path.display())]
    Unmergeable {
        /// The report's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Packages are missing.
    #[error("cannot {what} without {}; run: {}", missing.iter().map(|package| package.name).collect::<Vec<_>>().join(", "), packages::install_command(missing))]
    MissingPackages {
        /// What was tried.
        what: &'static str,
        /// What is missing.
        missing: Vec<Package>,
    },
    /// Not one VM fits into memory.
    #[error(
        "cannot start a VM: it takes {needed_mib} MiB of memory and {free_mib} MiB are free here; end something, or raise the limit of the control group"
    )]
    NoMemory {
        /// What it takes, in MiB.
        needed_mib: u32,
        /// What there is, in MiB.
        free_mib: u64,
    },
    /// A program for the guest cannot be built.
    #[error("cannot build a program for the guest: {why}; to see all of it: {command}")]
    GuestProgram {
        /// One line of what happened.
        why: String,
        /// The command that was tried.
        command: String,
    },
    /// Something in the VM's room.
    #[error(transparent)]
    Vm(#[from] VmError),
    /// A signal ended the run.
    #[error("interrupted by {signal}; {finished} of {planned} cases were finished, the report is in {}", report.display())]
    Interrupted {
        /// The signal's name.
        signal: &'static str,
        /// Its number.
        number: i32,
        /// Cases that had a verdict by then.
        finished: usize,
        /// Cases of the plan.
        planned: usize,
        /// Where the report is.
        report: PathBuf,
    },
    /// Output that cannot be written; a closed pipe is not one of these.
    #[error("cannot write the output: {0}; is the disk full?")]
    Output(io::Error),
}

impl Error {
    /// The exit status, as `nlring --help` documents it.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self {
            // The person could not know, and no argument was wrong.
            Self::Report { source, .. } if is_full(source) => 3,
            Self::UnknownGroup { .. }
            | Self::UnknownKernel { .. }
            | Self::NoTree(_)
            | Self::Mutant { .. }
            | Self::Report { .. }
            | Self::Recipe { .. }
            | Self::Unmergeable { .. }
            | Self::SeveralCases { .. }
            | Self::Unsearchable { .. }
            | Self::NoBounds { .. } => 2,
            Self::UnknownCase { .. }
            | Self::UnknownMutant { .. }
            | Self::NoMutant
            | Self::NothingSelected(_) => 4,
            Self::MissingPackages { .. }
            | Self::GuestProgram { .. }
            | Self::OtherKernel { .. }
            | Self::NoMemory { .. }
            | Self::Output(_) => 3,
            Self::Vm(error) => match error.class() {
                Class::Usage => 2,
                Class::Infra => 3,
            },
            Self::Interrupted { number, .. } => u8::try_from(128 + number).unwrap_or(130),
        }
    }
}

/// Whether it is the disk that is full.
fn is_full(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
    )
}
