// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `limits`: which rings the kernel refuses, with which errno, in which order of
//! checks; and that a refused ring leaves the socket as it was.

use std::io;
use std::time::Duration;

use anyhow::ensure;
use nlring::{Flags, Geometry, Request, Socket};

use crate::frames::Frames;
use crate::groups::{self, LINK_GROUP};
use crate::option::{
    NETLINK_RX_RING, NETLINK_TX_RING, RINGS, assert_refused, get, request, set, set_unreadable,
    tear_down,
};
use crate::{Case, Setting, answers, case};

pub(crate) const CASES: &[Case] = &[
    case!(Limits, unknown_flags_are_refused_and_the_socket_goes_on).proves(
        "setup-short-request setup-long-request setup-unknown-flags setup-zeros-behind \
         setup-bytes-behind setup-tx-flags",
    ),
    case!(Limits, every_shape_the_contract_forbids_is_refused).proves(
        "setup-capability setup-block-zero setup-block-huge setup-block-pages setup-frame-small \
         setup-frame-aligned setup-frame-in-block setup-frame-count setup-overflow \
         setup-down-with-frames fault-4 fault-20",
    ),
    case!(Limits, a_request_that_cannot_be_read_is_a_fault).proves("setup-unreadable-request"),
    case!(Limits, what_is_wrong_first_is_said_first).proves("setup-order-of-checks"),
    case!(Limits, tearing_down_asks_for_no_frames_and_needs_no_ring)
        .proves("setup-down-with-frames setup-down-nothing setup-resize"),
    case!(Limits, getsockopt_tells_the_ring_as_it_was_set_up)
        .proves("setup-option setup-option-absent setup-option-length setup-option-short"),
    case!(Limits, a_ring_begins_as_zeros_whatever_was_in_its_memory)
        .proves("setup-blocks setup-zeroed fault-27"),
];

/// A shape that is legal, as the words of a request.
const LEGAL: [u32; 4] = [4096, 4, 2048, 8];

fn legal() -> anyhow::Result<Geometry> {
    let [block_size, block_nr, frame_size, frame_nr] = LEGAL;
    Ok(Geometry::from_request(
        block_size, block_nr, frame_size, frame_nr,
    )?)
}

/// The socket has no ring, cannot be mapped, and speaks with the kernel as it ever did.
fn assert_untouched(socket: Socket, patience: Duration) -> anyhow::Result<Socket> {
    let none = Some(Request::default());
    ensure!(socket.rx_ring_request()? == none, "there is an RX ring");
    ensure!(socket.tx_ring_request()? == none, "there is a TX ring");
    let mapped = Frames::map(&socket, legal()?);
    assert_refused("mapping no ring", mapped, libc::EINVAL)?;
    let mut plain = socket.plain();
    answers::assert_works(&mut plain, patience)?;
    Ok(plain.into_socket())
}

/// Contract, "Setting a ring up", 2 and 5: unknown `nm_flags`, any flag on a TX ring, bytes beyond
/// the known size that are not zero, and wrong lengths are refused; zeros beyond it are not. The
/// socket goes on as it was.
fn unknown_flags_are_refused_and_the_socket_goes_on(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let with = |more: &[u32]| request(&[&LEGAL, more].concat());
    for (name, ring) in RINGS {
        let known = if ring == NETLINK_RX_RING { 2 } else { 0 };
        for bit in known..32 {
            let refused = set(&socket, ring, &with(&[1 << bit]));
            assert_refused(
                &format!("{name} with flag bit {bit}"),
                refused,
                libc::EINVAL,
            )?;
        }
        for more in [&[0, 1][..], &[1, 0, 0, 1 << 31]] {
            let refused = set(&socket, ring, &with(more));
            assert_refused("bytes from the future", refused, libc::EINVAL)?;
        }
        for len in [4, 8, 15] {
            let refused = set(&socket, ring, &with(&[])[..len]);
            assert_refused(&format!("a request of {len} bytes"), refused, libc::EINVAL)?;
        }
        let refused = set(&socket, ring, &vec![0; 4100]);
        assert_refused("a request longer than a page", refused, libc::EINVAL)?;
        socket = assert_untouched(socket, patience)?;
    }

    set(&socket, NETLINK_RX_RING, &with(&[1, 0, 0]))?;
    set(&socket, NETLINK_TX_RING, &with(&[0; 1020]))?;
    let found = (socket.rx_ring_request()?, socket.tx_ring_request()?);
    let shape = legal()?;
    let wanted = (
        Some(Request::new(&shape, Flags::ORDERED)),
        Some(Request::new(&shape, Flags::NONE)),
    );
    ensure!(found == wanted, "the rings set up are {found:?}");
    setting
        .note("62 flags, future bytes, 4 wrong lengths refused for each ring; zeros are granted");
    Ok(())
}

