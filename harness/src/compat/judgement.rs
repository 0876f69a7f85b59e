// SPDX-License-Identifier: MIT OR Apache-2.0
//! The verdict on a program, from its words in every session.
//!
//! What a program says on the kernel without the series is what it has to say on the others. Where that
//! kernel contradicts itself from session to session there is nothing to compare with: such a subtest
//! is unstable, is told by name, and is left out of the comparison.

use std::collections::{BTreeMap, BTreeSet};

use crate::case_run::{milliseconds, without_verdict};
use crate::place::Trio;
use crate::plan::Planned;
use crate::results::CaseResult;
use crate::verdict::Verdict;

use super::session::{Heard, Session};
use super::transcript::{Said, Transcript};

/// How a selftest says that it cannot run, or could not run all of itself.
const SKIPPED_ITSELF: &str = "exit status: 4";

/// The result of the case at `position` of all sessions, which stand as [`Trio::kernels`] does.
pub(super) fn of(
    planned: &Planned,
    trio: &Trio,
    sessions: &[Vec<Session>; 3],
    position: usize,
) -> CaseResult {
    let mut evidence = Vec::new();
    let (verdict, detail) = judge(trio, sessions, position, &mut evidence);
    let all = || sessions.iter().flatten();
    for session in all().filter(|session| !session.programs[position].splats.is_empty()) {
        for splat in &session.programs[position].splats {
            evidence.push(format!("kernel log: {splat}"));
        }
        evidence.push(format!("console: {}", session.console));
    }
    evidence.push(format!("its words in each session: {}/", planned.folder()));
    let took = all().map(|session| session.programs[position].took).sum();
    CaseResult {
        verdict,
        detail,
        evidence,
        duration_ms: milliseconds(took),
        start_ms: all().filter_map(|session| session.booted_ms).max(),
        ..without_verdict(planned)
    }
}

fn judge(
    trio: &Trio,
    sessions: &[Vec<Session>; 3],
    position: usize,
    evidence: &mut Vec<String>,
) -> (Verdict, String) {
    let [plain, off, ringed] = trio.kernels();
    let kernels = [plain, off, ringed];
    let by_kernel = || kernels.into_iter().zip(sessions);
    for (kernel, held) in by_kernel().rev() {
        for session in held {
            if let Some(splat) = session.programs[position].splats.first() {
                let where_to =
                    format!("kernel log of {kernel}, session {}: {splat}", session.round);
                return if kernel == plain {
                    let why = "the kernel without the series complains itself";
                    (Verdict::Infra, format!("{why}; {where_to}"))
                } else {
                    (Verdict::Fail, where_to)
                };
            }
        }
    }
    let mut transcripts: [Vec<&Transcript>; 3] = Default::default();
    let mut failed = None;
    for ((kernel, held), words) in by_kernel().zip(&mut transcripts) {
        for session in held {
            match &session.programs[position].heard {
                Err(why) => return (Verdict::Infra, why.clone()),
                Ok(Heard::Unmet(requirement)) => return (Verdict::Skip, requirement.clone()),
                Ok(Heard::Failed(why)) if kernel == plain => {
                    let why = format!("nothing to compare with: on {plain}: {why}");
                    return (Verdict::Infra, why);
                }
                Ok(Heard::Failed(why)) => {
                    let why = format!("on {kernel}, session {}: {why}", session.round);
                    failed = failed.or(Some(why));
                }
                Ok(Heard::Ended(transcript)) => words.push(transcript),
            }
        }
    }
    if let Some(why) = failed {
        return (Verdict::Fail, why);
    }
    compare(kernels, &transcripts, evidence)
}

