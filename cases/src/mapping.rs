// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `lifetime`: what may be mapped, how often, and what a mapping holds on to.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use anyhow::ensure;
use libc::{EACCES, EBUSY, EINVAL, MAP_PRIVATE, MAP_SHARED, PROT_EXEC, PROT_READ, PROT_WRITE};
use nlring::{Flags, Geometry, Path, Socket, Status};

use crate::child;
use crate::frames::Frames;
use crate::option::{self, NETLINK_RX_RING, RINGS, assert_refused, set, tear_down};
use crate::{Case, Setting, answers, case, peers};

pub(crate) const CASES: &[Case] = &[
    case!(
        Lifetime,
        a_ring_is_mapped_whole_and_shared_and_never_executable
    )
    .proves(
        "mapping-length mapping-offset mapping-no-ring mapping-writable-private \
         mapping-executable mapping-becomes-executable mapping-counted",
    ),
    case!(Lifetime, a_mapping_is_neither_cut_nor_stretched).proves("setup-mapped mapping-resized"),
    case!(Lifetime, a_private_mapping_may_not_become_writable).proves("mapping-becomes-writable"),
    case!(Lifetime, both_rings_share_one_mapping_rx_first)
        .proves("mapping-rx-first mapping-one-ring mapping-length"),
    case!(Lifetime, every_mapping_shows_the_same_ring_and_holds_it)
        .proves("setup-mapped mapping-several mapping-counted"),
    case!(Lifetime, a_child_inherits_the_mapping).proves("mapping-counted mapping-fork"),
    case!(Lifetime, a_mapping_keeps_the_socket_alive).proves("mapping-outlives-close mapping-end"),
    case!(Lifetime, a_mapped_ring_cannot_be_replaced)
        .proves("setup-mapped setup-again setup-resize"),
];

const READ_WRITE: i32 = PROT_READ | PROT_WRITE;
const PAGE: usize = 4096;

fn shape() -> anyhow::Result<Geometry> {
    Ok(Geometry::from_request(4096, 4, 2048, 8)?)
}

/// A mapping of any kind, unmapped at the end.
struct Mapped {
    memory: *mut libc::c_void,
    len: usize,
}

