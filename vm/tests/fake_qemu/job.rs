// SPDX-License-Identifier: MIT OR Apache-2.0
//! From a job to its outcome.

use std::fs;
use std::time::{Duration, Instant};

use nlring_vm::Status;
use nlring_vm::end::End;
use nlring_vm::end::Manner::{self, Crash, Deadline, Lost, Silence};

use crate::{Test, boot, console, end, run, witnessed};

pub const TESTS: &[Test] = &[
    ("speaks_behind_garbage_in_halves", |name| {
        let mut vm = boot(name).unwrap();
        assert_eq!(run(&mut vm).unwrap().status, Status::Pass);
        vm.power_off().unwrap();
    }),
    ("answers_for_another_job_first", |name| {
        let outcome = run(&mut boot(name).unwrap()).unwrap();
        assert_eq!(
            (outcome.status, outcome.detail.as_str()),
            (Status::Pass, "of job 2")
        );
    }),
    ("answers_for_another_job_only", |name| {
        late(name);
    }),
    ("gives_an_outcome_before_it_is_asked", |name| {
        late(name);
    }),
    ("has_no_outcome", |name| {
        let end = late(name);
        let answered = |line: &String| line.starts_with("agent: answers a hello, asked for 0.");
        assert!(end.witnesses.iter().any(answered), "{:?}", end.witnesses);
    }),
    ("cuts_its_outcome_in_half", |name| {
        late(name);
    }),
    ("damages_its_outcome", |name| {
        late(name);
    }),
    ("has_an_outcome_that_is_too_large", |name| {
        late(name);
    }),
    ("floods_in_a_job", |name| {
        let start = Instant::now();
        lost(
            name,
            Deadline,
            "nothing came for 2.1 s, and the agent talks, but answers no hello",
        );
        assert!(start.elapsed() < Duration::from_secs(20));
    }),
    ("is_silent_in_a_job", |name| {
        let end = lost(
            name,
            Silence,
            "nothing came for 2.1 s, and the agent does not answer a hello (QEMU was still there)",
        );
        witnessed(&end, "QEMU's process: QEMU was still there");
    }),
    ("stops_in_a_job", |name| {
        let told = "nothing came for 2.1 s, and the agent does not answer a hello (QEMU was stopped by a signal)";
        lost(name, Silence, told);
    }),
    ("pauses_in_a_job", |name| {
        let end = lost(name, Lost, "QEMU paused the guest (QEMU was still there)");
        witnessed(&end, "QEMU's monitor: the guest is paused");
    }),
    ("changes_its_language_in_a_job", |name| {
        lost(name, Lost, "cannot understand a message of 7 bytes");
    }),
    ("closes_the_channel_in_a_job", |name| {
        lost(name, Lost, "QEMU closed the channel (QEMU was still there)");
    }),
    ("dies_in_a_job", |name| {
        let told = "QEMU ended (exit status: 1; qemu: out of memory); last line: \"oops\"";
        lost(name, Lost, told);
    }),
    ("ends_well_in_a_job", |name| {
        lost(name, Lost, "QEMU ended (exit status: 0)");
    }),
    ("is_killed_in_a_job", |name| {
        lost(name, Lost, "QEMU ended (signal: 9 (SIGKILL))");
    }),
    ("powers_itself_off_in_a_job", |name| {
        let end = lost(name, Lost, "the guest powered itself off (exit status: 0)");
        witnessed(&end, "QEMU's monitor: shutdown, guest-shutdown");
    }),
    ("panics_in_a_job", |name| {
        let end = lost(name, Crash, "the guest's kernel panicked (exit status: 0)");
        assert!(end.panicked);
        witnessed(&end, "pvpanic: the guest's kernel panicked");
    }),
    ("panics_on_its_console_only", |name| {
        let end = lost(name, Crash, "the guest's kernel panicked (exit status: 0)");
        assert!(!end.panicked);
    }),
    ("panics_and_hangs_in_a_job", |name| {
        let told = "the guest's kernel panicked (QEMU was still there)";
        lost(name, Crash, told);
    }),
    ("resets_in_a_job", |name| {
        let end = lost(name, Crash, "the guest reset its machine (exit status: 0)");
        assert!(!end.panicked);
        witnessed(&end, "QEMU's monitor: shutdown, guest-reset");
    }),
    ("oopses_after_it_closed_the_channel", |name| {
        let end = lost(name, Lost, "QEMU ended (exit status: 0)");
        assert_eq!(end.last, "[    9.000000] a late oops");
        let log = fs::read_to_string(console(name)).unwrap();
        assert!(log.ends_with("a late oops\n"), "{log}");
    }),
    ("leaves_a_child_that_holds_all_open", |name| {
        lost(name, Lost, "QEMU ended (exit status: 1)");
    }),
    ("leaves_a_child_that_writes_on", |name| {
        lost(name, Lost, "QEMU ended (exit status: 1; y)");
    }),
];

fn lost(name: &str, manner: Manner, what: &str) -> End {
    let mut vm = boot(name).unwrap();
    let told = format!("no outcome of `ping`: {manner}: {what}");
    end(run(&mut vm), manner, &told)
}

fn late(name: &str) -> End {
    let told = "nothing came for 2.1 s, and the agent answers a hello (QEMU was still there)";
    lost(name, Deadline, told)
}
