// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM on this machine's own file system, booted by virtme-ng behind `vm/scripts/virtme`: for
//! programs that are not ours and need the tools of a whole system. The agent in it is the same, and
//! so is the channel.

use std::fmt::Write as _;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use crate::VmError;
use crate::accelerator::Accelerator;
use crate::console::Drain;
use crate::deadline::Deadlines;
use crate::kernel::Built;
use crate::machine::{Subject, Vm, Way, socket_pair};
use crate::process::Qemu;
use crate::qemu::{AGENT_PORT, Execution, Part as _};

/// udev, temporary files, a shell: what a whole system starts before the agent is had takes this
/// many times as long as the agent alone (measured under TCG: 10 s and 1.2 s).
const SLOWER: f64 = 4.0;

/// In the source tree.
const SCRIPT: &str = "vm/scripts/virtme";

/// What every such VM has.
#[derive(Debug, Clone, Copy)]
pub struct Machine<'a> {
    /// The source tree, for the scripts in it.
    pub root: &'a Path,
    /// The kernel; its configuration has the fragment `virtme`.
    pub kernel: &'a Built,
    /// What executes it.
    pub accelerator: &'a Accelerator,
    /// Its CPUs.
    pub cpus: u8,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// The log of its console, written as it comes; made anew.
    pub console: &'a Path,
}

/// What the guest finds in /tmp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tmp {
    /// Nothing.
    Empty,
    /// What this machine has there, to be changed for the guest alone.
    Seen,
}

impl Machine<'_> {
    /// What becomes QEMU when it is started, with the guest running `text` in its shell. Arguments that
    /// are added are QEMU's.
    pub(crate) fn command(&self, tmp: Tmp, kernel_words: &[&str], text: &str) -> Command {
        let accelerator = self.accelerator.name;
        let mut command = Command::new(self.root.join(SCRIPT));
        command
            .args(["boot", "--accelerator", accelerator.as_str()])
            .args(["--cpus", &self.cpus.to_string()])
            .args(["--memory", &self.memory_mib.to_string()])
            .arg("--kernel")
            .arg(&self.kernel.image);
        if tmp == Tmp::Seen {
            command.args(["--tmp", "seen"]);
        }
        let words = Execution(accelerator).kernel().unwrap_or_default();
        for word in words.split_whitespace().chain(kernel_words.iter().copied()) {
            command.args(["--kernel-option", word]);
        }
        command
            .args(["--command", text, "--"])
            // virtme-ng has half a dozen of them, with 64 queues each, and QEMU would ask a descriptor of
            // each queue for news whenever anything happens.
            .args(["-global", "virtio-serial-pci.ioeventfd=off"])
            .args(["-global", "virtio-serial-pci.max_ports=2"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        command
    }

    /// Starts such a command, with the descriptors `inherited`, its console going into the log.
    pub(crate) fn start(
        &self,
        mut command: Command,
        inherited: Vec<RawFd>,
    ) -> Result<Qemu, VmError> {
        let (console, theirs) =
            std::io::pipe().map_err(VmError::io("cannot make a pipe beside", self.console))?;
        command.stderr(theirs);
        let log = Drain::into_log(console, self.console, b"")?;
        Qemu::start(command, inherited, log, self.console)
    }

    /// How long anything may take in it.
    pub(crate) fn deadlines(&self) -> Deadlines {
        Deadlines::of(self.accelerator.name, self.kernel.debug).scaled(SLOWER)
    }
}

/// Named ports, each on a device of its own since `max_ports` leaves room for one beside port 0, joined to
/// these descriptors.
pub(crate) fn ports<const N: usize>(command: &mut Command, ports: [(&str, RawFd); N]) {
    for (number, (name, descriptor)) in ports.into_iter().enumerate() {
        command
            .args(["-device", &format!("virtio-serial-pci,id=nlring{number}")])
            .arg("-chardev")
            .arg(format!("socket,id=port{number},fd={descriptor}"))
            .arg("-device")
            .arg(format!(
                "virtserialport,bus=nlring{number}.0,chardev=port{number},name={name}"
            ));
    }
}

/// What an agent is booted in.
#[derive(Debug, Clone, Copy)]
pub struct Config<'a> {
    /// The machine.
    pub machine: Machine<'a>,
    /// The program that is the agent, and what its environment has beside the usual.
    pub agent: &'a Path,
    /// The environment's names and values.
    pub environment: &'a [(&'a str, &'a Path)],
}

