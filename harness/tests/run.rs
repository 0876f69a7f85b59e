// SPDX-License-Identifier: MIT OR Apache-2.0
//! A whole run, from plan to report, on VMs that misbehave in every way that VMs do.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use nlring_cases::{Case, Group, Kernel, Setting};
use nlring_channel::{LOG_MARK, LOG_MARK_END, Outcome, Status};
use nlring_harness::case_run::{Errand, Guest, Hypervisor, Stage};
use nlring_harness::error::Error;
use nlring_harness::event::Event;
use nlring_harness::loss::Loss;
use nlring_harness::partition::Partition;
use nlring_harness::place::Candidate;
use nlring_harness::plan::{Request, Rounds, plan};
use nlring_harness::render::Renderer;
use nlring_harness::report::Report;
use nlring_harness::repro::Recipe;
use nlring_harness::results::{self, Results};
use nlring_harness::room::Room;
use nlring_harness::run::Run;
use nlring_harness::unknown_case;
use nlring_harness::verdict::Verdict;
use nlring_vm::VmError;
use nlring_vm::end::{End, Manner};

const BANNER: &str = "[    0.000000] Linux version 6.1.1 (a@b) #1 SMP\n";
const WARNING: &str =
    "[    1.000000] WARNING: CPU: 0 PID: 9 at net/netlink/ring.c:7 ring_take+0x1/0x2\n";

const ANNOUNCED: Option<&str> = Some("warning: ring_take");

/// VMs that do what the name of the case says.
struct Puppets;

struct Puppet {
    console: std::path::PathBuf,
    name: String,
    jobs: u32,
}

impl Hypervisor for Puppets {
    fn start(&self, kernel: &str, _: Stage, console: &Path) -> Result<Box<dyn Guest>, Loss> {
        if kernel == "dead" {
            fs::write(console, "SeaBIOS\n").unwrap();
            return Err(String::from("cannot boot kernel dead: no word from the guest").into());
        }
        fs::write(console, BANNER).unwrap();
        for capture in ["far0.pcap", "near0.pcap"] {
            fs::write(console.with_file_name(capture), "").unwrap();
        }
        Ok(Box::new(Puppet {
            console: console.to_owned(),
            name: String::new(),
            jobs: 0,
        }))
    }

    fn memory_mib(&self, _: &str, _: Stage) -> u32 {
        256
    }

