// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory cgroups: what a part of a case is charged for, and what it may have.

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Context as _;

use crate::child;

const ROOT: &str = "/sys/fs/cgroup";

/// A cgroup of our own, gone with this value.
#[derive(Debug)]
pub(crate) struct Cgroup(PathBuf);

impl Cgroup {
    /// Makes one, with at most so many bytes.
    pub(crate) fn make(name: &str, limit: Option<u64>) -> anyhow::Result<Self> {
        let control = format!("{ROOT}/cgroup.subtree_control");
        fs::write(&control, "+memory").with_context(|| format!("cannot write {control}"))?;
        let path = PathBuf::from(ROOT).join(name);
        fs::create_dir(&path).with_context(|| format!("cannot make {}", path.display()))?;
        if let Some(limit) = limit {
            fs::write(path.join("memory.max"), limit.to_string())?;
        }
        Ok(Self(path))
    }

    /// Does something in a child that is in this cgroup.
    pub(crate) fn run(&self, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<()> {
        child::run(|| {
            self.enter()?;
            work()
        })
    }

    /// Moves the calling process here.
    pub(crate) fn enter(&self) -> anyhow::Result<()> {
        let path = self.0.join("cgroup.procs");
        fs::write(&path, "0").with_context(|| format!("cannot write {}", path.display()))
    }

    /// Bytes of the kernel's memory that are charged to it now. (`memory.current` also has what
    /// each CPU keeps in store for later charges, as much as a ring.)
    pub(crate) fn charged(&self) -> anyhow::Result<u64> {
        self.number("memory.stat", "kernel")
    }

    /// How often something of this name has happened in it, as `oom_kill`.
    pub(crate) fn events(&self, name: &str) -> anyhow::Result<u64> {
        self.number("memory.events", name)
    }

    fn number(&self, file: &str, name: &str) -> anyhow::Result<u64> {
        let path = self.0.join(file);
        let text = fs::read_to_string(&path);
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let number = line.with_context(|| format!("no {name} in {}", path.display()))?;
        Ok(number.parse()?)
    }

    /// Waits until at most this much is charged to it: some of what was let go is freed
    /// after a grace period.
    pub(crate) fn await_at_most(&self, bytes: u64, patience: Duration) -> anyhow::Result<u64> {
        let deadline = Instant::now() + patience;
        loop {
            let charged = self.charged()?;
            if charged <= bytes {
                return Ok(charged);
            }
            anyhow::ensure!(
                Instant::now() < deadline,
                "{charged} bytes are still charged where {bytes} may be"
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // It cannot go while somebody is in it; whoever makes it again is told.
        let _ = fs::remove_dir(&self.0);
    }
}
