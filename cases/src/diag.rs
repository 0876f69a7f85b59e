// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `diag`: what `sock_diag` and others tell of a ring.

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry, Socket};

use crate::message::{DONE, DUMP, Message, Writer};
use crate::option::{RINGS, request_for, set, tear_down};
use crate::{Case, Kernel, Setting, case, groups, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Diag, sock_diag_tells_the_shape_of_both_rings).proves("rest-diag rest-diag-asked"),
    case!(Diag, sock_diag_tells_of_rings_only_when_asked).proves("rest-diag-asked"),
    case!(Diag, sock_diag_of_a_kernel_without_rings_tells_of_none)
        .proves("rest-off")
        .on(Kernel::Plain),
    case!(Diag, a_kernel_without_rings_knows_neither_option)
        .proves("rest-off")
        .on(Kernel::Plain),
];

/// `SOCK_DIAG_BY_FAMILY`.
const BY_FAMILY: u16 = 20;
/// `NDIAG_SHOW_RING_CFG`.
const SHOW_RING_CFG: u32 = 4;
/// `NDIAG_SHOW_MEMINFO`.
const SHOW_MEMINFO: u32 = 1;
/// `NETLINK_DIAG_MEMINFO`, `NETLINK_DIAG_RX_RING`, `NETLINK_DIAG_TX_RING`.
const ATTRIBUTES: [u16; 3] = [0, 2, 3];
/// `struct netlink_diag_msg`.
const DIAG_MSG: usize = 28;

/// What `sock_diag` tells of the socket of this family with this port: memory, RX ring, TX ring.
fn told_of(family: i32, port: u32, show: u32) -> anyhow::Result<[Option<Vec<u8>>; 3]> {
    const ALL: u8 = 255; // NDIAG_PROTO_ALL
    let socket = Socket::open(libc::NETLINK_SOCK_DIAG)?;
    let request = Writer::request(BY_FAMILY, DUMP, 1)
        .with(&[libc::AF_NETLINK as u8, ALL, 0, 0])
        .with(&[0; 4]) // any inode
        .with(&show.to_ne_bytes())
        .with(&[0; 8]) // any cookie
        .end();
    socket.send(&request)?;
    let mut found = None;
    loop {
        let told = peers::receive(&socket)?;
        for message in Message::read_all(&told)? {
            if message.kind == DONE {
                return found.with_context(|| format!("nothing is told of port {port}"));
            }
            ensure!(
                message.kind == BY_FAMILY,
                "a message of type {}",
                message.kind
            );
            let about = message.body.first_chunk::<8>().context("a short answer")?;
            if i32::from(about[2]) == family && about[4..] == port.to_ne_bytes() {
                let mut attributes = [None, None, None];
                for (place, kind) in attributes.iter_mut().zip(ATTRIBUTES) {
                    *place = message.attribute(DIAG_MSG, kind)?.map(<[u8]>::to_vec);
                }
                found = Some(attributes);
            }
        }
    }
}

/// Contract, "poll, dumps, the rest": `NDIAG_SHOW_RING_CFG` gives the geometry of each ring that
/// there is, and no attribute for one that there is not.
fn sock_diag_tells_the_shape_of_both_rings(setting: &mut Setting) -> anyhow::Result<()> {
    let shapes = [
        Geometry::new(4096, 4, 2048)?,
        Geometry::new(12_288, 3, 1000)?,
    ];
    let bytes = shapes.map(|shape| request_for(&shape, Flags::NONE)[..16].to_vec());
    let (socket, port) = peers::open()?;
    for which in 0..4_usize {
        let mut expected = [None, None, None];
        for (index, (_, ring)) in RINGS.into_iter().enumerate() {
            let there = which & (1 << index) != 0;
            let request = if there {
                bytes[index].clone()
            } else {
                tear_down()
            };
            set(&socket, ring, &tear_down())?;
            set(&socket, ring, &request)?;
            expected[index + 1] = there.then_some(request);
        }
        let told = told_of(libc::NETLINK_USERSOCK, port, SHOW_RING_CFG)?;
        ensure!(told == expected, "{told:?} is told, not {expected:?}");
    }
    let plain = Socket::open(libc::NETLINK_ROUTE)?;
    groups::bind(&plain, 0)?;
    let (other, _) = groups::address(&plain)?;
    let told = told_of(libc::NETLINK_ROUTE, other, SHOW_RING_CFG)?;
    ensure!(
        told == [None, None, None],
        "of a plain socket {told:?} is told"
    );
    setting.note("none, each alone, both");
    Ok(())
}

/// The flag is what is asked for: without it nothing is told of rings, with others they are told as
/// well.
fn sock_diag_tells_of_rings_only_when_asked(setting: &mut Setting) -> anyhow::Result<()> {
    let shape = Geometry::new(4096, 4, 2048)?;
    let (socket, port) = peers::open()?;
    socket.set_up_rx_ring(&shape, Flags::ORDERED)?;
    socket.set_up_tx_ring(&shape)?;
    for show in [0, SHOW_MEMINFO, SHOW_RING_CFG, SHOW_RING_CFG | SHOW_MEMINFO] {
        let told =
            told_of(libc::NETLINK_USERSOCK, port, show)?.map(|attribute| attribute.is_some());
        let rings = show & SHOW_RING_CFG != 0;
        let expected = [show & SHOW_MEMINFO != 0, rings, rings];
        ensure!(
            told == expected,
            "{told:?} is told for {show}, not {expected:?}"
        );
    }
    setting.note("4 combinations of flags");
    Ok(())
}

/// Contract, "poll, dumps, the rest": with the option off nothing is told, though it is asked for.
fn sock_diag_of_a_kernel_without_rings_tells_of_none(setting: &mut Setting) -> anyhow::Result<()> {
    let (_socket, port) = peers::open()?;
    let told = told_of(libc::NETLINK_USERSOCK, port, SHOW_RING_CFG | SHOW_MEMINFO)?;
    let told = told.map(|attribute| attribute.is_some());
    ensure!(told == [true, false, false], "{told:?} is told");
    setting.note("memory, and no ring");
    Ok(())
}

/// Contract, "Setting a ring up": a kernel without rings answers `ENOPROTOOPT` to both calls, for
/// both rings, whatever is asked, and `mmap` fails.
fn a_kernel_without_rings_knows_neither_option(setting: &mut Setting) -> anyhow::Result<()> {
    let shape = Geometry::new(4096, 4, 2048)?;
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    for (name, ring) in RINGS {
        for bytes in [request_for(&shape, Flags::NONE), tear_down(), vec![0; 4]] {
            let refused = set(&socket, ring, &bytes);
            crate::option::assert_refused(name, refused, libc::ENOPROTOOPT)?;
        }
        let refused = crate::option::get(&socket, ring, 20);
        crate::option::assert_refused(name, refused, libc::ENOPROTOOPT)?;
    }
    let mapped = crate::frames::Frames::map(&socket, shape);
    let errno = mapped.err().and_then(|error| error.raw_os_error());
    ensure!(errno == Some(libc::ENODEV), "mmap gives {errno:?}");
    setting.note("ENOPROTOOPT 8 times, ENODEV for mmap");
    Ok(())
}
