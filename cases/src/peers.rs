// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that send to each other: any bytes, of any length, to any socket.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd};

use anyhow::Context as _;
use nix::sys::socket::{ControlMessageOwned, MsgFlags, NetlinkAddr, UnixCredentials, recvmsg};
use nlring::Socket;

use crate::groups;

/// A socket of `NETLINK_USERSOCK`, which is for programs to speak with each other, and its port id.
pub(crate) fn open() -> anyhow::Result<(Socket, u32)> {
    let socket = Socket::open(libc::NETLINK_USERSOCK)?;
    groups::bind(&socket, 0)?;
    let (port, _) = groups::address(&socket)?;
    Ok((socket, port))
}

/// Sends to a port.
pub(crate) fn send_to(socket: &impl AsFd, port: u32, message: &[u8]) -> io::Result<usize> {
    send_by(socket, port, 0, message, MsgFlags::empty())
}

/// Sends to a port and to the groups of a mask.
pub(crate) fn send_by(
    socket: &impl AsFd,
    port: u32,
    groups: u32,
    message: &[u8],
    flags: MsgFlags,
) -> io::Result<usize> {
    let address = NetlinkAddr::new(port, groups);
    let fd = socket.as_fd().as_raw_fd();
    Ok(nix::sys::socket::sendto(fd, message, &address, flags)?)
}

/// Makes a port the one that is sent to without an address.
pub(crate) fn connect(socket: &impl AsFd, port: u32) -> io::Result<()> {
    let address = NetlinkAddr::new(port, 0);
    Ok(nix::sys::socket::connect(
        socket.as_fd().as_raw_fd(),
        &address,
    )?)
}

/// The next message in the socket's queue; `EAGAIN` if there is none.
pub(crate) fn receive(socket: &impl AsFd) -> io::Result<Vec<u8>> {
    let mut room = vec![0; 1 << 17];
    let fd = socket.as_fd().as_raw_fd();
    let len = nix::sys::socket::recv(fd, &mut room, MsgFlags::MSG_DONTWAIT)?;
    room.truncate(len);
    Ok(room)
}

/// The credentials of the next message in the queue, which is lost.
pub(crate) fn credentials(socket: &Socket) -> anyhow::Result<UnixCredentials> {
    let mut bytes = [0; 64];
    let mut buffers = [IoSliceMut::new(&mut bytes)];
    let mut room = nix::cmsg_space!(UnixCredentials);
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<()>(fd, &mut buffers, Some(&mut room), MsgFlags::MSG_DONTWAIT)?;
    message
        .cmsgs()?
        .find_map(|control| match control {
            ControlMessageOwned::ScmCredentials(credentials) => Some(credentials),
            _ => None,
        })
        .context("recvmsg tells no credentials")
}

/// The socket's queue has nothing.
pub(crate) fn assert_nothing_queued(socket: &impl AsFd) -> anyhow::Result<()> {
    crate::option::assert_refused("receiving", receive(socket), libc::EAGAIN)
}

/// Bytes that differ from those of any other number, at any length.
pub(crate) fn content(number: u32, len: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(u64::from(number) << 32 | len as u64);
    std::iter::repeat_with(|| random.u8(1..))
        .take(len)
        .collect()
}
