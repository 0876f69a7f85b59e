// SPDX-License-Identifier: MIT OR Apache-2.0
//! Bases: whose content it is, and how it comes into the cache.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::{Event, Phase};
use crate::cache::remove_tree;
use crate::digest::{self, Key};
use crate::matrix::{Base, Source};
use crate::{Cache, VmError};

/// Whose content a base is.
#[derive(Debug, Clone)]
pub(super) struct Identity {
    /// As it stands in reports.
    pub(super) words: String,
    /// As it stands in the cache.
    pub(super) id: String,
}

/// Finds out, without unpacking anything.
pub(super) fn identify(cache: &Cache, base: &Base) -> Result<Identity, VmError> {
    let refuse = |reason: String| VmError::Base {
        base: base.name.clone(),
        reason,
    };
    let (words, sha256) = match &base.source {
        Source::Debian(package) => {
            let path = tarball(package);
            if !path.is_file() {
                return Err(refuse(format!(
                    "there is no {}; apt-get install {package}",
                    path.display()
                )));
            }
            let sha256 = digest::of_file_remembered(cache, &path)?;
            (format!("{package} sha256:{sha256}"), sha256)
        }
        Source::Tarball { path, sha256 } => {
            if !path.is_file() {
                return Err(refuse(format!(
                    "there is no {}; put it there or mend kernels.toml",
                    path.display()
                )));
            }
            let found = digest::of_file_remembered(cache, path)?;
            if found != *sha256 {
                return Err(refuse(format!(
                    "{} has sha256 {found}, kernels.toml says {sha256}; get the right one",
                    path.display()
                )));
            }
            (
                format!(
                    "{} sha256:{found}",
                    path.file_name().unwrap_or_default().display()
                ),
                found,
            )
        }
        Source::Tree(path) => {
            let key = survey(base, path)?
                .iter()
                .try_fold(Key::default(), |key, file| {
                    let absolute = path.join(file);
                    let metadata = fs::symlink_metadata(&absolute)
                        .map_err(VmError::io("cannot read", &absolute))?;
                    let key = key.part(file.as_os_str().as_encoded_bytes());
                    if metadata.is_symlink() {
                        let target = fs::read_link(&absolute)
                            .map_err(VmError::io("cannot read", &absolute))?;
                        return Ok(key.part(target.as_os_str().as_encoded_bytes()));
                    }
                    let words = [
                        metadata.mode().into(),
                        metadata.size(),
                        metadata.mtime().cast_unsigned(),
                        metadata.mtime_nsec().cast_unsigned(),
                    ];
                    Ok::<_, VmError>(
                        words
                            .iter()
                            .fold(key, |key, word: &u64| key.part(word.to_le_bytes())),
                    )
                })?;
            let key = key.finish();
            (format!("tree {} as of {}", path.display(), &key[..16]), key)
        }
    };
    Ok(Identity {
        words,
        id: sha256[..16].to_owned(),
    })
}

/// The unpacked base, if it is there.
pub(super) fn unpacked(cache: &Cache, identity: &Identity) -> Result<Option<PathBuf>, VmError> {
    let place = cache.place("base", &identity.id)?;
    Ok(place.is_dir().then_some(place))
}

/// The unpacked base, unpacked now if it is not there. The caller holds the lock of the base.
pub(super) fn pristine(
    cache: &Cache,
    base: &Base,
    identity: &Identity,
    on: &mut dyn FnMut(Event),
) -> Result<PathBuf, VmError> {
    if let Some(place) = unpacked(cache, identity)? {
        return Ok(place);
    }
    on(Event::Phase(Phase::Unpack));
    let place = cache.place("base", &identity.id)?;
    let partial = place.with_extension("partial");
    remove_tree(&partial)?;
    if let Err(error) = fill(base, &partial) {
        // Above all where the disk is full, half a base is of use to nobody.
        remove_tree(&partial)?;
        return Err(error);
    }
    fs::rename(&partial, &place).map_err(VmError::io("cannot name", &place))?;
    Ok(place)
}

fn fill(base: &Base, place: &Path) -> Result<(), VmError> {
    fs::create_dir(place).map_err(VmError::io("cannot make", place))?;
    match &base.source {
        Source::Debian(package) => unpack(base, &tarball(package), place)?,
        Source::Tarball { path, .. } => unpack(base, path, place)?,
        Source::Tree(path) => copy(base, path, place)?,
    }
    if !place.join("Kbuild").is_file() {
        return Err(VmError::Base {
            base: base.name.clone(),
            reason: "it has no Kbuild file at its top, so it is no kernel source".into(),
        });
    }
    Ok(())
}

