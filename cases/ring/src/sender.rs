// SPDX-License-Identifier: MIT OR Apache-2.0
//! Sending through a TX ring, or as through one.
//!
//! Frames are filled in ring order and marked `VALID`; one call, an empty send, makes the kernel
//! take them all in that order. It copies each message before it looks at it, so a frame is ours
//! again as soon as it reads `UNUSED`.
//!
//! On a kernel without rings the frames are memory of our own and a flush is `sendmmsg`, with the
//! same outcome: what went out is free, what was refused stays and is the first of the next flush.

use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::{mem, ptr};

use crate::geometry::Place;
use crate::mapping::Mapping;
use crate::writer::Writer;
use crate::{Error, FrameError, Geometry, Path, Socket, Status};

/// Messages by one `sendmmsg` at most.
const MESSAGES: usize = 32;

/// The sending end of a netlink socket.
#[derive(Debug)]
pub struct Sender {
    mapping: Mapping,
    writer: Writer,
    path: Path,
    socket: Socket,
}

impl Sender {
    pub(crate) fn ringed(socket: Socket, mapping: Mapping) -> Self {
        Self::new(socket, mapping, Path::Ring)
    }

    /// # Errors
    /// No memory for frames of this shape.
    pub(crate) fn plain(socket: Socket, geometry: Geometry) -> Result<Self, Error> {
        let mapping = Mapping::anonymous(geometry)?;
        Ok(Self::new(socket, mapping, Path::Plain))
    }

    fn new(socket: Socket, mapping: Mapping, path: Path) -> Self {
        Self {
            writer: Writer::new(mapping.geometry()),
            mapping,
            path,
            socket,
        }
    }

    /// Whether there is a ring.
    #[must_use]
    pub fn path(&self) -> Path {
        self.path
    }

    /// The shape of the ring, or of the memory in its place.
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
        let free = self.writer.free(&self.mapping)?;
        Ok(free.map(|frame| Slot {
            sender: self,
            frame,
        }))
    }

    /// Sends every frame that was submitted, and tells how many bytes went out: less than was
    /// submitted if a signal came or a message was refused, 0 if there was none.
    ///
    /// # Errors
    ///
    /// The error with which the first message was refused: it stays where it is and is the first of
    /// the next flush, until that succeeds or [`take_back`](Self::take_back) gives it up.
    pub fn flush(&mut self) -> Result<usize, Error> {
        match self.path {
            Path::Ring => self.flush_ring(),
            Path::Plain => self.flush_plain(),
        }
    }

    fn flush_ring(&self) -> Result<usize, Error> {
        // SAFETY: an empty send from nowhere reads no memory of ours.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_fd().as_raw_fd(),
                ptr::null(),
                0,
                0,
                ptr::null(),
                0,
            )
        };
        usize::try_from(sent).map_err(|_| Error::last_os("flush the TX ring"))
    }

    fn flush_plain(&mut self) -> Result<usize, Error> {
        let mut bytes = 0;
        loop {
            match self.send_some() {
                Ok(0) => return Ok(bytes),
                Ok(sent) => bytes += sent,
                Err(_) if bytes > 0 => return Ok(bytes),
                Err(error) => return Err(error),
            }
        }
    }

    /// Sends what one call can, and tells its bytes; 0 if nothing waits.
    fn send_some(&mut self) -> Result<usize, Error> {
        let (first, waiting) = self.writer.unsent(&self.mapping)?;
        let mut parts = [libc::iovec {
            iov_base: ptr::null_mut(),
            iov_len: 0,
        }; MESSAGES];
        // SAFETY: all zeros is a header that names no memory.
        let mut headers: [libc::mmsghdr; MESSAGES] = unsafe { mem::zeroed() };
        let (mut frame, mut count) = (first, 0);
        for (header, part) in headers.iter_mut().zip(&mut parts) {
            if count == waiting || self.mapping.status(frame)? != Status::Valid {
                break;
            }
            let message = self.mapping.message(frame, self.mapping.len(frame));
            part.iov_base = message.as_ptr().cast_mut().cast();
            part.iov_len = message.len();
            header.msg_hdr.msg_iov = part;
            header.msg_hdr.msg_iovlen = 1;
            self.geometry().advance(&mut frame);
            count += 1;
        }
        if count == 0 {
            return Ok(0);
        }
        // SAFETY: the first `count` headers name one part each, and that a message in our memory.
        let sent = unsafe {
            libc::sendmmsg(
                self.socket.as_fd().as_raw_fd(),
                headers.as_mut_ptr(),
                count,
                0,
            )
        };
        let sent = usize::try_from(sent).map_err(|_| Error::last_os("send to the kernel"))?;
        frame = first;
        for _ in 0..sent {
            self.mapping.set_status(frame, Status::Unused);
            self.geometry().advance(&mut frame);
        }
        Ok(headers[..sent]
            .iter()
            .map(|header| header.msg_len as usize)
            .sum())
    }

    /// Gives up the message with which the next flush would begin, the one that the last flush was
    /// refused: it is not sent, and what is behind it can go. False if nothing waits.
    ///
    /// # Errors
    ///
    /// A frame whose status means nothing: something else writes to the ring.
    pub fn take_back(&mut self) -> Result<bool, FrameError> {
        let freed = match self.path {
            // The kernel steps over it, and gives it back as it does.
            Path::Ring => Status::Skip,
            Path::Plain => Status::Unused,
        };
        self.writer.take_back(&self.mapping, freed)
    }
}

