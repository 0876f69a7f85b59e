// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `fallback`: what cannot use the ring arrives by ordinary copying.

use std::time::{Duration, Instant};

use anyhow::ensure;
use nlring::{Flags, Geometry, Path, Socket};

use crate::consumer::{Binding, Consumer, Event, Way};
use crate::counters::{QueueCounters, socket_drops};
use crate::ledger::Ledger;
use crate::nfqueue::{QueueFlags, Verdict};
use crate::rules::Rules;
use crate::traffic::{self, Flow, From, PORT, Sink, Window, warm_up};
use crate::{Case, Kernel, Setting, answers, case, option};

pub(crate) const CASES: &[Case] = &[
    case!(
        Fallback,
        a_message_larger_than_a_frame_arrives_whole_by_copy
    )
    .proves("rx-copy fault-11")
    .across(1)
    .within(10),
    case!(Fallback, a_full_ring_drops_counts_and_resumes)
        .proves(
            "rx-full rx-full-all-frames rx-full-counted rx-full-enobufs rx-full-sender \
         rx-full-resumes fault-26",
        )
        .across(1),
    case!(Fallback, a_full_ring_asks_fail_open)
        .proves("rx-full-fail-open fault-26")
        .across(1),
    case!(Fallback, a_kernel_without_rings_serves_the_same_program)
        .proves("rest-off rest-library")
        .across(1)
        .on(Kernel::Plain),
];

/// Contract, "RX", `COPY`; known fault 11: a message that does not fit a frame waits in the
/// socket's queue and arrives whole, be it one byte too long or thirty frames long, with its place
/// marked; one that just fits is in the frame.
fn a_message_larger_than_a_frame_arrives_whole_by_copy(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    const DATAGRAMS: u32 = 60;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let geometry = Geometry::from_request(4096, 32, 2048, 64)?;
    let mine = format!("udp dport {PORT} queue num 0");
    let local = format!("ip daddr 127.0.0.1 {mine}");
    let across = format!("ip saddr != 127.0.0.1 {mine}");
    let _rules = Rules::install(&[&across], &[&local])?;
    let mut consumer = Consumer::ringed(Binding::of(0), geometry, Flags::NONE)?;
    let window = Window::of(2);

    // A message is the datagram, 28 bytes of headers and some 60 to 130 of attributes: so these go
    // from well inside the frame's 2024 bytes over its border to thirty times as much.
    let flow = |number, sizes| Flow {
        sizes,
        seed: setting.seed,
        ..Flow::local(number, DATAGRAMS)
    };
    let flows = [
        (flow(0, 100..=1200).start(&window)?, Kind::InFrame),
        (flow(1, 1800..=2000).start(&window)?, Kind::Either),
        (flow(2, 4000..=60_000).start(&window)?, Kind::Copied),
        (Flow::across(3, 0, DATAGRAMS).start(&window)?, Kind::InFrame),
    ];
    let mut ledger = Ledger::default();
    let (mut in_place, mut copied) = (0, 0);
    for _ in 0..4 * DATAGRAMS {
        let packet = consumer.packet(patience)?;
        let stamp = packet.stamp.expect("a datagram");
        ledger.book(stamp)?;
        window.seen();
        consumer.verdict(packet.id, Verdict::Drop)?;
        match (packet.way, flows[stamp.flow as usize].1) {
            (Way::Frame(_), Kind::InFrame | Kind::Either) => in_place += 1,
            (Way::Copy(_), Kind::Copied | Kind::Either) => copied += 1,
            (way, kind) => anyhow::bail!("{stamp:?} came by {way:?} and should be {kind:?}"),
        }
    }
    for (number, (flow, _)) in (0..).zip(flows) {
        ledger.assert_whole(number, traffic::sent(flow)?)?;
    }
    setting.note(format!("{in_place} in frames, {copied} whole by copy"));
    Ok(())
}

/// How a message of some size must come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    InFrame,
    Copied,
    Either,
}

/// Frames of the ring that the next two cases fill.
const FRAMES: u32 = 8;
/// Packets sent at it.
const FLOOD: u32 = 20;

