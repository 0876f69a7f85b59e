// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `tx`: a flush that takes long, and what else can be done meanwhile.

use std::thread::{self, Scope};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use libc::{EAGAIN, EBUSY, EINTR, ENODATA};
use nix::sys::socket::MsgFlags;
use nlring::{Geometry, Socket, Status};

use crate::blocked_call::{BlockedCall, make_interruptible};
use crate::flush::{flush, flush_with};
use crate::frames::Frames;
use crate::message::noop;
use crate::option::{NETLINK_TX_RING, assert_refused, set, set_number, tear_down};
use crate::tx::{assert_status, ring_on, ring_to};
use crate::{Case, Setting, case, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Tx, a_signal_ends_a_flush_that_waits)
        .proves("tx-signal-short tx-signal-eintr tx-error-stays"),
    case!(Tx, a_signal_ends_a_long_flush).proves("tx-signal-short fault-19"),
    case!(Tx, a_flush_that_may_not_wait_does_not_wait_for_another).proves("tx-one-at-a-time"),
    case!(Tx, a_flush_waits_for_another).proves("tx-one-at-a-time tx-in-turn"),
    case!(Tx, a_tear_down_waits_for_a_flush_and_can_be_interrupted)
        .proves("setup-mapped tx-tear-down-waits fault-17"),
    case!(Tx, a_ring_mapped_while_a_tear_down_waits_stays).proves("setup-mapped"),
];

/// Bytes of each message of the cases in which the receiver is full.
const LEN: usize = 1000;

/// A receiver whose buffer holds a few messages, and a ring of more than those, all `VALID`.
fn ring_to_a_narrow_peer() -> anyhow::Result<(Socket, Socket, Frames)> {
    let (peer, port) = peers::open()?;
    set_number(&peer, libc::SO_RCVBUF, 1)?; // the least there is
    let (socket, frames) = ring_to(port, Geometry::new(4096, 32, 2048)?)?;
    for frame in 0..frames.geometry().frame_nr() {
        frames.submit(frame, &peers::content(frame, LEN));
    }
    Ok((peer, socket, frames))
}

/// Reads what the peer has, and checks that it goes on where `next` says.
fn read_on(peer: &Socket, next: &mut u32) -> anyhow::Result<()> {
    while let Ok(content) = peers::receive(peer) {
        ensure!(
            content == peers::content(*next, LEN),
            "message {next} is not what comes next"
        );
        *next += 1;
    }
    Ok(())
}

/// Reads what the peer has until these flushes are over, whatever it is: somebody may wait for room.
/// Gives the messages, and the bytes that the flushes told.
fn read_until_over(
    peer: &Socket,
    flushers: Vec<BlockedCall<'_, std::io::Result<usize>>>,
) -> std::io::Result<(Vec<Vec<u8>>, usize)> {
    let mut messages = Vec::new();
    loop {
        let over = flushers.iter().all(BlockedCall::is_over);
        while let Ok(message) = peers::receive(peer) {
            messages.push(message);
        }
        if over {
            break;
        }
        thread::yield_now();
    }
    let sent = flushers
        .into_iter()
        .map(BlockedCall::end)
        .sum::<std::io::Result<_>>()?;
    Ok((messages, sent))
}

/// Every message of the ring came once, in order, and was told.
fn assert_all_came((messages, sent): &(Vec<Vec<u8>>, usize), frames: u32) -> anyhow::Result<()> {
    let wanted: Vec<_> = (0..frames)
        .map(|frame| peers::content(frame, LEN))
        .collect();
    let same = wanted
        .iter()
        .zip(messages)
        .take_while(|(wanted, message)| wanted == message);
    ensure!(
        *messages == wanted && *sent == LEN * wanted.len(),
        "{} messages came of {frames}, the first {} as they should; {sent} bytes are told",
        messages.len(),
        same.count()
    );
    Ok(())
}

/// A flush in a thread of its own.
fn flush_beside<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    socket: &'env Socket,
) -> anyhow::Result<BlockedCall<'scope, std::io::Result<usize>>> {
    BlockedCall::begin(scope, || flush(socket))
}

