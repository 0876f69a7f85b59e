// SPDX-License-Identifier: MIT OR Apache-2.0
//! The memory that we share with the kernel, and every access to it.

use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::abi;
use crate::{Error, FrameError, Geometry, Status};

/// A mapped ring. Nothing in it is believed: every word is read once, and checked.
#[derive(Debug)]
pub(crate) struct Mapping {
    memory: NonNull<u8>,
    geometry: Geometry,
}

// SAFETY: the memory is the mapping's own until drop, and every access to it from `&self` is an
// atomic load or store, or a slice of a frame that its status gives to one owner.
unsafe impl Send for Mapping {}
// SAFETY: as above.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the ring that was set up on this socket.
    pub(crate) fn of_socket(socket: BorrowedFd<'_>, geometry: Geometry) -> Result<Self, Error> {
        Self::map(socket.as_raw_fd(), libc::MAP_SHARED, geometry)
    }

    fn map(fd: RawFd, flags: libc::c_int, geometry: Geometry) -> Result<Self, Error> {
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                geometry.mapping_len(),
                protection,
                flags,
                fd,
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(Error::last_os("map the ring"));
        }
        let memory = NonNull::new(memory.cast()).expect("mmap gives no null without MAP_FIXED");
        Ok(Self { memory, geometry })
    }

    /// Memory of the same shape with no kernel behind it.
    #[cfg(test)]
    pub(crate) fn anonymous(geometry: Geometry) -> Self {
        Self::map(-1, libc::MAP_SHARED | libc::MAP_ANONYMOUS, geometry).expect("memory")
    }

    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// A word of a frame's header.
    pub(crate) fn word(&self, frame: u32, field: usize) -> &AtomicU32 {
        assert!(frame < self.geometry.frame_nr() && field < abi::HEADER_LEN as usize);
        let offset = self.geometry.frame_offset(frame) + field;
        // SAFETY: a frame of the ring lies inside the mapping with its whole header (Geometry), and
        // 4 divides both offsets. The kernel, too, accesses the word as a whole.
        unsafe { AtomicU32::from_ptr(self.memory.as_ptr().add(offset).cast()) }
    }

    /// Who owns the frame. Acquire pairs with the kernel's release when it publishes: whoever sees
    /// `VALID` sees the whole message.
    pub(crate) fn status(&self, frame: u32) -> Result<Status, FrameError> {
        let word = self.word(frame, abi::STATUS).load(Ordering::Acquire);
        Status::from_word(word).ok_or(FrameError::Status { frame, word })
    }

    /// Hands the frame on. Release: our reads of it come before the kernel's next writes to it,
    /// which follow its acquire of the word.
    pub(crate) fn set_status(&self, frame: u32, status: Status) {
        self.word(frame, abi::STATUS)
            .store(status.word(), Ordering::Release);
    }

    /// `nm_len`, as it stands at this moment.
    pub(crate) fn len(&self, frame: u32) -> u32 {
        self.word(frame, abi::LEN).load(Ordering::Relaxed)
    }

    /// The first `len` bytes of the message in the frame, which must be `VALID` or `SKIP`, and the
    /// caller's, until the slice is gone.
    pub(crate) fn message(&self, frame: u32, len: u32) -> &[u8] {
        assert!(frame < self.geometry.frame_nr() && len <= self.geometry.room());
        let offset = self.geometry.frame_offset(frame) + abi::HEADER_LEN as usize;
        // SAFETY: the room behind a header lies inside the mapping (Geometry, asserted above). The
        // kernel writes to no frame that is VALID or SKIP, and only the one owner of such a frame
        // (Frame or Kept) calls this and gives the frame back, after the slice's lifetime. A
        // program that scribbles over its own ring from elsewhere breaks its own promise.
        unsafe {
            std::slice::from_raw_parts(self.memory.as_ptr().add(offset).cast_const(), len as usize)
        }
    }

    /// Plays the kernel: writes a message into a frame.
    #[cfg(test)]
    pub(crate) fn fill(&self, frame: u32, message: &[u8]) {
        assert!(message.len() <= self.geometry.room() as usize);
        let offset = self.geometry.frame_offset(frame) + abi::HEADER_LEN as usize;
        // SAFETY: inside the mapping as in `message`; the tests hold no slice of this frame.
        unsafe {
            self.memory
                .as_ptr()
                .add(offset)
                .copy_from_nonoverlapping(message.as_ptr(), message.len());
        }
        self.word(frame, abi::LEN)
            .store(message.len() as u32, Ordering::Relaxed);
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length, and nothing borrows from it any more.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.geometry.mapping_len()) };
    }
}
