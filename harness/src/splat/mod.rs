// SPDX-License-Identifier: MIT OR Apache-2.0
//! The second witness: does the kernel's log complain?
//!
//! What counts as a complaint is data (`pattern.rs`), with a reason each. The scan fails closed: a log without
//! the kernel's banner is not a clean log but none at all. What programs in the guest print to the same
//! console is not believed: where the kernel stamps its lines with the time, only text behind such a stamp
//! counts. That two complaints are the same is told by their [`Fingerprint`]; where in the source they come
//! from, by [`decoded`].

pub mod decoded;
mod pattern;
mod trace;

use std::path::Path;
use std::sync::LazyLock;

use nlring_channel::{LOG_MARK, LOG_MARK_END};
use regex::Regex;

use pattern::Role::Follows;
pub use trace::Fingerprint;

/// Lines of one report that may stand between its headline and a line that follows.
const REACH: usize = 120;

/// Lines within which a second headline is the same report going on: a corrupted list is followed by
/// `BUG()`, a wrong reference count by `WARN()`, with "cut here" between them.
const SAME_BREATH: usize = 3;

/// `[    1.234567]`, with the caller behind it where the kernel prints it.
static STAMP: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\[ *\d+\.\d{6}\](\[ *[TC]\d+\])? ").expect("regular"));

/// One complaint of the kernel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Splat {
    /// Its kind, as `kasan`.
    pub kind: &'static str,
    /// Where its headline stands in the log; the first line is 1.
    pub line: usize,
    /// The job of the guest that had begun last, if one had.
    pub job: Option<u32>,
    /// The headline, without the time.
    pub headline: String,
    /// The kernel's lines from the headline up to the next splat, 120 at most.
    pub body: Vec<String>,
}

impl Splat {
    /// What it has in common with others of the same fault.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.kind, &self.body)
    }

    /// Whether it is the one that `announcement` means: `kind: text`, where the text stands in the headline.
    #[must_use]
    pub fn is_announced_by(&self, announcement: &str) -> bool {
        let announced = announcement.split_once(": ");
        announced.is_some_and(|(kind, text)| kind == self.kind && self.headline.contains(text))
    }
}

impl std::fmt::Display for Splat {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            headline,
            line,
            kind,
            ..
        } = self;
        let hash = self.fingerprint().hash();
        write!(formatter, "{headline} (line {line}, {kind} {hash})")
    }
}

/// Why a log is no witness.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// It cannot be read.
    #[error(
        "cannot read the kernel log {path}: {source}; a log that is not there is not a clean one"
    )]
    Io {
        /// The file.
        path: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It is not a kernel's log, or its beginning is missing.
    #[error(
        "the kernel log has no banner (\"Linux version …\"): {0}; a log without its beginning is not a clean one"
    )]
    NoBanner(String),
}

/// What a log says.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Scan {
    /// The complaints, in the order of the log.
    pub splats: Vec<Splat>,
    /// The jobs whose beginning the log tells, in its order.
    pub jobs: Vec<u32>,
}

impl Scan {
    /// Scans the log in `path`. Bytes that are not UTF-8 do not hide what stands around them.
    pub fn of_file(path: &Path) -> Result<Self, Unreadable> {
        let bytes = std::fs::read(path).map_err(|source| Unreadable::Io {
            path: path.display().to_string(),
            source,
        })?;
        Self::of(&String::from_utf8_lossy(&bytes))
    }

    /// Scans a log.
    pub fn of(log: &str) -> Result<Self, Unreadable> {
        let banner = log.lines().find(|line| line.contains("Linux version "));
        let Some(banner) = banner else {
            return Err(Unreadable::NoBanner(match log.lines().last() {
                None => String::from("it is empty"),
                Some(last) => format!("{} bytes, last line {:?}", log.len(), last.trim_end()),
            }));
        };
        let stamped = STAMP.is_match(banner);
        let mut scan = Self::default();
        for (number, raw) in log.lines().enumerate() {
            let line = raw.trim_end_matches('\r');
            match (stamped, STAMP.find(line)) {
                (true, None) => {}
                (true, Some(stamp)) => scan.hear(number + 1, &line[stamp.end()..]),
                (false, _) => scan.hear(number + 1, line),
            }
        }
        Ok(scan)
    }

    /// What it says of the jobs that began as number `job`, and of the time before the first of them.
    #[must_use]
    pub fn of_job(&self, job: u32) -> Self {
        let is_its = |splat: &&Splat| splat.job.is_none_or(|other| other == job);
        Self {
            splats: self.splats.iter().filter(is_its).cloned().collect(),
            jobs: vec![job],
        }
    }

