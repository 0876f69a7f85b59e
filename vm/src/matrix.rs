// SPDX-License-Identifier: MIT OR Apache-2.0
//! kernel-config/kernels.toml: which kernels there are, and out of what each is made.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use indexmap::IndexMap;
use serde::Deserialize;

use crate::VmError;

/// Stands between the name of a kernel and that of the mutant in it: `6.1+name-of-the-fault`.
pub const WITH_MUTANT: char = '+';

/// Stands between the name of a kernel and how many patches of the series it has, the first ones: `6.1@7`.
pub const WITH_FIRST: char = '@';

/// All kernels of kernels.toml, and the mutants that each can be had with.
#[derive(Debug, Clone)]
pub struct Matrix {
    entries: Vec<Entry>,
    mutants: Vec<String>,
}

/// One kernel.
#[derive(Debug, Clone)]
pub struct Entry {
    /// As it is asked for: `6.1`, `6.1+name-of-the-fault` or `6.1@7`.
    pub name: String,
    /// Of the series, the first so many patches only.
    pub first: Option<usize>,
    /// The mutant on top of the series: a file of kernel-config/mutants, without `.patch`.
    pub mutant: Option<String>,
    /// What it is built from.
    pub base: Base,
    /// Whether the series is applied to that.
    pub series: bool,
    /// Names of fragments in kernel-config/fragments, without `.config`, in order.
    pub fragments: Vec<String>,
    /// Whether it has memory-mapped netlink (`CONFIG_NETLINK_MMAP`); if not it is a control.
    pub ringed: bool,
    /// The group of cases that it is for, where it is not for all.
    pub group: Option<String>,
    /// Whether it watches itself, and so is slow and large; it is used where it is asked for.
    pub debug: bool,
    /// Steps of make in a build from nothing, as last counted: where progress starts from.
    pub steps: u64,
}

impl Entry {
    /// The name of the kernel without the mutant.
    #[must_use]
    pub fn unmutated(&self) -> &str {
        self.before(WITH_MUTANT)
    }

    /// Its name in kernels.toml, that of the kernel with the whole series and without a mutant.
    #[must_use]
    pub fn in_matrix(&self) -> &str {
        self.before(WITH_MUTANT)
            .split(WITH_FIRST)
            .next()
            .unwrap_or_default()
    }

    fn before(&self, mark: char) -> &str {
        self.name.split(mark).next().unwrap_or_default()
    }

    /// What of it is booted.
    #[must_use]
    pub fn image(&self) -> Image {
        if self.debug {
            Image::BzImage
        } else {
            Image::Vmlinux
        }
    }

    /// With the first `count` patches of the series only.
    #[must_use]
    pub fn with_first(&self, count: usize) -> Self {
        Self {
            name: format!("{}{WITH_FIRST}{count}", self.name),
            first: Some(count),
            ..self.clone()
        }
    }

    fn mutated(&self, mutant: &str) -> Self {
        Self {
            name: format!("{}{WITH_MUTANT}{mutant}", self.name),
            mutant: Some(mutant.to_owned()),
            ..self.clone()
        }
    }
}

/// What a kernel is booted from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Image {
    /// The ELF file, entered by PVH, which takes no unpacking.
    Vmlinux,
    /// The compressed image, which starts as on any PC. By PVH, C functions run before KASAN has a shadow.
    BzImage,
}

impl Image {
    /// Where make leaves it in its output directory.
    #[must_use]
    pub fn path(self) -> &'static str {
        match self {
            Self::Vmlinux => "vmlinux",
            Self::BzImage => "arch/x86/boot/bzImage",
        }
    }

    /// What make is asked for.
    #[must_use]
    pub fn target(self) -> &'static str {
        match self {
            Self::Vmlinux => "vmlinux",
            Self::BzImage => "bzImage",
        }
    }
}

/// A source tree before the series.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Base {
    /// Its name, also that of its own patches in kernel-config/patches/.
    pub name: String,
    /// Where it comes from.
    pub source: Source,
}

