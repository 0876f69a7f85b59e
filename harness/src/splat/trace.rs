// SPDX-License-Identifier: MIT OR Apache-2.0
//! Call traces of splats, and what makes two splats the same.

use std::sync::LazyLock;

use regex::{Captures, Regex};
use sha2::{Digest as _, Sha256};

/// How many frames tell a splat from others.
const FRAMES: usize = 5;

/// Functions that stand in a trace because there is a report, or because a processor was interrupted, and
/// why each is passed over.
#[rustfmt::skip]
const MACHINERY: &[(&str, &str)] = &[
    (r"dump_stack(_lvl)?|dump_header|show_(stack|regs|trace_log_lvl)|sched_show_task", "prints the trace"),
    (r"panic|vpanic|check_panic_on_warn|__warn(_printk)?|warn_slowpath_(fmt|null)|report_bug|handle_bug|(__)?die(_body|_addr)?|oops_(begin|end)|page_fault_oops|fixup_\w+|(bad|kernelmode_fixup_or)_\w*(area|oops)\w*|do_(user|kern)_addr_fault|do_error_trap|do_trap\w*|(asm_)?exc_\w+", "a fault, or BUG() or WARN(), on its way to the report"),
    (r"print_(report|address_description)\w*|_*kasan_\w+|__asan_\w+|check_region_inline|_*kcsan_\w+|__tsan_\w+|kmsan_\w+|_*kfence_\w+|__ubsan_handle_\w+|ubsan_(epilogue|prologue)", "a checker of memory, not who it caught"),
    (r"print_\w*(bug|lock|usage|dependency|inversion)\w*|check_(noncircular|prev_add|irq_usage|wait_context|deadlock|usage_\w+)|validate_chain|_*lock_(acquire|release|acquired|contended)|mark_(lock|usage|lock_irq|held_locks)|lockdep_\w+|register_lock_class|debug_check_no_locks_\w+", "lockdep"),
    (r"__might_(resched|sleep|fault)|__schedule_bug|schedule_debug|check_preemption_disabled|debug_smp_processor_id|__this_cpu_preempt_check|rcu_sleep_check", "a check of the context"),
    (r"refcount_warn_saturate|__list_(add|del_entry)_valid(_or_report)?|bad_page|free_page_is_bad(_report)?|_*debug_(print_object|object_\w+)|__debug_check_no_obj_freed", "a check of an object's state"),
    (r"slab_(err|bug|fix|pad_check)|object_err|print_trailer|print_section|check_(bytes_and_report|object|slab|pad)|on_freelist|(free|alloc)_debug_processing|alloc_consistency_checks|free_consistency_checks", "the allocator's check of itself"),
    (r"warn_alloc|__alloc_pages_slowpath|(mem_cgroup_)?out_of_memory|oom_kill_process", "the allocator that has nothing to give"),
    (r"(__)?schedule(_\w+)?|preempt_schedule_\w+|io_schedule(_\w+)?", "how a task waits, not for what"),
    (r"watchdog_\w+|rcu_\w*stall\w*|rcu_dump_cpu_stacks|rcu_sched_clock_irq|update_process_times|tick_\w+|_*hrtimer_\w+|(asm_)?(_*sysvec|fred_sysvec|common_interrupt|exc_nmi)\w*|instr_sysvec\w+|nmi_\w+|default_do_nmi|end_repeat_nmi|trigger_\w+_backtrace|irq_exit_rcu|__irq_exit_rcu|asm_call_irq_on_stack", "an interrupt that came to look at what it interrupted"),
];

/// Behind these, a trace tells whom an interrupt happened to hit.
const BOTTOM: &[&str] = &["__do_softirq", "handle_softirqs", "do_softirq"];

static IS_MACHINERY: LazyLock<Regex> = LazyLock::new(|| {
    let all: Vec<&str> = MACHINERY.iter().map(|(pattern, _)| *pattern).collect();
    Regex::new(&format!("^(?:{})$", all.join("|"))).expect("the table's patterns are regular")
});

