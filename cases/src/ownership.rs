// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `ownership`: every frame belongs to exactly one side at any moment.

use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::ensure;
use nlring::{Flags, Geometry, Path, Socket, Status};

use crate::child::Child;
use crate::consumer::{Binding, Consumer, Event, Way};
use crate::counters::QueueCounters;
use crate::delivery::assert_holds;
use crate::frames::Frames;
use crate::ledger::Ledger;
use crate::nfqueue::Verdict;
use crate::option::assert_refused;
use crate::rules::Rules;
use crate::scribbler::Scribbler;
use crate::traffic::{self, Burst, Flow, OTHER_PORT, PORT, Window, warm_up};
use crate::{Case, Setting, answers, case, peers};

pub(crate) const CASES: &[Case] = &[
    case!(
        Ownership,
        a_frame_is_never_handed_out_twice_while_user_scribbles
    )
    .proves("rx-reserved rx-full-sender rx-untrusted rx-untrusted-others rx-one-owner fault-24")
    .across(2)
    .within(15),
    case!(Ownership, garbage_in_a_ring_hurts_nobody_else)
        .proves("rx-untrusted rx-untrusted-others")
        .across(1)
        .within(10),
    case!(Ownership, every_message_arrives_once_across_many_wraps)
        .proves("rx-in-turn rx-released rx-full-all-frames fault-22")
        .across(1)
        .within(10),
    case!(Ownership, kept_frames_are_stepped_over)
        .proves("rx-released rx-skip rx-skip-reader fault-6"),
    case!(
        Ownership,
        a_frame_that_was_passed_waits_for_what_took_its_place
    )
    .proves("rx-skip rx-skip-due rx-released"),
    case!(Ownership, a_killed_consumer_leaves_other_sockets_working)
        .proves("mapping-end fault-5")
        .across(1)
        .within(10),
];

/// Known fault 24: the user flips `RESERVED` back to `UNUSED` while the kernel copies into the
/// frame, and at once sends small packets. The ring has two frames, so the second of them finds the
/// kernel back at the flipped frame while a large packet is still being copied there. If it were
/// handed out again, two messages would mix and a checksum not be right; as it is, the small packet
/// meets a full ring. A plain consumer beside it misses nothing.
fn a_frame_is_never_handed_out_twice_while_user_scribbles(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    const LARGE: u32 = 1600;
    const SMALL: u32 = 200;
    const BURST: u32 = 3;
    const BESIDE: u32 = 200;
    /// Frames flipped while they were filled: enough, where a machine is busy and it happens seldom.
    const FLIPS: u32 = 40;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    warm_up(1, patience)?;
    let geometry = Geometry::for_messages(66_000, 2)?;
    let mine = format!("udp dport {PORT} queue num 0");
    let other = format!("udp dport {OTHER_PORT} queue num 1");
    let local = format!("ip daddr 127.0.0.1 {mine}");
    let across = format!("ip saddr != 127.0.0.1 {mine}");
    let _rules = Rules::install(&[&across, &other], &[&local])?;
    let mut consumer = Consumer::ringed(Binding::of(0), geometry, Flags::NONE)?;
    let mut beside = Consumer::plain(Binding::of(1))?;
    let burst = Burst::new(3)?;
    let bursts = burst.count();
    let scribbler = Scribbler::freeing_reserved(consumer.receiver(), geometry, move || {
        burst.send(BURST).expect("datagrams can be sent to oneself");
    })?;

    let unbounded = Window::of(u32::MAX >> 1);
    let large = Flow {
        sizes: 50_000..=65_000,
        seed: setting.seed,
        ..Flow::local(0, LARGE)
    };
    let mut plain = Flow::across(2, 1, BESIDE);
    plain.to.set_port(OTHER_PORT);
    let large_ones = Window::of(u32::MAX >> 1);
    let flows = [
        large.start(&large_ones)?,
        Flow::across(1, 0, SMALL).start(&unbounded)?,
    ];
    let plain = plain.start(&unbounded)?;
    let mut ledger = Ledger::default();
    let mut losses = 0;
    loop {
        if bursts.load(Ordering::Relaxed) >= FLIPS * BURST {
            large_ones.stop();
        }
        match consumer.next(patience / 10)? {
            Some(Event::Packet(packet)) => {
                ledger.book(packet.stamp.expect("a datagram"))?;
                consumer.verdict(packet.id, Verdict::Drop)?;
            }
            Some(Event::Lost) => losses += 1,
            None if flows.iter().all(JoinHandle::is_finished) => break,
            None => {}
        }
    }
    let flipped = scribbler.finish()?;
    while let Some(event) = consumer.next(patience / 20)? {
        if let Event::Packet(packet) = event {
            ledger.book(packet.stamp.expect("a datagram"))?;
        }
    }
    let mut sent = bursts.load(Ordering::Relaxed);
    for flow in flows {
        sent += traffic::sent(flow)?;
    }
    let mut undisturbed = Ledger::default();
    for _ in 0..traffic::sent(plain)? {
        let packet = beside.packet(patience)?;
        undisturbed.book(packet.stamp.expect("a datagram"))?;
        beside.verdict(packet.id, Verdict::Drop)?;
    }
    undisturbed.assert_whole(2, BESIDE)?;

    let counters = QueueCounters::of(0)?;
    ensure!(
        ledger.total() + counters.user_dropped == sent,
        "{sent} sent, {} came whole, {} dropped at the full ring: some are missing",
        ledger.total(),
        counters.user_dropped
    );
    ensure!(
        flipped > 0,
        "no frame was ever seen as RESERVED, so nothing was tried"
    );
    setting.note(format!(
        "{flipped} frames flipped while being filled; {} of {sent} came whole, {} dropped at the full ring ({losses} times ENOBUFS)",
        ledger.total(),
        counters.user_dropped
    ));
    Ok(())
}

