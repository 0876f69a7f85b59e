// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was sent, against what came.

use std::collections::{BTreeMap, BTreeSet};

use crate::stamp::Stamp;

/// Which stamps of which flows have come. A stamp that comes twice is an error at once.
#[derive(Debug, Default)]
pub(crate) struct Ledger {
    seen: BTreeMap<u32, BTreeSet<u32>>,
    total: u32,
}

impl Ledger {
    /// Books an arrival.
    pub(crate) fn book(&mut self, stamp: Stamp) -> anyhow::Result<()> {
        let new = self
            .seen
            .entry(stamp.flow)
            .or_default()
            .insert(stamp.sequence);
        anyhow::ensure!(new, "{stamp:?} came twice");
        self.total += 1;
        Ok(())
    }

    /// Stamps that have come so far.
    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    /// Every stamp of this flow has come, from 0 up to `sent`, and none besides.
    pub(crate) fn assert_whole(&self, flow: u32, sent: u32) -> anyhow::Result<()> {
        let nothing = BTreeSet::new();
        let seen = self.seen.get(&flow).unwrap_or(&nothing);
        if let Some(missing) = (0..sent).find(|sequence| !seen.contains(sequence)) {
            anyhow::bail!(
                "flow {flow}: {} of {sent} came; the first missing is {missing}",
                seen.len()
            );
        }
        anyhow::ensure!(
            seen.len() == sent as usize,
            "flow {flow}: {} came of {sent} sent",
            seen.len()
        );
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_or_double_or_too_much_is_noticed() {
        let mut ledger = Ledger::default();
        let stamp = |sequence| Stamp { flow: 1, sequence };
        for sequence in [0, 1, 3] {
            ledger.book(stamp(sequence)).unwrap();
        }
        assert!(ledger.book(stamp(3)).is_err());
        assert!(ledger.assert_whole(1, 4).is_err());
        ledger.book(stamp(2)).unwrap();
        ledger.assert_whole(1, 4).unwrap();
        assert!(ledger.assert_whole(1, 3).is_err());
        assert!(ledger.assert_whole(2, 1).is_err());
        assert_eq!(ledger.total(), 4);
    }
}
