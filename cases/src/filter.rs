// SPDX-License-Identifier: MIT OR Apache-2.0
//! Socket filters (`linux/filter.h`): programs that say how much of a message passes.

use std::io;
use std::os::fd::AsFd;

use libc::{sock_filter, sock_fprog};

use crate::option::{set_at, set_number};

/// `BPF_LD | BPF_B | BPF_ABS`: takes the byte at `k`.
pub(crate) const LOAD_BYTE: u16 = 0x30;
/// `BPF_JMP | BPF_JEQ | BPF_K`: steps over `jt` instructions if it is `k`, over `jf` otherwise.
pub(crate) const JUMP_IF_EQUAL: u16 = 0x15;
/// `BPF_RET | BPF_K`: so many bytes pass.
pub(crate) const RETURN: u16 = 0x06;

/// An instruction.
pub(crate) const fn instruction(code: u16, jt: u8, jf: u8, k: u32) -> sock_filter {
    sock_filter { code, jt, jf, k }
}

/// Puts a program in front of a socket.
pub(crate) fn attach(socket: &impl AsFd, program: &mut [sock_filter]) -> io::Result<()> {
    let program = sock_fprog {
        len: program.len() as u16,
        filter: program.as_mut_ptr(),
    };
    // SAFETY: the structure is plain data, readable as bytes; its padding is of no meaning but may
    // not be read, so the bytes are taken where they are, by the kernel.
    let bytes = unsafe {
        std::slice::from_raw_parts((&raw const program).cast::<u8>(), size_of_val(&program))
    };
    set_at(socket, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, bytes)
}

/// Takes it away.
pub(crate) fn detach(socket: &impl AsFd) -> io::Result<()> {
    set_number(socket, libc::SO_DETACH_FILTER, 0)
}