/// Contract, "Setting a ring up", 1 and 4; known faults 4 and 20: each rule of the geometry, the
/// overflow of their product among them, and the capability.
fn every_shape_the_contract_forbids_is_refused(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let forbidden = [
        ("a block of no bytes", [0, 4, 2048, 8]),
        ("a block of no bytes, counted", [0, 4, 2048, 0]),
        ("a block that is no multiple of a page", [4095, 4, 2048, 4]),
        ("a block above INT_MAX", [1 << 31, 1, 1 << 30, 2]),
        ("a frame smaller than its header", [4096, 4, 20, 816]),
        ("a frame of no bytes", [4096, 4, 0, 8]),
        ("a frame that is not aligned", [4096, 4, 2046, 8]),
        ("a frame larger than its block", [4096, 4, 4100, 0]),
        ("a frame larger than its block, counted", [4096, 4, 4100, 4]),
        ("too few frames", [4096, 4, 2048, 7]),
        ("too many frames", [4096, 4, 2048, 9]),
        ("frames beyond 32 bits", [4096, 1 << 31, 2048, 0]),
        (
            "frames beyond 32 bits, wrapped",
            [4096, 1 << 25, 24, 170 << 25],
        ),
        ("frames without blocks", [4096, 0, 2048, 8]),
    ];
    for (name, ring) in RINGS {
        for (what, words) in &forbidden {
            let refused = set(&socket, ring, &request(words));
            assert_refused(&format!("{name}: {what}"), refused, libc::EINVAL)?;
        }
        let refused = unprivileged(|| set(&socket, ring, &request(&LEGAL)));
        assert_refused("a ring without CAP_NET_ADMIN", refused, libc::EPERM)?;
        socket = assert_untouched(socket, patience)?;
    }
    setting.note(format!(
        "{} shapes and a user without rights refused, for both rings",
        forbidden.len()
    ));
    Ok(())
}

/// Does something in a thread without capabilities. Nobody else loses them: the system call itself,
/// unlike the function of the C library, acts on one thread.
fn unprivileged<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    const NOBODY: libc::uid_t = 65534;
    let drop_privileges = || {
        // SAFETY: setresuid touches no memory.
        match unsafe { libc::syscall(libc::SYS_setresuid, NOBODY, NOBODY, NOBODY) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| drop_privileges().and_then(|()| act()));
        thread.join().expect("the thread does not panic")
    })
}

/// Contract, "Setting a ring up", 2: an unreadable pointer is `EFAULT`, if the length is one that a
/// request can have.
fn a_request_that_cannot_be_read_is_a_fault(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
    for (name, ring) in RINGS {
        for (readable, len) in [(0, 16), (8, 16), (8, 20), (16, 20), (20, 4096)] {
            let refused = set_unreadable(&socket, ring, readable, len)?;
            let what = format!("{name} of which {readable} bytes of {len} are there");
            assert_refused(&what, refused, libc::EFAULT)?;
        }
        socket = assert_untouched(socket, patience)?;
    }
    setting.note("EFAULT for both rings, of which nothing or a part can be read");
    Ok(())
}

