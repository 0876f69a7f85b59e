// SPDX-License-Identifier: MIT OR Apache-2.0
//! Receiving, with or without a ring.

use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::time::{Duration, Instant};

use crate::batch::Batch;
use crate::frame::Frame;
use crate::inbox::{Arrival, Inbox};
use crate::mapping::Mapping;
use crate::queue::{Buffer, SocketQueue, Taken, drops};
use crate::reader::Reader;
use crate::{Error, Geometry, Socket};

/// How messages come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Path {
    /// Through a ring; what does not fit a frame by `recvmsg`, in its place.
    Ring,
    /// By `recvmsg` alone: the kernel has no rings, or none was asked for.
    Plain,
}

/// The receiving end of a netlink socket.
#[derive(Debug)]
pub struct Receiver {
    source: Source,
    /// Messages lost when a loss was told last, where the kernel counts them.
    drops: Option<u32>,
    socket: Socket,
}

/// Where messages come from.
#[derive(Debug)]
enum Source {
    Ring(Ring),
    Plain(Batch),
}

#[derive(Debug)]
struct Ring {
    mapping: Mapping,
    reader: Reader,
    inbox: Inbox,
    buffer: Buffer,
}

/// What [`Receiver::receive`] found.
#[derive(Debug)]
pub enum Received<'a> {
    /// A message in the ring.
    Frame(Frame<'a>),
    /// A message that was copied by `recvmsg`.
    Copied(Copied<'a>),
    /// `ENOBUFS`: messages were dropped at a full ring or receive buffer. Later ones keep coming.
    Lost {
        /// How many since this was last said, where the kernel counts them (from Linux 4.12 on).
        messages: Option<u32>,
    },
}

impl Received<'_> {
    /// The message's bytes; `None` for a loss.
    #[must_use]
    pub fn message(&self) -> Option<&[u8]> {
        match self {
            Self::Frame(frame) => Some(frame),
            Self::Copied(copied) => Some(copied),
            Self::Lost { .. } => None,
        }
    }
}

/// A message that was copied by `recvmsg`. Dereferences to its bytes.
#[derive(Debug)]
pub struct Copied<'a> {
    bytes: &'a [u8],
    frame: Option<u32>,
}

impl Copied<'_> {
    /// The `COPY` frame that marked its place in the ring. `None` on a plain socket, and for what
    /// the kernel sends without a frame, as a message queue's notification.
    #[must_use]
    pub fn frame(&self) -> Option<u32> {
        self.frame
    }
}

impl Deref for Copied<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl Receiver {
    pub(crate) fn ringed(socket: Socket, mapping: Mapping, ordered: bool) -> Self {
        let reader = Reader::new(mapping.geometry(), ordered);
        let ring = Ring {
            mapping,
            reader,
            inbox: Inbox::new(),
            buffer: Buffer::new(),
        };
        Self::new(socket, Source::Ring(ring))
    }

    pub(crate) fn plain(socket: Socket) -> Self {
        Self::new(socket, Source::Plain(Batch::new()))
    }

    fn new(socket: Socket, source: Source) -> Self {
        Self {
            source,
            drops: drops(socket.as_fd()),
            socket,
        }
    }

    /// Whether there is a ring.
    #[must_use]
    pub fn path(&self) -> Path {
        match self.source {
            Source::Ring(_) => Path::Ring,
            Source::Plain(_) => Path::Plain,
        }
    }

    /// The ring's shape, where there is one.
    #[must_use]
    pub fn geometry(&self) -> Option<&Geometry> {
        match &self.source {
            Source::Ring(ring) => Some(ring.mapping.geometry()),
            Source::Plain(_) => None,
        }
    }

    /// The socket, to send on and to ask things of.
    #[must_use]
    pub fn socket(&self) -> &Socket {
        &self.socket
    }

    /// Gives the ring's mapping up and hands the socket back. The ring itself stays, and so does
    /// the mapping while a [`Kept`](crate::Kept) message lives. Without a ring, messages that one
    /// call took from the socket and nobody has asked for yet are gone.
    #[must_use]
    pub fn into_socket(self) -> Socket {
        self.socket
    }

    /// Makes room for messages of this many bytes on the copying path (128 KiB to begin with).
    pub fn expect_messages_of(&mut self, bytes: usize) {
        match &mut self.source {
            Source::Ring(ring) => ring.buffer.grow(bytes),
            Source::Plain(batch) => batch.grow(bytes),
        }
    }

