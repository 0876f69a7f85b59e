// SPDX-License-Identifier: MIT OR Apache-2.0
//! Receiving from a ring and filling one allocate nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::os::fd::OwnedFd;

use nlring::{Flags, Geometry, Received, Socket};

mod image;

struct Counting;

thread_local! {
    static COUNT: Cell<u32> = const { Cell::new(0) };
}

// SAFETY: the system's allocator does the work; counting it touches no memory but the count.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // A thread that ends may have no count any more.
        let _ = COUNT.try_with(|count| count.set(count.get() + 1));
        // SAFETY: as the caller says.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as the caller says.
        unsafe { System.dealloc(memory, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Allocations of this thread that `work` makes.
fn allocations(work: impl FnOnce()) -> u32 {
    let before = COUNT.get();
    work();
    COUNT.get() - before
}

const FRAMES: u32 = 64;

fn ring() -> (std::fs::File, Geometry) {
    let geometry = Geometry::for_messages(2000, FRAMES).unwrap();
    let file = tempfile::tempfile().unwrap();
    image::empty(&file, &geometry).unwrap();
    (file, geometry)
}

fn socket(file: &std::fs::File) -> Socket {
    OwnedFd::from(file.try_clone().unwrap()).into()
}

#[test]
fn what_allocates_is_counted() {
    assert_eq!(allocations(|| drop(Box::new(FRAMES))), 1);
}

#[test]
fn receiving_from_a_ring_allocates_nothing() {
    let (file, geometry) = ring();
    for flags in [Flags::NONE, Flags::ORDERED] {
        let mut receiver = socket(&file).map_rx_ring(geometry, flags).unwrap();
        for frame in 0..FRAMES {
            image::publish(&file, &geometry, frame, &[7; 1000]).unwrap();
        }
        let count = allocations(|| {
            for frame in 0..FRAMES {
                let arrived = receiver.receive().unwrap().expect("a message");
                let Received::Frame(message) = &arrived else {
                    panic!("it came as {arrived:?}");
                };
                assert_eq!((message.index(), message.len()), (frame, 1000));
            }
        });
        assert_eq!(count, 0);
    }
}

#[test]
fn filling_a_ring_allocates_nothing() {
    let (file, geometry) = ring();
    let mut sender = socket(&file).map_tx_ring(geometry).unwrap();
    let count = allocations(|| {
        for _ in 0..FRAMES {
            let slot = sender.slot().unwrap().expect("a free frame");
            slot.send(&[7; 1000]);
        }
    });
    assert_eq!(count, 0);
}