/// The work tree `name`, a hard-linked copy of the base, made now if it is not there.
pub(super) fn work(
    cache: &Cache,
    base: &Base,
    name: &str,
    pristine: &Path,
) -> Result<PathBuf, VmError> {
    let place = cache.place("work", name)?;
    if place.is_dir() {
        return Ok(place);
    }
    let partial = place.with_extension("partial");
    remove_tree(&partial)?;
    command(
        base,
        Command::new("cp").arg("-al").arg(pristine).arg(&partial),
        &place,
    )?;
    // A note without its tree tells of files that this new tree has as they are in the base.
    match fs::remove_file(place.with_extension("touched")) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            return Err(VmError::io("cannot remove the note of", &place)(error));
        }
        _ => {}
    }
    fs::rename(&partial, &place).map_err(VmError::io("cannot name", &place))?;
    Ok(place)
}

fn tarball(package: &str) -> PathBuf {
    Path::new("/usr/src").join(format!("{package}.tar.xz"))
}

fn unpack(base: &Base, tarball: &Path, to: &Path) -> Result<(), VmError> {
    let mut tar = Command::new("tar");
    tar.args([
        "--extract",
        "--strip-components=1",
        "--no-same-owner",
        "--file",
    ])
    .arg(tarball)
    .arg("--directory")
    .arg(to);
    if tarball
        .extension()
        .is_some_and(|extension| extension == "xz")
    {
        tar.args(["--use-compress-program", "xz -T0"]);
    }
    command(base, &mut tar, to)
}

fn copy(base: &Base, tree: &Path, to: &Path) -> Result<(), VmError> {
    for file in survey(base, tree)? {
        let (from, to) = (tree.join(&file), to.join(&file));
        let directory = to.parent().expect("a file in a tree");
        fs::create_dir_all(directory).map_err(VmError::io("cannot make", directory))?;
        let metadata = fs::symlink_metadata(&from).map_err(VmError::io("cannot read", &from))?;
        if metadata.is_symlink() {
            let target = fs::read_link(&from).map_err(VmError::io("cannot read", &from))?;
            std::os::unix::fs::symlink(target, &to).map_err(VmError::io("cannot make", &to))?;
        } else {
            fs::copy(&from, &to).map_err(VmError::io("cannot copy", &from))?;
        }
    }
    Ok(())
}

/// The source files of a tree, sorted: what git knows and does not ignore, or all there are.
fn survey(base: &Base, tree: &Path) -> Result<Vec<PathBuf>, VmError> {
    let refuse = |reason: String| VmError::Base {
        base: base.name.clone(),
        reason,
    };
    if !tree.is_dir() {
        return Err(refuse(format!(
            "there is no directory {}; put a tree there or mend kernels.toml",
            tree.display()
        )));
    }
    let mut files = if tree.join(".git").exists() {
        use std::os::unix::ffi::OsStrExt;
        let mut git = Command::new("git");
        git.arg("-C").arg(tree).args([
            "ls-files",
            "-z",
            "--cached",
            "--others",
            "--exclude-standard",
            "--deduplicate",
        ]);
        let output = git.output().map_err(|_| VmError::Missing {
            tool: "git".into(),
            package: "git".into(),
        })?;
        if !output.status.success() {
            return Err(refuse(format!(
                "git ls-files in {}: {}",
                tree.display(),
                first_line(&output.stderr)
            )));
        }
        let names = output
            .stdout
            .split(|&byte| byte == 0)
            .filter(|name| !name.is_empty());
        let files = names.map(|name| PathBuf::from(std::ffi::OsStr::from_bytes(name)));
        files
            .filter(|file| {
                fs::symlink_metadata(tree.join(file)).is_ok_and(|metadata| !metadata.is_dir())
            })
            .collect()
    } else {
        if tree.join(".config").exists() {
            return Err(refuse(format!(
                "{} has a .config: it was built in place; run make mrproper there",
                tree.display()
            )));
        }
        let mut files = Vec::new();
        walk(tree, Path::new(""), &mut files)?;
        files
    };
    files.sort();
    Ok(files)
}

fn walk(tree: &Path, below: &Path, files: &mut Vec<PathBuf>) -> Result<(), VmError> {
    let directory = tree.join(below);
    for entry in fs::read_dir(&directory).map_err(VmError::io("cannot list", &directory))? {
        let entry = entry.map_err(VmError::io("cannot list", &directory))?;
        let name = below.join(entry.file_name());
        if entry
            .file_type()
            .map_err(VmError::io("cannot read", &directory))?
            .is_dir()
        {
            walk(tree, &name, files)?;
        } else {
            files.push(name);
        }
    }
    Ok(())
}

fn command(base: &Base, command: &mut Command, place: &Path) -> Result<(), VmError> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(|source| VmError::Start {
            program: program.clone(),
            source,
        })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("No space left on device") {
        return Err(VmError::NoSpace {
            doing: format!("unpack base `{}`", base.name),
            path: place.to_owned(),
        });
    }
    Err(VmError::Base {
        base: base.name.clone(),
        reason: format!("{program}: {}", first_line(&output.stderr)),
    })
}

fn first_line(said: &[u8]) -> String {
    let said = String::from_utf8_lossy(said);
    said.lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("it says nothing")
        .to_owned()
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
