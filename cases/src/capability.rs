// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `limits`: who may have a ring, and as whom senders appear in it.

use std::fs;

use anyhow::ensure;
use libc::EPERM;
use nix::sched::{CloneFlags, unshare};
use nix::unistd::{Gid, Uid, setgid, setgroups, setuid};
use nlring::{Flags, Geometry, Socket};

use crate::delivery::assert_holds;
use crate::frames::{Field, Frames};
use crate::message::noop;
use crate::option::{NETLINK_RX_RING, RINGS, assert_refused, request_for, set, tear_down};
use crate::{Case, Setting, case, child, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Limits, root_of_ones_own_namespaces_may_have_rings_there)
        .proves("setup-capability-there"),
    case!(Limits, a_socket_keeps_to_the_namespace_it_is_of).proves("setup-capability"),
    case!(
        Limits,
        senders_appear_in_the_user_namespace_of_the_rings_owner
    )
    .proves("rx-uid-gid rx-uid-gid-translated rx-uid-gid-pinned"),
];

/// Somebody without any right.
const NOBODY: u32 = 65534;

fn shape() -> anyhow::Result<Geometry> {
    Ok(Geometry::from_request(4096, 4, 2048, 8)?)
}

/// Becomes nobody, and then root of a new user namespace, in which nobody is root.
fn become_root_of_own_namespace(flags: CloneFlags) -> anyhow::Result<()> {
    setgroups(&[])?;
    setgid(Gid::from_raw(NOBODY))?;
    setuid(Uid::from_raw(NOBODY))?;
    // A process that changed its user may not write to its own /proc, until it is told that it may.
    nix::sys::prctl::set_dumpable(true)?;
    unshare(CloneFlags::CLONE_NEWUSER | flags)?;
    fs::write("/proc/self/setgroups", "deny")?;
    fs::write("/proc/self/uid_map", format!("0 {NOBODY} 1"))?;
    fs::write("/proc/self/gid_map", format!("0 {NOBODY} 1"))?;
    Ok(())
}

/// Both rings are refused for want of rights, whatever is asked.
fn assert_not_permitted(socket: &Socket) -> anyhow::Result<()> {
    for (name, ring) in RINGS {
        for bytes in [request_for(&shape()?, Flags::NONE), tear_down(), vec![0]] {
            assert_refused(name, set(socket, ring, &bytes), EPERM)?;
        }
    }
    Ok(())
}

/// Contract, "Setting a ring up", 1: `CAP_NET_ADMIN` is wanted in the user namespace that owns the
/// socket's network namespace: so root of an unprivileged user's own namespaces has it there.
fn root_of_ones_own_namespaces_may_have_rings_there(setting: &mut Setting) -> anyhow::Result<()> {
    child::run(|| {
        become_root_of_own_namespace(CloneFlags::CLONE_NEWNET)?;
        let geometry = shape()?;
        let socket = Socket::open(libc::NETLINK_ROUTE)?;
        socket.set_up_rx_ring(&geometry, Flags::NONE)?;
        socket.set_up_tx_ring(&geometry)?;
        let [frames, requests] = Frames::map_all(&socket, [geometry, geometry])?;
        requests.submit(0, &noop(1));
        let sent = crate::flush::flush(&socket)?;
        ensure!(sent == 16, "{sent} bytes were sent");
        let len = frames.get(0, Field::Len) as usize;
        ensure!(len == crate::answers::ANSWER, "an answer of {len} bytes");
        Ok(())
    })?;
    setting.note("both rings set up, mapped and used by an unprivileged user");
    Ok(())
}

/// Contract, "Setting a ring up", 1: the namespace that counts is the socket's, not the caller's:
/// root of another user namespace has no say over a socket of ours, nor over one that it opens
/// where it does not own the network; and asking is free.
fn a_socket_keeps_to_the_namespace_it_is_of(setting: &mut Setting) -> anyhow::Result<()> {
    let geometry = shape()?;
    let ours = Socket::open(libc::NETLINK_ROUTE)?;
    let ringed = Socket::open(libc::NETLINK_ROUTE)?;
    ringed.set_up_rx_ring(&geometry, Flags::NONE)?;
    child::run(|| {
        become_root_of_own_namespace(CloneFlags::CLONE_NEWNET)?;
        assert_not_permitted(&ours)?;
        assert_not_permitted(&ringed)?;
        let told = ringed.rx_ring_request()?.map(|request| request.frame_nr);
        ensure!(told == Some(8), "asking for the ring tells {told:?}");
        // Who was handed a socket with a ring may map it: that right came with the descriptor.
        drop(Frames::map(&ringed, geometry)?);
        Ok(())
    })?;
    child::run(|| {
        become_root_of_own_namespace(CloneFlags::empty())?;
        assert_not_permitted(&Socket::open(libc::NETLINK_ROUTE)?)
    })?;
    let before = option_of(&ours)?;
    ensure!(before == tear_down(), "a ring came into being: {before:?}");
    setting.note("EPERM for a handed-over socket and in a network of another's");
    Ok(())
}

fn option_of(socket: &Socket) -> std::io::Result<Vec<u8>> {
    crate::option::get(socket, NETLINK_RX_RING, 16)
}

/// Contract, "RX": `nm_uid` and `nm_gid` are translated into the user namespace of whoever set the
/// ring up, pinned at that moment, whoever reads.
fn senders_appear_in_the_user_namespace_of_the_rings_owner(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    /// What somebody without a number in a namespace appears as.
    const OVERFLOW: u32 = 65534;
    let ids =
        |frames: &Frames, frame| [Field::Uid, Field::Gid].map(|field| frames.get(frame, field));
    child::run(|| {
        become_root_of_own_namespace(CloneFlags::CLONE_NEWNET)?;
        let geometry = shape()?;
        let (socket, port) = peers::open()?;
        socket.set_up_rx_ring(&geometry, Flags::NONE)?;
        let frames = Frames::map(&socket, geometry)?;
        let (sender, _) = peers::open()?;
        peers::send_to(&sender, port, b"of ourselves")?;
        assert_holds(&frames, 0, b"of ourselves")?;
        ensure!(ids(&frames, 0) == [0, 0], "we are {:?}", ids(&frames, 0));

        let route = Socket::open(libc::NETLINK_ROUTE)?;
        route.set_up_rx_ring(&geometry, Flags::NONE)?;
        let answers = Frames::map(&route, geometry)?;
        route.send(&noop(1))?;
        let kernel = ids(&answers, 0);
        ensure!(
            kernel == [OVERFLOW, OVERFLOW] && answers.get(0, Field::Pid) == 0,
            "the kernel, which is root of another namespace, is {kernel:?}"
        );
        Ok(())
    })?;

    // A ring of ours, to which a sender in another namespace has found its way.
    let geometry = shape()?;
    let (socket, port) = peers::open()?;
    socket.set_up_rx_ring(&geometry, Flags::NONE)?;
    let frames = Frames::map(&socket, geometry)?;
    let (sender, _) = peers::open()?;
    child::run(|| {
        become_root_of_own_namespace(CloneFlags::empty())?;
        peers::send_to(&sender, port, b"of root elsewhere")?;
        assert_holds(&frames, 0, b"of root elsewhere")?;
        Ok(())
    })?;
    let found = ids(&frames, 0);
    ensure!(
        found == [NOBODY, NOBODY],
        "root elsewhere is {found:?} here"
    );
    setting.note("0 for oneself, 65534 for who has no number, nobody for root elsewhere");
    Ok(())
}
