// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nlring mutants`: is each fault that the series could have seen by the cases that should see it?
//!
//! First the cases run on the kernel as it is: one that fails there can kill nobody. Then each mutant is
//! built and its cases run on it. A case that fails kills the mutant; one without a verdict does not.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nlring_cases::Case;
use nlring_vm::matrix::WITH_MUTANT;
use serde::Serialize;

use crate::error::Error;
use crate::lab::{self, Lab};
use crate::mutant::Mutant;
use crate::plan::{Rounds, plan_of};
use crate::render::{self, Aside, Output, seconds};
use crate::report::Report;
use crate::results::{CaseResult, Results};
use crate::room::Room;
use crate::run::Run;
use crate::tree::Tree;
use crate::verdict::Verdict;

/// What came of a mutant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judged {
    /// Its name.
    pub name: String,
    /// Whether a case failed on it; of several rounds, in each of them.
    pub killed: bool,
    /// The cases that failed.
    pub by: Vec<String>,
    /// In a line: why it was killed, or how it survived.
    pub detail: String,
    /// Whether its cases could say nothing for or against it.
    #[serde(skip)]
    unjudged: bool,
}

#[cfg(test)]
impl Judged {
    pub(crate) fn example(name: &str, killed: bool, detail: &str) -> Self {
        Self {
            name: name.to_owned(),
            killed,
            by: Vec::new(),
            detail: detail.to_owned(),
            unjudged: false,
        }
    }
}

/// What came of all of them, in the form of `--json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Judgement {
    /// Each mutant.
    pub mutants: Vec<Judged>,
    /// How many of each kind.
    pub totals: Totals,
}

/// Counts.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Totals {
    /// A case failed.
    pub killed: usize,
    /// All cases passed.
    pub survived: usize,
    /// It could not be built, or its cases have no verdict.
    pub unjudged: usize,
}

impl std::fmt::Display for Totals {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            killed,
            survived,
            unjudged,
        } = self;
        write!(
            formatter,
            "{killed} killed, {survived} survived, {unjudged} unjudged"
        )
    }
}

impl Judgement {
    /// 1 if one survived, else 3 if one could not be judged, else 0.
    #[must_use]
    pub fn exit_status(&self) -> u8 {
        match self.totals {
            Totals { survived: 1.., .. } => 1,
            Totals { unjudged: 1.., .. } => 3,
            _ => 0,
        }
    }
}

/// How mutants are judged.
#[derive(Debug, Clone)]
pub struct Court {
    /// The tree they are in.
    pub tree: Tree,
    /// VMs at once.
    pub jobs: NonZeroUsize,
    /// Seed of everything random.
    pub seed: u64,
    /// How often each case is run on each mutant.
    pub repeat: u32,
    /// Where the report of each goes, into a directory of its name.
    pub report: PathBuf,
    /// Who reads what is said on the way.
    pub output: Output,
}

impl Court {
    /// Judges `mutants`, and tells in a line what came of each.
    pub fn judge(
        &self,
        mutants: &[Mutant],
        say: &mut dyn FnMut(&str) -> Result<(), Error>,
    ) -> Result<Judgement, Error> {
        say(&format!("{} mutants, seed {}", mutants.len(), self.seed))?;
        let sound = self.controls(mutants, say)?;
        let mut judged = Vec::new();
        for (number, mutant) in mutants.iter().enumerate() {
            let begun = Instant::now();
            say(&format!(
                "{}/{} {}: {}",
                number + 1,
                mutants.len(),
                mutant.name,
                mutant.subject
            ))?;
            let cases = cases_of(mutant)?;
            let is_sound = |case: &&Case| sound.contains(&(mutant.kernel.clone(), case.name));
            let verdict = if let Some(case) = cases.iter().copied().find(|case| !is_sound(case)) {
                let detail = format!("{} does not pass without the mutant", case.name);
                unjudged(mutant, detail)
            } else {
                let kernel = format!("{}{WITH_MUTANT}{}", mutant.kernel, mutant.name);
                match self.run(&cases, &kernel, self.repeat, &mutant.name) {
                    Ok(results) => sentence(mutant, &results.cases),
                    // One that cannot be built must not keep the others from being judged.
                    Err(Error::Vm(error)) => unjudged(mutant, error.to_string()),
                    Err(error) => return Err(error),
                }
            };
            say(&line(&verdict, begun.elapsed()))?;
            judged.push(verdict);
        }
        Ok(judgement(judged))
    }

