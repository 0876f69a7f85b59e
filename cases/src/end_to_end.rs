// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `ordering`: behind the verdicts arrives what was sent, in the order of the
//! verdicts, with every byte.

use std::net::Ipv4Addr;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry};

use crate::arrivals::Arrivals;
use crate::consumer::{Binding, Consumer};
use crate::counters::QueueCounters;
use crate::nfqueue::Verdict;
use crate::rules::Rules;
use crate::scribbler::Scribbler;
use crate::sequences::Sequences;
use crate::stamp::Stamp;
use crate::traffic::{self, Burst, Flow, From, PORT, Window, far, pin, warm_up};
use crate::{Case, Setting, case};

pub(crate) const CASES: &[Case] = &[
    case!(
        Ordering,
        the_peer_receives_what_was_sent_in_the_order_of_the_verdicts
    )
    .proves("rx-valid")
    .across(1)
    .within(10),
    case!(
        Ordering,
        a_batch_verdict_under_load_never_touches_the_unseen
    )
    .proves("rx-ordered rx-ordered-ids rx-ordered-verdict")
    .across(1)
    .within(15),
];

/// The whole way, both orders, a verdict for each packet: what the peer's NIC receives is what two
/// CPUs sent and the consumer let through, in the order of its verdicts, with every byte.
fn the_peer_receives_what_was_sent_in_the_order_of_the_verdicts(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    const PER_FLOW: u32 = 120;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    // What nobody queues any more passes, which the last datagram is to do.
    let rule = format!("udp dport {PORT} queue num 0 bypass");
    let _rules = Rules::install(&[], &[&rule])?;
    let mut refused = 0;
    for flags in [Flags::NONE, Flags::ORDERED] {
        let arrivals = Arrivals::of(From::Here, From::Peer, &[far(0)], patience)?;
        let geometry = Geometry::for_messages(2048, 64)?;
        let mut consumer = Consumer::ringed(Binding::of(0), geometry, flags)?;
        let window = Window::of(32);
        let flow = |number: u32| Flow {
            sizes: 16..=1400,
            seed: setting.seed ^ u64::from(number),
            ..Flow::outward(number, 0, PER_FLOW)
        };
        let flows = [flow(0).start(&window)?, flow(1).start(&window)?];
        let mut random = fastrand::Rng::with_seed(setting.seed);
        let mut sequences = Sequences::default();
        let mut let_through = Vec::new();
        for _ in 0..2 * PER_FLOW {
            let packet = consumer.packet(patience)?;
            let stamp = packet.stamp.context("a packet that is no datagram")?;
            sequences.next(stamp)?;
            if random.u8(..8) == 0 {
                refused += 1;
                consumer.verdict(packet.id, Verdict::Drop)?;
            } else {
                let_through.push(stamp);
                consumer.verdict(packet.id, Verdict::Accept)?;
            }
            window.seen();
        }
        for (number, flow) in (0..).zip(flows) {
            sequences.assert_whole(number, traffic::sent(flow)?)?;
        }
        drop(consumer);
        assert_same(&arrivals.finish()?, &let_through)?;
    }
    setting.note(format!(
        "{} datagrams arrive as they were let through, {refused} were not, in both orders",
        4 * PER_FLOW - refused
    ));
    Ok(())
}

fn assert_same(arrived: &[Stamp], let_through: &[Stamp]) -> anyhow::Result<()> {
    let other = arrived.iter().zip(let_through).position(|(a, b)| a != b);
    ensure!(
        other.is_none() && arrived.len() == let_through.len(),
        "{} arrive of {} let through; first another: {:?} for {:?}",
        arrived.len(),
        let_through.len(),
        other.map(|other| arrived[other]),
        other.map(|other| let_through[other])
    );
    Ok(())
}

