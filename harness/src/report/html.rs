// SPDX-License-Identifier: MIT OR Apache-2.0
//! The page for people: one file, which needs no server and nothing from elsewhere.

use std::collections::HashMap;
use std::path::Path;

use askama::Template;
use nlring_channel::LOG_MARK;

use super::chart;
use crate::rate::{self, Rate};
use crate::results::{CaseResult, Results};
use crate::splat::{self, Scan, decoded};

/// Of a console, what is shown at most besides splats and what is around them, in lines.
const SHOWN: usize = 200;

#[derive(Template)]
#[template(path = "report.html")]
struct Page<'a> {
    headline: String,
    results: &'a Results,
    troubled: Vec<String>,
    charts: Vec<String>,
    groups: Vec<Group<'a>>,
}

struct Group<'a> {
    name: &'a str,
    cases: Vec<String>,
}

#[derive(Template)]
#[template(path = "case.html")]
struct Row<'a> {
    case: &'a CaseResult,
    verdict: &'static str,
    is_open: bool,
    /// What it is, what it says, and whether that is a path.
    evidence: Vec<(&'a str, &'a str, bool)>,
    console: Vec<Line>,
}

#[derive(Template)]
#[template(path = "rate.html")]
struct RateRow<'a> {
    rate: &'a Rate<'a>,
    verdict: &'static str,
    pass: usize,
    sentence: String,
}

#[derive(Debug, PartialEq, Eq)]
struct Line {
    text: String,
    is_splat: bool,
}

/// The whole page; consoles are read from below `directory`.
pub fn render(results: &Results, directory: &Path) -> String {
    let troubled = results.cases.iter().filter(|case| case.is_trouble());
    let mut groups: Vec<Group<'_>> = Vec::new();
    for rate in rate::all(results) {
        let case = rate.first();
        let row = if rate.is_repeated() {
            rate_row(&rate)
        } else {
            row(case, false, Vec::new())
        };
        match groups.iter_mut().find(|group| group.name == case.group) {
            Some(group) => group.cases.push(row),
            None => groups.push(Group {
                name: &case.group,
                cases: vec![row],
            }),
        }
    }
    let page = Page {
        headline: headline(results),
        results,
        troubled: troubled
            .map(|case| row(case, true, console(case, directory)))
            .collect(),
        charts: chart::of(&results.cases),
        groups,
    };
    page.render().expect("text in memory")
}

/// How it went, in a few words.
pub(super) fn headline(results: &Results) -> String {
    let totals = results.totals;
    match totals.fail + totals.infra {
        0 => format!("{} cases passed", totals.pass),
        trouble => format!("{trouble} of {} cases did not pass", results.cases.len()),
    }
}

fn row(case: &CaseResult, is_open: bool, console: Vec<Line>) -> String {
    let evidence = case.evidence.iter().map(|line| {
        let (what, told) = line.split_once(": ").unwrap_or(("", line));
        match what {
            "console" | "capture" | "splat" => (what, told, true),
            "again" | "fingerprint" | "kernel log" => (what, told, false),
            _ => ("seen", line.as_str(), false),
        }
    });
    let row = Row {
        case,
        verdict: case.verdict.word(),
        is_open,
        evidence: evidence.collect(),
        console,
    };
    row.render().expect("text in memory")
}

/// A case that ran more than once: how often it passed, and each run in a line.
fn rate_row(rate: &Rate<'_>) -> String {
    let row = RateRow {
        rate,
        verdict: rate.gravest().word(),
        pass: rate.totals().pass,
        sentence: rate.sentence(),
    };
    row.render().expect("text in memory")
}

