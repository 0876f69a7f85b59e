// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program that writes to its ring what it should not, while others go on beside it: it can lose and
//! garble messages of its own, and nothing more; and once it stops, its ring works as ever.

use std::time::{Duration, Instant};

use anyhow::ensure;
use nlring::{Flags, Geometry, Socket, Status};

use crate::child::Child;
use crate::delivery::{assert_holds, ringed};
use crate::frames::{Field, Frames};
use crate::option::assert_refused;
use crate::scribbler::Scribbler;
use crate::traffic::pin;
use crate::{Case, Setting, case, peers};

pub(crate) const CASES: &[Case] = &[
    case!(Ownership, random_words_of_a_forked_child_hurt_nobody_else)
        .proves("rx-untrusted rx-untrusted-others"),
    case!(Ownership, valid_turned_reserved_is_lost_and_no_more)
        .proves("rx-untrusted rx-untrusted-others"),
    case!(Ownership, a_storm_of_kept_frames_passes_without_a_trace)
        .proves("rx-skip rx-untrusted rx-untrusted-others"),
    case!(Ownership, a_mapping_that_comes_and_goes_disturbs_nobody)
        .proves("mapping-counted rx-untrusted-others"),
    case!(Ownership, a_reader_that_stalls_goes_on_where_it_was)
        .proves("rx-in-turn rx-released rx-full rx-full-resumes"),
];

const FRAMES: u32 = 16;

fn shape() -> anyhow::Result<Geometry> {
    Ok(Geometry::from_request(4096, FRAMES / 4, 1024, FRAMES)?)
}

/// What every message for the others has in it, and none for the victim.
const MARK: [u8; 16] = *b"\xa5not the victims";

/// A sender, and those who are to notice nothing: one with a ring and one without.
struct Others {
    sender: Socket,
    ringed: (Socket, Frames, u32),
    plain: (Socket, u32),
    served: u32,
}

impl Others {
    fn open() -> anyhow::Result<Self> {
        Ok(Self {
            sender: peers::open()?.0,
            ringed: ringed(shape()?, Flags::NONE)?,
            plain: peers::open()?,
            served: 0,
        })
    }

    /// A message to each, who must have it.
    fn serve(&mut self) -> anyhow::Result<()> {
        let number = self.served;
        let marked = [&MARK[..], &peers::content(number, 200)].concat();
        let (_, frames, port) = &self.ringed;
        peers::send_to(&self.sender, *port, &marked)?;
        assert_holds(frames, number % FRAMES, &marked)?;
        frames.set_status(number % FRAMES, Status::Unused);
        let (plain, port) = &self.plain;
        peers::send_to(&self.sender, *port, &marked)?;
        ensure!(peers::receive(plain)? == marked, "message {number} changed");
        self.served += 1;
        Ok(())
    }

    /// A message to the victim, whose ring may be full: some fit a frame, and some do not.
    fn try_victim(&self, port: u32) -> anyhow::Result<()> {
        let content = peers::content(self.served, 1 + (self.served as usize * 131) % 1400);
        match peers::send_to(&self.sender, port, &content) {
            Ok(_) => Ok(()),
            refused => assert_refused("a message to the victim", refused, libc::EAGAIN),
        }
    }

    /// Goes on for so long.
    fn go_on_for(&mut self, span: Duration, victim: u32) -> anyhow::Result<()> {
        pin(0)?;
        let until = Instant::now() + span;
        while Instant::now() < until {
            self.try_victim(victim)?;
            self.serve()?;
        }
        Ok(())
    }

    /// The victim has nothing of the others' messages, and its ring works in every frame, in turn.
    fn assert_recovered(&self, victim: &(Socket, Frames, u32)) -> anyhow::Result<()> {
        let (socket, frames, port) = victim;
        let words: Vec<u8> = (0..frames.words())
            .flat_map(|word| {
                let word = frames.word(word).load(std::sync::atomic::Ordering::Relaxed);
                word.to_ne_bytes()
            })
            .collect();
        ensure!(
            !words.windows(MARK.len()).any(|bytes| bytes == MARK),
            "a message for somebody else is in the ring"
        );
        while peers::receive(socket).is_ok() {}
        // Twice, for a frame that was passed as kept waits for what took its place.
        for _ in 0..2 {
            frames.set_statuses(Status::Unused);
            let _ = peers::send_to(&self.sender, *port, b"where is the head?");
        }
        let found = frames.statuses();
        let head = found
            .iter()
            .position(|&status| status == Some(Status::Valid));
        let head = head.ok_or_else(|| anyhow::anyhow!("the ring takes nothing any more"))?;
        frames.set_statuses(Status::Unused);
        for number in 1..=2 * FRAMES {
            let frame = (head as u32 + number) % FRAMES;
            let content = peers::content(number, 500);
            peers::send_to(&self.sender, *port, &content)?;
            assert_holds(frames, frame, &content)?;
            frames.set_status(frame, Status::Unused);
        }
        Ok(())
    }
}

