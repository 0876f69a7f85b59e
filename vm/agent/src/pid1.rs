// SPDX-License-Identifier: MIT OR Apache-2.0
//! PID 1: mounts, starts the agent, reaps, and powers off when the agent has ended.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::{Command, ExitCode};

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::{Pid, sync};

/// Type and place of each file system.
const MOUNTS: &[(&str, &str)] = &[
    ("proc", "/proc"),
    ("sysfs", "/sys"),
    ("devtmpfs", "/dev"),
    ("tmpfs", "/tmp"),
    ("tmpfs", "/run"),
    ("cgroup2", "/sys/fs/cgroup"),
];

/// What programs expect in /dev beside devices.
const LINKS: &[(&str, &str)] = &[
    ("/proc/self/fd", "/dev/fd"),
    ("/proc/self/fd/0", "/dev/stdin"),
    ("/proc/self/fd/1", "/dev/stdout"),
    ("/proc/self/fd/2", "/dev/stderr"),
];

pub(crate) fn main() -> ExitCode {
    // Whatever fails here is told on the console; the agent may still work without it, and if it
    // does not, its silence is noticed.
    for &(kind, place) in MOUNTS {
        let _ = fs::create_dir_all(place);
        if let Err(error) = mount(
            Some(kind),
            place,
            Some(kind),
            MsFlags::empty(),
            None::<&str>,
        ) {
            eprintln!("init: cannot mount {kind} on {place}: {error}");
        }
    }
    for &(target, link) in LINKS {
        if let Err(error) = symlink(target, link) {
            eprintln!("init: cannot make {link}: {error}");
        }
    }
    match Command::new("/init")
        .arg(crate::AGENT)
        .env("PATH", "/sbin:/bin:/usr/sbin:/usr/bin")
        .spawn()
    {
        Ok(agent) => reap_until(Pid::from_raw(agent.id().cast_signed())),
        Err(error) => eprintln!("init: cannot start the agent: {error}"),
    }
    sync();
    let Err(error) = reboot(RebootMode::RB_POWER_OFF);
    eprintln!("init: cannot power off: {error}");
    ExitCode::FAILURE
}

/// Collects every process that ends until the agent does.
fn reap_until(agent: Pid) {
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, status)) if pid == agent => {
                if status != 0 {
                    eprintln!("init: the agent ended with status {status}");
                }
                return;
            }
            Ok(WaitStatus::Signaled(pid, signal, _)) if pid == agent => {
                eprintln!("init: the agent was killed by {signal}");
                return;
            }
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                eprintln!("init: cannot wait: {error}");
                return;
            }
        }
    }
}
