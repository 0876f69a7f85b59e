// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sending through a TX ring.
//!
//! Frames are filled in ring order and marked `VALID`; one call, an empty send, makes the kernel
//! take them all in that order. It copies each message before it looks at it, so a frame is ours
//! again as soon as it reads `UNUSED`.

use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use crate::mapping::Mapping;
use crate::{Error, FrameError, Geometry, Socket, Status};

/// The sending end of a netlink socket with a TX ring.
#[derive(Debug)]
pub struct Sender {
    mapping: Mapping,
    /// The frame that is filled next.
    position: u32,
    socket: Socket,
}

impl Sender {
    pub(crate) fn new(socket: Socket, mapping: Mapping) -> Self {
        Self {
            mapping,
            position: 0,
            socket,
        }
    }

    /// The ring's shape.
    #[must_use]
    pub fn geometry(&self) -> &Geometry {
        self.mapping.geometry()
    }

    /// The socket, to ask things of.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// The next frame to write to; `None` if every frame waits to be sent.
    ///
    /// # Errors
    ///
    /// A frame whose status means nothing: something else writes to the ring.
    pub fn slot(&mut self) -> Result<Option<Slot<'_>>, FrameError> {
        match self.mapping.status(self.position)? {
            Status::Unused => Ok(Some(Slot { sender: self })),
            _ => Ok(None),
        }
    }

    /// Sends every frame that was submitted, and tells how many bytes went out: less than was
    /// submitted if a signal came or a message was refused, 0 if there was none.
    ///
    /// # Errors
    ///
    /// The error with which the first message was refused: it stays in the ring and is the first of
    /// the next flush.
    pub fn flush(&self) -> Result<usize, Error> {
        // SAFETY: an empty send from nowhere reads no memory of ours.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_fd().as_raw_fd(),
                std::ptr::null(),
                0,
                0,
                std::ptr::null(),
                0,
            )
        };
        usize::try_from(sent).map_err(|_| Error::last_os("flush the TX ring"))
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// A free frame of a TX ring. Dereferences to its room, in which earlier messages may be left.
#[derive(Debug)]
pub struct Slot<'a> {
    sender: &'a mut Sender,
}

impl Slot<'_> {
    /// The first `len` bytes of the room, one or more netlink messages back to back, go out with
    /// the next [`flush`](Sender::flush).
    ///
    /// # Panics
    ///
    /// If `len` is 0 or more than the room: the kernel would refuse the frame.
    pub fn submit(self, len: usize) {
        let Sender {
            mapping, position, ..
        } = self.sender;
        let room = mapping.geometry().room();
        let len = u32::try_from(len)
            .ok()
            .filter(|len| (1..=room).contains(len));
        mapping.set_len(*position, len.expect("a message that fits the frame"));
        mapping.set_status(*position, Status::Valid);
        *position = mapping.geometry().behind(*position);
    }

    /// Writes these messages and submits them.
    ///
    /// # Panics
    ///
    /// As [`submit`](Self::submit).
    pub fn send(mut self, messages: &[u8]) {
        self[..messages.len()].copy_from_slice(messages);
        self.submit(messages.len());
    }
}

impl Deref for Slot<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        let sender = &self.sender;
        let room = sender.mapping.geometry().room();
        sender.mapping.message(sender.position, room)
    }
}

impl DerefMut for Slot<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.sender.mapping.room_mut(self.sender.position)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;
    use std::sync::atomic::Ordering;

    fn sender() -> Sender {
        let geometry = Geometry::from_request(4096, 2, 2048, 4).unwrap();
        let no_netlink = OwnedFd::from(UnixDatagram::unbound().unwrap());
        Sender::new(no_netlink.into(), Mapping::anonymous(geometry))
    }

    #[test]
    fn frames_are_filled_in_order_until_none_is_free() {
        let mut sender = sender();
        for number in 1..=4_u8 {
            let slot = sender.slot().unwrap().expect("a free frame");
            slot.send(&[number; 20]);
        }
        assert!(sender.slot().unwrap().is_none());
        for frame in 0..4 {
            assert_eq!(sender.mapping.status(frame), Ok(Status::Valid));
            assert_eq!(sender.mapping.len(frame), 20);
            assert_eq!(sender.mapping.message(frame, 20), [frame as u8 + 1; 20]);
        }
        sender.mapping.set_status(0, Status::Unused);
        sender.slot().unwrap().expect("the freed frame").send(&[9]);
        assert_eq!(sender.mapping.message(0, 1), [9]);
        assert!(sender.slot().unwrap().is_none());
    }

    #[test]
    fn a_slot_that_is_not_submitted_stays_free() {
        let mut sender = sender();
        sender.slot().unwrap().expect("a free frame")[0] = 1;
        assert_eq!(sender.mapping.status(0), Ok(Status::Unused));
        assert!(sender.slot().unwrap().is_some());
    }

    #[test]
    #[should_panic(expected = "a message that fits the frame")]
    fn nothing_is_no_message() {
        sender().slot().unwrap().expect("a free frame").submit(0);
    }

    #[test]
    fn a_status_without_meaning_is_an_error() {
        let mut sender = sender();
        let word = 77;
        sender
            .mapping
            .word(0, abi::STATUS)
            .store(word, Ordering::Relaxed);
        let error = sender.slot().unwrap_err();
        assert_eq!(error, FrameError::Status { frame: 0, word });
    }
}
