// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM against a QEMU that behaves badly. This program is also that QEMU: it is started as one, and
//! the name of the kernel image tells it what to do.
//!
//! After each test none of its processes is there any more.

mod boot;
mod fake;
mod fake_monitor;
mod job;
mod power_off;
mod snapshot;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use nlring_vm::accelerator::{Accelerator, Name};
use nlring_vm::deadline::Deadlines;
use nlring_vm::end::{End, Manner};
use nlring_vm::kernel::Built;
use nlring_vm::machine::{Chassis, Config, Host, Vm};
use nlring_vm::topology::Topology;
use nlring_vm::{Class, Job, Outcome, Snapshot, VmError};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "-kernel") {
        let behaviour = &arguments[at + 1];
        return fake::main(&arguments, behaviour, &processes(behaviour));
    }
    let trials = [boot::TESTS, job::TESTS, power_off::TESTS, snapshot::TESTS]
        .concat()
        .into_iter()
        .map(|(name, test)| {
            Trial::test(name, move || {
                // A test that was cut off may have left it.
                let _ = fs::remove_file(processes(name));
                let start = Instant::now();
                test(name);
                assert!(start.elapsed() < PATIENCE, "{:?}", start.elapsed());
                // What was killed and is nobody's child here is gone a moment later.
                let until = Instant::now() + MOMENT;
                while !left(name).is_empty() && Instant::now() < until {
                    thread::sleep(Duration::from_millis(5));
                }
                let left = left(name);
                assert!(left.is_empty(), "left behind: {left:?}");
                Ok(())
            })
        });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

/// A test, and by its name the behaviour of the fake.
type Test = (&'static str, fn(&str));

/// A test of a few deadlines, each of a second at most, is over by then also on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// For a process that was killed to be gone.
const MOMENT: Duration = Duration::from_secs(5);

fn console(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-qemu");
    fs::create_dir_all(&directory).unwrap();
    directory.join(format!("{name}.console"))
}

/// Where the fake writes the numbers of its processes.
fn processes(name: &str) -> PathBuf {
    console(name).with_extension("processes")
}

/// Those of its processes that are still there.
fn left(name: &str) -> Vec<String> {
    let numbers = fs::read_to_string(processes(name)).unwrap();
    assert!(!numbers.is_empty());
    let is_there = |number: &&str| {
        let status = fs::read_to_string(format!("/proc/{number}/status")).unwrap_or_default();
        !status.is_empty() && !status.contains("State:\tZ")
    };
    numbers
        .lines()
        .filter(is_there)
        .map(str::to_owned)
        .collect()
}

fn boot(name: &str) -> Result<Vm, VmError> {
    start(name, None)
}

fn restore(name: &str, snapshot: &Snapshot) -> Result<Vm, VmError> {
    start(name, Some(snapshot))
}

fn start(name: &str, snapshot: Option<&Snapshot>) -> Result<Vm, VmError> {
    let word = || "fake".to_owned();
    let kernel = Built {
        debug: false,
        name: word(),
        release: word(),
        base: word(),
        series_sha256: word(),
        config_sha256: word(),
        compiler: word(),
        vmlinux: name.into(),
        image: name.into(),
        config: name.into(),
        selftest: None,
        key: word(),
    };
    let accelerator = Accelerator {
        name: Name::Kvm,
        reason: word(),
    };
    let console = console(name);
    let config = Config {
        kernel: &kernel,
        initramfs: Path::new("none"),
        accelerator: &accelerator,
        topology: Topology::Pairs(1),
        cpus: 2,
        memory_mib: 256,
        console: &console,
        cable: None,
        captures: None,
    };
    let host = Host {
        qemu: std::env::current_exe().unwrap(),
        chassis: Chassis::Microvm,
    };
    match snapshot {
        None => Vm::boot_with(&config, &host, limits()),
        Some(snapshot) => Vm::restore_with(&config, &host, limits(), snapshot),
    }
}

/// A fifth of the table: 1.2 s for a boot, 0.4 s for a snapshot and what goes on from it, 2.1 s for an
/// outcome, 0.6 s to power off, 0.2 s for an answer.
fn limits() -> Deadlines {
    Deadlines::of(Name::Kvm, false).scaled(0.2)
}

fn run(vm: &mut Vm) -> Result<Outcome, VmError> {
    let job = Job {
        number: 2,
        name: "ping".into(),
        seed: 0,
        deadline_ms: 100,
        patience: 1,
        links: Vec::new(),
    };
    vm.run(&job, &mut |_| ())
}

/// The error's one line.
fn complaint(error: &VmError) -> String {
    assert_eq!(error.class(), Class::Infra);
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

/// The end that `result` tells of, which has to be of this manner and begin so when it is told.
fn end<T>(result: Result<T, VmError>, manner: Manner, told: &str) -> End {
    let error = result.err().expect("no end");
    let message = complaint(&error);
    let VmError::Ended { end, .. } = error else {
        panic!("not an end: {message}");
    };
    assert_eq!(end.manner, manner, "{message}");
    assert!(message.starts_with(told), "{message}");
    let evidence = end.evidence();
    assert!(evidence[0].starts_with(&format!("end of the VM: {manner}: ")));
    assert!(
        evidence.iter().all(|line| !line.contains('\n')),
        "{evidence:?}"
    );
    *end
}

/// A witness of the end says this.
fn witnessed(end: &End, what: &str) {
    let is_said = end.witnesses.iter().any(|line| line == what);
    assert!(is_said, "no {what:?} in {:?}", end.witnesses);
}
