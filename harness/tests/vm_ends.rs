// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ends of VMs in earnest, and what a host does to them: a guest whose jobs end it, on kernel 6.1; and `nlring
//! run` where the host is short of CPUs, or kills it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::LazyLock;
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nlring_harness::splat::Scan;
use nlring_harness::tree::Tree;
use nlring_vm::accelerator::Accelerator;
use nlring_vm::end::{End, Manner};
use nlring_vm::kernel::{self, Built};
use nlring_vm::machine::{Config, Vm};
use nlring_vm::matrix::Matrix;
use nlring_vm::topology::Topology;
use nlring_vm::{Cache, Job, Outcome, Snapshot, Status, VmError, deadline, initramfs, probe};

const KERNEL: &str = "6.1";

/// All that a VM with the guest whose jobs end it is made of.
struct Ground {
    kernel: Built,
    initramfs: PathBuf,
    accelerator: Accelerator,
}

static GROUND: LazyLock<Ground> = LazyLock::new(|| {
    let tree = Tree::find().unwrap();
    let (root, cache) = (tree.root(), Cache::open().unwrap());
    let entry = Matrix::load(root).unwrap().find(KERNEL).unwrap();
    let kernel = kernel::build(&cache, root, &entry, &mut |_| ()).unwrap();
    let initramfs = initramfs::pack(&cache, &guest(&tree), &BTreeMap::new()).unwrap();
    let accelerator = probe::probe(&cache, &kernel, &initramfs, &mut |_| ()).unwrap();
    Ground {
        kernel,
        initramfs,
        accelerator,
    }
});

/// One of those, to go on from.
static SNAPSHOT: LazyLock<Snapshot> = LazyLock::new(|| {
    let mut vm = Vm::boot(&GROUND.config(&console("first"))).unwrap();
    let snapshot = vm.save().unwrap();
    vm.power_off().unwrap();
    snapshot
});

/// The guest, built as the harness builds its own.
fn guest(tree: &Tree) -> PathBuf {
    let target = "x86_64-unknown-linux-gnu";
    let words =
        "build --quiet --profile guest --package nlring-agent --example fatal_guest --target";
    let status = Command::new(env!("CARGO"))
        .args(words.split(' '))
        .arg(target)
        .arg("--target-dir")
        .arg(tree.guest_target())
        .current_dir(tree.root())
        .env("RUSTFLAGS", "-C target-feature=+crt-static")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .status();
    assert!(status.unwrap().success());
    let built = tree.guest_target().join(target);
    built.join("guest/examples/fatal_guest")
}

fn console(name: &str) -> PathBuf {
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).join("vm-ends");
    fs::create_dir_all(&directory).unwrap();
    directory.join(format!("{name}.console"))
}

impl Ground {
    fn config<'a>(&'a self, console: &'a Path) -> Config<'a> {
        Config {
            kernel: &self.kernel,
            initramfs: &self.initramfs,
            accelerator: &self.accelerator,
            topology: Topology::None,
            cpus: 2,
            memory_mib: 256,
            console,
            cable: None,
            captures: None,
        }
    }

    fn job(&self, name: &str) -> Job {
        let patience = deadline::patience(self.accelerator.name, false);
        Job {
            number: 1,
            name: name.to_owned(),
            seed: 1,
            deadline_ms: 5000 * u64::from(patience),
            patience,
            links: Vec::new(),
        }
    }

    fn restore(&self, console: &Path) -> Vm {
        Vm::restore(&self.config(console), &SNAPSHOT).unwrap()
    }
}

/// What the job of this name does to a VM, booted or restored, which has to end in this manner.
fn ended(name: &str, is_booted: bool, manner: Manner) -> (End, Scan) {
    let console = console(&format!("{name}-{is_booted}"));
    let mut vm = if is_booted {
        Vm::boot(&GROUND.config(&console)).unwrap()
    } else {
        GROUND.restore(&console)
    };
    let outcome = vm.run(&GROUND.job(name), &mut |_| ());
    (end(outcome, manner), Scan::of_file(&console).unwrap())
}

fn end(outcome: Result<Outcome, VmError>, manner: Manner) -> End {
    match outcome {
        Err(VmError::Ended { end, .. }) => {
            assert_eq!(end.manner, manner, "{end:#?}");
            *end
        }
        other => panic!("no end: {other:?}"),
    }
}

/// The QEMU of this VM's console: of those that this process has started, the one that is there.
fn qemu() -> Pid {
    let children = fs::read_dir("/proc/self/task").unwrap().flatten();
    let children = children.flat_map(|thread| {
        let children = fs::read_to_string(thread.path().join("children")).unwrap_or_default();
        children
            .split_whitespace()
            .map(|pid| pid.parse().unwrap())
            .collect::<Vec<i32>>()
    });
    let children: Vec<_> = children.collect();
    assert_eq!(children.len(), 1, "one VM at a time");
    Pid::from_raw(children[0])
}

