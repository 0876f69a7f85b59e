// SPDX-License-Identifier: MIT OR Apache-2.0
//! The reader's rules against a kernel whose steps the test takes.

use crate::mapping::Mapping;
use crate::reader::{Reader, Turn};
use crate::{FrameError, Geometry, Status};

const FRAMES: u32 = 8;

/// A ring of eight frames of 2 KiB, and the two sides of it.
struct Bench {
    ring: Mapping,
    reader: Reader,
    /// The kernel's head.
    head: u32,
    /// Frames that the kernel passed as SKIP when their turn was last.
    passed: [bool; FRAMES as usize],
}

impl Bench {
    fn new(ordered: bool) -> Self {
        let geometry = Geometry::from_request(4096, 4, 2048, FRAMES).unwrap();
        Self {
            ring: Mapping::anonymous(geometry).unwrap(),
            reader: Reader::new(&geometry, ordered),
            head: 0,
            passed: [false; FRAMES as usize],
        }
    }

    fn behind(frame: u32) -> u32 {
        (frame + 1) % FRAMES
    }

    /// The kernel's locked step: passes SKIP, takes the next UNUSED frame if it is due.
    fn take(&mut self) -> Option<u32> {
        let mut at = self.head;
        for _ in 0..FRAMES {
            match self.ring.status(self.ring.place(at)).unwrap() {
                Status::Skip => at = Self::behind(at),
                Status::Unused if self.is_due(at) => {
                    while self.head != at {
                        self.passed[self.head as usize] = true;
                        self.head = Self::behind(self.head);
                    }
                    self.passed[at as usize] = false;
                    self.ring.set_status(self.ring.place(at), Status::Reserved);
                    self.head = Self::behind(at);
                    return Some(at);
                }
                _ => return None,
            }
        }
        None
    }

    /// A frame that was passed is due when what was taken in its place was read.
    fn is_due(&self, frame: u32) -> bool {
        let mut at = frame;
        while self.passed[at as usize] {
            at = Self::behind(at);
        }
        at == frame
            || matches!(
                self.ring.status(self.ring.place(at)).unwrap(),
                Status::Unused | Status::Skip
            )
    }

    fn publish(&self, frame: u32, message: &[u8]) {
        self.ring.fill(self.ring.place(frame), message);
        self.ring.set_status(self.ring.place(frame), Status::Valid);
    }

    fn send(&mut self, message: &[u8]) -> u32 {
        let frame = self.take().expect("a free frame");
        self.publish(frame, message);
        frame
    }

    /// As the receiver asks: first whether it is as simple as that.
    fn turn(&mut self) -> Turn {
        if let Some((frame, held)) = self.reader.plain_turn(&self.ring) {
            let len = held.message().len() as u32;
            return Turn::Message { frame, len };
        }
        self.reader.turn(&self.ring).expect("no broken frame")
    }

    /// Reads one message and leaves its frame to the caller.
    fn read(&mut self) -> Option<(u32, Vec<u8>)> {
        match self.turn() {
            Turn::Message { frame, len } => {
                let message = self.ring.message(frame, len).to_vec();
                Some((self.ring.index(frame), message))
            }
            Turn::Copy { .. } => panic!("no COPY here"),
            Turn::Nothing => None,
        }
    }

    /// Reads one message and gives its frame back.
    fn read_and_release(&mut self) -> Option<Vec<u8>> {
        let (frame, message) = self.read()?;
        self.ring.set_status(self.ring.place(frame), Status::Unused);
        Some(message)
    }

