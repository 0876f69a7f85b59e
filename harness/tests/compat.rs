// SPDX-License-Identifier: MIT OR Apache-2.0
//! The group `compat`, from plan to verdicts, on VMs in which selftests say whatever they are called.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use nlring_cases::compat::evidence;
use nlring_cases::{Case, Group, Kernel, Setting};
use nlring_channel::{LOG_MARK, LOG_MARK_END, Outcome, Status};
use nlring_harness::case_run::{Errand, Guest, Hypervisor, Stage};
use nlring_harness::event::Event;
use nlring_harness::loss::Loss;
use nlring_harness::place::Candidate;
use nlring_harness::plan::{Request, Rounds, plan};
use nlring_harness::render::Renderer;
use nlring_harness::report::Report;
use nlring_harness::results::{CaseResult, Results};
use nlring_harness::room::Room;
use nlring_harness::run::Run;
use nlring_harness::verdict::Verdict;

const BANNER: &str = "[    0.000000] Linux version 6.1.1 (a@b) #1 SMP\n";
const WARNING: &str =
    "[    1.000000] WARNING: CPU: 0 PID: 9 at net/netlink/ring.c:7 ring_take+0x1/0x2\n";

/// VMs in which a program does what its name says on the kernel without the series, the one with it,
/// and the ringed one.
struct Puppets;

struct Puppet {
    kernel: String,
    round: u32,
    jobs: u32,
    console: PathBuf,
}

impl Hypervisor for Puppets {
    fn start(&self, kernel: &str, stage: Stage, console: &Path) -> Result<Box<dyn Guest>, Loss> {
        assert_eq!(stage, Stage::Host);
        fs::write(console, BANNER).unwrap();
        let name = console.file_name().unwrap().to_str().unwrap();
        let round = name.strip_prefix(kernel).unwrap()[1..2].parse().unwrap();
        Ok(Box::new(Puppet {
            kernel: kernel.to_owned(),
            round,
            jobs: 0,
            console: console.to_owned(),
        }))
    }

    fn memory_mib(&self, _: &str, stage: Stage) -> u32 {
        assert_eq!(stage, Stage::Host);
        1024
    }

    fn symbols(&self, _: &str) -> Option<&Path> {
        None
    }

    fn patience(&self, _: &str) -> u32 {
        5
    }
}

impl Puppet {
    fn log(&self, line: &str) {
        let log = fs::read_to_string(&self.console).unwrap();
        fs::write(&self.console, log + line).unwrap();
    }
}

impl Guest for Puppet {
    fn run(&mut self, errand: &Errand<'_>, _: &mut dyn FnMut(&str)) -> Result<Outcome, Loss> {
        let (kernel, round) = (self.kernel.as_str(), self.round);
        let (mut exit, mut frames, mut status) = (0, 0, Status::Pass);
        let mut said = ["PASS: one", "    TEST: two     [ OK ]"]
            .map(str::to_owned)
            .to_vec();
        if kernel == "c" {
            frames = 100;
        }
        self.jobs += 1;
        self.log(&format!(
            "[    1.000000] {LOG_MARK}{}{LOG_MARK_END}\n",
            self.jobs
        ));
        match (errand.name, kernel) {
            ("differs_once", "c") if round == 2 => said[0] = String::from("FAIL: one"),
            ("is_unstable_without_the_series", "c-plain") if round == 3 => {
                said[0] = String::from("FAIL: one");
            }
            ("ends_otherwise", "c-off") => exit = 1,
            ("lacks_a_subtest", "c") => drop(said.pop()),
            ("has_one_more", "c") => said.push(String::from("ok 1 three")),
            ("meets_no_busy_ring", "c") => frames = 0,
            ("meets_a_ring_too_early", "c-off") => frames = 1,
            ("fails_everywhere", _) => {
                said[1] = String::from("TEST: two [FAIL]");
                exit = 1;
            }
            ("skips_itself", _) => {
                said = vec![String::from("SKIP: no such tool")];
                exit = 4;
            }
            ("skips_a_part_of_itself", _) => {
                said[1] = String::from("SKIP: no such module");
                exit = 4;
            }
            ("is_unmet", _) => status = Status::Skip,
            ("does_not_end", "c") | ("does_not_end_without_the_series", "c-plain") => {
                status = Status::Fail;
            }
            ("warns", "c") | ("warns_without_the_series", "c-plain") if round == 1 => {
                self.log(WARNING);
            }
            ("is_lost", "c-off") if round == 2 => return Err(String::from("lost the VM").into()),
            _ => {}
        }
        let mut lines = vec![
            format!("{}exit status: {exit}", evidence::ENDING),
            format!("{}{frames}", evidence::IN_FRAMES),
            format!("{}{}", evidence::BY_COPY, 100 - frames),
        ];
        lines.extend(
            said.iter()
                .map(|line| format!("{}{line}", evidence::OUTPUT)),
        );
        Ok(Outcome {
            status,
            detail: format!("{} said so", errand.name),
            evidence: lines,
        })
    }

    fn power_off(self: Box<Self>) -> Result<(), Loss> {
        Ok(())
    }
}

const fn case(name: &'static str) -> Case {
    let run = |_: &mut Setting| -> anyhow::Result<()> { unreachable!("cases run in guests") };
    Case::new(Group::Compat, name, run)
        .on(Kernel::Any)
        .within(2)
}

