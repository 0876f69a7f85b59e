// SPDX-License-Identifier: MIT OR Apache-2.0
//! A QEMU that misbehaves in the way that it is told.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::thread;
use std::time::Duration;

use crate::fake_monitor;
use nix::sys::signal::{Signal, raise};
use nlring_channel::{FrameReader, MAX_BODY, Outcome, Status, ToGuest, ToHost, write_frame};
use serde_json::{Value, json};

/// It and what talks through it.
pub struct Fake {
    behaviour: String,
    agent: UnixStream,
    console: UnixStream,
    monitor: UnixStream,
    /// Where the numbers of its processes go.
    processes: File,
    restored: bool,
    accelerated: bool,
    end: Option<u8>,
}

/// Plays a QEMU that was started with these arguments, and leaves its number in the file `processes`.
pub fn main(arguments: &[String], behaviour: &str, processes: &Path) -> ExitCode {
    let monitor = socket(arguments, "monitor");
    let mut fake = Fake {
        behaviour: behaviour.to_owned(),
        agent: socket(arguments, "agent"),
        console: socket(arguments, "console"),
        monitor: monitor.try_clone().unwrap(),
        processes: File::options()
            .append(true)
            .create(true)
            .open(processes)
            .unwrap(),
        restored: fake_monitor::restored(arguments),
        accelerated: arguments.iter().any(|argument| argument == "kvm"),
        end: None,
    };
    fake.register(std::process::id());
    let manner = behaviour.to_owned();
    thread::spawn(move || fake_monitor::serve(monitor, &manner));
    fake.start();
    let mut reader = FrameReader::default();
    while fake.end.is_none() {
        match next(&mut fake.agent, &mut reader) {
            Some(ToGuest::Hello { nonce }) => fake.hello(nonce),
            Some(ToGuest::Run(job)) => fake.run(job.number),
            Some(ToGuest::PowerOff) => fake.power_off(),
            Some(ToGuest::Acknowledge { .. }) => fake.acknowledged(),
            None => fake.end = Some(0),
        }
    }
    ExitCode::from(fake.end.unwrap_or_default())
}

impl Fake {
    fn start(&mut self) {
        match self.behaviour.as_str() {
            "dies_at_once" => {
                eprintln!("qemu: no such machine\nand more");
                self.end = Some(1);
            }
            "dies_at_once_without_a_word" => {
                self.print(b"boots\r\nand stops\r\n");
                self.end = Some(7);
            }
            "is_out_of_memory" => {
                eprintln!("qemu: cannot set up guest memory");
                self.end = Some(1);
            }
            "hangs_under_kvm" if self.accelerated => for_ever(),
            "ends_well_before_a_word" => self.end = Some(0),
            "is_killed_while_it_boots" => raise(Signal::SIGKILL).unwrap(),
            "stops_while_it_boots" => raise(Signal::SIGSTOP).unwrap(),
            "says_nothing" => {
                self.print(b"stuck here");
                for_ever();
            }
            "floods_its_console_while_it_boots" => loop {
                self.print(&[b'x'; 4096]);
            },
            "floods_the_channel_while_it_boots" => loop {
                if self
                    .agent
                    .write_all(b"nlR\x01\xff\xff\x00\x00 garbage")
                    .is_err()
                {
                    for_ever();
                }
            },
            "closes_the_channel_while_it_boots" => self.close_the_channel(),
            "panics_while_it_boots" => self.panic(),
            "resets_while_it_boots" => self.reset(),
            "says_nothing_when_it_is_restored" if self.restored => for_ever(),
            "dies_when_it_is_restored" if self.restored => {
                eprintln!("qemu: load of migration failed");
                self.end = Some(1);
            }
            "pauses_over_an_internal_error" => {
                eprintln!("KVM internal error. Suberror: 1");
                for_ever();
            }
            "floods_its_errors_and_dies" => {
                eprintln!("qemu: the first line");
                (0..10_000).for_each(|_| eprintln!("{}", "y".repeat(100)));
                self.end = Some(1);
            }
            "writes_garbage_on_its_console" => {
                self.print(&(0..=255).cycle().take(100_000).collect::<Vec<u8>>());
                self.print(b"\n\x1b[2J\xff\xfelast\n");
            }
            _ if self.restored => self.print(b"went on\n"),
            _ => self.print(b"[    0.000000] Linux version 6.1.1 (a@b) #1 SMP\n"),
        }
    }

