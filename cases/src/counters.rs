// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel itself counts.

use std::fs::File;
use std::io::Read;

use anyhow::Context as _;

/// A line of `/proc/net/netfilter/nfnetlink_queue`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct QueueCounters {
    /// Port id of the consumer's socket.
    pub port: u32,
    /// Packets that wait for a verdict.
    pub waiting: u32,
    /// Packets dropped because too many waited.
    pub dropped: u32,
    /// Packets dropped because the consumer's socket had no room.
    pub user_dropped: u32,
    /// The id of the last packet.
    pub last_id: u32,
}

impl QueueCounters {
    /// The counters of this queue, in the calling thread's namespace.
    pub(crate) fn of(queue: u16) -> anyhow::Result<Self> {
        let table = table_of("/proc/thread-self/net/netfilter/nfnetlink_queue")?;
        table
            .lines()
            .filter_map(numbers)
            .find(|fields| fields[0] == u32::from(queue))
            .map(|fields| Self {
                port: fields[1],
                waiting: fields[2],
                dropped: fields[5],
                user_dropped: fields[6],
                last_id: fields[7],
            })
            .with_context(|| format!("queue {queue} is not bound"))
    }
}

/// The text of a table of the kernel's, by reads of a page and more.
///
/// A table goes on by its line's number after each read, so a queue or a socket that goes
/// meanwhile takes another's line away. The standard library begins with a read of a few bytes;
/// of one read as large as the kernel's buffer, what is in it was there at one moment.
fn table_of(path: &str) -> anyhow::Result<String> {
    let cannot = || format!("cannot read {path}");
    let mut file = File::open(path).with_context(cannot)?;
    let mut text = Vec::new();
    let mut part = vec![0; 65536];
    loop {
        match file.read(&mut part).with_context(cannot)? {
            0 => return String::from_utf8(text).with_context(cannot),
            length => text.extend_from_slice(&part[..length]),
        }
    }
}

fn numbers(line: &str) -> Option<Vec<u32>> {
    let fields: Vec<u32> = line
        .split_whitespace()
        .map(str::parse)
        .collect::<Result<_, _>>()
        .ok()?;
    (fields.len() >= 8).then_some(fields)
}

/// `Drops` of a netlink socket of this family and port id, from `/proc/net/netlink`.
pub(crate) fn socket_drops(protocol: i32, port: u32) -> anyhow::Result<u32> {
    let table = table_of("/proc/thread-self/net/netlink")?;
    for line in table.lines().skip(1) {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let is = |index: usize, number: i64| {
            fields.get(index).and_then(|field| field.parse().ok()) == Some(number)
        };
        if is(1, protocol.into()) && is(2, port.into()) {
            let drops = fields.get(8).context("a line without drops")?;
            return Ok(drops.parse()?);
        }
    }
    anyhow::bail!("no netlink socket of family {protocol} has port id {port}")
}
