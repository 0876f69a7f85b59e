// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cargo, asked for what goes into the guest, in a target directory of its own because its flags differ.

use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use crate::error::Error;
use crate::tree::Tree;

const TARGET: &str = "x86_64-unknown-linux-gnu";
const PROFILE: &str = "guest";

/// How a program is put together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Linking {
    /// With all that it needs inside.
    Static,
    /// With the libraries of the machine.
    Shared,
}

impl Linking {
    /// Where cargo leaves what it built so.
    pub(crate) fn directory(self, tree: &Tree) -> PathBuf {
        match self {
            Self::Static => tree.guest_target().join(TARGET),
            Self::Shared => tree.guest_target(),
        }
        .join(PROFILE)
    }
}

/// Builds what `arguments` select.
pub(crate) fn build(tree: &Tree, arguments: &[&str], linking: Linking) -> Result<(), Error> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let target_dir = tree.guest_target().display().to_string();
    let mut words = vec!["build", "--quiet", "--profile", PROFILE];
    words.extend(["--target-dir", target_dir.as_str()]);
    let flags = match linking {
        Linking::Static => {
            words.extend(["--target", TARGET]);
            "-C target-feature=+crt-static"
        }
        Linking::Shared => "",
    };
    words.extend(arguments);
    let command = format!("RUSTFLAGS='{flags}' cargo {}", words.join(" "));
    let output = Command::new(&cargo)
        .args(&words)
        .current_dir(tree.root())
        .env("RUSTFLAGS", flags)
        .env("CARGO_TERM_COLOR", "never")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env_remove("CARGO_BUILD_TARGET")
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) => check(&output, command),
        Err(source) => Err(Error::GuestProgram {
            why: format!(
                "cannot start {}: {source}; install Rust (https://rustup.rs)",
                cargo.display()
            ),
            command,
        }),
    }
}

/// The first error that a compiler's output names, if it failed.
pub(crate) fn check(output: &Output, command: String) -> Result<(), Error> {
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let line = said
        .lines()
        .find(|line| line.starts_with("error") || line.contains(": error: "))
        .or_else(|| said.lines().last());
    let why = line.map_or_else(|| format!("it ended with {}", output.status), str::to_owned);
    Err(Error::GuestProgram { why, command })
}
