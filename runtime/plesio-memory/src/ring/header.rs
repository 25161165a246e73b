//! The 64 bytes in front of every slot, in shared memory: only ever touched as atomics.
//!
//! ```text
//!  0 seq u64 | 8 base_version u64 | 16 target_frame u64 | 24 n_steps u32 | 28 state u32
//! 32 len_elems u64 | 40 digest u8[16] | 56 crc32 u32 | 60 flags u32
//! ```
#![expect(unsafe_code, reason = "a header is atomics laid over arena memory")]

use core::sync::atomic::{AtomicU32, AtomicU64};

use crate::plan::SLOT_HEADER_BYTES;
use crate::{Filling, Lease};

#[repr(C)]
pub(super) struct SlotHeader {
    pub(super) seq: AtomicU64,
    pub(super) base_version: AtomicU64,
    pub(super) target_frame: AtomicU64,
    pub(super) n_steps: AtomicU32,
    pub(super) state: AtomicU32,
    pub(super) len_elems: AtomicU64,
    pub(super) digest: [AtomicU64; 2],
    pub(super) crc32: AtomicU32,
    pub(super) flags: AtomicU32,
}

const _: () = assert!(size_of::<SlotHeader>() == SLOT_HEADER_BYTES);

/// The headers of one ring. Keeps their region leased, so that nothing but these atomics reaches it.
pub(super) struct Headers {
    lease: Lease<Filling>,
    depth: usize,
}

impl Headers {
    /// `None` when the region is too short.
    pub(super) fn new(lease: Lease<Filling>, depth: usize) -> Option<Self> {
        (depth * SLOT_HEADER_BYTES <= lease.span().len_bytes as usize).then_some(Self { lease, depth })
    }

    pub(super) fn slot(&self, index: usize) -> &SlotHeader {
        assert!(index < self.depth, "the caller checks slot indices");
        let headers = self.lease.hold().pointer().cast::<SlotHeader>();
        // SAFETY: `new` has shown that the region holds `depth` headers.
        let header = unsafe { headers.add(index) };
        // SAFETY: page-aligned region, zeroed at start, alive as long as `self.lease`; all fields are atomics and the
        // lease keeps every other access away. The returned reference borrows `self`.
        unsafe { header.as_ref() }
    }
}
