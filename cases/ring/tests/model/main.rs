// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ownership protocol under loom: the library's reader and writer as they are, against a kernel
//! that does what the contract says, in every order in which their steps can meet, and with every
//! value that a load may see.

mod geometry;
mod mapping;
#[allow(dead_code)] // what `inbox` and `sender` need beside
#[path = "../../src/reader.rs"]
mod reader;
#[allow(dead_code)]
#[path = "../../src/writer.rs"]
mod writer;

use loom::model::Builder;
use loom::sync::{Arc, Mutex};
use loom::thread;
use nlring::{FrameError, Status};

use geometry::{Place, ROOM};
use mapping::{Held, Mapping};
use reader::{Reader, Turn};
use writer::Writer;

/// Times that a thread is interrupted where it need not be: seconds, and three times take minutes.
/// `LOOM_MAX_PREEMPTIONS` sets another bound.
const INTERRUPTIONS: usize = 2;

/// Runs the scene in every order.
fn explore(scene: impl Fn() + Sync + Send + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(INTERRUPTIONS));
    builder.check(scene);
}

/// The kernel's side of an RX ring: its own record, under its lock.
struct Kernel {
    ring: Arc<Mapping>,
    record: Mutex<Record>,
}

struct Record {
    head: Place,
    /// Frames that it is filling.
    held: Vec<bool>,
    /// Frames that were kept when their turn was last.
    passed: Vec<bool>,
}

impl Kernel {
    fn new(ring: &Arc<Mapping>) -> Self {
        let frames = ring.geometry().frame_nr() as usize;
        let record = Record {
            head: ring.geometry().first(),
            held: vec![false; frames],
            passed: vec![false; frames],
        };
        Self {
            ring: Arc::clone(ring),
            record: Mutex::new(record),
        }
    }

    /// Takes the frame whose turn it is; `None` if the ring is full.
    fn take(&self, record: &mut Record) -> Option<Place> {
        let behind = |mut frame| {
            self.ring.geometry().advance(&mut frame);
            frame
        };
        let status = |frame| self.ring.status(frame).expect("a status");
        let mut frame = record.head;
        for _ in 0..self.ring.geometry().frame_nr() {
            if record.held[self.ring.index(frame) as usize] {
                return None;
            }
            match status(frame) {
                Status::Unused => break,
                Status::Skip => frame = behind(frame),
                _ => return None,
            }
        }
        let mut first = frame;
        while record.passed[self.ring.index(first) as usize] {
            first = behind(first);
        }
        let read = matches!(status(first), Status::Unused | Status::Skip);
        if status(frame) != Status::Unused || record.held[self.ring.index(first) as usize] || !read
        {
            return None;
        }
        while record.head != frame {
            record.passed[self.ring.index(record.head) as usize] = true;
            record.head = behind(record.head);
        }
        record.passed[self.ring.index(frame) as usize] = false;
        record.held[self.ring.index(frame) as usize] = true;
        record.head = behind(frame);
        self.ring.set_status(frame, Status::Reserved);
        Some(frame)
    }

    fn publish(&self, record: &mut Record, frame: Place) {
        record.held[self.ring.index(frame) as usize] = false;
        self.ring.set_len(frame, ROOM);
        self.ring.set_status(frame, Status::Valid);
    }

    /// Delivers in one locked step, as with `NL_MMAP_RING_ORDERED`.
    fn deliver(&self, message: u32) -> bool {
        let mut record = self.record.lock().unwrap();
        let Some(frame) = self.take(&mut record) else {
            return false;
        };
        self.ring.set_message(frame, message);
        self.publish(&mut record, frame);
        true
    }

    /// Delivers these, and tells which found room.
    fn deliver_all(&self, messages: std::ops::RangeInclusive<u32>) -> Vec<u32> {
        messages.filter(|&message| self.deliver(message)).collect()
    }

    /// Takes the frame in one locked step, copies under no lock, and publishes in another.
    fn deliver_early(&self, message: u32) -> bool {
        let Some(frame) = self.take(&mut self.record.lock().unwrap()) else {
            return false;
        };
        self.ring.set_message(frame, message);
        self.publish(&mut self.record.lock().unwrap(), frame);
        true
    }
}

fn ring(frames: u32) -> Arc<Mapping> {
    Arc::new(Mapping::new(frames))
}

/// What the reader finds now, if there is something: the frame and what is in it.
fn read(reader: &mut Reader, ring: &Mapping) -> Option<(Place, u32)> {
    if let Some((frame, Held)) = reader.plain_turn(ring) {
        return Some((frame, ring.message(frame)));
    }
    match reader.turn(ring).expect("no broken frame") {
        Turn::Message { frame, len } => {
            assert_eq!(len, ROOM);
            Some((frame, ring.message(frame)))
        }
        Turn::Copy { .. } => panic!("no COPY here"),
        Turn::Nothing => None,
    }
}

