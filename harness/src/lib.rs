// SPDX-License-Identifier: MIT OR Apache-2.0
#![cfg(feature = "host")]
//! What to run in VMs, in which order, and what the result means.
//!
//! A run is a [`plan`] of cases, each performed in a VM of its own ([`case_run`]), judged by two
//! witnesses ([`verdict`]): the agent's outcome and the kernel's log ([`splat`]). Whatever happens on the
//! way is an [`event::Event`]; everything that a person sees ([`render`]) or keeps ([`report`]) is made
//! from events and from the one result model ([`results`]).

pub mod case_run;
pub mod command;
pub mod doctor;
pub mod error;
pub mod event;
pub mod guest_binary;
pub mod interrupt;
pub mod lab;
pub mod listing;
pub mod packages;
pub mod plan;
pub mod render;
pub mod report;
pub mod results;
pub mod run;
pub mod seed;
pub mod splat;
pub mod tree;
pub mod verdict;