/// Puts virtme-ng into the cache, if it is not there.
///
/// # Errors
/// It cannot be had.
pub fn install(root: &Path) -> Result<(), VmError> {
    let script = root.join(SCRIPT);
    let output = Command::new(&script)
        .arg("install")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| VmError::Start {
            program: script.display().to_string(),
            source,
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let last = said.lines().rfind(|line| !line.trim().is_empty());
    let reason = last.unwrap_or("it says nothing").trim().to_owned();
    Err(VmError::io("cannot install virtme-ng with", &script)(
        std::io::Error::other(reason),
    ))
}

/// Where virtme-ng is, if it is in the cache.
#[must_use]
pub fn place(root: &Path) -> Option<PathBuf> {
    let output = Command::new(root.join(SCRIPT)).arg("where").output().ok()?;
    let path = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| path.trim_end().into())
}

/// Boots, and waits for the agent's first word.
///
/// # Errors
/// virtme-ng is not there, the agent is where the guest does not see it, QEMU ends, or the guest says
/// nothing before its deadline.
pub fn boot(config: &Config<'_>) -> Result<Vm, VmError> {
    let start = Instant::now();
    let machine = &config.machine;
    seen_by_guest(config.agent)?;
    let (channel, agent) = socket_pair(machine.console)?;
    // Such programs make and remove namespaces by the hundred, and each waits for RCU.
    let words = ["rcupdate.rcu_expedited=1"];
    let mut command = machine.command(Tmp::Empty, &words, &agent_command(config));
    ports(&mut command, [(AGENT_PORT, agent.as_raw_fd())]);
    let qemu = machine.start(command, vec![agent.as_raw_fd()])?;
    drop(agent); // and with it our copy of QEMU's end, so that we see it end
    let subject = Subject {
        kernel: &machine.kernel.name,
        accelerator: machine.accelerator.name,
        way: Way::Boot,
    };
    Vm::meet(qemu, channel, &subject, machine.deadlines(), start)
}

/// For the guest's shell, which sees the same paths as we do.
fn agent_command(config: &Config<'_>) -> String {
    let mut text = String::new();
    for (name, value) in config.environment {
        let _ = write!(text, "{name}={} ", quoted(value));
    }
    text + &quoted(config.agent) + " agent"
}

pub(crate) fn quoted(path: &Path) -> String {
    format!("'{}'", path.display().to_string().replace('\'', r"'\''"))
}

/// Refuses a program in a directory that the guest has for itself.
fn seen_by_guest(program: &Path) -> Result<(), VmError> {
    const OWN: [&str; 3] = ["/tmp", "/run", "/dev"];
    match OWN.iter().find(|own| program.starts_with(own)) {
        None => Ok(()),
        Some(own) => Err(VmError::Config {
            path: program.to_owned(),
            reason: format!(
                "the VM has a {own} of its own and does not see it: set CARGO_TARGET_DIR to a directory elsewhere"
            ),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_that_lacks_something_is_refused_in_one_line() {
        let script = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("..")
            .join(SCRIPT);
        for (arguments, lacks) in [
            ("boot --kernel vmlinux --cpus 2", "--accelerator is missing"),
            ("boot --kernel", "--kernel lacks its value"),
            ("boot --speed 2", "unknown argument '--speed'"),
            (
                "boot --kernel k --accelerator tcg --cpus 1 --memory 1 --command c --tmp full",
                "/tmp cannot be 'full'",
            ),
            ("where else", "where takes no arguments"),
            ("shut", "unknown command 'shut'"),
        ] {
            let mut command = Command::new(&script);
            let output = command.args(arguments.split(' ')).output().unwrap();
            let said = String::from_utf8(output.stderr).unwrap();
            assert_eq!(output.status.code(), Some(2), "{said}");
            assert!(said.contains(lacks) && said.lines().count() == 1, "{said}");
        }
    }

    #[test]
    fn a_program_that_the_guest_does_not_see_is_refused() {
        assert!(seen_by_guest(Path::new("/root/target/nlring-guest")).is_ok());
        assert!(seen_by_guest(Path::new("/tmpfs/nlring-guest")).is_ok());
        let refused = seen_by_guest(Path::new("/tmp/target/nlring-guest")).unwrap_err();
        let words = refused.to_string();
        assert!(
            words.contains("CARGO_TARGET_DIR") && !words.contains('\n'),
            "{words}"
        );
    }

    #[test]
    fn a_path_is_one_word_to_a_shell() {
        let path = "/it's a\\b $HOME `x`";
        let text = format!("printf %s {}", quoted(Path::new(path)));
        let said = Command::new("sh").args(["-c", &text]).output().unwrap();
        assert_eq!(String::from_utf8(said.stdout).unwrap(), path);
    }
}
