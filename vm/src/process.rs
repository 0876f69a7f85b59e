// SPDX-License-Identifier: MIT OR Apache-2.0
//! The process that is a VM, what comes out of it besides messages, and how it ended.

use std::fs::{self, File};
use std::io;
use std::os::fd::{OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use qapi::qmp::ShutdownCause;

use crate::console::Drain;
use crate::end::{End, Manner};
use crate::monitor::{Monitor, Told};
use crate::{VmError, keeper};

/// A QEMU that has closed the channel is on its way out: its own status, and what its guest still says on
/// the console, tell more than our signal would.
const WAY_OUT: Duration = Duration::from_secs(1);

/// One that was killed is gone after this, or hangs in the host's kernel and is left there.
const DYING: Duration = Duration::from_secs(5);

/// What a kernel says last.
const PANIC: &str = "] Kernel panic - not syncing";

/// QEMU. Killed, with all that it started, and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Qemu {
    child: Child,
    status: Option<ExitStatus>,
    is_killed: bool,
    console: Drain,
    pub(crate) errors: Drain,
    /// Unless it is virtme-ng's.
    pub(crate) monitor: Option<Monitor>,
    pub(crate) log: PathBuf,
}

/// What is known of an end when it is met.
#[derive(Debug)]
pub(crate) enum Seen {
    /// The channel is closed.
    Closed,
    /// The guest did not do in time what this says.
    Late(Manner, String),
    /// The guest cannot be talked to: why.
    Broken(String),
}

