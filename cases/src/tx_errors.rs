// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `tx`: what cannot be sent stays where it is and is told, and hurts nothing
//! else.

use std::os::fd::AsFd;
use std::time::Duration;

use anyhow::ensure;
use libc::{EAGAIN, ECONNREFUSED, EINVAL, EMSGSIZE, EOPNOTSUPP, EPERM};
use nlring::{Flags, Geometry, Socket, Status};

use crate::flush::{flush, flush_by_message, flush_to};
use crate::frames::Frames;
use crate::message::{ACK, Message, Writer, noop};
use crate::option::{assert_refused, set_number};
use crate::tx::{assert_receives, assert_status, ring_on, ring_to, shape};
use crate::{Case, Setting, answers, case, child, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Tx, a_wrong_length_is_refused_and_its_frame_stays_next).proves(
        "tx-error-stays tx-error-told tx-error-way-out tx-length-zero tx-length-large fault-25",
    ),
    case!(Tx, what_goes_out_before_an_error_is_told_first)
        .proves("tx-bytes tx-error-stays tx-error-next tx-error-way-out"),
    case!(Tx, an_unsendable_frame_can_be_marked_skip).proves("tx-skip tx-error-way-out fault-25"),
    case!(Tx, nobody_at_the_other_end_is_told_and_tried_again)
        .proves("tx-error-stays tx-error-told tx-error-way-out"),
    case!(Tx, a_message_beyond_the_send_buffer_is_refused_alone)
        .proves("tx-send-buffer tx-error-stays tx-error-next"),
    case!(Tx, a_full_receiving_ring_refuses_and_the_frame_stays)
        .proves("rx-full rx-full-eagain tx-error-stays"),
    case!(Tx, a_flush_to_a_group_is_refused).proves("tx-plain-sends tx-multicast"),
    case!(Tx, a_message_in_a_ring_has_the_rights_of_its_sender)
        .proves("tx-credentials tx-no-more-checks fault-23"),
    case!(Tx, a_request_that_the_kernel_refuses_is_answered_as_ever).proves("tx-answers"),
    case!(Tx, a_message_in_a_ring_says_who_sent_it).proves("tx-credentials"),
    case!(Tx, a_batch_in_a_ring_is_answered_message_by_message).proves("tx-answers fault-13"),
];

/// Contract, "TX"; known fault 25: `nm_len` 0 or beyond the frame's room is `EINVAL`, the
/// frame stays `VALID` and stays next; mended, it goes out.
fn a_wrong_length_is_refused_and_its_frame_stays_next(setting: &mut Setting) -> anyhow::Result<()> {
    let (peer, port) = peers::open()?;
    let (socket, frames) = ring_to(port, shape()?)?;
    let room = frames.geometry().room();
    let wrong = [
        0,
        room + 1,
        room + 24,
        4096,
        i32::MAX as u32,
        1 << 31,
        u32::MAX,
    ];
    for (frame, len) in (0..).zip(wrong) {
        let behind = (frame + 1) % frames.geometry().frame_nr();
        frames.submit(behind, b"behind");
        frames.submit_len(frame, len);
        for _ in 0..2 {
            assert_refused(&format!("{len} bytes"), flush(&socket), EINVAL)?;
            assert_refused(&format!("{len} bytes"), flush_by_message(&socket), EINVAL)?;
            assert_status(&frames, frame, Status::Valid)?;
            assert_status(&frames, behind, Status::Valid)?;
        }
        peers::assert_nothing_queued(&peer)?;
        frames.set_status(behind, Status::Unused);
        frames.submit(frame, b"mended");
        ensure!(flush(&socket)? == 6, "the mended frame is not sent");
        assert_receives(&peer, b"mended")?;
    }
    setting.note(format!(
        "{} wrong lengths refused, each then mended",
        wrong.len()
    ));
    Ok(())
}

/// Contract, "TX": the error is returned if nothing went out in this call, else the short count,
/// and the error by the next flush.
fn what_goes_out_before_an_error_is_told_first(setting: &mut Setting) -> anyhow::Result<()> {
    let (peer, port) = peers::open()?;
    let (socket, frames) = ring_to(port, shape()?)?;
    for frame in [0, 1, 2, 4, 5] {
        frames.submit(frame, &peers::content(frame, 100));
    }
    frames.submit_len(3, 0);
    let sent = flush(&socket)?;
    ensure!(sent == 300, "{sent} bytes are told where 300 went out");
    assert_refused("the frame behind", flush(&socket), EINVAL)?;
    for frame in 0..3 {
        assert_status(&frames, frame, Status::Unused)?;
        assert_receives(&peer, &peers::content(frame, 100))?;
    }
    peers::assert_nothing_queued(&peer)?;
    for frame in 3..6 {
        assert_status(&frames, frame, Status::Valid)?;
    }
    frames.submit(3, &peers::content(3, 100));
    ensure!(flush(&socket)? == 300, "the rest is not sent");
    for frame in 3..6 {
        assert_receives(&peer, &peers::content(frame, 100))?;
    }
    setting.note("300 bytes, EINVAL, 300 bytes");
    Ok(())
}