    /// The cases that pass on the kernels as they are.
    fn controls(
        &self,
        mutants: &[Mutant],
        say: &mut dyn FnMut(&str) -> Result<(), Error>,
    ) -> Result<BTreeSet<(String, &'static str)>, Error> {
        let mut needed = BTreeMap::<&str, BTreeMap<&str, &'static Case>>::new();
        for mutant in mutants {
            let cases = cases_of(mutant)?.into_iter().map(|case| (case.name, case));
            needed.entry(&mutant.kernel).or_default().extend(cases);
        }
        let mut sound = BTreeSet::new();
        for (kernel, cases) in needed {
            say(&format!("{} cases on {kernel} as it is", cases.len()))?;
            let cases: Vec<_> = cases.into_values().collect();
            let results = self.run(&cases, kernel, 1, kernel)?;
            for case in cases {
                let passed = |result: &CaseResult| {
                    result.name == case.name && result.verdict == Verdict::Pass
                };
                if results.cases.iter().any(passed) {
                    sound.insert((kernel.to_owned(), case.name));
                }
            }
        }
        Ok(sound)
    }

    fn run(
        &self,
        cases: &[&'static Case],
        kernel: &str,
        repeat: u32,
        folder: &str,
    ) -> Result<Results, Error> {
        let candidates = lab::candidates(&self.tree, Some(kernel))?;
        let rounds = Rounds {
            seed: self.seed,
            repeat,
            cold: false,
        };
        let plan = plan_of(cases.to_vec(), &candidates, kernel, rounds)?;
        let prepare = Lab::preparation(&self.tree, &plan);
        let run = Run {
            plan,
            seed: self.seed,
            room: Room::here(self.jobs.get()),
            report: Report::open(&self.report.join(folder))?,
            root: self.tree.root().to_owned(),
        };
        run.carry_out(prepare, &mut Aside(render::choose(self.output)))
    }
}

fn cases_of(mutant: &Mutant) -> Result<Vec<&'static Case>, Error> {
    let find = |name: &String| {
        nlring_cases::find(name).ok_or_else(|| Error::Mutant {
            path: format!("kernel-config/mutants/{}.patch", mutant.name).into(),
            reason: format!("it is seen by {name}, but there is no such case"),
        })
    };
    mutant.seen_by.iter().map(find).collect()
}

fn unjudged(mutant: &Mutant, detail: String) -> Judged {
    Judged {
        name: mutant.name.clone(),
        killed: false,
        by: Vec::new(),
        detail,
        unjudged: true,
    }
}

/// `results` has every round of one case before, or among, those of another; in each case's own order.
fn sentence(mutant: &Mutant, results: &[CaseResult]) -> Judged {
    let mut failures = Vec::new(); // of each case: in which rounds it failed
    for name in &mutant.seen_by {
        let rounds = results.iter().filter(|result| result.name == *name);
        failures.push((
            name,
            rounds
                .map(|result| result.verdict == Verdict::Fail)
                .collect::<Vec<_>>(),
        ));
    }
    let rounds = failures.first().map_or(0, |(_, failed)| failed.len());
    let killing = (0..rounds)
        .filter(|&round| failures.iter().any(|(_, failed)| failed[round]))
        .count();
    let by = failures.iter().filter(|(_, failed)| failed.contains(&true));
    let by = by.map(|(name, _)| (*name).clone()).collect();
    let first = |verdict| results.iter().find(|result| result.verdict == verdict);
    let why = first(Verdict::Fail)
        .or_else(|| first(Verdict::Infra))
        .or_else(|| first(Verdict::Skip));
    let why = why.map_or_else(
        || String::from("every case passed"),
        |result| format!("{}: {}", result.name, result.detail),
    );
    let detail = match rounds {
        1 => why,
        _ => format!("killed in {killing} of {rounds} rounds; {why}"),
    };
    Judged {
        name: mutant.name.clone(),
        killed: rounds > 0 && killing == rounds,
        by,
        detail,
        unjudged: killing == 0 && results.iter().all(|result| result.verdict != Verdict::Pass),
    }
}

