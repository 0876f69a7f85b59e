// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a case is: a sentence that it proves, what it needs, and the code that proves it.

use std::time::Duration;

/// What a case is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Group {
    /// Frames stand in the order that was promised.
    Ordering,
    /// Every frame belongs to exactly one side at any moment.
    Ownership,
    /// A ringed socket and a multicast group exclude each other, unless asked for both.
    Multicast,
    /// What cannot use the ring, or knows nothing of it, arrives all the same.
    Fallback,
    /// Messages that a program sends through a ring.
    Tx,
    /// Rings and mappings come and go: in order, in any order, and all at once.
    Lifetime,
    /// Who may have which ring, and what is refused.
    Limits,
    /// What wakes a waiting program, and what does not.
    Poll,
    /// Dumps go through the ring, whole.
    Dump,
    /// What others see of a ring.
    Diag,
    /// The series' own selftest passes.
    Kselftest,
    /// What the ring library promises, and its examples at work.
    Library,
    /// What the kernel does for a message, counted.
    Cost,
    /// The kernel's own selftests say the same with the series and without.
    Compat,
    /// What the kernel complains of is heard.
    Witness,
}

impl Group {
    /// Whether its cases, which need kernels of their own, are run only where they are asked for by
    /// group.
    #[must_use]
    pub fn is_on_request(self) -> bool {
        matches!(self, Self::Cost | Self::Compat | Self::Witness)
    }

    /// Whether its cases run the ring library's examples, which have to be there.
    #[must_use]
    pub fn runs_examples(self) -> bool {
        matches!(self, Self::Library)
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
    /// Two machines, of one kernel: `near0`, 10.9.0.1/24, where the case runs, and `far0`, 10.9.0.2/24, where its
    /// peer does.
    Apart,
}

/// What a case asks of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kernel {
    /// One with memory-mapped netlink.
    Ringed,
    /// One without it: unpatched, or with the option off.
    Plain,
    /// One that watches itself.
    Debug,
    /// Any.
    Any,
}

/// What is done in a guest.
pub type Act = fn(&mut Setting) -> anyhow::Result<()>;

/// Behind a case's name: what its other machine does.
pub const PEER: &str = "@peer";

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
    /// Whether no other VM may run beside its own.
    pub alone: bool,
    /// The splat that this case provokes, if it does: its kind, and what stands in its headline, as
    /// `kasan: use-after-free in f`. It passes if that comes and no other.
    pub expects_splat: Option<&'static str>,
    /// The [clauses](crate::clause) of which it would notice if one were broken: their ids, with spaces
    /// between them.
    pub proves: &'static str,
    /// Proves it.
    pub run: Act,
    /// What the other machine does meanwhile, where there is one.
    pub peer: Option<Act>,
}

impl Case {
    /// A case that needs no network but loopback, a kernel with rings, and five seconds.
    #[must_use]
    pub const fn new(group: Group, name: &'static str, run: Act) -> Self {
        Self {
            name,
            group,
            topology: Topology::None,
            kernel: Kernel::Ringed,
            deadline: Duration::from_secs(5),
            alone: false,
            expects_splat: None,
            proves: "",
            run,
            peer: None,
        }
    }

    /// The same across this many pairs of NICs.
    #[must_use]
    pub const fn across(self, pairs: u8) -> Self {
        let topology = Topology::Pairs(pairs);
        Self { topology, ..self }
    }

    /// The same with another machine, which does this meanwhile.
    #[must_use]
    pub const fn facing(self, peer: Act) -> Self {
        Self {
            topology: Topology::Apart,
            peer: Some(peer),
            ..self
        }
    }

    /// The same on this kind of kernel.
    #[must_use]
    pub const fn on(self, kernel: Kernel) -> Self {
        Self { kernel, ..self }
    }

    /// The same within this many seconds.
    #[must_use]
    pub const fn within(self, seconds: u64) -> Self {
        let deadline = Duration::from_secs(seconds);
        Self { deadline, ..self }
    }

    /// The same with no other VM beside it: for what another would disturb, as a measure of time.
    #[must_use]
    pub const fn alone(self) -> Self {
        Self {
            alone: true,
            ..self
        }
    }

    /// The same, which provokes this splat.
    #[must_use]
    pub const fn expecting(self, splat: &'static str) -> Self {
        Self {
            expects_splat: Some(splat),
            ..self
        }
    }

    /// The same, which would notice if one of these clauses were broken.
    #[must_use]
    pub const fn proves(self, proves: &'static str) -> Self {
        Self { proves, ..self }
    }

    /// The ids of the clauses of which it would notice if one were broken.
    pub fn clauses(&self) -> impl Iterator<Item = &'static str> + use<> {
        self.proves.split_whitespace()
    }
}

/// The case of this group whose name is its function's.
macro_rules! case {
    ($group:ident, $run:ident) => {
        $crate::Case::new($crate::Group::$group, stringify!($run), $run)
    };
}
pub(crate) use case;

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
