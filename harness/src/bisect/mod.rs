// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nlring bisect`: which patch of the series makes a case fail?
//!
//! A kernel with the first N patches is a kernel of its own, `6.1@N`. Seen along the series a case first
//! cannot be run, since what it needs is not there yet; then, if all was well once, it passes; then it fails.
//! The search halves what lies between the last that is known not to fail and the first failure behind it.
//! Where no pass was seen so, each part of the series is looked at, so that none is overlooked.

mod search;

use std::path::PathBuf;
use std::time::Instant;

use nlring_cases::Case;
use nlring_vm::matrix::{Matrix, WITH_FIRST};
use nlring_vm::{VmError, kernel};

use crate::error::Error;
use crate::lab::{self, Lab};
use crate::names::full_name;
use crate::plan::{Rounds, plan_of};
use crate::render::{self, Aside, Output, seconds};
use crate::report::Report;
use crate::results::CaseResult;
use crate::room::Room;
use crate::run::Run;
use crate::tree::Tree;
use crate::verdict::Verdict;
use search::{Answer, Finding, Search, Seen};

/// How a kernel that lacks a ring says so, through the ring library and without it.
const NO_RINGS: [&str; 2] = ["no memory-mapped netlink", "Protocol not available"];

/// What is looked for, and how.
#[derive(Debug, Clone)]
pub struct Bisection {
    /// The tree whose series it is.
    pub tree: Tree,
    /// The case.
    pub case: &'static Case,
    /// The kernel, with the whole series.
    pub kernel: String,
    /// How the case is run; it fails if it does in one round.
    pub rounds: Rounds,
    /// Where the report of each run goes, into a directory of the kernel's name.
    pub report: PathBuf,
}

impl Bisection {
    /// Looks for the patch, between the first `good` and the first `bad` patches where these are given; tells
    /// in a line each what it does and what came of it; the answer in a line.
    pub fn carry_out(
        &self,
        good: Option<usize>,
        bad: Option<usize>,
        say: &mut dyn FnMut(&str) -> Result<(), Error>,
    ) -> Result<String, Error> {
        let patches = self.patches()?;
        let all = patches.len();
        let bad = bad.unwrap_or(all);
        for count in [good.unwrap_or_default(), bad] {
            if count > all {
                return Err(self.unsearchable(format!("the series has {all} patches, not {count}")));
            }
        }
        if good.is_some_and(|good| good >= bad) {
            let reason = format!("it must pass with fewer patches than {bad}, with which it fails");
            return Err(self.unsearchable(reason));
        }
        let (case, kernel, seed) = (full_name(self.case), &self.kernel, self.rounds.seed);
        say(&format!(
            "which of {all} patches makes {case} fail on {kernel}? seed {seed}"
        ))?;
        let mut look = |count: usize| {
            let begun = Instant::now();
            let found = self.look(count, all)?;
            let (word, took) = (found.finding.word(), seconds(begun.elapsed()));
            say(&format!(
                "{count} patches: {word} in {took}: {}",
                found.detail
            ))?;
            Ok(found)
        };
        let answer = Search::new(&mut look).run(good, bad)?;
        let name = |number: usize| patches[number - 1].as_str();
        Ok(match answer {
            Answer::Culprit(number) => format!("it is {}", name(number)),
            Answer::OneOf(first, last) => format!(
                "it is one of {}, with which it cannot be told",
                (first..=last).map(name).collect::<Vec<_>>().join(", ")
            ),
            Answer::NeverPassed { since: 0 } => {
                String::from("it fails the same way without any of them")
            }
            Answer::NeverPassed { since } => format!(
                "it passes with none, and fails the way it does now since {}",
                name(since)
            ),
        })
    }

    /// The names of the patches of the series.
    fn patches(&self) -> Result<Vec<String>, Error> {
        let entry = Matrix::load(self.tree.root())?.find(&self.kernel)?;
        if entry.mutant.is_some() || entry.first.is_some() {
            return Err(self.unsearchable(String::from(
                "a kernel with a mutant, or with a part of the series, cannot be searched",
            )));
        }
        let patches = kernel::patches(self.tree.root(), &entry)?;
        if patches.is_empty() {
            return Err(self.unsearchable(String::from("that kernel does not have the series")));
        }
        Ok(patches)
    }

