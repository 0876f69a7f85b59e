// SPDX-License-Identifier: MIT OR Apache-2.0
//! When a frame becomes the user's: not before all that is promised of it is there, and not without
//! need. The readers here do not sleep, and look at what is written last.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry, Socket, Status};

use crate::consumer::{Binding, Consumer};
use crate::delivery::ringed;
use crate::frames::{Field, Frames};
use crate::nfqueue::{Message, Verdict};
use crate::option::set_number;
use crate::rules::Rules;
use crate::traffic::{self, Flow, PORT, Window, pin};
use crate::{Case, Setting, case, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Ownership, a_valid_frame_has_all_of_its_message_at_once)
        .proves("rx-valid rx-published-last fault-3"),
    case!(Ownership, a_frame_that_was_taken_early_is_shown_whole)
        .proves("rx-published-last rx-early fault-3"),
    case!(Ownership, a_message_that_came_to_nothing_shows_nothing)
        .proves("rx-came-to-nothing fault-27"),
    case!(Ownership, a_sender_is_told_the_length_of_what_it_sent).proves("fault-15"),
    case!(Ownership, a_full_queue_takes_no_frames).proves("rx-early"),
    case!(Ordering, whoever_sees_copy_finds_the_message).proves("rx-copy-pairs rx-copy-length"),
];

/// Waits, without sleeping, for a frame to read this status, and tells its length at that moment.
fn spin(frames: &Frames, frame: u32, status: Status, deadline: Instant) -> anyhow::Result<u32> {
    loop {
        for _ in 0..1000 {
            let (now, len) = frames.status_and_len(frame);
            if now == Some(status) {
                return Ok(len);
            }
        }
        let now = frames.status(frame);
        ensure!(
            Instant::now() < deadline,
            "frame {frame} is {now:?} for ever, not {status:?}"
        );
        thread::yield_now();
    }
}

/// Sends, again and again while the ring is full, until all is over.
fn insist(socket: &Socket, port: u32, message: &[u8], over: &AtomicBool) -> anyhow::Result<()> {
    while let Err(error) = peers::send_to(socket, port, message) {
        let is_full = error.raw_os_error() == Some(libc::EAGAIN);
        ensure!(is_full, "{} bytes cannot be sent: {error}", message.len());
        if over.load(Ordering::Relaxed) {
            break;
        }
        thread::yield_now();
    }
    Ok(())
}

/// Contract, "RX": the status word is published last, so whoever sees `VALID` sees the whole message.
/// A reader looks at status and length by one load, then at the last word, which it has wiped when it
/// gave the frame back; known fault 3.
fn a_valid_frame_has_all_of_its_message_at_once(setting: &mut Setting) -> anyhow::Result<()> {
    const MESSAGES: u32 = 3000;
    const FRAMES: u32 = 2;
    let deadline = Instant::now() + setting.patiently(Duration::from_secs(4));
    let geometry = Geometry::from_request(16384, 1, 8192, FRAMES)?;
    let (_socket, frames, port) = ringed(geometry, Flags::NONE)?;
    // No two that follow each other, nor two that meet in one frame, are of one length.
    let len = |number: u32| 2048 + number % 1021 * 4;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let sender = scope.spawn(|| {
            pin(0)?;
            let (sender, _) = peers::open()?;
            for number in 0..MESSAGES {
                let message = number.to_ne_bytes().repeat(len(number) as usize / 4);
                insist(&sender, port, &message, &over)?;
            }
            anyhow::Ok(())
        });
        let read = || {
            pin(1)?;
            for number in 0..MESSAGES {
                let frame = number % FRAMES;
                let told = spin(&frames, frame, Status::Valid, deadline)?;
                let last = frames
                    .word_of_room(frame, len(number) - 4)
                    .load(Ordering::Relaxed);
                ensure!(
                    told == len(number) && last == number,
                    "message {number} of {} bytes is VALID with {told} bytes that end in {last:#x}",
                    len(number)
                );
                let message = frames.message(frame);
                ensure!(
                    message == number.to_ne_bytes().repeat(told as usize / 4),
                    "message {number} is garbled"
                );
                frames
                    .word_of_room(frame, len(number + FRAMES) - 4)
                    .store(!0, Ordering::Relaxed);
                frames.set_status(frame, Status::Unused);
            }
            Ok(())
        };
        let seen = read();
        over.store(true, Ordering::Relaxed);
        let sent = sender
            .join()
            .map_err(|_| anyhow::anyhow!("the sender panicked"))?;
        seen.and(sent)
    })?;
    setting.note(format!("{MESSAGES} messages, each whole when it was VALID"));
    Ok(())
}

