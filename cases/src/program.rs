// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that a case runs beside itself, and what it says.

use std::io::{BufRead as _, BufReader, PipeReader, pipe};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

/// Where the guest has the ring library's examples.
const PLACE: &str = "/usr/lib/nlring";

/// A program at work. Dropped, it is killed.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its name and arguments, for messages.
    command: String,
    child: Child,
    lines: Receiver<String>,
    patience: Duration,
}

impl Program {
    /// Starts an example with these arguments.
    pub(crate) fn start(command: &str, patience: Duration) -> anyhow::Result<Self> {
        let mut words = command.split_whitespace();
        let program = format!("{PLACE}/{}", words.next().unwrap_or_default());
        let (output, input) = pipe()?;
        let child = Command::new(&program)
            .args(words)
            .stdin(Stdio::null())
            .stdout(input.try_clone()?)
            .stderr(input)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        Ok(Self {
            command: command.to_owned(),
            child,
            lines: read_lines(output),
            patience,
        })
    }

    /// Lines up to one that contains `wanted`, which is the last of them.
    pub(crate) fn lines_until(&self, wanted: &str) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(self.patience) {
                Ok(line) => {
                    let found = line.contains(wanted);
                    lines.push(line);
                    if found {
                        return Ok(lines);
                    }
                }
                Err(why) => bail!("{} said {lines:?} and not {wanted:?}: {why}", self.command),
            }
        }
    }

    /// Waits for its end, which must be a good one, and tells what it said until then.
    pub(crate) fn end(mut self) -> anyhow::Result<Vec<String>> {
        let mut lines = Vec::new();
        loop {
            match self.lines.recv_timeout(self.patience) {
                Ok(line) => lines.push(line),
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    bail!("{} does not end, and said {lines:?}", self.command)
                }
            }
        }
        let status = self.child.wait()?;
        ensure!(
            status.success(),
            "{} ended with {status}: {lines:?}",
            self.command
        );
        Ok(lines)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Reads in a thread of its own, so that waiting for a line can end.
fn read_lines(output: PipeReader) -> Receiver<String> {
    let (tell, told) = channel();
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            if tell.send(line).is_err() {
                break;
            }
        }
    });
    told
}