/// Contract, "RX": with `NL_MMAP_RING_ORDERED` a batch verdict up to id N never covers a packet that
/// was not yet shown. After every packet one is given, to let through or to drop as a coin falls, and
/// each packet meets the verdict that was given behind it, or it would arrive where it should not. Large
/// packets are overtaken, where that can be, by small ones.
fn a_batch_verdict_under_load_never_touches_the_unseen(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    const PER_FLOW: u32 = 120;
    /// The flow of the large ones.
    const LARGE: u32 = 2;
    /// The flow of those that overtake.
    const OVERTAKING: u32 = 3;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let rule = format!("udp dport {PORT} queue num 0 bypass");
    let _rules = Rules::install(&[], &[&rule])?;
    let far_arrivals = Arrivals::of(From::Here, From::Peer, &[far(0)], patience)?;
    let near_arrivals = Arrivals::of(From::Here, From::Here, &[Ipv4Addr::LOCALHOST], patience)?;
    let geometry = Geometry::for_messages(70_000, 64)?;
    let mut consumer = Consumer::ringed(Binding::of(0), geometry, Flags::ORDERED)?;

    let small = Burst::new(OVERTAKING)?;
    let overtaking = small.count();
    let watcher = Scribbler::overtaking_reserved(consumer.receiver(), geometry, move || {
        small.send(1).expect("a datagram can be sent to oneself");
    })?;
    let window = Window::of(24);
    let flows = [
        Flow::outward(0, 0, PER_FLOW).start(&window)?,
        Flow::outward(1, 0, PER_FLOW).start(&window)?,
        Flow {
            sizes: 50_000..=65_000,
            seed: setting.seed,
            cpu: 0,
            ..Flow::local(LARGE, PER_FLOW)
        }
        .start(&window)?,
    ];
    // What is let through to oneself waits on the CPU that gave the verdict; those of two CPUs have no order.
    pin(1)?;
    let mut verdicts = Verdicts::new(setting.seed);
    let mut sequences = Sequences::default();
    let mut last = 0;
    let mut watcher = Some(watcher);
    loop {
        if (0..=LARGE).all(|flow| sequences.end(flow) == PER_FLOW) {
            // Nothing overtakes any more, so their number stands.
            drop(watcher.take());
            if sequences.end(OVERTAKING) == overtaking.load(Ordering::Relaxed) {
                break;
            }
        }
        let packet = consumer.packet(patience)?;
        ensure!(
            packet.id == last + 1,
            "packet {} stands behind packet {last}",
            packet.id
        );
        last = packet.id;
        let stamp = packet.stamp.context("a packet that is no datagram")?;
        sequences.next(stamp)?;
        if stamp.flow != OVERTAKING {
            window.seen();
        }
        verdicts.shown.push(stamp);
        // The sender of the large ones has room for a few without a verdict, and then waits.
        if stamp.flow == LARGE || verdicts.random.u8(..3) != 0 {
            verdicts.give(&consumer, last)?;
        }
    }
    if !verdicts.shown.is_empty() {
        verdicts.give(&consumer, last)?;
    }
    for (number, flow) in (0..).zip(flows) {
        sequences.assert_whole(number, traffic::sent(flow)?)?;
    }
    let counters = QueueCounters::of(0)?;
    ensure!(
        counters.last_id == last && counters.waiting == 0 && counters.user_dropped == 0,
        "{last} packets were shown, and the kernel counts {counters:?}"
    );
    drop(consumer);
    let Verdicts {
        count, let_through, ..
    } = verdicts;
    let (to_far, to_near): (Vec<Stamp>, Vec<Stamp>) = let_through
        .into_iter()
        .partition(|stamp| stamp.flow < LARGE);
    assert_same(&far_arrivals.finish()?, &to_far).context("at the peer")?;
    assert_same(&near_arrivals.finish()?, &to_near).context("here")?;
    setting.note(format!(
        "{count} batch verdicts on {last} packets: {} arrive at the peer, {} here, as shown",
        to_far.len(),
        to_near.len()
    ));
    Ok(())
}

/// Batch verdicts as a coin falls.
#[derive(Debug)]
struct Verdicts {
    random: fastrand::Rng,
    /// Shown, and without a verdict.
    shown: Vec<Stamp>,
    let_through: Vec<Stamp>,
    count: u32,
}

impl Verdicts {
    fn new(seed: u64) -> Self {
        Self {
            random: fastrand::Rng::with_seed(seed),
            shown: Vec::new(),
            let_through: Vec::new(),
            count: 0,
        }
    }

    /// On all that were shown, of which this is the last.
    fn give(&mut self, consumer: &Consumer, last: u32) -> anyhow::Result<()> {
        if self.random.bool() {
            consumer.verdict_up_to(last, Verdict::Accept)?;
            self.let_through.append(&mut self.shown);
        } else {
            consumer.verdict_up_to(last, Verdict::Drop)?;
            self.shown.clear();
        }
        self.count += 1;
        Ok(())
    }
}
