// SPDX-License-Identifier: MIT OR Apache-2.0
//! A job in a process of its own, and the agent's watch over it.
//!
//! The two share a socket, the child's standard input: the job goes in as one frame, its outcome
//! comes back as one. The child's other streams are passed on to the console.

use std::any::Any;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::panic::{self, AssertUnwindSafe};
use std::process::{Child, Command, ExitCode, ExitStatus};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::output::{self, Output};
use nix::sys::signal::{Signal, killpg};
use nix::unistd::{Pid, dup2_stdin};
use nlring_channel::{FrameReader, Job, Outcome, Status, write_frame};

/// How long a process may take to die of SIGKILL, on a fast machine: one that does not is held by the
/// kernel, which is an outcome, and not to be waited for.
const DYING: Duration = Duration::from_secs(1);

/// A failed outcome for this reason.
pub(crate) fn failed(detail: String) -> Outcome {
    Outcome {
        status: Status::Fail,
        detail,
        evidence: Vec::new(),
    }
}

/// Runs `job` in a child and says how it ended, within its deadline.
pub(crate) fn supervise(job: &Job) -> Outcome {
    let mut command = Command::new("/proc/self/exe");
    command.arg(crate::JOB);
    watch(command, job, io::stdout())
        .unwrap_or_else(|error| failed(format!("cannot run the job's process: {error}")))
}

fn watch(
    mut command: Command,
    job: &Job,
    console: impl io::Write + Send + 'static,
) -> io::Result<Outcome> {
    let until = Instant::now() + Duration::from_millis(job.deadline_ms);
    let (mut ours, theirs) = UnixStream::pair()?;
    let (listener, printer) = io::pipe()?;
    let mut child = command
        .stdin(OwnedFd::from(theirs))
        .stdout(printer.try_clone()?)
        .stderr(printer)
        .process_group(0)
        .spawn()?;
    drop(command); // and with it our copies of the child's ends, so that we see them close
    let pid = Pid::from_raw(child.id().cast_signed());
    let group = Group(pid);
    let output = Output::pass_on(listener, console, move || drop(Group(pid)));
    ours.set_write_timeout(Some(Duration::from_millis(job.deadline_ms.max(1))))?;
    // A child that takes no job has died, and how it died is told below.
    let _ = write_frame(&mut ours, job);
    let outcome = receive(&mut ours, until)?;
    // The outcome stands only if the process also ends well: a crash or a hang while it cleans up is
    // one of the things that are looked for.
    let status = await_exit(&mut child, until)?;
    drop(group);
    let has_died = status.is_some() || {
        let _ = child.kill(); // also where it has left its group
        await_exit(&mut child, Instant::now() + DYING * job.patience)?.is_some()
    };
    let is_flood = output.end();
    let outcome = verdict(job, outcome, status);
    Ok(match outcome {
        outcome if !has_died => undying(outcome),
        outcome if is_flood => Outcome {
            status: Status::Fail,
            detail: format!(
                "it printed more than {} KiB, and was ended: {}",
                output::LIMIT >> 10,
                outcome.detail
            ),
            ..outcome
        },
        outcome => outcome,
    })
}

/// The outcome of a job whose process is still there although it was killed.
fn undying(outcome: Outcome) -> Outcome {
    Outcome {
        detail: format!(
            "{}, and it does not die: the kernel does not let go of it",
            outcome.detail
        ),
        ..outcome
    }
}

fn verdict(job: &Job, outcome: Option<Outcome>, status: Option<ExitStatus>) -> Outcome {
    let seconds = Duration::from_millis(job.deadline_ms).as_secs_f32();
    match (outcome, status) {
        (Some(outcome), Some(status)) if status.success() => outcome,
        (Some(outcome), None) => Outcome {
            status: Status::Fail,
            detail: format!(
                "deadline of {seconds} s passed before its process ended, after it said {:?}: {}",
                outcome.status, outcome.detail
            ),
            ..outcome
        },
        (Some(outcome), Some(status)) => Outcome {
            status: Status::Fail,
            detail: format!(
                "its process {} after it said {:?}: {}",
                manner(status),
                outcome.status,
                outcome.detail
            ),
            ..outcome
        },
        (None, None) => failed(format!("deadline of {seconds} s passed")),
        (None, Some(status)) => {
            failed(format!("its process {} without an outcome", manner(status)))
        }
    }
}

