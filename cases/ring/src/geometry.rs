// SPDX-License-Identifier: MIT OR Apache-2.0
//! The shape of a ring: blocks of memory, and the frames that lie in them.

use crate::abi::{FRAME_ALIGNMENT, HEADER_LEN};

/// Frames of this many bytes and less share blocks of this many bytes: an order that the page
/// allocator can usually serve, so that the ring needs no page tables of its own.
const USUAL_BLOCK: u32 = 64 * 1024;
/// `INT_MAX`: what the kernel takes for a block at most, in bytes.
const LARGEST_BLOCK: u32 = i32::MAX.cast_unsigned();

/// The shape of a ring, known to pass the kernel's checks.
///
/// A frame never straddles two blocks, so the end of a block may be left over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Geometry {
    block_size: u32,
    block_nr: u32,
    /// Bytes of a frame behind its header.
    room: u32,
    frames_per_block: u32,
    /// Bytes from the beginning of one frame of a run to that of the next.
    stride: u32,
    /// Frames of a run, which lie at equal distances: all of the ring, or those of a block where it
    /// ends in a gap.
    run: u32,
    /// Runs of the ring.
    runs: u32,
    /// Bytes from the beginning of a run's last frame to that of the next run.
    to_next_run: u32,
}

/// Why no ring can have the shape that was asked for. The kernel would say `EINVAL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GeometryError {
    /// Blocks are whole pages, and at most `INT_MAX` bytes.
    #[error(
        "a block of {block_size} bytes is not a ring's block: use whole pages, as {} bytes",
        nearest_block(*block_size, *page_size)
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
        "a frame of {frame_size} bytes is not a ring's frame: use a multiple of 4 from 24 on, as {}",
        nearest_frame(*frame_size, *page_size)
    )]
    FrameSize {
        /// What was asked for, in bytes.
        frame_size: u32,
        /// The page size here, in bytes.
        page_size: u32,
    },
    /// Not a single frame fits a block.
    #[error(
        "a frame of {frame_size} bytes does not fit a block of {block_size}: use blocks of {} bytes",
        nearest_block(*frame_size, *page_size)
    )]
    FrameLargerThanBlock {
        /// The frame's size, in bytes.
        frame_size: u32,
        /// The block's size, in bytes.
        block_size: u32,
        /// The page size here, in bytes.
        page_size: u32,
    },
    /// `nm_frame_nr` is not what the blocks hold.
    #[error(
        "{block_nr} blocks of {frames_per_block} frames are not {frame_nr} frames: ask for {}, in {} blocks",
        u64::from(*frames_per_block) * u64::from(nearest_blocks(*frame_nr, *frames_per_block)),
        nearest_blocks(*frame_nr, *frames_per_block)
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
    #[error(
        "a ring of {block_nr} blocks of {block_size} bytes is too large: ask for at most {most}"
    )]
    TooLarge {
        /// Blocks asked for.
        block_nr: u32,
        /// The block's size, in bytes.
        block_size: u32,
        /// As many blocks can be had.
        most: u32,
    },
    /// No frame holds such a message.
    #[error(
        "no frame holds a message of {largest} bytes: a block, and so a frame, is smaller than 2 GiB"
    )]
    MessageTooLarge {
        /// The largest message expected, in bytes.
        largest: u32,
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
        let sizes = || {
            let frame_size = largest
                .checked_add(HEADER_LEN)?
                .checked_next_multiple_of(FRAME_ALIGNMENT)?;
            let block_size = frame_size
                .max(USUAL_BLOCK)
                .checked_next_multiple_of(page)
                .filter(|&size| size <= LARGEST_BLOCK)?;
            Some((frame_size, block_size))
        };
        let (frame_size, block_size) = sizes().ok_or(GeometryError::MessageTooLarge { largest })?;
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
        if !(1..=LARGEST_BLOCK).contains(&block_size) || !block_size.is_multiple_of(page_size) {
            return Err(GeometryError::BlockSize {
                block_size,
                page_size,
            });
        }
        // Larger than any block there can be, it is the frame that is wrong.
        if !(HEADER_LEN..=largest_block(page_size)).contains(&frame_size)
            || !frame_size.is_multiple_of(FRAME_ALIGNMENT)
        {
            return Err(GeometryError::FrameSize {
                frame_size,
                page_size,
            });
        }
        let frames_per_block = block_size / frame_size;
        if frames_per_block == 0 {
            return Err(GeometryError::FrameLargerThanBlock {
                frame_size,
                block_size,
                page_size,
            });
        }
        let most = (u32::MAX / frames_per_block)
            .min(u32::try_from(isize::MAX as u64 / u64::from(block_size)).unwrap_or(u32::MAX));
        if block_nr > most {
            return Err(GeometryError::TooLarge {
                block_nr,
                block_size,
                most,
            });
        }
        let to_next_block = block_size - (frames_per_block - 1) * frame_size;
        let stride = if frames_per_block == 1 {
            block_size
        } else {
            frame_size
        };
        let (run, runs) = if stride == to_next_block {
            (frames_per_block * block_nr, 1)
        } else {
            (frames_per_block, block_nr)
        };
        Ok(Self {
            block_size,
            block_nr,
            room: frame_size - HEADER_LEN,
            frames_per_block,
            stride,
            run,
            runs,
            to_next_run: to_next_block,
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
        self.room + HEADER_LEN
    }

    /// Frames of the ring.
    #[must_use]
    pub const fn frame_nr(&self) -> u32 {
        self.frames_per_block * self.block_nr
    }

    /// Bytes of the largest message that fits a frame.
    #[must_use]
    #[inline]
    pub const fn room(&self) -> u32 {
        self.room
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
        block * self.block_size as usize + within * self.frame_size() as usize
    }

    /// The first frame's place.
    pub(crate) const fn first(&self) -> Place {
        Place {
            offset: 0,
            behind: self.run - 1,
            runs_behind: self.runs - 1,
        }
    }

    /// The place of frame `index`.
    ///
    /// # Panics
    /// If there is no such frame: every place lies in the ring.
    pub(crate) const fn place(&self, index: u32) -> Place {
        assert!(index < self.frame_nr());
        Place {
            offset: self.frame_offset(index),
            behind: self.run - 1 - index % self.run,
            runs_behind: self.runs - 1 - index / self.run,
        }
    }

    /// The number of the frame at this place.
    pub(crate) const fn index(&self, place: Place) -> u32 {
        self.frame_nr() - 1 - place.runs_behind * self.run - place.behind
    }

    /// Goes on to the next frame, round the end of the ring.
    #[inline]
    pub(crate) fn advance(&self, place: &mut Place) {
        if place.behind > 0 {
            place.behind -= 1;
            place.offset += self.stride as usize;
        } else if place.runs_behind > 0 {
            place.behind = self.run - 1;
            place.runs_behind -= 1;
            place.offset += self.to_next_run as usize;
        } else {
            *place = self.first();
        }
    }
}

/// Where a frame lies. Going from one to the next takes no division, which finding one takes, and
/// counts no numbers along, which hardly anyone asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    /// Bytes from the start of the ring.
    offset: usize,
    /// Frames behind it in its run.
    behind: u32,
    /// Runs behind its own.
    runs_behind: u32,
}

