// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `tx`: what a flush sends, and what it leaves.

use anyhow::ensure;
use nlring::{Geometry, Socket, Status};

use crate::flush::{empty_sends, flush, flush_by_message};
use crate::frames::Frames;
use crate::message::noop;
use crate::option::assert_refused;
use crate::{Case, Kernel, Setting, answers, case, groups, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Tx, one_flush_sends_every_valid_frame)
        .proves("tx-flush-sendto tx-flush-sendmsg tx-in-turn tx-released tx-bytes tx-many fault-9"),
    case!(Tx, a_flush_begins_where_the_last_one_ended).proves("tx-in-turn tx-bytes"),
    case!(Tx, a_message_goes_out_as_large_as_the_frame_allows)
        .proves("tx-no-more-checks tx-length-large"),
    case!(Tx, one_frame_carries_many_messages).proves("tx-bytes tx-many tx-several-in-frame"),
    case!(Tx, kept_frames_are_stepped_over_and_given_back).proves("tx-released tx-skip"),
    case!(Tx, a_flush_of_nothing_sends_nothing).proves("tx-flush-null tx-in-turn tx-nothing"),
    case!(Tx, an_empty_send_without_a_ring_is_what_it_was)
        .proves("tx-no-ring")
        .on(Kernel::Any),
    case!(Tx, ordinary_sends_go_on_beside_a_ring).proves("tx-plain-sends"),
    case!(Tx, what_is_written_after_a_flush_changes_no_message).proves("tx-copied-first fault-1"),
    case!(Tx, a_ring_for_sending_alone_does_not_exclude_groups).proves("multicast-tx"),
];

/// Frames of the ring of most cases.
const FRAMES: u32 = 8;

/// A socket with a mapped TX ring that sends to `port` of `NETLINK_USERSOCK`.
pub(crate) fn ring_to(port: u32, geometry: Geometry) -> anyhow::Result<(Socket, Frames)> {
    let (socket, _) = peers::open()?;
    peers::connect(&socket, port)?;
    ring_on(socket, geometry)
}

/// A mapped TX ring on this socket.
pub(crate) fn ring_on(socket: Socket, geometry: Geometry) -> anyhow::Result<(Socket, Frames)> {
    socket.set_up_tx_ring(&geometry)?;
    let frames = Frames::map(&socket, geometry)?;
    Ok((socket, frames))
}

/// The shape of the ring of most cases.
pub(crate) fn shape() -> anyhow::Result<Geometry> {
    Ok(Geometry::from_request(4096, FRAMES / 2, 2048, FRAMES)?)
}

/// A frame has this status.
pub(crate) fn assert_status(frames: &Frames, frame: u32, status: Status) -> anyhow::Result<()> {
    let found = frames.status(frame);
    ensure!(
        found == Some(status),
        "frame {frame} is {found:?} where it should be {status:?}"
    );
    Ok(())
}

/// The next message of a socket's queue is this one.
pub(crate) fn assert_receives(socket: &Socket, content: &[u8]) -> anyhow::Result<()> {
    let received = peers::receive(socket)?;
    ensure!(
        received == content,
        "a message of {} bytes came where another of {} is due",
        received.len(),
        content.len()
    );
    Ok(())
}

