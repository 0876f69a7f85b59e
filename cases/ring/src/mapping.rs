// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory that we share with the kernel, and every access to it.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::abi;
use crate::geometry::Place;
use crate::{Error, FrameError, Geometry, Status};

/// The mapping of a socket's rings, unmapped as a whole when the last that needs it goes.
#[derive(Debug)]
pub(crate) struct Region {
    memory: NonNull<u8>,
    len: usize,
}

// SAFETY: the memory is the mapping's own until drop, and every access to it from `&self` is an
// atomic load or store, or a slice of a frame that its status gives to one owner.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    fn map(fd: RawFd, flags: libc::c_int, len: usize) -> Result<Self, Error> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
        let memory = unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, 0) };
        if memory == libc::MAP_FAILED {
            return Err(Error::last_os("map the socket's rings"));
        }
        let memory = NonNull::new(memory.cast()).expect("mmap gives no null without MAP_FIXED");
        Ok(Self { memory, len })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nothing borrows from it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.len) };
    }
}

/// A mapped ring. Nothing in it is believed: every word is read once, and checked.
#[derive(Debug)]
pub(crate) struct Mapping {
    /// Where this ring begins.
    start: NonNull<u8>,
    geometry: Geometry,
    region: Arc<Region>,
}

// SAFETY: the memory is the region's, and that may be sent and shared.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

/// A message in a frame that is VALID or SKIP, and so is whoever's holds this. The memory is there as
/// long as the region is.
#[derive(Debug)]
pub(crate) struct Held {
    header: NonNull<u8>,
    /// At least 1, and at most the frame's room.
    len: u32,
}

// SAFETY: it is the one owner of the frame, whose memory any thread may touch.
unsafe impl Send for Held {}
// SAFETY: what is shared is read, or stored to atomically.
unsafe impl Sync for Held {}

impl Held {
    /// A word of the frame's header.
    #[inline]
    pub(crate) fn word(&self, field: usize) -> &AtomicU32 {
        debug_assert!(field < abi::HEADER_LEN as usize);
        // SAFETY: inside the frame's header, and 4 divides both its place and the field's. The
        // kernel, too, accesses the word as a whole.
        unsafe { AtomicU32::from_ptr(self.header.as_ptr().add(field).cast()) }
    }

    /// The message.
    #[inline]
    pub(crate) fn message(&self) -> &[u8] {
        let len = self.len as usize;
        // SAFETY: the room behind a header lies inside the mapping, and has this length (`hold`). The
        // kernel writes to no frame that is VALID or SKIP, and the frame is given back, by the one
        // owner, only after the slice's lifetime. A program that scribbles over its own ring from
        // elsewhere breaks its own promise.
        unsafe {
            let message = self.header.add(abi::HEADER_LEN as usize);
            std::slice::from_raw_parts(message.as_ptr().cast_const(), len)
        }
    }

    /// The same in other hands; whoever had it does nothing more with it.
    pub(crate) fn pass_on(&self) -> Self {
        Self { ..*self }
    }

    /// Hands the frame on, as [`Mapping::set_status`] does.
    #[inline]
    pub(crate) fn set_status(&self, status: Status) {
        self.word(abi::STATUS)
            .store(status.word(), Ordering::Release);
    }
}

impl Mapping {
    /// Maps the rings that were set up on this socket, all of them, the RX ring first.
    pub(crate) fn of_socket<const N: usize>(
        socket: BorrowedFd<'_>,
        rings: [Geometry; N],
    ) -> Result<[Self; N], Error> {
        Self::map(socket.as_raw_fd(), libc::MAP_SHARED, rings)
    }

    fn map<const N: usize>(
        fd: RawFd,
        flags: libc::c_int,
        rings: [Geometry; N],
    ) -> Result<[Self; N], Error> {
        let len = rings.iter().map(Geometry::mapping_len).sum();
        let region = Arc::new(Region::map(fd, flags, len)?);
        let mut end = 0;
        Ok(rings.map(|geometry| {
            // SAFETY: the region is as long as all the rings, and this one begins in it.
            let start = unsafe { region.memory.add(end) };
            end += geometry.mapping_len();
            Self {
                start,
                geometry,
                region: Arc::clone(&region),
            }
        }))
    }

