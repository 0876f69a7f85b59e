// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `multicast`: rings that were asked for with `NL_MMAP_RING_MULTICAST`, so that
//! their sockets may be in groups.

use std::time::{Duration, Instant};

use anyhow::ensure;
use libc::{EAGAIN, ENOBUFS, EOPNOTSUPP};
use nix::sys::socket::MsgFlags;
use nlring::{Flags, Geometry, Socket, Status};

use crate::counters::socket_drops;
use crate::delivery::assert_holds;
use crate::frames::{Field, Frames};
use crate::groups::{self, LINK_GROUP};
use crate::ip::ip;
use crate::option::{NETLINK_LISTEN_ALL_NSID, NETLINK_RX_RING, assert_refused, request_for, set};
use crate::{Case, Setting, case, peers, ready};

pub(crate) const CASES: &[Case] = &[
    case!(Multicast, a_ring_that_was_asked_for_with_groups_may_join)
        .proves("multicast-member multicast-opt-in multicast-group"),
    case!(Multicast, each_listener_has_its_own_copy_in_its_own_ring)
        .proves("rx-copy multicast-own-copy"),
    case!(Multicast, a_stalled_listener_loses_only_its_own).proves(
        "rx-full rx-full-resumes rx-untrusted-others multicast-loss multicast-nobody-waits",
    ),
    case!(Multicast, the_kernels_events_reach_rings_and_sockets_alike)
        .proves("rx-every-family multicast-opt-in multicast-own-copy multicast-group"),
    case!(Fallback, a_message_that_names_its_namespace_comes_by_copy)
        .proves("rx-copy-length rx-nsid"),
];

/// The group of `NETLINK_USERSOCK` that is spoken to here.
pub(crate) const GROUP: u32 = 3;

/// A ringed member of the group.
fn listener(geometry: Geometry) -> anyhow::Result<(Socket, Frames)> {
    let (socket, _) = peers::open()?;
    socket.set_up_rx_ring(&geometry, Flags::MULTICAST)?;
    let frames = Frames::map(&socket, geometry)?;
    groups::join(&socket, GROUP)?;
    Ok((socket, frames))
}

/// Speaks to the group. The kernel's own end of this family takes nothing, which is told when all
/// others have theirs.
pub(crate) fn speak(socket: &Socket, content: &[u8]) -> anyhow::Result<()> {
    let sent = peers::send_by(socket, 0, 1 << (GROUP - 1), content, MsgFlags::empty());
    assert_refused("speaking to the kernel", sent, libc::ECONNREFUSED)
}

/// Contract, "Multicast": with `NL_MMAP_RING_MULTICAST` a ringed socket may join, by `bind` and by
/// `setsockopt`, and a member may have such a ring, and no other.
fn a_ring_that_was_asked_for_with_groups_may_join(setting: &mut Setting) -> anyhow::Result<()> {
    let geometry = Geometry::from_request(4096, 2, 1024, 8)?;
    let (speaker, _) = peers::open()?;
    let joined = listener(geometry)?;
    let bound = {
        let socket = Socket::open(libc::NETLINK_USERSOCK)?;
        socket.set_up_rx_ring(&geometry, Flags::MULTICAST | Flags::ORDERED)?;
        let frames = Frames::map(&socket, geometry)?;
        groups::bind(&socket, 1 << (GROUP - 1))?;
        (socket, frames)
    };
    let member = {
        let (socket, _) = peers::open()?;
        groups::join(&socket, GROUP)?;
        for flags in [Flags::NONE, Flags::ORDERED] {
            let refused = set(&socket, NETLINK_RX_RING, &request_for(&geometry, flags));
            assert_refused("a ring without groups on a member", refused, EOPNOTSUPP)?;
        }
        socket.set_up_rx_ring(&geometry, Flags::MULTICAST)?;
        let frames = Frames::map(&socket, geometry)?;
        (socket, frames)
    };
    for number in 0..20 {
        let content = peers::content(number, 500);
        speak(&speaker, &content)?;
        for (_, frames) in [&joined, &bound, &member] {
            let frame = number % 8;
            assert_holds(frames, frame, &content)?;
            let group = frames.get(frame, Field::Group);
            ensure!(group == GROUP, "the frame is of group {group}");
            frames.set_status(frame, Status::Unused);
        }
    }
    // Who leaves hears no more; a unicast has no group.
    let (socket, frames) = joined;
    groups::leave(&socket, GROUP)?;
    speak(&speaker, b"to the others")?;
    let (port, _) = groups::address(&socket)?;
    peers::send_to(&speaker, port, b"to you")?;
    assert_holds(&frames, 20 % 8, b"to you")?;
    ensure!(
        frames.get(20 % 8, Field::Group) == 0,
        "a unicast has a group"
    );
    setting.note("joined by setsockopt and by bind, ringed as a member; all hear the same");
    Ok(())
}