/// Contract, "TX"; known fault 9: one call sends every `VALID` frame in order, whichever of
/// its two forms it has; each frame is `UNUSED` behind it; the kernel answers each message.
fn one_flush_sends_every_valid_frame(setting: &mut Setting) -> anyhow::Result<()> {
    let (socket, frames) = ring_on(Socket::open(libc::NETLINK_ROUTE)?, shape()?)?;
    let forms: [fn(&Socket) -> std::io::Result<usize>; 2] = [flush, flush_by_message];
    for (round, form) in (0..).zip(forms) {
        let first = round * FRAMES;
        for frame in 0..FRAMES {
            frames.submit(frame, &noop(first + frame));
        }
        let sent = form(&socket)?;
        ensure!(sent == 16 * FRAMES as usize, "{sent} bytes were sent");
        for frame in 0..FRAMES {
            assert_status(&frames, frame, Status::Unused)?;
            let answer = peers::receive(&socket)?;
            let answer = crate::message::Message::read(&answer)?;
            ensure!(
                answer.sequence == first + frame && answer.errno()? == 0,
                "answer {} with error {} came where {} is due",
                answer.sequence,
                answer.errno()?,
                first + frame
            );
        }
        peers::assert_nothing_queued(&socket)?;
    }
    setting.note(format!(
        "{FRAMES} messages a call, by sendto and by sendmsg"
    ));
    Ok(())
}

/// Contract, "TX": the kernel takes consecutive `VALID` frames from its position, and no more:
/// behind a frame that is not there yet it goes on later, lap after lap, in order.
fn a_flush_begins_where_the_last_one_ended(setting: &mut Setting) -> anyhow::Result<()> {
    const LAPS: u32 = 20;
    let (peer, port) = peers::open()?;
    let (socket, frames) = ring_to(port, shape()?)?;
    let mut random = fastrand::Rng::with_seed(setting.seed);
    let (mut next, mut flushes) = (0, 0);
    while next < LAPS * FRAMES {
        let batch = random.u32(1..=FRAMES);
        for number in next..next + batch {
            let len = 100 + number as usize % 1000;
            frames.submit(number % FRAMES, &peers::content(number, len));
        }
        let held = (batch > 1 && random.bool()).then(|| next + random.u32(1..batch));
        if let Some(held) = held {
            frames.set_status(held % FRAMES, Status::Unused);
        }
        let lens = |range: std::ops::Range<u32>| -> usize {
            range.map(|number| 100 + number as usize % 1000).sum()
        };
        let hole = held.unwrap_or(next + batch);
        let first = flush(&socket)?;
        ensure!(first == lens(next..hole), "{first} bytes before the hole");
        if let Some(held) = held {
            assert_status(
                &frames,
                (next + batch - 1) % FRAMES,
                if held == next + batch - 1 {
                    Status::Unused
                } else {
                    Status::Valid
                },
            )?;
            ensure!(flush(&socket)? == 0, "the hole was passed");
            frames.set_status(held % FRAMES, Status::Valid);
            let second = flush(&socket)?;
            ensure!(
                second == lens(held..next + batch),
                "{second} bytes behind the hole"
            );
        }
        for number in next..next + batch {
            assert_receives(&peer, &peers::content(number, 100 + number as usize % 1000))?;
        }
        peers::assert_nothing_queued(&peer)?;
        next += batch;
        flushes += 1;
    }
    setting.note(format!(
        "{next} messages in order in {flushes} batches over {LAPS} laps"
    ));
    Ok(())
}

/// Contract, "TX": any length from 1 byte to the frame's room goes out as it is.
fn a_message_goes_out_as_large_as_the_frame_allows(setting: &mut Setting) -> anyhow::Result<()> {
    let geometry = Geometry::new(12 * 1024, 8, 6 * 1024)?;
    let room = geometry.room() as usize;
    let (peer, port) = peers::open()?;
    let (socket, frames) = ring_to(port, geometry)?;
    let lens = [1, 2, 3, 15, 16, 17, 4095, 4096, 4097, room - 1, room];
    for (number, len) in (0..).zip(lens) {
        let content = peers::content(number, len);
        frames.submit(number % geometry.frame_nr(), &content);
        let sent = flush(&socket)?;
        ensure!(sent == len, "{sent} bytes of {len} were sent");
        assert_receives(&peer, &content)?;
    }
    setting.note(format!("{} lengths up to {room}", lens.len()));
    Ok(())
}

