// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nlring gdb`: a kernel in a VM, and gdb at a person's terminal.

use std::os::unix::process::ExitStatusExt as _;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use nlring_vm::gdb::Session;
use signal_hook::consts::SIGINT;

use crate::error::Error;
use crate::lab::Lab;
use crate::packages::Need;
use crate::render;
use crate::report::Report;
use crate::tree::Tree;

/// Debugs `kernel`, in which `command` is run as soon as that goes; gdb's exit status.
pub fn run(tree: &Tree, kernel: Option<&str>, command: &[String]) -> Result<u8, Error> {
    let mut renderer = render::beside_output();
    let need = ("debug a kernel", &[Need::Gdb][..]);
    let (lab, kernel) =
        Lab::prepare_for_person(tree, kernel, need, &mut |event| renderer.show(&event))?;
    drop(renderer);

    let report = Report::open(&tree.default_report().join("gdb"))?;
    let [console, output] = ["console.log", "output.log"].map(|name| report.directory().join(name));
    let command = command.join(" ");
    let next = if command.is_empty() {
        String::from("waits")
    } else {
        format!(
            "runs the command, whose output goes to {}",
            output.display()
        )
    };
    let greeting = format!(
        "The kernel is up. After continue the guest boots, and {next}.\\nIts console: {}\\nhelp nl-sockets and help nl-ring tell of rings; quit ends the VM.",
        console.display()
    );
    let session = Session {
        command: (!command.is_empty()).then_some(&command),
        path: &lab.path(&kernel),
        output: &output,
        greeting: &greeting,
    };
    // Ctrl-C is gdb's. A handler, unlike a signal that is ignored, does not go over to it.
    signal_hook::flag::register(SIGINT, Arc::new(AtomicBool::new(false))).map_err(Error::Output)?;
    let status = lab.debug(&kernel, &session, &console)?;
    let code = status
        .code()
        .or_else(|| status.signal().map(|signal| 128 + signal));
    Ok(code.and_then(|code| u8::try_from(code).ok()).unwrap_or(1))
}
