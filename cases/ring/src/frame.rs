// SPDX-License-Identifier: MIT OR Apache-2.0
//! A message in its place, and the ways to give the place back.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::abi;
use crate::geometry::Place;
use crate::mapping::{Held, Mapping, Region};
use crate::reader::Reader;
use crate::status::Status;

/// A message in the ring. Dereferences to its bytes; dropped, it gives the frame back.
pub struct Frame<'a> {
    held: Held,
    place: Place,
    mapping: &'a Mapping,
    reader: &'a mut Reader,
}

impl<'a> Frame<'a> {
    #[inline]
    pub(crate) fn new(
        mapping: &'a Mapping,
        reader: &'a mut Reader,
        place: Place,
        held: Held,
    ) -> Self {
        Self {
            held,
            place,
            mapping,
            reader,
        }
    }

    /// The frame's number in the ring.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.mapping.index(self.place)
    }

    /// `nm_group`: the multicast group, 0 for a unicast message.
    #[must_use]
    pub fn group(&self) -> u32 {
        self.field(abi::GROUP)
    }

    /// `nm_pid`: the sender's process, 0 for the kernel.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.field(abi::PID)
    }

    /// `nm_uid`: the sender's user, in the user namespace of whoever set the ring up.
    #[must_use]
    pub fn uid(&self) -> u32 {
        self.field(abi::UID)
    }

    /// `nm_gid`: the sender's group, in the same namespace.
    #[must_use]
    pub fn gid(&self) -> u32 {
        self.field(abi::GID)
    }

    fn field(&self, offset: usize) -> u32 {
        self.held.word(offset).load(Ordering::Relaxed)
    }

    /// Keeps the message for later (`SKIP`): the ring goes on around it, with one frame less until
    /// it is dropped. More than 1024 kept in a row are a full ring to the kernel.
    #[must_use = "dropped, it gives the frame back"]
    pub fn keep(self) -> Kept {
        let mut this = ManuallyDrop::new(self);
        let index = this.index();
        this.reader.kept(index);
        this.held.set_status(Status::Skip);
        Kept {
            held: this.held.pass_on(),
            index,
            _region: this.mapping.region(),
        }
    }
}

impl Deref for Frame<'_> {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.held.message()
    }
}

impl Drop for Frame<'_> {
    #[inline]
    fn drop(&mut self) {
        self.held.set_status(Status::Unused);
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "Frame {} ({} bytes)",
            self.mapping.index(self.place),
            self.len()
        )
    }
}

/// A message that was kept in the ring while later ones pass it. Dereferences to its bytes;
/// dropped, it gives the frame back, from any thread, in any order. It keeps the ring mapped.
pub struct Kept {
    held: Held,
    index: u32,
    /// Held, not read: the memory is there as long as this is.
    _region: Arc<Region>,
}

impl Kept {
    /// The frame's number in the ring.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
    }
}

impl Deref for Kept {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.held.message()
    }
}

impl Drop for Kept {
    #[inline]
    fn drop(&mut self) {
        self.held.set_status(Status::Unused);
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Kept {} ({} bytes)", self.index, self.len())
    }
}
