// SPDX-License-Identifier: MIT OR Apache-2.0
//! What compiler, sparse and kernel-doc say about lines, and which of it is new.

use std::collections::BTreeSet;
use std::fmt;
use std::path::Path;

use serde::{Deserialize, Serialize};
use similar::{Algorithm, DiffOp};

/// A complaint about a line of a file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(super) struct Warning {
    file: String,
    line: usize,
    text: String,
}

impl Warning {
    /// Out of a line that make let through, if it is one; files of `tree` are named from its top.
    pub(super) fn parse(line: &str, tree: &Path) -> Option<Self> {
        let (place, text) = [": warning: ", ": error: "].iter().find_map(|mark| {
            let at = line.find(mark)?;
            Some((&line[..at], &line[at + 2..]))
        })?;
        let mut parts = place.split(':');
        let file = Path::new(parts.next()?);
        Some(Self {
            file: file
                .strip_prefix(tree)
                .unwrap_or(file)
                .to_string_lossy()
                .into_owned(),
            line: parts.next()?.parse().ok()?,
            text: text.trim_end().to_owned(),
        })
    }
}

impl fmt::Display for Warning {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, text } = self;
        write!(formatter, "{file}:{line}: {text}")
    }
}

/// The warnings that there are already, each at the place where its line is now.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Known(BTreeSet<Warning>);

impl Known {
    /// Takes a warning in; whether it is new.
    pub(super) fn learn(&mut self, warning: &Warning) -> bool {
        self.0.insert(warning.clone())
    }

    /// `file` changes: a line that stays takes its warnings with it, one that goes loses them. So what
    /// is said about an added line is always new, and the same words about an old one are not.
    pub(super) fn follow(&mut self, file: &Path, before: &str, after: &str) {
        let (before, after): (Vec<_>, Vec<_>) = (before.lines().collect(), after.lines().collect());
        let changes = similar::capture_diff_slices(Algorithm::Myers, &before, &after);
        let file = file.to_string_lossy();
        self.0 = std::mem::take(&mut self.0)
            .into_iter()
            .filter_map(|warning| {
                if warning.file != file {
                    return Some(warning);
                }
                let line = 1 + moved(&changes, warning.line.checked_sub(1)?)?;
                Some(Warning { line, ..warning })
            })
            .collect();
    }
}

/// Where the line is now that was the `index`th, if it is still there.
fn moved(changes: &[DiffOp], index: usize) -> Option<usize> {
    changes.iter().find_map(|change| match *change {
        DiffOp::Equal {
            old_index,
            new_index,
            len,
        } if (old_index..old_index + len).contains(&index) => Some(new_index + index - old_index),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn warning(line: &str) -> Warning {
        Warning::parse(line, Path::new("/tree")).unwrap()
    }

    #[test]
    fn warnings_of_every_tool_are_understood() {
        for (line, expected) in [
            (
                "/tree/net/netlink/ring.c:12:5: warning: unused variable 'x' [-Wunused-variable]",
                "net/netlink/ring.c:12: warning: unused variable 'x' [-Wunused-variable]",
            ),
            (
                "/tree/net/netlink/ring.c:7: warning: Function parameter or member 'sk' not described",
                "net/netlink/ring.c:7: warning: Function parameter or member 'sk' not described",
            ),
            (
                "/tree/net/ring.c:3:9: error: undefined identifier 'a: b'",
                "net/ring.c:3: error: undefined identifier 'a: b'",
            ),
        ] {
            assert_eq!(warning(line).to_string(), expected);
        }
        for line in [
            "  CC      net/netlink/ring.o",
            "/tree/net/ring.c:12:5: note: declared here",
            "/tree/net/ring.c: In function 'f':",
            "/tree/net/ring.c:3:9:    expected void *",
            "cc1: warning: no place",
        ] {
            assert_eq!(Warning::parse(line, Path::new("/tree")), None, "{line}");
        }
    }

    #[test]
    fn a_warning_stays_with_its_line_and_one_on_an_added_line_is_new() {
        let mut known = Known::default();
        for line in [
            "a.c:2:1: warning: w",
            "a.c:3:1: warning: w",
            "b.c:2:1: warning: w",
        ] {
            assert!(known.learn(&warning(line)));
            assert!(!known.learn(&warning(line)));
        }
        // The third line moves down by two, and the second is replaced by what looks like it.
        known.follow(Path::new("a.c"), "1\n2\n3\n", "1\nnew\n2 too\nnew\n3\n");
        assert!(!known.learn(&warning("a.c:5:1: warning: w")));
        assert!(known.learn(&warning("a.c:5:1: warning: other")));
        assert!(known.learn(&warning("a.c:3:1: warning: w")));
        assert!(known.learn(&warning("a.c:2:1: warning: w")));
        assert!(!known.learn(&warning("b.c:2:1: warning: w")));
    }
}
