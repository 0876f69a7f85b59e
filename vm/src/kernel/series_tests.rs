// SPDX-License-Identifier: MIT OR Apache-2.0
//! The series against a tree of three files.

use std::os::unix::fs::MetadataExt;

use super::*;
use crate::matrix::Source;

const TEN: &str = "1\n2\n3\n4\n5\n6\n7\n8\n9\n10\n";

struct Trees {
    root: tempfile::TempDir,
    base: Base,
}

impl Trees {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        for (file, content) in [
            ("net/ring.c", TEN),
            ("net/other.c", "other\n"),
            ("Makefile", "all:\n"),
        ] {
            let (pristine, work) = (
                root.path().join("base").join(file),
                root.path().join("work").join(file),
            );
            for path in [&pristine, &work] {
                fs::create_dir_all(path.parent().unwrap()).unwrap();
            }
            fs::write(&pristine, content).unwrap();
            fs::hard_link(&pristine, &work).unwrap();
        }
        fs::create_dir(root.path().join("patches")).unwrap();
        Self {
            root,
            base: Base {
                name: "6.1".into(),
                source: Source::Debian("x".into()),
            },
        }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.path().join(path)
    }

    fn patch(&self, name: &str, text: &str) -> &Self {
        let path = self.path("patches").join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
        self
    }

    fn bring(&self) -> Result<Series, VmError> {
        let series = Series::load(&self.path("patches"), &self.base)?;
        let scratch = tempfile::tempdir_in(self.root.path()).unwrap();
        series.bring(
            &self.base,
            &self.path("base"),
            &self.path("work"),
            scratch.path(),
        )?;
        Ok(series)
    }

    fn complaint(&self) -> String {
        let message = self.bring().unwrap_err().to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }

    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.path(file)).unwrap()
    }
}

fn change(file: &str, line: u32, from: &str, to: &str) -> String {
    format!("--- a/{file}\n+++ b/{file}\n@@ -{line} +{line} @@\n-{from}\n+{to}\n")
}

#[test]
fn the_series_goes_in_and_out_without_touching_the_base_or_what_stays_the_same() {
    let trees = Trees::new();
    trees.patch("0001-change.patch", &change("net/ring.c", 2, "2", "two"));
    trees.patch(
        "0002-new.patch",
        "--- /dev/null\n+++ b/net/new.c\n@@ -0,0 +1 @@\n+new\n",
    );
    trees.bring().unwrap();
    assert_eq!(trees.read("work/net/ring.c"), TEN.replace("2\n", "two\n"));
    assert_eq!(trees.read("work/net/new.c"), "new\n");
    let stamps = ["net/ring.c", "net/new.c", "net/other.c"].map(|file| {
        fs::metadata(trees.path("work").join(file))
            .map(|meta| (meta.ino(), meta.mtime_nsec()))
            .unwrap()
    });

    trees.patch(
        "0003-more.patch",
        &change("Makefile", 1, "all:", "all: ring"),
    );
    trees.bring().unwrap();
    let again = ["net/ring.c", "net/new.c", "net/other.c"].map(|file| {
        fs::metadata(trees.path("work").join(file))
            .map(|meta| (meta.ino(), meta.mtime_nsec()))
            .unwrap()
    });
    assert_eq!(stamps, again, "files whose content stayed were written");

    fs::remove_dir_all(trees.path("patches")).unwrap();
    trees.bring().unwrap();
    assert_eq!(trees.read("work/net/ring.c"), TEN);
    assert!(!trees.path("work/net/new.c").exists());
    let times = ["base", "work"].map(|tree| {
        fs::metadata(trees.path(tree).join("net/ring.c"))
            .unwrap()
            .mtime_nsec()
    });
    assert_ne!(
        times[0], times[1],
        "make would not see that the file went back"
    );
    assert_eq!(trees.read("base/net/ring.c"), TEN);
    assert_eq!(trees.read("base/Makefile"), "all:\n");
}

#[test]
fn a_run_that_was_cut_off_is_mended_by_the_next() {
    let trees = Trees::new();
    // As after a cut between two files of another series: noted, one of them changed.
    fs::write(trees.path("work.touched"), "net/other.c\nMakefile\n").unwrap();
    fs::remove_file(trees.path("work/net/other.c")).unwrap();
    fs::write(trees.path("work/net/other.c"), "half").unwrap();
    trees.bring().unwrap();
    assert_eq!(trees.read("work/net/other.c"), "other\n");
    assert_eq!(trees.read("work.touched"), "");
}

