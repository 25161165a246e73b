//! A file mapped shared, at an address where huge pages fit, and what the kernel is asked to do with its pages.
//!
//! Invariant: `base` to `base + len_bytes` is mapped as long as the value lives, and nobody else unmaps it. Nothing here
//! hands out a reference.
#![expect(unsafe_code, reason = "an aligned map, locking and huge pages have no safe interface")]

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicU8, Ordering};
use std::io;
use std::os::fd::BorrowedFd;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap, mmap_anonymous, munmap};

/// What the page tables of x86-64 and of aarch64 with 4 KiB pages map by one entry.
pub(crate) const HUGE_BYTES: usize = 2 << 20;

/// Since Linux 6.1: put these pages together now. Unlike the older advice it does not depend on how the machine's
/// administrator has set huge pages for shared memory, and it is done when the call returns.
const MADV_COLLAPSE: libc::c_int = 25;

pub(crate) struct Mapping {
    base: NonNull<u8>,
    len_bytes: usize,
}

// SAFETY: an address range that the value owns alone; it has no thread affinity.
unsafe impl Send for Mapping {}
// SAFETY: as above: `&Mapping` only yields the address, and asks the kernel things that any thread may ask.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Maps the whole file. Its length is not zero; `align_bytes` is a power of two.
    pub(crate) fn new(
        file: BorrowedFd<'_>,
        len_bytes: usize,
        align_bytes: usize,
        writable: bool,
    ) -> io::Result<Self> {
        assert!(len_bytes > 0 && align_bytes.is_power_of_two(), "the callers have checked both");
        let too_much = || io::Error::from(io::ErrorKind::OutOfMemory);
        let room_bytes = len_bytes.checked_add(align_bytes).ok_or_else(too_much)?;
        let room = Reservation::new(room_bytes)?;
        let offset_bytes = room.base.align_offset(align_bytes);
        let at = room.base.wrapping_add(offset_bytes);
        let protection = if writable { ProtFlags::READ | ProtFlags::WRITE } else { ProtFlags::READ };
        let flags = MapFlags::SHARED | MapFlags::FIXED;
        // SAFETY: replaces `len_bytes` of the reservation, which is `align_bytes` longer and holds nothing of anybody's.
        let mapped = unsafe { mmap(at.cast(), len_bytes, protection, flags, file, 0) }?;
        let page_bytes = rustix::param::page_size();
        let end_bytes = offset_bytes + len_bytes.next_multiple_of(page_bytes);
        room.keep(offset_bytes, end_bytes);
        let base = NonNull::new(mapped.cast()).expect("a mapping is never at address zero");
        Ok(Self { base, len_bytes })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Puts the pages together into huge ones, as far as whole ones fit.
    pub(crate) fn collapse(&self) -> io::Result<()> {
        let whole_bytes = self.len_bytes - self.len_bytes % HUGE_BYTES;
        if whole_bytes == 0 {
            return Ok(());
        }
        // SAFETY: the range is mapped by us; collapsing moves pages and changes no byte.
        let status = unsafe { libc::madvise(self.base.as_ptr().cast(), whole_bytes, MADV_COLLAPSE) };
        if status == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
    }

    /// Brings every page into the page tables, so that no first touch waits.
    pub(crate) fn populate(&self, writable: bool) {
        let advice = if writable { Advice::LinuxPopulateWrite } else { Advice::LinuxPopulateRead };
        // SAFETY: the range is mapped by us; faulting pages in changes no byte.
        if unsafe { madvise(self.base.as_ptr().cast(), self.len_bytes, advice) }.is_ok() {
            return;
        }
        // Before Linux 5.14, one by one.
        for offset_bytes in (0..self.len_bytes).step_by(rustix::param::page_size()) {
            // SAFETY: within the mapping.
            let byte = unsafe { self.base.add(offset_bytes) }.cast::<AtomicU8>();
            // SAFETY: mapped and readable; others may write it meanwhile, which an atomic allows.
            let _touched = unsafe { byte.as_ref() }.load(Ordering::Relaxed);
        }
    }

    /// Locks a range. Callers stay inside the mapping.
    pub(crate) fn lock(&self, offset_bytes: usize, len_bytes: usize) -> io::Result<()> {
        let rounded = self.len_bytes.next_multiple_of(crate::PAGE_BYTES);
        assert!(
            offset_bytes.checked_add(len_bytes).is_some_and(|end| end <= rounded),
            "callers lock what the plan has laid out"
        );
        // SAFETY: within the mapping, asserted above, whose last page is whole.
        let start = unsafe { self.base.add(offset_bytes) };
        // SAFETY: the range is mapped by us; locking changes no byte of it.
        unsafe { mlock(start.as_ptr().cast(), len_bytes) }?;
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the value owns the range, and whoever borrowed from it is gone. The kernel rounds up to whole pages.
        // A failure leaves it mapped.
        let _left = unsafe { munmap(self.base.as_ptr().cast(), self.len_bytes) };
    }
}

/// Addresses that nothing lies at, to be given back but for the part that was used.
struct Reservation {
    base: *mut u8,
    len_bytes: usize,
}

impl Reservation {
    fn new(len_bytes: usize) -> io::Result<Self> {
        let flags = MapFlags::PRIVATE | MapFlags::NORESERVE;
        // SAFETY: at no address of ours: the kernel picks a free range, and nothing can be read or written there.
        let base = unsafe { mmap_anonymous(ptr::null_mut(), len_bytes, ProtFlags::empty(), flags) }?;
        Ok(Self { base: base.cast(), len_bytes })
    }

    /// Gives back all but `from..to`, which belongs to a mapping now.
    fn keep(self, from: usize, to: usize) {
        give_back(self.base, 0, from);
        give_back(self.base, to, self.len_bytes);
        core::mem::forget(self);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        give_back(self.base, 0, self.len_bytes);
    }
}

/// Unmaps part of a reservation; the callers name only parts that are theirs.
fn give_back(base: *mut u8, from: usize, to: usize) {
    if from >= to {
        return;
    }
    let start: *mut c_void = base.wrapping_add(from).cast();
    // SAFETY: only `Reservation` calls this, with a part of its own range in which nothing was mapped.
    let _left = unsafe { munmap(start, to - from) };
}
