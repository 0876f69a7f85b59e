// SPDX-License-Identifier: MIT OR Apache-2.0
//! What runs inside the guest: the cases, and the consumers and traffic they are made of.
//!
//! A [`Case`] is a sentence about memory-mapped netlink and the code that proves it on a running
//! kernel. This crate knows nothing of virtual machines: it expects the [`Topology`] that a case
//! names to be there, and `nft` and `ip` in `PATH`.

mod case;
mod fallback;
mod multicast;
mod ordering;
mod ownership;
mod registry;

pub use case::{Case, Group, Kernel, Setting, Topology, Unmet};
pub use registry::{all, find};
