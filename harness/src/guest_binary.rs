// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one binary in every guest.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use crate::error::Error;
use crate::guest_cargo::{self, Linking};
use crate::tree::Tree;

/// What cargo is asked for.
const ARGUMENTS: [&str; 5] = [
    "--package",
    "nlring-harness",
    "--bin",
    "nlring-guest",
    "--no-default-features",
];

/// What shapes the build and is named by no dep-info file.
const MANIFESTS: [&str; 7] = [
    "Cargo.toml",
    "Cargo.lock",
    "harness/Cargo.toml",
    "cases/Cargo.toml",
    "cases/ring/Cargo.toml",
    "vm/agent/Cargo.toml",
    "vm/channel/Cargo.toml",
];

/// The guest binary, built if a source is newer. `building` is called before that takes time.
pub fn ensure(tree: &Tree, building: impl FnOnce()) -> Result<PathBuf, Error> {
    let directory = Linking::Static.directory(tree);
    let (binary, stamp) = (
        directory.join("nlring-guest"),
        directory.join("nlring-guest.built"),
    );
    if binary.is_file() && is_fresh(tree.root(), &directory.join("nlring-guest.d"), &stamp) {
        return Ok(binary);
    }
    building();
    // Taken before cargo looks, so that a source saved meanwhile counts as newer.
    let begun = SystemTime::now();
    guest_cargo::build(tree, &ARGUMENTS, Linking::Static)?;
    let record = File::create(&stamp).and_then(|file| file.set_modified(begun));
    record.map_err(|source| Error::GuestProgram {
        why: format!("cannot write {}: {source}", stamp.display()),
        command: format!("rm -r {}", directory.display()),
    })?;
    Ok(binary)
}

/// Whether the last build was of this tree (a target directory may be shared), and every source that it
/// used is older than it.
fn is_fresh(root: &Path, dep_info: &Path, stamp: &Path) -> bool {
    let modified = |path: &Path| {
        fs::metadata(path)
            .and_then(|metadata| metadata.modified())
            .ok()
    };
    let (Some(built), Ok(text)) = (modified(stamp), fs::read_to_string(dep_info)) else {
        return false;
    };
    let Ok(real_root) = root.canonicalize() else {
        return false;
    };
    // Stamped before the clock was set back: what is edited from now on would not look newer.
    if built > SystemTime::now() {
        return false;
    }
    let sources = sources(&text);
    let manifests = MANIFESTS.iter().map(|name| root.join(name));
    !sources.is_empty()
        && sources.iter().all(|path| path.starts_with(&real_root))
        && sources
            .into_iter()
            .chain(manifests)
            .all(|path| modified(&path).is_some_and(|time| time < built))
}

/// The files that cargo's dep-info names: `binary: source source…`, blanks in names escaped.
fn sources(dep_info: &str) -> Vec<PathBuf> {
    let lines = dep_info.lines().filter_map(|line| line.split_once(": "));
    lines
        .flat_map(|(_, list)| {
            let protected = list.replace("\\ ", "\0");
            protected
                .split_whitespace()
                .map(|name| PathBuf::from(name.replace('\0', " ")))
                .collect::<Vec<_>>()
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn dep_info_names_are_read_with_their_blanks() {
        let text = "/t/nlring-guest: /a/b.rs /with\\ blank/c.rs\n\n";
        assert_eq!(
            sources(text),
            [PathBuf::from("/a/b.rs"), PathBuf::from("/with blank/c.rs")]
        );
    }

    #[test]
    fn a_source_that_is_newer_or_gone_makes_it_stale() {
        let directory = tempfile::tempdir().unwrap();
        let root = &directory.path().canonicalize().unwrap();
        let age = |name: &str, seconds: u64| {
            let path = root.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let time = SystemTime::now() - Duration::from_secs(seconds);
            File::create(&path).unwrap().set_modified(time).unwrap();
            path
        };
        for manifest in MANIFESTS {
            age(manifest, 100);
        }
        let (source, stamp) = (age("a.rs", 100), age("stamp", 50));
        let dep_info = root.join("guest.d");
        fs::write(&dep_info, format!("guest: {}\n", source.display())).unwrap();
        assert!(is_fresh(root, &dep_info, &stamp));
        age("Cargo.lock", 10);
        assert!(!is_fresh(root, &dep_info, &stamp));
        age("Cargo.lock", 100);
        let built = fs::metadata(&stamp).unwrap().modified().unwrap();
        let future = SystemTime::now() + Duration::from_secs(1000);
        File::open(&stamp).unwrap().set_modified(future).unwrap();
        assert!(!is_fresh(root, &dep_info, &stamp), "the clock was set back");
        File::open(&stamp).unwrap().set_modified(built).unwrap();
        age("a.rs", 10);
        assert!(!is_fresh(root, &dep_info, &stamp));
        fs::remove_file(&source).unwrap();
        assert!(!is_fresh(root, &dep_info, &stamp));
        assert!(!is_fresh(root, &root.join("none.d"), &stamp));
        let elsewhere = tempfile::NamedTempFile::new().unwrap();
        elsewhere
            .as_file()
            .set_modified(SystemTime::UNIX_EPOCH)
            .unwrap();
        fs::write(
            &dep_info,
            format!("guest: {}\n", elsewhere.path().display()),
        )
        .unwrap();
        assert!(
            !is_fresh(root, &dep_info, &stamp),
            "a build of another tree"
        );
    }
}