fn manner(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (_, Some(signal)) => {
            let name = Signal::try_from(signal)
                .map_or_else(|_| signal.to_string(), |signal| signal.to_string());
            format!("was killed by {name}")
        }
        (code, None) => format!("exited with status {}", code.unwrap_or_default()),
    }
}

/// Kills every process of the job that is still there when it goes.
struct Group(Pid);

impl Drop for Group {
    fn drop(&mut self) {
        // A group that has ended by itself is what is wanted.
        let _ = killpg(self.0, Signal::SIGKILL);
    }
}

fn receive(stream: &mut UnixStream, until: Instant) -> io::Result<Option<Outcome>> {
    let (mut reader, mut chunk) = (FrameReader::default(), [0; 1 << 14]);
    loop {
        if let Some(outcome) = reader.next_message().map_err(io::Error::other)? {
            return Ok(Some(outcome));
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(None),
            Ok(count) => reader.push(&chunk[..count]),
            Err(error) => match error.kind() {
                io::ErrorKind::WouldBlock
                | io::ErrorKind::TimedOut
                | io::ErrorKind::Interrupted => {}
                // The child died with our words unread.
                io::ErrorKind::ConnectionReset => return Ok(None),
                _ => return Err(error),
            },
        }
    }
}

fn await_exit(child: &mut Child, until: Instant) -> io::Result<Option<ExitStatus>> {
    let mut pause = Duration::from_micros(200);
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        if Instant::now() >= until {
            return Ok(None);
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(20));
    }
}

/// The child's `main`.
pub(crate) fn main(run: fn(&Job) -> Outcome) -> ExitCode {
    let result = take_stdin().and_then(|mut stream| {
        let job = read_job(&mut stream)?;
        write_frame(&mut stream, &guarded(run, &job))
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("job: {error}");
            ExitCode::FAILURE
        }
    }
}

/// The socket is moved away from standard input, so that nothing a job starts inherits it.
fn take_stdin() -> io::Result<UnixStream> {
    let stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    dup2_stdin(File::open("/dev/null")?)?;
    Ok(stream)
}

fn read_job(stream: &mut UnixStream) -> io::Result<Job> {
    let (mut reader, mut chunk) = (FrameReader::default(), [0; 1 << 14]);
    loop {
        if let Some(job) = reader.next_message().map_err(io::Error::other)? {
            return Ok(job);
        }
        match stream.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => reader.push(&chunk[..count]),
        }
    }
}

/// A panic in a job is a failed outcome with its words and place.
fn guarded(run: fn(&Job) -> Outcome, job: &Job) -> Outcome {
    static PLACE: Mutex<Option<String>> = Mutex::new(None);
    let usual = panic::take_hook();
    let this = thread::current().id();
    panic::set_hook(Box::new(move |info| {
        if thread::current().id() == this {
            *PLACE.lock().unwrap_or_else(PoisonError::into_inner) =
                info.location().map(ToString::to_string);
        }
        usual(info);
    }));
    panic::catch_unwind(AssertUnwindSafe(|| run(job))).unwrap_or_else(|payload| {
        let place = PLACE
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take()
            .unwrap_or_default();
        failed(format!("panicked at {place}: {}", words(&*payload)))
    })
}

