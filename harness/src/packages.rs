// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Debian packages that are needed, from the same list that `ci/setup` reads.

use std::env;
use std::path::{Path, PathBuf};

const LIST: &str = include_str!("../../ci/packages");

/// What a package is needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// To compile the Rust code.
    Build,
    /// To build a kernel.
    Kernel,
    /// To run cases.
    Run,
    /// To lint the series.
    Lint,
    /// To test the ring library as `ci/test` does.
    Test,
    /// To run the kernel's own selftests.
    Compat,
    /// To debug the kernel.
    Gdb,
}

/// What shows that a package is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// A command in `PATH`, `/usr/sbin` or `/sbin`.
    Command(&'static str),
    /// A file.
    File(&'static str),
}

impl Proof {
    /// Where it was found.
    #[must_use]
    pub fn find(self) -> Option<PathBuf> {
        match self {
            Self::Command(name) => find_command(name),
            Self::File(path) => Some(PathBuf::from(path)).filter(|path| path.exists()),
        }
    }
}

/// A package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Package {
    /// Debian's name for it.
    pub name: &'static str,
    /// What shows that it is there.
    pub proof: Proof,
    /// What it is needed for.
    pub need: Need,
    /// Why it is needed.
    pub reason: &'static str,
}

/// Every package of the list.
#[must_use]
pub fn all() -> Vec<Package> {
    LIST.lines()
        .filter(|line| !line.starts_with('#') && !line.is_empty())
        .map(parse)
        .collect()
}

fn parse(line: &'static str) -> Package {
    let mut rest = line;
    let mut word = || {
        let (word, behind) = rest
            .split_once(char::is_whitespace)
            .expect("ci/packages: four columns");
        rest = behind.trim_start();
        word
    };
    let (name, proof, need) = (word(), word(), word());
    Package {
        name,
        proof: match proof.split_once(':') {
            Some(("command", command)) => Proof::Command(command),
            Some(("file", path)) => Proof::File(path),
            _ => panic!("ci/packages: {proof} is no proof"),
        },
        need: match need {
            "build" => Need::Build,
            "kernel" => Need::Kernel,
            "run" => Need::Run,
            "compat" => Need::Compat,
            "gdb" => Need::Gdb,
            "lint" => Need::Lint,
            "test" => Need::Test,
            _ => panic!("ci/packages: {need} is no need"),
        },
        reason: rest,
    }
}

/// The packages of these needs that are not there.
#[must_use]
pub fn missing(needs: &[Need]) -> Vec<Package> {
    all()
        .into_iter()
        .filter(|package| needs.contains(&package.need) && package.proof.find().is_none())
        .collect()
}

/// The one command that installs `packages`.
#[must_use]
pub fn install_command(packages: &[Package]) -> String {
    let names: Vec<&str> = packages.iter().map(|package| package.name).collect();
    let sudo = if nix::unistd::Uid::effective().is_root() {
        ""
    } else {
        "sudo "
    };
    format!(
        "{sudo}apt-get install -y --no-install-recommends {}",
        names.join(" ")
    )
}

/// Looks a command up as a shell would, and where Debian keeps what an ordinary user's `PATH` lacks.
#[must_use]
pub fn find_command(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path)
        .chain(["/usr/sbin", "/sbin"].map(PathBuf::from))
        .map(|directory| directory.join(name))
        .find(|candidate| is_executable(candidate))
}

fn is_executable(path: &Path) -> bool {
    path.is_file() && nix::unistd::access(path, nix::unistd::AccessFlags::X_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_well_formed_and_says_why() {
        let packages = all();
        assert!(packages.len() >= 10);
        for (index, package) in packages.iter().enumerate() {
            assert!(package.reason.split(' ').count() >= 2, "{package:?}");
            assert!(
                packages[..index]
                    .iter()
                    .all(|other| other.name != package.name),
                "twice: {package:?}"
            );
        }
    }

    #[test]
    fn a_command_is_found_where_a_shell_finds_it() {
        assert!(Proof::Command("sh").find().is_some());
        assert!(Proof::Command("no-such-command").find().is_none());
        assert!(Proof::File("/etc/hostname-that-is-not").find().is_none());
        // A directory of the right name is no command.
        assert!(!is_executable(Path::new("/usr")));
    }

    #[test]
    fn one_command_installs_everything() {
        let command = install_command(&all()[..2]);
        assert!(
            command.ends_with(
                "apt-get install -y --no-install-recommends build-essential qemu-system-x86"
            ),
            "{command}"
        );
    }
}
