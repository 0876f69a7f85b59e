// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM: booted or restored, asked to do jobs, powered off.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nlring_channel::{Job, Outcome, ToGuest, ToHost};

use crate::accelerator::{Accelerator, Name};
use crate::console::Drain;
use crate::conversation::{Conversation, Heard};
use crate::deadline::Deadlines;
use crate::kernel::{Built, toolchain};
use crate::monitor::Monitor;
pub use crate::qemu::Chassis;
use crate::qemu::{self, Part};
use crate::topology::Topology;
use crate::{Snapshot, VmError, keeper};

/// The extension of a capture's name.
pub const CAPTURE: &str = "pcap";

/// What to boot.
#[derive(Debug, Clone, Copy)]
pub struct Config<'a> {
    /// The kernel.
    pub kernel: &'a Built,
    /// The guest's file system.
    pub initramfs: &'a Path,
    /// What executes it.
    pub accelerator: &'a Accelerator,
    /// Its network.
    pub topology: Topology,
    /// Its CPUs.
    pub cpus: u8,
    /// Its memory, in MiB.
    pub memory_mib: u32,
    /// The log of its console, written as it comes; made anew.
    pub console: &'a Path,
    /// Where to leave a capture of each NIC, as `near0.pcap`, if anywhere.
    pub captures: Option<&'a Path>,
}

/// What it is booted with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The QEMU program.
    pub qemu: PathBuf,
    /// The machine that it plays.
    pub chassis: Chassis,
}

impl Host {
    /// The QEMU on the path, playing the machine that boots fastest.
    ///
    /// # Errors
    /// There is none on the path.
    pub fn find() -> Result<Self, VmError> {
        let program = "qemu-system-x86_64";
        let qemu = toolchain::find(program).ok_or_else(|| VmError::Missing {
            tool: program.into(),
            package: "qemu-system-x86".into(),
        })?;
        Ok(Self {
            qemu,
            chassis: Chassis::Microvm,
        })
    }
}

/// How the agent introduced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// `uname -r`.
    pub release: String,
    /// The current clock source: witness of the accelerator.
    pub clocksource: String,
    /// CPUs online.
    pub cpus: u32,
}

/// A VM whose agent has answered. QEMU ends with it, and with this process.
#[derive(Debug)]
pub struct Vm {
    qemu: Qemu,
    conversation: Conversation,
    /// Until it was used.
    monitor: Option<Monitor>,
    deadlines: Deadlines,
    ready: Ready,
    boot_time: Duration,
}

impl Vm {
    /// Boots, and waits for the agent's first word.
    ///
    /// # Errors
    /// QEMU is not there, ends, or the guest says nothing before its deadline.
    pub fn boot(config: &Config<'_>) -> Result<Self, VmError> {
        Self::boot_with(
            config,
            &Host::find()?,
            Deadlines::of(config.accelerator.name, config.kernel.debug),
        )
    }

    /// The same, with this QEMU and machine and these deadlines.
    ///
    /// # Errors
    /// As [`Vm::boot`].
    pub fn boot_with(
        config: &Config<'_>,
        host: &Host,
        deadlines: Deadlines,
    ) -> Result<Self, VmError> {
        Self::start(config, host, deadlines, None)
    }

    /// Goes on from `snapshot`, which was taken of a VM of this configuration, as soon as the agent has
    /// answered. The log of the console begins as that VM's did.
    ///
    /// # Errors
    /// As [`Vm::boot`].
    pub fn restore(config: &Config<'_>, snapshot: &Snapshot) -> Result<Self, VmError> {
        let deadlines = Deadlines::of(config.accelerator.name, config.kernel.debug);
        Self::restore_with(config, &Host::find()?, deadlines, snapshot)
    }

    /// The same, with this QEMU and machine and these deadlines.
    ///
    /// # Errors
    /// As [`Vm::boot`].
    pub fn restore_with(
        config: &Config<'_>,
        host: &Host,
        deadlines: Deadlines,
        snapshot: &Snapshot,
    ) -> Result<Self, VmError> {
        Self::start(config, host, deadlines, Some(snapshot))
    }

