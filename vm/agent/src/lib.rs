// SPDX-License-Identifier: MIT OR Apache-2.0
//! The guest's side: PID 1, the agent, and the process of a job, all in one static program.
//!
//! PID 1 mounts what Linux programs expect, starts the agent and reaps. The agent talks to the host
//! and knows jobs by name only. Each job runs in a process of its own, so that one that hangs, dies
//! or exits is still reported on.

mod agent;
mod inventory;
mod job;
mod links;
mod output;
mod pid1;
mod port;
mod randomness;

use std::process::ExitCode;

pub use nlring_channel::{Job, Link, Outcome, Status};

/// Arguments by which the program tells what it is asked to be.
const AGENT: &str = "agent";
const JOB: &str = "job";

/// The program's `main`: PID 1, agent or job, by its process id and argument. `run` does a job, in
/// the job's process; a panic in it is a failed outcome.
pub fn main(run: fn(&Job) -> Outcome) -> ExitCode {
    match std::env::args().nth(1).as_deref() {
        Some(AGENT) => agent::main(),
        Some(JOB) => job::main(run),
        _ if std::process::id() == 1 => pid1::main(),
        _ => {
            eprintln!(
                "this is the init of a guest: `nlring run` packs it into an initramfs and boots it as PID 1"
            );
            ExitCode::from(2)
        }
    }
}
