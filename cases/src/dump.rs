// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `dump`: dumps go through the ring, whole, however they are driven.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry, Socket, Status};

use crate::flush::flush;
use crate::frames::Frames;
use crate::message::{DONE, DUMP, ERROR, Message, Writer};
use crate::parts::{Drive, Dump, Identity, Reader, plain, read, whole};
use crate::{Case, Setting, answers, case, conntrack, peers, ready, route};

pub(crate) const CASES: &[Case] = &[
    case!(Dump, a_dump_in_a_ring_is_the_dump_of_a_socket)
        .proves("dump-frames dump-whole fault-12")
        .within(10),
    case!(Dump, a_dump_goes_on_from_poll_and_recvmsg_and_flush)
        .proves("dump-whole dump-poll dump-recvmsg dump-flush"),
    case!(Dump, poll_does_not_sleep_while_a_dump_can_go_on)
        .proves("dump-poll")
        .within(10),
    case!(Dump, a_dump_asked_for_through_a_ring_comes_through_one)
        .proves("dump-whole dump-flush fault-14"),
    case!(Dump, parts_are_as_large_as_frames_allow).proves("dump-part-minimum dump-part-frame"),
    case!(Dump, parts_that_do_not_fit_come_by_copy).proves("dump-part-minimum dump-part-copy"),
    case!(Dump, a_dump_that_runs_refuses_another_and_then_makes_room).proves("dump-whole"),
    case!(Dump, other_messages_come_between_the_parts).proves("dump-whole"),
    case!(Dump, a_ring_that_goes_during_a_dump_takes_no_part_along).proves("dump-whole"),
    case!(Dump, a_ring_that_comes_during_a_dump_takes_over).proves("dump-frames dump-whole"),
    case!(Dump, a_socket_that_closes_during_a_dump_leaves_nothing).proves("dump-closed"),
];

/// Routes that are dumped: some 30 parts of the usual size.
pub(crate) const ROUTES: u32 = 2000;
/// `NETLINK_ROUTE`.
pub(crate) const FAMILY: i32 = libc::NETLINK_ROUTE;
/// The number of a dump's request.
pub(crate) const SEQUENCE: u32 = 7;

/// Frames that hold a part of the usual size.
pub(crate) fn shape(frames: u32) -> anyhow::Result<Geometry> {
    Ok(Geometry::from_request(4096, frames, 4096, frames)?)
}

/// Asks for all families of generic netlink.
fn dump_families(sequence: u32) -> Vec<u8> {
    const CONTROL: u16 = 16;
    const GETFAMILY: u8 = 3;
    let genlmsghdr = [GETFAMILY, 1, 0, 0];
    Writer::request(CONTROL, DUMP, sequence)
        .with(&genlmsghdr)
        .end()
}

