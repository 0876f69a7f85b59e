// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cache: finished things under their content's name, unfinished ones out of sight.
//!
//! Layout, all below `$XDG_CACHE_HOME/nlring` or `~/.cache/nlring`:
//!
//! | path | what |
//! |---|---|
//! | `base/<base>/` | unpacked source, never changed |
//! | `work/<base>/` | the same, hard-linked, with the series in it |
//! | `out/<base>/` | make's `O=` directory while a build is going on |
//! | `out/<base>-<kernel>/` | the same between builds, to go on from |
//! | `work/plain-<base>/`, `out/plain-<base>-<kernel>/` | the same for kernels without the series |
//! | `work/lint-<base>/`, `out/lint-<base>-<kernel>/` | the same for judging the series patch by patch |
//! | `lint/<base>.json` | what was clean when it was judged last |
//! | `steps/<base>-<kernel>` | how many steps a build from nothing took |
//! | `kernels/<key>/` | finished kernels |
//! | `initramfs/<key>.cpio` | packed guests, with their digests beside them |
//! | `snapshots/<key>/` | states of VMs to go on from |
//! | `selftests/<key>/` | the kernel's own selftests, with their C programs built |
//! | `virtme-ng/<key>/`, `linters/<key>/` | Python programs, put there by `vm/scripts/python-tools` |
//! | `accelerator/<key>.json` | what the probe found |
//! | `digest/<key>.json` | digests of files, believed while the file's times and size stay |
//! | `log/` | logs of kernel builds |
//! | `scratch/` | patched files on their way into a work tree |
//! | `lock/` | one file per thing that only one process may do at once |
//!
//! Whatever can be cut off half-way is made beside its place and renamed into it.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use crate::VmError;

/// The cache's directory.
#[derive(Debug, Clone)]
pub struct Cache {
    root: PathBuf,
}

/// A directory that goes when this does.
#[derive(Debug)]
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // If it stays, the next of its name removes it.
        let _ = remove_tree(&self.0);
    }
}

/// Held as long as it lives; the operating system lets go when the process dies.
#[derive(Debug)]
pub(crate) struct Lock(#[expect(dead_code, reason = "the lock goes with the file")] File);

impl Cache {
    /// The user's cache, made if it is not there.
    ///
    /// # Errors
    /// No home directory is known, or the directory cannot be made.
    pub fn open() -> Result<Self, VmError> {
        let absolute = |name| {
            std::env::var_os(name)
                .map(PathBuf::from)
                .filter(|path| path.is_absolute())
        };
        let root = absolute("XDG_CACHE_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
            .ok_or_else(|| VmError::Config {
                path: "~/.cache".into(),
                reason: "neither XDG_CACHE_HOME nor HOME is an absolute path; set one".into(),
            })?;
        Self::at(&root.join("nlring"))
    }

    /// A cache in this directory, made if it is not there.
    ///
    /// # Errors
    /// The directory cannot be made.
    pub fn at(root: &Path) -> Result<Self, VmError> {
        fs::create_dir_all(root).map_err(VmError::io("cannot make the cache directory", root))?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    /// Where it is.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// `kind/name`, with `kind/` made.
    pub(crate) fn place(&self, kind: &str, name: &str) -> Result<PathBuf, VmError> {
        let directory = self.root.join(kind);
        fs::create_dir_all(&directory).map_err(VmError::io("cannot make", &directory))?;
        Ok(directory.join(name))
    }

    /// An empty directory `scratch/name` for a while, for the holder of a lock of that name or one above it.
    /// What a process left there that was killed goes first.
    pub(crate) fn scratch(&self, name: &str) -> Result<Scratch, VmError> {
        let path = self.place("scratch", name)?;
        remove_tree(&path)?;
        fs::create_dir(&path).map_err(VmError::io("cannot make", &path))?;
        Ok(Scratch(path))
    }

    /// Waits until no other process holds `name`; calls `waiting` once if that takes time.
    pub(crate) fn lock(&self, name: &str, waiting: impl FnOnce()) -> Result<Lock, VmError> {
        let path = self.place("lock", name)?;
        let file = File::create(&path).map_err(VmError::io("cannot make the lock", &path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                waiting();
                file.lock()
                    .map_err(VmError::io("cannot wait for the lock", &path))?;
            }
            Err(TryLockError::Error(source)) => {
                return Err(VmError::io("cannot take the lock", &path)(source));
            }
        }
        Ok(Lock(file))
    }
}

/// Writes a small file whole or not at all.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> Result<(), VmError> {
    let directory = path.parent().expect("a file in a directory");
    let write = || {
        let mut file = tempfile::NamedTempFile::new_in(directory)?;
        std::io::Write::write_all(&mut file, content)?;
        file.persist(path)?;
        Ok(())
    };
    write().map_err(VmError::io("cannot write", path))
}

/// Removes a directory, if it is there, first out of its name and then for good.
pub(crate) fn remove_tree(path: &Path) -> Result<(), VmError> {
    let mut doomed = path.as_os_str().to_owned();
    doomed.push(".doomed");
    let doomed = PathBuf::from(doomed);
    let gone = |result: std::io::Result<()>| match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    };
    gone(fs::remove_dir_all(&doomed))
        .and_then(|()| gone(fs::rename(path, &doomed)))
        .and_then(|()| gone(fs::remove_dir_all(&doomed)))
        .map_err(VmError::io("cannot remove", path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_keeps_a_second_taker_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        let (tell, told) = std::sync::mpsc::channel();
        let first = cache
            .lock("x", || unreachable!("nobody else holds it"))
            .unwrap();
        std::thread::scope(|scope| {
            let taker = scope.spawn(|| cache.lock("x", || tell.send(()).unwrap()).map(drop));
            told.recv().unwrap();
            assert!(!taker.is_finished());
            drop(first);
            taker.join().unwrap().unwrap();
        });
    }

    #[test]
    fn a_scratch_directory_is_empty_whoever_was_killed_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(directory.path()).unwrap();
        std::mem::forget(cache.scratch("x").unwrap());
        fs::write(cache.root().join("scratch/x/file"), "").unwrap();
        let scratch = cache.scratch("x").unwrap();
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 0);
        drop(scratch);
        assert_eq!(
            fs::read_dir(cache.root().join("scratch")).unwrap().count(),
            0
        );
    }

    #[test]
    fn a_tree_is_removed_even_where_a_removal_was_cut_off() {
        let directory = tempfile::tempdir().unwrap();
        let (tree, doomed) = (
            directory.path().join("t"),
            directory.path().join("t.doomed"),
        );
        for half in [&tree, &doomed] {
            fs::create_dir_all(half.join("deep")).unwrap();
        }
        remove_tree(&tree).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
        remove_tree(&tree).unwrap();
    }
}
