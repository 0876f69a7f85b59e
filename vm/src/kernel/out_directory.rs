// SPDX-License-Identifier: MIT OR Apache-2.0
//! make's output directory of one kernel, kept so that the next build only makes what changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::cache::{remove_tree, write_whole};
use crate::{Cache, VmError};

/// The compiler that made the objects, in its own words.
const COMPILER: &str = ".compiler";

/// Opened for a build. It is in a place that all kernels of a base share, one at a time, since tools
/// that the build makes for itself, and with them all objects, are made again where it is moved.
/// What is found in that place was left by a build that was cut off: make believes in half-written
/// objects, so it is thrown away.
#[derive(Debug)]
pub(super) struct OutDirectory {
    path: PathBuf,
    rest: PathBuf,
    count: PathBuf,
    fresh: bool,
}

impl OutDirectory {
    /// Opens that of `kernel` over base `base`; the caller holds the lock of the base. If it is not
    /// there, or of no use, that of another kernel over the same work tree is as good a start: make
    /// compares options one by one, so only what depends on the difference is made again.
    pub(super) fn open(
        cache: &Cache,
        base: &str,
        kernel: &str,
        compiler: &str,
    ) -> Result<Self, VmError> {
        let path = cache.place("out", base)?;
        let rest = cache.place("out", &format!("{base}-{kernel}"))?;
        let count = cache.place("steps", &format!("{base}-{kernel}"))?;
        remove_tree(&path)?;
        let mut fresh = false;
        if usable(&rest, compiler) {
            fs::rename(&rest, &path).map_err(VmError::io("cannot name", &path))?;
        } else {
            remove_tree(&rest)?;
            if let Some(other) = sibling(&rest, base, compiler)? {
                copy(&other, &path)?;
            } else {
                fresh = true;
                fs::create_dir(&path).map_err(VmError::io("cannot make", &path))?;
                write_whole(&path.join(COMPILER), compiler.as_bytes())?;
            }
        }
        Ok(Self {
            path,
            rest,
            count,
            fresh,
        })
    }

