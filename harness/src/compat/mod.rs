// SPDX-License-Identifier: MIT OR Apache-2.0
//! The group `compat`: the kernel's own selftests must say the same on a kernel without the series, on
//! one with it and the option off, and on one with both and a busy ring beside them.
//!
//! A `session` is one VM in which every chosen program runs once. There are [`ROUNDS`] of them on each
//! kernel, and what a program printed in all of them is `transcript` by transcript brought before
//! `judgement`.

mod judgement;
mod session;
mod transcript;

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Mutex;
use std::thread;

use crate::case_run::{Hypervisor, Stage, conclude, fresh_folder, without_verdict};
use crate::event::Event;
use crate::place::{Place, Trio};
use crate::plan::Planned;
use crate::results::CaseResult;
use crate::room::{Demand, Room};
use session::Session;

/// Sessions on each kernel: what differs between them on one kernel is no fault of another.
pub const ROUNDS: usize = 3;

/// Compares `cases`, which are all across the same kernels in the same repetition, with as many VMs at
/// once as there is `room` for; each case's result is told as [`Event::Judged`].
pub fn compare(
    hypervisor: &dyn Hypervisor,
    room: &Room,
    cases: &[&Planned],
    report: &Path,
    on: &(dyn Fn(Event) + Sync),
) {
    let Some(Place::Across(trio)) = cases.first().map(|planned| &planned.place) else {
        unreachable!("only cases across kernels are compared")
    };
    on(Event::Started {
        index: cases[0].index,
        name: String::from("compat"),
    });
    let folders: Result<(), String> = cases.iter().try_for_each(|planned| {
        let folder = report.join(planned.folder());
        fresh_folder(&folder).map_err(|error| {
            format!(
                "cannot make the evidence folder {}: {error}",
                folder.display()
            )
        })
    });
    let outcome = folders.map(|()| hold_sessions(hypervisor, room, cases, trio, report, on));
    for (position, planned) in cases.iter().enumerate() {
        let result = match &outcome {
            Ok(sessions) => judgement::of(planned, trio, sessions, position),
            Err(why) => CaseResult {
                detail: why.clone(),
                ..without_verdict(planned)
            },
        };
        on(Event::Judged {
            index: planned.index,
            result: conclude(planned, report, &planned.folder(), result),
            rounds: 1,
            again: planned.again(),
        });
    }
}

/// All sessions, by kernel in the order of [`Trio::kernels`], then by round.
fn hold_sessions(
    hypervisor: &dyn Hypervisor,
    room: &Room,
    cases: &[&Planned],
    trio: &Trio,
    report: &Path,
    on: &(dyn Fn(Event) + Sync),
) -> [Vec<Session>; 3] {
    // Round by round, so that what changes on this machine in the course of it changes for all kernels.
    let rounds = (1..=ROUNDS).flat_map(|round| (0..3).map(move |kernel| (kernel, round)));
    let waiting: Mutex<VecDeque<(usize, usize)>> = Mutex::new(rounds.collect());
    let held = Mutex::new([Vec::new(), Vec::new(), Vec::new()]);
    thread::scope(|scope| {
        for _ in 0..room.vms().min(3 * ROUNDS) {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("nobody panics with it").pop_front();
                    let Some((kernel, round)) = next else { break };
                    let name = trio.kernels()[kernel];
                    let seat = room.enter(Demand {
                        memory_mib: hypervisor.memory_mib(name, Stage::Host),
                        alone: cases.iter().any(|planned| planned.case.alone),
                    });
                    let session = session::hold(hypervisor, name, round, cases, report, on);
                    drop(seat);
                    held.lock().expect("nobody panics with it")[kernel].push(session);
                }
            });
        }
    });
    let mut sessions = held.into_inner().expect("nobody panicked with it");
    for of_kernel in &mut sessions {
        of_kernel.sort_by_key(|session| session.round);
    }
    sessions
}
