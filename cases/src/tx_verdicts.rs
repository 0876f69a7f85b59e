// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `tx`: a consumer of `nfnetlink_queue` that gives its verdicts through a ring.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry, Sender, Socket};

use crate::consumer::{Binding, Consumer, Way};
use crate::counters::QueueCounters;
use crate::ledger::Ledger;
use crate::nfqueue::{self, Verdict};
use crate::rules::Rules;
use crate::traffic::{self, Flow, From, PORT, Sink, Window, warm_up};
use crate::{Case, Setting, case};

pub(crate) const CASES: &[Case] = &[
    case!(Tx, one_flush_gives_a_verdict_on_every_packet)
        .proves("tx-many")
        .across(1),
    case!(Tx, batch_verdicts_go_out_through_a_ring)
        .proves("tx-many tx-several-in-frame")
        .across(1),
];

/// Packets that wait for the verdicts of one flush.
const BURST: u32 = 32;
/// Bursts.
const ROUNDS: u32 = 20;

/// A consumer with both rings, and packets for it.
struct Bench {
    consumer: Consumer,
    sender: Sender,
    sink: Sink,
    patience: Duration,
    _rules: Rules,
}

impl Bench {
    fn new(setting: &Setting) -> anyhow::Result<Self> {
        let patience = setting.patiently(Duration::from_secs(2));
        warm_up(0, patience)?;
        let sink = Sink::bind(From::Here, PORT)?;
        let rules = Rules::install(&[&format!("udp dport {PORT} queue num 0")], &[])?;
        let socket = Socket::open(libc::NETLINK_NETFILTER)?;
        let rx = Geometry::for_messages(2000, BURST)?;
        let tx = Geometry::for_messages(100, BURST)?;
        let (receiver, sender) = socket.rings(rx, Flags::ORDERED, tx)?;
        Ok(Self {
            consumer: Consumer::bind(receiver, Binding::of(0))?,
            sender,
            sink,
            patience,
            _rules: rules,
        })
    }

    /// Sends a burst, and reads the packets' ids from the ring.
    fn burst(&mut self, number: u32) -> anyhow::Result<Vec<u32>> {
        traffic::sent(Flow::across(number, 0, BURST).start(&Window::of(BURST))?)?;
        let mut ids = Vec::new();
        for _ in 0..BURST {
            let packet = self.consumer.packet(self.patience)?;
            ensure!(
                matches!(packet.way, Way::Frame(_)),
                "it came by {:?}",
                packet.way
            );
            ids.push(packet.id);
        }
        Ok(ids)
    }

    fn submit(&mut self, message: &[u8]) -> anyhow::Result<usize> {
        let slot = self
            .sender
            .slot()?
            .context("the ring of verdicts is full")?;
        slot.send(message);
        Ok(message.len())
    }

    /// Every packet of a burst arrives, or none.
    fn assert_through(&self, number: u32, verdict: Verdict) -> anyhow::Result<()> {
        let waiting = QueueCounters::of(0)?.waiting;
        ensure!(waiting == 0, "{waiting} packets wait behind the flush");
        let mut ledger = Ledger::default();
        if verdict == Verdict::Accept {
            for _ in 0..BURST {
                let stamp = self.sink.next(self.patience)?;
                ledger.book(stamp.context("an accepted packet does not arrive")?)?;
            }
            ledger.assert_whole(number, BURST)?;
        }
        Ok(())
    }
}

/// Contract, "TX": one call carries many messages, so many verdicts: one to a frame here, and as
/// many packets let through or dropped when it returns.
fn one_flush_gives_a_verdict_on_every_packet(setting: &mut Setting) -> anyhow::Result<()> {
    let mut bench = Bench::new(setting)?;
    for round in 0..ROUNDS {
        let verdict = if round % 2 == 0 {
            Verdict::Accept
        } else {
            Verdict::Drop
        };
        let mut submitted = 0;
        for id in bench.burst(round)? {
            submitted += bench.submit(&nfqueue::verdict(0, id, verdict))?;
        }
        let sent = bench.sender.flush()?;
        ensure!(sent == submitted, "{sent} bytes of {submitted} were sent");
        bench.assert_through(round, verdict)?;
    }
    ensure!(
        bench.sink.next(bench.patience / 20)?.is_none(),
        "a dropped packet arrives"
    );
    setting.note(format!("{} verdicts in {ROUNDS} calls", ROUNDS * BURST));
    Ok(())
}

/// Contract, "TX": batch verdicts go through the ring as by `sendto`: each covers what was shown up
/// to its id; several of them in one frame, back to back, and in several.
fn batch_verdicts_go_out_through_a_ring(setting: &mut Setting) -> anyhow::Result<()> {
    let mut bench = Bench::new(setting)?;
    for round in 0..ROUNDS {
        let ids = bench.burst(round)?;
        let batch = |upto: usize| nfqueue::verdict_up_to(0, ids[upto], Verdict::Accept);
        let quarter = BURST as usize / 4;
        let first_two = [batch(quarter - 1), batch(2 * quarter - 1)].concat();
        let mut submitted = bench.submit(&first_two)?;
        submitted += bench.submit(&batch(3 * quarter - 1))?;
        submitted += bench.submit(&batch(4 * quarter - 1))?;
        let sent = bench.sender.flush()?;
        ensure!(sent == submitted, "{sent} bytes of {submitted} were sent");
        bench.assert_through(round, Verdict::Accept)?;
    }
    setting.note(format!(
        "{} packets let through by {} batch verdicts in {ROUNDS} calls",
        ROUNDS * BURST,
        4 * ROUNDS
    ));
    Ok(())
}
