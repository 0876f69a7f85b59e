// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ring and queue as one stream, each message in its place.
//!
//! A `COPY` frame marks the place of a message that waits in the queue. Messages can also wait
//! there without any frame: notifications of message queues, what came before the ring. So what the
//! queue gives is a frame's message only if it has the length that the frame announces; otherwise
//! it stood before it, without a frame, and the `COPY` frame stands until its own message comes.
//!
//! With the ring empty, the queue is looked at once `poll` has said that there is something. The
//! kernel queues a message an instant before it publishes its `COPY` frame, so a message can come
//! out of the queue whose frame is not yet seen, and so can frames that stand before it. Therefore
//! the ring is read once more before such a message is handed on, and a `COPY` frame that
//! afterwards appears at that very place, announcing that length, is taken as its own.

use crate::Error;
use crate::geometry::Place;
use crate::mapping::Mapping;
use crate::queue::{Buffer, Queue, Taken};
use crate::reader::{Reader, Turn};

/// What came in, as numbers; the bytes lie in the ring or in the buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arrival {
    /// A message in a frame, which is the caller's.
    Frame {
        /// The frame.
        frame: Place,
        /// The message's length, in bytes.
        len: u32,
    },
    /// A message in the buffer.
    Copied {
        /// Its length, in bytes.
        len: usize,
        /// The `COPY` frame that marked its place, by now given back.
        frame: Option<u32>,
    },
    /// Messages were dropped.
    Lost,
}

/// The state between two arrivals.
#[derive(Debug)]
pub(crate) struct Inbox {
    /// `poll` has said that the queue or an error waits.
    look_in_queue: bool,
    /// Length of a message in the buffer that was taken from the queue and not yet handed on.
    stash: Option<usize>,
    /// A message of this length was handed on with the ring empty at this frame.
    early: Option<(Place, usize)>,
}

impl Inbox {
    /// The queue may hold messages from before the ring.
    pub(crate) fn new() -> Self {
        Self {
            look_in_queue: true,
            stash: None,
            early: None,
        }
    }

    /// `poll` has something to tell.
    pub(crate) fn expect_queue(&mut self) {
        self.look_in_queue = true;
    }

    /// The next arrival from a ring and the queue behind it.
    pub(crate) fn next(
        &mut self,
        ring: &Mapping,
        reader: &mut Reader,
        queue: &impl Queue,
        buffer: &mut Buffer,
    ) -> Result<Option<Arrival>, Error> {
        loop {
            match reader.turn(ring)? {
                Turn::Message { frame, len } => {
                    return Ok(Some(Arrival::Frame { frame, len }));
                }
                Turn::Copy { frame, len } => {
                    if let Some(arrival) =
                        self.next_copied(frame, len, (ring, reader), queue, buffer)?
                    {
                        return Ok(Some(arrival));
                    }
                }
                Turn::Nothing => {
                    if let Some(len) = self.stash.take() {
                        self.early = Some((reader.position(), len));
                        return Ok(Some(Arrival::Copied { len, frame: None }));
                    }
                    if !self.look_in_queue {
                        return Ok(None);
                    }
                    match queue.take(buffer, None)? {
                        Taken::Message(len) => self.stash = Some(len),
                        Taken::Lost => return Ok(Some(Arrival::Lost)),
                        Taken::Nothing => self.look_in_queue = false,
                    }
                }
            }
        }
    }

