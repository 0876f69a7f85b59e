// SPDX-License-Identifier: MIT OR Apache-2.0
//! Netlink messages and their attributes, by the bytes: `netlink-packet-core` knows how they are laid
//! out. The messages of its siblings are owned trees; what lies in a frame is read where it lies.

use anyhow::Context as _;
use netlink_packet_core::{
    DefaultNla, Emitable as _, ErrorBuffer, NLA_F_NESTED, NetlinkBuffer, NetlinkHeader,
    NetlinkMessage, NetlinkPayload, NetlinkSerializable, NlaBuffer, NlasIterator,
};
pub(crate) use netlink_packet_core::{
    NLA_HEADER_SIZE, NLM_F_ACK as ACK, NLM_F_CREATE as CREATE, NLM_F_DUMP as DUMP,
    NLM_F_EXCL as EXCL, NLM_F_REPLACE as REPLACE, NLM_F_REQUEST as REQUEST, NLMSG_DONE as DONE,
    NLMSG_ERROR as ERROR, NLMSG_NOOP as NOOP,
};

/// A message that is being written.
#[derive(Debug)]
pub(crate) struct Writer {
    header: NetlinkHeader,
    body: Body,
}

/// What stands behind the header, and the type that the header has for it.
#[derive(Debug, Default)]
struct Body {
    kind: u16,
    bytes: Vec<u8>,
}

impl NetlinkSerializable for Body {
    fn message_type(&self) -> u16 {
        self.kind
    }

    fn buffer_len(&self) -> usize {
        self.bytes.len()
    }

    fn serialize(&self, buffer: &mut [u8]) {
        buffer.copy_from_slice(&self.bytes);
    }
}

impl Writer {
    /// Begins a request of this type, with flags beside `NLM_F_REQUEST`.
    pub(crate) fn request(kind: u16, flags: u16, sequence: u32) -> Self {
        let mut header = NetlinkHeader::default();
        header.flags = REQUEST | flags;
        header.sequence_number = sequence;
        let bytes = Vec::with_capacity(96);
        let body = Body { kind, bytes };
        Self { header, body }
    }

    /// The family's own header, or whatever stands before the attributes.
    pub(crate) fn with(mut self, bytes: &[u8]) -> Self {
        let body = &mut self.body.bytes;
        body.extend(bytes);
        body.resize(body.len().next_multiple_of(4), 0);
        self
    }

    /// An attribute.
    pub(crate) fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        let attribute = DefaultNla::new(kind, value.to_vec());
        let begin = self.body.bytes.len();
        self.body.bytes.resize(begin + attribute.buffer_len(), 0);
        attribute.emit(&mut self.body.bytes[begin..]);
        self
    }

    /// An attribute made of attributes.
    pub(crate) fn nested(self, kind: u16, write: impl FnOnce(Self) -> Self) -> Self {
        let inner = write(Self {
            header: NetlinkHeader::default(),
            body: Body::default(),
        });
        self.attribute(kind | NLA_F_NESTED, &inner.body.bytes)
    }

    /// The whole message.
    pub(crate) fn end(self) -> Vec<u8> {
        let payload = NetlinkPayload::InnerMessage(self.body);
        let mut message = NetlinkMessage::new(self.header, payload);
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }
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
        let buffer = NetlinkBuffer::new_checked(bytes)?;
        let message = Self {
            kind: buffer.message_type(),
            sequence: buffer.sequence_number(),
            body: buffer.payload(),
        };
        let end = (buffer.length() as usize).next_multiple_of(4);
        Ok((message, bytes.get(end..).unwrap_or_default()))
    }

    /// The error number that an answer or the end of a dump carries, 0 for none.
    pub(crate) fn errno(&self) -> anyhow::Result<i32> {
        let error = ErrorBuffer::new_checked(self.body).context("an answer without an error")?;
        Ok(error.code().map_or(0, |code| -code.get()))
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
pub(crate) fn attributes(bytes: &[u8]) -> impl Iterator<Item = anyhow::Result<(u16, &[u8])>> {
    NlasIterator::new(bytes).map(|attribute| {
        let attribute: NlaBuffer<&[u8]> = attribute?;
        let (kind, len) = (attribute.kind(), usize::from(attribute.length()));
        // `value()` lends the buffer's own copy of the reference, which ends with it.
        Ok((kind, &attribute.into_inner()[NLA_HEADER_SIZE..len]))
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
