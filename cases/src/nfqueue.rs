// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages of `nfnetlink_queue` (`include/uapi/linux/netfilter/nfnetlink_queue.h`).
//!
//! Written here because `netlink-packet-netfilter` 0.4 speaks nflog, nftables and conntrack, and
//! not nfqueue; and because a consumer of a ring reads the payload where it lies, without a copy.

use std::ops::BitOr;

use crate::message::{self, ACK, Writer};

/// `NFNL_SUBSYS_QUEUE << 8 | NFQNL_MSG_PACKET`.
const PACKET: u16 = 3 << 8;
/// `NFQNL_MSG_VERDICT`.
const VERDICT: u16 = 3 << 8 | 1;
/// `NFQNL_MSG_CONFIG`.
const CONFIG: u16 = 3 << 8 | 2;
/// `NFQNL_MSG_VERDICT_BATCH`.
const VERDICT_BATCH: u16 = 3 << 8 | 3;

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
        let message = message::Message::read(bytes)?;
        match message.kind {
            message::ERROR => Ok(Self::Answer {
                sequence: message.sequence,
                errno: message.errno()?,
            }),
            PACKET => Self::packet(message.body),
            other => anyhow::bail!("a message of type {other:#x}, which was not asked for"),
        }
    }

    fn packet(body: &'a [u8]) -> anyhow::Result<Self> {
        let mut id = None;
        let mut payload = None;
        for attribute in message::attributes(body.get(NFGENMSG..).unwrap_or_default()) {
            match attribute? {
                (NFQA_PACKET_HDR, value) => {
                    id = value.first_chunk().map(|id| u32::from_be_bytes(*id));
                }
                (NFQA_PAYLOAD, value) => payload = Some(value),
                _ => {}
            }
        }
        Ok(Self::Packet {
            id: id.ok_or_else(|| anyhow::anyhow!("a packet without an id"))?,
            payload: payload.ok_or_else(|| anyhow::anyhow!("a packet without its payload"))?,
        })
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
    let mut params = 0xffff_u32.to_be_bytes().to_vec();
    params.push(NFQNL_COPY_PACKET);
    begin(CONFIG, ACK, sequence, queue)
        .attribute(NFQA_CFG_CMD, &[NFQNL_CFG_CMD_BIND, 0, 0, 0])
        .attribute(NFQA_CFG_PARAMS, &params)
        .attribute(NFQA_CFG_QUEUE_MAXLEN, &waiting.to_be_bytes())
        .attribute(NFQA_CFG_FLAGS, &flags.0.to_be_bytes())
        .attribute(NFQA_CFG_MASK, &flags.0.to_be_bytes())
        .end()
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
    let mut header = (verdict as u32).to_be_bytes().to_vec();
    header.extend(id.to_be_bytes());
    let message = begin(kind, 0, 0, queue).attribute(NFQA_VERDICT_HDR, &header);
    message.end()
}

fn begin(kind: u16, flags: u16, sequence: u32, queue: u16) -> Writer {
    let [high, low] = queue.to_be_bytes();
    let nfgenmsg = [libc::AF_UNSPEC as u8, 0, high, low]; // of version NFNETLINK_V0
    Writer::request(kind, flags, sequence).with(&nfgenmsg)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(payload: &[u8]) -> Vec<u8> {
        begin(PACKET, 0, 0, 7)
            .attribute(NFQA_PACKET_HDR, &[0, 0, 1, 2, 8, 0, 3])
            .attribute(NFQA_PAYLOAD, payload)
            .end()
    }

    #[test]
    fn a_packet_message_is_read_in_place() {
        let message = packet(b"packet");
        let read = Message::read(&message).unwrap();
        let id = 0x102;
        let payload = &b"packet"[..];
        assert_eq!(read, Message::Packet { id, payload });
    }

    #[test]
    fn what_is_cut_off_is_an_error() {
        let message = packet(b"packet!!");
        for len in 0..message.len() {
            let mut cut = message[..len].to_vec();
            assert!(Message::read(&cut).is_err(), "{len}");
            if len >= size_of::<libc::nlmsghdr>() {
                cut[..4].copy_from_slice(&(len as u32).to_ne_bytes());
                assert!(Message::read(&cut).is_err(), "{len}");
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
