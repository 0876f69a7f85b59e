// SPDX-License-Identifier: MIT OR Apache-2.0
//! From the start of QEMU to the agent's first word.

use std::fs;
use std::path::Path;
use std::time::Instant;

use nlring_vm::end::Manner::{Crash, Lost, Silence};

use crate::{Test, boot, complaint, console, end, limits, processes, run, witnessed};

pub const TESTS: &[Test] = &[
    ("behaves", |name| {
        let mut vm = boot(name).unwrap();
        assert_eq!(run(&mut vm).unwrap().detail, "of job 2");
        vm.power_off().unwrap();
    }),
    ("ends_with_its_vm", |name| {
        let vm = boot(name).unwrap();
        let process = fs::read_to_string(processes(name)).unwrap();
        let process = Path::new("/proc").join(process.trim());
        assert!(process.exists());
        drop(vm);
        assert!(!process.exists());
    }),
    ("dies_at_once", |name| {
        let told = "cannot boot kernel fake under kvm: lost: QEMU ended (exit status: 1; qemu: no such machine); last line: \"\"; console: ";
        let end = end(boot(name), Lost, told);
        witnessed(&end, "QEMU's process: exit status: 1");
        witnessed(&end, "QEMU said: qemu: no such machine");
    }),
    ("dies_at_once_without_a_word", |name| {
        let told = "cannot boot kernel fake under kvm: lost: QEMU ended (exit status: 7); last line: \"and stops\"; console: ";
        end(boot(name), Lost, told);
    }),
    ("ends_well_before_a_word", |name| {
        let told = "cannot boot kernel fake under kvm: lost: QEMU ended (exit status: 0)";
        end(boot(name), Lost, told);
    }),
    ("is_killed_while_it_boots", |name| {
        let told = "cannot boot kernel fake under kvm: lost: QEMU ended (signal: 9 (SIGKILL))";
        let end = end(boot(name), Lost, told);
        witnessed(&end, "QEMU's process: signal: 9 (SIGKILL)");
    }),
    ("stops_while_it_boots", |name| {
        let told = "cannot boot kernel fake under kvm: silence: no word from the guest for 1.2 s (QEMU was stopped by a signal)";
        let end = end(boot(name), Silence, told);
        witnessed(&end, "QEMU's process: QEMU was stopped by a signal");
    }),
    ("says_nothing", |name| {
        let start = Instant::now();
        let told = "cannot boot kernel fake under kvm: silence: no word from the guest for 1.";
        let end = end(boot(name), Silence, told);
        assert_eq!(end.last, "stuck here");
        let (waited, limit) = (start.elapsed(), limits().boot());
        assert!(
            (limit..limit * 8).contains(&waited),
            "{waited:?} of {limit:?}"
        );
    }),
    ("floods_its_console_while_it_boots", |name| {
        end(boot(name), Silence, "cannot boot");
    }),
    ("floods_the_channel_while_it_boots", |name| {
        end(boot(name), Silence, "cannot boot");
    }),
    ("closes_the_channel_while_it_boots", |name| {
        let told = "cannot boot kernel fake under kvm: lost: QEMU closed the channel (QEMU was still there)";
        end(boot(name), Lost, told);
    }),
    ("panics_while_it_boots", |name| {
        let told = "cannot boot kernel fake under kvm: crash: the guest's kernel panicked (exit status: 0)";
        let end = end(boot(name), Crash, told);
        assert!(end.panicked);
        witnessed(&end, "pvpanic: the guest's kernel panicked");
        witnessed(&end, "QEMU's monitor: shutdown, guest-reset");
    }),
    ("resets_while_it_boots", |name| {
        let told = "cannot boot kernel fake under kvm: crash: the guest reset its machine";
        assert!(!end(boot(name), Crash, told).panicked);
    }),
    ("pauses_over_an_internal_error", |name| {
        let start = Instant::now();
        let told = "cannot boot kernel fake under kvm: lost: QEMU paused the guest (QEMU was still there; KVM internal error. Suberror: 1)";
        end(boot(name), Lost, told);
        assert!(start.elapsed() < limits().boot());
    }),
    ("floods_its_errors_and_dies", |name| {
        let told = "cannot boot kernel fake under kvm: lost: QEMU ended (exit status: 1; qemu: the first line)";
        end(boot(name), Lost, told);
    }),
    ("writes_garbage_on_its_console", |name| {
        let mut vm = boot(name).unwrap();
        run(&mut vm).unwrap();
        vm.power_off().unwrap();
        let log = fs::read(console(name)).unwrap();
        assert!(log.starts_with(b"\x00\x01\x02"));
        assert_eq!(&log[100_000..100_009], b"\n\x1b[2J\xff\xfela");
    }),
    ("is_ready_twice", |name| {
        let mut vm = boot(name).unwrap();
        assert_eq!(run(&mut vm).unwrap().detail, "of job 2");
        vm.power_off().unwrap();
    }),
    ("answers_an_earlier_hello", |name| {
        end(boot(name), Silence, "cannot boot");
    }),
    ("has_the_clock_of_another_accelerator", |name| {
        let message = complaint(&boot(name).unwrap_err());
        let told = "clocksource `hpet`, which cannot be under kvm";
        assert!(message.contains(told), "{message}");
    }),
    ("is_of_another_version", |name| {
        let message = complaint(&boot(name).unwrap_err());
        let told = "are guest and harness of one version?";
        assert!(message.contains(told), "{message}");
    }),
];
