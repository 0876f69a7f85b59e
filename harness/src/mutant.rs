// SPDX-License-Identifier: MIT OR Apache-2.0
//! Mutants: faults that the series could have, as patches on top of it, and what each says of itself.

use std::fs;
use std::path::{Path, PathBuf};

use nlring_vm::matrix::Matrix;
use serde::Serialize;

use crate::error::Error;
use crate::names::nearest;
use crate::tree::Tree;

/// A fault that the series could have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Mutant {
    /// The name of its file in kernel-config/mutants, without `.patch`.
    pub name: String,
    /// The fault in a line.
    pub subject: String,
    /// The clauses that it breaks, and the known faults that it is.
    pub breaks: Vec<String>,
    /// The cases that see it.
    pub seen_by: Vec<String>,
    /// The kernel that they see it on.
    pub kernel: String,
}

/// The kernel of a mutant that names none.
const KERNEL: &str = "6.1";

/// Every mutant, in the order of their names.
pub fn all(tree: &Tree) -> Result<Vec<Mutant>, Error> {
    let directory = directory(tree);
    let matrix = Matrix::load(tree.root())?;
    let names = matrix.mutants().iter();
    names.map(|name| read(&directory, name)).collect()
}

/// Of `mutants` those of these names, in their order; none named: all.
pub fn chosen(mutants: Vec<Mutant>, names: &[String]) -> Result<Vec<Mutant>, Error> {
    if names.is_empty() {
        return Ok(mutants);
    }
    for name in names {
        if !mutants.iter().any(|mutant| mutant.name == *name) {
            let known = mutants.iter().map(|mutant| mutant.name.as_str());
            return Err(Error::UnknownMutant {
                name: name.clone(),
                nearest: nearest(known, name),
            });
        }
    }
    let is_asked_for = |mutant: &Mutant| names.contains(&mutant.name);
    Ok(mutants.into_iter().filter(is_asked_for).collect())
}

fn directory(tree: &Tree) -> PathBuf {
    tree.root().join("kernel-config/mutants")
}

fn read(directory: &Path, name: &str) -> Result<Mutant, Error> {
    let path = directory.join(format!("{name}.patch"));
    let refused = |reason: String| Error::Mutant {
        path: path.clone(),
        reason,
    };
    let text = fs::read_to_string(&path).map_err(|error| refused(error.to_string()))?;
    parse(name, &text).map_err(|reason| refused(reason.to_owned()))
}

/// The message in front of the diff: a subject, a paragraph or more, and trailers, of which
/// `Kernel:` may be missing.
fn parse(name: &str, text: &str) -> Result<Mutant, &'static str> {
    let (message, _) = text
        .split_once("\n---\n")
        .ok_or("it has no line `---` between its message and its diff")?;
    let trailer = |key: &str| -> Vec<String> {
        let values = message.lines().filter_map(|line| line.strip_prefix(key));
        let words = values.flat_map(str::split_whitespace);
        words.map(str::to_owned).collect()
    };
    let subject = message.lines().next().unwrap_or_default().trim();
    if subject.is_empty() {
        return Err("its first line, which tells the fault, is empty");
    }
    let (breaks, seen_by) = (trailer("Breaks:"), trailer("Seen-by:"));
    if breaks.is_empty() {
        return Err("it has no `Breaks:` with the clauses that it breaks");
    }
    if seen_by.is_empty() {
        return Err("it has no `Seen-by:` with the cases that see it");
    }
    let kernel = trailer("Kernel:").pop();
    Ok(Mutant {
        name: name.to_owned(),
        subject: subject.to_owned(),
        breaks,
        seen_by,
        kernel: kernel.unwrap_or_else(|| KERNEL.to_owned()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "Forget the lock\n\nTwo take one frame.\n\nBreaks: rx-one-owner fault-24\n\
        Seen-by: one_case\nSeen-by: another_case\n---\ndiff --git a/x b/x\n";

    #[test]
    fn a_mutant_tells_its_fault_what_that_breaks_and_who_sees_it() {
        let mutant = parse("lost-lock", TEXT).unwrap();
        assert_eq!(
            (&*mutant.name, &*mutant.subject),
            ("lost-lock", "Forget the lock")
        );
        assert_eq!(mutant.breaks, ["rx-one-owner", "fault-24"]);
        assert_eq!(mutant.seen_by, ["one_case", "another_case"]);
        assert_eq!(mutant.kernel, "6.1");
        let elsewhere = TEXT.replace("Breaks:", "Kernel: 6.1-debug\nBreaks:");
        assert_eq!(parse("lost-lock", &elsewhere).unwrap().kernel, "6.1-debug");
    }

    #[test]
    fn a_mutant_that_does_not_tell_is_refused() {
        for (lost, reason) in [
            ("\n---\n", "`---`"),
            ("Forget the lock", "first line"),
            ("Breaks:", "`Breaks:`"),
            ("Seen-by:", "`Seen-by:`"),
        ] {
            let said = parse("lost-lock", &TEXT.replace(lost, "")).unwrap_err();
            assert!(said.contains(reason), "{said}");
        }
    }
}