/// Known fault 15: the length of a message was read when it had been delivered, and another thread could
/// have freed it. A sender is told how much it sent, in a frame or by `COPY`, however fast it is read.
/// (The kernel runs with what it frees of messages overwritten.)
fn a_sender_is_told_the_length_of_what_it_sent(setting: &mut Setting) -> anyhow::Result<()> {
    const MESSAGES: u32 = 2000;
    let deadline = Instant::now() + setting.patiently(Duration::from_secs(4));
    let geometry = Geometry::from_request(4096, 2, 1024, 8)?;
    let (socket, frames, port) = ringed(geometry, Flags::NONE)?;
    let len = |number: u32| 100 + (number * 997 % 1800) as usize;
    let over = AtomicBool::new(false);
    let copied = thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let mut copied = 0;
            let mut number = 0;
            while !over.load(Ordering::Relaxed) {
                let frame = number % geometry.frame_nr();
                match frames.status(frame) {
                    Some(Status::Copy) => {
                        peers::receive(&socket)?;
                        copied += 1;
                    }
                    Some(Status::Valid) => {}
                    _ => continue,
                }
                frames.set_status(frame, Status::Unused);
                number += 1;
            }
            anyhow::Ok(copied)
        });
        let (sender, _) = peers::open()?;
        let send_all = || {
            for number in 0..MESSAGES {
                let content = peers::content(number, len(number));
                loop {
                    match peers::send_to(&sender, port, &content) {
                        Ok(told) => {
                            ensure!(
                                told == content.len(),
                                "a sender of {} bytes is told {told}",
                                content.len()
                            );
                            break;
                        }
                        Err(error) => ensure!(
                            error.raw_os_error() == Some(libc::EAGAIN) && Instant::now() < deadline,
                            "{} bytes cannot be sent: {error}",
                            content.len()
                        ),
                    }
                }
            }
            anyhow::Ok(())
        };
        let sent = send_all();
        over.store(true, Ordering::Relaxed);
        let read = reader.join().expect("no panic");
        sent.and(read)
    })?;
    ensure!(
        copied > 0 && copied < MESSAGES,
        "{copied} of {MESSAGES} came by COPY"
    );
    setting.note(format!(
        "{MESSAGES} messages, about {copied} of them by COPY"
    ));
    Ok(())
}

/// A packet whose bulk is copied early is shown only with its linear part, which has the id and is
/// written at delivery. The reader has wiped the first word, the message's length, of each frame that
/// it gave back.
fn a_frame_that_was_taken_early_is_shown_whole(setting: &mut Setting) -> anyhow::Result<()> {
    const PACKETS: u32 = 400;
    const FRAMES: u32 = 4;
    let patience = setting.patiently(Duration::from_secs(4));
    let deadline = Instant::now() + patience;
    let (mut consumer, frames, _rules) = queue(FRAMES, Binding::of(0))?;
    let window = Window::of(FRAMES);
    pin(1)?;
    let flow = Flow {
        sizes: 20_000..=20_000,
        ..Flow::local(0, PACKETS)
    }
    .start(&window)?;
    let mut read = || {
        for number in 1..=PACKETS {
            let frame = number % FRAMES;
            let len = spin(&frames, frame, Status::Valid, deadline)?;
            let said = frames.word_of_room(frame, 0).load(Ordering::Relaxed);
            ensure!(
                said == len,
                "packet {number} is VALID with {len} bytes and says that it has {said}"
            );
            judge(&mut consumer, &frames, frame)?;
            frames.word_of_room(frame, 0).store(0, Ordering::Relaxed);
            frames.set_status(frame, Status::Unused);
            window.seen();
        }
        Ok(())
    };
    let seen = read();
    window.stop();
    traffic::sent(flow)?;
    seen?;
    setting.note(format!(
        "{PACKETS} packets, each with its linear part when it was VALID"
    ));
    Ok(())
}

