// SPDX-License-Identifier: MIT OR Apache-2.0
//! The harness itself is killed, interrupted, or loses its terminal, while a case runs.

use std::fs;
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use nlring_harness::verdict::Verdict;

use crate::Test;
use crate::ground::{Ended, Ground, await_that};

pub const TESTS: &[Test] = &[
    ("the_harness_is_killed", |ground| {
        let mut harness = ground.start("is_silent_in_a_job");
        harness.kill().unwrap();
        harness.wait().unwrap();
        ground.is_as_it_was();
        // And the next finds the cache as it should be.
        ground.run("behaves").with(0);
        assert_eq!(ground.builds(), 1);
    }),
    ("the_harness_is_interrupted", |ground| {
        let harness = ground.start("is_silent_in_a_job");
        interrupted(ground, harness, Signal::SIGINT, 130);
    }),
    ("the_harness_is_told_to_end", |ground| {
        let harness = ground.start("is_silent_in_a_job");
        interrupted(ground, harness, Signal::SIGTERM, 143);
    }),
    ("the_terminal_goes_away", |ground| {
        // `script` is the terminal. The shell in it hands the news on, as shells do, and stays to tell how
        // the harness ended; its first wait ends with the news.
        let status = ground.path("status");
        let command = ground.command("is_silent_in_a_job");
        let words = std::iter::once(command.get_program()).chain(command.get_args());
        let words: Vec<_> = words.map(|word| format!("'{}'", word.display())).collect();
        let line = format!(
            "trap 'kill -HUP $harness' HUP; {} & harness=$!; wait $harness; wait $harness; echo $? >{}",
            words.join(" "),
            status.display()
        );
        let mut script = Command::new("script");
        for (name, value) in command.get_envs() {
            script.env(name, value.unwrap_or_default());
        }
        let mut terminal = script
            .args(["-qc", &line, "/dev/null"])
            .env("SHELL", "/bin/sh")
            .current_dir(ground.path(""))
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        ground.await_job();
        terminal.kill().unwrap();
        terminal.wait().unwrap();
        await_that("the harness has ended", || {
            fs::read_to_string(&status).is_ok_and(|text| text.ends_with('\n'))
        });
        assert_eq!(fs::read_to_string(&status).unwrap(), "129\n");
        assert_eq!(ground.result().verdict, Verdict::Infra);
    }),
];

/// The report of what is finished is written, and tells that this case is not.
fn interrupted(ground: &Ground, harness: Child, signal: Signal, status: i32) {
    kill(Pid::from_raw(harness.id().cast_signed()), signal).unwrap();
    let ended = Ended(harness.wait_with_output().unwrap());
    ended.with(status).complains(&format!(
        "interrupted by {signal}; 0 of 1 cases were finished"
    ));
    let result = ground.result();
    assert_eq!(result.verdict, Verdict::Infra);
    assert!(result.detail.contains("interrupted"), "{}", result.detail);
}