/// Contract, "RX": a user that writes garbage into headers or payload, at any moment, from any
/// number of threads, can lose or garble its own messages and nothing more.
fn garbage_in_a_ring_hurts_nobody_else(setting: &mut Setting) -> anyhow::Result<()> {
    const FIRE: u32 = 400;
    const BESIDE: u32 = 200;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let geometry = Geometry::for_messages(2000, 16)?;
    let mine = format!("udp dport {PORT} queue num 0");
    let other = format!("udp dport {OTHER_PORT} queue num 1");
    let _rules = Rules::install(&[&mine, &other], &[])?;
    let mut victim = Consumer::ringed(Binding::of(0), geometry, Flags::NONE)?;
    let mut beside = Consumer::plain(Binding::of(1))?;
    let scribblers = [0, 1].map(|number| {
        Scribbler::everywhere(
            victim.receiver(),
            geometry,
            setting.seed.wrapping_add(number),
        )
    });

    let window = Window::of(u32::MAX >> 1);
    let mut plain = Flow::across(1, 0, BESIDE);
    plain.to.set_port(OTHER_PORT);
    let fire = Flow::across(0, 0, FIRE).start(&window)?;
    let plain = plain.start(&window)?;
    let mut ledger = Ledger::default();
    for _ in 0..BESIDE {
        let packet = beside.packet(patience)?;
        ledger.book(packet.stamp.expect("a datagram"))?;
        beside.verdict(packet.id, Verdict::Drop)?;
    }
    ledger.assert_whole(1, traffic::sent(plain)?)?;
    let sent = traffic::sent(fire)?;
    let mut written = 0;
    for scribbler in scribblers {
        written += scribbler?.finish()?;
    }

    drop(victim);
    let mut anew = Socket::open(libc::NETLINK_NETFILTER)?.rx_ring(geometry, Flags::NONE)?;
    answers::assert_works(&mut anew, patience)?;
    setting.note(format!(
        "{written} words of garbage under {sent} packets; {BESIDE} of {BESIDE} came beside it; a new ring works"
    ));
    Ok(())
}

/// Known fault 22: a ring of four frames wraps thousands of times, and every message arrives once, in
/// its order.
fn every_message_arrives_once_across_many_wraps(setting: &mut Setting) -> anyhow::Result<()> {
    const FRAMES: u32 = 4;
    const ROUNDS: u32 = 4000;
    const DATAGRAMS: u32 = 600;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let geometry = Geometry::from_request(4096, FRAMES / 2, 2048, FRAMES)?;

    let mut receiver = Socket::open(libc::NETLINK_NETFILTER)?.rx_ring(geometry, Flags::ORDERED)?;
    for round in 0..ROUNDS {
        answers::ask(&receiver, round * FRAMES, FRAMES)?;
        for number in round * FRAMES..(round + 1) * FRAMES {
            let (came, frame) = answers::next(&mut receiver, patience)?;
            ensure!(came == number, "answer {came} came where {number} is due");
            ensure!(
                frame == Some(number % FRAMES),
                "answer {number} came in frame {frame:?}"
            );
        }
    }

    let _rules = Rules::install(&[&format!("udp dport {PORT} queue num 0")], &[])?;
    let mut consumer = Consumer::ringed(Binding::of(0), geometry, Flags::NONE)?;
    let window = Window::of(FRAMES);
    let flow = Flow::across(0, 0, DATAGRAMS).start(&window)?;
    let mut ledger = Ledger::default();
    for _ in 0..DATAGRAMS {
        let packet = consumer.packet(patience)?;
        ensure!(
            matches!(packet.way, Way::Frame(_)),
            "it came by {:?}",
            packet.way
        );
        ledger.book(packet.stamp.expect("a datagram"))?;
        consumer.verdict(packet.id, Verdict::Drop)?;
        window.seen();
    }
    ledger.assert_whole(0, traffic::sent(flow)?)?;
    ensure!(
        consumer.next(patience / 20)?.is_none(),
        "more came than was sent"
    );
    setting.note(format!(
        "{} answers in {ROUNDS} wraps and {DATAGRAMS} packets in {} wraps of {FRAMES} frames",
        ROUNDS * FRAMES,
        DATAGRAMS / FRAMES
    ));
    Ok(())
}

