// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `ordering`: packets larger than what a NIC carries, on their whole way: cut
//! into fragments or segments, put together again, and shown in the ring before or after.

use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry};

use crate::arrivals::Arrivals;
use crate::bulk::{self, Bulk, Pattern};
use crate::consumer::{Binding, Consumer, Event, Sight, Way};
use crate::nfqueue::{QueueFlags, Verdict};
use crate::rules::Rules;
use crate::sequences::Sequences;
use crate::stamp::Stamp;
use crate::traffic::{self, Flow, From, PORT, Window, far, near, warm_up};
use crate::{Case, Setting, case};

pub(crate) const CASES: &[Case] = &[
    case!(Ordering, large_datagrams_pass_the_ring_whole_and_in_order)
        .proves("rx-valid rx-ordered-ids")
        .across(1)
        .within(10),
    case!(Ordering, bare_fragments_pass_the_ring_in_order)
        .proves("rx-valid rx-early-bulk rx-ordered-ids")
        .across(1)
        .within(10),
    case!(
        Ordering,
        tcp_in_packets_larger_than_the_mtu_passes_the_ring_unharmed
    )
    .proves("rx-valid rx-early-bulk")
    .across(1)
    .within(15),
];

/// Bytes of a packet on the wire.
const MTU: usize = 1500;
/// Datagrams of a flow.
const DATAGRAMS: u32 = 20;
/// Bytes of a datagram of several fragments.
const SIZES: RangeInclusive<usize> = 2000..=9000;

fn ring() -> anyhow::Result<Geometry> {
    Ok(Geometry::for_messages(70_000, 32)?)
}

/// The whole way of datagrams that the NIC does not carry whole, both orders: queued before they are
/// cut, behind conntrack that has put them together, and behind the host, which has. In the ring
/// they are whole, in order, with every byte, and so they arrive.
fn large_datagrams_pass_the_ring_whole_and_in_order(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let queue = format!("udp dport {PORT} queue num 0 bypass");
    let tracked = format!("ct state new,established {queue}");
    let ways = [
        ("output", &queue, From::Here),
        ("prerouting", &tracked, From::Peer),
        ("input", &queue, From::Peer),
    ];
    for (hook, rule, from) in ways {
        for flags in [Flags::NONE, Flags::ORDERED] {
            let _rules = Rules::at(&[(hook, &[rule])])?;
            let (flow, to, at) = match from {
                From::Here => (Flow::outward(0, 0, DATAGRAMS), far(0), From::Peer),
                From::Peer => (Flow::across(0, 0, DATAGRAMS), near(0), From::Here),
            };
            let arrivals = Arrivals::of(from, at, &[to], patience)?;
            let mut consumer = Consumer::ringed(Binding::of(0), ring()?, flags)?;
            let window = Window::of(16);
            let flow = Flow {
                sizes: SIZES,
                seed: setting.seed,
                ..flow
            };
            let sender = flow.start(&window)?;
            let mut shown = Vec::new();
            let mut sequences = Sequences::default();
            for due in 1..=DATAGRAMS {
                let packet = consumer.packet(patience)?;
                ensure!(
                    packet.id == due && matches!(packet.way, Way::Frame(_)),
                    "at {hook}, packet {} came by {:?} where {due} is due",
                    packet.id,
                    packet.way
                );
                let stamp = packet.stamp.context("a packet that is no datagram")?;
                sequences.next(stamp)?;
                shown.push(stamp);
                consumer.verdict(packet.id, Verdict::Accept)?;
                window.seen();
            }
            sequences.assert_whole(0, traffic::sent(sender)?)?;
            drop(consumer);
            ensure!(
                arrivals.finish()? == shown,
                "what was let through at {hook} is not what arrives"
            );
        }
    }
    setting.note(format!(
        "{DATAGRAMS} datagrams in each of 3 ways, in both orders"
    ));
    Ok(())
}

