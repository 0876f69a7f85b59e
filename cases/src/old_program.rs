// SPDX-License-Identifier: MIT OR Apache-2.0
//! A program as it was written for Linux 3.10 to 4.5: it knows the request of 16 bytes, the five
//! states, and that a frame may say `COPY`; and nothing that came later.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use nlring::{Flags, Geometry, Socket, Status};

use crate::flush::flush;
use crate::frames::Frames;
use crate::groups::{self, LINK_GROUP};
use crate::message::{DONE, DUMP, Message, Writer, noop};
use crate::option::{self, RINGS, assert_refused, request, request_for};
use crate::{Case, Setting, case, peers, ready};

pub(crate) const CASES: &[Case] =
    &[case!(Fallback, a_program_of_old_runs_unchanged)
        .proves("setup-old-request rest-old-program")];

/// `RTM_GETLINK`.
const GETLINK: u16 = 18;

/// Its two rings, and where it is in each.
struct Program {
    socket: Socket,
    rx: Frames,
    tx: Frames,
    next: u32,
    free: u32,
}

impl Program {
    fn start(geometry: Geometry) -> anyhow::Result<Self> {
        let socket = Socket::open(libc::NETLINK_ROUTE)?;
        let words = request(&[
            geometry.block_size(),
            geometry.block_nr(),
            geometry.frame_size(),
            geometry.frame_nr(),
        ]);
        for (name, ring) in RINGS {
            option::set(&socket, ring, &words).context(name)?;
        }
        let [rx, tx] = Frames::map_all(&socket, [geometry, geometry])?;
        Ok(Self {
            socket,
            rx,
            tx,
            next: 0,
            free: 0,
        })
    }

    /// Puts a message into the next frame of the TX ring, and sends what is there.
    fn send(&mut self, message: &[u8]) -> anyhow::Result<()> {
        let status = self.tx.status(self.free);
        ensure!(
            status == Some(Status::Unused),
            "frame {} to fill is {status:?}",
            self.free
        );
        self.tx.submit(self.free, message);
        self.free = (self.free + 1) % self.tx.geometry().frame_nr();
        let sent = flush(&self.socket)?;
        ensure!(
            sent == message.len(),
            "{sent} of {} bytes were sent",
            message.len()
        );
        Ok(())
    }

    /// The next message, wherever it is, and its frame back to the kernel.
    fn receive(&mut self, patience: Duration) -> anyhow::Result<(Status, Vec<u8>)> {
        loop {
            let status = self.rx.status(self.next);
            let message = match status.context("a status without meaning")? {
                Status::Valid => self.rx.message(self.next),
                Status::Copy => peers::receive(&self.socket).context("a message by COPY")?,
                status => {
                    let told = ready::events(&self.socket, patience)?;
                    ensure!(told & libc::POLLIN != 0, "a frame stays {status:?}");
                    continue;
                }
            };
            self.rx.set_status(self.next, Status::Unused);
            self.next = (self.next + 1) % self.rx.geometry().frame_nr();
            if !message.is_empty() {
                return Ok((status.expect("it has a meaning"), message));
            }
        }
    }
}

/// Contract: programs written for the feature as it was run unchanged. They send and receive through
/// both rings, lap after lap, and read a dump whose parts are larger than a frame; what they have not
/// asked for, they have not got.
fn a_program_of_old_runs_unchanged(setting: &mut Setting) -> anyhow::Result<()> {
    const LAPS: u32 = 5;
    let patience = setting.patiently(Duration::from_secs(2));
    let geometry = Geometry::from_request(4096, 4, 1024, 16)?;
    let mut program = Program::start(geometry)?;
    for (name, ring) in RINGS {
        let told = option::get(&program.socket, ring, 20)?;
        ensure!(
            told == request_for(&geometry, Flags::NONE),
            "{name} is told as {told:?}"
        );
    }
    let join = groups::join(&program.socket, LINK_GROUP);
    assert_refused("joining with a ring of old", join, libc::EOPNOTSUPP)?;

    for number in 0..LAPS * geometry.frame_nr() {
        program.send(&noop(number))?;
        let (status, answer) = program.receive(patience)?;
        let sequence = Message::read(&answer)?.sequence;
        ensure!(
            status == Status::Valid && sequence == number,
            "answer {sequence} to {number} is {status:?}"
        );
    }

    let dump = Writer::request(GETLINK, DUMP, 4711).with(&[0; 16]).end();
    program.send(&dump)?;
    let (mut links, mut copied) = (0, 0);
    'dump: loop {
        let (status, part) = program.receive(patience)?;
        copied += u32::from(status == Status::Copy);
        for message in Message::read_all(&part)? {
            ensure!(message.sequence == 4711, "a part of another dump");
            if message.kind == DONE {
                break 'dump;
            }
            links += 1;
        }
    }
    ensure!(links > 0 && copied > 0, "{links} links, {copied} by COPY");
    setting.note(format!(
        "{LAPS} laps of requests and answers; a dump of {links} links, {copied} parts by COPY"
    ));
    Ok(())
}
