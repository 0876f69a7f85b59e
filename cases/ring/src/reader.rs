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
//!   them it took earlier, so it shows when they are read once more.
//! - **`RESERVED`.** In allocation order a slow copy can stand before finished ones. The reader
//!   notes the frame, reads on, and looks at it first at every later visit. With
//!   `NL_MMAP_RING_ORDERED` it waits instead.
//!
//! One situation no word in the ring can tell from another: the kernel passes the frame where the
//! reader stands as `SKIP`, fills every other frame, and finds the first given back. Its message
//! is then read as the oldest, though it is the youngest, and the reader falls out of step with
//! the kernel. `poll` shows that (it says that there is something, and there is nothing to be
//! found), and [`Reader::find_step`] mends it.

use crate::mapping::Mapping;
use crate::{FrameError, Status};

/// Frames that may be noted as `RESERVED` while later ones are read. The kernel fills one frame per
/// CPU and interrupt level at a time; beyond this many the reader waits for the oldest.
const PENDING: usize = 64;

/// What the ring has for us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Turn {
    /// A message in a frame. The frame is the caller's, who gives it back.
    Message {
        /// The frame's number.
        frame: u32,
        /// The message's length, in bytes: at most the frame's room.
        len: u32,
    },
    /// A message that waits in the queue. This turn comes again until [`Reader::settle`].
    Copy {
        /// The frame's number.
        frame: u32,
        /// The length that the frame announces, in bytes; nobody vouches for it.
        len: u32,
    },
    /// Nothing at the moment.
    Nothing,
}

/// Where we are in the ring, and what we remember of its frames.
#[derive(Debug)]
pub(crate) struct Reader {
    position: u32,
    pending: Pending,
    /// Frames seen as `SKIP` since the kernel last took them; a bit each.
    skipped: Vec<u64>,
    ordered: bool,
}

