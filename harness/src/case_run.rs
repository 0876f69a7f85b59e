// SPDX-License-Identifier: MIT OR Apache-2.0
//! Rounds of one case, as a rule one: a fresh VM, the job, the outcome, the log, the verdict, the evidence.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nlring_cases::Topology;
use nlring_channel::{Outcome, Status};
use nlring_vm::machine::CAPTURE;
use nlring_vm::symbols::Symbols;

use crate::loss::Loss;
use crate::names::group_word;
use crate::place::Place;
use crate::plan::Planned;
use crate::report;
use crate::results::CaseResult;
use crate::room::{Demand, Room};
use crate::splat::{Scan, decoded};
use crate::unknown_case;
use crate::verdict::{Testimony, Verdict, judge};

/// Beside the log of a VM's console that of the other VM, where there are two.
pub const PEER_CONSOLE: &str = "console.peer.log";

/// What gives VMs: `nlring-vm` in earnest, a puppet in tests.
pub trait Hypervisor: Send + Sync {
    /// Starts `kernel` on `stage`, its console going to the file `console`; returns when the guest has
    /// said that it is ready and is known to be the machine that was asked for. Where the network is that of
    /// two machines both are started, and the other's console goes to [`PEER_CONSOLE`] beside that file.
    fn start(&self, kernel: &str, stage: Stage, console: &Path) -> Result<Box<dyn Guest>, Loss>;

    /// What a VM of `kernel` on `stage` takes, in MiB of memory.
    fn memory_mib(&self, kernel: &str, stage: Stage) -> u32;

    /// The image of `kernel` with its symbols, if there is one.
    fn symbols(&self, kernel: &str) -> Option<&Path>;

    /// By how much a case's deadline and waits are stretched on what these VMs run on, with this kernel.
    fn patience(&self, kernel: &str) -> u32;
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
        /// Whether it is booted, rather than restored from a snapshot.
        cold: bool,
    },
    /// The file system of this machine, and the selftests of the kernel's base.
    Host,
}

impl Stage {
    /// That of the VMs of this case, where it is not compared across kernels.
    #[must_use]
    pub fn of(planned: &Planned) -> Self {
        Self::Bare {
            topology: planned.case.topology,
            examples: planned.case.group.runs_examples(),
            cold: planned.cold,
        }
    }
}

