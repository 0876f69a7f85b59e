// SPDX-License-Identifier: MIT OR Apache-2.0
//! Plain lines, for pipes and logs: one for each thing worth knowing, none rewritten.

use std::collections::HashMap;
use std::io::Write;
use std::time::{Duration, Instant};

use super::Renderer;
use crate::event::{Event, KernelStep};
use crate::interrupt;
use crate::results::{Accel, CaseResult};
use crate::verdict::Verdict;

/// How often a build says how far it is.
const PROGRESS_EVERY: Duration = Duration::from_secs(15);

/// Writes lines.
#[derive(Debug)]
pub struct Lines<W> {
    to: W,
    progressed: Option<Instant>,
    /// By case, of rounds in one VM: how many are judged, how many of these passed, and the time they took.
    together: HashMap<String, (usize, usize, Duration)>,
}

impl<W: Write> Lines<W> {
    /// Writes lines to `to`.
    pub fn new(to: W) -> Self {
        Self {
            to,
            progressed: None,
            together: HashMap::new(),
        }
    }

    /// One of several rounds in a VM: those that passed are worth one line, when the VM is done.
    fn gather(&mut self, result: &CaseResult, rounds: usize) {
        let entry = self.together.entry(result.name.clone());
        let (judged, passed, took) = entry.or_default();
        *judged += 1;
        if result.verdict == Verdict::Pass {
            *passed += 1;
            *took += Duration::from_millis(result.duration_ms);
        }
        if *judged == rounds {
            let (passed, took) = (*passed, seconds(*took));
            self.together.remove(&result.name);
            if passed > 0 {
                let (group, name) = (&result.group, &result.name);
                let kernel = result.kernel.as_deref().unwrap_or("-");
                self.say(format_args!(
                    "pass  {group}::{name} on {kernel}, {passed} rounds in {took}"
                ));
            }
        }
    }

    fn say(&mut self, line: impl std::fmt::Display) {
        // Whoever reads may have gone away (`| head`); the run and its report go on.
        let _ = writeln!(self.to, "{line}").and_then(|()| self.to.flush());
    }
}

impl<W: Write> Renderer for Lines<W> {
    fn show(&mut self, event: &Event) {
        match event {
            Event::Planned {
                cases,
                kernels,
                seed,
            } => self.say(planned(*cases, kernels, *seed)),
            Event::Kernel { name, step } => match step {
                KernelStep::Phase(phase) => self.say(format_args!("kernel {name}: {phase}")),
                KernelStep::Waiting(why) => self.say(format_args!("kernel {name}: waiting, {why}")),
                KernelStep::Progress { done, total, .. } => {
                    if self
                        .progressed
                        .is_none_or(|last| last.elapsed() >= PROGRESS_EVERY)
                    {
                        self.progressed = Some(Instant::now());
                        match total {
                            0 => self.say(format_args!("kernel {name}: step {done}")),
                            _ => self.say(format_args!("kernel {name}: step {done} of {total}")),
                        }
                    }
                }
            },
            Event::KernelReady { kernel, built_in } => match built_in {
                Some(time) => self.say(format_args!(
                    "kernel {}: {} built in {}",
                    kernel.name,
                    kernel.release,
                    seconds(*time)
                )),
                None => self.say(format_args!(
                    "kernel {}: {} from the cache",
                    kernel.name, kernel.release
                )),
            },
            Event::GuestBinary => self.say("guest binary: building"),
            Event::Examples => self.say("examples: building what is not built"),
            Event::Accelerator { accel, is_news } => self.say(accelerator(accel, *is_news)),
            Event::Started { .. } | Event::Ready { .. } | Event::Note { .. } => {}
            Event::Session {
                kernel,
                round,
                of,
                programs,
                took,
            } => self.say(session(kernel, *round, *of, *programs, *took)),
            Event::Judged {
                result,
                rounds,
                again,
                ..
            } => {
                if *rounds == 1 || result.verdict != Verdict::Pass {
                    for line in judged(result, again) {
                        self.say(line);
                    }
                }
                if *rounds > 1 {
                    self.gather(result, *rounds);
                }
            }
            Event::Interrupted { signal } => {
                self.say(format_args!("{}: ending", interrupt::name(*signal)));
            }
            Event::Reported { results, directory } => {
                for line in super::table::rates(results) {
                    self.say(line);
                }
                self.say(format_args!(
                    "{} in {}",
                    results.totals,
                    seconds(Duration::from_millis(results.duration_ms))
                ));
                self.say(format_args!("report: {}", directory.display()));
            }
        }
    }
}

