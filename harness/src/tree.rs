// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where things are: the source tree, and what is built and reported under it.

use std::env;
use std::path::{Path, PathBuf};

use crate::error::Error;

/// The source tree that this command works on.
#[derive(Debug, Clone)]
pub struct Tree {
    root: PathBuf,
}

impl Tree {
    /// Finds it: `NLRING_ROOT` if set (`ci/nlring` sets it), else where this crate was compiled.
    pub fn find() -> Result<Self, Error> {
        let root = env::var_os("NLRING_ROOT").map_or_else(
            || {
                Path::new(env!("CARGO_MANIFEST_DIR"))
                    .parent()
                    .expect("a crate has a parent")
                    .to_owned()
            },
            PathBuf::from,
        );
        if root.join("kernel-config/kernels.toml").is_file() {
            Ok(Self { root })
        } else {
            Err(Error::NoTree(root))
        }
    }

    /// The tree's top.
    #[must_use]
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// Where cargo builds: `CARGO_TARGET_DIR` or `target`.
    #[must_use]
    pub fn target(&self) -> PathBuf {
        env::var_os("CARGO_TARGET_DIR")
            .map_or_else(|| self.root.join("target"), |target| self.root.join(target))
    }

    /// Where the guest binary is built, apart from everything else because its flags differ.
    #[must_use]
    pub fn guest_target(&self) -> PathBuf {
        self.target().join("guest")
    }

    /// Where a report goes if nobody says otherwise; ignored by git.
    #[must_use]
    pub fn default_report(&self) -> PathBuf {
        self.root.join("target/nlring-report")
    }
}
