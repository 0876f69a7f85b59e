// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which VMs of a run are there at the same time, told by VMs that count each other.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nlring_cases::{Case, Group, Setting};
use nlring_channel::{Outcome, Status};
use nlring_harness::case_run::{Errand, Guest, Hypervisor, Stage};
use nlring_harness::error::Error;
use nlring_harness::event::Event;
use nlring_harness::loss::Loss;
use nlring_harness::place::Candidate;
use nlring_harness::plan::{Request, Rounds, plan};
use nlring_harness::render::Renderer;
use nlring_harness::report::Report;
use nlring_harness::results::Results;
use nlring_harness::room::Room;
use nlring_harness::run::Run;

/// VMs of 256 MiB that stay until so many are there, or it is clear that they will not come.
struct Crowd {
    there: Arc<Count>,
    awaited: usize,
}

#[derive(Default)]
struct Count {
    now: AtomicUsize,
    most: AtomicUsize,
    beside_the_lonely: AtomicUsize,
}

struct Member {
    there: Arc<Count>,
    awaited: usize,
}

impl Hypervisor for Crowd {
    fn start(&self, _: &str, _: Stage, console: &Path) -> Result<Box<dyn Guest>, Loss> {
        std::fs::write(console, "[    0.000000] Linux version 6.1.1 (a@b) #1 SMP\n").unwrap();
        let now = self.there.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.there.most.fetch_max(now, Ordering::SeqCst);
        Ok(Box::new(Member {
            there: Arc::clone(&self.there),
            awaited: self.awaited,
        }))
    }

    fn memory_mib(&self, _: &str, _: Stage) -> u32 {
        256
    }

    fn symbols(&self, _: &str) -> Option<&Path> {
        None
    }

    fn patience(&self, _: &str) -> u32 {
        1
    }
}

impl Guest for Member {
    fn run(&mut self, errand: &Errand<'_>, _: &mut dyn FnMut(&str)) -> Result<Outcome, Loss> {
        if errand.name == "lonely" {
            for _ in 0..100 {
                let others = self.there.now.load(Ordering::SeqCst) - 1;
                let most = &self.there.beside_the_lonely;
                most.fetch_max(others, Ordering::SeqCst);
                std::thread::sleep(Duration::from_millis(1));
            }
        } else {
            let begun = Instant::now();
            while self.there.most.load(Ordering::SeqCst) < self.awaited
                && begun.elapsed() < Duration::from_secs(20)
            {
                std::thread::sleep(Duration::from_millis(1));
            }
            // Long enough to be met by one that comes next.
            std::thread::sleep(Duration::from_millis(30));
        }
        Ok(Outcome {
            status: Status::Pass,
            detail: String::new(),
            evidence: Vec::new(),
        })
    }

    fn power_off(self: Box<Self>) -> Result<(), Loss> {
        self.there.now.fetch_sub(1, Ordering::SeqCst);
        Ok(())
    }
}

fn nothing(_: &mut Setting) -> anyhow::Result<()> {
    unreachable!("cases run in guests")
}

static CASES: [Case; 7] = [
    Case::new(Group::Tx, "first", nothing),
    Case::new(Group::Tx, "second", nothing),
    Case::new(Group::Dump, "lonely", nothing).alone(),
    Case::new(Group::Tx, "third", nothing),
    Case::new(Group::Tx, "fourth", nothing),
    Case::new(Group::Tx, "fifth", nothing),
    Case::new(Group::Tx, "sixth", nothing),
];

struct Silence;

impl Renderer for Silence {
    fn show(&mut self, _: &Event) {}
}

/// A run of all cases, or of a group of them.
fn run(
    room: Room,
    group: Option<&str>,
    awaited: usize,
    report: &Path,
) -> (Result<Results, Error>, Arc<Count>) {
    let there = Arc::new(Count::default());
    let matrix = [Candidate {
        name: String::from("6.1"),
        base: String::from("6.1"),
        series: true,
        ringed: true,
        group: None,
        debug: false,
    }];
    let request = Request {
        filters: &[],
        group,
        kernel: None,
        partition: None,
        rounds: Rounds {
            seed: 9,
            repeat: 1,
            cold: false,
        },
    };
    let run = Run {
        plan: plan(&CASES, &matrix, &request).unwrap(),
        seed: 9,
        room,
        report: Report::open(report).unwrap(),
        root: Path::new("/tree").to_owned(),
    };
    let crowd = Crowd {
        there: Arc::clone(&there),
        awaited,
    };
    let prepare =
        |_: &[String], _: &mut dyn FnMut(Event)| Ok(Box::new(crowd) as Box<dyn Hypervisor>);
    (run.carry_out(prepare, &mut Silence), there)
}

#[test]
fn vms_are_as_many_as_asked_for_and_as_memory_is_there_for() {
    for (vms, memory_mib, most) in [(3, 4096, 3), (4, 600, 2), (4, 256, 1)] {
        let directory = tempfile::tempdir().unwrap();
        let (results, there) = run(
            Room::of(vms, memory_mib),
            Some("tx"),
            most,
            directory.path(),
        );
        assert_eq!(results.unwrap().totals.infra, 0);
        let seen = there.most.load(Ordering::SeqCst);
        assert_eq!(seen, most, "{vms} VMs in {memory_mib} MiB");
    }
}

#[test]
fn a_case_that_asks_to_run_alone_does() {
    let directory = tempfile::tempdir().unwrap();
    let (results, there) = run(Room::of(4, 4096), None, 2, directory.path());
    assert!(results.is_ok());
    assert_eq!(there.beside_the_lonely.load(Ordering::SeqCst), 0);
    assert!(
        there.most.load(Ordering::SeqCst) > 1,
        "others were together"
    );
}

#[test]
fn where_not_one_vm_fits_that_is_an_error_before_anything_runs() {
    let directory = tempfile::tempdir().unwrap();
    let (results, there) = run(Room::of(4, 255), None, 1, directory.path());
    let error = results.unwrap_err();
    assert_eq!(error.exit_status(), 3);
    let text = error.to_string();
    assert!(text.contains("256 MiB") && !text.contains('\n'), "{text}");
    assert_eq!(there.most.load(Ordering::SeqCst), 0);
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
