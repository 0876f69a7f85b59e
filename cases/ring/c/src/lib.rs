// SPDX-License-Identifier: MIT OR Apache-2.0
//! The C face of the ring library: `include/nlring.h` is made of this file.
//!
//! A program keeps its socket, and the library with which it opened it and speaks on it. Rings are
//! attached to the descriptor, messages come as `struct nlmsghdr *`, whatever way they took. What a
//! borrow checker sees to in Rust, the header says in words: one thread at a time, and a message is
//! there until the next call.

// Said once, for the whole header, in cbindgen.toml: what a pointer has to point to.
#![allow(clippy::missing_safety_doc)]
// The words are C's, and go into the header.
#![allow(clippy::doc_markdown, non_camel_case_types)]

use std::cell::RefCell;
use std::ffi::{CString, c_char, c_int, c_void};
use std::os::fd::{BorrowedFd, RawFd};
use std::ptr;
use std::time::Duration;

use libc::{nlmsghdr, ssize_t};
use ring::{Error, Flags, Geometry, GeometryError, Kept, Path, Received, Receiver, Sender, Socket};

/// For `nlring_config.rx_flags`: messages stand in the ring in exactly the order in which they were
/// sent, instead of that in which their frames were allocated.
pub const NLRING_ORDERED: u32 = 1;
/// For `nlring_config.rx_flags`: the socket is in multicast groups, or is to join some.
pub const NLRING_MULTICAST: u32 = 2;

// The header has them as numbers.
const _: () = assert!(NLRING_ORDERED == Flags::ORDERED.bits());
const _: () = assert!(NLRING_MULTICAST == Flags::MULTICAST.bits());

/// What to attach to a socket. Begin with all zeros.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct nlring_config {
    /// The largest message that is to come through the ring, in bytes; a larger one is copied, in
    /// its place. For nfnetlink_queue, the packets' size and 200 more.
    pub rx_largest: u32,
    /// How many messages may wait in the ring at least; 0 for no ring to receive by.
    pub rx_messages: u32,
    /// NLRING_ORDERED and NLRING_MULTICAST.
    pub rx_flags: u32,
    /// The largest message, or messages back to back, that one slot is to hold, in bytes.
    pub tx_largest: u32,
    /// How many slots there are at least; 0 for no ring to send by.
    pub tx_messages: u32,
    /// To do without rings on a kernel that has them: all calls work, by recvmmsg and sendmmsg.
    pub plain: bool,
}

/// A socket with what was attached to it. One thread at a time may use it.
#[derive(Debug)]
pub struct nlring {
    /// What the message is that was received last. Dropped before the receiver is used again, and
    /// before it ends: it borrows from that.
    current: Option<Received<'static>>,
    receiver: Box<Receiver>,
    receives_by_ring: bool,
    sender: Option<Sender>,
    lost: i64,
}

/// A message that was kept in the ring while later ones pass it.
#[derive(Debug)]
pub struct nlring_kept(Kept);

thread_local! {
    static LAST_ERROR: RefCell<CString> = RefCell::default();
}

/// Why a call could not do its work: an error number for C, and a line for people.
struct Refusal {
    errno: c_int,
    words: String,
}

impl Refusal {
    fn new(errno: c_int, words: &str) -> Self {
        let words = words.to_owned();
        Self { errno, words }
    }
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        let errno = match &error {
            Error::Truncated { .. } => libc::EMSGSIZE,
            // A frame that breaks the contract, or another reader on the socket.
            _ => error.raw_os_error().unwrap_or(libc::EBADMSG),
        };
        let words = error.to_string();
        Self { errno, words }
    }
}

impl From<GeometryError> for Refusal {
    fn from(error: GeometryError) -> Self {
        Self::new(libc::EINVAL, &error.to_string())
    }
}

impl From<ring::FrameError> for Refusal {
    fn from(error: ring::FrameError) -> Self {
        Self::new(libc::EBADMSG, &error.to_string())
    }
}

