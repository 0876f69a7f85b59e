// SPDX-License-Identifier: MIT OR Apache-2.0
//! What executes a guest's instructions.

use serde::{Deserialize, Serialize};

/// The accelerators there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Name {
    /// The host's processor.
    Kvm,
    /// QEMU's translator: works everywhere, several times slower.
    Tcg,
}

impl Name {
    /// As in QEMU's options and in reports.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    /// Whether a guest of ours under this accelerator can report `clocksource`.
    pub(crate) fn admits(self, clocksource: &str) -> bool {
        match self {
            // A host with an invariant TSC makes the guest prefer that to kvm-clock.
            Self::Kvm => ["kvm-clock", "tsc"].contains(&clocksource),
            Self::Tcg => clocksource != "kvm-clock",
        }
    }
}

/// An accelerator, and why it is this one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accelerator {
    /// Which.
    pub name: Name,
    /// Why, in one line.
    pub reason: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_kvm_under_tcg_is_a_lie() {
        assert!(!Name::Tcg.admits("kvm-clock"));
        assert!(Name::Tcg.admits("tsc") && Name::Kvm.admits("kvm-clock"));
        assert!(!Name::Kvm.admits("hpet"));
    }
}
