// SPDX-License-Identifier: MIT OR Apache-2.0
//! A case of the group `poll`: a ring is taken away while poll is on its way through it.

use std::fs;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry, Socket, Status};

use crate::delivery::ringed;
use crate::{Case, Setting, case, peers, ready};

pub(crate) const CASES: &[Case] = &[case!(Poll, poll_lets_go_of_a_ring_that_is_taken_away)
    .proves("setup-down-frees poll-valid fault-18")];

/// Frames of the ring: a walk over all of them takes milliseconds.
const FRAMES: u32 = 1 << 20;
/// What the kernel passes over at most for one message.
const KEPT: u32 = 1023;

/// Small frames, so that many are cheap.
fn shape() -> anyhow::Result<Geometry> {
    const FRAME: u32 = 32;
    const BLOCK: u32 = 1 << 16;
    let blocks = FRAMES * FRAME / BLOCK;
    Ok(Geometry::from_request(BLOCK, blocks, FRAME, FRAMES)?)
}

/// A socket whose poll walks over its whole ring, and finds nothing: all frames were passed as `SKIP`
/// or used since it looked last, and are free again.
fn long_to_walk() -> anyhow::Result<Socket> {
    let (sender, _) = peers::open()?;
    let (socket, frames, port) = ringed(shape()?, Flags::NONE)?;
    let is_kept = |frame: &u32| frame % (KEPT + 1) != KEPT;
    (0..FRAMES)
        .filter(is_kept)
        .for_each(|frame| frames.set_status(frame, Status::Skip));
    for _ in 0..FRAMES / (KEPT + 1) {
        peers::send_to(&sender, port, b"one")?;
    }
    let last = frames.status(FRAMES - 1);
    ensure!(last == Some(Status::Valid), "the last frame is {last:?}");
    frames.set_statuses(Status::Unused);
    Ok(socket)
}

/// While it lasts, RCU waits for as short a time as it can, so that a ring is freed in the middle of a walk.
struct Expedited;

impl Expedited {
    const SWITCH: &str = "/sys/kernel/rcu_expedited";

    fn begin() -> anyhow::Result<Self> {
        fs::write(Self::SWITCH, "1").with_context(|| format!("cannot write {}", Self::SWITCH))?;
        Ok(Self)
    }
}

impl Drop for Expedited {
    fn drop(&mut self) {
        let _ = fs::write(Self::SWITCH, "0"); // it goes with its VM
    }
}

/// Known fault 18: poll does not look at a ring that another thread takes away meanwhile.
fn poll_lets_go_of_a_ring_that_is_taken_away(setting: &mut Setting) -> anyhow::Result<()> {
    const ROUNDS: u32 = 4;
    let _expedited = Expedited::begin()?;
    let whole = {
        let socket = long_to_walk()?;
        let begun = Instant::now();
        ensure!(!ready::is_readable(&socket)?, "there is nothing to read");
        begun.elapsed()
    };
    let mut cut_short = 0;
    for _ in 0..ROUNDS {
        let socket = long_to_walk()?;
        let begins = AtomicBool::new(false);
        let (walk, readable) = thread::scope(|scope| {
            let poll = scope.spawn(|| {
                begins.store(true, Ordering::Release);
                let begun = Instant::now();
                let readable = ready::is_readable(&socket);
                (begun.elapsed(), readable)
            });
            while !begins.load(Ordering::Acquire) {
                std::hint::spin_loop();
            }
            thread::sleep(whole / 16);
            socket.tear_down_rx_ring()?;
            anyhow::Ok(poll.join().expect("no panic"))
        })?;
        ensure!(!readable?, "what is gone is readable");
        cut_short += u32::from(walk < whole / 2);
    }
    setting.note(format!(
        "{cut_short} of {ROUNDS} walks of {whole:?} over {FRAMES} frames were cut short"
    ));
    Ok(())
}
