// SPDX-License-Identifier: MIT OR Apache-2.0
//! What runs inside the guest: the cases, and the consumers and traffic they are made of.
//!
//! A [`Case`] is a sentence about memory-mapped netlink and the code that proves it on a running
//! kernel. This crate knows nothing of virtual machines: it expects the [`Topology`] that a case
//! names to be there, `nft` and `ip` in `PATH`, and the series' own selftest in `/usr/lib/nlring`.

mod answers;
mod bulk;
mod busy;
mod case;
pub mod compat;
mod consumer;
mod counters;
mod fallback;
mod groups;
mod kselftest;
mod ktap;
mod ledger;
mod multicast;
mod namespace;
mod nfqueue;
mod option;
mod ordering;
mod ownership;
mod place;
mod registry;
mod rules;
mod scribbler;

mod setup;
mod stamp;
mod tap;
mod traffic;

pub use case::{Case, Group, Kernel, Setting, Topology, Unmet};
pub use registry::{all, find};