/// Looks so many times for a message, and gives the frame of each back.
fn look(reader: &mut Reader, ring: &Mapping, times: usize, came: &mut Vec<u32>) {
    for _ in 0..times {
        if let Some((frame, message)) = read(reader, ring) {
            came.push(message);
            ring.set_status(frame, Status::Unused);
        }
    }
}

/// Reads all that is left when the kernel has stopped.
fn read_on(reader: &mut Reader, ring: &Mapping, came: &mut Vec<u32>) {
    while let Some((frame, message)) = read(reader, ring) {
        came.push(message);
        ring.set_status(frame, Status::Unused);
    }
}

#[test]
fn ordered_messages_come_whole_and_in_order_or_are_refused() {
    explore(|| {
        let ring = ring(2);
        let kernel = Kernel::new(&ring);
        let sender = thread::spawn(move || kernel.deliver_all(1..=4));
        let mut reader = Reader::new(ring.geometry(), true);
        let mut came = Vec::new();
        look(&mut reader, &ring, 3, &mut came);
        let sent = sender.join().unwrap();
        read_on(&mut reader, &ring, &mut came);
        assert_eq!(came, sent);
    });
}

/// The reader's rule for kept frames: two are kept, by one thread, and given back by another, while
/// the kernel goes round.
#[test]
fn kept_frames_disturb_no_order() {
    explore(|| {
        let ring = ring(3);
        let kernel = Kernel::new(&ring);
        assert!(kernel.deliver(1) && kernel.deliver(2));
        let mut reader = Reader::new(ring.geometry(), true);
        let mut came = Vec::new();
        for _ in 0..2 {
            let (frame, message) = read(&mut reader, &ring).expect("it was delivered");
            came.push(message);
            reader.kept(ring.index(frame));
            ring.set_status(frame, Status::Skip);
        }
        let sender = thread::spawn(move || kernel.deliver_all(3..=6));
        let releaser = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                for frame in [1, 0].map(|index| ring.place(index)) {
                    assert!(ring.message(frame) <= 2, "a kept message changed");
                    ring.set_status(frame, Status::Unused);
                }
            })
        };
        look(&mut reader, &ring, 2, &mut came);
        let mut sent = vec![1, 2];
        sent.extend(sender.join().unwrap());
        releaser.join().unwrap();
        read_on(&mut reader, &ring, &mut came);
        assert_eq!(came, sent);
    });
}

/// In allocation order two senders fill frames at once, and each message comes once.
#[test]
fn frames_filled_at_once_are_each_read_once() {
    explore(|| {
        let ring = ring(2);
        let kernel = Arc::new(Kernel::new(&ring));
        let senders = [1, 2].map(|message| {
            let kernel = Arc::clone(&kernel);
            thread::spawn(move || kernel.deliver_early(message))
        });
        let mut reader = Reader::new(ring.geometry(), false);
        let mut came = Vec::new();
        look(&mut reader, &ring, 2, &mut came);
        for sender in senders {
            assert!(sender.join().unwrap(), "there is room for two");
        }
        read_on(&mut reader, &ring, &mut came);
        came.sort_unstable();
        assert_eq!(came, [1, 2]);
    });
}

/// A TX ring that one thread fills while another has the kernel flush it.
#[test]
fn what_is_submitted_is_sent_once_and_in_order() {
    explore(|| {
        let ring = ring(2);
        let kernel = {
            let ring = Arc::clone(&ring);
            thread::spawn(move || {
                let (mut head, mut sent) = (ring.geometry().first(), Vec::new());
                for _ in 0..3 {
                    if ring.status(head) == Ok(Status::Valid) {
                        assert_eq!(ring.len(head), ROOM);
                        sent.push(ring.message(head));
                        ring.set_status(head, Status::Unused);
                        ring.geometry().advance(&mut head);
                    }
                }
                (head, sent)
            })
        };
        let mut writer = Writer::new(ring.geometry());
        let mut submitted = Vec::new();
        for message in 1..=3 {
            if let Some(frame) = writer.free(&ring).unwrap() {
                ring.set_message(frame, message);
                writer.submit(&ring, ROOM);
                submitted.push(message);
            }
        }
        let (mut head, mut sent) = kernel.join().unwrap();
        let (first, _) = writer.unsent(&ring).unwrap();
        assert_eq!(first, head, "writer and kernel agree on what is next");
        while ring.status(head) == Ok(Status::Valid) {
            sent.push(ring.message(head));
            ring.set_status(head, Status::Unused);
            ring.geometry().advance(&mut head);
        }
        assert_eq!(sent, submitted);
    });
}
