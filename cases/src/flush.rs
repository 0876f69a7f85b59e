// SPDX-License-Identifier: MIT OR Apache-2.0
//! The empty send that makes the kernel take what is in a TX ring, in every form it can have.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::ptr::null_mut;

use nix::sys::socket::{MsgFlags, NetlinkAddr, SockaddrLike as _};

/// `sendto(fd, NULL, 0, 0, NULL, 0)`.
pub(crate) fn flush(socket: &impl AsFd) -> io::Result<usize> {
    send(socket, Form::Call(null_mut()), None, MsgFlags::empty())
}

/// The same with flags.
pub(crate) fn flush_with(socket: &impl AsFd, flags: MsgFlags) -> io::Result<usize> {
    send(socket, Form::Call(null_mut()), None, flags)
}

/// `sendmsg` with one empty buffer, whose base is `NULL`.
pub(crate) fn flush_by_message(socket: &impl AsFd) -> io::Result<usize> {
    send(socket, Form::Message(null_mut()), None, MsgFlags::empty())
}

/// A flush to a port and to the groups of a mask.
pub(crate) fn flush_to(socket: &impl AsFd, port: u32, groups: u32) -> io::Result<usize> {
    let address = NetlinkAddr::new(port, groups);
    send(
        socket,
        Form::Call(null_mut()),
        Some(&address),
        MsgFlags::empty(),
    )
}

/// An empty send that is no flush, since its buffer has a base; by `sendto` and by `sendmsg`.
pub(crate) fn empty_sends(socket: &impl AsFd) -> [io::Result<usize>; 2] {
    let base = std::ptr::from_mut(&mut [0_u8; 4]).cast();
    [Form::Call(base), Form::Message(base)].map(|form| send(socket, form, None, MsgFlags::empty()))
}

/// By which call nothing is sent, and from where.
#[derive(Clone, Copy)]
enum Form {
    Call(*mut libc::c_void),
    Message(*mut libc::c_void),
}

fn send(
    socket: &impl AsFd,
    form: Form,
    address: Option<&NetlinkAddr>,
    flags: MsgFlags,
) -> io::Result<usize> {
    let fd = socket.as_fd().as_raw_fd();
    let (name, name_len) = address.map_or((null_mut(), 0), |address| {
        (address.as_ptr().cast_mut(), address.len())
    });
    let sent = match form {
        // SAFETY: nothing is read from the base, and the address is one of that length.
        Form::Call(base) => unsafe { libc::sendto(fd, base, 0, flags.bits(), name, name_len) },
        Form::Message(base) => {
            let mut buffer = libc::iovec {
                iov_base: base,
                iov_len: 0,
            };
            // SAFETY: all zeros is a msghdr without anything.
            let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
            message.msg_iov = &raw mut buffer;
            message.msg_iovlen = 1;
            message.msg_name = name.cast();
            message.msg_namelen = name_len;
            // SAFETY: the message has one buffer, of no bytes, and an address of that length.
            unsafe { libc::sendmsg(fd, &raw const message, flags.bits()) }
        }
    };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}
