// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a case is: a sentence that it proves, what it needs, and the code that proves it.

use std::time::Duration;

/// The four reasons for which the project exists; more join them as the contract is covered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Frames stand in the order that was promised.
    Ordering,
    /// Every frame belongs to exactly one side at any moment.
    Ownership,
    /// A ringed socket and a multicast group exclude each other.
    Multicast,
    /// What cannot use the ring arrives by ordinary copying.
    Fallback,
    /// The series' own selftest passes.
    Kselftest,
    /// The kernel's own selftests say the same with the series and without.
    Compat,
}

impl Group {
    /// Whether its cases take so long that they are run only where they are asked for by group.
    #[must_use]
    pub fn is_on_request(self) -> bool {
        self == Self::Compat
    }
}

/// The network that a case runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Topology {
    /// Loopback only.
    None,
    /// This many pairs of virtio NICs, back to back: `near0` … in the case's own namespace with
    /// 10.9.0.1/24 …, `far0` … in the namespace `peer` with 10.9.0.2/24 ….
    Pairs(u8),
}

/// What a case asks of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// One with memory-mapped netlink.
    Ringed,
    /// One without it: unpatched, or with the option off.
    Plain,
    /// Either.
    Any,
}

/// A case.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    /// The sentence it proves, in `snake_case`.
    pub name: &'static str,
    /// Its group.
    pub group: Group,
    /// The network it needs.
    pub topology: Topology,
    /// The kernel it needs.
    pub kernel: Kernel,
    /// Its deadline on an idle machine with KVM; the harness scales it.
    pub deadline: Duration,
    /// What the kernel log must show, if this case provokes a splat on purpose.
    pub expects_splat: Option<&'static str>,
    /// Proves it.
    pub run: fn(&mut Setting) -> anyhow::Result<()>,
}

/// What a running case is given, and where it leaves its evidence.
#[derive(Debug)]
pub struct Setting {
    /// The case's name.
    pub case: &'static str,
    /// Seed of everything random in it.
    pub seed: u64,
    /// Multiplier on waits: 1 under KVM, larger where the machine is slower.
    pub patience: u32,
    evidence: Vec<String>,
}

impl Setting {
    /// A setting with no evidence yet.
    #[must_use]
    pub fn new(case: &'static str, seed: u64, patience: u32) -> Self {
        Self {
            case,
            seed,
            patience,
            evidence: Vec::new(),
        }
    }

    /// Leaves a line of evidence, kept with the verdict whatever that is.
    pub fn note(&mut self, line: impl Into<String>) {
        self.evidence.push(line.into());
    }

    /// What was left so far.
    #[must_use]
    pub fn evidence(&self) -> &[String] {
        &self.evidence
    }

    /// `duration`, scaled to the machine.
    #[must_use]
    pub fn patiently(&self, duration: Duration) -> Duration {
        duration * self.patience
    }
}

/// The requirement of a case is not met here: a skip, not a failure.
#[derive(Debug)]
pub struct Unmet(pub String);

impl std::fmt::Display for Unmet {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl std::error::Error for Unmet {}
