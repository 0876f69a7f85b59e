// SPDX-License-Identifier: MIT OR Apache-2.0
//! The series, patch by patch, before the judges of a kernel list: each step must build, with the option
//! and without it, and neither compiler, sparse, kernel-doc nor checkpatch may say anything that they
//! did not say before it.
//!
//! A tree is kept for this, and an output directory for each of the two configurations, so that a step
//! makes only what depends on what its patch touches. What was clean is remembered: a series that did
//! not change costs nothing, and one that did is judged from the first patch that did.

mod bench;
mod checkpatch;
mod memory;
mod warning;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::series::{Patch, Series};
use super::source::{self, Identity};
use super::toolchain;
use crate::digest::Key;
use crate::matrix::Matrix;
use crate::{Cache, VmError};
use bench::{Bench, Configuration};
use memory::{Memory, State};

/// Changed whenever the way of judging changes what passes.
const RECIPE: &str = "1";

/// Every netlink message passes through this object, so it must not grow where the option is off.
pub const HOT_OBJECT: &str = "net/netlink/af_netlink.o";

/// Bytes of text of [`HOT_OBJECT`], as `size` counts them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Text {
    /// In the base.
    pub unpatched: u64,
    /// With the series and without the option.
    pub off: u64,
    /// With both; 0 before the option comes.
    pub on: u64,
}

/// What happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// As in a build: the base is unpacked, or another process is waited for.
    Source(super::Event),
    /// The first so many patches were clean when they were judged last, and are what they were then.
    Remembered(usize),
    /// The tree is made as it is before the first patch, to know what the tools say anyway.
    Ground,
    /// A patch is judged.
    Patch {
        /// Its place, from 1.
        number: usize,
        /// How many there are.
        of: usize,
        /// Its name.
        name: String,
    },
    /// Something is wrong with it.
    Complaint(String),
    /// It, or the ground, is done.
    Done {
        /// Objects compiled for it, both configurations together.
        objects: u64,
        /// The sizes after it.
        text: Text,
    },
}

/// What came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Findings {
    /// How many complaints there were.
    pub complaints: usize,
    /// The sizes after the last patch; `None` if it was not come to.
    pub text: Option<Text>,
}

/// Judges the series on one base.
///
/// # Errors
/// The base cannot be had, kernels.toml has no two kernels on it with and without the option, a patch
/// does not apply, or a tool is missing. A patch that does not build is a complaint, the last one.
pub fn lint(
    cache: &Cache,
    root: &Path,
    matrix: &Matrix,
    base: &str,
    tell: &mut dyn FnMut(Event),
) -> Result<Findings, VmError> {
    let directory = root.join("kernel-config");
    let (control, ringed) = matrix.pair(base)?;
    let base = &control.base;
    let identity = source::identify(cache, base)?;
    let series = Series::load(&directory.join("patches"), base)?;
    let touched = series.touched(base)?;
    let compiler = toolchain::compiler()?;
    let configuration = |entry| Configuration::load(&directory.join("fragments"), entry);
    let (mut off, on) = (configuration(control)?, configuration(ringed)?);

    let id = format!("lint-{}", identity.id);
    let _lock = cache.lock(&id, || tell(Event::Source(super::Event::Waiting)))?;
    let keys = keys(&identity, &compiler, [&off, &on], &series, &touched)?;
    let mut memory = Memory::open(cache, &identity.id, keys)?;
    let recalled = memory.recall();
    let is_new = recalled.is_none();
    let (passed, mut state) = recalled.unwrap_or_default();
    if passed > 0 {
        tell(Event::Remembered(passed));
    }
    if passed == series.patches().len() {
        let text = Some(state.text);
        return Ok(Findings {
            complaints: 0,
            text,
        });
    }

    let mut source = |event| tell(Event::Source(event));
    let bench = Bench::open(cache, control, &id, &compiler, touched, &mut source)?;
    if is_new || !bench.keeps(&off)? {
        tell(Event::Ground);
        bench.bring(&series.first(passed))?;
        if is_new {
            bench.renew()?;
        }
        let made = bench.make(&mut off)?;
        for warning in &made.warnings {
            state.known.learn(warning);
        }
        state.text.off = made.text;
        if is_new {
            state.text.unpatched = made.text;
            memory.keep(0, &state)?;
        }
        tell(Event::Done {
            objects: made.objects,
            text: state.text,
        });
    }
    let mut judge = Judge {
        bench,
        off,
        on,
        state,
        complaints: 0,
        tell,
    };
    for (index, patch) in series.patches().iter().enumerate().skip(passed) {
        if !judge.patch(&series, index, patch)? {
            return Ok(Findings {
                complaints: judge.complaints,
                text: None,
            });
        }
        if judge.complaints == 0 {
            memory.keep(index + 1, &judge.state)?;
        }
    }
    Ok(Findings {
        complaints: judge.complaints,
        text: Some(judge.state.text),
    })
}

