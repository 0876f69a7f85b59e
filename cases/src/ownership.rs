// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `ownership`: every frame belongs to exactly one side at any moment.

use crate::Case;

pub(crate) const CASES: &[Case] = &[];
