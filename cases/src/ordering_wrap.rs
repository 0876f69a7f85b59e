// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `ordering`: order is kept from lap to lap, around frames that the reader
//! keeps, and over losses.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry, Kept, Received};

use crate::arrivals::Arrivals;
use crate::consumer::{Binding, Consumer, Event, Packet, Sight, Way};
use crate::counters::{QueueCounters, socket_drops};
use crate::frames::Frames;
use crate::nfqueue::Verdict;
use crate::rules::Rules;
use crate::sequences::Sequences;
use crate::traffic::{self, Flow, From, PORT, Window, far, warm_up};
use crate::walker::Walker;
use crate::{Case, Setting, case, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Ordering, order_holds_over_many_laps_of_a_small_ring)
        .proves("rx-in-turn rx-released rx-ordered-ids setup-frame-place")
        .across(1)
        .within(10),
    case!(Ordering, order_holds_around_packets_that_are_kept)
        .proves("rx-skip rx-skip-reader rx-ordered-ids")
        .across(1)
        .within(10),
    case!(Ordering, frames_given_back_late_do_not_disturb_the_order)
        .proves("rx-skip rx-skip-due rx-skip-reader rx-full-resumes"),
    case!(
        Ordering,
        a_full_ring_leaves_gaps_that_are_counted_and_no_disorder
    )
    .proves("rx-full rx-full-counted rx-full-enobufs rx-full-sender rx-full-resumes rx-ordered-ids")
    .across(1)
    .within(10),
];

/// Contract, "RX" and "Names and layouts": frames are taken in the ring's order, lap after lap,
/// also where blocks end in a gap, and two CPUs fill them.
fn order_holds_over_many_laps_of_a_small_ring(setting: &mut Setting) -> anyhow::Result<()> {
    const PER_FLOW: u32 = 60;
    const SHAPES: [(u32, u32, u32); 3] = [(4096, 1, 1364), (4096, 5, 1364), (8192, 2, 1024)];
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let _rules = Rules::install(&[], &[&format!("udp dport {PORT} queue num 0")])?;
    let mut laps = 0;
    for (block_size, block_nr, frame_size) in SHAPES {
        for flags in [Flags::NONE, Flags::ORDERED] {
            let geometry = Geometry::new(block_size, block_nr, frame_size)?;
            let mut consumer = Consumer::ringed(Binding::of(0), geometry, flags)?;
            let frames = Frames::map(consumer.receiver(), geometry)?;
            let mut walker = Walker::at(frames, 1);
            let window = Window::of(geometry.frame_nr());
            let flow = |number: u32| Flow {
                sizes: 16..=800,
                seed: setting.seed ^ u64::from(number),
                ..Flow::outward(number, 0, PER_FLOW)
            };
            let flows = [flow(0).start(&window)?, flow(1).start(&window)?];

            let mut sequences = Sequences::default();
            for due in 1..=2 * PER_FLOW {
                let next = walker.next(consumer.receiver(), patience)?;
                let (way, message) = next.context("the ring has no more")?;
                let packet = Sight::read(&message, way)?.packet()?;
                ensure!(
                    way == Way::Frame(due % geometry.frame_nr()),
                    "message {due} of {geometry:?} came by {way:?}"
                );
                ensure!(
                    flags == Flags::NONE || packet.id == due,
                    "packet {} stands where {due} is due",
                    packet.id
                );
                sequences.next(packet.stamp.context("a packet that is no datagram")?)?;
                consumer.verdict(packet.id, Verdict::Drop)?;
                window.seen();
            }
            for (number, flow) in (0..).zip(flows) {
                sequences.assert_whole(number, traffic::sent(flow)?)?;
            }
            laps += 2 * PER_FLOW / geometry.frame_nr();
        }
    }
    setting.note(format!("{laps} laps of {} shapes", SHAPES.len()));
    Ok(())
}