fn line(judged: &Judged, took: Duration) -> String {
    let Judged {
        name, by, detail, ..
    } = judged;
    let took = seconds(took);
    if judged.killed {
        format!("killed    {name} by {} in {took}", by.join(", "))
    } else if judged.unjudged {
        format!("unjudged  {name} in {took}: {detail}")
    } else {
        format!("SURVIVED  {name} in {took}: {detail}")
    }
}

fn judgement(mutants: Vec<Judged>) -> Judgement {
    let mut totals = Totals::default();
    for judged in &mutants {
        match judged {
            Judged { killed: true, .. } => totals.killed += 1,
            Judged { unjudged: true, .. } => totals.unjudged += 1,
            _ => totals.survived += 1,
        }
    }
    Judgement { mutants, totals }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mutant() -> Mutant {
        Mutant {
            name: String::from("lost-lock"),
            subject: String::from("Forget the lock"),
            breaks: vec![String::from("fault-24")],
            seen_by: ["one", "two"].map(String::from).to_vec(),
            kernel: String::from("6.1"),
        }
    }

    fn results(verdicts: &[(&str, Verdict)]) -> Vec<CaseResult> {
        let result = |&(name, verdict): &(&str, Verdict)| CaseResult {
            name: name.to_owned(),
            group: String::from("ordering"),
            kernel: None,
            verdict,
            duration_ms: 1,
            start_ms: None,
            seed: 7,
            detail: format!("{name} said {}", verdict.word()),
            evidence: Vec::new(),
        };
        verdicts.iter().map(result).collect()
    }

    #[test]
    fn one_failure_kills_and_nothing_else_does() {
        use Verdict::{Fail, Infra, Pass, Skip};
        let judge = |one, two| sentence(&mutant(), &results(&[("one", one), ("two", two)]));

        let killed = judge(Pass, Fail);
        assert!(killed.killed);
        assert_eq!(
            (killed.by, &*killed.detail),
            (vec![String::from("two")], "two: two said fail")
        );
        assert!(judge(Fail, Infra).killed);

        for (one, two) in [(Pass, Pass), (Pass, Infra), (Skip, Pass)] {
            let survivor = judge(one, two);
            assert!(!survivor.killed && !survivor.unjudged, "{survivor:?}");
        }
        for (one, two) in [(Infra, Infra), (Skip, Infra)] {
            let nothing = judge(one, two);
            assert!(!nothing.killed && nothing.unjudged, "{nothing:?}");
        }
    }

    #[test]
    fn of_several_rounds_each_must_kill() {
        use Verdict::{Fail, Pass};
        let rounds = |rounds: [(Verdict, Verdict); 2]| {
            let verdicts = rounds.map(|(one, two)| [("one", one), ("two", two)]);
            sentence(&mutant(), &results(&verdicts.concat()))
        };
        let now_and_then = rounds([(Fail, Pass), (Pass, Pass)]);
        assert!(!now_and_then.killed && !now_and_then.unjudged);
        assert_eq!(
            now_and_then.detail,
            "killed in 1 of 2 rounds; one: one said fail"
        );
        assert!(rounds([(Fail, Pass), (Pass, Fail)]).killed);
    }

    #[test]
    fn the_exit_status_is_that_of_the_gravest_sentence() {
        use Verdict::{Fail, Infra, Pass};
        let judged = |verdict| sentence(&mutant(), &results(&[("one", verdict), ("two", verdict)]));
        let status = |verdicts: &[Verdict]| {
            judgement(verdicts.iter().copied().map(judged).collect()).exit_status()
        };
        assert_eq!(status(&[Fail, Fail]), 0);
        assert_eq!(status(&[Fail, Infra]), 3);
        assert_eq!(status(&[Pass, Infra, Fail]), 1);
    }
}