/// The value, or `failed` with errno set and the words kept.
fn told<T>(outcome: Result<T, Refusal>, failed: T) -> T {
    outcome.unwrap_or_else(|Refusal { errno, words }| {
        // Our words have no NUL in them.
        LAST_ERROR.set(CString::new(words).unwrap_or_default());
        // SAFETY: errno is this thread's.
        unsafe { *libc::__errno_location() = errno };
        failed
    })
}

/// Why this thread's last call failed that set errno: one line, what was tried, what happened, what
/// to do. It is there until the next call fails.
#[unsafe(no_mangle)]
pub extern "C" fn nlring_error() -> *const c_char {
    LAST_ERROR.with_borrow(|words| words.as_ptr())
}

/// Attaches rings to a netlink socket, which stays the caller's: to speak on, and to close, here or
/// there first. A kernel without rings is served by recvmmsg and sendmmsg.
///
/// NULL with errno EINVAL for a shape or flags that no ring has, EPERM without CAP_NET_ADMIN, EBUSY
/// if the socket has rings, EOPNOTSUPP if it is in a multicast group and NLRING_MULTICAST was not
/// asked for, ENOMEM, EBADF.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlring_open(fd: c_int, config: *const nlring_config) -> *mut nlring {
    // SAFETY: as the caller says.
    let config = unsafe { *config };
    let opened = open(fd, config).map(|ring| Box::into_raw(Box::new(ring)));
    told(opened, ptr::null_mut())
}

fn open(fd: RawFd, config: nlring_config) -> Result<nlring, Refusal> {
    if fd < 0 {
        let words = format!("cannot attach rings to descriptor {fd}: there is no such descriptor");
        return Err(Refusal::new(libc::EBADF, &words));
    }
    // SAFETY: it is open while the caller's call lasts, or duplicating it fails.
    let borrowed = unsafe { BorrowedFd::borrow_raw(fd) };
    let socket = Socket::duplicate(&borrowed)?;
    let geometry = |largest, messages| match messages {
        0 => Ok(None),
        _ => Geometry::for_messages(largest, messages).map(Some),
    };
    let rx = geometry(config.rx_largest, config.rx_messages)?;
    let tx = geometry(config.tx_largest, config.tx_messages)?;
    let flags = Flags::from_bits(config.rx_flags);
    let second = || Socket::duplicate(&socket);
    let (receiver, sender) = match (rx, tx) {
        (_, Some(tx)) if config.plain => {
            let sender = second()?.plain_sender(tx)?;
            (socket.plain(), Some(sender))
        }
        _ if config.plain => (socket.plain(), None),
        (Some(rx), Some(tx)) => {
            let (receiver, sender) = socket.rings(rx, flags, tx)?;
            (receiver, Some(sender))
        }
        (Some(rx), None) => (socket.rx_ring(rx, flags)?, None),
        (None, Some(tx)) => {
            let receiver = second()?.plain();
            (receiver, Some(socket.tx_ring(tx)?))
        }
        (None, None) => (socket.plain(), None),
    };
    Ok(nlring {
        current: None,
        receives_by_ring: receiver.path() == Path::Ring,
        receiver: Box::new(receiver),
        sender,
        lost: 0,
    })
}

/// Takes the rings off the socket, which receives as before; messages in them are gone. While kept
/// messages are not released the socket keeps its rings, so release them first. NULL is let be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlring_close(ring: *mut nlring) {
    if !ring.is_null() {
        // SAFETY: as the caller says; nlring_open made it of a box.
        let ring = *unsafe { Box::from_raw(ring) };
        drop(ring.current);
        let sends_by_ring = ring.sender.as_ref().map(Sender::path) == Some(Path::Ring);
        drop(ring.sender);
        let socket = ring.receiver.into_socket();
        // They are refused where a kept message has the rings mapped, and that was said.
        if ring.receives_by_ring {
            let _ = socket.tear_down_rx_ring();
        }
        if sends_by_ring {
            let _ = socket.tear_down_tx_ring();
        }
    }
}

