// SPDX-License-Identifier: MIT OR Apache-2.0
//! A session: one VM on this machine's file system, in which each program runs once, in order.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nlring_channel::{Outcome, Status};

use crate::case_run::{Errand, Guest, Hypervisor, Stage, milliseconds};
use crate::event::Event;
use crate::plan::Planned;
use crate::splat::{Scan, Splat};

use super::ROUNDS;
use super::transcript::Transcript;

/// What came of a session.
#[derive(Debug)]
pub(super) struct Session {
    /// Which of those on its kernel; the first is 1.
    pub(super) round: usize,
    /// From the start of QEMU to the agent's first word, if that came.
    pub(super) booted_ms: Option<u64>,
    /// By the position of the program's case.
    pub(super) programs: Vec<Program>,
    /// Its console, as a report names it.
    pub(super) console: String,
}

/// What came of a program in a session.
#[derive(Debug)]
pub(super) struct Program {
    /// What it said, or why that is not known.
    pub(super) heard: Result<Heard, String>,
    /// How long it ran.
    pub(super) took: Duration,
    /// What the kernel's log says against the time in which it ran.
    pub(super) splats: Vec<Splat>,
}

/// The guest's word about a program.
#[derive(Debug)]
pub(super) enum Heard {
    /// It ran to its end.
    Ended(Transcript),
    /// It did not, or the busy socket beside it failed: why.
    Failed(String),
    /// It cannot run on this base: the missing requirement.
    Unmet(String),
}

/// Holds the session of this round on `kernel`, and leaves each program's words in its case's folder
/// and the console under `sessions/`.
pub(super) fn hold(
    hypervisor: &dyn Hypervisor,
    kernel: &str,
    round: usize,
    cases: &[&Planned],
    report: &Path,
    on: &(dyn Fn(Event) + Sync),
) -> Session {
    let begun = Instant::now();
    let console = format!("sessions/{kernel}.{round}.console.log");
    let path = report.join(&console);
    let (mut heard, mut booted_ms) = (Vec::new(), None);
    let mut ending = Ok(());
    let started = fs::create_dir_all(report.join("sessions"))
        .map_err(|error| format!("cannot make the directory of {}: {error}", path.display()))
        .and_then(|()| {
            let started = hypervisor.start(kernel, Stage::Host, &path);
            started.map_err(|loss| loss.why)
        });
    match started {
        Err(why) => ending = Err(why),
        Ok(mut guest) => {
            booted_ms = Some(milliseconds(begun.elapsed()));
            for planned in cases {
                let start = Instant::now();
                on(Event::Note {
                    index: cases[0].index,
                    text: format!("{} on {kernel}, session {round}", planned.case.name),
                });
                match run(hypervisor, guest.as_mut(), planned, report, kernel, round) {
                    Ok(said) => heard.push((said, start.elapsed())),
                    Err(why) => {
                        ending = Err(format!("{} on {kernel}: {why}", planned.case.name));
                        break;
                    }
                }
            }
            // Its console is whole only then.
            let ended = guest.power_off().map_err(|loss| loss.why);
            ending = ending.and(ended);
        }
    }
    let (splats, ending) = match read_log(&path, cases.len()) {
        Ok(splats) => (splats, ending),
        Err(why) => (vec![Vec::new(); cases.len()], ending.and(Err(why))),
    };
    on(Event::Session {
        kernel: kernel.to_owned(),
        round,
        of: ROUNDS,
        programs: heard.len(),
        took: begun.elapsed(),
    });
    let mut heard = heard.into_iter();
    let programs = splats.into_iter().map(|splats| {
        let (said, took) = heard
            .next()
            .map_or((None, Duration::ZERO), |(said, took)| (Some(said), took));
        // A console that is not whole is no witness, for those either that ended before.
        let heard = match (&ending, said) {
            (Ok(()), Some(said)) => Ok(said),
            (Err(why), _) => Err(why.clone()),
            (Ok(()), None) => unreachable!("a session ends well with every program heard"),
        };
        Program {
            heard,
            took,
            splats,
        }
    });
    Session {
        round,
        booted_ms,
        programs: programs.collect(),
        console,
    }
}

fn run(
    hypervisor: &dyn Hypervisor,
    guest: &mut dyn Guest,
    planned: &Planned,
    report: &Path,
    kernel: &str,
    round: usize,
) -> Result<Heard, String> {
    let patience = hypervisor.patience(kernel);
    let errand = Errand {
        name: planned.case.name,
        seed: planned.seed,
        deadline: planned.case.deadline * patience,
        patience,
    };
    let Outcome {
        status,
        detail,
        evidence,
    } = guest.run(&errand, &mut |_| {}).map_err(|loss| loss.why)?;
    let file = report
        .join(planned.folder())
        .join(format!("{kernel}.{round}.txt"));
    let text = evidence.join("\n") + "\n" + &detail + "\n";
    fs::write(&file, text).map_err(|error| format!("cannot write {}: {error}", file.display()))?;
    match status {
        Status::Pass => Transcript::read(&evidence).map(Heard::Ended),
        Status::Fail => Ok(Heard::Failed(detail)),
        Status::Skip => Ok(Heard::Unmet(detail)),
    }
}

/// The log's splats by the program in whose time they fell; one of the boot counts against all.
fn read_log(path: &Path, programs: usize) -> Result<Vec<Vec<Splat>>, String> {
    let scan = Scan::of_file(path).map_err(|error| error.to_string())?;
    // Programs are the jobs of their session, in order.
    let jobs = (1..).take(programs);
    Ok(jobs.map(|job| scan.of_job(job).splats).collect())
}
