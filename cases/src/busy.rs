// SPDX-License-Identifier: MIT OR Apache-2.0
//! A ringed socket at work while something else is looked at: packets of a namespace of its own,
//! queued over loopback and received through a ring where the kernel has one, by copy where not.

use std::io;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Sender};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sched::{CloneFlags, unshare};
use nlring::{Flags, Geometry};

use crate::consumer::{Binding, Consumer, Event, Way};
use crate::nfqueue::Verdict;
use crate::rules::Rules;
use crate::traffic::{Flow, PORT, Window};

/// Between two packets: busy, and not so busy that what is looked at has no CPU left, also under TCG.
const PACE: Duration = Duration::from_millis(10);
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
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status()?;
    ensure!(up.success(), "cannot bring its loopback up: ip {up}");
    let _rules = Rules::install(&[], &[&format!("udp dport {PORT} queue num 0")])?;
    let geometry = Geometry::for_messages(2048, 64)?;
    let mut consumer = Consumer::ringed(Binding::of(0), geometry, Flags::NONE)?;
    let window = Window::of(8);
    let flow = Flow::local(0, u32::MAX).start(&window)?;
    let mut received = Received::default();
    let outcome = loop {
        if stop.load(Ordering::Relaxed) {
            break Ok(received);
        }
        let packet = match consumer.next(patience) {
            Ok(Some(Event::Packet(packet))) => packet,
            Ok(Some(Event::Lost)) => break Err(anyhow::anyhow!("lost a packet")),
            Ok(None) => break Err(anyhow::anyhow!("no packet within {patience:?}")),
            Err(error) => break Err(error),
        };
        match packet.way {
            Way::Frame(_) => received.in_frames += 1,
            Way::Copy(_) | Way::Plain => received.by_copy += 1,
        }
        // Only before the first somebody waits for it.
        let _ = first.send(());
        consumer.verdict(packet.id, Verdict::Drop)?;
        window.seen();
        thread::sleep(PACE);
    };
    window.stop();
    // It has sent as much as there were places in the window, which nobody counts.
    drop(flow.join());
    outcome
}
