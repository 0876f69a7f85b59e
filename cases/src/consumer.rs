// SPDX-License-Identifier: MIT OR Apache-2.0
//! A consumer of `nfnetlink_queue`: the same program with a ring and without.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use nlring::{Flags, Geometry, Received, Receiver, Socket};

use crate::nfqueue::{self, Message, QueueFlags, Verdict};
use crate::stamp::Stamp;

/// How a packet came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    /// In this frame of the ring.
    Frame(u32),
    /// By `recvmsg`, its place marked by this `COPY` frame.
    Copy(u32),
    /// By `recvmsg`, with no frame.
    Plain,
}

/// A packet that waits for its verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Packet {
    /// Its id in the queue.
    pub id: u32,
    /// How it came.
    pub way: Way,
    /// The stamp it carries, if it is UDP.
    pub stamp: Option<Stamp>,
}

/// A packet where it lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Sight<'a> {
    /// Its id in the queue.
    pub id: u32,
    /// How it came.
    pub way: Way,
    /// The packet, from its IP header on.
    pub payload: &'a [u8],
}

impl<'a> Sight<'a> {
    /// The packet in what was received, which is no loss.
    pub(crate) fn of(received: &'a Received<'_>) -> anyhow::Result<Self> {
        let way = match received {
            Received::Frame(frame) => Way::Frame(frame.index()),
            Received::Copied(copied) => copied.frame().map_or(Way::Plain, Way::Copy),
            Received::Lost { .. } => anyhow::bail!("a loss has no packet"),
        };
        Self::read(received.message().unwrap_or_default(), way)
    }

    /// The packet in a message that came by this way.
    pub(crate) fn read(message: &'a [u8], way: Way) -> anyhow::Result<Self> {
        match Message::read(message)? {
            Message::Packet { id, payload } => Ok(Self { id, way, payload }),
            Message::Answer { errno, .. } => {
                let error = std::io::Error::from_raw_os_error(errno);
                anyhow::bail!("the kernel refuses a verdict: {error}");
            }
        }
    }

    /// What is to be remembered of it, when every byte of it was looked at.
    pub(crate) fn packet(self) -> anyhow::Result<Packet> {
        let Self { id, way, payload } = self;
        let stamp = nfqueue::udp_payload(payload).map(Stamp::read).transpose();
        let stamp = stamp.with_context(|| format!("packet {id} by {way:?}"))?;
        Ok(Packet { id, way, stamp })
    }
}

/// What the consumer met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event<T = Packet> {
    /// A packet.
    Packet(T),
    /// `ENOBUFS`.
    Lost,
}

/// How a queue is bound.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Binding {
    /// The queue's number.
    pub queue: u16,
    /// Packets that may wait for a verdict.
    pub waiting: u32,
    /// Its flags.
    pub flags: QueueFlags,
}

impl Binding {
    /// Queue `queue`, with more room for waiting packets than any case needs.
    pub(crate) const fn of(queue: u16) -> Self {
        Self {
            queue,
            waiting: 1 << 16,
            flags: QueueFlags::NONE,
        }
    }
}

/// A consumer bound to a queue.
#[derive(Debug)]
pub(crate) struct Consumer {
    receiver: Receiver,
    queue: u16,
}

impl Consumer {
    /// A consumer with a ring of this shape.
    pub(crate) fn ringed(
        binding: Binding,
        geometry: Geometry,
        flags: Flags,
    ) -> anyhow::Result<Self> {
        let socket = Socket::open(libc::NETLINK_NETFILTER)?;
        Self::bind(socket.rx_ring(geometry, flags)?, binding)
    }

    /// A consumer without a ring.
    pub(crate) fn plain(binding: Binding) -> anyhow::Result<Self> {
        Self::bind(Socket::open(libc::NETLINK_NETFILTER)?.plain(), binding)
    }

    /// A consumer on this receiver.
    pub(crate) fn bind(receiver: Receiver, binding: Binding) -> anyhow::Result<Self> {
        let queue = binding.queue;
        let mut consumer = Self { receiver, queue };
        consumer.bind_also(binding)?;
        Ok(consumer)
    }

