// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `tx`: a flush that others write under, interrupt, join or pull the ring from.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use libc::{EAGAIN, EBUSY, EINTR, EINVAL, ENODATA};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};
use nix::sys::socket::MsgFlags;
use nix::unistd::gettid;
use nlring::{Geometry, Socket, Status};

use crate::flush::{flush, flush_with};
use crate::frames::{Field, Frames};
use crate::message::{NOOP, Writer, noop};
use crate::option::{NETLINK_TX_RING, assert_refused, set, set_number, tear_down};
use crate::traffic::pin;
use crate::tx::{assert_status, ring_on, ring_to, shape};
use crate::{Case, Setting, case, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Tx, a_signal_ends_a_flush_that_waits),
    case!(Tx, a_signal_ends_a_long_flush),
    case!(Tx, a_flush_that_may_not_wait_does_not_wait_for_another),
    case!(Tx, a_tear_down_waits_for_a_flush_and_can_be_interrupted),
    case!(Tx, flushes_at_once_send_each_frame_once),
    case!(Tx, a_flush_is_at_most_one_round),
    case!(Tx, a_length_that_changes_under_a_flush_is_read_once),
    case!(Tx, garbage_under_a_flush_hurts_nobody),
    case!(Tx, a_flush_whose_ring_goes_ends_clearly),
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

/// Contract, "TX": a pending signal ends the round early: a short count if something was sent, `EINTR`
/// if nothing was. Here the flush waits for a receiver that is full.
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

/// Contract, "TX"; known fault 19: a signal also ends a flush that does not wait for anything but is
/// long; the rest goes out by the next.
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

/// Contract, "TX", and the series' documentation: one flush at a time; another waits for it, or with
/// `MSG_DONTWAIT` is told `EAGAIN`.
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

/// Contract, "TX" and "Setting a ring up", 3: a ring is not torn down under a flush. Whoever tries waits
/// until the flush is over, or a signal comes; while the ring is mapped nobody waits for `EBUSY`.
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

/// Contract, "TX": several threads flush one ring, each frame goes out once, in order.
fn flushes_at_once_send_each_frame_once(setting: &mut Setting) -> anyhow::Result<()> {
    const THREADS: usize = 3;
    const LAPS: u32 = 100;
    let (peer, port) = peers::open()?;
    let (socket, frames) = ring_to(port, shape()?)?;
    let count = frames.geometry().frame_nr();
    let stop = AtomicBool::new(false);
    let (told, received) = thread::scope(|scope| {
        let flushers = [(); THREADS].map(|()| {
            scope.spawn(|| {
                let mut sent = 0;
                while !stop.load(Ordering::Relaxed) {
                    sent += flush(&socket)?;
                }
                std::io::Result::Ok(sent)
            })
        });
        let send_all = || {
            let mut received = 0;
            for number in 0..LAPS * count {
                while frames.status(number % count) != Some(Status::Unused) {
                    thread::yield_now();
                }
                frames.submit(number % count, &peers::content(number, 200));
                while let Ok(content) = peers::receive(&peer) {
                    ensure!(
                        content == peers::content(received, 200),
                        "message {received} is not what comes next"
                    );
                    received += 1;
                }
            }
            Ok(received)
        };
        let fed = send_all();
        while fed.is_ok() && frames.statuses().contains(&Some(Status::Valid)) {
            thread::yield_now();
        }
        stop.store(true, Ordering::Relaxed);
        let mut told = 0;
        for flusher in flushers {
            told += flusher.join().expect("no panic")?;
        }
        anyhow::Ok((told, fed?))
    })?;
    let mut received = received;
    while let Ok(content) = peers::receive(&peer) {
        ensure!(
            content == peers::content(received, 200),
            "{received} is garbled"
        );
        received += 1;
    }
    ensure!(
        received == LAPS * count && told == 200 * received as usize,
        "{received} messages of {} came, {told} bytes are told",
        LAPS * count
    );
    setting.note(format!(
        "{received} messages, flushed by {THREADS} threads at once"
    ));
    Ok(())
}