    /// The next message, or `None` if there is none at the moment. Never waits.
    ///
    /// A message in the ring costs no system call and no allocation; without a ring one call takes
    /// up to 32. With the ring empty, the socket's queue is looked at after [`wait`](Self::wait) has
    /// found something, or [`readable`](Self::readable) was called, so a reader that spins on its
    /// ring alone should call `wait` with no time now and then. A dump goes on from
    /// `wait`, too: its parts come as other messages do, several netlink messages to a part.
    ///
    /// # Errors
    ///
    /// [`Error::Frame`] for a frame that breaks the contract; other errors as they come from
    /// `recvmsg`. Every error but [`FrameError::Status`](crate::FrameError::Status) concerns one
    /// message, and the next call goes on behind it.
    #[inline]
    pub fn receive(&mut self) -> Result<Option<Received<'_>>, Error> {
        let Self {
            source,
            drops,
            socket,
        } = self;
        match source {
            Source::Ring(ring) => {
                if let Some((frame, held)) = ring.reader.plain_turn(&ring.mapping) {
                    let frame = Frame::new(&ring.mapping, &mut ring.reader, frame, held);
                    return Ok(Some(Received::Frame(frame)));
                }
                let Some(arrival) = ring.arrival(socket)? else {
                    return Ok(None);
                };
                let Ring {
                    mapping,
                    reader,
                    buffer,
                    ..
                } = ring;
                Ok(Some(match arrival {
                    Arrival::Frame { frame, len } => {
                        let held = mapping
                            .hold(frame, len)
                            .expect("the reader checks a length");
                        Received::Frame(Frame::new(mapping, reader, frame, held))
                    }
                    Arrival::Copied { len, frame } => {
                        let bytes = buffer.message(len);
                        Received::Copied(Copied { bytes, frame })
                    }
                    Arrival::Lost => Received::Lost {
                        messages: lost(socket.as_fd(), drops),
                    },
                }))
            }
            Source::Plain(batch) => Ok(match batch.take(socket.as_fd())? {
                Taken::Message(len) => {
                    let bytes = batch.message(len);
                    Some(Received::Copied(Copied { bytes, frame: None }))
                }
                Taken::Lost => Some(Received::Lost {
                    messages: lost(socket.as_fd(), drops),
                }),
                Taken::Nothing => None,
            }),
        }
    }

    /// An event loop has found the descriptor readable. Messages that wait in the queue without a
    /// frame, and losses, are looked for only after that was said, here or by
    /// [`wait`](Self::wait): call it, then [`receive`](Self::receive) until nothing is left.
    pub fn readable(&mut self) {
        if let Source::Ring(ring) = &mut self.source {
            ring.inbox.expect_queue();
        }
    }

    /// Waits by `poll` until there is something to [`receive`](Self::receive), or a loss to be
    /// told; `None` waits for ever. False if nothing came in time.
    pub fn wait(&mut self, timeout: Option<Duration>) -> Result<bool, Error> {
        if matches!(&self.source, Source::Plain(batch) if batch.holds_more()) {
            return Ok(true);
        }
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        let mut poll = libc::pollfd {
            fd: self.socket.as_fd().as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        };
        loop {
            let milliseconds = deadline.map_or(-1, |deadline| {
                let left = deadline.saturating_duration_since(Instant::now());
                // Rounded up, so that the last fraction is slept through and not spun through.
                libc::c_int::try_from(left.as_micros().div_ceil(1000)).unwrap_or(libc::c_int::MAX)
            });
            // SAFETY: one pollfd, ours to write to.
            let ready = unsafe { libc::poll(&raw mut poll, 1, milliseconds) };
            if ready == 0 {
                return Ok(false);
            }
            if ready > 0 {
                self.readable();
                return Ok(true);
            }
            let error = Error::last_os("wait for the netlink socket");
            if error.raw_os_error() != Some(libc::EINTR) {
                return Err(error);
            }
        }
    }
}

impl Ring {
    /// What comes next by all the rules there are.
    #[cold]
    fn arrival(&mut self, socket: &Socket) -> Result<Option<Arrival>, Error> {
        let Self {
            mapping,
            reader,
            inbox,
            buffer,
        } = self;
        inbox.next(mapping, reader, &SocketQueue(socket.as_fd()), buffer)
    }
}

/// Messages lost since that was told last.
#[cold]
fn lost(socket: BorrowedFd<'_>, told: &mut Option<u32>) -> Option<u32> {
    let now = drops(socket);
    let messages = now.zip(*told).map(|(now, told)| now.wrapping_sub(told));
    *told = now;
    messages
}

impl AsFd for Receiver {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl AsRawFd for Receiver {
    fn as_raw_fd(&self) -> RawFd {
        self.socket.as_raw_fd()
    }
}
