// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reader's rules: which frame comes next.
//!
//! The reader's position is the oldest frame of which it does not know that the kernel has passed
//! it. Two things keep it from being a plain counter:
//!
//! - **`SKIP`.** The kernel passes a frame that we keep only in the same locked step in which it
//!   takes a later one. So a frame that was kept and given back, and reads `UNUSED`, may lie behind
//!   the kernel (it passed it as `SKIP`) or before it (it will take it). The first frame behind all
//!   such frames tells: if that was taken, the kernel has passed the others; whatever it took among
//!   them it took earlier, so it shows when they are read once more. A frame that it passed it does
//!   not take again before that first one was read, so what is found in one is always due.
//! - **`RESERVED`.** In allocation order a slow copy can stand before finished ones. The reader
//!   notes the frame, reads on, and looks at it first at every later visit. With
//!   `NL_MMAP_RING_ORDERED` it waits instead.

use crate::geometry::{Geometry, Place};
use crate::mapping::{Held, Mapping};
use crate::{FrameError, Status};

/// Frames that may be noted as `RESERVED` while later ones are read. The kernel fills one frame per
/// CPU and interrupt level at a time; beyond this many the reader waits for the oldest.
const PENDING: usize = 64;

/// What the ring has for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// A message in a frame. The frame is the caller's, who gives it back.
    Message {
        /// The frame.
        frame: Place,
        /// The message's length, in bytes: at most the frame's room.
        len: u32,
    },
    /// A message that waits in the queue. This turn comes again until [`Reader::settle`].
    Copy {
        /// The frame.
        frame: Place,
        /// The length that the frame announces, in bytes; nobody vouches for it.
        len: u32,
    },
    /// Nothing at the moment.
    Nothing,
}

/// Where we are in the ring, and what we remember of its frames.
#[derive(Debug)]
pub(crate) struct Reader {
    position: Place,
    /// Frames noted as `RESERVED`, oldest first; never more than there is room for from the start.
    pending: Vec<Place>,
    /// Frames seen as `SKIP` since the kernel last took them; a bit each.
    skipped: Vec<u64>,
    /// How many frames are noted in either.
    remembered: u32,
    ordered: bool,
}

impl Reader {
    pub(crate) fn new(geometry: &Geometry, ordered: bool) -> Self {
        Self {
            position: geometry.first(),
            pending: Vec::with_capacity(PENDING),
            skipped: vec![0; geometry.frame_nr().div_ceil(u64::BITS) as usize],
            remembered: 0,
            ordered,
        }
    }

    /// The next message, where there is nothing to remember and the next frame is `VALID`: the case
    /// of nearly every message, for which the rules above come to this.
    #[inline]
    pub(crate) fn plain_turn(&mut self, ring: &Mapping) -> Option<(Place, Held)> {
        let frame = self.position;
        if self.remembered != 0 || ring.status(frame) != Ok(Status::Valid) {
            return None;
        }
        let held = ring.hold(frame, ring.len(frame))?;
        ring.geometry().advance(&mut self.position);
        Some((frame, held))
    }

    /// The next message, if there is one. Costs no system call and no allocation.
    pub(crate) fn turn(&mut self, ring: &Mapping) -> Result<Turn, FrameError> {
        if let Some(turn) = self.turn_of_pending(ring)? {
            return Ok(turn);
        }
        // Empty messages and RESERVED frames take us on; a full round of them is enough.
        for _ in 0..ring.geometry().frame_nr() {
            let Some(status) = self.step_over_skipped(ring)? else {
                return Ok(Turn::Nothing);
            };
            let frame = self.position;
            // What was being filled a moment ago may be there by now, and came before this.
            if matches!(status, Status::Valid | Status::Copy)
                && let Some(turn) = self.turn_of_pending(ring)?
            {
                return Ok(turn);
            }
            match status {
                Status::Valid => {
                    ring.geometry().advance(&mut self.position);
                    self.forget_skip(ring.index(frame));
                    if let Some(turn) = message(ring, frame)? {
                        return Ok(turn);
                    }
                }
                Status::Copy => {
                    let len = ring.len(frame);
                    return Ok(Turn::Copy { frame, len });
                }
                Status::Reserved if !self.ordered && self.note_pending(frame) => {
                    ring.geometry().advance(&mut self.position);
                    self.forget_skip(ring.index(frame));
                }
                Status::Reserved | Status::Unused | Status::Skip => return Ok(Turn::Nothing),
            }
        }
        Ok(Turn::Nothing)
    }