/// Contract, "TX": one frame may carry several netlink messages back to back, as one `sendto` may.
fn one_frame_carries_many_messages(setting: &mut Setting) -> anyhow::Result<()> {
    const EACH: u32 = 20;
    let (socket, frames) = ring_on(Socket::open(libc::NETLINK_ROUTE)?, shape()?)?;
    for frame in 0..FRAMES {
        let first = frame * EACH;
        let requests: Vec<u8> = (first..first + EACH).flat_map(noop).collect();
        frames.submit(frame, &requests);
    }
    let sent = flush(&socket)?;
    ensure!(
        sent == (16 * EACH * FRAMES) as usize,
        "{sent} bytes were sent"
    );
    let mut receiver = socket.plain();
    for expected in 0..EACH * FRAMES {
        let (number, _) = answers::next(&mut receiver, std::time::Duration::ZERO)?;
        ensure!(number == expected, "answer {number}, not {expected}");
    }
    setting.note(format!(
        "{} messages by one call, {EACH} to a frame",
        EACH * FRAMES
    ));
    Ok(())
}

/// Contract, "TX": `SKIP` frames are stepped over and marked `UNUSED`, also where there are no
/// others.
fn kept_frames_are_stepped_over_and_given_back(setting: &mut Setting) -> anyhow::Result<()> {
    let (peer, port) = peers::open()?;
    let (socket, frames) = ring_to(port, shape()?)?;
    let kept = [0, 3, 4, 7];
    for frame in 0..FRAMES {
        frames.submit(frame, &peers::content(frame, 64));
    }
    for frame in kept {
        frames.set_status(frame, Status::Skip);
    }
    let sent = flush(&socket)?;
    ensure!(sent == 64 * 4, "{sent} bytes were sent");
    for frame in 0..FRAMES {
        assert_status(&frames, frame, Status::Unused)?;
        if !kept.contains(&frame) {
            assert_receives(&peer, &peers::content(frame, 64))?;
        }
    }
    peers::assert_nothing_queued(&peer)?;

    frames.set_statuses(Status::Skip);
    ensure!(flush(&socket)? == 0, "something was sent where all is kept");
    for frame in 0..FRAMES {
        assert_status(&frames, frame, Status::Unused)?;
    }
    frames.submit(0, b"and on");
    ensure!(flush(&socket)? == 6, "the position is not where it was");
    assert_receives(&peer, b"and on")?;
    setting.note("4 of 8 stepped over, then 8 of 8; all given back");
    Ok(())
}

/// Contract, "TX": no `VALID` frame: 0. An empty send from an address that is not `NULL` is no
/// flush but what it always was, and takes no frame.
fn a_flush_of_nothing_sends_nothing(setting: &mut Setting) -> anyhow::Result<()> {
    let (peer, port) = peers::open()?;
    let (socket, frames) = ring_to(port, shape()?)?;
    ensure!(flush(&socket)? == 0, "a new ring has something to send");
    frames.submit(0, b"waits");
    for sent in empty_sends(&socket) {
        assert_refused("an empty send from somewhere", sent, libc::ENODATA)?;
    }
    assert_status(&frames, 0, Status::Valid)?;
    ensure!(flush(&socket)? == 5, "the frame is not sent");
    assert_receives(&peer, b"waits")?;
    ensure!(flush(&socket)? == 0, "a frame is sent twice");
    frames.set_statuses(Status::Reserved);
    ensure!(flush(&socket)? == 0, "a RESERVED frame is sent");
    frames.set_statuses(Status::Copy);
    ensure!(flush(&socket)? == 0, "a COPY frame is sent");
    peers::assert_nothing_queued(&peer)?;
    setting.note("0 for nothing; ENODATA for an empty send from somewhere");
    Ok(())
}

