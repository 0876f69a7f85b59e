// SPDX-License-Identifier: MIT OR Apache-2.0
//! In place of the library's `geometry`: a ring's shape, as far as it matters here.

/// Bytes that fit a frame of the model.
pub(crate) const ROOM: u32 = 4;

/// The shape.
#[derive(Debug)]
pub(crate) struct Geometry {
    frame_nr: u32,
}

/// A frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place(u32);

#[allow(clippy::unused_self)] // they are the library's own
impl Geometry {
    pub(crate) fn new(frame_nr: u32) -> Self {
        Self { frame_nr }
    }

    pub(crate) fn frame_nr(&self) -> u32 {
        self.frame_nr
    }

    pub(crate) fn room(&self) -> u32 {
        ROOM
    }

    pub(crate) fn first(&self) -> Place {
        Place(0)
    }

    pub(crate) fn place(&self, index: u32) -> Place {
        assert!(index < self.frame_nr);
        Place(index)
    }

    pub(crate) fn index(&self, place: Place) -> u32 {
        place.0
    }

    pub(crate) fn advance(&self, place: &mut Place) {
        place.0 = (place.0 + 1) % self.frame_nr;
    }
}