impl Place {
    /// Where it begins, in bytes from the start of the ring.
    #[inline]
    pub(crate) const fn offset(self) -> usize {
        self.offset
    }
}

/// The largest block of whole pages, in bytes.
fn largest_block(page_size: u32) -> u32 {
    LARGEST_BLOCK / page_size * page_size
}

/// The block size nearest to this one that can be had, in bytes; above it rather than below.
fn nearest_block(size: u32, page_size: u32) -> u32 {
    let size = size.clamp(1, largest_block(page_size));
    size.next_multiple_of(page_size)
}

/// The frame size nearest to this one that can be had, in bytes; above it rather than below.
fn nearest_frame(size: u32, page_size: u32) -> u32 {
    let size = size.clamp(HEADER_LEN, largest_block(page_size));
    size.next_multiple_of(FRAME_ALIGNMENT)
}

/// The number of blocks that holds this many frames.
fn nearest_blocks(frame_nr: u32, frames_per_block: u32) -> u32 {
    frame_nr.div_ceil(frames_per_block).max(1)
}

/// The page size here, in bytes.
fn page_size() -> u32 {
    // SAFETY: sysconf touches no memory of ours.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    u32::try_from(size).expect("Linux has a page size")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PAGE: u32 = 4096;

    /// Any three numbers, those near what is legal more often.
    fn numbers() -> impl Strategy<Value = (u32, u32, u32)> {
        let block = prop_oneof![
            4 => (1..64_u32).prop_map(|pages| pages * PAGE),
            1 => 1..64 * PAGE,
            1 => any::<u32>(),
        ];
        let count = prop_oneof![8 => 1..64_u32, 1 => any::<u32>(), 1 => Just(0)];
        let frame = prop_oneof![
            4 => (6..1000_u32).prop_map(|words| words * 4),
            2 => (1..64_u32).prop_map(|pages| pages * PAGE),
            1 => any::<u32>(),
        ];
        (block, count, frame)
    }

    proptest! {
        /// abi.md: frame i lies in block i / frames_per_block at (i % frames_per_block) *
        /// nm_frame_size, with frames_per_block = nm_block_size / nm_frame_size.
        #[test]
        fn a_frame_lies_where_the_contract_says_and_in_one_block(
            (block, count, frame) in numbers(),
            index: proptest::sample::Index,
        ) {
            let Ok(shape) = Geometry::with_page_size(block, count, frame, PAGE) else {
                return Ok(());
            };
            let (block, count, frame) = (u64::from(block), u64::from(count), u64::from(frame));
            let per_block = block / frame;
            prop_assert_eq!(u64::from(shape.frame_nr()), per_block * count);
            let last = u64::from(shape.frame_nr()) - 1;
            for i in [0, last, index.index(shape.frame_nr() as usize) as u64] {
                let begin = shape.frame_offset(i as u32) as u64;
                prop_assert_eq!(begin, i / per_block * block + i % per_block * frame);
                prop_assert_eq!(begin / block, (begin + frame - 1) / block, "it straddles");
                prop_assert!(begin + frame <= shape.mapping_len() as u64);
                prop_assert_eq!(begin % u64::from(FRAME_ALIGNMENT), 0);
                let place = shape.place(i as u32);
                prop_assert_eq!((shape.index(place), place.offset() as u64), (i as u32, begin));
                let mut next = place;
                shape.advance(&mut next);
                prop_assert_eq!(next, shape.place(((i + 1) % (last + 1)) as u32));
            }
        }

        /// What is refused can be had after following the advice, at most once a number.
        #[test]
        fn a_refusal_names_what_can_be_had((block, count, frame) in numbers()) {
            let (mut block, mut count, mut frame) = (block, count, frame);
            for _ in 0..4 {
                match Geometry::with_page_size(block, count, frame, PAGE) {
                    Ok(_) => return Ok(()),
                    Err(GeometryError::NoBlocks) => count = 1,
                    Err(GeometryError::BlockSize { .. }) => block = nearest_block(block, PAGE),
                    Err(GeometryError::FrameSize { .. }) => frame = nearest_frame(frame, PAGE),
                    Err(GeometryError::FrameLargerThanBlock { .. }) => {
                        block = nearest_block(frame, PAGE);
                    }
                    Err(GeometryError::TooLarge { most, .. }) => count = most,
                    Err(error) => prop_assert!(false, "{}", error),
                }
            }
            prop_assert!(Geometry::with_page_size(block, count, frame, PAGE).is_ok());
        }

        #[test]
        fn so_many_frames_can_be_had_as_are_advised(
            (block, count, frame) in numbers(),
            wanted in 0..100_000_u32,
        ) {
            let Ok(shape) = Geometry::with_page_size(block, count, frame, PAGE) else {
                return Ok(());
            };
            let blocks = nearest_blocks(wanted, shape.frames_per_block);
            let nearest = Geometry::with_page_size(block, blocks, frame, PAGE);
            if let Ok(nearest) = nearest {
                prop_assert!(nearest.frame_nr() >= wanted);
                prop_assert!(nearest.frame_nr() - wanted <= shape.frames_per_block);
            }
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
        for frame_size in [0, 20, 23, 25, 2047, 1 << 31, u32::MAX - 3] {
            assert_eq!(
                refused(PAGE, 1, frame_size),
                GeometryError::FrameSize {
                    frame_size,
                    page_size: PAGE
                }
            );
        }
        assert_eq!(
            refused(PAGE, 1, PAGE + 4),
            GeometryError::FrameLargerThanBlock {
                frame_size: PAGE + 4,
                block_size: PAGE,
                page_size: PAGE
            }
        );
        // 4096 / 24 = 170 frames a block: 170 << 25 does not fit 32 bits.
        assert_eq!(
            refused(PAGE, 1 << 25, 24),
            GeometryError::TooLarge {
                block_nr: 1 << 25,
                block_size: PAGE,
                most: u32::MAX / 170
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
