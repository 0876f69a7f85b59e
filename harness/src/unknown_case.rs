// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a guest says that it has no case of the name it was given.
//!
//! That proves nothing about the kernel: guest and harness were built from different trees. The protocol
//! knows pass, fail and skip only, as only a case can tell, so this is a failure with a mark on it that the
//! harness reads as `infra`.

use nlring_channel::{Outcome, Status};

const MARK: &str = "org.nlring.unknown-case";

/// What the guest answers for `name`.
#[must_use]
pub fn outcome(name: &str) -> Outcome {
    Outcome {
        status: Status::Fail,
        detail: format!(
            "the guest has no case {name:?}: it was built from another tree; run again"
        ),
        evidence: vec![MARK.to_owned()],
    }
}

/// Whether this is such an answer.
#[must_use]
pub fn is_told_by(outcome: &Outcome) -> bool {
    outcome.status == Status::Fail && outcome.evidence == [MARK]
}
