// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a selftest said: how it ended, and the verdict on each of its subtests.
//!
//! Selftests speak three dialects, and are read in all of them: `TEST: name  [ OK ]`, `PASS: name`, and
//! TAP's `ok 1 name`.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use nlring_cases::compat::evidence;
use regex::Regex;

/// A program's words in one session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Transcript {
    /// How it ended, as `exit status: 0`.
    pub(super) ending: String,
    /// The verdict on each subtest, by its name; of several with one name each has its number.
    pub(super) subtests: BTreeMap<String, Said>,
    /// Messages that came to the busy socket in frames meanwhile.
    pub(super) in_frames: u64,
    /// Messages that came to it by copy.
    pub(super) by_copy: u64,
}

/// A selftest's own verdict.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Said {
    Pass,
    Fail,
    Skip,
    ExpectedFail,
}

impl Said {
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Skip => "skip",
            Self::ExpectedFail => "xfail",
        }
    }

    fn of(word: &str) -> Self {
        match word {
            "OK" | "PASS" | "ok" => Self::Pass,
            "SKIP" => Self::Skip,
            "XFAIL" => Self::ExpectedFail,
            _ => Self::Fail,
        }
    }
}

static BRACKETED: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*TEST: (.*?)\s*\[\s*(OK|PASS|FAIL|SKIP|XFAIL)\s*\]").expect("regular")
});
static PREFIXED: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"^\s*(OK|PASS|FAIL|SKIP|XFAIL|ERROR): ?(.*)$").expect("regular"));
static TAP: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^\s*(ok|not ok) \d+ (?:- )?(.*?)(?:\s*# (SKIP|XFAIL).*)?$").expect("regular")
});
/// Namespaces have random names, and links random aliases; a program's words must not differ for that.
static RANDOM: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"\b(?:([a-z]+\d*-)[A-Za-z0-9]{6,8}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\b")
        .expect("regular")
});

impl Transcript {
    /// Reads the evidence of a program that ended.
    pub(super) fn read(lines: &[String]) -> Result<Self, String> {
        let value = |key: &str| {
            let found = lines.iter().find_map(|line| line.strip_prefix(key));
            found.ok_or_else(|| format!("the guest's evidence has no line {key:?}"))
        };
        let number = |key: &str| {
            value(key)?
                .parse::<u64>()
                .map_err(|error| format!("the guest's evidence: {key}{error}"))
        };
        let mut subtests = BTreeMap::new();
        let mut met: BTreeMap<String, usize> = BTreeMap::new();
        let output = lines
            .iter()
            .filter_map(|line| line.strip_prefix(evidence::OUTPUT));
        for (name, said) in output.filter_map(subtest) {
            let times = met.entry(name.clone()).or_default();
            *times += 1;
            let name = if *times == 1 {
                name
            } else {
                format!("{name} #{times}")
            };
            subtests.insert(name, said);
        }
        Ok(Self {
            ending: value(evidence::ENDING)?.to_owned(),
            subtests,
            in_frames: number(evidence::IN_FRAMES)?,
            by_copy: number(evidence::BY_COPY)?,
        })
    }
}

/// The subtest that a line tells of, and what it says.
fn subtest(line: &str) -> Option<(String, Said)> {
    let (name, said) = if let Some(found) = BRACKETED.captures(line) {
        (found.get(1)?.as_str(), Said::of(&found[2]))
    } else if let Some(found) = PREFIXED.captures(line) {
        (found.get(2)?.as_str(), Said::of(&found[1]))
    } else {
        let found = TAP.captures(line)?;
        let said = found
            .get(3)
            .map_or(&found[1], |directive| directive.as_str());
        (found.get(2)?.as_str(), Said::of(said))
    };
    let name = RANDOM.replace_all(name.trim(), "${1}*").into_owned();
    Some((name, said))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_dialect_is_read() {
        for (line, name, said) in [
            (
                "    TEST: rule4 check: oif dummy0                [ OK ]",
                "rule4 check: oif dummy0",
                Said::Pass,
            ),
            (
                "TEST: Nexthop [group] deleted     [FAIL]",
                "Nexthop [group] deleted",
                Said::Fail,
            ),
            (
                "TEST: Flush by [no]permanent                 [SKIP]",
                "Flush by [no]permanent",
                Said::Skip,
            ),
            (
                "TEST: known to fail      [XFAIL]",
                "known to fail",
                Said::ExpectedFail,
            ),
            (
                "PASS: ns1-aB3dE6gH can reach ns2-aB3dE6gH",
                "ns1-* can reach ns2-*",
                Said::Pass,
            ),
            (
                "PASS: set ifalias 9b1deb4d-3b7d-4bad-9bdd-2b0d7b3dcb6d for d",
                "set ifalias * for d",
                Said::Pass,
            ),
            ("FAIL: tc htb hierarchy", "tc htb hierarchy", Said::Fail),
            ("ERROR: cannot add", "cannot add", Said::Fail),
            (
                "OK: nftables meta cpu counter at expected values",
                "nftables meta cpu counter at expected values",
                Said::Pass,
            ),
            (
                "SKIP: fou tunnel requires it",
                "fou tunnel requires it",
                Said::Skip,
            ),
            (
                "ok 3 tun.delete_detach_close",
                "tun.delete_detach_close",
                Said::Pass,
            ),
            ("not ok 4 - other", "other", Said::Fail),
            ("ok 5 third # SKIP no such thing", "third", Said::Skip),
        ] {
            assert_eq!(subtest(line), Some((name.to_owned(), said)), "{line}");
        }
        for line in [
            "",
            "# PASSED: 3 / 3 tests passed.",
            "1..3",
            "Tests passed: 24",
            "RTNETLINK answers: File exists",
            "INFO: x",
        ] {
            assert_eq!(subtest(line), None, "{line}");
        }
    }

    #[test]
    fn subtests_of_one_name_are_told_apart() {
        let lines = [
            "ending: exit status: 1",
            "| PASS: a",
            "| FAIL: a",
            "| talk",
            "busy socket, in frames: 7",
            "busy socket, by copy: 0",
        ];
        let transcript = Transcript::read(&lines.map(str::to_owned)).unwrap();
        let told: Vec<_> = transcript
            .subtests
            .iter()
            .map(|(name, said)| (name.as_str(), said.word()))
            .collect();
        assert_eq!(told, [("a", "pass"), ("a #2", "fail")]);
        assert_eq!(
            (transcript.ending.as_str(), transcript.in_frames),
            ("exit status: 1", 7)
        );
        let lacking = Transcript::read(
            &lines[..4]
                .iter()
                .map(|&line| line.to_owned())
                .collect::<Vec<_>>(),
        );
        assert!(lacking.unwrap_err().contains("in frames"));
    }
}