/// Contract, "Multicast": each listener gets its own copy in its own ring: what one writes to its
/// frame, no other sees; and each has its own idea of what fits.
fn each_listener_has_its_own_copy_in_its_own_ring(setting: &mut Setting) -> anyhow::Result<()> {
    const LISTENERS: usize = 3;
    let (speaker, _) = peers::open()?;
    let (plain, _) = peers::open()?;
    groups::join(&plain, GROUP)?;
    let wide: Vec<_> = (0..LISTENERS)
        .map(|_| listener(Geometry::from_request(4096, 2, 1024, 8)?))
        .collect::<anyhow::Result<_>>()?;
    let (narrow, narrow_frames) = listener(Geometry::from_request(4096, 1, 512, 8)?)?;
    for number in 0..40 {
        let content = peers::content(number, 800);
        speak(&speaker, &content)?;
        let frame = number % 8;
        for (_, frames) in &wide {
            assert_holds(frames, frame, &content)?;
            frames.write(frame, &[0; 800]);
            frames.set_status(frame, Status::Unused);
        }
        ensure!(
            peers::receive(&plain)? == content,
            "the plain listener's is garbled"
        );
        ensure!(
            narrow_frames.status(frame) == Some(Status::Copy),
            "800 bytes are {:?} in a frame of 512",
            narrow_frames.status(frame)
        );
        ensure!(
            peers::receive(&narrow)? == content,
            "the copied one is garbled"
        );
        narrow_frames.set_status(frame, Status::Unused);
    }
    setting.note(format!(
        "40 messages, {LISTENERS} in frames, one by COPY, one plain"
    ));
    Ok(())
}

/// Contract, "Multicast": a listener whose ring is full loses that message for itself (`ENOBUFS`),
/// and neither the sender nor any other listener waits.
fn a_stalled_listener_loses_only_its_own(setting: &mut Setting) -> anyhow::Result<()> {
    const MESSAGES: u32 = 100;
    let patience = setting.patiently(Duration::from_secs(1));
    let (speaker, _) = peers::open()?;
    // One that is asked before the other, and one behind it.
    let awake = || listener(Geometry::from_request(4096, 2, 1024, 8)?);
    let one = awake()?;
    let (stalled, kept) = listener(Geometry::from_request(4096, 1, 2048, 2)?)?;
    let another = awake()?;
    let begun = Instant::now();
    for number in 0..MESSAGES {
        let content = peers::content(number, 900);
        speak(&speaker, &content)?;
        for (_, frames) in [&one, &another] {
            assert_holds(frames, number % 8, &content)?;
            frames.set_status(number % 8, Status::Unused);
        }
    }
    let taken = begun.elapsed();
    ensure!(taken < patience, "{MESSAGES} messages take {taken:?}");
    let (port, _) = groups::address(&stalled)?;
    let drops = socket_drops(libc::NETLINK_USERSOCK, port)?;
    ensure!(drops == MESSAGES - 2, "{drops} drops are counted");
    assert_refused("the loss", peers::receive(&stalled), ENOBUFS)?;
    assert_refused("what is behind it", peers::receive(&stalled), EAGAIN)?;
    for frame in [0, 1] {
        assert_holds(&kept, frame, &peers::content(frame, 900))?;
        kept.set_status(frame, Status::Unused);
    }
    speak(&speaker, b"awake again")?;
    assert_holds(&kept, 0, b"awake again")?;
    setting.note(format!(
        "{MESSAGES} heard by two, 2 by the other, whose {drops} are counted and told once"
    ));
    Ok(())
}