/// What is shown of the case's console.
fn console(case: &CaseResult, directory: &Path) -> Vec<Line> {
    let file = |kind: &str| {
        let (_, path) = case.files().find(|(what, _)| *what == kind)?;
        let bytes = std::fs::read(directory.join(path)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    };
    let decoded = file("splat").unwrap_or_default();
    file("console")
        .map(|log| excerpt(&log, &decoded::read(&decoded)))
        .unwrap_or_default()
}

/// A log from where the case begins, or its end; and each splat, marked, with where in the source it is
/// by `decoded`.
fn excerpt(log: &str, decoded: &HashMap<&str, &str>) -> Vec<Line> {
    let lines: Vec<&str> = log.lines().collect();
    let mut is_splat = vec![false; lines.len()];
    let scan = Scan::of(log).unwrap_or_default();
    for splat in &scan.splats {
        let first = splat.line - 1;
        let end = lines.len().min(first + splat.body.len());
        is_splat[first..end].fill(true);
    }
    let case = lines.iter().position(|line| line.contains(LOG_MARK));
    let begin = lines.len().saturating_sub(SHOWN).max(case.unwrap_or(0));
    let mut shown = Vec::new();
    let mut left_out = 0;
    for (number, text) in lines.iter().enumerate() {
        let is_near =
            is_splat[number.saturating_sub(3)..lines.len().min(number + 4)].contains(&true);
        if !is_near && number < begin {
            left_out += 1;
            continue;
        }
        if left_out > 0 {
            shown.push(Line {
                text: format!("[{left_out} lines are left out]"),
                is_splat: false,
            });
            left_out = 0;
        }
        let text = text.trim_end();
        let place = decoded.get(splat::without_time(text));
        shown.push(Line {
            text: match place {
                Some(place) if is_splat[number] => format!("{text}  {place}"),
                _ => text.to_owned(),
            },
            is_splat: is_splat[number],
        });
    }
    shown
}

/// Milliseconds, as people read them.
#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "templates pass references"
)]
pub(super) fn seconds(milliseconds: &u64) -> String {
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        1000..60_000 => format!("{}.{} s", milliseconds / 1000, milliseconds % 1000 / 100),
        _ => format!(
            "{} min {} s",
            milliseconds / 60_000,
            milliseconds % 60_000 / 1000
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::example;
    use crate::verdict::Verdict;

    #[test]
    fn what_did_not_pass_comes_first_and_text_stays_text() {
        let directory = tempfile::tempdir().unwrap();
        let log = "[    0.000000] Linux version 6.1\r\n".to_owned()
            + &"[    0.100000] dull\n".repeat(100)
            + "[    0.150000] nlring: job 1 begins: frames_are_whole, seed 77\n"
            + "[    0.200000] kernel BUG at <a>.c:1!\n[    0.200000] Call Trace:\n"
            + "[    0.200000]  ring_take+0x1/0x2\n";
        std::fs::create_dir(directory.path().join("x")).unwrap();
        std::fs::write(directory.path().join("x/console.log"), log).unwrap();
        let decoded = "Call Trace:\n ring_take+0x1/0x2\tnet/netlink/ring.c:7\n";
        std::fs::write(directory.path().join("x/splat.txt"), decoded).unwrap();
        let mut results = example();
        for case in &mut results.cases {
            case.evidence.push(String::from("splat: x/splat.txt"));
        }
        let page = render(&results, directory.path());
        let place = |text: &str| page.find(text).unwrap_or_else(|| panic!("{text}: {page}"));
        assert!(place("2 of 4 cases did not pass") < place("frames_are_whole"));
        assert!(place("frames_are_whole") < place("frames_stand_in_order"));
        place("<mark>[    0.200000] kernel BUG at &#60;a&#62;.c:1!</mark>");
        place("<mark>[    0.200000]  ring_take+0x1/0x2  net/netlink/ring.c:7</mark>");
        place("<a href=\"x/splat.txt\">");
        place("packet 8 before 7 # &#60;oops&#62;");
        place("[99 lines are left out]");
        place("<a href=\"x/console.log\">");
        for wrong in ["<oops>", "src=\"http", "href=\"http"] {
            assert!(!page.contains(wrong), "{wrong}");
        }
    }

    #[test]
    fn rounds_of_a_case_are_one_row_with_its_rate_and_their_seeds() {
        let mut results = example();
        let mut again = results.cases.clone();
        again[1].verdict = Verdict::Pass;
        for (case, seed) in again.iter_mut().zip(501..) {
            case.seed = seed;
        }
        results.cases.extend(again);
        let page = render(&results, Path::new("/nowhere"));
        assert_eq!(page.matches("<h2>ordering</h2>").count(), 1, "{page}");
        for part in [
            "<span>frames_are_whole</span><span class=\"time\">1 of 2</span>",
            "On 6.1: 1 of 2 passed, 1 failed.",
            "<td>seed 77</td>",
            "<td>seed 502</td>",
        ] {
            assert!(page.contains(part), "lacks {part}: {page}");
        }
    }

    #[test]
    fn times_read_well() {
        let told = [999, 1099, 59_999, 61_000].map(|time| seconds(&time));
        assert_eq!(told, ["999 ms", "1.0 s", "59.9 s", "1 min 1 s"]);
    }
}
