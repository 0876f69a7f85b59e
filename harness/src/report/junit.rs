// SPDX-License-Identifier: MIT OR Apache-2.0
//! `JUnit` XML: a suite per group; `infra` is an `error`, not a `failure`. It keeps to the schema of Jenkins, which
//! other readers take too.

use std::time::Duration;

use chrono::DateTime;
use quick_junit::{NonSuccessKind, Property, Report, TestCase, TestCaseStatus, TestSuite};

use crate::results::{CaseResult, Results};
use crate::verdict::Verdict;

/// The whole document.
pub fn render(results: &Results) -> String {
    let mut report = Report::new("nlring");
    report.set_time(Duration::from_millis(results.duration_ms));
    let mut suites: Vec<(&str, TestSuite)> = Vec::new();
    for case in &results.cases {
        let position = suites
            .iter()
            .position(|(group, _)| *group == case.group)
            .unwrap_or_else(|| {
                suites.push((&case.group, suite(&case.group, results)));
                suites.len() - 1
            });
        suites[position].1.add_test_case(test_case(case));
    }
    report.add_test_suites(suites.into_iter().map(|(_, suite)| suite));
    let mut text = report.to_string().expect("text in memory");
    leave_out_skipped_at_the_top(&mut text);
    // Of the characters that XML cannot hold at all, the crate leaves out the others.
    text.retain(|character| !matches!(character, '\u{fffe}' | '\u{ffff}'));
    if !text.ends_with('\n') {
        text.push('\n');
    }
    text
}

/// The crate counts at the top, too, what was skipped; the schema knows no such attribute there.
fn leave_out_skipped_at_the_top(text: &mut String) {
    const ATTRIBUTE: &str = " skipped=\"";
    let tag = text.find("<testsuites").unwrap_or_default();
    let end = text[tag..].find('>').map_or(text.len(), |end| tag + end);
    if let Some(begin) = text[tag..end].find(ATTRIBUTE).map(|begin| tag + begin) {
        let value = begin + ATTRIBUTE.len();
        if let Some(length) = text[value..end].find('"') {
            text.replace_range(begin..=value + length, "");
        }
    }
}

fn suite(group: &str, results: &Results) -> TestSuite {
    let mut suite = TestSuite::new(group);
    if let Ok(started) = DateTime::parse_from_rfc3339(&results.started) {
        suite.set_timestamp(started);
    }
    if let Some(accel) = &results.accel {
        suite.add_property(Property::new("accel", &accel.name));
        suite.add_property(Property::new("accel.reason", &accel.reason));
    }
    for kernel in &results.kernels {
        suite.add_property(Property::new(
            format!("kernel.{}", kernel.name),
            &kernel.release,
        ));
    }
    suite
}

fn test_case(case: &CaseResult) -> TestCase {
    let status = match case.verdict {
        Verdict::Pass => TestCaseStatus::success(),
        Verdict::Skip => TestCaseStatus::skipped(),
        Verdict::Fail => TestCaseStatus::non_success(NonSuccessKind::Failure),
        Verdict::Infra => TestCaseStatus::non_success(NonSuccessKind::Error),
    };
    let mut test = TestCase::new(&case.name, status);
    test.set_classname(&case.group);
    test.set_time(Duration::from_millis(case.duration_ms));
    if case.verdict != Verdict::Pass {
        test.status.set_message(&case.detail);
    }
    if matches!(case.verdict, Verdict::Fail | Verdict::Infra) {
        test.status.set_type(case.verdict.word());
        test.status.set_description(case.evidence.join("\n"));
    }
    // A case has no properties of its own in the schema.
    let kernel = case.kernel.as_deref().unwrap_or("none");
    let mut told = vec![format!("kernel {kernel}, seed {}", case.seed)];
    told.extend(case.evidence.iter().cloned());
    test.set_system_out(told.join("\n"));
    test
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_as_what_was_meant() {
        let text = render(&super::super::tests::example());
        let report = Report::deserialize_from_str(&text).unwrap();
        assert_eq!((report.tests, report.failures, report.errors), (4, 1, 1));
        assert_eq!(report.test_suites.len(), 2);
        let failed = &report.test_suites[0].test_cases[1];
        let TestCaseStatus::NonSuccess { kind, message, .. } = &failed.status else {
            panic!("{failed:?}")
        };
        assert_eq!(*kind, NonSuccessKind::Failure);
        assert_eq!(
            message.as_ref().unwrap().as_str(),
            "packet 8 before 7 # <oops>"
        );
        let TestCaseStatus::NonSuccess { kind, .. } = &report.test_suites[1].test_cases[1].status
        else {
            panic!("{text}")
        };
        assert_eq!(*kind, NonSuccessKind::Error);
        assert!(text.contains("saw &lt;1&gt; &amp; &quot;2&quot;"), "{text}");
    }

    #[test]
    fn what_a_kernel_may_print_but_xml_may_not_hold_is_left_out() {
        let mut results = super::super::tests::example();
        results.cases[1].detail = String::from("esc \u{1b}[31m nul \0 end");
        let text = render(&results);
        assert!(!text.contains('\u{1b}') && !text.contains('\0'), "{text:?}");
        Report::deserialize_from_str(&text).unwrap();
    }
}
