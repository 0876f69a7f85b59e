// SPDX-License-Identifier: MIT OR Apache-2.0
//! The table of what is proved is the true one, and names nothing that there is not.

use std::collections::BTreeSet;
use std::fs;

use nlring_cases::clause;
use nlring_harness::mutant::{self, Mutant};
use nlring_harness::{coverage, tree::Tree};

fn mutants() -> Vec<Mutant> {
    mutant::all(&Tree::find().unwrap()).unwrap()
}

#[test]
fn the_table_is_what_is_made_of_clauses_cases_and_mutants() {
    let committed = Tree::find().unwrap().root().join("cases/COVERAGE.md");
    let committed = fs::read_to_string(committed).unwrap();
    let made = coverage::markdown(clause::SECTIONS, nlring_cases::all(), &mutants());
    let differs = committed
        .lines()
        .zip(made.lines())
        .find(|(old, new)| old != new);
    assert!(
        committed == made,
        "make it anew: ci/nlring list --coverage >cases/COVERAGE.md; first difference: {differs:?}"
    );
}

#[test]
fn a_mutant_breaks_clauses_that_there_are_and_a_case_that_proves_one_sees_it() {
    let clauses: BTreeSet<_> = clause::all().map(|clause| clause.id).collect();
    for mutant in mutants() {
        let Mutant {
            name,
            breaks,
            seen_by,
            ..
        } = &mutant;
        for id in breaks {
            assert!(
                clauses.contains(id.as_str()),
                "{name} breaks {id}, which is no clause"
            );
        }
        let sees = |case: &String| {
            let case = nlring_cases::find(case)
                .unwrap_or_else(|| panic!("{name} is seen by {case}, which is no case"));
            case.clauses()
                .any(|proved| breaks.iter().any(|broken| broken == proved))
        };
        let seeing = seen_by.iter().filter(|case| sees(case)).count();
        assert!(
            seeing > 0,
            "no case of {seen_by:?} proves what {name} breaks: {breaks:?}"
        );
    }
}

#[test]
fn every_clause_and_every_fault_has_a_case() {
    let proved: BTreeSet<_> = nlring_cases::all()
        .iter()
        .flat_map(nlring_cases::Case::clauses)
        .collect();
    let bare: Vec<_> = clause::all()
        .filter(|clause| !proved.contains(clause.id))
        .map(|clause| clause.id)
        .collect();
    assert!(bare.is_empty(), "no case proves {}", bare.join(", "));
}

#[test]
fn every_clause_that_the_series_can_break_has_a_mutant_and_no_other() {
    let broken: BTreeSet<_> = mutants()
        .into_iter()
        .flat_map(|mutant| mutant.breaks)
        .collect();
    for clause in clause::all() {
        let beyond = coverage::BEYOND_THE_SERIES;
        let is_beyond = beyond.iter().any(|(id, _)| *id == clause.id);
        assert_ne!(broken.contains(clause.id), is_beyond, "{}", clause.id);
    }
}