/// Sends a flood and waits until the queue has disposed of all of it.
fn flood(
    number: u32,
    patience: Duration,
    is_done: impl Fn(QueueCounters) -> bool,
) -> anyhow::Result<QueueCounters> {
    traffic::sent(Flow::across(number, 0, FLOOD).start(&Window::of(FLOOD))?)?;
    let deadline = Instant::now() + patience;
    loop {
        let counters = QueueCounters::of(0)?;
        if is_done(counters) {
            return Ok(counters);
        }
        ensure!(
            Instant::now() < deadline,
            "the flood is not dealt with within {patience:?}: {counters:?}"
        );
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Contract, "Ring full"; known fault 26: the message is dropped, the queue and the socket count
/// it, `ENOBUFS` is reported once, and when frames are released traffic resumes with no further
/// call.
fn a_full_ring_drops_counts_and_resumes(setting: &mut Setting) -> anyhow::Result<()> {
    const ROUNDS: u32 = 3;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let geometry = Geometry::from_request(4096, FRAMES / 2, 2048, FRAMES)?;
    let _rules = Rules::install(&[&format!("udp dport {PORT} queue num 0")], &[])?;
    let mut consumer = Consumer::ringed(Binding::of(0), geometry, Flags::NONE)?;
    let too_many = FLOOD - FRAMES;

    for round in 1..=ROUNDS {
        let last_id = round * FLOOD;
        let counters = flood(round, patience, |counters| counters.last_id == last_id)?;
        ensure!(
            counters.user_dropped == round * too_many && counters.waiting == FRAMES,
            "{FLOOD} packets at {FRAMES} frames, round {round}: {counters:?}"
        );
        let drops = socket_drops(libc::NETLINK_NETFILTER, counters.port)?;
        ensure!(
            drops == round * too_many,
            "the socket counts {drops} drops in round {round}"
        );

        let (mut packets, mut losses) = (0, 0);
        while let Some(event) = consumer.next(patience / 20)? {
            match event {
                Event::Packet(packet) => {
                    let stamp = packet.stamp.expect("a datagram");
                    ensure!(
                        stamp.flow == round && stamp.sequence == packets,
                        "{stamp:?} came where {packets} of round {round} is due"
                    );
                    packets += 1;
                    consumer.verdict(packet.id, Verdict::Drop)?;
                }
                Event::Lost => losses += 1,
            }
        }
        ensure!(
            packets == FRAMES && losses == 1,
            "round {round}: {packets} packets, {losses} times ENOBUFS"
        );
    }
    setting.note(format!(
        "{ROUNDS} floods of {FLOOD} at {FRAMES} frames: {too_many} dropped and counted each time, ENOBUFS once each"
    ));
    Ok(())
}

/// Known fault 26: at a full ring `nfnetlink_queue` asks fail-open as it does at a full buffer:
/// what the ring cannot take goes through.
fn a_full_ring_asks_fail_open(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let sink = Sink::bind(From::Here, PORT)?;
    let geometry = Geometry::from_request(4096, FRAMES / 2, 2048, FRAMES)?;
    let binding = Binding {
        flags: QueueFlags::FAIL_OPEN,
        ..Binding::of(0)
    };
    let _rules = Rules::install(&[&format!("udp dport {PORT} queue num 0")], &[])?;
    let mut consumer = Consumer::ringed(binding, geometry, Flags::NONE)?;

    let counters = flood(0, patience, |counters| counters.last_id == FLOOD)?;
    let mut ledger = Ledger::default();
    for _ in 0..FLOOD - FRAMES {
        match sink.next(patience)? {
            Some(stamp) => ledger.book(stamp)?,
            None => anyhow::bail!("only {} went through the full ring", ledger.total()),
        }
    }
    ensure!(
        sink.next(patience / 20)?.is_none(),
        "more went through than the ring left"
    );
    while ledger.total() < FLOOD {
        match consumer.next(patience)? {
            Some(Event::Packet(packet)) => {
                ledger.book(packet.stamp.expect("a datagram"))?;
                consumer.verdict(packet.id, Verdict::Drop)?;
            }
            Some(Event::Lost) => {}
            None => anyhow::bail!("only {} of {FLOOD} are accounted for", ledger.total()),
        }
    }
    ledger.assert_whole(0, FLOOD)?;
    ensure!(
        counters.user_dropped == 0 && counters.dropped == 0,
        "fail-open counts as a drop: {counters:?}"
    );
    setting.note(format!(
        "{FRAMES} in the ring, {} let through",
        FLOOD - FRAMES
    ));
    Ok(())
}

/// Contract, "Setting a ring up": a kernel without the feature answers `ENOPROTOOPT`, and the
/// library serves the same program through the plain socket and says so.
fn a_kernel_without_rings_serves_the_same_program(setting: &mut Setting) -> anyhow::Result<()> {
    const DATAGRAMS: u32 = 200;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let geometry = Geometry::for_messages(2000, 64)?;
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    ensure!(socket.rx_ring_request()?.is_none(), "this kernel has rings");
    let words = option::request(&[4096, 4, 2048, 8]);
    let refused = option::set(&socket, option::NETLINK_RX_RING, &words);
    option::assert_refused("a ring without the feature", refused, libc::ENOPROTOOPT)?;

    let _rules = Rules::install(&[&format!("udp dport {PORT} queue num 0")], &[])?;
    let mut receiver = socket.rx_ring(geometry, Flags::ORDERED)?;
    ensure!(
        receiver.path() == Path::Plain,
        "the library says {:?}",
        receiver.path()
    );
    answers::assert_works(&mut receiver, patience)?;
    let mut consumer = Consumer::bind(receiver, Binding::of(0))?;
    let window = Window::of(32);
    let flow = Flow::across(0, 0, DATAGRAMS).start(&window)?;
    let mut ledger = Ledger::default();
    for id in 1..=DATAGRAMS {
        let packet = consumer.packet(patience)?;
        ensure!(
            packet.id == id && packet.way == Way::Plain,
            "{packet:?} where {id} is due"
        );
        ledger.book(packet.stamp.expect("a datagram"))?;
        window.seen();
        consumer.verdict(id, Verdict::Drop)?;
    }
    ledger.assert_whole(0, traffic::sent(flow)?)?;
    setting.note(format!("{DATAGRAMS} packets through the plain socket"));
    Ok(())
}
