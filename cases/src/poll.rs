// SPDX-License-Identifier: MIT OR Apache-2.0
//! Cases of the group `poll`: what wakes a waiting program, and what does not.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nlring::{Flags, Geometry, Received, Socket, Status};

use crate::delivery::ringed;
use crate::frames::Frames;
use crate::message::noop;
use crate::ready::{events, is_readable};
use crate::{Case, Setting, answers, case, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Poll, a_new_ring_has_nothing_to_read).proves("poll-valid"),
    case!(Poll, a_message_in_a_frame_wakes).proves("poll-wakes"),
    case!(Poll, a_message_by_copy_wakes).proves("poll-copy poll-queue poll-wakes"),
    case!(Poll, poll_stays_ready_until_the_last_frame_is_released).proves("poll-valid poll-behind"),
    case!(Poll, a_kept_frame_alone_wakes_nobody).proves("poll-skip poll-behind"),
    case!(Poll, a_reserved_frame_alone_wakes_nobody_and_hides_nothing)
        .proves("poll-reserved poll-behind-reserved fault-7"),
    case!(Poll, what_waits_in_the_queue_is_readable_without_a_frame)
        .proves("poll-valid poll-queue"),
    case!(Poll, a_pending_error_is_told_beside_what_there_is_to_read).proves("poll-error"),
    case!(Poll, epoll_tells_levels_and_edges).proves("poll-valid poll-copy poll-wakes"),
    case!(Poll, a_large_ring_is_not_scanned).proves("poll-constant fault-8"),
    case!(Library, a_reader_reads_on_behind_a_frame_that_is_filled).proves("poll-read-on"),
    case!(Poll, a_reader_that_waits_misses_nothing)
        .proves("rx-in-turn poll-wakes")
        .within(10),
];

fn shape() -> anyhow::Result<Geometry> {
    Ok(Geometry::from_request(4096, 4, 2048, 8)?)
}

/// `poll` says this of reading, at once.
fn assert_readable(socket: &Socket, expected: bool, when: &str) -> anyhow::Result<()> {
    let readable = is_readable(socket)?;
    ensure!(readable == expected, "{when}: readable is {readable}");
    Ok(())
}

/// Contract, "poll": nothing to read in a new ring, in a ring that was read empty, and lap after
/// lap.
fn a_new_ring_has_nothing_to_read(setting: &mut Setting) -> anyhow::Result<()> {
    let (socket, frames, port) = ringed(shape()?, Flags::NONE)?;
    let (sender, _) = peers::open()?;
    assert_readable(&socket, false, "new")?;
    for number in 0..20 {
        peers::send_to(&sender, port, b"message")?;
        assert_readable(&socket, true, "with a message")?;
        frames.set_status(number % 8, Status::Unused);
        assert_readable(&socket, false, "read empty")?;
    }
    setting.note("20 messages, each told once, over 2 laps");
    Ok(())
}

/// Waits in `poll` while another thread sends; the time it took and what was told.
fn woken_by(socket: &Socket, port: u32, content: &[u8], patience: Duration) -> anyhow::Result<i16> {
    let (sender, _) = peers::open()?;
    thread::scope(|scope| {
        let waiter = scope.spawn(|| events(socket, patience));
        thread::sleep(patience / 40);
        ensure!(!waiter.is_finished(), "poll does not wait for anything");
        peers::send_to(&sender, port, content)?;
        Ok(waiter.join().expect("no panic")?)
    })
}

/// Contract, "poll": `POLLIN` if a frame is `VALID`: who waits is woken.
fn a_message_in_a_frame_wakes(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(1));
    let (socket, frames, port) = ringed(shape()?, Flags::NONE)?;
    for number in 0..10 {
        let told = woken_by(&socket, port, b"message", patience)?;
        ensure!(told == libc::POLLIN, "poll tells {told:#x}");
        frames.set_status(number % 8, Status::Unused);
    }
    setting.note("10 times asleep, 10 times woken");
    Ok(())
}

/// Contract, "poll": `POLLIN` if a frame is `COPY`; and as long as it is, even if its message was
/// fetched; and as long as there is a message, even if its frame was released.
fn a_message_by_copy_wakes(setting: &mut Setting) -> anyhow::Result<()> {
    let patience = setting.patiently(Duration::from_secs(1));
    let (socket, frames, port) = ringed(shape()?, Flags::NONE)?;
    let large = peers::content(0, 3000);
    for number in 0..10 {
        let told = woken_by(&socket, port, &large, patience)?;
        ensure!(told == libc::POLLIN, "poll tells {told:#x}");
        let fetch = || peers::receive(&socket);
        let release = || frames.set_status(number % 8, Status::Unused);
        if number % 2 == 0 {
            ensure!(fetch()? == large, "the message is garbled");
            assert_readable(&socket, true, "fetched, its frame not released")?;
            release();
        } else {
            release();
            assert_readable(&socket, true, "released, its message not fetched")?;
            ensure!(fetch()? == large, "the message is garbled");
        }
        assert_readable(&socket, false, "fetched and released")?;
    }
    setting.note("10 times asleep, 10 times woken; frame and queue each count");
    Ok(())
}

