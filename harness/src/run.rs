// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run from plan to report.
//!
//! Everything that takes time happens in other threads and arrives here as messages, so that a signal is
//! answered at once, whatever is going on: the report of what is finished is written, and the end of the
//! process ends every VM and every compiler.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use chrono::{SecondsFormat, Utc};

use crate::case_run::{Hypervisor, Moment, Stage, milliseconds, perform, without_verdict};
use crate::compat;
use crate::error::Error;
use crate::event::Event;
use crate::interrupt;
use crate::loss::Loss;
use crate::place::Place;
use crate::plan::Planned;
use crate::render::Renderer;
use crate::report::Report;
use crate::repro::Recipe;
use crate::results::{Accel, CaseResult, Kernel, Results, Totals};
use crate::room::Room;
use crate::verdict::Verdict;

/// What is run, and how.
#[derive(Debug)]
pub struct Run {
    /// The plan, not empty.
    pub plan: Vec<Planned>,
    /// The run's seed.
    pub seed: u64,
    /// The room for its VMs.
    pub room: Room,
    /// Where the report goes.
    pub report: Report,
    /// The source tree, which scripts in the report refer to.
    pub root: PathBuf,
}

/// Makes the hypervisor once, for these kernels, telling what it does.
pub trait Prepare:
    FnOnce(&[String], &mut dyn FnMut(Event)) -> Result<Box<dyn Hypervisor>, Error> + Send + 'static
{
}

impl<F> Prepare for F where
    F: FnOnce(&[String], &mut dyn FnMut(Event)) -> Result<Box<dyn Hypervisor>, Error>
        + Send
        + 'static
{
}

enum Message {
    Event(Event),
    End(Result<(), Error>),
}

impl Run {
    /// The kernels that the plan needs, each once, in its order.
    #[must_use]
    pub fn kernels(&self) -> Vec<String> {
        let mut kernels: Vec<String> = Vec::new();
        for planned in &self.plan {
            let needed = match &planned.place {
                Place::On(kernel) => vec![kernel.as_str()],
                Place::Across(trio) => trio.kernels().to_vec(),
                Place::Nowhere { .. } => Vec::new(),
            };
            for kernel in needed {
                if !kernels.iter().any(|known| known == kernel) {
                    kernels.push(kernel.to_owned());
                }
            }
        }
        kernels
    }

    /// Runs it. The report is written in every case but one: if the preparation fails, or there is no room
    /// for a VM, there is nothing to report.
    pub fn carry_out(
        self,
        prepare: impl Prepare,
        renderer: &mut dyn Renderer,
    ) -> Result<Results, Error> {
        let (begun, started) = (
            Instant::now(),
            Utc::now().to_rfc3339_opts(SecondsFormat::Millis, true),
        );
        let kernels = self.kernels();
        let Self {
            plan,
            seed,
            room,
            report,
            root,
        } = self;
        renderer.show(&Event::Planned {
            cases: plan.len(),
            kernels: kernels.clone(),
            seed,
        });

        let (tell, told) = mpsc::channel();
        let signals = tell.clone();
        interrupt::watch(move |signal| {
            let _ = signals.send(Message::Event(Event::Interrupted { signal }));
        })
        .map_err(Error::Output)?;
        let shared = Shared {
            plan: plan.clone(),
            directory: report.directory().to_owned(),
            room,
        };
        thread::spawn(move || {
            let result = direct(&shared, &kernels, prepare, &tell);
            let _ = tell.send(Message::End(result));
        });

        let mut seen = Seen {
            cases: vec![None; plan.len()],
            kernels: Vec::new(),
            accel: None,
            signal: None,
        };
        let ended = seen.follow(&told, renderer);
        if let (None, Err(error)) = (seen.signal, ended) {
            return Err(error);
        }
        let finished = seen.cases.iter().flatten().count();
        write_recipes(&plan, &seen, &report, &root)?;
        let cases = plan
            .iter()
            .zip(seen.cases)
            .map(|(planned, result)| result.unwrap_or_else(|| unfinished(planned)));
        let cases: Vec<CaseResult> = cases.collect();
        let results = Results {
            tool_version: env!("CARGO_PKG_VERSION").to_owned(),
            started,
            duration_ms: milliseconds(begun.elapsed()),
            accel: seen.accel,
            kernels: seen.kernels,
            totals: Totals::of(&cases),
            cases,
        };
        report.write(&results)?;
        let directory = report.directory().to_owned();
        renderer.show(&Event::Reported {
            results: results.clone(),
            directory: directory.clone(),
        });
        match seen.signal {
            None => Ok(results),
            Some(number) => Err(Error::Interrupted {
                signal: interrupt::name(number),
                number,
                finished,
                planned: results.cases.len(),
                report: directory,
            }),
        }
    }
}

/// What was seen of a run so far.
struct Seen {
    cases: Vec<Option<CaseResult>>,
    kernels: Vec<Kernel>,
    accel: Option<Accel>,
    signal: Option<i32>,
}

impl Seen {
    /// Listens until the end, or until a signal.
    fn follow(
        &mut self,
        told: &Receiver<Message>,
        renderer: &mut dyn Renderer,
    ) -> Result<(), Error> {
        loop {
            let event = match told
                .recv()
                .expect("the end is told before the last sender goes")
            {
                Message::End(result) => return result,
                Message::Event(event) => event,
            };
            renderer.show(&event);
            match event {
                Event::KernelReady { kernel, .. } => self.kernels.push(kernel),
                Event::Accelerator { accel, .. } => self.accel = Some(accel),
                Event::Judged { index, result, .. } => self.cases[index] = Some(result),
                Event::Interrupted { signal } => {
                    self.signal = Some(signal);
                    return Ok(());
                }
                _ => {}
            }
        }
    }
}

