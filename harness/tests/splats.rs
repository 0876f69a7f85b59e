// SPDX-License-Identifier: MIT OR Apache-2.0
//! The corpus of the splat detector: a folder for each log, with what must be found in it.
//!
//! `expected` is `clean`, `unreadable`, or a line `kind: headline` for each splat, in order. Written from
//! the kernel's own formats; a log that was judged wrongly in earnest belongs here, under the name of
//! what was wrong.

use std::fs;
use std::path::Path;

use nlring_harness::splat::Scan;

#[test]
fn every_log_of_the_corpus_is_judged_as_expected() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/splats");
    let mut wrong = Vec::new();
    let mut seen = 0;
    for entry in fs::read_dir(&corpus).unwrap() {
        let folder = entry.unwrap().path();
        let expected = fs::read_to_string(folder.join("expected")).unwrap();
        let found = describe(&folder.join("console.log"));
        seen += 1;
        if found != expected {
            let name = folder.file_name().unwrap().to_string_lossy();
            wrong.push(format!(
                "{name}\n  expected: {expected:?}\n  found:    {found:?}"
            ));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {seen} logs:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(seen >= 30, "only {seen} logs: is the corpus whole?");
}

fn describe(log: &Path) -> String {
    let Ok(scan) = Scan::of_file(log) else {
        return String::from("unreadable\n");
    };
    if scan.splats.is_empty() {
        return String::from("clean\n");
    }
    let lines = scan
        .splats
        .iter()
        .map(|splat| format!("{}: {}\n", splat.kind, splat.headline));
    lines.collect()
}
