// SPDX-License-Identifier: MIT OR Apache-2.0
//! The state of a VM whose agent has answered, for any number of VMs to go on from.
//!
//! It is in memory that has no name in any file system, so that nothing of it is left when this process
//! ends, however it ends; or it is that of an earlier run, in a file of the cache.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;

use nix::sys::memfd::{MFdFlags, memfd_create};

/// A VM's state. It can be restored with the configuration that the VM was booted with only, but for its
/// console's log.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) state: File,
    /// What the console had said.
    pub(crate) said: Vec<u8>,
}

impl Snapshot {
    pub(crate) fn empty() -> io::Result<Self> {
        let state = memfd_create("nlring-snapshot", MFdFlags::MFD_CLOEXEC)?;
        Ok(Self {
            state: state.into(),
            said: Vec::new(),
        })
    }

    /// A name of the state for other processes, as long as it and this process are there.
    pub(crate) fn path(&self) -> PathBuf {
        let (process, descriptor) = (std::process::id(), self.state.as_raw_fd());
        format!("/proc/{process}/fd/{descriptor}").into()
    }

    /// The state from its beginning, for one reader.
    pub(crate) fn reader(&self) -> io::Result<File> {
        File::open(self.path())
    }

    /// Its size, in bytes.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn size(&self) -> io::Result<u64> {
        Ok(self.state.metadata()?.len())
    }
}