#[test]
fn a_patch_that_does_not_apply_is_named_with_file_and_hunk_and_changes_nothing() {
    let trees = Trees::new();
    trees.patch(
        "0001-fits.patch",
        &change("net/other.c", 1, "other", "changed"),
    );
    let two = format!(
        "{}@@ -9 +9 @@\n-nine\n+IX\n",
        change("net/ring.c", 2, "2", "two")
    );
    trees.patch("0002-ring.patch", &two);
    let message = trees.complaint();
    assert_eq!(
        message,
        "patch 0002-ring.patch does not apply to base `6.1`: hunk 2 of net/ring.c does not fit"
    );
    assert_eq!(trees.read("work/net/other.c"), "other\n");
    assert!(!trees.path("work.touched").exists());
}

#[test]
fn context_that_differs_is_not_fuzzed_over() {
    let trees = Trees::new();
    trees.patch(
        "0001-a.patch",
        "--- a/net/ring.c\n+++ b/net/ring.c\n@@ -1,3 +1,3 @@\n one\n-2\n+two\n 3\n",
    );
    assert!(trees.complaint().contains("hunk 1 of net/ring.c"));
}

#[test]
fn what_is_no_patch_is_refused_with_its_reason() {
    for (text, expected) in [
        ("just words\n", "it changes no file"),
        (&change("../../etc/passwd", 1, "x", "y"), "outside the tree"),
        (
            &change("net/gone.c", 1, "x", "y"),
            "the base has no a/net/gone.c",
        ),
        (
            "--- /dev/null\n+++ b/Makefile\n@@ -0,0 +1 @@\n+x\n",
            "the base has Makefile already",
        ),
        (
            "--- a/net/ring.c\n+++ /dev/null\n@@ -1,2 +0,0 @@\n-1\n-2\n",
            "net/ring.c has more than the patch deletes",
        ),
        (
            "--- a/net/ring.c\n+++ b/net/ring.c\n@@ -2,3 +2,3 @@\n-2\n",
            "in the middle of a hunk",
        ),
        (&change("net/ring.c", 2, "two", "2"), "net/ring.c"),
    ] {
        let trees = Trees::new();
        let message = trees.patch("0001-bad.patch", text).complaint();
        assert!(
            message.contains("0001-bad.patch") && message.contains(expected),
            "{message}\nlacks {expected}"
        );
    }
}

#[test]
fn a_base_can_have_its_own_form_of_a_patch() {
    let trees = Trees::new();
    trees.patch("0001-shared.patch", &change("net/ring.c", 2, "2", "shared"));
    trees.patch("0002-shared.patch", &change("net/ring.c", 3, "3", "shared"));
    trees.patch("6.1/0002-own.patch", &change("net/ring.c", 3, "3", "own"));
    trees.patch(
        "6.12/0001-foreign.patch",
        &change("net/ring.c", 2, "2", "foreign"),
    );
    let series = trees.bring().unwrap();
    assert_eq!(
        trees.read("work/net/ring.c"),
        TEN.replace("2\n3\n", "shared\nown\n")
    );

    let before = series.sha256();
    trees.patch("6.12/0001-foreign.patch", "no longer the same");
    assert_eq!(trees.bring().unwrap().sha256(), before);
    trees.patch("6.1/0002-own.patch", &change("net/ring.c", 3, "3", "other"));
    assert_ne!(trees.bring().unwrap().sha256(), before);

    trees.patch("6.1/0002-own.patch", &change("net/ring.c", 3, "x", "y"));
    assert_eq!(
        trees.complaint(),
        "patch 6.1/0002-own.patch does not apply to base `6.1`: hunk 1 of net/ring.c does not fit"
    );
}

#[test]
fn two_patches_of_one_number_or_none_are_refused() {
    let trees = Trees::new();
    trees.patch("0001-a.patch", &change("net/ring.c", 2, "2", "two"));
    trees.patch("0001-b.patch", &change("net/ring.c", 3, "3", "three"));
    assert!(trees.complaint().contains("has the same number"));
    let trees = Trees::new();
    assert!(
        trees
            .patch("fix.patch", "x")
            .complaint()
            .contains("named 0001-")
    );
}
