// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's own selftests, as its base has them: the scripts unmodified, the C programs built
//! beside them by the base's own Makefiles against its own headers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cache::remove_tree;
use crate::digest::Key;
use crate::kernel;
use crate::matrix::Entry;
use crate::{Cache, VmError};

const BELOW: &str = "tools/testing/selftests";

/// The directory that holds the selftests of the base of `entry`, in the cache or put there now; in
/// those of its directories `homes` that the base has, the C programs `programs` are built.
///
/// # Errors
/// The base cannot be had, or a program cannot be built.
pub fn install(
    cache: &Cache,
    entry: &Entry,
    homes: &[&str],
    programs: &[&str],
    on: &mut dyn FnMut(kernel::Event),
) -> Result<PathBuf, VmError> {
    let base = kernel::pristine(cache, entry, on)?;
    let key = homes
        .iter()
        .chain(programs)
        .fold(Key::default().part(&base.id), Key::part);
    let place = cache.place("selftests", &key.finish()[..16])?;
    let _lock = cache.lock(&format!("selftests-{}", base.id), || {
        on(kernel::Event::Waiting);
    })?;
    if place.is_dir() {
        return Ok(place);
    }
    let partial = place.with_extension("partial");
    remove_tree(&partial)?;
    let run = |command: &mut Command| {
        run(command).map_err(|reason| VmError::Base {
            base: entry.base.name.clone(),
            reason: format!("its selftests cannot be built: {reason}"),
        })
    };
    // Links to the base's own files; what is built is new beside them.
    run(Command::new("cp")
        .arg("-al")
        .arg(base.tree.join(BELOW))
        .arg(&partial))?;
    let headers = partial.join("headers");
    fs::create_dir(&headers).map_err(VmError::io("cannot make", &headers))?;
    run(make(&base.tree)
        .arg(format!("O={}", headers.display()))
        .arg("headers"))?;
    for home in homes {
        let built = partial.join(home);
        let targets: Vec<PathBuf> = programs
            .iter()
            .filter(|program| built.join(format!("{program}.c")).is_file())
            .map(|program| built.join(program))
            .collect();
        if !targets.is_empty() {
            run(make(&base.tree.join(BELOW).join(home))
                .arg(format!("OUTPUT={}", built.display()))
                .arg(format!(
                    "KHDR_INCLUDES=-isystem {}/usr/include",
                    headers.display()
                ))
                .args(targets))?;
        }
    }
    fs::rename(&partial, &place).map_err(VmError::io("cannot name", &place))?;
    Ok(place)
}

fn make(directory: &Path) -> Command {
    let mut command = Command::new("make");
    command.args(["-s", "-C"]).arg(directory).arg("ARCH=x86");
    for name in ["MAKEFLAGS", "MAKELEVEL", "KBUILD_OUTPUT"] {
        command.env_remove(name);
    }
    command
}

fn run(command: &mut Command) -> Result<(), String> {
    let program = command.get_program().display().to_string();
    let output = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|error| format!("cannot start {program}: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let first = said
        .lines()
        .find(|line| line.contains("error"))
        .or_else(|| said.lines().next());
    Err(format!("{program}: {}", first.unwrap_or("it says nothing")))
}
