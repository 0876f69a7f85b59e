// SPDX-License-Identifier: MIT OR Apache-2.0
//! Faults of the host: `nlring run` from the outside, on a machine where something goes wrong. Its kernel is
//! a toy that is built in no time, and its QEMU is this program, which talks as a guest does and misbehaves
//! as it is told.
//!
//! After each test nothing is left: no process, no temporary file, no lock.

mod builds;
mod cache;
#[path = "../../../vm/tests/fake_qemu/fake.rs"]
mod fake;
#[path = "../../../vm/tests/fake_qemu/fake_monitor.rs"]
mod fake_monitor;
mod full_disk;
mod ground;
mod harness;
mod qemu;

use std::path::Path;
use std::process::ExitCode;

use ground::Ground;
use libtest_mimic::{Arguments, Trial};
use nlring_harness::packages::{self, Need};

/// A test, and its name.
type Test = (&'static str, fn(&Ground));

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Ok(behaviour) = std::env::var(ground::BEHAVIOUR) {
        let processes = std::env::var(ground::PROCESSES).unwrap();
        return fake::main(&arguments, &behaviour, Path::new(&processes));
    }
    let missing = packages::missing(&[Need::Build, Need::Kernel, Need::Run]);
    let is_able = missing
        .iter()
        .all(|package| package.name == "qemu-system-x86");
    if !is_able {
        let command = packages::install_command(&missing);
        eprintln!("SKIPPED: all faults of the host: a toy kernel cannot be built here; {command}");
    }
    let trials = [
        qemu::TESTS,
        harness::TESTS,
        builds::TESTS,
        cache::TESTS,
        full_disk::TESTS,
    ];
    let trials = trials.concat().into_iter().map(|(name, test)| {
        let trial = Trial::test(name, move || {
            let ground = Ground::new();
            test(&ground);
            ground.is_as_it_was();
            Ok(())
        });
        trial.with_ignored_flag(!is_able)
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}
