// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shape of a ring: blocks of memory, and the frames that lie in them.

use crate::abi::{FRAME_ALIGNMENT, HEADER_LEN};

/// Frames of this many bytes and less share blocks of this many bytes: an order that the page
/// allocator can usually serve, so that the ring needs no page tables of its own.
const USUAL_BLOCK: u32 = 64 * 1024;

/// The shape of a ring, known to pass the kernel's checks.
///
/// A frame never straddles two blocks, so the end of a block may be left over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    block_size: u32,
    block_nr: u32,
    frame_size: u32,
    frames_per_block: u32,
}

/// Why no ring can have the shape that was asked for. The kernel would say `EINVAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// Blocks are whole pages, and at most `INT_MAX` bytes.
    #[error(
        "a block of {block_size} bytes is not a ring's block: use a multiple of the page size ({page_size}) below 2 GiB"
    )]
    BlockSize {
        /// What was asked for, in bytes.
        block_size: u32,
        /// The page size here, in bytes.
        page_size: u32,
    },
    /// A ring has at least one block; zero blocks is the request to tear it down.
    #[error("a ring of no blocks is no ring: ask for at least one")]
    NoBlocks,
    /// A frame holds at least its header, and is aligned.
    #[error(
        "a frame of {frame_size} bytes is not a ring's frame: use a multiple of 4, and at least 24"
    )]
    FrameSize {
        /// What was asked for, in bytes.
        frame_size: u32,
    },
    /// Not a single frame fits a block.
    #[error(
        "a frame of {frame_size} bytes does not fit a block of {block_size}: use larger blocks"
    )]
    FrameLargerThanBlock {
        /// The frame's size, in bytes.
        frame_size: u32,
        /// The block's size, in bytes.
        block_size: u32,
    },
    /// `nm_frame_nr` is not what the blocks hold.
    #[error(
        "{block_nr} blocks of {frames_per_block} frames are not {frame_nr} frames: ask for their product"
    )]
    FrameCount {
        /// Blocks asked for.
        block_nr: u32,
        /// Frames that fit one of them.
        frames_per_block: u32,
        /// Frames asked for.
        frame_nr: u32,
    },
    /// The frames cannot be counted in 32 bits, or the ring not be addressed.
    #[error("a ring of {block_nr} blocks of {block_size} bytes is too large: ask for fewer")]
    TooLarge {
        /// Blocks asked for.
        block_nr: u32,
        /// The block's size, in bytes.
        block_size: u32,
    },
}

impl Geometry {
    /// `block_nr` blocks of `block_size` bytes with as many frames of `frame_size` bytes as fit.
    pub fn new(block_size: u32, block_nr: u32, frame_size: u32) -> Result<Self, GeometryError> {
        Self::with_page_size(block_size, block_nr, frame_size, page_size())
    }

    /// All four numbers of `struct nl_mmap_req`, which must agree with each other.
    pub fn from_request(
        block_size: u32,
        block_nr: u32,
        frame_size: u32,
        frame_nr: u32,
    ) -> Result<Self, GeometryError> {
        let geometry = Self::new(block_size, block_nr, frame_size)?;
        if geometry.frame_nr() != frame_nr {
            return Err(GeometryError::FrameCount {
                block_nr,
                frames_per_block: geometry.frames_per_block,
                frame_nr,
            });
        }
        Ok(geometry)
    }

    /// At least `frames` frames, each with room for a message of `largest` bytes, in blocks of
    /// 64 KiB, or of one frame rounded up to whole pages where that is more.
    pub fn for_messages(largest: u32, frames: u32) -> Result<Self, GeometryError> {
        let page = page_size();
        let too_large = GeometryError::TooLarge {
            block_nr: frames,
            block_size: largest,
        };
        let frame_size = largest
            .checked_add(HEADER_LEN)
            .and_then(|size| size.checked_next_multiple_of(FRAME_ALIGNMENT))
            .ok_or(too_large)?;
        let block_size = frame_size
            .max(USUAL_BLOCK)
            .checked_next_multiple_of(page)
            .ok_or(too_large)?;
        let block_nr = frames.div_ceil(block_size / frame_size);
        Self::with_page_size(block_size, block_nr, frame_size, page)
    }

    fn with_page_size(
        block_size: u32,
        block_nr: u32,
        frame_size: u32,
        page_size: u32,
    ) -> Result<Self, GeometryError> {
        if block_nr == 0 {
            return Err(GeometryError::NoBlocks);
        }
        if block_size == 0
            || block_size > i32::MAX.cast_unsigned()
            || !block_size.is_multiple_of(page_size)
        {
            return Err(GeometryError::BlockSize {
                block_size,
                page_size,
            });
        }
        if frame_size < HEADER_LEN || !frame_size.is_multiple_of(FRAME_ALIGNMENT) {
            return Err(GeometryError::FrameSize { frame_size });
        }
        let frames_per_block = block_size / frame_size;
        if frames_per_block == 0 {
            return Err(GeometryError::FrameLargerThanBlock {
                frame_size,
                block_size,
            });
        }
        let addressable = isize::MAX as u64;
        if frames_per_block.checked_mul(block_nr).is_none()
            || u64::from(block_size) * u64::from(block_nr) > addressable
        {
            return Err(GeometryError::TooLarge {
                block_nr,
                block_size,
            });
        }
        Ok(Self {
            block_size,
            block_nr,
            frame_size,
            frames_per_block,
        })
    }