    /// Whether one of `kernel` is kept, so that opening it does not mean to start from nothing or from
    /// another kernel's.
    pub(super) fn is_kept(
        cache: &Cache,
        base: &str,
        kernel: &str,
        compiler: &str,
    ) -> Result<bool, VmError> {
        let rest = cache.place("out", &format!("{base}-{kernel}"))?;
        Ok(usable(&rest, compiler))
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// How many steps make will take, if that can be known: as many as the last time from nothing, or
    /// `estimate` the first time.
    pub(super) fn steps(&self, estimate: u64) -> Option<u64> {
        let counted = || fs::read_to_string(&self.count).ok()?.trim().parse().ok();
        self.fresh.then(|| counted().unwrap_or(estimate))
    }

    /// The build has ended well, after so many steps.
    pub(super) fn close(&self, steps: u64) -> Result<(), VmError> {
        if self.fresh {
            write_whole(&self.count, steps.to_string().as_bytes())?;
        }
        self.keep()
    }

    /// The build has ended with `error`. If make has ended by itself it has removed what it could not
    /// finish, and the next build goes on from there: a typing error must not cost a build from nothing.
    pub(super) fn fail(&self, error: VmError) -> VmError {
        match error {
            VmError::Build { .. } | VmError::Lacking { .. } => self.keep().err().unwrap_or(error),
            other => {
                // The next build would begin with that; what takes gigabytes of a full disk goes at once.
                let _ = remove_tree(&self.path);
                other
            }
        }
    }

    /// Nothing of it is half made.
    pub(super) fn keep(&self) -> Result<(), VmError> {
        fs::rename(&self.path, &self.rest).map_err(VmError::io("cannot name", &self.rest))
    }
}

fn usable(path: &Path, compiler: &str) -> bool {
    fs::read_to_string(path.join(COMPILER)).is_ok_and(|made_by| made_by == compiler)
}

/// A finished directory over the same base, by the same compiler.
fn sibling(path: &Path, base: &str, compiler: &str) -> Result<Option<PathBuf>, VmError> {
    let directory = path.parent().expect("a directory in the cache");
    let mut found: Vec<_> = fs::read_dir(directory)
        .map_err(VmError::io("cannot list", directory))?
        .flatten()
        .filter(|entry| {
            entry
                .file_name()
                .to_string_lossy()
                .starts_with(&format!("{base}-"))
        })
        .map(|entry| entry.path())
        .filter(|other| usable(other, compiler))
        .collect();
    found.sort();
    Ok(found.into_iter().next())
}

fn copy(from: &Path, to: &Path) -> Result<(), VmError> {
    let start = |source| VmError::Start {
        program: "cp".into(),
        source,
    };
    let output = Command::new("cp")
        .arg("-a")
        .arg(from)
        .arg(to)
        .env("LC_ALL", "C")
        .output()
        .map_err(start)?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let kind = if said.contains("No space left") {
        std::io::ErrorKind::StorageFull
    } else {
        std::io::ErrorKind::Other
    };
    let said = said.lines().next().unwrap_or_default().to_owned();
    Err(VmError::io("cannot copy", from)(std::io::Error::new(
        kind, said,
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cache() -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        (directory, cache)
    }

    fn built(cache: &Cache, kernel: &str, steps: u64) {
        let out = OutDirectory::open(cache, "b", kernel, "gcc 12").unwrap();
        fs::write(out.path().join("ring.o"), kernel).unwrap();
        out.close(steps).unwrap();
    }

    fn object(out: &OutDirectory) -> Option<String> {
        fs::read_to_string(out.path().join("ring.o")).ok()
    }

    #[test]
    fn a_finished_build_is_gone_on_from() {
        let (_directory, cache) = cache();
        built(&cache, "6.1", 7);
        let again = OutDirectory::open(&cache, "b", "6.1", "gcc 12").unwrap();
        assert_eq!(
            (object(&again).as_deref(), again.steps(1950)),
            (Some("6.1"), None)
        );
    }

    #[test]
    fn an_interrupted_build_starts_from_nothing_and_knows_how_far_it_is() {
        let (_directory, cache) = cache();
        let cut_off = OutDirectory::open(&cache, "b", "6.1", "gcc 12").unwrap();
        assert_eq!(cut_off.steps(1950), Some(1950));
        fs::write(cut_off.path().join("ring.o"), "half").unwrap();
        let again = OutDirectory::open(&cache, "b", "6.1", "gcc 12").unwrap();
        assert_eq!(object(&again), None);
        again.close(7).unwrap();
        let other = OutDirectory::open(&cache, "b", "6.1", "gcc 13").unwrap();
        assert_eq!(other.steps(1950), Some(7));
    }

    #[test]
    fn a_build_that_failed_is_gone_on_from_unless_make_was_cut_off() {
        let failures = [
            (
                VmError::Build {
                    kernel: "6.1".into(),
                    reason: "ring.c: error".into(),
                    log: "log".into(),
                },
                Some("6.1"),
            ),
            (
                VmError::NoSpace {
                    doing: "build".into(),
                    path: "out".into(),
                },
                None,
            ),
        ];
        for (error, kept) in failures {
            let (_directory, cache) = cache();
            built(&cache, "6.1", 7);
            let out = OutDirectory::open(&cache, "b", "6.1", "gcc 12").unwrap();
            let words = error.to_string();
            assert_eq!(out.fail(error).to_string(), words);
            assert_eq!(
                object(&OutDirectory::open(&cache, "b", "6.1", "gcc 12").unwrap()).as_deref(),
                kept
            );
        }
    }

    #[test]
    fn another_compiler_starts_from_nothing() {
        let (_directory, cache) = cache();
        built(&cache, "6.1", 7);
        assert_eq!(
            object(&OutDirectory::open(&cache, "b", "6.1", "gcc 13").unwrap()),
            None
        );
    }

    #[test]
    fn a_first_build_starts_from_that_of_a_finished_sibling() {
        let (_directory, cache) = cache();
        built(&cache, "6.1", 7);
        let off = OutDirectory::open(&cache, "b", "6.1-off", "gcc 12").unwrap();
        assert_eq!(
            (object(&off).as_deref(), off.steps(1950)),
            (Some("6.1"), None)
        );
        // That was not closed, so nobody starts from it.
        fs::remove_dir_all(cache.root().join("out/b-6.1")).unwrap();
        assert_eq!(
            object(&OutDirectory::open(&cache, "b", "third", "gcc 12").unwrap()),
            None
        );
        assert_eq!(
            object(&OutDirectory::open(&cache, "other", "6.1", "gcc 12").unwrap()),
            None
        );
    }
}
