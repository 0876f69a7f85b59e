// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names of groups, topologies and cases, on the command line and in reports.

use nlring_cases::{Case, Group, Topology};

/// The word for a group, on the command line and in reports.
#[must_use]
pub fn group_word(group: Group) -> String {
    format!("{group:?}").to_lowercase()
}

/// The word for a topology.
#[must_use]
pub fn topology_word(topology: Topology) -> String {
    match topology {
        Topology::None => String::from("none"),
        Topology::Pairs(1) => String::from("1 pair"),
        Topology::Pairs(count) => format!("{count} pairs"),
    }
}

/// `group::name`, as filters and `cargo test` see it.
#[must_use]
pub fn full_name(case: &Case) -> String {
    format!("{}::{}", group_word(case.group), case.name)
}
