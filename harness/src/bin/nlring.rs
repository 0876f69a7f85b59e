// SPDX-License-Identifier: MIT OR Apache-2.0
//! The `nlring` command.

use clap::Parser;
use nlring_harness::command::Cli;

fn main() {
    let status = Cli::parse().answer().unwrap_or_else(|error| {
        eprintln!("nlring: {error}");
        error.exit_status()
    });
    // Not a return: after a signal, threads may still be waiting for VMs, which end with the process.
    std::process::exit(i32::from(status));
}
