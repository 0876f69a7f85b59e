// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tree that the series is judged in, and the making of objects of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::super::compile::Make;
use super::super::configure::{self, Fragment};
use super::super::out_directory::OutDirectory;
use super::super::series::{self, Series};
use super::super::{Event, source, toolchain};
use super::warning::Warning;
use crate::cache::Scratch;
use crate::kernel;
use crate::matrix::{Base, Entry};
use crate::{Cache, VmError};

/// What is always made, as far as the configuration has it; beside it, each C file that the series
/// touches.
const DIRECTORIES: [&str; 2] = ["net/netlink/", "net/netfilter/"];

/// Where files are that the kernel is not made of.
const NOT_COMPILED: [&str; 2] = ["Documentation", "tools"];

/// A tree with so much of the series in it as was brought there last.
pub(super) struct Bench<'a> {
    cache: &'a Cache,
    base: &'a Base,
    id: &'a str,
    compiler: &'a str,
    pristine: PathBuf,
    tree: PathBuf,
    /// What the whole series touches.
    touched: BTreeSet<PathBuf>,
}

/// A kernel of kernels.toml, as far as it is made here.
pub(super) struct Configuration {
    pub(super) kernel: String,
    pub(super) fragments: Vec<Fragment>,
    is_made: bool,
}

impl Configuration {
    pub(super) fn load(fragments: &Path, entry: &Entry) -> Result<Self, VmError> {
        Ok(Self {
            kernel: entry.name.clone(),
            fragments: configure::load(fragments, &entry.fragments)?,
            is_made: false,
        })
    }

    /// The tree's Kconfig files changed.
    pub(super) fn outdate(&mut self) {
        self.is_made = false;
    }
}

/// What make made of the tree.
pub(super) struct Made {
    pub(super) objects: u64,
    pub(super) warnings: Vec<Warning>,
    /// Bytes of text of [`super::HOT_OBJECT`].
    pub(super) text: u64,
}

impl<'a> Bench<'a> {
    /// At the base of `entry`; the caller holds the lock `id`.
    pub(super) fn open(
        cache: &'a Cache,
        entry: &'a Entry,
        id: &'a str,
        compiler: &'a str,
        touched: BTreeSet<PathBuf>,
        on: &mut dyn FnMut(Event),
    ) -> Result<Self, VmError> {
        toolchain::check()?;
        let base = &entry.base;
        let pristine = kernel::pristine(cache, entry, on)?.tree;
        Ok(Self {
            tree: source::work(cache, base, id, &pristine)?,
            cache,
            base,
            id,
            compiler,
            pristine,
            touched,
        })
    }

    pub(super) fn base(&self) -> &Base {
        self.base
    }

    pub(super) fn tree(&self) -> &Path {
        &self.tree
    }

    /// Has the tree be as after these patches.
    pub(super) fn bring(&self, series: &Series) -> Result<(), VmError> {
        let scratch = self.scratch("series")?;
        series.bring(self.base, &self.pristine, &self.tree, scratch.path())
    }

    /// A directory for a moment, for this purpose.
    pub(super) fn scratch(&self, purpose: &str) -> Result<Scratch, VmError> {
        self.cache.scratch(&format!("{}-{purpose}", self.id))
    }

    /// Has everything be made again that depends on what the series touches: a tool speaks only when it
    /// is run.
    pub(super) fn renew(&self) -> Result<(), VmError> {
        self.touched
            .iter()
            .try_for_each(|file| series::renew(&self.tree.join(file)))
    }

    /// Text of these files, empty where one is not there.
    pub(super) fn read(&self, files: &BTreeSet<PathBuf>) -> Result<Vec<String>, VmError> {
        let read = |file| match fs::read(self.tree.join(file)) {
            Ok(text) => Ok(String::from_utf8_lossy(&text).into_owned()),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
            Err(error) => Err(VmError::io("cannot read", file)(error)),
        };
        files.iter().map(|file: &PathBuf| read(file)).collect()
    }

    /// Whether objects of `configuration` are there to go on from.
    pub(super) fn keeps(&self, configuration: &Configuration) -> Result<bool, VmError> {
        OutDirectory::is_kept(self.cache, self.id, &configuration.kernel, self.compiler)
    }

    /// Makes what is out of date.
    pub(super) fn make(&self, configuration: &mut Configuration) -> Result<Made, VmError> {
        let kernel = &configuration.kernel;
        let out = OutDirectory::open(self.cache, self.id, kernel, self.compiler)?;
        let log = self.cache.place("log", &format!("lint-{kernel}.log"))?;
        let make = Make::new(kernel, self.tree.clone(), out.path().to_owned(), log)?;
        let outcome = self.make_in(&make, configuration);
        let outcome = outcome.map_err(|error| out.fail(error))?;
        out.keep()?;
        Ok(outcome)
    }

    fn make_in(&self, make: &Make, configuration: &mut Configuration) -> Result<Made, VmError> {
        if !configuration.is_made {
            configure::configure(make, &configuration.fragments)?;
            configuration.is_made = true;
        }
        let (mut objects, mut warnings) = (0, Vec::new());
        make.objects(&self.targets(), |line| {
            objects += u64::from(line.starts_with("  CC "));
            warnings.extend(Warning::parse(line, &self.tree));
        })?;
        Ok(Made {
            objects,
            warnings,
            text: text(&make.out().join(super::HOT_OBJECT))?,
        })
    }

    fn targets(&self) -> Vec<String> {
        let elsewhere = self.touched.iter().filter(|file| {
            file.extension().is_some_and(|extension| extension == "c")
                && !DIRECTORIES
                    .iter()
                    .any(|directory| file.starts_with(directory))
                && is_compiled(file)
                && self.tree.join(file).exists()
        });
        let elsewhere = elsewhere.map(|file| file.with_extension("o"));
        DIRECTORIES
            .map(String::from)
            .into_iter()
            .chain(elsewhere.map(|object| object.to_string_lossy().into_owned()))
            .collect()
    }
}

/// Whether `file` says what can be configured.
pub(super) fn is_configuration(file: &Path) -> bool {
    let name = file.file_name().unwrap_or_default();
    name.to_string_lossy().starts_with("Kconfig")
}

/// Whether `file` can matter to the kernel's objects.
pub(super) fn is_compiled(file: &Path) -> bool {
    !NOT_COMPILED.iter().any(|place| file.starts_with(place))
}

/// As `size` counts it: code and what is read only.
fn text(object: &Path) -> Result<u64, VmError> {
    let output = Command::new("size").arg(object).env("LC_ALL", "C").output();
    let output = output.map_err(|source| VmError::Start {
        program: "size".into(),
        source,
    })?;
    let said = String::from_utf8_lossy(&output.stdout);
    let number = said
        .lines()
        .nth(1)
        .and_then(|line| line.split_whitespace().next());
    number
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| {
            let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            VmError::io("cannot measure", object)(std::io::Error::other(said))
        })
}
