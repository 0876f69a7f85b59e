// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory-mapped netlink: receive and send netlink messages in place, through rings shared with the
//! kernel.
//!
//! A socket gets a ring of frames; the kernel writes each message into the next frame, and the
//! program reads it there, without a system call. What does not fit a frame waits in the socket's
//! queue and is copied in its place. Where the kernel has no rings, the same program receives
//! plainly and is told so. A second ring takes messages the other way, many by one call.
//!
//! ```no_run
//! use std::time::Duration;
//! use nlring::{Flags, Geometry, Received, Socket};
//!
//! # fn main() -> Result<(), nlring::Error> {
//! # let geometry = Geometry::for_messages(2048, 512).expect("a shape that exists");
//! // 512 frames with room for a packet each.
//! let socket = Socket::open(libc::NETLINK_NETFILTER)?;
//! let mut receiver = socket.rx_ring(geometry, Flags::ORDERED)?;
//! println!("receiving by {:?}", receiver.path());
//!
//! while receiver.wait(Some(Duration::from_secs(1)))? {
//!     while let Some(received) = receiver.receive()? {
//!         match received {
//!             // Read in place; the frame goes back to the kernel at the end of the arm.
//!             Received::Frame(frame) => println!("{} bytes in the ring", frame.len()),
//!             Received::Copied(copied) => println!("{} bytes by copy", copied.len()),
//!             Received::Lost { messages } => println!("too slow: {messages:?} were dropped"),
//!         }
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Messages are bytes here: crates such as `netlink-packet-netfilter` read and write them in a frame
//! as anywhere. The examples do that, each a program of use: `nfq-verdict` judges packets in batches,
//! `nflog-tail` sits in a loop around `poll`, `conntrack-watch` in tokio's, and `route-dump` dumps.
//!
//! From the outside in:
//!
//! - [`Geometry`]: the ring's shape, checked with the kernel's rules before the kernel sees it.
//! - [`Socket`]: opens, sets up, tears down.
//! - [`Receiver`]: one stream out of ring and queue; [`Frame`] and [`Kept`] are messages in place.
//! - [`Sender`]: messages are written into the frames of a TX ring and go out together.
//! - [`Error`]: every refusal of which something can be done has a variant, and says what.
//! - inside, `reader` and `writer` have the rules about which frame comes next, `inbox` those about
//!   the queue, `mapping` every access to shared memory.

mod abi;
mod batch;
mod error;
mod frame;
mod geometry;
mod inbox;
mod mapping;
mod queue;
mod reader;
#[cfg(test)]
mod reader_tests;
mod receiver;
mod request;
mod sender;
mod socket;
mod status;
mod writer;

pub use error::{Error, FrameError};
pub use frame::{Frame, Kept};
pub use geometry::{Geometry, GeometryError};
pub use receiver::{Copied, Path, Received, Receiver};
pub use request::{Flags, Request};
pub use sender::{Sender, Slot};
pub use socket::Socket;
pub use status::Status;
