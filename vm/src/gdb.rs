// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM that is stopped and stepped by gdb, on this machine's own file system. Between the two is a pair of
//! sockets without a name.

use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::{Command, ExitStatus};

use nix::sys::signal::Signal;

use crate::console::Drain;
use crate::machine::socket_pair;
use crate::shell::SCRIPT;
use crate::virtme::{Machine, Tmp, ports, quoted};
use crate::{VmError, keeper};

/// gdb's commands for rings, in the source tree.
const COMMANDS: &str = "vm/scripts/ring.py";

/// By then all that the kernel is made of is there, and no program has run. A breakpoint of the
/// processor, since what it is set on is not mapped yet.
const KERNEL_IS_UP: &str = "thbreak free_initmem";

/// What is looked at.
#[derive(Debug, Clone, Copy)]
pub struct Session<'a> {
    /// A command for the guest's shell, to be run as soon as there is one, after which the guest waits.
    pub command: Option<&'a str>,
    /// Directories behind those of the guest's `PATH`, separated by colons.
    pub path: &'a str,
    /// Where what the command says goes.
    pub output: &'a Path,
    /// What to tell the person before gdb's prompt comes.
    pub greeting: &'a str,
}

/// Has a person, or whoever is on our terminal, debug it; returns when gdb has ended. The VM ends then.
///
/// # Errors
/// virtme-ng or gdb is not there.
pub fn debug(machine: &Machine<'_>, session: &Session<'_>) -> Result<ExitStatus, VmError> {
    let (ours, stub) = socket_pair(machine.console)?;
    let (output, port) = socket_pair(session.output)?;
    let mut output = Drain::into_log(output, session.output, b"")?;
    let text = guest_command(machine.root, session);
    let mut command = machine.command(Tmp::Seen, &["nokaslr"], &text);
    ports(&mut command, [("org.nlring.output", port.as_raw_fd())]);
    command
        .arg("-S")
        .arg("-chardev")
        .arg(format!("socket,id=gdb,fd={}", stub.as_raw_fd()))
        .args(["-gdb", "chardev:gdb"]);
    // In a process group of its own, so that Ctrl-C is for gdb, which passes it on.
    let qemu = machine.start(command, vec![stub.as_raw_fd(), port.as_raw_fd()])?;
    drop((stub, port)); // and with them our copies of QEMU's ends, so that theirs is the last
    let mut command = Command::new("gdb");
    command
        .args(["--quiet", "-iex", "set confirm off"])
        .arg(&machine.kernel.vmlinux);
    // What a connection to a VM takes: that it is started.
    for line in [
        String::from("set remotetimeout 60"),
        format!("source {}", machine.root.join(COMMANDS).display()),
        remote(ours.as_raw_fd()),
        KERNEL_IS_UP.to_owned(),
        String::from("continue"),
        format!("echo {}\\n", session.greeting),
    ] {
        command.args(["-ex", &line]);
    }
    let failure = |source| VmError::Start {
        program: "gdb".into(),
        source,
    };
    // It ends by itself where its terminal hangs up; so it does where nobody is left who would tell it.
    let mut gdb =
        keeper::spawn(command, Signal::SIGHUP, vec![ours.as_raw_fd()]).map_err(failure)?;
    drop(ours);
    let status = gdb.wait().map_err(failure)?;
    drop(qemu);
    output.finish()?;
    Ok(status)
}

/// gdb's command to connect: it takes a name, or a program, and the descriptor has no name.
fn remote(descriptor: i32) -> String {
    format!("target remote | cat <&{descriptor} & exec cat >&{descriptor}")
}

fn guest_command(root: &Path, session: &Session<'_>) -> String {
    let script = quoted(&root.join(SCRIPT));
    let text = session.command.unwrap_or_default();
    let (path, text) = (quoted(Path::new(session.path)), quoted(Path::new(text)));
    format!("PATH=$PATH:{path} {script} run {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_runs_the_command_with_more_programs_and_the_text_unchanged() {
        let root = tempfile::tempdir().unwrap();
        let script = root.path().join(SCRIPT);
        std::fs::create_dir_all(script.parent().unwrap()).unwrap();
        std::fs::write(&script, "#!/bin/sh\necho \"${PATH##*:/a:}|$1|$2|$#\"\n").unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&script, executable).unwrap();
        for (command, expected) in [
            (
                Some("echo 'it''s' $HOME; x"),
                "/b|run|echo 'it''s' $HOME; x|2\n",
            ),
            (None, "/b|run||2\n"),
        ] {
            let session = Session {
                command,
                path: "/a:/b",
                output: Path::new(""),
                greeting: "",
            };
            let text = guest_command(root.path(), &session);
            let said = Command::new("sh").args(["-c", &text]).output().unwrap();
            assert_eq!(String::from_utf8(said.stdout).unwrap(), expected);
        }
    }

    #[test]
    fn what_connects_carries_both_ways_and_ends_with_either() {
        use std::io::{Read as _, Write as _};
        use std::process::Stdio;
        let (mut stub, ours) = std::os::unix::net::UnixStream::pair().unwrap();
        let line = remote(ours.as_raw_fd());
        let mut command = Command::new("sh");
        command
            .args(["-c", line.strip_prefix("target remote | ").unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        let patience = std::time::Duration::from_secs(10);
        stub.set_read_timeout(Some(patience)).unwrap();
        let mut shell = keeper::spawn(command, Signal::SIGKILL, vec![ours.as_raw_fd()]).unwrap();
        drop(ours);
        shell.stdin.take().unwrap().write_all(b"$g#67").unwrap();
        let mut asked = [0; 5];
        stub.read_exact(&mut asked).unwrap();
        assert_eq!(&asked, b"$g#67");
        stub.write_all(b"+").unwrap();
        drop(stub);
        let mut answer = String::new();
        shell
            .stdout
            .take()
            .unwrap()
            .read_to_string(&mut answer)
            .unwrap();
        assert_eq!(answer, "+");
        assert!(shell.wait().unwrap().success());
    }
}
