// SPDX-License-Identifier: MIT OR Apache-2.0
//! Socket options with whatever bytes a case wants the kernel to refuse.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd};

use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous, mprotect, munmap};
use nlring::{Flags, Geometry};

/// `NETLINK_RX_RING`.
pub(crate) const NETLINK_RX_RING: i32 = 6;
/// `NETLINK_TX_RING`.
pub(crate) const NETLINK_TX_RING: i32 = 7;
/// `NETLINK_NO_ENOBUFS`.
pub(crate) const NETLINK_NO_ENOBUFS: i32 = 5;
/// `NETLINK_LISTEN_ALL_NSID`.
pub(crate) const NETLINK_LISTEN_ALL_NSID: i32 = 8;
/// `NETLINK_CAP_ACK`.
pub(crate) const NETLINK_CAP_ACK: i32 = 10;
/// `NETLINK_EXT_ACK`.
pub(crate) const NETLINK_EXT_ACK: i32 = 11;
/// Both rings, with the name by which a failure calls them.
pub(crate) const RINGS: [(&str, i32); 2] = [
    ("an RX ring", NETLINK_RX_RING),
    ("a TX ring", NETLINK_TX_RING),
];

/// Sets an option of level `SOL_NETLINK`.
pub(crate) fn set(socket: &impl AsFd, option: i32, value: &[u8]) -> io::Result<()> {
    set_at(socket, libc::SOL_NETLINK, option, value)
}

/// Sets an option of level `SOL_SOCKET` that is a number.
pub(crate) fn set_number(socket: &impl AsFd, option: i32, value: i32) -> io::Result<()> {
    set_at(socket, libc::SOL_SOCKET, option, &value.to_ne_bytes())
}

/// Sets an option of any level.
pub(crate) fn set_at(socket: &impl AsFd, level: i32, option: i32, value: &[u8]) -> io::Result<()> {
    // SAFETY: `value` is readable for the length given.
    let refused = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            level,
            option,
            value.as_ptr().cast(),
            value.len() as libc::socklen_t,
        )
    };
    checked(refused)
}

/// Sets an option of level `SOL_NETLINK` to what is at an address of which only the first
/// `readable` bytes are there.
pub(crate) fn set_unreadable(
    socket: &impl AsFd,
    option: i32,
    readable: usize,
    len: u32,
) -> anyhow::Result<io::Result<()>> {
    const PAGE: usize = 4096;
    const TWO: NonZeroUsize = NonZeroUsize::new(2 * PAGE).expect("not zero");
    // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
    let page = unsafe { mmap_anonymous(None, TWO, ProtFlags::PROT_READ, MapFlags::MAP_PRIVATE) }?;
    // SAFETY: the second page of the two, to which nothing refers.
    unsafe { mprotect(page.byte_add(PAGE), PAGE, ProtFlags::PROT_NONE) }?;
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: the kernel checks the address that it is given; we do not use it.
    let refused = checked(unsafe {
        let value = page.byte_add(PAGE - readable);
        libc::setsockopt(fd, libc::SOL_NETLINK, option, value.as_ptr(), len)
    });
    // SAFETY: mapped above with this length.
    unsafe { munmap(page, 2 * PAGE) }?;
    Ok(refused)
}

/// What `getsockopt` writes to a buffer of this many bytes, as many as it says it wrote.
pub(crate) fn get(socket: &impl AsFd, option: i32, room: usize) -> io::Result<Vec<u8>> {
    let mut value = vec![0xa5; room];
    let mut len = room as libc::socklen_t;
    // SAFETY: `value` is writable for `len` bytes, and `len` itself is ours.
    let refused = unsafe {
        libc::getsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_NETLINK,
            option,
            value.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    checked(refused)?;
    let len = len as usize;
    assert!(
        len <= room && value[len..].iter().all(|&byte| byte == 0xa5),
        "getsockopt wrote beyond the {len} bytes that it tells"
    );
    value.truncate(len);
    Ok(value)
}

fn checked(refused: i32) -> io::Result<()> {
    if refused == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Words as the bytes of a request for a ring, of whatever length.
pub(crate) fn request(words: &[u32]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_ne_bytes()).collect()
}

/// The request for a ring of this shape.
pub(crate) fn request_for(geometry: &Geometry, flags: Flags) -> Vec<u8> {
    request(&[
        geometry.block_size(),
        geometry.block_nr(),
        geometry.frame_size(),
        geometry.frame_nr(),
        flags.bits(),
    ])
}

/// The request to tear a ring down.
pub(crate) fn tear_down() -> Vec<u8> {
    request(&[0; 4])
}

/// The call was refused with this error, and no other.
pub(crate) fn assert_refused<T>(
    what: &str,
    result: io::Result<T>,
    errno: i32,
) -> anyhow::Result<()> {
    let expected = io::Error::from_raw_os_error(errno);
    match result {
        Ok(_) => anyhow::bail!("{what} is allowed; expected: {expected}"),
        Err(error) if error.raw_os_error() == Some(errno) => Ok(()),
        Err(error) => anyhow::bail!("{what} gives: {error}; expected: {expected}"),
    }
}
