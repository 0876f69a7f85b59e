// SPDX-License-Identifier: MIT OR Apache-2.0
//! The snapshots of a run: one of each kind of VM, taken of the first of that kind.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use nlring_vm::machine::{Config, Vm};
use nlring_vm::topology::Topology;
use nlring_vm::{Snapshot, VmError};

/// What makes VMs of one kind within a run: the kernel's image, the initramfs, the network.
type Kind = (PathBuf, PathBuf, Topology);

/// Taken while the lock is held, so that others of its kind wait for it. None before that, and after it
/// could not be taken.
type Slot = Arc<Mutex<Option<Arc<Snapshot>>>>;

/// Snapshots by the kind of their VMs.
#[derive(Debug, Default)]
pub struct Snapshots(Mutex<BTreeMap<Kind, Slot>>);

impl Snapshots {
    /// A VM of this configuration: booted if it is the first of its kind, and restored otherwise.
    pub fn start(&self, config: &Config<'_>) -> Result<Vm, VmError> {
        let kind = (
            config.kernel.image.clone(),
            config.initramfs.to_owned(),
            config.topology,
        );
        // Nobody panics with either lock in a way that would leave what it guards half-made.
        let slot = {
            let mut slots = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(kind).or_default())
        };
        let mut taken = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = &*taken {
            let snapshot = Arc::clone(snapshot);
            drop(taken);
            return Vm::restore(config, &snapshot);
        }
        let mut vm = Vm::boot(config)?;
        *taken = Some(Arc::new(vm.save()?));
        Ok(vm)
    }
}
