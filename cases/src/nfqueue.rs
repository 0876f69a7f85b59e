// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages of `nfnetlink_queue` (`include/uapi/linux/netfilter/nfnetlink_queue.h`).
//!
//! Written here because `netlink-packet-netfilter` 0.4 speaks nflog, nftables and conntrack, and not
//! nfqueue; and because a consumer of a ring reads the payload where it lies, without a copy.

use std::ops::BitOr;

/// `NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET`.
const PACKET: u16 = 3 << 8;
/// `NFQNL_MSG_VERDICT`.
const VERDICT: u16 = 3 << 8 | 1;
/// `NFQNL_MSG_CONFIG`.
const CONFIG: u16 = 3 << 8 | 2;
/// `NFQNL_MSG_VERDICT_BATCH`.
const VERDICT_BATCH: u16 = 3 << 8 | 3;

const NLMSG_ERROR: u16 = 2;
const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct nfgenmsg`.
const NFGENMSG: usize = 4;

const NFQA_PACKET_HDR: u16 = 1;
const NFQA_VERDICT_HDR: u16 = 2;
const NFQA_PAYLOAD: u16 = 10;
const NFQA_CFG_CMD: u16 = 1;
const NFQA_CFG_PARAMS: u16 = 2;
const NFQA_CFG_QUEUE_MAXLEN: u16 = 3;
const NFQA_CFG_MASK: u16 = 4;
const NFQA_CFG_FLAGS: u16 = 5;
const NFQNL_CFG_CMD_BIND: u8 = 1;
const NFQNL_COPY_PACKET: u8 = 2;

/// `NFQA_CFG_F_*`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueFlags(u32);

impl QueueFlags {
    pub(crate) const NONE: Self = Self(0);
    /// Let packets pass for which there is no room.
    pub(crate) const FAIL_OPEN: Self = Self(1 << 0);
    /// Show large packets whole, before they are cut into segments.
    pub(crate) const GSO: Self = Self(1 << 2);
}

impl BitOr for QueueFlags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// What becomes of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// `NF_DROP`.
    Drop = 0,
    /// `NF_ACCEPT`.
    Accept = 1,
}

/// A message from the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Message<'a> {
    /// A packet that waits for its verdict.
    Packet {
        /// Its id in the queue.
        id: u32,
        /// The packet, from its IP header on.
        payload: &'a [u8],
    },
    /// The answer to a request: 0, or the error number.
    Answer {
        /// The sequence number of the request.
        sequence: u32,
        /// The error, 0 for none.
        errno: i32,
    },
}

impl<'a> Message<'a> {
    /// Reads one netlink message.
    pub(crate) fn read(bytes: &'a [u8]) -> anyhow::Result<Self> {
        let header = bytes.first_chunk::<HEADER>();
        let header = header
            .ok_or_else(|| anyhow::anyhow!("a message of {} bytes has no header", bytes.len()))?;
        let len = u32::from_ne_bytes(header[0..4].try_into()?) as usize;
        anyhow::ensure!(
            len == bytes.len(),
            "a message of {} bytes says it has {len}",
            bytes.len()
        );
        match u16::from_ne_bytes(header[4..6].try_into()?) {
            NLMSG_ERROR => {
                let errno = bytes
                    .get(HEADER..HEADER + 4)
                    .ok_or_else(|| anyhow::anyhow!("an answer without an error number"))?;
                Ok(Self::Answer {
                    sequence: u32::from_ne_bytes(header[8..12].try_into()?),
                    errno: -i32::from_ne_bytes(errno.try_into()?),
                })
            }
            PACKET => Self::packet(&bytes[HEADER..]),
            other => anyhow::bail!("a message of type {other:#x}, which was not asked for"),
        }
    }

    fn packet(body: &'a [u8]) -> anyhow::Result<Self> {
        let mut id = None;
        let mut payload = None;
        let mut rest = body.get(NFGENMSG..).unwrap_or_default();
        while let Some(attribute) = Attribute::first_of(rest)? {
            let Attribute {
                kind,
                value,
                behind,
            } = attribute;
            match kind {
                NFQA_PACKET_HDR => id = value.first_chunk().map(|id| u32::from_be_bytes(*id)),
                NFQA_PAYLOAD => payload = Some(value),
                _ => {}
            }
            rest = behind;
        }
        Ok(Self::Packet {
            id: id.ok_or_else(|| anyhow::anyhow!("a packet without an id"))?,
            payload: payload.ok_or_else(|| anyhow::anyhow!("a packet without its payload"))?,
        })
    }
}

/// An attribute, and what lies behind it.
struct Attribute<'a> {
    kind: u16,
    value: &'a [u8],
    behind: &'a [u8],
}

impl<'a> Attribute<'a> {
    fn first_of(bytes: &'a [u8]) -> anyhow::Result<Option<Self>> {
        let Some(header) = bytes.first_chunk::<4>() else {
            return Ok(None);
        };
        let len = usize::from(u16::from_ne_bytes([header[0], header[1]]));
        let kind = u16::from_ne_bytes([header[2], header[3]]) & 0x3fff;
        let value = bytes
            .get(4..len)
            .ok_or_else(|| anyhow::anyhow!("attribute {kind} of {len} bytes is cut off"))?;
        let behind = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
        Ok(Some(Self {
            kind,
            value,
            behind,
        }))
    }
}

/// What a UDP packet carries behind its IPv4 and UDP headers; `None` for another protocol.
pub(crate) fn udp_payload(packet: &[u8]) -> Option<&[u8]> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    if *packet.get(9)? != 17 {
        return None;
    }
    packet.get(header + 8..)
}

/// Binds a queue: whole packets, at most `waiting` of them without a verdict.
pub(crate) fn bind(sequence: u32, queue: u16, waiting: u32, flags: QueueFlags) -> Vec<u8> {
    let mut message = begin(CONFIG, NLM_F_REQUEST | NLM_F_ACK, sequence, queue);
    put(&mut message, NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, 0, 0]);
    let mut params = 0xffff_u32.to_be_bytes().to_vec();
    params.push(NFQNL_COPY_PACKET);
    put(&mut message, NFQA_CFG_PARAMS, &params);
    put(&mut message, NFQA_CFG_QUEUE_MAXLEN, &waiting.to_be_bytes());
    put(&mut message, NFQA_CFG_FLAGS, &flags.0.to_be_bytes());
    put(&mut message, NFQA_CFG_MASK, &flags.0.to_be_bytes());
    end(message)
}

/// The verdict on one packet.
pub(crate) fn verdict(queue: u16, id: u32, verdict: Verdict) -> Vec<u8> {
    verdict_message(VERDICT, queue, id, verdict)
}

/// The verdict on every waiting packet up to this id.
pub(crate) fn verdict_up_to(queue: u16, id: u32, verdict: Verdict) -> Vec<u8> {
    verdict_message(VERDICT_BATCH, queue, id, verdict)
}

fn verdict_message(kind: u16, queue: u16, id: u32, verdict: Verdict) -> Vec<u8> {
    let mut message = begin(kind, NLM_F_REQUEST, 0, queue);
    let mut header = (verdict as u32).to_be_bytes().to_vec();
    header.extend(id.to_be_bytes());
    put(&mut message, NFQA_VERDICT_HDR, &header);
    end(message)
}

fn begin(kind: u16, flags: u16, sequence: u32, queue: u16) -> Vec<u8> {
    let mut message = Vec::with_capacity(96);
    message.extend([0; 4]); // the length, at the end
    message.extend(kind.to_ne_bytes());
    message.extend(flags.to_ne_bytes());
    message.extend(sequence.to_ne_bytes());
    message.extend([0; 4]); // to be filled by the kernel
    message.extend([libc::AF_UNSPEC as u8, 0]); // NFNETLINK_V0
    message.extend(queue.to_be_bytes());
    message
}

fn put(message: &mut Vec<u8>, kind: u16, value: &[u8]) {
    message.extend((value.len() as u16 + 4).to_ne_bytes());
    message.extend(kind.to_ne_bytes());
    message.extend(value);
    message.resize(message.len().next_multiple_of(4), 0);
}

fn end(mut message: Vec<u8>) -> Vec<u8> {
    let len = message.len() as u32;
    message[..4].copy_from_slice(&len.to_ne_bytes());
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_message_is_read_in_place() {
        let mut message = begin(PACKET, 0, 0, 7);
        put(&mut message, NFQA_PACKET_HDR, &[0, 0, 1, 2, 8, 0, 3]);
        put(&mut message, NFQA_PAYLOAD, b"packet");
        let message = end(message);
        let read = Message::read(&message).unwrap();
        let id = 0x102;
        let payload = &b"packet"[..];
        assert_eq!(read, Message::Packet { id, payload });
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let mut message = begin(PACKET, 0, 0, 7);
        put(&mut message, NFQA_PACKET_HDR, &[0, 0, 1, 2, 8, 0, 3]);
        put(&mut message, NFQA_PAYLOAD, b"packet!!");
        let message = end(message);
        for len in 0..message.len() {
            assert!(Message::read(&message[..len]).is_err(), "{len}");
            if len >= HEADER {
                assert!(Message::read(&end(message[..len].to_vec())).is_err());
            }
        }
    }

    #[test]
    fn the_payload_of_udp_alone_is_found() {
        let mut packet = vec![0x45; 28];
        packet[9] = 17;
        packet.extend(b"data");
        assert_eq!(udp_payload(&packet), Some(&b"data"[..]));
        packet[9] = 6;
        assert_eq!(udp_payload(&packet), None);
        assert_eq!(udp_payload(&[]), None);
    }
}
