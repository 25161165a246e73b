//! A peer's arena, read in place by another process of the same user.
//!
//! The owner goes on writing. Each region has a generation, which is odd while somebody may write there; who reads looks at
//! it before and after, and throws away what changed in between. Nothing read is trusted: the layout is taken over once and
//! checked, words are atomics, bytes are whatever they are.

use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};

use plesio_wire::{Frame, SlotSeq, Span, Version};

use crate::plan::{
    CONTROL_HEAD_WORDS, CONTROL_MAGIC, CONTROL_VERSION, Extent, REGION_WORDS, SLOT_HEADER_BYTES,
    control_bytes,
};
use crate::ring::word::Word;
use crate::{Access, AccessError, Arena, AttachError, RingPlan, Segment, SlotInfo, SlotState};

/// A peer's arena, mapped read-only.
#[derive(Debug)]
pub struct Foreign {
    segment: Segment,
    extents: Vec<Extent>,
}

/// What a region held at one moment; equal ones hold the same bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Generation(u32);

impl Generation {
    /// As a word that can be told to a reader.
    #[must_use]
    pub fn word(self) -> u32 {
        self.0
    }

    /// The generation that a word tells; `None` for one at which nothing can be read.
    #[must_use]
    pub fn told(word: u32) -> Option<Self> {
        word.is_multiple_of(2).then_some(Self(word))
    }
}

impl Foreign {
    /// Takes over the layout that stands at the arena's beginning.
    ///
    /// # Errors
    /// The segment holds no arena of this version.
    pub fn open(segment: Segment) -> Result<Self, AttachError> {
        let garbage = |what| Err(AttachError::Layout { what });
        let word = |at: usize| segment.peek(at * size_of::<u32>(), Ordering::Acquire).unwrap_or(0);
        if word(0) != CONTROL_MAGIC {
            return garbage("its first word");
        }
        if word(1) != CONTROL_VERSION {
            return garbage("its version");
        }
        let count = word(2) as usize;
        if count == 0 || count > usize::from(u16::MAX) || control_bytes(count) > segment.len_bytes() {
            return garbage("its number of regions");
        }
        let mut extents = Vec::with_capacity(count);
        for region in 0..count {
            let at = CONTROL_HEAD_WORDS + region * REGION_WORDS;
            let offset = u64::from(word(at)) | u64::from(word(at + 1)) << 32;
            let len_bytes = word(at + 2) as usize;
            let Ok(offset_bytes) = usize::try_from(offset) else { return garbage("a region's place") };
            if len_bytes == 0 || segment.pointer(offset_bytes, len_bytes).is_err() {
                return garbage("a region's place");
            }
            extents.push(Extent { offset_bytes, len_bytes });
        }
        Ok(Self { segment, extents })
    }

    /// Attaches a file as [`Segment::attach`] does, and opens it.
    ///
    /// # Errors
    /// As there, and as [`Self::open`].
    pub fn attach(file: std::os::fd::OwnedFd, len_bytes: usize, uid: u32) -> Result<Self, AttachError> {
        Self::open(Segment::attach(file, len_bytes, Access::ReadOnly, uid)?)
    }

    /// How many regions there are.
    #[must_use]
    pub fn regions(&self) -> u16 {
        self.extents.len() as u16
    }

    /// The span of a whole region.
    #[must_use]
    pub fn whole(&self, region: u16) -> Option<Span> {
        let extent = self.extents.get(usize::from(region))?;
        Some(Span { region, offset_bytes: 0, len_bytes: extent.len_bytes as u32 })
    }

    /// What a region holds now: to be asked before it is read.
    ///
    /// # Errors
    /// No such region, or its owner may be writing there.
    pub fn generation(&self, region: u16) -> Result<Generation, AccessError> {
        let word = self.segment.peek(self.generation_at(region)?, Ordering::Acquire)?;
        if word % 2 == 0 { Ok(Generation(word)) } else { Err(AccessError::Busy) }
    }

    /// Whether what was read since [`Self::generation`] is what the region held then: to be asked after it was read.
    #[must_use]
    pub fn held(&self, region: u16, since: Generation) -> bool {
        // What was read before must not be read after the word.
        fence(Ordering::Acquire);
        self.generation_at(region)
            .and_then(|at| self.segment.peek(at, Ordering::Relaxed))
            .is_ok_and(|word| word == since.0)
    }

