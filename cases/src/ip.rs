// SPDX-License-Identifier: MIT OR Apache-2.0
//! Links and namespaces, by iproute2.

use std::process::Command;

use anyhow::{Context as _, ensure};

/// Calls `ip` with these arguments, as `link add dummy0 type dummy`.
pub(crate) fn ip(arguments: &str) -> anyhow::Result<()> {
    let output = Command::new("ip")
        .args(arguments.split(' '))
        .output()
        .context("cannot start ip")?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "ip {arguments}: {}", said.trim());
    Ok(())
}