/// Contract, "TX"; known fault 25: the owner marks a frame that cannot be sent `SKIP`, and the ring
/// goes on behind it.
fn an_unsendable_frame_can_be_marked_skip(setting: &mut Setting) -> anyhow::Result<()> {
    let (peer, port) = peers::open()?;
    let (socket, frames) = ring_to(port, shape()?)?;
    frames.submit_len(0, u32::MAX);
    frames.submit(1, b"behind");
    assert_refused("a length without meaning", flush(&socket), EINVAL)?;
    frames.set_status(0, Status::Skip);
    ensure!(flush(&socket)? == 6, "the frame behind is not sent");
    assert_receives(&peer, b"behind")?;
    for frame in [0, 1] {
        assert_status(&frames, frame, Status::Unused)?;
    }
    setting.note("EINVAL, then past it");
    Ok(())
}

/// Contract, "TX": `ECONNREFUSED` keeps the frame, and somebody who comes later gets it.
fn nobody_at_the_other_end_is_told_and_tried_again(setting: &mut Setting) -> anyhow::Result<()> {
    let (peer, port) = peers::open()?;
    let (other, other_port) = peers::open()?;
    let (socket, frames) = ring_to(port, shape()?)?;
    for frame in 0..3 {
        frames.submit(frame, &peers::content(frame, 50));
    }
    drop(peer);
    for _ in 0..3 {
        assert_refused("nobody there", flush(&socket), ECONNREFUSED)?;
        assert_status(&frames, 0, Status::Valid)?;
    }
    let sent = flush_to(&socket, other_port, 0)?;
    ensure!(sent == 150, "{sent} bytes went to somebody else");
    for frame in 0..3 {
        assert_receives(&other, &peers::content(frame, 50))?;
    }
    setting.note("ECONNREFUSED 3 times, then all 3 to somebody else");
    Ok(())
}

/// Contract, "TX": each message meets the check of the send buffer that one sent with `sendto`
/// meets, and the same length is the last that passes both.
fn a_message_beyond_the_send_buffer_is_refused_alone(setting: &mut Setting) -> anyhow::Result<()> {
    let geometry = Geometry::new(64 * 1024, 1, 16 * 1024)?;
    let (peer, port) = peers::open()?;
    let (socket, frames) = ring_to(port, geometry)?;
    set_number(&socket, libc::SO_SNDBUF, 4000)?;
    let passes = |len: usize| match peers::send_to(&socket, port, &peers::content(0, len)) {
        Ok(_) => peers::receive(&peer).map(|_| true),
        Err(error) if error.raw_os_error() == Some(EMSGSIZE) => Ok(false),
        Err(error) => Err(error),
    };
    let (mut largest, mut too_large) = (1, geometry.room() as usize);
    ensure!(
        passes(largest)? && !passes(too_large)?,
        "the send buffer is no bound"
    );
    while too_large - largest > 1 {
        let len = largest.midpoint(too_large);
        if passes(len)? {
            largest = len;
        } else {
            too_large = len;
        }
    }
    frames.submit(0, &peers::content(0, largest));
    frames.submit(1, &peers::content(1, too_large));
    frames.submit(2, &peers::content(2, 10));
    ensure!(flush(&socket)? == largest, "{largest} bytes are not sent");
    assert_refused("a byte more", flush(&socket), EMSGSIZE)?;
    assert_status(&frames, 1, Status::Valid)?;
    frames.set_status(1, Status::Skip);
    ensure!(flush(&socket)? == 10, "the frame behind is not sent");
    assert_receives(&peer, &peers::content(0, largest))?;
    assert_receives(&peer, &peers::content(2, 10))?;
    setting.note(format!(
        "{largest} bytes pass, {too_large} do not, by sendto and by flush"
    ));
    Ok(())
}

