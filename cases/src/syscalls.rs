// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which system calls a piece of work makes, counted as `strace -c` does.

use std::collections::BTreeMap;
use std::process::exit;

use anyhow::{Context as _, bail};
use nix::sys::ptrace;
use nix::sys::signal::{Signal, raise};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork};

/// Stands before and behind the work; nothing else asks for it.
const MARK: i64 = libc::SYS_getppid;

/// System calls by number.
pub(crate) type Calls = BTreeMap<i64, u32>;

/// What `work` calls, in a process of its own, on what `prepare` made there uncounted. The case must
/// have no other thread.
pub(crate) fn of<T>(
    prepare: impl FnOnce() -> anyhow::Result<T>,
    work: impl FnOnce(&mut T) -> anyhow::Result<()>,
) -> anyhow::Result<Calls> {
    // SAFETY: there is but one thread, so the child may do whatever we may.
    match unsafe { fork() }? {
        ForkResult::Child => {
            let done = prepare().and_then(|mut prepared| {
                ptrace::traceme()?;
                raise(Signal::SIGSTOP)?;
                mark();
                let done = work(&mut prepared);
                mark();
                done
            });
            if let Err(error) = &done {
                eprintln!("the traced work failed: {error:#}");
            }
            exit(i32::from(done.is_err()))
        }
        ForkResult::Parent { child } => count(child),
    }
}

fn mark() {
    // SAFETY: it takes nothing and touches no memory.
    unsafe { libc::syscall(MARK) };
}

fn count(child: Pid) -> anyhow::Result<Calls> {
    let stopped = waitpid(child, None)?;
    if stopped != WaitStatus::Stopped(child, Signal::SIGSTOP) {
        bail!("the traced work ended before it began: {stopped:?}");
    }
    ptrace::setoptions(
        child,
        ptrace::Options::PTRACE_O_TRACESYSGOOD | ptrace::Options::PTRACE_O_EXITKILL,
    )?;
    let mut calls = Calls::new();
    let (mut marks, mut entering) = (0, true);
    loop {
        ptrace::syscall(child, None)?;
        match waitpid(child, None)? {
            WaitStatus::PtraceSyscall(_) => {
                if entering {
                    let number = ptrace::getregs(child)?.orig_rax.cast_signed();
                    if number == MARK {
                        marks += 1;
                    } else if marks == 1 {
                        *calls.entry(number).or_default() += 1;
                    }
                }
                entering = !entering;
            }
            WaitStatus::Exited(_, 0) => break,
            other => bail!("the traced work ended so: {other:?}"),
        }
    }
    (marks == 2)
        .then_some(calls)
        .context("the traced work did not reach its end")
}