/// Where a base comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A Debian package that puts `/usr/src/<package>.tar.xz` on the machine.
    Debian(String),
    /// A tree on this machine; copied, never changed.
    Tree(PathBuf),
    /// A tarball on this machine.
    Tarball {
        /// Any compression that tar knows.
        path: PathBuf,
        /// What it must be, in hex.
        sha256: String,
    },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    base: BTreeMap<String, SourceLine>,
    // In the order of the file, which is the order of preference.
    kernel: IndexMap<String, KernelLines>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SourceLine {
    debian: Option<String>,
    tree: Option<PathBuf>,
    tarball: Option<PathBuf>,
    sha256: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct KernelLines {
    base: String,
    #[serde(default = "yes")]
    series: bool,
    fragments: Vec<String>,
    ringed: bool,
    group: Option<String>,
    #[serde(default)]
    debug: bool,
    steps: u64,
}

fn yes() -> bool {
    true
}

impl Matrix {
    /// Reads `<root>/kernel-config/kernels.toml`; relative paths in it are relative to its directory.
    ///
    /// # Errors
    /// The file cannot be read, has a key that is not known, or names a base or fragment that is
    /// not there.
    pub fn load(root: &Path) -> Result<Self, VmError> {
        let directory = root.join("kernel-config");
        let path = directory.join("kernels.toml");
        let text = fs::read_to_string(&path).map_err(VmError::io("cannot read", &path))?;
        let entries =
            parse(&text, &directory).map_err(|reason| VmError::Config { path, reason })?;
        let mutants = mutants(&directory.join("mutants"))?;
        Ok(Self { entries, mutants })
    }

    /// In the order of the file: of several that will do, the first is meant.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The mutants that a kernel with the series can have, in the order of their names.
    #[must_use]
    pub fn mutants(&self) -> &[String] {
        &self.mutants
    }

    /// The kernel of this name; with a mutant, or with the first patches only, if `name` goes on so.
    ///
    /// # Errors
    /// There is no such kernel, or no such mutant; the error names those there are. Or what is behind the
    /// name is no number; whether the series has so many patches is known where it is read.
    pub fn find(&self, name: &str) -> Result<Entry, VmError> {
        if let Some((kernel, count)) = name.split_once(WITH_FIRST) {
            return self.find_first(kernel, count);
        }
        let (kernel, mutant) = match name.split_once(WITH_MUTANT) {
            Some((kernel, mutant)) => (kernel, Some(mutant)),
            None => (name, None),
        };
        let entry = self.entries.iter().find(|entry| entry.name == kernel);
        let entry = entry.ok_or_else(|| VmError::UnknownKernel {
            name: kernel.to_owned(),
            known: self
                .entries
                .iter()
                .map(|entry| entry.name.as_str())
                .collect::<Vec<_>>()
                .join(", "),
        })?;
        match mutant {
            None => Ok(entry.clone()),
            Some(mutant) if entry.series && self.mutants.iter().any(|known| known == mutant) => {
                Ok(entry.mutated(mutant))
            }
            Some(mutant) => Err(VmError::UnknownMutant {
                name: mutant.to_owned(),
                reason: if entry.series {
                    String::from("it is not in kernel-config/mutants")
                } else {
                    format!("{kernel} does not have the series")
                },
            }),
        }
    }

    fn find_first(&self, kernel: &str, count: &str) -> Result<Entry, VmError> {
        let entry = self.find(kernel)?;
        let refused = |reason: String| VmError::UnknownPart {
            name: format!("{kernel}{WITH_FIRST}{count}"),
            reason,
        };
        if !entry.series || entry.mutant.is_some() {
            return Err(refused(format!("{kernel} does not have the series alone")));
        }
        match count.parse() {
            Ok(count) => Ok(entry.with_first(count)),
            Err(_) => Err(refused(format!("{count:?} is no number of patches"))),
        }
    }
}

impl Matrix {
    /// The bases that there are kernels of, in the order of these.
    #[must_use]
    pub fn bases(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for entry in &self.entries {
            if !names.contains(&entry.base.name.as_str()) {
                names.push(&entry.base.name);
            }
        }
        names
    }

    /// The first kernel of `base` that has the series without the option, and the first with it.
    ///
    /// # Errors
    /// There is no such base, or not both kernels.
    pub fn pair(&self, base: &str) -> Result<(&Entry, &Entry), VmError> {
        if !self.bases().contains(&base) {
            return Err(VmError::UnknownBase {
                name: base.to_owned(),
                known: self.bases().join(", "),
            });
        }
        let first = |ringed| {
            let with_series = |entry: &&Entry| entry.base.name == base && entry.series;
            let mut kernels = self.entries.iter().filter(with_series);
            kernels.find(|entry| entry.ringed == ringed)
        };
        first(false)
            .zip(first(true))
            .ok_or_else(|| VmError::Unpaired {
                base: base.to_owned(),
            })
    }
}

/// Names of the mutants in `directory`, sorted; none if it is not there.
fn mutants(directory: &Path) -> Result<Vec<String>, VmError> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(VmError::io("cannot list", directory)(error)),
    };
    let mut names = Vec::new();
    for entry in entries {
        let path = entry.map_err(VmError::io("cannot list", directory))?.path();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if path
            .extension()
            .is_some_and(|extension| extension == "patch")
        {
            plain(&stem).map_err(|reason| VmError::Config {
                path: path.clone(),
                reason,
            })?;
            names.push(stem.into_owned());
        }
    }
    names.sort();
    Ok(names)
}

