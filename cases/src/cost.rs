// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel does for a message, counted by ftrace's function profiler.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use nix::mount::{MsFlags, mount};
use nlring::{Flags, Geometry, Receiver};

use crate::{Case, Setting, Unmet, case, peers};

pub(crate) const CASES: &[Case] = &[case!(
    Cost,
    a_message_in_a_frame_costs_one_copy_and_no_allocation_more
)
.proves("rx-copied-once")];

const MESSAGES: u32 = 1000;

/// What copies a message out of its buffer: into a frame, and to a program.
const TO_FRAME: &str = "skb_copy_bits";
const TO_PROGRAM: &str = "skb_copy_datagram_iter";

/// What allocates, by the names it has on one base or another.
const ALLOCATIONS: [&str; 8] = [
    "__alloc_skb",
    "__alloc_pages",
    "__alloc_pages_noprof",
    "__kmalloc_node_track_caller",
    "__kmalloc_node_track_caller_noprof",
    "kmem_cache_alloc",
    "kmem_cache_alloc_node",
    "kmem_cache_alloc_node_noprof",
];

/// How often each function was called.
type Calls = BTreeMap<String, u64>;

/// Counts calls in the kernel.
struct Profiler {
    tracing: PathBuf,
}

impl Profiler {
    /// For these functions; those that the kernel does not have are never called.
    ///
    /// # Errors
    /// [`Unmet`] if the kernel has no function profiler.
    fn open(functions: &[&str]) -> anyhow::Result<Self> {
        let tracing = PathBuf::from("/sys/kernel/tracing");
        let mounted = mount(
            Some("tracefs"),
            &tracing,
            Some("tracefs"),
            MsFlags::empty(),
            None::<&str>,
        );
        if mounted.is_err() || !tracing.join("function_profile_enabled").exists() {
            bail!(Unmet(
                "a kernel with CONFIG_FUNCTION_PROFILER, such as 6.1-trace".into()
            ));
        }
        let known = read(&tracing.join("available_filter_functions"))?;
        let known: Vec<&str> = known
            .lines()
            .filter_map(|line| line.split_whitespace().next())
            .filter(|name| functions.contains(name))
            .collect();
        let profiler = Self { tracing };
        profiler.set("set_ftrace_filter", &known.join("\n"))?;
        Ok(profiler)
    }

    fn set(&self, file: &str, value: &str) -> anyhow::Result<()> {
        let path = self.tracing.join(file);
        fs::write(&path, value).with_context(|| format!("cannot write {}", path.display()))
    }

    /// The calls during `work`, by whoever.
    fn count(&self, work: impl FnOnce() -> anyhow::Result<()>) -> anyhow::Result<Calls> {
        self.set("function_profile_enabled", "1")?;
        let worked = work();
        self.set("function_profile_enabled", "0")?;
        worked?;
        let mut calls = Calls::new();
        for entry in fs::read_dir(self.tracing.join("trace_stat"))? {
            for line in read(&entry?.path())?.lines() {
                let mut words = line.split_whitespace();
                if let (Some(name), Some(Ok(hits))) =
                    (words.next(), words.next().map(str::parse::<u64>))
                {
                    *calls.entry(name.to_owned()).or_default() += hits;
                }
            }
        }
        Ok(calls)
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))
}

/// Why rings exist: the copy into the frame takes the place of the one to the program, and nothing
/// is allocated that a message to a socket without a ring does not need too.
fn a_message_in_a_frame_costs_one_copy_and_no_allocation_more(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let profiler = Profiler::open(&[&ALLOCATIONS[..], &[TO_FRAME, TO_PROGRAM]].concat())?;
    let geometry = Geometry::from_request(4096, 16, 2048, 32)?;
    let content = peers::content(1, 1000);
    let (sender, _) = peers::open()?;
    let deliver = |receiver: &mut Receiver, port: u32| {
        for _ in 0..MESSAGES {
            peers::send_to(&sender, port, &content)?;
            let received = receiver.receive()?.context("a message is missing")?;
            ensure!(
                received.message() == Some(&content[..]),
                "other bytes arrive"
            );
        }
        anyhow::Ok(())
    };

    let (socket, port) = peers::open()?;
    let mut plain = socket.plain();
    deliver(&mut plain, port)?;
    let by_socket = profiler.count(|| deliver(&mut plain, port))?;
    for flags in [Flags::NONE, Flags::ORDERED] {
        let (socket, port) = peers::open()?;
        let mut ringed = socket.rx_ring(geometry, flags)?;
        deliver(&mut ringed, port)?;
        let by_ring = profiler.count(|| deliver(&mut ringed, port))?;
        assert_cheap(&by_socket, &by_ring)?;
        setting.note(format!("{MESSAGES} messages by socket: {by_socket:?}"));
        setting.note(format!("{MESSAGES} messages by {flags:?}: {by_ring:?}"));
    }
    Ok(())
}

fn assert_cheap(by_socket: &Calls, by_ring: &Calls) -> anyhow::Result<()> {
    let messages = u64::from(MESSAGES);
    // Others in the system allocate too, a little.
    let noise = messages / 20;
    let calls = |of: &Calls, name: &str| of.get(name).copied().unwrap_or(0);
    for (of, name, wanted) in [
        (by_socket, TO_PROGRAM, messages),
        (by_socket, TO_FRAME, 0),
        (by_ring, TO_FRAME, messages),
        (by_ring, TO_PROGRAM, 0),
    ] {
        let found = calls(of, name);
        ensure!(
            found.abs_diff(wanted) < noise,
            "{found} calls of {name}, not {wanted}"
        );
    }
    ensure!(
        calls(by_socket, "__alloc_skb") >= messages,
        "the profiler sees no message buffer allocated"
    );
    for name in ALLOCATIONS {
        let (socket, ring) = (calls(by_socket, name), calls(by_ring, name));
        ensure!(
            ring < socket + noise,
            "{ring} calls of {name} for a ring, {socket} for a socket"
        );
    }
    Ok(())
}
