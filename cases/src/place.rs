// SPDX-License-Identifier: MIT OR Apache-2.0
//! In which order the frames of a ring were filled.

/// The packet id of every frame, numbered through from the first lap on.
#[derive(Debug)]
pub(crate) struct Places {
    frames: u32,
    /// The highest place seen, and one more.
    end: usize,
    ids: Vec<Option<u32>>,
}

impl Places {
    /// Of a ring with this many frames.
    pub(crate) fn new(frames: u32) -> Self {
        Self {
            frames,
            end: 0,
            ids: Vec::new(),
        }
    }

    /// Books a packet. The reader comes back to a frame within the lap, so of the places that the
    /// frame's number can mean, the one nearest to the end is meant. A pair of neighbouring ids
    /// that stand the wrong way round is the result, if this packet makes one.
    pub(crate) fn book(&mut self, frame: u32, id: u32) -> Option<(u32, u32)> {
        let lap = self.frames as usize;
        let ahead = (frame as usize + lap - self.end % lap) % lap;
        let place = if ahead <= lap / 2 || self.end + ahead < lap {
            self.end + ahead
        } else {
            self.end + ahead - lap
        };
        self.end = self.end.max(place + 1);
        if self.ids.len() < self.end {
            self.ids.resize(self.end, None);
        }
        self.ids[place] = Some(id);
        let before = place.checked_sub(1).and_then(|place| self.ids[place]);
        let behind = self.ids.get(place + 1).copied().flatten();
        match (before, behind) {
            (Some(before), _) if before > id => Some((before, id)),
            (_, Some(behind)) if behind < id => Some((id, behind)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_order_give_no_pair_over_many_laps() {
        let mut places = Places::new(8);
        for id in 0..100 {
            assert_eq!(places.book(id % 8, id), None);
        }
    }

    #[test]
    fn a_frame_that_is_come_back_to_stands_before_the_ones_behind_it() {
        let mut places = Places::new(8);
        for id in 0..6 {
            places.book(id, id);
        }
        // Frame 6 is being filled meanwhile with what becomes packet 8.
        assert_eq!(places.book(7, 6), None);
        assert_eq!(places.book(0, 7), None);
        assert_eq!(places.book(6, 8), Some((8, 6)));
        assert_eq!(places.book(1, 9), None);
    }
}
