// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `poll` says.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// The events that `poll` tells of a socket within this time, of those that a reader asks for; 0
/// for none.
pub(crate) fn events(socket: &impl AsFd, patience: Duration) -> io::Result<i16> {
    let mut poll = libc::pollfd {
        fd: socket.as_fd().as_raw_fd(),
        events: libc::POLLIN,
        revents: 0,
    };
    let milliseconds = patience.as_millis() as libc::c_int;
    // SAFETY: one pollfd, ours to write to.
    match unsafe { libc::poll(&raw mut poll, 1, milliseconds) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(poll.revents),
    }
}

/// Whether there is something to read, now.
pub(crate) fn is_readable(socket: &impl AsFd) -> io::Result<bool> {
    Ok(events(socket, Duration::ZERO)? & libc::POLLIN != 0)
}
