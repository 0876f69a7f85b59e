// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `fallback`: what cannot use the ring arrives by ordinary copying.

use crate::Case;

pub(crate) const CASES: &[Case] = &[];
