// SPDX-License-Identifier: MIT OR Apache-2.0
//! What comes out of a VM besides messages: the console, into a log as it comes, and QEMU's own
//! standard error.

use std::fs::File;
use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::VmError;

/// A log stops here, in bytes: a guest in a loop must not fill the host's disk.
const MAX_LOG: u64 = 64 << 20;

/// Of a stream that is only quoted in errors, this much is kept, in bytes.
const MAX_QUOTED: usize = 4096;

/// What somebody writes on when all that should write are gone is read for this long.
const LATE: Duration = Duration::from_secs(1);

/// A stream that is read to its end by a thread of its own.
#[derive(Debug)]
pub(crate) struct Drain {
    quoted: Arc<Mutex<Vec<u8>>>,
    /// The stream, to see whether all that was written to it was read.
    stream: OwnedFd,
    /// Closed when nobody is left who should write.
    stop: Option<PipeWriter>,
    thread: Option<JoinHandle<io::Result<()>>>,
    log: PathBuf,
}

impl Drain {
    /// Copies `stream` into a new file `log`, as it comes, after what was said `before`. Its end is what
    /// is quoted.
    pub(crate) fn into_log(
        stream: impl Read + AsFd + Send + 'static,
        log: &Path,
        before: &[u8],
    ) -> Result<Self, VmError> {
        let failure = || VmError::io("cannot write the console's log", log);
        let mut file = File::create(log).map_err(failure())?;
        file.write_all(before).map_err(failure())?;
        let mut written = before.len() as u64;
        let mut failed = Ok(());
        Self::start(stream, log, move |quoted, bytes| {
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
        })
    }

    /// Reads `stream`, which belongs to the VM of this `log`, and keeps its beginning.
    pub(crate) fn quoting(
        stream: impl Read + AsFd + Send + 'static,
        log: &Path,
    ) -> Result<Self, VmError> {
        Self::start(stream, log, |quoted, bytes| {
            let room = MAX_QUOTED - quoted.len();
            quoted.extend_from_slice(&bytes[..bytes.len().min(room)]);
            Ok(())
        })
    }

