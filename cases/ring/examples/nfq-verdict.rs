// SPDX-License-Identifier: MIT OR Apache-2.0
//! Judges the packets of a queue: reads them where the kernel put them, and gives the verdicts on all
//! that were there by one call.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use clap::{Parser, ValueEnum};
use netlink_packet_core::{
    DefaultNla, Emitable as _, ErrorBuffer, NLM_F_ACK, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer,
    NlaBuffer, NlasIterator,
};
use nlring::{Flags, Geometry, Receiver, Sender, Socket};

mod tally;
use tally::Tally;

/// Accepts the packets of a netfilter queue, or drops those to one port, and says what it did.
///
/// For example, with `nft add rule inet filter input udp dport 4000 queue num 5`: nfq-verdict 5
#[derive(Debug, Parser)]
struct Arguments {
    /// The queue's number
    queue: u16,
    /// Without rings: messages by recvmmsg, verdicts by sendmmsg
    #[arg(long)]
    plain: bool,
    /// In which order packets are read from the ring
    #[arg(long, value_enum, default_value = "sending")]
    order: Order,
    /// Drop UDP packets to this port
    #[arg(long, value_name = "PORT")]
    drop_port: Option<u16>,
    /// End after so many packets, and not at Ctrl-C only
    #[arg(long, value_name = "PACKETS")]
    count: Option<u64>,
    /// The largest packet that is to fit a frame, in bytes; a larger one is copied
    #[arg(long, value_name = "BYTES", default_value_t = 1600)]
    largest: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Order {
    /// That in which frames were allocated: a packet can stand behind a later one
    Allocation,
    /// That in which packets came to the queue
    Sending,
}

/// Frames to receive by, and to send by.
const FRAMES: u32 = 512;
/// What `nfnetlink_queue` says about a packet, beside the packet, in bytes.
const ATTRIBUTES: u32 = 200;
/// Packets that wait for their verdict at most before it is sent.
const TOGETHER: u64 = 64;

// include/uapi/linux/netfilter/nfnetlink_queue.h; no crate has its messages.
const SUBSYSTEM: u16 = 3 << 8;
const PACKET: u16 = SUBSYSTEM;
const VERDICT: u16 = SUBSYSTEM | 1;
const CONFIG: u16 = SUBSYSTEM | 2;
const VERDICT_BATCH: u16 = SUBSYSTEM | 3;
const NFQA_PACKET_HDR: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_PAYLOAD: u16 = 10;
const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;

/// `struct nlmsghdr`, `struct nfgenmsg`, and the verdict's attribute: 4 and 8 bytes.
const HEADER_LEN: usize = 16;
const NFGENMSG_LEN: usize = 4;
const VERDICT_LEN: usize = HEADER_LEN + NFGENMSG_LEN + 4 + 8;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Decision {
    Drop = 0,
    Accept = 1,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let stop = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGINT, Arc::clone(&stop))?;

    let (mut receiver, sender) = open(&arguments)?;
    bind(&mut receiver, arguments.queue)?;
    let one_by_one = arguments.order == Order::Allocation && !arguments.plain;
    let mut verdicts = Verdicts::new(sender, arguments.queue, one_by_one);
    println!(
        "queue {}: receives by {:?}, sends by {:?}",
        arguments.queue,
        receiver.path(),
        verdicts.sender.path()
    );

    let mut tally = Tally::default();
    let (mut accepted, mut dropped, mut bytes) = (0_u64, 0_u64, 0);
    let wanted = arguments.count.unwrap_or(u64::MAX);
    while !stop.load(Ordering::Relaxed) && accepted + dropped < wanted {
        receiver.wait(Some(Duration::from_millis(200)))?;
        while accepted + dropped < wanted {
            let Some(arrival) = receiver.receive()? else {
                break;
            };
            tally.count(&arrival);
            // Packets that were lost went no further; the kernel has counted them.
            let Some(message) = arrival.message() else {
                continue;
            };
            let Some((id, packet)) = packet(message)? else {
                continue;
            };
            bytes += packet.len();
            let decision = decide(packet, arguments.drop_port);
            match decision {
                Decision::Accept => accepted += 1,
                Decision::Drop => dropped += 1,
            }
            verdicts.give(id, decision)?;
        }
        verdicts.send()?;
    }
    println!("{accepted} packets accepted, {dropped} dropped, {bytes} bytes; {tally}");
    println!(
        "{} verdicts by {} messages in {} calls",
        verdicts.given, verdicts.messages, verdicts.calls
    );
    Ok(())
}

