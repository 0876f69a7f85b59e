// SPDX-License-Identifier: MIT OR Apache-2.0
//! The search along the series. Whoever looks at a part of it is told how many patches that has.

use std::collections::BTreeMap;

use crate::error::Error;

/// How a case does with a part of the series.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// It passes.
    Pass,
    /// It fails.
    Fail,
    /// What it needs is not there yet.
    Absent,
    /// It cannot be told: this does not build, or the VM was lost.
    Untold,
}

impl Finding {
    /// The word for it.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Absent => "what it needs is not there yet",
            Self::Untold => "cannot be told",
        }
    }
}

/// A finding, and in a line why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) finding: Finding,
    pub(super) detail: String,
}

/// What came of a search. Patches are numbered as they are counted: the first is 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// With this patch it fails, and without it passes.
    Culprit(usize),
    /// It is one of these, the first and the last; with those between them it cannot be told.
    OneOf(usize, usize),
    /// It was not seen to pass with any part; with this patch it begins to fail as it does in the end.
    NeverPassed {
        /// The patch; 0: it fails so without any.
        since: usize,
    },
}

/// A search.
pub(super) struct Search<'a> {
    look: &'a mut dyn FnMut(usize) -> Result<Seen, Error>,
    seen: BTreeMap<usize, Seen>,
}

impl<'a> Search<'a> {
    /// Nothing is known yet.
    pub(super) fn new(look: &'a mut dyn FnMut(usize) -> Result<Seen, Error>) -> Self {
        Self {
            look,
            seen: BTreeMap::new(),
        }
    }

    /// The answer, where the case fails with the first `bad` patches and, if that is given, passes with the
    /// first `good`.
    pub(super) fn run(mut self, good: Option<usize>, bad: usize) -> Result<Answer, Error> {
        self.expect(bad, Finding::Fail)?;
        match good {
            Some(good) => self.expect(good, Finding::Pass)?,
            None => self.gallop(bad)?,
        }
        if self.last_before(bad, Finding::Pass).is_none() {
            self.look_for_a_pass(bad)?;
        }
        let Some(passing) = self.last_before(bad, Finding::Pass) else {
            return Ok(Answer::NeverPassed {
                since: self.since(bad),
            });
        };
        self.halve(passing, bad)
    }

    fn look(&mut self, count: usize) -> Result<Finding, Error> {
        if let Some(seen) = self.seen.get(&count) {
            return Ok(seen.finding);
        }
        let seen = (self.look)(count)?;
        let finding = seen.finding;
        self.seen.insert(count, seen);
        Ok(finding)
    }

    fn expect(&mut self, count: usize, wanted: Finding) -> Result<(), Error> {
        let found = self.look(count)?;
        if found == wanted {
            return Ok(());
        }
        Err(Error::NoBounds {
            count,
            wanted: wanted.word(),
            found: found.word(),
        })
    }

    /// Back from `bad` in steps that double, until something else than a failure is found.
    fn gallop(&mut self, bad: usize) -> Result<(), Error> {
        let mut step = 1;
        while step <= bad {
            if matches!(self.look(bad - step)?, Finding::Pass | Finding::Absent) {
                break;
            }
            step *= 2;
        }
        Ok(())
    }

    /// Looks at everything before `bad`, latest first, until something passes, or is not there yet.
    fn look_for_a_pass(&mut self, bad: usize) -> Result<(), Error> {
        for count in (0..bad).rev() {
            if matches!(self.look(count)?, Finding::Pass | Finding::Absent) {
                break;
            }
        }
        Ok(())
    }

    /// Looks in the middle of what is not known between a pass and the failure behind it, as long as
    /// there is something.
    fn halve(&mut self, mut passing: usize, bad: usize) -> Result<Answer, Error> {
        loop {
            let mut failures = self.seen.range(passing..=bad);
            let failing = failures.find(|(_, seen)| seen.finding == Finding::Fail);
            let failing = failing.map_or(bad, |(&count, _)| count);
            let is_unknown = |count: &usize| !self.seen.contains_key(count);
            let unknown: Vec<usize> = (passing + 1..failing).filter(is_unknown).collect();
            let Some(&middle) = unknown.get(unknown.len() / 2) else {
                return Ok(match failing - passing {
                    1 => Answer::Culprit(failing),
                    _ => Answer::OneOf(passing + 1, failing),
                });
            };
            if self.look(middle)? == Finding::Pass {
                passing = middle;
            }
        }
    }