/// The same queued before anybody has put them together: every fragment is a packet, in the ring in
/// its order; put together from there they are what was sent, and what arrives is.
fn bare_fragments_pass_the_ring_in_order(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let rule = format!("ip daddr {} meta l4proto udp queue num 0 bypass", near(0));
    let mut fragments = 0;
    for flags in [Flags::NONE, Flags::ORDERED] {
        let _rules = Rules::at(&[("prerouting", &[&rule])])?;
        let arrivals = Arrivals::of(From::Peer, From::Here, &[near(0)], patience)?;
        let mut consumer = Consumer::ringed(Binding::of(0), ring()?, flags)?;
        // A ring for the fragments of four.
        let window = Window::of(4);
        let flow = Flow {
            sizes: SIZES,
            seed: setting.seed,
            ..Flow::across(0, 0, DATAGRAMS)
        };
        let sender = flow.start(&window)?;
        let mut shown = Vec::new();
        let mut sequences = Sequences::default();
        let mut datagram = Vec::new();
        let mut last = 0;
        while sequences.end(0) < DATAGRAMS {
            let fragment = consumer.take(patience, |received| {
                let sight = Sight::of(&received)?;
                let fragment = Fragment::of(sight.payload).context("a packet that is not IPv4")?;
                ensure!(
                    fragment.offset == datagram.len(),
                    "a fragment from byte {} on stands where byte {} is due",
                    fragment.offset,
                    datagram.len()
                );
                datagram.extend(fragment.bytes);
                Ok((sight.id, fragment.more))
            })?;
            let Some(Event::Packet((id, more))) = fragment else {
                anyhow::bail!("{fragment:?} comes behind packet {last}");
            };
            ensure!(id == last + 1, "packet {id} stands behind packet {last}");
            last = id;
            consumer.verdict(id, Verdict::Accept)?;
            if !more {
                let stamp = Stamp::read(datagram.get(8..).unwrap_or_default())?;
                sequences.next(stamp)?;
                shown.push(stamp);
                datagram.clear();
                window.seen();
            }
        }
        sequences.assert_whole(0, traffic::sent(sender)?)?;
        fragments += last;
        drop(consumer);
        ensure!(
            arrivals.finish()? == shown,
            "what was let through is not what arrives"
        );
    }
    ensure!(
        fragments >= 4 * DATAGRAMS,
        "{fragments} are too few to be fragments"
    );
    setting.note(format!(
        "{fragments} fragments of {} datagrams, in both orders",
        2 * DATAGRAMS
    ));
    Ok(())
}

/// What an IPv4 packet carries of a datagram.
struct Fragment<'a> {
    /// From this byte on.
    offset: usize,
    /// There is more behind it.
    more: bool,
    bytes: &'a [u8],
}

impl<'a> Fragment<'a> {
    fn of(packet: &'a [u8]) -> Option<Self> {
        let header = usize::from(packet.first()? & 0x0f) * 4;
        let word = u16::from_be_bytes(*packet.get(6..)?.first_chunk()?);
        Some(Self {
            offset: usize::from(word & 0x1fff) * 8,
            more: word & 0x2000 != 0,
            bytes: packet.get(header..)?,
        })
    }
}

