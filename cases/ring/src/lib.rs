// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory-mapped netlink: receive netlink messages in place, through a ring shared with the kernel.