/// A flush that waits for a receiver that is full.
fn waiting_flush<'scope, 'env>(
    scope: &'scope Scope<'scope, 'env>,
    socket: &'env Socket,
    patience: Duration,
) -> anyhow::Result<BlockedCall<'scope, std::io::Result<usize>>> {
    flush_beside(scope, socket)?.asleep_in(libc::SYS_sendto, patience)
}

/// Contract, "TX": a pending signal ends the round early: a short count if something was sent,
/// `EINTR` if nothing was. Here the flush waits for a receiver that is full.
fn a_signal_ends_a_flush_that_waits(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(1));
    make_interruptible()?;
    let (peer, socket, frames) = ring_to_a_narrow_peer()?;
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        outcomes.push(thread::scope(|scope| {
            let flusher = waiting_flush(scope, &socket, patience)?;
            flusher.interrupt()?;
            anyhow::Ok(flusher.end())
        })?);
    }
    let [first, second] = outcomes.try_into().expect("two");
    let sent = first.context("a flush that has sent something and is interrupted")?;
    ensure!(
        sent > 0 && sent.is_multiple_of(LEN) && sent < LEN * frames.words(),
        "{sent} bytes were sent"
    );
    assert_refused("an interrupted flush of nothing", second, EINTR)?;
    assert_status(&frames, (sent / LEN) as u32, Status::Valid)?;

    let mut next = 0;
    read_on(&peer, &mut next)?;
    while next < frames.geometry().frame_nr() {
        flush_with(&socket, MsgFlags::MSG_DONTWAIT)?;
        read_on(&peer, &mut next)?;
    }
    setting.note(format!(
        "{sent} bytes, then EINTR; all {next} messages came, in order"
    ));
    Ok(())
}

/// Contract, "TX"; known fault 19: a signal also ends a flush that does not wait for anything but
/// is long; the rest goes out by the next.
fn a_signal_ends_a_long_flush(setting: &mut Setting) -> anyhow::Result<()> {
    const AFTER: Duration = Duration::from_millis(20);
    let patience = setting.patiently(Duration::from_secs(2));
    make_interruptible()?;
    let geometry = Geometry::new(64 * 1024, 64, 4096)?;
    let (socket, frames) = ring_on(Socket::open(libc::NETLINK_ROUTE)?, geometry)?;
    // Each answer is refused by a buffer that is full, after it has been made: work without end.
    let requests: Vec<u8> = (0..geometry.room() / 16).flat_map(noop).collect();
    for frame in 0..geometry.frame_nr() {
        frames.submit(frame, &requests);
    }
    let all = requests.len() * geometry.frame_nr() as usize;
    let deadline = Instant::now() + patience;
    let (mut sent, mut calls) = (0, 0);
    while sent < all {
        ensure!(
            Instant::now() < deadline,
            "{sent} of {all} within {patience:?}"
        );
        let outcome = thread::scope(|scope| {
            let flusher = flush_beside(scope, &socket)?;
            thread::sleep(AFTER);
            let _ = flusher.interrupt(); // it may be over already
            anyhow::Ok(flusher.end())
        })?;
        match outcome {
            Ok(more) => sent += more,
            Err(error) if error.raw_os_error() == Some(EINTR) => {}
            Err(error) => return Err(error).context("an interrupted flush"),
        }
        calls += 1;
    }
    ensure!(
        calls > 1,
        "the flush of {all} bytes was over before the signal"
    );
    ensure!(sent == all, "{sent} bytes of {all} were sent");
    setting.note(format!("{all} bytes in {calls} flushes, a signal each"));
    Ok(())
}

/// Contract, "TX", and the series' documentation: one flush at a time; another waits for it, or
/// with `MSG_DONTWAIT` is told `EAGAIN`.
fn a_flush_that_may_not_wait_does_not_wait_for_another(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(1));
    let (peer, socket, frames) = ring_to_a_narrow_peer()?;
    let came = thread::scope(|scope| {
        let flusher = waiting_flush(scope, &socket, patience)?;
        let begun = Instant::now();
        let beside = [(); 10].map(|()| flush_with(&socket, MsgFlags::MSG_DONTWAIT));
        let taken = begun.elapsed();
        let came = read_until_over(&peer, vec![flusher])?;
        for outcome in beside {
            assert_refused("a flush beside another", outcome, EAGAIN)?;
        }
        ensure!(taken < patience, "10 refusals take {taken:?}");
        anyhow::Ok(came)
    })?;
    assert_all_came(&came, frames.geometry().frame_nr())?;
    setting.note(format!(
        "EAGAIN 10 times; the other flush went on to send {} bytes",
        came.1
    ));
    Ok(())
}

