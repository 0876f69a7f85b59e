// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM against a QEMU that behaves badly. This program is also that QEMU: it is started as one, and
//! the name of the kernel image tells it what to do.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use libtest_mimic::{Arguments, Trial};
use nlring_channel::{FrameReader, ToGuest, ToHost, write_frame};
use nlring_vm::accelerator::{Accelerator, Name};
use nlring_vm::deadline::Deadlines;
use nlring_vm::kernel::Built;
use nlring_vm::machine::{Chassis, Config, Host, Vm};
use nlring_vm::topology::Topology;
use nlring_vm::{Class, Job, Outcome, Status, VmError};

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

/// Each test and, by the same name, the behaviour of the fake.
const CASES: &[(&str, fn(&str))] = &[
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
        let message = complaint(boot(name).unwrap_err());
        assert_eq!(
            message,
            "QEMU ended while fake booted (exit status: 1): qemu: no such machine"
        );
    }),
    ("dies_at_once_without_a_word", |name| {
        let message = complaint(boot(name).unwrap_err());
        assert_eq!(
            message,
            "QEMU ended while fake booted (exit status: 7): last line: \"Kernel panic - not syncing\""
        );
    }),
    ("says_nothing", |name| {
        let start = Instant::now();
        let message = complaint(boot(name).unwrap_err());
        assert!(
            message.starts_with("cannot boot kernel fake: no word from the guest for 0.6"),
            "{message}"
        );
        assert!(
            message.contains("under kvm; last line: \"stuck here\"; console: "),
            "{message}"
        );
        assert!(start.elapsed() < Duration::from_secs(5));
    }),
    ("pauses_over_an_internal_error", |name| {
        let start = Instant::now();
        let message = complaint(boot(name).unwrap_err());
        assert!(
            message.contains("KVM internal error. Suberror: 1"),
            "{message}"
        );
        assert!(start.elapsed() < Duration::from_secs(3));
    }),
    ("answers_an_earlier_hello", |name| {
        assert!(complaint(boot(name).unwrap_err()).contains("no word from the guest"));
    }),
    ("has_the_clock_of_another_accelerator", |name| {
        assert!(
            complaint(boot(name).unwrap_err())
                .contains("clocksource `hpet`, which cannot be under kvm")
        );
    }),
    ("is_of_another_version", |name| {
        assert!(
            complaint(boot(name).unwrap_err()).contains("are guest and harness of one version?")
        );
    }),
    ("dies_in_a_job", |name| {
        let message = complaint(job(name).0.unwrap_err());
        assert!(message.starts_with("lost the VM while `ping` ran: QEMU ended (qemu: out of memory); last line: \"oops\""), "{message}");
    }),
    ("floods_in_a_job", |name| {
        let start = Instant::now();
        let message = complaint(job(name).0.unwrap_err());
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
            complaint(vm.power_off().unwrap_err()).contains("it powered off: QEMU did not end")
        );
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
    let word = || "fake".to_owned();
    let kernel = Built {
        name: word(),
        release: word(),
        base: word(),
        series_sha256: word(),
        config_sha256: word(),
        compiler: word(),
        vmlinux: name.into(),
        config: name.into(),
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
    };
    let host = Host {
        qemu: std::env::current_exe().unwrap(),
        chassis: Chassis::Microvm,
    };
    // A tenth of the table: 0.6 s for a boot, 1.1 s for an outcome.
    Vm::boot_with(&config, &host, Deadlines::of(Name::Kvm).scaled(0.1))
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

fn complaint(error: VmError) -> String {
    assert_eq!(error.class(), Class::Infra);
    let message = error.to_string();
    assert!(!message.contains('\n'), "{message}");
    message
}

mod fake {
    use super::*;

    pub fn main(arguments: &[String], behaviour: &str) -> ExitCode {
        let mut agent = socket(arguments, "agent");
        let mut console = socket(arguments, "console");
        let initramfs = arguments
            .iter()
            .position(|argument| argument == "-initrd")
            .unwrap();
        fs::write(&arguments[initramfs + 1], std::process::id().to_string()).unwrap();
        let ready = |nonce, clocksource: &str| ToHost::Ready {
            nonce,
            release: "6.1".into(),
            clocksource: clocksource.into(),
            cpus: 2,
        };
        let outcome = |job| {
            let outcome = Outcome {
                status: Status::Pass,
                detail: if job == 2 { "ping" } else { "stale" }.into(),
                evidence: Vec::new(),
            };
            ToHost::Outcome { job, outcome }
        };
        match behaviour {
            "dies_at_once" => {
                eprintln!("qemu: no such machine\nand more");
                return ExitCode::FAILURE;
            }
            "dies_at_once_without_a_word" => {
                console
                    .write_all(b"boots\r\nKernel panic - not syncing\r\n")
                    .unwrap();
                return ExitCode::from(7);
            }
            "says_nothing" => {
                console.write_all(b"stuck here").unwrap();
                for_ever();
            }
            "pauses_over_an_internal_error" => {
                eprintln!("KVM internal error. Suberror: 1");
                for_ever();
            }
            _ => {}
        }
        let mut reader = FrameReader::default();
        loop {
            let Some(message) = next(&mut agent, &mut reader) else {
                return ExitCode::SUCCESS;
            };
            match (message, behaviour) {
                (ToGuest::Hello { nonce }, "answers_an_earlier_hello") => {
                    say(&mut agent, &ready(nonce + 1, "tsc"))
                }
                (ToGuest::Hello { .. }, "is_of_another_version") => {
                    write_frame(&mut agent, &"ready!").unwrap()
                }
                (ToGuest::Hello { nonce }, "has_the_clock_of_another_accelerator") => {
                    say(&mut agent, &ready(nonce, "hpet"))
                }
                (ToGuest::Hello { nonce }, "speaks_behind_garbage_in_halves") => {
                    halves(&mut agent, &ready(nonce, "tsc"))
                }
                (ToGuest::Hello { nonce }, _) => say(&mut agent, &ready(nonce, "tsc")),
                (ToGuest::Run(_), "dies_in_a_job") => {
                    console.write_all(b"oops\n").unwrap();
                    eprintln!("qemu: out of memory");
                    return ExitCode::FAILURE;
                }
                (ToGuest::Run(job), "floods_in_a_job") => loop {
                    say(
                        &mut agent,
                        &ToHost::Note {
                            job: job.number,
                            text: "x".repeat(1000),
                        },
                    );
                },
                (ToGuest::Run(job), "speaks_behind_garbage_in_halves") => {
                    halves(&mut agent, &outcome(job.number))
                }
                (ToGuest::Run(job), "answers_for_another_job_first") => {
                    say(&mut agent, &outcome(1));
                    say(&mut agent, &outcome(job.number));
                }
                (ToGuest::Run(job), _) => say(&mut agent, &outcome(job.number)),
                (ToGuest::PowerOff, "does_not_power_off") => for_ever(),
                (ToGuest::PowerOff, _) => return ExitCode::SUCCESS,
                (ToGuest::Acknowledge { .. }, _) => {}
            }
        }
    }

    /// The descriptor that was handed over for chardev `id`.
    fn socket(arguments: &[String], id: &str) -> UnixStream {
        let prefix = format!("socket,id={id},fd=");
        let number = arguments
            .iter()
            .find_map(|argument| argument.strip_prefix(&prefix))
            .unwrap();
        let number: RawFd = number.parse().unwrap();
        // SAFETY: whoever started this process opened the descriptor for it under this number.
        UnixStream::from(unsafe { OwnedFd::from_raw_fd(number) })
    }

    fn next(agent: &mut UnixStream, reader: &mut FrameReader) -> Option<ToGuest> {
        let mut chunk = [0; 4096];
        loop {
            if let Some(message) = reader.next().unwrap() {
                return Some(message);
            }
            match agent.read(&mut chunk) {
                Ok(0) | Err(_) => return None,
                Ok(count) => reader.push(&chunk[..count]),
            }
        }
    }

    fn say(agent: &mut UnixStream, message: &ToHost) {
        if write_frame(agent, message).is_err() {
            std::process::exit(0); // the host has had enough
        }
    }

    fn halves(agent: &mut UnixStream, message: &ToHost) {
        let mut frame = b"\0\xffnlR\x01garbage".to_vec();
        write_frame(&mut frame, message).unwrap();
        for half in frame.chunks(frame.len() / 2 + 1) {
            agent.write_all(half).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn for_ever() -> ! {
        loop {
            thread::sleep(Duration::from_secs(1));
        }
    }
}
