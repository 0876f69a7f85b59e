// SPDX-License-Identifier: MIT OR Apache-2.0
//! From an outcome to the end of QEMU.

use std::fs;

use nlring_vm::end::End;
use nlring_vm::end::Manner::{self, Crash, Deadline, Lost, Silence};

use crate::{Test, boot, complaint, console, end, run, witnessed};

pub const TESTS: &[Test] = &[
    ("repeats_its_outcome", |name| {
        let mut vm = boot(name).unwrap();
        run(&mut vm).unwrap();
        vm.power_off().unwrap();
    }),
    ("takes_back_its_outcome", |name| {
        lost(name, Lost, "the guest took back its outcome of job 2");
    }),
    ("does_not_power_off", |name| {
        let told = "QEMU did not end, and the agent does not answer a hello";
        lost(name, Silence, told);
    }),
    ("answers_instead_of_powering_off", |name| {
        let told = "QEMU did not end, and the agent answers a hello";
        lost(name, Deadline, told);
    }),
    ("closes_the_channel_instead_of_powering_off", |name| {
        lost(name, Silence, "QEMU did not end (QEMU was still there)");
    }),
    ("is_killed_while_it_powers_off", |name| {
        lost(name, Lost, "QEMU ended (signal: 9 (SIGKILL))");
    }),
    ("fails_while_it_powers_off", |name| {
        let told = "QEMU ended (exit status: 1; qemu: cannot write a capture)";
        lost(name, Lost, told);
    }),
    ("panics_while_it_powers_off", |name| {
        let end = lost(name, Crash, "the guest's kernel panicked (exit status: 0)");
        assert!(end.panicked);
    }),
    ("resets_instead_of_powering_off", |name| {
        let end = lost(name, Crash, "the guest reset its machine");
        witnessed(&end, "QEMU's monitor: shutdown, guest-reset");
    }),
    ("oopses_while_it_powers_off", |name| {
        let mut vm = boot(name).unwrap();
        run(&mut vm).unwrap();
        vm.power_off().unwrap();
        let log = fs::read_to_string(console(name)).unwrap();
        assert!(log.ends_with("a late oops\n"), "{log}");
    }),
    ("has_a_log_on_a_full_disk", |name| {
        let _ = fs::remove_file(console(name));
        std::os::unix::fs::symlink("/dev/full", console(name)).unwrap();
        let mut vm = boot(name).unwrap();
        run(&mut vm).unwrap();
        let message = complaint(&vm.power_off().unwrap_err());
        assert!(
            message.starts_with("cannot write the console's log: no space left on the device ")
        );
    }),
];

fn lost(name: &str, manner: Manner, what: &str) -> End {
    let mut vm = boot(name).unwrap();
    run(&mut vm).unwrap();
    let told = format!("cannot power off: {manner}: {what}");
    end(vm.power_off(), manner, &told)
}
