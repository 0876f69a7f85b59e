// SPDX-License-Identifier: MIT OR Apache-2.0
//! A case of the group `ordering`: packets that came in by several NICs, each with a CPU of its own.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry};

use crate::consumer::{Binding, Consumer, Way};
use crate::counters::QueueCounters;
use crate::nfqueue::Verdict;
use crate::rules::Rules;
use crate::sequences::Sequences;
use crate::steering::{self, Steering};
use crate::traffic::{self, Flow, PORT, Window, warm_up};
use crate::{Case, Setting, case};

pub(crate) const CASES: &[Case] = &[case!(
    Ordering,
    packets_of_several_nics_and_cpus_share_a_ring_in_order
)
.proves("rx-ordered-ids rx-valid rx-one-owner")
.across(2)
.within(10)];

/// Contract, "RX", both orders: what two NICs receive, each steered to a CPU of its own, fills one
/// ring. Each flow stands in order, nothing is missing, and where order was asked for so do the ids.
fn packets_of_several_nics_and_cpus_share_a_ring_in_order(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    const PER_FLOW: u32 = 200;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    warm_up(1, patience)?;
    let _steering = [Steering::of(0, 0)?, Steering::of(1, 1)?];
    let before = steering::received()?;
    let rule = format!("udp dport {PORT} queue num 0");
    let _rules = Rules::install(&[&rule], &[])?;
    for flags in [Flags::NONE, Flags::ORDERED] {
        let geometry = Geometry::for_messages(2048, 64)?;
        let mut consumer = Consumer::ringed(Binding::of(0), geometry, flags)?;
        let window = Window::of(32);
        let flow = |number: u32| Flow {
            seed: setting.seed ^ u64::from(number),
            sizes: 16..=1400,
            ..Flow::across(number, number as u8, PER_FLOW)
        };
        let flows = [flow(0).start(&window)?, flow(1).start(&window)?];
        let mut sequences = Sequences::default();
        for due in 1..=2 * PER_FLOW {
            let packet = consumer.packet(patience)?;
            let Way::Frame(_) = packet.way else {
                anyhow::bail!("packet {} came by {:?}", packet.id, packet.way);
            };
            ensure!(
                flags == Flags::NONE || packet.id == due,
                "packet {} stands where {due} is due",
                packet.id
            );
            sequences.next(packet.stamp.context("a packet that is no datagram")?)?;
            consumer.verdict(packet.id, Verdict::Drop)?;
            window.seen();
        }
        for (number, flow) in (0..).zip(flows) {
            sequences.assert_whole(number, traffic::sent(flow)?)?;
        }
        let counters = QueueCounters::of(0)?;
        ensure!(
            counters.waiting == 0 && counters.last_id == 2 * PER_FLOW,
            "the queue counts {counters:?}"
        );
    }
    let steered: Vec<u32> = steering::received()?
        .iter()
        .zip(&before)
        .map(|(now, before)| now.wrapping_sub(*before))
        .collect();
    // The other CPU is that of the interrupts, which goes on by itself.
    ensure!(
        steered.iter().any(|&packets| packets > 0),
        "no CPU was given a packet: {steered:?}"
    );
    setting.note(format!(
        "{PER_FLOW} packets a flow and order; given to a CPU: {steered:?}"
    ));
    Ok(())
}