/// Contract, "poll": readable while any frame is not released, in whichever order that happens.
fn poll_stays_ready_until_the_last_frame_is_released(setting: &mut Setting) -> anyhow::Result<()> {
    const ROUNDS: u32 = 50;
    let (socket, frames, port) = ringed(shape()?, Flags::NONE)?;
    let (sender, _) = peers::open()?;
    let mut random = fastrand::Rng::with_seed(setting.seed);
    let mut next = 0;
    for round in 0..ROUNDS {
        let count = random.u32(1..=8);
        let mut unread: Vec<u32> = (next..next + count).map(|number| number % 8).collect();
        for _ in 0..count {
            peers::send_to(&sender, port, b"message")?;
        }
        next += count;
        random.shuffle(&mut unread);
        while let Some(frame) = unread.pop() {
            assert_readable(
                &socket,
                true,
                &format!("round {round}, before frame {frame}"),
            )?;
            frames.set_status(frame, Status::Unused);
        }
        assert_readable(&socket, false, &format!("round {round}, all released"))?;
    }
    setting.note(format!(
        "{next} frames in {ROUNDS} rounds, released in random order"
    ));
    Ok(())
}

/// Contract, "poll": a `SKIP` frame does not wake; what comes behind it does; and the cursor moves
/// over it for good.
fn a_kept_frame_alone_wakes_nobody(setting: &mut Setting) -> anyhow::Result<()> {
    let span = setting.patiently(Duration::from_millis(20));
    let (socket, frames, port) = ringed(shape()?, Flags::NONE)?;
    let (sender, _) = peers::open()?;
    for frame in 0..3 {
        peers::send_to(&sender, port, b"kept")?;
        frames.set_status(frame, Status::Skip);
    }
    ensure!(events(&socket, span)? == 0, "three kept frames wake");
    for number in 0..20 {
        peers::send_to(&sender, port, b"message")?;
        assert_readable(&socket, true, "with a message behind kept frames")?;
        frames.set_status(3 + number % 5, Status::Unused);
        assert_readable(&socket, false, "read empty but for kept frames")?;
    }
    frames.set_status(1, Status::Unused);
    assert_readable(&socket, false, "with a kept frame given back")?;
    setting.note("3 kept of 8; 20 messages around them, each told once");
    Ok(())
}

/// Contract, "poll"; known fault 7: a lone `RESERVED` frame does not wake, and `VALID` frames
/// behind it do. (The word is the case's: what the kernel itself reserves is gone before it can be
/// looked at.)
fn a_reserved_frame_alone_wakes_nobody_and_hides_nothing(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let span = setting.patiently(Duration::from_millis(20));
    let (socket, frames, port) = ringed(shape()?, Flags::NONE)?;
    let (sender, _) = peers::open()?;
    for frame in 0..3 {
        peers::send_to(&sender, port, b"message")?;
        if frame < 2 {
            frames.set_status(frame, Status::Reserved);
        }
    }
    assert_readable(&socket, true, "with a message behind reserved frames")?;
    frames.set_status(2, Status::Unused);
    ensure!(events(&socket, span)? == 0, "two reserved frames wake");
    setting.note("readable behind two reserved frames, silent over them");
    Ok(())
}

