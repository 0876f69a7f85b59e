// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one program in the guest: PID 1, agent, and every case.

use nlring_cases::{Setting, Unmet, find};
use nlring_channel::{Job, Outcome, Status};

fn main() -> std::process::ExitCode {
    nlring_agent::main(run)
}

fn run(job: &Job) -> Outcome {
    let Some(case) = find(&job.name) else {
        let detail = format!(
            "the guest has no case {:?}; was it built from another tree than the harness?",
            job.name
        );
        return Outcome {
            status: Status::Fail,
            detail,
            evidence: Vec::new(),
        };
    };
    let mut setting = Setting::new(job.seed, job.patience);
    let (status, detail) = match (case.run)(&mut setting) {
        Ok(()) => (Status::Pass, String::from("the sentence held")),
        Err(error) => match error.downcast_ref::<Unmet>() {
            Some(unmet) => (Status::Skip, unmet.to_string()),
            None => (Status::Fail, format!("{error:#}")),
        },
    };
    Outcome {
        status,
        detail,
        evidence: setting.evidence().to_vec(),
    }
}
