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
use crate::traffic::{From, far, near, pin};

/// The TCP port that the peer listens on.
pub(crate) const PORT: u16 = 7100;
/// Bytes of one write, and the period of what is sent.
const PIECE: usize = 1 << 20;

/// A stream under way across a pair.
#[derive(Debug)]
pub(crate) struct Bulk {
    stop: Arc<AtomicBool>,
    sender: JoinHandle<anyhow::Result<u64>>,
    reader: JoinHandle<anyhow::Result<u64>>,
}

impl Bulk {
    /// Connects from this side to the other and sends without pause, until told to stop.
    pub(crate) fn start(from: From, pair: u8, patience: Duration) -> anyhow::Result<Self> {
        let listen = || TcpListener::bind((Ipv4Addr::UNSPECIFIED, PORT));
        let listener = match from {
            From::Here => in_peer(listen)?,
            From::Peer => listen()?,
        };
        let reader = thread::spawn(move || read_all(&listener, patience));
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let sender = thread::spawn(move || {
            let connect = |to: Ipv4Addr| TcpStream::connect_timeout(&(to, PORT).into(), patience);
            let stream = match from {
                From::Here => connect(far(pair))?,
                From::Peer => in_peer(|| connect(near(pair)))?,
            };
            Ok(send_until(&asked, stream, patience)?)
        });
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
#[derive(Debug)]
pub(crate) struct Pattern(Vec<u8>);

impl Pattern {
    pub(crate) fn new() -> Self {
        let words = 0..PIECE as u32 / 4;
        Self(
            words
                .flat_map(|word| (word.wrapping_mul(0x9E37_79B1)).to_be_bytes())
                .collect(),
        )
    }

    /// These bytes are those that stand at `offset`.
    pub(crate) fn assert_holds(&self, mut bytes: &[u8], mut offset: u64) -> anyhow::Result<()> {
        while !bytes.is_empty() {
            let at = (offset % PIECE as u64) as usize;
            let (here, behind) = bytes.split_at(bytes.len().min(PIECE - at));
            anyhow::ensure!(
                here == &self.0[at..at + here.len()],
                "the TCP stream is garbled near byte {offset}"
            );
            offset += here.len() as u64;
            bytes = behind;
        }
        Ok(())
    }
}

fn send_until(stop: &AtomicBool, mut stream: TcpStream, patience: Duration) -> io::Result<u64> {
    pin(0)?;
    stream.set_write_timeout(Some(patience))?;
    let Pattern(piece) = Pattern::new();
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
    let pattern = Pattern::new();
    let mut buffer = vec![0; 1 << 16];
    let mut read = 0_u64;
    loop {
        let len = stream.read(&mut buffer)?;
        if len == 0 {
            return Ok(read);
        }
        pattern.assert_holds(&buffer[..len], read)?;
        read += len as u64;
    }
}
