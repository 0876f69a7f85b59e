// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `multicast`: a ringed socket and a multicast group exclude each other.

use std::time::Duration;

use anyhow::ensure;
use nlring::{Flags, Geometry, Socket};

use crate::groups::{self, LINK_GROUP};
use crate::option::assert_refused;
use crate::{Case, Setting, answers, case};

pub(crate) const CASES: &[Case] = &[
    case!(Multicast, joining_a_group_with_a_ring_is_refused).proves(
        "multicast-bind multicast-membership multicast-callback multicast-untouched \
         multicast-others multicast-before-autobind",
    ),
    case!(Multicast, a_ring_on_a_group_member_is_refused)
        .proves("multicast-member multicast-untouched multicast-again"),
    case!(Multicast, a_torn_down_ring_lets_the_socket_join)
        .proves("multicast-membership multicast-member multicast-again"),
    case!(
        Multicast,
        a_ring_does_not_change_what_else_is_wrong_with_a_join
    )
    .proves("multicast-einval-first"),
];

fn geometry() -> anyhow::Result<Geometry> {
    Ok(Geometry::for_messages(4000, 16)?)
}

/// A socket in the link group. It is bound first: one without a port id does not hear what the
/// kernel itself says, for that has no port id either.
fn member() -> anyhow::Result<Socket> {
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    groups::bind(&socket, 0)?;
    groups::join(&socket, LINK_GROUP)?;
    Ok(socket)
}

/// Contract, "Multicast": by default a socket is either ringed or in a group, never both. Both ways
/// of joining are refused, the socket stays as it was and works, and other listeners of the group
/// are not affected.
fn joining_a_group_with_a_ring_is_refused(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let families = [
        libc::NETLINK_ROUTE,
        libc::NETLINK_NETFILTER,
        libc::NETLINK_GENERIC,
    ];
    for family in families {
        let mut ringed = Socket::open(family)?.rx_ring(geometry()?, Flags::NONE)?;
        let join = groups::join(&ringed, LINK_GROUP);
        assert_refused("joining with a ring", join, libc::EOPNOTSUPP)?;
        let bind = groups::bind(&ringed, 1);
        assert_refused("binding to a group with a ring", bind, libc::EOPNOTSUPP)?;
        ensure!(
            groups::address(&ringed)? == (0, 0),
            "the refused socket of family {family} has an address: {:?}",
            groups::address(&ringed)?
        );
        groups::bind(&ringed, 0)?;
        answers::assert_works(&mut ringed, patience)?;
    }

    let mut other = member()?.plain();
    let mut ringed = Socket::open(libc::NETLINK_ROUTE)?.rx_ring(geometry()?, Flags::NONE)?;
    let join = groups::join(&ringed, LINK_GROUP);
    assert_refused("joining with a ring", join, libc::EOPNOTSUPP)?;
    groups::cause_link_events("heard0")?;
    groups::assert_hears_of(&mut other, "heard0", patience)?;
    groups::assert_silent(&mut ringed, patience / 20)?;
    answers::assert_works(&mut ringed, patience)?;
    setting.note(
        "refused by setsockopt and bind in 3 families; all 3 work on; the other listener hears",
    );
    Ok(())
}

/// Contract, "Setting a ring up", 5: no RX ring on a socket that is in any group. It stays in the
/// group and hears; once it has left, it may have the ring.
fn a_ring_on_a_group_member_is_refused(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let socket = member()?;
    for flags in [Flags::NONE, Flags::ORDERED] {
        let refused = socket.set_up_rx_ring(&geometry()?, flags);
        let errno = refused.err().and_then(|error| error.raw_os_error());
        ensure!(
            errno == Some(libc::EOPNOTSUPP),
            "a ring with {flags:?} on a member of a group gives {errno:?}"
        );
    }
    ensure!(
        socket.rx_ring_request()? == Some(nlring::Request::default()),
        "there is a ring"
    );

    let mut member = socket.plain();
    groups::cause_link_events("heard1")?;
    groups::assert_hears_of(&mut member, "heard1", patience)?;
    answers::assert_works(&mut drained(member)?, patience)?;

    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    groups::bind(&socket, 1)?;
    let errno = socket
        .set_up_rx_ring(&geometry()?, Flags::NONE)
        .err()
        .and_then(|error| error.raw_os_error());
    ensure!(
        errno == Some(libc::EOPNOTSUPP),
        "a ring on a bound member gives {errno:?}"
    );
    groups::leave(&socket, LINK_GROUP)?;
    let mut ringed = socket.rx_ring(geometry()?, Flags::NONE)?;
    answers::assert_works(&mut ringed, patience)?;
    setting.note("refused to a member by setsockopt and by bind; granted once it has left");
    Ok(())
}

/// The receiver with what it has heard so far read away.
fn drained(mut receiver: nlring::Receiver) -> anyhow::Result<nlring::Receiver> {
    while receiver.receive()?.is_some() {}
    Ok(receiver)
}

/// Contract, "Multicast" and "Setting a ring up", 7: after tear-down the socket is one like any
/// other; it joins and hears. While in the group it gets no ring again.
fn a_torn_down_ring_lets_the_socket_join(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let mut ringed = Socket::open(libc::NETLINK_ROUTE)?.rx_ring(geometry()?, Flags::NONE)?;
    answers::assert_works(&mut ringed, patience)?;
    let join = groups::join(&ringed, LINK_GROUP);
    assert_refused("joining with a ring", join, libc::EOPNOTSUPP)?;

    let socket = ringed.into_socket();
    let join = groups::join(&socket, LINK_GROUP);
    assert_refused(
        "joining with a ring that is not mapped",
        join,
        libc::EOPNOTSUPP,
    )?;
    socket.tear_down_rx_ring()?;
    groups::join(&socket, LINK_GROUP)?;
    let errno = socket
        .set_up_rx_ring(&geometry()?, Flags::NONE)
        .err()
        .and_then(|error| error.raw_os_error());
    ensure!(
        errno == Some(libc::EOPNOTSUPP),
        "a ring on the new member gives {errno:?}"
    );

    let mut member = socket.plain();
    groups::cause_link_events("heard2")?;
    groups::assert_hears_of(&mut member, "heard2", patience)?;
    setting
        .note("refused while there was a ring, mapped or not; joined after tear-down, and hears");
    Ok(())
}

/// Contract, "Multicast": the refusal comes after today's checks, so a join that was wrong before
/// rings fails as it did, and leaving a group that one is not in succeeds as it did.
fn a_ring_does_not_change_what_else_is_wrong_with_a_join(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let mut ringed = Socket::open(libc::NETLINK_ROUTE)?.rx_ring(geometry()?, Flags::NONE)?;
    for group in [0, 100_000] {
        let join = groups::join(&ringed, group);
        assert_refused("joining a group that does not exist", join, libc::EINVAL)?;
    }
    groups::leave(&ringed, LINK_GROUP)?;
    answers::assert_works(&mut ringed, patience)?;
    setting.note("EINVAL for groups that do not exist; leaving succeeds");
    Ok(())
}