    fn hello(&mut self, nonce: u64) {
        match self.behaviour.as_str() {
            "answers_an_earlier_hello" => self.say(&ready(nonce + 1, "tsc")),
            "is_of_another_version" => write_frame(&mut self.agent, &"ready!").unwrap(),
            "has_the_clock_of_another_accelerator" => self.say(&ready(nonce, "hpet")),
            "speaks_behind_garbage_in_halves" => self.say_in_halves(&ready(nonce, "tsc")),
            "is_ready_twice" => {
                self.say(&ready(nonce, "tsc"));
                self.say(&ready(nonce, "tsc"));
            }
            "gives_an_outcome_before_it_is_asked" => {
                let both = [
                    frame(&ready(nonce, "tsc")),
                    frame(&outcome(2, Status::Pass)),
                ];
                self.agent.write_all(&both.concat()).unwrap();
            }
            _ => self.say(&ready(nonce, "tsc")),
        }
    }

    fn run(&mut self, job: u32) {
        self.print(format!("[    1.000000] nlring: job {job} begins: x\n").as_bytes());
        match self.behaviour.as_str() {
            "dies_in_a_job" => {
                self.print(b"oops\n");
                eprintln!("qemu: out of memory");
                self.end = Some(1);
            }
            "ends_well_in_a_job" => self.end = Some(0),
            "is_killed_in_a_job" => raise(Signal::SIGKILL).unwrap(),
            "stops_in_a_job" => raise(Signal::SIGSTOP).unwrap(),
            "pauses_in_a_job" => {
                self.tell("STOP", &json!({}));
                for_ever();
            }
            "is_silent_in_a_job" => for_ever(),
            "has_no_outcome" | "gives_an_outcome_before_it_is_asked" => {}
            "panics_in_a_job" | "panics_after_it_was_restored" => self.panic(),
            "panics_and_hangs_in_a_job" => {
                self.print(b"[    2.000000] Kernel panic - not syncing: x\n");
                for_ever();
            }
            "panics_on_its_console_only" => {
                self.print(b"[    2.000000] Kernel panic - not syncing: x\n");
                self.end = Some(0);
            }
            "resets_in_a_job" => self.reset(),
            "powers_itself_off_in_a_job" => {
                self.tell(
                    "SHUTDOWN",
                    &json!({"guest": true, "reason": "guest-shutdown"}),
                );
                self.end = Some(0);
            }
            "floods_in_a_job" => loop {
                let text = "x".repeat(1000);
                self.say(&ToHost::Note { job, text });
            },
            "speaks_behind_garbage_in_halves" => self.say_in_halves(&outcome(job, Status::Pass)),
            "answers_for_another_job_first" => {
                self.say(&outcome(1, Status::Fail));
                self.say(&outcome(job, Status::Pass));
            }
            "prints_a_lot" => {
                (0..10_000).for_each(|_| self.print(&[b'x'; 100]));
                self.say(&outcome(job, Status::Pass));
            }
            "answers_for_another_job_only" => self.say(&outcome(job + 1, Status::Pass)),
            "cuts_its_outcome_in_half" => {
                let mut frame = frame(&outcome(job, Status::Pass));
                frame.truncate(frame.len() / 2);
                self.agent.write_all(&frame).unwrap();
            }
            "damages_its_outcome" => {
                let mut frame = frame(&outcome(job, Status::Pass));
                *frame.last_mut().unwrap() ^= 1;
                self.agent.write_all(&frame).unwrap();
            }
            "has_an_outcome_that_is_too_large" => {
                let mut frame = frame(&outcome(job, Status::Pass));
                frame[4..8].copy_from_slice(&(MAX_BODY as u32 + 1).to_le_bytes());
                self.agent.write_all(&frame).unwrap();
            }
            "changes_its_language_in_a_job" => write_frame(&mut self.agent, &"pass!").unwrap(),
            "closes_the_channel_in_a_job" => self.close_the_channel(),
            "oopses_after_it_closed_the_channel" => {
                self.agent.shutdown(std::net::Shutdown::Both).unwrap();
                thread::sleep(Duration::from_millis(300));
                self.print(b"[    9.000000] a late oops\n");
                self.end = Some(0);
            }
            "leaves_a_child_that_holds_all_open" => {
                self.leave("sleep 600");
                self.end = Some(1);
            }
            "leaves_a_child_that_writes_on" => {
                self.leave("yes >&2");
                self.end = Some(1);
            }
            _ => self.say(&outcome(job, Status::Pass)),
        }
    }

