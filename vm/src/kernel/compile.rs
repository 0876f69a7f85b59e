// SPDX-License-Identifier: MIT OR Apache-2.0
//! make, watched: how far it is, and what its first error was.

use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;

use nix::sys::signal::Signal;

use super::{Event, Phase};
use crate::matrix::Image;
use crate::{VmError, keeper};

/// make for one kernel: a work tree, an output directory and a log.
#[derive(Debug)]
pub(super) struct Make {
    kernel: String,
    tree: PathBuf,
    out: PathBuf,
    log: PathBuf,
}

impl Make {
    /// The log starts empty.
    pub(super) fn new(
        kernel: &str,
        tree: PathBuf,
        out: PathBuf,
        log: PathBuf,
    ) -> Result<Self, VmError> {
        File::create(&log).map_err(VmError::io("cannot write", &log))?;
        Ok(Self {
            kernel: kernel.to_owned(),
            tree,
            out,
            log,
        })
    }

    pub(super) fn kernel(&self) -> &str {
        &self.kernel
    }

    pub(super) fn out(&self) -> &Path {
        &self.out
    }

    pub(super) fn tree(&self) -> &Path {
        &self.tree
    }

    /// Runs `make` in the tree with these arguments: a target, or more.
    pub(super) fn run(&self, arguments: &[&str]) -> Result<(), VmError> {
        self.watch(arguments, 1, |_| ())
    }

    /// Builds the image and returns how many steps that took; `expected` is `None` where nobody knows.
    pub(super) fn image(
        &self,
        image: Image,
        expected: Option<u64>,
        on: &mut dyn FnMut(Event),
    ) -> Result<u64, VmError> {
        on(Event::Phase(Phase::Compile));
        let mut done = 0;
        self.watch(&[image.target()], jobs(), |line| {
            if let Some(what) = step(line) {
                done += 1;
                on(Event::Steps {
                    done,
                    total: expected.map_or(0, |total| total.max(done)),
                    what: what.to_owned(),
                });
            }
        })?;
        Ok(done)
    }

    /// Makes objects, or those of directories, and has everyone who can say something about each that
    /// is made: the compiler with the warnings that patches must not add, kernel-doc, sparse.
    pub(super) fn objects(
        &self,
        targets: &[String],
        on_line: impl FnMut(&str),
    ) -> Result<(), VmError> {
        let targets = targets.iter().map(String::as_str);
        let arguments: Vec<_> = ["W=1", "C=1"].into_iter().chain(targets).collect();
        self.watch(&arguments, jobs(), on_line)
    }

    fn watch(
        &self,
        arguments: &[&str],
        jobs: usize,
        mut on_line: impl FnMut(&str),
    ) -> Result<(), VmError> {
        let open = || File::options().append(true).create(true).open(&self.log);
        let mut log = open().map_err(VmError::io("cannot write", &self.log))?;
        // One pipe for both outputs, so that an error stands in the log where it happened.
        let (output, input) =
            std::io::pipe().map_err(VmError::io("cannot make a pipe for", &self.log))?;
        let mut command = Command::new("make");
        command
            .arg(format!("-j{jobs}"))
            .arg("-C")
            .arg(&self.tree)
            .arg(format!("O={}", self.out.display()))
            .args([
                "ARCH=x86_64",
                "LOCALVERSION=",
                "KBUILD_BUILD_USER=nlring",
                "KBUILD_BUILD_HOST=nlring",
                "KBUILD_BUILD_VERSION=1",
            ])
            .arg("KBUILD_BUILD_TIMESTAMP=1970-01-01 00:00:00 UTC")
            .args(arguments)
            .env("LC_ALL", "C")
            // What a person has set for make at large, or a make that calls us, is not for this one.
            .env_remove("MAKEFLAGS")
            .env_remove("MAKELEVEL")
            .env_remove("KBUILD_OUTPUT")
            .env_remove("KCONFIG_CONFIG")
            .env_remove("KCFLAGS")
            .stdin(Stdio::null())
            .stdout(
                input
                    .try_clone()
                    .map_err(VmError::io("cannot share a pipe for", &self.log))?,
            )
            .stderr(input);
        // On SIGTERM make ends what it started; killed outright it would leave compilers behind.
        let mut child = keeper::spawn(command, Signal::SIGTERM, Vec::new()).map_err(|source| {
            VmError::Start {
                program: "make".into(),
                source,
            }
        })?;
        let mut failure = Failure::default();
        for line in BufReader::new(output).split(b'\n') {
            let line = line.map_err(VmError::io("cannot read what make says into", &self.log))?;
            let line = String::from_utf8_lossy(&line);
            writeln!(log, "{line}").map_err(VmError::io("cannot write", &self.log))?;
            failure.hear(&line);
            on_line(&line);
        }
        let status = child.wait().map_err(|source| VmError::Start {
            program: "make".into(),
            source,
        })?;
        if status.success() {
            return Ok(());
        }
        if failure.no_space {
            return Err(VmError::NoSpace {
                doing: format!("build kernel {}", self.kernel),
                path: self.out.clone(),
            });
        }
        if status.code().is_none() {
            let source = std::io::Error::other(format!("make ended by {status}; build again"));
            return Err(VmError::io("cannot finish building in", &self.out)(source));
        }
        let reason = failure
            .first
            .or(failure.last)
            .unwrap_or_else(|| format!("make {} ended with {status}", arguments.join(" ")));
        Err(VmError::Build {
            kernel: self.kernel.clone(),
            reason,
            log: self.log.clone(),
        })
    }
}

