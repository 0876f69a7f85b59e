// SPDX-License-Identifier: MIT OR Apache-2.0
//! The messages themselves.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

/// From the harness to the agent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToGuest {
    /// Are you there? Sent repeatedly until [`ToHost::Ready`] carries the same number.
    Hello {
        /// Tells this conversation's answers from those of an earlier one.
        nonce: u64,
    },
    /// Do this.
    Run(Job),
    /// The outcome of this job has been received and noted.
    Acknowledge {
        /// [`Job::number`] of the job in question.
        job: u32,
    },
    /// Sync and power off.
    PowerOff,
}

/// From the agent to the harness.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum ToHost {
    /// The agent is up.
    Ready {
        /// The number of the hello that this answers.
        nonce: u64,
        /// `uname -r`.
        release: String,
        /// `/sys/devices/system/clocksource/clocksource0/current_clocksource`: witness of the accelerator.
        clocksource: String,
        /// CPUs online.
        cpus: u32,
    },
    /// A line of progress that a person may want to see; never part of a verdict.
    Note {
        /// [`Job::number`].
        job: u32,
        /// The line, without a newline.
        text: String,
    },
    /// How a job ended.
    Outcome {
        /// [`Job::number`].
        job: u32,
        /// What it found.
        outcome: Outcome,
    },
}

/// A piece of work for the guest, known to the agent by name only.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    /// Distinguishes the jobs of one VM.
    pub number: u32,
    /// What to run.
    pub name: String,
    /// Seed of everything random in it.
    pub seed: u64,
    /// The guest's own deadline, in milliseconds; shorter than the host's.
    pub deadline_ms: u64,
    /// Multiplier on waits inside the job: 1 under KVM, larger under TCG and on debug kernels.
    pub patience: u32,
    /// The NICs the guest has and what they should become.
    pub links: Vec<Link>,
}

/// The line of the guest's kernel log at which job 7 begins is this, the number, and [`LOG_MARK_END`].
pub const LOG_MARK: &str = "nlring: job ";
/// What stands behind the number in such a line; something for people may follow.
pub const LOG_MARK_END: &str = " begins";

/// One NIC of the guest, found by its MAC address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The MAC address, as `52:54:00:…`.
    pub mac: String,
    /// The name it gets, as `near0` or `far0`.
    pub name: String,
    /// Its address.
    pub address: Ipv4Addr,
    /// Its prefix length, in bits.
    pub prefix: u8,
    /// The network namespace it moves into; `None` is the namespace of the agent.
    pub namespace: Option<String>,
}

/// How a job ended, as far as the guest can tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// What the job proves held.
    Pass,
    /// It did not hold.
    Fail,
    /// The job's requirement is not met here.
    Skip,
}

/// The verdict of the guest: one of the two witnesses (the other is the kernel log).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// Pass, fail or skip.
    pub status: Status,
    /// One line: what was expected and seen, or the missing requirement.
    pub detail: String,
    /// What was observed on the way: counts, ids, lines a person would want with the verdict.
    pub evidence: Vec<String>,
}