/// What is dumped: its name, the family to ask, and how.
type Subject = (&'static str, i32, fn(u32) -> Vec<u8>);

/// Contract, "poll, dumps, the rest"; known fault 12: what a dump says is the same in a ring, for
/// families that know nothing of rings; each part stands at the beginning of its frame, whatever
/// buffer the socket has seen before.
fn a_dump_in_a_ring_is_the_dump_of_a_socket(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    route::make(ROUTES)?;
    conntrack::make(1000..1400)?;
    let generic = libc::NETLINK_GENERIC;
    let netfilter = libc::NETLINK_NETFILTER;
    let dumps: [(Subject, Identity, usize); 5] = [
        (
            ("routes", FAMILY, route::dump_routes),
            whole,
            ROUTES as usize,
        ),
        (("links", FAMILY, route::dump_links), whole, 1),
        (("addresses", FAMILY, route::dump_addresses), whole, 1),
        (("families", generic, dump_families), whole, 2),
        (
            ("connections", netfilter, conntrack::dump),
            conntrack::identity,
            400,
        ),
    ];
    for ((what, family, request), identity, least) in dumps {
        let wanted = plain(family, request)?;
        ensure!(wanted.len() >= least, "{} {what} in all", wanted.len());
        for flags in [Flags::NONE, Flags::ORDERED] {
            let socket = Socket::open(family)?;
            // A large buffer seen before must not shape the parts: it is seen when something comes.
            socket.send(&crate::message::noop(1))?;
            peers::receive(&socket)?;
            let mut receiver = socket.rx_ring(shape(8)?, flags)?;
            receiver.socket().send(&request(SEQUENCE))?;
            let dump = read(&mut receiver, SEQUENCE, patience)
                .with_context(|| format!("the dump of {what}"))?;
            dump.assert_same(&wanted, identity)
                .with_context(|| format!("the dump of {what}"))?;
            ensure!(dump.copied == 0, "{} parts of {what} by copy", dump.copied);
            answers::assert_works(&mut receiver, patience)?;
        }
        setting.note(format!("{} {what}", wanted.len()));
    }
    Ok(())
}

/// Contract, "poll, dumps, the rest": the dump goes on from `poll`, from `recvmsg` and from a flush, so
/// that a program which only spins on its ring is not stuck; by each alone.
fn a_dump_goes_on_from_poll_and_recvmsg_and_flush(setting: &mut Setting) -> anyhow::Result<()> {
    route::make(ROUTES)?;
    let wanted = plain(FAMILY, route::dump_routes)?;
    for by in [Drive::Poll, Drive::Receive, Drive::Flush] {
        let socket = Socket::open(FAMILY)?;
        let (rx, tx) = (shape(4)?, shape(1)?);
        socket.set_up_rx_ring(&rx, Flags::NONE)?;
        let frames = if by == Drive::Flush {
            socket.set_up_tx_ring(&tx)?;
            let [frames, _] = Frames::map_all(&socket, [rx, tx])?;
            frames
        } else {
            Frames::map(&socket, rx)?
        };
        let mut reader = Reader::new(socket, frames);
        reader.socket.send(&route::dump_routes(SEQUENCE))?;
        let mut dump = Dump::new(SEQUENCE);
        let calls = reader.read_on(&mut dump, by)?;
        dump.assert_same(&wanted, whole)?;
        setting.note(format!(
            "by {by:?}: {} parts, {calls} calls",
            dump.in_frames
        ));
    }
    Ok(())
}

/// Contract, "poll, dumps, the rest": the frames that `poll` has filled can all be given back, by a
/// thread that only looks at memory, before it looks whether there is something to read. It must not
/// sleep then: nobody would wake it, and the dump would never end.
fn poll_does_not_sleep_while_a_dump_can_go_on(setting: &mut Setting) -> anyhow::Result<()> {
    const FRAMES: u32 = 32;
    const ROUNDS: u32 = 20;
    let patience = setting.patiently(Duration::from_millis(100));
    route::make(ROUTES)?;
    let mut polls = 0_u32;
    for round in 0..ROUNDS {
        let socket = Socket::open(FAMILY)?;
        let geometry = shape(FRAMES)?;
        socket.set_up_rx_ring(&geometry, Flags::NONE)?;
        let frames = Frames::map(&socket, geometry)?;
        let ended = AtomicBool::new(false);
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            scope.spawn(|| {
                let mut at = 0;
                while !ended.load(Ordering::Relaxed) && !stop.load(Ordering::Relaxed) {
                    if frames.status(at) != Some(Status::Valid) {
                        std::hint::spin_loop();
                        continue;
                    }
                    let part = frames.message(at);
                    frames.set_status(at, Status::Unused);
                    at = (at + 1) % FRAMES;
                    let messages = Message::read_all(&part).unwrap_or_default();
                    if messages.iter().any(|message| message.kind == DONE) {
                        ended.store(true, Ordering::Relaxed);
                    }
                }
            });
            let mut drive = || {
                socket.send(&route::dump_routes(SEQUENCE))?;
                let until = Instant::now() + 20 * patience;
                while !ended.load(Ordering::Relaxed) {
                    ensure!(
                        Instant::now() < until,
                        "round {round}: the dump does not end"
                    );
                    polls += 1;
                    if !ready::is_readable(&socket)? {
                        // The reader may be about to see the end.
                        let late = Instant::now() + patience;
                        while !ended.load(Ordering::Relaxed) && Instant::now() < late {
                            thread::sleep(Duration::from_millis(1));
                        }
                        ensure!(
                            ended.load(Ordering::Relaxed),
                            "round {round}: poll has nothing to tell, and the dump has not ended"
                        );
                    }
                }
                Ok(())
            };
            let driven = drive();
            stop.store(true, Ordering::Relaxed);
            driven
        })?;
    }
    setting.note(format!("{ROUNDS} dumps by {polls} calls of poll"));
    Ok(())
}