    fn acknowledged(&mut self) {
        match self.behaviour.as_str() {
            "takes_back_its_outcome" => self.say(&outcome(2, Status::Fail)),
            "repeats_its_outcome" => self.say(&outcome(2, Status::Pass)),
            _ => {}
        }
    }

    fn power_off(&mut self) {
        match self.behaviour.as_str() {
            "does_not_power_off" => for_ever(),
            "answers_instead_of_powering_off" => {}
            "is_killed_while_it_powers_off" => raise(Signal::SIGKILL).unwrap(),
            "fails_while_it_powers_off" => {
                eprintln!("qemu: cannot write a capture");
                self.end = Some(1);
            }
            "panics_while_it_powers_off" => self.panic(),
            "resets_instead_of_powering_off" => self.reset(),
            "closes_the_channel_instead_of_powering_off" => self.close_the_channel(),
            "oopses_while_it_powers_off" => {
                self.agent.shutdown(std::net::Shutdown::Both).unwrap();
                thread::sleep(Duration::from_millis(100));
                self.print(b"[    9.000000] a late oops\n");
                self.end = Some(0);
            }
            _ => self.end = Some(0),
        }
    }

    fn panic(&mut self) {
        let data = json!({"action": "run"});
        self.tell("GUEST_PANICKED", &data);
        self.reset();
    }

    fn reset(&mut self) {
        self.tell("SHUTDOWN", &json!({"guest": true, "reason": "guest-reset"}));
        self.end = Some(0);
    }

    fn close_the_channel(&mut self) -> ! {
        self.agent.shutdown(std::net::Shutdown::Both).unwrap();
        for_ever();
    }

    /// Starts something that outlives it, with all that is open here.
    #[expect(clippy::zombie_processes, reason = "nobody is left to wait for it")]
    fn leave(&mut self, command: &str) {
        let child = Command::new("sh").args(["-c", command]).spawn().unwrap();
        self.register(child.id());
    }

    fn register(&mut self, process: u32) {
        writeln!(self.processes, "{process}").unwrap();
    }

    fn print(&mut self, bytes: &[u8]) {
        if self.console.write_all(bytes).is_err() {
            std::process::exit(0); // the host has had enough
        }
    }

    fn say(&mut self, message: &ToHost) {
        if write_frame(&mut self.agent, message).is_err() {
            std::process::exit(0);
        }
    }

    fn say_in_halves(&mut self, message: &ToHost) {
        let bytes = [b"\0\xffnlR\x01garbage".to_vec(), frame(message)].concat();
        for half in bytes.chunks(bytes.len() / 2 + 1) {
            self.agent.write_all(half).unwrap();
            thread::sleep(Duration::from_millis(20));
        }
    }

    fn tell(&mut self, event: &str, data: &Value) {
        let timestamp = json!({"seconds": 1, "microseconds": 2});
        let line = json!({"event": event, "data": data, "timestamp": timestamp});
        // In one piece, between what its monitor says.
        self.monitor
            .write_all(format!("{line}\n").as_bytes())
            .unwrap();
    }
}

fn ready(nonce: u64, clocksource: &str) -> ToHost {
    ToHost::Ready {
        nonce,
        release: "6.1".into(),
        clocksource: clocksource.into(),
        cpus: 2,
    }
}

fn outcome(job: u32, status: Status) -> ToHost {
    let outcome = Outcome {
        status,
        detail: format!("of job {job}"),
        evidence: Vec::new(),
    };
    ToHost::Outcome { job, outcome }
}

fn frame(message: &ToHost) -> Vec<u8> {
    let mut frame = Vec::new();
    write_frame(&mut frame, message).unwrap();
    frame
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

fn for_ever() -> ! {
    loop {
        thread::sleep(Duration::from_secs(1));
    }
}
