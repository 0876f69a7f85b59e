// SPDX-License-Identifier: MIT OR Apache-2.0
//! The result model: everything that a report says, in the fields of `results.json`.

use std::path::{Component, Path};

use serde::{Deserialize, Serialize};

use crate::verdict::Verdict;

/// A run's results.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Results {
    /// Version of the tool that wrote this.
    pub tool_version: String,
    /// When the run started, RFC 3339, UTC.
    pub started: String,
    /// How long it took, in milliseconds.
    pub duration_ms: u64,
    /// What the VMs ran on; `null` if no VM was needed.
    pub accel: Option<Accel>,
    /// The kernels used.
    pub kernels: Vec<Kernel>,
    /// The cases, in the order of the plan.
    pub cases: Vec<CaseResult>,
    /// How many of each verdict.
    pub totals: Totals,
}

/// The accelerator.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accel {
    /// `kvm` or `tcg`.
    pub name: String,
    /// Why this one.
    pub reason: String,
}

/// A kernel that cases ran on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kernel {
    /// Its name in the matrix.
    pub name: String,
    /// `uname -r`.
    pub release: String,
    /// Where its source came from.
    pub base: String,
    /// Identifies the patches on it.
    pub series_sha256: String,
    /// Identifies its configuration.
    pub config_sha256: String,
    /// The compiler that built it.
    pub compiler: String,
}

impl Kernel {
    /// In what `other` is not the same kernel, if in anything: what that is, and how it is here and there.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Option<(&'static str, String, String)> {
        let differs = [
            ("source", &self.release, &other.release),
            ("series", &self.series_sha256, &other.series_sha256),
            ("configuration", &self.config_sha256, &other.config_sha256),
            ("compiler", &self.compiler, &other.compiler),
        ]
        .into_iter()
        .find(|(_, here, there)| here != there);
        differs.map(|(what, here, there)| (what, short(here), short(there)))
    }
}

/// As much of a hash as people compare.
fn short(text: &str) -> String {
    let is_hash = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    text[..if is_hash { 12 } else { text.len() }].to_owned()
}

/// A case's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CaseResult {
    /// The sentence it proves.
    pub name: String,
    /// Its group.
    pub group: String,
    /// The kernel it ran on, or should have; `null` if the matrix has none for it.
    pub kernel: Option<String>,
    /// The verdict.
    pub verdict: Verdict,
    /// From being picked up to the verdict, in milliseconds.
    pub duration_ms: u64,
    /// From being picked up to the guest's first word, in milliseconds; `null` if that never came.
    pub start_ms: Option<u64>,
    /// The seed that the case was given.
    pub seed: u64,
    /// One line: why this verdict.
    pub detail: String,
    /// What was observed, a line each; paths are relative to the report's directory.
    pub evidence: Vec<String>,
}

impl CaseResult {
    /// Whether somebody has to look at it.
    #[must_use]
    pub fn is_trouble(&self) -> bool {
        matches!(self.verdict, Verdict::Fail | Verdict::Infra)
    }

    /// The command that runs it again, where it is told.
    #[must_use]
    pub fn again(&self) -> Option<&str> {
        let mut lines = self.evidence.iter();
        lines.find_map(|line| line.strip_prefix("again: "))
    }

    /// The run's seed that runs it again, which is not the one that the case was given.
    #[must_use]
    pub fn seed_of_run(&self) -> Option<&str> {
        Some(self.again()?.rsplit_once("--seed ")?.1)
    }

    /// The files that are evidence: what each is, and its path below the report's directory.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.evidence.iter().filter_map(|line| {
            let (kind, path) = line.split_once(": ")?;
            let kind = ["console", "capture", "splat"]
                .into_iter()
                .find(|known| *known == kind)?;
            let is_below = Path::new(path)
                .components()
                .all(|part| matches!(part, Component::Normal(_)));
            is_below.then_some((kind, path))
        })
    }
}

/// Counts by verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Totals {
    /// Passed.
    pub pass: usize,
    /// Failed.
    pub fail: usize,
    /// Skipped.
    pub skip: usize,
    /// Without a verdict on the case.
    pub infra: usize,
}

impl Totals {
    /// Counts `cases`.
    #[must_use]
    pub fn of<'a>(cases: impl IntoIterator<Item = &'a CaseResult>) -> Self {
        let mut totals = Self::default();
        for case in cases {
            match case.verdict {
                Verdict::Pass => totals.pass += 1,
                Verdict::Fail => totals.fail += 1,
                Verdict::Skip => totals.skip += 1,
                Verdict::Infra => totals.infra += 1,
            }
        }
        totals
    }

    /// The exit status of a run with these totals: 1 if a case failed, else 3 if one has no verdict,
    /// else 0. A failure outranks `infra`: it is known, and stays true when the machine is mended.
    #[must_use]
    pub fn exit_status(self) -> u8 {
        match self {
            Self { fail: 1.., .. } => 1,
            Self { infra: 1.., .. } => 3,
            _ => 0,
        }
    }
}

impl std::fmt::Display for Totals {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            pass,
            fail,
            skip,
            infra,
        } = self;
        write!(
            formatter,
            "{pass} passed, {fail} failed, {skip} skipped, {infra} infra"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exit_status_is_that_of_the_gravest_verdict() {
        let status = |pass, fail, skip, infra| {
            Totals {
                pass,
                fail,
                skip,
                infra,
            }
            .exit_status()
        };
        assert_eq!(status(5, 0, 0, 0), 0);
        assert_eq!(status(5, 0, 2, 0), 0);
        assert_eq!(status(5, 1, 2, 0), 1);
        assert_eq!(status(5, 0, 2, 1), 3);
        assert_eq!(status(5, 1, 2, 1), 1);
    }
}
