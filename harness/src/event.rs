// SPDX-License-Identifier: MIT OR Apache-2.0
//! What happens in a run, as one enum. Renderers and reports consume it; nothing else tells them anything.

use std::path::PathBuf;
use std::time::Duration;

use crate::results::{Accel, CaseResult, Kernel, Results};

/// Something happened.
#[derive(Debug, Clone)]
pub enum Event {
    /// What will be done is known.
    Planned {
        /// Cases, repetitions counted.
        cases: usize,
        /// The kernels they need.
        kernels: Vec<String>,
        /// The run's seed.
        seed: u64,
    },
    /// The kernel `name` is being made.
    Kernel {
        /// Its name in the matrix.
        name: String,
        /// How far it is.
        step: KernelStep,
    },
    /// The kernel is there.
    KernelReady {
        /// What it is.
        kernel: Kernel,
        /// How long it took to build, if it had to be.
        built_in: Option<Duration>,
    },
    /// The guest binary is being compiled.
    GuestBinary,
    /// What is not built yet of the ring library's examples is being built.
    Examples,
    /// What the VMs run on.
    Accelerator {
        /// Which, and why.
        accel: Accel,
        /// Whether that was found out just now; else it is remembered, and was said then.
        is_news: bool,
    },
    /// A case was picked up.
    Started {
        /// Its place in the plan.
        index: usize,
        /// Its name.
        name: String,
    },
    /// Its guest is ready.
    Ready {
        /// Its place in the plan.
        index: usize,
        /// How long that took.
        after: Duration,
    },
    /// The guest says how it is getting on.
    Note {
        /// The case's place in the plan.
        index: usize,
        /// What it says.
        text: String,
    },
    /// A session of the group `compat` is over.
    Session {
        /// Its kernel.
        kernel: String,
        /// Which of those on its kernel; the first is 1.
        round: usize,
        /// How many there are on each kernel.
        of: usize,
        /// Programs that ended in it.
        programs: usize,
        /// How long it took.
        took: Duration,
    },
    /// A case has its verdict.
    Judged {
        /// Its place in the plan.
        index: usize,
        /// What came of it.
        result: CaseResult,
        /// How many of its rounds shared the VM.
        rounds: usize,
        /// The command that runs it again.
        again: String,
    },
    /// A signal came.
    Interrupted {
        /// Its number.
        signal: i32,
    },
    /// It is over and the report is written.
    Reported {
        /// Everything.
        results: Results,
        /// Where.
        directory: PathBuf,
    },
}

/// How far a kernel is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelStep {
    /// A phase began.
    Phase(&'static str),
    /// Within a phase.
    Progress {
        /// Steps done.
        done: u64,
        /// Steps in all; 0 if that is not known.
        total: u64,
        /// The step at hand.
        what: String,
    },
    /// Another process is building the same kernel.
    Waiting(String),
}