fn jobs() -> usize {
    thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// What went wrong, as the lines go by.
#[derive(Debug, Default)]
struct Failure {
    first: Option<String>,
    last: Option<String>,
    no_space: bool,
}

impl Failure {
    fn hear(&mut self, line: &str) {
        const MARKS: &[&str] = &[
            ": error: ",
            ": fatal error: ",
            "undefined reference",
            ": not found",
            "command not found",
        ];
        self.no_space |= line.contains("No space left on device");
        if self.first.is_none() && MARKS.iter().any(|mark| line.contains(mark)) {
            self.first = Some(line.trim().to_owned());
        }
        if line.contains("*** ") && self.last.is_none() {
            self.last = Some(line.trim().to_owned());
        }
    }
}

/// `CC net/netlink/ring.o` of a line in which kbuild tells a step.
fn step(line: &str) -> Option<&str> {
    let line = line.strip_prefix("  ")?;
    let (verb, object) = line.split_once(' ')?;
    let verb_fits = verb.len() > 1
        && verb
            .bytes()
            .all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_');
    (verb_fits && !object.trim().is_empty()).then(|| line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_told_from_talk() {
        for line in [
            "  CC      net/netlink/ring.o",
            "  AR      built-in.a",
            "  HOSTCC  scripts/basic/fixdep",
            "  LD      vmlinux",
        ] {
            assert_eq!(step(line), Some(line.trim()));
        }
        for line in [
            "make[1]: Entering directory",
            "  ^~~~~",
            "#",
            "  int x;",
            "  GEN",
            "Kernel: ready",
            "",
        ] {
            assert_eq!(step(line), None, "{line}");
        }
    }

    fn make(makefile: &str) -> (tempfile::TempDir, Make) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("Makefile"), makefile).unwrap();
        let [tree, out, log] = [".", "out", "log"].map(|name| directory.path().join(name));
        let make = Make::new("6.1", tree, out, log).unwrap();
        (directory, make)
    }

    #[test]
    fn progress_counts_steps_and_never_passes_its_total() {
        let (_directory, make) =
            make("vmlinux:\n\t@echo '  CC      a.o'; echo talk; echo '  LD      vmlinux'\n");
        let mut seen = Vec::new();
        make.image(Image::Vmlinux, None, &mut |event| match event {
            Event::Steps { total, .. } => assert_eq!(total, 0),
            other => assert_eq!(other, Event::Phase(Phase::Compile)),
        })
        .unwrap();
        let taken = make
            .image(Image::Vmlinux, Some(1), &mut |event| {
                seen.push(format!("{event:?}"));
            })
            .unwrap();
        assert_eq!(taken, 2);
        assert!(
            seen[1].contains("done: 1, total: 1") && seen[2].contains("done: 2, total: 2"),
            "{seen:?}"
        );
    }

    #[test]
    fn the_first_error_is_the_reason_and_the_log_has_the_rest() {
        let (directory, make) = make(
            "vmlinux:\n\t@echo 'net/ring.c:7:1: error: expected a ring' >&2; echo 'b.c:1:1: error: later' >&2; exit 1\n",
        );
        let error = make
            .image(Image::Vmlinux, Some(1), &mut |_| ())
            .unwrap_err();
        let log = directory.path().join("log");
        let expected = format!(
            "cannot build kernel 6.1: net/ring.c:7:1: error: expected a ring; full log: {}",
            log.display()
        );
        assert_eq!(error.to_string(), expected);
        assert!(
            std::fs::read_to_string(log)
                .unwrap()
                .contains("b.c:1:1: error: later")
        );
    }

    #[test]
    fn a_full_disk_is_named() {
        let (_directory, make) =
            make("vmlinux:\n\t@echo 'as: x.o: No space left on device' >&2; exit 1\n");
        assert!(
            make.image(Image::Vmlinux, Some(1), &mut |_| ())
                .unwrap_err()
                .to_string()
                .starts_with("cannot build kernel 6.1: no space left on the device")
        );
    }
}
