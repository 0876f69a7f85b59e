// SPDX-License-Identifier: MIT OR Apache-2.0
//! Finished kernels in the cache: `kernels/<key>/` with vmlinux, config, System.map, identity.json, the
//! bzImage where that is what is booted, and the series' own selftest where it has one.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::Built;
use super::selftest::NAME as SELFTEST;
use crate::cache::{remove_tree, write_whole};
use crate::digest;
use crate::matrix::Image;
use crate::{Cache, VmError};

/// The name of a bzImage here.
const BZIMAGE: &str = "bzImage";

/// identity.json.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Identity {
    pub(super) name: String,
    pub(super) release: String,
    pub(super) base: String,
    pub(super) series_sha256: String,
    pub(super) config_sha256: String,
    pub(super) compiler: String,
    pub(super) vmlinux_sha256: String,
    /// Not there if vmlinux is what is booted.
    pub(super) bzimage_sha256: Option<String>,
    /// Not there if there is no selftest.
    pub(super) selftest_sha256: Option<String>,
}

/// Where the kernel of this key is, if it is there.
pub(super) fn place(cache: &Cache, key: &str) -> Result<PathBuf, VmError> {
    cache.place("kernels", key)
}

/// The kernel of this key, if it is there and what it says it is; if it is there and is not, it is
/// thrown away.
pub(super) fn load(cache: &Cache, key: &str) -> Result<Option<Built>, VmError> {
    let place = place(cache, key)?;
    if !place.exists() {
        return Ok(None);
    }
    let sound = |identity: &Identity| {
        let digest = |name| digest::of_file_remembered(cache, &place.join(name)).ok();
        digest("vmlinux").as_ref() == Some(&identity.vmlinux_sha256)
            && digest("config").as_ref() == Some(&identity.config_sha256)
            && digest(BZIMAGE) == identity.bzimage_sha256
            && digest(SELFTEST) == identity.selftest_sha256
    };
    let identity = fs::read(place.join("identity.json"))
        .ok()
        .and_then(|text| serde_json::from_slice(&text).ok());
    let Some(identity) = identity.filter(sound) else {
        remove_tree(&place)?;
        return Ok(None);
    };
    Ok(Some(Built {
        // The matrix knows.
        debug: false,
        name: identity.name,
        release: identity.release,
        base: identity.base,
        series_sha256: identity.series_sha256,
        config_sha256: identity.config_sha256,
        compiler: identity.compiler,
        vmlinux: place.join("vmlinux"),
        image: place.join(identity.bzimage_sha256.map_or("vmlinux", |_| BZIMAGE)),
        config: place.join("config"),
        selftest: identity.selftest_sha256.map(|_| place.join(SELFTEST)),
        key: key.to_owned(),
    }))
}

/// Checks in what make left in `out`, and the selftest.
pub(super) fn put(
    cache: &Cache,
    key: &str,
    identity: &Identity,
    out: &Path,
    selftest: Option<&Path>,
) -> Result<(), VmError> {
    let place = place(cache, key)?;
    let partial = place.with_extension("partial");
    remove_tree(&partial)?;
    if let Err(error) = fill(&partial, identity, out, selftest) {
        // Above all where the disk is full, half a kernel is of use to nobody.
        remove_tree(&partial)?;
        return Err(error);
    }
    remove_tree(&place)?;
    fs::rename(&partial, &place).map_err(VmError::io("cannot name", &place))
}

fn fill(
    partial: &Path,
    identity: &Identity,
    out: &Path,
    selftest: Option<&Path>,
) -> Result<(), VmError> {
    fs::create_dir(partial).map_err(VmError::io("cannot make", partial))?;
    let files = [
        (out.join("vmlinux"), "vmlinux"),
        (out.join(".config"), "config"),
        (out.join("System.map"), "System.map"),
    ];
    let selftest = selftest.map(|program| (program.to_owned(), SELFTEST));
    let bzimage = identity.bzimage_sha256.as_ref();
    let bzimage = bzimage.map(|_| (out.join(Image::BzImage.path()), BZIMAGE));
    for (from, to) in files.into_iter().chain(bzimage).chain(selftest) {
        fs::copy(&from, partial.join(to)).map_err(VmError::io("cannot store", &from))?;
    }
    let text = serde_json::to_vec_pretty(identity).expect("plain data");
    write_whole(&partial.join("identity.json"), &text)
}

