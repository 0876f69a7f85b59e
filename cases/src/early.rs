// SPDX-License-Identifier: MIT OR Apache-2.0
//! Frames that the kernel takes before their message is sent: what poll makes of them, and what
//! becomes of the message if the ring goes meanwhile.

use std::time::{Duration, Instant};

use anyhow::ensure;
use nlring::{Flags, Geometry, Status};

use crate::consumer::{Binding, Consumer};
use crate::counters::QueueCounters;
use crate::nfqueue::Verdict;
use crate::option::set_number;
use crate::publication::{judge, queue};
use crate::ready::is_readable;
use crate::rules::Rules;
use crate::traffic::{self, Flow, PORT, Window, pin};
use crate::{Case, Setting, case, filter, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Poll, a_frame_that_was_passed_while_it_was_filled_is_told).proves("poll-after-reserved"),
    case!(Ownership, a_filter_that_refuses_all_fills_no_frame).proves("rest-filter rx-early"),
    case!(Lifetime, a_packet_whose_ring_goes_meanwhile_arrives_as_ever)
        .proves("rx-early-generation"),
];

/// Bytes of a datagram whose copying takes a while.
const LARGE: usize = 20_000;

/// Contract, "poll": the kernel's cursor looks on behind a frame that is being filled, and comes back
/// to it: who saw `VALID` is told so by the next poll.
fn a_frame_that_was_passed_while_it_was_filled_is_told(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    /// At least, and at most if it is not often seen that a frame is being filled.
    const PACKETS: [u32; 2] = [100, 4000];
    /// Polls while a frame is being filled that are enough.
    const POLLS: u32 = 10;
    const FRAMES: u32 = 4;
    let deadline = Instant::now() + setting.patiently(Duration::from_secs(4));
    let (mut consumer, frames, _rules) = queue(FRAMES, Binding::of(0))?;
    // One at a time: poll must not be right because of another.
    let window = Window::of(1);
    pin(1)?;
    let flow = Flow {
        sizes: LARGE..=LARGE,
        ..Flow::local(0, PACKETS[1])
    }
    .start(&window)?;
    let mut polled_while_filled = 0;
    let mut read = || {
        for number in 1..=PACKETS[1] {
            let frame = number % FRAMES;
            loop {
                let before = frames.status(frame);
                let readable = is_readable(consumer.receiver())?;
                if before == Some(Status::Valid) {
                    ensure!(readable, "packet {number} is VALID, and not readable");
                    break;
                }
                polled_while_filled += u32::from(before == Some(Status::Reserved));
                ensure!(
                    Instant::now() < deadline,
                    "frame {frame} stays {before:?} for packet {number}"
                );
            }
            judge(&mut consumer, &frames, frame)?;
            frames.set_status(frame, Status::Unused);
            if number >= PACKETS[0] && polled_while_filled >= POLLS {
                return Ok(number); // before another is sent, which nobody would judge
            }
            window.seen();
        }
        Ok(PACKETS[1])
    };
    let seen = read();
    window.stop();
    traffic::sent(flow)?;
    let packets = seen?;
    ensure!(
        polled_while_filled > 0,
        "no frame was seen while it was filled"
    );
    setting.note(format!(
        "{packets} packets; {polled_while_filled} polls while one was filled"
    ));
    Ok(())
}

