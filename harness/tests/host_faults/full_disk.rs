// SPDX-License-Identifier: MIT OR Apache-2.0
//! The disk fills up while a kernel is built, and while the report is written.
//!
//! The disk is one of memory, in a mount namespace of the command's own, for which one need not be root
//! where the machine allows user namespaces.

use std::process::Command;

use crate::Test;
use crate::ground::{Ended, Ground};

pub const TESTS: &[Test] = &[
    ("the_disk_is_full_while_a_kernel_is_built", |ground| {
        let Some(by) = disk(ground, "cache", "1m") else {
            return;
        };
        let mut command =
            ground.command_by(&by.each_ref().map(String::as_str), "behaves", "report");
        let ended = Ended(command.env("TOY_SIZE", "4000000").output().unwrap()).with(3);
        let story = ended.story();
        assert!(
            story.contains("stderr: nlring: cannot build kernel 6.1: no space left on the device"),
            "{story}"
        );
        assert!(story.contains("XDG_CACHE_HOME"), "{story}");
        // What was left on that disk.
        assert!(!story.contains("left: ./nlring/kernels/"), "{story}");
        assert!(!story.contains("left: ./nlring/out/"), "{story}");
    }),
    ("the_disk_is_full_while_the_guest_talks", |ground| {
        ground.run("behaves").with(0);
        let Some(by) = disk(ground, "report", "200k") else {
            return;
        };
        let mut command =
            ground.command_by(&by.each_ref().map(String::as_str), "prints_a_lot", "report");
        let ended = Ended(command.output().unwrap()).with(3);
        let story = ended.story();
        assert!(story.contains("no space left on the device"), "{story}");
        assert!(!story.contains("1 passed"), "{story}");
    }),
    ("the_disk_is_full_while_the_report_is_written", |ground| {
        ground.run("behaves").with(0);
        let Some(by) = disk(ground, "report", "24k") else {
            return;
        };
        let mut command =
            ground.command_by(&by.each_ref().map(String::as_str), "behaves", "report");
        let ended = Ended(command.output().unwrap()).with(3);
        let story = ended.story();
        assert!(story.contains("No space left on device"), "{story}");
        assert!(!story.contains("left: ./.nlring-"), "{story}");
    }),
];

/// A command before the command: it runs that with a disk of this size on this directory, and then tells
/// which files are on it.
fn disk(ground: &Ground, directory: &str, size: &str) -> Option<[String; 7]> {
    let alone = ["--map-root-user", "--mount"];
    let can = Command::new("unshare").args(alone).arg("true").output();
    if !can.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIPPED: a full {directory}: neither root nor user namespaces here");
        return None;
    }
    let place = ground.path(directory);
    std::fs::create_dir_all(&place).unwrap();
    let script = format!(
        "mount -t tmpfs -o size={size} tmpfs {0} || exit 99; \"$@\"; status=$?; \
         cd {0}; find . -type f | sed 's/^/left: /'; exit $status",
        place.display()
    );
    let [map, mount] = alone.map(str::to_owned);
    let word = str::to_owned;
    Some([
        word("unshare"),
        map,
        mount,
        word("sh"),
        word("-c"),
        script,
        word("sh"),
    ])
}
