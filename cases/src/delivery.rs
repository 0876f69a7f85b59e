// SPDX-License-Identifier: MIT OR Apache-2.0
//! How a message comes to stand in a frame: its header, its bytes, and none besides. The senders
//! are programs, so every length and every moment is the case's own choice.

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry, Socket, Status};

use crate::child;
use crate::filter::{self, JUMP_IF_EQUAL, LOAD_BYTE, RETURN, instruction};
use crate::frames::{Field, Frames};
use crate::message::noop;
use crate::option::{assert_refused, set_number};
use crate::{Case, Setting, answers, case, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Ownership, a_frame_says_who_sent_its_message).proves(
        "rx-layout rx-valid rx-pid rx-pid-kernel rx-uid-gid rx-every-sender multicast-group",
    ),
    case!(Ownership, nothing_of_an_earlier_message_stays_in_a_frame)
        .proves("rx-valid rx-copy rx-room fault-27"),
    case!(Ownership, a_frame_lies_within_one_block)
        .proves("setup-frame-place setup-blocks rx-in-turn rx-valid"),
    case!(Ownership, a_socket_filter_sees_what_a_ring_receives).proves("rest-filter"),
    case!(Ordering, copy_frames_stand_as_their_messages_do)
        .proves("rx-in-turn rx-valid rx-copy rx-copy-length rx-copy-pairs"),
    case!(Fallback, frames_without_room_mark_every_message)
        .proves("rx-copy rx-copy-length rx-copy-pairs"),
    case!(Fallback, kept_frames_do_not_block_a_message_by_copy).proves("rx-skip-copy fault-21"),
    case!(Limits, more_kept_frames_than_the_bound_are_a_full_ring)
        .proves("rx-skip rx-skip-locked rx-skip-bound"),
];

/// A socket with an RX ring that programs can send to: the socket, its frames, and its port id.
pub(crate) fn ringed(geometry: Geometry, flags: Flags) -> anyhow::Result<(Socket, Frames, u32)> {
    let (socket, port) = peers::open()?;
    socket.set_up_rx_ring(&geometry, flags)?;
    let frames = Frames::map(&socket, geometry)?;
    Ok((socket, frames, port))
}

/// This frame has this message.
pub(crate) fn assert_holds(frames: &Frames, frame: u32, content: &[u8]) -> anyhow::Result<()> {
    let status = frames.status(frame);
    ensure!(
        status == Some(Status::Valid) && frames.message(frame) == content,
        "frame {frame} is {status:?} with {} bytes, and should hold {}",
        frames.get(frame, Field::Len),
        content.len()
    );
    Ok(())
}

/// Contract, "RX": `nm_len`, `nm_group`, and `nm_pid`, `nm_uid`, `nm_gid` as `recvmsg` reports them
/// with `SCM_CREDENTIALS`: of the kernel, of ourselves, and of somebody else.
fn a_frame_says_who_sent_its_message(setting: &mut Setting) -> anyhow::Result<()> {
    const UID: u32 = 1234;
    const GID: u32 = 5678;
    let geometry = Geometry::from_request(4096, 2, 1024, 8)?;
    let (_socket, frames, port) = ringed(geometry, Flags::NONE)?;
    let (plain, plain_port) = peers::open()?;
    set_number(&plain, libc::SO_PASSCRED, 1)?;
    let send_to_both = |content: &[u8]| {
        let (sender, _) = peers::open()?;
        peers::send_to(&sender, port, content)?;
        peers::send_to(&sender, plain_port, content)?;
        anyhow::Ok(())
    };
    send_to_both(b"of root")?;
    child::run(|| {
        nix::unistd::setgid(nix::unistd::Gid::from_raw(GID))?;
        nix::unistd::setuid(nix::unistd::Uid::from_raw(UID))?;
        send_to_both(b"of another user")
    })?;
    for (frame, content) in [&b"of root"[..], b"of another user"]
        .into_iter()
        .enumerate()
    {
        let frame = frame as u32;
        assert_holds(&frames, frame, content)?;
        let told = peers::credentials(&plain)?;
        let told = [told.pid().cast_unsigned(), told.uid(), told.gid()];
        let found = [Field::Pid, Field::Uid, Field::Gid].map(|field| frames.get(frame, field));
        ensure!(found == told, "the frame says {found:?}, recvmsg {told:?}");
        ensure!(found[0] != 0, "a program sends as the kernel");
        ensure!(
            frames.get(frame, Field::Group) == 0,
            "a unicast has a group"
        );
        let wanted = if frame == 0 { [0, 0] } else { [UID, GID] };
        ensure!(found[1..] == wanted, "{found:?} is not who sent it");
    }

    let kernel = Socket::open(libc::NETLINK_ROUTE)?;
    kernel.set_up_rx_ring(&geometry, Flags::NONE)?;
    let frames = Frames::map(&kernel, geometry)?;
    kernel.send(&noop(1))?;
    let found = [Field::Len, Field::Group, Field::Pid, Field::Uid, Field::Gid]
        .map(|field| frames.get(0, field));
    ensure!(
        found == [answers::ANSWER as u32, 0, 0, 0, 0],
        "the kernel's answer has {found:?}"
    );
    setting.note(format!(
        "uid {UID}, gid {GID}, root and the kernel, as recvmsg tells"
    ));
    Ok(())
}