/// A socket with both rings, or as if it had them.
fn open(arguments: &Arguments) -> anyhow::Result<(Receiver, Sender)> {
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let rx = Geometry::for_messages(arguments.largest.saturating_add(ATTRIBUTES), FRAMES)?;
    let tx = Geometry::for_messages(VERDICT_LEN as u32, FRAMES)?;
    if arguments.plain {
        let sender = Socket::duplicate(&socket)?.plain_sender(tx)?;
        return Ok((socket.plain(), sender));
    }
    let flags = match arguments.order {
        Order::Allocation => Flags::NONE,
        Order::Sending => Flags::ORDERED,
    };
    Ok(socket.rings(rx, flags, tx)?)
}

/// Binds the queue, whole packets, and waits until the kernel says that it is so.
fn bind(receiver: &mut Receiver, queue: u16) -> anyhow::Result<()> {
    const BIND: u8 = 1;
    const COPY_PACKET: u8 = 2;
    let attributes = [
        DefaultNla::new(NFQA_CFG_CMD, vec![BIND, 0, 0, 0]),
        DefaultNla::new(NFQA_CFG_PARAMS, vec![0, 0, 0xff, 0xff, COPY_PACKET]),
    ];
    let attributes = &attributes[..];
    let mut message = vec![0; HEADER_LEN + NFGENMSG_LEN + attributes.buffer_len()];
    let body = begin(&mut message, CONFIG, NLM_F_REQUEST | NLM_F_ACK, queue);
    attributes.emit(body);
    receiver.socket().send(&message)?;
    loop {
        receiver.wait(None)?;
        if let Some(received) = receiver.receive()?
            && let Some(answer) = received.message()
        {
            let error = errno(answer)?.context("a packet before the queue is bound")?;
            let why = std::io::Error::from_raw_os_error(error);
            ensure!(error == 0, "cannot bind queue {queue}: {why}");
            return Ok(());
        }
    }
}

/// Writes the headers of a message, and tells where its attributes go.
fn begin(message: &mut [u8], kind: u16, flags: u16, queue: u16) -> &mut [u8] {
    let len = message.len() as u32;
    message[..HEADER_LEN].fill(0);
    let mut header = NetlinkBuffer::new(&mut *message);
    header.set_length(len);
    header.set_message_type(kind);
    header.set_flags(flags);
    let [high, low] = queue.to_be_bytes();
    let (nfgenmsg, attributes) = message[HEADER_LEN..].split_at_mut(NFGENMSG_LEN);
    nfgenmsg.copy_from_slice(&[libc::AF_UNSPEC as u8, 0, high, low]);
    attributes
}

/// The id of a packet and its bytes, from the IP header on; `None` for another message, unless it
/// says that a verdict was refused.
fn packet(message: &[u8]) -> anyhow::Result<Option<(u32, &[u8])>> {
    if let Some(error) = errno(message)? {
        // The packet has gone in the meantime, with its device for example.
        let why = std::io::Error::from_raw_os_error(error);
        eprintln!("nfq-verdict: a verdict was refused: {why}");
        return Ok(None);
    }
    let message = NetlinkBuffer::new_checked(message)?;
    if message.message_type() != PACKET {
        return Ok(None);
    }
    let (mut id, mut bytes) = (None, &[][..]);
    let attributes = message.payload().get(NFGENMSG_LEN..).unwrap_or_default();
    for attribute in NlasIterator::new(attributes) {
        let attribute: NlaBuffer<&[u8]> = attribute?;
        let (kind, len) = (attribute.kind(), usize::from(attribute.length()));
        let value = &attribute.into_inner()[netlink_packet_core::NLA_HEADER_SIZE..len];
        match kind {
            NFQA_PACKET_HDR => id = value.first_chunk().map(|id| u32::from_be_bytes(*id)),
            NFQA_PAYLOAD => bytes = value,
            _ => {}
        }
    }
    let id = id.context("a packet without an id")?;
    Ok(Some((id, bytes)))
}

