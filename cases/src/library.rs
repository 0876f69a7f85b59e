// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `library`: what the ring library promises beyond the kernel, from a program's side.

use std::os::fd::AsRawFd as _;

use anyhow::{Context as _, ensure};
use nix::sys::socket::{NetlinkAddr, bind};
use nlring::{Error, Flags, Geometry, Path, Sender, Socket};

use crate::option::assert_refused;
use crate::syscalls::{self, Calls};
use crate::{Case, Kernel, Setting, case, groups, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Library, reading_a_ring_takes_no_system_call),
    case!(Library, a_batch_goes_out_by_one_system_call),
    case!(Library, what_a_flush_is_refused_can_be_taken_back)
        .proves("tx-error-stays tx-error-way-out"),
    case!(Library, what_is_refused_without_a_ring_can_be_taken_back)
        .proves("rest-library")
        .on(Kernel::Any),
    case!(Library, rings_are_had_both_or_not_at_all),
    case!(Library, a_ring_without_groups_says_so_when_one_is_joined)
        .proves("multicast-membership multicast-opt-in"),
];

/// Messages of a batch.
const MESSAGES: u32 = 200;

/// Bytes of a message.
const LEN: usize = 100;

fn shape() -> anyhow::Result<Geometry> {
    Ok(Geometry::for_messages(256, MESSAGES)?)
}

/// Two sockets, the second's messages going to the first.
fn pair() -> anyhow::Result<(Socket, Socket)> {
    let (to, port) = peers::open()?;
    let (from, _) = peers::open()?;
    peers::connect(&from, port)?;
    Ok((to, from))
}

/// The library, "Speed": no system call per message while frames are waiting; without a ring one for
/// many.
fn reading_a_ring_takes_no_system_call(setting: &mut Setting) -> anyhow::Result<()> {
    let read = |ringed: bool| {
        syscalls::of(
            || {
                let (to, from) = pair()?;
                let receiver = if ringed {
                    to.rx_ring(shape()?, Flags::ORDERED)?
                } else {
                    to.plain()
                };
                for number in 0..MESSAGES {
                    from.send(&peers::content(number, LEN))?;
                }
                Ok((receiver, from))
            },
            |(receiver, _)| {
                for number in 0..MESSAGES {
                    let received = receiver.receive()?.context("too few messages came")?;
                    let message = received.message().context("messages were lost")?;
                    ensure!(message.len() == LEN, "message {number} was cut");
                }
                Ok(())
            },
        )
    };
    let ringed = read(true)?;
    ensure!(ringed.is_empty(), "reading the ring called {ringed:?}");
    let plain = read(false)?;
    let by_many = Calls::from([(libc::SYS_recvmmsg, MESSAGES.div_ceil(32))]);
    ensure!(plain == by_many, "reading without a ring called {plain:?}");
    setting.note(format!(
        "{MESSAGES} messages: no system call from a ring, {plain:?} without one"
    ));
    Ok(())
}

/// The library, "Speed": one call per batch.
fn a_batch_goes_out_by_one_system_call(setting: &mut Setting) -> anyhow::Result<()> {
    let sent = |ringed: bool| {
        syscalls::of(
            || {
                let (to, from) = pair()?;
                let sender = if ringed {
                    from.tx_ring(shape()?)?
                } else {
                    from.plain_sender(shape()?)?
                };
                Ok((sender, to))
            },
            |(sender, _)| {
                for number in 0..MESSAGES {
                    let slot = sender.slot()?.context("no frame is free")?;
                    slot.send(&[number as u8; LEN]);
                }
                let bytes = sender.flush()?;
                ensure!(bytes == LEN * MESSAGES as usize, "{bytes} bytes went out");
                Ok(())
            },
        )
    };
    let ringed = sent(true)?;
    let one = Calls::from([(libc::SYS_sendto, 1)]);
    ensure!(ringed == one, "sending through the ring called {ringed:?}");
    let plain = sent(false)?;
    let by_many = Calls::from([(libc::SYS_sendmmsg, MESSAGES.div_ceil(32))]);
    ensure!(plain == by_many, "sending without a ring called {plain:?}");
    setting.note(format!(
        "{MESSAGES} messages: {ringed:?} through a ring, {plain:?} without one"
    ));
    Ok(())
}

