// SPDX-License-Identifier: MIT OR Apache-2.0
//! The selftest that the series brings along, built by the tree's own Makefile against the headers
//! that this kernel shows to programs.

use std::fs;
use std::path::PathBuf;

use super::compile::Make;
use super::{Event, Phase};
use crate::VmError;
use crate::cache::remove_tree;

/// Its name: below [`DIRECTORY`] as source, and as a program.
pub(crate) const NAME: &str = "netlink_mmap";

const DIRECTORY: &str = "tools/testing/selftests/net";

/// Builds it, static, in make's output directory. `None`: the tree has none.
pub(super) fn build(make: &Make, on: &mut dyn FnMut(Event)) -> Result<Option<PathBuf>, VmError> {
    let source = make.tree().join(DIRECTORY).join(format!("{NAME}.c"));
    if !source.exists() {
        return Ok(None);
    }
    on(Event::Phase(Phase::Selftest));
    make.run(&["headers"])?;
    let output = make.out().join("selftest");
    // Its rule looks at the source only, not at the headers.
    remove_tree(&output)?;
    fs::create_dir_all(&output).map_err(VmError::io("cannot make", &output))?;
    let program = output.join(NAME);
    let headers = make.out().join("usr/include");
    make.run(&[
        "-C",
        DIRECTORY,
        &format!("OUTPUT={}", output.display()),
        &format!("KHDR_INCLUDES=-isystem {}", headers.display()),
        "USERLDFLAGS=-static",
        &program.display().to_string(),
    ])?;
    Ok(Some(program))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// A tree whose Makefiles say what they were asked, instead of the kernel's.
    fn tree(with_selftest: bool) -> (tempfile::TempDir, Make) {
        let directory = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = directory.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        write(
            "Makefile",
            "headers:\n\tmkdir -p $(O)/usr/include; echo '#define A 1' > $(O)/usr/include/a.h\n",
        );
        write(
            &format!("{DIRECTORY}/Makefile"),
            "$(OUTPUT)/%: %.c\n\t$(CC) $(KHDR_INCLUDES) $< $(USERLDFLAGS) -o $@\n",
        );
        if with_selftest {
            write(
                &format!("{DIRECTORY}/{NAME}.c"),
                "#include <a.h>\nint main(void) { return A; }\n",
            );
        }
        let [tree, out, log] = [".", "out", "log"].map(|name| directory.path().join(name));
        let make = Make::new("6.1", tree, out, log).unwrap();
        (directory, make)
    }

    #[test]
    fn it_is_built_static_against_the_kernels_headers() {
        let (_directory, make) = tree(true);
        let mut phases = Vec::new();
        let program = build(&make, &mut |event| phases.push(event))
            .unwrap()
            .unwrap();
        assert_eq!(phases, [Event::Phase(Phase::Selftest)]);
        assert!(
            crate::libraries::needed(Path::new(&program))
                .unwrap()
                .is_empty()
        );
        let status = std::process::Command::new(program).status().unwrap();
        assert_eq!(status.code(), Some(1));
    }

    #[test]
    fn a_tree_without_it_is_left_alone() {
        let (_directory, make) = tree(false);
        let built = build(&make, &mut |_| unreachable!("nothing is done")).unwrap();
        assert_eq!(built, None);
        assert!(!make.out().exists());
    }

    #[test]
    fn one_that_does_not_compile_stops_the_build() {
        let (directory, make) = tree(true);
        let source = directory.path().join(DIRECTORY).join(format!("{NAME}.c"));
        fs::write(source, "#include <a.h>\nint main(void) { return B; }\n").unwrap();
        let message = build(&make, &mut |_| ()).unwrap_err().to_string();
        assert!(message.contains("undeclared"), "{message}");
    }
}