    fn symbols(&self, _: &str) -> Option<&Path> {
        Some(Path::new("/nonexistent/vmlinux"))
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
    fn run(&mut self, errand: &Errand<'_>, on_note: &mut dyn FnMut(&str)) -> Result<Outcome, Loss> {
        errand.name.clone_into(&mut self.name);
        assert_eq!(
            (errand.patience, errand.deadline),
            (5, Duration::from_secs(10))
        );
        on_note("half way");
        self.jobs += 1;
        if errand.name != "does_not_mark_its_log" || self.jobs == 1 {
            self.log(&format!(
                "[    1.000000] {LOG_MARK}{}{LOG_MARK_END}\n",
                self.jobs
            ));
        }
        let status = match errand.name {
            "says_fail" => Status::Fail,
            "says_skip" => Status::Skip,
            "is_lost" | "is_lost_to_a_splat" => {
                if errand.name.ends_with("splat") {
                    self.log(WARNING);
                }
                return Err(String::from("lost the VM: QEMU ended").into());
            }
            "panics_unheard" => return Err(panicked(&self.console)),
            "is_unknown_to_the_guest" => return Ok(unknown_case::outcome(errand.name)),
            "warns_in_the_third_round" if self.jobs == 3 => {
                self.log(WARNING);
                Status::Pass
            }
            "fails_in_the_third_round" if self.jobs == 3 => Status::Fail,
            "is_lost_in_the_third_round" if self.jobs == 3 => {
                return Err(String::from("lost the VM: QEMU ended").into());
            }
            "warns" | "warns_as_announced" | "warns_otherwise_than_announced" => {
                self.log(WARNING);
                Status::Pass
            }
            "warns_as_announced_and_once_more" => {
                self.log(WARNING);
                self.log(&WARNING.replace("ring_take", "ring_give"));
                Status::Pass
            }
            "loses_its_log" => {
                fs::remove_file(&self.console).unwrap();
                Status::Pass
            }
            _ => Status::Pass,
        };
        let detail = format!("{} said\nso", errand.name);
        Ok(Outcome {
            status,
            detail,
            evidence: vec![format!("seed {}", errand.seed)],
        })
    }

    fn power_off(self: Box<Self>) -> Result<(), Loss> {
        match self.name.as_str() {
            "never_powers_off" => Err(String::from("QEMU did not end").into()),
            "warns_at_power_off" => {
                self.log(WARNING);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// What is known of a guest whose panic reached QEMU and not its console.
fn panicked(console: &Path) -> Loss {
    let end = End {
        manner: Manner::Crash,
        what: String::from("the guest's kernel panicked"),
        panicked: true,
        witnesses: vec![String::from("pvpanic: the guest's kernel panicked")],
        last: String::new(),
        console: console.to_owned(),
    };
    Loss::from(VmError::Ended {
        tried: String::from("no outcome of it"),
        end: Box::new(end),
    })
}

const fn case(name: &'static str, kernel: Kernel, expects_splat: Option<&'static str>) -> Case {
    let run = |_: &mut Setting| -> anyhow::Result<()> { unreachable!("cases run in guests") };
    Case {
        expects_splat,
        ..Case::new(Group::Ordering, name, run).on(kernel).within(2)
    }
}

static CASES: [Case; 17] = [
    case("is_unknown_to_the_guest", Kernel::Ringed, None),
    case("says_pass", Kernel::Ringed, None),
    case("says_fail", Kernel::Ringed, None),
    case("says_skip", Kernel::Ringed, None),
    case("is_lost", Kernel::Ringed, None),
    case("is_lost_to_a_splat", Kernel::Ringed, None),
    case("panics_unheard", Kernel::Ringed, None),
    case("warns", Kernel::Ringed, None),
    case("warns_as_announced", Kernel::Ringed, ANNOUNCED),
    case(
        "warns_as_announced_and_once_more",
        Kernel::Ringed,
        ANNOUNCED,
    ),
    case(
        "warns_otherwise_than_announced",
        Kernel::Ringed,
        Some("warning: ring_give"),
    ),
    case("announces_and_does_not_warn", Kernel::Ringed, ANNOUNCED),
    case("loses_its_log", Kernel::Ringed, None),
    case("never_powers_off", Kernel::Ringed, None),
    case("warns_at_power_off", Kernel::Ringed, None),
    case("never_boots", Kernel::Plain, None),
    case("says_pass_too", Kernel::Any, None),
];

/// Keeps the names of what it is shown.
#[derive(Default)]
struct Recorder(Vec<String>);

impl Renderer for Recorder {
    fn show(&mut self, event: &Event) {
        let text = format!("{event:?}");
        self.0.push(
            text.split([' ', '(', '{'])
                .next()
                .unwrap_or_default()
                .to_owned(),
        );
    }
}

fn kernel(name: &str) -> results::Kernel {
    results::Kernel {
        name: name.to_owned(),
        release: String::from("6.1.1"),
        base: String::from("linux-source-6.1"),
        series_sha256: String::new(),
        config_sha256: String::new(),
        compiler: String::new(),
    }
}

fn matrix() -> Vec<Candidate> {
    let candidate = |name: &str, ringed| Candidate {
        name: name.to_owned(),
        base: String::from("6.1"),
        series: true,
        ringed,
        group: None,
        debug: false,
    };
    vec![candidate("6.1", true), candidate("dead", false)]
}

fn request(filters: &[String]) -> Request<'_> {
    repeated(filters, 1)
}

fn repeated(filters: &[String], repeat: u32) -> Request<'_> {
    Request {
        filters,
        group: None,
        kernel: None,
        partition: None,
        rounds: Rounds {
            seed: 9,
            repeat,
            cold: false,
        },
    }
}

fn run(request: &Request<'_>, jobs: usize, report: &Path) -> (Results, Recorder) {
    let plan = plan(&CASES, &matrix(), request).unwrap();
    let mut recorder = Recorder::default();
    let run = Run {
        plan,
        seed: request.rounds.seed,
        room: Room::of(jobs, 4096),
        report: Report::open(report).unwrap(),
        root: Path::new("/tree").to_owned(),
    };
    let prepare = |kernels: &[String], on: &mut dyn FnMut(Event)| {
        for name in kernels {
            on(Event::KernelReady {
                kernel: kernel(name),
                built_in: None,
            });
        }
        Ok(Box::new(Puppets) as Box<dyn Hypervisor>)
    };
    let results = run.carry_out(prepare, &mut recorder).unwrap();
    (results, recorder)
}

#[test]
fn every_way_of_a_vm_has_its_verdict_in_the_report() {
    let directory = tempfile::tempdir().unwrap();
    let (results, _) = run(&request(&[]), 3, directory.path());
    let verdicts: BTreeMap<&str, Verdict> = results
        .cases
        .iter()
        .map(|case| (case.name.as_str(), case.verdict))
        .collect();
    let expected = [
        ("announces_and_does_not_warn", Verdict::Fail),
        ("is_lost", Verdict::Infra),
        ("is_lost_to_a_splat", Verdict::Fail),
        ("is_unknown_to_the_guest", Verdict::Infra),
        ("loses_its_log", Verdict::Infra),
        ("never_boots", Verdict::Infra),
        ("never_powers_off", Verdict::Infra),
        ("panics_unheard", Verdict::Fail),
        ("says_fail", Verdict::Fail),
        ("says_pass", Verdict::Pass),
        ("says_pass_too", Verdict::Pass),
        ("says_skip", Verdict::Skip),
        ("warns", Verdict::Fail),
        ("warns_as_announced", Verdict::Pass),
        ("warns_as_announced_and_once_more", Verdict::Fail),
        ("warns_at_power_off", Verdict::Fail),
        ("warns_otherwise_than_announced", Verdict::Fail),
    ];
    assert_eq!(
        verdicts.into_iter().collect::<Vec<_>>(),
        expected,
        "{results:#?}"
    );
    let order: Vec<&str> = results
        .cases
        .iter()
        .map(|case| case.name.as_str())
        .collect();
    assert_eq!(
        order,
        CASES.map(|case| case.name),
        "the order of the plan, whoever was first"
    );

    for case in &results.cases {
        assert!(!case.detail.contains('\n'), "{case:?}");
        let folder = directory.path().join(&case.name);
        assert!(folder.join("outcome.json").is_file(), "{case:?}");
        let again = case
            .evidence
            .iter()
            .any(|line| line.contains(&format!("run {} --kernel", case.name)));
        assert_eq!(
            again,
            matches!(case.verdict, Verdict::Fail | Verdict::Infra),
            "{case:?}"
        );
        assert_eq!(
            case.start_ms.is_none(),
            case.name == "never_boots",
            "{case:?}"
        );
        let recipe = Recipe::read(&folder);
        assert_eq!(recipe.is_ok(), again && case.kernel.is_some(), "{case:?}");
        let captures: Vec<_> = ["far0", "near0"]
            .map(|nic| format!("capture: {}/{nic}.pcap", case.name))
            .into_iter()
            .filter(|line| case.evidence.contains(line))
            .collect();
        let kept = again && case.start_ms.is_some();
        assert_eq!(captures.len(), if kept { 2 } else { 0 }, "{case:?}");
        assert_eq!(folder.join("near0.pcap").is_file(), kept, "{case:?}");
    }
    let case = |name: &str| results.cases.iter().find(|case| case.name == name).unwrap();
    let unheard = case("panics_unheard");
    assert!(
        unheard
            .detail
            .contains("crash: the guest's kernel panicked")
    );
    for line in [
        "end of the VM: crash: the guest's kernel panicked",
        "pvpanic: the guest's kernel panicked",
    ] {
        assert!(
            unheard.evidence.iter().any(|seen| seen == line),
            "{unheard:?}"
        );
    }
    let written = fs::read_to_string(directory.path().join("results.json")).unwrap();
    assert_eq!(serde_json::from_str::<Results>(&written).unwrap(), results);
    assert_eq!(results.totals.exit_status(), 1);
}

#[test]
fn a_splat_is_kept_with_its_fingerprint_also_where_the_kernels_image_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let (results, _) = run(&request(&[]), 1, directory.path());
    let mut fingerprints: BTreeMap<&str, &str> = BTreeMap::new();
    for case in &results.cases {
        let evidence = |what| {
            case.evidence
                .iter()
                .find_map(|line| line.strip_prefix(what))
        };
        let path = directory.path().join(&case.name).join("splat.txt");
        let Some(fingerprint) = evidence("fingerprint: ") else {
            assert!(!path.exists(), "{case:?}");
            continue;
        };
        let hash = fingerprint.split(' ').next().unwrap();
        let log = evidence("kernel log: ").unwrap();
        assert!(log.ends_with(&format!(", warning {hash})")), "{log}");
        fingerprints.insert(&case.name, hash);
        assert_eq!(
            evidence("splat: "),
            Some(&*format!("{}/splat.txt", case.name))
        );
        let text = fs::read_to_string(path).unwrap();
        for part in [
            "no lines of the source: cannot read /nonexistent/vmlinux",
            fingerprint,
            "\nWARNING: CPU: 0 PID: 9 at net/netlink/ring.c:7 ring_take+0x1/0x2\n",
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
    }
    assert_eq!(fingerprints["warns"], fingerprints["is_lost_to_a_splat"]);
    assert_eq!(fingerprints.len(), 6, "{fingerprints:?}");
}

#[test]
fn a_run_is_told_in_order() {
    let directory = tempfile::tempdir().unwrap();
    let filters = [String::from("says_pass_too")];
    let (_, recorder) = run(&request(&filters), 1, directory.path());
    assert_eq!(
        recorder.0,
        [
            "Planned",
            "KernelReady",
            "Started",
            "Ready",
            "Note",
            "Judged",
            "Reported"
        ]
    );
}

#[test]
fn a_plan_of_skips_prepares_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let filters = [String::from("says_pass")];
    let asked = Request {
        kernel: Some("dead"),
        partition: "1/2".parse::<Partition>().ok(),
        ..request(&filters)
    };
    let plan = plan(&CASES, &matrix(), &asked).unwrap();
    let run = Run {
        plan,
        seed: 9,
        room: Room::of(1, 4096),
        report: Report::open(directory.path()).unwrap(),
        root: Path::new("/tree").to_owned(),
    };
    let prepare = |_: &[String], _: &mut dyn FnMut(Event)| -> Result<Box<dyn Hypervisor>, Error> {
        panic!("nothing needs a VM")
    };
    let results = run.carry_out(prepare, &mut Recorder::default()).unwrap();
    assert_eq!((results.totals.skip, results.totals.exit_status()), (1, 0));
    assert!(
        results.cases[0]
            .detail
            .contains("needs a kernel with memory-mapped netlink")
    );
}

#[test]
fn repetitions_get_seeds_and_folders_of_their_own() {
    let directory = tempfile::tempdir().unwrap();
    let filters = [String::from("says_fail")];
    let (results, _) = run(&repeated(&filters, 3), 2, directory.path());
    let mut seeds: Vec<u64> = results.cases.iter().map(|case| case.seed).collect();
    seeds.dedup();
    assert_eq!(seeds.len(), 3);
    for (folder, case) in ["says_fail", "says_fail.2", "says_fail.3"]
        .iter()
        .zip(&results.cases)
    {
        let outcome =
            fs::read_to_string(directory.path().join(folder).join("outcome.json")).unwrap();
        assert!(
            outcome.contains(&format!("\"seed\": {}", case.seed)),
            "{folder}"
        );
        assert!(case.evidence.contains(&format!("seed {}", case.seed)));
    }
}

const fn round(name: &'static str) -> Case {
    case(name, Kernel::Ringed, None)
}

static REPEATED: [Case; 6] = [
    round("passes"),
    round("warns_in_the_third_round"),
    round("fails_in_the_third_round"),
    round("is_lost_in_the_third_round"),
    round("does_not_mark_its_log"),
    round("never_powers_off"),
];

/// The verdicts of 25 rounds of this case, and the VMs that they were had in, by their folders.
fn rounds(name: &str) -> (Vec<Verdict>, Vec<String>) {
    let directory = tempfile::tempdir().unwrap();
    let filters = [name.to_owned()];
    let asked = repeated(&filters, 25);
    let run = Run {
        plan: plan(&REPEATED, &matrix(), &asked).unwrap(),
        seed: 9,
        room: Room::of(2, 4096),
        report: Report::open(directory.path()).unwrap(),
        root: Path::new("/tree").to_owned(),
    };
    let prepare =
        |_: &[String], _: &mut dyn FnMut(Event)| Ok(Box::new(Puppets) as Box<dyn Hypervisor>);
    let results = run.carry_out(prepare, &mut Recorder::default()).unwrap();
    for (case, repetition) in results.cases.iter().zip(1..) {
        let console = case
            .evidence
            .iter()
            .find_map(|line| line.strip_prefix("console: "));
        let folder = console.unwrap().strip_suffix("/console.log").unwrap();
        let own = match repetition {
            1 => name.to_owned(),
            _ => format!("{name}.{repetition}"),
        };
        let outcome = if folder == own {
            format!("{folder}/outcome.json")
        } else {
            format!("{folder}/outcome.{repetition}.json")
        };
        let outcome = fs::read_to_string(directory.path().join(outcome)).unwrap();
        assert!(outcome.contains(&format!("\"seed\": {}", case.seed)));
        assert_eq!(
            case.start_ms.is_some(),
            folder == own,
            "only the first waits for the VM"
        );
    }
    let mut vms: Vec<String> = fs::read_dir(directory.path())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .collect();
    vms.sort_by_key(|vm| {
        vm.rsplit('.')
            .next()
            .and_then(|number| number.parse::<u32>().ok())
    });
    let vms = vms.into_iter().map(|vm| vm.replace(name, "")).collect();
    (results.cases.iter().map(|case| case.verdict).collect(), vms)
}

#[test]
fn rounds_share_a_vm_until_one_does_not_pass() {
    use Verdict::{Fail, Infra, Pass};
    let third = |verdict| {
        let each = (1..=25).map(|round| {
            if round % 3 == 0 && round <= 24 {
                verdict
            } else {
                Pass
            }
        });
        each.collect::<Vec<_>>()
    };
    let by_threes = ["", ".4", ".7", ".10", ".13", ".16", ".19", ".21", ".24"];
    assert_eq!(
        rounds("passes"),
        (vec![Pass; 25], ["", ".21"].map(String::from).to_vec())
    );
    for (name, verdict) in [
        ("warns_in_the_third_round", Fail),
        ("fails_in_the_third_round", Fail),
        ("is_lost_in_the_third_round", Infra),
    ] {
        // Twenty rounds are one worker's, the other five the next one's.
        let (verdicts, vms) = rounds(name);
        let mut expected = third(verdict)[..20].to_vec();
        expected.extend(&third(verdict)[..5]);
        assert_eq!(verdicts, expected, "{name}");
        assert_eq!(vms, by_threes, "{name}");
    }
    // A log that does not tell the rounds apart is no witness of any but those that it tells.
    let (verdicts, _) = rounds("does_not_mark_its_log");
    let unmarked = verdicts.iter().filter(|verdict| **verdict == Infra).count();
    assert_eq!(unmarked, 25 - 2, "{verdicts:?}");
    assert_eq!(rounds("never_powers_off").0, vec![Infra; 25]);
}

#[test]
fn an_older_runs_evidence_is_not_taken_for_this_ones() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir_all(directory.path().join("says_pass_too")).unwrap();
    let stale = directory.path().join("says_pass_too/old.pcap");
    fs::write(&stale, "").unwrap();
    let filters = [String::from("says_pass_too")];
    run(&request(&filters), 1, directory.path());
    assert!(!stale.exists());
}

#[test]
fn what_cannot_be_prepared_is_an_error_and_leaves_no_report() {
    let directory = tempfile::tempdir().unwrap();
    let plan = plan(&CASES, &matrix(), &request(&[])).unwrap();
    let run = Run {
        plan,
        seed: 9,
        room: Room::of(1, 4096),
        report: Report::open(directory.path()).unwrap(),
        root: Path::new("/tree").to_owned(),
    };
    let begun = Instant::now();
    let prepare = |_: &[String], _: &mut dyn FnMut(Event)| -> Result<Box<dyn Hypervisor>, Error> {
        Err(Error::NothingSelected(String::from("this")))
    };
    let error = run
        .carry_out(prepare, &mut Recorder::default())
        .unwrap_err();
    assert!(matches!(error, Error::NothingSelected(_)) && begun.elapsed() < Duration::from_secs(5));
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
}
