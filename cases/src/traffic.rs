// SPDX-License-Identifier: MIT OR Apache-2.0
//! Datagrams with stamps, from several CPUs at once.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, UdpSocket};
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::setsockopt;
use nix::sys::socket::sockopt::RcvBufForce;
use nix::unistd::Pid;

use crate::namespace::in_peer;
use crate::stamp::Stamp;

/// The UDP port to which flows are sent.
pub(crate) const PORT: u16 = 7000;
/// The UDP port of flows for a second queue.
pub(crate) const OTHER_PORT: u16 = 7001;

/// Bytes that may wait in a sink, which is never what loses a datagram.
const ROOM: usize = 16 << 20;

/// The address of the near NIC of a pair.
pub(crate) const fn near(pair: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, pair, 1)
}

/// The address of the far NIC of a pair.
pub(crate) const fn far(pair: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 9, pair, 2)
}

/// Where datagrams come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum From {
    /// The peer's namespace, across the NICs.
    Peer,
    /// Our own.
    Here,
}

/// How many may be under way: sent, and not yet seen by the consumer.
#[derive(Debug, Clone)]
pub(crate) struct Window {
    state: Arc<WindowState>,
    limit: u32,
}

#[derive(Debug)]
struct WindowState {
    sent: AtomicU32,
    seen: AtomicU32,
    stop: AtomicBool,
}

impl Window {
    /// At most `limit` under way at once.
    pub(crate) fn of(limit: u32) -> Self {
        let state = WindowState {
            sent: AtomicU32::new(0),
            seen: AtomicU32::new(0),
            stop: AtomicBool::new(false),
        };
        Self {
            state: Arc::new(state),
            limit,
        }
    }

    /// The consumer has seen one.
    pub(crate) fn seen(&self) {
        self.state.seen.fetch_add(1, Ordering::Relaxed);
    }

    /// Nothing more is to be sent.
    pub(crate) fn stop(&self) {
        self.state.stop.store(true, Ordering::Relaxed);
    }

    /// Waits for a place; false if sending is to stop.
    fn enter(&self) -> bool {
        let place = self.state.sent.fetch_add(1, Ordering::Relaxed);
        loop {
            if self.state.stop.load(Ordering::Relaxed) {
                return false;
            }
            let seen = self.state.seen.load(Ordering::Relaxed);
            if place.wrapping_sub(seen).cast_signed() < self.limit.cast_signed() {
                return true;
            }
            thread::sleep(Duration::from_micros(100));
        }
    }
}

/// A flow of datagrams.
#[derive(Debug)]
pub(crate) struct Flow {
    /// Its number, in every stamp.
    pub number: u32,
    /// Where it comes from.
    pub from: From,
    /// Where it goes.
    pub to: SocketAddrV4,
    /// Datagrams in it.
    pub count: u32,
    /// Bytes of a datagram's payload; drawn anew for each.
    pub sizes: RangeInclusive<usize>,
    /// Seed of the sizes.
    pub seed: u64,
    /// The CPU to send from, counted round those there are.
    pub cpu: usize,
}

impl Flow {
    /// A flow of small datagrams across the NICs of this pair.
    pub(crate) fn across(number: u32, pair: u8, count: u32) -> Self {
        Self {
            number,
            from: From::Peer,
            to: SocketAddrV4::new(near(pair), PORT),
            count,
            sizes: 64..=64,
            seed: 0,
            cpu: number as usize,
        }
    }

    /// A flow of small datagrams from here to the peer, across the NICs of this pair.
    pub(crate) fn outward(number: u32, pair: u8, count: u32) -> Self {
        Self {
            from: From::Here,
            to: SocketAddrV4::new(far(pair), PORT),
            ..Self::across(number, pair, count)
        }
    }

    /// A flow of small datagrams from here to here.
    pub(crate) fn local(number: u32, count: u32) -> Self {
        Self {
            from: From::Here,
            to: SocketAddrV4::new(Ipv4Addr::LOCALHOST, PORT),
            ..Self::across(number, 0, count)
        }
    }

    /// Begins to send. The thread's result is the number of datagrams sent.
    pub(crate) fn start(self, window: &Window) -> anyhow::Result<JoinHandle<io::Result<u32>>> {
        let socket = socket_in(self.from, SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0))?;
        socket.connect(self.to)?;
        let window = window.clone();
        Ok(thread::spawn(move || self.send(&socket, &window)))
    }

    fn send(&self, socket: &UdpSocket, window: &Window) -> io::Result<u32> {
        pin(self.cpu)?;
        let mut random = fastrand::Rng::with_seed(self.seed);
        for sequence in 0..self.count {
            if !window.enter() {
                return Ok(sequence);
            }
            let stamp = Stamp {
                flow: self.number,
                sequence,
            };
            let payload = stamp.payload(random.usize(self.sizes.clone()));
            send_patiently(socket, &payload)?;
        }
        Ok(self.count)
    }
}