/// One key for the base, and one for each patch with all that is before it.
fn keys(
    identity: &Identity,
    compiler: &str,
    configurations: [&Configuration; 2],
    series: &Series,
    touched: &BTreeSet<PathBuf>,
) -> Result<Vec<String>, VmError> {
    let sparse = Command::new("sparse").arg("--version").output();
    let sparse = sparse.map_err(|_| VmError::Missing {
        tool: "sparse".into(),
        package: "sparse".into(),
    })?;
    let ground = [RECIPE, &identity.words, compiler]
        .iter()
        .fold(Key::default().part(sparse.stdout), Key::part);
    let ground = configurations
        .iter()
        .flat_map(|configuration| &configuration.fragments)
        .fold(ground, |key, fragment| key.part(&fragment.text));
    // What the tools say anyway is only known of what depends on what some patch touches.
    let ground = touched
        .iter()
        .filter(|file| bench::is_compiled(file))
        .fold(ground, |key, file| {
            key.part(file.as_os_str().as_encoded_bytes())
        });
    let mut keys = vec![ground.finish()];
    for patch in series.patches() {
        let before = keys.last().expect("that of the base");
        let key = Key::default()
            .part(before)
            .part(patch.name())
            .part(patch.text());
        keys.push(key.finish());
    }
    Ok(keys)
}

/// Hears what the tools say.
struct Judge<'a> {
    bench: Bench<'a>,
    off: Configuration,
    on: Configuration,
    state: State,
    complaints: usize,
    tell: &'a mut dyn FnMut(Event),
}

impl Judge<'_> {
    /// Judges the patch that is `index`th from 0; whether the next can be.
    fn patch(&mut self, series: &Series, index: usize, patch: &Patch) -> Result<bool, VmError> {
        (self.tell)(Event::Patch {
            number: index + 1,
            of: series.patches().len(),
            name: patch.name().to_owned(),
        });
        let files = patch.touched(self.bench.base())?;
        self.bench.bring(&series.first(index))?;
        let before = self.bench.read(&files)?;
        let scratch = self.bench.scratch("patch")?;
        for said in checkpatch::complaints(self.bench.tree(), patch.text(), scratch.path())? {
            self.complain(format!("checkpatch: {said}"));
        }
        self.bench.bring(&series.first(index + 1))?;
        let after = self.bench.read(&files)?;
        for (file, (before, after)) in files.iter().zip(before.iter().zip(&after)) {
            self.state.known.follow(file, before, after);
        }
        if files.iter().any(|file| bench::is_configuration(file)) {
            self.off.outdate();
            self.on.outdate();
        }
        let is_last = index + 1 == series.patches().len();
        let mut objects = 0;
        if is_last || files.iter().any(|file| bench::is_compiled(file)) {
            for is_on in [false, true] {
                match self.make(is_on) {
                    Ok(made) => objects += made,
                    // The option comes with one of the patches that follow.
                    Err(VmError::Lacking { .. }) if is_on && !is_last => {}
                    Err(error @ (VmError::Build { .. } | VmError::Lacking { .. })) => {
                        self.complain(error.to_string());
                        return Ok(false);
                    }
                    Err(error) => return Err(error),
                }
            }
        }
        let Text { unpatched, off, .. } = self.state.text;
        if is_last && off > unpatched {
            let grown = off - unpatched;
            self.complain(format!("the text of {HOT_OBJECT} grows by {grown} bytes in {}, where the option is off: {unpatched} unpatched, {off} now", self.off.kernel));
        }
        let text = self.state.text;
        (self.tell)(Event::Done { objects, text });
        Ok(true)
    }

    fn make(&mut self, is_on: bool) -> Result<u64, VmError> {
        let (configuration, text) = if is_on {
            (&mut self.on, &mut self.state.text.on)
        } else {
            (&mut self.off, &mut self.state.text.off)
        };
        let made = self.bench.make(configuration)?;
        *text = made.text;
        let kernel = configuration.kernel.clone();
        for warning in made.warnings {
            if self.state.known.learn(&warning) {
                self.complain(format!("{warning} ({kernel})"));
            }
        }
        Ok(made.objects)
    }

    fn complain(&mut self, what: String) {
        self.complaints += 1;
        (self.tell)(Event::Complaint(what));
    }
}

#[cfg(test)]
#[path = "lint_tests.rs"]
mod tests;