/// The whole way of TCP in pieces of up to 64 KiB, both orders: before they are cut into segments on
/// their way out, and behind GRO, which puts them together on their way in. Every byte in the ring is
/// what stands at its place in the stream, and so is every byte that is read at the end.
fn tcp_in_packets_larger_than_the_mtu_passes_the_ring_unharmed(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let rule = format!("tcp dport {} queue num 0 bypass", bulk::PORT);
    for (hook, from) in [("output", From::Here), ("input", From::Peer)] {
        for flags in [Flags::NONE, Flags::ORDERED] {
            let _rules = Rules::at(&[(hook, &[&rule])])?;
            let binding = Binding {
                flags: QueueFlags::GSO,
                ..Binding::of(0)
            };
            let geometry = Geometry::for_messages(70_000, 128)?;
            let mut consumer = Consumer::ringed(binding, geometry, flags)?;
            let bulk = Bulk::start(from, 0, patience)?;
            let mut stream = Stream::new();
            let mut last = 0;
            let deadline = Instant::now() + patience;
            loop {
                let event = consumer.take(Duration::from_millis(20), |received| {
                    let sight = Sight::of(&received)?;
                    Ok((sight.id, sight.way, stream.read(sight.payload)?))
                })?;
                let (id, way, ours) = match event {
                    Some(Event::Packet(packet)) => packet,
                    Some(Event::Lost) => anyhow::bail!("the ring was full behind packet {last}"),
                    // A rule that goes while packets wait at its hook makes 6.1 warn, so not before all
                    // has been said.
                    None if bulk.is_done() && stream.closed => break,
                    None => {
                        ensure!(
                            Instant::now() < deadline + patience,
                            "the stream does not end, {last} packets long"
                        );
                        continue;
                    }
                };
                if ours {
                    ensure!(
                        id > last && matches!(way, Way::Frame(_)),
                        "packet {id} stands behind packet {last}, by {way:?}"
                    );
                    last = id;
                }
                consumer.verdict(id, Verdict::Accept)?;
                if stream.larger > 0 || Instant::now() > deadline {
                    bulk.stop();
                }
            }
            let bytes = bulk.finish()?;
            ensure!(
                stream.end == bytes,
                "{} of {bytes} bytes were shown",
                stream.end
            );
            ensure!(
                stream.larger > 0,
                "not one of {last} packets at {hook} was larger than {MTU} bytes"
            );
            setting.note(format!(
                "{hook}, flags {flags:?}: {bytes} bytes in {last} packets, {} larger than {MTU}, the largest of {}",
                stream.larger, stream.largest
            ));
        }
    }
    Ok(())
}

/// One direction of a TCP stream, as its packets tell it.
struct Stream {
    pattern: Pattern,
    /// The port it comes from, and the sequence number of its first byte.
    begin: Option<(u16, u32)>,
    /// Bytes to the end of the last one shown.
    end: u64,
    /// Both ends have closed it, and this one has said that it knows.
    closed: bool,
    larger: u32,
    largest: usize,
}

impl Stream {
    fn new() -> Self {
        Self {
            pattern: Pattern::new(),
            begin: None,
            end: 0,
            closed: false,
            larger: 0,
            largest: 0,
        }
    }

    /// Reads a packet; false if it is of another connection, as the last words of one before.
    fn read(&mut self, packet: &[u8]) -> anyhow::Result<bool> {
        const FIN: u8 = 1;
        const SYN: u8 = 2;
        let header = usize::from(packet.first().context("an empty packet")? & 0x0f) * 4;
        let segment = packet.get(header..).unwrap_or_default();
        let tcp: &[u8; 20] = segment.first_chunk().context("a packet without TCP")?;
        let from = u16::from_be_bytes([tcp[0], tcp[1]]);
        let sequence = u32::from_be_bytes([tcp[4], tcp[5], tcp[6], tcp[7]]);
        if tcp[13] & SYN != 0 {
            self.begin = Some((from, sequence.wrapping_add(1)));
            return Ok(true);
        }
        let Some((_, first)) = self.begin.filter(|&(port, _)| port == from) else {
            return Ok(false);
        };
        let bytes = segment.get(usize::from(tcp[12] >> 4) * 4..);
        let bytes = bytes.context("a segment that is cut off")?;
        let offset = sequence.wrapping_sub(first);
        self.pattern.assert_holds(bytes, offset.into())?;
        if !bytes.is_empty() {
            self.end = self.end.max(u64::from(offset) + bytes.len() as u64);
        }
        self.closed |= tcp[13] & FIN == 0 && u64::from(offset) == self.end + 1;
        self.larger += u32::from(packet.len() > MTU);
        self.largest = self.largest.max(packet.len());
        Ok(true)
    }
}
