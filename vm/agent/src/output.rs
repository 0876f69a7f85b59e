// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a job prints: passed on to the console, up to a limit.
//!
//! The console is a serial line, and it carries the kernel's log, which is a witness. A job that floods it
//! delays that witness past every deadline, so it is ended.

use std::io::{self, PipeReader, Read, Write};
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::Duration;

/// What a job may print, in bytes: a panic with its backtrace, or a page of notes, many times over.
pub(crate) const LIMIT: usize = 64 << 10;

/// How long a job's output may go on after the job: what it left running may hold its end open.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// The passing on of a job's output.
#[derive(Debug)]
pub(crate) struct Output {
    flooded: Receiver<bool>,
}

impl Output {
    /// Begins to pass on to `to` what is written into the other end of `from`. `on_flood` is called if
    /// that is more than [`LIMIT`].
    pub(crate) fn pass_on(
        from: PipeReader,
        to: impl Write + Send + 'static,
        on_flood: impl FnOnce() + Send + 'static,
    ) -> Self {
        let (tell, flooded) = channel();
        thread::spawn(move || {
            let is_flood = copy(from, to);
            if is_flood {
                on_flood();
            }
            let _ = tell.send(is_flood);
        });
        Self { flooded }
    }

    /// Whether it was too much, once all that was printed has been passed on.
    pub(crate) fn end(self) -> bool {
        self.flooded.recv_timeout(LAST_WORDS).unwrap_or(false)
    }
}

/// Until the end, or the limit; which of the two is what is returned.
fn copy(mut from: PipeReader, mut to: impl Write) -> bool {
    let (mut chunk, mut left) = ([0; 4096], LIMIT);
    loop {
        let count = match from.read(&mut chunk) {
            Ok(0) => return false,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => return false,
        };
        // A console that takes nothing is noticed by the host, whose log is not whole.
        let _ = to.write_all(&chunk[..count.min(left)]);
        if count > left {
            return true;
        }
        left -= count;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Console(Arc<Mutex<Vec<u8>>>);

    impl Write for Console {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_is_printed_is_passed_on_up_to_the_limit() {
        for (length, is_flood) in [(0, false), (LIMIT, false), (LIMIT + 1, true)] {
            let (console, (told, hear)) = (Console::default(), channel());
            let (from, mut job) = io::pipe().unwrap();
            let on_flood = move || told.send(()).unwrap();
            let output = Output::pass_on(from, console.clone(), on_flood);
            job.write_all(&vec![b'x'; length]).unwrap();
            drop(job);
            assert_eq!(output.end(), is_flood, "{length}");
            assert_eq!(hear.try_recv().is_ok(), is_flood);
            assert_eq!(console.0.lock().unwrap().len(), length.min(LIMIT));
        }
    }

    #[test]
    fn an_end_that_is_held_open_is_not_waited_for() {
        let (from, _job) = io::pipe().unwrap();
        assert!(!Output::pass_on(from, Console::default(), || ()).end());
    }
}