/// Contract, "RX", `SKIP`: while the reader keeps frames here and there for a while, the packets of
/// two CPUs stand around them in order, and what is kept stays as it is.
fn order_holds_around_packets_that_are_kept(setting: &mut Setting) -> anyhow::Result<()> {
    const PER_FLOW: u32 = 150;
    /// Packets kept at a time.
    const KEPT: usize = 5;
    /// Packets under way. While these are sent, at most as many more are read, and kept; so many
    /// frames stand between the oldest unread one and the kernel's next, and there are more.
    const UNREAD: u32 = 8;
    const FRAMES: u32 = 32;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let _rules = Rules::install(&[], &[&format!("udp dport {PORT} queue num 0")])?;
    for flags in [Flags::NONE, Flags::ORDERED] {
        let geometry = Geometry::from_request(8192, FRAMES / 4, 2048, FRAMES)?;
        let mut consumer = Consumer::ringed(Binding::of(0), geometry, flags)?;
        let mut random = fastrand::Rng::with_seed(setting.seed);
        let window = Window::of(UNREAD);
        let flow = |number: u32| Flow {
            sizes: 16..=1400,
            seed: setting.seed ^ u64::from(number),
            ..Flow::outward(number, 0, PER_FLOW)
        };
        let flows = [flow(0).start(&window)?, flow(1).start(&window)?];

        let mut kept: Vec<(u32, Packet, Kept)> = Vec::new();
        let mut sequences = Sequences::default();
        for due in 1..=2 * PER_FLOW {
            // For up to two laps.
            let until = due + random.u32(1..=2 * FRAMES);
            let keep = kept.len() < KEPT;
            let event = consumer.take(patience, |received| {
                let packet = Sight::of(&received)?.packet()?;
                if let (true, Received::Frame(frame)) = (keep, received) {
                    kept.push((until, packet, frame.keep()));
                }
                Ok(packet)
            })?;
            let Some(Event::Packet(packet)) = event else {
                anyhow::bail!("{event:?} comes where packet {due} is due");
            };
            ensure!(
                flags == Flags::NONE || packet.id == due,
                "packet {} stands where {due} is due",
                packet.id
            );
            sequences.next(packet.stamp.context("a packet that is no datagram")?)?;
            consumer.verdict(packet.id, Verdict::Drop)?;
            for (_, packet, frame) in kept.extract_if(.., |(until, ..)| *until <= due) {
                let again = Sight::read(&frame, packet.way)?.packet()?;
                ensure!(again == packet, "{packet:?} was kept, and is {again:?}");
            }
            window.seen();
        }
        for (number, flow) in (0..).zip(flows) {
            sequences.assert_whole(number, traffic::sent(flow)?)?;
        }
        let counters = QueueCounters::of(0)?;
        ensure!(
            counters.user_dropped == 0 && counters.last_id == 2 * PER_FLOW,
            "the kernel counts {counters:?}"
        );
    }
    setting.note(format!(
        "{} packets, up to {KEPT} of them kept, in both orders",
        2 * PER_FLOW
    ));
    Ok(())
}

/// Contract, "RX", `SKIP`, the reader's rule: a frame that is given back when all others are filled
/// does not take the youngest message to where the oldest is due. The sender fills whatever room
/// there is, so that happens at every turn.
fn frames_given_back_late_do_not_disturb_the_order(setting: &mut Setting) -> anyhow::Result<()> {
    const MESSAGES: u32 = 3000;
    const LEN: usize = 60;
    let mut refused = 0;
    for flags in [Flags::NONE, Flags::ORDERED] {
        let (socket, port) = peers::open()?;
        let (sender, _) = peers::open()?;
        let geometry = Geometry::from_request(4096, 1, 512, 8)?;
        let mut receiver = socket.rx_ring(geometry, flags)?;
        let mut random = fastrand::Rng::with_seed(setting.seed);
        let mut kept: Vec<(u32, Kept)> = Vec::new();
        let (mut sent, mut read) = (0, 0);
        while read < MESSAGES {
            // Mostly more than there is room for.
            for _ in 0..random.u32(1..16) {
                match peers::send_to(&sender, port, &peers::content(sent, LEN)) {
                    Ok(_) => sent += 1,
                    Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                        refused += 1;
                        break;
                    }
                    Err(error) => return Err(error.into()),
                }
            }
            for _ in 0..random.u32(..8) {
                let Some(message) = receiver.receive()? else {
                    ensure!(
                        read == sent,
                        "{sent} messages are sent and {read} to be found"
                    );
                    break;
                };
                ensure!(
                    message.message() == Some(&peers::content(read, LEN)),
                    "another message stands where {read} is due"
                );
                if let (true, Received::Frame(frame)) = (random.u8(..3) == 0, message) {
                    kept.push((read, frame.keep()));
                }
                read += 1;
            }
            while kept.len() > random.usize(..6) {
                let (number, frame) = kept.swap_remove(random.usize(..kept.len()));
                ensure!(
                    *frame == *peers::content(number, LEN),
                    "message {number} was kept, and is another"
                );
            }
        }
    }
    setting.note(format!(
        "{MESSAGES} messages in both orders, the ring full {refused} times"
    ));
    Ok(())
}

