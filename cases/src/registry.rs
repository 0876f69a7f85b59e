// SPDX-License-Identifier: MIT OR Apache-2.0
//! Every case there is, in the order in which they are listed and run.

use std::sync::LazyLock;

use crate::{Case, compat, fallback, kselftest, multicast, ordering, ownership};

static ALL: LazyLock<Vec<Case>> = LazyLock::new(|| {
    [
        ordering::CASES,
        ownership::CASES,
        multicast::CASES,
        fallback::CASES,
        kselftest::CASES,
        &compat::cases(),
    ]
    .concat()
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