/// Known fault 27: behind a shorter message, and in a `COPY` frame, nothing of an earlier one is
/// left.
fn nothing_of_an_earlier_message_stays_in_a_frame(setting: &mut Setting) -> anyhow::Result<()> {
    for flags in [Flags::NONE, Flags::ORDERED] {
        let geometry = Geometry::from_request(4096, 1, 2048, 2)?;
        let room = geometry.room() as usize;
        let (socket, frames, port) = ringed(geometry, flags)?;
        let (sender, _) = peers::open()?;
        let lens = [room, 100, 7, room - 1, 1, room + 1, 50, room + 500, room];
        for (number, len) in (0..).zip(lens) {
            let content = peers::content(number, len);
            // Both frames, each with the same history.
            for frame in 0..2 {
                peers::send_to(&sender, port, &content)?;
                let mut expected = if len > room {
                    Vec::new()
                } else {
                    content.clone()
                };
                expected.resize(room, 0);
                ensure!(
                    frames.room(frame) == expected,
                    "behind message {number} of {len} bytes something is left in frame {frame}"
                );
                if len > room {
                    ensure!(
                        peers::receive(&socket)? == content,
                        "the copied one is garbled"
                    );
                }
                frames.set_status(frame, Status::Unused);
            }
        }
    }
    setting.note("9 lengths in turn, zeros behind each, in both orders");
    Ok(())
}

/// Contract, "Names and layouts": frame *i* lies in block `i / frames_per_block`; the end of a
/// block that is too short for a frame stays unused, and nothing is written there.
fn a_frame_lies_within_one_block(setting: &mut Setting) -> anyhow::Result<()> {
    const LAPS: u32 = 3;
    let shapes = [
        (4096, 5, 1364),
        (4096, 5, 1500),
        (12_288, 3, 5000),
        (8192, 4, 8192),
    ];
    for (block_size, block_nr, frame_size) in shapes {
        let geometry = Geometry::new(block_size, block_nr, frame_size)?;
        let room = geometry.room() as usize;
        let (_socket, frames, port) = ringed(geometry, Flags::NONE)?;
        let (sender, _) = peers::open()?;
        for number in 0..LAPS * geometry.frame_nr() {
            let content = peers::content(number, room);
            peers::send_to(&sender, port, &content)?;
            let frame = number % geometry.frame_nr();
            assert_holds(&frames, frame, &content)?;
            frames.set_status(frame, Status::Unused);
        }
        let per_block = block_size / frame_size;
        let used = (per_block * frame_size / 4) as usize;
        let block = (block_size / 4) as usize;
        for word in (0..frames.words()).filter(|word| word % block >= used) {
            let found = frames.word(word).load(std::sync::atomic::Ordering::Relaxed);
            ensure!(found == 0, "word {word} is in no frame and was written to");
        }
    }
    setting.note(format!(
        "{} shapes, {LAPS} laps each, every frame full",
        shapes.len()
    ));
    Ok(())
}