    fn start(
        config: &Config<'_>,
        host: &Host,
        deadlines: Deadlines,
        snapshot: Option<&Snapshot>,
    ) -> Result<Self, VmError> {
        let start = Instant::now();
        let state = snapshot.map(Snapshot::reader).transpose();
        let state = state.map_err(VmError::io("cannot read the snapshot for", config.console))?;
        let (channel, agent) = socket_pair(config.console)?;
        let (ours, console) = socket_pair(config.console)?;
        let (orders, monitor) = socket_pair(config.console)?;
        let mut parts = parts(config, host.chassis);
        parts.extend([
            Box::new(qemu::Console(console.as_raw_fd())) as Box<dyn Part>,
            Box::new(qemu::AgentPort(host.chassis, agent.as_raw_fd())),
            Box::new(qemu::MonitorPort(monitor.as_raw_fd())),
        ]);
        let mut inherited = vec![agent.as_raw_fd(), console.as_raw_fd(), monitor.as_raw_fd()];
        if let Some(state) = &state {
            parts.push(Box::new(qemu::Incoming(state.as_raw_fd())));
            inherited.push(state.as_raw_fd());
        }
        let mut command = Command::new(&host.qemu);
        command
            .args(qemu::arguments(&parts))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let before = snapshot.map_or(&[][..], |snapshot| &snapshot.said);
        let console_log = Drain::into_log(ours, config.console, before)?;
        let qemu = Qemu::start(command, inherited, console_log, config.console)?;
        drop((agent, console, monitor)); // and with them our copies of QEMU's ends, so that we see it end
        let subject = Subject {
            kernel: &config.kernel.name,
            accelerator: config.accelerator.name,
            way: if snapshot.is_some() {
                Way::Restore
            } else {
                Way::Boot
            },
        };
        let mut vm = Self::meet(qemu, channel, &subject, deadlines, start)?;
        vm.monitor = Some(Monitor::new(orders));
        Ok(vm)
    }

    /// Waits for the first word of the agent in a VM that was started at `start`.
    pub(crate) fn meet(
        mut qemu: Qemu,
        channel: UnixStream,
        subject: &Subject<'_>,
        deadlines: Deadlines,
        start: Instant,
    ) -> Result<Self, VmError> {
        let mut conversation = Conversation::new(channel)
            .map_err(VmError::io("cannot set up the channel beside", &qemu.log))?;
        let ready = introduce(&mut qemu, &mut conversation, subject, deadlines, start)?;
        if !subject.accelerator.admits(&ready.clocksource) {
            return Err(VmError::Disguised {
                clocksource: ready.clocksource,
                accelerator: subject.accelerator.as_str(),
            });
        }
        Ok(Self {
            qemu,
            conversation,
            monitor: None,
            deadlines,
            ready,
            boot_time: start.elapsed(),
        })
    }

    /// Takes a snapshot, once at most; the VM goes on as if nothing had happened.
    ///
    /// # Errors
    /// QEMU refuses or takes too long, or this VM, which is virtme-ng's or was asked before, has no monitor.
    pub fn save(&mut self) -> Result<Snapshot, VmError> {
        let log = &self.qemu.log;
        let monitor = self.monitor.take().ok_or(io::ErrorKind::Unsupported.into());
        let saved = monitor.and_then(|monitor| {
            let mut snapshot = Snapshot::empty()?;
            snapshot.said =
                monitor.save(&snapshot.path(), self.deadlines.save(), || fs::read(log))?;
            Ok(snapshot)
        });
        saved.map_err(VmError::io(
            "cannot take a snapshot (try --cold) of the VM with console",
            log,
        ))
    }

    /// How the agent introduced itself.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// From the start of QEMU, by boot or from a snapshot, to the agent's first word.
    #[must_use]
    pub fn boot_time(&self) -> Duration {
        self.boot_time
    }

