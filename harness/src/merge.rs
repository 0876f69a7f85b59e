// SPDX-License-Identifier: MIT OR Apache-2.0
//! One report of several: of a run that was split over machines, or of sittings of which each counts.
//!
//! Results are taken as they are, in the order of the list of cases, and counted anew. What they name as
//! evidence is copied, so that the merged report is whole without its parts.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::case_run::fresh_folder;
use crate::error::Error;
use crate::report::{RESULTS, Report};
use crate::results::{Accel, CaseResult, Kernel, Results, Totals};

/// A report to be merged.
#[derive(Debug)]
struct Part {
    /// Its `results.json`.
    file: PathBuf,
    results: Results,
}

/// Merges `reports`, each a report's directory or its `results.json`, into one, and writes that.
///
/// # Errors
/// A report cannot be read or has nothing in it, is there twice, or is of another kernel than one before it
/// of the same name; or the result cannot be written.
pub fn merge(reports: &[PathBuf], into: &Report) -> Result<Results, Error> {
    let mut parts: Vec<Part> = Vec::new();
    for report in reports {
        let part = read(report, into)?;
        if let Some(same) = parts.iter().find(|known| known.results == part.results) {
            let reason = format!("it is the same as {}; name each once", same.file.display());
            return Err(unmergeable(&part.file, reason));
        }
        parts.push(part);
    }
    let kernels = kernels(&parts)?;
    let mut cases = Vec::new();
    for (number, part) in (1..).zip(&parts) {
        let name = format!("part-{number}");
        let evidence = into.directory().join(&name);
        keep_evidence(part, &evidence).map_err(|source| Error::Report {
            path: evidence,
            source,
        })?;
        let moved = part.results.cases.iter();
        cases.extend(moved.map(|case| below(case, &name)));
    }
    let position = |case: &CaseResult| {
        let all = nlring_cases::all().iter();
        all.take_while(|known| known.name != case.name).count()
    };
    cases.sort_by_cached_key(position);
    let of_parts = || parts.iter().map(|part| &part.results);
    let results = Results {
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        started: of_parts()
            .map(|results| results.started.clone())
            .min()
            .unwrap_or_default(),
        duration_ms: of_parts().map(|results| results.duration_ms).sum(),
        accel: accel(of_parts()),
        kernels,
        totals: Totals::of(&cases),
        cases,
    };
    into.write(&results)?;
    Ok(results)
}

fn read(report: &Path, into: &Report) -> Result<Part, Error> {
    let file = if report.is_dir() {
        report.join(RESULTS)
    } else {
        report.to_owned()
    };
    let refuse = |reason: String| unmergeable(&file, reason);
    let text = fs::read(&file).map_err(|error| refuse(error.to_string()))?;
    let results: Results = serde_json::from_slice(&text)
        .map_err(|error| refuse(format!("it is not a results.json: {error}")))?;
    let directory = file
        .canonicalize()
        .map(|file| file.parent() == Some(into.directory()));
    if directory.is_ok_and(|is_same| is_same) {
        return Err(refuse(String::from(
            "the merged report would take its place; choose another directory with --report DIR",
        )));
    }
    Ok(Part { file, results })
}

fn unmergeable(path: &Path, reason: String) -> Error {
    Error::Unmergeable {
        path: path.to_owned(),
        reason,
    }
}

/// Every kernel once. Two of one name must be one kernel, or a count would be of neither.
fn kernels(parts: &[Part]) -> Result<Vec<Kernel>, Error> {
    let mut kernels: Vec<(&Kernel, &Path)> = Vec::new();
    for part in parts {
        for kernel in &part.results.kernels {
            let Some((known, file)) = kernels.iter().find(|(known, _)| known.name == kernel.name)
            else {
                kernels.push((kernel, &part.file));
                continue;
            };
            if let Some((what, there, here)) = known.difference(kernel) {
                let (name, file) = (&kernel.name, file.display());
                let reason =
                    format!("its kernel {name} has {what} {here}, that of {file} has {there}");
                return Err(unmergeable(&part.file, reason));
            }
        }
    }
    Ok(kernels
        .into_iter()
        .map(|(kernel, _)| kernel.clone())
        .collect())
}

/// What all of them ran on.
fn accel<'a>(results: impl Iterator<Item = &'a Results>) -> Option<Accel> {
    let (mut names, mut reasons) = (Vec::new(), Vec::new());
    for accel in results.filter_map(|results| results.accel.as_ref()) {
        for (known, word) in [(&mut names, &accel.name), (&mut reasons, &accel.reason)] {
            if !known.contains(word) {
                known.push(word.clone());
            }
        }
    }
    (!names.is_empty()).then(|| Accel {
        name: names.join("+"),
        reason: reasons.join("; "),
    })
}

/// Copies the folders that the part's results name, as far as they are there, to `evidence`.
fn keep_evidence(part: &Part, evidence: &Path) -> io::Result<()> {
    fresh_folder(evidence)?;
    let directory = part.file.parent().unwrap_or(Path::new(""));
    let mut folders: Vec<&Path> = Vec::new();
    for case in &part.results.cases {
        folders.push(Path::new(&case.name)); // of the group compat: what was said, beside the console
        folders.extend(
            case.files()
                .filter_map(|(_, path)| Path::new(path).parent()),
        );
    }
    folders.sort_unstable();
    folders.dedup();
    for folder in folders {
        let from = directory.join(folder);
        if from.is_dir() {
            copy_tree(&from, &evidence.join(folder))?;
        }
    }
    Ok(())
}

fn copy_tree(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type()?.is_dir() {
            copy_tree(&path, &copy)?;
        } else {
            fs::copy(&path, &copy)?;
        }
    }
    Ok(())
}

/// The result with its files in the folder `name`.
fn below(case: &CaseResult, name: &str) -> CaseResult {
    let mut moved = case.clone();
    for (kind, path) in case.files() {
        let line = format!("{kind}: {path}");
        let there = moved.evidence.iter_mut().find(|known| **known == line);
        *there.expect("it was just read from there") = format!("{kind}: {name}/{path}");
    }
    moved
}
