// SPDX-License-Identifier: MIT OR Apache-2.0
//! A reader that goes strictly from frame to frame. The library's may read on past a frame that is
//! being filled, and come back to it; this one waits, so what it reads is the ring's own order.

use std::os::fd::AsFd;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use nlring::Status;

use crate::consumer::Way;
use crate::frames::{Field, Frames};
use crate::peers;

/// Between two looks at a frame that is not ready.
const PAUSE: Duration = Duration::from_micros(50);

/// Where it is in the ring.
#[derive(Debug)]
pub(crate) struct Walker {
    frames: Frames,
    position: u32,
}

impl Walker {
    /// Begins at this frame.
    pub(crate) fn at(frames: Frames, position: u32) -> Self {
        Self { frames, position }
    }

    /// The next message and how it came; `None` if its frame is not ready within `patience`. The
    /// frame is given back.
    pub(crate) fn next(
        &mut self,
        socket: &impl AsFd,
        patience: Duration,
    ) -> anyhow::Result<Option<(Way, Vec<u8>)>> {
        let deadline = Instant::now() + patience;
        loop {
            let frame = self.position;
            let status = self.frames.status(frame);
            match status.context("a status without meaning")? {
                Status::Valid => {
                    let message = self.frames.message(frame);
                    self.step();
                    // A message that came to nothing.
                    if !message.is_empty() {
                        return Ok(Some((Way::Frame(frame), message)));
                    }
                }
                Status::Copy => {
                    let announced = self.frames.get(frame, Field::Len) as usize;
                    let message = peers::receive(socket)
                        .with_context(|| format!("the message of COPY frame {frame}"))?;
                    ensure!(
                        message.len() == announced,
                        "COPY frame {frame} stands for {announced} bytes, {} came",
                        message.len()
                    );
                    self.step();
                    return Ok(Some((Way::Copy(frame), message)));
                }
                Status::Unused | Status::Reserved if Instant::now() >= deadline => {
                    return Ok(None);
                }
                Status::Unused | Status::Reserved => thread::sleep(PAUSE),
                Status::Skip => anyhow::bail!("frame {frame} is SKIP, and nobody kept it"),
            }
        }
    }

    fn step(&mut self) {
        self.frames.set_status(self.position, Status::Unused);
        self.position = (self.position + 1) % self.frames.geometry().frame_nr();
    }
}
