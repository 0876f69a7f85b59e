// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in the guest that a job could leave behind: network interfaces, network namespaces with a
//! name, processes.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use nix::sched::{CloneFlags, setns};

const NAMESPACES: &str = "/run/netns";

/// How a namespace is told of, and what is in one.
const NAMESPACE: &str = "namespace ";
const IN: &str = " in namespace ";

/// What a job has let go of may take this long to go: the kernel takes namespaces apart in its own time,
/// and a process that was killed is collected by PID 1.
const GOING: Duration = Duration::from_millis(500);
/// Between two looks while it does.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// Everything of that kind, in the words in which a person is told of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Inventory(BTreeSet<String>);

impl Inventory {
    /// As it is now.
    pub(crate) fn take() -> Self {
        let mut all: BTreeSet<_> = processes(Path::new("/proc")).collect();
        all.extend(
            interfaces()
                .into_iter()
                .map(|name| format!("interface {name}")),
        );
        for entry in fs::read_dir(NAMESPACES).into_iter().flatten().flatten() {
            let namespace = entry.file_name().to_string_lossy().into_owned();
            let inside = within(&entry.path()).into_iter();
            all.extend(inside.map(|name| format!("interface {name}{IN}{namespace}")));
            all.insert(format!("{NAMESPACE}{namespace}"));
        }
        Self(all)
    }

    /// What is there now and was not then, and stays, `patience` times as long as on a fast machine.
    pub(crate) fn left_since(&self, patience: u32) -> Vec<String> {
        let until = Instant::now() + GOING * patience;
        loop {
            let left = self.new_in(&Self::take());
            if left.is_empty() || Instant::now() >= until {
                return left;
            }
            thread::sleep(LOOK_AGAIN);
        }
    }

    fn new_in(&self, now: &Self) -> Vec<String> {
        // Of a namespace that is new, its interfaces go without saying.
        let is_news = |item: &&String| {
            let namespace = item
                .split_once(IN)
                .map(|(_, name)| format!("{NAMESPACE}{name}"));
            namespace.is_none_or(|namespace| self.0.contains(&namespace))
        };
        now.0.difference(&self.0).filter(is_news).cloned().collect()
    }
}

/// Interfaces of this thread's network namespace.
fn interfaces() -> Vec<String> {
    let table = fs::read_to_string("/proc/thread-self/net/dev").unwrap_or_default();
    let names = table.lines().filter_map(|line| line.split_once(':'));
    names.map(|(name, _)| name.trim().to_owned()).collect()
}

/// Interfaces of the network namespace that is kept in `file`.
fn within(file: &Path) -> Vec<String> {
    let look = || {
        let namespace = File::open(file).ok()?;
        setns(&namespace, CloneFlags::CLONE_NEWNET).ok()?;
        Some(interfaces())
    };
    // A thread of its own, which takes its namespace with it when it ends.
    thread::scope(|scope| scope.spawn(look).join())
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// Programs at work: no threads of the kernel, which come and go, and nothing that has ended.
fn processes(proc: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(proc).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let status = fs::read_to_string(entry.path().join("status")).ok()?;
        let field = |key: &str| {
            status
                .lines()
                .find_map(|line| line.strip_prefix(key))
                .map(str::trim)
        };
        let has_ended = matches!(field("State:")?.chars().next(), Some('Z' | 'X'));
        // Only a program has memory of its own.
        (!has_ended && field("VmSize:").is_some())
            .then(|| format!("process {pid} ({})", field("Name:").unwrap_or_default()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_and_stayed_is_told_and_nothing_else() {
        let before = Inventory::take();
        let mut sleeper = std::process::Command::new("sleep")
            .arg("987")
            .spawn()
            .unwrap();
        let mine = format!("process {} (sleep)", sleeper.id());
        assert!(before.new_in(&Inventory::take()).contains(&mine));
        sleeper.kill().unwrap();
        // Dead, though not yet collected.
        while before.new_in(&Inventory::take()).contains(&mine) {
            thread::sleep(LOOK_AGAIN);
        }
        sleeper.wait().unwrap();
    }

    #[test]
    fn a_namespace_is_told_of_without_what_is_in_it() {
        let inventory =
            |items: &[&str]| Inventory(items.iter().map(|&item| item.to_owned()).collect());
        let before = inventory(&[
            "interface lo",
            "namespace peer",
            "interface lo in namespace peer",
        ]);
        let after = inventory(&[
            "interface lo",
            "interface dummy0",
            "namespace peer",
            "interface lo in namespace peer",
            "interface veth0 in namespace peer",
            "namespace other",
            "interface lo in namespace other",
        ]);
        assert_eq!(
            before.new_in(&after),
            [
                "interface dummy0",
                "interface veth0 in namespace peer",
                "namespace other"
            ]
        );
    }

    #[test]
    fn the_kernels_own_threads_are_no_processes() {
        let directory = tempfile::tempdir().unwrap();
        for (pid, status) in [
            ("1", "Name:\tinit\nState:\tS (sleeping)\nVmSize:\t 4 kB\n"),
            ("2", "Name:\tkthreadd\nState:\tS (sleeping)\n"),
            ("9", "Name:\tgone\nState:\tZ (zombie)\nVmSize:\t 4 kB\n"),
            ("self", "Name:\tx\nState:\tR\nVmSize:\t 4 kB\n"),
        ] {
            fs::create_dir(directory.path().join(pid)).unwrap();
            fs::write(directory.path().join(pid).join("status"), status).unwrap();
        }
        let found: Vec<_> = processes(directory.path()).collect();
        assert_eq!(found, ["process 1 (init)"]);
    }

    #[test]
    fn loopback_is_an_interface_everywhere() {
        assert!(interfaces().contains(&String::from("lo")));
    }
}
