// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the kernel refuses when a ring is set up or mapped, so that programs fall back cleanly.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::ensure;
use nlring::{Flags, Geometry, Path, Request, Socket};

use crate::option::{NETLINK_RX_RING, assert_refused, request, set};
use crate::{Setting, answers};

/// A shape that is legal, as the words of a request.
const LEGAL: [u32; 4] = [4096, 4, 2048, 8];

/// Contract, "Setting a ring up", 2: unknown `nm_flags`, bytes beyond the known size that are not
/// zero, and wrong lengths are refused; zeros beyond it are not. The socket goes on as it was.
pub(crate) fn unknown_flags_are_refused_and_the_socket_goes_on(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let with = |more: &[u32]| request(&[&LEGAL, more].concat());
    for bit in 2..32 {
        let refused = set(&socket, NETLINK_RX_RING, &with(&[1 << bit]));
        assert_refused(&format!("flag bit {bit}"), refused, libc::EINVAL)?;
    }
    for more in [&[0, 1][..], &[1, 0, 0, 1 << 31]] {
        let refused = set(&socket, NETLINK_RX_RING, &with(more));
        assert_refused("bytes from the future", refused, libc::EINVAL)?;
    }
    for len in [4, 8, 15] {
        let refused = set(&socket, NETLINK_RX_RING, &with(&[])[..len]);
        assert_refused(&format!("a request of {len} bytes"), refused, libc::EINVAL)?;
    }
    let page = vec![0; 4100];
    let refused = set(&socket, NETLINK_RX_RING, &page);
    assert_refused("a request longer than a page", refused, libc::EINVAL)?;
    ensure!(
        socket.rx_ring_request()? == Some(Request::default()),
        "there is a ring"
    );

    let mut plain = socket.plain();
    answers::assert_works(&mut plain, patience)?;
    let socket = plain.into_socket();
    set(&socket, NETLINK_RX_RING, &with(&[1, 0, 0]))?;
    let found = socket.rx_ring_request()?;
    let wanted = Request::new(&Geometry::from_request(4096, 4, 2048, 8)?, Flags::ORDERED);
    ensure!(found == Some(wanted), "the ring set up is {found:?}");
    setting.note(
        "30 unknown flags, future bytes, 4 wrong lengths refused; plain, then ringed, it works",
    );
    Ok(())
}

/// Contract, "Setting a ring up", 1, 4 and 7; known faults 4 and 20: each rule of the geometry, the
/// overflow of their product among them, and the capability.
pub(crate) fn every_shape_the_contract_forbids_is_refused(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let forbidden = [
        ("a block of no bytes", [0, 4, 2048, 8]),
        ("a block that is no multiple of a page", [4095, 4, 2048, 4]),
        ("a block above INT_MAX", [1 << 31, 1, 1 << 30, 2]),
        ("a frame smaller than its header", [4096, 4, 20, 816]),
        ("a frame of no bytes", [4096, 4, 0, 8]),
        ("a frame that is not aligned", [4096, 4, 2046, 8]),
        ("a frame larger than its block", [4096, 4, 4100, 0]),
        ("a frame larger than its block, counted", [4096, 4, 4100, 4]),
        ("too few frames", [4096, 4, 2048, 7]),
        ("too many frames", [4096, 4, 2048, 9]),
        (
            "a number of frames beyond 32 bits",
            [4096, 1 << 31, 2048, 0],
        ),
        ("frames without blocks", [4096, 0, 2048, 8]),
    ];
    for (what, words) in &forbidden {
        let refused = set(&socket, NETLINK_RX_RING, &request(words));
        assert_refused(what, refused, libc::EINVAL)?;
    }
    let refused = std::thread::scope(|scope| {
        let unprivileged = scope.spawn(|| {
            drop_privileges()?;
            set(&socket, NETLINK_RX_RING, &request(&LEGAL))
        });
        unprivileged.join().expect("the thread does not panic")
    });
    assert_refused("a ring without CAP_NET_ADMIN", refused, libc::EPERM)?;
    ensure!(
        socket.rx_ring_request()? == Some(Request::default()),
        "there is a ring"
    );

    let mut ringed = socket.rx_ring(Geometry::from_request(4096, 4, 2048, 8)?, Flags::NONE)?;
    answers::assert_works(&mut ringed, patience)?;
    setting.note(format!(
        "{} shapes and a user without rights refused",
        forbidden.len()
    ));
    Ok(())
}

