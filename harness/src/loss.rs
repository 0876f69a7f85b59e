// SPDX-License-Identifier: MIT OR Apache-2.0
//! Why there is no guest, or none any more.

use nlring_vm::VmError;
use nlring_vm::end::End;

/// A guest that could not be had, or was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loss {
    /// Why, in one line.
    pub why: String,
    /// How its VM ended, if there was one and that is known.
    pub end: Option<Box<End>>,
}

impl Loss {
    /// Whether the kernel told of its panic beside its log.
    #[must_use]
    pub fn is_panic(&self) -> bool {
        self.end.as_ref().is_some_and(|end| end.panicked)
    }

    /// What was seen of it, a line each.
    #[must_use]
    pub fn evidence(&self) -> Vec<String> {
        self.end.iter().flat_map(|end| end.evidence()).collect()
    }
}

impl From<String> for Loss {
    fn from(why: String) -> Self {
        Self { why, end: None }
    }
}

impl From<VmError> for Loss {
    fn from(error: VmError) -> Self {
        let why = error.to_string();
        let end = match error {
            VmError::Ended { end, .. } => Some(end),
            _ => None,
        };
        Self { why, end }
    }
}
