// SPDX-License-Identifier: MIT OR Apache-2.0
//! QEMU's monitor: orders to QEMU itself rather than to its guest, and what it tells of the VM, by QMP.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use qapi::qmp::{self, Event, MigrationStatus, ShutdownCause};
use qapi::{Command, Execute};
use serde::Deserialize as _;
use serde_json::Value;

/// Between two looks at how a state's writing gets on.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A line from QEMU is shorter, in bytes.
const MAX_LINE: usize = 1 << 20;

/// What QEMU has said already comes within this, however busy the host is.
const SOON: Duration = Duration::from_millis(50);

/// More lines than QEMU says of itself in the life of a VM.
const MAX_LINES: usize = 1000;

/// Our end of a monitor.
#[derive(Debug)]
pub(crate) struct Monitor {
    stream: UnixStream,
    buffer: Vec<u8>,
    /// The answer to the first order, with which QEMU begins to tell events, was read.
    is_met: bool,
    told: Told,
}

/// What QEMU tells of the VM: the last word of each kind.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Told {
    /// The guest's kernel has panicked, as it says itself, by its pvpanic device.
    pub(crate) panicked: bool,
    /// The guest stands still.
    pub(crate) paused: bool,
    /// The VM ends, and why.
    pub(crate) shutdown: Option<ShutdownCause>,
}

impl Monitor {
    /// QEMU tells events when it is greeted; it finds our greeting as soon as it looks.
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        let mut monitor = Self {
            stream,
            buffer: Vec::new(),
            is_met: false,
            told: Told::default(),
        };
        monitor.order(&qmp::qmp_capabilities { enable: None })?;
        Ok(monitor)
    }

    /// Has QEMU write the whole state of its guest, which runs on until the last of it and is then paused,
    /// to `file`; calls `meanwhile` then, and lets the guest go on.
    pub(crate) fn save<T>(
        &mut self,
        file: &Path,
        deadline: Duration,
        meanwhile: impl FnOnce() -> io::Result<T>,
    ) -> io::Result<T> {
        let until = Instant::now() + deadline;
        self.stream.set_write_timeout(Some(deadline))?;
        if !self.is_met {
            self.answer::<qmp::qmp_capabilities>(until)?;
            self.is_met = true;
        }
        let order = qmp::migrate {
            channels: None,
            detach: None,
            resume: None,
            uri: Some(format!("exec:cat >{}", file.display())),
        };
        self.execute(&order, until)?;
        loop {
            let progress = self.execute(&qmp::query_migrate {}, until)?;
            match progress.status {
                Some(MigrationStatus::completed) => break,
                Some(MigrationStatus::failed) => {
                    let why = progress
                        .error_desc
                        .unwrap_or_else(|| "it does not say why".into());
                    return Err(io::Error::other(format!("QEMU failed to: {why}")));
                }
                _ if Instant::now() >= until => return Err(io::ErrorKind::TimedOut.into()),
                _ => thread::sleep(LOOK_AGAIN),
            }
        }
        let result = meanwhile()?;
        self.execute(&qmp::cont {}, until)?;
        Ok(result)
    }

    /// What QEMU has told so far, all of it if QEMU has ended.
    pub(crate) fn told(&mut self) -> Told {
        for _ in 0..MAX_LINES {
            match self.line(Instant::now() + SOON) {
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
                // What is no line of QMP tells nothing.
                Ok(Some(_)) | Err(_) => {}
            }
        }
        self.told
    }

    fn execute<C: Command>(&mut self, order: &C, until: Instant) -> io::Result<C::Ok> {
        self.order(order)?;
        self.answer::<C>(until)
    }

    fn order<C: Command>(&mut self, order: &C) -> io::Result<()> {
        let mut line = serde_json::to_vec(&Execute::<&C>::from(order))?;
        line.push(b'\n');
        self.stream.write_all(&line)
    }

    /// The answer to the order that was given last.
    fn answer<C: Command>(&mut self, until: Instant) -> io::Result<C::Ok> {
        loop {
            let Some(mut line) = self.line(until)? else {
                return Err(io::ErrorKind::TimedOut.into());
            };
            if let Some(error) = line.get("error") {
                let why = error["desc"].as_str().unwrap_or("it does not say why");
                return Err(io::Error::other(format!("QEMU refuses {}: {why}", C::NAME)));
            }
            if let Some(result) = line.get_mut("return") {
                return Ok(serde_json::from_value(result.take())?);
            }
        }
    }

    /// The next line, if it comes before `until`; noted if it tells of the VM.
    fn line(&mut self, until: Instant) -> io::Result<Option<Value>> {
        let mut chunk = [0; 1 << 12];
        loop {
            // First of all, or a monitor that floods us would keep us past any deadline.
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(None);
            }
            if let Some(end) = self.buffer.iter().position(|&byte| byte == b'\n') {
                let bytes: Vec<u8> = self.buffer.drain(..=end).collect();
                let line = serde_json::from_slice(&bytes).map_err(io::Error::other)?;
                self.note(&line);
                return Ok(Some(line));
            }
            if self.buffer.len() > MAX_LINE {
                return Err(io::Error::other("QEMU's monitor talks without an end"));
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "QEMU closed its monitor",
                    ));
                }
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted => {}
                    _ => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, error)),
                },
            }
        }
    }

    fn note(&mut self, line: &Value) {
        // A newer QEMU has events of which we know nothing; none of them is one of these.
        match Event::deserialize(line) {
            Ok(Event::GUEST_PANICKED { .. }) => self.told.panicked = true,
            Ok(Event::SHUTDOWN { data, .. }) => self.told.shutdown = Some(data.reason),
            Ok(Event::STOP { .. }) => self.told.paused = true,
            Ok(Event::RESUME { .. }) => self.told.paused = false,
            _ => {}
        }
    }
}
