// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `fallback`: rings and receive buffers that have no room, and who is told.

use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use anyhow::ensure;
use libc::{EAGAIN, ENOBUFS};
use nix::sys::socket::MsgFlags;
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::SocketError;
use nlring::{Flags, Geometry, Socket, Status};

use crate::counters::socket_drops;
use crate::delivery::{assert_holds, ringed};
use crate::frames::Frames;
use crate::message::noop;
use crate::option::{NETLINK_NO_ENOBUFS, assert_refused, set, set_number};
use crate::{Case, Setting, case, groups, peers, ready};

pub(crate) const CASES: &[Case] = &[
    case!(
        Fallback,
        a_program_that_sends_to_a_full_ring_is_told_at_once
    )
    .proves("rx-full rx-full-all-frames rx-full-eagain rx-full-resumes"),
    case!(Fallback, the_kernel_counts_what_a_full_ring_loses).proves(
        "rx-full rx-full-all-frames rx-full-counted rx-full-enobufs rx-full-resumes poll-error",
    ),
    case!(Fallback, a_full_ring_is_silent_to_who_wants_no_enobufs)
        .proves("rx-full-counted rx-full-no-enobufs rx-full-resumes"),
    case!(Fallback, what_fits_is_not_held_against_the_receive_buffer).proves("rx-buffer"),
    case!(Fallback, what_the_receive_buffer_cannot_hold_takes_no_frame).proves("rx-copy-buffer"),
    case!(Fallback, a_message_queues_cookie_comes_without_a_frame)
        .proves("poll-queue rest-message-queue"),
];

/// Frames of the rings that are filled here.
const FRAMES: u32 = 4;

fn small() -> anyhow::Result<Geometry> {
    Ok(Geometry::from_request(4096, FRAMES / 2, 2048, FRAMES)?)
}

/// Contract, "RX", ring full: a user sender, blocking or not, gets `EAGAIN` at once; frames that
/// are released are used with no further call; nothing is counted or told to the reader.
fn a_program_that_sends_to_a_full_ring_is_told_at_once(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    const ROUNDS: u32 = 5;
    let patience = setting.patiently(Duration::from_secs(1));
    let (socket, frames, port) = ringed(small()?, Flags::NONE)?;
    let (sender, _) = peers::open()?;
    let mut sent = 0;
    for round in 0..ROUNDS {
        for _ in 0..FRAMES {
            peers::send_to(&sender, port, &peers::content(sent, 100))?;
            sent += 1;
        }
        let begun = Instant::now();
        for flags in [MsgFlags::empty(), MsgFlags::MSG_DONTWAIT] {
            for len in [100, 5000] {
                let content = peers::content(0, len);
                let refused = peers::send_by(&sender, port, 0, &content, flags);
                assert_refused("a message for a full ring", refused, EAGAIN)?;
            }
        }
        let waited = begun.elapsed();
        ensure!(waited < patience, "4 refusals take {waited:?}");
        peers::assert_nothing_queued(&socket)?;
        // From the middle of the ring on, frame by frame, in round numbers.
        for number in sent - FRAMES..sent {
            let frame = number % FRAMES;
            assert_holds(&frames, frame, &peers::content(number, 100))?;
            frames.set_status(frame, Status::Unused);
        }
        peers::send_to(&sender, port, &peers::content(sent, 100))?;
        assert_holds(&frames, sent % FRAMES, &peers::content(sent, 100))?;
        frames.set_status(sent % FRAMES, Status::Unused);
        sent += 1;
        let drops = socket_drops(libc::NETLINK_USERSOCK, port)?;
        ensure!(drops == 0, "{drops} drops are counted in round {round}");
    }
    setting.note(format!("{sent} delivered, EAGAIN {} times", 4 * ROUNDS));
    Ok(())
}

