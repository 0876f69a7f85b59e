// SPDX-License-Identifier: MIT OR Apache-2.0
//! The agent: answers the host, has jobs done, and repeats each outcome until it is acknowledged.

use std::fs;
use std::io;
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::Duration;

use nlring_channel::{Job, LOG_MARK, LOG_MARK_END, Outcome, Status, ToGuest, ToHost, write_frame};

use crate::inventory::Inventory;
use crate::port::{self, Arrival};
use crate::{job, links, randomness};

/// Until an outcome is acknowledged it is sent again at this pace.
const REPEAT: Duration = Duration::from_secs(1);

const CLOCKSOURCE: &str = "/sys/devices/system/clocksource/clocksource0/current_clocksource";

pub(crate) fn main() -> ExitCode {
    match serve() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("agent: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve() -> io::Result<()> {
    let port = port::open()?;
    let listener = port.try_clone()?;
    let (to, inbox) = channel();
    let ended = to.clone();
    thread::spawn(move || port::listen(listener, &to));
    let mut agent = Agent {
        port,
        pending: None,
    };
    let done = move |job: Job| {
        let ended = ended.clone();
        thread::spawn(move || {
            let outcome = perform(&job);
            // If the agent no longer listens the VM is going down.
            let _ = ended.send(Arrival::Done(job.number, outcome));
        });
    };
    agent.converse(&inbox, done)
}

struct Agent<W> {
    port: W,
    pending: Option<(u32, Outcome)>,
}

impl<W: io::Write> Agent<W> {
    /// Until the host orders to power off, or is gone.
    fn converse(&mut self, inbox: &Receiver<Arrival>, start: impl Fn(Job)) -> io::Result<()> {
        loop {
            match inbox.recv_timeout(REPEAT) {
                Ok(Arrival::Message(ToGuest::Hello { nonce })) => self.say(&introduction(nonce))?,
                Ok(Arrival::Message(ToGuest::Run(job))) => {
                    self.pending = None;
                    start(job);
                }
                Ok(Arrival::Message(ToGuest::Acknowledge { job })) => {
                    self.pending.take_if(|(number, _)| *number == job);
                }
                Ok(Arrival::Done(job, outcome)) => {
                    self.pending = Some((job, outcome));
                    self.repeat()?;
                }
                Ok(Arrival::Foreign(error)) => eprintln!("agent: {error}"),
                Err(RecvTimeoutError::Timeout) => self.repeat()?,
                Ok(Arrival::Message(ToGuest::PowerOff) | Arrival::End)
                | Err(RecvTimeoutError::Disconnected) => {
                    return Ok(());
                }
            }
        }
    }

    fn repeat(&mut self) -> io::Result<()> {
        match &self.pending {
            Some((job, outcome)) => self.say(&ToHost::Outcome {
                job: *job,
                outcome: outcome.clone(),
            }),
            None => Ok(()),
        }
    }

    fn say(&mut self, message: &ToHost) -> io::Result<()> {
        write_frame(&mut self.port, message)
    }
}

fn introduction(nonce: u64) -> ToHost {
    let release = nix::sys::utsname::uname().map_or_else(
        |_| String::new(),
        |names| names.release().to_string_lossy().into_owned(),
    );
    let clocksource = fs::read_to_string(CLOCKSOURCE)
        .unwrap_or_default()
        .trim()
        .to_owned();
    let cpus = thread::available_parallelism().map_or(0, |cpus| cpus.get() as u32);
    ToHost::Ready {
        nonce,
        release,
        clocksource,
        cpus,
    }
}

fn perform(job: &Job) -> Outcome {
    // The kernel's log has to tell what it says during which job. If it does not, the host notices.
    let (number, name, seed) = (job.number, &job.name, job.seed);
    let mark = format!("{LOG_MARK}{number}{LOG_MARK_END}: {name}, seed {seed}\n");
    let _ = fs::write("/dev/kmsg", mark);
    if let Err(reason) = randomness::stir(seed, number) {
        return job::failed(format!("cannot stir the random numbers: {reason}"));
    }
    if let Err(reason) = links::bring_up(&job.links) {
        return job::failed(format!("cannot set up the links: {reason}"));
    }
    let before = Inventory::take();
    let outcome = job::supervise(job);
    reproach(outcome, &before.left_since(job.patience))
}

/// A job that leaves something behind has failed, whatever else it says.
fn reproach(outcome: Outcome, left: &[String]) -> Outcome {
    if left.is_empty() {
        return outcome;
    }
    let Outcome { status, detail, .. } = &outcome;
    Outcome {
        detail: format!(
            "it left behind {}; it said {status:?}: {detail}",
            left.join(", ")
        ),
        status: Status::Fail,
        ..outcome
    }
}

#[cfg(test)]
mod tests {
    use nlring_channel::FrameReader;

    use super::*;

    fn said(port: &[u8]) -> Vec<ToHost> {
        let mut reader = FrameReader::default();
        reader.push(port);
        std::iter::from_fn(|| reader.next_message().unwrap()).collect()
    }

    #[test]
    fn an_outcome_is_repeated_until_it_is_acknowledged() {
        let (to, inbox) = channel();
        let outcome = Outcome {
            status: Status::Pass,
            detail: String::new(),
            evidence: Vec::new(),
        };
        to.send(Arrival::Done(3, outcome.clone())).unwrap();
        let late = to.clone();
        let host = thread::spawn(move || {
            thread::sleep(REPEAT + REPEAT / 2);
            late.send(Arrival::Message(ToGuest::Acknowledge { job: 2 }))
                .unwrap();
            late.send(Arrival::Message(ToGuest::Acknowledge { job: 3 }))
                .unwrap();
            thread::sleep(REPEAT + REPEAT / 2);
            late.send(Arrival::Message(ToGuest::PowerOff)).unwrap();
        });
        let mut agent = Agent {
            port: Vec::new(),
            pending: None,
        };
        agent.converse(&inbox, |_| unreachable!()).unwrap();
        host.join().unwrap();
        assert_eq!(
            said(&agent.port),
            vec![ToHost::Outcome { job: 3, outcome }; 2]
        );
    }

    #[test]
    fn what_is_left_behind_fails_a_job_and_is_named() {
        let passed = Outcome {
            status: Status::Pass,
            detail: "fine".into(),
            evidence: vec!["e".into()],
        };
        assert_eq!(reproach(passed.clone(), &[]), passed);
        let left = ["interface dummy0".into(), "process 77 (sleep)".into()];
        let failed = reproach(passed.clone(), &left);
        assert_eq!(
            (failed.status, failed.evidence),
            (Status::Fail, passed.evidence)
        );
        let told = "it left behind interface dummy0, process 77 (sleep); it said Pass: fine";
        assert_eq!(failed.detail, told);
    }

    #[test]
    fn each_hello_is_answered_with_its_own_number() {
        let (to, inbox) = channel();
        for nonce in [1, 2] {
            to.send(Arrival::Message(ToGuest::Hello { nonce })).unwrap();
        }
        to.send(Arrival::End).unwrap();
        let mut agent = Agent {
            port: Vec::new(),
            pending: None,
        };
        agent.converse(&inbox, |_| unreachable!()).unwrap();
        let answers = said(&agent.port);
        assert!(matches!(
            answers.as_slice(),
            [
                ToHost::Ready { nonce: 1, .. },
                ToHost::Ready {
                    nonce: 2,
                    cpus: 1..,
                    ..
                }
            ]
        ));
    }
}
