//! Memory that the kernel takes a buffer from for every datagram it delivers: a ring of entries, and the buffers.
//!
//! ```text
//!  page      | entry 0 | entry 1 | ...          the kernel takes at its head, we give at the tail
//!  buffer b  | lengths 16 | name 32 | control 64 | payload          as recvmsg(2) would fill them
//! ```
//!
//! Invariant: a buffer belongs either to the kernel or to us, and bytes are only looked at while it is ours. The memory
//! is freed only after every request that may write it has ended.
#![expect(unsafe_code, reason = "memory shared with the kernel")]

use core::ptr::NonNull;
use core::slice;
use core::sync::atomic::{AtomicU16, Ordering};
use std::alloc::{Layout, alloc_zeroed, dealloc};

use io_uring::IoUring;
use io_uring::types::{BufRingEntry, RecvMsgOut};
use nix::libc;

use crate::engine::{Arrival, TRAIN_BYTES_MAX};
use crate::{address, control};

/// Buffers; a power of two. Few, so that they stay in the cache: each one is written, checked and read at once.
pub(super) const BUFFERS: u16 = 16;
/// The group that receiving requests name.
pub(super) const GROUP: u16 = 0;
/// Lengths and flags at the head of a buffer (`struct io_uring_recvmsg_out`).
const LENGTHS_BYTES: usize = 16;
/// Room for a name, a multiple of 16 so that the payload is aligned.
const NAME_BYTES: usize = 32;
/// Room for the segment size and the count of losses.
const CONTROL_BYTES: usize = 64;
const BUFFER_BYTES: usize = LENGTHS_BYTES + NAME_BYTES + CONTROL_BYTES + TRAIN_BYTES_MAX;
const PAGE_BYTES: usize = 4_096;
const _: () =
    assert!(BUFFERS.is_power_of_two() && BUFFERS as usize * size_of::<BufRingEntry>() <= PAGE_BYTES);

pub(super) struct Buffers {
    base: NonNull<u8>,
    /// What a receiving request shows the kernel: how much room name and control data have.
    shape: Box<libc::msghdr>,
    tail: u16,
    /// Whose each buffer is.
    ours: [bool; BUFFERS as usize],
}

impl Buffers {
    /// Allocates the memory and gives all of it to the kernel.
    pub(super) fn new(ring: &IoUring) -> Result<Self, String> {
        // SAFETY: the layout is not of size zero.
        let base = NonNull::new(unsafe { alloc_zeroed(Self::layout()) }).ok_or("no memory for buffers")?;
        // SAFETY: a `msghdr` of zeros is valid.
        let mut shape: Box<libc::msghdr> = Box::new(unsafe { core::mem::zeroed() });
        shape.msg_namelen = NAME_BYTES as libc::socklen_t;
        shape.msg_controllen = CONTROL_BYTES as _;
        let mut buffers = Self { base, shape, tail: 0, ours: [true; BUFFERS as usize] };
        // SAFETY: the page of entries lives until `self` is dropped, which the ring's owner delays until no request is left.
        let registered =
            unsafe { ring.submitter().register_buf_ring_with_flags(base.as_ptr() as u64, BUFFERS, GROUP, 0) };
        registered.map_err(|error| format!("io_uring lacks buffer rings: {error}"))?;
        for buffer in 0..BUFFERS {
            buffers.give(buffer);
        }
        Ok(buffers)
    }

    fn layout() -> Layout {
        Layout::from_size_align(PAGE_BYTES + usize::from(BUFFERS) * BUFFER_BYTES, PAGE_BYTES)
            .expect("a constant size")
    }

    /// What a request names; stays where it is as long as `self` lives.
    pub(super) fn shape(&self) -> *const libc::msghdr {
        &raw const *self.shape
    }

    fn at(&self, buffer: u16) -> *mut u8 {
        assert!(buffer < BUFFERS, "the kernel names buffers that it was given");
        self.base.as_ptr().wrapping_add(PAGE_BYTES + usize::from(buffer) * BUFFER_BYTES)
    }

    /// Gives a buffer of ours to the kernel.
    pub(super) fn give(&mut self, buffer: u16) {
        let address = self.at(buffer) as u64;
        assert!(core::mem::take(&mut self.ours[usize::from(buffer)]), "a buffer is given once");
        let entries = self.base.as_ptr().cast::<BufRingEntry>();
        let entry = entries.wrapping_add(usize::from(self.tail & (BUFFERS - 1)));
        // SAFETY: the entry lies in the page, aligned; the kernel reads it only after the tail has passed it, and no other
        // reference to it exists.
        let entry = unsafe { &mut *entry };
        entry.set_addr(address);
        entry.set_len(BUFFER_BYTES as u32);
        entry.set_bid(buffer);
        self.tail = self.tail.wrapping_add(1);
        // SAFETY: `entries` is the address of the first entry.
        let tail = unsafe { BufRingEntry::tail(entries) };
        // SAFETY: the word is aligned, lives as long as `self`, and is only read by the kernel.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        tail.store(self.tail, Ordering::Release);
    }

    /// Notes that the kernel has filled a buffer and given it to us.
    pub(super) fn take(&mut self, buffer: u16) {
        let held = &mut self.ours[usize::from(buffer)];
        assert!(!*held, "the kernel fills only buffers that it has");
        *held = true;
    }

    /// What the kernel has put into a buffer of ours, of `len_bytes` in all.
    pub(super) fn arrival(&mut self, buffer: u16, len_bytes: usize) -> Option<Arrival<'_>> {
        let at = self.at(buffer);
        assert!(self.ours[usize::from(buffer)], "only buffers of ours are looked at");
        // SAFETY: the buffer lies in the allocation, is initialised (zeroed at first), and belongs to us: the kernel does
        // not write it, and `self` is borrowed.
        let bytes = unsafe { slice::from_raw_parts_mut(at, BUFFER_BYTES) };
        let filled = bytes.get(..len_bytes)?;
        let parsed = RecvMsgOut::parse(filled, &self.shape).ok()?;
        if parsed.is_payload_truncated() {
            return None;
        }
        let from = address::parse(parsed.name_data());
        let segment_bytes = control::segment_bytes(parsed.control_data());
        let overflow = control::overflow_count(parsed.control_data());
        let payload_bytes = parsed.payload_data().len();
        let start = LENGTHS_BYTES + NAME_BYTES + CONTROL_BYTES;
        let bytes = bytes.get_mut(start..start + payload_bytes)?;
        Some(Arrival { from, segment_bytes, overflow, bytes })
    }
}

impl Drop for Buffers {
    fn drop(&mut self) {
        // SAFETY: allocated with this layout; the ring's owner drops it after the last request has ended.
        unsafe { dealloc(self.base.as_ptr(), Self::layout()) };
    }
}
