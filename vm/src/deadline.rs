// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every wait's deadline, in causal order, so that one hang has one name: what is inside another
//! thing gives up before that thing does.

use std::time::Duration;

use crate::accelerator::Name;

/// The table, for an idle machine with KVM. Reasons beside the figures.
const TABLE: Table = Table {
    // A boot takes 0.3 s under KVM and 1.2 s under TCG; ten times that is a hang even on a busy host.
    boot: Duration::from_secs(6),
    // The agent repeats its answer at each hello, and hellos come faster than this.
    hello: Duration::from_millis(50),
    // Two `ip -batch` processes.
    set_up: Duration::from_secs(5),
    // From the agent's own deadline for a job to its word about it: kill, reap, send.
    word: Duration::from_secs(5),
    // ACPI power-off takes 20 ms; after this QEMU is killed.
    power_off: Duration::from_secs(3),
};

/// The probe is a question of KVM only, so it is never scaled: rule 1 allows it 6 s in all.
pub const PROBE: Duration = Duration::from_secs(5);

#[derive(Debug, Clone, Copy)]
struct Table {
    boot: Duration,
    hello: Duration,
    set_up: Duration,
    word: Duration,
    power_off: Duration,
}

/// The table as it is under one accelerator.
#[derive(Debug, Clone, Copy)]
pub struct Deadlines {
    patience: u32,
}

impl Deadlines {
    /// Under this accelerator.
    #[must_use]
    pub fn of(accelerator: Name) -> Self {
        Self {
            patience: patience(accelerator),
        }
    }

    /// From the start of QEMU to the agent's first word.
    #[must_use]
    pub fn boot(self) -> Duration {
        TABLE.boot * self.patience
    }

    /// Between two hellos; a pace, so it is not scaled.
    #[must_use]
    pub fn hello(self) -> Duration {
        TABLE.hello
    }

    /// For the guest to bring its links up, before the job's own deadline begins.
    #[must_use]
    pub fn set_up(self) -> Duration {
        TABLE.set_up * self.patience
    }

    /// From handing over a job to its outcome, for a job whose own deadline in the guest is `job`.
    #[must_use]
    pub fn outcome(self, job: Duration) -> Duration {
        self.set_up() + job + TABLE.word * self.patience
    }

    /// From the order to power off to the end of QEMU.
    #[must_use]
    pub fn power_off(self) -> Duration {
        TABLE.power_off * self.patience
    }
}

/// Multiplier on every wait in host and guest: how much slower this accelerator may be than KVM.
#[must_use]
pub fn patience(accelerator: Name) -> u32 {
    match accelerator {
        Name::Kvm => 1,
        Name::Tcg => 5,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_waits_end_before_outer_ones() {
        for name in [Name::Kvm, Name::Tcg] {
            let deadlines = Deadlines::of(name);
            let job = Duration::from_secs(30) * patience(name);
            let order = [
                deadlines.hello(),
                deadlines.power_off(),
                deadlines.boot(),
                deadlines.outcome(job),
            ];
            assert!(order.is_sorted(), "{name:?}: {order:?}");
            assert!(deadlines.set_up() + job < deadlines.outcome(job));
            assert!(deadlines.hello() * 10 < deadlines.boot());
        }
        assert!(PROBE < Deadlines::of(Name::Kvm).boot());
        assert!(Deadlines::of(Name::Kvm).boot() <= Duration::from_secs(6));
    }
}
