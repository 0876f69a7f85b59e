// SPDX-License-Identifier: MIT OR Apache-2.0
//! `setsockopt` with whatever bytes a case wants the kernel to refuse.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

/// `NETLINK_RX_RING`.
pub(crate) const NETLINK_RX_RING: i32 = 6;

/// Sets an option of level `SOL_NETLINK`.
pub(crate) fn set(socket: &impl AsFd, option: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: `value` is readable for the length given.
    let refused = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    if refused == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// A request for a ring, as the words of `struct nl_mmap_req_ext` or any other number of words.
pub(crate) fn request(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The call was refused with this error, and no other.
pub(crate) fn assert_refused(what: &str, result: io::Result<()>, errno: i32) -> anyhow::Result<()> {
    let expected = io::Error::from_raw_os_error(errno);
    match result {
        Ok(()) => anyhow::bail!("{what} is allowed; expected: {expected}"),
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        Err(error) => anyhow::bail!("{what} gives: {error}; expected: {expected}"),
    }
}
