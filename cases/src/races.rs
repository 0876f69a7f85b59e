// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `lifetime`: rings set up, torn down, mapped, polled and closed from several
//! threads at once. What was lost in the end is counted in a cgroup; what went wrong, in the log.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use libc::{EBUSY, EINVAL};
use nlring::{Flags, Geometry, Socket};

use crate::cgroup::Cgroup;
use crate::flush::flush;
use crate::frames::Frames;
use crate::option::{RINGS, request_for, set, tear_down};
use crate::{Case, Setting, case, peers, ready};

pub(crate) const CASES: &[Case] = &[
    case!(Lifetime, of_set_ups_at_once_exactly_one_wins)
        .proves("setup-race setup-race-leak fault-16"),
    case!(Lifetime, no_ring_appears_beside_one_that_is_mapped)
        .proves("setup-mapped setup-race-leak"),
    case!(Lifetime, every_call_at_once_on_one_socket_harms_nothing)
        .proves("setup-mapped setup-race-leak fault-16 fault-17 fault-18"),
    case!(Lifetime, rings_come_and_go_under_traffic).proves("setup-down-frees fault-18"),
    case!(Lifetime, closing_races_with_all_else).proves("mapping-end fault-5"),
    case!(
        Lifetime,
        a_process_that_dies_with_both_rings_mapped_leaves_nothing
    )
    .proves("mapping-end fault-5"),
];

/// What may still be charged when all rings are gone: less than one ring.
const LEFT: u64 = 128 * 1024;

/// Rings whose loss would be seen.
fn shape() -> anyhow::Result<Geometry> {
    Ok(Geometry::new(64 * 1024, 4, 2048)?)
}

/// Runs `race` in a cgroup, in which nothing may be left of it.
fn leaves_nothing(
    setting: &Setting,
    race: impl FnOnce() -> anyhow::Result<String>,
) -> anyhow::Result<(String, u64)> {
    let patience = setting.patiently(Duration::from_secs(2));
    let group = Cgroup::make("race", None)?;
    let (mut said, say) = std::io::pipe()?;
    group.run(move || {
        let told = race()?;
        std::io::Write::write_all(&mut &say, told.as_bytes())?;
        Ok(())
    })?;
    let mut told = String::new();
    std::io::Read::read_to_string(&mut said, &mut told)?;
    let left = group.await_at_most(LEFT, patience)?;
    Ok((told, left))
}

/// Contract, "Setting a ring up"; known fault 16: of racing calls exactly one wins, the others see
/// `EBUSY`, and none leaks.
fn of_set_ups_at_once_exactly_one_wins(setting: &mut Setting) -> anyhow::Result<()> {
    const THREADS: usize = 4;
    let span = setting.patiently(Duration::from_millis(400));
    let (told, left) = leaves_nothing(setting, || {
        let until = Instant::now() + span;
        let mut rounds = 0_u32;
        let mut winners = [0_u32; THREADS];
        let socket = Socket::open(libc::NETLINK_ROUTE)?;
        while Instant::now() < until {
            for (name, ring) in RINGS {
                let start = Barrier::new(THREADS);
                // Each asks for another shape, so that the winner can be told.
                let outcomes: Vec<_> = thread::scope(|scope| {
                    let (socket, start) = (&socket, &start);
                    let asking = (1..=THREADS as u32).map(|blocks| {
                        scope.spawn(move || {
                            let geometry = Geometry::new(64 * 1024, blocks, 2048)?;
                            start.wait();
                            anyhow::Ok(set(socket, ring, &request_for(&geometry, Flags::NONE)))
                        })
                    });
                    let asking: Vec<_> = asking.collect();
                    asking
                        .into_iter()
                        .map(|thread| thread.join().expect("no panic"))
                        .collect()
                });
                let mut won = Vec::new();
                for (index, outcome) in outcomes.into_iter().enumerate() {
                    match outcome? {
                        Ok(()) => won.push(index),
                        Err(error) if error.raw_os_error() == Some(EBUSY) => {}
                        Err(error) => return Err(error).context("a set-up that lost"),
                    }
                }
                ensure!(won.len() == 1, "{} set-ups of {name} won", won.len());
                let told = crate::option::get(&socket, ring, 8)?;
                ensure!(
                    told[4] as usize == won[0] + 1,
                    "the ring has {} blocks, the winner asked for {}",
                    told[4],
                    won[0] + 1
                );
                set(&socket, ring, &tear_down())?;
                winners[won[0]] += 1;
                rounds += 1;
            }
        }
        ensure!(
            winners.iter().filter(|&&wins| wins > 0).count() > 1,
            "no race: {winners:?}"
        );
        Ok(format!("{rounds} rounds, won by {winners:?}"))
    })?;
    setting.note(format!("{told}; {left} bytes left"));
    Ok(())
}