/// Contract, "RX", `SKIP`; known fault 6: messages go on around frames that the user keeps, lap after
/// lap; what is kept does not change; given back, the frames are used again.
fn kept_frames_are_stepped_over(setting: &mut Setting) -> anyhow::Result<()> {
    const FRAMES: u32 = 8;
    const KEPT: u32 = 3;
    let patience = setting.patiently(Duration::from_secs(2));
    let geometry = Geometry::from_request(4096, FRAMES, 4096, FRAMES)?;
    let mut receiver = Socket::open(libc::NETLINK_NETFILTER)?.rx_ring(geometry, Flags::ORDERED)?;
    ensure!(receiver.path() == Path::Ring, "there is no ring");

    answers::ask(&receiver, 0, KEPT)?;
    let mut kept = Vec::new();
    for _ in 0..KEPT {
        receiver.wait(Some(patience))?;
        match receiver.receive()? {
            Some(nlring::Received::Frame(frame)) => kept.push(frame.keep()),
            other => anyhow::bail!("an answer came as {other:?}"),
        }
    }
    let before: Vec<Vec<u8>> = kept.iter().map(|frame| frame.to_vec()).collect();
    for number in 100..100 + 10 * FRAMES {
        answers::ask(&receiver, number, 1)?;
        let (came, frame) = answers::next(&mut receiver, patience)?;
        ensure!(came == number, "answer {came} came where {number} is due");
        let frame = frame.ok_or_else(|| anyhow::anyhow!("answer {number} came in no frame"))?;
        ensure!(
            frame >= KEPT,
            "answer {number} came in frame {frame}, which is kept"
        );
    }
    for (frame, before) in kept.iter().zip(&before) {
        ensure!(
            frame[..] == before[..],
            "{frame:?} changed while it was kept"
        );
    }

    drop(kept);
    let mut used = std::collections::BTreeSet::new();
    for number in 500..500 + 2 * FRAMES {
        answers::ask(&receiver, number, 1)?;
        let (came, frame) = answers::next(&mut receiver, patience)?;
        ensure!(came == number, "answer {came} came where {number} is due");
        used.extend(frame);
    }
    ensure!(used.len() == FRAMES as usize, "frames used again: {used:?}");
    setting.note(format!(
        "{KEPT} of {FRAMES} frames kept over {} answers, then all used again",
        10 * FRAMES
    ));
    Ok(())
}

/// The reader's rule for kept frames needs it: what was passed as `SKIP`, and given back when all
/// others are filled, is not taken again until the message that came in its place was read or kept.
/// Were it taken, nothing in the ring would tell that it holds the youngest message.
fn a_frame_that_was_passed_waits_for_what_took_its_place(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    const FRAMES: u32 = 4;
    let (sender, _) = peers::open()?;
    let message = |number| peers::content(number, 100);
    for kept in 1..FRAMES {
        for (dealt, flags) in [
            (Status::Unused, Flags::ORDERED),
            (Status::Skip, Flags::NONE),
        ] {
            let geometry = Geometry::from_request(4096, FRAMES, 4096, FRAMES)?;
            let (socket, port) = peers::open()?;
            socket.set_up_rx_ring(&geometry, flags)?;
            let frames = Frames::map(&socket, geometry)?;
            for number in 0..FRAMES {
                peers::send_to(&sender, port, &message(number))?;
            }
            (0..kept).for_each(|frame| frames.set_status(frame, Status::Skip));
            (kept..FRAMES).for_each(|frame| frames.set_status(frame, Status::Unused));
            for frame in kept..FRAMES {
                peers::send_to(&sender, port, &message(10 + frame))?;
            }
            (0..kept).for_each(|frame| frames.set_status(frame, Status::Unused));
            if kept < FRAMES - 1 {
                frames.set_status(FRAMES - 1, Status::Unused); // not the one in its place
                let refused = peers::send_to(&sender, port, &message(20));
                assert_refused("the youngest before the oldest", refused, libc::EAGAIN)?;
                for frame in 0..kept {
                    let status = frames.status(frame);
                    ensure!(
                        status == Some(Status::Unused),
                        "frame {frame} is {status:?}"
                    );
                }
                assert_holds(&frames, kept, &message(10 + kept))?;
            }
            frames.set_status(kept, dealt);
            for frame in 0..kept {
                peers::send_to(&sender, port, &message(30 + frame))?;
                assert_holds(&frames, frame, &message(30 + frame))?;
            }
            // Taken again, they are like any other: the ring can be filled to its last frame.
            frames.set_statuses(Status::Unused);
            for number in 0..FRAMES {
                peers::send_to(&sender, port, &message(40 + number))?;
                assert_holds(&frames, (kept + number) % FRAMES, &message(40 + number))?;
            }
        }
        setting.note(format!(
            "{kept} of {FRAMES} frames passed, given back, taken again"
        ));
    }
    Ok(())
}

