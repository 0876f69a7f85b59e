// SPDX-License-Identifier: MIT OR Apache-2.0
//! One case: a fresh VM, the job, the outcome, the log, the verdict, the evidence.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nlring_cases::Topology;
use nlring_channel::{Outcome, Status};

use crate::names::group_word;
use crate::place::Place;
use crate::plan::Planned;
use crate::report;
use crate::results::CaseResult;
use crate::splat::Scan;
use crate::unknown_case;
use crate::verdict::{Testimony, Verdict, judge};

/// What gives VMs: `nlring-vm` in earnest, a puppet in tests. Errors are the one line why there is none.
pub trait Hypervisor: Send + Sync {
    /// Boots `kernel` on `stage`, its console going to the file `console`; returns when the guest has
    /// said that it is ready and is known to be the machine that was asked for.
    fn boot(&self, kernel: &str, stage: Stage, console: &Path) -> Result<Box<dyn Guest>, String>;

    /// By how much a case's deadline and waits are stretched on what these VMs run on.
    fn patience(&self) -> u32;
}

/// What a guest finds around itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage {
    /// Nothing but the guest binary and what cases call, and this network.
    Bare {
        /// The network.
        topology: Topology,
        /// Whether the ring library's examples are there.
        examples: bool,
    },
    /// The file system of this machine, and the selftests of the kernel's base.
    Host,
}

/// A VM whose agent is ready.
pub trait Guest {
    /// Runs a case until its outcome has come and was acknowledged.
    fn run(
        &mut self,
        errand: &Errand<'_>,
        on_note: &mut dyn FnMut(&str),
    ) -> Result<Outcome, String>;

    /// Powers off and waits for the end, so that the console is complete.
    fn power_off(self: Box<Self>) -> Result<(), String>;
}

/// What a guest is told to do.
#[derive(Debug, Clone, Copy)]
pub struct Errand<'a> {
    /// The case's name.
    pub name: &'a str,
    /// Its seed.
    pub seed: u64,
    /// Its deadline, stretched.
    pub deadline: Duration,
    /// By how much its own waits are stretched.
    pub patience: u32,
}

/// How a case is getting on.
#[derive(Debug, Clone, Copy)]
pub enum Moment<'a> {
    /// The guest is ready, this long after the case was picked up.
    Ready(Duration),
    /// The guest says something.
    Note(&'a str),
}

/// Runs `planned` and leaves its evidence in `report`/[`Planned::folder`].
pub fn perform(
    hypervisor: &dyn Hypervisor,
    planned: &Planned,
    report: &Path,
    on: &mut dyn FnMut(Moment<'_>),
) -> CaseResult {
    let begun = Instant::now();
    let mut result = without_verdict(planned);
    match &planned.place {
        Place::Nowhere { requirement, .. } => {
            result.verdict = Verdict::Skip;
            result.detail.clone_from(requirement);
        }
        Place::On(kernel) => in_vm(hypervisor, planned, kernel, report, &mut result, on),
        Place::Across(_) => unreachable!("a case across kernels is compared, not performed"),
    }
    result.duration_ms = milliseconds(begun.elapsed());
    conclude(planned, report, result)
}

/// The result as it is reported: in one line, with the way to have it again, and kept in its folder.
pub(crate) fn conclude(planned: &Planned, report: &Path, mut result: CaseResult) -> CaseResult {
    if planned.repetition > 0 || matches!(result.verdict, Verdict::Fail | Verdict::Infra) {
        result.evidence.push(format!("again: {}", planned.again()));
    }
    result.detail = one_line(&result.detail);
    if !matches!(planned.place, Place::Nowhere { .. })
        && let Err(error) = report::write_outcome(&report.join(planned.folder()), &result)
    {
        result.verdict = Verdict::Infra;
        result.detail = format!("{error}; without that the verdict was: {}", result.detail);
    }
    result
}

/// The result of a case of which nothing is known yet.
#[must_use]
pub fn without_verdict(planned: &Planned) -> CaseResult {
    CaseResult {
        name: planned.case.name.to_owned(),
        group: group_word(planned.case.group),
        kernel: planned.kernel().map(str::to_owned),
        verdict: Verdict::Infra,
        duration_ms: 0,
        start_ms: None,
        seed: planned.seed,
        detail: String::new(),
        evidence: Vec::new(),
    }
}

fn in_vm(
    hypervisor: &dyn Hypervisor,
    planned: &Planned,
    kernel: &str,
    report: &Path,
    result: &mut CaseResult,
    on: &mut dyn FnMut(Moment<'_>),
) {
    let folder = report.join(planned.folder());
    if let Err(error) = fresh_folder(&folder) {
        result.detail = format!(
            "cannot make the evidence folder {}: {error}",
            folder.display()
        );
        return;
    }
    let console = folder.join("console.log");
    let begun = Instant::now();
    let stage = Stage::Bare {
        topology: planned.case.topology,
        examples: planned.case.group.runs_examples(),
    };
    let testimony = match hypervisor.boot(kernel, stage, &console) {
        Err(why) => Testimony::NoGuest(why),
        Ok(guest) => {
            let after = begun.elapsed();
            result.start_ms = Some(milliseconds(after));
            on(Moment::Ready(after));
            hear(hypervisor, planned, guest, &mut |note| {
                on(Moment::Note(note));
            })
        }
    };
    let log = Scan::of_file(&console).map_err(|error| error.to_string());
    (result.verdict, result.detail) = judge(&testimony, &log, planned.case.expects_splat);
    if let Testimony::Outcome(outcome) = testimony {
        result.evidence.extend(outcome.evidence);
    }
    for splat in log.iter().flat_map(|scan| &scan.splats) {
        result.evidence.push(format!("kernel log: {splat}"));
    }
    if console.exists() {
        result
            .evidence
            .push(format!("console: {}/console.log", planned.folder()));
    }
}

/// The guest's testimony. The VM is gone, and its console complete, when this returns.
fn hear(
    hypervisor: &dyn Hypervisor,
    planned: &Planned,
    mut guest: Box<dyn Guest>,
    on_note: &mut dyn FnMut(&str),
) -> Testimony {
    let patience = hypervisor.patience();
    let errand = Errand {
        name: planned.case.name,
        seed: planned.seed,
        deadline: planned.case.deadline * patience,
        patience,
    };
    let outcome = match guest.run(&errand, on_note) {
        Ok(outcome) if unknown_case::is_told_by(&outcome) => {
            return Testimony::Lost(outcome.detail);
        }
        Ok(outcome) => outcome,
        Err(why) => return Testimony::Lost(why),
    };
    match (guest.power_off(), outcome.status) {
        // A kernel that cannot power off may have more to say than it could: no pass on half a log.
        (Err(why), Status::Pass) => {
            Testimony::Lost(format!("the guest said pass, but then: {why}"))
        }
        _ => Testimony::Outcome(outcome),
    }
}

pub(crate) fn fresh_folder(folder: &Path) -> std::io::Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    fs::create_dir_all(folder)
}

fn one_line(text: &str) -> String {
    text.split(['\n', '\r'])
        .map(str::trim)
        .filter(|part| !part.is_empty())
        .collect::<Vec<_>>()
        .join("; ")
}

/// Whole milliseconds.
#[must_use]
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