/// Compares what three kernels' sessions said; there is a transcript of each session.
fn compare(
    kernels: [&str; 3],
    transcripts: &[Vec<&Transcript>; 3],
    evidence: &mut Vec<String>,
) -> (Verdict, String) {
    let [plain, off, ringed] = kernels;
    let [without_series, without_option, with_ring] = transcripts;
    for (kernel, words) in kernels.into_iter().zip(transcripts) {
        let of_each = |count: fn(&Transcript) -> u64| {
            let counts = words.iter().map(|transcript| count(transcript).to_string());
            counts.collect::<Vec<_>>().join(", ")
        };
        evidence.push(format!(
            "busy socket on {kernel}: {} messages in frames, {} by copy",
            of_each(|transcript| transcript.in_frames),
            of_each(|transcript| transcript.by_copy),
        ));
    }
    let has_ring = |transcript: &&&Transcript| transcript.in_frames > 0;
    let mut others = without_series.iter().chain(without_option);
    if others.any(|transcript| has_ring(&transcript)) {
        let what = "the kernels are not what their names say";
        return (
            Verdict::Infra,
            format!("a ring on {plain} or {off}: {what}"),
        );
    }
    if !with_ring.iter().all(|transcript| has_ring(&transcript)) {
        let what = "the busy ring beside it received nothing, so it was not one";
        return (Verdict::Fail, format!("on {ringed}: {what}"));
    }

    let said = said_by_name(transcripts);
    let (mut same, mut unstable, mut different) = (0, Vec::new(), Vec::new());
    for (name, words) in &said {
        let reference: BTreeSet<&str> = words[0].iter().copied().collect();
        let everywhere: BTreeSet<&str> = words.iter().flatten().copied().collect();
        let told = || {
            let of = |index: usize| words[index].join(", ");
            format!(
                "{name}: {} on {plain}; {} on {off}; {} on {ringed}",
                of(0),
                of(1),
                of(2)
            )
        };
        if reference.len() > 1 {
            unstable.push(told());
        } else if everywhere.len() > 1 {
            different.push(told());
        } else {
            same += 1;
            if words[0][0] != Said::Pass.word() && *name != ENDING {
                evidence.push(format!("{} on all alike: {name}", words[0][0]));
            }
        }
    }
    evidence.extend(
        unstable
            .iter()
            .map(|told| format!("unstable on {plain} itself: {told}")),
    );
    evidence.extend(different.iter().map(|told| format!("differs: {told}")));
    if let Some(first) = different.first() {
        let rest = match different.len() - 1 {
            0 => String::new(),
            more => format!("; and {more} more"),
        };
        return (Verdict::Fail, format!("differs: {first}{rest}"));
    }
    let ending = &said[ENDING][0][0];
    let ran = said.values().any(|words| words[0][0] == Said::Pass.word());
    if *ending == SKIPPED_ITSELF && !ran {
        let why = evidence
            .iter()
            .find_map(|line| line.strip_prefix("skip on all alike: "));
        let why = why.unwrap_or("it does not say why");
        return (
            Verdict::Skip,
            format!("the program skips itself on all three: {why}"),
        );
    }
    let left_out = match unstable.len() {
        0 => String::new(),
        count => format!("; {count} unstable on {plain} itself and not compared"),
    };
    let received: u64 = with_ring
        .iter()
        .map(|transcript| transcript.in_frames)
        .sum();
    let rounds = with_ring.len();
    (
        Verdict::Pass,
        format!(
            "{} subtests and the exit status alike on {plain}, {off} and {ringed} in {rounds} sessions each{left_out}; {received} messages through the busy ring",
            same - usize::from(!unstable.iter().any(|told| told.starts_with(ENDING))),
        ),
    )
}

/// The name under which the way the program ended is compared beside its subtests.
const ENDING: &str = "(the way it ended)";

/// What every session said, by subtest, by kernel; `absent` where it did not tell of it.
fn said_by_name<'a>(
    transcripts: &[Vec<&'a Transcript>; 3],
) -> BTreeMap<&'a str, [Vec<&'a str>; 3]> {
    let names = transcripts
        .iter()
        .flatten()
        .flat_map(|transcript| transcript.subtests.keys());
    let names: BTreeSet<&str> = names.map(String::as_str).collect();
    let mut said: BTreeMap<&str, [Vec<&str>; 3]> = names
        .into_iter()
        .map(|name| {
            let of = |words: &Vec<&Transcript>| {
                let said = words.iter().map(|transcript| {
                    transcript
                        .subtests
                        .get(name)
                        .map_or("absent", |said| said.word())
                });
                said.collect()
            };
            (name, [0, 1, 2].map(|kernel| of(&transcripts[kernel])))
        })
        .collect();
    let endings = [0, 1, 2].map(|kernel: usize| {
        let words = transcripts[kernel].iter();
        words.map(|transcript| transcript.ending.as_str()).collect()
    });
    said.insert(ENDING, endings);
    said
}
