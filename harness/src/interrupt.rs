// SPDX-License-Identifier: MIT OR Apache-2.0
//! Ctrl-C and its relatives end a run in order: what is finished is reported, then the process ends, and
//! every QEMU and compiler with it.

use std::io;
use std::thread;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Calls `tell` with the number of the first of SIGINT, SIGTERM and SIGHUP. A second one ends the process
/// at once, for the person who does not want to wait for the report.
pub fn watch(tell: impl FnOnce(i32) + Send + 'static) -> io::Result<()> {
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    thread::Builder::new()
        .name(String::from("signals"))
        .spawn(move || {
            let mut coming = signals.forever();
            if let Some(signal) = coming.next() {
                tell(signal);
            }
            if let Some(signal) = coming.next() {
                std::process::exit(128 + signal);
            }
        })?;
    Ok(())
}

/// The name of a signal that [`watch`] tells.
#[must_use]
pub fn name(signal: i32) -> &'static str {
    match signal {
        SIGINT => "SIGINT",
        SIGTERM => "SIGTERM",
        SIGHUP => "SIGHUP",
        _ => "a signal",
    }
}