impl Qemu {
    /// Starts `command`, which is or becomes QEMU, with the descriptors `inherited`. Its standard error
    /// is what it says of itself, unless the caller has a use for that; then its standard output is.
    pub(crate) fn start(
        mut command: Command,
        inherited: Vec<RawFd>,
        console: Drain,
        log: &Path,
    ) -> Result<Self, VmError> {
        let program = command.get_program().display().to_string();
        command.process_group(0);
        let mut child = keeper::spawn(command, Signal::SIGKILL, inherited)
            .map_err(|source| VmError::Start { program, source })?;
        let stderr = child.stderr.take().map(OwnedFd::from);
        let said = stderr.or_else(|| child.stdout.take().map(OwnedFd::from));
        let said = File::from(said.expect("one of the two is piped"));
        let errors = Drain::quoting(said, log).inspect_err(|_| drop(child.kill()))?;
        Ok(Self {
            child,
            status: None,
            is_killed: false,
            console,
            errors,
            monitor: None,
            log: log.to_owned(),
        })
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Has the VM's state written to `file`, and returns what its console had said by then.
    pub(crate) fn save(&mut self, file: &Path, deadline: Duration) -> io::Result<Vec<u8>> {
        let monitor = self.monitor.as_mut();
        let monitor = monitor.ok_or(io::Error::from(io::ErrorKind::Unsupported))?;
        monitor.save(file, deadline, || {
            self.console.settle();
            fs::read(&self.log)
        })
    }

    /// The error for a VM that was of no use when `tried` was. It is gone, and its console read to the end,
    /// when this returns.
    pub(crate) fn end(&mut self, tried: &str, seen: Seen, mut witnesses: Vec<String>) -> VmError {
        let patience = match seen {
            Seen::Closed => WAY_OUT,
            Seen::Late(..) | Seen::Broken(_) => Duration::ZERO,
        };
        let by_itself = self.await_status(Instant::now() + patience);
        let state = by_itself.map_or_else(|| self.state(), |status| status.to_string());
        self.stop();
        let told = self.told();
        let said = self.errors.first_line();
        let has_panicked = told.panicked || self.console.line_with(PANIC).is_some();
        let (manner, what) = match (told.shutdown, seen) {
            _ if has_panicked => (Manner::Crash, "the guest's kernel panicked".to_owned()),
            (Some(ShutdownCause::guest_reset), _) => {
                (Manner::Crash, "the guest reset its machine".to_owned())
            }
            (Some(ShutdownCause::guest_shutdown), Seen::Closed) => {
                (Manner::Lost, "the guest powered itself off".to_owned())
            }
            (_, Seen::Closed) if by_itself.is_some() => (Manner::Lost, "QEMU ended".to_owned()),
            (_, Seen::Closed) => (Manner::Lost, "QEMU closed the channel".to_owned()),
            (_, Seen::Late(..)) if told.paused => {
                (Manner::Lost, "QEMU paused the guest".to_owned())
            }
            // Somebody else holds the channel open.
            (_, Seen::Late(..)) if by_itself.is_some() => (Manner::Lost, "QEMU ended".to_owned()),
            (_, Seen::Broken(why)) => (Manner::Lost, why),
            (_, Seen::Late(manner, what)) => (manner, what),
        };
        let said_so = said.iter().map(|said| format!("; {said}"));
        let what = format!("{what} ({state}{})", said_so.collect::<String>());
        if told.panicked {
            witnesses.push("pvpanic: the guest's kernel panicked".to_owned());
        }
        if let Some(cause) = told.shutdown {
            witnesses.push(format!("QEMU's monitor: shutdown, {}", words(cause)));
        }
        if told.paused {
            witnesses.push("QEMU's monitor: the guest is paused".to_owned());
        }
        witnesses.push(format!("QEMU's process: {state}"));
        witnesses.extend(said.map(|said| format!("QEMU said: {said}")));
        VmError::Ended {
            tried: tried.to_owned(),
            end: Box::new(End {
                manner,
                what,
                panicked: told.panicked,
                witnesses,
                last: self.console.last_line().unwrap_or_default(),
                console: self.log.clone(),
            }),
        }
    }

    /// The guest was asked to power off and QEMU has closed the channel: it ends on its own before `until`,
    /// and well.
    pub(crate) fn await_power_off(&mut self, tried: &str, until: Instant) -> Result<(), VmError> {
        let Some(status) = self.await_status(until) else {
            let late = Seen::Late(Manner::Silence, "QEMU did not end".to_owned());
            return Err(self.end(tried, late, Vec::new()));
        };
        let told = self.told();
        let has_reset = told.shutdown == Some(ShutdownCause::guest_reset);
        if told.panicked || has_reset || !status.success() {
            return Err(self.end(tried, Seen::Closed, Vec::new()));
        }
        self.kill();
        self.console.finish()
    }

    fn told(&mut self) -> Told {
        let monitor = self.monitor.as_mut();
        monitor.map(Monitor::told).unwrap_or_default()
    }

    /// Its exit status, if it has ended or does before `until`.
    fn await_status(&mut self, until: Instant) -> Option<ExitStatus> {
        while self.status.is_none() {
            self.status = self.child.try_wait().ok().flatten();
            if self.status.is_none() && Instant::now() >= until {
                return None;
            }
            if self.status.is_none() {
                thread::sleep(Duration::from_millis(1));
            }
        }
        self.status
    }

    /// What it does, as it is still there.
    fn state(&self) -> String {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        // The name before it is in parentheses and can hold anything.
        let state = stat
            .rsplit(") ")
            .next()
            .and_then(|rest| rest.chars().next());
        match state {
            Some('T' | 't') => "QEMU was stopped by a signal",
            Some('D') => "QEMU hung in the host's kernel",
            _ => "QEMU was still there",
        }
        .to_owned()
    }

    /// Kills what is still there of it, and reads what it left.
    fn stop(&mut self) {
        self.kill();
        self.await_status(Instant::now() + DYING);
        // What could not be logged is of no interest beside the error that is on its way.
        let _ = self.console.finish();
        let _ = self.errors.finish();
    }

    /// With all that it started; once, since its number may be another's later.
    fn kill(&mut self) {
        if !std::mem::replace(&mut self.is_killed, true) {
            // Where nobody of it is there any more that is what is wanted.
            let _ = killpg(Pid::from_raw(self.id().cast_signed()), Signal::SIGKILL);
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.stop();
    }
}

/// As QMP spells it.
fn words(cause: ShutdownCause) -> String {
    serde_json::to_value(cause)
        .ok()
        .and_then(|word| word.as_str().map(str::to_owned))
        .unwrap_or_default()
}
