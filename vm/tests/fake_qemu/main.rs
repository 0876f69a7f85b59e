// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM against a QEMU that behaves badly. This program is also that QEMU: it is started as one, and
//! the name of the kernel image tells it what to do.

mod fake;
mod fake_monitor;

use std::fs;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use nlring_vm::accelerator::{Accelerator, Name};
use nlring_vm::deadline::Deadlines;
use nlring_vm::kernel::Built;
use nlring_vm::machine::{Chassis, Config, Host, Vm};
use nlring_vm::topology::Topology;
use nlring_vm::{Class, Job, Outcome, Snapshot, Status, VmError};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(at) = arguments.iter().position(|argument| argument == "-kernel") {
        return fake::main(&arguments, &arguments[at + 1]);
    }
    let trials = CASES.iter().map(|&(name, test)| {
        Trial::test(name, move || {
            test(name);
            Ok(())
        })
    });
    libtest_mimic::run(&Arguments::from_args(), trials.collect()).exit_code()
}

type Test = fn(&str);

/// Each test and, by the same name, the behaviour of the fake.
const CASES: &[(&str, Test)] = &[
    ("behaves", |name| {
        let (outcome, vm) = job(name);
        assert_eq!(outcome.unwrap().detail, "ping");
        vm.power_off().unwrap();
    }),
    ("speaks_behind_garbage_in_halves", |name| {
        let (outcome, vm) = job(name);
        assert_eq!(outcome.unwrap().status, Status::Pass);
        vm.power_off().unwrap();
    }),
    ("answers_for_another_job_first", |name| {
        assert_eq!(job(name).0.unwrap().detail, "ping");
    }),
    ("dies_at_once", |name| {
        let message = complaint(&boot(name).unwrap_err());
        assert_eq!(
            message,
            "QEMU ended while fake booted (exit status: 1): qemu: no such machine"
        );
    }),
    ("dies_at_once_without_a_word", |name| {
        let message = complaint(&boot(name).unwrap_err());
        assert_eq!(
            message,
            "QEMU ended while fake booted (exit status: 7): last line: \"Kernel panic - not syncing\""
        );
    }),
    ("says_nothing", |name| {
        let start = Instant::now();
        let message = complaint(&boot(name).unwrap_err());
        assert!(
            message.starts_with("cannot boot kernel fake: no word from the guest for "),
            "{message}"
        );
        assert!(
            message.contains("under kvm; last line: \"stuck here\"; console: "),
            "{message}"
        );
        let waited = start.elapsed();
        let limit = limits().boot();
        assert!(
            (limit..limit * 8).contains(&waited),
            "{waited:?} of {limit:?}"
        );
    }),
    ("pauses_over_an_internal_error", |name| {
        let start = Instant::now();
        let message = complaint(&boot(name).unwrap_err());
        assert!(
            message.contains("KVM internal error. Suberror: 1"),
            "{message}"
        );
        assert!(start.elapsed() < Duration::from_secs(3));
    }),
    ("answers_an_earlier_hello", |name| {
        assert!(complaint(&boot(name).unwrap_err()).contains("no word from the guest"));
    }),
    ("has_the_clock_of_another_accelerator", |name| {
        assert!(
            complaint(&boot(name).unwrap_err())
                .contains("clocksource `hpet`, which cannot be under kvm")
        );
    }),
    ("is_of_another_version", |name| {
        assert!(
            complaint(&boot(name).unwrap_err()).contains("are guest and harness of one version?")
        );
    }),
    ("dies_in_a_job", |name| {
        let message = complaint(&job(name).0.unwrap_err());
        assert!(message.starts_with("lost the VM while `ping` ran: QEMU ended (qemu: out of memory); last line: \"oops\""), "{message}");
    }),
    ("floods_in_a_job", |name| {
        let start = Instant::now();
        let message = complaint(&job(name).0.unwrap_err());
        assert!(
            message.starts_with("lost the VM while `ping` ran: no outcome for 1.1 s"),
            "{message}"
        );
        assert!(start.elapsed() < Duration::from_secs(20));
    }),
    ("does_not_power_off", |name| {
        let (outcome, vm) = job(name);
        outcome.unwrap();
        assert!(
            complaint(&vm.power_off().unwrap_err()).contains("it powered off: QEMU did not end")
        );
    }),
    ("goes_on_from_a_snapshot", |name| {
        let mut vm = boot(name).unwrap();
        let snapshot = vm.save().unwrap();
        assert_eq!(snapshot.size().unwrap(), fake_monitor::STATE.len() as u64);
        vm.power_off().unwrap();
        let restored = restore(name, &snapshot).unwrap();
        restored.power_off().unwrap();
        let console = fs::read_to_string(console(name)).unwrap();
        assert_eq!(console, "booted\nwent on\n");
    }),
    ("says_nothing_when_it_is_restored", |name| {
        let snapshot = boot(name).unwrap().save().unwrap();
        let message = complaint(&restore(name, &snapshot).unwrap_err());
        assert!(
            message.starts_with("cannot restore kernel fake: no word from the guest for 0.2 s"),
            "{message}"
        );
    }),
    ("has_a_monitor_that_says_nothing", |name| {
        let (start, mut vm) = (Instant::now(), boot(name).unwrap());
        let message = complaint(&vm.save().unwrap_err());
        assert!(
            message.starts_with("cannot take a snapshot (try --cold) of the VM with console "),
            "{message}"
        );
        assert!(start.elapsed() < limits().save() * 8);
        vm.power_off().unwrap();
    }),
    ("refuses_to_be_saved", |name| {
        let message = complaint(&boot(name).unwrap().save().unwrap_err());
        assert!(
            message.ends_with("QEMU failed to: the state has holes"),
            "{message}"
        );
    }),
    ("never_ends_to_be_saved", |name| {
        let message = complaint(&boot(name).unwrap().save().unwrap_err());
        assert!(message.ends_with("timed out"), "{message}");
    }),
    ("ends_with_its_vm", |name| {
        let vm = boot(name).unwrap();
        let pid = fs::read_to_string(console(name).with_extension("pid")).unwrap();
        assert!(Path::new("/proc").join(&pid).exists());
        drop(vm);
        assert!(!Path::new("/proc").join(&pid).exists());
    }),
];

fn console(name: &str) -> std::path::PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("fake-qemu");
    fs::create_dir_all(&directory).unwrap();
    directory.join(format!("{name}.console"))
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
        initramfs: &console.with_extension("pid"),
        accelerator: &accelerator,
        topology: Topology::Pairs(1),
        cpus: 2,
        memory_mib: 256,
        console: &console,
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

/// A tenth of the table: 0.6 s for a boot, 0.2 s for a snapshot and what goes on from it, 1.1 s for an
/// outcome.
fn limits() -> Deadlines {
    Deadlines::of(Name::Kvm, false).scaled(0.1)
}

fn job(name: &str) -> (Result<Outcome, VmError>, Vm) {
    let mut vm = boot(name).unwrap();
    let job = Job {
        number: 2,
        name: "ping".into(),
        seed: 0,
        deadline_ms: 100,
        patience: 1,
        links: Vec::new(),
    };
    (vm.run(&job, &mut |_| ()), vm)
}

fn complaint(error: &VmError) -> String {
    assert_eq!(error.class(), Class::Infra);
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}