/// Contract, "TX": one flush at a time, so that each frame goes out once, though many flush at once. Here
/// the first waits for a receiver that is full, and the others for the first.
fn a_flush_waits_for_another(setting: &mut Setting) -> anyhow::Result<()> {
    const FLUSHES: usize = 4;
    let patience = setting.patiently(Duration::from_secs(1));
    let (peer, socket, frames) = ring_to_a_narrow_peer()?;
    let came = thread::scope(|scope| {
        let flushers = [(); FLUSHES].map(|()| waiting_flush(scope, &socket, patience));
        let flushers = flushers.into_iter().collect::<anyhow::Result<_>>()?;
        anyhow::Ok(read_until_over(&peer, flushers)?)
    })?;
    assert_all_came(&came, frames.geometry().frame_nr())?;
    setting.note(format!(
        "{} messages went out once each, by {FLUSHES} flushes at once",
        came.0.len()
    ));
    Ok(())
}

/// Contract, "TX" and "Setting a ring up", 3: a ring is not torn down under a flush. Whoever tries
/// waits until the flush is over, or a signal comes; while the ring is mapped nobody waits for
/// `EBUSY`.
fn a_tear_down_waits_for_a_flush_and_can_be_interrupted(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(1));
    make_interruptible()?;
    let (peer, socket, frames) = ring_to_a_narrow_peer()?;
    let frame_nr = frames.geometry().frame_nr();
    let came = thread::scope(|scope| {
        let flusher = waiting_flush(scope, &socket, patience)?;
        let begun = Instant::now();
        let mapped = set(&socket, NETLINK_TX_RING, &tear_down());
        let taken = begun.elapsed();
        drop(frames);

        let tearer = BlockedCall::begin(scope, || set(&socket, NETLINK_TX_RING, &tear_down()))?
            .asleep_in(libc::SYS_setsockopt, patience);
        let interrupted = tearer.and_then(|tearer| {
            ensure!(!flusher.is_over(), "the flush does not wait any more");
            tearer.interrupt()?;
            Ok(tearer.end())
        });
        let came = read_until_over(&peer, vec![flusher])?;
        assert_refused("a tear-down while mapped", mapped, EBUSY)?;
        ensure!(taken < patience, "EBUSY has waited for the flush");
        assert_refused("an interrupted tear-down", interrupted?, EINTR)?;
        anyhow::Ok(came)
    })?;
    assert_all_came(&came, frame_nr)?;
    socket.tear_down_tx_ring()?;
    assert_refused("a flush of no ring", flush(&socket), ENODATA)?;
    setting.note(format!(
        "EBUSY at once, EINTR under a flush of {} bytes, then torn down",
        came.1
    ));
    Ok(())
}

/// Contract, "Setting a ring up", 3: nothing is torn down that is mapped, be it mapped only after
/// the tear-down began to wait for a flush.
fn a_ring_mapped_while_a_tear_down_waits_stays(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(1));
    let (peer, socket, frames) = ring_to_a_narrow_peer()?;
    let geometry = *frames.geometry();
    let (came, frames) = thread::scope(|scope| {
        let flusher = waiting_flush(scope, &socket, patience)?;
        drop(frames);
        let tearer = BlockedCall::begin(scope, || set(&socket, NETLINK_TX_RING, &tear_down()))?
            .asleep_in(libc::SYS_setsockopt, patience);
        let frames = Frames::map(&socket, geometry);
        let came = read_until_over(&peer, vec![flusher])?;
        let outcome = tearer?.end();
        assert_refused("a tear-down of what was mapped meanwhile", outcome, EBUSY)?;
        anyhow::Ok((came, frames.context("mapping beside a flush")?))
    })?;
    assert_all_came(&came, geometry.frame_nr())?;
    frames.submit(0, &peers::content(0, LEN));
    flush(&socket)?;
    ensure!(
        peers::receive(&peer)? == peers::content(0, LEN),
        "the ring that stayed sends something else"
    );
    setting.note("EBUSY, and the ring goes on");
    Ok(())
}
