// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state of a VM, written by QEMU and gone on from.

use std::fs;
use std::time::Instant;

use nlring_vm::end::Manner::{Crash, Lost, Silence};

use crate::{Test, boot, complaint, console, end, fake_monitor, limits, restore, run};

pub const TESTS: &[Test] = &[
    ("goes_on_from_a_snapshot", |name| {
        let mut vm = boot(name).unwrap();
        let snapshot = vm.save().unwrap();
        assert_eq!(snapshot.size().unwrap(), fake_monitor::STATE.len() as u64);
        vm.power_off().unwrap();
        let restored = restore(name, &snapshot).unwrap();
        restored.power_off().unwrap();
        let console = fs::read_to_string(console(name)).unwrap();
        assert!(console.ends_with("SMP\nwent on\n"), "{console}");
    }),
    ("says_nothing_when_it_is_restored", |name| {
        let snapshot = boot(name).unwrap().save().unwrap();
        let told =
            "cannot restore kernel fake under kvm: silence: no word from the guest for 0.4 s";
        end(restore(name, &snapshot), Silence, told);
    }),
    ("dies_when_it_is_restored", |name| {
        let snapshot = boot(name).unwrap().save().unwrap();
        let told = "cannot restore kernel fake under kvm: lost: QEMU ended (exit status: 1; qemu: load of migration failed)";
        end(restore(name, &snapshot), Lost, told);
    }),
    ("panics_after_it_was_restored", |name| {
        let snapshot = boot(name).unwrap().save().unwrap();
        let mut vm = restore(name, &snapshot).unwrap();
        let end = end(run(&mut vm), Crash, "no outcome of `ping`: crash: ");
        assert!(end.panicked);
    }),
    ("has_a_monitor_that_says_nothing", |name| {
        let start = Instant::now();
        refused(name, "timed out");
        assert!(start.elapsed() < limits().save() * 8);
    }),
    ("has_no_monitor", |name| {
        refused(name, "");
    }),
    ("knows_no_migration", |name| {
        refused(name, "QEMU refuses migrate: there is a device that cannot");
    }),
    ("refuses_to_be_saved", |name| {
        refused(name, "QEMU failed to: the state has holes");
    }),
    ("never_ends_to_be_saved", |name| {
        refused(name, "timed out");
    }),
    ("floods_its_monitor", |name| {
        refused(name, "timed out");
    }),
    ("speaks_no_qmp", |name| {
        refused(name, "expected struct MigrationInfo");
    }),
    ("closes_its_monitor_while_it_is_saved", |name| {
        refused(name, "QEMU closed its monitor");
    }),
    ("dies_while_it_is_saved", |name| {
        let mut vm = boot(name).unwrap();
        let message = complaint(&vm.save().unwrap_err());
        assert!(message.ends_with("QEMU closed its monitor"), "{message}");
        end(
            run(&mut vm),
            Lost,
            "no outcome of `ping`: lost: QEMU ended (exit status: 1)",
        );
    }),
];

/// No snapshot can be had, and the VM is as good as before.
fn refused(name: &str, why: &str) {
    let mut vm = boot(name).unwrap();
    let message = complaint(&vm.save().unwrap_err());
    let told = "cannot take a snapshot (try --cold) of the VM with console ";
    assert!(message.starts_with(told), "{message}");
    assert!(message.contains(why), "{message}");
    run(&mut vm).unwrap();
    vm.power_off().unwrap();
}