/// Contract, "Setting a ring up": both rings are configured before the first `mmap`, also where that
/// comes while the second is being made.
fn no_ring_appears_beside_one_that_is_mapped(setting: &mut Setting) -> anyhow::Result<()> {
    let span = setting.patiently(Duration::from_millis(400));
    let mut random = fastrand::Rng::with_seed(setting.seed);
    let (told, left) = leaves_nothing(setting, move || {
        let rx = Geometry::new(64 * 1024, 1, 2048)?;
        // Large, so that it takes its time.
        let tx = Geometry::new(64 * 1024, 32, 2048)?;
        let mut longest = Duration::ZERO;
        let (mut set_up, mut mapped) = (0_u32, 0_u32);
        let until = Instant::now() + span;
        while Instant::now() < until {
            let socket = Socket::open(libc::NETLINK_ROUTE)?;
            socket.set_up_rx_ring(&rx, Flags::NONE)?;
            let start = Barrier::new(2);
            let (setting_up, mapping) = thread::scope(|scope| {
                let setting_up = scope.spawn(|| {
                    start.wait();
                    let begun = Instant::now();
                    (socket.set_up_tx_ring(&tx), begun.elapsed())
                });
                start.wait();
                let wait = longest.mul_f64(random.f64());
                let begun = Instant::now();
                while begun.elapsed() < wait {
                    std::hint::spin_loop();
                }
                let mapping = Frames::map(&socket, rx);
                (setting_up.join().expect("no panic"), mapping)
            });
            let (setting_up, took) = setting_up;
            longest = longest.max(took);
            let errno = |error: Option<i32>| error.unwrap_or_default();
            match (setting_up, mapping) {
                (Ok(()), Err(error)) if error.raw_os_error() == Some(EINVAL) => set_up += 1,
                (Err(error), Ok(_)) if errno(error.raw_os_error()) == EBUSY => mapped += 1,
                (Ok(()), Ok(_)) => anyhow::bail!("a ring appeared beside one that is mapped"),
                (setting_up, mapping) => anyhow::bail!("{setting_up:?} beside {mapping:?}"),
            }
        }
        ensure!(set_up > 0 && mapped > 0, "no race: {set_up} and {mapped}");
        Ok(format!(
            "set up first {set_up} times, mapped first {mapped}"
        ))
    })?;
    setting.note(format!("{told}; {left} bytes left"));
    Ok(())
}

/// What a thread does to a socket next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Step {
    SetUp,
    TearDown,
    MapOne,
    MapBoth,
    Poll,
    Flush,
    Send,
    Receive,
    Ask,
}

const STEPS: [Step; 9] = [
    Step::SetUp,
    Step::TearDown,
    Step::MapOne,
    Step::MapBoth,
    Step::Poll,
    Step::Flush,
    Step::Send,
    Step::Receive,
    Step::Ask,
];

impl Step {
    fn take(self, socket: &Socket, port: u32, random: &mut fastrand::Rng) -> std::io::Result<()> {
        let geometry = Geometry::new(64 * 1024, 4, 2048).expect("a shape");
        let (_, ring) = RINGS[random.usize(..2)];
        match self {
            Self::SetUp => set(socket, ring, &request_for(&geometry, Flags::NONE)),
            Self::TearDown => set(socket, ring, &tear_down()),
            Self::MapOne => Frames::map(socket, geometry).map(|frames| {
                frames.submit(random.u32(..8), b"a message of whatever ring this is");
            }),
            Self::MapBoth => Frames::map_all(socket, [geometry, geometry]).map(|[rx, tx]| {
                rx.set_statuses(nlring::Status::Unused);
                tx.submit(random.u32(..8), b"a message");
            }),
            Self::Poll => ready::is_readable(socket).map(drop),
            Self::Flush => {
                let dont_wait = nix::sys::socket::MsgFlags::MSG_DONTWAIT;
                crate::flush::flush_with(socket, dont_wait).map(drop)
            }
            Self::Send => {
                let content = peers::content(1, random.usize(1..4000));
                let dont_wait = nix::sys::socket::MsgFlags::MSG_DONTWAIT;
                peers::send_by(socket, port, 0, &content, dont_wait).map(drop)
            }
            Self::Receive => peers::receive(socket).map(drop),
            Self::Ask => crate::option::get(socket, ring, 20).map(drop),
        }
    }
}

