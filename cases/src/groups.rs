// SPDX-License-Identifier: MIT OR Apache-2.0
//! Joining multicast groups, and making the kernel speak to one.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nlring::Receiver;

use crate::ip::ip;
use crate::option;

/// `NETLINK_ADD_MEMBERSHIP`.
const ADD_MEMBERSHIP: i32 = 1;
/// `NETLINK_DROP_MEMBERSHIP`.
const DROP_MEMBERSHIP: i32 = 2;
/// `RTNLGRP_LINK`.
pub(crate) const LINK_GROUP: u32 = 1;
/// `RTM_NEWLINK`.
const NEWLINK: u16 = 16;

/// Joins a group by its number.
pub(crate) fn join(socket: &impl AsFd, group: u32) -> io::Result<()> {
    option::set(socket, ADD_MEMBERSHIP, &group.to_ne_bytes())
}

/// Leaves a group.
pub(crate) fn leave(socket: &impl AsFd, group: u32) -> io::Result<()> {
    option::set(socket, DROP_MEMBERSHIP, &group.to_ne_bytes())
}

/// `bind` to a port id of the kernel's choice and to the groups of a mask.
pub(crate) fn bind(socket: &impl AsFd, groups: u32) -> io::Result<()> {
    let address = nix::sys::socket::NetlinkAddr::new(0, groups);
    nix::sys::socket::bind(socket.as_fd().as_raw_fd(), &address)?;
    Ok(())
}

/// The port id and the group mask that `getsockname` tells.
pub(crate) fn address(socket: &impl AsFd) -> io::Result<(u32, u32)> {
    let address: nix::sys::socket::NetlinkAddr =
        nix::sys::socket::getsockname(socket.as_fd().as_raw_fd())?;
    Ok((address.pid(), address.groups()))
}

/// Makes a link and takes it away: two events or more for the link group.
pub(crate) fn cause_link_events(name: &str) -> anyhow::Result<()> {
    ip(&format!("link add {name} type dummy"))?;
    ip(&format!("link delete {name}"))
}

/// The listener hears of a link of this name.
pub(crate) fn assert_hears_of(
    listener: &mut Receiver,
    name: &str,
    patience: Duration,
) -> anyhow::Result<()> {
    let deadline = Instant::now() + patience;
    loop {
        while let Some(received) = listener.receive()? {
            let message = received.message().context("the listener lost an event")?;
            let kind = message.get(4..6).context("an event without a header")?;
            let wanted = [name.as_bytes(), &[0]].concat();
            if u16::from_ne_bytes(kind.try_into()?) == NEWLINK
                && message.windows(wanted.len()).any(|bytes| bytes == wanted)
            {
                return Ok(());
            }
        }
        let left = deadline.saturating_duration_since(Instant::now());
        anyhow::ensure!(
            listener.wait(Some(left))?,
            "the listener does not hear of {name} within {patience:?}"
        );
    }
}

/// The receiver has nothing to read.
pub(crate) fn assert_silent(receiver: &mut Receiver, span: Duration) -> anyhow::Result<()> {
    let heard = receiver.wait(Some(span))? && receiver.receive()?.is_some();
    anyhow::ensure!(!heard, "a message came where none was to come");
    Ok(())
}
