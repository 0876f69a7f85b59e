// SPDX-License-Identifier: MIT OR Apache-2.0
//! A guest whose jobs end its VM in the way that they are named after.

use std::fs;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::signal::{Signal, kill};
use nix::unistd::getppid;
use nlring_agent::{Job, Outcome, Status};

fn main() -> ExitCode {
    nlring_agent::main(end)
}

fn end(job: &Job) -> Outcome {
    match job.name.as_str() {
        "panics" => {
            fs::write("/proc/sys/vm/panic_on_oom", "1").unwrap();
            let mut memory = Vec::new();
            loop {
                memory.push(vec![1_u8; 1 << 20]);
            }
        }
        "resets" => drop(reboot(RebootMode::RB_AUTOBOOT)),
        "loses_its_agent" => kill(getppid(), Signal::SIGKILL).unwrap(),
        "stops_its_agent" => kill(getppid(), Signal::SIGSTOP).unwrap(),
        _ => {}
    }
    thread::sleep(Duration::from_secs(2));
    Outcome {
        status: Status::Pass,
        detail: job.name.clone(),
        evidence: Vec::new(),
    }
}
