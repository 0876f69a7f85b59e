// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that meddles with its own ring.

use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};

use nlring::{Geometry, Status};

use crate::traffic::pin;

/// A second mapping of a ring, as words to write to.
#[derive(Debug)]
struct Words {
    memory: NonNull<AtomicU32>,
    geometry: Geometry,
}

// SAFETY: atomics in a mapping that lives as long as this value; they may be shared.
unsafe impl Send for Words {}

impl Words {
    fn map(socket: &impl AsFd, geometry: Geometry) -> std::io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                geometry.mapping_len(),
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_fd().as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).expect("mmap gives no null without MAP_FIXED");
        Ok(Self { memory, geometry })
    }

    fn count(&self) -> usize {
        self.geometry.mapping_len() / size_of::<AtomicU32>()
    }

    fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.count());
        // SAFETY: inside the mapping, which is aligned to a page.
        unsafe { self.memory.add(index).as_ref() }
    }

    fn status(&self, frame: u32) -> &AtomicU32 {
        self.word(self.geometry.frame_offset(frame) / size_of::<AtomicU32>())
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; no reference into it outlives `self`.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.geometry.mapping_len()) };
    }
}

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
        let words = Words::map(socket, geometry)?;
        Ok(Self::start(move |stop| {
            let mut flipped = 0;
            while !stop.load(Ordering::Relaxed) {
                for frame in 0..geometry.frame_nr() {
                    let reserved = Status::Reserved.word();
                    let unused = Status::Unused.word();
                    let exchange = words.status(frame).compare_exchange(
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

    /// Writes nothing: at every frame that it meets as `RESERVED` it does what makes the kernel look
    /// for another, and so for one behind it, while the first is still being filled.
    pub(crate) fn overtaking_reserved(
        socket: &impl AsFd,
        geometry: Geometry,
        mut then: impl FnMut() + Send + 'static,
    ) -> std::io::Result<Self> {
        let words = Words::map(socket, geometry)?;
        Ok(Self::start(move |stop| {
            let mut overtaken = 0;
            let is_reserved =
                |frame| words.status(frame).load(Ordering::Acquire) == Status::Reserved.word();
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
        let words = Words::map(socket, geometry)?;
        Ok(Self::start(move |stop| {
            let mut random = fastrand::Rng::with_seed(seed);
            let mut written = 0;
            while !stop.load(Ordering::Relaxed) {
                for _ in 0..64 {
                    let frame = random.u32(..geometry.frame_nr());
                    let first = geometry.frame_offset(frame) / size_of::<AtomicU32>();
                    match random.u8(..8) {
                        0..=3 => words.word(first).store(random.u32(..6), Ordering::Relaxed),
                        4..=5 => words
                            .word(first + random.usize(..6))
                            .store(random.u32(..), Ordering::Relaxed),
                        _ => words
                            .word(random.usize(..words.count()))
                            .store(random.u32(..), Ordering::Relaxed),
                    }
                    written += 1;
                }
                thread::yield_now();
            }
            written
        }))
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
