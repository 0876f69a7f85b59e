// SPDX-License-Identifier: MIT OR Apache-2.0
//! The snapshots of a run: one of each kind of VM, of an earlier run or taken of the first of that kind.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use nlring_vm::machine::{Config, Host, Vm};
use nlring_vm::matrix::{WITH_FIRST, WITH_MUTANT};
use nlring_vm::snapshot_store::Shelf;
use nlring_vm::topology::Topology;
use nlring_vm::{Cache, Snapshot, VmError};

/// What makes VMs of one kind within a run: the kernel's image, the initramfs, the network.
type Kind = (PathBuf, PathBuf, Topology);

/// Taken while the lock is held, so that others of its kind wait for it. None before that, and after it
/// could not be taken.
type Slot = Arc<Mutex<Option<Arc<Snapshot>>>>;

/// Snapshots by the kind of their VMs.
#[derive(Debug)]
pub struct Snapshots {
    slots: Mutex<BTreeMap<Kind, Slot>>,
    cache: Cache,
    host: Host,
}

impl Snapshots {
    /// Those of this cache, and none that were taken yet.
    pub fn new(cache: Cache) -> Result<Self, VmError> {
        Ok(Self {
            slots: Mutex::default(),
            cache,
            host: Host::find()?,
        })
    }

    /// A VM of this configuration: booted if it is the first of its kind, and restored otherwise.
    pub fn start(&self, config: &Config<'_>) -> Result<Vm, VmError> {
        let kind = (
            config.kernel.image.clone(),
            config.initramfs.to_owned(),
            config.topology,
        );
        // Nobody panics with either lock in a way that would leave what it guards half-made.
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(slots.entry(kind).or_default())
        };
        let mut taken = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(snapshot) = &*taken {
            let snapshot = Arc::clone(snapshot);
            drop(taken);
            return Vm::restore(config, &snapshot);
        }
        let kept = Shelf::of(&self.cache, config, &self.host)?;
        if let Some(snapshot) = kept.load()? {
            // Whatever it is that does not go on, a boot tells.
            if let Ok(vm) = Vm::restore(config, &snapshot) {
                *taken = Some(Arc::new(snapshot));
                return Ok(vm);
            }
            kept.clear()?;
        }
        let mut vm = Vm::boot(config)?;
        let snapshot = vm.save()?;
        // A kernel with a mutant, or a part of the series, is run once. Without its snapshot the next run boots;
        // this one has it.
        if !config.kernel.name.contains([WITH_MUTANT, WITH_FIRST]) {
            let _ = kept.store(&snapshot);
        }
        *taken = Some(Arc::new(snapshot));
        Ok(vm)
    }
}
