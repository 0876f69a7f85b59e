// SPDX-License-Identifier: MIT OR Apache-2.0
//! The ring library's examples, built for the guest: what the cases of the group `library` run.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::error::Error;
use crate::guest_cargo::{self, Linking, check};
use crate::tree::Tree;

/// Those in Rust, and those in C, below the top of the tree.
const RUST: &str = "cases/ring/examples";
const C: &str = "cases/ring/c/examples";
/// Where `nlring.h` is.
const INCLUDE: &str = "cases/ring/c/include";

/// The programs by their names in the guest: those in C with `-c` behind their names where they have
/// the shared library, with `-c-static` where they have the other.
pub fn ensure(tree: &Tree) -> Result<BTreeMap<String, PathBuf>, Error> {
    guest_cargo::build(
        tree,
        &["--package", "nlring", "--examples"],
        Linking::Static,
    )?;
    guest_cargo::build(tree, &["--package", "nlring-c"], Linking::Shared)?;
    let mut programs = BTreeMap::new();
    let built = Linking::Static.directory(tree).join("examples");
    for name in names(tree, RUST, "rs")? {
        let program = built.join(&name);
        programs.insert(name, program);
    }
    for name in names(tree, C, "c")? {
        for (suffix, library) in [("c", "-lnlring"), ("c-static", "-l:libnlring.a")] {
            let as_named = format!("{name}-{suffix}");
            let program = compile(tree, &name, &as_named, library)?;
            programs.insert(as_named, program);
        }
    }
    Ok(programs)
}

/// The stems of the files in a directory that end so.
fn names(tree: &Tree, directory: &str, extension: &str) -> Result<Vec<String>, Error> {
    let path = tree.root().join(directory);
    let list = || -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&path)? {
            let file = entry?.path();
            if file.extension() == Some(OsStr::new(extension)) {
                names.extend(
                    file.file_stem()
                        .map(|stem| stem.to_string_lossy().into_owned()),
                );
            }
        }
        Ok(names)
    };
    list().map_err(|source| Error::GuestProgram {
        why: format!("cannot read {}: {source}", path.display()),
        command: format!("ls {}", path.display()),
    })
}

/// Compiles an example in C with libmnl and this of our libraries.
fn compile(tree: &Tree, name: &str, program: &str, library: &str) -> Result<PathBuf, Error> {
    let libraries = Linking::Shared.directory(tree);
    let program = libraries.join(program);
    let text = |path: &Path| path.display().to_string();
    let words = [
        "-O2".to_owned(),
        "-Wall".to_owned(),
        "-Wextra".to_owned(),
        "-Werror".to_owned(),
        format!("-I{}", text(&tree.root().join(INCLUDE))),
        text(&tree.root().join(C).join(name).with_extension("c")),
        "-o".to_owned(),
        text(&program),
        format!("-L{}", text(&libraries)),
        format!("-Wl,-rpath,{}", text(&libraries)),
        library.to_owned(),
        "-lmnl".to_owned(),
    ];
    let command = format!("cc {}", words.join(" "));
    let output = Command::new("cc").args(&words).output();
    match output {
        Ok(output) => check(&output, command).map(|()| program),
        Err(source) => Err(Error::GuestProgram {
            why: format!("cannot start cc: {source}; run ci/setup"),
            command,
        }),
    }
}