/// Contract, "RX", ring full: what is dropped leaves a gap, in the flows and in the ids, that the
/// queue and the socket count one by one; what is not dropped keeps its order, and when frames are
/// released all goes on with no further call. What is shown arrives.
fn a_full_ring_leaves_gaps_that_are_counted_and_no_disorder(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    const ROUNDS: u32 = 4;
    /// Datagrams of a flow in a round: with two flows more than the ring holds.
    const BURST: u32 = 24;
    const FRAMES: u32 = 16;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let bypass = format!("udp dport {PORT} queue num 0 bypass");
    let _rules = Rules::install(&[], &[&bypass])?;
    let mut dropped = 0;
    for flags in [Flags::NONE, Flags::ORDERED] {
        let arrivals = Arrivals::of(From::Here, From::Peer, &[far(0)], patience)?;
        let geometry = Geometry::from_request(8192, FRAMES / 4, 2048, FRAMES)?;
        let mut consumer = Consumer::ringed(Binding::of(0), geometry, flags)?;
        let mut shown = Vec::new();
        let mut last = 0;
        let mut losses = 0;
        for round in 0..ROUNDS {
            let flow = |number: u32| Flow {
                cpu: number as usize,
                ..Flow::outward(2 * round + number, 0, BURST)
            };
            let open = Window::of(2 * BURST);
            let flows = [flow(0).start(&open)?, flow(1).start(&open)?];
            let mut flows = flows.into_iter();
            // Every other time nobody reads until all are sent, and every other time meanwhile.
            if round % 2 == 0 {
                for flow in flows.by_ref() {
                    ensure!(traffic::sent(flow)? == BURST, "too few are sent");
                }
            }
            loop {
                // What was sent is in the ring; what is being sent may be, a moment later.
                let pause = Duration::from_millis(5 * u64::from(flows.len() > 0));
                match consumer.next(pause)? {
                    Some(Event::Packet(packet)) => {
                        ensure!(
                            flags == Flags::NONE || packet.id > last,
                            "packet {} stands behind packet {last}",
                            packet.id
                        );
                        last = packet.id;
                        shown.push(packet.stamp.context("a packet that is no datagram")?);
                        consumer.verdict(packet.id, Verdict::Accept)?;
                    }
                    Some(Event::Lost) => losses += 1,
                    None => match flows.next() {
                        Some(flow) => drop(traffic::sent(flow)?),
                        None => break,
                    },
                }
            }
        }
        let counters = QueueCounters::of(0)?;
        let drops = socket_drops(libc::NETLINK_NETFILTER, counters.port)?;
        let total = shown.len() as u32;
        ensure!(
            counters.last_id == 2 * ROUNDS * BURST
                && counters.user_dropped == counters.last_id - total
                && counters.dropped == 0
                && counters.waiting == 0
                && drops == counters.user_dropped,
            "{total} packets were shown; the queue counts {counters:?}, the socket {drops} drops"
        );
        ensure!(
            drops > 0 && losses > 0,
            "{drops} dropped, told of {losses} times"
        );
        dropped += drops;
        let mut sequences = Sequences::default();
        for &stamp in &shown {
            sequences.later(stamp)?;
        }
        drop(consumer);
        ensure!(
            arrivals.finish()? == shown,
            "what arrives is not what was shown"
        );
    }
    setting.note(format!(
        "{dropped} of {} packets lost to a full ring, each counted",
        4 * ROUNDS * BURST
    ));
    Ok(())
}