/// Contract, "RX", ring full: for a kernel sender `sk_drops` counts each message, `ENOBUFS` is told
/// once unless one is pending already, and the socket is not congested: what comes after a frame
/// was released is delivered.
fn the_kernel_counts_what_a_full_ring_loses(setting: &mut Setting) -> anyhow::Result<()> {
    const TOO_MANY: u32 = 7;
    let (socket, frames, port) = answered_in(small()?)?;
    for round in 1..=3 {
        ask(&socket, FRAMES + TOO_MANY)?;
        let drops = socket_drops(libc::NETLINK_ROUTE, port)?;
        ensure!(drops == round * TOO_MANY, "{drops} drops in round {round}");
        let told = ready::events(&socket, Duration::ZERO)?;
        ensure!(told & libc::POLLERR != 0, "poll tells {told:#x}");
        if round == 2 {
            assert_refused("the loss", peers::receive(&socket), ENOBUFS)?;
            peers::assert_nothing_queued(&socket)?;
        } else {
            // Nothing that a program calls to read tells the kernel that there is room again.
            let pending = getsockopt(&socket, SocketError)?;
            ensure!(pending == ENOBUFS, "the pending error is {pending}");
        }
        for frame in 0..FRAMES {
            ensure!(
                frames.status(frame) == Some(Status::Valid),
                "frame {frame} is {:?}",
                frames.status(frame)
            );
        }
        // One frame is room for one message, though nothing was called in between.
        frames.set_status(0, Status::Unused);
        ask(&socket, 1)?;
        ensure!(
            frames.status(0) == Some(Status::Valid),
            "the released frame is not used"
        );
        // To the end of the ring, so that the next round begins at the first frame again.
        frames.set_statuses(Status::Unused);
        ask(&socket, FRAMES - 1)?;
        frames.set_statuses(Status::Unused);
    }
    setting.note(format!("3 times {TOO_MANY} counted, ENOBUFS once each"));
    Ok(())
}

/// A socket of rtnetlink with this ring, bound, and its port id.
fn answered_in(geometry: Geometry) -> anyhow::Result<(Socket, Frames, u32)> {
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    groups::bind(&socket, 0)?;
    let (port, _) = groups::address(&socket)?;
    socket.set_up_rx_ring(&geometry, Flags::NONE)?;
    let frames = Frames::map(&socket, geometry)?;
    Ok((socket, frames, port))
}

/// Makes the kernel send `count` answers.
fn ask(socket: &Socket, count: u32) -> anyhow::Result<()> {
    let requests: Vec<u8> = (0..count).flat_map(noop).collect();
    Ok(socket.send(&requests)?)
}

/// Contract, "RX", ring full: with `NETLINK_NO_ENOBUFS` losses are counted, and told by nothing.
fn a_full_ring_is_silent_to_who_wants_no_enobufs(setting: &mut Setting) -> anyhow::Result<()> {
    let (socket, frames, port) = answered_in(small()?)?;
    set(&socket, NETLINK_NO_ENOBUFS, &1_i32.to_ne_bytes())?;
    ask(&socket, FRAMES + 5)?;
    let drops = socket_drops(libc::NETLINK_ROUTE, port)?;
    ensure!(drops == 5, "{drops} drops are counted");
    let told = ready::events(&socket, Duration::ZERO)?;
    ensure!(told & libc::POLLERR == 0, "poll tells {told:#x}");
    peers::assert_nothing_queued(&socket)?;
    frames.set_statuses(Status::Unused);
    ask(&socket, 1)?;
    ensure!(
        frames.status(0) == Some(Status::Valid),
        "the ring does not go on"
    );
    setting.note("5 counted, none told");
    Ok(())
}

/// Contract, "RX": a message that fits is not held against the receive buffer, be that as small as
/// it can be, and full.
fn what_fits_is_not_held_against_the_receive_buffer(setting: &mut Setting) -> anyhow::Result<()> {
    let geometry = Geometry::new(64 * 1024, 16, 2048)?;
    let (socket, frames, port) = ringed(geometry, Flags::NONE)?;
    let (sender, _) = peers::open()?;
    set_number(&socket, libc::SO_RCVBUF, 1)?;
    // Three frames at most stand for messages that wait in the queue.
    let large = peers::content(0, 3000);
    let mut first = 0;
    while peers::send_by(&sender, port, 0, &large, MsgFlags::MSG_DONTWAIT).is_ok() {
        first += 1;
    }
    ensure!(
        (1..=3).contains(&first),
        "{first} messages filled the buffer"
    );
    for frame in first..geometry.frame_nr() {
        let content = peers::content(frame, geometry.room() as usize);
        peers::send_to(&sender, port, &content)?;
        assert_holds(&frames, frame, &content)?;
    }
    let kib = (geometry.frame_nr() - first) * geometry.room() / 1024;
    setting.note(format!(
        "{kib} KiB in frames beside a full buffer of the least size"
    ));
    Ok(())
}

