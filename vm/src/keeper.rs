// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starts programs that end with this process, however it ends.
//!
//! The kernel sends a child its parent-death signal when the *thread* that forked it ends, so all
//! forks are done by one thread that lives as long as the process.

use std::io;
use std::os::fd::RawFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::sync::OnceLock;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use nix::sys::prctl;
use nix::sys::signal::Signal;
use nix::unistd::{Pid, getpid, getppid};

type Order = (Command, Sender<io::Result<Child>>);

/// Starts `command`, with the descriptors `inherited` open in it under the same numbers; the caller
/// keeps them open until this returns. It gets `signal` when this process ends, also by `SIGKILL`.
pub(crate) fn spawn(
    mut command: Command,
    signal: Signal,
    inherited: Vec<RawFd>,
) -> io::Result<Child> {
    static KEEPER: OnceLock<Sender<Order>> = OnceLock::new();
    let parent = getpid();
    let prepare = move || prepare(parent, signal, &inherited);
    // SAFETY: between fork and exec `prepare` makes system calls only; it neither allocates nor locks.
    unsafe { command.pre_exec(prepare) };
    let keeper = KEEPER.get_or_init(|| {
        let (orders, inbox) = channel::<Order>();
        thread::spawn(move || {
            for (mut command, answer) in inbox {
                // Whoever asked waits for the answer, so it is taken.
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, started) = channel();
    keeper
        .send((command, answer))
        .expect("the keeper lives as long as the process");
    started.recv().expect("the keeper answers each order")
}

fn prepare(parent: Pid, signal: Signal, inherited: &[RawFd]) -> io::Result<()> {
    prctl::set_pdeathsig(signal)?;
    // It may have died before the line above; then nobody would ever send the signal.
    if getppid() != parent {
        return Err(io::ErrorKind::BrokenPipe.into());
    }
    for &descriptor in inherited {
        // SAFETY: F_SETFD takes a plain number; a descriptor that is not open gives EBADF.
        if unsafe { libc::fcntl(descriptor, libc::F_SETFD, 0) } == -1 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
