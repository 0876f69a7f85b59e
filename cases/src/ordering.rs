// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `ordering`: frames stand in the order that was promised.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use anyhow::ensure;
use nlring::{Flags, Geometry};

use crate::bulk::{self, Bulk};
use crate::consumer::{Binding, Consumer, Event, Packet, Way};
use crate::counters::QueueCounters;
use crate::ledger::Ledger;
use crate::nfqueue::{QueueFlags, Verdict};
use crate::place::Places;
use crate::rules::Rules;
use crate::scribbler::Scribbler;
use crate::traffic::{self, Burst, Flow, From, OTHER_PORT, PORT, Sink, Window, warm_up};
use crate::{Case, Setting, case};

pub(crate) const CASES: &[Case] = &[
    case!(Ordering, ordered_ring_keeps_packet_ids_increasing)
        .proves("rx-published-last rx-reserved rx-ordered rx-ordered-ids fault-3")
        .across(2)
        .within(20),
    case!(Ordering, allocation_order_can_show_a_later_packet_first)
        .proves("rx-published-last rx-early rx-one-owner fault-3")
        .across(2)
        .within(20),
    case!(Ordering, a_copied_message_keeps_its_place)
        .proves("rx-copy rx-copy-pairs rx-ordered rx-ordered-ids")
        .across(1)
        .within(10),
    case!(Ordering, a_batch_verdict_covers_only_what_was_shown)
        .proves("rx-in-turn")
        .across(1)
        .within(10),
];

/// Datagrams of each flow of the crossfire, at most.
const PER_FLOW: u32 = 100_000;
/// The flow of the small datagrams that overtake.
const OVERTAKING: u32 = 3;
/// Packets of the crossfire with the ordered ring, TCP included.
const ENOUGH: u32 = 1500;
/// How often, at least, it has to be tried to overtake a frame of the ordered ring.
const TRIES: u32 = 10;

/// One queue under fire from several CPUs: TCP in pieces of 64 KiB on its way out, datagrams coming
/// in over two NIC pairs by softirq, and large datagrams of our own. Whenever a frame is seen while
/// it is being filled, a small datagram is sent to overtake it. Packets are handed to `look` with
/// the number of those sent so far, and accepted, until it says that it has seen enough. Nothing
/// may be lost, doubled or garbled.
fn crossfire(
    setting: &mut Setting,
    flags: Flags,
    mut look: impl FnMut(Packet, u32) -> anyhow::Result<Enough>,
) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    warm_up(1, patience)?;
    let _sink = Sink::bind(From::Here, PORT)?;
    let geometry = Geometry::for_messages(70_000, 64)?;
    let binding = Binding {
        flags: QueueFlags::GSO,
        ..Binding::of(0)
    };
    let udp = format!("udp dport {PORT} queue num 0");
    let local = format!("ip daddr 127.0.0.1 {udp}");
    let across = format!(
        "ip daddr {{ {}, {} }} {udp}",
        traffic::near(0),
        traffic::near(1)
    );
    let tcp = format!("tcp dport {} queue num 0", bulk::PORT);
    let _rules = Rules::install(&[&across], &[&local, &tcp])?;
    let mut consumer = Consumer::ringed(binding, geometry, flags)?;

    let small = Burst::new(OVERTAKING)?;
    let small_sent = small.count();
    let mut watcher = Some(Scribbler::overtaking_reserved(
        consumer.receiver(),
        geometry,
        move || {
            small.send(1).expect("a datagram can be sent to oneself");
        },
    )?);

    // Each of these may be overtaken by one, and the ring has to hold them all.
    let window = Window::of(24);
    let bulk = Bulk::start(From::Here, 0, patience)?;
    let flows = [
        Flow::across(0, 0, PER_FLOW).start(&window)?,
        Flow::across(1, 1, PER_FLOW).start(&window)?,
        Flow {
            sizes: 50_000..=65_000,
            seed: setting.seed,
            cpu: 0,
            ..Flow::local(2, PER_FLOW)
        }
        .start(&window)?,
    ];
    let mut ledger = Ledger::default();
    let (mut packets, mut segments) = (0_u32, 0_u32);
    let mut enough = false;
    loop {
        // After the last datagram silence is what we wait for; TCP says itself when it is done.
        let span = if enough { patience / 10 } else { patience };
        match consumer.next(span)? {
            Some(Event::Packet(packet)) => {
                packets += 1;
                match packet.stamp {
                    Some(stamp) => {
                        ledger.book(stamp)?;
                        if stamp.flow != OVERTAKING {
                            window.seen();
                        }
                    }
                    None => segments += 1,
                }
                consumer.verdict(packet.id, Verdict::Accept)?;
                let overtaking = small_sent.load(Ordering::Relaxed);
                if look(packet, overtaking)? == Enough::Yes && !enough {
                    enough = true;
                    drop(watcher.take());
                    window.stop();
                    bulk.stop();
                }
            }
            Some(Event::Lost) => anyhow::bail!("the ring was full after {packets} packets"),
            None if enough && bulk.is_done() => break,
            None => ensure!(enough, "no packet within {span:?}, after {packets}"),
        }
    }
    for (number, flow) in (0..).zip(flows) {
        ledger.assert_whole(number, traffic::sent(flow)?)?;
    }
    let overtaking = small_sent.load(Ordering::Relaxed);
    ledger.assert_whole(OVERTAKING, overtaking)?;
    let bytes = bulk.finish()?;
    let counters = QueueCounters::of(0)?;
    ensure!(
        counters.last_id == packets && counters.user_dropped == 0 && counters.dropped == 0,
        "{packets} packets were seen, and the kernel counts {counters:?}"
    );
    setting.note(format!(
        "{packets} packets: {} datagrams, {segments} of TCP with {bytes} bytes, {overtaking} frames seen while being filled; none lost or doubled",
        ledger.total()
    ));
    Ok(())
}