/// Whether messages come through a ring, rather than by recvmmsg.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlring_receives_by_ring(ring: *const nlring) -> bool {
    // SAFETY: as the caller says.
    unsafe { (*ring).receives_by_ring }
}

/// Whether messages leave through a ring, rather than by sendmmsg.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlring_sends_by_ring(ring: *const nlring) -> bool {
    // SAFETY: as the caller says.
    let sender = unsafe { &(*ring).sender };
    sender.as_ref().map(Sender::path) == Some(Path::Ring)
}

/// The next message: its bytes, and in `message` where they are, until the next call of
/// nlring_receive, nlring_wait, nlring_keep or nlring_close. 0 if there is none at the moment; it never waits. A
/// message in the ring costs no system call.
///
/// -1 with errno ENOBUFS if messages were lost (nlring_lost says how many; receiving goes on),
/// EBADMSG for a frame that is not as the kernel leaves it, EMSGSIZE for a copied message with its
/// end cut off, and what recvmsg says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlring_receive(
    ring: *mut nlring,
    message: *mut *const nlmsghdr,
) -> ssize_t {
    // SAFETY: as the caller says.
    let ring = unsafe { &mut *ring };
    ring.current = None;
    let source: *mut Receiver = &raw mut *ring.receiver;
    // SAFETY: the receiver stays where it is, in its box, and nobody uses it again before `current`
    // is dropped, which borrows from it.
    let outcome = match unsafe { (*source).receive() } {
        Ok(None) => Ok(0),
        Ok(Some(Received::Lost { messages })) => {
            ring.lost = messages.map_or(-1, i64::from);
            let words = "messages were lost: the ring or the receive buffer was full; read faster, or ask for more room";
            Err(Refusal::new(libc::ENOBUFS, words))
        }
        Ok(Some(arrived)) => {
            let bytes = arrived.message().unwrap_or_default();
            // SAFETY: as the caller says.
            unsafe { *message = bytes.as_ptr().cast() };
            let len = bytes.len();
            ring.current = Some(arrived);
            Ok(ssize_t::try_from(len).unwrap_or(ssize_t::MAX))
        }
        Err(error) => Err(error.into()),
    };
    told(outcome, -1)
}

/// How many messages were lost when nlring_receive said ENOBUFS last; -1 where the kernel does not
/// count them.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlring_lost(ring: *const nlring) -> i64 {
    // SAFETY: as the caller says.
    unsafe { (*ring).lost }
}

/// Waits until there is something to receive, at most this many milliseconds, or for ever for -1: 1
/// if there is, 0 if not. A program that polls the descriptor itself calls it with 0 whenever that
/// is readable.
///
/// -1 with what poll says.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlring_wait(ring: *mut nlring, milliseconds: c_int) -> c_int {
    // SAFETY: as the caller says.
    let ring = unsafe { &mut *ring };
    ring.current = None;
    let timeout = u64::try_from(milliseconds).ok().map(Duration::from_millis);
    let waited = ring.receiver.wait(timeout).map(c_int::from);
    told(waited.map_err(Refusal::from), -1)
}

/// Keeps the message that was received last in its frame while later ones pass it.
///
/// NULL with errno EINVAL if it is not in a frame, since it was copied, or there is none.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlring_keep(ring: *mut nlring) -> *mut nlring_kept {
    // SAFETY: as the caller says.
    let current = unsafe { &mut (*ring).current };
    let kept = match current.take() {
        Some(Received::Frame(frame)) => Ok(Box::into_raw(Box::new(nlring_kept(frame.keep())))),
        other => {
            *current = other;
            let words = "cannot keep the message: it is not in a frame; copy it";
            Err(Refusal::new(libc::EINVAL, words))
        }
    };
    told(kept, ptr::null_mut())
}

