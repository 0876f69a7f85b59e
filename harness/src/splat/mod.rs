// SPDX-License-Identifier: MIT OR Apache-2.0
//! The second witness: does the kernel's log complain?
//!
//! The patterns are data, with a reason each. The scan fails closed: a log without the kernel's banner is
//! not a clean log but none at all. What programs in the guest print to the same console is not believed:
//! where the kernel stamps its lines with the time, only text behind such a stamp counts.

use std::path::Path;
use std::sync::LazyLock;

use nlring_channel::{LOG_MARK, LOG_MARK_END};
use regex::{Regex, RegexSet};

/// What a matching line does to the report it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Role {
    /// It is the headline of a splat.
    Opens,
    /// It belongs to the splat that is being told, if there is one; else it is a headline itself.
    Follows,
}

use Role::{Follows, Opens};

/// A kind of complaint: its name, the role of a line that matches, the pattern, and why it counts.
type Pattern = (&'static str, Role, &'static str, &'static str);

#[rustfmt::skip]
const PATTERNS: &[Pattern] = &[
    ("kasan", Opens, r"BUG: KASAN: ", "a memory error, seen as it happens"),
    ("kcsan", Opens, r"BUG: KCSAN: ", "a data race, both sides seen"),
    ("kmsan", Opens, r"BUG: KMSAN: ", "a use of memory that was never written"),
    ("kfence", Opens, r"BUG: KFENCE: ", "a memory error, caught by sampling"),
    ("ubsan", Opens, r"UBSAN: ", "undefined behaviour: the compiler may have made anything of it"),
    ("lockdep", Opens, r"WARNING: (possible (circular|recursive) locking|possible irq lock inversion|inconsistent lock state|bad unlock balance|held lock freed|Nested lock was not taken|lock held when returning to user space|.*-safe -> .*-unsafe lock order)", "a deadlock that waits for its day"),
    ("lockdep", Opens, r"BUG: Invalid wait context|DEBUG_LOCKS_WARN_ON|BUG: MAX_LOCK|WARNING: .* still has locks held|BUG: .* still has locks held", "a lock taken where it must not be, or lockdep itself gave up and sees nothing more"),
    ("rcu-usage", Opens, r"WARNING: suspicious RCU usage", "a pointer read outside the section that keeps it alive"),
    ("atomic-sleep", Opens, r"BUG: sleeping function called from invalid context|BUG: scheduling while atomic|BUG: using (smp_processor_id|__this_cpu_\w+)\(\) in preemptible|Voluntary context switch within RCU read-side critical section", "sleeps, or can be moved, where it may not"),
    ("null-dereference", Opens, r"BUG: kernel NULL pointer dereference", "an oops"),
    ("page-fault", Opens, r"BUG: unable to handle (page fault|kernel paging request|kernel NULL pointer)|unable to handle page fault for address", "an oops: an address that is not there"),
    ("general-protection", Opens, r"general protection fault(, probably|: [0-9a-f]{4})", "an oops (a program's own fault reads otherwise): often a pointer of freed, poisoned memory"),
    ("kernel-bug", Opens, r"kernel BUG at ", "BUG(): the code found its own state impossible"),
    ("warning", Opens, r"WARNING: (CPU: \d+ PID: \d+ at |\S+:\d+ at )", "WARN(): the code found its own state wrong (6.x, and the form without CPU of newer kernels)"),
    ("soft-lockup", Opens, r"BUG: soft lockup", "a CPU that did not schedule for more than 20 s"),
    ("hard-lockup", Opens, r"hard LOCKUP on cpu|Watchdog detected hard LOCKUP", "a CPU that took no interrupt"),
    ("workqueue-lockup", Opens, r"BUG: workqueue lockup", "a work pool that makes no progress"),
    ("hung-task", Opens, r"INFO: task \S.* blocked for more than \d+ seconds", "a task that waits for what does not come"),
    ("rcu-stall", Opens, r"rcu.*self-detected stall|rcu.*detected (expedited )?stalls|rcu.*kthread (starved|timer wakeup didn't happen)", "no grace period: nothing that RCU guards is ever freed again"),
    ("refcount", Opens, r"refcount_t: ", "a reference counted wrongly: saturated, underflowed or used after free"),
    ("list", Opens, r"list_(add|del) corruption|hlist_\w+ corruption", "a list whose neighbours disagree"),
    ("slab", Opens, r"BUG \S+ \((Not tainted|Tainted.*|[A-Z ]+)\): |BUG kmalloc-", "a slab object written outside its bounds or after free"),
    ("slab-leak", Opens, r"Objects remaining in \S+ on __kmem_cache_shutdown", "objects outlived their cache"),
    ("page-state", Opens, r"BUG: Bad (page state|page map|rss-counter state)|BUG: non-zero pgtables_bytes|nonexistent vm area|Bad (swap|page) ", "a page freed while it is mapped or counted; what a ring that frees mapped blocks would show"),
    ("kmemleak", Opens, r"kmemleak: \d+ new suspected memory leaks|unreferenced object 0x", "memory that nothing points to"),
    ("kmemleak-off", Opens, r"kmemleak: (Kernel memory leak detector disabled|Cannot )", "the leak detector gave up: silence from it proves nothing"),
    ("debug-objects", Opens, r"ODEBUG: ", "a timer, work or RCU head used in the wrong state"),
    ("netdev-reference", Opens, r"unregister_netdevice: waiting for ", "a reference to a network device that was never given back"),
    ("allocation", Opens, r"page allocation failure: order:", "ring memory is asked for silently (abi.md, set-up, 6), so this is a regression or a machine too small"),
    ("oom-kill", Opens, r"invoked oom-killer:|Out of memory: Killed process|Memory cgroup out of memory: Killed", "ring memory never costs a process its life (abi.md, set-up, 6)"),
    ("interrupt", Opens, r"irq \d+: nobody cared|Spurious interrupt.*disabl", "an interrupt line switched off: whatever hangs on it is silent from now on"),
    ("initcall", Opens, r"initcall \S+ returned with (preemption imbalance|disabled interrupts)", "a subsystem that started wrongly"),
    ("double-fault", Opens, r"double fault: |PANIC: double fault|stack guard page was hit|Thread overran stack|kernel stack overflow", "the kernel's stack is gone"),
    ("oops", Follows, r"(Oops|Internal error|divide error|invalid opcode|int3|alignment check|bounds|stack segment|segment not present): [0-9a-fx]{4,}.*\[#\d+\]", "an oops, whatever its cause"),
    ("stack", Follows, r"\bCall Trace:", "kernels print a stack only to complain"),
    ("panic", Follows, r"Kernel panic - not syncing", "the end; after an oops, its consequence"),
    ("taint", Follows, r"\bTainted: ", "something went wrong earlier, perhaps before this log begins"),
    ("taint", Follows, r"Disabling lock debugging due to kernel taint|tainting kernel", "from here on lockdep sees nothing"),
    ("lockdep", Follows, r"INFO: lockdep is turned off|turning off the locking correctness validator", "from here on lockdep sees nothing"),
];

/// Lines of one report that may stand between its headline and a line that follows.
const REACH: usize = 120;

/// Lines within which a second headline is the same report going on: a corrupted list is followed by
/// `BUG()`, a wrong reference count by `WARN()`, with "cut here" between them.
const SAME_BREATH: usize = 3;

static MATCHER: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(PATTERNS.iter().map(|pattern| pattern.2))
        .expect("the table's patterns are regular")
});

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
    /// Whether `text` stands in one of its lines.
    #[must_use]
    pub fn contains(&self, text: &str) -> bool {
        self.body.iter().any(|line| line.contains(text))
    }
}

impl std::fmt::Display for Splat {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            formatter,
            "{} (line {}, {})",
            self.headline, self.line, self.kind
        )
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
        let matched = MATCHER
            .matches(text)
            .iter()
            .next()
            .map(|index| &PATTERNS[index]);
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
    fn every_pattern_has_a_reason_and_says_something_of_its_own() {
        for (index, (kind, _, pattern, reason)) in PATTERNS.iter().enumerate() {
            assert!(!reason.is_empty() && !kind.is_empty());
            assert!(
                Regex::new(pattern).is_ok_and(|regex| !regex.is_match("")),
                "{pattern}"
            );
            assert!(
                PATTERNS[..index].iter().all(|other| other.2 != *pattern),
                "twice: {pattern}"
            );
        }
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
