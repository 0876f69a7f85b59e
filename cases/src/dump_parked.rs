// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `dump`: a dump that meets a full ring, its part parked, and what may not pass it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use nix::sys::socket::{setsockopt, sockopt::RcvBuf};
use nlring::{Flags, Geometry, Socket};

use crate::dump::{FAMILY, ROUTES, SEQUENCE, shape};
use crate::frames::Frames;
use crate::message::{ACK, Message, Writer};
use crate::option::assert_refused;
use crate::parts::{Drive, Dump, Reader, plain, whole};
use crate::{Case, Setting, case, conntrack, counters, groups, peers, ready, route};

pub(crate) const CASES: &[Case] = &[
    case!(Dump, a_full_ring_pauses_a_dump_and_nothing_is_lost)
        .proves("dump-whole dump-full dump-parked dump-parked-first dump-parked-done"),
    case!(Dump, the_end_of_an_empty_dump_waits_for_a_frame)
        .proves("dump-full dump-parked dump-parked-done"),
    case!(Dump, a_part_that_waits_stays_behind_what_is_queued).proves("dump-whole dump-parked"),
    case!(Dump, no_notification_overtakes_a_part_that_waits).proves("dump-parked"),
    case!(Dump, no_part_is_made_for_which_there_is_no_frame).proves("dump-full"),
];

/// Contract, "poll, dumps, the rest": a full ring pauses a dump; the part that meets it is parked,
/// the first and `NLMSG_DONE` included, and delivered first when it goes on; nothing is lost,
/// repeated or counted as lost.
fn a_full_ring_pauses_a_dump_and_nothing_is_lost(setting: &mut Setting) -> anyhow::Result<()> {
    route::make(ROUTES)?;
    let wanted = plain(FAMILY, route::dump_routes)?;
    for frames in [1, 2, 3] {
        let mut reader = Reader::open(FAMILY, shape(frames)?)?;
        // The very first part meets a full ring, too.
        for number in 0..frames {
            reader.socket.send(&crate::message::noop(number))?;
        }
        reader.socket.send(&route::dump_routes(SEQUENCE))?;
        for by in [Drive::Poll, Drive::Receive, Drive::Poll] {
            reader.drive(by)?;
        }
        for number in 0..frames {
            let answer = reader.next_frame()?.context("an answer is missing")?;
            let sequence = Message::read(&answer)?.sequence;
            ensure!(sequence == number, "answer {sequence}, not {number}");
        }
        let mut dump = Dump::new(SEQUENCE);
        let mut random = fastrand::Rng::with_seed(setting.seed);
        while !dump.done {
            for _ in 0..random.u32(1..4) {
                reader.drive(Drive::Poll)?;
            }
            for _ in 0..random.u32(1..=frames) {
                if let Some(part) = reader.next_frame()? {
                    dump.framed(&part)?;
                }
            }
        }
        dump.assert_same(&wanted, whole)?;
        let told = ready::events(&reader.socket, Duration::ZERO)?;
        ensure!(told == 0, "poll tells {told:#x} when all was read");
        peers::assert_nothing_queued(&reader.socket)?;
        setting.note(format!("{} parts through {frames} frames", dump.in_frames));
    }
    Ok(())
}

/// Contract, "poll, dumps, the rest": of a dump of nothing the first part is the last one, `NLMSG_DONE`,
/// and waits for a frame as any other does.
fn the_end_of_an_empty_dump_waits_for_a_frame(setting: &mut Setting) -> anyhow::Result<()> {
    conntrack::make(0..0)?;
    let mut reader = Reader::open(libc::NETLINK_NETFILTER, shape(1)?)?;
    reader.socket.send(&crate::message::noop(1))?;
    reader.socket.send(&conntrack::dump(SEQUENCE))?;
    for _ in 0..3 {
        reader.drive(Drive::Poll)?; // there is no frame for it
    }
    let answer = reader.next_frame()?.context("the answer is missing")?;
    ensure!(
        Message::read(&answer)?.sequence == 1,
        "the end of the dump stands before the answer"
    );
    reader.drive(Drive::Poll)?;
    let part = reader
        .next_frame()?
        .context("the end of the dump is lost")?;
    let mut dump = Dump::new(SEQUENCE);
    dump.framed(&part)?;
    ensure!(dump.done, "the dump of nothing goes on");
    setting.note("parked at a full ring, and delivered when there was a frame");
    Ok(())
}

