// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which cases prove a clause of the contract, and which mutants show that they do: `cases/COVERAGE.md`.

use std::collections::BTreeMap;

use nlring_cases::clause::{Clause, Section};
use nlring_cases::{Case, Group};

use crate::mutant::Mutant;
use crate::names::group_word;

const HEAD: &str = "\
<!-- SPDX-License-Identifier: MIT OR Apache-2.0 -->
# What is proved, and by which case

Each sentence of the contract that can be broken alone, and each known fault; the cases that notice if it is
broken, as they say themselves (`.proves(…)` in `cases/src`); and the mutants that break it, faults put into the
series on purpose (`kernel-config/mutants`), which those cases have to see. The contract itself is the series'
`Documentation/networking/netlink_mmap.rst`.

Made by `ci/nlring list --coverage >cases/COVERAGE.md`; a test holds the two together.
";

/// Clauses that no fault in the series can break, and why.
pub const BEYOND_THE_SERIES: &[(&str, &str)] = &[
    (
        "mapping-outlives-close",
        "a mapping holds its file, and the memory manager sees to that",
    ),
    ("rx-skip-reader", OF_THE_LIBRARY),
    ("poll-read-on", OF_THE_LIBRARY),
    ("rest-library", OF_THE_LIBRARY),
    ("rest-off-unchanged", COMPARED),
    ("rest-on-unchanged", COMPARED),
];
const OF_THE_LIBRARY: &str = "the library's, whose model and tests are in `cases/ring`";
const COMPARED: &str = "compared with the kernel without the series";

/// What `cases/COVERAGE.md` has to say.
#[must_use]
pub fn markdown(sections: &[Section], cases: &[Case], mutants: &[Mutant]) -> String {
    let mut page = HEAD.to_owned();
    for section in sections {
        let row = |Clause { id, says }: &Clause| {
            let breaks = |mutant: &&Mutant| mutant.breaks.iter().any(|broken| broken == id);
            let breaking = mutants.iter().filter(breaks);
            let beyond = BEYOND_THE_SERIES.iter().filter(|(clause, _)| clause == id);
            let breaking: Vec<_> = breaking
                .map(|mutant| code(&mutant.name))
                .chain(beyond.map(|(_, why)| format!("none: {why}")))
                .collect();
            [
                code(id),
                (*says).to_owned(),
                proving(id, cases).join(BREAK),
                breaking.join(BREAK),
            ]
        };
        let header = ["clause", "what it says", "cases", "mutants"];
        page += &table(section.title, header, section.clauses.iter().map(row));
    }
    if !mutants.is_empty() {
        let row = |mutant: &Mutant| {
            let seen_by: Vec<_> = mutant.seen_by.iter().map(|case| code(case)).collect();
            [
                code(&mutant.name),
                mutant.subject.clone(),
                seen_by.join(BREAK),
            ]
        };
        let header = ["mutant", "fault", "seen by"];
        page += &table("Mutants", header, mutants.iter().map(row));
    }
    page
}

/// A new line within a cell.
const BREAK: &str = "<br>";

fn table<const N: usize>(
    title: &str,
    header: [&str; N],
    rows: impl Iterator<Item = [String; N]>,
) -> String {
    let mut lines = vec![String::new(), format!("## {title}"), String::new()];
    lines.push(format!("| {} |", header.join(" | ")));
    lines.push(format!("|{}", "---|".repeat(N)));
    lines.extend(rows.map(|row| format!("| {} |", row.join(" | "))));
    lines.join("\n") + "\n"
}

/// The cases that prove a clause; a group whose cases all do is named instead of them.
fn proving(id: &str, cases: &[Case]) -> Vec<String> {
    let mut groups: BTreeMap<Group, (Vec<String>, usize)> = BTreeMap::new();
    for case in cases {
        let (proving, count) = groups.entry(case.group).or_default();
        *count += 1;
        if case.clauses().any(|proved| proved == id) {
            proving.push(code(case.name));
        }
    }
    let whole_or_named = |(group, (proving, count)): (Group, (Vec<String>, usize))| {
        if count > 1 && proving.len() == count {
            vec![format!("all of {}", code(&group_word(group)))]
        } else {
            proving
        }
    };
    groups.into_iter().flat_map(whole_or_named).collect()
}

fn code(name: &str) -> String {
    format!("`{name}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    static SECTIONS: &[Section] = &[Section {
        title: "Poll",
        clauses: &[
            Clause {
                id: "poll-a",
                says: "One.",
            },
            Clause {
                id: "poll-b",
                says: "Two.",
            },
        ],
    }];

    fn case(group: Group, name: &'static str, proves: &'static str) -> Case {
        Case::new(group, name, |_| Ok(())).proves(proves)
    }

    #[test]
    fn a_clause_stands_beside_the_cases_that_prove_it_and_the_mutants_that_break_it() {
        let cases = [
            case(Group::Poll, "it_wakes", "poll-a"),
            case(Group::Poll, "it_sleeps", "poll-a poll-b"),
            case(Group::Dump, "it_dumps", "poll-b"),
        ];
        let mutant = Mutant {
            name: "never-wake".to_owned(),
            subject: "Forget to wake".to_owned(),
            breaks: vec!["poll-b".to_owned()],
            seen_by: vec!["it_sleeps".to_owned()],
            kernel: "6.1".to_owned(),
        };
        let page = markdown(SECTIONS, &cases, &[mutant]);
        for line in [
            "## Poll",
            "| `poll-a` | One. | all of `poll` |  |",
            "| `poll-b` | Two. | `it_sleeps`<br>`it_dumps` | `never-wake` |",
            "| `never-wake` | Forget to wake | `it_sleeps` |",
        ] {
            assert!(page.lines().any(|found| found == line), "{line}\n{page}");
        }
    }
}