/// The error number of an answer, 0 for none; `None` for any other message.
fn errno(message: &[u8]) -> anyhow::Result<Option<i32>> {
    let message = NetlinkBuffer::new_checked(message)?;
    if message.message_type() != NLMSG_ERROR {
        return Ok(None);
    }
    let error = ErrorBuffer::new_checked(message.payload())?;
    Ok(Some(error.code().map_or(0, |code| -code.get())))
}

/// IPv4 and UDP to the unwanted port are dropped.
fn decide(packet: &[u8], unwanted: Option<u16>) -> Decision {
    let udp_port = || {
        let header = usize::from(packet.first()? & 0x0f) * 4;
        let is_udp = packet.first()? >> 4 == 4 && *packet.get(9)? == 17;
        let port = packet.get(header + 2..header + 4)?;
        is_udp.then(|| u16::from_be_bytes([port[0], port[1]]))
    };
    match unwanted {
        Some(unwanted) if udp_port() == Some(unwanted) => Decision::Drop,
        _ => Decision::Accept,
    }
}

/// Verdicts on their way.
struct Verdicts {
    sender: Sender,
    queue: u16,
    /// Whether each packet needs a message of its own. Where packets come in the order of their ids,
    /// one message is the verdict on all that wait up to some id.
    one_by_one: bool,
    /// The same decision on packets one after the other, not written yet: the last one's id, and how
    /// many.
    run: Option<(Decision, u32, u32)>,
    waiting: u64,
    given: u64,
    messages: u64,
    calls: u64,
}

impl Verdicts {
    fn new(sender: Sender, queue: u16, one_by_one: bool) -> Self {
        Self {
            sender,
            queue,
            one_by_one,
            run: None,
            waiting: 0,
            given: 0,
            messages: 0,
            calls: 0,
        }
    }

    /// The verdict on one packet, to be sent soon.
    fn give(&mut self, id: u32, decision: Decision) -> anyhow::Result<()> {
        self.given += 1;
        self.waiting += 1;
        match &mut self.run {
            Some((same, last, count)) if *same == decision && !self.one_by_one => {
                (*last, *count) = (id, *count + 1);
            }
            _ => {
                self.write()?;
                self.run = Some((decision, id, 1));
            }
        }
        if self.waiting == TOGETHER {
            self.send()?;
        }
        Ok(())
    }

    /// Writes what was decided into a frame.
    fn write(&mut self) -> anyhow::Result<()> {
        let Some((decision, id, count)) = self.run.take() else {
            return Ok(());
        };
        if self.sender.slot()?.is_none() {
            self.flush()?;
        }
        let mut slot = self
            .sender
            .slot()?
            .context("no frame is free after a flush")?;
        let kind = if count == 1 { VERDICT } else { VERDICT_BATCH };
        let body = begin(&mut slot[..VERDICT_LEN], kind, NLM_F_REQUEST, self.queue);
        let mut attribute = NlaBuffer::new(body);
        attribute.set_kind(NFQA_VERDICT_HDR);
        attribute.set_length(4 + 8);
        let value = attribute.value_mut();
        value[..4].copy_from_slice(&(decision as u32).to_be_bytes());
        value[4..].copy_from_slice(&id.to_be_bytes());
        slot.submit(VERDICT_LEN);
        self.messages += 1;
        Ok(())
    }

    /// Sends every verdict that was given.
    fn send(&mut self) -> anyhow::Result<()> {
        self.write()?;
        if self.waiting > 0 {
            self.flush()?;
            self.waiting = 0;
        }
        Ok(())
    }

    fn flush(&mut self) -> anyhow::Result<()> {
        self.sender.flush()?;
        self.calls += 1;
        Ok(())
    }
}
