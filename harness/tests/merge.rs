// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nlring merge`: several reports in, one out, and its status is that of a run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nlring_harness::report::Report;
use nlring_harness::results::{Accel, CaseResult, Kernel, Results, Totals};
use nlring_harness::verdict::Verdict::{self, Fail, Infra, Pass, Skip};
use tempfile::TempDir;

/// Two cases of the list, the later first.
fn names() -> [&'static str; 2] {
    let all = nlring_cases::all();
    [all[7].name, all[2].name]
}

/// A sitting in which the first of [`names`] had the first verdict, and so on; each folder has a console.
fn report(place: &Path, seed: u64, verdicts: &[Verdict], series: &str) -> PathBuf {
    let case = |(name, (verdict, seed)): (&&str, (&Verdict, u64))| CaseResult {
        name: (*name).to_owned(),
        group: String::from("ordering"),
        kernel: Some(String::from("6.1")),
        verdict: *verdict,
        duration_ms: 10,
        start_ms: Some(1),
        seed,
        detail: String::from("said so"),
        evidence: vec![
            format!("console: {name}/console.log"),
            String::from("console: ../../etc/passwd"),
            format!("again: ci/nlring run {name} --kernel 6.1 --seed {seed}"),
        ],
    };
    let names = names();
    let cases: Vec<CaseResult> = names
        .iter()
        .zip(verdicts.iter().zip(seed..))
        .map(case)
        .collect();
    for case in &cases {
        fs::create_dir_all(place.join(&case.name)).unwrap();
        fs::write(
            place.join(&case.name).join("console.log"),
            format!("log {seed}\n"),
        )
        .unwrap();
    }
    let results = Results {
        tool_version: String::from("0.1.0"),
        started: format!("2026-01-02T03:04:{:02}.000Z", 59 - seed % 60),
        duration_ms: 1000,
        accel: Some(Accel {
            name: String::from("tcg"),
            reason: format!("machine {seed}"),
        }),
        kernels: vec![Kernel {
            name: String::from("6.1"),
            release: String::from("6.1.192"),
            base: String::from("linux-source-6.1"),
            series_sha256: series.repeat(64),
            config_sha256: String::from("bb"),
            compiler: String::from("gcc 12.2.0"),
        }],
        totals: Totals::of(&cases),
        cases,
    };
    Report::open(place).unwrap().write(&results).unwrap();
    place.to_owned()
}

fn merge(directory: &TempDir, parts: &[PathBuf]) -> (Output, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nlring"));
    command.arg("merge").args(parts).arg("--report");
    command.arg(directory.path().join("whole"));
    command.env("GITHUB_STEP_SUMMARY", directory.path().join("summary"));
    let output = command.output().unwrap();
    let story = format!(
        "{}\n{}\n{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    (output, story)
}

fn merged(directory: &TempDir) -> Results {
    let text = fs::read(directory.path().join("whole/results.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

#[test]
fn counts_are_added_up_and_everything_is_written_anew() {
    let directory = tempfile::tempdir().unwrap();
    let part = |name: &str| directory.path().join(name);
    let parts = [
        report(&part("a"), 1, &[Pass, Pass], "a"),
        report(&part("b"), 20, &[Fail, Pass], "a").join("results.json"),
        report(&part("c"), 30, &[Pass], "a"),
    ];
    let (output, story) = merge(&directory, &parts);
    assert_eq!(output.status.code(), Some(1), "{story}");
    let results = merged(&directory);
    assert_eq!(
        results.totals.to_string(),
        "4 passed, 1 failed, 0 skipped, 0 infra"
    );
    assert_eq!((results.duration_ms, results.kernels.len()), (3000, 1));
    assert_eq!(results.started, "2026-01-02T03:04:29.000Z", "the earliest");
    let accel = results.accel.as_ref().unwrap();
    assert_eq!(accel.name, "tcg");
    assert_eq!(accel.reason, "machine 1; machine 20; machine 30");

    let [later, earlier] = names();
    let order: Vec<(&str, u64)> = results.cases.iter().map(|c| (&*c.name, c.seed)).collect();
    let expected = [
        (earlier, 2),
        (earlier, 21),
        (later, 1),
        (later, 20),
        (later, 30),
    ];
    assert_eq!(
        order, expected,
        "the order of the list, then that of the parts"
    );
    let failed = &results.cases[3];
    assert_eq!(
        failed.evidence[0],
        format!("console: part-2/{later}/console.log")
    );
    let console = directory
        .path()
        .join("whole/part-2")
        .join(later)
        .join("console.log");
    assert_eq!(fs::read_to_string(console).unwrap(), "log 20\n");
    assert_eq!(
        failed.evidence[1], "console: ../../etc/passwd",
        "not followed"
    );

    let rate = format!("{later} on 6.1: 2 of 3 passed, 1 failed; with --seed 20");
    assert!(story.contains(&rate), "lacks {rate}: {story}");
    let read = |name: &str| fs::read_to_string(directory.path().join(name)).unwrap();
    assert!(read("whole/junit.xml").contains("tests=\"5\""));
    assert!(read("whole/results.ktap").contains("1..5"));
    assert!(
        read("whole/index.html").contains("log 20"),
        "the console is found"
    );
    assert!(read("summary").contains("2 of 3 passed"));
}

#[test]
fn the_status_is_that_of_a_run_with_these_results() {
    for (verdict, status) in [(Pass, 0), (Skip, 0), (Fail, 1), (Infra, 3)] {
        let directory = tempfile::tempdir().unwrap();
        let parts = [
            report(&directory.path().join("a"), 1, &[Pass, Infra][..1], "a"),
            report(&directory.path().join("b"), 2, &[verdict], "a"),
        ];
        let (output, story) = merge(&directory, &parts);
        assert_eq!(output.status.code(), Some(status), "{story}");
    }
}

#[test]
fn what_cannot_be_one_report_is_refused_by_name() {
    let directory = tempfile::tempdir().unwrap();
    let part = |name: &str| directory.path().join(name);
    let one = report(&part("one"), 1, &[Pass], "a");
    let other = report(&part("other"), 2, &[Pass], "c");
    let nothing = part("nothing");
    let wrong = part("wrong");
    fs::write(&wrong, "{}").unwrap();
    let whole = report(&part("whole"), 3, &[Pass], "a");
    let before = fs::read(whole.join("results.json")).unwrap();
    for (parts, said) in [
        (
            [&one, &other],
            &[
                "other/results.json",
                "kernel 6.1 has series cccccccccccc",
                "one/results.json",
                "aaaaaaaaaaaa",
            ][..],
        ),
        ([&one, &one], &["is the same as"]),
        ([&one, &nothing], &["nothing", "No such file"]),
        ([&one, &wrong], &["wrong", "not a results.json"]),
        ([&one, &whole], &["whole", "--report DIR"]),
    ] {
        let (output, story) = merge(&directory, &parts.map(Clone::clone));
        assert_eq!(output.status.code(), Some(2), "{story}");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(errors.lines().count(), 1, "{story}");
        for part in said {
            assert!(errors.contains(part), "lacks {part}: {story}");
        }
    }
    assert_eq!(
        fs::read(whole.join("results.json")).unwrap(),
        before,
        "nothing was written"
    );
}