/// A line that ends with a symbol, as `netlink_poll+0x6b/0x180`.
static SYMBOL: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"^(?<before>(?:.*[\s:])?)(?<name>[A-Za-z_][\w.$]*)\+0x(?<offset>[0-9a-f]+)/0x(?<size>[0-9a-f]+)(?: \[[\w -]+\])?\s*$")
        .expect("regular")
});

/// What the compiler adds to the name of a part or a variant of a function.
static VARIANT: LazyLock<Regex> =
    LazyLock::new(|| Regex::new(r"\.(cold|part|isra|constprop|llvm)(\.\d+)*").expect("regular"));

/// A number, decimal or not; or a place, of which the line of a file stays as it is.
static NUMBER: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(
        r"(?<line>\.[chS]:\d+)|(?<place>\+0x[0-9a-f]+/0x[0-9a-f]+)|\b(?:0x)?[0-9a-f]*\d[0-9a-f]*\b|\d+",
    )
    .expect("regular")
});

/// A place in the kernel's code, as a splat names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Symbol<'a> {
    /// The function.
    pub function: &'a str,
    /// How far behind its beginning.
    pub offset: u64,
    /// How far its end is from there.
    pub size: u64,
    /// Whether that is the instruction meant; in a trace it is the one behind the call.
    pub is_exact: bool,
    /// What stands before it in the line.
    before: &'a str,
}

impl<'a> Symbol<'a> {
    /// The one at the end of `line`.
    #[must_use]
    pub fn at_end_of(line: &'a str) -> Option<Self> {
        let found = SYMBOL.captures(line)?;
        let part = |name| found.name(name).expect("part of every match").as_str();
        let number = |name| u64::from_str_radix(part(name), 16).ok();
        let before = part("before").trim();
        Some(Self {
            function: part("name"),
            offset: number("offset")?,
            size: number("size")?,
            is_exact: before.starts_with("RIP: ") || before.starts_with("WARNING: "),
            before,
        })
    }

    /// Whether it is a frame that the unwinder vouches for, or where the processor was.
    fn is_frame(&self) -> bool {
        self.before.is_empty()
            || self.before == "RIP: 0010:"
            || (self.before.starts_with("[<") && self.before.ends_with(">]"))
    }
}

/// What two reports of one fault have in common, whatever the run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fingerprint {
    /// The kind of splat.
    pub kind: &'static str,
    /// The functions of its first trace from the innermost on, five at most, without those that are there
    /// to report; of a splat without a trace, its headline without numbers.
    pub frames: Vec<String>,
}

impl Fingerprint {
    /// That of a splat of this kind with these lines, the headline first.
    pub(super) fn of(kind: &'static str, body: &[String]) -> Self {
        let mut frames = frames(body);
        if frames.is_empty() {
            frames.push(without_numbers(body.first().map_or("", |line| line.trim())));
        }
        Self { kind, frames }
    }

    /// Eight digits that are the same for the same, and for others are not.
    #[must_use]
    pub fn hash(&self) -> String {
        let text = format!("{}\n{}", self.kind, self.frames.join("\n"));
        let digest: [u8; 32] = Sha256::digest(text.as_bytes()).into();
        let [a, b, c, d, ..] = digest;
        format!("{:08x}", u32::from_be_bytes([a, b, c, d]))
    }
}

impl std::fmt::Display for Fingerprint {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let frames = self.frames.join(" < ");
        write!(formatter, "{} is {} in {frames}", self.hash(), self.kind)
    }
}

/// A headline without what may be another number in another run.
fn without_numbers(headline: &str) -> String {
    let word = |found: &Captures<'_>| match (found.name("line"), found.name("place")) {
        (Some(line), _) => line.as_str().to_owned(),
        (None, Some(_)) => String::new(),
        (None, None) => String::from("#"),
    };
    NUMBER.replace_all(headline, word).into_owned()
}

