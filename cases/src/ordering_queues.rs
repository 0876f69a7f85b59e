// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `ordering`: several queues, filled by several CPUs at once.

use std::thread::{self, JoinHandle};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry};

use crate::arrivals::Arrivals;
use crate::consumer::{Binding, Consumer, Way};
use crate::counters::QueueCounters;
use crate::nfqueue::Verdict;
use crate::rules::Rules;
use crate::sequences::Sequences;
use crate::traffic::{self, Flow, From, OTHER_PORT, PORT, Window, far, pin, warm_up};
use crate::{Case, Setting, case};

pub(crate) const CASES: &[Case] = &[
    case!(
        Ordering,
        a_queue_for_each_cpu_keeps_the_order_of_its_packets
    )
    .proves("rx-ordered-ids rx-valid")
    .across(2)
    .within(10),
    case!(Ordering, queues_that_share_a_ring_each_keep_their_order)
        .proves("rx-one-owner rx-ordered-ids rx-valid")
        .across(2)
        .within(10),
];

/// Datagrams of a flow.
const PER_FLOW: u32 = 100;
/// Flows from one CPU, and flows to one queue.
const FLOWS: u32 = 2;

/// Contract, "RX", both orders: each of several queues with a ring of its own, filled by a CPU of
/// its own and read by a thread of its own, shows the packets of every sender in the order in which
/// they were sent, and their ids in that order where it was asked for. So they arrive.
fn a_queue_for_each_cpu_keeps_the_order_of_its_packets(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    warm_up(1, patience)?;
    // What nobody queues any more passes, which the last datagrams are to do.
    let by_cpu = format!("udp dport {PORT} queue num 0-1 bypass,fanout");
    let _rules = Rules::install(&[], &[&by_cpu])?;
    for flags in [Flags::NONE, Flags::ORDERED] {
        let arrivals = Arrivals::of(From::Here, From::Peer, &[far(0), far(1)], patience)?;
        let window = Window::of(32);
        let consumers = [
            consume(0, flags, &window, patience)?,
            consume(1, flags, &window, patience)?,
        ];
        let flow = |number: u32| Flow {
            cpu: (number % 2) as usize,
            seed: setting.seed ^ u64::from(number),
            sizes: 16..=1400,
            ..Flow::outward(number, (number / 2) as u8, PER_FLOW)
        };
        let flows = (0..2 * FLOWS)
            .map(|number| flow(number).start(&window))
            .collect::<anyhow::Result<Vec<_>>>()?;
        for consumer in consumers {
            finish(consumer)?;
        }
        let mut sequences = Sequences::default();
        for stamp in arrivals.finish()? {
            sequences.next(stamp).context("at the peer")?;
        }
        for (number, flow) in (0..).zip(flows) {
            sequences.assert_whole(number, traffic::sent(flow)?)?;
        }
    }
    setting.note(format!(
        "{} packets to each of 2 queues by 2 CPUs, in both orders",
        FLOWS * PER_FLOW
    ));
    Ok(())
}

/// Receives what this CPU sends.
fn consume(
    cpu: u16,
    flags: Flags,
    window: &Window,
    patience: Duration,
) -> anyhow::Result<JoinHandle<anyhow::Result<()>>> {
    let geometry = Geometry::for_messages(2048, 64)?;
    let mut consumer = Consumer::ringed(Binding::of(cpu), geometry, flags)?;
    let window = window.clone();
    Ok(thread::spawn(move || {
        pin(cpu.into())?;
        let mut sequences = Sequences::default();
        for due in 1..=FLOWS * PER_FLOW {
            let packet = consumer.packet(patience)?;
            let stamp = packet.stamp.context("a packet that is no datagram")?;
            ensure!(
                matches!(packet.way, Way::Frame(_)),
                "it came by {:?}",
                packet.way
            );
            ensure!(
                stamp.flow % 2 == cpu.into(),
                "{stamp:?} is not for queue {cpu}"
            );
            ensure!(
                flags == Flags::NONE || packet.id == due,
                "queue {cpu}: packet {} stands where {due} is due",
                packet.id
            );
            sequences.next(stamp).context("in the ring")?;
            consumer.verdict(packet.id, Verdict::Accept)?;
            window.seen();
        }
        let counters = QueueCounters::of(cpu)?;
        ensure!(
            counters.waiting == 0 && counters.last_id == FLOWS * PER_FLOW,
            "queue {cpu} counts {counters:?}"
        );
        Ok(())
    }))
}

fn finish(consumer: JoinHandle<anyhow::Result<()>>) -> anyhow::Result<()> {
    match consumer.join() {
        Ok(done) => done,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Contract, "RX", both orders: two queues of one socket fill one ring, each under a lock of its own
/// and from both CPUs. No frame is lost or given twice, the packets of each sender stand in order,
/// and the ids of each queue where that was asked for.
fn queues_that_share_a_ring_each_keep_their_order(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    warm_up(1, patience)?;
    let rules = [(PORT, 0), (OTHER_PORT, 1)]
        .map(|(port, queue)| format!("udp dport {port} queue num {queue}"));
    let _rules = Rules::install(&[], &[&rules[0], &rules[1]])?;
    for flags in [Flags::NONE, Flags::ORDERED] {
        let geometry = Geometry::for_messages(2048, 64)?;
        let mut consumer = Consumer::ringed(Binding::of(0), geometry, flags)?;
        consumer.bind_also(Binding::of(1))?;
        let window = Window::of(32);
        // Each CPU to each queue.
        let queue_of = |number: u32| (number / 2) as u16;
        let flows = (0..2 * FLOWS)
            .map(|number| {
                let mut flow = Flow {
                    cpu: (number % 2) as usize,
                    seed: setting.seed ^ u64::from(number),
                    sizes: 16..=1400,
                    ..Flow::outward(number, (number % 2) as u8, PER_FLOW)
                };
                flow.to
                    .set_port([PORT, OTHER_PORT][usize::from(queue_of(number))]);
                flow.start(&window)
            })
            .collect::<anyhow::Result<Vec<_>>>()?;

        let mut sequences = Sequences::default();
        let mut ids = [0; 2];
        for _ in 0..2 * FLOWS * PER_FLOW {
            let packet = consumer.packet(patience)?;
            let stamp = packet.stamp.context("a packet that is no datagram")?;
            ensure!(
                matches!(packet.way, Way::Frame(_)),
                "it came by {:?}",
                packet.way
            );
            sequences.next(stamp)?;
            let queue = queue_of(stamp.flow);
            let due = &mut ids[usize::from(queue)];
            *due += 1;
            ensure!(
                flags == Flags::NONE || packet.id == *due,
                "queue {queue}: packet {} stands where {due} is due",
                packet.id
            );
            consumer.verdict_in(queue, packet.id, Verdict::Drop)?;
            window.seen();
        }
        for (number, flow) in (0..).zip(flows) {
            sequences.assert_whole(number, traffic::sent(flow)?)?;
        }
        for queue in 0..2 {
            let counters = QueueCounters::of(queue)?;
            ensure!(
                counters.waiting == 0 && counters.last_id == ids[usize::from(queue)],
                "queue {queue} counts {counters:?}"
            );
        }
    }
    setting.note(format!(
        "{} packets of 2 queues in one ring, in both orders",
        2 * FLOWS * PER_FLOW
    ));
    Ok(())
}
