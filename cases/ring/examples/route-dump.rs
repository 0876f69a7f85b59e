// SPDX-License-Identifier: MIT OR Apache-2.0
//! Dumps the kernel's routes through a ring, in a plain loop.

use std::fmt;

use anyhow::bail;
use clap::Parser;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nlring::{Flags, Geometry, Receiver, Socket};

mod tally;
use tally::Tally;

/// Prints every route of the kernel, and how many there are.
#[derive(Debug, Parser)]
struct Arguments {
    /// Without a ring: parts of the dump by recvmmsg
    #[arg(long)]
    plain: bool,
    /// Only say how many there are
    #[arg(long)]
    quiet: bool,
}

/// A part of the dump fills a frame: four of them in a block of 64 KiB.
const LARGEST: u32 = 16 * 1024 - 24;
const FRAMES: u32 = 16;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    let mut receiver = if arguments.plain {
        socket.plain()
    } else {
        socket.rx_ring(Geometry::for_messages(LARGEST, FRAMES)?, Flags::NONE)?
    };
    receiver.socket().send(&dump_request())?;
    let mut dump = Dump {
        quiet: arguments.quiet,
        ..Dump::default()
    };
    while !dump.is_whole {
        // The kernel makes the next parts as we wait.
        receiver.wait(None)?;
        dump.drain(&mut receiver)?;
    }
    if dump.was_interrupted {
        println!("routes changed meanwhile: some may be missing, or stand here twice");
    }
    println!(
        "{} routes by {:?}; {}",
        dump.routes,
        receiver.path(),
        dump.tally
    );
    Ok(())
}

/// Asks for the routes of all families.
fn dump_request() -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let mut all = RouteMessage::default();
    all.header.address_family = AddressFamily::Unspec;
    let payload = NetlinkPayload::from(RouteNetlinkMessage::GetRoute(all));
    let mut message = NetlinkMessage::new(header, payload);
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// What came of the dump so far.
#[derive(Debug, Default)]
struct Dump {
    quiet: bool,
    routes: u64,
    is_whole: bool,
    was_interrupted: bool,
    tally: Tally,
}

impl Dump {
    /// Takes everything that is there.
    fn drain(&mut self, receiver: &mut Receiver) -> anyhow::Result<()> {
        while let Some(received) = receiver.receive()? {
            self.tally.count(&received);
            match received.message() {
                Some(part) => self.take(part)?,
                None => bail!("parts of the dump were lost: ask for more, or larger, frames"),
            }
        }
        Ok(())
    }

    /// Takes the messages of a part, back to back.
    fn take(&mut self, mut part: &[u8]) -> anyhow::Result<()> {
        while !part.is_empty() {
            let message = NetlinkMessage::<RouteNetlinkMessage>::deserialize(part)?;
            let end = (message.header.length as usize).next_multiple_of(4);
            part = part.get(end..).unwrap_or_default();
            self.was_interrupted |= message.header.flags & NLM_F_DUMP_INTR != 0;
            match message.payload {
                NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewRoute(route)) => {
                    self.routes += 1;
                    if !self.quiet {
                        println!("{}", Route(&route));
                    }
                }
                NetlinkPayload::Done(_) => self.is_whole = true,
                NetlinkPayload::Error(answer) => {
                    bail!("cannot dump the routes: {}", answer.to_io());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A route as one line.
struct Route<'a>(&'a RouteMessage);

impl fmt::Display for Route<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = &self.0.header;
        let text = |address: &RouteAddress| match address {
            RouteAddress::Inet(address) => address.to_string(),
            RouteAddress::Inet6(address) => address.to_string(),
            other => format!("{other:?}"),
        };
        let find = |pick: fn(&RouteAttribute) -> Option<&RouteAddress>| {
            self.0.attributes.iter().find_map(pick)
        };
        let destination = find(|attribute| match attribute {
            RouteAttribute::Destination(address) => Some(address),
            _ => None,
        });
        match destination {
            Some(address) => write!(
                formatter,
                "{}/{}",
                text(address),
                header.destination_prefix_length
            )?,
            None => write!(formatter, "default ({:?})", header.address_family)?,
        }
        for attribute in &self.0.attributes {
            match attribute {
                RouteAttribute::Gateway(address) => write!(formatter, " via {}", text(address))?,
                RouteAttribute::Oif(index) => write!(formatter, " out {index}")?,
                RouteAttribute::Table(table) => write!(formatter, " table {table}")?,
                _ => {}
            }
        }
        write!(formatter, " {:?}", header.kind)
    }
}