/// What is about to happen.
pub fn planned(cases: usize, kernels: &[String], seed: u64) -> String {
    let on = if kernels.is_empty() {
        String::new()
    } else {
        format!(" on {}", kernels.join(", "))
    };
    let noun = if cases == 1 { "case" } else { "cases" };
    format!("{cases} {noun}{on}, seed {seed}")
}

/// What the VMs run on; why, when that is news.
pub fn accelerator(accel: &Accel, is_news: bool) -> String {
    if is_news {
        format!("accelerator: {} ({})", accel.name, accel.reason)
    } else {
        format!("accelerator: {}", accel.name)
    }
}

/// A session that is over.
pub fn session(kernel: &str, round: usize, of: usize, programs: usize, took: Duration) -> String {
    format!(
        "session {round} of {of} on {kernel}: {programs} programs in {}",
        seconds(took)
    )
}

/// A verdict, with what a person needs to go on where it is not a pass.
pub fn judged(result: &CaseResult, again: &str) -> Vec<String> {
    let kernel = result.kernel.as_deref().unwrap_or("-");
    let time = seconds(Duration::from_millis(result.duration_ms));
    let mut lines = vec![format!(
        "{:5} {}::{} on {kernel} in {time}",
        result.verdict.word(),
        result.group,
        result.name
    )];
    match result.verdict {
        Verdict::Pass => {}
        Verdict::Skip => lines.push(format!("      {}", result.detail)),
        Verdict::Fail | Verdict::Infra => {
            lines.push(format!("      {}", result.detail));
            let console = result
                .evidence
                .iter()
                .find(|line| line.starts_with("console: "));
            lines.extend(console.map(|line| format!("      {line}")));
            lines.push(format!("      again: {again}"));
        }
    }
    lines
}

/// Seconds, as precise as a person needs them.
#[must_use]
pub fn seconds(duration: Duration) -> String {
    let seconds = duration.as_secs_f64();
    if seconds < 100.0 {
        format!("{seconds:.1} s")
    } else {
        format!(
            "{:.0} min {:02.0} s",
            (seconds / 60.0).floor(),
            seconds % 60.0
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::{Results, Totals};

    fn shown(events: &[Event]) -> String {
        let mut bytes = Vec::new();
        let mut lines = Lines::new(&mut bytes);
        for event in events {
            lines.show(event);
        }
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn a_run_reads_as_a_story() {
        let result = |verdict, detail: &str| CaseResult {
            name: String::from("frames_stand_in_order"),
            group: String::from("ordering"),
            kernel: Some(String::from("6.1")),
            verdict,
            duration_ms: 2345,
            start_ms: Some(1100),
            seed: 7,
            detail: detail.to_owned(),
            evidence: vec![String::from("console: frames_stand_in_order/console.log")],
        };
        let cases = vec![
            result(Verdict::Pass, "fine"),
            result(Verdict::Fail, "8 before 7"),
        ];
        let judged = |result: &CaseResult| Event::Judged {
            index: 0,
            result: result.clone(),
            rounds: 1,
            again: String::from("ci/nlring run x"),
        };
        let text = shown(&[
            Event::Planned {
                cases: 2,
                kernels: vec![String::from("6.1")],
                seed: 7,
            },
            Event::Kernel {
                name: String::from("6.1"),
                step: KernelStep::Progress {
                    done: 1,
                    total: 9,
                    what: String::new(),
                },
            },
            Event::Kernel {
                name: String::from("6.1"),
                step: KernelStep::Progress {
                    done: 2,
                    total: 9,
                    what: String::new(),
                },
            },
            Event::Accelerator {
                accel: Accel {
                    name: String::from("tcg"),
                    reason: String::from("no kvm"),
                },
                is_news: true,
            },
            judged(&cases[0]),
            judged(&cases[1]),
            Event::Reported {
                results: Results {
                    tool_version: String::new(),
                    started: String::new(),
                    duration_ms: 125_000,
                    accel: None,
                    kernels: Vec::new(),
                    totals: Totals::of(&cases),
                    cases,
                },
                directory: "/r".into(),
            },
        ]);
        assert_eq!(
            text,
            "2 cases on 6.1, seed 7\n\
             kernel 6.1: step 1 of 9\n\
             accelerator: tcg (no kvm)\n\
             pass  ordering::frames_stand_in_order on 6.1 in 2.3 s\n\
             fail  ordering::frames_stand_in_order on 6.1 in 2.3 s\n      8 before 7\n      \
             console: frames_stand_in_order/console.log\n      again: ci/nlring run x\n\
             frames_stand_in_order on 6.1: 1 of 2 passed, 1 failed\n\
             1 passed, 1 failed, 0 skipped, 0 infra in 2 min 05 s\n\
             report: /r\n"
        );
    }
}
