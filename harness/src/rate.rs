// SPDX-License-Identifier: MIT OR Apache-2.0
//! How often a case passed of the times that it ran on a kernel.

use crate::results::{CaseResult, Results, Totals};
use crate::verdict::Verdict;

/// Seeds that a sentence names at most.
const SEEDS: usize = 5;

/// A case on a kernel, and each time that it ran there.
#[derive(Debug, Clone)]
pub struct Rate<'a> {
    /// In the order of the results; one at least.
    pub runs: Vec<&'a CaseResult>,
}

/// The rate of each case of these results, in the order in which they first come.
#[must_use]
pub fn all(results: &Results) -> Vec<Rate<'_>> {
    let mut rates: Vec<Rate<'_>> = Vec::new();
    for case in &results.cases {
        let is_same = |rate: &&mut Rate<'_>| {
            let first = rate.runs[0];
            first.name == case.name && first.group == case.group && first.kernel == case.kernel
        };
        match rates.iter_mut().find(is_same) {
            Some(rate) => rate.runs.push(case),
            None => rates.push(Rate { runs: vec![case] }),
        }
    }
    rates
}

impl<'a> Rate<'a> {
    /// The first run.
    #[must_use]
    pub fn first(&self) -> &'a CaseResult {
        self.runs[0]
    }

    /// Whether it ran more than once.
    #[must_use]
    pub fn is_repeated(&self) -> bool {
        self.runs.len() > 1
    }

    /// How many of each verdict.
    #[must_use]
    pub fn totals(&self) -> Totals {
        Totals::of(self.runs.iter().copied())
    }

    /// The verdict that most asks to be looked at.
    #[must_use]
    pub fn gravest(&self) -> Verdict {
        match self.totals() {
            Totals { fail: 1.., .. } => Verdict::Fail,
            Totals { infra: 1.., .. } => Verdict::Infra,
            Totals { pass: 1.., .. } => Verdict::Pass,
            _ => Verdict::Skip,
        }
    }

    /// What is said of a case that ran more than once: `18 of 20 passed, 2 failed; with --seed 7, 9`. The
    /// seeds are those that have the runs which did not pass again.
    #[must_use]
    pub fn sentence(&self) -> String {
        let Totals {
            pass,
            fail,
            skip,
            infra,
        } = self.totals();
        let mut parts = vec![format!("{pass} of {} passed", self.runs.len())];
        for (count, word) in [(fail, "failed"), (skip, "skipped"), (infra, "infra")] {
            if count > 0 {
                parts.push(format!("{count} {word}"));
            }
        }
        let counts = parts.join(", ");
        let troubled = self.runs.iter().filter(|run| run.is_trouble());
        let seeds: Vec<&str> = troubled.filter_map(|run| run.seed_of_run()).collect();
        let named = seeds[..seeds.len().min(SEEDS)].join(", ");
        match seeds.len() {
            0 => counts,
            1..=SEEDS => format!("{counts}; with --seed {named}"),
            _ => format!("{counts}; with --seed {named}, …"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;

    /// The same case with these verdicts, each run with a seed of its own.
    fn rated(verdicts: &[Verdict]) -> Results {
        let mut results = example();
        let one = results.cases[0].clone();
        results.cases = verdicts
            .iter()
            .zip(100..)
            .map(|(&verdict, seed)| CaseResult {
                verdict,
                evidence: vec![format!("again: ci/nlring run x --kernel 6.1 --seed {seed}")],
                ..one.clone()
            })
            .collect();
        results
    }

    #[test]
    fn a_rate_tells_the_seeds_of_what_did_not_pass() {
        use Verdict::{Fail, Infra, Pass, Skip};
        let sentence = |verdicts: &[Verdict]| all(&rated(verdicts))[0].sentence();
        assert_eq!(sentence(&[Pass; 3]), "3 of 3 passed");
        assert_eq!(
            sentence(&[Pass, Fail, Pass, Infra, Skip]),
            "2 of 5 passed, 1 failed, 1 skipped, 1 infra; with --seed 101, 103"
        );
        assert_eq!(
            sentence(&[Fail; 6]),
            "0 of 6 passed, 6 failed; with --seed 100, 101, 102, 103, 104, …"
        );
    }

    #[test]
    fn a_case_has_a_rate_on_each_kernel() {
        let mut results = rated(&[Verdict::Pass; 4]);
        results.cases[3].kernel = Some(String::from("6.12"));
        let counts: Vec<_> = all(&results).iter().map(|rate| rate.runs.len()).collect();
        assert_eq!(counts, [3, 1]);
    }

    #[test]
    fn the_gravest_verdict_stands_for_all() {
        use Verdict::{Fail, Infra, Pass, Skip};
        for (verdicts, gravest) in [
            ([Skip, Skip, Skip], Skip),
            ([Skip, Pass, Skip], Pass),
            ([Infra, Pass, Skip], Infra),
            ([Infra, Pass, Fail], Fail),
        ] {
            assert_eq!(all(&rated(&verdicts))[0].gravest(), gravest);
        }
    }
}
