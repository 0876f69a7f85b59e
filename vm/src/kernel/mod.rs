// SPDX-License-Identifier: MIT OR Apache-2.0
//! A kernel: base + series + fragments + compiler, made once and kept.
//!
//! A finished kernel is found by the digest of all it was made of. On the way to it stand three
//! things that are only there to save time, each of which can be thrown away: the unpacked base, a
//! work tree with the series in it, and make's output directory.

mod compile;
mod configure;
pub mod lint;
mod out_directory;
pub(crate) mod selftest;
mod series;
mod source;
mod store;
pub(crate) mod toolchain;

use std::path::{Path, PathBuf};

use crate::digest::{self, Key};
use crate::matrix::{Entry, Image};
use crate::{Cache, VmError};
use compile::Make;
use configure::Fragment;
use out_directory::OutDirectory;
use series::Series;
use source::Identity;

/// Changed whenever the way of building changes what comes out.
const RECIPE: &str = "1";

/// Where a build is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Looking for the base.
    Fetch,
    /// Unpacking the base.
    Unpack,
    /// Bringing the series into the work tree.
    Patch,
    /// Making the configuration.
    Configure,
    /// Compiling and linking.
    Compile,
    /// Building the selftest that the series brings along.
    Selftest,
    /// Checking in the result.
    Store,
}

/// What happens during a build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// This begins.
    Phase(Phase),
    /// make has done this much.
    Steps {
        /// Steps done.
        done: u64,
        /// Steps expected in all, never less than `done`; 0 where it cannot be known, which is when
        /// make goes on from what an earlier build left.
        total: u64,
        /// The step just begun: `CC net/netlink/ring.o`.
        what: String,
    },
    /// Another process builds from the same base; this one goes on when that is done.
    Waiting,
}

/// A finished kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Built {
    /// Its name in kernels.toml.
    pub name: String,
    /// `uname -r`.
    pub release: String,
    /// Where its base came from.
    pub base: String,
    /// Of the series.
    pub series_sha256: String,
    /// Of the `.config`.
    pub config_sha256: String,
    /// Compiler and linker with their versions.
    pub compiler: String,
    /// The kernel with its symbols.
    pub vmlinux: PathBuf,
    /// What QEMU boots: vmlinux by its PVH entry, or the bzImage of a kernel that watches itself.
    pub image: PathBuf,
    /// The `.config`.
    pub config: PathBuf,
    /// The series' own selftest, a static program, where the series has one.
    pub selftest: Option<PathBuf>,
    /// Whether it watches itself, and so is slow.
    pub debug: bool,
    /// Its name in the cache, and of everything that is remembered about it.
    pub key: String,
}

/// All that a kernel is made of.
struct Recipe {
    identity: Identity,
    series: Series,
    fragments: Vec<Fragment>,
    compiler: String,
    key: String,
}

impl Recipe {
    fn gather(cache: &Cache, root: &Path, entry: &Entry) -> Result<Self, VmError> {
        let directory = root.join("kernel-config");
        let identity = source::identify(cache, &entry.base)?;
        let series = if entry.series {
            part(
                Series::load(&directory.join("patches"), &entry.base)?,
                entry,
            )?
        } else {
            Series::none()
        };
        let series = match &entry.mutant {
            Some(mutant) => {
                series.with_mutant(&directory.join(format!("mutants/{mutant}.patch")))?
            }
            None => series,
        };
        let fragments = configure::load(&directory.join("fragments"), &entry.fragments)?;
        let compiler = toolchain::compiler()?;
        let parts = [
            RECIPE,
            &entry.name,
            &identity.words,
            &series.sha256(),
            &compiler,
        ];
        let key = parts.iter().fold(Key::default(), Key::part);
        let key = fragments
            .iter()
            .fold(key, |key, fragment| key.part(&fragment.text))
            .finish();
        Ok(Self {
            identity,
            series,
            fragments,
            compiler,
            key,
        })
    }
}

/// Of the series, what this kernel has.
fn part(series: Series, entry: &Entry) -> Result<Series, VmError> {
    let all = series.patches().len();
    match entry.first {
        None => Ok(series),
        Some(count) if count <= all => Ok(series.first(count)),
        Some(_) => Err(VmError::UnknownPart {
            name: entry.name.clone(),
            reason: format!("the series has {all} patches"),
        }),
    }
}

/// The names of the patches that `entry` has, in their order.
///
/// # Errors
/// A patch cannot be read.
pub fn patches(root: &Path, entry: &Entry) -> Result<Vec<String>, VmError> {
    if !entry.series {
        return Ok(Vec::new());
    }
    let series = Series::load(&root.join("kernel-config/patches"), &entry.base)?;
    let series = part(series, entry)?;
    let names = series.patches().iter().map(|patch| patch.name().to_owned());
    Ok(names.collect())
}

/// A base without the series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pristine {
    /// The unpacked source; nobody changes it.
    pub tree: PathBuf,
    /// What identifies its content.
    pub id: String,
}

/// The base of `entry`, unpacked now if it is not there.
///
/// # Errors
/// It cannot be had, or not be unpacked.
pub fn pristine(
    cache: &Cache,
    entry: &Entry,
    on: &mut dyn FnMut(Event),
) -> Result<Pristine, VmError> {
    on(Event::Phase(Phase::Fetch));
    let identity = source::identify(cache, &entry.base)?;
    let id = identity.id.clone();
    // It is there whole or not at all, so nobody waits for a build that goes on.
    if let Some(tree) = source::unpacked(cache, &identity)? {
        return Ok(Pristine { tree, id });
    }
    let _lock = cache.lock(&format!("base-{id}"), || on(Event::Waiting))?;
    let tree = source::pristine(cache, &entry.base, &identity, on)?;
    Ok(Pristine { tree, id })
}