static CASES: [Case; 16] = [
    case("says_the_same"),
    case("differs_once"),
    case("is_unstable_without_the_series"),
    case("ends_otherwise"),
    case("lacks_a_subtest"),
    case("has_one_more"),
    case("meets_no_busy_ring"),
    case("meets_a_ring_too_early"),
    case("fails_everywhere"),
    case("skips_itself"),
    case("skips_a_part_of_itself"),
    case("is_unmet"),
    case("does_not_end"),
    case("does_not_end_without_the_series"),
    case("warns"),
    case("warns_without_the_series"),
];

static WITH_A_LOSS: [Case; 2] = [case("says_the_same"), case("is_lost")];

/// Keeps the sessions it is told of.
#[derive(Default)]
struct Recorder(Vec<String>);

impl Renderer for Recorder {
    fn show(&mut self, event: &Event) {
        if let Event::Session { kernel, round, .. } = event {
            self.0.push(format!("{kernel} {round}"));
        }
    }
}

fn run(cases: &'static [Case], report: &Path) -> (Results, Recorder) {
    let candidate = |name: &str, series, ringed| Candidate {
        name: name.to_owned(),
        base: String::from("6.1"),
        series,
        ringed,
        group: Some(String::from("compat")),
        debug: false,
    };
    let matrix = [
        candidate("c-plain", false, false),
        candidate("c-off", true, false),
        candidate("c", true, true),
    ];
    let request = Request {
        filters: &[],
        group: Some("compat"),
        kernel: None,
        partition: None,
        rounds: Rounds {
            seed: 9,
            repeat: 1,
            cold: false,
        },
    };
    let run = Run {
        plan: plan(cases, &matrix, &request).unwrap(),
        seed: 9,
        room: Room::of(2, 4096),
        report: Report::open(report).unwrap(),
        root: Path::new("/tree").to_owned(),
    };
    let mut recorder = Recorder::default();
    let results = run.carry_out(
        |kernels: &[String], _: &mut dyn FnMut(Event)| {
            assert_eq!(kernels, ["c-plain", "c-off", "c"]);
            Ok(Box::new(Puppets) as Box<dyn Hypervisor>)
        },
        &mut recorder,
    );
    (results.unwrap(), recorder)
}

fn told(case: &CaseResult, text: &str) {
    let found = case.detail.contains(text) || case.evidence.iter().any(|line| line.contains(text));
    assert!(found, "no {text:?} in {case:#?}");
}

#[test]
fn every_way_in_which_a_selftest_can_differ_has_its_verdict() {
    let directory = tempfile::tempdir().unwrap();
    let (results, recorder) = run(&CASES, directory.path());
    let expected = [
        (
            "says_the_same",
            Verdict::Pass,
            "2 subtests and the exit status alike",
        ),
        (
            "differs_once",
            Verdict::Fail,
            "one: pass, pass, pass on c-plain; pass, pass, pass on c-off; pass, fail, pass on c",
        ),
        (
            "is_unstable_without_the_series",
            Verdict::Pass,
            "unstable on c-plain itself: one: pass, pass, fail",
        ),
        (
            "ends_otherwise",
            Verdict::Fail,
            "exit status: 1, exit status: 1, exit status: 1 on c-off",
        ),
        (
            "lacks_a_subtest",
            Verdict::Fail,
            "absent, absent, absent on c",
        ),
        (
            "has_one_more",
            Verdict::Fail,
            "three: absent, absent, absent on c-plain",
        ),
        ("meets_no_busy_ring", Verdict::Fail, "received nothing"),
        (
            "meets_a_ring_too_early",
            Verdict::Infra,
            "not what their names say",
        ),
        ("fails_everywhere", Verdict::Pass, "fail on all alike: two"),
        ("skips_itself", Verdict::Skip, "no such tool"),
        (
            "skips_a_part_of_itself",
            Verdict::Pass,
            "skip on all alike: no such module",
        ),
        ("is_unmet", Verdict::Skip, "is_unmet said so"),
        (
            "does_not_end",
            Verdict::Fail,
            "on c, session 1: does_not_end said so",
        ),
        (
            "does_not_end_without_the_series",
            Verdict::Infra,
            "nothing to compare with: on c-plain",
        ),
        (
            "warns",
            Verdict::Fail,
            "kernel log of c, session 1: WARNING",
        ),
        (
            "warns_without_the_series",
            Verdict::Infra,
            "complains itself",
        ),
    ];
    assert_eq!(results.cases.len(), expected.len());
    for (case, (name, verdict, text)) in results.cases.iter().zip(expected) {
        assert_eq!(
            (case.name.as_str(), case.verdict),
            (name, verdict),
            "{case:#?}"
        );
        told(case, text);
        assert_eq!(case.kernel.as_deref(), Some("c"));
        let folder = directory.path().join(name);
        assert!(folder.join("outcome.json").is_file() && folder.join("c-off.3.txt").is_file());
        if verdict == Verdict::Fail {
            told(
                case,
                &format!("again: ci/nlring run compat::{name} --kernel c --seed 9"),
            );
        }
    }
    told(&results.cases[0], "300 messages through the busy ring");
    let mut sessions: BTreeMap<String, u32> = BTreeMap::new();
    for session in recorder.0 {
        *sessions.entry(session).or_default() += 1;
    }
    assert_eq!(sessions.len(), 9, "{sessions:?}");
    assert!(sessions.values().all(|&times| times == 1), "{sessions:?}");
}

#[test]
fn a_session_that_is_lost_is_no_verdict_on_anything_in_it() {
    let directory = tempfile::tempdir().unwrap();
    let (results, _) = run(&WITH_A_LOSS, directory.path());
    for case in &results.cases {
        assert_eq!(case.verdict, Verdict::Infra, "{case:#?}");
        told(case, "is_lost on c-off: lost the VM");
    }
}