/// Contract, "Setting a ring up", "Mapping"; known faults 16, 17 and 18: every call that there is,
/// in any order, from several threads on one socket that sends to itself. Each call can say only
/// what the contract knows.
fn every_call_at_once_on_one_socket_harms_nothing(setting: &mut Setting) -> anyhow::Result<()> {
    const THREADS: u64 = 4;
    let span = setting.patiently(Duration::from_millis(600));
    let seed = setting.seed;
    let (told, left) = leaves_nothing(setting, || {
        let (socket, port) = peers::open()?;
        peers::connect(&socket, port)?;
        let until = Instant::now() + span;
        let counts = Mutex::new(BTreeMap::<Step, [u32; 2]>::new());
        thread::scope(|scope| {
            let run = |number: u64| {
                let mut random = fastrand::Rng::with_seed(seed.wrapping_add(number));
                let mut own = BTreeMap::<Step, [u32; 2]>::new();
                while Instant::now() < until {
                    let step = STEPS[random.usize(..STEPS.len())];
                    let outcome = step.take(&socket, port, &mut random);
                    let entry = own.entry(step).or_default();
                    entry[usize::from(outcome.is_err())] += 1;
                    if let Err(error) = outcome {
                        let errno = error.raw_os_error().unwrap_or_default();
                        let known = match step {
                            Step::SetUp | Step::TearDown => errno == EBUSY,
                            Step::MapOne | Step::MapBoth => errno == EINVAL,
                            Step::Flush => [EINVAL, libc::EAGAIN, libc::ENODATA].contains(&errno),
                            Step::Send | Step::Receive => errno == libc::EAGAIN,
                            Step::Poll | Step::Ask => false,
                        };
                        ensure!(known, "{step:?} gives: {error}");
                    }
                }
                let mut counts = counts.lock().expect("no panic");
                for (step, [well, not]) in own {
                    let entry = counts.entry(step).or_default();
                    entry[0] += well;
                    entry[1] += not;
                }
                Ok(())
            };
            let threads: Vec<_> = (0..THREADS)
                .map(|number| scope.spawn(move || run(number)))
                .collect();
            threads
                .into_iter()
                .try_for_each(|thread| thread.join().expect("no panic"))
        })?;
        let counts = counts.into_inner().expect("no panic");
        for step in STEPS {
            let [well, _] = counts.get(&step).copied().unwrap_or_default();
            ensure!(well > 0, "{step:?} never succeeded: {counts:?}");
        }
        Ok(format!("done and refused: {counts:?}"))
    })?;
    setting.note(format!("{told}; {left} bytes left"));
    Ok(())
}

/// Contract, "Setting a ring up", "RX": rings come and go while the kernel and programs send to the
/// socket and others poll it: each message is in a ring, in the queue, or refused.
fn rings_come_and_go_under_traffic(setting: &mut Setting) -> anyhow::Result<()> {
    let span = setting.patiently(Duration::from_millis(600));
    let patience = setting.patiently(Duration::from_secs(2));
    let (told, left) = leaves_nothing(setting, || {
        let (socket, port) = peers::open()?;
        let (sender, _) = peers::open()?;
        let geometry = shape()?;
        let stop = AtomicBool::new(false);
        let delivered = AtomicU32::new(0);
        let (rings, came) = thread::scope(|scope| {
            scope.spawn(|| {
                let dont_wait = nix::sys::socket::MsgFlags::MSG_DONTWAIT;
                let mut number = 0;
                while !stop.load(Ordering::Relaxed) {
                    let content = peers::content(number, 1 + number as usize % 3000);
                    let sent = peers::send_by(&sender, port, 0, &content, dont_wait);
                    delivered.fetch_add(u32::from(sent.is_ok()), Ordering::Relaxed);
                    number += 1;
                }
            });
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let _ = ready::is_readable(&socket);
                }
            });
            let come_and_go = || {
                let (mut rings, mut came) = (0_u32, 0_u32);
                let until = Instant::now() + span;
                while Instant::now() < until || came == 0 {
                    ensure!(
                        Instant::now() < until + patience,
                        "{rings} rings and nothing came"
                    );
                    let flags = if rings % 2 == 0 {
                        Flags::NONE
                    } else {
                        Flags::ORDERED
                    };
                    socket.set_up_rx_ring(&geometry, flags)?;
                    let frames = Frames::map(&socket, geometry)?;
                    thread::yield_now();
                    let unused = Some(nlring::Status::Unused);
                    let used = frames
                        .statuses()
                        .iter()
                        .filter(|&&status| status != unused)
                        .count();
                    came += used as u32;
                    drop(frames);
                    socket.tear_down_rx_ring()?;
                    // Some of what came between two rings; the sender does not stop.
                    let _ = (0..50).try_for_each(|_| peers::receive(&socket).map(drop));
                    rings += 1;
                }
                anyhow::Ok((rings, came))
            };
            let outcome = come_and_go();
            stop.store(true, Ordering::Relaxed);
            outcome
        })?;
        let delivered = delivered.load(Ordering::Relaxed);
        Ok(format!(
            "{rings} rings, {delivered} messages, {came} frames seen in use"
        ))
    })?;
    setting.note(format!("{told}; {left} bytes left"));
    Ok(())
}