/// Whether the case has seen what it wants to see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Enough {
    No,
    Yes,
}

/// Contract, "RX": with `NL_MMAP_RING_ORDERED` packet ids in the ring strictly increase, under
/// traffic from several CPUs, and everything that fits is in the ring.
fn ordered_ring_keeps_packet_ids_increasing(setting: &mut Setting) -> anyhow::Result<()> {
    let mut last = 0;
    crossfire(setting, Flags::ORDERED, |packet, overtaking| {
        ensure!(
            packet.id > last,
            "packet {} stands behind packet {last}",
            packet.id
        );
        ensure!(
            matches!(packet.way, Way::Frame(_)),
            "packet {} came by {:?}",
            packet.id,
            packet.way
        );
        last = packet.id;
        Ok(if last >= ENOUGH && overtaking >= TRIES {
            Enough::Yes
        } else {
            Enough::No
        })
    })?;
    setting.note(format!("ids increase from 1 to {last}"));
    Ok(())
}

/// Contract, "RX", allocation order: the same traffic can stand in another order than the packets
/// were queued in, and still nothing is lost or doubled. A large packet's frame is taken and filled
/// before the packet gets its id, in process context; small ones overtake it.
fn allocation_order_can_show_a_later_packet_first(setting: &mut Setting) -> anyhow::Result<()> {
    let geometry = Geometry::for_messages(70_000, 64)?;
    let mut places = Places::new(geometry.frame_nr());
    let deadline = Instant::now() + setting.patiently(Duration::from_secs(2));
    let mut seen: Option<((u32, u32), u32)> = None;
    let mut packets = 0_u32;
    crossfire(setting, Flags::NONE, |packet, _| {
        packets += 1;
        let Way::Frame(frame) = packet.way else {
            anyhow::bail!("packet {} came by {:?}", packet.id, packet.way);
        };
        seen = seen.or(places.book(frame, packet.id).map(|pair| (pair, packets)));
        let late = Instant::now() > deadline;
        Ok(if seen.is_some() || late {
            Enough::Yes
        } else {
            Enough::No
        })
    })?;
    let ((before, behind), at) = seen.ok_or_else(|| {
        anyhow::anyhow!("{packets} packets, and every frame stands in the order of ids")
    })?;
    setting.note(format!(
        "packet {before} stands before packet {behind}, seen after {at} packets"
    ));
    Ok(())
}