/// Contract, "TX": without a TX ring an empty send is what it is today: `ENODATA`, whatever form it
/// has, on every kernel; an RX ring does not change it, nor a TX ring that was torn down.
fn an_empty_send_without_a_ring_is_what_it_was(setting: &mut Setting) -> anyhow::Result<()> {
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    let assert_no_data = |socket: &Socket| {
        let [call, message] = empty_sends(socket);
        for sent in [flush(socket), flush_by_message(socket), call, message] {
            assert_refused("an empty send", sent, libc::ENODATA)?;
        }
        anyhow::Ok(())
    };
    assert_no_data(&socket)?;
    if socket.tx_ring_request()?.is_some() {
        socket.set_up_rx_ring(&shape()?, nlring::Flags::NONE)?;
        assert_no_data(&socket)?;
        socket.set_up_tx_ring(&shape()?)?;
        socket.tear_down_tx_ring()?;
        assert_no_data(&socket)?;
    }
    setting.note("ENODATA in 4 forms");
    Ok(())
}

/// Contract, "TX": ordinary sends on the same socket work as ever, before, between and after
/// flushes, and take nothing out of the ring.
fn ordinary_sends_go_on_beside_a_ring(setting: &mut Setting) -> anyhow::Result<()> {
    let (peer, port) = peers::open()?;
    let (socket, frames) = ring_to(port, shape()?)?;
    for round in 0..3 * FRAMES {
        let frame = round % FRAMES;
        let [ringed, plain] = [0, 1000].map(|more| peers::content(round + more, 800));
        frames.submit(frame, &ringed);
        socket.send(&plain)?;
        assert_receives(&peer, &plain)?;
        assert_status(&frames, frame, Status::Valid)?;
        ensure!(flush(&socket)? == ringed.len(), "the frame is not sent");
        assert_receives(&peer, &ringed)?;
        peers::send_to(&socket, port, &plain)?;
        assert_receives(&peer, &plain)?;
    }
    setting.note(format!(
        "{} sends beside {} flushes",
        6 * FRAMES,
        3 * FRAMES
    ));
    Ok(())
}

/// Contract, "TX"; known fault 1: the kernel copies a message before it looks at it, so nothing
/// that the user writes afterwards reaches a message in flight.
fn what_is_written_after_a_flush_changes_no_message(setting: &mut Setting) -> anyhow::Result<()> {
    let geometry = Geometry::new(64 * 1024, 1, 16 * 1024)?;
    let (peer, port) = peers::open()?;
    let (socket, frames) = ring_to(port, geometry)?;
    let contents = [300, 5000, 16_000].map(|len| peers::content(len, len as usize));
    for (frame, content) in (0..).zip(&contents) {
        frames.submit(frame, content);
    }
    flush(&socket)?;
    for word in 0..frames.words() {
        let word = frames.word(word);
        word.store(0x5555_5555, std::sync::atomic::Ordering::Relaxed);
    }
    for content in &contents {
        assert_receives(&peer, content)?;
    }
    setting.note("3 messages of up to 16000 bytes, received after their frames were overwritten");
    Ok(())
}

/// Contract, "Multicast": a TX ring alone does not exclude groups: a socket with one joins, and a
/// member gets one.
fn a_ring_for_sending_alone_does_not_exclude_groups(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(std::time::Duration::from_secs(2));
    let joins_later = Socket::open(libc::NETLINK_ROUTE)?;
    let joined = Socket::open(libc::NETLINK_ROUTE)?;
    for socket in [&joins_later, &joined] {
        groups::bind(socket, 0)?;
    }
    groups::join(&joined, groups::LINK_GROUP)?;
    let (joins_later, _first) = ring_on(joins_later, shape()?)?;
    let (joined, frames) = ring_on(joined, shape()?)?;
    groups::join(&joins_later, groups::LINK_GROUP)?;
    frames.submit(0, &noop(3));
    ensure!(flush(&joined)? == 16, "the member's frame is not sent");
    groups::cause_link_events("heard3")?;
    for socket in [joins_later, joined] {
        groups::assert_hears_of(&mut socket.plain(), "heard3", patience)?;
    }
    setting.note("joined with a ring, ringed as a member; both hear");
    Ok(())
}
