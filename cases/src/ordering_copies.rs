// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `ordering`: what does not fit, among what does.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry};

use crate::consumer::{Binding, Consumer, Sight, Way};
use crate::frames::Frames;
use crate::nfqueue::Verdict;
use crate::rules::Rules;
use crate::sequences::Sequences;
use crate::traffic::{self, Flow, PORT, Window, warm_up};
use crate::walker::Walker;
use crate::{Case, Setting, case};

pub(crate) const CASES: &[Case] = &[case!(
    Ordering,
    copy_frames_stand_in_the_order_of_the_queue_under_load
)
.proves("rx-copy rx-copy-length rx-copy-pairs rx-copy-queued-first rx-ordered rx-ordered-ids")
.across(1)
.within(10)];

/// Contract, "RX": under load from several CPUs, by softirq and by system call, `COPY` frames stand
/// one for one in the order of the queue, in both orders, so the ids of what they stand for
/// increase; and in the order of sending all ids do, one by one.
fn copy_frames_stand_in_the_order_of_the_queue_under_load(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    const PER_FLOW: u32 = 100;
    const FLOWS: u32 = 3;
    let patience = setting.patiently(Duration::from_secs(2));
    warm_up(0, patience)?;
    let all = format!("udp dport {PORT} queue num 0");
    let _rules = Rules::install(&[&all], &[&all])?;
    let mut counted = [0; 2];
    for flags in [Flags::NONE, Flags::ORDERED] {
        let geometry = Geometry::new(4096, 16, 1024)?;
        let mut consumer = Consumer::ringed(Binding::of(0), geometry, flags)?;
        let frames = Frames::map(consumer.receiver(), geometry)?;
        // The answer to the binding was in the first.
        let mut walker = Walker::at(frames, 1);
        let window = Window::of(32);
        let flow = |flow: Flow| Flow {
            sizes: 64..=1400,
            seed: setting.seed ^ u64::from(flow.number),
            ..flow
        };
        let flows = [
            flow(Flow::across(0, 0, PER_FLOW)).start(&window)?,
            flow(Flow::outward(1, 0, PER_FLOW)).start(&window)?,
            flow(Flow::outward(2, 0, PER_FLOW)).start(&window)?,
        ];

        let mut sequences = Sequences::default();
        let (mut last, mut last_copied) = (0, 0);
        for _ in 0..FLOWS * PER_FLOW {
            let next = walker.next(consumer.receiver(), patience)?;
            let (way, message) = next.context("the ring has no more")?;
            let packet = Sight::read(&message, way)?.packet()?;
            if let Way::Copy(frame) = way {
                ensure!(
                    packet.id > last_copied,
                    "COPY frame {frame} stands for packet {}, behind packet {last_copied}",
                    packet.id
                );
                last_copied = packet.id;
                counted[1] += 1;
            } else {
                counted[0] += 1;
            }
            ensure!(
                flags == Flags::NONE || packet.id == last + 1,
                "packet {} stands behind packet {last}",
                packet.id
            );
            last = packet.id;
            sequences.next(packet.stamp.context("a packet that is no datagram")?)?;
            consumer.verdict(packet.id, Verdict::Drop)?;
            window.seen();
        }
        for (number, flow) in (0..).zip(flows) {
            sequences.assert_whole(number, traffic::sent(flow)?)?;
        }
    }
    let [in_place, copied] = counted;
    ensure!(
        in_place > 50 && copied > 50,
        "too few of a kind: {in_place} in frames, {copied} copied"
    );
    setting.note(format!(
        "{in_place} in frames, {copied} copied, in both orders"
    ));
    Ok(())
}
