// SPDX-License-Identifier: MIT OR Apache-2.0
//! What there is to prove: the contract in sentences each of which can be broken alone, and the faults
//! that the first memory-mapped netlink had.
//!
//! The contract is the series' `Documentation/networking/netlink_mmap.rst`.

use crate::contract::{DUMP, MAPPING, MULTICAST, POLL, REST, RX, SETUP, TX};
use crate::fault::FAULTS;

/// A sentence of the contract, or a known fault.
#[derive(Debug, PartialEq, Eq)]
pub struct Clause {
    /// Its name: the section's, and what it is about; of a fault its number.
    pub id: &'static str,
    /// What holds; of a fault, what went wrong.
    pub says: &'static str,
}

/// Clauses about one thing.
#[derive(Debug)]
pub struct Section {
    /// What they are about.
    pub title: &'static str,
    /// In the order of the contract.
    pub clauses: &'static [Clause],
}

/// All there is to prove, in the order of the contract; the faults last.
pub static SECTIONS: &[Section] = &[
    section("Setting a ring up", SETUP),
    section("Mapping", MAPPING),
    section("RX: kernel to user", RX),
    section("TX: user to kernel", TX),
    section("Multicast", MULTICAST),
    section("Poll", POLL),
    section("Dumps", DUMP),
    section("The rest", REST),
    section("Known faults", FAULTS),
];

const fn section(title: &'static str, clauses: &'static [Clause]) -> Section {
    Section { title, clauses }
}

/// Every clause and fault.
pub fn all() -> impl Iterator<Item = &'static Clause> {
    SECTIONS.iter().flat_map(|section| section.clauses)
}

/// A table of clauses: `"id" => "what it says",`.
macro_rules! clauses {
    ($($id:literal => $says:literal,)*) => {
        &[$($crate::clause::Clause { id: $id, says: $says },)*]
    };
}
pub(crate) use clauses;

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn no_two_clauses_have_one_id() {
        let ids: BTreeSet<_> = all().map(|clause| clause.id).collect();
        assert_eq!(ids.len(), all().count());
    }

    #[test]
    fn an_id_is_lower_case_words_behind_that_of_its_section() {
        for section in SECTIONS {
            let prefix = section.clauses[0].id.split('-').next();
            for Clause { id, .. } in section.clauses {
                let is_word = |word: &str| {
                    let is_known =
                        |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit();
                    !word.is_empty() && word.chars().all(is_known)
                };
                assert!(
                    id.split('-').count() > 1 && id.split('-').all(is_word),
                    "{id}"
                );
                assert_eq!(id.split('-').next(), prefix, "{id}");
            }
        }
    }

    #[test]
    fn a_clause_is_one_sentence() {
        for Clause { id, says } in all() {
            assert!(says.ends_with('.') && !says.contains(". "), "{id}: {says}");
        }
    }

    #[test]
    fn the_faults_are_numbered_without_a_gap() {
        let numbers: Vec<_> = FAULTS.iter().map(|fault| fault.id.to_owned()).collect();
        let expected: Vec<_> = (1..=27).map(|number| format!("fault-{number}")).collect();
        assert_eq!(numbers, expected);
    }
}
