// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `tx`: a flush that takes long, and what else can be done meanwhile.

use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use libc::{EAGAIN, EBUSY, EINTR, ENODATA};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::MsgFlags;
use nix::unistd::gettid;
use nlring::{Geometry, Socket, Status};

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
    case!(Tx, a_tear_down_waits_for_a_flush_and_can_be_interrupted)
        .proves("setup-mapped tx-tear-down-waits fault-17"),
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

/// A signal that does nothing but interrupt.
fn make_interruptible() -> anyhow::Result<()> {
    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing, which is safe at any time.
    unsafe { sigaction(Signal::SIGUSR1, &action)? };
    Ok(())
}

/// Sends the signal to a thread.
fn interrupt(id: &AtomicU32) -> std::io::Result<()> {
    let (process, id) = (std::process::id(), id.load(Ordering::Acquire));
    // SAFETY: tgkill touches no memory.
    match unsafe { libc::syscall(libc::SYS_tgkill, process, id, libc::SIGUSR1) } {
        0 => Ok(()),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// A thread that flushes, and its id.
fn flush_in_thread<'scope, 'env>(
    scope: &'scope thread::Scope<'scope, 'env>,
    socket: &'env Socket,
    id: &'env AtomicU32,
) -> thread::ScopedJoinHandle<'scope, std::io::Result<usize>> {
    scope.spawn(|| {
        id.store(gettid().as_raw().cast_unsigned(), Ordering::Release);
        flush(socket)
    })
}

/// Waits until a thread sleeps in a system call that can be interrupted.
fn await_asleep(id: &AtomicU32, patience: Duration) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        let id = id.load(Ordering::Acquire);
        let stat = std::fs::read_to_string(format!("/proc/self/task/{id}/stat"));
        if id != 0 && stat.is_ok_and(|stat| stat.contains(") S ")) {
            return Ok(());
        }
        ensure!(
            Instant::now() < deadline,
            "the flush does not wait within {patience:?}"
        );
        thread::sleep(Duration::from_millis(1));
    }
}

/// Contract, "TX": a pending signal ends the round early: a short count if something was sent,
/// `EINTR` if nothing was. Here the flush waits for a receiver that is full.
fn a_signal_ends_a_flush_that_waits(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(1));
    make_interruptible()?;
    let (peer, socket, frames) = ring_to_a_narrow_peer()?;
    let mut outcomes = Vec::new();
    for _ in 0..2 {
        let id = AtomicU32::new(0);
        outcomes.push(thread::scope(|scope| {
            let flusher = flush_in_thread(scope, &socket, &id);
            await_asleep(&id, patience)?;
            interrupt(&id)?;
            anyhow::Ok(flusher.join().expect("no panic"))
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
        let id = AtomicU32::new(0);
        let outcome = thread::scope(|scope| {
            let flusher = flush_in_thread(scope, &socket, &id);
            while id.load(Ordering::Acquire) == 0 {
                thread::yield_now();
            }
            thread::sleep(AFTER);
            let _ = interrupt(&id); // it may be over already
            flusher.join().expect("no panic")
        });
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
    let all = LEN * frames.geometry().frame_nr() as usize;
    let id = AtomicU32::new(0);
    let mut next = 0;
    let sent = thread::scope(|scope| {
        let flusher = flush_in_thread(scope, &socket, &id);
        await_asleep(&id, patience)?;
        let begun = Instant::now();
        for _ in 0..10 {
            let beside = flush_with(&socket, MsgFlags::MSG_DONTWAIT);
            assert_refused("a flush beside another", beside, EAGAIN)?;
        }
        let taken = begun.elapsed();
        ensure!(taken < patience, "10 refusals take {taken:?}");
        while !flusher.is_finished() {
            read_on(&peer, &mut next)?;
            thread::yield_now();
        }
        anyhow::Ok(flusher.join().expect("no panic")?)
    })?;
    read_on(&peer, &mut next)?;
    ensure!(
        sent == all && next == frames.geometry().frame_nr(),
        "{sent} bytes of {all} went out, {next} messages came"
    );
    setting.note(format!(
        "EAGAIN 10 times; the other flush went on to send {sent} bytes"
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
    let all = LEN * frames.geometry().frame_nr() as usize;
    let (flusher_id, id) = (AtomicU32::new(0), AtomicU32::new(0));
    let mut next = 0;
    let sent = thread::scope(|scope| {
        let flusher = flush_in_thread(scope, &socket, &flusher_id);
        await_asleep(&flusher_id, patience)?;
        let begun = Instant::now();
        let mapped = set(&socket, NETLINK_TX_RING, &tear_down());
        assert_refused("a tear-down while mapped", mapped, EBUSY)?;
        ensure!(begun.elapsed() < patience, "EBUSY has waited for the flush");
        drop(frames);

        let tearer = scope.spawn(|| {
            id.store(gettid().as_raw().cast_unsigned(), Ordering::Release);
            set(&socket, NETLINK_TX_RING, &tear_down())
        });
        await_asleep(&id, patience)?;
        ensure!(!flusher.is_finished(), "the flush does not wait any more");
        interrupt(&id)?;
        let interrupted = tearer.join().expect("no panic");
        assert_refused("an interrupted tear-down", interrupted, EINTR)?;
        while !flusher.is_finished() {
            read_on(&peer, &mut next)?;
            thread::yield_now();
        }
        anyhow::Ok(flusher.join().expect("no panic")?)
    })?;
    read_on(&peer, &mut next)?;
    ensure!(sent == all, "{sent} bytes of {all} were sent");
    socket.tear_down_tx_ring()?;
    assert_refused("a flush of no ring", flush(&socket), ENODATA)?;
    setting.note(format!(
        "EBUSY at once, EINTR under a flush of {sent} bytes, then torn down"
    ));
    Ok(())
}
