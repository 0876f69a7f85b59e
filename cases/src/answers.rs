// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cheapest messages there are: what the kernel answers to a request for an answer.

use std::time::Duration;

use nlring::{Received, Receiver};

use crate::message::noop;

/// Bytes of an answer: `struct nlmsghdr` and `struct nlmsgerr`, which repeats the request's header.
pub(crate) const ANSWER: usize = 36;

/// Asks for `count` answers in one call, the first numbered `first`.
pub(crate) fn ask(receiver: &Receiver, first: u32, count: u32) -> anyhow::Result<()> {
    let requests: Vec<u8> = (first..first + count).flat_map(noop).collect();
    Ok(receiver.socket().send(&requests)?)
}

/// The number of the next answer and the frame that it came in, if it came in one.
pub(crate) fn next(
    receiver: &mut Receiver,
    patience: Duration,
) -> anyhow::Result<(u32, Option<u32>)> {
    // Two looks: what was found behind the first wait can be a frame that came to nothing.
    for _ in 0..2 {
        if let Some(received) = receiver.receive()? {
            let frame = match &received {
                Received::Frame(frame) => Some(frame.index()),
                _ => None,
            };
            let Some(message) = received.message() else {
                anyhow::bail!("an answer was lost");
            };
            anyhow::ensure!(
                message.len() == ANSWER,
                "an answer of {} bytes, not {ANSWER}",
                message.len()
            );
            return Ok((u32::from_ne_bytes(message[8..12].try_into()?), frame));
        }
        anyhow::ensure!(
            receiver.wait(Some(patience))?,
            "no answer within {patience:?}"
        );
    }
    anyhow::bail!("poll says that there is an answer, and there is none")
}

/// The socket works: the kernel hears it, and it hears the kernel.
pub(crate) fn assert_works(receiver: &mut Receiver, patience: Duration) -> anyhow::Result<()> {
    const NUMBER: u32 = 4711;
    ask(receiver, NUMBER, 1)?;
    let (number, _) = next(receiver, patience)?;
    anyhow::ensure!(number == NUMBER, "answer {number} came, not {NUMBER}");
    Ok(())
}