/// Contract, "RX", ring full, and "TX": a user sender, blocking or not, gets `EAGAIN` at once; by a
/// flush too, and the frame goes out when there is room.
fn a_full_receiving_ring_refuses_and_the_frame_stays(setting: &mut Setting) -> anyhow::Result<()> {
    let (peer, port) = peers::open()?;
    let narrow = Geometry::from_request(4096, 1, 2048, 2)?;
    peer.set_up_rx_ring(&narrow, Flags::NONE)?;
    let received = Frames::map(&peer, narrow)?;
    let (socket, frames) = ring_to(port, shape()?)?;
    for frame in 0..5 {
        frames.submit(frame, &peers::content(frame, 80));
    }
    for (first, more) in [(0, 2), (2, 2), (4, 1)] {
        let sent = flush(&socket)?;
        ensure!(
            sent == 80 * more as usize,
            "{sent} bytes into {more} frames"
        );
        if first + more < 5 {
            assert_refused("a message for a full ring", flush(&socket), EAGAIN)?;
            assert_status(&frames, first + more, Status::Valid)?;
        }
        for number in first..first + more {
            let frame = number % 2;
            ensure!(
                received.message(frame) == peers::content(number, 80),
                "message {number} is not in frame {frame}"
            );
            received.set_status(frame, Status::Unused);
        }
    }
    setting.note("EAGAIN twice at 2 frames; all 5 messages came, in order");
    Ok(())
}

/// Contract, "TX": flushing the ring to a multicast group is `EOPNOTSUPP`, by address or because
/// the socket is connected to one; the frame stays; an ordinary multicast still works.
fn a_flush_to_a_group_is_refused(setting: &mut Setting) -> anyhow::Result<()> {
    let (member, port) = peers::open()?;
    crate::groups::join(&member, 1)?;
    let (socket, frames) = ring_on(peers::open()?.0, shape()?)?;
    frames.submit(0, b"for everybody");
    for to in [0, port] {
        assert_refused("a flush to a group", flush_to(&socket, to, 1), EOPNOTSUPP)?;
    }
    let address = nix::sys::socket::NetlinkAddr::new(0, 1);
    let fd = std::os::fd::AsRawFd::as_raw_fd(&socket.as_fd());
    nix::sys::socket::connect(fd, &address)?;
    assert_refused("a flush to one's group", flush(&socket), EOPNOTSUPP)?;
    assert_status(&frames, 0, Status::Valid)?;
    peers::assert_nothing_queued(&member)?;

    let none = nix::sys::socket::MsgFlags::empty();
    // The kernel's own end of this family takes nothing, which is told when all others have theirs.
    let sent = peers::send_by(&socket, 0, 1, b"the plain way", none);
    assert_refused("an ordinary multicast", sent, ECONNREFUSED)?;
    assert_receives(&member, b"the plain way")?;
    ensure!(flush_to(&socket, port, 0)? == 13, "the frame is not sent");
    assert_receives(&member, b"for everybody")?;
    setting.note("EOPNOTSUPP by address and by connection");
    Ok(())
}

/// `RTM_NEWLINK`, to set a link's group: what only an administrator may.
fn privileged_request(sequence: u32) -> Vec<u8> {
    const NEWLINK: u16 = 16;
    const IFLA_GROUP: u16 = 27;
    let mut ifinfomsg = [0; 16];
    ifinfomsg[4] = 1; // the loopback device
    Writer::request(NEWLINK, ACK, sequence)
        .with(&ifinfomsg)
        .attribute(IFLA_GROUP, &7_u32.to_ne_bytes())
        .end()
}

/// The error with which the kernel answers the next request.
fn next_errno(socket: &Socket) -> anyhow::Result<i32> {
    Message::read(&peers::receive(socket)?)?.errno()
}

/// Contract, "TX"; known fault 23: a message sent through the ring meets the same capability checks
/// as one sent with `sendto`, no more and no fewer: of an administrator it is allowed, of somebody
/// who once was one it is not, whoever opened the socket.
fn a_message_in_a_ring_has_the_rights_of_its_sender(setting: &mut Setting) -> anyhow::Result<()> {
    let (socket, frames) = ring_on(Socket::open(libc::NETLINK_ROUTE)?, shape()?)?;
    let by_both_ways = |frame: u32| {
        socket.send(&privileged_request(1))?;
        let plain = next_errno(&socket)?;
        frames.submit(frame, &privileged_request(2));
        flush(&socket)?;
        let ringed = next_errno(&socket)?;
        ensure!(
            plain == ringed,
            "error {plain} by sendto, {ringed} by the ring"
        );
        Ok(plain)
    };
    let errno = by_both_ways(0)?;
    ensure!(errno == 0, "an administrator is refused: {errno}");
    child::run(|| {
        nix::unistd::setuid(nix::unistd::Uid::from_raw(65534))?;
        let errno = by_both_ways(1)?;
        ensure!(errno == EPERM, "one without rights gets {errno}, not EPERM");
        Ok(())
    })?;
    setting.note("allowed to root, EPERM for nobody, by both ways alike");
    Ok(())
}

