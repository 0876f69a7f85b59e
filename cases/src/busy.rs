// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ringed socket at work while something else is looked at: packets of a namespace of its own,
//! queued over loopback and received through a ring where the kernel has one, by copy where not.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, bail};
use nix::sched::{CloneFlags, unshare};
use nlring::{Flags, Geometry};

use crate::consumer::{Binding, Consumer, Event, Way};
use crate::ip::ip;
use crate::nfqueue::Verdict;
use crate::rules::Rules;
use crate::traffic::{Burst, PORT};

/// Between two packets: busy, and not so busy that what is looked at has no CPU left, also under TCG.
const PACE: Duration = Duration::from_millis(10);
/// Packets that wait in the ring at any time.
const UNDER_WAY: u32 = 8;
/// Without a packet for this long on an idle machine with KVM, the socket is not busy.
const PATIENCE: Duration = Duration::from_secs(5);

/// The socket, its traffic and its namespace, until [`Busy::finish`].
#[derive(Debug)]
pub(crate) struct Busy {
    stop: Arc<AtomicBool>,
    consumer: JoinHandle<anyhow::Result<Received>>,
}

/// How many messages came, and by which way.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Received {
    /// In frames of the ring.
    pub in_frames: u64,
    /// By `recvmsg`.
    pub by_copy: u64,
}

impl Busy {
    /// Starts the traffic and waits for the first message, or for the end of all hope for one; waits
    /// are stretched by `patience`.
    pub(crate) fn start(patience: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let (first, begun) = mpsc::channel();
        let consumer = thread::spawn(move || consume(&asked, &first, PATIENCE * patience));
        // An end without a message is told by `finish`.
        let _ = begun.recv();
        Self { stop, consumer }
    }

    /// Ends the traffic. That a packet was lost, or that none came for long, is an error.
    pub(crate) fn finish(self) -> anyhow::Result<Received> {
        self.stop.store(true, Ordering::Relaxed);
        let joined = self.consumer.join();
        joined
            .map_err(|_| anyhow::anyhow!("it panicked"))
            .flatten()
            .context("the busy socket")
    }
}

/// In a thread of its own, which takes the namespace with it when it ends.
fn consume(stop: &AtomicBool, first: &Sender<()>, patience: Duration) -> anyhow::Result<Received> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(io::Error::from)?;
    ip("link set lo up")?;
    let _rules = Rules::install(&[], &[&format!("udp dport {PORT} queue num 0")])?;
    let geometry = Geometry::for_messages(2048, 64)?;
    let mut consumer = Consumer::ringed(Binding::of(0), geometry, Flags::NONE)?;
    let burst = Burst::new(0)?;
    burst.send(UNDER_WAY)?;
    let mut received = Received::default();
    while !stop.load(Ordering::Relaxed) {
        let packet = match consumer.next(patience)? {
            Some(Event::Packet(packet)) => packet,
            Some(Event::Lost) => bail!("lost a packet"),
            None => bail!("no packet within {patience:?}"),
        };
        match packet.way {
            Way::Frame(_) => received.in_frames += 1,
            Way::Copy(_) | Way::Plain => received.by_copy += 1,
        }
        // Only before the first somebody waits for it.
        let _ = first.send(());
        consumer.verdict(packet.id, Verdict::Drop)?;
        burst.send(1)?;
        thread::sleep(PACE);
    }
    Ok(received)
}