/// Contract, "poll, dumps, the rest": socket filters behave on a ringed socket as on any other:
/// what one refuses takes no frame, what one cuts is cut in the frame.
fn a_socket_filter_sees_what_a_ring_receives(setting: &mut Setting) -> anyhow::Result<()> {
    // The first byte: 1 is refused, 2 is cut to 10 bytes, everything else passes.
    let mut program = [
        instruction(LOAD_BYTE, 0, 0, 0),
        instruction(JUMP_IF_EQUAL, 0, 1, 1),
        instruction(RETURN, 0, 0, 0),
        instruction(JUMP_IF_EQUAL, 0, 1, 2),
        instruction(RETURN, 0, 0, 10),
        instruction(RETURN, 0, 0, u32::MAX),
    ];
    for flags in [Flags::NONE, Flags::ORDERED] {
        let geometry = Geometry::from_request(4096, 2, 1024, 8)?;
        let (socket, frames, port) = ringed(geometry, flags)?;
        filter::attach(&socket, &mut program)?;
        let (sender, _) = peers::open()?;
        for first in [1, 2, 3, 1, 2, 3] {
            peers::send_to(&sender, port, &[first; 300])?;
        }
        let expected = [(0, [2; 10].to_vec()), (1, [3; 300].to_vec())];
        for (frame, content) in expected.iter().cycle().take(4).enumerate() {
            assert_holds(&frames, frame as u32, &content.1)?;
        }
        ensure!(
            frames.status(4) == Some(Status::Unused),
            "what the filter refuses has taken a frame"
        );
        peers::send_to(&sender, port, &[2; 3000])?;
        assert_holds(&frames, 4, &[2; 10])?;
    }
    setting.note("2 refused, 3 cut, 2 whole, in both orders");
    Ok(())
}

/// Contract, "RX": `COPY` frames stand in the same order as the messages in the queue, one for one,
/// in both orders, and among the others in the order of sending.
fn copy_frames_stand_as_their_messages_do(setting: &mut Setting) -> anyhow::Result<()> {
    const MESSAGES: u32 = 500;
    let mut counted = [0; 2];
    for flags in [Flags::NONE, Flags::ORDERED] {
        let geometry = Geometry::from_request(4096, 16, 1024, 64)?;
        let room = geometry.room() as usize;
        let (socket, frames, port) = ringed(geometry, flags)?;
        let (sender, _) = peers::open()?;
        let mut random = fastrand::Rng::with_seed(setting.seed);
        let (mut sent, mut read) = (0, 0);
        while read < MESSAGES {
            for _ in 0..random.u32(1..=geometry.frame_nr() - (sent - read)) {
                peers::send_to(&sender, port, &content(sent, room))?;
                sent += 1;
            }
            for _ in 0..random.u32(1..=sent - read) {
                let frame = read % geometry.frame_nr();
                let content = content(read, room);
                if content.len() <= room {
                    assert_holds(&frames, frame, &content)?;
                    counted[0] += 1;
                } else {
                    let len = frames.get(frame, Field::Len) as usize;
                    ensure!(
                        frames.status(frame) == Some(Status::Copy) && len == content.len(),
                        "frame {frame} is {:?} for {len} bytes, not COPY for {}",
                        frames.status(frame),
                        content.len()
                    );
                    let received = peers::receive(&socket)?;
                    ensure!(received == content, "the queue is not in the frames' order");
                    counted[1] += 1;
                }
                frames.set_status(frame, Status::Unused);
                read += 1;
            }
        }
    }
    let [in_place, copied] = counted;
    setting.note(format!(
        "{in_place} in frames, {copied} by copy, each in its place"
    ));
    Ok(())
}

