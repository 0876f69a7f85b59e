// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel selftest prints, read strictly: a line that is not understood, a test that is
//! missing, a total that is wrong make the whole worth nothing.
//!
//! The format is that of `kselftest_harness.h` (Documentation/dev-tools/ktap.rst), flat: no subtests.

use anyhow::{Context as _, bail, ensure};

/// What a program had to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Report {
    /// The results of its tests, at least one.
    Tests(Vec<Test>),
    /// It ran none of its tests, for this reason.
    Skipped(String),
}

/// A test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Test {
    /// Its name; empty where the program has none, as for a skipped test before Linux 6.10.
    pub(crate) name: String,
    /// How it went.
    pub(crate) result: Result,
    /// What it said meanwhile, line by line, without the harness' own noise.
    pub(crate) said: Vec<String>,
}

/// How a test went.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Result {
    /// As it should.
    Pass,
    /// It did not.
    Fail,
    /// It was not run, for this reason.
    Skip(String),
}

/// Reads all that a program printed.
///
/// # Errors
/// It is not whole, or not what is understood here; the error has the line.
pub(crate) fn read(text: &str) -> anyhow::Result<Report> {
    ensure!(
        text.ends_with('\n'),
        "it ends within a line: {:?}",
        text.lines().last().unwrap_or_default()
    );
    let mut lines = text.lines();
    let version = lines.next().unwrap_or_default();
    ensure!(
        version == "TAP version 13",
        "it begins with {version:?} instead of its version"
    );
    let plan = lines.next().unwrap_or_default();
    if let Some(reason) = plan.strip_prefix("1..0 # SKIP ") {
        ensure!(
            lines.next().is_none(),
            "it goes on after it skipped everything"
        );
        return Ok(Report::Skipped(reason.to_owned()));
    }
    let planned: usize = plan
        .strip_prefix("1..")
        .and_then(|count| count.parse().ok())
        .with_context(|| format!("{plan:?} is no plan"))?;
    ensure!(planned > 0, "it plans no test");

    let (mut tests, mut said, mut totals) = (Vec::new(), Vec::new(), None);
    for line in lines {
        ensure!(totals.is_none(), "{line:?} stands behind the totals");
        if let Some(counts) = line.strip_prefix("# Totals: ") {
            totals = Some(counts);
        } else if let Some(comment) = line.strip_prefix('#') {
            said.extend(remark(comment));
        } else {
            let said = std::mem::take(&mut said);
            tests.push(test(line, tests.len() + 1, said)?);
        }
    }
    ensure!(
        tests.len() == planned,
        "{planned} tests are planned and {} were run",
        tests.len()
    );
    let counted = count(&tests);
    ensure!(
        totals == Some(counted.as_str()),
        "its totals are {totals:?} instead of {counted:?}"
    );
    Ok(Report::Tests(tests))
}

/// A comment, unless it is the frame that the harness puts around every test.
fn remark(comment: &str) -> Option<String> {
    let comment = comment.trim();
    let noise = ["RUN ", "OK ", "FAIL ", "Starting ", "PASSED: ", "FAILED: "];
    let is_noise = comment.is_empty() || noise.iter().any(|word| comment.starts_with(word));
    (!is_noise).then(|| comment.to_owned())
}

/// `ok 3 name`, `not ok 3 name`, `ok 3 name # SKIP reason`.
fn test(line: &str, number: usize, said: Vec<String>) -> anyhow::Result<Test> {
    let foreign = || format!("{line:?} is nothing that a selftest says");
    let (passed, rest) = match line.strip_prefix("not ok ") {
        Some(rest) => (false, rest),
        None => (true, line.strip_prefix("ok ").with_context(foreign)?),
    };
    let (found, rest) = rest.split_once(' ').with_context(foreign)?;
    ensure!(
        found.parse() == Ok(number),
        "{line:?} stands where test {number} should"
    );
    let (name, directive) = match rest.split_once("# ") {
        Some((name, directive)) => (name.trim(), Some(directive)),
        None => (rest, None),
    };
    let result = match (passed, directive) {
        (true, None) => Result::Pass,
        (false, None) => Result::Fail,
        (true, Some(directive)) => match directive.strip_prefix("SKIP ") {
            Some(reason) => Result::Skip(reason.to_owned()),
            None => bail!(foreign()),
        },
        (false, Some(_)) => bail!(foreign()),
    };
    ensure!(
        !name.is_empty() || matches!(result, Result::Skip(_)),
        foreign()
    );
    Ok(Test {
        name: name.to_owned(),
        result,
        said,
    })
}

