// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory that is not there until somebody gives it (`linux/userfaultfd.h`): whoever writes to it, the
//! kernel on behalf of a system call too, sleeps where it is.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

const PAGE: NonZeroUsize = NonZeroUsize::new(4096).expect("not zero");

/// `UFFD_API`.
const API: u64 = 0xaa;
/// `UFFDIO_REGISTER_MODE_MISSING`.
const MISSING: u64 = 1;

/// `struct uffdio_api`.
#[repr(C)]
struct Handshake {
    api: u64,
    features: u64,
    ioctls: u64,
}

/// `struct uffdio_register` and `struct uffdio_zeropage`, which look alike.
#[repr(C)]
struct Range {
    start: u64,
    len: u64,
    mode: u64,
    told: u64,
}

nix::ioctl_readwrite!(shake_hands, API as u8, 0x3f, Handshake);
nix::ioctl_readwrite!(register, API as u8, 0x00, Range);
nix::ioctl_readwrite!(give_zeros, API as u8, 0x04, Range);

/// A page that is missing.
#[derive(Debug)]
pub(crate) struct MissingPage {
    faults: OwnedFd,
    page: NonNull<libc::c_void>,
}

// SAFETY: the page is only ever written to by the kernel, and its address may be known to any thread.
unsafe impl Sync for MissingPage {}

impl MissingPage {
    pub(crate) fn map() -> io::Result<Self> {
        // SAFETY: the call takes flags and gives a descriptor that nobody else has.
        let faults = match unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) } {
            -1 => return Err(io::Error::last_os_error()),
            // SAFETY: as above; descriptors are small.
            fd => unsafe { OwnedFd::from_raw_fd(fd as i32) },
        };
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new mapping at an address of the kernel's choice disturbs no other memory.
        let page = unsafe { mmap_anonymous(None, PAGE, protection, MapFlags::MAP_PRIVATE) }?;
        let this = Self { faults, page };
        let mut handshake = Handshake {
            api: API,
            features: 0,
            ioctls: 0,
        };
        // SAFETY: the descriptor is open, and the structure the one that the request wants.
        unsafe { shake_hands(this.faults.as_raw_fd(), &raw mut handshake) }?;
        // SAFETY: as above.
        unsafe { register(this.faults.as_raw_fd(), &mut this.range(MISSING)) }?;
        Ok(this)
    }

    fn range(&self, mode: u64) -> Range {
        Range {
            start: self.page.as_ptr() as u64,
            len: PAGE.get() as u64,
            mode,
            told: 0,
        }
    }

    /// Where it is not.
    pub(crate) fn address(&self) -> *mut libc::c_void {
        self.page.as_ptr()
    }

    /// Gives it to whoever sleeps over it.
    pub(crate) fn give(&self) -> io::Result<()> {
        // SAFETY: the descriptor is open, and the range is of a page that is ours.
        unsafe { give_zeros(self.faults.as_raw_fd(), &mut self.range(0)) }?;
        Ok(())
    }

    /// Takes it away again.
    pub(crate) fn take(&self) -> io::Result<()> {
        // SAFETY: nobody refers to what is in the page.
        unsafe { madvise(self.page, PAGE.get(), MmapAdvise::MADV_DONTNEED) }?;
        Ok(())
    }
}

impl Drop for MissingPage {
    fn drop(&mut self) {
        // SAFETY: mapped in `map` with this length; who slept over it is awake.
        let _ = unsafe { munmap(self.page, PAGE.get()) };
    }
}
