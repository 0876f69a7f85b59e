// SPDX-License-Identifier: MIT OR Apache-2.0
//! A live terminal: a bar for the whole, a line for each case at work, and the table at the end.

use std::collections::HashMap;
use std::io::Write as _;
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

use super::Renderer;
use super::lines::{accelerator, judged, planned, seconds, session};
use super::table::table;
use crate::event::{Event, KernelStep};
use crate::interrupt;
use crate::verdict::Verdict;

/// Draws on standard error, prints the table on standard output.
#[derive(Debug)]
pub struct Terminal {
    bars: MultiProgress,
    whole: Option<ProgressBar>,
    step: Option<ProgressBar>,
    at_work: HashMap<usize, (ProgressBar, String)>,
    cases: usize,
}

impl Default for Terminal {
    fn default() -> Self {
        Self::new()
    }
}

impl Terminal {
    /// Nothing drawn yet.
    #[must_use]
    pub fn new() -> Self {
        Self {
            bars: MultiProgress::new(),
            whole: None,
            step: None,
            at_work: HashMap::new(),
            cases: 0,
        }
    }

    fn say(&self, line: impl AsRef<str>) {
        // A terminal that went away is told by SIGHUP, not here.
        let _ = self.bars.println(line);
    }

    /// The line of what is being prepared: a spinner, or a bar once its length is known.
    fn step(&mut self) -> &ProgressBar {
        self.step.get_or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new_spinner());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        })
    }

    fn end_step(&mut self) {
        if let Some(bar) = self.step.take() {
            bar.finish_and_clear();
        }
    }

    fn whole(&mut self) -> &ProgressBar {
        self.whole.get_or_insert_with(|| {
            let bar = self.bars.add(ProgressBar::new(self.cases as u64));
            bar.set_style(style("{bar:30} {pos}/{len} cases  {elapsed}"));
            bar.enable_steady_tick(Duration::from_millis(500));
            bar
        })
    }

    fn show_step(&mut self, name: &str, step: &KernelStep) {
        let bar = self.step();
        match step {
            KernelStep::Phase(phase) => {
                bar.set_style(ProgressStyle::default_spinner());
                bar.set_message(format!("kernel {name}: {phase}"));
            }
            KernelStep::Waiting(why) => bar.set_message(format!("kernel {name}: waiting, {why}")),
            KernelStep::Progress {
                done,
                total: 0,
                what,
            } => {
                bar.set_style(ProgressStyle::default_spinner());
                bar.set_message(format!("kernel {name}: step {done}, {what}"));
            }
            KernelStep::Progress { done, total, what } => {
                bar.set_style(style(
                    "{bar:30} {percent:>3}%  {prefix}  {elapsed}, {eta} to go  {wide_msg}",
                ));
                bar.set_prefix(format!("kernel {name}"));
                bar.set_length(*total);
                bar.set_position(*done);
                bar.set_message(what.clone());
            }
        }
    }

    fn clear(&mut self) {
        self.end_step();
        for (_, (bar, _)) in self.at_work.drain() {
            bar.finish_and_clear();
        }
        if let Some(bar) = self.whole.take() {
            bar.finish_and_clear();
        }
    }
}

impl Renderer for Terminal {
    fn show(&mut self, event: &Event) {
        match event {
            Event::Planned {
                cases,
                kernels,
                seed,
            } => {
                self.cases = *cases;
                self.say(planned(*cases, kernels, *seed));
            }
            Event::Kernel { name, step } => self.show_step(name, step),
            Event::KernelReady { kernel, built_in } => {
                self.end_step();
                let how = built_in.map_or_else(
                    || String::from("from the cache"),
                    |time| format!("built in {}", seconds(time)),
                );
                self.say(format!("kernel {}: {} {how}", kernel.name, kernel.release));
            }
            Event::GuestBinary => self.step().set_message("building the guest binary"),
            Event::Examples => self.step().set_message("building the examples"),
            Event::Accelerator { accel, is_news } => {
                self.end_step();
                self.say(accelerator(accel, *is_news));
            }
            Event::Started { index, name } => {
                self.end_step();
                self.whole();
                let bar = self.bars.add(ProgressBar::new_spinner());
                bar.set_style(style("{spinner} {msg}  {elapsed}"));
                bar.enable_steady_tick(Duration::from_millis(120));
                bar.set_message(format!("{name}: booting"));
                self.at_work.insert(*index, (bar, name.clone()));
            }
            Event::Ready { index, .. } => {
                if let Some((bar, name)) = self.at_work.get(index) {
                    bar.set_message(format!("{name}: running"));
                }
            }
            Event::Note { index, text } => {
                if let Some((bar, name)) = self.at_work.get(index) {
                    bar.set_message(format!("{name}: {text}"));
                }
            }
            Event::Session {
                kernel,
                round,
                of,
                programs,
                took,
            } => self.say(session(kernel, *round, *of, *programs, *took)),
            Event::Judged {
                index,
                result,
                again,
                ..
            } => {
                if let Some((bar, _)) = self.at_work.remove(index) {
                    bar.finish_and_clear();
                }
                self.whole().inc(1);
                if result.verdict != Verdict::Pass {
                    for line in judged(result, again) {
                        self.say(line);
                    }
                }
            }
            Event::Interrupted { signal } => {
                self.say(format!("{}: ending", interrupt::name(*signal)));
            }
            Event::Reported { results, directory } => {
                self.clear();
                // A terminal that has gone away has no reader.
                let _ = writeln!(
                    std::io::stdout(),
                    "{}\n{} in {}\nreport: {}",
                    table(results),
                    results.totals,
                    seconds(Duration::from_millis(results.duration_ms)),
                    directory.display()
                );
            }
        }
    }
}

impl Drop for Terminal {
    /// An error is printed next: it must not stand behind a bar.
    fn drop(&mut self) {
        self.clear();
    }
}

fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template)
        .expect("the template is one of this file")
        .progress_chars("━━─")
}