fn parse(text: &str, directory: &Path) -> Result<Vec<Entry>, String> {
    let file: File = toml::from_str(text).map_err(|error| one_line(&error, text))?;
    let mut bases = BTreeMap::new();
    for (name, line) in file.base {
        plain(&name)?;
        let source =
            source(line, directory).map_err(|reason| format!("base `{name}`: {reason}"))?;
        bases.insert(name.clone(), Base { name, source });
    }
    file.kernel
        .into_iter()
        .map(|(name, lines)| {
            plain(&name)?;
            let base = bases.get(&lines.base).cloned().ok_or_else(|| {
                let known = bases
                    .keys()
                    .map(String::as_str)
                    .collect::<Vec<_>>()
                    .join(", ");
                format!(
                    "kernel `{name}` is over base `{}`, which is not there; there is {known}",
                    lines.base
                )
            })?;
            for fragment in &lines.fragments {
                let path = directory
                    .join("fragments")
                    .join(format!("{fragment}.config"));
                if !path.is_file() {
                    return Err(format!(
                        "kernel `{name}` names fragment `{fragment}`, but there is no {}",
                        path.display()
                    ));
                }
            }
            Ok(Entry {
                name,
                first: None,
                mutant: None,
                base,
                series: lines.series,
                fragments: lines.fragments,
                ringed: lines.ringed,
                group: lines.group,
                debug: lines.debug,
                steps: lines.steps,
            })
        })
        .collect()
}

fn source(line: SourceLine, directory: &Path) -> Result<Source, String> {
    match line {
        SourceLine { debian: Some(package), tree: None, tarball: None, sha256: None } => {
            plain(&package)?;
            Ok(Source::Debian(package))
        }
        SourceLine { debian: None, tree: Some(path), tarball: None, sha256: None } => Ok(Source::Tree(directory.join(path))),
        SourceLine { debian: None, tree: None, tarball: Some(path), sha256: Some(sha256) } => {
            if sha256.len() != 64 || !sha256.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                return Err("sha256 is not 64 hexadecimal digits".into());
            }
            Ok(Source::Tarball { path: directory.join(path), sha256: sha256.to_ascii_lowercase() })
        }
        _ => Err("say one of: debian = \"package\"; tree = \"path\"; tarball = \"path\" with sha256 = \"…\"".into()),
    }
}

/// Names become file names in the cache.
fn plain(name: &str) -> Result<(), String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if name.is_empty() || name.starts_with('.') || !name.bytes().all(fits) {
        return Err(format!(
            "`{name}` is no name: letters, digits and . _ - only, not starting with a dot"
        ));
    }
    Ok(())
}

