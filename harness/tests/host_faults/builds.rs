// SPDX-License-Identifier: MIT OR Apache-2.0
//! Builds: two at once on one cache, and one that is cut off.

use std::process::Stdio;

use crate::Test;
use crate::ground::{Ended, await_that};

pub const TESTS: &[Test] = &[
    ("two_harnesses_at_once_build_once", |ground| {
        let both = ["report", "another-report"].map(|report| {
            ground
                .command_by(&[], "behaves", report)
                .env("TOY_TIME", "1")
                .stdout(Stdio::piped())
                .stderr(Stdio::piped())
                .spawn()
                .unwrap()
        });
        for harness in both {
            Ended(harness.wait_with_output().unwrap()).with(0);
        }
        assert_eq!(ground.builds(), 1);
    }),
    ("a_build_is_cut_off", |ground| {
        let mut harness = ground
            .command("behaves")
            .env("TOY_TIME", "600")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        await_that("the build has begun", || ground.builds() == 1);
        harness.kill().unwrap();
        harness.wait().unwrap();
        ground.has_no_process();
        ground.run("behaves").with(0);
        assert_eq!(ground.builds(), 2);
    }),
];