impl Reader {
    pub(crate) fn new(frame_nr: u32, ordered: bool) -> Self {
        Self {
            position: 0,
            pending: Pending::default(),
            skipped: vec![0; frame_nr.div_ceil(u64::BITS) as usize],
            ordered,
        }
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
            match status {
                Status::Valid => {
                    self.position = ring.geometry().behind(frame);
                    self.forget_skip(frame);
                    if let Some(turn) = message(ring, frame)? {
                        return Ok(turn);
                    }
                }
                Status::Copy => {
                    let len = ring.len(frame);
                    return Ok(Turn::Copy { frame, len });
                }
                Status::Reserved if !self.ordered && self.pending.push(frame) => {
                    self.position = ring.geometry().behind(frame);
                    self.forget_skip(frame);
                }
                Status::Reserved | Status::Unused | Status::Skip => return Ok(Turn::Nothing),
            }
        }
        Ok(Turn::Nothing)
    }

    /// Gives a `COPY` frame back and goes on behind it.
    pub(crate) fn settle(&mut self, ring: &Mapping, frame: u32) {
        if frame == self.position {
            self.position = ring.geometry().behind(frame);
            self.forget_skip(frame);
        } else {
            self.pending.remove(frame);
        }
        ring.set_status(frame, Status::Unused);
    }

    /// Moves on to the first frame that is not free, if the reader does not stand there already.
    /// Looks at every frame, so it is for the one case in which the position is wrong.
    pub(crate) fn find_step(&mut self, ring: &Mapping) -> Result<(), FrameError> {
        let mut at = self.position;
        for _ in 0..ring.geometry().frame_nr() {
            if self.pending.get(0) == Some(at) {
                break;
            }
            if !matches!(ring.status(at)?, Status::Unused | Status::Skip) {
                self.position = at;
                break;
            }
            at = ring.geometry().behind(at);
        }
        Ok(())
    }

    /// The caller is about to mark this frame `SKIP`.
    pub(crate) fn kept(&mut self, frame: u32) {
        self.skipped[(frame / u64::BITS) as usize] |= 1 << (frame % u64::BITS);
    }

    /// The frame at which the ring goes on.
    pub(crate) fn position(&self) -> u32 {
        self.position
    }

    /// Frames met as `RESERVED`, oldest first. What the kernel once took it publishes, whatever the
    /// word says meanwhile, so a frame leaves the list as `VALID` only.
    fn turn_of_pending(&mut self, ring: &Mapping) -> Result<Option<Turn>, FrameError> {
        let mut slot = 0;
        while let Some(frame) = self.pending.get(slot) {
            match ring.status(frame)? {
                Status::Valid => {
                    self.pending.remove(frame);
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
            if stepped == geometry.frame_nr() || self.pending.get(0) == Some(at) {
                return Ok(None); // once round: the kernel waits for us, not we for it
            }
            match ring.status(at)? {
                Status::Skip => self.kept(at),
                Status::Unused if self.was_skipped(at) => {}
                Status::Unused => return Ok(None),
                taken => break taken,
            }
            at = geometry.behind(at);
            stepped += 1;
        };
        while self.position != at {
            match ring.status(self.position)? {
                Status::Skip => {}
                Status::Unused => self.forget_skip(self.position),
                taken => {
                    status = taken;
                    break;
                }
            }
            self.position = geometry.behind(self.position);
        }
        Ok(Some(status))
    }

    fn was_skipped(&self, frame: u32) -> bool {
        self.skipped[(frame / u64::BITS) as usize] & (1 << (frame % u64::BITS)) != 0
    }

    fn forget_skip(&mut self, frame: u32) {
        self.skipped[(frame / u64::BITS) as usize] &= !(1 << (frame % u64::BITS));
    }
}

/// The message of a `VALID` frame, its length read once. One of length 0 came to nothing and is
/// given back at once, as is one that cannot be true.
fn message(ring: &Mapping, frame: u32) -> Result<Option<Turn>, FrameError> {
    let len = ring.len(frame);
    let room = ring.geometry().room();
    if (1..=room).contains(&len) {
        return Ok(Some(Turn::Message { frame, len }));
    }
    ring.set_status(frame, Status::Unused);
    if len == 0 {
        Ok(None)
    } else {
        Err(FrameError::Length { frame, len, room })
    }
}

/// The frames noted as `RESERVED`, oldest first, without allocation.
#[derive(Debug)]
struct Pending {
    frames: [u32; PENDING],
    len: usize,
}

impl Default for Pending {
    fn default() -> Self {
        Self {
            frames: [0; PENDING],
            len: 0,
        }
    }
}

impl Pending {
    fn get(&self, slot: usize) -> Option<u32> {
        self.frames[..self.len].get(slot).copied()
    }

    /// False where there is no place left.
    fn push(&mut self, frame: u32) -> bool {
        let Some(place) = self.frames.get_mut(self.len) else {
            return false;
        };
        *place = frame;
        self.len += 1;
        true
    }

    fn remove(&mut self, frame: u32) {
        let kept = &mut self.frames[..self.len];
        if let Some(slot) = kept.iter().position(|&noted| noted == frame) {
            kept.copy_within(slot + 1.., slot);
            self.len -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Geometry;

    const FRAMES: u32 = 8;

    /// A ring of eight frames of 2 KiB, and the two sides of it.
    struct Bench {
        ring: Mapping,
        reader: Reader,
        /// The kernel's head.
        head: u32,
    }

    impl Bench {
        fn new(ordered: bool) -> Self {
            let geometry = Geometry::from_request(4096, 4, 2048, FRAMES).unwrap();
            Self {
                ring: Mapping::anonymous(geometry),
                reader: Reader::new(FRAMES, ordered),
                head: 0,
            }
        }

        /// The kernel's locked step: passes SKIP, takes the next UNUSED frame.
        fn take(&mut self) -> Option<u32> {
            let mut at = self.head;
            for _ in 0..FRAMES {
                match self.ring.status(at).unwrap() {
                    Status::Skip => at = self.ring.geometry().behind(at),
                    Status::Unused => {
                        self.ring.set_status(at, Status::Reserved);
                        self.head = self.ring.geometry().behind(at);
                        return Some(at);
                    }
                    _ => return None,
                }
            }
            None
        }

        /// Whether the next take goes over the reader's position or into the frames it stands at.
        fn would_lap(&self) -> bool {
            let mut at = self.head;
            for _ in 0..FRAMES {
                if at == self.reader.position() {
                    return true;
                }
                if self.ring.status(at) != Ok(Status::Skip) {
                    return false;
                }
                at = self.ring.geometry().behind(at);
            }
            true
        }

        fn publish(&self, frame: u32, message: &[u8]) {
            self.ring.fill(frame, message);
            self.ring.set_status(frame, Status::Valid);
        }

        fn send(&mut self, message: &[u8]) -> u32 {
            let frame = self.take().expect("a free frame");
            self.publish(frame, message);
            frame
        }

        fn turn(&mut self) -> Turn {
            self.reader.turn(&self.ring).expect("no broken frame")
        }

        /// Reads one message and leaves its frame to the caller.
        fn read(&mut self) -> Option<(u32, Vec<u8>)> {
            match self.turn() {
                Turn::Message { frame, len } => {
                    Some((frame, self.ring.message(frame, len).to_vec()))
                }
                Turn::Copy { .. } => panic!("no COPY here"),
                Turn::Nothing => None,
            }
        }

        /// Reads one message and gives its frame back.
        fn read_and_release(&mut self) -> Option<Vec<u8>> {
            let (frame, message) = self.read()?;
            self.ring.set_status(frame, Status::Unused);
            Some(message)
        }

        /// Reads one message and keeps its frame.
        fn read_and_keep(&mut self) -> u32 {
            let (frame, _) = self.read().expect("a message");
            self.reader.kept(frame);
            self.ring.set_status(frame, Status::Skip);
            frame
        }
    }

    #[test]
    fn messages_come_in_order_across_many_wraps() {
        let mut bench = Bench::new(true);
        let mut sent = 0_u32;
        let mut read = 0_u32;
        for burst in (1..=FRAMES).cycle().take(1000) {
            for _ in 0..burst {
                bench.send(&sent.to_ne_bytes());
                sent += 1;
            }
            while let Some(message) = bench.read_and_release() {
                assert_eq!(message, read.to_ne_bytes());
                read += 1;
            }
            assert_eq!(read, sent);
        }
    }

    #[test]
    fn a_full_ring_is_read_once_and_not_again_until_released() {
        let mut bench = Bench::new(false);
        for n in 0..FRAMES {
            bench.send(&[n as u8 + 1]);
        }
        assert_eq!(bench.take(), None);
        for n in 0..FRAMES {
            assert_eq!(bench.read_and_release(), Some(vec![n as u8 + 1]));
        }
        assert_eq!(bench.read(), None);
    }

    #[test]
    fn a_reserved_frame_is_read_past_and_come_back_to() {
        let mut bench = Bench::new(false);
        let slow = bench.take().unwrap();
        bench.send(b"second");
        let slower = bench.take().unwrap();
        bench.send(b"fourth");
        assert_eq!(bench.read_and_release().unwrap(), b"second");
        assert_eq!(bench.read_and_release().unwrap(), b"fourth");
        assert_eq!(bench.read(), None);
        bench.publish(slower, b"third");
        assert_eq!(bench.read_and_release().unwrap(), b"third");
        bench.send(b"fifth");
        bench.publish(slow, b"first");
        assert_eq!(bench.read_and_release().unwrap(), b"first");
        assert_eq!(bench.read_and_release().unwrap(), b"fifth");
        assert_eq!(bench.read(), None);
    }

    #[test]
    fn a_reserved_frame_is_not_read_past_where_order_was_asked_for() {
        let mut bench = Bench::new(true);
        let slow = bench.take().unwrap();
        bench.send(b"second");
        assert_eq!(bench.read(), None);
        bench.publish(slow, b"first");
        assert_eq!(bench.read_and_release().unwrap(), b"first");
        assert_eq!(bench.read_and_release().unwrap(), b"second");
    }

    #[test]
    fn the_reader_never_laps_a_reserved_frame() {
        let mut bench = Bench::new(false);
        let slow = bench.take().unwrap();
        for n in 1..FRAMES {
            bench.send(&[n as u8]);
            assert_eq!(bench.read_and_release().unwrap(), [n as u8]);
        }
        assert_eq!(
            bench.take(),
            None,
            "the kernel stands before the slow frame"
        );
        assert_eq!(bench.read(), None);
        bench.publish(slow, b"slow");
        assert_eq!(bench.read_and_release().unwrap(), b"slow");
        bench.send(b"next lap");
        assert_eq!(bench.read_and_release().unwrap(), b"next lap");
    }

    #[test]
    fn a_reservation_that_came_to_nothing_is_given_back_in_silence() {
        let mut bench = Bench::new(false);
        let nothing = bench.take().unwrap();
        bench.send(b"second");
        bench.publish(nothing, b"");
        assert_eq!(bench.read_and_release().unwrap(), b"second");
        assert_eq!(bench.ring.status(nothing), Ok(Status::Unused));
        let nothing = bench.take().unwrap();
        assert_eq!(bench.read(), None);
        bench.publish(nothing, b"");
        assert_eq!(bench.read(), None);
        assert_eq!(bench.ring.status(nothing), Ok(Status::Unused));
    }

    #[test]
    fn a_kept_frame_is_stepped_over_lap_after_lap() {
        let mut bench = Bench::new(true);
        bench.send(b"kept");
        let kept = bench.read_and_keep();
        for n in 0..5 * FRAMES {
            let frame = bench.send(&n.to_ne_bytes());
            assert_ne!(frame, kept);
            assert_eq!(bench.read_and_release().unwrap(), n.to_ne_bytes());
        }
    }

    #[test]
    fn a_frame_released_before_the_kernel_came_by_is_used_again() {
        let mut bench = Bench::new(true);
        bench.send(b"kept");
        let kept = bench.read_and_keep();
        for n in 1..FRAMES {
            bench.send(&[n as u8]);
            bench.read_and_release().unwrap();
        }
        bench.ring.set_status(kept, Status::Unused);
        assert_eq!(bench.read(), None);
        assert_eq!(bench.send(b"again"), kept);
        assert_eq!(bench.read_and_release().unwrap(), b"again");
        bench.send(b"on");
        assert_eq!(bench.read_and_release().unwrap(), b"on");
    }

    #[test]
    fn a_frame_released_after_the_kernel_passed_it_does_not_hold_the_reader() {
        let mut bench = Bench::new(true);
        bench.send(b"a");
        bench.send(b"b");
        let kept = [bench.read_and_keep(), bench.read_and_keep()];
        for n in 2..FRAMES {
            bench.send(&[n as u8]);
            bench.read_and_release().unwrap();
        }
        assert_eq!(bench.send(b"over both"), 2);
        bench.ring.set_status(kept[0], Status::Unused);
        bench.ring.set_status(kept[1], Status::Unused);
        assert_eq!(bench.read_and_release().unwrap(), b"over both");
        for n in 3..FRAMES {
            assert_eq!(bench.send(&[n as u8]), n);
            bench.read_and_release().unwrap();
        }
        assert_eq!(bench.send(b"next lap"), kept[0]);
        assert_eq!(bench.read_and_release().unwrap(), b"next lap");
    }

    #[test]
    fn of_two_released_frames_the_one_that_was_taken_comes_first() {
        let mut bench = Bench::new(true);
        bench.send(b"a");
        bench.send(b"b");
        let kept = [bench.read_and_keep(), bench.read_and_keep()];
        for n in 2..FRAMES {
            bench.send(&[n as u8]);
            bench.read_and_release().unwrap();
        }
        bench.ring.set_status(kept[1], Status::Unused);
        assert_eq!(bench.send(b"first"), kept[1]);
        bench.ring.set_status(kept[0], Status::Unused);
        assert_eq!(bench.send(b"second"), 2);
        assert_eq!(bench.read_and_release().unwrap(), b"first");
        assert_eq!(bench.read_and_release().unwrap(), b"second");
    }

    #[test]
    fn a_copy_frame_stands_until_it_is_settled() {
        let mut bench = Bench::new(true);
        let frame = bench.take().unwrap();
        bench
            .ring
            .word(frame, crate::abi::LEN)
            .store(9000, std::sync::atomic::Ordering::Relaxed);
        bench.ring.set_status(frame, Status::Copy);
        bench.send(b"behind");
        let copy = Turn::Copy { frame, len: 9000 };
        assert_eq!(bench.turn(), copy);
        assert_eq!(bench.turn(), copy);
        bench.reader.settle(&bench.ring, frame);
        assert_eq!(bench.ring.status(frame), Ok(Status::Unused));
        assert_eq!(bench.read_and_release().unwrap(), b"behind");
    }

    #[test]
    fn a_length_beyond_the_frame_is_an_error_and_never_read() {
        let mut bench = Bench::new(true);
        for len in [2048 - 24 + 1, 4096, u32::MAX] {
            let frame = bench.send(b"x");
            bench
                .ring
                .word(frame, crate::abi::LEN)
                .store(len, std::sync::atomic::Ordering::Relaxed);
            let room = 2048 - 24;
            assert_eq!(
                bench.reader.turn(&bench.ring),
                Err(FrameError::Length { frame, len, room })
            );
        }
        bench.send(b"sound");
        assert_eq!(bench.read_and_release().unwrap(), b"sound");
    }

    #[test]
    fn a_status_without_meaning_is_an_error_until_it_has_one() {
        let mut bench = Bench::new(true);
        let frame = bench.take().unwrap();
        let word = 0xdead;
        bench
            .ring
            .word(frame, crate::abi::STATUS)
            .store(word, std::sync::atomic::Ordering::Relaxed);
        for _ in 0..2 {
            assert_eq!(
                bench.reader.turn(&bench.ring),
                Err(FrameError::Status { frame, word })
            );
        }
        bench.publish(frame, b"sound");
        assert_eq!(bench.read_and_release().unwrap(), b"sound");
    }

    #[test]
    fn a_reserved_frame_that_is_scribbled_unused_is_still_waited_for() {
        let mut bench = Bench::new(false);
        let slow = bench.take().unwrap();
        bench.send(b"second");
        assert_eq!(bench.read_and_release().unwrap(), b"second");
        bench.ring.set_status(slow, Status::Unused);
        assert_eq!(bench.read(), None);
        bench.publish(slow, b"first");
        assert_eq!(bench.read_and_release().unwrap(), b"first");
    }

    #[test]
    fn more_reserved_frames_than_can_be_noted_hold_the_reader() {
        let geometry = Geometry::from_request(4096, 128, 4096, 128).unwrap();
        let ring = Mapping::anonymous(geometry);
        let mut reader = Reader::new(128, false);
        for frame in 0..100 {
            ring.set_status(frame, Status::Reserved);
        }
        ring.fill(100, b"behind");
        ring.set_status(100, Status::Valid);
        assert_eq!(reader.turn(&ring), Ok(Turn::Nothing));
        for frame in 0..100 {
            ring.set_status(frame, Status::Unused);
            ring.fill(frame, b"was slow");
            ring.set_status(frame, Status::Valid);
        }
        for frame in 0..=100 {
            let Ok(Turn::Message { frame: got, .. }) = reader.turn(&ring) else {
                panic!("frame {frame} is there");
            };
            assert_eq!(got, frame);
            ring.set_status(got, Status::Unused);
        }
    }

    /// Both sides take random steps, frames are kept and given back. What came, in its order.
    fn random_steps(seed: u64, may_lap: MayLap) -> Vec<u32> {
        let mut bench = Bench::new(true);
        let mut random = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let mut kept = Vec::new();
        let mut sent = 0_u32;
        let mut read = Vec::new();
        for _ in 0..5000 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            match random % 8 {
                0..=2 => {
                    let unread = sent - read.len() as u32;
                    if may_lap == MayLap::No && unread > 0 && bench.would_lap() {
                        continue;
                    }
                    if let Some(frame) = bench.take() {
                        bench.publish(frame, &sent.to_ne_bytes());
                        sent += 1;
                    }
                }
                3 if !kept.is_empty() => {
                    let one = kept.swap_remove((random >> 32) as usize % kept.len());
                    bench.ring.set_status(one, Status::Unused);
                }
                step => {
                    let Some((frame, message)) = bench.read() else {
                        if may_lap == MayLap::No {
                            assert_eq!(read.len() as u32, sent, "seed {seed}: one is not seen");
                        }
                        bench.reader.find_step(&bench.ring).unwrap();
                        continue;
                    };
                    read.push(u32::from_ne_bytes(message.try_into().unwrap()));
                    if step == 4 {
                        bench.reader.kept(frame);
                        bench.ring.set_status(frame, Status::Skip);
                        kept.push(frame);
                    } else {
                        bench.ring.set_status(frame, Status::Unused);
                    }
                }
            }
        }
        for _ in 0..2 {
            while let Some(message) = bench.read_and_release() {
                read.push(u32::from_ne_bytes(message.try_into().unwrap()));
            }
            bench.reader.find_step(&bench.ring).unwrap();
        }
        assert!(sent > 100);
        assert_eq!(read.len() as u32, sent, "seed {seed}");
        read
    }

    /// Whether the kernel may fill the ring right round to the frame where the reader stands.
    #[derive(Clone, Copy, PartialEq, Eq)]
    enum MayLap {
        No,
        Yes,
    }

    #[test]
    fn order_holds_while_frames_are_kept_and_released_at_random() {
        for seed in 1..=50 {
            let read = random_steps(seed, MayLap::No);
            assert!(read.is_sorted(), "seed {seed}");
        }
    }

    /// The kernel passes frame 5 as `SKIP`, fills all the others unread, and then finds 5 given
    /// back: no word in the ring tells that message from one that came first. Its place can be
    /// wrong; it comes, and comes once.
    #[test]
    fn nothing_is_lost_or_doubled_though_the_kernel_laps_a_released_frame() {
        for seed in 1..=50 {
            let mut read = random_steps(seed, MayLap::Yes);
            read.sort_unstable();
            assert!(read.iter().copied().eq(0..read.len() as u32), "seed {seed}");
        }
    }
}
