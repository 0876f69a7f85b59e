// SPDX-License-Identifier: MIT OR Apache-2.0
//! What goes over `setsockopt` and comes back over `getsockopt`.

use std::ops::BitOr;

use crate::Geometry;
use crate::abi::{EXTENDED_REQUEST_LEN, REQUEST_LEN};

/// `nm_flags`: what a ring promises beyond the feature of old.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Flags(u32);

impl Flags {
    /// Frames in allocation order, no groups: the ring of old.
    pub const NONE: Self = Self(0);
    /// `NL_MMAP_RING_ORDERED`: frames stand in exactly the order of sending.
    pub const ORDERED: Self = Self(1 << 0);
    /// `NL_MMAP_RING_MULTICAST`: the socket may join groups.
    pub const MULTICAST: Self = Self(1 << 1);

    /// The word that the kernel sees.
    #[must_use]
    pub const fn bits(self) -> u32 {
        self.0
    }

    /// Any word, known to this library or not.
    #[must_use]
    pub const fn from_bits(bits: u32) -> Self {
        Self(bits)
    }

    /// Whether all of `other` is in here.
    #[must_use]
    pub const fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// `struct nl_mmap_req_ext`, in the kernel's order of fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Request {
    /// `nm_block_size`, in bytes.
    pub block_size: u32,
    /// `nm_block_nr`; 0 tears the ring down, and says "no ring" when read.
    pub block_nr: u32,
    /// `nm_frame_size`, in bytes, header included.
    pub frame_size: u32,
    /// `nm_frame_nr`.
    pub frame_nr: u32,
    /// `nm_flags`.
    pub flags: Flags,
}

/// A [`Request`] as the kernel reads it.
pub(crate) struct Encoded {
    bytes: [u8; EXTENDED_REQUEST_LEN],
    len: usize,
}

impl AsRef<[u8]> for Encoded {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Request {
    /// The request that sets up a ring of this shape.
    #[must_use]
    pub const fn new(geometry: &Geometry, flags: Flags) -> Self {
        Self {
            block_size: geometry.block_size(),
            block_nr: geometry.block_nr(),
            frame_size: geometry.frame_size(),
            frame_nr: geometry.frame_nr(),
            flags,
        }
    }

    /// Without flags the 16 bytes of old, which every kernel that ever had rings understands.
    pub(crate) fn encode(&self) -> Encoded {
        let words = [
            self.block_size,
            self.block_nr,
            self.frame_size,
            self.frame_nr,
            self.flags.bits(),
        ];
        let mut bytes = [0; EXTENDED_REQUEST_LEN];
        for (place, word) in bytes.chunks_exact_mut(4).zip(words) {
            place.copy_from_slice(&word.to_ne_bytes());
        }
        let len = if self.flags == Flags::NONE {
            REQUEST_LEN
        } else {
            EXTENDED_REQUEST_LEN
        };
        Encoded { bytes, len }
    }

    pub(crate) fn decode(bytes: &[u8; EXTENDED_REQUEST_LEN]) -> Self {
        let mut words = bytes
            .chunks_exact(4)
            .map(|word| u32::from_ne_bytes(word.try_into().expect("four bytes")));
        let mut word = || words.next().expect("five words");
        Self {
            block_size: word(),
            block_nr: word(),
            frame_size: word(),
            frame_nr: word(),
            flags: Flags::from_bits(word()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_request_of_old_has_sixteen_bytes_and_a_flag_makes_it_twenty() {
        let geometry = Geometry::for_messages(4072, 16).unwrap();
        let old = Request::new(&geometry, Flags::NONE);
        assert_eq!(old.encode().as_ref().len(), 16);
        let new = Request::new(&geometry, Flags::ORDERED | Flags::MULTICAST);
        let encoded = new.encode();
        assert_eq!(encoded.as_ref().len(), 20);
        assert_eq!(Request::decode(&encoded.bytes), new);
        assert!(new.flags.contains(Flags::ORDERED));
        assert!(!old.flags.contains(Flags::ORDERED));
    }
}
