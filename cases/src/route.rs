// SPDX-License-Identifier: MIT OR Apache-2.0
//! Requests of rtnetlink (`include/uapi/linux/rtnetlink.h`), and routes to be dumped.

use std::net::Ipv4Addr;

use nlring::Socket;

use crate::message::{ACK, CREATE, DUMP, REPLACE, Writer};

/// `RTM_GETLINK`.
pub(crate) const GETLINK: u16 = 18;
/// `RTM_GETADDR`.
const GETADDR: u16 = 22;
/// `RTM_NEWROUTE`.
const NEWROUTE: u16 = 24;
/// `RTM_GETROUTE`.
const GETROUTE: u16 = 26;
/// `IFLA_EXT_MASK`.
const IFLA_EXT_MASK: u16 = 29;
/// `RTEXT_FILTER_SKIP_STATS`: what is counted changes from dump to dump.
const SKIP_STATS: u32 = 1 << 3;
/// `struct ifinfomsg`.
const IFINFOMSG: usize = 16;

/// Asks for all routes of IPv4.
pub(crate) fn dump_routes(sequence: u32) -> Vec<u8> {
    let mut rtmsg = [0; 12];
    rtmsg[0] = libc::AF_INET as u8;
    Writer::request(GETROUTE, DUMP, sequence).with(&rtmsg).end()
}

/// Asks for all links, without what is counted.
pub(crate) fn dump_links(sequence: u32) -> Vec<u8> {
    Writer::request(GETLINK, DUMP, sequence)
        .with(&[0; IFINFOMSG])
        .attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes())
        .end()
}

/// Asks for all addresses.
pub(crate) fn dump_addresses(sequence: u32) -> Vec<u8> {
    Writer::request(GETADDR, DUMP, sequence).with(&[0; 8]).end()
}

/// Asks for one link by its number, without what is counted.
pub(crate) fn get_link(sequence: u32, index: i32) -> Vec<u8> {
    let mut ifinfomsg = [0; IFINFOMSG];
    ifinfomsg[4..8].copy_from_slice(&index.to_ne_bytes());
    Writer::request(GETLINK, 0, sequence)
        .with(&ifinfomsg)
        .attribute(IFLA_EXT_MASK, &SKIP_STATS.to_ne_bytes())
        .end()
}

/// Makes this many routes, to places where nothing is. Those that are there already stay.
pub(crate) fn make(count: u32) -> anyhow::Result<()> {
    const MAIN: u8 = 254;
    const STATIC: u8 = 4;
    const BLACKHOLE: u8 = 6;
    const RTA_DST: u16 = 1;
    const AT_ONCE: u32 = 500;
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    let first = u32::from(Ipv4Addr::new(172, 16, 0, 0));
    let route = |number: u32, flags: u16| {
        let rtmsg = [libc::AF_INET as u8, 32, 0, 0, MAIN, STATIC, 0, BLACKHOLE];
        Writer::request(NEWROUTE, CREATE | REPLACE | flags, number)
            .with(&[&rtmsg[..], &[0; 4]].concat())
            .attribute(RTA_DST, &(first + number).to_be_bytes())
            .end()
    };
    for begin in (0..count).step_by(AT_ONCE as usize) {
        let end = count.min(begin + AT_ONCE);
        // The last is acknowledged, and with it all before.
        let messages = (begin..end).flat_map(|number| {
            let flags = if number + 1 == end { ACK } else { 0 };
            route(number, flags)
        });
        socket.send(&messages.collect::<Vec<u8>>())?;
        let answer = crate::peers::receive(&socket)?;
        let errno = crate::message::Message::read(&answer)?.errno()?;
        let error = std::io::Error::from_raw_os_error(errno);
        anyhow::ensure!(errno == 0, "a route is refused: {error}");
    }
    Ok(())
}