/// Contract, "TX" and "poll, dumps, the rest"; known fault 14: the request stands in a TX ring, is
/// sent once, and the same flush makes the dump go on.
fn a_dump_asked_for_through_a_ring_comes_through_one(setting: &mut Setting) -> anyhow::Result<()> {
    route::make(ROUTES)?;
    let wanted = plain(FAMILY, route::dump_routes)?;
    let socket = Socket::open(FAMILY)?;
    let (rx, tx) = (shape(4)?, shape(2)?);
    socket.set_up_rx_ring(&rx, Flags::ORDERED)?;
    socket.set_up_tx_ring(&tx)?;
    let [frames, requests] = Frames::map_all(&socket, [rx, tx])?;
    let mut reader = Reader::new(socket, frames);
    for (frame, sequence) in [(0, 1), (1, 2), (0, 3)] {
        let request = route::dump_routes(sequence);
        requests.submit(frame, &request);
        let sent = flush(&reader.socket)?;
        ensure!(sent == request.len(), "{sent} bytes were sent");
        let mut dump = Dump::new(sequence);
        reader.read_on(&mut dump, Drive::Flush)?;
        dump.assert_same(&wanted, whole)?;
    }
    ensure!(flush(&reader.socket)? == 0, "a request is sent again");
    ensure!(
        reader.next_frame()?.is_none(),
        "there is more than was asked for"
    );
    setting.note(format!(
        "3 dumps of {} routes, asked for and driven by flush",
        wanted.len()
    ));
    Ok(())
}

/// Contract, "poll, dumps, the rest": a part is never smaller than the usual size, and as large as
/// the frame where that is larger.
fn parts_are_as_large_as_frames_allow(setting: &mut Setting) -> anyhow::Result<()> {
    /// `NLMSG_GOODSIZE`, less what a kernel may need of it for itself.
    const USUAL: usize = 3500;
    let patience = setting.patiently(Duration::from_secs(2));
    route::make(ROUTES)?;
    let wanted = plain(FAMILY, route::dump_routes)?;
    let mut noted = Vec::new();
    for frame_size in [4096, 8192, 16 * 1024, 32 * 1024] {
        let geometry = Geometry::new(64 * 1024, 4, frame_size)?;
        let room = geometry.room() as usize;
        let mut receiver = Socket::open(FAMILY)?.rx_ring(geometry, Flags::NONE)?;
        receiver.socket().send(&route::dump_routes(SEQUENCE))?;
        let dump = read(&mut receiver, SEQUENCE, patience)?;
        dump.assert_same(&wanted, whole)?;
        ensure!(dump.copied == 0, "{} parts by copy", dump.copied);
        // A route and its header are 60 bytes or so: that much may be left over.
        let least = USUAL.max(room - room / 16);
        ensure!(
            (least..=room).contains(&dump.longest) || frame_size == 4096 && dump.longest >= USUAL,
            "parts of at most {} bytes in frames of {frame_size}",
            dump.longest
        );
        noted.push(format!("{} of up to {}", dump.in_frames, dump.longest));
    }
    setting.note(format!("parts: {}", noted.join(", ")));
    Ok(())
}

