// SPDX-License-Identifier: MIT OR Apache-2.0
//! The monitor of the QEMU that misbehaves, and what it makes of a state that it is to go on from.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::Shutdown;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixStream;

use serde_json::{Value, json};

/// The whole state of a VM that is none.
pub const STATE: &[u8] = b"registers and memory";

/// Obeys, but for what the behaviour says.
pub fn serve(stream: UnixStream, behaviour: &str) {
    match behaviour {
        "has_a_monitor_that_says_nothing" => {
            std::mem::forget(stream); // it stays open
            return;
        }
        "has_no_monitor" => {
            stream.shutdown(Shutdown::Both).unwrap();
            return;
        }
        _ => {}
    }
    let mut writer = stream.try_clone().unwrap();
    let mut say = |message: &Value| writer.write_all(format!("{message}\n").as_bytes()).is_ok();
    let version = json!({"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""});
    say(&json!({"QMP": {"version": version, "capabilities": []}}));
    for line in BufReader::new(stream.try_clone().unwrap()).lines() {
        let Ok(line) = line else { return };
        let order: Value = serde_json::from_str(&line).unwrap();
        let result = match (order["execute"].as_str().unwrap(), behaviour) {
            ("query-migrate", "refuses_to_be_saved") => {
                json!({"status": "failed", "error-desc": "the state has holes"})
            }
            ("query-migrate", "never_ends_to_be_saved") => json!({"status": "active"}),
            ("query-migrate", "closes_its_monitor_while_it_is_saved") => {
                stream.shutdown(Shutdown::Both).unwrap();
                return;
            }
            ("query-migrate", "dies_while_it_is_saved") => std::process::exit(1),
            ("query-migrate", "floods_its_monitor") => {
                while say(&json!({"event": "RTC_CHANGE", "data": {"offset": 1}})) {}
                return;
            }
            ("query-migrate", "speaks_no_qmp") => json!("$ "),
            ("query-migrate", _) => json!({"status": "completed"}),
            ("migrate", "knows_no_migration") => {
                let error =
                    json!({"class": "GenericError", "desc": "there is a device that cannot"});
                say(&json!({"error": error}));
                continue;
            }
            ("migrate", _) => {
                let uri = order["arguments"]["uri"].as_str().unwrap();
                fs::write(uri.strip_prefix("exec:cat >").unwrap(), STATE).unwrap();
                json!({})
            }
            _ => json!({}),
        };
        say(&json!({"return": result, "id": order["id"]}));
    }
}

/// Whether it was started to go on from a state, which must be the one that was written.
pub fn restored(arguments: &[String]) -> bool {
    let Some(at) = arguments
        .iter()
        .position(|argument| argument == "-incoming")
    else {
        return false;
    };
    let number: RawFd = arguments[at + 1]
        .strip_prefix("fd:")
        .unwrap()
        .parse()
        .unwrap();
    let mut state = Vec::new();
    // SAFETY: whoever started this process opened the descriptor for it under this number.
    let mut incoming = fs::File::from(unsafe { OwnedFd::from_raw_fd(number) });
    incoming.read_to_end(&mut state).unwrap();
    assert_eq!(state, STATE);
    true
}
