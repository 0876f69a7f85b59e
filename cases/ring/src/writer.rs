// SPDX-License-Identifier: MIT OR Apache-2.0
//! The writer's rules: which frame is filled next, and which is the next to go.
//!
//! Frames are filled in ring order and sent in ring order, and what was sent reads `UNUSED`. So
//! there is one run of frames that may wait, and it ends where the next one is filled.

use crate::geometry::{Geometry, Place};
use crate::mapping::Mapping;
use crate::{FrameError, Status};

/// Where we are in a TX ring.
#[derive(Debug)]
pub(crate) struct Writer {
    /// The frame that is filled next.
    position: Place,
    /// Frames before that which may wait to be sent; those before them do not.
    waiting: u32,
}

impl Writer {
    pub(crate) fn new(geometry: &Geometry) -> Self {
        Self {
            position: geometry.first(),
            waiting: 0,
        }
    }

    /// The frame that is filled next, if it is free.
    pub(crate) fn free(&self, ring: &Mapping) -> Result<Option<Place>, FrameError> {
        let free = ring.status(self.position)? == Status::Unused;
        Ok(free.then_some(self.position))
    }

    /// The message in that frame, of `len` bytes, is whole and waits to be sent.
    pub(crate) fn submit(&mut self, ring: &Mapping, len: u32) {
        ring.set_len(self.position, len);
        ring.set_status(self.position, Status::Valid);
        ring.geometry().advance(&mut self.position);
        // What was sent since is not looked at before it has to be, so a round is the most.
        self.waiting = (self.waiting + 1).min(ring.geometry().frame_nr());
    }

    /// The frames that wait to be sent: the first, and how many at most. Those behind the first that
    /// is not `VALID` do not.
    pub(crate) fn unsent(&mut self, ring: &Mapping) -> Result<(Place, u32), FrameError> {
        loop {
            let position = ring.index(self.position);
            let frame = ring.place(match position.checked_sub(self.waiting) {
                Some(frame) => frame,
                None => position + (ring.geometry().frame_nr() - self.waiting),
            });
            if self.waiting == 0 || ring.status(frame)? == Status::Valid {
                return Ok((frame, self.waiting));
            }
            self.waiting -= 1;
        }
    }

    /// Gives up the first frame that waits, which becomes `to`; false if none does.
    pub(crate) fn take_back(&mut self, ring: &Mapping, to: Status) -> Result<bool, FrameError> {
        let (frame, waiting) = self.unsent(ring)?;
        if waiting > 0 {
            ring.set_status(frame, to);
        }
        Ok(waiting > 0)
    }
}