    fn hear(&mut self, line: usize, text: &str) {
        if let Some(job) = begun(text) {
            self.jobs.push(job);
            return;
        }
        let matched = pattern::of(text);
        let now = self.jobs.last().copied();
        let telling = self
            .splats
            .last_mut()
            .filter(|splat| splat.body.len() < REACH && splat.job == now);
        match (matched, telling) {
            // One fault in two lines, as a page fault and its "Oops", or BUG() and its "invalid opcode".
            (Some((_, Follows, ..)) | None, Some(splat)) => splat.body.push(text.to_owned()),
            (Some((kind, ..)), Some(splat))
                if splat.kind != *kind && splat.body.len() < SAME_BREATH =>
            {
                splat.body.push(text.to_owned());
            }
            (Some((kind, ..)), _) => self.splats.push(Splat {
                kind,
                line,
                job: now,
                headline: text.trim().to_owned(),
                body: vec![text.to_owned()],
            }),
            (None, None) => {}
        }
    }
}

/// A line of a log without the time in front of it, and without what a program printed before that.
#[must_use]
pub fn without_time(line: &str) -> &str {
    STAMP.find(line).map_or(line, |stamp| &line[stamp.end()..])
}

/// The number of the job that this line of the log is the beginning of.
fn begun(text: &str) -> Option<u32> {
    let (number, _) = text.strip_prefix(LOG_MARK)?.split_once(LOG_MARK_END)?;
    number.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn splats(lines: &str) -> Vec<(&'static str, usize)> {
        let scan = Scan::of(&format!("[    0.000000] Linux version 6.1.1\n{lines}")).unwrap();
        scan.splats
            .iter()
            .map(|splat| (splat.kind, splat.line))
            .collect()
    }

    #[test]
    fn what_a_program_prints_is_not_the_kernels_word() {
        assert_eq!(splats("BUG: KASAN: said a program\n"), []);
        assert_eq!(
            splats("half a line[    1.000000] BUG: KASAN: said the kernel\n"),
            [("kasan", 2)]
        );
        assert_eq!(
            splats("[    1.000000][   T99] BUG: KASAN: with its caller\r\n"),
            [("kasan", 2)]
        );
        // Where the kernel prints no times, every line may be its own.
        assert_eq!(
            Scan::of("Linux version 6.1.1\nBUG: KASAN: x\n")
                .unwrap()
                .splats
                .len(),
            1
        );
    }

    #[test]
    fn a_splat_belongs_to_the_job_that_had_begun_last() {
        let log = "[    0.000000] Linux version 6.1.1\n\
             [    0.500000] refcount_t: while it booted\n\
             [    1.000000] nlring: job 1 begins: one, seed 7\n\
             [    2.000000] nlring: job 2 begins: two, seed 8\n\
             nlring: job 9 begins: says a program\n\
             [    2.500000] kernel BUG at a.c:1!\n\
             [    2.600000] Call Trace:\n";
        let scan = Scan::of(log).unwrap();
        assert_eq!(scan.jobs, [1, 2]);
        let kinds = |scan: Scan| {
            scan.splats
                .iter()
                .map(|splat| splat.kind)
                .collect::<Vec<_>>()
        };
        assert_eq!(kinds(scan.of_job(1)), ["refcount"]);
        assert_eq!(kinds(scan.of_job(2)), ["refcount", "kernel-bug"]);
    }

    #[test]
    fn a_line_that_follows_is_part_of_the_splat_before_it_but_never_lost() {
        assert_eq!(splats("[    1.000000] Call Trace:\n"), [("stack", 2)]);
        assert_eq!(
            splats("[    1.000000] kernel BUG at a.c:1!\n[    1.000000] Call Trace:\n"),
            [("kernel-bug", 2)]
        );
        let far = format!(
            "[    1.000000] kernel BUG at a.c:1!\n{}[    1.000000] Call Trace:\n",
            "[    1.000000] x\n".repeat(REACH)
        );
        assert_eq!(splats(&far), [("kernel-bug", 2), ("stack", 3 + REACH)]);
    }

    #[test]
    fn a_log_that_is_not_whole_is_not_clean() {
        for log in [
            "",
            "SeaBIOS (version 1.16)\n",
            "[    1.000000] pci 0000:00:00.0: quirk\n",
        ] {
            assert!(
                matches!(Scan::of(log), Err(Unreadable::NoBanner(_))),
                "{log:?}"
            );
        }
        let missing = Scan::of_file(Path::new("/nonexistent/console.log")).unwrap_err();
        assert!(
            missing.to_string().contains("/nonexistent/console.log"),
            "{missing}"
        );
        let directory = Scan::of_file(Path::new("/")).unwrap_err();
        assert!(matches!(directory, Unreadable::Io { .. }));
    }

    #[test]
    fn bytes_that_are_no_text_hide_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("console.log");
        std::fs::write(
            &path,
            b"[    0.000000] Linux version 6\n\xff\xfe\x00[    1.000000] kernel BUG at a.c:1!\n",
        )
        .unwrap();
        assert_eq!(Scan::of_file(&path).unwrap().splats.len(), 1);
    }
}
