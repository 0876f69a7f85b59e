// SPDX-License-Identifier: MIT OR Apache-2.0
//! The series: the patches of kernel-config/patches, brought into a work tree.
//!
//! A work tree shares its files with the pristine one by hard links, so nothing in it is ever
//! written in place: the patched files are made in a scratch directory, and only those whose content
//! differs are renamed into the tree. What stays the same keeps its time, and make its objects; what
//! changes, back to pristine too, gets a new time, since make compares nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::VmError;
use crate::cache::write_whole;
use crate::digest::Key;
use crate::matrix::Base;

/// One patch, read.
#[derive(Debug, Clone)]
pub(super) struct Patch {
    /// Its path below `patches/`, so that a base's own form is told from the shared one.
    name: String,
    text: Vec<u8>,
}

/// The patches that apply to one base, in order.
#[derive(Debug)]
pub(super) struct Series {
    patches: Vec<Patch>,
}

impl Series {
    /// No patches: with it a work tree goes back to what the base is.
    pub(super) fn none() -> Self {
        Self {
            patches: Vec::new(),
        }
    }

    /// `patches/*.patch` in name order, each replaced by the one of the same number in
    /// `patches/<base>/`, where that has one; numbers only there are added.
    pub(super) fn load(patches: &Path, base: &Base) -> Result<Self, VmError> {
        let mut chosen = BTreeMap::new();
        for directory in [patches.to_owned(), patches.join(&base.name)] {
            let mut here = BTreeMap::<String, PathBuf>::new();
            for path in listing(&directory)? {
                let name = file_name(&path);
                let Some((number, _)) = name
                    .split_once('-')
                    .filter(|(number, _)| number.bytes().all(|b| b.is_ascii_digit()))
                else {
                    return Err(VmError::Config {
                        path,
                        reason: "a patch is named 0001-what-it-does.patch".into(),
                    });
                };
                if let Some(other) = here.insert(number.to_owned(), path.clone()) {
                    let reason = format!("{} has the same number", file_name(&other));
                    return Err(VmError::Config { path, reason });
                }
            }
            chosen.append(&mut here);
        }
        let patches = chosen
            .into_values()
            .map(|path| {
                let text = fs::read(&path).map_err(VmError::io("cannot read", &path))?;
                let name = path.strip_prefix(patches).unwrap_or(&path);
                let name = name.to_string_lossy().into_owned();
                Ok(Patch { name, text })
            })
            .collect::<Result<_, VmError>>()?;
        Ok(Self { patches })
    }

    /// It with one more patch, the file `mutant`, on top.
    pub(super) fn with_mutant(mut self, mutant: &Path) -> Result<Self, VmError> {
        let text = fs::read(mutant).map_err(VmError::io("cannot read", mutant))?;
        let name = format!("mutants/{}", file_name(mutant));
        self.patches.push(Patch { name, text });
        Ok(self)
    }

    pub(super) fn patches(&self) -> &[Patch] {
        &self.patches
    }

    /// Of it, the first `count` patches.
    pub(super) fn first(&self, count: usize) -> Self {
        Self {
            patches: self.patches[..count].to_vec(),
        }
    }

    /// The files that some patch names.
    pub(super) fn touched(&self, base: &Base) -> Result<BTreeSet<PathBuf>, VmError> {
        let mut files = self.patches.iter().map(|patch| patch.touched(base));
        files.try_fold(BTreeSet::new(), |mut all, files| {
            all.extend(files?);
            Ok(all)
        })
    }

    /// SHA-256 of the names and contents, in order.
    pub(super) fn sha256(&self) -> String {
        self.patches
            .iter()
            .fold(Key::default(), |key, patch| {
                key.part(&patch.name).part(&patch.text)
            })
            .finish()
    }