impl AsFd for Sender {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Sender {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}

/// A free frame of a TX ring. Dereferences to its room, in which earlier messages may be left.
#[derive(Debug)]
pub struct Slot<'a> {
    sender: &'a mut Sender,
    frame: Place,
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
            mapping, writer, ..
        } = self.sender;
        let room = mapping.geometry().room();
        let len = u32::try_from(len)
            .ok()
            .filter(|len| (1..=room).contains(len));
        writer.submit(mapping, len.expect("a message that fits the frame"));
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
        sender.mapping.message(self.frame, room)
    }
}

impl DerefMut for Slot<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        self.sender.mapping.room_mut(self.frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::abi;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixDatagram;
    use std::sync::atomic::Ordering;

    fn geometry() -> Geometry {
        Geometry::from_request(4096, 2, 2048, 4).unwrap()
    }

    fn sender() -> Sender {
        let no_netlink = OwnedFd::from(UnixDatagram::unbound().unwrap());
        Sender::ringed(no_netlink.into(), Mapping::anonymous(geometry()).unwrap())
    }

    fn plain_sender() -> (Sender, UnixDatagram) {
        let (near, far) = UnixDatagram::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        let near = OwnedFd::from(near);
        (Sender::plain(near.into(), geometry()).unwrap(), far)
    }

    fn received(socket: &UnixDatagram) -> Option<Vec<u8>> {
        let mut room = [0; 4096];
        let len = socket.recv(&mut room).ok()?;
        Some(room[..len].to_vec())
    }

    #[test]
    fn without_a_ring_messages_go_out_in_order_and_frames_are_free_again() {
        let (mut sender, far) = plain_sender();
        assert_eq!(sender.path(), Path::Plain);
        assert_eq!(sender.flush().unwrap(), 0);
        let mut number = 0_u8;
        for batch in [1, 4, 3, 2, 4] {
            for _ in 0..batch {
                number += 1;
                sender
                    .slot()
                    .unwrap()
                    .expect("a free frame")
                    .send(&[number; 30]);
            }
            assert_eq!(sender.slot().unwrap().is_none(), batch == 4);
            assert_eq!(sender.flush().unwrap(), 30 * usize::from(batch));
            for sent in number - batch + 1..=number {
                assert_eq!(received(&far), Some(vec![sent; 30]));
            }
            assert_eq!(received(&far), None);
        }
    }

    #[test]
    fn what_is_refused_stays_and_can_be_taken_back() {
        let (mut sender, far) = plain_sender();
        let free = |sender: &mut Sender| sender.slot().unwrap().is_some();
        for number in 1..=3 {
            sender
                .slot()
                .unwrap()
                .expect("a free frame")
                .send(&[number; 9]);
        }
        drop(far); // from now on every message is refused
        for _ in 0..2 {
            assert!(sender.flush().unwrap_err().raw_os_error().is_some());
        }
        for _ in 0..3 {
            assert!(sender.take_back().unwrap());
        }
        assert!(!sender.take_back().unwrap());
        assert_eq!(sender.flush().unwrap(), 0);
        for _ in 0..4 {
            assert!(free(&mut sender));
            sender.slot().unwrap().expect("a free frame").send(&[4]);
        }
        assert!(!free(&mut sender));
    }

    #[test]
    fn a_message_that_is_taken_back_from_a_ring_is_skipped() {
        let mut sender = sender();
        assert!(!sender.take_back().unwrap());
        for number in 0..4 {
            sender
                .slot()
                .unwrap()
                .expect("a free frame")
                .send(&[number]);
        }
        sender
            .mapping
            .set_status(sender.mapping.place(0), Status::Unused); // the kernel has sent it, and refused the next
        assert!(sender.take_back().unwrap());
        assert_eq!(
            sender.mapping.status(sender.mapping.place(1)),
            Ok(Status::Skip)
        );
        assert!(sender.take_back().unwrap());
        assert_eq!(
            sender.mapping.status(sender.mapping.place(2)),
            Ok(Status::Skip)
        );
        assert_eq!(
            sender.mapping.status(sender.mapping.place(3)),
            Ok(Status::Valid)
        );
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
            assert_eq!(
                sender.mapping.status(sender.mapping.place(frame)),
                Ok(Status::Valid)
            );
            assert_eq!(sender.mapping.len(sender.mapping.place(frame)), 20);
            assert_eq!(
                sender.mapping.message(sender.mapping.place(frame), 20),
                [frame as u8 + 1; 20]
            );
        }
        sender
            .mapping
            .set_status(sender.mapping.place(0), Status::Unused);
        sender.slot().unwrap().expect("the freed frame").send(&[9]);
        assert_eq!(sender.mapping.message(sender.mapping.place(0), 1), [9]);
        assert!(sender.slot().unwrap().is_none());
    }

    #[test]
    fn a_slot_that_is_not_submitted_stays_free() {
        let mut sender = sender();
        sender.slot().unwrap().expect("a free frame")[0] = 1;
        assert_eq!(
            sender.mapping.status(sender.mapping.place(0)),
            Ok(Status::Unused)
        );
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
            .word(sender.mapping.place(0), abi::STATUS)
            .store(word, Ordering::Relaxed);
        let error = sender.slot().unwrap_err();
        assert_eq!(error, FrameError::Status { frame: 0, word });
    }
}