    /// Memory of the same shape with no kernel behind it.
    pub(crate) fn anonymous(geometry: Geometry) -> Result<Self, Error> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        let [ring] = Self::map(-1, flags, [geometry])?;
        Ok(ring)
    }

    /// The memory of a frame. It lies in one block, so header and room are contiguous.
    #[inline]
    fn frame(&self, place: Place) -> NonNull<u8> {
        debug_assert_eq!(place, self.geometry.place(self.index(place)));
        // SAFETY: a geometry makes places of frames that it has, and no others, and every frame of
        // every ring lies inside the region, whose length is the sum of theirs.
        unsafe { self.start.add(place.offset()) }
    }

    /// The memory of a frame's message.
    #[inline]
    fn room(&self, place: Place) -> NonNull<u8> {
        // SAFETY: a frame is at least its header.
        unsafe { self.frame(place).add(abi::HEADER_LEN as usize) }
    }

    /// The place of frame `index`.
    ///
    /// # Panics
    /// If there is no such frame.
    pub(crate) fn place(&self, index: u32) -> Place {
        self.geometry.place(index)
    }

    /// The number of the frame at this place.
    pub(crate) fn index(&self, place: Place) -> u32 {
        self.geometry.index(place)
    }

    #[inline]
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// A word of a frame's header.
    #[inline]
    pub(crate) fn word(&self, place: Place, field: usize) -> &AtomicU32 {
        debug_assert!(field < abi::HEADER_LEN as usize);
        // SAFETY: inside the frame's header, and 4 divides both its place and the field's. The
        // kernel, too, accesses the word as a whole.
        unsafe { AtomicU32::from_ptr(self.frame(place).as_ptr().add(field).cast()) }
    }

    /// Who owns the frame. Acquire pairs with the kernel's release when it publishes: whoever sees
    /// `VALID` sees the whole message.
    #[inline]
    pub(crate) fn status(&self, place: Place) -> Result<Status, FrameError> {
        let word = self.word(place, abi::STATUS).load(Ordering::Acquire);
        Status::from_word(word).ok_or(FrameError::Status {
            frame: self.index(place),
            word,
        })
    }

    /// Hands the frame on. Release: our reads of it come before the kernel's next writes to it,
    /// which follow its acquire of the word.
    #[inline]
    pub(crate) fn set_status(&self, place: Place, status: Status) {
        self.word(place, abi::STATUS)
            .store(status.word(), Ordering::Release);
    }

    /// `nm_len`, as it stands at this moment.
    #[inline]
    pub(crate) fn len(&self, place: Place) -> u32 {
        self.word(place, abi::LEN).load(Ordering::Relaxed)
    }

    /// The first `len` bytes in a frame of a TX ring that is ours, or not sent yet.
    #[inline]
    pub(crate) fn message(&self, place: Place, len: u32) -> &[u8] {
        assert!(len <= self.geometry.room());
        // SAFETY: the room behind a header lies inside the mapping (asserted above). The kernel
        // writes to no room of a TX ring, and we do by `room_mut` only, which the slice excludes. A
        // program that scribbles over its own ring from elsewhere breaks its own promise.
        unsafe { std::slice::from_raw_parts(self.room(place).as_ptr().cast_const(), len as usize) }
    }

    /// A message of this length in a frame that is the caller's; `None` if none can have it.
    #[inline]
    pub(crate) fn hold(&self, place: Place, len: u32) -> Option<Held> {
        (1..=self.geometry.room()).contains(&len).then(|| Held {
            header: self.frame(place),
            len,
        })
    }

    /// What keeps the memory mapped, for whoever holds a message longer than this.
    pub(crate) fn region(&self) -> Arc<Region> {
        Arc::clone(&self.region)
    }

    /// The room of a frame of a TX ring, which must be `UNUSED`, and so ours.
    pub(crate) fn room_mut(&mut self, place: Place) -> &mut [u8] {
        let room = self.geometry.room() as usize;
        // SAFETY: the room behind a header lies inside the mapping. The kernel writes to no room of
        // a TX ring and reads from none that is UNUSED, and `&mut self` lets nobody else have it
        // until the slice is gone.
        unsafe { std::slice::from_raw_parts_mut(self.room(place).as_ptr(), room) }
    }

    /// `nm_len` of a frame that is ours.
    #[inline]
    pub(crate) fn set_len(&self, place: Place, len: u32) {
        self.word(place, abi::LEN).store(len, Ordering::Relaxed);
    }

    /// Plays the kernel: writes a message into a frame.
    #[cfg(test)]
    pub(crate) fn fill(&self, place: Place, message: &[u8]) {
        assert!(message.len() <= self.geometry.room() as usize);
        // SAFETY: inside the mapping, as asserted; the tests hold no slice of this frame.
        unsafe {
            self.room(place)
                .as_ptr()
                .copy_from_nonoverlapping(message.as_ptr(), message.len());
        }
        self.set_len(place, message.len() as u32);
    }
}
