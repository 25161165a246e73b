//! One allocation, many regions, and one access word per region that says who may touch it.
//!
//! ```text
//! access word   0          nobody
//!               1..MAX-1   that many readers: shared, nobody writes
//!               MAX        one holder, who may write
//! ```
//!
//! Other processes may map the arena for reading. For them its beginning tells the layout, and each region's generation is
//! odd while somebody may write there.
//!
//! Invariant: a Rust reference to a region's bytes exists only inside a [`Hold`] that owns the matching part of the
//! word. The kernel writes into a region only inside a call made while we hold it exclusively.
#![expect(unsafe_code, reason = "references to arena bytes are made here, under the access word")]

use core::any::Any;
use core::fmt;
use core::ptr::NonNull;
use core::sync::atomic::{self, Ordering, fence};
use std::os::fd::{AsFd, BorrowedFd};
use std::slice;
use std::sync::Arc;

use plesio_wire::Span;

use crate::backing::{Backing, Wanted};
use crate::ladder;
use crate::plan::{
    CONTROL_HEAD_WORDS, CONTROL_MAGIC, CONTROL_VERSION, Extent, PAGE_BYTES, REGION_WORDS, control_bytes,
};
use crate::sync::AtomicU32;
use crate::{Access, AccessError, ArenaError, ArenaPlan, ArenaReport, Filling, Generation, Lease, Shared};

const IDLE: u32 = 0;
const EXCLUSIVE: u32 = u32::MAX;

/// All memory that tensor bytes of this node live in. Clones are the same arena.
#[derive(Clone)]
pub struct Arena {
    inner: Arc<Inner>,
}

struct Inner {
    backing: Backing,
    extents: Vec<Extent>,
    access: Vec<AtomicU32>,
}

impl Inner {
    /// The words at the arena's beginning; no region lies there.
    fn control(&self) -> &[atomic::AtomicU32] {
        let count = control_bytes(self.extents.len()) / size_of::<u32>();
        // SAFETY: the layout puts the regions behind these bytes, and both come from one plan; page-aligned, initialised,
        // alive as long as `self`, and only ever touched as atomics.
        unsafe { slice::from_raw_parts(self.backing.base().cast::<atomic::AtomicU32>().as_ptr(), count) }
    }

    /// Writes the layout, and last what says that it is there.
    fn describe(&self) {
        let control = self.control();
        for (region, extent) in self.extents.iter().enumerate() {
            let at = CONTROL_HEAD_WORDS + region * REGION_WORDS;
            control[at].store(extent.offset_bytes as u32, Ordering::Relaxed);
            control[at + 1].store((extent.offset_bytes as u64 >> 32) as u32, Ordering::Relaxed);
            control[at + 2].store(extent.len_bytes as u32, Ordering::Relaxed);
        }
        control[2].store(self.extents.len() as u32, Ordering::Relaxed);
        control[1].store(CONTROL_VERSION, Ordering::Relaxed);
        control[0].store(CONTROL_MAGIC, Ordering::Release);
    }

    fn generation(&self, region: u16) -> &atomic::AtomicU32 {
        &self.control()[CONTROL_HEAD_WORDS + usize::from(region) * REGION_WORDS + 3]
    }

    /// The holder may write from here on. Only it writes the generation.
    fn begin_writing(&self, region: u16) {
        let generation = self.generation(region);
        generation.store(generation.load(Ordering::Relaxed).wrapping_add(1), Ordering::Relaxed);
        // Whoever sees a byte of what follows sees that it is odd.
        fence(Ordering::Release);
    }

    fn end_writing(&self, region: u16) {
        let generation = self.generation(region);
        generation.store(generation.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
    }
}

impl Arena {
    /// A sealed memfd, allocated, mapped shared, faulted in, and locked as far as the limit lets it.
    ///
    /// # Errors
    /// A plan that breaks a rule or its budget, or a kernel that refuses memory. Not a refused lock: that is reported.
    pub fn map(plan: &ArenaPlan) -> Result<(Self, ArenaReport), ArenaError> {
        let (extents, len_bytes) = plan.layout()?;
        let wanted =
            Wanted { name: &plan.name, len_bytes, budget_bytes: plan.budget_bytes, access: Access::ReadOnly };
        let (backing, refusals) = Backing::create(&wanted)?;
        let report = ladder::climb(&backing, &extents, plan.budget_bytes, &refusals);
        Ok((Self::with(backing, extents), report))
    }

