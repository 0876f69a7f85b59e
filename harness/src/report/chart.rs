// SPDX-License-Identifier: MIT OR Apache-2.0
//! Charts of a run's times, as SVG for a page that is light or dark.

use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::results::CaseResult;

/// A chart's size; it is drawn as wide as there is room.
const SIZE: (u32, u32) = (560, 300);
/// Legible on white and on black.
const INK: RGBColor = RGBColor(128, 132, 138);
const BAR: RGBColor = RGBColor(64, 132, 214);
/// Columns at most.
const COLUMNS: usize = 24;

/// How many VMs took how long to start, and how many cases to run; none of what nobody measured.
pub fn of(cases: &[CaseResult]) -> Vec<String> {
    let starts: Vec<u64> = cases.iter().filter_map(|case| case.start_ms).collect();
    let runs: Vec<u64> = cases
        .iter()
        .filter_map(|case| Some(case.duration_ms.saturating_sub(case.start_ms?)))
        .collect();
    [("Start of a VM", starts), ("Run of a case", runs)]
        .into_iter()
        .filter(|(_, times)| !times.is_empty())
        .map(|(title, times)| histogram(title, times).expect("text in memory"))
        .collect()
}

type Drawn<T> = Result<T, DrawingAreaErrorKind<std::io::Error>>;

/// Times in milliseconds, by how many there are of each.
fn histogram(title: &str, mut times: Vec<u64>) -> Drawn<String> {
    times.sort_unstable();
    let share = |of_hundred: usize| times[(times.len() - 1) * of_hundred / 100];
    let (most, median, late) = (share(100), share(50), share(95));
    let width = column_width(most);
    let mut columns = vec![0_u32; (most / width) as usize + 1];
    for time in &times {
        columns[(time / width) as usize] += 1;
    }
    let highest = columns.iter().copied().max().unwrap_or_default();
    let end = columns.len() as u64 * width;

    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        let ink = |size: u32| ("sans-serif", size).into_font().color(&INK);
        let title = format!("{title}: median {median} ms, 95 in 100 within {late} ms");
        let mut chart = ChartBuilder::on(&area)
            .caption(title, ink(19))
            .margin(10)
            .margin_right(30) // half of the last label
            .x_label_area_size(30)
            .y_label_area_size(44)
            .build_cartesian_2d(0..end, 0..highest + highest.div_ceil(10))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .light_line_style(TRANSPARENT)
            .bold_line_style(INK.mix(0.3))
            .axis_style(INK)
            .label_style(ink(15))
            .x_labels(6)
            .y_labels(5)
            .x_label_formatter(&|time| format!("{time} ms"))
            .draw()?;
        let bars = columns.iter().zip(0..).map(|(&count, column)| {
            let gap = width / 10;
            let corners = [
                (column * width + gap, 0),
                ((column + 1) * width - gap, count),
            ];
            Rectangle::new(corners, BAR.filled())
        });
        chart.draw_series(bars)?;
        let middle = ink(15).pos(Pos::new(HPos::Center, VPos::Bottom));
        let counts = columns.iter().zip(0..).filter(|(count, _)| **count > 0);
        chart.draw_series(counts.map(|(&count, column)| {
            let place = (column * width + width / 2, count);
            Text::new(count.to_string(), place, middle.clone())
        }))?;
        area.present()?;
    }
    // As wide as there is room, and not as wide as was drawn.
    let (width, height) = SIZE;
    let size = format!("width=\"{width}\" height=\"{height}\"");
    Ok(svg.replacen(&size, "role=\"img\"", 1))
}

/// A round number of milliseconds of which there are not too many.
fn column_width(most: u64) -> u64 {
    let wide_enough = |width: &u64| most / width < COLUMNS as u64;
    let decades = (0..).map(|power| 10_u64.pow(power));
    decades
        .flat_map(|decade| [10, 20, 50].map(|step| step * decade))
        .find(wide_enough)
        .expect("some power of ten is")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_round_and_few() {
        let widths = [0, 100, 240, 4700, 3_600_000].map(column_width);
        assert_eq!(widths, [10, 10, 20, 200, 200_000]);
    }

    #[test]
    fn a_chart_tells_what_was_measured() {
        let svg = histogram("Start", vec![100, 110, 120, 900]).unwrap();
        for part in ["median 110 ms", "within 120 ms", "viewBox", "role=\"img\""] {
            assert!(svg.contains(part), "{part}: {svg}");
        }
        assert_eq!(of(&[]), Vec::<String>::new());
    }
}