/// A VM whose agent is ready.
pub trait Guest {
    /// Runs a case until its outcome has come and was acknowledged.
    fn run(&mut self, errand: &Errand<'_>, on_note: &mut dyn FnMut(&str)) -> Result<Outcome, Loss>;

    /// Powers off and waits for the end, so that the console is complete.
    fn power_off(self: Box<Self>) -> Result<(), Loss>;
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

/// How rounds of a case are getting on.
#[derive(Debug)]
pub enum Moment<'a> {
    /// A VM is being had for this and the rounds behind it.
    Started,
    /// The guest is ready, this long after that.
    Ready(Duration),
    /// The guest says something.
    Note(&'a str),
    /// There is a verdict on this round, which is one of so many in its VM.
    Judged(CaseResult, usize),
}

/// Runs `rounds` of one case, at one place, each VM when there is `room` for it, and leaves the evidence in
/// `report`, in the folder ([`Planned::folder`]) of the first round of each VM. Rounds share a VM until one
/// does not pass.
pub fn perform(
    hypervisor: &dyn Hypervisor,
    room: &Room,
    rounds: &[&Planned],
    report: &Path,
    on: &mut dyn FnMut(&Planned, Moment<'_>),
) {
    let mut left = rounds;
    while let Some(first) = left.first() {
        // Before its time begins to count.
        let seat = match &first.place {
            Place::On(kernel) => Some(room.enter(Demand {
                memory_mib: hypervisor.memory_mib(kernel, Stage::of(first)),
                alone: first.case.alone,
            })),
            _ => None,
        };
        on(first, Moment::Started);
        let results = match &first.place {
            Place::Nowhere { requirement, .. } => {
                let skipped = |planned: &&Planned| CaseResult {
                    verdict: Verdict::Skip,
                    detail: requirement.clone(),
                    ..without_verdict(planned)
                };
                left.iter().map(skipped).collect()
            }
            Place::On(kernel) => sit(hypervisor, left, kernel, report, on),
            Place::Across(_) => unreachable!("a case across kernels is compared, not performed"),
        };
        drop(seat);
        let count = results.len();
        for (planned, result) in left.iter().zip(results) {
            let result = conclude(planned, report, &first.folder(), result);
            on(planned, Moment::Judged(result, count));
        }
        left = &left[count..];
    }
}

/// The result as it is reported: in one line, with the way to have it again, and kept in `folder` of the
/// report, which is its own or that of the first round in its VM.
pub(crate) fn conclude(
    planned: &Planned,
    report: &Path,
    folder: &str,
    mut result: CaseResult,
) -> CaseResult {
    if planned.repetition > 0 || matches!(result.verdict, Verdict::Fail | Verdict::Infra) {
        result.evidence.push(format!("again: {}", planned.again()));
    }
    result.detail = one_line(&result.detail);
    let outcome_file = if folder == planned.folder() {
        String::from("outcome.json")
    } else {
        format!("outcome.{}.json", planned.repetition + 1)
    };
    if !matches!(planned.place, Place::Nowhere { .. })
        && let Err(error) = report::write_outcome(&report.join(folder), &outcome_file, &result)
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

/// As many of `rounds` as are good for one VM: their results, one at least.
fn sit(
    hypervisor: &dyn Hypervisor,
    rounds: &[&Planned],
    kernel: &str,
    report: &Path,
    on: &mut dyn FnMut(&Planned, Moment<'_>),
) -> Vec<CaseResult> {
    let first = rounds[0];
    let folder = report.join(first.folder());
    if let Err(error) = fresh_folder(&folder) {
        let folder = folder.display();
        return vec![CaseResult {
            detail: format!("cannot make the evidence folder {folder}: {error}"),
            ..without_verdict(first)
        }];
    }
    let console = folder.join("console.log");
    let begun = Instant::now();
    let (heard, ready) = match hypervisor.start(kernel, Stage::of(first), &console) {
        Err(loss) => (vec![(Testimony::NoGuest(loss), begun.elapsed())], None),
        Ok(guest) => {
            let after = begun.elapsed();
            on(first, Moment::Ready(after));
            let heard = hear(
                hypervisor.patience(kernel),
                rounds,
                guest,
                &console,
                &mut |note| {
                    on(first, Moment::Note(note));
                },
            );
            (heard, Some(milliseconds(after)))
        }
    };
    let log = log_of(first, &console);
    let decoded = log
        .iter()
        .find(|scan| !scan.splats.is_empty())
        .map(|scan| keep_decoded(scan, hypervisor.symbols(kernel), &folder));
    let is_alone = heard.len() == 1;
    let mut results = Vec::new();
    for ((planned, job), (testimony, took)) in rounds.iter().zip(1..).zip(heard) {
        let log = match &log {
            Ok(scan) if !is_alone && !scan.jobs.contains(&job) => Err(format!(
                "the kernel log does not tell where round {job} in this VM begins"
            )),
            Ok(scan) if !is_alone => Ok(scan.of_job(job)),
            whole => whole.clone(),
        };
        let mut result = without_verdict(planned);
        (result.verdict, result.detail) = judge(&testimony, &log, planned.case.expects_splat);
        result.duration_ms = milliseconds(took);
        if job == 1 {
            result.start_ms = ready;
            result.duration_ms += ready.unwrap_or_default();
        }
        result.evidence.extend(match testimony {
            Testimony::Outcome(outcome) => outcome.evidence,
            Testimony::NoGuest(loss) | Testimony::Lost(loss) => loss.evidence(),
        });
        for splat in log.iter().flat_map(|scan| &scan.splats) {
            result.evidence.push(format!("kernel log: {splat}"));
            let fingerprint = splat.fingerprint();
            result.evidence.push(format!("fingerprint: {fingerprint}"));
        }
        if log.iter().any(|scan| !scan.splats.is_empty()) {
            result.evidence.extend(decoded.clone());
        }
        for console in [&console, &console.with_file_name(PEER_CONSOLE)] {
            if let Some(name) = console.file_name().filter(|_| console.exists()) {
                let path = Path::new(&first.folder()).join(name);
                result.evidence.push(format!("console: {}", path.display()));
            }
        }
        results.push(result);
    }
    keep_captures(&folder, first, &mut results);
    results
}

/// What the kernel's log says, and that of the other machine where there is one.
fn log_of(planned: &Planned, console: &Path) -> Result<Scan, String> {
    let scan = |path: &Path| Scan::of_file(path).map_err(|error| error.to_string());
    let mut log = scan(console)?;
    if planned.case.topology == Topology::Apart {
        let other = scan(&console.with_file_name(PEER_CONSOLE))?;
        log.splats.extend(other.splats);
    }
    Ok(log)
}

/// Writes the splats, with the lines of the source as far as the kernel's image tells them, into the folder.
/// The evidence for that.
fn keep_decoded(scan: &Scan, image: Option<&Path>, folder: &Path) -> String {
    let text = match image.map(Symbols::of).transpose() {
        Ok(symbols) => decoded::write(scan, &|function, offset, size| {
            let symbols = symbols.as_ref();
            symbols.map_or_else(Vec::new, |symbols| symbols.lines(function, offset, size))
        }),
        Err(error) => {
            let text = decoded::write(scan, &|_, _, _| Vec::new());
            format!("no lines of the source: {error}\n\n{text}")
        }
    };
    let path = folder.join("splat.txt");
    match fs::write(&path, text) {
        Ok(()) => {
            let folder = folder.file_name().unwrap_or_default().to_string_lossy();
            format!("splat: {folder}/splat.txt")
        }
        Err(error) => format!("cannot write {}: {error}", path.display()),
    }
}

/// Captures of the NICs are evidence where a round failed; elsewhere they are but large.
fn keep_captures(folder: &Path, first: &Planned, results: &mut [CaseResult]) {
    let mut captures: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == CAPTURE)
        })
        .collect();
    captures.sort();
    let failed =
        |result: &&mut CaseResult| matches!(result.verdict, Verdict::Fail | Verdict::Infra);
    let mut is_of_use = false;
    for result in results.iter_mut().filter(failed) {
        is_of_use = true;
        for name in captures.iter().filter_map(|path| path.file_name()) {
            let name = Path::new(&first.folder()).join(name);
            result.evidence.push(format!("capture: {}", name.display()));
        }
    }
    if !is_of_use {
        for path in captures {
            let _ = fs::remove_file(path); // a file too many harms nobody
        }
    }
}

/// The guest's testimony on each round that it was asked for, and how long that took. The VM is gone, and
/// its console complete, when this returns.
fn hear(
    patience: u32,
    rounds: &[&Planned],
    mut guest: Box<dyn Guest>,
    console: &Path,
    on_note: &mut dyn FnMut(&str),
) -> Vec<(Testimony, Duration)> {
    let mut heard = Vec::new();
    for (planned, round) in rounds.iter().zip(1..) {
        if rounds.len() > 1 {
            on_note(&format!("round {round} of {}", rounds.len()));
        }
        let begun = Instant::now();
        let errand = Errand {
            name: planned.case.name,
            seed: planned.seed,
            deadline: planned.case.deadline * patience,
            patience,
        };
        let testimony = match guest.run(&errand, on_note) {
            Ok(outcome) if unknown_case::is_told_by(&outcome) => {
                Testimony::Lost(outcome.detail.into())
            }
            Ok(outcome) => Testimony::Outcome(outcome),
            Err(loss) => Testimony::Lost(loss),
        };
        // What failed, or was complained about, may have left anything behind.
        let goes_on = has_passed(&testimony)
            && planned.case.expects_splat.is_none()
            && log_of(planned, console).is_ok_and(|scan| scan.splats.is_empty());
        heard.push((testimony, begun.elapsed()));
        if !goes_on {
            break;
        }
    }
    let begun = Instant::now();
    if heard
        .iter()
        .all(|(testimony, _)| !matches!(testimony, Testimony::Lost(_)))
        && let Err(loss) = guest.power_off()
    {
        // A kernel that cannot power off may have more to say than it could: no pass on half a log.
        let passed = heard.iter_mut().map(|(testimony, _)| testimony);
        for testimony in passed.filter(|testimony| has_passed(testimony)) {
            *testimony = Testimony::Lost(Loss {
                why: format!("the guest said pass, but then: {}", loss.why),
                end: loss.end.clone(),
            });
        }
    }
    if let Some((_, took)) = heard.last_mut() {
        *took += begun.elapsed();
    }
    heard
}

fn has_passed(testimony: &Testimony) -> bool {
    matches!(
        testimony,
        Testimony::Outcome(Outcome {
            status: Status::Pass,
            ..
        })
    )
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