/// Small datagrams from here to here, sent one by one when somebody says so.
#[derive(Debug)]
pub(crate) struct Burst {
    socket: UdpSocket,
    number: u32,
    sent: Arc<AtomicU32>,
}

impl Burst {
    /// The flow of this number.
    pub(crate) fn new(number: u32) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.connect((Ipv4Addr::LOCALHOST, PORT))?;
        Ok(Self {
            socket,
            number,
            sent: Arc::default(),
        })
    }

    /// Datagrams sent so far, to be read when whoever sends is done.
    pub(crate) fn count(&self) -> Arc<AtomicU32> {
        Arc::clone(&self.sent)
    }

    /// Sends `count` of them, as fast as they go.
    pub(crate) fn send(&self, count: u32) -> io::Result<()> {
        for _ in 0..count {
            let stamp = Stamp {
                flow: self.number,
                sequence: self.sent.fetch_add(1, Ordering::Relaxed),
            };
            send_patiently(&self.socket, &stamp.payload(64))?;
        }
        Ok(())
    }
}

/// A packet that a full queue drops on its way out shows here as `EPERM` or `ENOBUFS`; it counts as
/// sent, for the queue counts it as dropped.
fn send_patiently(socket: &UdpSocket, payload: &[u8]) -> io::Result<()> {
    match socket.send(payload) {
        Err(error)
            if !matches!(
                error.raw_os_error(),
                Some(libc::EPERM | libc::ENOBUFS | libc::EAGAIN)
            ) =>
        {
            Err(error)
        }
        _ => Ok(()),
    }
}

/// The number of datagrams that a flow's thread has sent.
pub(crate) fn sent(flow: JoinHandle<io::Result<u32>>) -> anyhow::Result<u32> {
    match flow.join() {
        Ok(sent) => sent.context("a flow could not be sent"),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs this thread on one CPU, counted round those there are.
pub(crate) fn pin(cpu: usize) -> nix::Result<()> {
    let cpus = thread::available_parallelism().map_or(1, usize::from);
    let mut set = CpuSet::new();
    set.set(cpu % cpus)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

/// A socket of this side.
pub(crate) fn socket_in(from: From, address: SocketAddrV4) -> anyhow::Result<UdpSocket> {
    match from {
        From::Peer => in_peer(move || UdpSocket::bind(address)),
        From::Here => Ok(UdpSocket::bind(address)?),
    }
}

/// Whatever arrives at an address, so that nobody answers with "port unreachable".
#[derive(Debug)]
pub(crate) struct Sink(UdpSocket);

impl Sink {
    /// A sink for what is sent to this port, here or at the peer.
    pub(crate) fn bind(side: From, port: u16) -> anyhow::Result<Self> {
        let address = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, port);
        let socket = socket_in(side, address)?;
        setsockopt(&socket, RcvBufForce, &ROOM)?;
        Ok(Self(socket))
    }

    /// The next datagram's stamp; `None` if none came within `patience`.
    pub(crate) fn next(&self, patience: Duration) -> anyhow::Result<Option<Stamp>> {
        let mut payload = vec![0; 1 << 16];
        self.0.set_read_timeout(Some(patience))?;
        match self.0.recv(&mut payload) {
            Ok(len) => Ok(Some(Stamp::read(&payload[..len])?)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

/// Sends across a pair until something arrives: then both ends know each other's MAC address, and
/// no packet of the case itself waits for that, or is lost over it.
pub(crate) fn warm_up(pair: u8, patience: Duration) -> anyhow::Result<()> {
    const WARM_UP_PORT: u16 = 6999;
    let sink = UdpSocket::bind((near(pair), WARM_UP_PORT))
        .map_err(|error| crate::Unmet(format!("the NIC near{pair}: {error}")))?;
    sink.set_read_timeout(Some(Duration::from_millis(20)))?;
    let peer = socket_in(From::Peer, SocketAddrV4::new(far(pair), 0))?;
    let deadline = Instant::now() + patience;
    while Instant::now() < deadline {
        peer.send_to(b"warm up", (near(pair), WARM_UP_PORT))?;
        let mut room = [0; 16];
        if let Ok((_, from)) = sink.recv_from(&mut room) {
            sink.send_to(b"and back", from)?;
            peer.set_read_timeout(Some(patience))?;
            peer.recv(&mut room)
                .with_context(|| format!("nothing comes back across pair {pair}"))?;
            while sink.recv(&mut room).is_ok() {}
            return Ok(());
        }
    }
    anyhow::bail!("nothing crosses NIC pair {pair} within {patience:?}")
}