/// Contract, "RX": a reserved message that came to nothing is published with `nm_len` 0, and the ring
/// goes on. Two CPUs send to a queue with room for a few packets; each takes a frame for the last
/// place, and one is refused under the queue's lock. Known fault 27: of what was copied for that one,
/// nothing is to be seen.
fn a_message_that_came_to_nothing_shows_nothing(setting: &mut Setting) -> anyhow::Result<()> {
    const FRAMES: u32 = 16;
    const EMPTY: u32 = 5;
    let patience = setting.patiently(Duration::from_secs(4));
    let deadline = Instant::now() + patience;
    let binding = Binding {
        waiting: 4,
        ..Binding::of(0)
    };
    let (mut consumer, frames, _rules) = queue(FRAMES, binding)?;
    let window = Window::of(u32::MAX >> 1);
    let start = |number| {
        let flow = Flow {
            sizes: 20_000..=20_000,
            ..Flow::local(number, 1 << 30)
        };
        flow.start(&window)
    };
    let flows = [start(0)?, start(1)?];
    let mut read = || {
        let (mut empty, mut packets, mut number) = (0, 0, 1);
        while empty < EMPTY {
            // The queue fills up, and both senders wait at its door.
            thread::sleep(Duration::from_millis(1));
            let is_late = Instant::now() >= deadline;
            let frame = number % FRAMES;
            if frames.status(frame) != Some(Status::Valid) {
                let now = frames.status(frame);
                ensure!(
                    !is_late,
                    "frame {frame} is {now:?}, after {packets} packets, {empty} empty"
                );
                continue;
            }
            ensure!(!is_late, "only {empty} frames of {number} came to nothing");
            while frames.status(number % FRAMES) == Some(Status::Valid) {
                let frame = number % FRAMES;
                if frames.get(frame, Field::Len) == 0 {
                    empty += 1;
                    let left = frames.room(frame).iter().filter(|&&byte| byte != 0).count();
                    ensure!(
                        left == 0,
                        "{left} bytes of a packet that came to nothing are shown"
                    );
                } else {
                    packets += 1;
                    judge(&mut consumer, &frames, frame)?;
                }
                frames.set_status(frame, Status::Unused);
                number += 1;
            }
        }
        Ok(packets)
    };
    let packets = read();
    window.stop();
    for flow in flows {
        traffic::sent(flow)?;
    }
    let packets = packets?;
    setting.note(format!(
        "{packets} packets, {EMPTY} frames whose packet was refused"
    ));
    Ok(())
}

/// A packet for a queue that is full takes no frame early: its consumer has to give verdicts to make
/// room, and needs the frames for that.
fn a_full_queue_takes_no_frames(setting: &mut Setting) -> anyhow::Result<()> {
    const FRAMES: u32 = 16;
    const WAITING: u32 = 3;
    const PACKETS: u32 = 12;
    let binding = Binding {
        waiting: WAITING,
        ..Binding::of(0)
    };
    let (mut consumer, frames, _rules) = queue(FRAMES, binding)?;
    let flow = Flow {
        sizes: 20_000..=20_000,
        ..Flow::local(0, PACKETS)
    };
    traffic::sent(flow.start(&Window::of(PACKETS))?)?;
    let statuses = frames.statuses();
    for frame in 0..FRAMES {
        let expected = if (1..=WAITING).contains(&frame) {
            Status::Valid
        } else {
            Status::Unused
        };
        ensure!(
            statuses[frame as usize] == Some(expected),
            "{PACKETS} packets for a queue of {WAITING}: {statuses:?}"
        );
    }
    for frame in 1..=WAITING {
        judge(&mut consumer, &frames, frame)?;
    }
    setting.note(format!(
        "{PACKETS} packets, {WAITING} of them queued, as many frames"
    ));
    Ok(())
}

