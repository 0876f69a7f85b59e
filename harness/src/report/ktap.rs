// SPDX-License-Identifier: MIT OR Apache-2.0
//! KTAP version 1, as Documentation/dev-tools/ktap.rst has it: groups are tests, cases are their subtests.
//!
//! `tools/testing/kunit/kunit.py parse` reads it. KTAP has no word for "nothing can be said": `infra` is
//! `not ok` with the directive ERROR ("the execution of a test has failed due to a specific error").

use std::fmt::Write;

use crate::results::{CaseResult, Results};
use crate::verdict::Verdict;

/// The whole document.
pub fn render(results: &Results) -> String {
    let mut groups: Vec<(&str, Vec<&CaseResult>)> = Vec::new();
    for case in &results.cases {
        match groups.iter_mut().find(|(group, _)| *group == case.group) {
            Some((_, members)) => members.push(case),
            None => groups.push((&case.group, vec![case])),
        }
    }
    let mut text = format!("KTAP version 1\n1..{}\n", groups.len());
    for (index, (group, cases)) in groups.iter().enumerate() {
        write_group(&mut text, index + 1, group, cases).expect("a string takes everything");
    }
    text
}

fn write_group(
    text: &mut String,
    number: usize,
    group: &str,
    cases: &[&CaseResult],
) -> std::fmt::Result {
    writeln!(
        text,
        "    KTAP version 1\n    # Subtest: {group}\n    1..{}",
        cases.len()
    )?;
    for (index, case) in cases.iter().enumerate() {
        for line in diagnosis(case) {
            writeln!(text, "    # {line}")?;
        }
        writeln!(
            text,
            "    {} {} {}{}",
            result(case),
            index + 1,
            case.name,
            directive(case)
        )?;
    }
    let good = |case: &&CaseResult| matches!(case.verdict, Verdict::Pass | Verdict::Skip);
    let skipped = cases.iter().all(|case| case.verdict == Verdict::Skip);
    let (ok, why) = match (cases.iter().all(good), skipped) {
        (true, true) => ("ok", " # SKIP"),
        (true, false) => ("ok", ""),
        (false, _) => ("not ok", ""),
    };
    writeln!(text, "{ok} {number} {group}{why}")
}

fn result(case: &CaseResult) -> &'static str {
    match case.verdict {
        Verdict::Pass | Verdict::Skip => "ok",
        Verdict::Fail | Verdict::Infra => "not ok",
    }
}

/// Lines before the result: whatever a person would want with it.
fn diagnosis(case: &CaseResult) -> Vec<String> {
    let kernel = case.kernel.as_deref().unwrap_or("none");
    let mut lines = vec![format!(
        "{}: kernel {kernel}, seed {}, {} ms",
        case.name, case.seed, case.duration_ms
    )];
    if matches!(case.verdict, Verdict::Fail | Verdict::Infra) {
        lines.extend(
            std::iter::once(&case.detail)
                .chain(&case.evidence)
                .map(|line| one_line(line)),
        );
    }
    lines
}

fn directive(case: &CaseResult) -> String {
    match case.verdict {
        Verdict::Pass | Verdict::Fail => String::new(),
        Verdict::Skip => format!(" # SKIP {}", one_line(&case.detail)),
        Verdict::Infra => format!(" # ERROR {}", one_line(&case.detail)),
    }
}

/// `#` starts a directive and is not quoted by any rule that parsers know.
fn one_line(text: &str) -> String {
    text.replace(['\n', '\r'], " ").replace('#', "No.")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Accepted by the kernel's own parser, `tools/testing/kunit/kunit.py parse` of 6.1, as 4 tests: 1
    /// passed, 2 failed, 1 skipped, no parse errors; checked by hand whenever this changes.
    const GOLDEN: &str = include_str!("../../tests/golden/results.ktap");

    #[test]
    fn the_document_is_the_one_that_the_kernels_parser_was_shown() {
        assert_eq!(render(&super::super::tests::example()), GOLDEN);
    }

    #[test]
    fn a_group_of_skips_is_skipped_and_nothing_gets_out_of_its_line() {
        let mut results = super::super::tests::example();
        results.cases.retain(|case| case.verdict == Verdict::Skip);
        results.cases[0].detail = String::from("a\nnot ok 1 b # SKIP");
        let text = render(&results);
        assert!(
            text.ends_with(
                "ok 1 joining_is_refused # SKIP a not ok 1 b No. SKIP\nok 1 multicast # SKIP\n"
            ),
            "{text}"
        );
    }
}
