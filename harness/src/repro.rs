// SPDX-License-Identifier: MIT OR Apache-2.0
//! How to have a result again: written beside the evidence of what did not pass, read by `nlring repro`.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::error::Error;
use crate::names::full_name;
use crate::plan::Planned;
use crate::report;
use crate::results::Kernel;

/// The file of a recipe, in a case's folder.
const RECIPE: &str = "repro.json";
/// The script beside it.
const SCRIPT: &str = "repro.sh";

/// What it takes to run a case as it was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recipe {
    /// The case, with its group.
    pub case: String,
    /// The kernel that it ran on.
    pub kernel: Kernel,
    /// The run's seed that gives the case its own.
    pub seed: u64,
    /// Whether its VM was booted.
    pub cold: bool,
}

impl Recipe {
    /// That of a case which ran on one of these kernels.
    #[must_use]
    pub fn of(planned: &Planned, kernels: &[Kernel]) -> Option<Self> {
        let name = planned.kernel()?;
        let kernel = kernels.iter().find(|kernel| kernel.name == name)?;
        Some(Self {
            case: full_name(planned.case),
            kernel: kernel.clone(),
            seed: planned.base_seed,
            cold: planned.cold,
        })
    }

    /// Writes it into `folder`, with a script that has the `ci/nlring` of the source tree `root` follow it.
    pub fn write(&self, folder: &Path, root: &Path) -> Result<(), Error> {
        let failure = |path: &Path| {
            let path = path.to_owned();
            |source| Error::Report { path, source }
        };
        fs::create_dir_all(folder).map_err(failure(folder))?;
        let path = folder.join(RECIPE);
        report::write_whole(&path, report::json(self).as_bytes()).map_err(failure(&path))?;
        let path = folder.join(SCRIPT);
        report::write_script(&path, self.script(root).as_bytes()).map_err(failure(&path))
    }

    fn script(&self, root: &Path) -> String {
        let Kernel { name, release, .. } = &self.kernel;
        let Self { case, seed, .. } = self;
        let command = root.join("ci/nlring").display().to_string();
        let command = command.replace('\'', r"'\''");
        format!(
            "#!/bin/sh\n\
             # Runs {case} as it was run: on kernel {name} ({release}), with seed {seed}.\n\
             # NLRING is the ci/nlring to run it with, if not that of the tree it was run from.\n\
             nlring='{command}'\n\
             exec \"${{NLRING:-$nlring}}\" repro \"$(dirname \"$0\")\" \"$@\"\n"
        )
    }

    /// Reads that in `path`, which is a case's folder in a report, or a file of it.
    pub fn read(path: &Path) -> Result<Self, Error> {
        let folder = if path.is_dir() {
            path
        } else {
            path.parent().unwrap_or(path)
        };
        let path = folder.join(RECIPE);
        let read = || {
            let text = fs::read(&path)?;
            serde_json::from_slice(&text).map_err(io::Error::from)
        };
        read().map_err(|source| Error::Recipe {
            path: path.clone(),
            source,
        })
    }

    /// Whether `kernel` is the one that it was run on.
    pub fn admits(&self, kernel: &Kernel) -> Result<(), Error> {
        match self.kernel.difference(kernel) {
            None => Ok(()),
            Some((what, then, now)) => Err(Error::OtherKernel {
                kernel: self.kernel.name.clone(),
                what,
                then,
                now,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn recipe() -> Recipe {
        Recipe {
            case: String::from("tx::a_case"),
            kernel: Kernel {
                name: String::from("6.1"),
                release: String::from("6.1.192"),
                base: String::from("linux-source-6.1"),
                series_sha256: "a".repeat(64),
                config_sha256: "b".repeat(64),
                compiler: String::from("gcc 12.2.0"),
            },
            seed: 7,
            cold: true,
        }
    }

    #[test]
    fn what_is_written_is_read_from_the_folder_and_from_its_files() {
        let directory = tempfile::tempdir().unwrap();
        let folder = directory.path().join("a_case");
        recipe().write(&folder, Path::new("/it's here")).unwrap();
        for path in [
            &folder,
            &folder.join("repro.sh"),
            &folder.join("console.log"),
        ] {
            assert_eq!(Recipe::read(path).unwrap(), recipe());
        }
        // Which ci/lint-scripts reads.
        let script = fs::read_to_string(folder.join("repro.sh")).unwrap();
        assert_eq!(script, include_str!("../tests/golden/repro.sh"));
    }

    #[test]
    fn a_script_runs_the_harness_on_its_own_folder_wherever_that_is() {
        let directory = tempfile::tempdir().unwrap();
        recipe()
            .write(directory.path(), Path::new("/nowhere"))
            .unwrap();
        let output = std::process::Command::new(directory.path().join("repro.sh"))
            .arg("--jobs=1")
            .env("NLRING", "echo")
            .output()
            .unwrap();
        assert_eq!(
            String::from_utf8(output.stdout).unwrap(),
            format!("repro {} --jobs=1\n", directory.path().display())
        );
    }

    #[test]
    fn another_kernel_is_told_by_what_is_different() {
        let mut kernel = recipe().kernel;
        recipe().admits(&kernel).unwrap();
        kernel.series_sha256 = "c".repeat(64);
        let told = recipe().admits(&kernel).unwrap_err().to_string();
        assert!(
            told.contains("series aaaaaaaaaaaa") && told.contains("cccccccccccc"),
            "{told}"
        );
    }

    #[test]
    fn no_recipe_is_one_line() {
        let directory = tempfile::tempdir().unwrap();
        let error = Recipe::read(directory.path()).unwrap_err();
        assert_eq!(error.exit_status(), 2);
        fs::write(directory.path().join(RECIPE), "{").unwrap();
        let text = Recipe::read(directory.path()).unwrap_err().to_string();
        assert!(
            text.contains("repro.json") && !text.contains('\n'),
            "{text}"
        );
    }
}
