// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `ordering`: frames stand in the order that was promised.

use crate::Case;

pub(crate) const CASES: &[Case] = &[];