/// Contract, "poll, dumps, the rest": where the frame has less room, parts come as `COPY`, in their
/// place, the same as ever.
fn parts_that_do_not_fit_come_by_copy(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    route::make(ROUTES)?;
    let wanted = plain(FAMILY, route::dump_routes)?;
    for frames in [2, 16] {
        let geometry = Geometry::from_request(4096, frames, 1024, 4 * frames)?;
        let mut receiver = Socket::open(FAMILY)?.rx_ring(geometry, Flags::NONE)?;
        receiver.socket().send(&route::dump_routes(SEQUENCE))?;
        let dump = read(&mut receiver, SEQUENCE, patience)?;
        dump.assert_same(&wanted, whole)?;
        ensure!(dump.copied > 10, "{} parts by copy", dump.copied);
        setting.note(format!(
            "{} by copy, {} in frames",
            dump.copied, dump.in_frames
        ));
        answers::assert_works(&mut receiver, patience)?;
    }
    Ok(())
}

/// Today's rule, which a ring does not change: one dump at a time, another is refused with `EBUSY`;
/// when the first is over there is room for the next.
fn a_dump_that_runs_refuses_another_and_then_makes_room(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    route::make(ROUTES)?;
    let wanted = plain(FAMILY, route::dump_routes)?;
    let mut reader = Reader::open(FAMILY, shape(64)?)?;
    for round in 0..3 {
        let (sequence, refused) = (100 + round, 200 + round);
        reader.socket.send(&route::dump_routes(sequence))?;
        reader.socket.send(&route::dump_routes(refused))?;
        let mut dump = Dump::new(sequence);
        let mut errors = Vec::new();
        while !dump.done {
            while let Some(part) = reader.next_frame()? {
                match Message::read_all(&part)?[..] {
                    [answer] if answer.kind == ERROR => {
                        errors.push((answer.sequence, answer.errno()?));
                    }
                    _ => dump.framed(&part)?,
                }
            }
            reader.drive(Drive::Poll)?;
        }
        ensure!(
            errors == [(refused, libc::EBUSY)],
            "the second request is answered with {errors:?}"
        );
        dump.assert_same(&wanted, whole)?;
    }
    setting.note("3 dumps, EBUSY for 3 others meanwhile");
    Ok(())
}

/// A dump does not hold up other messages, nor they it: answers come between its parts, in the
/// order in which they were sent.
fn other_messages_come_between_the_parts(setting: &mut Setting) -> anyhow::Result<()> {
    route::make(ROUTES)?;
    let wanted = plain(FAMILY, route::dump_routes)?;
    let mut reader = Reader::open(FAMILY, shape(8)?)?;
    reader.socket.send(&route::dump_routes(SEQUENCE))?;
    let mut dump = Dump::new(SEQUENCE);
    let (mut asked, mut answered) = (0, 0);
    while !dump.done {
        while let Some(part) = reader.next_frame()? {
            match Message::read_all(&part)?[..] {
                [answer] if answer.kind == ERROR => {
                    let (sequence, errno) = (answer.sequence, answer.errno()?);
                    ensure!(
                        (sequence, errno) == (1000 + answered, 0),
                        "answer {sequence} with error {errno} where {answered} is due"
                    );
                    answered += 1;
                }
                _ => dump.framed(&part)?,
            }
        }
        reader.socket.send(&crate::message::noop(1000 + asked))?;
        asked += 1;
        reader.drive(Drive::Poll)?;
    }
    while reader.next_frame()?.is_some() {
        answered += 1;
    }
    ensure!(
        answered == asked && asked > 1,
        "{answered} answers of {asked}"
    );
    dump.assert_same(&wanted, whole)?;
    setting.note(format!(
        "{answered} answers between {} parts",
        dump.in_frames
    ));
    Ok(())
}