/// Contract, "RX": `COPY` frames stand in the same order as the messages in the queue, and with
/// `NL_MMAP_RING_ORDERED` all frames, `COPY` included, stand in the order of sending.
fn a_copied_message_keeps_its_place(setting: &mut Setting) -> anyhow::Result<()> {
    const DATAGRAMS: u32 = 600;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let geometry = Geometry::new(4096, 16, 1024)?;
    let _rules = Rules::install(&[&format!("udp dport {PORT} queue num 0")], &[])?;
    let mut consumer = Consumer::ringed(Binding::of(0), geometry, Flags::ORDERED)?;
    let window = Window::of(16);
    let seed = setting.seed;
    let flow = |number: u32, count| Flow {
        sizes: 64..=1400,
        seed: seed.wrapping_add(number.into()),
        ..Flow::across(number, 0, count)
    };
    let flows = [
        flow(0, DATAGRAMS / 2).start(&window)?,
        flow(1, DATAGRAMS / 2).start(&window)?,
    ];

    let mut ledger = Ledger::default();
    let (mut in_place, mut copied) = (0, 0);
    for id in 1..=DATAGRAMS {
        let packet = consumer.packet(patience)?;
        ensure!(
            packet.id == id,
            "packet {} is shown where {id} is due",
            packet.id
        );
        match packet.way {
            Way::Frame(_) => in_place += 1,
            Way::Copy(_) => copied += 1,
            Way::Plain => anyhow::bail!("packet {id} came without a frame to mark its place"),
        }
        ledger.book(packet.stamp.expect("a datagram"))?;
        window.seen();
        consumer.verdict(id, Verdict::Drop)?;
    }

    for (number, flow) in (0..).zip(flows) {
        ledger.assert_whole(number, traffic::sent(flow)?)?;
    }
    ensure!(
        in_place > 50 && copied > 50,
        "too few of a kind: {in_place} in frames, {copied} copied"
    );
    setting.note(format!(
        "ids 1 to {DATAGRAMS} in order: {in_place} in frames, {copied} copied"
    ));
    Ok(())
}

/// Contract, "RX": a batch verdict up to id N never covers a packet that the consumer has not yet
/// been shown. Half of what waits is read, and exactly that half is let through.
fn a_batch_verdict_covers_only_what_was_shown(setting: &mut Setting) -> anyhow::Result<()> {
    const ROUNDS: u32 = 10;
    const BURST: u32 = 20;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let sink = Sink::bind(From::Here, OTHER_PORT)?;
    let geometry = Geometry::for_messages(2000, 64)?;
    let _rules = Rules::install(&[&format!("udp dport {OTHER_PORT} queue num 0")], &[])?;
    let mut consumer = Consumer::ringed(Binding::of(0), geometry, Flags::ORDERED)?;

    for round in 0..ROUNDS {
        let mut flow = Flow::across(round, 0, BURST);
        flow.to.set_port(OTHER_PORT);
        traffic::sent(flow.start(&Window::of(BURST))?)?;
        let mut shown = Vec::new();
        for half in 0..2 {
            let mut last = 0;
            for _ in 0..BURST / 2 {
                let packet = consumer.packet(patience)?;
                shown.push(packet.stamp.expect("a datagram"));
                last = packet.id;
            }
            if half == 0 {
                await_waiting(BURST, patience)?;
            }
            consumer.verdict_up_to(last, Verdict::Accept)?;
            for stamp in shown.drain(..) {
                let through = sink.next(patience)?;
                ensure!(
                    through == Some(stamp),
                    "{stamp:?} was accepted, {through:?} came"
                );
            }
            let waiting = QueueCounters::of(0)?.waiting;
            ensure!(
                waiting == BURST / 2 * (1 - half),
                "{waiting} packets wait behind the verdict on half {half}"
            );
        }
    }
    setting.note(format!(
        "{} batch verdicts let through {} packets, as shown",
        2 * ROUNDS,
        ROUNDS * BURST
    ));
    Ok(())
}

/// Waits until this many packets wait for a verdict.
fn await_waiting(count: u32, patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    while QueueCounters::of(0)?.waiting != count {
        ensure!(
            Instant::now() < deadline,
            "{count} packets are not queued within {patience:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
