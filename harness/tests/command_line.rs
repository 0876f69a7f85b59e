// SPDX-License-Identifier: MIT OR Apache-2.0
//! The command line as a person, or a script, meets it: arguments in, one line and a status out.

use std::ffi::OsString;
use std::fs;
use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

/// A machine with nothing on it but what a test puts there.
struct Machine {
    directory: TempDir,
}

impl Machine {
    fn bare() -> Self {
        let machine = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        for name in ["bin", "cache"] {
            fs::create_dir(machine.path(name)).unwrap();
        }
        machine
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn with_command(self, name: &str, script: &str) -> Self {
        let path = self.path("bin").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_nlring"));
        command
            .args(arguments)
            .current_dir(self.directory.path())
            .env("PATH", self.path("bin"))
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("NLRING_ROOT", tree())
            .env("CARGO", "/nonexistent/cargo")
            .env("CARGO_TARGET_DIR", self.path("target"))
            .stdin(Stdio::null());
        command
    }

    fn nlring(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn story(arguments: &[&str], output: &Output) -> String {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    format!(
        "nlring {}\n{}\nstdout: {}\nstderr: {}",
        arguments.join(" "),
        output.status,
        text(&output.stdout),
        text(&output.stderr)
    )
}

/// Each of these arguments ends with this status and one line that has these parts.
fn assert_refused(machine: &Machine, table: &[(&[&str], i32, &[&str])]) {
    for (arguments, status, said) in table {
        let output = machine.nlring(arguments);
        let story = story(arguments, &output);
        assert_eq!(output.status.code(), Some(*status), "{story}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(errors.lines().count(), 1, "{story}");
        assert!(errors.starts_with("nlring: "), "{story}");
        for part in *said {
            assert!(errors.contains(part), "lacks {part:?}: {story}");
        }
    }
}

#[test]
fn what_is_wrong_is_one_line_and_a_status() {
    let machine = Machine::bare();
    let file = machine.path("file");
    fs::write(&file, "").unwrap();
    let below = machine.path("file/report").display().to_string();
    let table: &[(&[&str], i32, &[&str])] = &[
        (
            &["run", "no_such_case_at_all"],
            4,
            &["no_such_case_at_all", "nlring list"],
        ),
        (
            &["run", "--group", "fallback", "ordering::"],
            4,
            &["ordering:: --group fallback", "selects no case"],
        ),
        (&["run", "--kernel", "9.9"], 2, &["9.9", "it names", "6.1"]),
        (
            &["run", "--group", "knitting"],
            2,
            &["knitting", "ordering", "fallback"],
        ),
        (&["run", "--report", &below], 2, &[&below, "--report DIR"]),
        (&["run", "--report", "/proc/nlring"], 2, &["/proc/nlring"]),
        (&["kernel", "build", "9.9"], 2, &["9.9", "6.1"]),
        (
            &["kernel", "build", "6.1", "--mutant", "not-there"],
            2,
            &["not-there", "mutants --list"],
        ),
        (
            &["run", "--kernel", "6.1+not-there"],
            2,
            &["not-there", "mutants --list"],
        ),
        (
            &["run", "--kernel", "6.1@many"],
            2,
            &["6.1@many", "no number of patches"],
        ),
        (&["mutants", "zzz"], 4, &["zzz", "mutants --list"]),
        (
            &["mutants", "mapping-offse"],
            4,
            &["mapping-offse", "did you mean mapping-offset?"],
        ),
        (&["run"], 3, &["qemu-system-x86", "apt-get install"]),
    ];
    assert_refused(&machine, table);
    assert_eq!(
        fs::read_dir(machine.path("cache")).unwrap().count(),
        0,
        "nothing was begun"
    );
}

#[test]
fn what_cannot_be_searched_or_opened_is_one_line_and_a_status() {
    let machine = Machine::bare();
    let table: &[(&[&str], i32, &[&str])] = &[
        (
            &["bisect", "tx::"],
            2,
            &["tx::", "is not one case", "whole name"],
        ),
        (
            &["bisect", "rtnetlink.sh", "--kernel", "6.1"],
            4,
            &["no case matches", "rtnetlink.sh"],
        ),
        (
            &[
                "bisect",
                "of_a_join_and_a_ring_at_once",
                "--kernel",
                "6.1-off",
            ],
            2,
            &["6.1-off", "needs a kernel with memory-mapped netlink"],
        ),
        (
            &[
                "bisect",
                "of_a_join_and_a_ring_at_once",
                "--good",
                "9",
                "--bad",
                "9",
            ],
            2,
            &["fewer patches than 9"],
        ),
        (
            &["bisect", "of_a_join_and_a_ring_at_once", "--bad", "99"],
            2,
            &["not 99"],
        ),
        (&["bisect", "/"], 2, &["/repro.json"]),
        (
            &["shell", "--kernel", "9.9"],
            2,
            &["9.9", "it names", "6.1"],
        ),
        (&["gdb"], 3, &["cannot debug", " gdb", "apt-get install"]),
    ];
    assert_refused(&machine, table);
}

#[test]
fn what_cannot_be_parsed_is_usage_and_one_line() {
    let machine = Machine::bare();
    let table: &[&[&str]] = &[
        &["run", "--frobnicate"],
        &["frobnicate"],
        &["run", "--jobs", "0"],
        &["run", "--repeat", "0"],
        &["run", "--repeat", "many"],
        &["run", "--seed", "-1"],
        &["run", "--seed", "9007199254740992"],
        &["run", "--partition", "3/2"],
    ];
    for arguments in table {
        let output = machine.nlring(arguments);
        assert_eq!(
            output.status.code(),
            Some(2),
            "{}",
            story(arguments, &output)
        );
        assert!(output.stdout.is_empty(), "{}", story(arguments, &output));
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(errors.lines().count(), 1, "{}", story(arguments, &output));
        assert!(
            errors.starts_with("nlring: "),
            "{}",
            story(arguments, &output)
        );
    }
}

#[test]
fn without_a_subcommand_the_help_is_shown() {
    let machine = Machine::bare();
    for arguments in [&[][..], &["kernel"]] {
        let output = machine.nlring(arguments);
        let story = story(arguments, &output);
        assert_eq!(output.status.code(), Some(2), "{story}");
        assert!(
            String::from_utf8_lossy(&output.stderr).contains("Usage:"),
            "{story}"
        );
    }
}

#[test]
fn another_directory_is_not_taken_for_the_tree() {
    let machine = Machine::bare();
    let output = machine
        .command(&["list"])
        .env("NLRING_ROOT", machine.path("bin"))
        .output()
        .unwrap();
    let story = story(&["list"], &output);
    assert_eq!(output.status.code(), Some(2), "{story}");
    assert!(story.contains("ci/nlring"), "{story}");
}

#[test]
fn without_cargo_the_guest_cannot_be_built_and_that_is_said_before_a_kernel_is() {
    let machine = Machine::bare();
    let machine = ["qemu-system-x86_64", "nft", "ip"]
        .iter()
        .fold(machine, |machine, name| {
            machine.with_command(name, "exit 0")
        });
    let output = machine.nlring(&["run"]);
    let story = story(&["run"], &output);
    assert_eq!(output.status.code(), Some(3), "{story}");
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("a program for the guest")
            && errors.contains("rustup.rs")
            && errors.lines().count() == 1,
        "{story}"
    );
    assert!(!machine.path("cache/nlring/kernels").exists(), "{story}");
}

#[test]
fn the_list_needs_nothing_and_has_the_fields_of_the_contract() {
    let machine = Machine::bare();
    let output = machine.nlring(&["list", "--json"]);
    assert!(
        output.status.success(),
        "{}",
        story(&["list", "--json"], &output)
    );
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    let listed = listed.as_array().unwrap();
    assert_eq!(listed.len(), nlring_cases::all().len());
    for case in listed {
        let mut keys: Vec<&String> = case.as_object().unwrap().keys().collect();
        keys.sort();
        assert_eq!(
            keys,
            ["expects_splat", "group", "kernels", "name", "topology"]
        );
        assert!(
            !case["kernels"].as_array().unwrap().is_empty(),
            "no kernel for {case}"
        );
    }
    let names: Vec<&str> = listed
        .iter()
        .map(|case| case["name"].as_str().unwrap())
        .collect();
    let table = String::from_utf8(machine.nlring(&["list"]).stdout).unwrap();
    assert!(names.iter().all(|name| table.contains(name)), "{table}");
}

#[test]
fn the_statuses_are_documented_where_one_looks() {
    let machine = Machine::bare();
    for arguments in [&["--help"][..], &["run", "--help"], &["doctor", "--help"]] {
        let output = machine.nlring(arguments);
        let help = String::from_utf8(output.stdout.clone()).unwrap();
        for part in ["Exit status:", "nothing selected", "infra:", "128+N"] {
            assert!(
                help.contains(part),
                "lacks {part:?}: {}",
                story(arguments, &output)
            );
        }
    }
}

/// What the help says of each status, and a command line that ends with it. That a case failed or has no
/// verdict (1, 3) is shown without a VM by `nlring merge`, in merge.rs.
#[test]
fn each_status_is_documented_and_is_had() {
    let machine = Machine::bare();
    let help = machine.nlring(&["--help"]);
    let help = String::from_utf8(help.stdout).unwrap();
    let documented: Vec<&str> = help
        .lines()
        .skip_while(|line| *line != "Exit status:")
        .filter_map(|line| line.strip_prefix("  ")?.split(' ').next())
        .filter(|status| !status.is_empty())
        .collect();
    assert_eq!(documented, ["0", "1", "2", "3", "4", "128+N"], "{help}");
    for (arguments, status) in [
        (&["list"][..], 0),
        (&["--version"], 0),
        (&["doctor"], 1),
        (&["run", "--kernel", "9.9"], 2),
        (&["run"], 3),
        (&["run", "no_such_case_at_all"], 4),
    ] {
        let output = machine.nlring(arguments);
        assert_eq!(
            output.status.code(),
            Some(status),
            "{}",
            story(arguments, &output)
        );
    }
}

#[test]
fn a_signal_ends_a_run_with_its_number_and_a_report() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    for (signal, status) in [
        (Signal::SIGINT, 130),
        (Signal::SIGTERM, 143),
        (Signal::SIGHUP, 129),
    ] {
        let machine = Machine::bare();
        let begun = machine.path("begun");
        // A build of the guest that does not end, whose process tells its number.
        let script = format!(
            "echo $$ >{0}.half; /bin/mv {0}.half {0}; exec /bin/sleep 600",
            begun.display()
        );
        let machine = ["qemu-system-x86_64", "nft", "ip"]
            .iter()
            .fold(machine, |machine, name| {
                machine.with_command(name, "exit 0")
            })
            .with_command("cargo", &script);
        let report = machine.path("report");
        let child = machine
            .command(&["run", "ordering::", "--report", report.to_str().unwrap()])
            .env("CARGO", machine.path("bin/cargo"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let deadline = Instant::now() + Duration::from_secs(60);
        while !begun.exists() {
            assert!(Instant::now() < deadline, "the guest's build never begins");
            std::thread::sleep(Duration::from_millis(10));
        }
        let number = |text: &str| Pid::from_raw(text.trim().parse().unwrap());
        kill(number(&child.id().to_string()), signal).unwrap();
        let output = child.wait_with_output().unwrap();
        let _ = kill(
            number(&fs::read_to_string(&begun).unwrap()),
            Signal::SIGKILL,
        );

        let story = story(&["run"], &output);
        assert_eq!(output.status.code(), Some(status), "{story}");
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(errors.lines().count(), 1, "{story}");
        assert!(
            errors.contains(&format!("interrupted by {signal}; 0 of ")),
            "{story}"
        );
        let results = fs::read(report.join("results.json")).unwrap();
        let results: Value = serde_json::from_slice(&results).unwrap();
        assert_eq!(results["totals"]["pass"], 0);
        assert_eq!(
            results["totals"]["infra"],
            results["cases"].as_array().unwrap().len()
        );
    }
}

#[test]
fn kernels_are_listed_by_name_and_by_their_place_in_the_cache() {
    let machine = Machine::bare();
    let output = machine.nlring(&["kernel", "list", "6.1", "--json"]);
    let listed: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(
        listed.as_array().unwrap().len(),
        1,
        "{}",
        story(&["kernel"], &output)
    );
    let arguments = ["kernel", "list", "9.9", "--paths"];
    let output = machine.nlring(&arguments);
    assert_eq!(
        output.status.code(),
        Some(2),
        "{}",
        story(&arguments, &output)
    );
    // What a kernel is made of includes a compiler, of which there is none here.
    let arguments = ["kernel", "list", "6.1", "--paths"];
    let output = machine.nlring(&arguments);
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        story(&arguments, &output)
    );
}

#[test]
fn the_doctor_tells_everything_at_once_and_one_command() {
    let machine = Machine::bare();
    let output = machine.nlring(&["doctor"]);
    let story = story(&["doctor"], &output);
    assert_eq!(output.status.code(), Some(1), "{story}");
    let text = String::from_utf8(output.stdout).unwrap();
    for part in [
        "bad   package qemu-system-x86",
        "bad   package flex",
        "bad   QEMU",
        "bad   Rust",
        "note  package gdb",
        "note  virtme-ng: not installed yet",
        "room in",
        "/dev/kvm",
    ] {
        assert!(text.contains(part), "lacks {part:?}: {story}");
    }
    let cures: Vec<&str> = text
        .lines()
        .filter(|line| line.contains("apt-get"))
        .collect();
    assert_eq!(cures.len(), 1, "{story}");
    assert!(
        cures[0].contains("qemu-system-x86") && cures[0].contains(" flex"),
        "{story}"
    );
}

#[test]
fn a_reader_that_goes_away_is_no_error_and_a_full_disk_is() {
    let machine = Machine::bare();
    let mut child = machine
        .command(&["list"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let mut errors = String::new();
    child
        .stderr
        .take()
        .unwrap()
        .read_to_string(&mut errors)
        .unwrap();
    assert_eq!(
        (child.wait().unwrap().code(), errors.as_str()),
        (Some(0), "")
    );

    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = machine.command(&["list"]).stdout(full).output().unwrap();
    assert_eq!(
        output.status.code(),
        Some(3),
        "{}",
        story(&["list"], &output)
    );
}

#[test]
fn a_name_that_is_no_text_is_refused_without_a_backtrace() {
    use std::os::unix::ffi::OsStringExt;
    let machine = Machine::bare();
    let output = machine
        .command(&["run"])
        .arg(OsString::from_vec(vec![0xff]))
        .output()
        .unwrap();
    assert_eq!(
        output.status.code(),
        Some(2),
        "{}",
        story(&["run", "\\xff"], &output)
    );
}