/// Contract, "poll, dumps, the rest": a ring torn down with a dump under way, full or not:
/// what was in unread frames is gone with it, and nothing else; the rest comes plainly.
fn a_ring_that_goes_during_a_dump_takes_no_part_along(setting: &mut Setting) -> anyhow::Result<()> {
    route::make(ROUTES)?;
    let wanted = plain(FAMILY, route::dump_routes)?;
    for read_before in [0, 1, 5] {
        let mut reader = Reader::open(FAMILY, shape(1)?)?;
        reader.socket.send(&route::dump_routes(SEQUENCE))?;
        let mut dump = Dump::new(SEQUENCE);
        for _ in 0..=read_before {
            reader.drive(Drive::Poll)?;
            let part = reader.next_frame()?.context("no part")?;
            dump.framed(&part)?;
        }
        let socket = reader.into_socket()?;
        while !dump.done {
            dump.copied(&peers::receive(&socket)?)?;
        }
        dump.assert_same(&wanted, whole)?;
        let mut again = Dump::new(SEQUENCE + 1);
        socket.send(&route::dump_routes(SEQUENCE + 1))?;
        while !again.done {
            again.copied(&peers::receive(&socket)?)?;
        }
        again.assert_same(&wanted, whole)?;
        setting.note(format!(
            "{} parts in frames, {} plain",
            dump.in_frames, dump.copied
        ));
    }
    Ok(())
}

/// A ring set up while a dump runs on a plain socket: the parts that follow come in frames.
fn a_ring_that_comes_during_a_dump_takes_over(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    route::make(ROUTES)?;
    let wanted = plain(FAMILY, route::dump_routes)?;
    let socket = Socket::open(FAMILY)?;
    socket.send(&route::dump_routes(SEQUENCE))?;
    let mut receiver = socket.rx_ring(shape(4)?, Flags::NONE)?;
    let dump = read(&mut receiver, SEQUENCE, patience)?;
    dump.assert_same(&wanted, whole)?;
    ensure!(
        dump.in_frames > 0 && dump.copied > 0,
        "{} parts in frames, {} by copy",
        dump.in_frames,
        dump.copied
    );
    setting.note(format!(
        "{} parts plain, then {} in frames",
        dump.copied, dump.in_frames
    ));
    Ok(())
}

/// A socket closed with a dump under way, parked or not, leaves nothing behind: not the dump, not
/// its parts, not the ring. (What it would hold is counted in its cgroup.)
fn a_socket_that_closes_during_a_dump_leaves_nothing(setting: &mut Setting) -> anyhow::Result<()> {
    const SOCKETS: u32 = 100;
    let patience = setting.patiently(Duration::from_secs(2));
    route::make(ROUTES)?;
    let group = crate::cgroup::Cgroup::make("closing", None)?;
    group.run(|| {
        for number in 0..SOCKETS {
            let reader = Reader::open(FAMILY, shape(1)?)?;
            if number % 2 == 0 {
                // Its answer fills the ring, so that the first part is parked.
                reader.socket.send(&crate::message::noop(number))?;
            }
            reader.socket.send(&route::dump_routes(SEQUENCE))?;
            for _ in 0..number % 3 {
                reader.drive(Drive::Poll)?;
            }
        }
        Ok(())
    })?;
    let left = group.await_at_most(128 * 1024, patience)?;
    let wanted = plain(FAMILY, route::dump_routes)?;
    let mut receiver = Socket::open(FAMILY)?.rx_ring(shape(4)?, Flags::NONE)?;
    receiver.socket().send(&route::dump_routes(SEQUENCE))?;
    read(&mut receiver, SEQUENCE, patience)?.assert_same(&wanted, whole)?;
    setting.note(format!(
        "{SOCKETS} dumps cut off, {left} bytes still counted"
    ));
    Ok(())
}
