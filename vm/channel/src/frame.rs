// SPDX-License-Identifier: MIT OR Apache-2.0
//! Framing: magic, length, checksum, JSON body.
//!
//! The port can lose bytes (before the other end opens it, after a restore) and carries nothing that
//! tells where a message starts, so a reader that meets garbage looks for the next magic and goes on.

use std::io::{self, Write};

use serde::{Serialize, de::DeserializeOwned};

const MAGIC: [u8; 4] = *b"nlR\x01";
const HEADER: usize = 12;

/// Largest body that is written or believed, in bytes.
pub const MAX_BODY: usize = 1 << 20;

/// What can be wrong with a frame whose body arrived whole.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The checksum is right and the body is still no message of this protocol: the other end is of
    /// another version.
    #[error(
        "cannot understand a message of {length} bytes: {source}; are guest and harness of one version?"
    )]
    Foreign {
        /// Body length, in bytes.
        length: usize,
        /// What the decoder said.
        source: serde_json::Error,
    },
}

/// Writes `message` as one frame, in one call.
///
/// # Errors
/// What the writer says; `InvalidData` for a body above [`MAX_BODY`].
pub fn write_frame(writer: &mut impl Write, message: &impl Serialize) -> io::Result<()> {
    let body = serde_json::to_vec(message)?;
    if body.len() > MAX_BODY {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("message of {} bytes, limit {MAX_BODY}", body.len()),
        ));
    }
    let mut frame = Vec::with_capacity(HEADER + body.len());
    frame.extend_from_slice(&MAGIC);
    frame.extend_from_slice(&(body.len() as u32).to_le_bytes());
    frame.extend_from_slice(&crc32fast::hash(&body).to_le_bytes());
    frame.extend_from_slice(&body);
    writer.write_all(&frame)?;
    writer.flush()
}

/// Takes bytes as they come and gives messages as they complete.
#[derive(Debug, Default)]
pub struct FrameReader {
    buffer: Vec<u8>,
    discarded: usize,
}

impl FrameReader {
    /// Adds bytes received.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Bytes thrown away so far because they belonged to no frame.
    #[must_use]
    pub fn discarded(&self) -> usize {
        self.discarded
    }

    /// The next message, or `None` until more bytes come. Damaged frames are skipped.
    ///
    /// # Errors
    /// [`FrameError::Foreign`] for an intact frame that is no message; it is consumed.
    pub fn next_message<M: DeserializeOwned>(&mut self) -> Result<Option<M>, FrameError> {
        while let Some((length, checksum)) = self.align() {
            let Some(body) = self.buffer.get(HEADER..HEADER + length) else {
                return Ok(None);
            };
            if crc32fast::hash(body) != checksum {
                self.discard(1);
                continue;
            }
            let message = serde_json::from_slice(body);
            self.buffer.drain(..HEADER + length);
            return message
                .map(Some)
                .map_err(|source| FrameError::Foreign { length, source });
        }
        Ok(None)
    }

    /// Brings a believable header to the front; its length and checksum.
    fn align(&mut self) -> Option<(usize, u32)> {
        loop {
            let start = self
                .buffer
                .windows(MAGIC.len())
                .position(|window| window == MAGIC);
            let Some(position) = start else {
                self.discard(self.buffer.len().saturating_sub(MAGIC.len() - 1));
                return None;
            };
            self.discard(position);
            let header = self.buffer.get(..HEADER)?;
            let word =
                |at: usize| u32::from_le_bytes(header[at..at + 4].try_into().expect("4 bytes"));
            let (length, checksum) = (word(4) as usize, word(8));
            if length <= MAX_BODY {
                return Some((length, checksum));
            }
            self.discard(1);
        }
    }

    fn discard(&mut self, count: usize) {
        self.buffer.drain(..count);
        self.discarded += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &text).unwrap();
        bytes
    }

    fn drain(reader: &mut FrameReader) -> Vec<String> {
        std::iter::from_fn(|| reader.next_message().unwrap()).collect()
    }

    #[test]
    fn a_message_arrives_however_it_is_cut() {
        let bytes = [frame("one"), frame("two")].concat();
        for cut in 0..=bytes.len() {
            let mut reader = FrameReader::default();
            reader.push(&bytes[..cut]);
            let mut got = drain(&mut reader);
            reader.push(&bytes[cut..]);
            got.extend(drain(&mut reader));
            assert_eq!(got, ["one", "two"], "cut at {cut}");
        }
    }

    #[test]
    fn lost_and_damaged_bytes_cost_only_their_own_message() {
        let good = frame("good");
        for damage in 0..good.len() {
            let mut flipped = good.clone();
            flipped[damage] ^= 0x40;
            let mut reader = FrameReader::default();
            reader.push(&flipped);
            // A flipped length can make the reader wait for a body that never comes; what follows
            // must still get through once that many bytes have passed.
            for _ in 0..2 {
                reader.push(&good);
            }
            let mut got = drain(&mut reader);
            while got.is_empty() {
                reader.push(&vec![0; MAX_BODY]);
                got = drain(&mut reader);
            }
            assert!(got.iter().all(|message| message == "good"), "byte {damage}");
        }
        let mut reader = FrameReader::default();
        reader.push(&good[1..]);
        reader.push(&good);
        assert_eq!(drain(&mut reader), ["good"]);
        assert_eq!(reader.discarded(), good.len() - 1);
    }

    #[test]
    fn an_intact_frame_of_another_version_is_named() {
        let mut bytes = Vec::new();
        write_frame(&mut bytes, &7).unwrap();
        let mut reader = FrameReader::default();
        reader.push(&bytes);
        assert!(matches!(
            reader.next_message::<String>(),
            Err(FrameError::Foreign { length: 1, .. })
        ));
        assert!(matches!(reader.next_message::<String>(), Ok(None)));
    }

    #[test]
    fn a_message_above_the_limit_is_not_written() {
        let mut bytes = Vec::new();
        assert!(write_frame(&mut bytes, &"x".repeat(MAX_BODY)).is_err());
        assert!(bytes.is_empty());
    }
}