/// Known fault 5 and the contract's "Mapping": sockets are closed and mappings go in one thread
/// while others still set up, send and poll through descriptors of their own.
fn closing_races_with_all_else(setting: &mut Setting) -> anyhow::Result<()> {
    let span = setting.patiently(Duration::from_millis(600));
    let seed = setting.seed;
    let (told, left) = leaves_nothing(setting, || {
        let until = Instant::now() + span;
        let geometry = shape()?;
        let mut random = fastrand::Rng::with_seed(seed);
        let mut sockets = 0_u32;
        while Instant::now() < until {
            let (socket, port) = peers::open()?;
            socket.set_up_rx_ring(&geometry, Flags::NONE)?;
            socket.set_up_tx_ring(&geometry)?;
            peers::connect(&socket, port)?;
            let [rx, tx] = Frames::map_all(&socket, [geometry, geometry])?;
            for frame in 0..8 {
                tx.submit(frame, &peers::content(frame, 500));
            }
            let (sender, _) = peers::open()?;
            let start = Barrier::new(3);
            thread::scope(|scope| {
                scope.spawn(|| {
                    start.wait();
                    for number in 0..20 {
                        let _ = peers::send_to(&sender, port, &peers::content(number, 900));
                    }
                });
                let pause = random.u32(..2000);
                let (wait, unmapped) = (&start, (rx, tx));
                scope.spawn(move || {
                    wait.wait();
                    (0..pause).for_each(|_| std::hint::spin_loop());
                    drop(unmapped);
                });
                start.wait();
                let _ = flush(&socket);
                let _ = ready::is_readable(&socket);
                drop(socket);
            });
            sockets += 1;
        }
        Ok(format!("{sockets} sockets with both rings"))
    })?;
    setting.note(format!("{told}; {left} bytes left"));
    Ok(())
}

/// Known fault 5: a process dies with both rings of a generic netlink socket mapped, twice,
/// messages in both, and another process holding nothing.
fn a_process_that_dies_with_both_rings_mapped_leaves_nothing(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    const PROCESSES: u32 = 20;
    let (told, left) = leaves_nothing(setting, || {
        for _ in 0..PROCESSES {
            let (mut wait, say) = std::io::pipe()?;
            let child = crate::child::Child::start(|| {
                let geometry = shape()?;
                let socket = Socket::open(libc::NETLINK_GENERIC)?;
                socket.set_up_rx_ring(&geometry, Flags::NONE)?;
                socket.set_up_tx_ring(&geometry)?;
                let first = Frames::map_all(&socket, [geometry, geometry])?;
                let second = Frames::map_all(&socket, [geometry, geometry])?;
                for frame in 0..8 {
                    second[1].submit(frame, &crate::message::noop(frame));
                }
                flush(&socket)?;
                first[1].submit(8, &crate::message::noop(8));
                std::io::Write::write_all(&mut &say, &[1])?;
                loop {
                    nix::unistd::pause();
                }
            })?;
            drop(say);
            let ready = std::io::Read::read_exact(&mut wait, &mut [0]);
            ready.context("the child did not come so far")?;
            child.kill()?;
        }
        Ok(format!("{PROCESSES} processes killed"))
    })?;
    setting.note(format!("{told}; {left} bytes left"));
    Ok(())
}