/// Contract, "RX": a user that writes garbage into headers or payload, at any moment, can lose or garble
/// its own messages and nothing more; here it is a child that inherited the mapping, and is killed.
fn random_words_of_a_forked_child_hurt_nobody_else(setting: &mut Setting) -> anyhow::Result<()> {
    let span = setting.patiently(Duration::from_millis(100));
    let victim = ringed(shape()?, Flags::NONE)?;
    let mut others = Others::open()?;
    let (frames, mut random) = (victim.1.clone(), fastrand::Rng::with_seed(setting.seed));
    let child = Child::start(|| {
        pin(1)?;
        loop {
            let frame = random.u32(..FRAMES);
            let word = frames.geometry().frame_offset(frame) / size_of::<u32>();
            let (word, value) = match random.u8(..4) {
                0 | 1 => (word, random.u32(..6)),
                2 => (word + random.usize(..6), random.u32(..)),
                _ => (random.usize(..frames.words()), random.u32(..)),
            };
            frames
                .word(word)
                .store(value, std::sync::atomic::Ordering::Relaxed);
        }
    })?;
    let outcome = others.go_on_for(span, victim.2);
    child.kill()?;
    outcome?;
    others.assert_recovered(&victim)?;
    setting.note(format!(
        "{} messages to each of two others; the ring works again",
        others.served
    ));
    Ok(())
}

/// Runs the others' traffic beside a thread that does this to every frame, again and again.
fn meddle(
    setting: &mut Setting,
    flags: Flags,
    scribble: fn(&Frames, u32) -> bool,
) -> anyhow::Result<()> {
    let span = setting.patiently(Duration::from_millis(100));
    let victim = ringed(shape()?, flags)?;
    let mut others = Others::open()?;
    let scribbler = Scribbler::frame_by_frame(victim.1.clone(), scribble);
    others.go_on_for(span, victim.2)?;
    let meddled = scribbler.finish()?;
    ensure!(meddled > 0, "nothing was tried");
    others.assert_recovered(&victim)?;
    setting.note(format!(
        "{meddled} times, beside {} messages to each of two others",
        others.served
    ));
    Ok(())
}

fn is_all_reserved(frames: &Frames) -> bool {
    let statuses = frames.statuses();
    statuses
        .iter()
        .all(|&status| status == Some(Status::Reserved))
}

/// The same: `VALID` is turned into `RESERVED`, which is the kernel's word, as soon as it is seen; what was
/// so marked comes free when the ring is full of it.
fn valid_turned_reserved_is_lost_and_no_more(setting: &mut Setting) -> anyhow::Result<()> {
    meddle(setting, Flags::NONE, |frames, frame| {
        let next = match frames.status(frame) {
            Some(Status::Valid | Status::Copy) => Status::Reserved,
            // Not before the kernel has come round to them.
            Some(Status::Reserved) if is_all_reserved(frames) => Status::Unused,
            _ => return false,
        };
        frames.set_status(frame, next);
        true
    })
}

/// The same: frames turn `SKIP` whatever they are, the kernel's too, and `UNUSED` again.
fn a_storm_of_kept_frames_passes_without_a_trace(setting: &mut Setting) -> anyhow::Result<()> {
    for flags in [Flags::NONE, Flags::ORDERED] {
        meddle(setting, flags, |frames, frame| {
            let next = match frames.status(frame) {
                Some(Status::Skip) => Status::Unused,
                _ => Status::Skip,
            };
            frames.set_status(frame, next);
            true
        })?;
    }
    Ok(())
}

/// Contract, "Mapping": mappings come and go under traffic; messages go on arriving, in the ring and in
/// turn, whoever looks.
fn a_mapping_that_comes_and_goes_disturbs_nobody(setting: &mut Setting) -> anyhow::Result<()> {
    let span = setting.patiently(Duration::from_millis(100));
    let (socket, port) = peers::open()?;
    socket.set_up_rx_ring(&shape()?, Flags::NONE)?;
    let mut others = Others::open()?;
    let until = Instant::now() + span;
    let (mut number, mut mappings) = (0, 0_u32);
    while Instant::now() < until {
        let frames = Frames::map(&socket, shape()?)?;
        for frame in (0..FRAMES).filter(|&frame| frames.status(frame) != Some(Status::Unused)) {
            let wanted = peers::content(number, 300);
            ensure!(
                frame == number % FRAMES,
                "message {number} is in frame {frame}"
            );
            assert_holds(&frames, frame, &wanted)?;
            frames.set_status(frame, Status::Unused);
            number += 1;
        }
        drop(frames);
        mappings += 1;
        // As many as fit before the end of the ring, so that they are found in their order.
        for next in number..number + 1 + number % (FRAMES - number % FRAMES) {
            peers::send_to(&others.sender, port, &peers::content(next, 300))?;
        }
        others.serve()?;
    }
    setting.note(format!("{number} messages over {mappings} mappings"));
    Ok(())
}

/// A reader that stalls until the ring is full, at any place in it, and then goes on, finds all that came
/// before it was full, in order, and after that what came when there was room again.
fn a_reader_that_stalls_goes_on_where_it_was(setting: &mut Setting) -> anyhow::Result<()> {
    const STALLS: u32 = 200;
    let mut random = fastrand::Rng::with_seed(setting.seed);
    let (_socket, frames, port) = ringed(shape()?, Flags::NONE)?;
    let (sender, _) = peers::open()?;
    let (mut sent, mut read) = (0_u32, 0_u32);
    for stall in 0..STALLS {
        while sent - read < FRAMES {
            peers::send_to(&sender, port, &peers::content(sent, 400))?;
            sent += 1;
        }
        for _ in 0..random.u32(1..4) {
            let refused = peers::send_to(&sender, port, b"one too many");
            assert_refused("a message beyond the ring", refused, libc::EAGAIN)?;
        }
        for _ in 0..random.u32(1..=FRAMES) {
            let frame = read % FRAMES;
            assert_holds(&frames, frame, &peers::content(read, 400))?;
            ensure!(
                frames.get(frame, Field::Len) == 400,
                "a length of another message at stall {stall}"
            );
            frames.set_status(frame, Status::Unused);
            read += 1;
        }
    }
    setting.note(format!("{STALLS} stalls, {read} messages read in order"));
    Ok(())
}
