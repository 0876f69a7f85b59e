// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM: booted or restored, asked to do jobs, powered off.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nlring_channel::{Job, Outcome, ToGuest, ToHost};

use crate::accelerator::{Accelerator, Name};
use crate::console::Drain;
use crate::conversation::{Conversation, Heard};
use crate::deadline::Deadlines;
use crate::end::Manner;
use crate::kernel::{Built, toolchain};
use crate::monitor::Monitor;
use crate::process::{Qemu, Seen};
pub use crate::qemu::Chassis;
use crate::qemu::{self, Part, Plug};
use crate::topology::Topology;
use crate::{Snapshot, VmError};

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
    /// Its end of the cable to another VM, where its network is that: a stream socket.
    pub cable: Option<BorrowedFd<'a>>,
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
    /// The number of the last hello.
    nonce: u64,
    /// What was acknowledged last, and of which job.
    outcome: Option<(u32, Outcome)>,
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
        inherited.extend(config.cable.map(|cable| cable.as_raw_fd()));
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
        let mut qemu = Qemu::start(command, inherited, console_log, config.console)?;
        // That of a QEMU that is gone already has nothing to tell, which shows below.
        qemu.monitor = Monitor::new(orders).ok();
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
        Self::meet(qemu, channel, &subject, deadlines, start)
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
        let nonce = u64::from(std::process::id()) << 32 | u64::from(qemu.id());
        let ready = introduce(
            &mut qemu,
            &mut conversation,
            nonce,
            subject,
            deadlines,
            start,
        )?;
        if !subject.accelerator.admits(&ready.clocksource) {
            return Err(VmError::Disguised {
                clocksource: ready.clocksource,
                accelerator: subject.accelerator.as_str(),
            });
        }
        Ok(Self {
            qemu,
            conversation,
            nonce,
            outcome: None,
            deadlines,
            ready,
            boot_time: start.elapsed(),
        })
    }

    /// Takes a snapshot; the VM goes on as if nothing had happened.
    ///
    /// # Errors
    /// QEMU refuses or takes too long, or this VM, which is virtme-ng's, has no monitor.
    pub fn save(&mut self) -> Result<Snapshot, VmError> {
        let saved = Snapshot::empty().and_then(|mut snapshot| {
            let file = snapshot.path();
            snapshot.said = self.qemu.save(&file, self.deadlines.save())?;
            Ok(snapshot)
        });
        saved.map_err(VmError::io(
            "cannot take a snapshot (try --cold) of the VM with console",
            &self.qemu.log,
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
        let tried = format!("no outcome of `{}`", job.name);
        let limit = self
            .deadlines
            .outcome(Duration::from_millis(job.deadline_ms));
        let until = Instant::now() + limit;
        // What was said before there was a job is not about it.
        let forgotten = self.conversation.forget();
        if let Err(error) =
            forgotten.and_then(|()| self.conversation.say(&ToGuest::Run(job.clone())))
        {
            return Err(self.unheard(&tried, &error));
        }
        loop {
            match self.conversation.hear(until) {
                Ok(Heard::Message(ToHost::Outcome {
                    job: number,
                    outcome,
                })) => {
                    // That of an earlier job comes again if its acknowledgement crossed it on the way.
                    let acknowledged = self.conversation.say(&ToGuest::Acknowledge { job: number });
                    if number == job.number {
                        return match acknowledged {
                            Ok(()) => {
                                self.outcome = Some((number, outcome.clone()));
                                Ok(outcome)
                            }
                            Err(error) => Err(self.unheard(&tried, &error)),
                        };
                    }
                }
                Ok(Heard::Message(ToHost::Note { job: number, text })) if number == job.number => {
                    on_note(&text);
                }
                Ok(Heard::Message(_)) => {}
                Ok(Heard::Silence) => {
                    let what = format!("nothing came for {:.1} s", limit.as_secs_f32());
                    return Err(self.overdue(&tried, &what));
                }
                Ok(Heard::End) => return Err(self.qemu.end(&tried, Seen::Closed, Vec::new())),
                Err(error) => {
                    let seen = Seen::Broken(error.to_string());
                    return Err(self.qemu.end(&tried, seen, Vec::new()));
                }
            }
        }
    }

    /// Has the guest power itself off and waits for the end of QEMU; the console's log is whole then.
    ///
    /// # Errors
    /// The VM ended in another way, or was still there at the deadline, and was killed.
    pub fn power_off(mut self) -> Result<(), VmError> {
        let tried = "cannot power off";
        let until = Instant::now() + self.deadlines.power_off();
        // A guest that is gone already has done what it is asked here.
        let _ = self.conversation.say(&ToGuest::PowerOff);
        loop {
            match self.conversation.hear(until) {
                Ok(Heard::Message(ToHost::Outcome { job, outcome })) => {
                    let said = self.outcome.as_ref().filter(|(number, _)| *number == job);
                    if said.is_some_and(|(_, said)| *said != outcome) {
                        let what = format!("the guest took back its outcome of job {job}");
                        return Err(self.qemu.end(tried, Seen::Broken(what), Vec::new()));
                    }
                }
                Ok(Heard::Message(_)) | Err(_) => {}
                Ok(Heard::Silence) => return Err(self.overdue(tried, "QEMU did not end")),
                Ok(Heard::End) => break,
            }
        }
        self.qemu.await_power_off(tried, until)
    }

    /// The error for a guest to which something could not be said.
    fn unheard(&mut self, tried: &str, error: &io::Error) -> VmError {
        let seen = match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => {
                Seen::Late(Manner::Silence, "the guest takes no words".to_owned())
            }
            _ => Seen::Closed,
        };
        self.qemu.end(tried, seen, Vec::new())
    }

    /// The error for a guest that is late. Whether its agent still answers tells what it is.
    fn overdue(&mut self, tried: &str, what: &str) -> VmError {
        self.nonce += 1;
        let (nonce, asked) = (self.nonce, Instant::now());
        let until = asked + self.deadlines.answer();
        let _ = self.conversation.say(&ToGuest::Hello { nonce });
        let mut is_alive = false;
        let word = loop {
            match self.conversation.hear(until) {
                Ok(Heard::Message(ToHost::Ready { nonce: heard, .. })) if heard == nonce => {
                    is_alive = true;
                    break "answers a hello";
                }
                Ok(Heard::Message(_)) | Err(_) => is_alive = true,
                Ok(Heard::Silence) if is_alive => break "talks, but answers no hello",
                Ok(Heard::Silence) => break "does not answer a hello",
                Ok(Heard::End) => return self.qemu.end(tried, Seen::Closed, Vec::new()),
            }
        };
        let manner = if is_alive {
            Manner::Deadline
        } else {
            Manner::Silence
        };
        let seen = Seen::Late(manner, format!("{what}, and the agent {word}"));
        let waited = asked.elapsed().as_secs_f32();
        let witness = format!("agent: {word}, asked for {waited:.1} s");
        self.qemu.end(tried, seen, vec![witness])
    }
}

