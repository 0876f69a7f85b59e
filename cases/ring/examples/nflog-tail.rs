// SPDX-License-Identifier: MIT OR Apache-2.0
//! Follows the packets that a rule logs, in an event loop of its own making: `poll` on the socket and
//! on a pipe through which a signal comes.

use std::fmt;
use std::net::IpAddr;
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::Parser;
use netlink_packet_core::{NetlinkMessage, NetlinkPayload, parse_ip};
use netlink_packet_netfilter::nflog::{
    ConfigCmd, ConfigMode, ConfigNla, PacketNla, Timeout, ULogMessage, config_request,
};
use netlink_packet_netfilter::{NetfilterMessage, NetfilterMessageInner, NetfilterProtoFamily};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nlring::{Flags, Geometry, Receiver, Socket};

mod tally;
use tally::Tally;

/// Prints a line for each packet that a rule logs, and at the end what there was.
///
/// For example, with `nft add rule inet filter input log prefix "seen: " group 5`: nflog-tail 5
#[derive(Debug, Parser)]
struct Arguments {
    /// The log group's number
    group: u16,
    /// Without a ring: messages by recvmmsg
    #[arg(long)]
    plain: bool,
    /// End after so many packets, and not at Ctrl-C only
    #[arg(long, value_name = "PACKETS")]
    count: Option<u64>,
}

/// The kernel collects packets for one message up to this many bytes (`NFULNL_NLBUFSIZ_DEFAULT`, a
/// page).
const LARGEST: u32 = 4096;
const FRAMES: u32 = 256;

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let (signals, ending) = UnixStream::pair()?;
    signal_hook::low_level::pipe::register(signal_hook::consts::SIGINT, ending)?;

    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let mut receiver = if arguments.plain {
        socket.plain()
    } else {
        socket.rx_ring(Geometry::for_messages(LARGEST, FRAMES)?, Flags::ORDERED)?
    };
    bind(&receiver, arguments.group)?;

    let mut tally = Tally::default();
    let mut packets = 0;
    let wanted = arguments.count.unwrap_or(u64::MAX);
    while packets < wanted {
        let mut ready = [
            PollFd::new(receiver.as_fd(), PollFlags::POLLIN),
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
        ];
        poll(&mut ready, PollTimeout::NONE)?;
        if ready[1].any() == Some(true) {
            break;
        }
        receiver.readable();
        while let Some(received) = receiver.receive()? {
            tally.count(&received);
            if let Some(messages) = received.message() {
                packets += show(messages, arguments.group)?;
            }
        }
    }
    println!("{packets} packets by {:?}; {tally}", receiver.path());
    Ok(())
}

/// Asks for the group's packets, whole; those of a tenth of a second may come together.
fn bind(receiver: &Receiver, group: u16) -> anyhow::Result<()> {
    let attributes = vec![
        ConfigNla::from(ConfigCmd::Bind),
        ConfigMode::new_packet(u32::from(u16::MAX)).into(),
        Timeout::from(Duration::from_millis(100)).into(),
    ];
    let request = config_request(NetfilterProtoFamily::Unspec, group, attributes);
    let mut bytes = vec![0; request.buffer_len()];
    request.serialize(&mut bytes);
    Ok(receiver.socket().send(&bytes)?)
}

/// Prints the packets of what was received, back to back, and counts them.
fn show(mut bytes: &[u8], group: u16) -> anyhow::Result<u64> {
    let mut packets = 0;
    while !bytes.is_empty() {
        let message = NetlinkMessage::<NetfilterMessage>::deserialize(bytes)?;
        let end = (message.header.length as usize).next_multiple_of(4);
        bytes = bytes.get(end..).unwrap_or_default();
        match message.payload {
            NetlinkPayload::InnerMessage(NetfilterMessage {
                inner: NetfilterMessageInner::ULog(ULogMessage::Packet(attributes)),
                ..
            }) => {
                println!("{}", Logged(&attributes));
                packets += 1;
            }
            NetlinkPayload::Error(answer) => match answer.code {
                None => println!("log group {group}: bound"),
                Some(_) => bail!("cannot bind log group {group}: {}", answer.to_io()),
            },
            _ => {}
        }
    }
    Ok(packets)
}

/// A packet as one line.
struct Logged<'a>(&'a [PacketNla]);

impl fmt::Display for Logged<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for attribute in self.0 {
            match attribute {
                PacketNla::Prefix(prefix) => write!(formatter, "{}", prefix.to_string_lossy())?,
                PacketNla::IfIndexInDev(index) => write!(formatter, "in {index} ")?,
                PacketNla::IfIndexOutDev(index) => write!(formatter, "out {index} ")?,
                PacketNla::Payload(packet) => match addresses(packet) {
                    Ok((from, to)) => {
                        write!(formatter, "{from} > {to}, {} bytes", packet.len())?;
                    }
                    Err(_) => write!(formatter, "{} bytes", packet.len())?,
                },
                _ => {}
            }
        }
        Ok(())
    }
}

/// Where an IP packet comes from and goes to.
fn addresses(packet: &[u8]) -> anyhow::Result<(IpAddr, IpAddr)> {
    let at = |begin: usize, len: usize| {
        let bytes = packet.get(begin..begin + len).context("cut off")?;
        anyhow::Ok(parse_ip(bytes)?)
    };
    match packet.first().map(|byte| byte >> 4) {
        Some(4) => Ok((at(12, 4)?, at(16, 4)?)),
        Some(6) => Ok((at(8, 16)?, at(24, 16)?)),
        _ => bail!("no IP packet"),
    }
}
