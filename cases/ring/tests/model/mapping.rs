// SPDX-License-Identifier: MIT OR Apache-2.0
//! In place of the library's `mapping`: the same words, in memory that loom watches. A message is
//! one number, in a cell that two sides must not touch at once.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering};

use crate::{FrameError, Status};

/// Bytes that fit a frame of the model.
pub(crate) const ROOM: u32 = 4;

/// The ring's shape, as far as it matters here.
#[derive(Debug)]
pub(crate) struct Geometry {
    frame_nr: u32,
    room: u32,
}

impl Geometry {
    pub(crate) fn frame_nr(&self) -> u32 {
        self.frame_nr
    }

    pub(crate) fn room(&self) -> u32 {
        self.room
    }

    pub(crate) fn behind(&self, frame: u32) -> u32 {
        (frame + 1) % self.frame_nr
    }
}

#[derive(Debug)]
struct Frame {
    /// loom 0.7 remembers one load of each word, and overlooks that a store meets an earlier one of
    /// another thread. So whoever is about to touch the status says so here, in a way that it never
    /// overlooks and that puts nothing in order.
    turn: AtomicU32,
    status: AtomicU32,
    len: AtomicU32,
    message: UnsafeCell<u32>,
}

/// A ring that both sides of the model have.
#[derive(Debug)]
pub(crate) struct Mapping {
    frames: Vec<Frame>,
    geometry: Geometry,
}

// SAFETY: the cells are handed over by the status words, which is what the model checks.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub(crate) fn new(frame_nr: u32) -> Self {
        let frame = || Frame {
            turn: AtomicU32::new(0),
            status: AtomicU32::new(Status::Unused.word()),
            len: AtomicU32::new(0),
            message: UnsafeCell::new(0),
        };
        Self {
            frames: (0..frame_nr).map(|_| frame()).collect(),
            geometry: Geometry {
                frame_nr,
                room: ROOM,
            },
        }
    }

    fn frame(&self, frame: u32) -> &Frame {
        &self.frames[frame as usize]
    }

    fn status_word(&self, frame: u32) -> &AtomicU32 {
        let frame = self.frame(frame);
        frame.turn.fetch_add(1, Ordering::Relaxed);
        &frame.status
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) fn status(&self, frame: u32) -> Result<Status, FrameError> {
        let word = self.status_word(frame).load(Ordering::Acquire);
        Status::from_word(word).ok_or(FrameError::Status { frame, word })
    }

    pub(crate) fn set_status(&self, frame: u32, status: Status) {
        self.status_word(frame)
            .store(status.word(), Ordering::Release);
    }

    pub(crate) fn len(&self, frame: u32) -> u32 {
        self.frame(frame).len.load(Ordering::Relaxed)
    }

    pub(crate) fn set_len(&self, frame: u32, len: u32) {
        self.frame(frame).len.store(len, Ordering::Relaxed);
    }

    /// The message in a frame; loom objects if the other side is writing it.
    pub(crate) fn message(&self, frame: u32) -> u32 {
        // SAFETY: loom checks that nobody writes meanwhile.
        self.frame(frame)
            .message
            .with(|message| unsafe { *message })
    }

    /// Writes the message of a frame; loom objects if the other side is at it.
    pub(crate) fn set_message(&self, frame: u32, message: u32) {
        let cell = &self.frame(frame).message;
        // SAFETY: loom checks that nobody reads or writes meanwhile.
        cell.with_mut(|place| unsafe { *place = message });
    }
}
