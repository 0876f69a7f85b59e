// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU is killed, stopped, out of memory, or hangs under KVM.

use std::fs::{self, File};

use nlring_harness::verdict::Verdict;

use crate::Test;
use crate::ground::Ground;

pub const TESTS: &[Test] = &[
    ("all_is_well", |ground| {
        ground.run("behaves").with(0);
        assert_eq!(ground.result().verdict, Verdict::Pass);
    }),
    ("qemu_is_killed", |ground| {
        let told = "lost: QEMU ended (signal: 9 (SIGKILL))";
        no_verdict(ground, "is_killed_in_a_job", told);
    }),
    ("qemu_is_stopped", |ground| {
        ground.run("behaves").with(0); // so that the accelerator is known
        let told = "silence: no word from the guest for ";
        let detail = no_verdict(ground, "stops_while_it_boots", told);
        assert!(detail.contains("QEMU was stopped by a signal"), "{detail}");
    }),
    ("qemu_is_out_of_memory", |ground| {
        ground.run("behaves").with(0);
        let told = "lost: QEMU ended (exit status: 1; qemu: cannot set up guest memory)";
        no_verdict(ground, "is_out_of_memory", told);
    }),
    ("kvm_hangs", |ground| {
        let kvm = File::options().read(true).write(true).open("/dev/kvm");
        if let Err(error) = kvm {
            eprintln!("SKIPPED: kvm_hangs: /dev/kvm does not open: {error}");
            return;
        }
        let ended = ground.run("hangs_under_kvm").with(0);
        let story = ended.story();
        let told = "/dev/kvm opens, but the guest said nothing for 5 s: using TCG";
        assert!(story.contains(told), "{story}");
        assert_eq!(ground.result().verdict, Verdict::Pass);
    }),
];

/// The detail of a case on which there is no verdict.
fn no_verdict(ground: &Ground, behaviour: &str, told: &str) -> String {
    ground.run(behaviour).with(3);
    let result = ground.result();
    assert_eq!(result.verdict, Verdict::Infra);
    assert!(result.detail.contains(told), "{}", result.detail);
    let (name, _) = told.split_once(':').unwrap();
    let end = format!("end of the VM: {name}: ");
    let is_named = result.evidence.iter().any(|line| line.starts_with(&end));
    assert!(is_named, "{:?}", result.evidence);
    let processes = fs::read_to_string(ground.path("processes")).unwrap();
    assert!(!processes.is_empty());
    result.detail
}