/// Contract, "poll, dumps, the rest": where the ring goes with one message queued behind `COPY` and a
/// part parked, the part comes behind that message, and the dump after it.
fn a_part_that_waits_stays_behind_what_is_queued(setting: &mut Setting) -> anyhow::Result<()> {
    const NO_SUCH_TYPE: u16 = u16::MAX;
    const REFUSED: u32 = 99;
    route::make(ROUTES)?;
    let wanted = plain(FAMILY, route::dump_routes)?;
    for small_buffer in [false, true] {
        let reader = Reader::open(FAMILY, shape(1)?)?;
        if small_buffer {
            setsockopt(&reader.socket, RcvBuf, &0)?; // the kernel takes its minimum
        }
        let request = Writer::request(NO_SUCH_TYPE, ACK, REFUSED).with(&[0; 5000]);
        reader.socket.send(&request.end())?; // the answer repeats it, so no frame holds it
        reader.socket.send(&route::dump_routes(SEQUENCE))?;
        let socket = reader.into_socket()?;
        let answer = peers::receive(&socket)?;
        let answer = Message::read(&answer)?;
        ensure!(
            (answer.sequence, answer.errno()?) == (REFUSED, libc::EOPNOTSUPP),
            "the first to come is of type {} and number {}",
            answer.kind,
            answer.sequence
        );
        let mut dump = Dump::new(SEQUENCE);
        while !dump.done {
            dump.copied(&peers::receive(&socket)?)?;
        }
        dump.assert_same(&wanted, whole)?;
        setting.note(format!("{} parts behind the answer", dump.copied));
    }
    Ok(())
}

/// A reader that hears of links through its ring.
fn listener(geometry: Geometry) -> anyhow::Result<Reader> {
    let socket = Socket::open(FAMILY)?;
    socket.set_up_rx_ring(&geometry, Flags::MULTICAST)?;
    let frames = Frames::map(&socket, geometry)?;
    groups::join(&socket, groups::LINK_GROUP)?;
    Ok(Reader::new(socket, frames))
}

/// A notification may tell of something newer than the part that is parked: it counts as lost and
/// never stands before that part, though a frame has become free.
fn no_notification_overtakes_a_part_that_waits(setting: &mut Setting) -> anyhow::Result<()> {
    route::make(ROUTES)?;
    let wanted = plain(FAMILY, route::dump_routes)?;
    let geometry = shape(8)?;
    let mut reader = listener(geometry)?;
    for number in 0..geometry.frame_nr() {
        reader.socket.send(&crate::message::noop(number))?;
    }
    reader.socket.send(&route::dump_routes(SEQUENCE))?; // its first part meets a full ring
    for _ in 0..geometry.frame_nr() {
        reader.next_frame()?.context("an answer is missing")?;
    }
    groups::cause_link_events("late")?;
    let (port, _) = groups::address(&reader.socket)?;
    let lost = counters::socket_drops(FAMILY, port)?;
    ensure!(lost >= 2, "{lost} events of a link count as lost");
    assert_refused("the loss", peers::receive(&reader.socket), libc::ENOBUFS)?;
    let mut dump = Dump::new(SEQUENCE);
    reader.read_on(&mut dump, Drive::Poll)?;
    dump.assert_same(&wanted, whole)?;
    groups::cause_link_events("later")?;
    let event = reader.next_frame()?.context("no event after the dump")?;
    ensure!(
        Message::read(&event)?.sequence == 0,
        "an answer where an event is due"
    );
    setting.note(format!(
        "{lost} events lost before {} parts",
        dump.in_frames
    ));
    Ok(())
}

/// While a part is parked notifications are lost, so none is made that could only be parked: not by
/// the `recvmsg` for a `COPY` frame either, which is called while that frame is still taken.
fn no_part_is_made_for_which_there_is_no_frame(setting: &mut Setting) -> anyhow::Result<()> {
    const NO_SUCH_TYPE: u16 = u16::MAX;
    route::make(ROUTES)?;
    let wanted = plain(FAMILY, route::dump_routes)?;
    let geometry = shape(8)?;
    let mut reader = listener(geometry)?;
    let request = Writer::request(NO_SUCH_TYPE, ACK, 1).with(&[0; 5000]);
    reader.socket.send(&request.end())?; // the answer repeats it, so no frame holds it
    reader.socket.send(&route::dump_routes(SEQUENCE))?;
    for number in 2..geometry.frame_nr() {
        reader.socket.send(&crate::message::noop(number))?;
    }
    let mut dump = Dump::new(SEQUENCE);
    reader.next_copied()?;
    let first = reader.next_frame()?.context("the first part is missing")?;
    dump.framed(&first)?;
    for _ in 2..geometry.frame_nr() {
        reader.next_frame()?.context("an answer is missing")?;
    }
    groups::cause_link_events("between")?;
    let mut events = 0;
    while let Some(event) = reader.next_frame()? {
        let event = Message::read(&event)?;
        ensure!(
            event.sequence != SEQUENCE,
            "a part of the dump that nobody asked for"
        );
        events += 1;
    }
    let (port, _) = groups::address(&reader.socket)?;
    let lost = counters::socket_drops(FAMILY, port)?;
    ensure!(
        events >= 2 && lost == 0,
        "{events} events of a link came and {lost} were lost"
    );
    reader.read_on(&mut dump, Drive::Poll)?;
    dump.assert_same(&wanted, whole)?;
    setting.note(format!("{events} events between the parts"));
    Ok(())
}