    fn last_before(&self, bad: usize, wanted: Finding) -> Option<usize> {
        let mut before = self.seen.range(..bad).rev();
        let found = before.find(|(_, seen)| seen.finding == wanted);
        found.map(|(&count, _)| count)
    }

    /// From how many patches on it fails with what it says at `bad`.
    fn since(&self, bad: usize) -> usize {
        let is_alike = |seen: &Seen| {
            seen.finding == Finding::Fail && gist(&seen.detail) == gist(&self.seen[&bad].detail)
        };
        let alike = self.seen.range(..=bad).rev();
        let alike = alike.take_while(|(_, seen)| is_alike(seen));
        alike.last().map_or(bad, |(&count, _)| count)
    }
}

/// A detail without its numbers, which another run may have differently.
fn gist(detail: &str) -> String {
    detail
        .split(|character: char| character.is_ascii_digit())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A series by what comes of each part, `.` not there yet, `p`, `f`, `F` otherwise, `?`; the answer, and
    /// how many were looked at.
    fn search(series: &str, good: Option<usize>) -> (Result<Answer, String>, usize) {
        let mut looks = 0;
        let mut look = |count: usize| {
            looks += 1;
            let (finding, detail) = match series.as_bytes()[count] {
                b'.' => (Finding::Absent, ""),
                b'p' => (Finding::Pass, ""),
                b'f' => (Finding::Fail, "no frame"),
                b'F' => (Finding::Fail, "the frame is empty"),
                _ => (Finding::Untold, ""),
            };
            let detail = format!("{detail} {looks}");
            Ok(Seen { finding, detail })
        };
        let answer = Search::new(&mut look).run(good, series.len() - 1);
        (answer.map_err(|error| error.to_string()), looks)
    }

    #[test]
    fn the_patch_behind_the_last_pass_is_found_wherever_it_is() {
        for first_pass in 0..17 {
            for culprit in first_pass + 1..18 {
                let series: String = (0..18)
                    .map(|count| match count {
                        _ if count < first_pass => '.',
                        _ if count < culprit => 'p',
                        _ => 'f',
                    })
                    .collect();
                let (answer, looks) = search(&series, Some(first_pass));
                assert_eq!(answer, Ok(Answer::Culprit(culprit)), "{series}");
                assert!(looks <= 7, "{series}: {looks}");
                assert_eq!(
                    search(&series, None).0,
                    Ok(Answer::Culprit(culprit)),
                    "{series}"
                );
            }
        }
    }

    #[test]
    fn a_pass_between_failures_is_not_overlooked() {
        // It fails early too, while what it needs is there in part.
        let (answer, _) = search("..ffffffffppfffFFF", None);
        assert_eq!(answer, Ok(Answer::Culprit(12)));
    }

    #[test]
    fn what_never_passed_is_told_by_how_it_fails() {
        for (series, since) in [
            ("..fffffFFFFFF", 7),
            (".........fffff", 9),
            ("ffff", 0),
            ("..???fff", 5),
        ] {
            let answer = Ok(Answer::NeverPassed { since });
            assert_eq!(search(series, None).0, answer, "{series}");
        }
    }

    #[test]
    fn what_cannot_be_told_is_stepped_over() {
        assert_eq!(search("..pp??fff", None).0, Ok(Answer::OneOf(4, 6)));
        assert_eq!(search("..pp?pfff", None).0, Ok(Answer::Culprit(6)));
        assert_eq!(search("pp????f?f", Some(0)).0, Ok(Answer::OneOf(2, 6)));
    }

    #[test]
    fn there_must_be_something_to_look_for() {
        for (series, good, said) in [
            ("ppp", None, "2 patches it should fail; it does not: pass"),
            ("ff?", None, "cannot be told"),
            (
                ".ff",
                Some(0),
                "0 patches it should pass; it does not: what it needs",
            ),
        ] {
            let refused = search(series, good).0.unwrap_err();
            assert!(refused.contains(said), "{refused}");
        }
    }
}
