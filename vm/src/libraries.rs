// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which files a program needs to start: its interpreter and its libraries, and theirs.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use goblin::elf::Elf;

use crate::VmError;

/// Where the dynamic linker of Debian's amd64 looks by itself, in its order.
const SEARCH: &[&str] = &[
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib64",
    "/usr/lib64",
    "/lib",
    "/usr/lib",
];

/// The files that `program` needs beside itself, under the names by which the linker finds them.
pub(crate) fn needed(program: &Path) -> Result<BTreeSet<PathBuf>, VmError> {
    let (mut found, mut open) = (BTreeSet::new(), vec![program.to_owned()]);
    while let Some(file) = open.pop() {
        let bytes = fs::read(&file).map_err(VmError::io("cannot read", &file))?;
        let refuse = |reason: String| VmError::Config {
            path: file.clone(),
            reason,
        };
        let elf =
            Elf::parse(&bytes).map_err(|error| refuse(format!("it is no ELF program: {error}")))?;
        let own: Vec<&str> = elf
            .runpaths
            .iter()
            .chain(&elf.rpaths)
            .flat_map(|paths| paths.split(':'))
            .collect();
        let origin = file
            .parent()
            .unwrap_or(Path::new("/"))
            .to_string_lossy()
            .into_owned();
        for library in &elf.libraries {
            let places = own
                .iter()
                .map(|path| path.replace("$ORIGIN", &origin))
                .chain(SEARCH.iter().map(ToString::to_string));
            let path = places
                .map(|directory| Path::new(&directory).join(library))
                .find(|path| path.is_file())
                .ok_or_else(|| {
                    refuse(format!(
                        "it needs {library}, which is in none of {}",
                        SEARCH.join(", ")
                    ))
                })?;
            if found.insert(path.clone()) {
                open.push(path);
            }
        }
        if let Some(interpreter) = elf.interpreter.map(PathBuf::from)
            && found.insert(interpreter.clone())
        {
            open.push(interpreter);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_test_itself_needs_its_interpreter_and_the_c_library() {
        let names: Vec<_> = needed(&std::env::current_exe().unwrap())
            .unwrap()
            .iter()
            .map(|path| path.file_name().unwrap().to_string_lossy().into_owned())
            .collect();
        assert!(names.iter().any(|name| name == "libc.so.6"), "{names:?}");
        assert!(
            names.iter().any(|name| name.starts_with("ld-linux")),
            "{names:?}"
        );
    }

    #[test]
    fn libraries_of_libraries_are_found() {
        let shell = needed(Path::new("/bin/sh")).unwrap();
        let direct = Elf::parse(&fs::read("/bin/sh").unwrap())
            .unwrap()
            .libraries
            .len();
        assert!(shell.len() > direct, "{shell:?}");
    }

    #[test]
    fn what_is_no_program_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "#!/bin/sh\n").unwrap();
        let message = needed(file.path()).unwrap_err().to_string();
        assert!(
            message.contains("no ELF program") && message.contains(&*file.path().to_string_lossy()),
            "{message}"
        );
    }
}
