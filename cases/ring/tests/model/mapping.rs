// SPDX-License-Identifier: MIT OR Apache-2.0
//! In place of the library's `mapping`: the same words, in memory that loom watches. A message is
//! one number, in a cell that two sides must not touch at once.

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU32, Ordering};

use crate::geometry::{Geometry, Place, ROOM};
use crate::{FrameError, Status};

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

/// A message in a frame that is the reader's.
#[derive(Debug)]
pub(crate) struct Held;

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
            geometry: Geometry::new(frame_nr),
        }
    }

    fn frame(&self, place: Place) -> &Frame {
        &self.frames[self.index(place) as usize]
    }

    fn status_word(&self, place: Place) -> &AtomicU32 {
        let frame = self.frame(place);
        frame.turn.fetch_add(1, Ordering::Relaxed);
        &frame.status
    }

    pub(crate) fn place(&self, index: u32) -> Place {
        self.geometry.place(index)
    }

    pub(crate) fn index(&self, place: Place) -> u32 {
        self.geometry.index(place)
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub(crate) fn status(&self, place: Place) -> Result<Status, FrameError> {
        let word = self.status_word(place).load(Ordering::Acquire);
        Status::from_word(word).ok_or(FrameError::Status {
            frame: self.index(place),
            word,
        })
    }

    pub(crate) fn set_status(&self, place: Place, status: Status) {
        self.status_word(place)
            .store(status.word(), Ordering::Release);
    }

    pub(crate) fn len(&self, place: Place) -> u32 {
        self.frame(place).len.load(Ordering::Relaxed)
    }

    pub(crate) fn set_len(&self, place: Place, len: u32) {
        self.frame(place).len.store(len, Ordering::Relaxed);
    }

    /// Whether there can be a message of this length: all of the model's have the same.
    #[allow(clippy::unused_self)] // it is the library's own
    pub(crate) fn hold(&self, _: Place, len: u32) -> Option<Held> {
        (len == ROOM).then_some(Held)
    }

    /// The message in a frame; loom objects if the other side is writing it.
    pub(crate) fn message(&self, place: Place) -> u32 {
        // SAFETY: loom checks that nobody writes meanwhile.
        self.frame(place)
            .message
            .with(|message| unsafe { *message })
    }

    /// Writes the message of a frame; loom objects if the other side is at it.
    pub(crate) fn set_message(&self, place: Place, message: u32) {
        let cell = &self.frame(place).message;
        // SAFETY: loom checks that nobody reads or writes meanwhile.
        cell.with_mut(|place| unsafe { *place = message });
    }
}