impl Mapped {
    fn new(
        socket: &impl AsFd,
        len: usize,
        protection: i32,
        flags: i32,
        offset: usize,
    ) -> io::Result<Self> {
        let fd = socket.as_fd().as_raw_fd();
        let offset = offset.cast_signed() as libc::off_t;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
        let memory =
            unsafe { libc::mmap(std::ptr::null_mut(), len, protection, flags, fd, offset) };
        if memory == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { memory, len })
    }

    fn protect(&self, offset: usize, len: usize, protection: i32) -> io::Result<()> {
        // SAFETY: inside the mapping, to which nothing refers.
        let refused = unsafe { libc::mprotect(self.memory.byte_add(offset), len, protection) };
        checked(refused)
    }

    fn unmap(&self, offset: usize, len: usize) -> io::Result<()> {
        // SAFETY: inside the mapping, to which nothing refers.
        checked(unsafe { libc::munmap(self.memory.byte_add(offset), len) })
    }

    fn resize(&self, len: usize) -> io::Result<()> {
        // SAFETY: nothing refers to the mapping.
        let moved = unsafe { libc::mremap(self.memory, self.len, len, libc::MREMAP_MAYMOVE) };
        checked(if moved == libc::MAP_FAILED { -1 } else { 0 })
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` with this length; nothing refers to it.
        unsafe { libc::munmap(self.memory, self.len) };
    }
}

fn checked(refused: i32) -> io::Result<()> {
    if refused == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Contract, "Mapping": the whole ring from offset 0 or nothing; a writable mapping is shared; none
/// is executable or becomes so. What is refused counts as no mapping.
fn a_ring_is_mapped_whole_and_shared_and_never_executable(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let geometry = shape()?;
    let whole = geometry.mapping_len();
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    for (_, ring) in RINGS {
        let map =
            |len, protection, flags, offset| Mapped::new(&socket, len, protection, flags, offset);
        let nothing = map(whole, READ_WRITE, MAP_SHARED, 0);
        assert_refused("mapping without a ring", nothing, EINVAL)?;
        set(&socket, ring, &option::request_for(&geometry, Flags::NONE))?;
        let executable = PROT_READ | PROT_EXEC;
        let refused = [
            ("a page", (PAGE, READ_WRITE, MAP_SHARED, 0), EINVAL),
            ("less", (whole - PAGE, READ_WRITE, MAP_SHARED, 0), EINVAL),
            ("more", (whole + PAGE, READ_WRITE, MAP_SHARED, 0), EINVAL),
            ("an offset", (whole, READ_WRITE, MAP_SHARED, PAGE), EINVAL),
            (
                "the rest behind an offset",
                (whole - PAGE, READ_WRITE, MAP_SHARED, PAGE),
                EINVAL,
            ),
            ("a copy", (whole, READ_WRITE, MAP_PRIVATE, 0), EINVAL),
            ("a program", (whole, executable, MAP_SHARED, 0), EACCES),
            (
                "a private program",
                (whole, executable, MAP_PRIVATE, 0),
                EACCES,
            ),
        ];
        for (what, (len, protection, flags, offset), errno) in refused {
            let mapped = map(len, protection, flags, offset);
            assert_refused(&format!("mapping {what}"), mapped, errno)?;
        }
        for (protection, flags) in [
            (READ_WRITE, MAP_SHARED),
            (PROT_READ, MAP_SHARED),
            (PROT_READ, MAP_PRIVATE),
        ] {
            let mapped = map(whole, protection, flags, 0)?;
            for bad in [executable, READ_WRITE | PROT_EXEC] {
                let changed = mapped.protect(0, whole, bad);
                assert_refused("making a mapping executable", changed, EACCES)?;
            }
        }
        // What was refused and what is gone does not hold the ring.
        set(&socket, ring, &tear_down())?;
    }
    let mut ringed = socket.rx_ring(geometry, Flags::NONE)?;
    ensure!(ringed.path() == Path::Ring, "there is no ring");
    answers::assert_works(&mut ringed, patience)?;
    setting.note("8 wrong mappings and PROT_EXEC refused, 3 right ones granted, for both rings");
    Ok(())
}

/// Contract, "Mapping": `mremap` to another size, larger or smaller, fails; and so does every other
/// way to keep a part of the mapping only.
fn a_mapping_is_neither_cut_nor_stretched(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let geometry = shape()?;
    let whole = geometry.mapping_len();
    let mut ringed = Socket::open(libc::NETLINK_NETFILTER)?.rx_ring(geometry, Flags::NONE)?;
    let mapped = Mapped::new(&ringed, whole, READ_WRITE, MAP_SHARED, 0)?;
    for len in [PAGE, whole - PAGE, whole + PAGE, 2 * whole] {
        ensure!(
            mapped.resize(len).is_err(),
            "mremap from {whole} to {len} bytes succeeds"
        );
    }
    for (offset, len) in [(0, PAGE), (PAGE, PAGE), (whole - PAGE, PAGE)] {
        let cut = mapped.unmap(offset, len);
        assert_refused("unmapping a part", cut, EINVAL)?;
        let cut = mapped.protect(offset, len, PROT_READ);
        assert_refused("protecting a part", cut, EINVAL)?;
    }
    // Every page of it is still there, and the ring is held by it.
    for offset in (0..whole).step_by(PAGE) {
        // SAFETY: inside the mapping, which is readable as a whole; the kernel may write there.
        unsafe { mapped.memory.byte_add(offset).cast::<u32>().read_volatile() };
    }
    answers::assert_works(&mut ringed, patience)?;
    let socket = ringed.into_socket();
    let refused = set(&socket, NETLINK_RX_RING, &tear_down());
    assert_refused("a tear-down while mapped", refused, EBUSY)?;
    drop(mapped);
    set(&socket, NETLINK_RX_RING, &tear_down())?;
    setting.note("4 sizes and 3 parts refused, the mapping whole");
    Ok(())
}

/// Contract, "Mapping": a writable mapping is shared, so a private one does not become writable,
/// and a shared one that was mapped for reading may, for the socket is open for writing.
fn a_private_mapping_may_not_become_writable(setting: &mut Setting) -> anyhow::Result<()> {
    let geometry = shape()?;
    let whole = geometry.mapping_len();
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    socket.set_up_rx_ring(&geometry, Flags::NONE)?;
    let private = Mapped::new(&socket, whole, PROT_READ, MAP_PRIVATE, 0)?;
    let changed = private.protect(0, whole, READ_WRITE);
    assert_refused("making a private mapping writable", changed, EACCES)?;
    let shared = Mapped::new(&socket, whole, PROT_READ, MAP_SHARED, 0)?;
    shared.protect(0, whole, READ_WRITE)?;
    setting.note("EACCES for the private one");
    Ok(())
}

/// Contract, "Mapping": the RX ring first, then the TX ring, in one mapping of exactly both; a ring
/// that is not set takes no room.
fn both_rings_share_one_mapping_rx_first(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let (rx, tx) = (shape()?, Geometry::from_request(8192, 3, 512, 48)?);
    let socket = Socket::open(libc::NETLINK_NETFILTER)?;
    socket.set_up_tx_ring(&tx)?;
    drop(Frames::map(&socket, tx)?);
    socket.set_up_rx_ring(&rx, Flags::NONE)?;
    for alone in [rx, tx] {
        let refused = Frames::map(&socket, alone);
        assert_refused("mapping one of two rings", refused, EINVAL)?;
    }
    let [from, to] = Frames::map_all(&socket, [rx, tx])?;
    to.submit(0, &crate::message::noop(7));
    let sent = crate::flush::flush(&socket)?;
    ensure!(sent == 16, "{sent} bytes of 16 were sent");
    ensure!(
        (from.status(0), from.message(0).len()) == (Some(Status::Valid), answers::ANSWER),
        "the answer is not in the first frame of the first ring: {:?}",
        from.status(0)
    );
    ensure!(
        to.status(0) == Some(Status::Unused),
        "the frame is not free"
    );
    drop((from, to));
    socket.tear_down_rx_ring()?;
    drop(Frames::map(&socket, tx)?);
    socket.tear_down_tx_ring()?;

    let (mut receiver, mut sender) = socket.rings(rx, Flags::ORDERED, tx)?;
    let slot = sender.slot()?.expect("a free frame");
    slot.send(&crate::message::noop(9));
    sender.flush()?;
    let (number, frame) = answers::next(&mut receiver, patience)?;
    ensure!(
        (number, frame) == (9, Some(0)),
        "answer {number} in {frame:?}"
    );
    setting.note("each alone while it is alone, both as one; RX first");
    Ok(())
}

/// Contract, "Mapping" and "Setting a ring up", 3: several mappings at once are fine, show the same
/// frames, and each of them holds both rings.
fn every_mapping_shows_the_same_ring_and_holds_it(setting: &mut Setting) -> anyhow::Result<()> {
    const MAPPINGS: usize = 5;
    let geometry = shape()?;
    let (socket, port) = peers::open()?;
    let (sender, _) = peers::open()?;
    socket.set_up_rx_ring(&geometry, Flags::NONE)?;
    let mut mappings = Vec::new();
    for _ in 0..MAPPINGS {
        mappings.push(Frames::map(&socket, geometry)?);
    }
    for frame in 0..geometry.frame_nr() {
        let content = peers::content(frame, 300);
        peers::send_to(&sender, port, &content)?;
        for frames in &mappings {
            ensure!(
                frames.status(frame) == Some(Status::Valid) && frames.message(frame) == content,
                "frame {frame} is not the same everywhere"
            );
        }
        mappings[frame as usize % MAPPINGS].set_status(frame, Status::Unused);
    }
    while let Some(mapping) = mappings.pop() {
        for (name, ring) in RINGS {
            for request in [tear_down(), option::request_for(&geometry, Flags::NONE)] {
                let refused = set(&socket, ring, &request);
                assert_refused(&format!("changing {name} while mapped"), refused, EBUSY)?;
            }
        }
        drop(mapping);
    }
    set(&socket, NETLINK_RX_RING, &tear_down())?;
    setting.note(format!("{MAPPINGS} mappings, EBUSY until the last is gone"));
    Ok(())
}

/// Contract, "Mapping": fork inherits mappings: the child reads from the ring and gives frames
/// back, and while it lives the ring is mapped, whatever its parent unmaps.
fn a_child_inherits_the_mapping(setting: &mut Setting) -> anyhow::Result<()> {
    let geometry = shape()?;
    let (socket, port) = peers::open()?;
    let (sender, _) = peers::open()?;
    socket.set_up_rx_ring(&geometry, Flags::NONE)?;
    let frames = Frames::map(&socket, geometry)?;
    let contents = [1, 2].map(|number| peers::content(number, 500));
    peers::send_to(&sender, port, &contents[0])?;
    child::run(|| {
        ensure!(
            frames.message(0) == contents[0],
            "the child reads something else"
        );
        frames.set_status(0, Status::Unused);
        peers::send_to(&sender, port, &contents[1])?;
        ensure!(
            frames.message(1) == contents[1],
            "the child misses the next message"
        );
        Ok(())
    })?;
    ensure!(
        frames.statuses()[..2] == [Some(Status::Unused), Some(Status::Valid)],
        "the parent does not see what the child did: {:?}",
        frames.statuses()
    );

    let child = child::idle()?;
    drop(frames);
    let refused = set(&socket, NETLINK_RX_RING, &tear_down());
    assert_refused("a tear-down while the child maps the ring", refused, EBUSY)?;
    child.kill()?;
    set(&socket, NETLINK_RX_RING, &tear_down())?;
    setting.note("read and released by the child; EBUSY until it has ended");
    Ok(())
}

/// Contract, "Mapping": a mapping keeps the socket alive after `close`: its port id is still taken
/// and messages still arrive in the ring. With the mapping the socket goes.
fn a_mapping_keeps_the_socket_alive(setting: &mut Setting) -> anyhow::Result<()> {
    let geometry = shape()?;
    let (socket, port) = peers::open()?;
    let (sender, _) = peers::open()?;
    socket.set_up_rx_ring(&geometry, Flags::NONE)?;
    let frames = Frames::map(&socket, geometry)?;
    drop(socket);
    for frame in 0..2 * geometry.frame_nr() {
        let content = peers::content(frame, 700);
        peers::send_to(&sender, port, &content)?;
        let frame = frame % geometry.frame_nr();
        ensure!(
            frames.status(frame) == Some(Status::Valid) && frames.message(frame) == content,
            "message {frame} did not come after the socket was closed"
        );
        frames.set_status(frame, Status::Unused);
    }
    drop(frames);
    let refused = peers::send_to(&sender, port, b"anybody there?");
    assert_refused("sending to what is gone", refused, libc::ECONNREFUSED)?;
    setting.note("16 messages after close; ECONNREFUSED after munmap");
    Ok(())
}

/// Contract, "Setting a ring up", 3, 4 and 7: no set-up and no tear-down while the ring is mapped;
/// no second ring on top of the first; unmap, tear down, set up is the way.
fn a_mapped_ring_cannot_be_replaced(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let small = shape()?;
    let large = Geometry::from_request(8192, 4, 2048, 16)?;
    let set_up = |socket: &Socket, geometry: &Geometry| {
        let request = option::request_for(geometry, Flags::NONE);
        set(socket, NETLINK_RX_RING, &request)
    };
    let mut receiver = Socket::open(libc::NETLINK_NETFILTER)?.rx_ring(small, Flags::NONE)?;
    for geometry in [&small, &large] {
        let again = set_up(receiver.socket(), geometry);
        assert_refused("a set-up while the ring is mapped", again, EBUSY)?;
    }
    let gone = set(receiver.socket(), NETLINK_RX_RING, &tear_down());
    assert_refused("a tear-down while the ring is mapped", gone, EBUSY)?;
    answers::assert_works(&mut receiver, patience)?;

    let socket = receiver.into_socket();
    let second = set_up(&socket, &large);
    assert_refused("a second ring", second, EBUSY)?;
    socket.tear_down_rx_ring()?;
    let mut receiver = socket.rx_ring(large, Flags::ORDERED)?;
    ensure!(
        receiver.geometry() == Some(&large),
        "the ring is not the new one"
    );
    answers::assert_works(&mut receiver, patience)?;
    setting.note("EBUSY while mapped; unmapped, torn down, set up in another shape");
    Ok(())
}
