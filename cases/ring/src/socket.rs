// SPDX-License-Identifier: MIT OR Apache-2.0
//! A netlink socket, and the options that give it a ring.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use libc::{c_int, c_void, socklen_t};

use crate::abi::{
    EXTENDED_REQUEST_LEN, NETLINK_ADD_MEMBERSHIP, NETLINK_DROP_MEMBERSHIP, NETLINK_RX_RING,
    NETLINK_TX_RING, SOL_NETLINK,
};
use crate::mapping::Mapping;
use crate::receiver::Receiver;
use crate::request::Request;
use crate::sender::Sender;
use crate::{Error, Flags, Geometry};

/// A netlink socket of any family.
#[derive(Debug)]
pub struct Socket {
    fd: OwnedFd,
}

impl From<OwnedFd> for Socket {
    /// Takes over a netlink socket that something else opened.
    fn from(fd: OwnedFd) -> Self {
        Self { fd }
    }
}

impl From<Socket> for OwnedFd {
    fn from(socket: Socket) -> Self {
        socket.fd
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Socket {
    /// Opens a socket of this family (`libc::NETLINK_ROUTE`, `libc::NETLINK_NETFILTER`, …), closed
    /// on `exec`.
    pub fn open(protocol: c_int) -> Result<Self, Error> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
        // SAFETY: socket touches no memory of ours.
        let fd = unsafe { libc::socket(libc::AF_NETLINK, kind, protocol) };
        if fd < 0 {
            return Err(Error::last_os("open a netlink socket"));
        }
        // SAFETY: the descriptor is new, and nobody else's.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        Ok(Self { fd })
    }

    /// Another descriptor of a netlink socket that somebody else opened and goes on using, as a
    /// library for netlink does. It is one socket: it is closed when both descriptors are.
    ///
    /// # Errors
    ///
    /// The process has no descriptor left.
    pub fn duplicate(socket: &impl AsFd) -> Result<Self, Error> {
        let fd = socket.as_fd().try_clone_to_owned();
        let fd = fd.map_err(|source| Error::System {
            what: "duplicate the netlink socket's descriptor",
            source,
        })?;
        Ok(Self { fd })
    }

    /// Sends one or more netlink messages, back to back, to the kernel.
    pub fn send(&self, messages: &[u8]) -> Result<(), Error> {
        // SAFETY: `messages` is readable for its whole length. Without an address a netlink socket
        // that is not connected sends to the kernel.
        let sent = unsafe {
            libc::send(
                self.fd.as_raw_fd(),
                messages.as_ptr().cast(),
                messages.len(),
                0,
            )
        };
        if sent < 0 {
            return Err(Error::last_os("send to the kernel"));
        }
        Ok(())
    }

    /// Joins a multicast group by its number (`RTNLGRP_LINK`, `NFNLGRP_CONNTRACK_NEW`, …).
    ///
    /// # Errors
    ///
    /// [`Error::RefusesGroups`] on a socket whose RX ring was set up without [`Flags::MULTICAST`].
    pub fn join(&self, group: u32) -> Result<(), Error> {
        match self.set(NETLINK_ADD_MEMBERSHIP, &group.to_ne_bytes()) {
            Err(source) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => {
                Err(Error::RefusesGroups { group })
            }
            joined => joined.map_err(|source| Error::System {
                what: "join a multicast group",
                source,
            }),
        }
    }

    /// Leaves a multicast group.
    pub fn leave(&self, group: u32) -> Result<(), Error> {
        let left = self.set(NETLINK_DROP_MEMBERSHIP, &group.to_ne_bytes());
        left.map_err(|source| Error::System {
            what: "leave a multicast group",
            source,
        })
    }

    /// Gives the socket an RX ring and maps it. A kernel that has no rings says `ENOPROTOOPT`: then
    /// the receiver works by plain receiving, and [`Receiver::path`] says so.
    ///
    /// # Errors
    ///
    /// What the contract names under set-up and mapping: `EPERM` without `CAP_NET_ADMIN`, `EBUSY`
    /// with a ring already there, `EOPNOTSUPP` in a multicast group, `ENOMEM`, `EINVAL` for flags
    /// that the kernel does not know.
    pub fn rx_ring(self, geometry: Geometry, flags: Flags) -> Result<Receiver, Error> {
        match self.set_up_rx_ring(&geometry, flags) {
            Ok(()) => self.map_rx_ring(geometry, flags),
            Err(Error::NoRings { .. }) => Ok(self.plain()),
            Err(error) => Err(error),
        }
    }

    /// Gives the socket a TX ring and maps it. On a kernel that has no rings the sender works by
    /// plain sending, and [`Sender::path`] says so.
    ///
    /// # Errors
    ///
    /// As [`rx_ring`](Self::rx_ring).
    pub fn tx_ring(self, geometry: Geometry) -> Result<Sender, Error> {
        match self.set_up_tx_ring(&geometry) {
            Ok(()) => self.map_tx_ring(geometry),
            Err(Error::NoRings { .. }) => self.plain_sender(geometry),
            Err(error) => Err(error),
        }
    }

    /// Gives the socket both rings and maps them, as one: a socket's rings are mapped together or
    /// not at all. The two ends have a descriptor each, and can live in different threads. On a
    /// kernel that has no rings both work plainly.
    ///
    /// # Errors
    ///
    /// As [`rx_ring`](Self::rx_ring) and [`tx_ring`](Self::tx_ring).
    pub fn rings(
        self,
        rx: Geometry,
        flags: Flags,
        tx: Geometry,
    ) -> Result<(Receiver, Sender), Error> {
        let second = Self::duplicate(&self)?;
        match self.set_up_rx_ring(&rx, flags) {
            Ok(()) => {}
            Err(Error::NoRings { .. }) => return Ok((self.plain(), second.plain_sender(tx)?)),
            Err(error) => return Err(error),
        }
        // Somebody else may go on using the socket, which must not fill a ring that nobody reads.
        if let Err(error) = self.set_up_tx_ring(&tx) {
            self.tear_down_rx_ring()?;
            return Err(error);
        }
        let [rx, tx] = match Mapping::of_socket(self.as_fd(), [rx, tx]) {
            Ok(mapped) => mapped,
            Err(error) => {
                self.tear_down_rx_ring()?;
                self.tear_down_tx_ring()?;
                return Err(error);
            }
        };
        let sender = Sender::ringed(second, tx);
        let ordered = flags.contains(Flags::ORDERED);
        Ok((Receiver::ringed(self, rx, ordered), sender))
    }

    /// A receiver that works by plain receiving on any kernel.
    #[must_use]
    pub fn plain(self) -> Receiver {
        Receiver::plain(self)
    }

    /// A sender that works by plain sending on any kernel: as one with a TX ring of this shape.
    ///
    /// # Errors
    ///
    /// No memory for frames of this shape.
    pub fn plain_sender(self, geometry: Geometry) -> Result<Sender, Error> {
        Sender::plain(self, geometry)
    }

    /// Sets an RX ring up without mapping it.
    pub fn set_up_rx_ring(&self, geometry: &Geometry, flags: Flags) -> Result<(), Error> {
        let request = Request::new(geometry, flags);
        self.request("set up an RX ring", NETLINK_RX_RING, request)
    }

    /// Sets a TX ring up without mapping it.
    pub fn set_up_tx_ring(&self, geometry: &Geometry) -> Result<(), Error> {
        let request = Request::new(geometry, Flags::NONE);
        self.request("set up a TX ring", NETLINK_TX_RING, request)
    }

    /// Maps the RX ring that was set up with this shape and these flags, and is the only one: a
    /// socket's rings are mapped together ([`rings`](Self::rings)).
    pub fn map_rx_ring(self, geometry: Geometry, flags: Flags) -> Result<Receiver, Error> {
        let [mapping] = Mapping::of_socket(self.as_fd(), [geometry])?;
        let ordered = flags.contains(Flags::ORDERED);
        Ok(Receiver::ringed(self, mapping, ordered))
    }

    /// Maps the TX ring that was set up with this shape, and is the only one.
    pub fn map_tx_ring(self, geometry: Geometry) -> Result<Sender, Error> {
        let [mapping] = Mapping::of_socket(self.as_fd(), [geometry])?;
        Ok(Sender::ringed(self, mapping))
    }

    /// Tears the RX ring down; `EBUSY` while a ring of the socket is mapped. Without a ring it
    /// succeeds.
    pub fn tear_down_rx_ring(&self) -> Result<(), Error> {
        self.request("tear the RX ring down", NETLINK_RX_RING, Request::default())
    }

    /// Tears the TX ring down, as [`tear_down_rx_ring`](Self::tear_down_rx_ring) does.
    pub fn tear_down_tx_ring(&self) -> Result<(), Error> {
        self.request("tear the TX ring down", NETLINK_TX_RING, Request::default())
    }

    fn request(&self, what: &'static str, option: c_int, request: Request) -> Result<(), Error> {
        let bytes = request.block_size as usize * request.block_nr as usize;
        let encoded = request.encode();
        let refused = |source| Error::refusal(what, bytes, source);
        self.set(option, encoded.as_ref()).map_err(refused)
    }

    fn set(&self, option: c_int, value: &[u8]) -> io::Result<()> {
        // SAFETY: `value` is readable for the length given.
        let refused = unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                SOL_NETLINK,
                option,
                value.as_ptr().cast::<c_void>(),
                value.len() as socklen_t,
            )
        };
        if refused == 0 {
            Ok(())
        } else {
            Err(io::Error::last_os_error())
        }
    }

    /// The RX ring as it was set up, all zeros where there is none; `None` from a kernel that has
    /// no rings.
    pub fn rx_ring_request(&self) -> Result<Option<Request>, Error> {
        self.ring_request("ask for the RX ring", NETLINK_RX_RING)
    }

    /// The TX ring as it was set up, told in the same way.
    pub fn tx_ring_request(&self) -> Result<Option<Request>, Error> {
        self.ring_request("ask for the TX ring", NETLINK_TX_RING)
    }

    fn ring_request(&self, what: &'static str, option: c_int) -> Result<Option<Request>, Error> {
        let mut bytes = [0; EXTENDED_REQUEST_LEN];
        let mut len = EXTENDED_REQUEST_LEN as socklen_t;
        // SAFETY: `bytes` is writable for `len` bytes, and `len` itself is ours.
        let refused = unsafe {
            libc::getsockopt(
                self.fd.as_raw_fd(),
                SOL_NETLINK,
                option,
                bytes.as_mut_ptr().cast::<c_void>(),
                &raw mut len,
            )
        };
        if refused == 0 {
            return Ok(Some(Request::decode(&bytes)));
        }
        match Error::refusal(what, 0, io::Error::last_os_error()) {
            Error::NoRings { .. } => Ok(None),
            error => Err(error),
        }
    }
}