/// Contract, "TX"; known fault 19: at most one round of the ring per call, though another thread marks
/// every frame `VALID` again as soon as it was sent.
fn a_flush_is_at_most_one_round(setting: &mut Setting) -> anyhow::Result<()> {
    const TRIES: u64 = 1000;
    let patience = setting.patiently(Duration::from_secs(2));
    let geometry = Geometry::new(64 * 1024, 1, 64)?;
    let (socket, frames) = ring_on(Socket::open(libc::NETLINK_ROUTE)?, geometry)?;
    let silent = Writer::request(NOOP, 0, 0).end();
    for frame in 0..geometry.frame_nr() {
        frames.submit(frame, &silent);
    }
    let round = silent.len() * geometry.frame_nr() as usize;
    let (stop, flushing) = (AtomicBool::new(false), AtomicBool::new(false));
    let marked_meanwhile = AtomicU64::new(0);
    let (flushes, whole) = thread::scope(|scope| {
        scope.spawn(|| {
            let _ = pin(1);
            while !stop.load(Ordering::Relaxed) {
                for frame in 0..geometry.frame_nr() {
                    if frames.status(frame) == Some(Status::Unused) {
                        frames.set_status(frame, Status::Valid);
                        let meanwhile = u64::from(flushing.load(Ordering::Relaxed));
                        marked_meanwhile.fetch_add(meanwhile, Ordering::Relaxed);
                    }
                }
            }
        });
        let flush_often = || {
            pin(0)?;
            let deadline = Instant::now() + patience;
            let (mut flushes, mut whole) = (0_u32, 0_u32);
            while whole == 0 || marked_meanwhile.load(Ordering::Relaxed) < TRIES {
                ensure!(
                    Instant::now() < deadline,
                    "too little was tried in {flushes} flushes: {whole} whole rounds, {marked_meanwhile:?} frames marked meanwhile"
                );
                flushing.store(true, Ordering::Relaxed);
                let sent = flush(&socket);
                flushing.store(false, Ordering::Relaxed);
                let sent = sent?;
                ensure!(
                    sent <= round,
                    "{sent} bytes by one call, {round} are a round"
                );
                whole += u32::from(sent == round);
                flushes += 1;
            }
            anyhow::Ok((flushes, whole))
        };
        let outcome = flush_often();
        stop.store(true, Ordering::Relaxed);
        outcome
    })?;
    setting.note(format!(
        "{flushes} flushes, {whole} of a whole round, while {marked_meanwhile:?} frames were marked anew"
    ));
    Ok(())
}

