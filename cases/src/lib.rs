// SPDX-License-Identifier: MIT OR Apache-2.0
//! What runs inside the guest: the cases, and the consumers and traffic they are made of.
//!
//! A [`Case`] is a sentence about memory-mapped netlink and the code that proves it on a running
//! kernel. This crate knows nothing of virtual machines: it expects the [`Topology`] that a case
//! names to be there, `nft` and `ip` in `PATH`, and in `/usr/lib/nlring`
//! the series' own selftest and, for the group `library`, the ring library's examples.

mod answers;
mod apart;
mod arrivals;
mod blocked_call;
mod bulk;
mod busy;
mod capability;
mod case;
mod cgroup;
mod child;
pub mod clause;
pub mod compat;
mod conntrack;
mod consumer;
mod contract;
mod cost;
mod counters;
mod delivery;
mod diag;
mod dump;
mod dump_parked;
mod early;
mod end_to_end;
mod end_to_end_large;
mod examples;
mod fallback;
mod fault;
mod filter;
mod flush;
mod frames;
mod full;
mod groups;
mod ip;
mod kselftest;
mod ktap;
mod ledger;
mod library;
mod mapping;
mod memory;
mod message;
mod multicast;
mod multicast_refusal;
mod multicast_ring;
mod namespace;
mod nfqueue;
mod old_program;
mod option;
mod ordering;
mod ordering_copies;
mod ordering_queues;
mod ordering_senders;
mod ordering_steered;
mod ordering_wrap;
mod ownership;
mod parts;
mod peers;
mod place;
mod poll;
mod poll_tear_down;
mod program;
mod publication;
mod races;
mod ready;
mod registry;
mod route;
mod rules;
mod scribbler;
mod scribbles;
mod sequences;
mod setup;
mod stamp;
mod steering;
mod subsystems;
mod syscalls;
mod tap;
mod traffic;
mod twin;
mod tx;
mod tx_errors;
mod tx_races;
mod tx_verdicts;
mod tx_waits;
mod walker;
mod witness;

pub(crate) use case::case;
pub use case::{Act, Case, Group, Kernel, PEER, Setting, Topology, Unmet};
pub use registry::{all, find, part};
