// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine of a test's own: a source tree with a toy kernel, a cache, a QEMU that is none.

use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nlring_harness::results::{CaseResult, Results};
use tempfile::TempDir;

/// Tells this program that it is a QEMU, and of which kind.
pub const BEHAVIOUR: &str = "NLRING_FAKE_BEHAVIOUR";
/// Tells it where to write the numbers of its processes.
pub const PROCESSES: &str = "NLRING_FAKE_PROCESSES";

/// A case that any guest passes which says so.
pub const CASE: &str = "joining_a_group_with_a_ring_is_refused";

/// The longest wait of a test: for a guest that does not boot under TCG.
const PATIENCE: Duration = Duration::from_secs(120);

/// A kernel of `TOY_SIZE` zeroes that takes `TOY_TIME` seconds to build.
const MAKEFILE: &str = "
tinyconfig:
	@: >$(O)/.config
olddefconfig:
	@mkdir -p $(O)/include/config; echo 6.1 >$(O)/include/config/kernel.release
vmlinux:
	@echo '  LD      vmlinux'; echo built >>$(TOY_BUILDS)
	@sleep $${TOY_TIME:-0}
	@head -c $${TOY_SIZE:-1000} /dev/zero >$(O)/vmlinux && : >$(O)/System.map
";

const KERNELS: &str = r#"
[base.toy]
tree = "TREE"

[kernel."6.1"]
base = "toy"
fragments = ["guest"]
ringed = true
steps = 1
"#;

/// The machine.
pub struct Ground {
    directory: TempDir,
}

