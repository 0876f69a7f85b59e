// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the kernel complains: what its lines look like, and why each counts.

use std::sync::LazyLock;

use regex::RegexSet;

/// What a matching line does to the report it stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It is the headline of a splat.
    Opens,
    /// It belongs to the splat that is being told, if there is one; else it is a headline itself.
    Follows,
}

use Role::{Follows, Opens};

/// A kind of complaint: its name, the role of a line that matches, the pattern, and why it counts.
pub(super) type Pattern = (&'static str, Role, &'static str, &'static str);

#[rustfmt::skip]
pub(super) const PATTERNS: &[Pattern] = &[
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
    ("general-protection", Opens, r"general protection fault(, (probably|maybe)|: [0-9a-f]{4})", "an oops (a program's own fault reads otherwise): often a pointer of freed, poisoned memory"),
    ("kernel-bug", Opens, r"kernel BUG at ", "BUG(): the code found its own state impossible"),
    ("warning", Opens, r"WARNING: (CPU: \d+ PID: \d+ at |\S+:\d+ at )", "WARN(): the code found its own state wrong (6.x, and the form without CPU of newer kernels)"),
    ("soft-lockup", Opens, r"BUG: soft lockup", "a CPU that did not schedule for more than 20 s"),
    ("hard-lockup", Opens, r"hard LOCKUP on cpu|Watchdog detected hard LOCKUP", "a CPU that took no interrupt"),
    ("workqueue-lockup", Opens, r"BUG: workqueue lockup", "a work pool that makes no progress"),
    ("hung-task", Opens, r"INFO: task \S.* blocked for more than \d+ seconds", "a task that waits for what does not come"),
    ("rcu-stall", Opens, r"rcu.*self-detected stall|rcu.*detected (expedited )?stalls", "no grace period: nothing that RCU guards is ever freed again"),
    ("rcu-stall", Follows, r"rcu.*kthread (starved|timer wakeup didn't happen)", "part of such a report, or the whole of it"),
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
    ("double-fault", Opens, r"PANIC: double fault|stack guard page was hit|Thread overran stack|kernel stack overflow", "the kernel's stack is gone"),
    ("double-fault", Follows, r"double fault: [0-9a-f]{4}", "the report of the same, which may come alone"),
    ("oops", Follows, r"(Oops|Internal error|divide error|invalid opcode|int3|alignment check|bounds|stack segment|segment not present): [0-9a-fx]{4,}.*\[#\d+\]", "an oops, whatever its cause"),
    ("stack", Follows, r"\bCall Trace:", "kernels print a stack only to complain"),
    ("panic", Follows, r"Kernel panic - not syncing", "the end; after an oops, its consequence"),
    ("taint", Follows, r"\bTainted: ", "something went wrong earlier, perhaps before this log begins"),
    ("taint", Follows, r"Disabling lock debugging due to kernel taint|tainting kernel", "from here on lockdep sees nothing"),
    ("lockdep", Follows, r"INFO: lockdep is turned off|turning off the locking correctness validator", "from here on lockdep sees nothing"),
];

static MATCHER: LazyLock<RegexSet> = LazyLock::new(|| {
    RegexSet::new(PATTERNS.iter().map(|pattern| pattern.2))
        .expect("the table's patterns are regular")
});

/// The first pattern of the table that this line matches.
pub(super) fn of(line: &str) -> Option<&'static Pattern> {
    MATCHER
        .matches(line)
        .iter()
        .next()
        .map(|index| &PATTERNS[index])
}

/// Whether there is such a kind of complaint.
#[cfg(test)]
fn is_kind(word: &str) -> bool {
    PATTERNS.iter().any(|(kind, ..)| *kind == word)
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

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
    fn what_a_case_announces_is_of_a_kind_that_there_is() {
        let announced = nlring_cases::all()
            .iter()
            .filter_map(|case| case.expects_splat);
        let mut count = 0;
        for splat in announced {
            let (kind, text) = splat.split_once(": ").expect(splat);
            assert!(is_kind(kind) && !text.is_empty(), "{splat}");
            count += 1;
        }
        assert!(count > 0);
    }
}