    fn unsearchable(&self, reason: String) -> Error {
        Error::Unsearchable {
            case: full_name(self.case),
            kernel: self.kernel.clone(),
            reason,
        }
    }

    /// How the case does with the first `count` patches of `all`.
    fn look(&self, count: usize, all: usize) -> Result<Seen, Error> {
        let kernel = if count == all {
            self.kernel.clone()
        } else {
            format!("{}{WITH_FIRST}{count}", self.kernel)
        };
        let candidates = lab::candidates(&self.tree, Some(&kernel))?;
        let plan = plan_of(vec![self.case], &candidates, &kernel, self.rounds)?;
        let prepare = Lab::preparation(&self.tree, &plan);
        let run = Run {
            plan,
            seed: self.rounds.seed,
            room: Room::here(1),
            report: Report::open(&self.report.join(&kernel))?,
            root: self.tree.root().to_owned(),
        };
        match run.carry_out(prepare, &mut Aside(render::choose(Output::Person))) {
            Ok(results) => Ok(judge(&results.cases)),
            Err(Error::Vm(error)) => unbuilt(error),
            Err(error) => Err(error),
        }
    }
}

/// What the rounds say together.
fn judge(rounds: &[CaseResult]) -> Seen {
    let first = |verdict| rounds.iter().find(|result| result.verdict == verdict);
    let of = |finding, result: &CaseResult| Seen {
        finding,
        detail: result.detail.clone(),
    };
    if let Some(failed) = first(Verdict::Fail) {
        let lacks = NO_RINGS.iter().any(|words| failed.detail.contains(words));
        of(
            if lacks {
                Finding::Absent
            } else {
                Finding::Fail
            },
            failed,
        )
    } else if let Some(lost) = first(Verdict::Infra) {
        of(Finding::Untold, lost)
    } else if let Some(skipped) = first(Verdict::Skip) {
        of(Finding::Absent, skipped)
    } else {
        of(Finding::Pass, &rounds[0])
    }
}

/// What it means that there is no such kernel.
fn unbuilt(error: VmError) -> Result<Seen, Error> {
    let finding = match error {
        // An option of the configuration, which a later patch brings.
        VmError::Lacking { .. } => Finding::Absent,
        VmError::Build { .. } => Finding::Untold,
        error => return Err(error.into()),
    };
    let detail = error.to_string();
    Ok(Seen { finding, detail })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn result(verdict: Verdict, detail: &str) -> CaseResult {
        CaseResult {
            name: String::from("a_case"),
            group: String::from("tx"),
            kernel: None,
            verdict,
            duration_ms: 1,
            start_ms: None,
            seed: 7,
            detail: detail.to_owned(),
            evidence: Vec::new(),
        }
    }

    #[test]
    fn one_round_that_fails_is_a_failure_unless_it_lacks_a_ring() {
        use Verdict::{Fail, Infra, Pass, Skip};
        for (verdicts, finding) in [
            ([Pass, Pass], Finding::Pass),
            ([Pass, Fail], Finding::Fail),
            ([Infra, Fail], Finding::Fail),
            ([Pass, Infra], Finding::Untold),
            ([Skip, Skip], Finding::Absent),
        ] {
            let rounds = verdicts.map(|verdict| result(verdict, "frame 3 is not there"));
            assert_eq!(judge(&rounds).finding, finding, "{verdicts:?}");
        }
        let lacking = "cannot set up a TX ring: Protocol not available (os error 92)";
        assert_eq!(judge(&[result(Fail, lacking)]).finding, Finding::Absent);
    }

    #[test]
    fn what_does_not_build_is_no_failure_and_a_full_disk_ends_the_search() {
        let kernel = || String::from("6.1@3");
        let (reason, lacking) = (String::from("error"), String::from("CONFIG_X=y"));
        let log = PathBuf::from("log");
        let build = VmError::Build {
            kernel: kernel(),
            reason,
            log,
        };
        assert_eq!(unbuilt(build).unwrap().finding, Finding::Untold);
        let lacking = VmError::Lacking {
            kernel: kernel(),
            lacking,
        };
        assert_eq!(unbuilt(lacking).unwrap().finding, Finding::Absent);
        let full = VmError::NoSpace {
            doing: String::new(),
            path: PathBuf::new(),
        };
        assert_eq!(unbuilt(full).unwrap_err().exit_status(), 3);
    }
}
