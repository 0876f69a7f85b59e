// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections that are there, and then those that come and go: a dump and the events of two multicast
//! groups through one ring, in tokio's event loop.

use std::fmt;

use anyhow::bail;
use clap::Parser;
use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_MULTIPART, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_netfilter::conntrack::{
    ConntrackAttribute, ConntrackMessage, IPTuple, ProtoTuple, Tuple,
};
use netlink_packet_netfilter::{
    NetfilterHeader, NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily,
};
use nlring::{Flags, Geometry, Received, Receiver, Socket};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

mod tally;
use tally::Tally;

/// Prints the connections that the kernel tracks, then each that begins (+) or ends (-).
#[derive(Debug, Parser)]
struct Arguments {
    /// Without a ring: messages by recvmmsg
    #[arg(long)]
    plain: bool,
    /// End after so many events, and not at Ctrl-C only; 0: after the table
    #[arg(long, value_name = "EVENTS")]
    count: Option<u64>,
}

/// Room for a good part of a dump, and for any event.
const LARGEST: u32 = 8000;
const FRAMES: u32 = 256;

/// `NFNLGRP_CONNTRACK_NEW` and `NFNLGRP_CONNTRACK_DESTROY`.
const GROUPS: [u32; 2] = [1, 3];

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    // Joined before the dump begins, so that nothing can happen in between. A ring in groups has to be
    // asked for: the kernel copies an event once more for it.
    let receiver = if arguments.plain {
        socket.plain()
    } else {
        socket.rx_ring(Geometry::for_messages(LARGEST, FRAMES)?, Flags::MULTICAST)?
    };
    for group in GROUPS {
        receiver.socket().join(group)?;
    }
    receiver.socket().send(&dump_request())?;

    let mut watch = Watch::default();
    let wanted = arguments.count.unwrap_or(u64::MAX);
    // SAFETY: a receiver has one descriptor, open for as long as it lives.
    let receiver = unsafe { AsyncFd::register_with_interest(receiver, Interest::READABLE) };
    let mut receiver = receiver?;
    while !(watch.table_is_whole && watch.events >= wanted) {
        tokio::select! {
            ready = receiver.readable_mut() => {
                let mut ready = ready?;
                watch.drain(ready.get_inner_mut())?;
                // What came in meanwhile makes it ready again: only this readiness is cleared.
                ready.clear_ready();
            }
            signal = tokio::signal::ctrl_c() => {
                signal?;
                break;
            }
        }
    }
    println!(
        "{} connections, {} events by {:?}; {}",
        watch.connections,
        watch.events,
        receiver.get_ref().path(),
        watch.tally
    );
    Ok(())
}

/// Asks for all connections.
fn dump_request() -> Vec<u8> {
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST | NLM_F_DUMP;
    let family = NetfilterHeader::new(NetfilterProtoFamily::Unspec, 0, 0);
    let get = NetfilterMessage::new(family, ConntrackMessage::Get(Vec::new()));
    let mut message = NetlinkMessage::new(header, NetlinkPayload::from(get));
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// What was seen.
#[derive(Debug, Default)]
struct Watch {
    connections: u64,
    events: u64,
    table_is_whole: bool,
    tally: Tally,
}

impl Watch {
    /// Shows everything that is there.
    fn drain(&mut self, receiver: &mut Receiver) -> anyhow::Result<()> {
        receiver.readable();
        while let Some(received) = receiver.receive()? {
            self.tally.count(&received);
            match &received {
                Received::Lost { messages } => {
                    eprintln!("conntrack-watch: too slow, events were lost: {messages:?}");
                }
                other => self.show(other.message().unwrap_or_default())?,
            }
        }
        Ok(())
    }

    /// Shows the messages of what was received, back to back.
    fn show(&mut self, mut bytes: &[u8]) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            let message = NetlinkMessage::<NetfilterMessage>::deserialize(bytes)?;
            let end = (message.header.length as usize).next_multiple_of(4);
            bytes = bytes.get(end..).unwrap_or_default();
            // A connection of the table is one of many in an answer, an event stands alone.
            let is_event = message.header.flags & NLM_F_MULTIPART == 0;
            match message.payload {
                NetlinkPayload::InnerMessage(NetfilterMessage {
                    inner: NetfilterMessageInner::Conntrack(connection),
                    ..
                }) => {
                    let (sign, attributes) = match &connection {
                        ConntrackMessage::New(attributes) if is_event => ('+', attributes),
                        ConntrackMessage::New(attributes) => ('=', attributes),
                        ConntrackMessage::Delete(attributes) => ('-', attributes),
                        _ => continue,
                    };
                    if is_event {
                        self.events += 1;
                    } else {
                        self.connections += 1;
                    }
                    println!("{sign} {}", Connection(attributes));
                }
                NetlinkPayload::Done(_) => {
                    self.table_is_whole = true;
                    println!("{} connections", self.connections);
                }
                NetlinkPayload::Error(answer) if answer.code.is_some() => {
                    bail!("cannot dump the connections: {}", answer.to_io());
                }
                _ => {}
            }
        }
        Ok(())
    }
}

/// A connection as one line, from who began it.
struct Connection<'a>(&'a [ConntrackAttribute]);

impl fmt::Display for Connection<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (mut from, mut to) = ((None, 0), (None, 0));
        let mut protocol = None;
        let tuples = self.0.iter().filter_map(|attribute| match attribute {
            ConntrackAttribute::CtaTupleOrig(tuples) => Some(tuples),
            _ => None,
        });
        for tuple in tuples.flatten() {
            match tuple {
                Tuple::Ip(addresses) => {
                    for address in addresses {
                        match address {
                            IPTuple::SourceAddress(address) => from.0 = Some(address),
                            IPTuple::DestinationAddress(address) => to.0 = Some(address),
                            _ => {}
                        }
                    }
                }
                Tuple::Proto(parts) => {
                    for part in parts {
                        match part {
                            ProtoTuple::Protocol(number) => protocol = Some(number),
                            ProtoTuple::SourcePort(port) => from.1 = *port,
                            ProtoTuple::DestinationPort(port) => to.1 = *port,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        let (Some(protocol), (Some(from), from_port), (Some(to), to_port)) = (protocol, from, to)
        else {
            return formatter.write_str("a connection without addresses");
        };
        write!(
            formatter,
            "{protocol:?} {from}:{from_port} > {to}:{to_port}"
        )
    }
}