/// Contract, "RX": a `COPY` frame is published after its message is in the queue, and the two stand in
/// one order, whatever CPUs send.
fn whoever_sees_copy_finds_the_message(setting: &mut Setting) -> anyhow::Result<()> {
    const EACH: u32 = 1500;
    const SENDERS: u32 = 2;
    const FRAMES: u32 = 128;
    let deadline = Instant::now() + setting.patiently(Duration::from_secs(4));
    let geometry = Geometry::from_request(4096, FRAMES / 8, 512, FRAMES)?;
    let (socket, frames, port) = ringed(geometry, Flags::NONE)?;
    set_number(&socket, libc::SO_RCVBUFFORCE, 1 << 20)?;
    let len = |sender: u32, number: u32| 1000 + (number * SENDERS + sender) % 500 * 4;
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        let send = |sender: u32| {
            pin(sender as usize)?;
            let (socket, _) = peers::open()?;
            for number in 0..EACH {
                let word = (sender << 24 | number).to_ne_bytes();
                let message = word.repeat(len(sender, number) as usize / 4);
                insist(&socket, port, &message, &over)?;
            }
            anyhow::Ok(())
        };
        let senders = [0, 1].map(|sender| scope.spawn(move || send(sender)));
        let read = || {
            let mut next = [0; SENDERS as usize];
            for at in 0..EACH * SENDERS {
                let frame = at % FRAMES;
                while frames.status(frame) != Some(Status::Copy) {
                    ensure!(
                        Instant::now() < deadline,
                        "frame {frame} is not COPY for ever"
                    );
                    // Both CPUs are the senders' meanwhile.
                    thread::sleep(Duration::from_micros(200));
                }
                let told = frames.get(frame, Field::Len);
                let message = peers::receive(&socket)
                    .with_context(|| format!("frame {frame} is COPY, and the queue is empty"))?;
                ensure!(
                    message.len() == told as usize,
                    "{} bytes came for a frame of {told}",
                    message.len()
                );
                let word = u32::from_ne_bytes(*message.first_chunk().context("no word")?);
                let (sender, number) = (word >> 24, word & 0xff_ffff);
                let expected = next.get_mut(sender as usize).context("nobody's message")?;
                ensure!(
                    number == *expected && message == word.to_ne_bytes().repeat(told as usize / 4),
                    "message {number} of sender {sender} came, {expected} was next"
                );
                *expected += 1;
                frames.set_status(frame, Status::Unused);
            }
            Ok(())
        };
        let seen = read();
        over.store(true, Ordering::Relaxed);
        for sender in senders {
            sender
                .join()
                .map_err(|_| anyhow::anyhow!("a sender panicked"))??;
        }
        seen
    })?;
    peers::assert_nothing_queued(&socket)?;
    setting.note(format!(
        "{SENDERS} times {EACH} messages, each there when its frame said so"
    ));
    Ok(())
}

/// A consumer of local packets to queue 0, bound like this, with a ring in allocation order whose first
/// frame has been used for that; and its frames.
pub(crate) fn queue(frame_nr: u32, binding: Binding) -> anyhow::Result<(Consumer, Frames, Rules)> {
    let rules = Rules::install(&[], &[&format!("udp dport {PORT} queue num 0")])?;
    let geometry = Geometry::for_messages(22_000, frame_nr)?;
    let mut consumer = Consumer::ringed(binding, geometry, Flags::NONE)?;
    let frames = Frames::map(consumer.receiver(), geometry)?;
    Ok((consumer, frames, rules))
}

/// Drops the packet that is in this frame.
pub(crate) fn judge(consumer: &mut Consumer, frames: &Frames, frame: u32) -> anyhow::Result<()> {
    let message = frames.message(frame);
    let Message::Packet { id, .. } = Message::read(&message)? else {
        anyhow::bail!("frame {frame} has no packet");
    };
    consumer.verdict(id, Verdict::Drop)
}
