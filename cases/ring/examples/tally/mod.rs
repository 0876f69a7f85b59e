// SPDX-License-Identifier: MIT OR Apache-2.0
//! By which ways messages came, for the last line of every example.

use std::fmt;

use nlring::Received;

/// Messages by the way they took.
#[derive(Debug, Default)]
pub struct Tally {
    frames: u64,
    copied: u64,
    /// Times that messages were lost, and how many where the kernel counts them.
    losses: u64,
    lost: u64,
}

impl Tally {
    /// Counts one.
    pub fn count(&mut self, received: &Received<'_>) {
        match received {
            Received::Frame(_) => self.frames += 1,
            Received::Copied(_) => self.copied += 1,
            Received::Lost { messages } => {
                self.losses += 1;
                self.lost += u64::from(messages.unwrap_or(0));
            }
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "{} in frames, {} copied, {} lost ({} times)",
            self.frames, self.copied, self.lost, self.losses
        )
    }
}
