// SPDX-License-Identifier: MIT OR Apache-2.0
//! A part of a case in a process of its own: another user, another namespace, another cgroup.

use std::io::{PipeReader, PipeWriter, Read as _, Write as _, pipe};

use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// A child at work, and where it says what went wrong.
#[derive(Debug)]
pub(crate) struct Child {
    pid: Pid,
    said: PipeReader,
}

impl Child {
    /// Starts `work`. The case must have no thread running: a child of `fork` has only the one.
    pub(crate) fn start(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Self> {
        let (said, say) = pipe()?;
        // SAFETY: there is but one thread, so the child may do whatever we may.
        match unsafe { fork() }? {
            ForkResult::Parent { child: pid } => Ok(Self { pid, said }),
            ForkResult::Child => {
                drop(said);
                end(work(), say)
            }
        }
    }

    /// Waits for its end, which has to be a good one. What it says is an error.
    pub(crate) fn join(self) -> anyhow::Result<()> {
        let pid = self.pid;
        let status = self.wait()?;
        anyhow::ensure!(
            status == WaitStatus::Exited(pid, 0),
            "the child ended so: {status:?}"
        );
        Ok(())
    }

    /// Waits for its end. What it says is an error.
    pub(crate) fn wait(mut self) -> anyhow::Result<WaitStatus> {
        let mut error = String::new();
        self.said.read_to_string(&mut error)?;
        let status = waitpid(self.pid, None)?;
        anyhow::ensure!(error.is_empty(), "{error}");
        Ok(status)
    }

    /// Kills it, and waits until it is gone.
    pub(crate) fn kill(&self) -> anyhow::Result<()> {
        kill(self.pid, Signal::SIGKILL)?;
        let status = waitpid(self.pid, None)?;
        anyhow::ensure!(
            status == WaitStatus::Signaled(self.pid, Signal::SIGKILL, false),
            "the child ended by itself: {status:?}"
        );
        Ok(())
    }
}

fn end(result: anyhow::Result<()>, mut say: PipeWriter) -> ! {
    let status = match result {
        Ok(()) => 0,
        Err(error) => {
            let _ = write!(say, "{error:#}");
            1
        }
    };
    // Without the parent's cleaning up: what it holds is still its own.
    // SAFETY: _exit never returns and touches no memory.
    unsafe { libc::_exit(status) }
}

/// Does something in a child and waits for it.
pub(crate) fn run(work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
    Child::start(work)?.join()
}

/// A child that does nothing but hold what it inherited, until it is killed.
pub(crate) fn idle() -> anyhow::Result<Child> {
    Child::start(|| {
        loop {
            nix::unistd::pause();
        }
    })
}