    /// Reads one message and keeps its frame.
    fn read_and_keep(&mut self) -> u32 {
        let (frame, _) = self.read().expect("a message");
        self.reader.kept(frame);
        self.ring.set_status(self.ring.place(frame), Status::Skip);
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
    assert_eq!(
        bench.ring.status(bench.ring.place(nothing)),
        Ok(Status::Unused)
    );
    let nothing = bench.take().unwrap();
    assert_eq!(bench.read(), None);
    bench.publish(nothing, b"");
    assert_eq!(bench.read(), None);
    assert_eq!(
        bench.ring.status(bench.ring.place(nothing)),
        Ok(Status::Unused)
    );
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
    bench
        .ring
        .set_status(bench.ring.place(kept), Status::Unused);
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
    bench
        .ring
        .set_status(bench.ring.place(kept[0]), Status::Unused);
    bench
        .ring
        .set_status(bench.ring.place(kept[1]), Status::Unused);
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
    bench
        .ring
        .set_status(bench.ring.place(kept[1]), Status::Unused);
    assert_eq!(bench.send(b"first"), kept[1]);
    bench
        .ring
        .set_status(bench.ring.place(kept[0]), Status::Unused);
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
        .word(bench.ring.place(frame), crate::abi::LEN)
        .store(9000, std::sync::atomic::Ordering::Relaxed);
    bench.ring.set_status(bench.ring.place(frame), Status::Copy);
    bench.send(b"behind");
    let frame = bench.ring.place(frame);
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
            .word(bench.ring.place(frame), crate::abi::LEN)
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
        .word(bench.ring.place(frame), crate::abi::STATUS)
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
    bench
        .ring
        .set_status(bench.ring.place(slow), Status::Unused);
    assert_eq!(bench.read(), None);
    bench.publish(slow, b"first");
    assert_eq!(bench.read_and_release().unwrap(), b"first");
}

#[test]
fn more_reserved_frames_than_can_be_noted_hold_the_reader() {
    let geometry = Geometry::from_request(4096, 128, 4096, 128).unwrap();
    let ring = Mapping::anonymous(geometry).unwrap();
    let mut reader = Reader::new(&geometry, false);
    for frame in 0..100 {
        ring.set_status(ring.place(frame), Status::Reserved);
    }
    ring.fill(ring.place(100), b"behind");
    ring.set_status(ring.place(100), Status::Valid);
    assert_eq!(reader.turn(&ring), Ok(Turn::Nothing));
    for frame in 0..100 {
        ring.set_status(ring.place(frame), Status::Unused);
        ring.fill(ring.place(frame), b"was slow");
        ring.set_status(ring.place(frame), Status::Valid);
    }
    for frame in 0..=100 {
        let Ok(Turn::Message { frame: got, .. }) = reader.turn(&ring) else {
            panic!("frame {frame} is there");
        };
        assert_eq!(ring.index(got), frame);
        ring.set_status(got, Status::Unused);
    }
}

/// Both sides take random steps, frames are kept and given back.
#[test]
fn order_holds_while_frames_are_kept_and_released_at_random() {
    for seed in 1..=200 {
        let mut bench = Bench::new(true);
        let mut random = fastrand::Rng::with_seed(seed);
        let mut kept = Vec::new();
        let (mut sent, mut read) = (0_u32, 0_u32);
        // Some sides are quick, so that there are full rings and empty ones.
        let pace = random.u32(1..=4);
        for _ in 0..5000 {
            match random.u32(0..5 + pace) {
                0 | 1 => {
                    if let Some(frame) = bench.take() {
                        bench.publish(frame, &sent.to_ne_bytes());
                        sent += 1;
                    }
                }
                2 if !kept.is_empty() => {
                    let one = kept.swap_remove(random.usize(..kept.len()));
                    bench.ring.set_status(bench.ring.place(one), Status::Unused);
                }
                step => {
                    let Some((frame, message)) = bench.read() else {
                        assert_eq!(read, sent, "seed {seed}: one is not seen");
                        continue;
                    };
                    assert_eq!(message, read.to_ne_bytes(), "seed {seed}");
                    read += 1;
                    if step == 3 {
                        bench.reader.kept(frame);
                        bench.ring.set_status(bench.ring.place(frame), Status::Skip);
                        kept.push(frame);
                    } else {
                        bench
                            .ring
                            .set_status(bench.ring.place(frame), Status::Unused);
                    }
                }
            }
        }
        assert!(sent > 100, "seed {seed}: {sent} sent");
    }
}