/// The totals as the program must have counted them.
fn count(tests: &[Test]) -> String {
    let of = |wanted: fn(&Result) -> bool| tests.iter().filter(|test| wanted(&test.result)).count();
    format!(
        "pass:{} fail:{} xfail:0 xpass:0 skip:{} error:0",
        of(|result| *result == Result::Pass),
        of(|result| *result == Result::Fail),
        of(|result| matches!(result, Result::Skip(_))),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHOLE: &str = "TAP version 13
1..3
# Starting 3 tests from 2 test cases.
#  RUN           setup.race ...
#            OK  setup.race
ok 1 setup.race
#  RUN           dump.by_poll.complete ...
# netlink_mmap.c:9:complete:Expected 1 (1) == 0 (0)
# complete: Test terminated by assertion
#          FAIL  dump.by_poll.complete
not ok 2 dump.by_poll.complete
#  RUN           setup.capability ...
#      SKIP      no user namespaces
#            OK  setup.capability
ok 3 # SKIP no user namespaces
# FAILED: 2 / 3 tests passed.
# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0
";

    fn test(name: &str, result: Result, said: &[&str]) -> Test {
        Test {
            name: name.to_owned(),
            result,
            said: said.iter().map(ToString::to_string).collect(),
        }
    }

    #[test]
    fn a_whole_report_is_read_with_what_each_test_said() {
        let skip = || Result::Skip("no user namespaces".to_owned());
        let expected = [
            test("setup.race", Result::Pass, &[]),
            test(
                "dump.by_poll.complete",
                Result::Fail,
                &[
                    "netlink_mmap.c:9:complete:Expected 1 (1) == 0 (0)",
                    "complete: Test terminated by assertion",
                ],
            ),
            test("", skip(), &["SKIP      no user namespaces"]),
        ];
        assert_eq!(read(WHOLE).unwrap(), Report::Tests(expected.to_vec()));
        let named = WHOLE.replace("ok 3 # SKIP", "ok 3 setup.capability # SKIP");
        let Report::Tests(tests) = read(&named).unwrap() else {
            unreachable!("{named}")
        };
        assert_eq!(
            (tests[2].name.as_str(), &tests[2].result),
            ("setup.capability", &skip())
        );
    }

    #[test]
    fn a_program_may_skip_everything() {
        let text = "TAP version 13\n1..0 # SKIP the kernel has no rings\n";
        assert_eq!(
            read(text).unwrap(),
            Report::Skipped("the kernel has no rings".to_owned())
        );
    }

    #[test]
    fn what_is_not_whole_is_worth_nothing() {
        let lines: Vec<&str> = WHOLE.lines().collect();
        for count in 0..lines.len() {
            let cut: String = lines[..count]
                .iter()
                .flat_map(|line| [line, "\n"])
                .collect();
            assert!(read(&cut).is_err(), "{cut}");
        }
        for cut in 0..WHOLE.len() {
            assert!(read(&WHOLE[..cut]).is_err(), "{}", &WHOLE[..cut]);
        }
    }

    #[test]
    fn what_is_not_understood_is_named() {
        for (from, to, expected) in [
            ("version 13", "version 14", "instead of its version"),
            ("1..3", "1..4", "4 tests are planned and 3 were run"),
            ("1..3", "1..2", "2 tests are planned and 3 were run"),
            ("1..3", "1..0", "plans no test"),
            ("1..3", "3 tests", "is no plan"),
            ("ok 1 setup", "ok 2 setup", "stands where test 1 should"),
            (
                "ok 1 setup.race",
                "Segmentation fault",
                "nothing that a selftest says",
            ),
            ("ok 1 setup.race", "ok 1", "nothing that a selftest says"),
            ("ok 1 setup.race", "ok 1 setup.race # XFAIL", "nothing that"),
            (
                "ok 2 dump.by_poll.complete",
                "ok 2 dump # SKIP it",
                "nothing that",
            ),
            ("not ok 2", "ok 2", "its totals are"),
            ("skip:1", "skip:0", "its totals are"),
            ("# Totals: ", "ok 4 late\n# Totals: ", "4 were run"),
            ("error:0\n", "error:0\nok 4 late\n", "behind the totals"),
            ("1..3\n", "1..0 # SKIP why\n", "goes on after it skipped"),
        ] {
            let text = WHOLE.replacen(from, to, 1);
            assert_ne!(text, WHOLE, "{from}");
            let message = read(&text).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}\nlacks {expected}");
        }
    }
}
