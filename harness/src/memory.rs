// SPDX-License-Identifier: MIT OR Apache-2.0
//! How much memory there is for VMs: what the machine has left, and what the control groups leave of that.

use std::fs;
use std::path::{Path, PathBuf};

/// What VMs can take now, in MiB. What cannot be read sets no bound.
#[must_use]
pub fn available_mib() -> u64 {
    below(Path::new("/"))
}

/// The same of the machine whose `/proc` and `/sys` are below `root`.
fn below(root: &Path) -> u64 {
    let machine = number_after(&root.join("proc/meminfo"), "MemAvailable:")
        .map_or(u64::MAX, |kib| kib.saturating_mul(1024));
    let groups = memory_groups(root).into_iter().filter_map(|group| {
        let read = |name| number(&fs::read_to_string(group.join(name)).ok()?);
        // A number that stands for "no limit" is larger than any machine.
        let limit = read("memory.max").or_else(|| read("memory.limit_in_bytes"))?;
        let used = read("memory.current").or_else(|| read("memory.usage_in_bytes"))?;
        let statistics = group.join("memory.stat");
        // Pages of files count as used, and are given back where memory is wanted.
        let files = number_after(&statistics, "total_inactive_file")
            .or_else(|| number_after(&statistics, "inactive_file"))
            .unwrap_or(0);
        Some(limit.saturating_sub(used.saturating_sub(files)))
    });
    groups.fold(machine, u64::min) >> 20
}

/// The directories of the control groups of version 1 or 2 whose limits hold for this process: its own and
/// all above. In a container they have paths that are not there, and its own is the topmost.
fn memory_groups(root: &Path) -> Vec<PathBuf> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let groups = text.lines().filter_map(|line| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let mount = match controllers {
            "" => "sys/fs/cgroup",
            _ if controllers.split(',').any(|name| name == "memory") => "sys/fs/cgroup/memory",
            _ => return None,
        };
        Some((mount, path.trim_start_matches('/').to_owned()))
    });
    let all_above = groups.flat_map(|(mount, path)| {
        let above: Vec<PathBuf> = Path::new(&path).ancestors().map(Path::to_owned).collect();
        above
            .into_iter()
            .map(move |path| root.join(mount).join(path))
    });
    all_above.collect()
}

/// The first number of the line of this file that begins with `name`.
fn number_after(file: &Path, name: &str) -> Option<u64> {
    let text = fs::read_to_string(file).ok()?;
    text.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(name)).then(|| words.next()?.parse().ok())?
    })
}

fn number(text: &str) -> Option<u64> {
    text.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    /// A machine with these files.
    fn machine(files: &[(&str, String)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        root
    }

    fn meminfo() -> (&'static str, String) {
        let text = "MemTotal: 8388608 kB\nMemFree: 1 kB\nMemAvailable:    4194304 kB\n";
        ("proc/meminfo", String::from(text))
    }

    #[test]
    fn without_control_groups_it_is_what_the_machine_has() {
        assert_eq!(below(machine(&[meminfo()]).path()), 4096);
        assert!(below(machine(&[]).path()) > 1 << 40, "nothing bounds it");
        assert!(available_mib() > 0);
    }

    #[test]
    fn the_tightest_group_above_a_process_bounds_it() {
        let of = |limit: &str, outer: u64| {
            let group = "sys/fs/cgroup/a.slice/b.scope";
            let root = machine(&[
                meminfo(),
                ("proc/self/cgroup", String::from("0::/a.slice/b.scope\n")),
                (&format!("{group}/memory.max"), format!("{limit}\n")),
                (
                    &format!("{group}/memory.current"),
                    format!("{}\n", 700 * MIB),
                ),
                (
                    &format!("{group}/memory.stat"),
                    format!("anon 7\ninactive_file {}\n", 100 * MIB),
                ),
                (
                    "sys/fs/cgroup/a.slice/memory.max",
                    format!("{}\n", outer * MIB),
                ),
                (
                    "sys/fs/cgroup/a.slice/memory.current",
                    format!("{}\n", 800 * MIB),
                ),
            ]);
            below(root.path())
        };
        assert_eq!(of("max", 99_999), 4096);
        assert_eq!(of(&(1000 * MIB).to_string(), 99_999), 400);
        assert_eq!(of(&(1000 * MIB).to_string(), 900), 100);
        assert_eq!(of(&(500 * MIB).to_string(), 99_999), 0);
    }

    #[test]
    fn the_first_version_counts_too_and_a_container_has_it_at_the_top() {
        let root = machine(&[
            meminfo(),
            (
                "proc/self/cgroup",
                String::from("5:cpu,cpuacct:/x\n4:memory:/docker/1234\n0::/\n"),
            ),
            (
                "sys/fs/cgroup/memory/memory.limit_in_bytes",
                format!("{}\n", 512 * MIB),
            ),
            (
                "sys/fs/cgroup/memory/memory.usage_in_bytes",
                format!("{}\n", 212 * MIB),
            ),
            (
                "sys/fs/cgroup/memory/memory.stat",
                format!("inactive_file 1\ntotal_inactive_file {}\n", 12 * MIB),
            ),
        ]);
        assert_eq!(below(root.path()), 312);
    }
}
