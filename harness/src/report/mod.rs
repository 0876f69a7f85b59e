// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report: one result model, written as JSON, `JUnit`, KTAP and HTML into one directory. A file of it is
//! there whole or not at all.

mod chart;
mod html;
mod junit;
mod ktap;
pub mod summary;

use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use tempfile::NamedTempFile;

use crate::error::Error;
use crate::results::{CaseResult, Results};

/// The file in which programs read everything.
pub const RESULTS: &str = "results.json";

/// A report's directory, known to be writable.
#[derive(Debug, Clone)]
pub struct Report {
    directory: PathBuf,
}

impl Report {
    /// Makes `directory` if it is not there, and makes sure that a file can be written into it: to be
    /// called before anything that takes long.
    pub fn open(directory: &Path) -> Result<Self, Error> {
        let probe = || {
            fs::create_dir_all(directory)?;
            let absolute = directory.canonicalize()?;
            NamedTempFile::new_in(&absolute)?;
            Ok(absolute)
        };
        let directory = probe().map_err(|source| Error::Report {
            path: directory.to_owned(),
            source,
        })?;
        Ok(Self { directory })
    }

    /// Where it is.
    #[must_use]
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Writes `results.json`, `junit.xml`, `results.ktap` and `index.html`.
    pub fn write(&self, results: &Results) -> Result<(), Error> {
        let files = [
            (RESULTS, json(results)),
            ("junit.xml", junit::render(results)),
            ("results.ktap", ktap::render(results)),
            ("index.html", html::render(results, &self.directory)),
        ];
        for (name, content) in files {
            let path = self.directory.join(name);
            write_whole(&path, content.as_bytes())
                .map_err(|source| Error::Report { path, source })?;
        }
        Ok(())
    }
}

/// `results.json`, also what `--json` prints.
#[must_use]
pub fn json(results: &impl Serialize) -> String {
    let mut text = serde_json::to_string_pretty(results).expect("plain data has a JSON form");
    text.push('\n');
    text
}

/// Writes a case's result into `folder`, as the file `name`.
pub fn write_outcome(folder: &Path, name: &str, result: &CaseResult) -> Result<(), Error> {
    let path = folder.join(name);
    write_whole(&path, json(result).as_bytes()).map_err(|source| Error::Report { path, source })
}

/// Writes a file that is there whole or not at all.
pub(crate) fn write_whole(path: &Path, content: &[u8]) -> io::Result<()> {
    write_with(path, content, 0o644)
}

/// The same, of one that can be run.
pub(crate) fn write_script(path: &Path, content: &[u8]) -> io::Result<()> {
    write_with(path, content, 0o755)
}

fn write_with(path: &Path, content: &[u8], mode: u32) -> io::Result<()> {
    let mut file =
        NamedTempFile::with_prefix_in(".nlring-", path.parent().expect("a file in a directory"))?;
    file.write_all(content)?;
    // A temporary file is private; a report is for everyone who may see the directory.
    let readable = std::os::unix::fs::PermissionsExt::from_mode(mode);
    file.as_file().set_permissions(readable)?;
    file.persist(path)?;
    Ok(())
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::results::{Accel, Kernel, Totals};
    use crate::verdict::Verdict;

    /// One case of each verdict, with text that every format has to quote.
    pub(crate) fn example() -> Results {
        let case = |name: &str, verdict, start_ms, detail: &str| CaseResult {
            name: name.to_owned(),
            group: String::from(if name.starts_with("joining") {
                "multicast"
            } else {
                "ordering"
            }),
            kernel: Some(String::from("6.1")),
            verdict,
            duration_ms: 2500,
            start_ms,
            seed: 77,
            detail: detail.to_owned(),
            evidence: vec![
                String::from("saw <1> & \"2\" # not a directive"),
                String::from("console: x/console.log"),
            ],
        };
        let cases = vec![
            case(
                "frames_stand_in_order",
                Verdict::Pass,
                Some(1100),
                "4096 packets",
            ),
            case(
                "frames_are_whole",
                Verdict::Fail,
                Some(1200),
                "packet 8 before 7 # <oops>",
            ),
            case(
                "joining_is_refused",
                Verdict::Skip,
                None,
                "needs a kernel with rings",
            ),
            case(
                "joining_again_is_refused",
                Verdict::Infra,
                None,
                "QEMU ended",
            ),
        ];
        Results {
            tool_version: String::from("0.1.0"),
            started: String::from("2026-01-02T03:04:05.678Z"),
            duration_ms: 9000,
            accel: Some(Accel {
                name: String::from("tcg"),
                reason: String::from("no /dev/kvm"),
            }),
            kernels: vec![Kernel {
                name: String::from("6.1"),
                release: String::from("6.1.158-nlring"),
                base: String::from("linux-source-6.1"),
                series_sha256: String::from("aa"),
                config_sha256: String::from("bb"),
                compiler: String::from("gcc 12.2.0"),
            }],
            totals: Totals::of(&cases),
            cases,
        }
    }

    #[test]
    fn a_report_is_complete_and_nothing_else_is_left() {
        let directory = tempfile::tempdir().unwrap();
        let report = Report::open(&directory.path().join("deep/er")).unwrap();
        report.write(&example()).unwrap();
        let mut names: Vec<_> = fs::read_dir(report.directory())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        assert_eq!(
            names,
            ["index.html", "junit.xml", "results.json", "results.ktap"]
        );
        let text = fs::read_to_string(report.directory().join("results.json")).unwrap();
        assert_eq!(serde_json::from_str::<Results>(&text).unwrap(), example());
    }

    #[test]
    fn results_json_has_the_fields_of_the_contract_and_no_others() {
        let value = serde_json::to_value(example()).unwrap();
        let keys = |value: &serde_json::Value| {
            let mut keys: Vec<String> = value.as_object().unwrap().keys().cloned().collect();
            keys.sort();
            keys.join(" ")
        };
        assert_eq!(
            keys(&value),
            "accel cases duration_ms kernels started tool_version totals"
        );
        assert_eq!(keys(&value["accel"]), "name reason");
        assert_eq!(
            keys(&value["kernels"][0]),
            "base compiler config_sha256 name release series_sha256"
        );
        assert_eq!(
            keys(&value["cases"][0]),
            "detail duration_ms evidence group kernel name seed start_ms verdict"
        );
        assert_eq!(value["cases"][3]["verdict"], "infra");
        assert_eq!(
            value["totals"],
            serde_json::json!({"pass": 1, "fail": 1, "skip": 1, "infra": 1})
        );
    }

    #[test]
    fn a_directory_that_cannot_be_written_is_told_before_anything_else() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "").unwrap();
        for path in [
            file.clone(),
            file.join("below"),
            PathBuf::from("/proc/nlring-report"),
        ] {
            let error = Report::open(&path).unwrap_err();
            assert_eq!(error.exit_status(), 2);
            let text = error.to_string();
            assert!(
                text.contains(path.to_str().unwrap())
                    && text.contains("--report")
                    && !text.contains('\n'),
                "{text}"
            );
        }
    }
}