fn main() {
    let arguments = libtest_mimic::Arguments {
        // One VM at a time, so that it is known which one a test does something to.
        test_threads: Some(1),
        ..libtest_mimic::Arguments::from_args()
    };
    let trials = TESTS.iter().map(|&(name, test)| {
        libtest_mimic::Trial::test(name, move || {
            test();
            Ok(())
        })
    });
    libtest_mimic::run(&arguments, trials.collect()).exit();
}

const TESTS: &[(&str, fn())] = &[
    ("a_panic_is_a_crash_and_pvpanic_tells_of_it", || {
        for is_booted in [true, false] {
            let (end, log) = ended("panics", is_booted, Manner::Crash);
            assert!(end.panicked, "{end:#?}");
            let splats = log.splats.iter().map(|splat| splat.kind);
            let splats: Vec<_> = splats.collect();
            assert!(!splats.is_empty(), "the log is whole: {end:#?}");
            let text = fs::read_to_string(&end.console).unwrap();
            // What it says after it has told of its panic.
            assert!(text.contains("Kernel Offset: "), "{text}");
        }
    }),
    ("a_reset_is_a_crash", || {
        let (end, log) = ended("resets", false, Manner::Crash);
        assert!(!end.panicked && log.splats.is_empty(), "{end:#?}");
    }),
    ("a_guest_without_its_agent_powers_off_and_is_lost", || {
        let (end, _) = ended("loses_its_agent", false, Manner::Lost);
        assert!(end.what.contains("powered itself off"), "{end:#?}");
    }),
    ("a_guest_whose_agent_is_stopped_is_silent", || {
        let (end, _) = ended("stops_its_agent", false, Manner::Silence);
        assert!(end.what.contains("does not answer a hello"), "{end:#?}");
    }),
    ("a_qemu_that_is_killed_is_lost", || {
        let console = console("killed");
        let mut vm = GROUND.restore(&console);
        kill(qemu(), Signal::SIGKILL).unwrap();
        let end = end(vm.run(&GROUND.job("passes"), &mut |_| ()), Manner::Lost);
        assert!(end.what.contains("SIGKILL"), "{end:#?}");
    }),
    // The guest's clock goes on meanwhile, so that it jumps for the guest.
    ("a_qemu_that_stood_still_for_a_while_goes_on", || {
        let console = console("stood-still");
        let mut vm = GROUND.restore(&console);
        let qemu = qemu();
        let stopper = thread::spawn(move || {
            thread::sleep(Duration::from_millis(500));
            kill(qemu, Signal::SIGSTOP).unwrap();
            thread::sleep(Duration::from_secs(5));
            kill(qemu, Signal::SIGCONT).unwrap();
        });
        let start = Instant::now();
        let outcome = vm.run(&GROUND.job("passes"), &mut |_| ()).unwrap();
        assert_eq!(outcome.status, Status::Pass);
        assert!(start.elapsed() > Duration::from_secs(5));
        stopper.join().unwrap();
        vm.power_off().unwrap();
        assert_eq!(Scan::of_file(&console).unwrap().splats, []);
    }),
    // Where QEMU waits for descriptors, virtio-serial stalls then.
    ("two_cpus_of_a_guest_share_one_of_the_host", || {
        let report = console("shared").with_extension("report");
        let mut command = Command::new("taskset");
        let command = command.args(["-c", "0", env!("CARGO_BIN_EXE_nlring")]);
        let output = run(command, &report).output().unwrap();
        let story = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(0), "{story}");
    }),
    ("a_harness_that_is_killed_leaves_no_qemu", || {
        let report = console("orphan").with_extension("report");
        let _ = fs::remove_dir_all(&report);
        let mut command = Command::new(env!("CARGO_BIN_EXE_nlring"));
        let mut harness = run(&mut command, &report).spawn().unwrap();
        // QEMU writes a capture there.
        let mark = format!("file={}", report.display());
        let qemus = || {
            let processes = fs::read_dir("/proc").unwrap().flatten();
            processes
                .filter(|process| {
                    let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
                    String::from_utf8_lossy(&line).contains(&mark)
                })
                .count()
        };
        let until = Instant::now() + Duration::from_secs(300);
        while qemus() == 0 {
            assert!(Instant::now() < until && harness.try_wait().unwrap().is_none());
            thread::sleep(Duration::from_millis(10));
        }
        harness.kill().unwrap();
        harness.wait().unwrap();
        let until = Instant::now() + Duration::from_secs(10);
        while qemus() > 0 {
            assert!(Instant::now() < until, "a QEMU outlives its harness");
            thread::sleep(Duration::from_millis(10));
        }
    }),
];

/// Rounds of a quick case with two NICs, the report going there.
fn run<'a>(command: &'a mut Command, report: &Path) -> &'a mut Command {
    let case = "ordered_ring_keeps_packet_ids_increasing";
    command
        .args([
            "run", case, "--kernel", KERNEL, "--repeat", "3", "--jobs", "1", "--report",
        ])
        .arg(report)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
}