fn one_line(error: &toml::de::Error, text: &str) -> String {
    let before = error
        .span()
        .map_or("", |span| text.get(..span.start).unwrap_or_default());
    let line = 1 + before.matches('\n').count();
    format!("line {line}: {}", error.message().replace('\n', " "))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(text: &str) -> Result<Matrix, VmError> {
        let root = tempfile::tempdir().unwrap();
        let fragments = root.path().join("kernel-config/fragments");
        fs::create_dir_all(&fragments).unwrap();
        fs::write(fragments.join("guest.config"), "").unwrap();
        fs::write(root.path().join("kernel-config/kernels.toml"), text).unwrap();
        Matrix::load(root.path())
    }

    fn complaint(text: &str) -> String {
        let error = load(text).unwrap_err();
        assert_eq!(error.class(), crate::Class::Usage);
        let message = error.to_string();
        assert!(!message.contains('\n'), "{message}");
        message
    }

    const KERNEL: &str =
        "[kernel.\"6.1\"]\nbase = \"b\"\nfragments = [\"guest\"]\nringed = true\nsteps = 9\n";

    #[test]
    fn the_matrix_of_the_tree_loads() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let matrix = Matrix::load(root).unwrap();
        assert!(matrix.find("6.1").unwrap().ringed);
        assert!(!matrix.find("6.1-off").unwrap().ringed);
        assert!(matrix.find("6.12").unwrap().series);
        assert!(!matrix.find("6.12-compat-plain").unwrap().series);
        let message = matrix.find("2.6").unwrap_err().to_string();
        assert!(message.contains("6.1, 6.1-off"), "{message}");
    }

    #[test]
    fn each_kind_of_base_is_understood() {
        for (line, kind) in [
            (
                "debian = \"linux-source-6.1\"",
                "Debian(\"linux-source-6.1\")",
            ),
            ("tree = \"/src\"", "Tree(\"/src\")"),
            (
                &format!("tarball = \"/a.tar\"\nsha256 = \"{}\"", "Ab".repeat(32)),
                "Tarball { path: \"/a.tar\", sha256: \"abab",
            ),
        ] {
            let matrix = load(&format!("[base.b]\n{line}\n{KERNEL}")).unwrap();
            let source = format!("{:?}", matrix.entries()[0].base.source);
            assert!(source.starts_with(kind), "{source}");
        }
    }

    #[test]
    fn kernels_stand_in_the_order_of_the_file() {
        let kernel = |name| KERNEL.replace("6.1", name);
        let names = ["6.1", "5.15", "6.1-off", "6.12"];
        let kernels: Vec<_> = names.map(kernel).into();
        let matrix = load(&format!("[base.b]\ntree = \"/s\"\n{}", kernels.concat())).unwrap();
        let found: Vec<_> = matrix.entries().iter().map(|entry| &entry.name).collect();
        assert_eq!(found, names.each_ref());
    }

    #[test]
    fn a_kernel_with_the_series_can_be_had_with_a_mutant() {
        let root = tempfile::tempdir().unwrap();
        let directory = root.path().join("kernel-config");
        fs::create_dir_all(directory.join("fragments")).unwrap();
        fs::create_dir(directory.join("mutants")).unwrap();
        fs::write(directory.join("fragments/guest.config"), "").unwrap();
        fs::write(directory.join("mutants/lost-lock.patch"), "").unwrap();
        fs::write(directory.join("mutants/notes.txt"), "").unwrap();
        let plain = KERNEL.replace("6.1", "plain") + "series = false\n";
        let text = format!("[base.b]\ntree = \"/s\"\n{KERNEL}{plain}");
        fs::write(directory.join("kernels.toml"), text).unwrap();
        let matrix = Matrix::load(root.path()).unwrap();

        assert_eq!(matrix.mutants(), ["lost-lock"]);
        let mutated = matrix.find("6.1+lost-lock").unwrap();
        assert_eq!(mutated.name, "6.1+lost-lock");
        assert_eq!(mutated.mutant.as_deref(), Some("lost-lock"));
        assert_eq!((mutated.unmutated(), mutated.in_matrix()), ("6.1", "6.1"));
        assert_eq!(matrix.find("6.1").unwrap().unmutated(), "6.1");
        for (name, expected) in [
            ("6.1+lost-luck", "it is not in kernel-config/mutants"),
            ("plain+lost-lock", "plain does not have the series"),
            ("6.2+lost-lock", "names no kernel \"6.2\""),
        ] {
            let message = matrix.find(name).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_kernel_with_the_series_can_be_had_with_the_first_patches_only() {
        let plain = KERNEL.replace("6.1", "plain") + "series = false\n";
        let matrix = load(&format!("[base.b]\ntree = \"/s\"\n{KERNEL}{plain}")).unwrap();
        let entry = matrix.find("6.1@7").unwrap();
        assert_eq!((entry.name.as_str(), entry.first), ("6.1@7", Some(7)));
        assert_eq!((entry.unmutated(), entry.in_matrix()), ("6.1@7", "6.1"));
        for (name, expected) in [
            ("6.1@many", "\"many\" is no number of patches"),
            ("6.1@-1", "\"-1\" is no number of patches"),
            ("plain@1", "plain does not have the series alone"),
            ("6.2@1", "names no kernel \"6.2\""),
        ] {
            let message = matrix.find(name).unwrap_err().to_string();
            assert!(message.contains(expected), "{message}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_place() {
        for (text, expected) in [
            (
                format!("[base.b]\ntree = \"/s\"\n{KERNEL}fast = true\n"),
                "line 8: unknown field `fast`",
            ),
            (
                format!("[base.b]\n{KERNEL}"),
                "base `b`: say one of: debian",
            ),
            (format!("[base.b]\ntarball = \"x\"\n{KERNEL}"), "say one of"),
            (
                format!("[base.b]\ntarball = \"x\"\nsha256 = \"12\"\n{KERNEL}"),
                "64 hexadecimal",
            ),
            (
                format!("[base.c]\ntree = \"/s\"\n{KERNEL}"),
                "base `b`, which is not there; there is c",
            ),
            (
                format!(
                    "[base.b]\ntree = \"/s\"\n{}",
                    KERNEL.replace("guest", "gone")
                ),
                "fragment `gone`",
            ),
            (
                format!("[base.\"../b\"]\ntree = \"/s\"\n{KERNEL}"),
                "is no name",
            ),
            ("kernel = 3".to_owned(), "line 1: "),
        ] {
            let message = complaint(&text);
            assert!(message.contains(expected), "{message}\nlacks {expected}");
        }
    }
}