fn words(payload: &(dyn Any + Send)) -> String {
    let text = payload
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| payload.downcast_ref::<&str>().copied());
    text.unwrap_or("something that is no text")
        .lines()
        .map(str::trim)
        .collect::<Vec<_>>()
        .join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn job(deadline_ms: u64) -> Job {
        Job {
            number: 1,
            name: "j".into(),
            seed: 0,
            deadline_ms,
            patience: 1,
            links: Vec::new(),
        }
    }

    fn shell(script: &str) -> Command {
        let mut command = Command::new("/bin/sh");
        command.arg("-c").arg(script);
        command
    }

    fn detail(script: &str, deadline_ms: u64) -> String {
        let outcome = watch(shell(script), &job(deadline_ms), io::sink()).unwrap();
        assert_eq!(outcome.status, Status::Fail);
        outcome.detail
    }

    #[test]
    fn an_end_without_outcome_is_a_failure_that_says_how_it_ended() {
        assert_eq!(
            detail("exit 3", 10_000),
            "its process exited with status 3 without an outcome"
        );
        assert_eq!(
            detail("kill -SEGV $$", 10_000),
            "its process was killed by SIGSEGV without an outcome"
        );
        assert_eq!(
            detail("exit 0", 10_000),
            "its process exited with status 0 without an outcome"
        );
    }

    #[test]
    fn a_job_past_its_deadline_is_killed_with_all_it_started() {
        let start = Instant::now();
        let directory = std::env::temp_dir().join(format!("nlring-job-{}", std::process::id()));
        let script = format!("sleep 987 & echo $! > {}; wait", directory.display());
        assert_eq!(detail(&script, 300), "deadline of 0.3 s passed");
        assert!(start.elapsed() < Duration::from_secs(10));
        let sleeper = std::fs::read_to_string(&directory).unwrap();
        std::fs::remove_file(&directory).unwrap();
        let gone = || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", sleeper.trim()))
                .unwrap_or_default();
            status.is_empty() || status.contains("State:\tZ")
        };
        while !gone() {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "the job's child is still there"
            );
            thread::sleep(Duration::from_millis(5));
        }
    }

    #[test]
    fn a_job_that_floods_is_ended_and_told_of() {
        let said = detail("yes | head -c 70000", 10_000);
        let flood = "it printed more than 64 KiB, and was ended: ";
        assert!(said.starts_with(flood), "{said}");
        let start = Instant::now();
        assert!(detail("yes", 60_000).starts_with(flood));
        assert!(start.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_job_that_leaves_its_group_is_killed_all_the_same() {
        let leave = "exec perl -e 'setpgrp(0, getpgrp(getppid())); sleep 987'";
        assert_eq!(detail(leave, 300), "deadline of 0.3 s passed");
    }

    #[test]
    fn a_process_that_does_not_die_is_an_outcome() {
        let outcome = undying(verdict(&job(300), None, None));
        assert_eq!(outcome.status, Status::Fail);
        let told =
            "deadline of 0.3 s passed, and it does not die: the kernel does not let go of it";
        assert_eq!(outcome.detail, told);
    }

    #[test]
    fn an_outcome_stands_only_if_its_process_ends_well() {
        // The frame of a passed outcome, written by a shell to its standard input.
        let mut frame = Vec::new();
        let passed = Outcome {
            status: Status::Pass,
            detail: "fine".into(),
            evidence: vec!["e".into()],
        };
        write_frame(&mut frame, &passed).unwrap();
        let octal: Vec<_> = frame.iter().map(|byte| format!("{byte:03o}")).collect();
        let octal = format!("\\{}", octal.join("\\"));
        let say = format!("printf '{octal}' >&0");
        assert_eq!(
            watch(shell(&say), &job(10_000), io::sink()).unwrap(),
            passed
        );
        let crashed = watch(
            shell(&format!("{say}; kill -ABRT $$")),
            &job(10_000),
            io::sink(),
        )
        .unwrap();
        assert_eq!(
            crashed.detail,
            "its process was killed by SIGABRT after it said Pass: fine"
        );
        let hung = watch(shell(&format!("{say}; sleep 987")), &job(300), io::sink()).unwrap();
        assert_eq!(
            hung.detail,
            "deadline of 0.3 s passed before its process ended, after it said Pass: fine"
        );
        assert_eq!(
            (hung.status, hung.evidence),
            (Status::Fail, passed.evidence)
        );
    }

    #[test]
    fn a_panic_is_a_failure_with_its_words_and_place() {
        let outcome = guarded(|_| panic!("two\nlines"), &job(1));
        assert_eq!(outcome.status, Status::Fail);
        assert!(
            outcome
                .detail
                .starts_with("panicked at vm/agent/src/job.rs:")
                || outcome.detail.starts_with("panicked at src/job.rs:"),
            "{}",
            outcome.detail
        );
        assert!(
            outcome.detail.ends_with(": two; lines"),
            "{}",
            outcome.detail
        );
    }
}
