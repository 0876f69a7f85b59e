// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `limits`: whose memory a ring is, and what happens where there is none.

use std::time::Duration;

use anyhow::ensure;
use nlring::{Flags, Geometry, Request, Socket};

use crate::cgroup::Cgroup;
use crate::option::{NETLINK_RX_RING, RINGS, assert_refused, request, request_for, set};
use crate::{Case, Setting, answers, case};

pub(crate) const CASES: &[Case] = &[
    case!(Limits, a_ring_larger_than_memory_is_refused_and_nobody_dies)
        .proves("setup-no-memory setup-no-oom-kill")
        .within(10),
    case!(Limits, ring_memory_is_charged_to_whoever_asked)
        .proves("setup-charged setup-down-frees mapping-end"),
    case!(
        Limits,
        a_ring_beyond_the_cgroups_limit_is_refused_and_nobody_dies
    )
    .proves("setup-charged setup-no-memory setup-no-oom-kill"),
];

/// Contract, "Setting a ring up", 6: memory that cannot be had is `ENOMEM`, be it of pages, of more
/// than an address space, or of the kernel's own record of frames; no OOM kill (the kernel log is
/// looked at for one); the socket is as it was.
fn a_ring_larger_than_memory_is_refused_and_nobody_dies(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let (mebi, gibi) = (1 << 20, 1 << 30);
    let too_large = [
        ("4 GiB in pages", [4096, 1 << 20, 4096, 1 << 20]),
        ("4 GiB in blocks of 1 MiB", [mebi, 4096, 4096, 1 << 20]),
        ("64 GiB in blocks of 1 GiB", [gibi, 64, gibi, 64]),
        (
            "one block just below 2 GiB",
            [i32::MAX as u32 & !4095, 1, 4096, 0x7ffff],
        ),
        (
            "frames without number",
            [4096, 25_000_000, 24, 4_250_000_000],
        ),
        ("blocks without number", [4096, u32::MAX, 4096, u32::MAX]),
    ];
    let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
    for (what, words) in too_large {
        for (name, ring) in RINGS {
            let refused = set(&socket, ring, &request(&words));
            assert_refused(&format!("{name} of {what}"), refused, libc::ENOMEM)?;
        }
        let none = Some(Request::default());
        ensure!(socket.rx_ring_request()? == none && socket.tx_ring_request()? == none);
        let mut plain = socket.plain();
        answers::assert_works(&mut plain, patience)?;
        socket = plain.into_socket();
    }
    let mut ringed = socket.rx_ring(Geometry::for_messages(2000, 64)?, Flags::NONE)?;
    answers::assert_works(&mut ringed, patience)?;
    setting.note(format!(
        "ENOMEM for {} shapes of both rings",
        too_large.len()
    ));
    Ok(())
}

/// Contract, "Setting a ring up", 1: ring memory is charged to the caller's memory cgroup, all of
/// it, and given back with the ring, by tear-down and by the end of the process.
fn ring_memory_is_charged_to_whoever_asked(setting: &mut Setting) -> anyhow::Result<()> {
    const BLOCKS: u32 = 64;
    const SLACK: u64 = 256 * 1024;
    let patience = setting.patiently(Duration::from_secs(2));
    // One kind of block each: compound pages, and others.
    for (name, block_size) in [("pages", 64 * 1024), ("others", 60 * 1024)] {
        let geometry = Geometry::new(block_size, BLOCKS, 2048)?;
        let bytes = geometry.mapping_len() as u64;
        let group = Cgroup::make(name, None)?;
        group.run(|| {
            let before = group.charged()?;
            let socket = Socket::open(libc::NETLINK_NETFILTER)?;
            for (rings, (_, ring)) in (1..).zip(RINGS) {
                set(&socket, ring, &request_for(&geometry, Flags::NONE)[..16])?;
                let charged = group.charged()? - before;
                ensure!(
                    (rings * bytes..rings * bytes + rings * bytes / 8 + SLACK).contains(&charged),
                    "{charged} bytes are charged for {rings} rings of {bytes}"
                );
            }
            socket.tear_down_tx_ring()?;
            group.await_at_most(before + bytes + bytes / 8 + SLACK, patience)?;
            Ok(())
        })?;
        let left = group.await_at_most(SLACK, patience)?;
        setting.note(format!(
            "{bytes} bytes each in {name}, {left} left at the end"
        ));
    }
    Ok(())
}

/// Contract, "Setting a ring up", 1 and 6: where the cgroup may not have so much, `ENOMEM`, and no
/// process dies over it; what fits can still be had.
fn a_ring_beyond_the_cgroups_limit_is_refused_and_nobody_dies(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    const LIMIT: u64 = 8 << 20;
    let patience = setting.patiently(Duration::from_secs(2));
    let group = Cgroup::make("narrow", Some(LIMIT))?;
    group.run(|| {
        let socket = Socket::open(libc::NETLINK_NETFILTER)?;
        for block_size in [4096, 60 * 1024, 64 * 1024, 1 << 20] {
            let blocks = (2 * LIMIT / u64::from(block_size)) as u32;
            let large = Geometry::new(block_size, blocks, 2048)?;
            for (name, ring) in RINGS {
                let refused = set(&socket, ring, &request_for(&large, Flags::NONE)[..16]);
                assert_refused(
                    &format!("{name} in blocks of {block_size}"),
                    refused,
                    libc::ENOMEM,
                )?;
            }
        }
        group.await_at_most(LIMIT / 4, patience)?;
        let small = Geometry::new(64 * 1024, 16, 2048)?;
        set(&socket, NETLINK_RX_RING, &request_for(&small, Flags::NONE))?;
        Ok(())
    })?;
    let killed = group.events("oom_kill")?;
    ensure!(killed == 0, "{killed} processes were killed");
    let hits = group.events("max")?;
    ensure!(hits > 0, "the limit was never met");
    setting.note(format!(
        "ENOMEM for 4 kinds of blocks, the limit met {hits} times"
    ));
    Ok(())
}