/// The bytes of a message that was kept, and in `message` where they are.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlring_kept_message(
    kept: *const nlring_kept,
    message: *mut *const nlmsghdr,
) -> usize {
    // SAFETY: as the caller says.
    let bytes: &[u8] = unsafe { &(*kept).0 };
    // SAFETY: as the caller says.
    unsafe { *message = bytes.as_ptr().cast() };
    bytes.len()
}

/// Gives a kept message's frame back to the kernel, from any thread. NULL is let be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlring_release(kept: *mut nlring_kept) {
    if !kept.is_null() {
        // SAFETY: as the caller says; nlring_keep made it of a box.
        drop(unsafe { Box::from_raw(kept) });
    }
}

/// The next free slot to write messages to, and in `room` how many bytes it has. Nothing is sent
/// before nlring_submit and nlring_flush; until nlring_submit it is the same slot.
///
/// NULL with errno EAGAIN if every slot waits to be sent, EINVAL without tx_messages, EBADMSG for a
/// frame that is not as the kernel leaves it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlring_slot(ring: *mut nlring, room: *mut usize) -> *mut c_void {
    // SAFETY: as the caller says.
    let ring = unsafe { &mut *ring };
    let found = sender(ring).and_then(|sender| match sender.slot()? {
        Some(mut slot) => {
            // SAFETY: as the caller says.
            unsafe { *room = slot.len() };
            Ok(slot.as_mut_ptr().cast())
        }
        None => Err(every_slot_waits()),
    });
    told(found, ptr::null_mut())
}

/// The first `len` bytes of the slot that nlring_slot gave go out with the next nlring_flush: 0.
///
/// -1 with errno EMSGSIZE if these are no bytes or more than its room, and as nlring_slot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlring_submit(ring: *mut nlring, len: usize) -> c_int {
    // SAFETY: as the caller says.
    let ring = unsafe { &mut *ring };
    let submitted = sender(ring).and_then(|sender| {
        let slot = sender.slot()?.ok_or_else(every_slot_waits)?;
        if len == 0 || len > slot.len() {
            let words = format!(
                "cannot submit {len} bytes: a slot takes 1 to {}",
                slot.len()
            );
            return Err(Refusal::new(libc::EMSGSIZE, &words));
        }
        slot.submit(len);
        Ok(0)
    });
    told(submitted, -1)
}

/// Sends every slot that was submitted, in order, by one call; the bytes that went out.
///
/// -1 with the error with which the first was refused: it stays where it is and is the first of the
/// next flush, until that succeeds or nlring_take_back gives it up.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlring_flush(ring: *mut nlring) -> ssize_t {
    // SAFETY: as the caller says.
    let ring = unsafe { &mut *ring };
    let sent = sender(ring).and_then(|sender| Ok(sender.flush()?));
    told(
        sent.map(|sent| ssize_t::try_from(sent).unwrap_or(ssize_t::MAX)),
        -1,
    )
}

/// Gives up the slot with which the next flush would begin: 1, or 0 if none waits.
///
/// -1 as nlring_slot.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn nlring_take_back(ring: *mut nlring) -> c_int {
    // SAFETY: as the caller says.
    let ring = unsafe { &mut *ring };
    let taken = sender(ring).and_then(|sender| Ok(c_int::from(sender.take_back()?)));
    told(taken, -1)
}

fn sender(ring: &mut nlring) -> Result<&mut Sender, Refusal> {
    let words = "cannot send: no ring to send by was asked for; set tx_messages";
    let none = || Refusal::new(libc::EINVAL, words);
    ring.sender.as_mut().ok_or_else(none)
}

fn every_slot_waits() -> Refusal {
    let words = "cannot write a message: every slot waits to be sent; call nlring_flush";
    Refusal::new(libc::EAGAIN, words)
}
