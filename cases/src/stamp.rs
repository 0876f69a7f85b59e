// SPDX-License-Identifier: MIT OR Apache-2.0
//! What every datagram carries, so that a lost, doubled or garbled one is noticed.

/// The stamp at the head of a payload; the rest of the payload follows from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Stamp {
    /// Which flow sent it.
    pub flow: u32,
    /// Its number in the flow, from 0.
    pub sequence: u32,
}

/// Bytes of the smallest payload: flow, sequence, length, checksum.
pub(crate) const SMALLEST: usize = 16;

impl Stamp {
    /// A payload of `len` bytes, all of them under the checksum.
    pub(crate) fn payload(self, len: usize) -> Vec<u8> {
        assert!(len >= SMALLEST, "no room for a stamp in {len} bytes");
        let mut payload = Vec::with_capacity(len);
        payload.extend(self.flow.to_be_bytes());
        payload.extend(self.sequence.to_be_bytes());
        payload.extend((len as u32).to_be_bytes());
        payload.extend([0; 4]);
        // Neighbouring messages differ in every byte, so that a mixture of two cannot look sound.
        let filler = (self.flow.wrapping_mul(31) + self.sequence.wrapping_mul(7)) as u8;
        payload.resize(len, filler);
        let checksum = crc32fast::hash(&payload);
        payload[12..16].copy_from_slice(&checksum.to_be_bytes());
        payload
    }

    /// The stamp of a payload, or what is wrong with it.
    pub(crate) fn read(payload: &[u8]) -> anyhow::Result<Self> {
        let word = |index: usize| -> anyhow::Result<u32> {
            let bytes = payload.get(4 * index..4 * index + 4);
            let bytes = bytes.ok_or_else(|| {
                anyhow::anyhow!("a payload of {} bytes has no stamp", payload.len())
            })?;
            Ok(u32::from_be_bytes(bytes.try_into()?))
        };
        let stamp = Self {
            flow: word(0)?,
            sequence: word(1)?,
        };
        anyhow::ensure!(
            word(2)? as usize == payload.len(),
            "{stamp:?} was sent with {} bytes and has {}",
            word(2)?,
            payload.len()
        );
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(&payload[..12]);
        hasher.update(&[0; 4]);
        hasher.update(&payload[SMALLEST..]);
        anyhow::ensure!(
            hasher.finalize() == word(3)?,
            "{stamp:?} of {} bytes was garbled on its way",
            payload.len()
        );
        Ok(stamp)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_and_any_other_byte_is_noticed() {
        let stamp = Stamp {
            flow: 3,
            sequence: 70_000,
        };
        for len in [SMALLEST, 17, 100, 60_000] {
            let mut payload = stamp.payload(len);
            assert_eq!(Stamp::read(&payload).unwrap(), stamp);
            for at in [0, 5, 9, 13, len - 1] {
                payload[at] ^= 1;
                assert!(Stamp::read(&payload).is_err(), "byte {at} of {len}");
                payload[at] ^= 1;
            }
            assert!(Stamp::read(&payload[..len - 1]).is_err());
        }
        assert!(Stamp::read(&[]).is_err());
    }
}
