// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a kernel build needs on this machine, and where Debian has it.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::VmError;

/// Programs, each with its package.
const PROGRAMS: &[(&str, &str)] = &[
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("patch", "patch"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
    ("perl", "perl"),
];

/// Headers of programs that the build makes for itself (objtool), each with its package.
const HEADERS: &[(&str, &str)] = &[
    ("/usr/include/gelf.h", "libelf-dev"),
    ("/usr/include/stdio.h", "libc6-dev"),
];

/// Names the first thing that is not installed.
pub(super) fn check() -> Result<(), VmError> {
    let missing = PROGRAMS
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .chain(
            HEADERS
                .iter()
                .filter(|(header, _)| !Path::new(header).exists()),
        );
    match missing
        .map(|&(tool, package)| (tool.to_owned(), package.to_owned()))
        .next()
    {
        Some((tool, package)) => Err(VmError::Missing { tool, package }),
        None => Ok(()),
    }
}

/// The file that `program` stands for: on the path, or where administrators' programs are.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .map(|directory| directory.join(program))
        .find(|file| file.is_file())
}

/// Compiler and linker, each as it names itself in its first line.
pub(super) fn compiler() -> Result<String, VmError> {
    let lines = [("gcc", "gcc"), ("ld", "binutils")].map(|(program, package)| {
        let output = Command::new(program)
            .arg("--version")
            .env("LC_ALL", "C")
            .output()
            .map_err(|_| VmError::Missing {
                tool: program.into(),
                package: package.into(),
            })?;
        let text = String::from_utf8_lossy(&output.stdout);
        Ok::<_, VmError>(text.lines().next().unwrap_or_default().to_owned())
    });
    let [gcc, ld] = lines;
    Ok(format!("{}, {}", gcc?, ld?))
}
