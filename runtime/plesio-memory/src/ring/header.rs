//! The 64 bytes in front of every slot, in shared memory: only ever touched as atomics.
//!
//! ```text
//!  0 seq u64 | 8 base_version u64 | 16 target_frame u64 | 24 n_steps u32 | 28 state u32
//! 32 len_elems u64 | 40 digest u8[16] | 56 crc32 u32 | 60 flags u32
//! ```
#![cfg_attr(not(all(loom, test)), expect(unsafe_code, reason = "a header is atomics laid over arena memory"))]

use core::sync::atomic::Ordering;

use plesio_wire::{Frame, SlotSeq, Version};

#[cfg(not(all(loom, test)))]
use crate::plan::SLOT_HEADER_BYTES;
use crate::sync::{AtomicU32, AtomicU64};
use crate::{Filling, Lease, Segment, SlotInfo};

#[cfg_attr(all(loom, test), derive(Default))]
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

#[cfg(not(all(loom, test)))]
const _: () = assert!(size_of::<SlotHeader>() == SLOT_HEADER_BYTES);

impl SlotHeader {
    /// What the slot carries, as far as the words tell; `index` is its place.
    pub(super) fn info(&self, index: usize) -> SlotInfo {
        SlotInfo {
            index: index as u8,
            seq: SlotSeq(self.seq.load(Ordering::Relaxed) as u32),
            base_version: Version(self.base_version.load(Ordering::Relaxed)),
            target_frame: Frame(self.target_frame.load(Ordering::Relaxed)),
            n_steps: self.n_steps.load(Ordering::Relaxed),
        }
    }
}

/// Where the headers of one ring lie, kept so that they stay there.
#[cfg_attr(all(loom, test), expect(dead_code, reason = "models keep their headers beside it"))]
enum Home {
    /// Leased, so that nothing but these atomics reaches it.
    Arena(Lease<Filling>),
    /// Shared with other processes, which may write any of them at any time.
    Segment(Segment),
}

/// The headers of one ring.
pub(super) struct Headers {
    #[cfg_attr(all(loom, test), expect(dead_code, reason = "models keep their headers beside it"))]
    home: Home,
    depth: usize,
    /// The model checker's atomics cannot be laid over memory.
    #[cfg(all(loom, test))]
    modelled: Vec<SlotHeader>,
}

impl Headers {
    /// `None` when the region is too short.
    pub(super) fn leased(lease: Lease<Filling>, depth: usize) -> Option<Self> {
        let bytes = depth.checked_mul(size_of::<SlotHeader>().min(64))?;
        (bytes <= lease.span().len_bytes as usize).then(|| Self::at(Home::Arena(lease), depth))
    }

    /// `None` when the segment is too short, or cannot be written.
    pub(super) fn shared(segment: Segment, depth: usize) -> Option<Self> {
        let bytes = depth.checked_mul(size_of::<SlotHeader>().min(64))?;
        let fits = segment.writable() && segment.pointer(0, bytes).is_ok();
        fits.then(|| Self::at(Home::Segment(segment), depth))
    }

    fn at(home: Home, depth: usize) -> Self {
        Self {
            home,
            depth,
            #[cfg(all(loom, test))]
            modelled: (0..depth).map(|_| SlotHeader::default()).collect(),
        }
    }

    pub(super) fn depth(&self) -> usize {
        self.depth
    }

    #[cfg(all(loom, test))]
    pub(super) fn slot(&self, index: usize) -> &SlotHeader {
        &self.modelled[index]
    }

    #[cfg(not(all(loom, test)))]
    pub(super) fn slot(&self, index: usize) -> &SlotHeader {
        assert!(index < self.depth, "the caller checks slot indices");
        let first = match &self.home {
            Home::Arena(lease) => lease.hold().pointer(),
            Home::Segment(segment) => segment.pointer(0, 0).expect("nothing fits in any segment"),
        };
        let headers = first.cast::<SlotHeader>();
        // SAFETY: the constructors have shown that there is room for `depth` headers.
        let header = unsafe { headers.add(index) };
        // SAFETY: page-aligned, zeroed at start, alive as long as `self.home`; all fields are atomics, which may be shared
        // with whoever writes. The returned reference borrows `self`.
        unsafe { header.as_ref() }
    }
}
