// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table at the end, and the rates of a repeated run.

use std::fmt::Write;
use std::time::Duration;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};

use super::lines::seconds;
use crate::results::{CaseResult, Results, Totals};
use crate::verdict::Verdict;

/// Columns below which a cell would be broken into letters.
const NARROWEST: u16 = 72;

/// A line for each case that was run more than once: how often it passed.
pub fn rates(results: &Results) -> Vec<String> {
    let by_case = grouped(results);
    let repeated = by_case.iter().filter(|runs| runs.len() > 1);
    repeated
        .map(|runs| {
            let cases: Vec<CaseResult> = runs.iter().map(|run| (*run).clone()).collect();
            let Totals {
                pass,
                fail,
                skip,
                infra,
            } = Totals::of(&cases);
            let mut line = format!(
                "{} on {}: {pass} of {} passed",
                runs[0].name,
                runs[0].kernel.as_deref().unwrap_or("-"),
                runs.len()
            );
            for (count, word) in [(fail, "failed"), (skip, "skipped"), (infra, "infra")] {
                if count > 0 {
                    write!(line, ", {count} {word}").expect("a string takes everything");
                }
            }
            line
        })
        .collect()
}

/// The table: a row for each case, with its gravest verdict and, if it was repeated, the rate of passes.
pub fn table(results: &Results) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Dynamic);
    // A terminal that does not know its width says 0; one that is too narrow may wrap for itself.
    if table.width().is_some_and(|width| width < NARROWEST) {
        table.set_content_arrangement(ContentArrangement::Disabled);
    }
    table.set_header(["group", "case", "kernel", "verdict", "start", "time"]);
    for runs in grouped(results) {
        let (first, count) = (runs[0], runs.len());
        let gravest = runs
            .iter()
            .map(|run| run.verdict)
            .max_by_key(|verdict| gravity(*verdict))
            .expect("a run at least");
        let passed = runs
            .iter()
            .filter(|run| run.verdict == Verdict::Pass)
            .count();
        let word = if count == 1 {
            gravest.word().to_owned()
        } else {
            format!("{} {passed}/{count}", gravest.word())
        };
        let mean = |values: Vec<u64>| {
            let divisor = values.len() as u64;
            (divisor > 0)
                .then(|| seconds(Duration::from_millis(values.iter().sum::<u64>() / divisor)))
        };
        let start = mean(runs.iter().filter_map(|run| run.start_ms).collect()).unwrap_or_default();
        let time = mean(runs.iter().map(|run| run.duration_ms).collect()).unwrap_or_default();
        table.add_row([
            Cell::new(&first.group),
            Cell::new(&first.name),
            Cell::new(first.kernel.as_deref().unwrap_or("-")),
            Cell::new(word)
                .fg(colour(gravest))
                .add_attribute(Attribute::Bold),
            Cell::new(start).set_alignment(CellAlignment::Right),
            Cell::new(time).set_alignment(CellAlignment::Right),
        ]);
    }
    table.to_string()
}

/// The runs of each case, in the order of the plan.
fn grouped(results: &Results) -> Vec<Vec<&CaseResult>> {
    let mut groups: Vec<Vec<&CaseResult>> = Vec::new();
    for case in &results.cases {
        match groups.iter_mut().find(|group| group[0].name == case.name) {
            Some(group) => group.push(case),
            None => groups.push(vec![case]),
        }
    }
    groups
}

fn gravity(verdict: Verdict) -> u8 {
    match verdict {
        Verdict::Skip => 0,
        Verdict::Pass => 1,
        Verdict::Infra => 2,
        Verdict::Fail => 3,
    }
}

fn colour(verdict: Verdict) -> Color {
    match verdict {
        Verdict::Pass => Color::Green,
        Verdict::Fail => Color::Red,
        Verdict::Skip => Color::Yellow,
        Verdict::Infra => Color::Magenta,
    }
}
