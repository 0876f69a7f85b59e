// SPDX-License-Identifier: MIT OR Apache-2.0
//! A dump, part by part, and whether it is whole.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use nlring::{Geometry, Received, Receiver, Socket, Status};

use crate::flush::flush;
use crate::frames::Frames;
use crate::message::{DONE, ERROR, Message};
use crate::option::assert_refused;
use crate::peers;

/// What came of a dump so far.
#[derive(Debug)]
pub(crate) struct Dump {
    sequence: u32,
    /// Type and body of each message.
    messages: Vec<(u16, Vec<u8>)>,
    /// Parts that came in frames.
    pub in_frames: u32,
    /// Parts that came by copy.
    pub copied: u32,
    /// Bytes of the longest part.
    pub longest: usize,
    /// `NLMSG_DONE` has come.
    pub done: bool,
}

impl Dump {
    /// The dump that was asked for with this sequence number.
    pub(crate) fn new(sequence: u32) -> Self {
        Self {
            sequence,
            messages: Vec::new(),
            in_frames: 0,
            copied: 0,
            longest: 0,
            done: false,
        }
    }

    /// Messages that came so far.
    pub(crate) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Takes a part that came in a frame.
    pub(crate) fn framed(&mut self, part: &[u8]) -> anyhow::Result<()> {
        self.in_frames += 1;
        self.take(part)
    }

    /// Takes a part that came by copy.
    pub(crate) fn copied(&mut self, part: &[u8]) -> anyhow::Result<()> {
        self.copied += 1;
        self.take(part)
    }

    fn take(&mut self, part: &[u8]) -> anyhow::Result<()> {
        self.longest = self.longest.max(part.len());
        for message in Message::read_all(part)? {
            ensure!(
                !self.done,
                "a message of type {} behind the end",
                message.kind
            );
            ensure!(
                message.sequence == self.sequence,
                "a message of request {} in the dump of {}",
                message.sequence,
                self.sequence
            );
            match message.kind {
                DONE => {
                    let errno = message.errno()?;
                    ensure!(errno == 0, "the dump ends with error {errno}");
                    self.done = true;
                }
                ERROR => anyhow::bail!("the dump is refused with error {}", message.errno()?),
                kind => self.messages.push((kind, message.body.to_vec())),
            }
        }
        Ok(())
    }

    /// What `identity` says of each message, in order of that, and no two alike.
    fn identities(&self, identity: Identity) -> anyhow::Result<Vec<Vec<u8>>> {
        ensure!(self.done, "{} messages came and no end", self.len());
        let mut all = Vec::new();
        for (kind, body) in &self.messages {
            let message = Message {
                kind: *kind,
                sequence: self.sequence,
                body,
            };
            all.push(identity(&message));
        }
        all.sort();
        let repeated = all.windows(2).find(|pair| pair[0] == pair[1]);
        ensure!(repeated.is_none(), "a message came twice: {repeated:?}");
        Ok(all)
    }

    /// It is the same as another, apart from the order.
    pub(crate) fn assert_same(&self, other: &Self, identity: Identity) -> anyhow::Result<()> {
        let (ours, theirs) = (self.identities(identity)?, other.identities(identity)?);
        ensure!(
            ours == theirs,
            "{} messages came where {} are due, or others",
            ours.len(),
            theirs.len()
        );
        Ok(())
    }
}

/// What tells a message of a dump from all others in it.
pub(crate) type Identity = fn(&Message<'_>) -> Vec<u8>;

/// All that it says.
pub(crate) fn whole(message: &Message<'_>) -> Vec<u8> {
    message.body.to_vec()
}

/// The dump as a socket without a ring receives it.
pub(crate) fn plain(family: i32, request: fn(u32) -> Vec<u8>) -> anyhow::Result<Dump> {
    const SEQUENCE: u32 = 1;
    let socket = Socket::open(family)?;
    socket.send(&request(SEQUENCE))?;
    let mut dump = Dump::new(SEQUENCE);
    while !dump.done {
        dump.copied(&peers::receive(&socket)?)?;
    }
    Ok(dump)
}

/// Reads a dump to its end as the library does: by `poll`, in place.
pub(crate) fn read(
    receiver: &mut Receiver,
    sequence: u32,
    patience: Duration,
) -> anyhow::Result<Dump> {
    let mut dump = Dump::new(sequence);
    while !dump.done {
        while let Some(received) = receiver.receive()? {
            match &received {
                Received::Frame(frame) => dump.framed(frame)?,
                Received::Copied(copied) => dump.copied(copied)?,
                Received::Lost { .. } => anyhow::bail!("a loss after {} messages", dump.len()),
            }
        }
        ensure!(
            dump.done || receiver.wait(Some(patience))?,
            "poll tells of nothing after {} messages",
            dump.len()
        );
    }
    Ok(dump)
}

/// Which call makes the dump go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Drive {
    /// `poll`.
    Poll,
    /// `recvmsg`.
    Receive,
    /// A flush of a TX ring that is empty.
    Flush,
}