    /// Gives a `COPY` frame back and goes on behind it.
    pub(crate) fn settle(&mut self, ring: &Mapping, frame: Place) {
        if frame == self.position {
            ring.geometry().advance(&mut self.position);
            self.forget_skip(ring.index(frame));
        } else {
            self.forget_pending(frame);
        }
        ring.set_status(frame, Status::Unused);
    }

    /// The caller is about to mark this frame `SKIP`.
    pub(crate) fn kept(&mut self, index: u32) {
        let (word, bit) = skip_bit(index);
        self.remembered += u32::from(self.skipped[word] & bit == 0);
        self.skipped[word] |= bit;
    }

    /// The frame at which the ring goes on.
    pub(crate) fn position(&self) -> Place {
        self.position
    }

    /// Frames met as `RESERVED`, oldest first. What the kernel once took it publishes, whatever the
    /// word says meanwhile, so a frame leaves the list as `VALID` only.
    fn turn_of_pending(&mut self, ring: &Mapping) -> Result<Option<Turn>, FrameError> {
        let mut slot = 0;
        while let Some(frame) = self.pending.get(slot).copied() {
            match ring.status(frame)? {
                Status::Valid => {
                    self.forget_pending(frame);
                    if let Some(turn) = message(ring, frame)? {
                        return Ok(Some(turn));
                    }
                }
                Status::Copy => {
                    let len = ring.len(frame);
                    return Ok(Some(Turn::Copy { frame, len }));
                }
                Status::Reserved | Status::Unused | Status::Skip => slot += 1,
            }
        }
        Ok(None)
    }

    /// Moves the position over the frames that the kernel has passed as `SKIP`, and tells the
    /// status of the frame where it came to stand; `None` if the kernel need not have gone further.
    fn step_over_skipped(&mut self, ring: &Mapping) -> Result<Option<Status>, FrameError> {
        let geometry = ring.geometry();
        let mut at = self.position;
        let mut stepped = 0;
        let mut status = loop {
            if stepped == geometry.frame_nr() || self.pending.first() == Some(&at) {
                return Ok(None); // once round: the kernel waits for us, not we for it
            }
            match ring.status(at)? {
                Status::Skip => self.kept(ring.index(at)),
                Status::Unused if self.was_skipped(ring.index(at)) => {}
                Status::Unused => return Ok(None),
                taken => break taken,
            }
            geometry.advance(&mut at);
            stepped += 1;
        };
        while self.position != at {
            match ring.status(self.position)? {
                // Not forgotten: the kernel may have looked at it before it was given back, and be
                // about to pass it once more.
                Status::Skip | Status::Unused => {}
                taken => {
                    status = taken;
                    break;
                }
            }
            geometry.advance(&mut self.position);
        }
        Ok(Some(status))
    }

    fn was_skipped(&self, index: u32) -> bool {
        let (word, bit) = skip_bit(index);
        self.skipped[word] & bit != 0
    }

    fn forget_skip(&mut self, index: u32) {
        let (word, bit) = skip_bit(index);
        self.remembered -= u32::from(self.skipped[word] & bit != 0);
        self.skipped[word] &= !bit;
    }

    /// Notes a frame that is being filled; false where there is no place left for that.
    fn note_pending(&mut self, frame: Place) -> bool {
        let noted = self.pending.len() < PENDING;
        if noted {
            self.pending.push(frame);
            self.remembered += 1;
        }
        noted
    }

    fn forget_pending(&mut self, frame: Place) {
        if let Some(slot) = self.pending.iter().position(|&noted| noted == frame) {
            self.pending.remove(slot);
            self.remembered -= 1;
        }
    }
}

/// Where a frame's bit is in [`Reader::skipped`].
fn skip_bit(index: u32) -> (usize, u64) {
    ((index / u64::BITS) as usize, 1 << (index % u64::BITS))
}

/// The message of a `VALID` frame, its length read once. One of length 0 came to nothing and is
/// given back at once, as is one that cannot be true.
fn message(ring: &Mapping, frame: Place) -> Result<Option<Turn>, FrameError> {
    let len = ring.len(frame);
    let room = ring.geometry().room();
    if (1..=room).contains(&len) {
        return Ok(Some(Turn::Message { frame, len }));
    }
    ring.set_status(frame, Status::Unused);
    if len == 0 {
        Ok(None)
    } else {
        Err(FrameError::Length {
            frame: ring.index(frame),
            len,
            room,
        })
    }
}
