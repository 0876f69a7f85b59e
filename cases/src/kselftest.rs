// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `kselftest`: the selftest that the series brings along, as whoever builds that
//! kernel would run it.

use std::io::{self, Read as _};
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};

use anyhow::{Context as _, bail, ensure};

use crate::ktap::{self, Report, Result, Test};
use crate::{Case, Kernel, Setting, Unmet, case};

/// Where it is in the guest of a kernel that has it.
const PROGRAM: &str = "/usr/lib/nlring/netlink_mmap";

/// `KSFT_SKIP` of kselftest.h.
const SKIPPED: i32 = 4;

pub(crate) const CASES: &[Case] = &[
    case!(Kselftest, every_test_of_the_series_own_selftest_passes)
        .proves("rx-full-in-turn")
        .within(30),
    case!(
        Kselftest,
        the_series_own_selftest_skips_itself_without_rings
    )
    .proves("rest-off")
    .on(Kernel::Plain)
    .within(10),
];

/// The whole contract as one program sees it: `tools/testing/selftests/net/netlink_mmap.c`. In this
/// guest every test has what it needs, so one that skips itself is one that proves nothing.
fn every_test_of_the_series_own_selftest_passes(setting: &mut Setting) -> anyhow::Result<()> {
    let (report, status) = run()?;
    let Report::Tests(tests) = report else {
        bail!("it ran no test: {report:?}");
    };
    let mut wrong = Vec::new();
    for test in &tests {
        match &test.result {
            Result::Pass => setting.note(format!("ok {}", test.name)),
            Result::Fail => {
                wrong.push(complaint(test));
                setting.note(format!("not ok {}", test.name));
            }
            Result::Skip(reason) => {
                wrong.push(format!("{} skipped itself: {reason}", test.name));
                setting.note(format!("skip {}: {reason}", test.name));
            }
        }
        for line in &test.said {
            setting.note(format!("  {line}"));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {} tests: {}",
        wrong.len(),
        tests.len(),
        wrong.join("; ")
    );
    ensure!(
        status.success(),
        "every test passed, but it ended with {status}"
    );
    setting.note(format!("{} tests", tests.len()));
    Ok(())
}

/// Contract, "Setting a ring up": `ENOPROTOOPT` is how a kernel says that it has no rings, and a
/// program can rely on it.
fn the_series_own_selftest_skips_itself_without_rings(setting: &mut Setting) -> anyhow::Result<()> {
    let (report, status) = run()?;
    let Report::Skipped(reason) = report else {
        bail!("it ran tests on a kernel without rings: {report:?}");
    };
    ensure!(
        reason.contains("CONFIG_NETLINK_MMAP"),
        "it skipped itself for another reason: {reason}"
    );
    ensure!(
        status.code() == Some(SKIPPED),
        "it skipped itself, but ended with {status}"
    );
    setting.note(reason);
    Ok(())
}

/// A failed test and the first thing that was wrong in it.
fn complaint(test: &Test) -> String {
    let first = test.said.first().map_or("said nothing", String::as_str);
    format!("{} failed: {first}", test.name)
}

/// Runs it. Both its outputs go into one pipe, so that what a test complains about stands before
/// that test's result.
fn run() -> anyhow::Result<(Report, ExitStatus)> {
    if !Path::new(PROGRAM).exists() {
        let requirement = format!("a kernel whose series brings a selftest; there is no {PROGRAM}");
        return Err(Unmet(requirement).into());
    }
    let (mut output, input) = io::pipe()?;
    let mut command = Command::new(PROGRAM);
    command
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input);
    let mut child = command
        .spawn()
        .with_context(|| format!("cannot start {PROGRAM}"))?;
    drop(command); // and with it our ends of the pipe, so that its end is seen
    let mut text = String::new();
    output
        .read_to_string(&mut text)
        .context("cannot read what the selftest prints")?;
    let status = child.wait()?;
    let report = ktap::read(&text)
        .with_context(|| format!("the selftest ended with {status}, and its report is no good"))?;
    Ok((report, status))
}
