// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every case there is, in the order in which they are listed and run.

use std::sync::LazyLock;

use crate::{
    Act, Case, PEER, apart, capability, compat, cost, delivery, diag, dump, dump_parked, early,
    end_to_end, end_to_end_large, examples, fallback, full, kselftest, library, mapping, memory,
    multicast, multicast_refusal, multicast_ring, old_program, ordering, ordering_copies,
    ordering_queues, ordering_senders, ordering_steered, ordering_wrap, ownership, poll,
    poll_tear_down, publication, races, scribbles, setup, subsystems, tap, twin, tx, tx_errors,
    tx_races, tx_verdicts, tx_waits, witness,
};

static ALL: LazyLock<Vec<Case>> = LazyLock::new(|| {
    let mut cases = [
        ordering::CASES,
        ordering_queues::CASES,
        ordering_copies::CASES,
        ordering_wrap::CASES,
        ordering_senders::CASES,
        ordering_steered::CASES,
        apart::CASES,
        end_to_end::CASES,
        end_to_end_large::CASES,
        ownership::CASES,
        scribbles::CASES,
        tap::CASES,
        delivery::CASES,
        publication::CASES,
        early::CASES,
        multicast::CASES,
        multicast_ring::CASES,
        multicast_refusal::CASES,
        fallback::CASES,
        full::CASES,
        twin::CASES,
        old_program::CASES,
        subsystems::CASES,
        tx::CASES,
        tx_errors::CASES,
        tx_waits::CASES,
        tx_races::CASES,
        tx_verdicts::CASES,
        mapping::CASES,
        races::CASES,
        setup::CASES,
        memory::CASES,
        capability::CASES,
        poll::CASES,
        poll_tear_down::CASES,
        dump::CASES,
        dump_parked::CASES,
        diag::CASES,
        kselftest::CASES,
        library::CASES,
        examples::CASES,
        cost::CASES,
        &compat::cases(),
        &witness::cases(),
    ]
    .concat();
    cases.sort_by_key(|case| case.group);
    cases
});

/// Every case, grouped.
#[must_use]
pub fn all() -> &'static [Case] {
    &ALL
}

/// The case of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Case> {
    all().iter().find(|case| case.name == name)
}

/// What a machine does that is asked for `name`, and in which case: the case itself, or, with [`PEER`] behind its
/// name, what its other machine does.
#[must_use]
pub fn part(name: &str) -> Option<(&'static Case, Act)> {
    if let Some(case) = name.strip_suffix(PEER) {
        let case = find(case)?;
        return Some((case, case.peer?));
    }
    let case = find(name)?;
    Some((case, case.run))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::clause;

    #[test]
    fn no_two_cases_have_one_name() {
        let names: BTreeSet<_> = all().iter().map(|case| case.name).collect();
        assert_eq!(names.len(), all().len());
    }

    #[test]
    fn a_case_that_has_another_machine_has_something_for_it_to_do() {
        for case in all() {
            let peer = part(&format!("{}{PEER}", case.name));
            let is_apart = case.topology == crate::Topology::Apart;
            assert_eq!(peer.is_some(), is_apart, "{}", case.name);
        }
    }

    #[test]
    fn a_case_names_each_clause_that_it_proves_once_and_as_the_contract_does() {
        for case in all() {
            let mut left: BTreeSet<_> = clause::all().map(|clause| clause.id).collect();
            for id in case.clauses() {
                assert!(left.remove(id), "{}: {id}", case.name);
            }
        }
    }
}
