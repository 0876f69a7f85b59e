// SPDX-License-Identifier: MIT OR Apache-2.0
//! The corpus of the splat detector: a folder for each log, with what must be found in it.
//!
//! `expected` is `clean`, `unreadable`, or for each splat, in order, a line `kind: headline`, one with the job
//! that it fell into, if any, and one with what its fingerprint is made of. A log that was judged wrongly in
//! earnest belongs here, under the name of what was wrong.
//!
//! Where the banner says `nlring@nlring` the log is real: of a kernel 6.1 that was broken on purpose. Most were
//! by `tests/provoke/provoke`, and their command line tells with which fault; those named after a mutant are
//! consoles of `nlring mutants`, two of them of the same fault. Left out are most lines of the boot, and what
//! repeats itself. Of the others, those of KASAN, KCSAN, lockdep, kmemleak, UBSAN, and whatever
//! needs a program's half line or another kernel, were written by hand from the kernel's own formats.

use std::fmt::Write as _;
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
        if !folder.is_dir() {
            continue;
        }
        let expected = fs::read_to_string(folder.join("expected")).unwrap();
        let found = describe(&folder.join("console.log"));
        seen += 1;
        if found != expected {
            let name = folder.file_name().unwrap().to_string_lossy();
            wrong.push(format!("{name}, expected:\n{expected}found:\n{found}"));
        }
    }
    assert!(
        wrong.is_empty(),
        "{} of {seen} logs:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
    assert!(seen >= 60, "only {seen} logs: is the corpus whole?");
}

fn describe(log: &Path) -> String {
    let Ok(scan) = Scan::of_file(log) else {
        return String::from("unreadable\n");
    };
    if scan.splats.is_empty() {
        return String::from("clean\n");
    }
    let mut text = String::new();
    for splat in &scan.splats {
        let _ = writeln!(text, "{}: {}", splat.kind, splat.headline);
        if let Some(job) = splat.job {
            let _ = writeln!(text, "  job {job}");
        }
        let _ = writeln!(text, "  in {}", splat.fingerprint().frames.join(" < "));
    }
    text
}
