// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which packets go to which queue.

use std::io::Write as _;
use std::process::{Command, Stdio};

use anyhow::Context as _;

/// Rules in the case's own namespace, gone with this value.
///
/// Install them before the consumers they feed: consumers then go first, and with them the packets
/// that still wait. A hook that goes while packets wait at it makes 6.1 warn in `nf_reinject`.
#[derive(Debug)]
pub(crate) struct Rules(());

impl Rules {
    /// Installs rules at the hooks where packets enter and leave this host; each is a line as `nft`
    /// reads it, as `udp dport 7000 queue num 0`.
    pub(crate) fn install(input: &[&str], output: &[&str]) -> anyhow::Result<Self> {
        Self::at(&[("input", input), ("output", output)])
    }

    /// Installs rules at hooks by their names.
    pub(crate) fn at(hooks: &[(&str, &[&str])]) -> anyhow::Result<Self> {
        let chains: Vec<String> = hooks
            .iter()
            .map(|(hook, rules)| {
                let rules = rules.join("\n");
                format!("chain {hook}s {{ type filter hook {hook} priority 0\n{rules}\n}}\n")
            })
            .collect();
        nft(&format!("table ip nlring {{\n{}}}\n", chains.concat()))?;
        Ok(Self(()))
    }
}

impl Drop for Rules {
    fn drop(&mut self) {
        // The namespace ends with the machine; a failure here is no failure of the case.
        let _ = nft("delete table ip nlring\n");
    }
}

fn nft(script: &str) -> anyhow::Result<()> {
    let mut child = Command::new("nft")
        .args(["-f", "-"])
        .stdin(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("cannot start nft")?;
    let mut stdin = child.stdin.take().context("nft has no standard input")?;
    stdin.write_all(script.as_bytes())?;
    drop(stdin);
    let output = child.wait_with_output()?;
    anyhow::ensure!(
        output.status.success(),
        "nft refuses the rules: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(())
}
