// SPDX-License-Identifier: MIT OR Apache-2.0
//! Netlink messages and their attributes (`include/uapi/linux/netlink.h`), written and read.

/// `struct nlmsghdr`.
pub(crate) const HEADER: usize = 16;
/// `NLMSG_NOOP`.
pub(crate) const NOOP: u16 = 1;
/// `NLMSG_ERROR`.
pub(crate) const ERROR: u16 = 2;
/// `NLMSG_DONE`.
pub(crate) const DONE: u16 = 3;
/// `NLM_F_REQUEST`.
pub(crate) const REQUEST: u16 = 1;
/// `NLM_F_ACK`.
pub(crate) const ACK: u16 = 4;
/// `NLM_F_DUMP`.
pub(crate) const DUMP: u16 = 0x300;
/// `NLM_F_EXCL`.
pub(crate) const EXCL: u16 = 0x200;
/// `NLM_F_CREATE`.
pub(crate) const CREATE: u16 = 0x400;
/// `NLA_F_NESTED`.
const NESTED: u16 = 1 << 15;

/// A message that is being written.
#[derive(Debug)]
pub(crate) struct Writer(Vec<u8>);

impl Writer {
    /// Begins a request of this type, with flags beside `NLM_F_REQUEST`.
    pub(crate) fn request(kind: u16, flags: u16, sequence: u32) -> Self {
        let mut bytes = Vec::with_capacity(96);
        bytes.extend([0; 4]); // the length, at the end
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((REQUEST | flags).to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]); // the port id, which the kernel fills
        Self(bytes)
    }

    /// The family's own header, or whatever stands before the attributes.
    pub(crate) fn with(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }

    /// An attribute.
    pub(crate) fn attribute(self, kind: u16, value: &[u8]) -> Self {
        let len = value.len() as u16 + 4;
        self.with(&attribute_header(len, kind)).with(value)
    }

    /// An attribute made of attributes.
    pub(crate) fn nested(mut self, kind: u16, write: impl FnOnce(Self) -> Self) -> Self {
        let begin = self.0.len();
        self = write(self.with(&[0; 4]));
        let len = (self.0.len() - begin) as u16;
        self.0[begin..begin + 4].copy_from_slice(&attribute_header(len, kind | NESTED));
        self
    }

    /// The whole message.
    pub(crate) fn end(mut self) -> Vec<u8> {
        let len = self.0.len() as u32;
        self.0[..4].copy_from_slice(&len.to_ne_bytes());
        self.0
    }
}

/// `struct nlattr`.
fn attribute_header(len: u16, kind: u16) -> [u8; 4] {
    let ([a, b], [c, d]) = (len.to_ne_bytes(), kind.to_ne_bytes());
    [a, b, c, d]
}

/// A request that is answered and does nothing.
pub(crate) fn noop(sequence: u32) -> Vec<u8> {
    Writer::request(NOOP, ACK, sequence).end()
}

/// A message that was received.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// Its type.
    pub kind: u16,
    /// The sequence number of what it answers.
    pub sequence: u32,
    /// What stands behind its header.
    pub body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The messages that a datagram consists of.
    pub(crate) fn read_all(mut bytes: &'a [u8]) -> anyhow::Result<Vec<Self>> {
        let mut messages = Vec::new();
        while !bytes.is_empty() {
            let (message, rest) = Self::first_of(bytes)?;
            messages.push(message);
            bytes = rest;
        }
        Ok(messages)
    }

    /// The one message that a datagram consists of.
    pub(crate) fn read(bytes: &'a [u8]) -> anyhow::Result<Self> {
        let (message, rest) = Self::first_of(bytes)?;
        anyhow::ensure!(
            rest.is_empty(),
            "a message of {} bytes says it has {}",
            bytes.len(),
            bytes.len() - rest.len()
        );
        Ok(message)
    }

    fn first_of(bytes: &'a [u8]) -> anyhow::Result<(Self, &'a [u8])> {
        let header = bytes.first_chunk::<HEADER>();
        let header = header
            .ok_or_else(|| anyhow::anyhow!("a message of {} bytes has no header", bytes.len()))?;
        let len = u32::from_ne_bytes(header[0..4].try_into()?) as usize;
        let body = bytes.get(HEADER..len).ok_or_else(|| {
            anyhow::anyhow!("a message of {} bytes says it has {len}", bytes.len())
        })?;
        let message = Self {
            kind: u16::from_ne_bytes(header[4..6].try_into()?),
            sequence: u32::from_ne_bytes(header[8..12].try_into()?),
            body,
        };
        let rest = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Ok((message, rest))
    }

    /// The error number that an answer or the end of a dump carries, 0 for none.
    pub(crate) fn errno(&self) -> anyhow::Result<i32> {
        let errno = self.body.first_chunk();
        let errno = errno.ok_or_else(|| anyhow::anyhow!("an answer without an error number"))?;
        Ok(-i32::from_ne_bytes(*errno))
    }

    /// The first attribute of this type behind the family's own header of `skip` bytes.
    pub(crate) fn attribute(&self, skip: usize, kind: u16) -> anyhow::Result<Option<&'a [u8]>> {
        for attribute in attributes(self.body.get(skip..).unwrap_or_default()) {
            let (found, value) = attribute?;
            if found == kind {
                return Ok(Some(value));
            }
        }
        Ok(None)
    }
}

/// Attributes, by type and value.
pub(crate) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = anyhow::Result<(u16, &[u8])>> {
    std::iter::from_fn(move || {
        let header = bytes.first_chunk::<4>()?;
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = bytes.get(4..len);
        bytes = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        if value.is_none() {
            bytes = &[]; // what is cut off is the last
        }
        let cut_off = || anyhow::anyhow!("attribute {kind} of {len} bytes is cut off");
        Some(value.map(|value| (kind, value)).ok_or_else(cut_off))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let message = Writer::request(77, ACK, 5)
            .with(&[1, 2, 3, 4])
            .attribute(1, b"odd")
            .nested(2, |inner| inner.attribute(3, b"four"))
            .end();
        let read = Message::read(&message).unwrap();
        assert_eq!((read.kind, read.sequence), (77, 5));
        assert_eq!(read.attribute(4, 1).unwrap(), Some(&b"odd"[..]));
        let nested = read.attribute(4, 2).unwrap().unwrap();
        let inner: Vec<_> = attributes(nested).map(Result::unwrap).collect();
        assert_eq!(inner, [(3, &b"four"[..])]);
        assert_eq!(read.attribute(4, 9).unwrap(), None);
    }

    #[test]
    fn the_messages_of_a_datagram_are_told_apart() {
        let both = [noop(1), Writer::request(9, 0, 2).with(b"12345").end()].concat();
        let read = Message::read_all(&both).unwrap();
        assert_eq!(read.len(), 2);
        assert_eq!(read[1].body, b"12345\0\0\0");
        assert!(Message::read(&both).is_err());
        for len in 1..both.len() {
            let whole = len == 16;
            assert_eq!(Message::read_all(&both[..len]).is_ok(), whole, "{len}");
        }
    }

    #[test]
    fn an_attribute_that_is_cut_off_is_an_error_and_the_end() {
        let bytes = [8, 0, 1, 0, 1, 1, 1, 1, 12, 0, 2, 0, 1];
        let read: Vec<_> = attributes(&bytes).collect();
        assert_eq!(read.len(), 2);
        assert!(read[0].is_ok() && read[1].is_err());
        assert!(attributes(&[3, 0, 1, 0]).next().unwrap().is_err());
    }
}
