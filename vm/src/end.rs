// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a VM ended, or had to be ended, before it had done what it was for.

use std::fmt::{self, Display};
use std::path::PathBuf;

/// The ends there are. Which it was is found out from the outside in: what QEMU tells, whether it is
/// still there, whether the guest's agent still answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// The guest's kernel panicked, or reset its machine.
    Crash,
    /// QEMU ended or was killed, or the channel to the agent broke.
    Lost,
    /// The guest says nothing, also when its agent is asked whether it is there.
    Silence,
    /// The guest is alive, but what it was to do did not come in time.
    Deadline,
}

impl Display for Manner {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Crash => "crash",
            Self::Lost => "lost",
            Self::Silence => "silence",
            Self::Deadline => "deadline",
        })
    }
}

/// An end, and who saw what of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct End {
    /// Its name.
    pub manner: Manner,
    /// What happened, in one line.
    pub what: String,
    /// Whether the guest's kernel told of its panic by pvpanic, for which it needs no console.
    pub panicked: bool,
    /// What each witness says, a line each.
    pub witnesses: Vec<String>,
    /// The last line on the console.
    pub last: String,
    /// The console's log, whole.
    pub console: PathBuf,
}

impl End {
    /// Its name, what happened and what each witness says, a line each.
    #[must_use]
    pub fn evidence(&self) -> Vec<String> {
        let Self { manner, what, .. } = self;
        let end = format!("end of the VM: {manner}: {what}");
        std::iter::once(end).chain(self.witnesses.clone()).collect()
    }
}

impl Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            manner, what, last, ..
        } = self;
        let console = self.console.display();
        write!(
            formatter,
            "{manner}: {what}; last line: \"{last}\"; console: {console}"
        )
    }
}