    /// The message for which this `COPY` frame stands, or one that stood before it without a frame.
    fn next_copied(
        &mut self,
        frame: Place,
        announced: u32,
        (ring, reader): (&Mapping, &mut Reader),
        queue: &impl Queue,
        buffer: &mut Buffer,
    ) -> Result<Option<Arrival>, Error> {
        if self.early.take() == Some((frame, announced as usize)) && self.stash.is_none() {
            reader.settle(ring, frame);
            // Were it a chance likeness, the frame's own message is still in the queue.
            self.look_in_queue = true;
            return Ok(None);
        }
        let taken = match self.stash.take() {
            Some(len) => Taken::Message(len),
            None => queue.take(buffer, Some(announced))?,
        };
        Ok(match taken {
            Taken::Message(len) if len == announced as usize => {
                reader.settle(ring, frame);
                Some(Arrival::Copied {
                    len,
                    frame: Some(ring.index(frame)),
                })
            }
            Taken::Message(len) => Some(Arrival::Copied { len, frame: None }),
            Taken::Lost => Some(Arrival::Lost),
            Taken::Nothing => {
                reader.settle(ring, frame);
                return Err(Error::NothingToCopy {
                    frame: ring.index(frame),
                    len: announced,
                });
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::VecDeque;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::{Geometry, Status, abi};

    type Hook = Box<dyn FnOnce(&Bench)>;

    /// A kernel that never runs by itself: the test takes its steps.
    struct Bench {
        ring: Mapping,
        waiting: RefCell<VecDeque<Vec<u8>>>,
        lost: RefCell<bool>,
        /// Happens right after the next message was taken from the queue.
        after_take: RefCell<Option<Hook>>,
    }

    impl Queue for Bench {
        fn take(&self, buffer: &mut Buffer, _: Option<u32>) -> Result<Taken, Error> {
            if self.lost.take() {
                return Ok(Taken::Lost);
            }
            let Some(message) = self.waiting.borrow_mut().pop_front() else {
                return Ok(Taken::Nothing);
            };
            let taken = Taken::Message(buffer.fill(&message));
            if let Some(hook) = self.after_take.take() {
                hook(self);
            }
            Ok(taken)
        }
    }

    impl Bench {
        fn valid(&self, frame: u32, message: &[u8]) {
            let place = self.ring.place(frame);
            self.ring.fill(place, message);
            self.ring.set_status(place, Status::Valid);
        }

        fn queue(&self, message: &[u8]) {
            self.waiting.borrow_mut().push_back(message.to_vec());
        }

        fn copy(&self, frame: u32, len: usize) {
            let place = self.ring.place(frame);
            let word = self.ring.word(place, abi::LEN);
            word.store(len as u32, Ordering::Relaxed);
            self.ring.set_status(place, Status::Copy);
        }
    }

    struct Consumer {
        bench: Bench,
        reader: Reader,
        inbox: Inbox,
        buffer: Buffer,
    }

    impl Consumer {
        fn new() -> Self {
            let geometry = Geometry::from_request(4096, 4, 2048, 8).unwrap();
            let bench = Bench {
                ring: Mapping::anonymous(geometry).unwrap(),
                waiting: RefCell::default(),
                lost: RefCell::default(),
                after_take: RefCell::default(),
            };
            Self {
                bench,
                reader: Reader::new(&geometry, true),
                inbox: Inbox::new(),
                buffer: Buffer::new(),
            }
        }

        fn arrival(&mut self) -> Result<Option<Arrival>, Error> {
            let Self {
                bench,
                reader,
                inbox,
                buffer,
            } = self;
            inbox.next(&bench.ring, reader, bench, buffer)
        }

        /// The next message's bytes and whether a frame marked its place.
        fn read(&mut self) -> Option<(Vec<u8>, bool)> {
            match self.arrival().unwrap()? {
                Arrival::Frame { frame, len } => {
                    let message = self.bench.ring.message(frame, len).to_vec();
                    self.bench.ring.set_status(frame, Status::Unused);
                    Some((message, true))
                }
                Arrival::Copied { len, frame } => {
                    Some((self.buffer.message(len).to_vec(), frame.is_some()))
                }
                Arrival::Lost => panic!("nothing was lost"),
            }
        }
    }

    fn placed(message: &[u8]) -> (Vec<u8>, bool) {
        (message.to_vec(), true)
    }

    fn unplaced(message: &[u8]) -> (Vec<u8>, bool) {
        (message.to_vec(), false)
    }

    #[test]
    fn a_copied_message_comes_in_its_place() {
        let mut consumer = Consumer::new();
        let bench = &consumer.bench;
        bench.valid(0, b"small");
        bench.queue(&[7; 5000]);
        bench.copy(1, 5000);
        bench.valid(2, b"small again");
        bench.queue(&[8; 6000]);
        bench.copy(3, 6000);
        assert_eq!(consumer.read(), Some(placed(b"small")));
        assert_eq!(consumer.read(), Some(placed(&[7; 5000])));
        assert_eq!(consumer.read(), Some(placed(b"small again")));
        assert_eq!(consumer.read(), Some(placed(&[8; 6000])));
        assert_eq!(consumer.read(), None);
    }

    #[test]
    fn a_message_without_a_frame_comes_when_poll_says_so() {
        let mut consumer = Consumer::new();
        assert_eq!(consumer.read(), None);
        consumer.bench.queue(b"a cookie");
        assert_eq!(consumer.read(), None, "no system call without poll");
        consumer.inbox.expect_queue();
        assert_eq!(consumer.read(), Some(unplaced(b"a cookie")));
        assert_eq!(consumer.read(), None);
    }

    #[test]
    fn a_message_without_a_frame_does_not_take_the_place_of_one_with() {
        let mut consumer = Consumer::new();
        let bench = &consumer.bench;
        bench.queue(b"cookie");
        bench.queue(&[7; 5000]);
        bench.copy(0, 5000);
        bench.valid(1, b"behind");
        assert_eq!(consumer.read(), Some(unplaced(b"cookie")));
        assert_eq!(consumer.read(), Some(placed(&[7; 5000])));
        assert_eq!(consumer.read(), Some(placed(b"behind")));
    }

    #[test]
    fn frames_that_appear_while_the_queue_is_read_keep_their_place() {
        let mut consumer = Consumer::new();
        consumer.bench.queue(&[7; 5000]);
        consumer.bench.after_take.replace(Some(Box::new(|bench| {
            bench.valid(0, b"before");
            bench.copy(1, 5000);
            bench.valid(2, b"behind");
        })));
        assert_eq!(consumer.read(), Some(placed(b"before")));
        assert_eq!(consumer.read(), Some(placed(&[7; 5000])));
        assert_eq!(consumer.read(), Some(placed(b"behind")));
        assert_eq!(consumer.read(), None);
    }

    #[test]
    fn a_copy_frame_published_after_its_message_was_read_is_not_read_twice() {
        let mut consumer = Consumer::new();
        consumer.bench.queue(&[7; 5000]);
        assert_eq!(consumer.read(), Some(unplaced(&[7; 5000])));
        consumer.bench.copy(0, 5000);
        consumer.bench.valid(1, b"behind");
        assert_eq!(consumer.read(), Some(placed(b"behind")));
        assert_eq!(consumer.read(), None);
        assert_eq!(
            consumer.bench.ring.status(consumer.bench.ring.place(0)),
            Ok(Status::Unused)
        );
    }

    #[test]
    fn a_copy_frame_without_a_message_is_an_error_and_the_stream_goes_on() {
        let mut consumer = Consumer::new();
        consumer.bench.copy(0, 5000);
        consumer.bench.valid(1, b"behind");
        let error = consumer.arrival().unwrap_err();
        assert!(matches!(
            error,
            Error::NothingToCopy {
                frame: 0,
                len: 5000
            }
        ));
        assert_eq!(consumer.read(), Some(placed(b"behind")));
    }

    #[test]
    fn a_loss_is_an_event_and_the_stream_goes_on() {
        let mut consumer = Consumer::new();
        consumer.bench.lost.replace(true);
        consumer.bench.queue(&[7; 5000]);
        consumer.bench.copy(0, 5000);
        assert_eq!(consumer.arrival().unwrap(), Some(Arrival::Lost));
        assert_eq!(consumer.read(), Some(placed(&[7; 5000])));
        consumer.bench.lost.replace(true);
        consumer.inbox.expect_queue();
        assert_eq!(consumer.arrival().unwrap(), Some(Arrival::Lost));
        assert_eq!(consumer.read(), None);
    }
}
