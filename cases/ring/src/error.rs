// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong, in one line each.

use std::io;

/// Why a ring or its socket could not do what was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `ENOPROTOOPT`: the kernel has no memory-mapped netlink, or is older than it.
    #[error(
        "cannot {what}: this kernel has no memory-mapped netlink; use the socket without a ring"
    )]
    NoRings {
        /// What was tried.
        what: &'static str,
    },
    /// `EPERM`: rings are for those who may administer the network.
    #[error(
        "cannot {what}: CAP_NET_ADMIN is missing in the user namespace that owns the socket's network namespace; \
         run as root, or with that capability"
    )]
    NotPermitted {
        /// What was tried.
        what: &'static str,
    },
    /// `ENOMEM`: the machine, or the memory cgroup that is charged for it, has not that much.
    #[error(
        "cannot {what}: no memory for {bytes} bytes; ask for fewer frames, or raise the memory cgroup's limit"
    )]
    NoMemory {
        /// What was tried.
        what: &'static str,
        /// The ring's size, in bytes.
        bytes: usize,
    },
    /// `EBUSY`: the socket has such a ring already, or one of its rings is mapped.
    #[error(
        "cannot {what}: the socket has that ring, or has one mapped; unmap and tear down first"
    )]
    Busy {
        /// What was tried.
        what: &'static str,
    },
    /// `EOPNOTSUPP`: the socket is in a multicast group.
    #[error(
        "cannot {what}: the socket is in a multicast group; leave it, or ask for Flags::MULTICAST"
    )]
    InGroup {
        /// What was tried.
        what: &'static str,
    },
    /// `EOPNOTSUPP`: the socket has an RX ring, and was not to be in groups.
    #[error(
        "cannot join multicast group {group}: the socket has an RX ring that was set up without Flags::MULTICAST; \
         set it up with that, or listen on another socket"
    )]
    RefusesGroups {
        /// The group's number.
        group: u32,
    },
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

    /// What it means that the kernel refused to do `what` to a ring of this many bytes.
    pub(crate) fn refusal(what: &'static str, bytes: usize, source: io::Error) -> Self {
        match source.raw_os_error() {
            Some(libc::ENOPROTOOPT) => Self::NoRings { what },
            Some(libc::EPERM) => Self::NotPermitted { what },
            Some(libc::ENOMEM) => Self::NoMemory { what, bytes },
            Some(libc::EBUSY) => Self::Busy { what },
            Some(libc::EOPNOTSUPP) => Self::InGroup { what },
            _ => Self::System { what, source },
        }
    }

    /// The kernel's error number, where it was the kernel that refused.
    #[must_use]
    pub fn raw_os_error(&self) -> Option<i32> {
        match self {
            Self::NoRings { .. } => Some(libc::ENOPROTOOPT),
            Self::NotPermitted { .. } => Some(libc::EPERM),
            Self::NoMemory { .. } => Some(libc::ENOMEM),
            Self::Busy { .. } => Some(libc::EBUSY),
            Self::InGroup { .. } | Self::RefusesGroups { .. } => Some(libc::EOPNOTSUPP),
            Self::System { source, .. } => source.raw_os_error(),
            Self::Frame(_) | Self::NothingToCopy { .. } | Self::Truncated { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_keeps_its_number_and_says_what_to_do() {
        let table = [
            (libc::ENOPROTOOPT, "no memory-mapped netlink"),
            (libc::EPERM, "CAP_NET_ADMIN"),
            (libc::ENOMEM, "8192 bytes"),
            (libc::EBUSY, "tear down first"),
            (libc::EOPNOTSUPP, "Flags::MULTICAST"),
            (libc::EINVAL, "Invalid argument"),
        ];
        for (errno, hint) in table {
            let source = io::Error::from_raw_os_error(errno);
            let error = Error::refusal("set up an RX ring", 8192, source);
            let words = error.to_string();
            assert_eq!(error.raw_os_error(), Some(errno));
            assert!(words.starts_with("cannot set up an RX ring: "), "{words}");
            assert!(words.contains(hint) && !words.contains('\n'), "{words}");
        }
    }
}
