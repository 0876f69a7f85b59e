// SPDX-License-Identifier: MIT OR Apache-2.0
//! Splats with the lines of the kernel's source that their frames come from.

use std::collections::HashMap;
use std::fmt::Write as _;

use nlring_vm::symbols::Line;

use super::Scan;
use super::trace::Symbol;

/// Stands between a line of the log and where in the source that is.
const TO_SOURCE: char = '\t';

/// The splats of `scan`, each below its fingerprint; a line that ends with a symbol goes on with what
/// `lines` tells of it, by function, offset and size. What it does not tell stays as it is.
pub fn write(scan: &Scan, lines: &dyn Fn(&str, u64, u64) -> Vec<Line>) -> String {
    let mut text = String::new();
    for splat in &scan.splats {
        let line = splat.line;
        let _ = writeln!(text, "line {line}, fingerprint {}", splat.fingerprint());
        for line in &splat.body {
            let line = line.trim_end();
            match Symbol::at_end_of(line).map(|symbol| place(&symbol, lines)) {
                Some(place) if !place.is_empty() => {
                    let _ = writeln!(text, "{line}{TO_SOURCE}{place}");
                }
                _ => {
                    let _ = writeln!(text, "{line}");
                }
            }
        }
        text.push('\n');
    }
    text
}

/// By the lines of a text so written as they stand in the log: where in the source each is.
#[must_use]
pub fn read(text: &str) -> HashMap<&str, &str> {
    text.lines()
        .filter_map(|line| line.split_once(TO_SOURCE))
        .collect()
}

/// `list.h:148 in list_del, within ring.c:77`: from the innermost function outwards.
fn place(symbol: &Symbol<'_>, lines: &dyn Fn(&str, u64, u64) -> Vec<Line>) -> String {
    // A frame is the address that a call returns to, which may be on the next line, or in the next function.
    let offset = symbol.offset.saturating_sub(u64::from(!symbol.is_exact));
    let lines = lines(symbol.function, offset, symbol.size);
    let mut told = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let place = format!("{}:{}", line.file, line.number);
        told.push(if index + 1 < lines.len() {
            format!("{place} in {}", line.function)
        } else {
            place
        });
    }
    told.join(", within ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
[    0.000000] Linux version 6.1.1
[    1.000000] BUG: KASAN: use-after-free in ring_take+0x10/0x20
[    1.000000] CPU: 0 PID: 9 Comm: nlring-guest Not tainted
[    1.000000] RIP: 0010:ring_walk+0x10/0x20
[    1.000000] Call Trace:
[    1.000000]  ring_take+0x10/0x20
[    1.000000]  unknown+0x10/0x20
";

    fn lines(function: &str, offset: u64, size: u64) -> Vec<Line> {
        let line = |function: &str, file: &str, number| Line {
            function: function.to_owned(),
            file: file.to_owned(),
            number,
        };
        match (function, offset, size) {
            ("ring_take", 0xf, 0x20) => vec![
                line("list_del", "include/linux/list.h", 148),
                line("ring_take", "net/netlink/ring.c", 77),
            ],
            ("ring_walk", 0x10, 0x20) => vec![line("ring_walk", "net/netlink/ring.c", 5)],
            _ => Vec::new(),
        }
    }

    #[test]
    fn frames_go_on_with_their_lines_and_others_stay_as_they_are() {
        let text = write(&Scan::of(LOG).unwrap(), &lines);
        let places: Vec<&str> = text.lines().collect();
        let within = "include/linux/list.h:148 in list_del, within net/netlink/ring.c:77";
        assert!(places[0].starts_with("line 2, fingerprint "), "{text}");
        assert!(
            places[0].ends_with(" is kasan in ring_walk < ring_take < unknown"),
            "{text}"
        );
        assert_eq!(
            places[1..7],
            [
                &*format!("BUG: KASAN: use-after-free in ring_take+0x10/0x20\t{within}"),
                "CPU: 0 PID: 9 Comm: nlring-guest Not tainted",
                "RIP: 0010:ring_walk+0x10/0x20\tnet/netlink/ring.c:5",
                "Call Trace:",
                &*format!(" ring_take+0x10/0x20\t{within}"),
                " unknown+0x10/0x20",
            ]
        );
        let read = read(&text);
        assert_eq!(read.len(), 3);
        assert_eq!(read[" ring_take+0x10/0x20"], within);
    }
}
