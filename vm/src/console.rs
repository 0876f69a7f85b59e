// SPDX-License-Identifier: MIT OR Apache-2.0
//! What comes out of a VM besides messages: the console, into a log as it comes, and QEMU's own
//! standard error.

use std::fs::File;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};

use crate::VmError;

/// A log stops here, in bytes: a guest in a loop must not fill the host's disk.
const MAX_LOG: u64 = 64 << 20;

/// Of a stream that is only quoted in errors, this much is kept, in bytes.
const MAX_QUOTED: usize = 4096;

/// A stream that is read to its end by a thread of its own.
#[derive(Debug)]
pub(crate) struct Drain {
    quoted: Arc<Mutex<Vec<u8>>>,
    thread: Option<JoinHandle<io::Result<()>>>,
    log: PathBuf,
}

impl Drain {
    /// Copies `stream` into a new file `log`, as it comes, after what was said `before`. Its end is what
    /// is quoted.
    pub(crate) fn into_log(
        stream: impl Read + Send + 'static,
        log: &Path,
        before: &[u8],
    ) -> Result<Self, VmError> {
        let failure = || VmError::io("cannot write the console's log", log);
        let mut file = File::create(log).map_err(failure())?;
        file.write_all(before).map_err(failure())?;
        let mut written = before.len() as u64;
        let mut failed = Ok(());
        Ok(Self::start(stream, log, move |quoted, bytes| {
            quoted.extend_from_slice(bytes);
            let surplus = quoted.len().saturating_sub(MAX_QUOTED);
            quoted.drain(..surplus);
            if written < MAX_LOG && failed.is_ok() {
                written += bytes.len() as u64;
                let rest = if written < MAX_LOG {
                    ""
                } else {
                    "\n[the log ends here: it is full]\n"
                };
                failed = file
                    .write_all(bytes)
                    .and_then(|()| file.write_all(rest.as_bytes()));
            }
            std::mem::replace(&mut failed, Ok(()))
        }))
    }

    /// Reads `stream` and keeps its beginning.
    pub(crate) fn quoting(stream: impl Read + Send + 'static) -> Self {
        Self::start(stream, Path::new(""), |quoted, bytes| {
            let room = MAX_QUOTED - quoted.len();
            quoted.extend_from_slice(&bytes[..bytes.len().min(room)]);
            Ok(())
        })
    }

    fn start(
        mut stream: impl Read + Send + 'static,
        log: &Path,
        mut on: impl FnMut(&mut Vec<u8>, &[u8]) -> io::Result<()> + Send + 'static,
    ) -> Self {
        let quoted = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&quoted);
        let thread = thread::spawn(move || {
            let (mut chunk, mut outcome) = ([0; 1 << 14], Ok(()));
            loop {
                match stream.read(&mut chunk) {
                    // Whatever happens to the log, the stream is read on: a VM must not block on it.
                    Ok(count @ 1..) => {
                        let result = on(
                            &mut shared.lock().unwrap_or_else(PoisonError::into_inner),
                            &chunk[..count],
                        );
                        outcome = outcome.and(result);
                    }
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => return outcome,
                }
            }
        });
        Self {
            quoted,
            thread: Some(thread),
            log: log.to_owned(),
        }
    }

    fn quoted(&self) -> String {
        let quoted = self.quoted.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&quoted).into_owned()
    }

    /// The first line kept that says something.
    pub(crate) fn first_line(&self) -> Option<String> {
        self.quoted()
            .lines()
            .map(str::trim)
            .find(|line| !line.is_empty())
            .map(printable)
    }

    /// The last line kept that says something.
    pub(crate) fn last_line(&self) -> Option<String> {
        self.quoted()
            .lines()
            .map(str::trim)
            .rfind(|line| !line.is_empty())
            .map(printable)
    }

    /// Whether a line kept so far holds `text`; that line.
    pub(crate) fn line_with(&self, text: &str) -> Option<String> {
        self.quoted()
            .lines()
            .find(|line| line.contains(text))
            .map(printable)
    }

    /// Waits for the stream's end, after which the log is whole.
    pub(crate) fn finish(&mut self) -> Result<(), VmError> {
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => {
                outcome.map_err(VmError::io("cannot write the console's log", &self.log))
            }
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

/// A guest may send anything; an error message is one line of text.
fn printable(line: &str) -> String {
    line.chars()
        .filter(|character| !character.is_control())
        .take(200)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_holds_all_and_the_last_line_is_quoted() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let text = format!("first\n{}\n\u{1b}[1mlast\n\n", "x".repeat(2 * MAX_QUOTED));
        let mut drain = Drain::into_log(
            io::Cursor::new(text.clone().into_bytes()),
            log.path(),
            b"before\n",
        )
        .unwrap();
        drain.finish().unwrap();
        assert_eq!(
            std::fs::read_to_string(log.path()).unwrap(),
            format!("before\n{text}")
        );
        assert_eq!(drain.last_line().unwrap(), "[1mlast");
    }

    #[test]
    fn a_log_of_a_guest_in_a_loop_ends() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let mut drain =
            Drain::into_log(io::repeat(b'x').take(MAX_LOG + (1 << 20)), log.path(), b"").unwrap();
        drain.finish().unwrap();
        let size = std::fs::metadata(log.path()).unwrap().len();
        assert!((MAX_LOG..MAX_LOG + (1 << 16)).contains(&size), "{size}");
    }

    #[test]
    fn the_first_line_of_a_flood_is_kept() {
        let flood = b"\nqemu: no such machine\n"
            .iter()
            .copied()
            .chain(std::iter::repeat_n(b'y', 1 << 20));
        let mut drain = Drain::quoting(io::Cursor::new(flood.collect::<Vec<_>>()));
        drain.finish().unwrap();
        assert_eq!(drain.first_line().unwrap(), "qemu: no such machine");
    }
}