    /// Brings `work`, a hard-linked copy of `pristine`, to the state of this series, whatever series
    /// it was in before. Fails before it changes anything if a patch does not apply.
    pub(super) fn bring(
        &self,
        base: &Base,
        pristine: &Path,
        work: &Path,
        scratch: &Path,
    ) -> Result<(), VmError> {
        let after = self.touched(base)?;
        for file in &after {
            copy_if_there(&pristine.join(file), &scratch.join(file))?;
        }
        for patch in &self.patches {
            patch.apply(base, scratch)?;
        }

        // The list of touched files is a promise about the tree, so it is widened before and
        // narrowed after the change: cut off between the two, the next run restores all of them.
        let note = work.with_extension("touched");
        let before = match fs::read_to_string(&note) {
            Ok(text) => text.lines().map(PathBuf::from).collect(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeSet::new(),
            Err(error) => return Err(VmError::io("cannot read", &note)(error)),
        };
        let both = before.union(&after).cloned().collect();
        write_list(&note, &both)?;
        for file in &both {
            let wanted = if after.contains(file) {
                scratch.join(file)
            } else {
                pristine.join(file)
            };
            replace(&wanted, &work.join(file))?;
        }
        write_list(&note, &after)
    }
}

impl Patch {
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn text(&self) -> &[u8] {
        &self.text
    }

    /// The files that it names.
    pub(super) fn touched(&self, base: &Base) -> Result<BTreeSet<PathBuf>, VmError> {
        touched(&self.text).map_err(|reason| self.refused(base, reason))
    }

    fn refused(&self, base: &Base, reason: String) -> VmError {
        VmError::Patch {
            patch: self.name.clone(),
            base: base.name.clone(),
            reason,
        }
    }

    fn apply(&self, base: &Base, tree: &Path) -> Result<(), VmError> {
        fs::create_dir_all(tree).map_err(VmError::io("cannot make", tree))?;
        let input = tree.join(".patch");
        fs::write(&input, &self.text).map_err(VmError::io("cannot write", &input))?;
        let output = Command::new("patch")
            .args([
                "-p1",
                "--fuzz=0",
                "--batch",
                "--forward",
                "--no-backup-if-mismatch",
                "--reject-file=-",
                "--input=.patch",
            ])
            .current_dir(tree)
            .env("LC_ALL", "C")
            .output()
            .map_err(|source| match source.kind() {
                io::ErrorKind::NotFound => VmError::Missing {
                    tool: "patch".into(),
                    package: "patch".into(),
                },
                _ => VmError::Start {
                    program: "patch".into(),
                    source,
                },
            })?;
        fs::remove_file(&input).map_err(VmError::io("cannot remove", &input))?;
        if output.status.success() {
            return Ok(());
        }
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said);
        if said.contains("No space left on device") {
            return Err(VmError::NoSpace {
                doing: format!("apply {}", self.name),
                path: tree.to_owned(),
            });
        }
        Err(self.refused(base, first_refusal(&said)))
    }
}

/// The file and hunk of what GNU patch says first.
fn first_refusal(said: &str) -> String {
    let mut file = "?";
    for line in said.lines() {
        if let Some(name) = line
            .strip_prefix("patching file ")
            .or_else(|| line.strip_prefix("checking file "))
        {
            file = name.trim_matches('\'');
        } else if let Some(rest) = line.strip_prefix("Hunk #") {
            let hunk = rest.split(' ').next().unwrap_or(rest);
            if rest.contains("FAILED") || rest.contains("ignored") {
                return format!("hunk {hunk} of {file} does not fit");
            }
        } else if line.starts_with("can't find file") {
            let named = said.lines().find_map(|line| line.strip_prefix("|--- "));
            return format!("the base has no {}", named.unwrap_or("such file"));
        } else if let Some(name) = line.strip_prefix("The next patch would create the file ") {
            return format!("the base has {} already", name.trim_end_matches(','));
        } else if line.starts_with("Not deleting file ") {
            return format!("{file} has more than the patch deletes");
        } else if line.contains("malformed patch") {
            return line.to_owned();
        }
    }
    let first = said
        .lines()
        .find(|line| !line.trim().is_empty())
        .unwrap_or("patch says nothing");
    format!("{file}: {first}")
}

