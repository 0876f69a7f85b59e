// SPDX-License-Identifier: MIT OR Apache-2.0
//! A socket's rings as memory: any word of any frame can be read and written at any time, as a
//! program can that keeps no rules. The library's readers keep them.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use nlring::{Geometry, Status};

/// A word of a frame's header, by its place in `struct nl_mmap_hdr`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Field {
    /// `nm_status`.
    Status = 0,
    /// `nm_len`.
    Len = 1,
    /// `nm_group`.
    Group = 2,
    /// `nm_pid`.
    Pid = 3,
    /// `nm_uid`.
    Uid = 4,
    /// `nm_gid`.
    Gid = 5,
}

/// `NL_MMAP_HDRLEN`, in words.
const HEADER: usize = 6;
const WORD: usize = size_of::<AtomicU32>();

/// A shared mapping, unmapped at the end.
#[derive(Debug)]
struct Region {
    memory: NonNull<AtomicU32>,
    len: usize,
}

// SAFETY: atomics in a mapping that lives as long as this value; they may be shared.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: mapped by `Frames::map_all` with this length; no reference into it outlives it.
        unsafe { libc::munmap(self.memory.as_ptr().cast(), self.len) };
    }
}

/// The frames of one ring. Clones share the mapping, which goes with the last of them.
#[derive(Debug, Clone)]
pub(crate) struct Frames {
    region: Arc<Region>,
    /// Where the ring begins, in words.
    first: usize,
    geometry: Geometry,
}

impl Frames {
    /// Maps the only ring of a socket.
    pub(crate) fn map(socket: &impl AsFd, geometry: Geometry) -> io::Result<Self> {
        let [ring] = Self::map_all(socket, [geometry])?;
        Ok(ring)
    }

    /// Maps all rings of a socket, the RX ring first.
    pub(crate) fn map_all<const N: usize>(
        socket: &impl AsFd,
        rings: [Geometry; N],
    ) -> io::Result<[Self; N]> {
        let len = rings.iter().map(Geometry::mapping_len).sum();
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
        let memory = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                len,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                socket.as_fd().as_raw_fd(),
                0,
            )
        };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let memory = NonNull::new(memory.cast()).expect("mmap gives no null without MAP_FIXED");
        let region = Arc::new(Region { memory, len });
        let mut end = 0;
        Ok(rings.map(|geometry| {
            let first = end;
            end += geometry.mapping_len() / WORD;
            let region = Arc::clone(&region);
            Self {
                region,
                first,
                geometry,
            }
        }))
    }

    /// The ring's shape.
    pub(crate) fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// Words of the whole ring.
    pub(crate) fn words(&self) -> usize {
        self.geometry.mapping_len() / WORD
    }

    /// Any word of the ring.
    pub(crate) fn word(&self, index: usize) -> &AtomicU32 {
        assert!(index < self.words());
        // SAFETY: inside the mapping, which is aligned to a page.
        unsafe { self.region.memory.add(self.first + index).as_ref() }
    }

    /// The word of a frame's room that this byte is in.
    pub(crate) fn word_of_room(&self, frame: u32, byte: u32) -> &AtomicU32 {
        self.word(self.geometry.frame_offset(frame) / WORD + HEADER + byte as usize / WORD)
    }

    /// A word of a frame's header.
    pub(crate) fn field(&self, frame: u32, field: Field) -> &AtomicU32 {
        self.word(self.geometry.frame_offset(frame) / WORD + field as usize)
    }

    /// What a word of a frame's header says now.
    pub(crate) fn get(&self, frame: u32, field: Field) -> u32 {
        self.field(frame, field).load(Ordering::Acquire)
    }

    /// A frame's status; `None` for a word that means nothing.
    pub(crate) fn status(&self, frame: u32) -> Option<Status> {
        Status::from_word(self.get(frame, Field::Status))
    }

    /// A frame's status and length as they are at one and the same moment.
    #[expect(clippy::cast_ptr_alignment, reason = "asserted")]
    pub(crate) fn status_and_len(&self, frame: u32) -> (Option<Status>, u32) {
        let status = std::ptr::from_ref(self.field(frame, Field::Status));
        assert!(
            status.cast::<AtomicU64>().is_aligned(),
            "frames of multiples of 8"
        );
        // SAFETY: the length is the word behind the status, in the same mapping.
        let both = unsafe { &*status.cast::<AtomicU64>() }.load(Ordering::Acquire);
        let [status, len] = [0, WORD].map(|at| {
            let bytes = both.to_ne_bytes();
            u32::from_ne_bytes(bytes[at..at + WORD].try_into().expect("half of it"))
        });
        (Status::from_word(status), len)
    }

    /// The statuses of all frames.
    pub(crate) fn statuses(&self) -> Vec<Option<Status>> {
        let frames = 0..self.geometry.frame_nr();
        frames.map(|frame| self.status(frame)).collect()
    }

    /// Hands a frame over.
    pub(crate) fn set_status(&self, frame: u32, status: Status) {
        self.field(frame, Field::Status)
            .store(status.word(), Ordering::Release);
    }

    /// Hands all frames over.
    pub(crate) fn set_statuses(&self, status: Status) {
        for frame in 0..self.geometry.frame_nr() {
            self.set_status(frame, status);
        }
    }

    /// The whole room of a frame, whatever `nm_len` says.
    pub(crate) fn room(&self, frame: u32) -> Vec<u8> {
        let first = self.geometry.frame_offset(frame) / WORD + HEADER;
        let words = first..first + self.geometry.room() as usize / WORD;
        words
            .flat_map(|word| self.word(word).load(Ordering::Relaxed).to_ne_bytes())
            .collect()
    }

    /// The message of a frame.
    pub(crate) fn message(&self, frame: u32) -> Vec<u8> {
        let mut room = self.room(frame);
        room.truncate(self.get(frame, Field::Len) as usize);
        room
    }

    /// Writes to a frame's room from its beginning; a last word that is not full gets zeros.
    pub(crate) fn write(&self, frame: u32, message: &[u8]) {
        assert!(message.len() <= self.geometry.room() as usize);
        let first = self.geometry.frame_offset(frame) / WORD + HEADER;
        for (word, bytes) in message.chunks(WORD).enumerate() {
            let mut whole = [0; WORD];
            whole[..bytes.len()].copy_from_slice(bytes);
            self.word(first + word)
                .store(u32::from_ne_bytes(whole), Ordering::Relaxed);
        }
    }

    /// Writes a message to a frame of a TX ring and marks it `VALID`.
    pub(crate) fn submit(&self, frame: u32, message: &[u8]) {
        self.write(frame, message);
        self.submit_len(frame, message.len() as u32);
    }

    /// Marks a frame of a TX ring `VALID` with this length, whatever is in it.
    pub(crate) fn submit_len(&self, frame: u32, len: u32) {
        self.field(frame, Field::Len).store(len, Ordering::Relaxed);
        self.set_status(frame, Status::Valid);
    }
}
