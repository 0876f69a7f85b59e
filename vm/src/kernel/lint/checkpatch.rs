// SPDX-License-Identifier: MIT OR Apache-2.0
//! scripts/checkpatch.pl of the base, strict.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::VmError;

/// What it may say, and why: this one names no line, and asks for a thought rather than a change.
/// Whatever the series adds lies below directories that MAINTAINERS names already.
const TOLERATED: &str = "FILE_PATH_CHANGES";

/// What it says about a patch, in a tree as it is before that patch.
pub(super) fn complaints(tree: &Path, text: &[u8], scratch: &Path) -> Result<Vec<String>, VmError> {
    let patch = scratch.join("patch");
    fs::write(&patch, text).map_err(VmError::io("cannot write", &patch))?;
    let output = Command::new("perl")
        .arg("scripts/checkpatch.pl")
        .args(["--strict", "--terse", "--show-types", "--no-summary"])
        .args(["--ignore", TOLERATED])
        .arg(&patch)
        .current_dir(tree)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| VmError::Start {
            program: "perl".into(),
            source,
        })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let prefix = format!("{}:", patch.display());
    let lines = said.lines().filter_map(|line| line.strip_prefix(&prefix));
    let complaints: Vec<_> = lines.map(|line| format!("line {line}")).collect();
    if output.status.success() == complaints.is_empty() {
        return Ok(complaints);
    }
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    let source = std::io::Error::other(said.lines().next().unwrap_or("it says nothing").to_owned());
    Err(VmError::Start {
        program: "scripts/checkpatch.pl".into(),
        source,
    })
}
