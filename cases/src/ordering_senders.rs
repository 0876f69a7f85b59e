// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `ordering`: programs as senders, several at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry, Socket};

use crate::consumer::Way;
use crate::delivery::ringed;
use crate::sequences::Sequences;
use crate::stamp::{SMALLEST, Stamp};
use crate::traffic::pin;
use crate::walker::Walker;
use crate::{Case, Setting, case, peers};

pub(crate) const CASES: &[Case] = &[case!(Ordering, each_threads_messages_stay_in_its_order)
    .proves("rx-in-turn rx-every-sender rx-copy rx-copy-pairs rx-full-eagain rx-full-resumes")
    .within(10)];

/// Messages of a thread.
const PER_THREAD: u32 = 200;
/// Threads that send.
const THREADS: u32 = 4;

/// Contract, "RX", both orders: what a thread sends, to one ring and another, by a socket of its own
/// or one that it shares, stands there in its order, what does not fit included. A full ring
/// refuses, and what is sent again is not out of turn.
fn each_threads_messages_stay_in_its_order(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let geometry = Geometry::from_request(4096, 4, 512, 32)?;
    let rings = [
        ringed(geometry, Flags::NONE)?,
        ringed(geometry, Flags::ORDERED)?,
    ];
    let ports = [rings[0].2, rings[1].2];
    let mut walkers = rings.map(|(socket, frames, _)| (socket, Walker::at(frames, 0)));
    let refused = Arc::new(AtomicU32::new(0));
    let shared = Arc::new(peers::open()?.0);
    let mut senders = Vec::new();
    for number in 0..THREADS {
        let socket = if number < THREADS / 2 {
            Arc::clone(&shared)
        } else {
            Arc::new(peers::open()?.0)
        };
        let random = fastrand::Rng::with_seed(setting.seed ^ u64::from(number));
        let refused = Arc::clone(&refused);
        senders.push(thread::spawn(move || {
            send(&socket, ports, number, random, &refused)
        }));
    }

    let deadline = Instant::now() + patience;
    while refused.load(Ordering::Relaxed) == 0 {
        ensure!(
            Instant::now() < deadline,
            "a ring that nobody reads is not full"
        );
        thread::sleep(Duration::from_millis(1));
    }
    let mut sequences = [Sequences::default(), Sequences::default()];
    let (mut came, mut copied) = (0, 0);
    let mut deadline = Instant::now() + patience;
    while came < THREADS * PER_THREAD {
        ensure!(Instant::now() < deadline, "silence behind {came} messages");
        for ((socket, walker), sequences) in walkers.iter_mut().zip(&mut sequences) {
            while let Some((way, message)) = walker.next(socket, Duration::from_micros(100))? {
                sequences.next(Stamp::read(&message).with_context(|| format!("by {way:?}"))?)?;
                copied += u32::from(matches!(way, Way::Copy(_)));
                came += 1;
                deadline = Instant::now() + patience;
            }
        }
    }
    for sender in senders {
        match sender.join() {
            Ok(sent) => sent?,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    for (socket, walker) in &mut walkers {
        let more = walker.next(socket, Duration::ZERO)?;
        ensure!(more.is_none(), "one more message than was sent: {more:?}");
    }
    setting.note(format!(
        "{came} messages of {THREADS} threads to 2 rings, {copied} by copy, {} times refused",
        refused.load(Ordering::Relaxed)
    ));
    Ok(())
}

/// Sends to one ring or the other, again and again while that is full.
fn send(
    socket: &Socket,
    ports: [u32; 2],
    number: u32,
    mut random: fastrand::Rng,
    refused: &AtomicU32,
) -> io::Result<()> {
    pin(number as usize)?;
    let mut sequences = [0; 2];
    for _ in 0..PER_THREAD {
        let ring = random.usize(..ports.len());
        let stamp = Stamp {
            flow: number,
            sequence: sequences[ring],
        };
        sequences[ring] += 1;
        let message = stamp.payload(random.usize(SMALLEST..900));
        loop {
            match peers::send_to(socket, ports[ring], &message) {
                Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {
                    refused.fetch_add(1, Ordering::Relaxed);
                    thread::sleep(Duration::from_micros(100));
                }
                Err(error) => return Err(error),
                Ok(_) => break,
            }
        }
    }
    Ok(())
}