impl Ground {
    pub fn new() -> Self {
        let ground = Self {
            directory: tempfile::tempdir().unwrap(),
        };
        let write = |name: &str, text: &str| {
            let path = ground.path(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        };
        let toy = ground.path("toy");
        write("toy/Makefile", MAKEFILE);
        write("toy/Kbuild", "");
        let config = ground.path("tree/kernel-config");
        for directory in ["patches", "mutants"] {
            fs::create_dir_all(config.join(directory)).unwrap();
        }
        write("tree/kernel-config/fragments/guest.config", "# nothing\n");
        let kernels = KERNELS.replace("TREE", &toy.display().to_string());
        write("tree/kernel-config/kernels.toml", &kernels);
        let this = std::env::current_exe().unwrap();
        write(
            "bin/qemu-system-x86_64",
            &format!(
                "#!/bin/sh\n{BEHAVIOUR}=$(cat {}) {PROCESSES}={} exec {} \"$@\"\n",
                ground.path("behaviour").display(),
                ground.path("processes").display(),
                this.display()
            ),
        );
        let guest = "guest/x86_64-unknown-linux-gnu/guest";
        write(
            "bin/cargo",
            &format!(
                "#!/bin/sh\nmkdir -p {0} && cp {1} {0}/nlring-guest\n",
                ground.path("target").join(guest).display(),
                ground.path("elf").display()
            ),
        );
        fs::write(ground.path("elf"), elf()).unwrap();
        for directory in ["cache", "tmp"] {
            fs::create_dir(ground.path(directory)).unwrap();
        }
        ground
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// `nlring run` of one case, for a QEMU of this behaviour.
    pub fn command(&self, behaviour: &str) -> Command {
        self.command_by(&[], behaviour, "report")
    }

    /// The same, started by the command `by`, if there is one, and with another report.
    pub fn command_by(&self, by: &[&str], behaviour: &str, report: &str) -> Command {
        fs::write(self.path("behaviour"), behaviour).unwrap();
        let program = env!("CARGO_BIN_EXE_nlring");
        let report = self.path(report).display().to_string();
        let words = [
            by,
            &[program, "run", CASE, "--jobs", "1", "--report", &report],
        ]
        .concat();
        let mut command = Command::new(words[0]);
        let path = format!(
            "{}:/usr/sbin:/usr/bin:/sbin:/bin",
            self.path("bin").display()
        );
        command
            .args(&words[1..])
            .current_dir(self.directory.path())
            .env("PATH", path)
            .env("XDG_CACHE_HOME", self.path("cache"))
            .env("TMPDIR", self.path("tmp"))
            .env("NLRING_ROOT", self.path("tree"))
            .env("CARGO", self.path("bin/cargo"))
            .env("CARGO_TARGET_DIR", self.path("target"))
            .env("TOY_BUILDS", self.path("builds"))
            .env("RUST_BACKTRACE", "0")
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, behaviour: &str) -> Ended {
        Ended(self.command(behaviour).output().unwrap())
    }

    /// Starts it, and waits until its guest was given the case.
    pub fn start(&self, behaviour: &str) -> Child {
        let mut command = self.command(behaviour);
        let command = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        self.await_job();
        child
    }

    pub fn await_job(&self) {
        let console = self.path("report").join(CASE).join("console.log");
        await_that("the guest was given a job", || {
            fs::read_to_string(&console).is_ok_and(|log| log.contains("job 1 begins"))
        });
    }

    /// The case's result in the report.
    pub fn result(&self) -> CaseResult {
        let text = fs::read(self.path("report/results.json")).unwrap();
        let mut results: Results = serde_json::from_slice(&text).unwrap();
        assert_eq!(results.cases.len(), 1);
        results.cases.remove(0)
    }

    /// How often the toy was built.
    pub fn builds(&self) -> usize {
        let built = fs::read_to_string(self.path("builds"));
        built.unwrap_or_default().lines().count()
    }

    /// No process is left of what was run; of what was killed, a moment later.
    pub fn has_no_process(&self) {
        let mark = self.directory.path().as_os_str().as_encoded_bytes();
        await_that("every process has gone", || processes_with(mark).is_empty());
    }

    /// Nothing is left of what was run: no process, no temporary file, no lock.
    pub fn is_as_it_was(&self) {
        self.has_no_process();
        assert_eq!(fs::read_dir(self.path("tmp")).unwrap().count(), 0);
        let cache = self.path("cache/nlring");
        let half_made = files(&self.path("cache"))
            .chain(files(&self.path("report")))
            .filter(|path| {
                let name = path.file_name().unwrap().to_string_lossy();
                let ends = [".partial", ".doomed"]
                    .iter()
                    .any(|end| name.ends_with(end));
                ends || name.starts_with(".tmp") || name.starts_with(".nlring-")
            });
        assert_eq!(half_made.collect::<Vec<_>>(), [] as [PathBuf; 0]);
        for lock in files(&cache.join("lock")) {
            File::open(&lock).unwrap().try_lock().unwrap();
        }
    }
}

/// How it ended.
pub struct Ended(pub Output);

impl Ended {
    pub fn story(&self) -> String {
        let Output {
            status,
            stdout,
            stderr,
        } = &self.0;
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        format!(
            "{status}\nstdout: {}\nstderr: {}",
            text(stdout),
            text(stderr)
        )
    }

    /// It has this exit status.
    pub fn with(self, status: i32) -> Self {
        assert_eq!(self.0.status.code(), Some(status), "{}", self.story());
        self
    }

    /// It says this in the one line of its standard error.
    pub fn complains(self, what: &str) -> Self {
        let said = String::from_utf8_lossy(&self.0.stderr);
        let is_one_line = said.starts_with("nlring: ") && said.lines().count() == 1;
        assert!(is_one_line && said.contains(what), "{}", self.story());
        self
    }
}

/// Waits for something that is bound to come.
pub fn await_that(what: &str, is_so: impl Fn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < until, "not yet so: {what}");
        thread::sleep(Duration::from_millis(10));
    }
}

/// Every file and directory below.
pub fn files(directory: &Path) -> Box<dyn Iterator<Item = PathBuf>> {
    let entries = fs::read_dir(directory).into_iter().flatten();
    Box::new(entries.flat_map(|entry| {
        let path = entry.unwrap().path();
        let below: Box<dyn Iterator<Item = PathBuf>> = if path.is_dir() && !path.is_symlink() {
            files(&path)
        } else {
            Box::new(std::iter::empty())
        };
        std::iter::once(path).chain(below)
    }))
}

/// The processes that have this in their command line.
fn processes_with(mark: &[u8]) -> Vec<String> {
    let processes = fs::read_dir("/proc").unwrap().flatten();
    let has_mark = |process: &fs::DirEntry| {
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        line.windows(mark.len()).any(|window| window == mark)
    };
    processes
        .filter(has_mark)
        .map(|process| process.file_name().to_string_lossy().into_owned())
        .collect()
}

/// A static program that does nothing: the header of one.
fn elf() -> Vec<u8> {
    let mut header = vec![0; 64];
    header[..7].copy_from_slice(b"\x7fELF\x02\x01\x01");
    // An executable, of x86-64, version 1, with a header of 64 bytes, and entries of 56 and 64.
    for (at, value) in [(16, 2), (18, 62), (20, 1), (52, 64), (54, 56), (58, 64)] {
        header[at] = value;
    }
    header
}