    /// Has the agent do `job`, and acknowledges its outcome.
    ///
    /// # Errors
    /// The VM or its agent is lost, or silent past the deadline: then there is no verdict.
    pub fn run(&mut self, job: &Job, on_note: &mut dyn FnMut(&str)) -> Result<Outcome, VmError> {
        let doing = format!("`{}` ran", job.name);
        let limit = self
            .deadlines
            .outcome(Duration::from_millis(job.deadline_ms));
        let until = Instant::now() + limit;
        if self.conversation.say(&ToGuest::Run(job.clone())).is_err() {
            return Err(self.qemu.lost(&doing, "the guest takes no orders"));
        }
        loop {
            match self.conversation.hear(until)? {
                Heard::Message(ToHost::Outcome {
                    job: number,
                    outcome,
                }) => {
                    // That of an earlier job comes again if its acknowledgement crossed it on the way.
                    let acknowledged = self.conversation.say(&ToGuest::Acknowledge { job: number });
                    if number == job.number {
                        return match acknowledged {
                            Ok(()) => Ok(outcome),
                            Err(_) => Err(self
                                .qemu
                                .lost(&doing, "its outcome could not be acknowledged")),
                        };
                    }
                }
                Heard::Message(ToHost::Note { job: number, text }) if number == job.number => {
                    on_note(&text);
                }
                Heard::Message(_) => {}
                Heard::Silence => {
                    return Err(self.qemu.lost(
                        &doing,
                        &format!("no outcome for {:.1} s", limit.as_secs_f32()),
                    ));
                }
                Heard::End => return Err(self.qemu.lost(&doing, "QEMU ended")),
            }
        }
    }

    /// Has the guest power itself off and waits for the end of QEMU; the console's log is whole then.
    ///
    /// # Errors
    /// QEMU was still there at the deadline, and was killed.
    pub fn power_off(mut self) -> Result<(), VmError> {
        let until = Instant::now() + self.deadlines.power_off();
        // A guest that is gone already has done what it is asked here.
        let _ = self.conversation.say(&ToGuest::PowerOff);
        loop {
            match self.conversation.hear(until) {
                Ok(Heard::Message(_)) | Err(_) => {}
                Ok(Heard::Silence) => {
                    return Err(self.qemu.lost("it powered off", "QEMU did not end"));
                }
                Ok(Heard::End) => break,
            }
        }
        self.qemu.await_end(until)
    }
}

/// What is started, and how, as errors name it.
pub(crate) struct Subject<'a> {
    pub(crate) kernel: &'a str,
    pub(crate) accelerator: Name,
    pub(crate) way: Way,
}

/// How a VM comes to life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Boot,
    Restore,
}

impl Way {
    fn word(self) -> &'static str {
        match self {
            Self::Boot => "boot",
            Self::Restore => "restore",
        }
    }

    fn deadline(self, deadlines: Deadlines) -> Duration {
        match self {
            Self::Boot => deadlines.boot(),
            Self::Restore => deadlines.restore(),
        }
    }
}

/// Two ends of a conversation; `console` is where an error about them is looked for.
pub(crate) fn socket_pair(console: &Path) -> Result<(UnixStream, UnixStream), VmError> {
    UnixStream::pair().map_err(VmError::io("cannot make a socket pair beside", console))
}

/// Says hello until the agent answers.
fn introduce(
    qemu: &mut Qemu,
    conversation: &mut Conversation,
    subject: &Subject<'_>,
    deadlines: Deadlines,
    start: Instant,
) -> Result<Ready, VmError> {
    let until = start + subject.way.deadline(deadlines);
    let nonce = u64::from(std::process::id()) << 32 | u64::from(qemu.child.id());
    loop {
        // Heard or not, and whether QEMU is gone, shows in what comes back.
        let _ = conversation.say(&ToGuest::Hello { nonce });
        let pause = until.min(Instant::now() + deadlines.hello());
        match conversation.hear(pause)? {
            Heard::Message(ToHost::Ready {
                nonce: answered,
                release,
                clocksource,
                cpus,
            }) if answered == nonce => {
                return Ok(Ready {
                    release,
                    clocksource,
                    cpus,
                });
            }
            Heard::Message(_) | Heard::Silence => {}
            Heard::End => return Err(qemu.ended(subject.kernel)),
        }
        if let Some(said) = qemu.errors.line_with("internal error") {
            // QEMU has paused the guest and will sit there for ever.
            let status = "it paused the guest".to_owned();
            return Err(VmError::QemuEnded {
                kernel: subject.kernel.to_owned(),
                status,
                said,
            });
        }
        if Instant::now() >= until {
            return Err(VmError::NoBoot {
                way: subject.way.word(),
                kernel: subject.kernel.to_owned(),
                waited: start.elapsed().as_secs_f32(),
                accelerator: subject.accelerator.as_str(),
                last: qemu.last_line(),
                console: qemu.log.clone(),
            });
        }
    }
}