    /// The same over ordinary heap memory.
    ///
    /// # Errors
    /// As [`Self::map`].
    pub fn heap(plan: &ArenaPlan) -> Result<Self, ArenaError> {
        let (extents, len_bytes) = plan.layout()?;
        Ok(Self::with(Backing::heap(len_bytes)?, extents))
    }

    /// The same over memory that a device's driver gave, so that both use it in place. It has no file: nobody else maps it.
    ///
    /// # Safety
    /// [`ArenaPlan::needed_bytes`] zeroed bytes, in whole pages, from `base` on, which begins a page, stay where they are and are nobody else's
    /// as long as `owner` lives.
    ///
    /// # Errors
    /// As [`Self::map`].
    pub unsafe fn over(
        plan: &ArenaPlan,
        base: NonNull<u8>,
        owner: Box<dyn Any + Send + Sync>,
    ) -> Result<(Self, ArenaReport), ArenaError> {
        let (extents, len_bytes) = plan.layout()?;
        assert!(base.addr().get().is_multiple_of(PAGE_BYTES), "an arena begins a page");
        let backing = Backing::Given { bytes: base, len_bytes, _owner: owner };
        let report = ladder::climb(&backing, &extents, plan.budget_bytes, &[]);
        Ok((Self::with(backing, extents), report))
    }

    fn with(backing: Backing, extents: Vec<Extent>) -> Self {
        let access = extents.iter().map(|_| AtomicU32::new(IDLE)).collect();
        let inner = Inner { backing, extents, access };
        inner.describe();
        Self { inner: Arc::new(inner) }
    }

    /// How many regions there are.
    #[must_use]
    pub fn regions(&self) -> u16 {
        self.inner.extents.len() as u16
    }

    /// The span of a whole region.
    #[must_use]
    pub fn whole(&self, region: u16) -> Option<Span> {
        let extent = self.inner.extents.get(usize::from(region))?;
        Some(Span { region, offset_bytes: 0, len_bytes: extent.len_bytes as u32 })
    }

    /// The memfd behind the arena; the heap has none.
    #[must_use]
    pub fn file(&self) -> Option<BorrowedFd<'_>> {
        self.inner.backing.file().map(AsFd::as_fd)
    }

    /// Where all of it lies, for who pins memory by address. As with [`Self::pointer`], the bytes belong to whoever
    /// holds their region.
    #[must_use]
    pub fn memory(&self) -> (NonNull<u8>, usize) {
        (self.inner.backing.base(), self.inner.backing.len_bytes())
    }

    /// What a region holds now, as whoever maps the arena sees it.
    ///
    /// # Errors
    /// No such region, or somebody holds it who may write.
    pub fn generation(&self, region: u16) -> Result<Generation, AccessError> {
        if usize::from(region) >= self.inner.extents.len() {
            return Err(AccessError::Range);
        }
        Generation::told(self.inner.generation(region).load(Ordering::Acquire)).ok_or(AccessError::Busy)
    }

    /// Copies the span's bytes out.
    ///
    /// # Errors
    /// A span outside its region, another length, or a region that is being written.
    pub fn read(&self, span: Span, into: &mut [u8]) -> Result<(), AccessError> {
        let shared = self.share(span)?;
        if into.len() != span.len_bytes as usize {
            return Err(AccessError::Length);
        }
        into.copy_from_slice(shared.as_bytes());
        Ok(())
    }

    /// Copies bytes in.
    ///
    /// # Errors
    /// A span outside its region, another length, or a region that somebody holds.
    pub fn write(&self, span: Span, from: &[u8]) -> Result<(), AccessError> {
        self.check(span)?;
        if from.len() != span.len_bytes as usize {
            return Err(AccessError::Length);
        }
        let mut lease = self.lease(span.region)?;
        let start = span.offset_bytes as usize;
        lease.as_bytes_mut()[start..start + from.len()].copy_from_slice(from);
        Ok(())
    }

    /// Takes the right to read.
    ///
    /// # Errors
    /// A span outside its region, or a region that is being written.
    pub fn share(&self, span: Span) -> Result<Shared, AccessError> {
        Shared::take(self, span)
    }

    /// Takes a whole region, alone.
    ///
    /// # Errors
    /// No such region, or somebody holds it.
    pub fn lease(&self, region: u16) -> Result<Lease<Filling>, AccessError> {
        Lease::take(self, region)
    }