/// Contract, "RX": a frame that was taken for a ring that is gone is not used, and the message is
/// delivered as if nothing had been taken: the queue's counters know of no packet that was refused.
fn a_packet_whose_ring_goes_meanwhile_arrives_as_ever(setting: &mut Setting) -> anyhow::Result<()> {
    /// Under way at most, so less than a ring holds.
    const PACKETS: u32 = 14;
    const FRAMES: u32 = 16;
    let span = setting.patiently(Duration::from_millis(400));
    let _rules = Rules::install(&[], &[&format!("udp dport {PORT} queue num 0")])?;
    let geometry = Geometry::for_messages(22_000, FRAMES)?;
    let mut consumer = Consumer::plain(Binding::of(0))?;
    set_number(consumer.receiver(), libc::SO_RCVBUFFORCE, 8 << 20)?;
    let window = Window::of(PACKETS);
    let flows = [0, 1].map(|number| {
        Flow {
            sizes: LARGE..=LARGE,
            ..Flow::local(number, u32::MAX)
        }
        .start(&window)
    });
    let mut random = fastrand::Rng::with_seed(setting.seed);
    let (mut rings, mut by_queue, mut judged, mut seen) = (0_u32, 0_u32, 0_u32, 0_u32);
    let until = Instant::now() + span;
    let mut come_and_go = || {
        while Instant::now() < until {
            let socket = consumer.receiver().socket();
            socket.set_up_rx_ring(&geometry, Flags::NONE)?;
            rings += 1;
            // They come now, and somewhere among them the ring goes.
            (judged..seen).for_each(|_| window.seen());
            judged = seen;
            let moment = Instant::now() + Duration::from_micros(random.u64(..3000));
            while Instant::now() < moment {
                std::hint::spin_loop();
            }
            socket.tear_down_rx_ring()?;
            while peers::receive(consumer.receiver()).is_ok() {
                by_queue += 1;
            }
            seen = drop_all(&consumer, seen)?;
        }
        Ok(())
    };
    let outcome = come_and_go();
    window.stop();
    for flow in flows {
        traffic::sent(flow?)?;
    }
    // None may wait when the rules go: the kernel warns of a packet that it cannot put back.
    drop_all(&consumer, seen)?;
    let told: anyhow::Result<()> = outcome;
    told?;
    let counters = QueueCounters::of(0)?;
    ensure!(
        counters.user_dropped == 0 && counters.dropped == 0,
        "of {seen} packets over {rings} rings some were refused: {counters:?}"
    );
    ensure!(
        by_queue > 0 && seen > by_queue,
        "{by_queue} of {seen} packets came by the queue"
    );
    setting.note(format!(
        "{rings} rings, {seen} packets, {by_queue} of them by the queue, none refused"
    ));
    Ok(())
}

/// Drops every packet that waits in queue 0 behind this one; the last one's number.
fn drop_all(consumer: &Consumer, seen: u32) -> anyhow::Result<u32> {
    let last = QueueCounters::of(0)?.last_id;
    if last != seen {
        consumer.verdict_up_to(last, Verdict::Drop)?;
    }
    Ok(last)
}

/// A packet that the socket's filter may refuse takes no frame early: what is refused would fill the
/// ring with frames that are empty.
fn a_filter_that_refuses_all_fills_no_frame(setting: &mut Setting) -> anyhow::Result<()> {
    const PACKETS: u32 = 5;
    const FRAMES: u32 = 16;
    let patience = setting.patiently(Duration::from_secs(2));
    let (mut consumer, frames, _rules) = queue(FRAMES, Binding::of(0))?;
    let refuse = |_| filter::instruction(filter::RETURN, 0, 0, 0);
    filter::attach(consumer.receiver(), &mut [0].map(refuse))?;
    let flow = |number| Flow {
        sizes: LARGE..=LARGE,
        ..Flow::local(number, PACKETS)
    };
    traffic::sent(flow(0).start(&Window::of(PACKETS))?)?;
    ensure!(
        frames
            .statuses()
            .iter()
            .all(|&status| status == Some(Status::Unused)),
        "packets that a filter refuses are in the ring: {:?}",
        frames.statuses()
    );
    let waiting = QueueCounters::of(0)?.waiting;
    ensure!(waiting == PACKETS, "{waiting} of {PACKETS} packets wait");
    filter::detach(consumer.receiver())?;
    traffic::sent(flow(1).start(&Window::of(PACKETS))?)?;
    for _ in 0..PACKETS {
        let packet = consumer.packet(patience)?;
        ensure!(
            packet.stamp.is_some_and(|stamp| stamp.flow == 1),
            "{packet:?} came"
        );
    }
    drop_all(&consumer, 0)?;
    setting.note(format!("{PACKETS} packets refused, none in a frame"));
    Ok(())
}
