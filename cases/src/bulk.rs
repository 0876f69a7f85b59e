// SPDX-License-Identifier: MIT OR Apache-2.0
//! A TCP stream in large pieces: packets of up to 64 KiB in page fragments, which the kernel copies
//! in process context, open to interruption.

use std::io::{self, Read as _, Write as _};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::namespace::in_peer;
use crate::traffic::{far, pin};

/// The TCP port that the peer listens on.
pub(crate) const PORT: u16 = 7100;
/// Bytes of one write, and the period of what is sent.
const PIECE: usize = 1 << 20;

/// A stream under way from here to the peer.
#[derive(Debug)]
pub(crate) struct Bulk {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<io::Result<u64>>,
    reader: JoinHandle<anyhow::Result<u64>>,
}

impl Bulk {
    /// Connects across a pair and sends without pause, until told to stop.
    pub(crate) fn start(pair: u8, patience: Duration) -> anyhow::Result<Self> {
        let listener = in_peer(|| TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT)))?;
        let reader = thread::spawn(move || read_all(&listener, patience));
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let sender = thread::spawn(move || send_until(&asked, pair, patience));
        Ok(Self {
            stop,
            sender,
            reader,
        })
    }

    /// No more is to be sent. What is under way still wants its verdicts.
    pub(crate) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether both ends are done.
    pub(crate) fn is_done(&self) -> bool {
        self.sender.is_finished() && self.reader.is_finished()
    }

    /// The number of bytes sent, every one of which arrived as it was sent.
    pub(crate) fn finish(self) -> anyhow::Result<u64> {
        let sent = join(self.sender)??;
        let read = join(self.reader)??;
        anyhow::ensure!(
            sent == read,
            "{sent} bytes were sent through TCP and {read} came"
        );
        Ok(sent)
    }
}

fn join<T>(thread: JoinHandle<T>) -> anyhow::Result<T> {
    thread
        .join()
        .map_err(|_| anyhow::anyhow!("an end of the TCP stream panicked"))
}

/// What stands at every offset of the stream, so that a piece in a wrong place is noticed.
fn pattern() -> Vec<u8> {
    let words =
        (0..PIECE as u32 / 4).flat_map(|word| (word.wrapping_mul(0x9E37_79B1)).to_be_bytes());
    words.collect()
}

fn send_until(stop: &AtomicBool, pair: u8, patience: Duration) -> io::Result<u64> {
    pin(0)?;
    let mut stream = TcpStream::connect_timeout(&(far(pair), PORT).into(), patience)?;
    stream.set_write_timeout(Some(patience))?;
    let piece = pattern();
    let mut sent = 0;
    while !stop.load(Ordering::Relaxed) {
        stream.write_all(&piece)?;
        sent += PIECE as u64;
    }
    Ok(sent)
}

fn read_all(listener: &TcpListener, patience: Duration) -> anyhow::Result<u64> {
    let (mut stream, _) = listener.accept()?;
    stream.set_read_timeout(Some(patience))?;
    let pattern = pattern();
    let mut buffer = vec![0; 1 << 16];
    let mut read = 0_u64;
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(read);
        }
        let mut rest = &buffer[..len];
        while !rest.is_empty() {
            let at = (read % PIECE as u64) as usize;
            let (here, behind) = rest.split_at(rest.len().min(PIECE - at));
            anyhow::ensure!(
                here == &pattern[at..at + here.len()],
                "the TCP stream is garbled near byte {read}"
            );
            read += here.len() as u64;
            rest = behind;
        }
    }
}
