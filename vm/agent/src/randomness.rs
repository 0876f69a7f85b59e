// SPDX-License-Identifier: MIT OR Apache-2.0
//! The kernel's random numbers. VMs that go on from one snapshot would all draw the same ones, and with
//! them the same ports, hash seeds and addresses: what is to vary from round to round would not.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

/// `struct rand_pool_info` of linux/random.h with what is to be stirred in.
#[repr(C)]
struct PoolInfo {
    /// How much of it is believed to be random, in bits.
    entropy_count: i32,
    /// Bytes of what follows.
    buf_size: i32,
    seed: [u32; 3],
}

/// As many bits as make the kernel's generator ready, which in a VM without devices it may never be.
const READY: i32 = 256;

nix::ioctl_write_ptr_bad!(
    /// `RNDADDENTROPY` of linux/random.h, whose size is that of the two leading fields.
    add_entropy,
    nix::request_code_write!(b'R', 0x03, 8),
    PoolInfo
);

nix::ioctl_none! {
    /// `RNDRESEEDCRNG` of linux/random.h: draw a new key from the pool, now.
    reseed_now, b'R', 0x07
}

/// Makes random numbers depend on the job, by its seed and number.
pub(crate) fn stir(seed: u64, number: u32) -> io::Result<()> {
    let device = File::open("/dev/urandom")?;
    let seed = [seed as u32, (seed >> 32) as u32, number];
    let info = PoolInfo {
        entropy_count: READY,
        buf_size: 3 * 4,
        seed,
    };
    // SAFETY: the descriptor is open, and the kernel reads `buf_size` bytes behind the two leading fields,
    // which are there.
    unsafe { add_entropy(device.as_raw_fd(), &raw const info) }?;
    // SAFETY: the request takes no argument, and the descriptor is open.
    unsafe { reseed_now(device.as_raw_fd()) }?;
    Ok(())
}
