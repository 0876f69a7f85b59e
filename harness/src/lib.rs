// SPDX-License-Identifier: MIT OR Apache-2.0
//! What to run in VMs, in which order, and what the result means.
//!
//! A run is a [`plan`] of cases, each at its [`place`], performed in a VM of its own ([`case_run`]), judged by two
//! witnesses ([`verdict`]): the agent's outcome and the kernel's log ([`splat`]). Whatever happens on the
//! way is an [`event::Event`]; everything that a person sees ([`render`]) or keeps ([`report`]) is made
//! from events and from the one result model ([`results`]).
//!
//! All of it but [`unknown_case`] is for the host; the guest binary of this package is built without the
//! feature `host`.

#[cfg(feature = "host")]
pub mod bisect;
#[cfg(feature = "host")]
pub mod case_run;
#[cfg(feature = "host")]
pub mod command;
#[cfg(feature = "host")]
pub mod compat;
#[cfg(feature = "host")]
pub mod couple;
#[cfg(feature = "host")]
pub mod coverage;
#[cfg(feature = "host")]
pub mod doctor;
#[cfg(feature = "host")]
pub mod error;
#[cfg(feature = "host")]
pub mod event;
#[cfg(feature = "host")]
mod examples;
#[cfg(feature = "host")]
pub mod gdb;
#[cfg(feature = "host")]
pub mod guest_binary;
#[cfg(feature = "host")]
mod guest_cargo;
#[cfg(feature = "host")]
pub mod interrupt;
#[cfg(feature = "host")]
pub mod lab;
#[cfg(feature = "host")]
pub mod lint;
#[cfg(feature = "host")]
pub mod listing;
#[cfg(feature = "host")]
pub mod loss;
#[cfg(feature = "host")]
mod memory;
#[cfg(feature = "host")]
pub mod merge;
#[cfg(feature = "host")]
pub mod mutant;
#[cfg(feature = "host")]
pub mod mutants;
#[cfg(feature = "host")]
pub mod names;
#[cfg(feature = "host")]
pub mod packages;
#[cfg(feature = "host")]
pub mod partition;
#[cfg(feature = "host")]
pub mod place;
#[cfg(feature = "host")]
pub mod plan;
#[cfg(feature = "host")]
pub mod rate;
#[cfg(feature = "host")]
pub mod render;
#[cfg(feature = "host")]
pub mod report;
#[cfg(feature = "host")]
pub mod repro;
#[cfg(feature = "host")]
pub mod results;
#[cfg(feature = "host")]
pub mod room;
#[cfg(feature = "host")]
pub mod run;
#[cfg(feature = "host")]
pub mod seed;
#[cfg(feature = "host")]
pub mod shell;
#[cfg(feature = "host")]
mod snapshots;
#[cfg(feature = "host")]
pub mod splat;
#[cfg(feature = "host")]
pub mod tree;
pub mod unknown_case;
#[cfg(feature = "host")]
pub mod verdict;
