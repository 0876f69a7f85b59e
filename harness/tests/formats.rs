// SPDX-License-Identifier: MIT OR Apache-2.0
//! Reports before other people's readers of their formats: `junit.xml` before a validator, `results.ktap`
//! before the kernel's own parser.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use nlring_harness::report::Report;
use nlring_harness::results::{Accel, CaseResult, Kernel, Results, Totals};
use nlring_harness::tree::Tree;
use nlring_harness::verdict::Verdict::{self, Fail, Infra, Pass, Skip};
use nlring_vm::matrix::Matrix;
use nlring_vm::{Cache, kernel};

/// What a guest, or a kernel that is broken, may have said: whatever a format quotes, or cannot hold.
const HOSTILE: [&str; 5] = [
    "plain words",
    "a <b> & \"c\" 'd' ]]> # e",
    "two\nlines, not ok 1 - of which # SKIP one\r\nlies",
    "esc \u{1b}[31m bell \u{7} nul \0 end \u{fffe}",
    "KTAP version 1\n1..9\n    # Subtest: none",
];

/// Each verdict with each of these words, in two groups, on two kernels, twice.
fn results(verdicts: &[Verdict]) -> Results {
    let mut cases = Vec::new();
    for (number, verdict) in verdicts.iter().enumerate() {
        for (word, text) in HOSTILE.iter().enumerate() {
            for round in 0..2 {
                cases.push(CaseResult {
                    name: format!("case_{number}_{word}"),
                    group: String::from(["ordering", "multicast"][word % 2]),
                    kernel: [None, Some(String::from("6.1"))][round % 2].clone(),
                    verdict: *verdict,
                    duration_ms: 1_234_567,
                    start_ms: Some(120),
                    seed: (1 << 53) - 1,
                    // A detail is one line.
                    detail: text.replace(['\n', '\r'], " "),
                    evidence: vec![(*text).to_owned(), String::from("console: x/console.log")],
                });
            }
        }
    }
    Results {
        tool_version: String::from("0.1.0"),
        started: String::from("2026-01-02T03:04:05.678Z"),
        duration_ms: 98_765_432,
        accel: Some(Accel {
            name: String::from("tcg"),
            reason: HOSTILE[1].to_owned(),
        }),
        kernels: vec![Kernel {
            name: String::from("6.1"),
            release: String::from("6.1.158"),
            base: String::from("linux-source-6.1"),
            series_sha256: String::from("aa"),
            config_sha256: String::from("bb"),
            compiler: String::from("gcc 12.2.0"),
        }],
        totals: Totals::of(&cases),
        cases,
    }
}

fn story(output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "{}\n{}\n{}",
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// What the validator says of this file.
fn validate(file: &Path) -> Output {
    let schema = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/junit.xsd");
    Command::new("xmllint")
        .args(["--noout", "--nonet", "--schema"])
        .arg(schema)
        .arg(file)
        .output()
        .expect("xmllint is in the Debian package libxml2-utils; ci/setup installs it")
}

#[test]
fn junit_xml_is_valid_whatever_was_said() {
    let directory = tempfile::tempdir().unwrap();
    let report = Report::open(directory.path()).unwrap();
    let file = directory.path().join("junit.xml");
    for verdicts in [&[][..], &[Pass], &[Pass, Fail, Skip, Infra]] {
        report.write(&results(verdicts)).unwrap();
        let output = validate(&file);
        assert!(output.status.success(), "{}", story(&output));
    }
    let text = fs::read_to_string(&file).unwrap();
    for (what, with) in [
        ("<failure", "<flop"),
        (" name=", " title="),
        ("errors=\"", "errors=\"x"),
    ] {
        assert!(text.contains(what), "{text}");
        fs::write(&file, text.replace(what, with)).unwrap();
        assert!(!validate(&file).status.success(), "{with} is taken");
    }
}

/// What the parser of the kernel's source says of this file: its words, and the line with its counts.
fn parse(file: &Path) -> (String, String) {
    let cache = Cache::open().unwrap();
    let tree = Tree::find().unwrap();
    let entry = Matrix::load(tree.root()).unwrap().entries()[0].clone();
    let source = kernel::pristine(&cache, &entry, &mut |_| {}).unwrap().tree;
    let output = Command::new("/usr/bin/python3")
        .arg("-B") // the source stays as it is
        .arg(source.join("tools/testing/kunit/kunit.py"))
        .arg("parse")
        .arg(file)
        .output()
        .unwrap();
    let said = story(&output);
    let counts = said
        .lines()
        .find_map(|line| line.split_once("Testing complete. "));
    let counts = counts.unwrap_or_else(|| panic!("{said}")).1.to_owned();
    (said, counts)
}

#[test]
fn the_kernels_own_parser_counts_what_we_counted() {
    let directory = tempfile::tempdir().unwrap();
    let report = Report::open(directory.path()).unwrap();
    let file = directory.path().join("results.ktap");
    for (verdicts, expected) in [
        (&[Pass][..], "Ran 10 tests: passed: 10"),
        (
            &[Pass, Fail, Skip, Infra],
            "Ran 40 tests: passed: 10, failed: 20, skipped: 10",
        ),
    ] {
        report.write(&results(verdicts)).unwrap();
        let (said, counts) = parse(&file);
        assert_eq!(counts, expected, "{said}");
    }
    // It does tell what is not as it should be: a case that a plan promises and that does not come.
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("1..2", "1..3", 1)).unwrap();
    assert!(parse(&file).1.contains("errors: 1"));
}