/// Takes the calling thread's capabilities, and nobody else's: the system call itself, unlike the
/// function of the C library, acts on one thread.
fn drop_privileges() -> io::Result<()> {
    const NOBODY: libc::uid_t = 65534;
    // SAFETY: setresuid touches no memory.
    let failed = unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) };
    if failed == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Contract, "Mapping": the whole ring from offset 0 or nothing; a writable mapping is shared; none
/// is executable or becomes so; `mremap` to another size fails.
pub(crate) fn a_ring_is_mapped_whole_and_shared_and_never_executable(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    use libc::{EACCES, EINVAL, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE};
    const BOTH: i32 = PROT_READ | PROT_WRITE;
    let patience = setting.patiently(Duration::from_secs(2));
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let nothing = map(&socket, 4 * 4096, BOTH, MAP_SHARED, 0);
    assert_refused("mapping without a ring", nothing, EINVAL)?;
    let geometry = Geometry::from_request(4096, 4, 2048, 8)?;
    let whole = geometry.mapping_len();
    socket.set_up_rx_ring(&geometry, Flags::NONE)?;

    let refused = [
        (
            "less than the ring",
            (whole - 4096, BOTH, MAP_SHARED, 0),
            EINVAL,
        ),
        (
            "more than the ring",
            (whole + 4096, BOTH, MAP_SHARED, 0),
            EINVAL,
        ),
        ("an offset", (whole, BOTH, MAP_SHARED, 4096), EINVAL),
        (
            "a private writable mapping",
            (whole, BOTH, MAP_PRIVATE, 0),
            EINVAL,
        ),
        (
            "an executable mapping",
            (whole, PROT_READ | PROT_EXEC, MAP_SHARED, 0),
            EACCES,
        ),
    ];
    for (what, (len, protection, flags, offset), errno) in refused {
        let mapped = map(&socket, len, protection, flags, offset);
        assert_refused(what, mapped, errno)?;
    }
    map(&socket, whole, BOTH, MAP_SHARED, 0)?;
    map(&socket, whole, PROT_READ, MAP_PRIVATE, 0)?;
    change(&socket, whole)?;

    let mut ringed = {
        socket.tear_down_rx_ring()?;
        socket.rx_ring(geometry, Flags::NONE)?
    };
    ensure!(ringed.path() == Path::Ring, "there is no ring");
    answers::assert_works(&mut ringed, patience)?;
    setting.note("5 wrong mappings, 2 wrong sizes and PROT_EXEC refused; the right ones granted");
    Ok(())
}

/// Maps and unmaps.
fn map(
    socket: &impl AsFd,
    len: usize,
    protection: i32,
    flags: i32,
    offset: libc::off_t,
) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    // SAFETY: a new mapping at an address of the kernel's choice, which nothing refers to, and which
    // is unmapped with the same length.
    unsafe {
        let memory = libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset);
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        libc::munmap(memory, len);
    }
    Ok(())
}

/// A mapping of `len` bytes neither grows nor shrinks nor becomes executable.
fn change(socket: &impl AsFd, len: usize) -> anyhow::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let both = libc::PROT_READ | libc::PROT_WRITE;
    // SAFETY: as in `map`; nothing refers to the mapping while it is changed.
    let outcomes = unsafe {
        let memory = libc::mmap(std::ptr::null_mut(), len, both, libc::MAP_SHARED, fd, 0);
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error().into());
        }
        let resized = [2 * len, len / 2].map(|size| {
            let moved = libc::mremap(memory, len, size, libc::MREMAP_MAYMOVE);
            (moved != libc::MAP_FAILED).then_some(size)
        });
        let executable = libc::mprotect(memory, len, libc::PROT_READ | libc::PROT_EXEC);
        let errno = io::Error::last_os_error().raw_os_error();
        libc::munmap(memory, len);
        (resized, (executable != 0).then_some(errno).flatten())
    };
    ensure!(
        outcomes.0 == [None, None],
        "mremap to another size succeeds: {:?}",
        outcomes.0
    );
    ensure!(
        outcomes.1 == Some(libc::EACCES),
        "mprotect to executable gives {:?}",
        outcomes.1
    );
    Ok(())
}