/// The library's `Sender::take_back`: a message that is refused stays, is the first of the next flush,
/// and can be given up, by itself.
fn assert_taken_back(make: fn(Socket) -> anyhow::Result<Sender>) -> anyhow::Result<()> {
    let (gone, port) = peers::open()?;
    let (from, _) = peers::open()?;
    peers::connect(&from, port)?;
    let mut sender = make(from)?;
    for number in 0..4 {
        let slot = sender.slot()?.context("no frame is free")?;
        slot.send(&peers::content(number, LEN));
    }
    drop(gone); // nobody has the port: whatever goes there is refused
    for _ in 0..2 {
        let refused = sender.flush().map_err(io_error);
        assert_refused("a flush to nobody", refused, libc::ECONNREFUSED)?;
    }
    ensure!(sender.take_back()?, "nothing could be taken back");
    let back = Socket::open(libc::NETLINK_USERSOCK)?;
    bind(back.as_raw_fd(), &NetlinkAddr::new(port, 0))?;
    let bytes = sender.flush()?;
    ensure!(bytes == 3 * LEN, "{bytes} bytes went out, not {}", 3 * LEN);
    for number in 1..4 {
        let came = peers::receive(&back)?;
        ensure!(
            came == peers::content(number, LEN),
            "message {number} is another"
        );
    }
    peers::assert_nothing_queued(&back)?;
    ensure!(!sender.take_back()?, "what went out was taken back");
    Ok(())
}

fn io_error(error: Error) -> std::io::Error {
    let number = error.raw_os_error();
    number.map_or_else(
        || std::io::Error::other(error),
        std::io::Error::from_raw_os_error,
    )
}

fn what_a_flush_is_refused_can_be_taken_back(_: &mut Setting) -> anyhow::Result<()> {
    assert_taken_back(|socket| {
        let sender = socket.tx_ring(shape()?)?;
        ensure!(sender.path() == Path::Ring, "there is no ring");
        Ok(sender)
    })
}

fn what_is_refused_without_a_ring_can_be_taken_back(_: &mut Setting) -> anyhow::Result<()> {
    assert_taken_back(|socket| Ok(socket.plain_sender(shape()?)?))
}

/// The library's `Socket::rings`: where the second cannot be had, the socket, which somebody else may
/// go on using, has none.
fn rings_are_had_both_or_not_at_all(setting: &mut Setting) -> anyhow::Result<()> {
    let (socket, port) = peers::open()?;
    let (from, _) = peers::open()?;
    // The second exists already.
    let other = Socket::duplicate(&socket)?;
    other.set_up_tx_ring(&shape()?)?;
    let refused = Socket::duplicate(&socket)?.rings(shape()?, Flags::NONE, shape()?);
    let error = refused.err().context("a second TX ring was granted")?;
    ensure!(matches!(error, Error::Busy { .. }), "refused with {error}");
    let left = socket.rx_ring_request()?.context("there are no rings")?;
    ensure!(left.block_nr == 0, "the RX ring was left behind: {left:?}");
    peers::send_to(&from, port, b"by the queue")?;
    ensure!(peers::receive(&socket)? == b"by the queue", "it is another");
    socket.tear_down_tx_ring()?;
    let (receiver, sender) = socket.rings(shape()?, Flags::NONE, shape()?)?;
    ensure!(
        (receiver.path(), sender.path()) == (Path::Ring, Path::Ring),
        "no rings after that"
    );
    setting.note(format!("{error}"));
    Ok(())
}

/// The library's `Socket::join`: the refusal is an error of its own, with what to do.
fn a_ring_without_groups_says_so_when_one_is_joined(setting: &mut Setting) -> anyhow::Result<()> {
    let open = |flags| {
        let socket = Socket::open(libc::NETLINK_ROUTE)?;
        anyhow::Ok(socket.rx_ring(shape()?, flags)?)
    };
    let refused = open(Flags::NONE)?.socket().join(groups::LINK_GROUP);
    let error = refused.err().context("the ring joined a group")?;
    ensure!(
        matches!(error, Error::RefusesGroups { group } if group == groups::LINK_GROUP),
        "refused with {error}"
    );
    let joined = open(Flags::MULTICAST)?;
    joined.socket().join(groups::LINK_GROUP)?;
    joined.socket().leave(groups::LINK_GROUP)?;
    setting.note(format!("{error}"));
    Ok(())
}
