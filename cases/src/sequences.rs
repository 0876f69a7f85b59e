// SPDX-License-Identifier: MIT OR Apache-2.0
//! What came of each flow, in the order in which it came.

use std::collections::BTreeMap;

use anyhow::ensure;

use crate::stamp::Stamp;

/// Where each flow stands. A stamp that does not come in its flow's order is an error at once.
#[derive(Debug, Default)]
pub(crate) struct Sequences {
    next: BTreeMap<u32, u32>,
}

impl Sequences {
    /// The next of its flow comes.
    pub(crate) fn next(&mut self, stamp: Stamp) -> anyhow::Result<()> {
        let due = self.end(stamp.flow);
        ensure!(stamp.sequence == due, "{stamp:?} comes where {due} is due");
        self.later(stamp)
    }

    /// A later one of its flow comes; some before it may never have come.
    pub(crate) fn later(&mut self, stamp: Stamp) -> anyhow::Result<()> {
        let next = self.next.entry(stamp.flow).or_default();
        ensure!(
            stamp.sequence >= *next,
            "{stamp:?} comes where {next} or a later one is due"
        );
        *next = stamp.sequence + 1;
        Ok(())
    }

    /// How many a flow has come to, the missing ones included.
    pub(crate) fn end(&self, flow: u32) -> u32 {
        self.next.get(&flow).copied().unwrap_or_default()
    }

    /// Nothing is missing behind the last that came of this flow either.
    pub(crate) fn assert_whole(&self, flow: u32, sent: u32) -> anyhow::Result<()> {
        let end = self.end(flow);
        ensure!(end == sent, "flow {flow}: {end} of {sent} came, in order");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(flow: u32, sequence: u32) -> Stamp {
        Stamp { flow, sequence }
    }

    #[test]
    fn what_is_missing_or_double_or_late_is_noticed() {
        let mut sequences = Sequences::default();
        for sequence in 0..3 {
            sequences.next(stamp(1, sequence)).unwrap();
            sequences.next(stamp(7, sequence)).unwrap();
        }
        assert!(sequences.next(stamp(1, 2)).is_err());
        assert!(sequences.next(stamp(1, 4)).is_err());
        assert!(sequences.later(stamp(1, 2)).is_err());
        sequences.assert_whole(1, 3).unwrap();
        assert!(sequences.assert_whole(1, 4).is_err());
        assert!(sequences.assert_whole(2, 1).is_err());
        sequences.later(stamp(1, 5)).unwrap();
        assert_eq!(sequences.end(1), 6);
    }
}