/// The kernel, if it is in the cache whole. One that is damaged is thrown away.
///
/// # Errors
/// The base, a patch, a fragment or the compiler cannot be found or read.
pub fn cached(cache: &Cache, root: &Path, entry: &Entry) -> Result<Option<Built>, VmError> {
    find(cache, &Recipe::gather(cache, root, entry)?.key, entry)
}

/// The directory in the cache in which the kernel is, or would be if it was built now: named by all that
/// it is made of, so that what is kept elsewhere under the same name is the same kernel.
///
/// # Errors
/// As those of [`cached`].
pub fn place(cache: &Cache, root: &Path, entry: &Entry) -> Result<PathBuf, VmError> {
    store::place(cache, &Recipe::gather(cache, root, entry)?.key)
}

fn find(cache: &Cache, key: &str, entry: &Entry) -> Result<Option<Built>, VmError> {
    let found = store::load(cache, key)?;
    Ok(found.map(|built| Built {
        debug: entry.debug,
        ..built
    }))
}

/// The kernel, out of the cache or built now.
///
/// # Errors
/// Each phase has its own: see [`VmError`]. What was built so far is kept where that is safe.
pub fn build(
    cache: &Cache,
    root: &Path,
    entry: &Entry,
    on: &mut dyn FnMut(Event),
) -> Result<Built, VmError> {
    on(Event::Phase(Phase::Fetch));
    let recipe = Recipe::gather(cache, root, entry)?;
    if let Some(built) = find(cache, &recipe.key, entry)? {
        return Ok(built);
    }
    toolchain::check()?;
    let base = &entry.base;
    let _lock = cache.lock(&format!("base-{}", recipe.identity.id), || {
        on(Event::Waiting);
    })?;
    if let Some(built) = find(cache, &recipe.key, entry)? {
        return Ok(built); // by the process that was waited for
    }
    let pristine = source::pristine(cache, base, &recipe.identity, on)?;

    on(Event::Phase(Phase::Patch));
    // Kernels without the series have their own tree and objects: putting a header back would have
    // make believe that all which includes it changed.
    let tree = if entry.series {
        recipe.identity.id.clone()
    } else {
        format!("plain-{}", recipe.identity.id)
    };
    let work = source::work(cache, base, &tree, &pristine)?;
    let scratch = cache.scratch(&recipe.identity.id)?;
    recipe
        .series
        .bring(base, &pristine, &work, scratch.path())?;

    on(Event::Phase(Phase::Configure));
    // That of the kernel with the whole series and without a mutant: what differs is all that is made again.
    let out = OutDirectory::open(cache, &tree, entry.in_matrix(), &recipe.compiler)?;
    let log = cache.place("log", &format!("{}.log", entry.name))?;
    let make = Make::new(&entry.name, work, out.path().to_owned(), log)?;
    let outcome = configure::configure(&make, &recipe.fragments).and_then(|config| {
        let steps = make.image(entry.image(), out.steps(entry.steps), on)?;
        Ok((config, steps, selftest::build(&make, on)?))
    });
    let (config, steps, selftest) = outcome.map_err(|error| out.fail(error))?;
    on(Event::Phase(Phase::Store));
    let identity = store::Identity {
        name: entry.name.clone(),
        release: store::release(make.out())?,
        base: recipe.identity.words,
        series_sha256: recipe.series.sha256(),
        config_sha256: digest::of(&config),
        compiler: recipe.compiler,
        vmlinux_sha256: digest::of_file(&make.out().join("vmlinux"))?,
        bzimage_sha256: match entry.image() {
            Image::Vmlinux => None,
            image @ Image::BzImage => Some(digest::of_file(&make.out().join(image.path()))?),
        },
        selftest_sha256: selftest.as_deref().map(digest::of_file).transpose()?,
    };
    let stored = store::put(
        cache,
        &recipe.key,
        &identity,
        make.out(),
        selftest.as_deref(),
    );
    stored?;
    out.close(steps)?;
    find(cache, &recipe.key, entry)?.ok_or_else(|| VmError::Build {
        kernel: entry.name.clone(),
        reason: "the result changed while it was stored; build again".into(),
        log: cache.root().join("log"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::matrix::Matrix;
    use std::fs;

    #[test]
    fn a_part_of_the_series_is_its_first_patches_and_no_more_than_there_are() {
        let root = tempfile::tempdir().unwrap();
        let config = root.path().join("kernel-config");
        fs::create_dir_all(config.join("patches")).unwrap();
        for name in ["0001-one.patch", "0002-two.patch", "0003-three.patch"] {
            fs::write(config.join("patches").join(name), name).unwrap();
        }
        let kernels = "[base.b]\ntree = \"/s\"\n[kernel.k]\nbase = \"b\"\nfragments = []\nringed = true\nsteps = 9\n";
        fs::write(config.join("kernels.toml"), kernels).unwrap();
        let matrix = Matrix::load(root.path()).unwrap();
        let patches = |name| patches(root.path(), &matrix.find(name).unwrap());
        assert_eq!(patches("k").unwrap().len(), 3);
        assert_eq!(
            patches("k@2").unwrap(),
            ["0001-one.patch", "0002-two.patch"]
        );
        assert!(patches("k@0").unwrap().is_empty());
        let refused = patches("k@4").unwrap_err().to_string();
        assert!(
            refused.contains("\"k@4\": the series has 3 patches"),
            "{refused}"
        );
    }
}