/// Known fault 2: `nm_len` is read once: what is checked is what is used. Another thread changes it
/// between two lengths that are right and one that is not; each message has one of the right ones,
/// and the flush tells just as many bytes.
fn a_length_that_changes_under_a_flush_is_read_once(setting: &mut Setting) -> anyhow::Result<()> {
    /// Messages of either length.
    const EACH: u32 = 100;
    const RIGHT: [usize; 2] = [100, 2000];
    let (peer, port) = peers::open()?;
    let (socket, frames) = ring_to(port, shape()?)?;
    let count = frames.geometry().frame_nr();
    let content = peers::content(0, RIGHT[1]);
    for frame in 0..count {
        frames.write(frame, &content);
    }
    let stop = AtomicBool::new(false);
    let outcome = thread::scope(|scope| {
        let changer = scope.spawn(|| {
            let _ = pin(1);
            let lens = [RIGHT[0] as u32, u32::MAX - 3, RIGHT[1] as u32, 3000];
            for len in lens.into_iter().cycle() {
                for frame in 0..count {
                    frames
                        .field(frame, Field::Len)
                        .store(len, Ordering::Relaxed);
                }
                if stop.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let send = || {
            pin(0)?;
            let (mut told, mut came, mut refused) = (0, [0, 0], 0);
            let mut frame = 0;
            while came[0].min(came[1]) < EACH {
                if frames.status(frame) == Some(Status::Unused) {
                    frames.set_status(frame, Status::Valid);
                    frame = (frame + 1) % count;
                }
                match flush(&socket) {
                    Ok(sent) => told += sent,
                    Err(error) if error.raw_os_error() == Some(EINVAL) => refused += 1,
                    Err(error) => return Err(error.into()),
                }
                while let Ok(received) = peers::receive(&peer) {
                    let which = RIGHT.iter().position(|&len| len == received.len());
                    let which =
                        which.with_context(|| format!("a message of {} bytes", received.len()))?;
                    ensure!(content.starts_with(&received), "a message is garbled");
                    came[which] += 1;
                    told -= received.len();
                }
            }
            ensure!(told == 0, "{told} bytes more are told than came");
            Ok((came, refused))
        };
        let outcome = send();
        stop.store(true, Ordering::Relaxed);
        changer.join().expect("no panic");
        outcome
    });
    let ([short, long], refused) = outcome?;
    ensure!(refused > 0, "no length was ever wrong");
    setting.note(format!(
        "{short} short, {long} long, EINVAL {refused} times"
    ));
    Ok(())
}

/// Contract, "RX" and "TX": the kernel trusts nothing in shared memory. Random words all over a ring
/// of requests, while it is flushed into every family that a guest has.
fn garbage_under_a_flush_hurts_nobody(setting: &mut Setting) -> anyhow::Result<()> {
    let span = setting.patiently(Duration::from_millis(200));
    let geometry = shape()?;
    let families = [
        libc::NETLINK_ROUTE,
        libc::NETLINK_NETFILTER,
        libc::NETLINK_GENERIC,
        libc::NETLINK_SOCK_DIAG,
    ];
    let (mut sent, mut refused) = (0, 0);
    for (number, family) in (0..).zip(families) {
        let (socket, frames) = ring_on(Socket::open(family)?, geometry)?;
        let stop = AtomicBool::new(false);
        let seed = setting.seed.wrapping_add(number);
        thread::scope(|scope| {
            let scribbler = scope.spawn(|| {
                let mut random = fastrand::Rng::with_seed(seed);
                while !stop.load(Ordering::Relaxed) {
                    let frame = random.u32(..geometry.frame_nr());
                    frames.submit_len(frame, random.u32(..2100));
                    // Headers that are nearly right go furthest.
                    let kind = u32::from(random.u16(..)) & 0x0f3f;
                    let mut words = [random.u32(16..2100), kind | 0x0005_0000, 0, 0];
                    words[random.usize(..4)] ^= random.u32(..) >> random.u32(..32);
                    let bytes = crate::option::request(&words);
                    frames.write(frame, &bytes);
                    let word = random.usize(..frames.words());
                    frames.word(word).store(random.u32(..), Ordering::Relaxed);
                }
            });
            let until = Instant::now() + span;
            while Instant::now() < until {
                match flush(&socket) {
                    Ok(bytes) => sent += bytes,
                    Err(_) => refused += 1,
                }
                while peers::receive(&socket).is_ok() {}
                for frame in 0..geometry.frame_nr() {
                    frames.set_status(frame, Status::Skip);
                }
                flush(&socket).ok();
            }
            stop.store(true, Ordering::Relaxed);
            scribbler.join().expect("no panic");
        });
    }
    ensure!(
        sent > 0 && refused > 0,
        "{sent} bytes sent, {refused} refused: no garbage"
    );
    let (socket, frames) = ring_on(Socket::open(libc::NETLINK_ROUTE)?, geometry)?;
    frames.submit(0, &noop(1));
    ensure!(flush(&socket)? == 16, "a new ring does not work");
    setting.note(format!(
        "{sent} bytes of garbage sent to 4 families, {refused} flushes refused"
    ));
    Ok(())
}

/// Contract, "TX"; known fault 17: a ring that is torn down by another thread gives a clear error,
/// never a fault. What a flush can say is how much it sent, and that there is no ring.
fn a_flush_whose_ring_goes_ends_clearly(setting: &mut Setting) -> anyhow::Result<()> {
    let span = setting.patiently(Duration::from_millis(600));
    let geometry = Geometry::new(4096, 4, 64)?;
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    let silent = Writer::request(NOOP, 0, 0).end();
    let round = silent.len() * geometry.frame_nr() as usize;
    let stop = AtomicBool::new(false);
    let (sent, without, rings) = thread::scope(|scope| {
        let flushers = [(), ()].map(|()| {
            scope.spawn(|| {
                let (mut sent, mut without) = (0, 0_u32);
                while !stop.load(Ordering::Relaxed) {
                    match flush(&socket) {
                        Ok(bytes) if bytes <= round => sent += bytes,
                        Ok(bytes) => anyhow::bail!("{bytes} bytes of {round} were sent"),
                        Err(error) if error.raw_os_error() == Some(ENODATA) => without += 1,
                        Err(error) => return Err(error).context("a flush beside a tear-down"),
                    }
                }
                Ok((sent, without))
            })
        });
        let come_and_go = || {
            let (mut rings, until) = (0, Instant::now() + span);
            while Instant::now() < until {
                socket.set_up_tx_ring(&geometry)?;
                let frames = Frames::map(&socket, geometry)?;
                for frame in 0..geometry.frame_nr() {
                    frames.submit(frame, &silent);
                }
                drop(frames);
                socket.tear_down_tx_ring()?;
                rings += 1;
            }
            anyhow::Ok(rings)
        };
        let rings = come_and_go();
        stop.store(true, Ordering::Relaxed);
        let (mut sent, mut without) = (0, 0);
        for flusher in flushers {
            let (more, none) = flusher.join().expect("no panic")?;
            sent += more;
            without += none;
        }
        anyhow::Ok((sent, without, rings?))
    })?;
    ensure!(
        sent > 0 && without > 0,
        "nothing was tried: {sent} bytes sent, no ring {without} times"
    );
    setting.note(format!(
        "{rings} rings came and went; {sent} bytes were sent, ENODATA {without} times"
    ));
    Ok(())
}
