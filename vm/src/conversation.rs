// SPDX-License-Identifier: MIT OR Apache-2.0
//! The host's side of the channel to the agent.

use std::io::{self, Read};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nlring_channel::{FrameError, FrameReader, ToGuest, ToHost, write_frame};

/// A guest that takes nothing for this long is stuck: the socket holds far more than we ever have to say.
const WRITE_PATIENCE: Duration = Duration::from_secs(5);

/// What came, or why nothing did.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A message.
    Message(ToHost),
    /// Nothing until the deadline.
    Silence,
    /// The other end is closed: QEMU is gone.
    End,
}

/// Our end of the channel.
#[derive(Debug)]
pub(crate) struct Conversation {
    stream: UnixStream,
    reader: FrameReader,
}

impl Conversation {
    pub(crate) fn new(stream: UnixStream) -> io::Result<Self> {
        stream.set_write_timeout(Some(WRITE_PATIENCE))?;
        Ok(Self {
            stream,
            reader: FrameReader::default(),
        })
    }

    /// Says something; whether anybody hears it shows in what comes back.
    pub(crate) fn say(&mut self, message: &ToGuest) -> io::Result<()> {
        write_frame(&mut self.stream, message)
    }

    /// Forgets what has come so far.
    pub(crate) fn forget(&mut self) -> io::Result<()> {
        let mut chunk = [0; 1 << 14];
        self.stream.set_nonblocking(true)?;
        // As much as a socket holds, however fast more comes.
        for _ in 0..64 {
            if !matches!(self.stream.read(&mut chunk), Ok(1..)) {
                break;
            }
        }
        self.reader = FrameReader::default();
        self.stream.set_nonblocking(false)
    }

    /// The next message, if it comes before `until`. However much comes in, `until` is kept.
    pub(crate) fn hear(&mut self, until: Instant) -> Result<Heard, FrameError> {
        let mut chunk = [0; 1 << 14];
        loop {
            // First of all, or a guest that floods us would keep us past any deadline.
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(Heard::Silence);
            }
            if let Some(message) = self.reader.next_message()? {
                return Ok(Heard::Message(message));
            }
            self.stream
                .set_read_timeout(Some(left))
                .expect("a socket takes a timeout that is not zero");
            match self.stream.read(&mut chunk) {
                Ok(0) => return Ok(Heard::End),
                Ok(count) => self.reader.push(&chunk[..count]),
                Err(error) => match error.kind() {
                    io::ErrorKind::WouldBlock
                    | io::ErrorKind::TimedOut
                    | io::ErrorKind::Interrupted => {}
                    _ => return Ok(Heard::End),
                },
            }
        }
    }
}