/// Contract, "RX": if the receive buffer cannot hold a message that does not fit, no frame is
/// taken, and it is dropped as at a full ring: a program is told, the kernel counts.
fn what_the_receive_buffer_cannot_hold_takes_no_frame(setting: &mut Setting) -> anyhow::Result<()> {
    let (socket, frames, port) = ringed(Geometry::new(4096, 16, 2048)?, Flags::NONE)?;
    let (sender, _) = peers::open()?;
    set_number(&socket, libc::SO_RCVBUF, 1)?;
    let content = |number| peers::content(number, 3000);
    let mut copied = 0;
    while peers::send_by(&sender, port, 0, &content(copied), MsgFlags::empty()).is_ok() {
        copied += 1;
    }
    let taken = |frames: &Frames| {
        let used = |status: &&Option<Status>| **status != Some(Status::Unused);
        frames.statuses().iter().filter(used).count()
    };
    ensure!(
        copied > 0 && taken(&frames) == copied as usize,
        "{copied} messages are queued, {} frames taken",
        taken(&frames)
    );
    peers::send_to(&sender, port, b"fits")?;
    assert_holds(&frames, copied, b"fits")?;
    for number in 0..copied {
        ensure!(
            peers::receive(&socket)? == content(number),
            "{number} is garbled"
        );
    }
    peers::assert_nothing_queued(&socket)?;

    let route = Socket::open(libc::NETLINK_ROUTE)?;
    groups::bind(&route, 0)?;
    let (port, _) = groups::address(&route)?;
    let narrow = Geometry::new(4096, 2, 32)?;
    route.set_up_rx_ring(&narrow, Flags::NONE)?;
    let frames = Frames::map(&route, narrow)?;
    set_number(&route, libc::SO_RCVBUF, 1)?;
    ask(&route, 100)?;
    let drops = socket_drops(libc::NETLINK_ROUTE, port)? as usize;
    ensure!(
        drops > 0 && taken(&frames) + drops == 100,
        "{} frames taken, {drops} drops, of 100",
        taken(&frames)
    );
    assert_refused("the loss", peers::receive(&route), ENOBUFS)?;
    setting.note(format!(
        "{copied} queued and refused the next; {drops} of 100 answers dropped"
    ));
    Ok(())
}

/// Contract, "poll, dumps, the rest": POSIX message queues' notification cookies go to the socket's
/// queue without a frame.
fn a_message_queues_cookie_comes_without_a_frame(setting: &mut Setting) -> anyhow::Result<()> {
    /// `NOTIFY_COOKIE_LEN`.
    const COOKIE: usize = 32;
    let patience = setting.patiently(Duration::from_secs(2));
    let (socket, frames, _) = ringed(small()?, Flags::NONE)?;
    let name = c"/nlring";
    let flags = libc::O_CREAT | libc::O_RDWR;
    // SAFETY: the name is a string; without attributes the queue is of the usual size.
    let queue = unsafe {
        libc::mq_open(
            name.as_ptr(),
            flags,
            0o600,
            std::ptr::null::<libc::mq_attr>(),
        )
    };
    ensure!(queue >= 0, "mq_open: {}", std::io::Error::last_os_error());
    let mut cookie = [7_u8; COOKIE];
    // SAFETY: all zeros is a sigevent.
    let mut event: libc::sigevent = unsafe { std::mem::zeroed() };
    event.sigev_notify = libc::SIGEV_THREAD;
    event.sigev_signo = socket.as_fd().as_raw_fd();
    event.sigev_value.sival_ptr = cookie.as_mut_ptr().cast();
    // The system call itself: the C library's function makes a socket of its own.
    // SAFETY: the event and the cookie it points to are readable.
    let failed = unsafe { libc::syscall(libc::SYS_mq_notify, queue, &raw const event) };
    ensure!(
        failed == 0,
        "mq_notify: {}",
        std::io::Error::last_os_error()
    );
    // SAFETY: one byte is readable.
    let failed = unsafe { libc::mq_send(queue, c"x".as_ptr(), 1, 0) };
    ensure!(failed == 0, "mq_send: {}", std::io::Error::last_os_error());

    let told = ready::events(&socket, patience)?;
    ensure!(told == libc::POLLIN, "poll tells {told:#x}");
    ensure!(
        frames
            .statuses()
            .iter()
            .all(|&status| status == Some(Status::Unused)),
        "the cookie has taken a frame: {:?}",
        frames.statuses()
    );
    let came = peers::receive(&socket)?;
    ensure!(
        came.len() == COOKIE && came[..COOKIE - 1] == cookie[..COOKIE - 1],
        "another cookie came: {came:?}"
    );
    // SAFETY: the descriptor is ours.
    unsafe { libc::mq_close(queue) };
    // SAFETY: the name is a string.
    unsafe { libc::mq_unlink(name.as_ptr()) };
    peers::assert_nothing_queued(&socket)?;
    setting.note("a cookie of 32 bytes in the queue, no frame taken");
    Ok(())
}
