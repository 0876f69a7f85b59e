// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `nlring` command.

use std::io::Write as _;

use clap::Parser;
use clap::error::ErrorKind;
use nlring_harness::command::Cli;

fn main() {
    let status = match Cli::try_parse() {
        Ok(cli) => cli.answer().unwrap_or_else(|error| {
            // Whoever cannot hear it has the exit status.
            let _ = writeln!(std::io::stderr(), "nlring: {error}");
            error.exit_status()
        }),
        Err(refused) => refuse(&refused),
    };
    // Not a return: after a signal, threads may still be waiting for VMs, which end with the process.
    std::process::exit(i32::from(status));
}

/// Help is clap's, whole. Of a usage error only what is wrong is said, and where to look it up.
fn refuse(refused: &clap::Error) -> u8 {
    if !refused.use_stderr()
        || refused.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
    {
        refused.exit();
    }
    let text = refused.to_string();
    let first = text.lines().next().unwrap_or_default();
    let wrong = first.strip_prefix("error: ").unwrap_or(first);
    eprintln!("nlring: {wrong}; --help, also after a subcommand, shows what there is");
    2
}