/// Contract, "poll": `POLLIN` if the socket's queue is not empty: messages from before the ring.
fn what_waits_in_the_queue_is_readable_without_a_frame(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let (socket, port) = peers::open()?;
    let (sender, _) = peers::open()?;
    peers::send_to(&sender, port, b"early")?;
    socket.set_up_rx_ring(&shape()?, Flags::NONE)?;
    let frames = Frames::map(&socket, shape()?)?;
    assert_readable(&socket, true, "with a message from before")?;
    peers::send_to(&sender, port, b"late")?;
    ensure!(
        peers::receive(&socket)? == b"early",
        "the early one is gone"
    );
    assert_readable(&socket, true, "with a message in a frame")?;
    frames.set_status(0, Status::Unused);
    assert_readable(&socket, false, "read empty")?;
    drop(frames);

    // And messages that stay in a ring which is torn down are gone with it.
    peers::send_to(&sender, port, b"lost")?;
    assert_readable(&socket, true, "before the tear-down")?;
    socket.tear_down_rx_ring()?;
    assert_readable(&socket, false, "after the tear-down")?;
    peers::send_to(&sender, port, b"plain")?;
    ensure!(
        peers::receive(&socket)? == b"plain",
        "the plain one is gone"
    );

    let mut receiver = {
        peers::send_to(&sender, port, b"early again")?;
        socket.rx_ring(shape()?, Flags::NONE)?
    };
    peers::send_to(&sender, port, b"framed")?;
    let mut came = Vec::new();
    while receiver.wait(Some(Duration::ZERO))? {
        while let Some(received) = receiver.receive()? {
            let ringed = matches!(received, Received::Frame(_));
            came.push((received.message().map(<[u8]>::to_vec), ringed));
        }
    }
    came.sort();
    let expected = [(b"early again".to_vec(), false), (b"framed".to_vec(), true)];
    ensure!(
        came == expected.map(|(message, ringed)| (Some(message), ringed)),
        "there came {came:?}"
    );
    setting.note("queue, frame, and neither");
    Ok(())
}

/// Contract, "poll": `POLLERR` for a pending error, which is taken away by whoever is told it.
fn a_pending_error_is_told_beside_what_there_is_to_read(
    setting: &mut Setting,
) -> anyhow::Result<()> {
    let geometry = Geometry::from_request(4096, 1, 2048, 2)?;
    let socket = Socket::open(libc::NETLINK_ROUTE)?;
    socket.set_up_rx_ring(&geometry, Flags::NONE)?;
    let frames = Frames::map(&socket, geometry)?;
    let requests: Vec<u8> = (0..5).flat_map(noop).collect();
    socket.send(&requests)?;
    let told = events(&socket, Duration::ZERO)?;
    let both = libc::POLLIN | libc::POLLERR;
    ensure!(told == both, "with a loss poll tells {told:#x}");
    let loss = peers::receive(&socket);
    crate::option::assert_refused("the loss", loss, libc::ENOBUFS)?;
    let told = events(&socket, Duration::ZERO)?;
    ensure!(
        told == libc::POLLIN,
        "with the loss told poll tells {told:#x}"
    );
    frames.set_statuses(Status::Unused);
    let told = events(&socket, Duration::ZERO)?;
    ensure!(told == 0, "with nothing left poll tells {told:#x}");
    setting.note("both, then POLLIN, then nothing");
    Ok(())
}

/// Contract, "poll": `epoll` by level tells while there is something; by edge once for each
/// arrival.
fn epoll_tells_levels_and_edges(setting: &mut Setting) -> anyhow::Result<()> {
    let (socket, frames, port) = ringed(shape()?, Flags::NONE)?;
    let (sender, _) = peers::open()?;
    let watch = |flags: EpollFlags| {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&socket, EpollEvent::new(EpollFlags::EPOLLIN | flags, 0))?;
        nix::Result::Ok(epoll)
    };
    let (level, edge) = (watch(EpollFlags::empty())?, watch(EpollFlags::EPOLLET)?);
    let told = |epoll: &Epoll| {
        let mut room = [EpollEvent::empty()];
        let count = epoll.wait(&mut room, EpollTimeout::ZERO)?;
        nix::Result::Ok(count == 1)
    };
    ensure!(!told(&level)? && !told(&edge)?, "told of a new ring");
    for number in 0..20 {
        let content = peers::content(number, if number % 4 == 0 { 3000 } else { 100 });
        peers::send_to(&sender, port, &content)?;
        ensure!(told(&edge)?, "arrival {number} is no edge");
        ensure!(!told(&edge)?, "arrival {number} is two edges");
        ensure!(
            told(&level)? && told(&level)?,
            "arrival {number} is no level"
        );
        if number % 4 == 0 {
            peers::receive(&socket)?;
        }
        frames.set_status(number % 8, Status::Unused);
        ensure!(
            !told(&level)? && !told(&edge)?,
            "message {number} is told again"
        );
    }
    setting.note("20 arrivals, 20 edges");
    Ok(())
}

