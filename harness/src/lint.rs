// SPDX-License-Identifier: MIT OR Apache-2.0
//! `nlring kernel lint`: the series before the judges of a kernel list, told in lines.

use std::io::Write;
use std::time::Instant;

use nlring_vm::Cache;
use nlring_vm::kernel::lint::{self, Event, HOT_OBJECT, Text};
use nlring_vm::kernel::{self, Phase};
use nlring_vm::matrix::Matrix;

use crate::error::Error;
use crate::lab;
use crate::packages::Need;
use crate::tree::Tree;

/// Judges the series on `bases`, or on all there are; whether nobody complained.
pub fn series(tree: &Tree, bases: &[String], out: &mut dyn Write) -> Result<bool, Error> {
    let matrix = Matrix::load(tree.root())?;
    let bases: Vec<&str> = if bases.is_empty() {
        matrix.bases()
    } else {
        bases.iter().map(String::as_str).collect()
    };
    for base in &bases {
        matrix.pair(base)?;
    }
    lab::require("lint the series", &[Need::Build, Need::Kernel, Need::Lint])?;
    let cache = Cache::open()?;
    let mut is_clean = true;
    for base in bases {
        is_clean &= one(tree, &cache, &matrix, base, out)?;
    }
    Ok(is_clean)
}

fn one(
    tree: &Tree,
    cache: &Cache,
    matrix: &Matrix,
    base: &str,
    out: &mut dyn Write,
) -> Result<bool, Error> {
    let (begun, mut step) = (Instant::now(), Instant::now());
    // Whoever reads may have gone away (`| head`); the status tells all the same.
    let mut say = |line: &str| {
        let _ = writeln!(out, "lint {base}: {line}").and_then(|()| out.flush());
    };
    let findings = lint::lint(cache, tree.root(), matrix, base, &mut |event| {
        if let Event::Ground | Event::Patch { .. } = event {
            step = Instant::now();
        }
        if let Some(line) = line(&event, step) {
            say(&line);
        }
    })?;
    if let Some(text) = findings.text {
        let sizes = sizes(text);
        say(&format!(
            "text of {HOT_OBJECT}: {} bytes unpatched, {sizes}",
            text.unpatched
        ));
    }
    let verdict = match findings.complaints {
        0 => String::from("clean"),
        1 => String::from("1 complaint"),
        many => format!("{many} complaints"),
    };
    say(&format!(
        "{verdict} in {:.1} s",
        begun.elapsed().as_secs_f32()
    ));
    Ok(findings.complaints == 0)
}

fn line(event: &Event, step: Instant) -> Option<String> {
    Some(match event {
        Event::Source(kernel::Event::Phase(Phase::Unpack)) => String::from("unpacking the base"),
        Event::Source(kernel::Event::Waiting) => {
            String::from("waiting, another process uses the base")
        }
        Event::Source(_) => return None,
        Event::Remembered(patches) => {
            format!("{patches} patches are as they were when they were clean")
        }
        Event::Ground => String::from("making objects of the tree before the first patch to judge"),
        Event::Patch { number, of, name } => format!("{number}/{of} {name}"),
        Event::Complaint(what) => format!("  {what}"),
        Event::Done { objects, text } => {
            let (seconds, sizes) = (step.elapsed().as_secs_f32(), sizes(*text));
            format!("  {objects} objects in {seconds:.1} s; text {sizes}")
        }
    })
}

fn sizes(Text { unpatched, off, on }: Text) -> String {
    let grown = |bytes: u64| i128::from(bytes) - i128::from(unpatched);
    let with = match on {
        0 => String::new(),
        _ => format!(", {on} with it on ({:+})", grown(on)),
    };
    format!("{off} with the option off ({:+}){with}", grown(off))
}