/// Contract, "Multicast": what the kernel itself says to a group comes into rings as it comes to
/// sockets, byte for byte.
fn the_kernels_events_reach_rings_and_sockets_alike(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let open = || {
        let socket = Socket::open(libc::NETLINK_ROUTE)?;
        groups::bind(&socket, 0)?;
        anyhow::Ok(socket)
    };
    let plain = open()?;
    groups::join(&plain, LINK_GROUP)?;
    let geometry = Geometry::for_messages(4000, 32)?;
    let ringed = open()?;
    ringed.set_up_rx_ring(&geometry, Flags::MULTICAST)?;
    groups::join(&ringed, LINK_GROUP)?;
    let frames = Frames::map(&ringed, geometry)?;
    groups::cause_link_events("heard4")?;
    let mut events = 0;
    while let Ok(event) = peers::receive(&plain) {
        assert_holds(&frames, events, &event)?;
        let group = frames.get(events, Field::Group);
        ensure!(group == LINK_GROUP, "event {events} is of group {group}");
        events += 1;
    }
    ensure!(events >= 2, "{events} events of a link that came and went");
    ensure!(
        frames.status(events) == Some(Status::Unused),
        "the ring has more than the socket"
    );
    frames.set_statuses(Status::Unused);
    drop(frames);
    let mut receiver = {
        ringed.tear_down_rx_ring()?;
        ringed.rx_ring(geometry, Flags::MULTICAST | Flags::ORDERED)?
    };
    groups::cause_link_events("heard5")?;
    groups::assert_hears_of(&mut receiver, "heard5", patience)?;
    setting.note(format!(
        "{events} events, the same in the ring and in the socket"
    ));
    Ok(())
}

/// Contract, "RX": messages that carry a namespace id for `NETLINK_LISTEN_ALL_NSID` come by `COPY`
/// always, because a frame cannot say it; those without come in frames as ever.
fn a_message_that_names_its_namespace_comes_by_copy(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let geometry = Geometry::for_messages(8000, 32)?;
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    groups::bind(&socket, 0)?;
    set(&socket, NETLINK_LISTEN_ALL_NSID, &1_i32.to_ne_bytes())?;
    socket.set_up_rx_ring(&geometry, Flags::MULTICAST)?;
    groups::join(&socket, LINK_GROUP)?;
    let frames = Frames::map(&socket, geometry)?;
    groups::cause_link_events("heard6")?;
    ensure!(
        frames.status(0) == Some(Status::Valid),
        "an event of our own namespace is {:?}",
        frames.status(0)
    );
    let own =
        (0..geometry.frame_nr()).take_while(|&frame| frames.status(frame) != Some(Status::Unused));
    let first = own.count() as u32;
    frames.set_statuses(Status::Unused);

    let _other = Other::make()?;
    let told = ready::events(&socket, patience)?;
    ensure!(told & libc::POLLIN != 0, "nothing is heard of the other");
    let mut copied = 0;
    let frame = |number: u32| (first + number) % geometry.frame_nr();
    while frames.status(frame(copied)) == Some(Status::Copy) {
        let event = peers::receive(&socket)?;
        let len = frames.get(frame(copied), Field::Len) as usize;
        ensure!(
            event.len() == len,
            "{} bytes for a frame of {len}",
            event.len()
        );
        copied += 1;
    }
    ensure!(
        copied > 0 && frames.status(frame(copied)) == Some(Status::Unused),
        "{copied} by COPY, then {:?}",
        frames.status(frame(copied))
    );
    peers::assert_nothing_queued(&socket)?;
    setting.note(format!(
        "{first} of here in frames, {copied} of the other by COPY"
    ));
    Ok(())
}

/// A namespace named `other`, which ours knows by the id 7, with a link in it; gone with this value.
struct Other(());

impl Other {
    fn make() -> anyhow::Result<Self> {
        ip("netns add other")?;
        let other = Self(());
        ip("netns set other 7")?;
        ip("-n other link add there0 type dummy")?;
        Ok(other)
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        // If it stays, the agent tells.
        let _ = ip("netns delete other");
    }
}
