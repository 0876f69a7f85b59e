// SPDX-License-Identifier: MIT OR Apache-2.0
//! What can go wrong on the way to a verdict, each in one line: tried, happened, to do.

use std::io;
use std::path::{Path, PathBuf};

use crate::end::End;

/// Who has to act on an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// The person who asked: a name or a file of theirs is wrong.
    Usage,
    /// Whoever keeps the machine, the kernel tree or the harness: no verdict can be had.
    Infra,
}

/// Why there is no kernel, no VM, or no word from it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VmError {
    /// A kernel that kernels.toml does not have.
    #[error("kernel-config/kernels.toml names no kernel \"{name}\"; it names {known}")]
    UnknownKernel {
        /// As asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// A mutant that a kernel cannot have.
    #[error(
        "no kernel can have the mutant \"{name}\": {reason}; ci/nlring mutants --list shows them"
    )]
    UnknownMutant {
        /// As asked for.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A part of the series that a kernel cannot have.
    #[error(
        "there is no kernel \"{name}\": {reason}; K@N is K with the first N patches of the series"
    )]
    UnknownPart {
        /// As asked for.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A base that kernels.toml has no kernel of.
    #[error(
        "no kernel has a base named `{name}`; kernel-config/kernels.toml has kernels of {known}"
    )]
    UnknownBase {
        /// As asked for.
        name: String,
        /// Those there are.
        known: String,
    },
    /// A base without the two kernels that show what the option costs.
    #[error(
        "base `{base}` lacks a kernel with the series, or one with the option beside one without; add them to kernel-config/kernels.toml"
    )]
    Unpaired {
        /// Its name.
        base: String,
    },
    /// kernels.toml, a fragment or a patch is not as it must be.
    #[error("cannot use {path}: {reason}")]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The base of a kernel cannot be had.
    #[error("cannot get the source of base `{base}`: {reason}")]
    Base {
        /// Its name in kernels.toml.
        base: String,
        /// What happened and what to do.
        reason: String,
    },
    /// A program or header that is needed is not installed.
    #[error(
        "{tool} is not installed; it is in the Debian package {package}: apt-get install {package}"
    )]
    Missing {
        /// The program or header.
        tool: String,
        /// The Debian package that has it.
        package: String,
    },
    /// A patch does not apply.
    #[error("patch {patch} does not apply to base `{base}`: {reason}")]
    Patch {
        /// Its file name.
        patch: String,
        /// Name of the base.
        base: String,
        /// File and hunk, or what is wrong with the patch itself.
        reason: String,
    },
    /// The configuration lacks what a fragment asks for.
    #[error(
        "kernel {kernel} cannot be configured as asked: {lacking}; a dependency is missing from the fragment or the option is not in this base"
    )]
    Lacking {
        /// Name of the kernel.
        kernel: String,
        /// `CONFIG_X=y (fragment guest)`, …
        lacking: String,
    },
    /// make failed.
    #[error("cannot build kernel {kernel}: {reason}; full log: {log}")]
    Build {
        /// Name of the kernel.
        kernel: String,
        /// The first error in the log.
        reason: String,
        /// Where the log is.
        log: PathBuf,
    },
    /// The disk is full.
    #[error(
        "cannot {doing}: no space left on the device that holds {path}; free some, or set XDG_CACHE_HOME to a larger one"
    )]
    NoSpace {
        /// "write", "build kernel 6.1", …
        doing: String,
        /// Where.
        path: PathBuf,
    },
    /// The operating system said no.
    #[error("{doing} {path}: {source}")]
    Io {
        /// "cannot read", …
        doing: String,
        /// The file it was about.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A program could not be started.
    #[error("cannot start {program}: {source}")]
    Start {
        /// The program.
        program: String,
        /// What the operating system said.
        source: io::Error,
    },
    /// The VM ended, or had to be ended, before it had done what it was for.
    #[error("{tried}: {end}")]
    Ended {
        /// "cannot boot kernel 6.1 under tcg", …
        tried: String,
        /// How, and who saw it.
        end: Box<End>,
    },
    /// The guest runs under something else than was asked for.
    #[error(
        "the guest reports clocksource `{clocksource}`, which cannot be under {accelerator}: remove `accelerator` from the cache, so that it is probed anew"
    )]
    Disguised {
        /// As the guest said it.
        clocksource: String,
        /// As it was started.
        accelerator: &'static str,
    },
    /// The guest speaks another version of the protocol.
    #[error("cannot talk to the guest: {0}")]
    Protocol(#[from] nlring_channel::FrameError),
}

impl VmError {
    /// Who has to act.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::UnknownKernel { .. }
            | Self::UnknownMutant { .. }
            | Self::UnknownPart { .. }
            | Self::UnknownBase { .. }
            | Self::Unpaired { .. }
            | Self::Config { .. } => Class::Usage,
            _ => Class::Infra,
        }
    }

    /// For `map_err`: turns what the operating system said about `path` into an error.
    pub(crate) fn io(doing: &str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::NoSpace {
                doing: doing.trim_start_matches("cannot ").to_owned(),
                path: path.to_owned(),
            },
            _ => Self::Io {
                doing: doing.to_owned(),
                path: path.to_owned(),
                source,
            },
        }
    }
}
