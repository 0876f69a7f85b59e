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
        Topology::Apart => String::from("2 machines"),
    }
}

/// `group::name`, as filters and `cargo test` see it.
#[must_use]
pub fn full_name(case: &Case) -> String {
    format!("{}::{}", group_word(case.group), case.name)
}

/// The one of `known` that `name` was probably meant to be, if any is like it.
#[must_use]
pub fn nearest<'a>(known: impl Iterator<Item = &'a str>, name: &str) -> Option<String> {
    let likeness = |known: &str| strsim::jaro_winkler(known, name);
    let best = known.max_by(|a, b| likeness(a).total_cmp(&likeness(b)))?;
    (likeness(best) > 0.8).then(|| best.to_owned())
}
