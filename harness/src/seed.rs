// SPDX-License-Identifier: MIT OR Apache-2.0
//! Seeds: from the one of the run to the one of a case.
//!
//! Every seed is below 2^53, so that it survives readers of JSON that keep numbers as doubles.

use std::hash::{BuildHasher, RandomState};

use sha2::{Digest, Sha256};

const MASK: u64 = (1 << 53) - 1;

/// A seed that nobody chose: short enough to type.
#[must_use]
pub fn random() -> u64 {
    RandomState::new().hash_one("seed") & u64::from(u32::MAX)
}

/// The run's seed of repetition `repetition`; the first is `base` itself, so that a repetition can be
/// had again alone by giving its seed as the run's.
#[must_use]
pub fn of_repetition(base: u64, repetition: u32) -> u64 {
    if repetition == 0 {
        base
    } else {
        derive(base, &format!("repetition {repetition}"))
    }
}

/// The seed of the case `name` in a run (or repetition) with seed `base`. It depends on nothing else, so
/// that a case gets the same one whatever else is selected.
#[must_use]
pub fn of_case(base: u64, name: &str) -> u64 {
    derive(base, name)
}

fn derive(base: u64, text: &str) -> u64 {
    let digest = Sha256::new()
        .chain_update(base.to_le_bytes())
        .chain_update(text)
        .finalize();
    u64::from_le_bytes(digest[..8].try_into().expect("8 of 32 bytes")) & MASK
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_case_gets_the_same_seed_whenever_base_and_name_are_the_same() {
        assert_eq!(of_case(7, "a"), of_case(7, "a"));
        assert_ne!(of_case(7, "a"), of_case(8, "a"));
        assert_ne!(of_case(7, "a"), of_case(7, "b"));
        // Written down: a report of last year must still be repeatable.
        assert_eq!(
            of_case(1, "ordered_ring_keeps_packet_ids_increasing"),
            2_242_929_997_642_700
        );
    }

    #[test]
    fn the_first_repetition_is_the_run_itself_and_the_others_differ() {
        assert_eq!(of_repetition(42, 0), 42);
        let seeds: Vec<u64> = (0..50).map(|n| of_repetition(42, n)).collect();
        for (n, seed) in seeds.iter().enumerate() {
            assert!(*seed <= MASK);
            assert!(!seeds[..n].contains(seed), "repetition {n}");
        }
    }
}
