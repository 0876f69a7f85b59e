// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that meddles with its own ring.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use nlring::{Geometry, Status};

use crate::frames::{Field, Frames};
use crate::traffic::pin;

/// A thread that meddles until it is told to stop.
#[derive(Debug)]
pub(crate) struct Scribbler {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u64>>,
}

impl Scribbler {
    /// Turns every `RESERVED` frame that it meets back into an `UNUSED` one, and at once does what
    /// makes the kernel look for a frame.
    pub(crate) fn freeing_reserved(
        socket: &impl AsFd,
        geometry: Geometry,
        mut then: impl FnMut() + Send + 'static,
    ) -> std::io::Result<Self> {
        let frames = Frames::map(socket, geometry)?;
        Ok(Self::start(move |stop| {
            let mut flipped = 0;
            while !stop.load(Ordering::Relaxed) {
                for frame in 0..geometry.frame_nr() {
                    let reserved = Status::Reserved.word();
                    let unused = Status::Unused.word();
                    let exchange = frames.field(frame, Field::Status).compare_exchange(
                        reserved,
                        unused,
                        Ordering::AcqRel,
                        Ordering::Relaxed,
                    );
                    if exchange.is_ok() {
                        flipped += 1;
                        then();
                    }
                }
                thread::yield_now();
            }
            flipped
        }))
    }

    /// Writes nothing: at every frame that it meets as `RESERVED` it does what makes the kernel
    /// look for another, and so for one behind it, while the first is still being filled.
    pub(crate) fn overtaking_reserved(
        socket: &impl AsFd,
        geometry: Geometry,
        mut then: impl FnMut() + Send + 'static,
    ) -> std::io::Result<Self> {
        let frames = Frames::map(socket, geometry)?;
        Ok(Self::start(move |stop| {
            let mut overtaken = 0;
            let is_reserved = |frame| frames.status(frame) == Some(Status::Reserved);
            while !stop.load(Ordering::Relaxed) {
                for frame in 0..geometry.frame_nr() {
                    if is_reserved(frame) {
                        overtaken += 1;
                        then();
                        while is_reserved(frame) && !stop.load(Ordering::Relaxed) {
                            thread::yield_now();
                        }
                    }
                }
                thread::yield_now();
            }
            overtaken
        }))
    }

    /// Writes random words all over the ring, and more often to where statuses and lengths stand.
    pub(crate) fn everywhere(
        socket: &impl AsFd,
        geometry: Geometry,
        seed: u64,
    ) -> std::io::Result<Self> {
        let frames = Frames::map(socket, geometry)?;
        Ok(Self::start(move |stop| {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..64 {
                    let frame = random.u32(..geometry.frame_nr());
                    let first = geometry.frame_offset(frame) / size_of::<u32>();
                    match random.u8(..8) {
                        0..=3 => frames.word(first).store(random.u32(..6), Ordering::Relaxed),
                        4..=5 => frames
                            .word(first + random.usize(..6))
                            .store(random.u32(..), Ordering::Relaxed),
                        _ => frames
                            .word(random.usize(..frames.words()))
                            .store(random.u32(..), Ordering::Relaxed),
                    }
                    written += 1;
                }
                thread::yield_now();
            }
            written
        }))
    }

    /// Does this to one frame after the other, round and round; it tells whether it meddled.
    pub(crate) fn frame_by_frame(frames: Frames, scribble: fn(&Frames, u32) -> bool) -> Self {
        Self::start(move |stop| {
            let mut meddled = 0;
            while !stop.load(Ordering::Relaxed) {
                for frame in 0..frames.geometry().frame_nr() {
                    meddled += u64::from(scribble(&frames, frame));
                }
                thread::yield_now();
            }
            meddled
        })
    }

    fn start(scribble: impl FnOnce(&AtomicBool) -> u64 + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            // Away from the flows on the first CPU; where there is but one, wherever it can be.
            let _ = pin(1);
            scribble(&asked)
        });
        Self {
            stop,
            thread: Some(thread),
        }
    }

    /// Stops it, and tells how often it meddled.
    pub(crate) fn finish(mut self) -> anyhow::Result<u64> {
        self.stop().unwrap_or(Ok(0))
    }

    fn stop(&mut self) -> Option<anyhow::Result<u64>> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self.thread.take()?.join();
        Some(ended.map_err(|_| anyhow::anyhow!("the scribbler panicked")))
    }
}

/// Its mapping would keep the socket, and with it the queue, alive.
impl Drop for Scribbler {
    fn drop(&mut self) {
        let _ = self.stop();
    }
}
