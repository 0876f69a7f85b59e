// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ring in a file: what a kernel leaves behind, without a kernel. The library maps it as it maps a
//! socket's ring.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;

use nlring::{Geometry, Status};

/// `NL_MMAP_HDRLEN`.
const HEADER_LEN: u64 = 24;

/// A file of the ring's size, every frame `UNUSED`.
pub fn empty(file: &File, geometry: &Geometry) -> io::Result<()> {
    file.set_len(0)?;
    file.set_len(geometry.mapping_len() as u64)
}

/// Publishes a message in a frame, as the kernel does.
pub fn publish(file: &File, geometry: &Geometry, frame: u32, message: &[u8]) -> io::Result<()> {
    let at = geometry.frame_offset(frame) as u64;
    file.write_all_at(message, at + HEADER_LEN)?;
    file.write_all_at(&(message.len() as u32).to_ne_bytes(), at + 4)?;
    republish(file, geometry, frame)
}

/// Publishes what a frame holds once more.
pub fn republish(file: &File, geometry: &Geometry, frame: u32) -> io::Result<()> {
    let at = geometry.frame_offset(frame) as u64;
    file.write_all_at(&Status::Valid.word().to_ne_bytes(), at)
}
