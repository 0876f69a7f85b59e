// SPDX-License-Identifier: MIT OR Apache-2.0
//! A cache with damage in it, and a clock that jumped while it was filled.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use crate::Test;
use crate::ground::{Ground, files};

pub const TESTS: &[Test] = &[
    ("an_entry_of_the_cache_is_truncated", |ground| {
        for path in entries(ground) {
            damage(ground, &path, |content| content.truncate(content.len() / 2));
        }
    }),
    ("an_entry_of_the_cache_is_emptied", |ground| {
        for path in entries(ground) {
            damage(ground, &path, Vec::clear);
        }
    }),
    ("an_entry_of_the_cache_has_a_bit_flipped", |ground| {
        for path in entries(ground) {
            damage(ground, &path, |content| {
                let middle = content.len() / 2;
                content[middle] ^= 1;
            });
        }
    }),
    ("the_clock_jumps", |ground| {
        ground.run("behaves").with(0);
        let decade = Duration::from_secs(10 * 365 * 24 * 3600);
        let now = SystemTime::now();
        for time in [now - decade, now + decade] {
            let made = ["cache", "target"].map(|name| files(&ground.path(name)));
            for path in made.into_iter().flatten() {
                File::open(path).unwrap().set_modified(time).unwrap();
            }
            ground.run("behaves").with(0);
        }
        assert_eq!(ground.builds(), 1);
    }),
];

/// The files of the cache that a run reads, when all is in it, that are more than a hint.
fn entries(ground: &Ground) -> Vec<PathBuf> {
    ground.run("behaves").with(0);
    let cache = ground.path("cache/nlring");
    let found = ["kernels", "initramfs", "snapshots", "accelerator", "digest"]
        .into_iter()
        .flat_map(|kind| files(&cache.join(kind)))
        .filter(|path| fs::metadata(path).is_ok_and(|file| file.is_file() && file.len() > 0));
    let found: Vec<_> = found.collect();
    assert!(found.len() > 4, "{found:?}");
    found
}

/// What is damaged is made again, or is not needed; either way it is as it was, and so is the verdict.
fn damage(ground: &Ground, path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
    let Ok(whole) = fs::read(path) else {
        return; // it had to go with another that was damaged
    };
    let mut content = whole.clone();
    change(&mut content);
    fs::write(path, &content).unwrap();
    ground.run("behaves").with(0);
    let is_kernel = path.starts_with(ground.path("cache/nlring/kernels"));
    let is_packed = path.extension().is_some_and(|end| end == "cpio");
    if is_kernel && !path.ends_with("System.map") || is_packed {
        assert!(fs::read(path).unwrap() == whole, "{}", path.display());
    }
}