/// The process, and what comes out of it besides messages. Killed and reaped when dropped.
#[derive(Debug)]
pub(crate) struct Qemu {
    child: Child,
    console: Drain,
    errors: Drain,
    log: PathBuf,
}

impl Qemu {
    /// Starts `command`, which is or becomes QEMU, with the descriptors `inherited`. Its standard error
    /// is what it says of itself, unless the caller has a use for that; then its standard output is.
    pub(crate) fn start(
        command: Command,
        inherited: Vec<RawFd>,
        console: Drain,
        log: &Path,
    ) -> Result<Self, VmError> {
        let program = command.get_program().display().to_string();
        let mut child = keeper::spawn(command, Signal::SIGKILL, inherited)
            .map_err(|source| VmError::Start { program, source })?;
        let stderr = child.stderr.take().map(OwnedFd::from);
        let said = stderr.or_else(|| child.stdout.take().map(OwnedFd::from));
        let errors = Drain::quoting(File::from(said.expect("one of the two is piped")));
        Ok(Self {
            child,
            console,
            errors,
            log: log.to_owned(),
        })
    }

    fn last_line(&self) -> String {
        self.console.last_line().unwrap_or_default()
    }

    /// The error for a QEMU that has closed the channel while the guest booted.
    fn ended(&mut self, kernel: &str) -> VmError {
        let status = self.stop();
        let said = self.errors.first_line().or_else(|| {
            self.console
                .last_line()
                .map(|line| format!("last line: \"{line}\""))
        });
        VmError::QemuEnded {
            kernel: kernel.to_owned(),
            status,
            said: said.unwrap_or_else(|| "it said nothing".into()),
        }
    }

    /// The error for a VM that is of no use any more.
    fn lost(&mut self, doing: &str, reason: &str) -> VmError {
        self.stop();
        let reason = match self.errors.first_line() {
            Some(line) => format!("{reason} ({line})"),
            None => reason.to_owned(),
        };
        VmError::Lost {
            doing: doing.to_owned(),
            reason,
            last: self.last_line(),
            console: self.log.clone(),
        }
    }

    /// QEMU has closed the channel: it ends on its own, or is made to at the deadline.
    fn await_end(&mut self, until: Instant) -> Result<(), VmError> {
        while matches!(self.child.try_wait(), Ok(None)) {
            if Instant::now() >= until {
                return Err(self.lost("it powered off", "QEMU did not end"));
            }
            thread::sleep(Duration::from_millis(1));
        }
        self.console.finish()
    }

    /// Kills it if it is still there, and reads what it left; how it ended.
    fn stop(&mut self) -> String {
        // One that has closed its side is on its way out: its own status says more than our signal.
        let grace = Instant::now() + Duration::from_millis(100);
        while matches!(self.child.try_wait(), Ok(None)) && Instant::now() < grace {
            thread::sleep(Duration::from_millis(1));
        }
        let _ = self.child.kill();
        let status = self.child.wait();
        // What could not be logged is of no interest beside the error that is on its way.
        let _ = self.console.finish();
        let _ = self.errors.finish();
        status.map_or_else(|error| error.to_string(), |status| status.to_string())
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.console.finish();
        let _ = self.errors.finish();
    }
}

/// What a VM is made of, but for its descriptors.
pub(crate) fn parts(config: &Config<'_>, chassis: Chassis) -> Vec<Box<dyn Part>> {
    let mut parts: Vec<Box<dyn Part>> = vec![
        Box::new(chassis),
        Box::new(qemu::Bare),
        Box::new(qemu::Execution(config.accelerator.name)),
        Box::new(qemu::Processors(config.cpus)),
        Box::new(qemu::Memory(config.memory_mib)),
        Box::new(qemu::Kernel(config.kernel.image.clone())),
        Box::new(qemu::Initramfs(config.initramfs.to_owned())),
        Box::new(qemu::EndsOnPanic),
        Box::new(qemu::PoisonsFreedMessages),
        Box::new(qemu::NoLegacyTerminals),
        Box::new(qemu::ToldByTrap(chassis)),
    ];
    for nic in config.topology.nics() {
        if let Some(folder) = config.captures {
            let path = folder.join(&nic.link.name).with_extension(CAPTURE);
            parts.push(Box::new(qemu::Capture(nic.clone(), path)));
        }
        parts.push(Box::new(qemu::Wire(chassis, nic)));
    }
    parts
}