/// Says of each case that did not pass how to have that again.
fn write_recipes(plan: &[Planned], seen: &Seen, report: &Report, root: &Path) -> Result<(), Error> {
    for (planned, result) in plan.iter().zip(&seen.cases) {
        let verdict = result.as_ref().map(|result| result.verdict);
        if matches!(verdict, Some(Verdict::Fail | Verdict::Infra))
            && let Some(recipe) = Recipe::of(planned, &seen.kernels)
        {
            let folder = report.directory().join(planned.folder());
            recipe.write(&folder, root)?;
        }
    }
    Ok(())
}

struct Shared {
    plan: Vec<Planned>,
    directory: PathBuf,
    room: Room,
}

/// Rounds of a case that share a VM at most.
const ROUNDS: usize = 20;

/// What one worker takes on: rounds of a case, or all that are compared across the same kernels.
enum Task<'a> {
    Rounds(Vec<&'a Planned>),
    Comparison(Vec<&'a Planned>),
}

impl<'a> Task<'a> {
    fn begun_by(planned: &'a Planned) -> Self {
        match planned.place {
            Place::Across(_) => Self::Comparison(vec![planned]),
            _ => Self::Rounds(vec![planned]),
        }
    }

    /// Takes `planned` in if it belongs here.
    fn takes(&mut self, planned: &'a Planned) -> bool {
        let (members, belongs) = match self {
            Self::Rounds(rounds) => {
                let is_another = rounds[0].case.name == planned.case.name && rounds.len() < ROUNDS;
                (rounds, is_another)
            }
            Self::Comparison(cases) => {
                let is_beside =
                    cases[0].place == planned.place && cases[0].repetition == planned.repetition;
                (cases, is_beside)
            }
        };
        if belongs {
            members.push(planned);
        }
        belongs
    }
}

/// The plan as tasks; each stands where its first case does.
fn tasks(plan: &[Planned]) -> VecDeque<Task<'_>> {
    let mut tasks: VecDeque<Task<'_>> = VecDeque::new();
    for planned in plan {
        if !tasks.iter_mut().any(|task| task.takes(planned)) {
            tasks.push_back(Task::begun_by(planned));
        }
    }
    tasks
}

/// Prepares, then lets workers take tasks in the plan's order.
fn direct(
    shared: &Shared,
    kernels: &[String],
    prepare: impl Prepare,
    tell: &Sender<Message>,
) -> Result<(), Error> {
    let mut on = |event| drop(tell.send(Message::Event(event)));
    let hypervisor: Arc<dyn Hypervisor> = if kernels.is_empty() {
        Arc::new(NotNeeded)
    } else {
        Arc::from(prepare(kernels, &mut on)?)
    };
    for planned in &shared.plan {
        let (kernel, stage) = match &planned.place {
            Place::On(kernel) => (kernel, Stage::of(planned)),
            Place::Across(trio) => (&trio.ringed, Stage::Host),
            Place::Nowhere { .. } => continue,
        };
        shared.room.admits(hypervisor.memory_mib(kernel, stage))?;
    }
    let waiting = Mutex::new(tasks(&shared.plan));
    thread::scope(|scope| {
        for _ in 0..shared.room.vms().min(shared.plan.len()) {
            scope.spawn(|| {
                loop {
                    // In a statement of its own: the lock must not be held while the case runs.
                    let next = waiting
                        .lock()
                        .expect("no worker panics with it")
                        .pop_front();
                    match next {
                        Some(Task::Rounds(rounds)) => {
                            work(hypervisor.as_ref(), &rounds, shared, tell);
                        }
                        Some(Task::Comparison(cases)) => compat::compare(
                            hypervisor.as_ref(),
                            &shared.room,
                            &cases,
                            &shared.directory,
                            &|event| drop(tell.send(Message::Event(event))),
                        ),
                        None => break,
                    }
                }
            });
        }
    });
    Ok(())
}

fn work(hypervisor: &dyn Hypervisor, rounds: &[&Planned], shared: &Shared, tell: &Sender<Message>) {
    // Nobody listens any more only when the process is about to end.
    let on = |event| drop(tell.send(Message::Event(event)));
    perform(
        hypervisor,
        &shared.room,
        rounds,
        &shared.directory,
        &mut |planned, moment| {
            let index = planned.index;
            on(match moment {
                Moment::Started => Event::Started {
                    index,
                    name: planned.case.name.to_owned(),
                },
                Moment::Ready(after) => Event::Ready { index, after },
                Moment::Note(text) => Event::Note {
                    index,
                    text: text.to_owned(),
                },
                Moment::Judged(result, rounds) => Event::Judged {
                    index,
                    result,
                    rounds,
                    again: planned.again(),
                },
            });
        },
    );
}

/// The hypervisor of a plan whose every case is skipped.
struct NotNeeded;

impl Hypervisor for NotNeeded {
    fn start(
        &self,
        kernel: &str,
        _: Stage,
        _: &Path,
    ) -> Result<Box<dyn crate::case_run::Guest>, Loss> {
        Err(format!("nothing was prepared for kernel {kernel}").into())
    }

    fn memory_mib(&self, _: &str, _: Stage) -> u32 {
        0
    }

    fn symbols(&self, _: &str) -> Option<&std::path::Path> {
        None
    }

    fn patience(&self, _: &str) -> u32 {
        1
    }
}

fn unfinished(planned: &Planned) -> CaseResult {
    CaseResult {
        detail: String::from("the run was interrupted before this case had a verdict"),
        evidence: vec![format!("again: {}", planned.again())],
        ..without_verdict(planned)
    }
}
