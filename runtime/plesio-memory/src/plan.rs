//! The layout of an arena, decided before a byte of it exists: sizes in, region numbers out.

use plesio_wire::Span;

use crate::ArenaError;

/// Regions start on a page, so that each can be locked, shared and sealed alone.
pub const PAGE_BYTES: usize = 4096;

/// Bytes of one slot header in the ring's header region.
pub(crate) const SLOT_HEADER_BYTES: usize = 64;

/// What an arena begins with, in words of 32 bits, for processes that map it:
///
/// ```text
///  0 magic "PLAR" | 1 version | 2 regions | ..16 zero
///  16 + 4r: offset_bytes low, high | len_bytes | generation, odd while somebody may write region r
/// ```
pub(crate) const CONTROL_MAGIC: u32 = u32::from_le_bytes(*b"PLAR");
pub(crate) const CONTROL_VERSION: u32 = 1;
pub(crate) const CONTROL_HEAD_WORDS: usize = 16;
pub(crate) const REGION_WORDS: usize = 4;

/// Bytes of that beginning, whole pages.
pub(crate) fn control_bytes(regions: usize) -> usize {
    ((CONTROL_HEAD_WORDS + regions * REGION_WORDS) * size_of::<u32>()).next_multiple_of(PAGE_BYTES)
}

/// Which regions an arena has.
#[derive(Clone, Debug)]
pub struct ArenaPlan {
    /// Shown in `/proc/<pid>/maps`; names no file.
    pub name: String,
    /// Length of each region, in order of its number.
    pub region_bytes: Vec<usize>,
    /// Most bytes the arena may take; checked before anything is allocated.
    pub budget_bytes: usize,
}

/// Which regions of a plan a ring uses: one of headers, then one per slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RingPlan {
    /// Region of the headers; the slots follow it.
    pub first_region: u16,
    /// Slots, a power of two in 2..=16.
    pub depth: usize,
    /// Elements of one slot.
    pub len_elems: usize,
}

impl RingPlan {
    /// The region of a slot's elements; `None` where there is no such region.
    #[must_use]
    pub fn slot_region(&self, index: usize) -> Option<u16> {
        u16::try_from(usize::from(self.first_region).checked_add(1)?.checked_add(index)?).ok()
    }
}

impl ArenaPlan {
    /// An empty plan.
    #[must_use]
    pub fn new(name: &str, budget_bytes: usize) -> Self {
        Self { name: name.into(), region_bytes: Vec::new(), budget_bytes }
    }

    /// Adds a region and says its number; a plan with too many is refused when the arena is made.
    pub fn push(&mut self, len_bytes: usize) -> u16 {
        let region = self.region_bytes.len().min(usize::from(u16::MAX)) as u16;
        self.region_bytes.push(len_bytes);
        region
    }

    /// Adds the regions of an elastic ring of `depth` slots of `len_elems` i32 elements.
    pub fn push_ring(&mut self, depth: usize, len_elems: usize) -> RingPlan {
        let first_region = self.push(depth.saturating_mul(SLOT_HEADER_BYTES));
        for _ in 0..depth {
            self.push(len_elems.saturating_mul(size_of::<i32>()));
        }
        RingPlan { first_region, depth, len_elems }
    }

    /// Bytes that the arena takes: the regions, each on its own pages, and the page or more that describes them.
    #[must_use]
    pub fn needed_bytes(&self) -> usize {
        let pages = |len_bytes: &usize| len_bytes.checked_next_multiple_of(PAGE_BYTES).unwrap_or(usize::MAX);
        let regions = self.region_bytes.iter().map(pages).fold(0_usize, usize::saturating_add);
        regions.saturating_add(control_bytes(self.region_bytes.len().min(usize::from(u16::MAX))))
    }

    /// Where each region starts and how long it is, and the length of the whole.
    pub(crate) fn layout(&self) -> Result<(Vec<Extent>, usize), ArenaError> {
        let refuse = |rule| Err(ArenaError::Plan { rule });
        if self.region_bytes.is_empty() {
            return refuse("a plan without regions");
        }
        if self.region_bytes.len() > usize::from(u16::MAX) {
            return refuse("more than 65,535 regions");
        }
        let mut extents = Vec::with_capacity(self.region_bytes.len());
        let mut total = control_bytes(self.region_bytes.len()) as u64;
        for &len_bytes in &self.region_bytes {
            if len_bytes == 0 || u32::try_from(len_bytes).is_err() {
                return refuse("a region must have 1 byte to 4 GiB");
            }
            extents.push(Extent { offset_bytes: total as usize, len_bytes });
            // At most 65,535 regions of 4 GiB: 2^48, no overflow.
            total += (len_bytes as u64).next_multiple_of(PAGE_BYTES as u64);
        }
        let budget_bytes = self.budget_bytes as u64;
        if total > budget_bytes {
            return Err(ArenaError::Budget { needed_bytes: total, budget_bytes });
        }
        Ok((extents, total as usize))
    }
}

/// Where a region lies in the arena's memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Extent {
    pub(crate) offset_bytes: usize,
    pub(crate) len_bytes: usize,
}

impl Extent {
    /// The span's first byte counted from the arena's start, if the span lies inside this region.
    pub(crate) fn locate(&self, span: Span) -> Option<usize> {
        let end = u64::from(span.offset_bytes) + u64::from(span.len_bytes);
        (end <= self.len_bytes as u64).then_some(self.offset_bytes + span.offset_bytes as usize)
    }
}