/// The files that a patch names, without the first component of the path.
fn touched(text: &[u8]) -> Result<BTreeSet<PathBuf>, String> {
    let text = String::from_utf8_lossy(text);
    let (mut files, mut old, mut new) = (BTreeSet::new(), 0_u64, 0_u64);
    for (number, line) in text.lines().enumerate() {
        if old > 0 || new > 0 {
            // Inside a hunk a line is content, whatever it looks like.
            match line.as_bytes().first() {
                Some(b' ') | None => (old, new) = (old.saturating_sub(1), new.saturating_sub(1)),
                Some(b'-') => old = old.saturating_sub(1),
                Some(b'+') => new = new.saturating_sub(1),
                Some(b'\\') => {}
                Some(_) => return Err(format!("line {} is cut off in a hunk", number + 1)),
            }
        } else if let Some(ranges) = line.strip_prefix("@@ -") {
            (old, new) = hunk(ranges).ok_or_else(|| format!("line {} is no hunk", number + 1))?;
        } else {
            let name = ["--- ", "+++ "]
                .iter()
                .find_map(|mark| line.strip_prefix(mark));
            let name = name
                .map(|name| name.split('\t').next().unwrap_or(name))
                .filter(|name| *name != "/dev/null");
            if let Some((_, file)) = name.and_then(|name| name.split_once('/')) {
                files.insert(safe(file)?);
            }
            if let Some(file) = line
                .strip_prefix("rename from ")
                .or_else(|| line.strip_prefix("rename to "))
            {
                files.insert(safe(file)?);
            }
        }
    }
    if old > 0 || new > 0 {
        return Err("it ends in the middle of a hunk".into());
    }
    if files.is_empty() {
        return Err("it changes no file".into());
    }
    Ok(files)
}

fn hunk(ranges: &str) -> Option<(u64, u64)> {
    let (old, rest) = ranges.split_once(" +")?;
    let (new, _) = rest.split_once(" @@")?;
    let count = |range: &str| {
        range
            .split_once(',')
            .map_or(Some(1), |(_, count)| count.parse().ok())
    };
    Some((count(old)?, count(new)?))
}

fn safe(file: &str) -> Result<PathBuf, String> {
    let path = PathBuf::from(file);
    let inside = path
        .components()
        .all(|part| matches!(part, std::path::Component::Normal(_)));
    if inside {
        Ok(path)
    } else {
        Err(format!("it names {file}, which is outside the tree"))
    }
}

/// Makes `to` have the content and mode of `from`, or be absent like it, by renaming.
fn replace(from: &Path, to: &Path) -> Result<(), VmError> {
    let wanted = read_if_there(from)?;
    if wanted == read_if_there(to)? {
        return Ok(());
    }
    match wanted {
        None => fs::remove_file(to).map_err(VmError::io("cannot remove", to)),
        Some(content) => {
            let directory = to.parent().expect("a file in the tree");
            fs::create_dir_all(directory).map_err(VmError::io("cannot make", directory))?;
            let mode = fs::metadata(from).map_err(VmError::io("cannot read", from))?;
            write_whole(to, &content)?;
            fs::set_permissions(to, mode.permissions())
                .map_err(VmError::io("cannot set the mode of", to))
        }
    }
}

/// Gives `file` of a work tree, if it is there, a new time, so that make takes it for changed. It may be
/// a link to the base's, whose time must stay.
pub(super) fn renew(file: &Path) -> Result<(), VmError> {
    let Some(content) = read_if_there(file)? else {
        return Ok(());
    };
    let mode = fs::metadata(file).map_err(VmError::io("cannot read", file))?;
    write_whole(file, &content)?;
    fs::set_permissions(file, mode.permissions())
        .map_err(VmError::io("cannot set the mode of", file))
}

fn read_if_there(path: &Path) -> Result<Option<Vec<u8>>, VmError> {
    match fs::read(path) {
        Ok(content) => Ok(Some(content)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(VmError::io("cannot read", path)(error)),
    }
}

fn copy_if_there(from: &Path, to: &Path) -> Result<(), VmError> {
    let directory = to.parent().expect("a file in a scratch directory");
    fs::create_dir_all(directory).map_err(VmError::io("cannot make", directory))?;
    match fs::copy(from, to) {
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(VmError::io("cannot copy", from)(error)),
    }
}

fn write_list(note: &Path, files: &BTreeSet<PathBuf>) -> Result<(), VmError> {
    let lines: Vec<_> = files.iter().map(|file| file.to_string_lossy()).collect();
    write_whole(note, lines.join("\n").as_bytes())
}

fn listing(directory: &Path) -> Result<Vec<PathBuf>, VmError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(VmError::io("cannot list", directory)(error)),
    };
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(VmError::io("cannot list", directory))?.path();
        if path
            .extension()
            .is_some_and(|extension| extension == "patch")
        {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
#[path = "series_tests.rs"]
mod tests;
