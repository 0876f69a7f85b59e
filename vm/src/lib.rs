// SPDX-License-Identifier: MIT OR Apache-2.0
//! A VM running the kernel under test.
//!
//! The way through this crate is the way to a verdict: [`matrix`] says which kernels there are,
//! [`kernel`] makes one of them out of its base, the series and the fragments and keeps it in the
//! [`Cache`], [`initramfs`] packs the guest, [`accelerator`] finds out what can run it here, [`machine`]
//! boots it, or restores it from a [`Snapshot`], and carries jobs to its agent and outcomes back; [`symbols`]
//! tells lines of the kernel's source. Nothing here knows what a job does.

pub mod accelerator;
mod cache;
mod console;
mod conversation;
pub mod deadline;
mod digest;
pub mod end;
mod error;
pub mod gdb;
mod identity;
pub mod initramfs;
mod keeper;
pub mod kernel;
mod libraries;
pub mod machine;
pub mod matrix;
mod monitor;
pub mod probe;
mod process;
mod qemu;
pub mod selftests;
pub mod shell;
mod snapshot;
pub mod snapshot_store;
pub mod symbols;
pub mod topology;
mod tsc;
pub mod virtme;

pub use cache::Cache;
pub use error::{Class, VmError};
pub use nlring_channel::{Job, Link, Outcome, Status};
pub use snapshot::Snapshot;
