// SPDX-License-Identifier: MIT OR Apache-2.0
//! A message in its place, and the ways to give the place back.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::abi;
use crate::mapping::Mapping;
use crate::reader::Reader;
use crate::status::Status;

/// A message in the ring. Dereferences to its bytes; dropped, it gives the frame back.
pub struct Frame<'a> {
    mapping: &'a Arc<Mapping>,
    reader: &'a mut Reader,
    index: u32,
    len: u32,
}

impl<'a> Frame<'a> {
    pub(crate) fn new(
        mapping: &'a Arc<Mapping>,
        reader: &'a mut Reader,
        index: u32,
        len: u32,
    ) -> Self {
        Self {
            mapping,
            reader,
            index,
            len,
        }
    }

    /// The frame's number in the ring.
    #[must_use]
    pub fn index(&self) -> u32 {
        self.index
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
        self.mapping
            .word(self.index, offset)
            .load(Ordering::Relaxed)
    }

    /// Keeps the message for later (`SKIP`): the ring goes on around it, with one frame less until
    /// it is dropped. More than 1024 kept in a row are a full ring to the kernel.
    #[must_use = "dropped, it gives the frame back"]
    pub fn keep(self) -> Kept {
        let mut this = ManuallyDrop::new(self);
        let index = this.index;
        this.reader.kept(index);
        this.mapping.set_status(index, Status::Skip);
        Kept {
            mapping: Arc::clone(this.mapping),
            index,
            len: this.len,
        }
    }
}

impl Deref for Frame<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.mapping.message(self.index, self.len)
    }
}

impl Drop for Frame<'_> {
    fn drop(&mut self) {
        self.mapping.set_status(self.index, Status::Unused);
    }
}

impl fmt::Debug for Frame<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Frame {} ({} bytes)", self.index, self.len)
    }
}

/// A message that was kept in the ring while later ones pass it. Dereferences to its bytes;
/// dropped, it gives the frame back, from any thread, in any order. It keeps the ring mapped.
pub struct Kept {
    mapping: Arc<Mapping>,
    index: u32,
    len: u32,
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

    fn deref(&self) -> &[u8] {
        self.mapping.message(self.index, self.len)
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.mapping.set_status(self.index, Status::Unused);
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Kept {} ({} bytes)", self.index, self.len)
    }
}
