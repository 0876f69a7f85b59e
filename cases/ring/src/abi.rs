// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers of the kernel's interface, as in `include/uapi/linux/netlink.h`.

use libc::c_int;

/// `SOL_NETLINK`: the level of both options.
pub(crate) const SOL_NETLINK: c_int = libc::SOL_NETLINK;
/// `NETLINK_ADD_MEMBERSHIP`.
pub(crate) const NETLINK_ADD_MEMBERSHIP: c_int = libc::NETLINK_ADD_MEMBERSHIP;
/// `NETLINK_DROP_MEMBERSHIP`.
pub(crate) const NETLINK_DROP_MEMBERSHIP: c_int = libc::NETLINK_DROP_MEMBERSHIP;
/// `NETLINK_RX_RING`.
pub(crate) const NETLINK_RX_RING: c_int = 6;
/// `NETLINK_TX_RING`.
pub(crate) const NETLINK_TX_RING: c_int = 7;
/// `sizeof(struct nl_mmap_req)`, which programs of old use.
pub(crate) const REQUEST_LEN: usize = 16;
/// `sizeof(struct nl_mmap_req_ext)`: the same and `nm_flags`.
pub(crate) const EXTENDED_REQUEST_LEN: usize = 20;
/// `NL_MMAP_HDRLEN`: the message stands right behind the header.
pub(crate) const HEADER_LEN: u32 = 24;
/// `NL_MMAP_MSG_ALIGNMENT`: frame sizes are multiples of it.
pub(crate) const FRAME_ALIGNMENT: u32 = 4;

/// `nm_status` in a frame's header.
pub(crate) const STATUS: usize = 0;
/// `nm_len`.
pub(crate) const LEN: usize = 4;
/// `nm_group`.
pub(crate) const GROUP: usize = 8;
/// `nm_pid`.
pub(crate) const PID: usize = 12;
/// `nm_uid`.
pub(crate) const UID: usize = 16;
/// `nm_gid`.
pub(crate) const GID: usize = 20;
