// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one program in the guest: PID 1, agent, and every case.

use nlring_cases::{Setting, Unmet, part};
use nlring_channel::{Job, Outcome, Status};
use nlring_harness::unknown_case;

fn main() -> std::process::ExitCode {
    nlring_agent::main(run)
}

fn run(job: &Job) -> Outcome {
    let Some((case, act)) = part(&job.name) else {
        return unknown_case::outcome(&job.name);
    };
    let mut setting = Setting::new(case.name, job.seed, job.patience);
    let (status, detail) = match act(&mut setting) {
        Ok(()) => (Status::Pass, String::from("the sentence held")),
        Err(error) => match error.downcast_ref::<Unmet>() {
            Some(unmet) => (Status::Skip, unmet.to_string()),
            None => (Status::Fail, format!("{error:#}")),
        },
    };
    let evidence = setting.evidence().to_vec();
    Outcome {
        status,
        detail,
        evidence,
    }
}
