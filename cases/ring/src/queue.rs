// SPDX-License-Identifier: MIT OR Apache-2.0
//! The socket's own queue: what `recvmsg` gives.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::Error;

/// Room for whatever a kernel of today sends without being asked for more: a packet of 64 KiB with
/// its attributes (`nfnetlink_queue`), a part of a dump (32 KiB), a message queue's cookie (32
/// bytes).
pub(crate) const USUAL_ROOM: usize = 128 * 1024;

/// A buffer that is reused from message to message.
#[derive(Debug)]
pub(crate) struct Buffer {
    bytes: Vec<u8>,
}

impl Buffer {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; USUAL_ROOM],
        }
    }

    pub(crate) fn grow(&mut self, room: usize) {
        if self.bytes.len() < room {
            self.bytes.resize(room, 0);
        }
    }

    pub(crate) fn message(&self, len: usize) -> &[u8] {
        &self.bytes[..len]
    }

    #[cfg(test)]
    pub(crate) fn fill(&mut self, message: &[u8]) -> usize {
        self.grow(message.len());
        self.bytes[..message.len()].copy_from_slice(message);
        message.len()
    }
}

/// What was in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// A message of this many bytes, now in the buffer.
    Message(usize),
    /// Nothing.
    Nothing,
    /// `ENOBUFS`: messages were dropped since it was last said.
    Lost,
}

/// Where messages without room in a frame wait.
pub(crate) trait Queue {
    /// Takes the next message. `announced` is a length that nobody vouches for.
    fn take(&self, buffer: &mut Buffer, announced: Option<u32>) -> Result<Taken, Error>;
}

/// The queue of a netlink socket.
#[derive(Debug)]
pub(crate) struct SocketQueue<'a>(pub(crate) BorrowedFd<'a>);

impl Queue for SocketQueue<'_> {
    fn take(&self, buffer: &mut Buffer, announced: Option<u32>) -> Result<Taken, Error> {
        if announced.is_some_and(|len| len as usize > buffer.bytes.len()) {
            // A frame's word alone gets no memory from us: the socket tells the true length.
            match receive(self.0, &mut [], libc::MSG_PEEK | libc::MSG_TRUNC)? {
                Taken::Message(len) => buffer.grow(len),
                otherwise => return Ok(otherwise),
            }
        }
        let room = buffer.bytes.len();
        match receive(self.0, &mut buffer.bytes, libc::MSG_TRUNC)? {
            Taken::Message(len) if len > room => Err(Error::Truncated { len, room }),
            taken => Ok(taken),
        }
    }
}

/// One `recv` that never waits; with `MSG_TRUNC` it tells the message's true length.
fn receive(socket: BorrowedFd<'_>, room: &mut [u8], flags: libc::c_int) -> Result<Taken, Error> {
    loop {
        // SAFETY: `room` is ours to write to for its whole length.
        let received = unsafe {
            libc::recv(
                socket.as_fd().as_raw_fd(),
                room.as_mut_ptr().cast(),
                room.len(),
                flags | libc::MSG_DONTWAIT,
            )
        };
        if let Ok(len) = usize::try_from(received) {
            return Ok(Taken::Message(len));
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::EINTR) {
            return refused(error);
        }
    }
}

/// What it means that receiving was refused.
pub(crate) fn refused(error: io::Error) -> Result<Taken, Error> {
    match error.raw_os_error() {
        Some(libc::EAGAIN) => Ok(Taken::Nothing),
        Some(libc::ENOBUFS) => Ok(Taken::Lost),
        _ => Err(Error::System {
            what: "receive from the netlink socket",
            source: error,
        }),
    }
}

/// Messages that were dropped at this socket since it was opened, where the kernel counts them
/// (since Linux 4.12).
pub(crate) fn drops(socket: BorrowedFd<'_>) -> Option<u32> {
    /// `SK_MEMINFO_VARS`, and `SK_MEMINFO_DROPS`, which is the last of them.
    const WORDS: usize = 9;
    let mut words = [0_u32; WORDS];
    let mut len = size_of_val(&words) as libc::socklen_t;
    // SAFETY: `words` is writable for `len` bytes, and `len` itself is ours.
    let refused = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MEMINFO,
            words.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    let whole = refused == 0 && len as usize >= size_of_val(&words);
    whole.then_some(words[WORDS - 1])
}