/// Contract, "TX"; known fault 23: a message from a frame carries the credentials of whoever flushes, as
/// one by `sendto` does, and the port of its socket.
fn a_message_in_a_ring_says_who_sent_it(setting: &mut Setting) -> anyhow::Result<()> {
    const UID: u32 = 1234;
    let (peer, port) = peers::open()?;
    set_number(&peer, libc::SO_PASSCRED, 1)?;
    let (socket, frames) = ring_to(port, shape()?)?;
    let send_both = |frame: u32| {
        socket.send(&noop(1))?;
        frames.submit(frame, &noop(2));
        anyhow::Ok(flush(&socket)?)
    };
    send_both(0)?;
    child::run(|| {
        nix::unistd::setuid(nix::unistd::Uid::from_raw(UID))?;
        send_both(1)?;
        Ok(())
    })?;
    for uid in [0, UID] {
        let [plain, ringed] = [peers::credentials(&peer)?, peers::credentials(&peer)?];
        ensure!(
            plain == ringed,
            "{plain:?} by sendto, {ringed:?} by the ring"
        );
        ensure!(
            ringed.uid() == uid && ringed.pid() != 0,
            "{ringed:?}, not of {uid}"
        );
    }
    setting.note(format!("root and user {UID}, as by sendto"));
    Ok(())
}

/// Known fault 13: a batch of nfnetlink is answered message by message, from the buffer that it came
/// in, which had no socket once. What is wrong with it is told as it is for `sendto`.
fn a_batch_in_a_ring_is_answered_message_by_message(setting: &mut Setting) -> anyhow::Result<()> {
    /// `NFNL_MSG_BATCH_BEGIN` and `_END`, and `struct nfgenmsg` for `nf_tables`, to which they belong.
    const BATCH: [u16; 2] = [16, 17];
    const NF_TABLES: [u8; 4] = [0, 0, 0, 10];
    /// `NFT_MSG_DELTABLE`, with `NFTA_TABLE_NAME`.
    const DELETE_TABLE: u16 = 10 << 8 | 2;
    const TABLE_NAME: u16 = 1;
    let [begin, end] = BATCH.map(|kind| Writer::request(kind, 0, 0).with(&NF_TABLES).end());
    let delete = |sequence| {
        Writer::request(DELETE_TABLE, ACK, sequence)
            .with(&[libc::AF_INET as u8, 0, 0, 0])
            .attribute(TABLE_NAME, b"nowhere\0")
            .end()
    };
    let batch = [begin, delete(1), delete(2), end].concat();
    let (socket, frames) = ring_on(Socket::open(libc::NETLINK_NETFILTER)?, shape()?)?;
    let answers = || {
        let mut answers = Vec::new();
        while let Ok(answer) = peers::receive(&socket) {
            answers.push(answer);
        }
        answers
    };
    socket.send(&batch)?;
    let plain = answers();
    frames.submit(0, &batch);
    ensure!(flush(&socket)? == batch.len(), "not all was sent");
    let ringed = answers();
    ensure!(plain == ringed, "the answers differ: {plain:?}, {ringed:?}");
    ensure!(plain.len() == 2, "{} answers to two messages", plain.len());
    for (answer, sequence) in plain.iter().zip(1..) {
        let answer = Message::read(answer)?;
        ensure!(
            answer.sequence == sequence && answer.errno()? == libc::ENOENT,
            "message {sequence} is answered by {answer:?}"
        );
    }
    setting.note("two messages of a batch, each refused by ENOENT, both ways");
    Ok(())
}

/// Contract, "TX": errors of the family are answers, not errors of the flush: they come as they do
/// for `sendto`, byte for byte but for the sequence number, and the ring goes on.
fn a_request_that_the_kernel_refuses_is_answered_as_ever(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(2));
    let unknown = |sequence| {
        let request = Writer::request(0x3fff, ACK, sequence).with(&[9; 40]);
        request.end()
    };
    let (socket, frames) = ring_on(Socket::open(libc::NETLINK_ROUTE)?, shape()?)?;
    socket.send(&unknown(1))?;
    let plain = peers::receive(&socket)?;
    frames.submit(0, &unknown(1));
    frames.submit(1, &noop(2));
    ensure!(flush(&socket)? == 56 + 16, "not all was sent");
    let ringed = peers::receive(&socket)?;
    ensure!(plain == ringed, "the answers differ: {plain:?}, {ringed:?}");
    ensure!(
        Message::read(&ringed)?.errno()? == libc::EOPNOTSUPP,
        "another error than EOPNOTSUPP"
    );
    let (number, _) = answers::next(&mut socket.plain(), patience)?;
    ensure!(number == 2, "answer {number} came for the message behind");
    setting.note(format!("one answer of {} bytes, both ways", plain.len()));
    Ok(())
}
