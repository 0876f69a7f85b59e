// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every wait's deadline, in causal order, so that one hang has one name: what is inside another
//! thing gives up before that thing does.

use std::time::Duration;

use crate::accelerator::Name;

/// The table, for an idle machine with KVM. Reasons beside the figures.
const TABLE: Deadlines = Deadlines {
    // A pace rather than a wait: the agent repeats its answer at each hello.
    hello: Duration::from_millis(50),
    // From a hello to the answer of an agent that is awake, which takes 2 ms: tells silence from a job that is late.
    answer: Duration::from_secs(1),
    // ACPI power-off takes 20 ms; after this QEMU is killed.
    power_off: Duration::from_secs(3),
    // Two `ip -batch` processes.
    set_up: Duration::from_secs(5),
    // From the agent's own deadline for a job to its word about it: kill, reap, send.
    word: Duration::from_secs(5),
    // A boot takes 0.3 s under KVM and 1.2 s under TCG; ten times that is a hang even on a busy host.
    boot: Duration::from_secs(6),
    // 25 MiB through a pipe, 0.15 s under TCG, on a machine that may be busy.
    save: Duration::from_secs(2),
    // The same the other way, 0.2 s, and a hello.
    restore: Duration::from_secs(2),
};

/// The probe is a question of KVM only, so it is never scaled: rule 1 allows it 6 s in all.
const PROBE: Duration = Duration::from_secs(5);

/// The table as it is for one VM.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Deadlines {
    hello: Duration,
    answer: Duration,
    power_off: Duration,
    set_up: Duration,
    word: Duration,
    boot: Duration,
    save: Duration,
    restore: Duration,
}

impl Deadlines {
    /// Under this accelerator, of a kernel that watches itself or not.
    #[must_use]
    pub fn of(accelerator: Name, debug: bool) -> Self {
        TABLE.scaled(f64::from(patience(accelerator, debug)))
    }

    /// For asking whether KVM works.
    #[must_use]
    pub fn of_probe() -> Self {
        Self {
            boot: PROBE,
            ..TABLE
        }
    }

    /// All waits times `factor`: above 1 for a debug kernel or a slow machine.
    #[must_use]
    pub fn scaled(self, factor: f64) -> Self {
        Self {
            hello: self.hello,
            answer: self.answer.mul_f64(factor),
            power_off: self.power_off.mul_f64(factor),
            set_up: self.set_up.mul_f64(factor),
            word: self.word.mul_f64(factor),
            boot: self.boot.mul_f64(factor),
            save: self.save.mul_f64(factor),
            restore: self.restore.mul_f64(factor),
        }
    }

    /// From the start of QEMU to the agent's first word.
    #[must_use]
    pub fn boot(self) -> Duration {
        self.boot
    }

    /// From the order to write a VM's state to its end.
    #[must_use]
    pub fn save(self) -> Duration {
        self.save
    }

    /// From the start of QEMU with such a state to the agent's first word.
    #[must_use]
    pub fn restore(self) -> Duration {
        self.restore
    }

    /// Between two hellos.
    #[must_use]
    pub fn hello(self) -> Duration {
        self.hello
    }

    /// From one hello to its answer, of an agent that has answered before.
    #[must_use]
    pub fn answer(self) -> Duration {
        self.answer
    }

    /// For the guest to bring its links up, before the job's own deadline begins.
    #[must_use]
    pub fn set_up(self) -> Duration {
        self.set_up
    }

    /// From handing over a job to its outcome, for a job whose own deadline in the guest is `job`.
    #[must_use]
    pub fn outcome(self, job: Duration) -> Duration {
        self.set_up + job + self.word
    }

    /// From the order to power off to the end of QEMU.
    #[must_use]
    pub fn power_off(self) -> Duration {
        self.power_off
    }
}

/// Multiplier on every wait in host and guest: how much slower than under KVM things may be under this
/// accelerator, and how much slower again with a kernel that watches itself.
#[must_use]
pub fn patience(accelerator: Name, debug: bool) -> u32 {
    let slow = match accelerator {
        Name::Kvm => 1,
        Name::Tcg => 5,
    };
    slow * if debug { 4 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inner_waits_end_before_outer_ones() {
        let ways = [Name::Kvm, Name::Tcg].map(|name| [(name, false), (name, true)]);
        for (name, debug) in ways.concat() {
            let deadlines = Deadlines::of(name, debug);
            let job = Duration::from_secs(30) * patience(name, debug);
            let order = [
                deadlines.hello() * 10,
                deadlines.answer(),
                deadlines.restore(),
                deadlines.power_off(),
                deadlines.boot(),
                deadlines.set_up() + job,
                deadlines.outcome(job),
            ];
            assert!(
                order.is_sorted_by(|inner, outer| inner < outer),
                "{name:?}: {order:?}"
            );
        }
        assert!(Deadlines::of_probe().boot() < Deadlines::of(Name::Kvm, false).boot());
        assert!(Deadlines::of_probe().boot() <= Duration::from_secs(6));
    }
}