/// What is started, and how, as errors name it.
pub(crate) struct Subject<'a> {
    pub(crate) kernel: &'a str,
    pub(crate) accelerator: Name,
    pub(crate) way: Way,
}

impl Subject<'_> {
    /// What did not work if it does not start.
    pub(crate) fn tried(&self) -> String {
        format!(
            "cannot {} kernel {} under {}",
            self.way.word(),
            self.kernel,
            self.accelerator.as_str()
        )
    }
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
    nonce: u64,
    subject: &Subject<'_>,
    deadlines: Deadlines,
    start: Instant,
) -> Result<Ready, VmError> {
    let until = start + subject.way.deadline(deadlines);
    let tried = subject.tried();
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
            Heard::End => return Err(qemu.end(&tried, Seen::Closed, Vec::new())),
        }
        if qemu.errors.line_with("internal error").is_some() {
            // It will sit there for ever.
            let seen = Seen::Broken("QEMU paused the guest".to_owned());
            return Err(qemu.end(&tried, seen, Vec::new()));
        }
        if Instant::now() >= until {
            let waited = start.elapsed().as_secs_f32();
            let what = format!("no word from the guest for {waited:.1} s");
            return Err(qemu.end(&tried, Seen::Late(Manner::Silence, what), Vec::new()));
        }
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
        Box::new(qemu::PanicWitness),
        Box::new(qemu::PoisonsFreedMessages),
        Box::new(qemu::NoLegacyTerminals),
        Box::new(qemu::ToldByTrap(chassis)),
    ];
    let plug = match config.cable {
        None => Plug::Hub,
        Some(cable) => Plug::Cable(cable.as_raw_fd()),
    };
    for nic in config.topology.nics() {
        if let Some(folder) = config.captures {
            let path = folder.join(&nic.link.name).with_extension(CAPTURE);
            parts.push(Box::new(qemu::Capture(nic.clone(), path)));
        }
        parts.push(Box::new(qemu::Wire(chassis, nic, plug)));
    }
    parts
}
