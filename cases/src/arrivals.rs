// SPDX-License-Identifier: MIT OR Apache-2.0
//! What arrives behind the verdicts, in its order, with every byte looked at.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::Context as _;

use crate::stamp::{SMALLEST, Stamp};
use crate::traffic::{From, PORT, Sink, socket_in};

/// The flow of the datagrams that come last.
const LAST: u32 = u32::MAX;

/// A thread that reads a sink.
#[derive(Debug)]
pub(crate) struct Arrivals {
    from: From,
    /// To these addresses.
    paths: Vec<Ipv4Addr>,
    thread: JoinHandle<anyhow::Result<Vec<Stamp>>>,
}

impl Arrivals {
    /// Of what this side sends to these addresses of the side `at`.
    pub(crate) fn of(
        from: From,
        at: From,
        paths: &[Ipv4Addr],
        patience: Duration,
    ) -> anyhow::Result<Self> {
        let sink = Sink::bind(at, PORT)?;
        let last = paths.len();
        Ok(Self {
            from,
            paths: paths.to_vec(),
            thread: thread::spawn(move || read(&sink, last, patience)),
        })
    }

    /// All that have arrived. One more datagram is sent by each path, behind which nothing can come
    /// that left before it; nobody may queue that any more.
    pub(crate) fn finish(self) -> anyhow::Result<Vec<Stamp>> {
        let socket = socket_in(self.from, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
        for (sequence, path) in (0..).zip(self.paths) {
            let last = Stamp {
                flow: LAST,
                sequence,
            };
            socket.send_to(&last.payload(SMALLEST), SocketAddrV4::new(path, PORT))?;
        }
        match self.thread.join() {
            Ok(arrived) => arrived,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
}

fn read(sink: &Sink, last: usize, patience: Duration) -> anyhow::Result<Vec<Stamp>> {
    let mut arrived = Vec::new();
    let mut ends = 0;
    while ends < last {
        let stamp = sink.next(patience)?;
        let stamp = stamp.with_context(|| format!("silence behind {} datagrams", arrived.len()))?;
        if stamp.flow == LAST {
            ends += 1;
        } else {
            arrived.push(stamp);
        }
    }
    Ok(arrived)
}
