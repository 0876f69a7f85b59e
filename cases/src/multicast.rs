// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `multicast`: a ringed socket and a multicast group exclude each other.

use crate::Case;

pub(crate) const CASES: &[Case] = &[];