    /// The address of the span's first byte. Whoever dereferences it must hold the region in the way it uses it.
    ///
    /// # Errors
    /// A span outside its region.
    pub fn pointer(&self, span: Span) -> Result<NonNull<u8>, AccessError> {
        let start = self.check(span)?;
        // SAFETY: `check` has shown that the span lies inside the allocation.
        Ok(unsafe { self.inner.backing.base().add(start) })
    }

    /// The span's place in the allocation.
    pub(crate) fn check(&self, span: Span) -> Result<usize, AccessError> {
        let extent = self.inner.extents.get(usize::from(span.region)).ok_or(AccessError::Range)?;
        extent.locate(span).ok_or(AccessError::Range)
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Arena({} regions)", self.regions())
    }
}

/// Part of one region's access word, given back on drop.
#[derive(Debug)]
pub(crate) struct Hold {
    arena: Arena,
    region: u16,
    exclusive: bool,
}

impl Hold {
    pub(crate) fn exclusive(arena: &Arena, region: u16) -> Result<Self, AccessError> {
        let word = arena.inner.access.get(usize::from(region)).ok_or(AccessError::Range)?;
        word.compare_exchange(IDLE, EXCLUSIVE, Ordering::Acquire, Ordering::Relaxed)
            .map_err(|_| AccessError::Busy)?;
        arena.inner.begin_writing(region);
        Ok(Self { arena: arena.clone(), region, exclusive: true })
    }

    pub(crate) fn shared(arena: &Arena, region: u16) -> Result<Self, AccessError> {
        let word = arena.inner.access.get(usize::from(region)).ok_or(AccessError::Range)?;
        // MAX - 1 is never reached: each reader is a value in memory.
        word.fetch_update(Ordering::Acquire, Ordering::Relaxed, |held| {
            (held < EXCLUSIVE - 1).then_some(held.wrapping_add(1))
        })
        .map_err(|_| AccessError::Busy)?;
        Ok(Self { arena: arena.clone(), region, exclusive: false })
    }

    /// From exclusive to the first reader.
    pub(crate) fn freeze(mut self) -> Self {
        assert!(self.exclusive, "only an exclusive hold is frozen");
        self.exclusive = false;
        self.arena.inner.end_writing(self.region);
        self.word().store(1, Ordering::Release);
        self
    }

    /// From the last reader to exclusive.
    pub(crate) fn thaw(mut self) -> Result<Self, Self> {
        assert!(!self.exclusive, "only a shared hold is thawed");
        match self.word().compare_exchange(1, EXCLUSIVE, Ordering::Acquire, Ordering::Relaxed) {
            Ok(_) => {
                self.arena.inner.begin_writing(self.region);
                self.exclusive = true;
                Ok(self)
            }
            Err(_) => Err(self),
        }
    }

    pub(crate) fn span(&self) -> Span {
        self.arena.whole(self.region).expect("a hold is only made on a region that exists")
    }

    /// The region's first byte.
    pub(crate) fn pointer(&self) -> NonNull<u8> {
        self.arena.pointer(self.span()).expect("a region's whole span lies inside it")
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        let len_bytes = self.span().len_bytes as usize;
        // SAFETY: the region is mapped as long as `self.arena` lives, initialised (zeroed at start), and by the access
        // word nobody writes while this hold is borrowed: it is shared, or exclusive and borrowed here.
        unsafe { slice::from_raw_parts(self.pointer().as_ptr(), len_bytes) }
    }

    pub(crate) fn bytes_mut(&mut self) -> &mut [u8] {
        assert!(self.exclusive, "only an exclusive hold is written through");
        let len_bytes = self.span().len_bytes as usize;
        // SAFETY: as in `bytes`, and the word is EXCLUSIVE: this hold, borrowed mutably, is the only way to the region.
        unsafe { slice::from_raw_parts_mut(self.pointer().as_ptr(), len_bytes) }
    }

    fn word(&self) -> &AtomicU32 {
        &self.arena.inner.access[usize::from(self.region)]
    }
}

impl Drop for Hold {
    fn drop(&mut self) {
        if self.exclusive {
            self.arena.inner.end_writing(self.region);
            self.word().store(IDLE, Ordering::Release);
        } else {
            self.word().fetch_sub(1, Ordering::Release);
        }
    }
}

#[cfg(all(loom, test))]
mod models;
#[cfg(all(test, not(loom)))]
mod tests;