/// A socket with a ring that is read frame by frame.
#[derive(Debug)]
pub(crate) struct Reader {
    /// The socket.
    pub socket: Socket,
    frames: Frames,
    position: u32,
}

impl Reader {
    /// A reader from the ring's beginning.
    pub(crate) fn new(socket: Socket, frames: Frames) -> Self {
        Self {
            socket,
            frames,
            position: 0,
        }
    }

    /// A reader on a new socket with a new ring.
    pub(crate) fn open(family: i32, geometry: Geometry) -> anyhow::Result<Self> {
        let socket = Socket::open(family)?;
        socket.set_up_rx_ring(&geometry, nlring::Flags::NONE)?;
        let frames = Frames::map(&socket, geometry)?;
        Ok(Self::new(socket, frames))
    }

    /// What is in the next frame, which is given back. A `COPY` frame is an error.
    pub(crate) fn next_frame(&mut self) -> anyhow::Result<Option<Vec<u8>>> {
        let frame = self.position;
        match self
            .frames
            .status(frame)
            .context("a status without meaning")?
        {
            Status::Valid => {}
            Status::Copy => anyhow::bail!("frame {frame} is COPY"),
            _ => return Ok(None),
        }
        let part = self.frames.message(frame);
        self.frames.set_status(frame, Status::Unused);
        self.position = (frame + 1) % self.frames.geometry().frame_nr();
        Ok(Some(part))
    }

    /// The message for which the next frame, a `COPY` one, stands; then the frame is given back.
    pub(crate) fn next_copied(&mut self) -> anyhow::Result<Vec<u8>> {
        let frame = self.position;
        let status = self.frames.status(frame);
        ensure!(
            status == Some(Status::Copy),
            "frame {frame} is {status:?} and not COPY"
        );
        let message = peers::receive(&self.socket)?;
        self.frames.set_status(frame, Status::Unused);
        self.position = (frame + 1) % self.frames.geometry().frame_nr();
        Ok(message)
    }

    /// Makes the dump go on by one call.
    pub(crate) fn drive(&self, by: Drive) -> anyhow::Result<()> {
        match by {
            Drive::Poll => drop(crate::ready::events(&self.socket, Duration::ZERO)?),
            Drive::Receive => assert_refused(
                "receiving beside the ring",
                peers::receive(&self.socket),
                libc::EAGAIN,
            )?,
            Drive::Flush => {
                let sent = flush(&self.socket)?;
                ensure!(sent == 0, "an empty flush sends {sent} bytes");
            }
        }
        Ok(())
    }

    /// Reads on to the dump's end, in frames alone, and counts the calls that it took.
    pub(crate) fn read_on(&mut self, dump: &mut Dump, by: Drive) -> anyhow::Result<u32> {
        let mut calls = 0;
        loop {
            let mut came = 0;
            while let Some(part) = self.next_frame()? {
                dump.framed(&part)?;
                came += 1;
            }
            if dump.done {
                return Ok(calls);
            }
            ensure!(
                came > 0 || calls == 0,
                "nothing came by {by:?}, after {} messages",
                dump.len()
            );
            self.drive(by)?;
            calls += 1;
        }
    }

    /// Gives the ring up, frames unread and all.
    pub(crate) fn into_socket(self) -> anyhow::Result<Socket> {
        let Self { socket, frames, .. } = self;
        drop(frames);
        socket.tear_down_rx_ring()?;
        Ok(socket)
    }
}
