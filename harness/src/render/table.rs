// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table at the end, and the rates of a repeated run.

use std::time::Duration;

use comfy_table::{Attribute, Cell, CellAlignment, Color, ContentArrangement, Table, presets};

use super::lines::seconds;
use crate::rate::{self, Rate};
use crate::results::Results;
use crate::verdict::Verdict;

/// Columns below which a cell would be broken into letters.
const NARROWEST: u16 = 72;

/// A line for each case that was run more than once: how often it passed.
pub fn rates(results: &Results) -> Vec<String> {
    let repeated = rate::all(results).into_iter().filter(Rate::is_repeated);
    repeated
        .map(|rate| {
            let first = rate.first();
            let kernel = first.kernel.as_deref().unwrap_or("-");
            format!("{} on {kernel}: {}", first.name, rate.sentence())
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
    for rate in rate::all(results) {
        let (first, runs, gravest) = (rate.first(), &rate.runs, rate.gravest());
        let word = if rate.is_repeated() {
            format!("{} {}/{}", gravest.word(), rate.totals().pass, runs.len())
        } else {
            gravest.word().to_owned()
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

fn colour(verdict: Verdict) -> Color {
    match verdict {
        Verdict::Pass => Color::Green,
        Verdict::Fail => Color::Red,
        Verdict::Skip => Color::Yellow,
        Verdict::Infra => Color::Magenta,
    }
}