/// The frames that count of the first trace in these lines.
fn frames(body: &[String]) -> Vec<String> {
    let is_trace = |line: &String| line.contains("Call Trace:");
    let is_place =
        |line: &String| Symbol::at_end_of(line).is_some_and(|symbol| symbol.before == "RIP: 0010:");
    // Before it, lockdep tells how it came to know, and the allocator whose the object was. Where the
    // processor was stands in front of the trace, or in it. Of a data race neither side is the first.
    let begin = body
        .iter()
        .position(|line| is_trace(line) || is_place(line));
    let lines = begin.map_or(&[][..], |begin| &body[begin..]);
    let mut frames: Vec<String> = Vec::new();
    let mut has_begun = false;
    for line in lines {
        let text = line.trim();
        let is_end = text.is_empty()
            || text.starts_with("</")
            || text.starts_with("---[ end")
            || text.starts_with("Allocated by ")
            || text.starts_with("Freed by ")
            || (has_begun && is_trace(line));
        has_begun |= is_trace(line);
        // What interrupted only to report leaves no frame, and those that count come after it.
        if frames.len() == FRAMES || (is_end && has_begun && !frames.is_empty()) {
            break;
        }
        let Some(symbol) = Symbol::at_end_of(line).filter(Symbol::is_frame) else {
            continue;
        };
        let function = VARIANT.replace_all(symbol.function, "");
        if BOTTOM.contains(&&*function) && !frames.is_empty() {
            break;
        }
        // Where the processor was may be told twice, and how deep a function called itself is nobody's fault.
        let is_told = frames.last().is_some_and(|last| *last == function);
        if !is_told && !IS_MACHINERY.is_match(&function) {
            frames.push(function.into_owned());
        }
    }
    frames
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fingerprint(kind: &'static str, text: &str) -> Fingerprint {
        let body: Vec<String> = text.lines().map(str::to_owned).collect();
        Fingerprint::of(kind, &body)
    }

    const WARNING: &str = "\
WARNING: CPU: 0 PID: 9 at net/netlink/ring.c:7 ring_take+0x1/0x2
CPU: 0 PID: 9 Comm: nlring-guest Not tainted 6.1.1 #1
RIP: 0010:ring_take+0x1/0x2
Call Trace:
 <TASK>
 ? __warn+0x7d/0x130
 ? ring_take+0x1/0x2
 ring_poll.isra.0+0x10/0x40
 ? sock_poll+0x9/0x90
 sock_poll+0x50/0x90
 do_sys_poll+0x2a4/0x5d0
 __x64_sys_poll+0x30/0x130
 do_syscall_64+0x37/0x90
 </TASK>
RIP: 0033:0x7f0000000000
";

    #[test]
    fn a_fingerprint_is_the_kind_and_the_first_five_functions() {
        let found = fingerprint("warning", WARNING);
        let frames = [
            "ring_take",
            "ring_poll",
            "sock_poll",
            "do_sys_poll",
            "__x64_sys_poll",
        ];
        assert_eq!(found.frames, frames);
        let other_kind = fingerprint("kernel-bug", WARNING);
        assert_ne!(found.hash(), other_kind.hash());
        let other_place = fingerprint("warning", &WARNING.replace("ring_take", "ring_give"));
        assert_ne!(found.hash(), other_place.hash());
    }

    #[test]
    fn it_is_the_same_wherever_the_code_lies_and_whoever_runs_it() {
        let other = WARNING
            .replace("+0x10/0x40", "+0x30/0x80")
            .replace("PID: 9", "PID: 88")
            .replace("CPU: 0", "CPU: 1")
            .replace(".isra.0", ".constprop.0.isra.7")
            .replace(" ? sock_poll+0x9/0x90\n", "");
        let [one, two] = [WARNING, &other].map(|text| fingerprint("warning", text));
        assert_eq!(one, two);
        assert_eq!(one.hash(), two.hash());
        assert_eq!(one.hash().len(), 8);
    }

    #[test]
    fn who_came_to_look_does_not_count_and_who_was_found_does() {
        let stall = "\
rcu: INFO: rcu_preempt self-detected stall on CPU
Call Trace:
 <IRQ>
 dump_stack_lvl+0x34/0x48
 nmi_cpu_backtrace.cold+0x1e/0x89
 rcu_sched_clock_irq.cold+0x45/0x21f
 update_process_times+0x56/0x90
 </IRQ>
 <TASK>
 asm_sysvec_apic_timer_interrupt+0x16/0x20
RIP: 0010:ring_walk+0x1d/0x60
 ring_send+0x1/0x20
 </TASK>
";
        assert_eq!(
            fingerprint("rcu-stall", stall).frames,
            ["ring_walk", "ring_send"]
        );
    }

    #[test]
    fn whom_an_interrupt_hit_does_not_count() {
        let in_softirq = "\
WARNING: CPU: 0 PID: 0 at net/core/dev.c:7 rx+0x1/0x2
RIP: 0010:rx+0x1/0x2
Call Trace:
 <IRQ>
 poll+0x1/0x2
 __do_softirq+0xb5/0x2a0
 irq_exit_rcu+0x1/0x2
 </IRQ>
 <TASK>
 asm_sysvec_apic_timer_interrupt+0x16/0x20
RIP: 0010:whatever+0x1/0x2
 </TASK>
";
        assert_eq!(fingerprint("warning", in_softirq).frames, ["rx", "poll"]);
    }

    #[test]
    fn a_splat_without_a_trace_is_told_by_its_words() {
        let [one, two, three] = [
            "BUG: Bad page state in f+0x1/0x2, process far0  pfn:05c1f",
            "BUG: Bad page state in f+0x3/0x4, process far1  pfn:1ade0",
            "BUG: Bad page state in g+0x1/0x2, process far0  pfn:05c1f",
        ]
        .map(|text| fingerprint("page-state", text));
        assert_eq!(one, two);
        assert_ne!(one.hash(), three.hash());
        let [one, other] = ["a.c:7", "a.c:8"].map(|place| {
            let text = format!("kernel BUG at net/{place}!");
            fingerprint("kernel-bug", &text)
        });
        assert_ne!(one, other);
    }

    #[test]
    fn a_symbol_is_told_from_its_line() {
        let at = |line| Symbol::at_end_of(line).map(|symbol| (symbol.function, symbol.offset));
        assert_eq!(at(" netlink_poll+0x6b/0x180"), Some(("netlink_poll", 0x6b)));
        assert_eq!(at("RIP: 0010:f.cold+0x1/0x2"), Some(("f.cold", 1)));
        assert_eq!(at(" f+0x1/0x2 [lkdtm]"), Some(("f", 1)));
        assert_eq!(
            at("BUG: KASAN: use-after-free in f+0x1/0x2"),
            Some(("f", 1))
        );
        assert_eq!(
            at("(&mm->mmap_lock){++++}-{3:3}, at: f+0x1/0x2"),
            Some(("f", 1))
        );
        for line in [
            "RIP: 0033:0x7f61",
            "f+1",
            "f+0x1/0x2 age=3 cpu=1 pid=90",
            "",
        ] {
            assert_eq!(at(line), None, "{line}");
        }
    }

    #[test]
    fn every_function_that_is_passed_over_is_so_for_a_reason() {
        for (pattern, reason) in MACHINERY {
            let alone = Regex::new(&format!("^(?:{pattern})$")).unwrap();
            assert!(!reason.is_empty() && !alone.is_match(""), "{pattern}");
            assert!(!alone.is_match("netlink_sendmsg"), "{pattern}");
        }
    }
}
