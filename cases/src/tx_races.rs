// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `tx`: a flush that others write under, join, or pull the ring from.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use libc::{EINVAL, ENODATA};
use nlring::{Geometry, Socket, Status};

use crate::flush::flush;
use crate::frames::{Field, Frames};
use crate::message::{ACK, NOOP, REQUEST, Writer, noop};
use crate::option::request;
use crate::traffic::pin;
use crate::tx::{assert_receives, ring_on, ring_to, shape};
use crate::{Case, Setting, case, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Tx, flushes_at_once_send_each_frame_once).proves("tx-in-turn tx-one-at-a-time"),
    case!(Tx, a_frame_comes_back_when_its_message_is_copied).proves("tx-copied-first fault-1"),
    case!(Tx, a_flush_is_at_most_one_round).proves("tx-one-round fault-19"),
    case!(Tx, a_length_that_changes_under_a_flush_is_read_once)
        .proves("tx-header-once tx-length-large fault-2"),
    case!(Tx, garbage_under_a_flush_hurts_nobody).proves("tx-untrusted"),
    case!(Tx, a_flush_whose_ring_goes_ends_clearly).proves("tx-torn-down fault-17"),
];

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

/// Contract, "TX"; known fault 1: a frame is the user's again when its message has been copied, and not
/// before: another thread overwrites each as soon as it is `UNUSED`.
fn a_frame_comes_back_when_its_message_is_copied(setting: &mut Setting) -> anyhow::Result<()> {
    const FLUSHES: u32 = 200;
    let geometry = Geometry::new(64 * 1024, 1, 64 * 1024)?;
    let len = geometry.room() as usize;
    let (peer, port) = peers::open()?;
    let (socket, frames) = ring_to(port, geometry)?;
    let (stop, written) = (AtomicBool::new(false), AtomicU64::new(0));
    let submits = Mutex::new(()); // or what is submitted meanwhile would be written over
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = pin(1);
            let last = frames.word(frames.words() - 1);
            while !stop.load(Ordering::Relaxed) {
                let _turn = submits.lock().expect("nobody panics");
                if frames.status(0) == Some(Status::Unused) {
                    last.store(0, Ordering::Relaxed); // which no content has
                    written.fetch_add(1, Ordering::Relaxed);
                }
            }
        });
        let flush_all = || {
            pin(0)?;
            for number in 0..FLUSHES {
                let content = peers::content(number, len);
                {
                    let _turn = submits.lock().expect("nobody panics");
                    frames.submit(0, &content);
                }
                flush(&socket)?;
                assert_receives(&peer, &content).with_context(|| format!("flush {number}"))?;
            }
            anyhow::Ok(())
        };
        let flushed = flush_all();
        stop.store(true, Ordering::Relaxed);
        flushed
    })?;
    let written = written.into_inner();
    ensure!(written > 0, "nothing was written");
    setting.note(format!(
        "{FLUSHES} messages of {len} bytes, {written} times written over"
    ));
    Ok(())
}

/// Contract, "TX"; known fault 19: at most one round of the ring per call, though another thread
/// marks every frame `VALID` again as soon as it was sent.
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
    let patience = setting.patiently(Duration::from_secs(2));
    let geometry = shape()?;
    let families = [
        libc::NETLINK_ROUTE,
        libc::NETLINK_NETFILTER,
        libc::NETLINK_GENERIC,
        libc::NETLINK_SOCK_DIAG,
    ];
    let (mut sent, mut refused) = (0, 0_u32);
    for (number, family) in (0..).zip(families) {
        let (socket, frames) = ring_on(Socket::open(family)?, geometry)?;
        let stop = AtomicBool::new(false);
        let seed = setting.seed.wrapping_add(number);
        let (mut taken, mut turned_away) = (0, 0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut random = fastrand::Rng::with_seed(seed);
                while !stop.load(Ordering::Relaxed) {
                    scribble(&frames, &mut random);
                }
            });
            let until = Instant::now() + span;
            while Instant::now() < until
                || (taken == 0 || turned_away == 0) && Instant::now() < until + patience
            {
                match flush(&socket) {
                    Ok(bytes) => taken += bytes,
                    Err(_) => turned_away += 1,
                }
                while peers::receive(&socket).is_ok() {}
                // Past whatever cannot be sent.
                frames.set_statuses(Status::Skip);
                let _ = flush(&socket);
            }
            stop.store(true, Ordering::Relaxed);
        });
        ensure!(
            taken > 0 && turned_away > 0,
            "too little was tried: family {family} took {taken} bytes and refused {turned_away} times"
        );
        sent += taken;
        refused += turned_away;
    }
    let (socket, frames) = ring_on(Socket::open(libc::NETLINK_ROUTE)?, geometry)?;
    frames.submit(0, &noop(1));
    ensure!(flush(&socket)? == 16, "a new ring does not work");
    setting.note(format!(
        "{sent} bytes of garbage sent to 4 families, {refused} flushes refused"
    ));
    Ok(())
}

/// Marks a frame `VALID` that has a message nearly right, for those go furthest, or a length that is
/// wrong; and writes a word anywhere.
fn scribble(frames: &Frames, random: &mut fastrand::Rng) {
    let room = frames.geometry().room();
    let frame = random.u32(..frames.geometry().frame_nr());
    let kind = u32::from(random.u16(..)) & 0x0f3f;
    let flags = u32::from(REQUEST | ACK) << 16;
    let mut words = [random.u32(16..room), kind | flags, 0, 0];
    words[random.usize(..4)] ^= random.u32(..) >> random.u32(..32);
    frames.write(frame, &request(&words));
    frames.submit_len(frame, random.u32(..2 * room));
    let anywhere = random.usize(..frames.words());
    frames
        .word(anywhere)
        .store(random.u32(..), Ordering::Relaxed);
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
