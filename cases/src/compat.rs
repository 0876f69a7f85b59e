// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `compat`: the kernel's own selftests, unmodified. Each runs one of them beside
//! a busy ringed socket and hands on what it printed and how it ended; whether that is as it should
//! be is seen only beside the same program's words on other kernels, so the harness judges it.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context as _;

use crate::busy::Busy;
use crate::{Case, Group, Kernel, Setting, Unmet};

/// Which are run, which are not, and why.
const LIST: &str = include_str!("../selftests");

/// Where they are found in the guest: the environment's word for the directory that is `net/` and
/// `netfilter/` of the kernel's selftests, with their helpers built.
pub const DIRECTORY: &str = "NLRING_SELFTESTS";

/// How the evidence of such a case is written and read: one line each, and a line of the program
/// behind [`evidence::OUTPUT`].
pub mod evidence {
    /// How the program ended.
    pub const ENDING: &str = "ending: ";
    /// Messages that the busy socket received in frames meanwhile.
    pub const IN_FRAMES: &str = "busy socket, in frames: ";
    /// Messages that it received by copy.
    pub const BY_COPY: &str = "busy socket, by copy: ";
    /// A line that the program printed.
    pub const OUTPUT: &str = "| ";
}

/// One program of the list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selftest {
    /// Its file name, which is also its case's name.
    pub program: &'static str,
    /// Its deadline on an idle machine with KVM.
    pub deadline: Duration,
    /// The C programs that it starts or is, those of all bases, with commas between them.
    pub helpers: &'static str,
    /// Which part of netlink it speaks.
    pub reason: &'static str,
    /// The one argument it is given.
    pub argument: Option<&'static str>,
}

/// Every program of the list that is run.
pub fn all() -> impl Iterator<Item = Selftest> {
    let mut lines = LIST
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with(['#', '-']))
        .peekable();
    std::iter::from_fn(move || {
        let (program, rest) = word(lines.next()?);
        let (seconds, rest) = word(rest);
        let (helpers, reason) = word(rest);
        let seconds = seconds.parse().expect("cases/selftests: seconds");
        let below = lines.next_if(|line| line.starts_with(' '));
        Some(Selftest {
            program,
            deadline: Duration::from_secs(seconds),
            helpers: if helpers == "-" { "" } else { helpers },
            reason,
            argument: below.map(str::trim),
        })
    })
}

/// Where the kernel's source keeps them, below `tools/testing/selftests`.
pub const HOMES: [&str; 3] = ["net", "net/netfilter", "netfilter"];

fn word(text: &str) -> (&str, &str) {
    let (word, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    (word, rest.trim_start())
}

/// The list as cases.
pub(crate) fn cases() -> Vec<Case> {
    all()
        .map(|selftest| Case {
            kernel: Kernel::Any,
            deadline: selftest.deadline,
            proves: "rest-off-unchanged rest-on-unchanged",
            ..Case::new(Group::Compat, selftest.program, run)
        })
        .collect()
}

fn run(setting: &mut Setting) -> anyhow::Result<()> {
    let directory = std::env::var_os(DIRECTORY)
        .ok_or_else(|| Unmet(format!("the selftests: {DIRECTORY} is not set")))?;
    let program = find(Path::new(&directory), setting.case).ok_or_else(|| {
        let requirement = "a kernel source that has this selftest";
        Unmet(requirement.to_owned())
    })?;
    let printed = PathBuf::from(format!("/tmp/nlring-{}", setting.case));
    let output = File::create(&printed).context("cannot write in the guest's /tmp")?;
    let busy = Busy::start(setting.patience);
    let selftest = all().find(|selftest| selftest.program == setting.case);
    let argument = selftest.and_then(|selftest| selftest.argument);
    let status = Command::new(&program)
        .args(argument)
        .current_dir(program.parent().expect("a program in a directory"))
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .status();
    let received = busy.finish();
    let text = fs::read(&printed).context("cannot read what the program printed")?;
    let status = status.with_context(|| format!("cannot start {}", program.display()))?;
    setting.note(format!("{}{status}", evidence::ENDING));
    for line in String::from_utf8_lossy(&text).lines() {
        setting.note(format!("{}{line}", evidence::OUTPUT));
    }
    let received = received?;
    setting.note(format!("{}{}", evidence::IN_FRAMES, received.in_frames));
    setting.note(format!("{}{}", evidence::BY_COPY, received.by_copy));
    Ok(())
}

fn find(directory: &Path, program: &str) -> Option<PathBuf> {
    HOMES
        .iter()
        .map(|home| directory.join(home).join(program))
        .find(|path| path.is_file())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_program_is_named_once_with_a_reason() {
        let mut named = Vec::new();
        for selftest in all() {
            assert!(selftest.reason.split(' ').count() >= 2, "{selftest:?}");
            named.push(selftest.program);
        }
        assert!(named.contains(&"nft_queue.sh") && named.contains(&"rtnetlink.sh"));
        let given = all().filter_map(|selftest| Some((selftest.program, selftest.argument?)));
        let given: Vec<_> = given.collect();
        let [("fib_nexthops.sh", tests)] = given[..] else {
            panic!("{given:?}");
        };
        assert!(
            tests.starts_with("-tbasic ") && !tests.contains("torture"),
            "{tests}"
        );
        let left_out = LIST.lines().filter_map(|line| line.strip_prefix("- "));
        for line in left_out {
            let (reason, programs) = line.rsplit_once(": ").expect("a reason and programs");
            assert!(reason.split(' ').count() >= 4, "{reason}");
            named.extend(programs.split(' '));
        }
        let count = named.len();
        named.sort_unstable();
        named.dedup();
        assert_eq!(named.len(), count, "one is named twice");
    }
}
