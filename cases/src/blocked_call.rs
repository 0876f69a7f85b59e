// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls in threads of their own, which are to sleep in the kernel.

use std::fs;
use std::io;
use std::sync::mpsc;
use std::thread::{self, Scope, ScopedJoinHandle};
use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::unistd::{Pid, gettid};

/// A thread that makes a system call.
#[derive(Debug)]
pub(crate) struct BlockedCall<'scope, T> {
    thread: ScopedJoinHandle<'scope, T>,
    id: Pid,
}

impl<'scope, T: Send + 'scope> BlockedCall<'scope, T> {
    /// Begins a call.
    pub(crate) fn begin(
        scope: &'scope Scope<'scope, '_>,
        call: impl FnOnce() -> T + Send + 'scope,
    ) -> anyhow::Result<Self> {
        let (tell, told) = mpsc::channel();
        let thread = scope.spawn(move || {
            let _ = tell.send(gettid());
            call()
        });
        Ok(Self {
            thread,
            id: told.recv()?,
        })
    }

    /// Waits until it sleeps in the system call of this number.
    pub(crate) fn asleep_in(self, number: i64, patience: Duration) -> anyhow::Result<Self> {
        let deadline = Instant::now() + patience;
        let asleep = format!("{number} ");
        let path = format!("/proc/self/task/{}/syscall", self.id);
        // The file of a thread that has ended is gone.
        while !fs::read_to_string(&path).is_ok_and(|now| now.starts_with(&asleep)) {
            ensure!(!self.is_over(), "the call does not wait for anything");
            ensure!(
                Instant::now() < deadline,
                "the call neither ends nor waits within {patience:?}"
            );
            thread::yield_now();
        }
        Ok(self)
    }

    /// Sends it a signal that [`make_interruptible`] was called for.
    pub(crate) fn interrupt(&self) -> io::Result<()> {
        let process = std::process::id();
        // SAFETY: tgkill touches no memory.
        match unsafe { libc::syscall(libc::SYS_tgkill, process, self.id.as_raw(), libc::SIGUSR1) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for what comes of it.
    pub(crate) fn end(self) -> T {
        self.thread.join().expect("no panic")
    }
}

/// Makes `SIGUSR1` a signal that does nothing but interrupt.
pub(crate) fn make_interruptible() -> nix::Result<()> {
    use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

    extern "C" fn nothing(_: libc::c_int) {}
    let action = SigAction::new(
        SigHandler::Handler(nothing),
        SaFlags::empty(),
        SigSet::empty(),
    );
    // SAFETY: the handler does nothing, which is safe at any time.
    unsafe { sigaction(Signal::SIGUSR1, &action) }?;
    Ok(())
}