/// Contract, "Setting a ring up": the checks come in the order in which the contract lists them, so
/// a request with two faults is refused for the one that stands first.
fn what_is_wrong_first_is_said_first(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    for (_, ring) in RINGS {
        let socket = assert_untouched(Socket::open(libc::NETLINK_ROUTE)?, patience)?;
        let wrong = [request(&[0]), flagged(&LEGAL, 1 << 31), request(&BAD_SHAPE)];
        for bytes in wrong {
            let refused = unprivileged(|| set(&socket, ring, &bytes));
            assert_refused("a wrong request of nobody", refused, libc::EPERM)?;
        }
        let short = set_unreadable(&socket, ring, 8, 15)?;
        assert_refused("a short request that ends early", short, libc::EINVAL)?;
        assert_order_on_top_of_a_ring(&socket, ring)?;
    }

    let refuse = |socket: &Socket, ring, bytes: &[u8], what: &str, errno| {
        assert_refused(what, set(socket, ring, bytes), errno)
    };
    let member = Socket::open(libc::NETLINK_ROUTE)?;
    groups::join(&member, LINK_GROUP)?;
    let bad = request(&BAD_SHAPE);
    refuse(
        &member,
        NETLINK_RX_RING,
        &bad,
        "a bad shape on a member",
        libc::EINVAL,
    )?;
    let large = request(&TOO_LARGE);
    refuse(
        &member,
        NETLINK_RX_RING,
        &large,
        "a ring on a member",
        libc::EOPNOTSUPP,
    )?;

    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    let large = flagged(&TOO_LARGE, Flags::ORDERED.bits());
    refuse(
        &socket,
        NETLINK_TX_RING,
        &large,
        "a TX ring with a flag",
        libc::EINVAL,
    )?;
    set(&socket, NETLINK_TX_RING, &request(&LEGAL))?;
    let flag = flagged(&LEGAL, Flags::ORDERED.bits());
    refuse(
        &socket,
        NETLINK_TX_RING,
        &flag,
        "a second one with a flag",
        libc::EBUSY,
    )?;
    setting.note("EPERM, EINVAL, EFAULT, EBUSY, EINVAL, EOPNOTSUPP, ENOMEM, in this order");
    Ok(())
}

/// What is no ring's shape.
const BAD_SHAPE: [u32; 4] = [4095, 4, 2048, 8];
/// What is one's, and more memory than there is.
const TOO_LARGE: [u32; 4] = [1 << 30, 64, 1 << 30, 64];

fn flagged(words: &[u32], flags: u32) -> Vec<u8> {
    request(&[words, &[flags]].concat())
}

/// That there is a ring is said after what the request itself has wrong in its flags, and before
/// its shape is looked at; that one is mapped, in the same place, for both rings.
fn assert_order_on_top_of_a_ring(socket: &Socket, ring: i32) -> anyhow::Result<()> {
    let refuse = |ring, bytes: &[u8], what: &str, errno| {
        assert_refused(what, set(socket, ring, bytes), errno)
    };
    let (bad, unknown) = (request(&BAD_SHAPE), flagged(&LEGAL, 1 << 31));
    set(socket, ring, &request(&LEGAL))?;
    refuse(ring, &bad, "a bad shape on top of a ring", libc::EBUSY)?;
    refuse(
        ring,
        &unknown,
        "an unknown flag on top of a ring",
        libc::EINVAL,
    )?;
    let mapped = Frames::map(socket, legal()?)?;
    for (what, other) in RINGS {
        refuse(other, &bad, &format!("{what} while mapped"), libc::EBUSY)?;
        let no_blocks = request(&[4096, 0, 2048, 8]);
        refuse(
            other,
            &no_blocks,
            "frames without blocks, mapped",
            libc::EBUSY,
        )?;
        refuse(
            other,
            &unknown,
            "an unknown flag while mapped",
            libc::EINVAL,
        )?;
    }
    drop(mapped);
    Ok(())
}

