// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plain receiving, many messages by one call.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::{io, mem, ptr};

use crate::Error;
use crate::queue::{Taken, USUAL_ROOM, refused};

/// Messages by one call at most: enough that the call is a small part of what they cost.
const MESSAGES: usize = 32;

/// Messages that one `recvmmsg` took, handed on one by one.
#[derive(Debug)]
pub(crate) struct Batch {
    /// Room for each message, one behind the other; pages that no message reaches are never touched.
    bytes: Vec<u8>,
    /// Bytes for each.
    room: usize,
    /// What `room` is to be from the next call on.
    wanted: usize,
    /// The true length of each that came.
    lens: [usize; MESSAGES],
    came: usize,
    handed_on: usize,
}

impl Batch {
    pub(crate) fn new() -> Self {
        Self {
            bytes: vec![0; USUAL_ROOM * MESSAGES],
            room: USUAL_ROOM,
            wanted: USUAL_ROOM,
            lens: [0; MESSAGES],
            came: 0,
            handed_on: 0,
        }
    }

    /// Makes room for messages of this many bytes, from those on that are not in the batch yet.
    pub(crate) fn grow(&mut self, room: usize) {
        self.wanted = self.wanted.max(room);
    }

    /// Whether there is a message that costs no call.
    pub(crate) fn holds_more(&self) -> bool {
        self.handed_on < self.came
    }

    /// The next message, which [`message`](Self::message) then has.
    pub(crate) fn take(&mut self, socket: BorrowedFd<'_>) -> Result<Taken, Error> {
        if !self.holds_more() {
            if self.wanted > self.room {
                self.room = self.wanted;
                self.bytes.resize(self.room * MESSAGES, 0);
            }
            self.handed_on = 0;
            self.came = 0;
            self.came = match self.receive(socket) {
                Ok(came) => came,
                Err(error) => return refused(error),
            };
        }
        let len = self.lens[self.handed_on];
        self.handed_on += 1;
        if len > self.room {
            let room = self.room;
            return Err(Error::Truncated { len, room });
        }
        Ok(Taken::Message(len))
    }

    /// The message that was taken last.
    pub(crate) fn message(&self, len: usize) -> &[u8] {
        let begin = (self.handed_on - 1) * self.room;
        &self.bytes[begin..begin + len]
    }

    /// Fills the batch with what is there, at least one message.
    fn receive(&mut self, socket: BorrowedFd<'_>) -> io::Result<usize> {
        let mut rooms = self.bytes.chunks_exact_mut(self.room);
        let mut parts = [libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: self.room,
        }; MESSAGES];
        // SAFETY: all zeros is a header that names no memory.
        let mut headers: [libc::mmsghdr; MESSAGES] = unsafe { mem::zeroed() };
        for (header, part) in headers.iter_mut().zip(&mut parts) {
            part.iov_base = rooms.next().expect("room for each").as_mut_ptr().cast();
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
        }
        loop {
            // SAFETY: every header names one part, and that a room of ours of its own.
            let came = unsafe {
                libc::recvmmsg(
                    socket.as_fd().as_raw_fd(),
                    headers.as_mut_ptr(),
                    MESSAGES as libc::c_uint,
                    libc::MSG_DONTWAIT | libc::MSG_TRUNC,
                    ptr::null_mut(),
                )
            };
            if let Ok(came) = usize::try_from(came) {
                for (len, header) in self.lens.iter_mut().zip(&headers[..came]) {
                    *len = header.msg_len as usize;
                }
                return Ok(came);
            }
            let error = io::Error::last_os_error();
            if error.raw_os_error() != Some(libc::EINTR) {
                return Err(error);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixDatagram;

    use super::*;

    #[test]
    fn messages_come_whole_and_in_order_across_calls() {
        let (near, far) = UnixDatagram::pair().unwrap();
        let mut batch = Batch::new();
        let wait = |batch: &mut Batch| batch.take(near.as_fd()).unwrap();
        assert_eq!(wait(&mut batch), Taken::Nothing);
        for round in 0..3 {
            let count = [1, MESSAGES, MESSAGES + 5][round];
            for number in 0..count {
                far.send(&vec![number as u8; number + 1]).unwrap();
            }
            for number in 0..count {
                let len = number + 1;
                assert_eq!(wait(&mut batch), Taken::Message(len));
                assert_eq!(batch.message(len), vec![number as u8; len]);
            }
            assert_eq!(wait(&mut batch), Taken::Nothing);
        }
    }

    #[test]
    fn what_is_cut_off_is_an_error_and_room_can_be_made() {
        let (near, far) = UnixDatagram::pair().unwrap();
        let mut batch = Batch::new();
        let large = USUAL_ROOM + 1;
        far.send(&vec![1; large]).unwrap();
        far.send(b"behind").unwrap();
        let error = batch.take(near.as_fd()).unwrap_err();
        assert!(matches!(error, Error::Truncated { len, .. } if len == large));
        batch.grow(large);
        assert_eq!(batch.take(near.as_fd()).unwrap(), Taken::Message(6));
        assert_eq!(batch.message(6), b"behind");
        far.send(&vec![2; large]).unwrap();
        assert_eq!(batch.take(near.as_fd()).unwrap(), Taken::Message(large));
        assert_eq!(batch.message(large), vec![2; large]);
    }
}