/// Known fault 5 and the contract's "Mapping": a consumer with a mapped ring is killed under
/// traffic. Another consumer goes on without a loss, and the queue can be had again, with a ring.
fn a_killed_consumer_leaves_other_sockets_working(setting: &mut Setting) -> anyhow::Result<()> {
    const BESIDE: u32 = 300;
    const AFTER: u32 = 50;
    let patience = setting.patiently(Duration::from_secs(2));
    let geometry = Geometry::for_messages(2000, 64)?;
    let child = Child::start(|| consume_for_ever(geometry, patience))?;
    warm_up(0, patience)?;
    let mine = format!("udp dport {PORT} queue num 0");
    let other = format!("udp dport {OTHER_PORT} queue num 1");
    let _rules = Rules::install(&[&mine, &other], &[])?;
    let mut beside = Consumer::plain(Binding::of(1))?;
    await_consumer(patience)?;

    // The victim's flow keeps pace with the other, so that the end comes under traffic.
    let window = Window::of(64);
    let fire = Window::of(64);
    let victim = Flow::across(0, 0, BESIDE).start(&fire)?;
    let mut plain = Flow::across(1, 0, BESIDE);
    plain.to.set_port(OTHER_PORT);
    let plain = plain.start(&window)?;
    let mut ledger = Ledger::default();
    let mut shown = 0;
    for number in 0..BESIDE {
        let packet = beside.packet(patience)?;
        ledger.book(packet.stamp.expect("a datagram"))?;
        beside.verdict(packet.id, Verdict::Drop)?;
        window.seen();
        fire.seen();
        if number == BESIDE / 3 {
            shown = await_shown(patience)?;
            child.kill()?;
        }
    }
    ledger.assert_whole(1, traffic::sent(plain)?)?;
    traffic::sent(victim)?;
    ensure!(
        (1..BESIDE).contains(&shown),
        "the consumer was killed after {shown} of {BESIDE} packets, not among them"
    );
    ensure!(QueueCounters::of(0).is_err(), "queue 0 is still bound");

    // With room for what is still on its way to the victim.
    let geometry = Geometry::for_messages(2000, (BESIDE + AFTER).next_power_of_two())?;
    let mut anew = Consumer::ringed(Binding::of(0), geometry, Flags::NONE)?;
    let later = Flow::across(2, 0, AFTER).start(&Window::of(AFTER))?;
    let mut ledger = Ledger::default();
    while ledger.total() < AFTER {
        let packet = anew.packet(patience)?;
        let stamp = packet.stamp.expect("a datagram");
        if stamp.flow == 2 {
            ledger.book(stamp)?;
        }
        anew.verdict(packet.id, Verdict::Drop)?;
    }
    ledger.assert_whole(2, traffic::sent(later)?)?;
    setting.note(format!(
        "killed after {shown} packets; {BESIDE} of {BESIDE} came beside it; {AFTER} of {AFTER} in a new ring"
    ));
    Ok(())
}

/// The child's life: a ring, a queue, and no verdict ever, so that packets wait when it is killed.
fn consume_for_ever(geometry: Geometry, patience: Duration) -> anyhow::Result<()> {
    let mut consumer = Consumer::ringed(Binding::of(0), geometry, Flags::NONE)?;
    loop {
        consumer.next(patience)?;
    }
}

/// Waits until the child has been shown packets; how many.
fn await_shown(patience: Duration) -> anyhow::Result<u32> {
    let deadline = Instant::now() + patience;
    loop {
        match QueueCounters::of(0)?.last_id {
            0 => ensure!(
                Instant::now() < deadline,
                "the child is shown nothing within {patience:?}"
            ),
            shown => return Ok(shown),
        }
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until the child has bound its queue.
fn await_consumer(patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    while QueueCounters::of(0).is_err() {
        ensure!(
            Instant::now() < deadline,
            "the child binds no queue within {patience:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
