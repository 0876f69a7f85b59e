// SPDX-License-Identifier: MIT OR Apache-2.0
//! The faults that the first memory-mapped netlink had: those that were mended in its day, and from 15 on
//! those that were found by reading it since.

use crate::clause::{Clause, clauses};

pub const FAULTS: &[Clause] = clauses! {
    "fault-1" =>
        "A message in a TX frame could be changed, by another thread or through a duplicated descriptor, \
         between its validation and its use.",
    "fault-2" =>
        "The length of a TX frame was read twice: small when it was checked, large when it was used.",
    "fault-3" =>
        "A frame's status could be seen before its contents.",
    "fault-4" =>
        "The frame size was not checked before memory was allocated.",
    "fault-5" =>
        "A ring was freed from an RCU callback, which may not take the mutex that this takes.",
    "fault-6" =>
        "Stepping over `SKIP` frames tested the same one for ever.",
    "fault-7" =>
        "Poll looked at the frame before the head: it woke on `RESERVED`, and slept with `VALID` ones \
         waiting.",
    "fault-8" =>
        "Each poll scanned the whole ring, also with the queue readable.",
    "fault-9" =>
        "A flush was not recognised by its iterator: it succeeded, and took no frame.",
    "fault-10" =>
        "With nlmon up, the first message to a ringed socket was a null dereference.",
    "fault-11" =>
        "A packet with page fragments, slightly larger than the frame, was written past the frame's end.",
    "fault-12" =>
        "After a large `recv` buffer was seen, parts of a dump did not start at offset 24 of the frame.",
    "fault-13" =>
        "An ack for a batch whose buffer had no socket was a crash.",
    "fault-14" =>
        "A dump that was asked for through the TX ring looped for ever.",
    "fault-15" =>
        "The length of a message was read after it was queued, when another thread could have freed it.",
    "fault-16" =>
        "The shape of a ring was checked outside the lock, so two racing set-ups could both pass.",
    "fault-17" =>
        "The TX ring could be removed under a flush that was about to use it.",
    "fault-18" =>
        "Poll could read a ring that was being torn down.",
    "fault-19" =>
        "A flush had no bound while the user went on marking frames, and no signal stopped it.",
    "fault-20" =>
        "Frames per block times blocks overflowed 32 bits.",
    "fault-21" =>
        "A `SKIP` frame whose turn it was blocked every message that did not fit.",
    "fault-22" =>
        "The estimate of free space was off by one frame where the ring wraps.",
    "fault-23" =>
        "Capabilities were checked more strictly for a message through the ring than for one by `sendto`.",
    "fault-24" =>
        "A user who marked a frame free while the kernel copied got one frame given to two messages.",
    "fault-25" =>
        "A malformed TX frame whose turn it was blocked the ring, with no way out.",
    "fault-26" =>
        "A full ring on nfnetlink_queue dropped the packet, asked no fail-open and moved no counter.",
    "fault-27" =>
        "Bytes of an earlier message, or of the kernel's memory, could be read behind a shorter message.",
};