/// Contract, "poll"; known fault 8: nothing scans the ring: once its frames were passed, `poll`
/// takes as long on a ring of 64 Ki frames as on one of 16, with something to read and with
/// nothing.
fn a_large_ring_is_not_scanned(setting: &mut Setting) -> anyhow::Result<()> {
    const POLLS: u32 = 200;
    const FACTOR: u32 = 8;
    let quickest = |blocks: u32| {
        let geometry = Geometry::new(4096, blocks, 256)?;
        let (socket, frames, port) = ringed(geometry, Flags::NONE)?;
        let (sender, _) = peers::open()?;
        let frame_nr = geometry.frame_nr();
        // Far enough from the beginning that a scan from there would be long.
        for frame in 0..frame_nr * 3 / 4 {
            peers::send_to(&sender, port, b"message")?;
            frames.set_status(frame, Status::Unused);
        }
        let mut times = [Duration::MAX; 2];
        for (kind, time) in times.iter_mut().enumerate() {
            if kind == 1 {
                peers::send_to(&sender, port, b"message")?;
            }
            for _ in 0..POLLS {
                let begun = Instant::now();
                let readable = is_readable(&socket)?;
                *time = begun.elapsed().min(*time);
                ensure!(readable == (kind == 1), "readable is {readable}");
            }
        }
        Ok(times)
    };
    let small = quickest(1)?;
    let large = quickest(4096)?;
    for (small, large) in small.into_iter().zip(large) {
        ensure!(
            large < small * FACTOR,
            "poll takes {large:?} on 65536 frames, {small:?} on 16"
        );
    }
    setting.note(format!(
        "with nothing to read {:?} on 16 frames, {:?} on 65536; with a message {:?}, {:?}",
        small[0], large[0], small[1], large[1]
    ));
    Ok(())
}

/// Contract, "poll": wake-ups are not lost: a reader that sleeps whenever there is nothing hears of
/// every message of a sender that never waits longer than a frame is full.
fn a_reader_that_waits_misses_nothing(setting: &mut Setting) -> anyhow::Result<()> {
    const MESSAGES: u32 = 20_000;
    let patience = setting.patiently(Duration::from_secs(2));
    let socket = Socket::open(libc::NETLINK_USERSOCK)?;
    crate::groups::bind(&socket, 0)?;
    let (port, _) = crate::groups::address(&socket)?;
    let mut receiver = socket.rx_ring(Geometry::new(4096, 4, 256)?, Flags::NONE)?;
    let (sender, _) = peers::open()?;
    let stop = AtomicBool::new(false);
    let (waits, came) = thread::scope(|scope| {
        let stop = &stop;
        scope.spawn(move || {
            for number in 0..MESSAGES {
                while peers::send_to(&sender, port, &number.to_ne_bytes()).is_err() {
                    if stop.load(Ordering::Relaxed) {
                        return;
                    }
                    thread::yield_now();
                }
            }
        });
        let mut read = || {
            let (mut waits, mut came) = (0_u32, 0);
            while came < MESSAGES {
                while let Some(received) = receiver.receive()? {
                    let number = received.message().map(|bytes| bytes[..4].try_into());
                    let number = u32::from_ne_bytes(number.expect("a message")?);
                    ensure!(number == came, "message {number} came where {came} is due");
                    came += 1;
                }
                if came < MESSAGES {
                    waits += 1;
                    ensure!(
                        receiver.wait(Some(patience))?,
                        "asleep after {came} messages"
                    );
                }
            }
            Ok((waits, came))
        };
        let outcome = read();
        stop.store(true, Ordering::Relaxed);
        outcome
    })?;
    answers::assert_works(
        &mut Socket::open(libc::NETLINK_ROUTE)?.rx_ring(shape()?, Flags::NONE)?,
        patience,
    )?;
    setting.note(format!("{came} messages in order, {waits} times asleep"));
    Ok(())
}

/// Contract, "poll": a reader that meets `RESERVED` with `VALID` frames behind it may read on and come
/// back, and the library does. (The word is the case's, as above.)
fn a_reader_reads_on_behind_a_frame_that_is_filled(setting: &mut Setting) -> anyhow::Result<()> {
    let (socket, port) = peers::open()?;
    let (sender, _) = peers::open()?;
    let mut receiver = socket.rx_ring(shape()?, Flags::NONE)?;
    let frames = Frames::map(&receiver, shape()?)?;
    let mut expect = |number: Option<u32>| {
        let found = receiver.receive()?;
        let message = found.as_ref().and_then(Received::message);
        let wanted = number.map(|number| peers::content(number, 50));
        ensure!(
            message == wanted.as_deref(),
            "not message {number:?}, but {message:?}"
        );
        Ok(())
    };
    for number in 0..3 {
        peers::send_to(&sender, port, &peers::content(number, 50))?;
    }
    frames.set_status(0, Status::Reserved);
    expect(Some(1))?;
    expect(Some(2))?;
    expect(None)?;
    peers::send_to(&sender, port, &peers::content(3, 50))?;
    expect(Some(3))?;
    frames.set_status(0, Status::Valid);
    expect(Some(0))?;
    expect(None)?;
    peers::send_to(&sender, port, &peers::content(4, 50))?;
    expect(Some(4))?;
    setting.note("three messages read behind a frame that was being filled, then its own");
    Ok(())
}