    /// Binds another queue to the same socket, before there is any traffic.
    pub(crate) fn bind_also(&mut self, binding: Binding) -> anyhow::Result<()> {
        const SEQUENCE: u32 = 1;
        let receiver = &mut self.receiver;
        let Binding {
            queue,
            waiting,
            flags,
        } = binding;
        let request = nfqueue::bind(SEQUENCE, queue, waiting, flags);
        receiver.socket().send(&request)?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while Instant::now() < deadline {
            receiver.wait(Some(Duration::from_secs(1)))?;
            let Some(answer) = receiver.receive()? else {
                continue;
            };
            let message = answer.message().context("a loss before any traffic")?;
            let Message::Answer { errno, .. } = Message::read(message)? else {
                anyhow::bail!("a packet before queue {queue} is bound");
            };
            drop(answer); // its frame is free before the consumer begins
            if errno == 0 {
                return Ok(());
            }
            let error = std::io::Error::from_raw_os_error(errno);
            anyhow::bail!("cannot bind queue {queue}: {error}");
        }
        anyhow::bail!("cannot bind queue {queue}: the kernel does not answer")
    }

    /// The receiving end, to look at or to wait on.
    pub(crate) fn receiver(&mut self) -> &mut Receiver {
        &mut self.receiver
    }

    /// The next packet or loss; `None` if nothing came within `patience`.
    pub(crate) fn next(&mut self, patience: Duration) -> anyhow::Result<Option<Event>> {
        self.take(patience, |received| Sight::of(&received)?.packet())
    }

    /// The next packet, as the library hands it over, or loss; `None` if nothing came within
    /// `patience`. If `take` does not keep the packet's frame, that goes back to the kernel.
    pub(crate) fn take<T>(
        &mut self,
        patience: Duration,
        take: impl FnOnce(Received<'_>) -> anyhow::Result<T>,
    ) -> anyhow::Result<Option<Event<T>>> {
        let deadline = Instant::now() + patience;
        let mut over = false;
        loop {
            if let Some(received) = self.receiver.receive()? {
                return Ok(Some(match received {
                    Received::Lost { .. } => Event::Lost,
                    packet => Event::Packet(
                        take(packet).with_context(|| format!("queue {}", self.queue))?,
                    ),
                }));
            }
            // Once more behind the last wait, and not for ever where poll tells of what is not there.
            let left = deadline.saturating_duration_since(Instant::now());
            if over || !self.receiver.wait(Some(left))? {
                return Ok(None);
            }
            over = left.is_zero();
        }
    }

    /// The next packet. A loss, or silence for as long as `patience`, is an error.
    pub(crate) fn packet(&mut self, patience: Duration) -> anyhow::Result<Packet> {
        match self.next(patience)? {
            Some(Event::Packet(packet)) => Ok(packet),
            Some(Event::Lost) => anyhow::bail!("queue {} lost packets", self.queue),
            None => anyhow::bail!("queue {}: no packet within {patience:?}", self.queue),
        }
    }

    /// Gives the verdict on one packet.
    pub(crate) fn verdict(&self, id: u32, verdict: Verdict) -> anyhow::Result<()> {
        self.verdict_in(self.queue, id, verdict)
    }

    /// Gives the verdict on one packet of one of several queues.
    pub(crate) fn verdict_in(&self, queue: u16, id: u32, verdict: Verdict) -> anyhow::Result<()> {
        let message = nfqueue::verdict(queue, id, verdict);
        Ok(self.receiver.socket().send(&message)?)
    }

    /// Gives the verdict on every waiting packet up to this id.
    pub(crate) fn verdict_up_to(&self, id: u32, verdict: Verdict) -> anyhow::Result<()> {
        let message = nfqueue::verdict_up_to(self.queue, id, verdict);
        Ok(self.receiver.socket().send(&message)?)
    }
}
