// SPDX-License-Identifier: MIT OR Apache-2.0
//! The summary that GitHub shows on the page of a job, in Markdown.

use std::ffi::OsStr;
use std::fs::OpenOptions;
use std::io::Write as _;
use std::path::Path;

use askama::Template;

use super::html::{headline, seconds};
use crate::error::Error;
use crate::mutants::Judgement;
use crate::rate;
use crate::results::{CaseResult, Results};

/// Names the file that is to be appended to, where there is one.
pub const VARIABLE: &str = "GITHUB_STEP_SUMMARY";

/// Rows at most; a summary of more than a mebibyte is not shown at all.
const ROWS: usize = 100;

#[derive(Template)]
#[template(path = "summary.md", escape = "none")]
struct Summary<'a> {
    headline: String,
    results: &'a Results,
    troubled: &'a [&'a CaseResult],
    left_out: usize,
    /// Of cases that ran more than once and did not always pass: how often they did.
    unsteady: Vec<(String, String)>,
}

#[derive(Template)]
#[template(path = "mutants.md", escape = "none")]
struct MutantsSummary<'a> {
    judgement: &'a Judgement,
}

/// The summary of what came of mutants.
#[must_use]
pub fn of_mutants(judgement: &Judgement) -> String {
    let summary = MutantsSummary { judgement };
    summary.render().expect("text in memory")
}

/// Appends a summary to this file, if it has a name.
pub fn append(summary: &str, file: Option<&OsStr>) -> Result<(), Error> {
    let Some(path) = file.filter(|name| !name.is_empty()).map(Path::new) else {
        return Ok(());
    };
    let file = OpenOptions::new().append(true).create(true).open(path);
    file.and_then(|mut file| file.write_all(summary.as_bytes()))
        .map_err(|source| Error::Report {
            path: path.to_owned(),
            source,
        })
}

/// The summary of a run.
#[must_use]
pub fn of_run(results: &Results) -> String {
    let troubled: Vec<&CaseResult> = results
        .cases
        .iter()
        .filter(|case| case.is_trouble())
        .collect();
    let shown = troubled.len().min(ROWS);
    let summary = Summary {
        headline: headline(results),
        results,
        troubled: &troubled[..shown],
        left_out: troubled.len() - shown,
        unsteady: rate::all(results)
            .iter()
            .filter(|rate| rate.is_repeated() && rate.runs.iter().any(|run| run.is_trouble()))
            .map(|rate| (cell(&rate.first().name), rate.sentence()))
            .collect(),
    };
    summary.render().expect("text in memory")
}

/// Text that neither ends a cell of a table nor is taken for markup.
fn cell(text: &str) -> String {
    let mut escaped = String::new();
    for character in text.chars() {
        match character {
            '\n' | '\r' => escaped.push(' '),
            '<' => escaped.push_str("&lt;"),
            '&' => escaped.push_str("&amp;"),
            '|' | '\\' | '`' | '*' | '_' | '[' | ']' | '#' | '~' => {
                escaped.extend(['\\', character]);
            }
            _ => escaped.push(character),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mutants::{self, Judged};
    use crate::report::tests::example;
    use crate::verdict::Verdict;

    #[test]
    fn what_did_not_pass_is_told_in_a_table_that_its_words_do_not_break() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("summary");
        std::fs::write(&file, "before\n").unwrap();
        let mut results = example();
        results.cases[1].detail = String::from("a|b <c> `d`");
        append(&of_run(&results), Some(file.as_os_str())).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        assert!(text.starts_with("before\n### nlring: 2 of 4 cases did not pass\n"));
        assert!(
            text.contains("| fail | frames_are_whole | 6.1 | a\\|b &lt;c> \\`d\\` |\n| infra |"),
            "{text}"
        );
        assert!(!text.contains("frames_stand_in_order"), "{text}");
    }

    #[test]
    fn many_rows_are_cut_and_no_file_is_no_error() {
        let mut results = example();
        results.cases = vec![results.cases[1].clone(); ROWS + 7];
        let text = of_run(&results);
        assert!(text.contains("\n7 more are in the report.\n"), "{text}");
        assert_eq!(text.matches("| fail |").count(), ROWS);
        append(&text, None).unwrap();
        append(&text, Some(OsStr::new(""))).unwrap();
        assert!(append(&text, Some(OsStr::new("/nowhere/file"))).is_err());
    }

    #[test]
    fn a_case_that_passes_now_and_then_has_its_rate_told() {
        let mut results = example();
        let mut again = results.cases[1].clone();
        again.verdict = Verdict::Pass;
        results.cases.extend([again, results.cases[0].clone()]);
        let text = of_run(&results);
        let rates: Vec<&str> = text.lines().filter(|line| line.starts_with("- ")).collect();
        assert_eq!(rates, ["- frames\\_are\\_whole: 1 of 2 passed, 1 failed"]);
    }

    #[test]
    fn mutants_that_were_not_killed_are_told() {
        let judgement = Judgement {
            mutants: vec![
                Judged::example("lost-lock", true, "a: failed"),
                Judged::example("late-wake", false, "every case | passed"),
            ],
            totals: mutants::Totals {
                killed: 1,
                survived: 1,
                unjudged: 0,
            },
        };
        let text = of_mutants(&judgement);
        assert!(text.starts_with("### nlring mutants: 1 killed, 1 survived, 0 unjudged\n"));
        assert!(
            text.contains("| late-wake | every case \\| passed |"),
            "{text}"
        );
        assert!(!text.contains("lost-lock"), "{text}");
    }
}