    /// Bytes of a block.
    #[must_use]
    pub const fn block_size(&self) -> u32 {
        self.block_size
    }

    /// Blocks of the ring.
    #[must_use]
    pub const fn block_nr(&self) -> u32 {
        self.block_nr
    }

    /// Bytes of a frame, header included.
    #[must_use]
    pub const fn frame_size(&self) -> u32 {
        self.frame_size
    }

    /// Frames of the ring.
    #[must_use]
    pub const fn frame_nr(&self) -> u32 {
        self.frames_per_block * self.block_nr
    }

    /// Bytes of the largest message that fits a frame.
    #[must_use]
    pub const fn room(&self) -> u32 {
        self.frame_size - HEADER_LEN
    }

    /// Bytes of the whole ring, as `mmap` wants to hear them.
    #[must_use]
    pub const fn mapping_len(&self) -> usize {
        self.block_size as usize * self.block_nr as usize
    }

    /// Where frame `index` begins, in bytes from the start of the ring.
    #[must_use]
    pub const fn frame_offset(&self, index: u32) -> usize {
        let block = (index / self.frames_per_block) as usize;
        let within = (index % self.frames_per_block) as usize;
        block * self.block_size as usize + within * self.frame_size as usize
    }

    /// The frame behind frame `index`, round the end of the ring.
    pub(crate) const fn behind(&self, index: u32) -> u32 {
        if index + 1 == self.frame_nr() {
            0
        } else {
            index + 1
        }
    }
}

/// The page size here, in bytes.
fn page_size() -> u32 {
    // SAFETY: sysconf touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u32::try_from(size).expect("Linux has a page size")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE: u32 = 4096;

    /// Every legal shape out of a grid that crosses each rule's border.
    fn legal_shapes() -> impl Iterator<Item = Geometry> {
        let blocks = [PAGE, 2 * PAGE, 3 * PAGE, 16 * PAGE];
        let frames = [
            24,
            28,
            100,
            1364,
            1368,
            2048,
            2052,
            PAGE,
            PAGE + 4,
            12288,
            65536,
        ];
        blocks.into_iter().flat_map(move |block| {
            frames.into_iter().flat_map(move |frame| {
                (1..6).filter_map(move |count| {
                    Geometry::with_page_size(block, count, frame, PAGE).ok()
                })
            })
        })
    }

    #[test]
    fn frames_lie_in_order_inside_one_block_and_never_overlap() {
        let mut shapes = 0;
        for shape in legal_shapes() {
            shapes += 1;
            let mut end = 0;
            for index in 0..shape.frame_nr() {
                let begin = shape.frame_offset(index);
                let last = begin + shape.frame_size() as usize - 1;
                assert!(begin >= end, "{shape:?}: frame {index} overlaps");
                assert_eq!(begin % FRAME_ALIGNMENT as usize, 0);
                let block = shape.block_size() as usize;
                assert_eq!(begin / block, last / block, "{shape:?}: {index} straddles");
                assert!(last < shape.mapping_len());
                end = last + 1;
            }
        }
        assert!(shapes > 150, "only {shapes} shapes");
    }

    #[test]
    fn the_ring_goes_round() {
        for shape in legal_shapes() {
            let mut index = 0;
            for _ in 0..shape.frame_nr() {
                index = shape.behind(index);
            }
            assert_eq!(index, 0);
        }
    }

    #[test]
    fn a_wish_for_messages_is_granted() {
        for largest in [0, 1, 100, 4072, 65536, 70_000, 1 << 20] {
            for frames in [1, 2, 63, 1000] {
                let shape = Geometry::for_messages(largest, frames).unwrap();
                assert!(shape.room() >= largest, "{shape:?}");
                assert!(shape.frame_nr() >= frames, "{shape:?}");
            }
        }
    }

    #[test]
    fn what_the_kernel_would_refuse_is_refused_with_its_reason() {
        let refused = |block, count, frame| {
            Geometry::with_page_size(block, count, frame, PAGE).expect_err("refused")
        };
        assert_eq!(refused(PAGE, 0, 2048), GeometryError::NoBlocks);
        for block_size in [0, 1, PAGE - 1, PAGE + 1, 1 << 31] {
            assert_eq!(
                refused(block_size, 1, 2048),
                GeometryError::BlockSize {
                    block_size,
                    page_size: PAGE
                }
            );
        }
        for frame_size in [0, 20, 23, 25, 2047] {
            assert_eq!(
                refused(PAGE, 1, frame_size),
                GeometryError::FrameSize { frame_size }
            );
        }
        assert_eq!(
            refused(PAGE, 1, PAGE + 4),
            GeometryError::FrameLargerThanBlock {
                frame_size: PAGE + 4,
                block_size: PAGE
            }
        );
        // 4096 / 24 = 170 frames a block: 170 << 25 does not fit 32 bits.
        assert_eq!(
            refused(PAGE, 1 << 25, 24),
            GeometryError::TooLarge {
                block_nr: 1 << 25,
                block_size: PAGE
            }
        );
        assert!(Geometry::for_messages(u32::MAX, 1).is_err());
        assert!(Geometry::for_messages(100, 0).is_err());
    }

    #[test]
    fn the_four_numbers_must_agree() {
        let page = page_size();
        assert!(Geometry::from_request(page, 2, 2048, 2 * (page / 2048)).is_ok());
        assert!(matches!(
            Geometry::from_request(page, 2, 2048, 5 * (page / 2048)),
            Err(GeometryError::FrameCount { .. })
        ));
    }
}
