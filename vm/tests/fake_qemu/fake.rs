// SPDX-License-Identifier: MIT OR Apache-2.0
//! A QEMU that misbehaves in the way that its kernel image is named after.

use std::fs;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use crate::fake_monitor;
use nlring_channel::{FrameReader, Outcome, Status, ToGuest, ToHost, write_frame};

pub fn main(arguments: &[String], behaviour: &str) -> ExitCode {
    let mut agent = socket(arguments, "agent");
    let mut console = socket(arguments, "console");
    let initramfs = arguments
        .iter()
        .position(|argument| argument == "-initrd")
        .unwrap();
    fs::write(&arguments[initramfs + 1], std::process::id().to_string()).unwrap();
    let (monitor, manner) = (socket(arguments, "monitor"), behaviour.to_owned());
    thread::spawn(move || fake_monitor::serve(monitor, &manner));
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
        "goes_on_from_a_snapshot" | "says_nothing_when_it_is_restored" => {
            let restored = fake_monitor::restored(arguments);
            if restored && behaviour == "says_nothing_when_it_is_restored" {
                for_ever();
            }
            let said: &[u8] = if restored { b"went on\n" } else { b"booted\n" };
            console.write_all(said).unwrap();
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
                say(&mut agent, &ready(nonce + 1, "tsc"));
            }
            (ToGuest::Hello { .. }, "is_of_another_version") => {
                write_frame(&mut agent, &"ready!").unwrap();
            }
            (ToGuest::Hello { nonce }, "has_the_clock_of_another_accelerator") => {
                say(&mut agent, &ready(nonce, "hpet"));
            }
            (ToGuest::Hello { nonce }, "speaks_behind_garbage_in_halves") => {
                halves(&mut agent, &ready(nonce, "tsc"));
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
                halves(&mut agent, &outcome(job.number));
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
        if let Some(message) = reader.next_message().unwrap() {
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