/// `uname -r` of what make left in `out`.
pub(super) fn release(out: &Path) -> Result<String, VmError> {
    let path = out.join("include/config/kernel.release");
    let text = fs::read_to_string(&path).map_err(VmError::io("cannot read", &path))?;
    Ok(text.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored_with(bzimage: Option<&str>, selftest: Option<&str>) -> (tempfile::TempDir, Cache) {
        let directory = tempfile::tempdir().unwrap();
        let cache = Cache::at(&directory.path().join("cache")).unwrap();
        let out = directory.path().join("out");
        fs::create_dir_all(out.join("include/config")).unwrap();
        fs::create_dir_all(out.join("arch/x86/boot")).unwrap();
        for (name, content) in [
            ("vmlinux", "image"),
            (
                "arch/x86/boot/bzImage",
                bzimage.unwrap_or("of another time"),
            ),
            (".config", "CONFIG_A=y\n"),
            ("System.map", ""),
            ("include/config/kernel.release", "6.1.0\n"),
        ] {
            fs::write(out.join(name), content).unwrap();
        }
        let word = |word: &str| word.to_owned();
        let identity = Identity {
            name: word("6.1"),
            release: release(&out).unwrap(),
            base: word("base"),
            series_sha256: word("s"),
            config_sha256: digest::of("CONFIG_A=y\n"),
            compiler: word("gcc"),
            vmlinux_sha256: digest::of("image"),
            bzimage_sha256: bzimage.map(digest::of),
            selftest_sha256: selftest.map(digest::of),
        };
        let program = selftest.map(|content| {
            let program = directory.path().join("program");
            fs::write(&program, content).unwrap();
            program
        });
        put(&cache, "key", &identity, &out, program.as_deref()).unwrap();
        (directory, cache)
    }

    fn stored() -> (tempfile::TempDir, Cache) {
        stored_with(Some("packed"), Some("program"))
    }

    #[test]
    fn what_was_stored_is_found() {
        let (_directory, cache) = stored();
        let built = load(&cache, "key").unwrap().unwrap();
        assert_eq!(
            (built.release.as_str(), built.key.as_str()),
            ("6.1.0", "key")
        );
        assert_eq!(fs::read_to_string(built.vmlinux).unwrap(), "image");
        assert_eq!(fs::read_to_string(built.image).unwrap(), "packed");
        let selftest = built.selftest.unwrap();
        assert_eq!(fs::read_to_string(selftest).unwrap(), "program");
        assert!(load(&cache, "other").unwrap().is_none());
    }

    #[test]
    fn a_damaged_entry_is_thrown_away() {
        for (file, content) in [
            ("vmlinux", "imago"),
            ("vmlinux", ""),
            ("config", "CONFIG_A=n\n"),
            (BZIMAGE, "packet"),
            (SELFTEST, "programme"),
            ("identity.json", "{\"name\": "),
        ] {
            let (_directory, cache) = stored();
            assert!(load(&cache, "key").unwrap().is_some());
            fs::write(cache.root().join("kernels/key").join(file), content).unwrap();
            assert!(load(&cache, "key").unwrap().is_none(), "{file}");
            assert!(!cache.root().join("kernels/key").exists(), "{file}");
        }
        for file in ["vmlinux", BZIMAGE, SELFTEST] {
            let (_directory, cache) = stored();
            fs::remove_file(cache.root().join("kernels/key").join(file)).unwrap();
            assert!(load(&cache, "key").unwrap().is_none(), "{file}");
        }
    }

    #[test]
    fn a_kernel_without_a_bzimage_or_a_selftest_is_whole_too() {
        let (_directory, cache) = stored_with(None, None);
        let built = load(&cache, "key").unwrap().unwrap();
        assert_eq!(built.image, built.vmlinux);
        assert_eq!(built.selftest, None);
    }
}
