// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM on this machine's own file system, booted by virtme-ng behind `vm/scripts/virtme`: for
//! programs that are not ours and need the tools of a whole system. The agent in it is the same, and
//! so is the channel.

use std::fmt::Write as _;
use std::os::fd::AsRawFd;
use std::path::Path;
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

/// What to boot.
#[derive(Debug, Clone, Copy)]
pub struct Config<'a> {
    /// The source tree, for the script in it.
    pub root: &'a Path,
    /// The kernel; its configuration has the fragment `virtme`.
    pub kernel: &'a Built,
    /// What executes it.
    pub accelerator: &'a Accelerator,
    /// Its CPUs.
    pub cpus: u8,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// The program that is the agent, and what its environment has beside the usual.
    pub agent: &'a Path,
    /// The environment's names and values.
    pub environment: &'a [(&'a str, &'a Path)],
    /// The log of its console, written as it comes; made anew.
    pub console: &'a Path,
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

/// Boots, and waits for the agent's first word.
///
/// # Errors
/// virtme-ng is not there, the agent is where the guest does not see it, QEMU ends, or the guest says
/// nothing before its deadline.
pub fn boot(config: &Config<'_>) -> Result<Vm, VmError> {
    let start = Instant::now();
    seen_by_guest(config.agent)?;
    let accelerator = config.accelerator.name;
    let (channel, agent) = socket_pair(config.console)?;
    let (console, theirs) =
        std::io::pipe().map_err(VmError::io("cannot make a pipe beside", config.console))?;
    let mut command = Command::new(config.root.join(SCRIPT));
    command
        .args(["boot", "--accelerator", accelerator.as_str()])
        .args(["--cpus", &config.cpus.to_string()])
        .args(["--memory", &config.memory_mib.to_string()])
        .arg("--kernel")
        .arg(&config.kernel.image);
    let words = Execution(accelerator).kernel().unwrap_or_default();
    for word in words.split_whitespace() {
        command.args(["--kernel-option", word]);
    }
    command
        // Such programs make and remove namespaces by the hundred, and each waits for RCU.
        .args(["--kernel-option", "rcupdate.rcu_expedited=1"])
        .args(["--command", &agent_command(config), "--"])
        // virtme-ng has half a dozen of them, with 64 queues each, and QEMU would ask a descriptor of
        // each queue for news whenever anything happens.
        .args(["-global", "virtio-serial-pci.ioeventfd=off"])
        .args(["-global", "virtio-serial-pci.max_ports=2"])
        .args(["-device", "virtio-serial-pci,id=agents"])
        .arg("-chardev")
        .arg(format!("socket,id=agent,fd={}", agent.as_raw_fd()))
        .arg("-device")
        .arg(format!(
            "virtserialport,bus=agents.0,chardev=agent,name={AGENT_PORT}"
        ))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(theirs);
    let log = Drain::into_log(console, config.console, b"")?;
    let qemu = Qemu::start(command, vec![agent.as_raw_fd()], log, config.console)?;
    drop(agent); // and with it our copy of QEMU's end, so that we see it end
    let subject = Subject {
        kernel: &config.kernel.name,
        accelerator,
        way: Way::Boot,
    };
    Vm::meet(
        qemu,
        channel,
        &subject,
        Deadlines::of(accelerator, config.kernel.debug).scaled(SLOWER),
        start,
    )
}

/// For the guest's shell, which sees the same paths as we do.
fn agent_command(config: &Config<'_>) -> String {
    let mut text = String::new();
    for (name, value) in config.environment {
        let _ = write!(text, "{name}={} ", quoted(value));
    }
    text + &quoted(config.agent) + " agent"
}

fn quoted(path: &Path) -> String {
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
