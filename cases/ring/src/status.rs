// SPDX-License-Identifier: MIT OR Apache-2.0
//! Who owns a frame.

/// `nm_status` of a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Status {
    /// The kernel may take it.
    Unused,
    /// The kernel is filling it.
    Reserved,
    /// It holds a message for us.
    Valid,
    /// Its message did not fit and waits in the socket's queue.
    Copy,
    /// We keep it for later; the kernel steps over it.
    Skip,
}

impl Status {
    /// The word in shared memory.
    #[must_use]
    pub const fn word(self) -> u32 {
        match self {
            Self::Unused => 0,
            Self::Reserved => 1,
            Self::Valid => 2,
            Self::Copy => 3,
            Self::Skip => 4,
        }
    }

    /// The status that this word stands for; `None` for any other number, which only a program
    /// that scribbles on its own ring can put there.
    #[must_use]
    pub const fn from_word(word: u32) -> Option<Self> {
        match word {
            0 => Some(Self::Unused),
            1 => Some(Self::Reserved),
            2 => Some(Self::Valid),
            3 => Some(Self::Copy),
            4 => Some(Self::Skip),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Status;

    #[test]
    fn every_word_is_either_a_status_or_nothing() {
        for word in 0..5 {
            assert_eq!(Status::from_word(word).map(Status::word), Some(word));
        }
        assert_eq!(Status::from_word(5), None);
        assert_eq!(Status::from_word(u32::MAX), None);
    }
}
