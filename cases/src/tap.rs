// SPDX-License-Identifier: MIT OR Apache-2.0
//! A tap (`nlmon`) beside a ring: a message is an ordinary one until it is in its frame.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry, Socket};

use crate::consumer::{Binding, Consumer};
use crate::flush::flush;
use crate::ip::ip;
use crate::message::noop;
use crate::nfqueue::Verdict;
use crate::rules::Rules;
use crate::traffic::{self, Flow, PORT, Window, warm_up};
use crate::tx::ring_on;
use crate::{Case, Setting, answers, case, peers, tx};

pub(crate) const CASES: &[Case] = &[
    case!(Ownership, a_tap_hears_what_a_ring_receives)
        .proves("rest-tap fault-10")
        .across(1),
    case!(Tx, a_tap_hears_what_a_ring_sends).proves("rest-tap"),
];

/// Contract, "poll, dumps, the rest": taps behave on a ringed socket as on any other. Known fault
/// 10: a message that never was charged to the socket, since it went into a frame, has none to tell
/// the tap. All three ways into the ring are tapped: by copy at delivery, by an early frame, by
/// `COPY`.
fn a_tap_hears_what_a_ring_receives(setting: &mut Setting) -> anyhow::Result<()> {
    const ANSWER: u32 = answers::ANSWER as u32;
    const ANSWERS: u32 = 5;
    const PACKETS: u32 = 20;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let _rules = Rules::install(&[&format!("udp dport {PORT} queue num 0")], &[])?;
    let mut consumer = Consumer::ringed(
        Binding::of(0),
        Geometry::for_messages(2048, 64)?,
        Flags::NONE,
    )?;
    let tap = Tap::put_up()?;

    // A frame with room for an answer, and one without.
    for (shape, geometry) in [
        ("in frames", Geometry::for_messages(ANSWER, 16)?),
        ("by COPY", Geometry::for_messages(ANSWER - 4, 16)?),
    ] {
        let mut receiver = Socket::open(libc::NETLINK_ROUTE)?.rx_ring(geometry, Flags::NONE)?;
        let before = tap.heard()?;
        answers::ask(&receiver, 0, ANSWERS)?;
        for expected in 0..ANSWERS {
            let (number, frame) = answers::next(&mut receiver, patience)?;
            ensure!(number == expected, "answer {number}, not {expected}");
            ensure!(frame.is_some() == (shape == "in frames"), "not {shape}");
        }
        let heard = tap.heard()? - before;
        let expected = u64::from(ANSWERS) + 1; // and the request
        ensure!(
            heard == expected,
            "the tap heard {heard} messages {shape}, not {expected}"
        );
    }

    let before = tap.heard()?;
    let window = Window::of(1);
    let flow = Flow::across(0, 0, PACKETS).start(&window)?;
    for _ in 0..PACKETS {
        let packet = consumer.packet(patience)?;
        window.seen();
        consumer.verdict(packet.id, Verdict::Drop)?;
    }
    let sent = traffic::sent(flow)?;
    let heard = tap.heard()? - before;
    let expected = 2 * u64::from(PACKETS); // and a verdict each
    ensure!(
        heard == expected,
        "the tap heard {heard} of {expected} messages of the queue"
    );
    setting.note(format!(
        "{sent} packets and {ANSWERS} answers in frames and by COPY, all tapped"
    ));
    Ok(())
}

/// Contract, "TX": a message sent through a ring is one like any other, to taps too, whether it
/// goes to the kernel or to a program.
fn a_tap_hears_what_a_ring_sends(setting: &mut Setting) -> anyhow::Result<()> {
    const MESSAGES: u32 = 8;
    let tap = Tap::put_up()?;
    let kernel = Socket::open(libc::NETLINK_ROUTE)?;
    let (peer, port) = peers::open()?;
    let (program, _) = peers::open()?;
    peers::connect(&program, port)?;
    // A request of the kernel's is heard, and its answer.
    for (what, socket, each) in [("the kernel", kernel, 2), ("a program", program, 1)] {
        let (socket, frames) = ring_on(socket, tx::shape()?)?;
        for frame in 0..MESSAGES {
            frames.submit(frame, &noop(frame));
        }
        let before = tap.heard()?;
        flush(&socket)?;
        let heard = tap.heard()? - before;
        let expected = u64::from(each * MESSAGES);
        ensure!(
            heard == expected,
            "the tap heard {heard} of {expected} messages to {what}"
        );
    }
    while peers::receive(&peer).is_ok() {}
    setting.note(format!(
        "{MESSAGES} to the kernel, {MESSAGES} to a program, all tapped"
    ));
    Ok(())
}

/// An `nlmon` device, gone with this value.
struct Tap {
    counter: &'static str,
}

impl Tap {
    fn put_up() -> anyhow::Result<Self> {
        ip("link add nlmon0 type nlmon")?;
        let tap = Self {
            counter: "/sys/class/net/nlmon0/statistics/rx_packets",
        };
        ip("link set nlmon0 up")?;
        Ok(tap)
    }

    /// Messages heard so far.
    fn heard(&self) -> anyhow::Result<u64> {
        let text = fs::read_to_string(self.counter)
            .with_context(|| format!("cannot read {}", self.counter))?;
        Ok(text.trim().parse()?)
    }
}

impl Drop for Tap {
    fn drop(&mut self) {
        // If it stays, the agent tells.
        let _ = ip("link delete nlmon0");
    }
}
