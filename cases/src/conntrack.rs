// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages of ctnetlink (`include/uapi/linux/netfilter/nfnetlink_conntrack.h`).

use anyhow::Context as _;
use nlring::Socket;

use crate::message::{ACK, CREATE, DUMP, EXCL, Message, Writer};
use crate::peers;

/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_NEW`.
const NEW: u16 = 1 << 8;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_GET`.
const GET: u16 = 1 << 8 | 1;
/// `NFNL_SUBSYS_CTNETLINK << 8 | IPCTNL_MSG_CT_DELETE`; without a tuple it means all.
const DELETE: u16 = 1 << 8 | 2;
/// `NFNLGRP_CONNTRACK_NEW`.
pub(crate) const NEW_GROUP: u32 = 1;
/// `NFNLGRP_CONNTRACK_DESTROY`.
pub(crate) const DESTROY_GROUP: u32 = 3;
/// `CTA_TUPLE_ORIG`.
const TUPLE_ORIG: u16 = 1;
/// `CTA_TUPLE_REPLY`.
const TUPLE_REPLY: u16 = 2;
/// `CTA_TIMEOUT`.
const TIMEOUT: u16 = 7;
/// `struct nfgenmsg` of IPv4.
const NFGENMSG: [u8; 4] = [libc::AF_INET as u8, 0, 0, 0];

/// Asks for all connections.
pub(crate) fn dump(sequence: u32) -> Vec<u8> {
    Writer::request(GET, DUMP, sequence).with(&NFGENMSG).end()
}

/// Makes a UDP connection of this number, which nobody else has.
fn make_one(number: u16, flags: u16) -> Vec<u8> {
    let tuple = |writer: Writer, source: (u8, u16), destination: (u8, u16)| {
        writer
            .nested(1, |ip| {
                ip.attribute(1, &[192, 0, 2, source.0])
                    .attribute(2, &[192, 0, 2, destination.0])
            })
            .nested(2, |protocol| {
                protocol
                    .attribute(1, &[libc::IPPROTO_UDP as u8])
                    .attribute(2, &source.1.to_be_bytes())
                    .attribute(3, &destination.1.to_be_bytes())
            })
    };
    let (here, there) = ((1, number), (2, 53));
    Writer::request(NEW, CREATE | EXCL | flags, number.into())
        .with(&NFGENMSG)
        .nested(TUPLE_ORIG, |writer| tuple(writer, here, there))
        .nested(TUPLE_REPLY, |writer| tuple(writer, there, here))
        .attribute(TIMEOUT, &3600_u32.to_be_bytes())
        .end()
}

/// Makes connections of these numbers, after all that there are have gone.
pub(crate) fn make(numbers: std::ops::Range<u16>) -> anyhow::Result<()> {
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let order = |request: &[u8]| {
        socket.send(request)?;
        let answer = peers::receive(&socket)?;
        match Message::read(&answer)?.errno()? {
            0 => Ok(()),
            errno => Err(anyhow::Error::from(std::io::Error::from_raw_os_error(
                errno,
            ))),
        }
    };
    let all = Writer::request(DELETE, ACK, 0).with(&NFGENMSG).end();
    order(&all).context("connections cannot be deleted")?;
    for number in numbers {
        order(&make_one(number, ACK)).with_context(|| format!("connection {number} is refused"))?;
    }
    Ok(())
}

/// What tells a connection from all others: its first tuple.
pub(crate) fn identity(message: &Message<'_>) -> Vec<u8> {
    let tuple = message.attribute(NFGENMSG.len(), TUPLE_ORIG);
    tuple.ok().flatten().unwrap_or_default().to_vec()
}