/// Message `number`, larger than the room or not.
fn content(number: u32, room: usize) -> Vec<u8> {
    let mut random = fastrand::Rng::with_seed(number.into());
    let len = random.usize(room - 200..room + 200);
    peers::content(number, len)
}

/// Contract, "RX", `COPY`: a frame that is but a header holds no message, so all come by copy, each
/// with its length and its place.
fn frames_without_room_mark_every_message(setting: &mut Setting) -> anyhow::Result<()> {
    let geometry = Geometry::new(4096, 1, 24)?;
    let (socket, frames, port) = ringed(geometry, Flags::ORDERED)?;
    let (sender, _) = peers::open()?;
    for frame in 0..geometry.frame_nr().min(100) {
        let content = peers::content(frame, 1 + frame as usize);
        peers::send_to(&sender, port, &content)?;
        let found = (frames.status(frame), frames.get(frame, Field::Len));
        ensure!(
            found == (Some(Status::Copy), frame + 1),
            "frame {frame} is {found:?}"
        );
        ensure!(
            peers::receive(&socket)? == content,
            "message {frame} is garbled"
        );
    }
    peers::assert_nothing_queued(&socket)?;
    setting.note("100 messages by COPY frames of 24 bytes");
    Ok(())
}

/// Contract, "RX": more than 1024 `SKIP` frames in a row for one message count as a full ring; 1024
/// do not.
fn more_kept_frames_than_the_bound_are_a_full_ring(setting: &mut Setting) -> anyhow::Result<()> {
    const BOUND: u32 = 1024;
    let geometry = Geometry::new(4096, 10, 32)?;
    let (_socket, frames, port) = ringed(geometry, Flags::NONE)?;
    let (sender, _) = peers::open()?;
    ensure!(geometry.frame_nr() > BOUND + 10, "the ring is too short");
    for frame in 0..=BOUND {
        frames.set_status(frame, Status::Skip);
    }
    let sent = peers::send_to(&sender, port, b"far");
    assert_refused("a message behind 1025 kept frames", sent, libc::EAGAIN)?;
    frames.set_status(BOUND, Status::Unused);
    peers::send_to(&sender, port, b"near")?;
    assert_holds(&frames, BOUND, b"near")?;
    // The position is behind them now.
    peers::send_to(&sender, port, b"next")?;
    assert_holds(&frames, BOUND + 1, b"next")?;
    setting.note("EAGAIN behind 1025, delivered behind 1024");
    Ok(())
}

/// Contract, "RX", `SKIP`; known fault 21: the kernel passes frames that the user keeps for messages
/// that do not fit, too.
fn kept_frames_do_not_block_a_message_by_copy(setting: &mut Setting) -> anyhow::Result<()> {
    const FRAMES: u32 = 4;
    const KEPT: u32 = 2;
    let geometry = Geometry::from_request(4096, 1, 1024, FRAMES)?;
    let (socket, frames, port) = ringed(geometry, Flags::NONE)?;
    let (sender, _) = peers::open()?;
    for number in 0..FRAMES {
        peers::send_to(&sender, port, &peers::content(number, 100))?;
        let status = if number < KEPT {
            Status::Skip
        } else {
            Status::Unused
        };
        frames.set_status(number, status);
    }
    let large = peers::content(FRAMES, 3000);
    peers::send_to(&sender, port, &large).context("a large message behind kept frames")?;
    let told = (frames.status(KEPT), frames.get(KEPT, Field::Len));
    ensure!(
        told == (Some(Status::Copy), 3000),
        "the frame behind the kept ones has {told:?}"
    );
    ensure!(peers::receive(&socket)? == large, "another message came");
    for number in 0..KEPT {
        let message = frames.message(number);
        ensure!(
            frames.status(number) == Some(Status::Skip) && message == peers::content(number, 100),
            "kept frame {number} has changed"
        );
    }
    setting.note(format!("3000 bytes by COPY behind {KEPT} kept frames"));
    Ok(())
}