/// Contract, "Setting a ring up", 7: tearing a ring down takes no frames, and succeeds where there
/// is none; the other ring stays; and a ring of another shape can be had behind it.
fn tearing_down_asks_for_no_frames_and_needs_no_ring(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let mut socket = Socket::open(libc::NETLINK_NETFILTER)?;
    for ((_, ring), (_, other)) in [(RINGS[0], RINGS[1]), (RINGS[1], RINGS[0])] {
        set(&socket, ring, &tear_down())?;
        socket = assert_untouched(socket, patience)?;
        set(&socket, ring, &request(&LEGAL))?;
        set(&socket, other, &request(&LEGAL))?;
        let refused = set(&socket, ring, &request(&[4096, 0, 2048, 8]));
        assert_refused("tearing down with frames", refused, libc::EINVAL)?;
        ensure!(
            get(&socket, ring, 16)? == request(&LEGAL),
            "the ring is gone"
        );
        set(&socket, ring, &request(&[4096, 0, 2048, 0]))?;
        ensure!(
            get(&socket, ring, 16)? == tear_down(),
            "the ring is still there"
        );
        ensure!(
            get(&socket, other, 16)? == request(&LEGAL),
            "the other ring went too"
        );
        let larger = request(&[8192, 4, 1024, 32]);
        set(&socket, ring, &larger)?;
        ensure!(
            get(&socket, ring, 16)? == larger,
            "the ring is not the new one"
        );
        set(&socket, ring, &tear_down())?;
        set(&socket, other, &tear_down())?;
        socket = assert_untouched(socket, patience)?;
    }
    setting.note("torn down without a ring, with one, and set up anew, for both rings");
    Ok(())
}

/// Contract, "Setting a ring up": `getsockopt` copies `min(len, 20)` bytes of the request as it was
/// set up, zeros where there is no ring; a length below 4 is `EINVAL`.
fn getsockopt_tells_the_ring_as_it_was_set_up(setting: &mut Setting) -> anyhow::Result<()> {
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    let assert_told = |ring, wanted: &[u8]| {
        for room in [4, 7, 16, 19, 20, 21, 64] {
            let told = get(&socket, ring, room)?;
            ensure!(
                told == wanted[..room.min(20)],
                "asked for {room} bytes of {wanted:?}, told {told:?}"
            );
        }
        for room in 0..4 {
            let refused = get(&socket, ring, room);
            assert_refused("asking for less than 4 bytes", refused, libc::EINVAL)?;
        }
        Ok(())
    };
    let with = |flags: Flags| request(&[&LEGAL[..], &[flags.bits()]].concat());
    let set_up = [
        (NETLINK_RX_RING, with(Flags::ORDERED | Flags::MULTICAST)),
        (NETLINK_TX_RING, with(Flags::NONE)),
    ];
    for (ring, wanted) in &set_up {
        assert_told(*ring, &[0; 20])?;
        set(&socket, *ring, wanted)?;
        assert_told(*ring, wanted)?;
    }
    for (ring, wanted) in &set_up {
        assert_told(*ring, wanted)?;
        set(&socket, *ring, &tear_down())?;
        assert_told(*ring, &[0; 20])?;
    }
    setting.note("7 lengths told and 4 refused, for both rings, with a ring and without");
    Ok(())
}

/// Contract, "Setting a ring up", 6; known fault 27: ring pages are zeroed, whatever was in them.
/// Two shapes: blocks that are one compound page, and blocks that are none.
fn a_ring_begins_as_zeros_whatever_was_in_its_memory(setting: &mut Setting) -> anyhow::Result<()> {
    const ROUNDS: u32 = 4;
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    for geometry in [
        Geometry::new(32 * 1024, 16, 2048)?,
        Geometry::new(12 * 1024, 16, 2048)?,
    ] {
        for round in 0..ROUNDS {
            socket.set_up_rx_ring(&geometry, Flags::NONE)?;
            socket.set_up_tx_ring(&geometry)?;
            for frames in Frames::map_all(&socket, [geometry, geometry])? {
                for index in 0..frames.words() {
                    let word = frames.word(index);
                    let found = word.swap(0xdead_beef, std::sync::atomic::Ordering::Relaxed);
                    ensure!(
                        found == 0,
                        "word {index} of round {round} begins as {found:#x}"
                    );
                }
            }
            socket.tear_down_rx_ring()?;
            socket.tear_down_tx_ring()?;
        }
    }
    setting.note(format!("zeros in {ROUNDS} rings of 2 shapes, each way"));
    Ok(())
}