    fn start(
        mut stream: impl Read + AsFd + Send + 'static,
        log: &Path,
        mut on: impl FnMut(&mut Vec<u8>, &[u8]) -> io::Result<()> + Send + 'static,
    ) -> Result<Self, VmError> {
        let quoted = Arc::new(Mutex::new(Vec::new()));
        let shared = Arc::clone(&quoted);
        let failure = || VmError::io("cannot make a pipe beside", log);
        let (stopped, stop) = io::pipe().map_err(failure())?;
        let seen = stream.as_fd().try_clone_to_owned().map_err(failure())?;
        let thread = thread::spawn(move || {
            let (mut chunk, mut outcome) = ([0; 1 << 14], Ok(()));
            let mut until = None;
            loop {
                match wait(&stream, &stopped) {
                    Ready::Stopped => return outcome,
                    Ready::Stream { is_stopped } => {
                        // Somebody writes on who had the other end from those that are gone.
                        let late = || Instant::now() + LATE;
                        if is_stopped && Instant::now() >= *until.get_or_insert_with(late) {
                            return outcome;
                        }
                    }
                }
                // Held from the stream to the log, so that nothing is on its way where it is not.
                let mut quoted = shared.lock().unwrap_or_else(PoisonError::into_inner);
                match stream.read(&mut chunk) {
                    // Whatever happens to the log, the stream is read on: a VM must not block on it.
                    Ok(count @ 1..) => outcome = outcome.and(on(&mut quoted, &chunk[..count])),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Ok(0) | Err(_) => return outcome,
                }
            }
        });
        Ok(Self {
            quoted,
            stream: seen,
            stop: Some(stop),
            thread: Some(thread),
            log: log.to_owned(),
        })
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

    /// Waits until all that was written so far is in the log, which takes a moment where nobody writes on.
    pub(crate) fn settle(&self) {
        let until = Instant::now() + LATE;
        let is_unread = || {
            let _reading = self.quoted.lock().unwrap_or_else(PoisonError::into_inner);
            let mut ends = [PollFd::new(self.stream.as_fd(), PollFlags::POLLIN)];
            poll(&mut ends, PollTimeout::ZERO).is_ok_and(|ready| ready > 0)
        };
        while is_unread() && Instant::now() < until {
            thread::sleep(Duration::from_millis(1));
        }
    }

    /// Reads what those wrote who are gone now, to the last byte; the log is whole then. The stream need not
    /// end for that: somebody else may have inherited it.
    pub(crate) fn finish(&mut self) -> Result<(), VmError> {
        self.stop = None;
        match self.thread.take().map(JoinHandle::join) {
            Some(Ok(outcome)) => {
                outcome.map_err(VmError::io("cannot write the console's log", &self.log))
            }
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Ok(()),
        }
    }
}

/// What there is to read.
enum Ready {
    /// Something, or the end.
    Stream { is_stopped: bool },
    /// Nothing, and nothing more will come.
    Stopped,
}

fn wait(stream: &impl AsFd, stopped: &PipeReader) -> Ready {
    loop {
        let mut ends =
            [stream.as_fd(), stopped.as_fd()].map(|end| PollFd::new(end, PollFlags::POLLIN));
        // It may be interrupted, and then nothing is known of either.
        if poll(&mut ends, PollTimeout::NONE).is_ok() {
            let [has_more, is_stopped] = ends.map(|end| end.any().unwrap_or(true));
            match (has_more, is_stopped) {
                (true, is_stopped) => return Ready::Stream { is_stopped },
                (false, true) => return Ready::Stopped,
                (false, false) => {}
            }
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

    /// A stream of these bytes.
    fn stream(mut bytes: impl Read + Send + 'static) -> PipeReader {
        let (reader, mut writer) = io::pipe().unwrap();
        thread::spawn(move || io::copy(&mut bytes, &mut writer));
        reader
    }

    fn text(text: &str) -> PipeReader {
        stream(io::Cursor::new(text.to_owned().into_bytes()))
    }

    /// What the log holds at the end.
    fn end(drain: &mut Drain) -> String {
        drain.thread.take().unwrap().join().unwrap().unwrap();
        std::fs::read_to_string(&drain.log).unwrap()
    }

    #[test]
    fn a_log_holds_all_and_the_last_line_is_quoted() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let said = format!("first\n{}\n\u{1b}[1mlast\n\n", "x".repeat(2 * MAX_QUOTED));
        let mut drain = Drain::into_log(text(&said), log.path(), b"before\n").unwrap();
        assert_eq!(end(&mut drain), format!("before\n{said}"));
        assert_eq!(drain.last_line().unwrap(), "[1mlast");
    }

    #[test]
    fn a_log_of_a_guest_in_a_loop_ends() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let flood = stream(io::repeat(b'x').take(MAX_LOG + (1 << 20)));
        let mut drain = Drain::into_log(flood, log.path(), b"").unwrap();
        let size = end(&mut drain).len() as u64;
        assert!((MAX_LOG..MAX_LOG + (1 << 16)).contains(&size), "{size}");
    }

    #[test]
    fn the_first_line_of_a_flood_is_kept() {
        let flood = format!("\nqemu: no such machine\n{}", "y".repeat(1 << 20));
        let mut drain = Drain::quoting(text(&flood), Path::new("/dev/null")).unwrap();
        end(&mut drain);
        assert_eq!(drain.first_line().unwrap(), "qemu: no such machine");
    }

    #[test]
    fn what_was_written_before_the_end_is_read_though_the_stream_does_not_end() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let mut drain = Drain::into_log(reader, log.path(), b"").unwrap();
        let said = "x".repeat(60_000);
        writer.write_all(said.as_bytes()).unwrap();
        drain.finish().unwrap();
        assert_eq!(std::fs::read_to_string(log.path()).unwrap(), said);
    }

    #[test]
    fn what_was_written_is_in_the_log_once_that_has_settled() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let (reader, mut writer) = io::pipe().unwrap();
        let drain = Drain::into_log(reader, log.path(), b"").unwrap();
        for round in 1..=100 {
            writer.write_all(&[b'x'; 10_000]).unwrap();
            drain.settle();
            let size = std::fs::metadata(log.path()).unwrap().len();
            assert_eq!(size, round * 10_000);
        }
        drop((writer, drain));
    }

    #[test]
    fn somebody_who_writes_on_for_ever_is_left_alone() {
        let log = tempfile::NamedTempFile::new().unwrap();
        let start = Instant::now();
        let zeroes = File::open("/dev/zero").unwrap();
        let mut drain = Drain::into_log(zeroes, log.path(), b"").unwrap();
        drain.finish().unwrap();
        assert!((LATE..LATE * 10).contains(&start.elapsed()));
    }

    #[test]
    fn a_log_that_cannot_be_written_is_told_of_and_the_stream_is_read_on() {
        let flood = "z".repeat(1 << 20);
        let mut drain = Drain::into_log(text(&flood), Path::new("/dev/full"), b"").unwrap();
        let said = drain.thread.take().unwrap().join().unwrap().unwrap_err();
        assert_eq!(said.kind(), io::ErrorKind::StorageFull);
        assert!(drain.last_line().unwrap().starts_with("zz"));
    }
}