    /// Copies a span out.
    ///
    /// # Errors
    /// A span outside its region, another length, or a region that was written meanwhile.
    pub fn read(&self, span: Span, into: &mut [u8]) -> Result<(), AccessError> {
        self.locate(span)?;
        if into.len() != span.len_bytes as usize {
            return Err(AccessError::Length);
        }
        let generation = self.generation(span.region)?;
        self.copy(span, into)?;
        if self.held(span.region, generation) { Ok(()) } else { Err(AccessError::Busy) }
    }

    /// Copies a span out that its owner told of together with this generation.
    ///
    /// # Errors
    /// A span outside its region, another length, or a region that has been written since. What lies in `into` is then
    /// of no use.
    pub fn read_told(&self, span: Span, told: Generation, into: &mut [u8]) -> Result<(), AccessError> {
        self.locate(span)?;
        if self.generation(span.region)? != told {
            return Err(AccessError::Busy);
        }
        self.copy(span, into)?;
        if self.held(span.region, told) { Ok(()) } else { Err(AccessError::Busy) }
    }

    /// Whether it is laid out as an arena of one's own.
    #[must_use]
    pub fn resembles(&self, own: &Arena) -> bool {
        self.regions() == own.regions()
            && (0..self.regions()).all(|region| self.whole(region) == own.whole(region))
    }

    /// Copies a span out without a look at its generation, for who looks at it before and after many of them, or knows by
    /// other words whether it holds still. Each 8 aligned bytes come out whole.
    ///
    /// # Errors
    /// A span outside its region, or another length.
    pub fn copy(&self, span: Span, into: &mut [u8]) -> Result<(), AccessError> {
        let start = self.locate(span)?;
        if into.len() != span.len_bytes as usize {
            return Err(AccessError::Length);
        }
        self.segment.copy_out(start, into)
    }

    /// The address of the span's first byte, for a kernel that reads it between [`Self::generation`] and [`Self::held`]
    /// and makes no reference of it.
    ///
    /// # Errors
    /// A span outside its region.
    pub fn pointer(&self, span: Span) -> Result<NonNull<u8>, AccessError> {
        self.segment.pointer(self.locate(span)?, span.len_bytes as usize)
    }

    /// What the peer's ring says about one of its slots; `None` when the ring or the slot is not there. The content is
    /// this slot's if its region was [`Self::held`] from before this call.
    #[must_use]
    pub fn slot(&self, ring: &RingPlan, index: u8) -> Option<(SlotInfo, SlotState)> {
        let slot = usize::from(index);
        if slot >= ring.depth {
            return None;
        }
        let offset_bytes = u32::try_from(slot * SLOT_HEADER_BYTES).ok()?;
        let len_bytes = SLOT_HEADER_BYTES as u32;
        let at = self.locate(Span { region: ring.first_region, offset_bytes, len_bytes }).ok()?;
        // The state first: what stands beside it was written before.
        let state = Word::of(self.segment.peek(at + 28, Ordering::Acquire).ok()?).state()?;
        let word = |offset_bytes| self.segment.peek64(at + offset_bytes, Ordering::Relaxed).ok();
        let info = SlotInfo {
            index,
            seq: SlotSeq(word(0)? as u32),
            base_version: Version(word(8)?),
            target_frame: Frame(word(16)?),
            n_steps: self.segment.peek(at + 24, Ordering::Relaxed).ok()?,
        };
        Some((info, state))
    }

    fn generation_at(&self, region: u16) -> Result<usize, AccessError> {
        let region = usize::from(region);
        if region >= self.extents.len() {
            return Err(AccessError::Range);
        }
        Ok((CONTROL_HEAD_WORDS + region * REGION_WORDS + 3) * size_of::<u32>())
    }

    fn locate(&self, span: Span) -> Result<usize, AccessError> {
        let extent = self.extents.get(usize::from(span.region)).ok_or(AccessError::Range)?;
        extent.locate(span).ok_or(AccessError::Range)
    }
}

#[cfg(all(test, not(miri)))]
mod tests;
