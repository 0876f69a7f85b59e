// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong, in one line each.

use std::io;

/// Why a ring or its socket could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A system call failed.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// A frame's header breaks the contract: something else wrote to the ring.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// A frame announced a message in the queue and there was none: somebody else reads from this
    /// socket. The frame was given back; receiving goes on.
    #[error(
        "frame {frame} announced a message of {len} bytes in the queue, where there was none: let one reader have the socket"
    )]
    NothingToCopy {
        /// The frame's number.
        frame: u32,
        /// The length it announced, in bytes.
        len: u32,
    },
    /// A message in the queue was larger than the buffer and its end is lost. Receiving goes on.
    #[error(
        "a message of {len} bytes was cut off at {room}: raise the room with Receiver::expect_messages_of"
    )]
    Truncated {
        /// Its true length, in bytes.
        len: usize,
        /// The buffer's, in bytes.
        room: usize,
    },
}

/// A frame that does not keep the contract. The kernel writes no such frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum FrameError {
    /// `nm_status` is none of the five. Nobody can say whose frame it is, so the reader stays
    /// where it is: unmap the ring and set it up anew.
    #[error("frame {frame} has status {word:#x}, which means nothing: set the ring up anew")]
    Status {
        /// The frame's number.
        frame: u32,
        /// The word found.
        word: u32,
    },
    /// `nm_len` exceeds the frame's room. The frame was given back; receiving goes on.
    #[error("frame {frame} claims {len} bytes where {room} fit: its message is lost")]
    Length {
        /// The frame's number.
        frame: u32,
        /// The length claimed, in bytes.
        len: u32,
        /// The room there is, in bytes.
        room: u32,
    },
}

impl Error {
    /// The error of the system call that just failed.
    pub(crate) fn last_os(what: &'static str) -> Self {
        Self::System {
            what,
            source: io::Error::last_os_error(),
        }
    }

    /// The kernel's error number, where it was the kernel that refused.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::System { source, .. } => source.raw_os_error(),
            _ => None,
        }
    }
}
