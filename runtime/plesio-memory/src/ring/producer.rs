//! The worker's end: fills, cuts, merges when the ring is full, and takes back what returns. Every call is bounded by
//! the depth and the length of a slot; none waits for the node.

use core::mem;
use core::sync::atomic::Ordering;
use std::sync::Arc;

use plesio_wire::{Frame, Version};

use super::{
    Content, Core, ELEMENT_MAX, ELEMENT_MIN, Fate, Occupancy, RingCounters, SlotInfo, SlotState, bump,
};
use crate::{Filling, Lease, RingError};

/// What the worker says about a contribution.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CutMeta {
    /// Version its updates were computed from.
    pub base_version: Version,
    /// Frame it aims at.
    pub target_frame: Frame,
    /// Local steps in it, at least one.
    pub n_steps: u32,
}

/// What became of a cut.
#[derive(Debug, Eq, PartialEq)]
pub enum CutOutcome<'a> {
    /// The contribution is in a slot of its own.
    Cut(SlotInfo),
    /// No slot was free: it was added to the newest slot that nobody had heard of.
    Merged {
        /// That slot, after the addition.
        into: SlotInfo,
        /// Per element, what did not fit and stays in the uncommitted mass; `None` when all fitted.
        excess: Option<&'a [i32]>,
    },
    /// Every other slot is announced. Nothing was quantised; go on and aim at the next frame.
    Open,
    /// The closure said that the contribution is not finite. Nothing was kept.
    Discarded,
}

/// The worker's end of a ring.
pub struct Producer {
    core: Arc<Core>,
    /// Index of the slot that is FILLING.
    filling: usize,
    /// Its lease: only this end can reach its elements.
    lease: Lease<Filling>,
    seq_next: u64,
}

/// Puts a slot that is being merged into back to CUT, also when a closure panics.
struct Reopen<'a> {
    core: &'a Core,
    index: usize,
}

impl Drop for Reopen<'_> {
    fn drop(&mut self) {
        self.core.enter(self.index, SlotState::Cut);
    }
}

impl Producer {
    pub(super) fn new(core: Arc<Core>, seq_next: u64) -> Self {
        let lease = core.take(0);
        Self { core, filling: 0, lease, seq_next }
    }

    /// Ends the contribution in the FILLING slot.
    ///
    /// `quantise` writes every element (it finds whatever an earlier contribution left there), each within
    /// [`ELEMENT_MIN`]..=[`ELEMENT_MAX`], and answers whether the contribution is finite.
    pub fn cut(&mut self, meta: CutMeta, quantise: impl FnOnce(&mut [i32]) -> bool) -> CutOutcome<'_> {
        let free = (0..self.core.depth()).find(|index| self.core.state(*index) == SlotState::Free);
        // Numbers are 32 bits on the wire and never reused; at one slot per 50 ms they last six years.
        let numbered = u32::try_from(self.seq_next).is_ok();
        match free {
            Some(free) if numbered => self.cut_into_own(meta, quantise, free),
            _ => self.cut_into_newest(meta, quantise),
        }
    }

    fn cut_into_own(
        &mut self,
        meta: CutMeta,
        quantise: impl FnOnce(&mut [i32]) -> bool,
        free: usize,
    ) -> CutOutcome<'_> {
        let core = &*self.core;
        if !quantise(self.lease.as_i32_mut()) {
            bump(&core.tally.discarded);
            return CutOutcome::Discarded;
        }
        let header = core.headers.slot(self.filling);
        header.seq.store(self.seq_next, Ordering::Relaxed);
        header.base_version.store(meta.base_version.0, Ordering::Relaxed);
        header.target_frame.store(meta.target_frame.0, Ordering::Relaxed);
        header.n_steps.store(meta.n_steps, Ordering::Relaxed);
        for word in &header.digest {
            word.store(0, Ordering::Relaxed);
        }
        header.crc32.store(0, Ordering::Relaxed);
        header.flags.store(0, Ordering::Relaxed);
        let info = core.info(self.filling);
        let full = mem::replace(&mut self.lease, core.take(free));
        core.put(self.filling, full);
        core.enter(self.filling, SlotState::Cut);
        core.enter(free, SlotState::Filling);
        bump(&core.tally.cut);
        self.filling = free;
        self.seq_next += 1;
        CutOutcome::Cut(info)
    }

    fn cut_into_newest(
        &mut self,
        meta: CutMeta,
        quantise: impl FnOnce(&mut [i32]) -> bool,
    ) -> CutOutcome<'_> {
        let core = &*self.core;
        // The slot is taken before anything is quantised, so that what leaves the worker's floats has a place for
        // certain.
        let Some(target) = take_newest(core) else {
            bump(&core.tally.open);
            return CutOutcome::Open;
        };
        let reopen = Reopen { core, index: target };
        if !quantise(self.lease.as_i32_mut()) {
            bump(&core.tally.discarded);
            return CutOutcome::Discarded;
        }
        let fits = add(own(&mut core.content(target)), self.lease.as_i32_mut());
        let header = core.headers.slot(target);
        header.base_version.fetch_min(meta.base_version.0, Ordering::Relaxed);
        let n_steps = header.n_steps.load(Ordering::Relaxed).saturating_add(meta.n_steps);
        header.n_steps.store(n_steps, Ordering::Relaxed);
        let into = core.info(target);
        drop(reopen);
        bump(&core.tally.merged);
        CutOutcome::Merged { into, excess: if fits { None } else { Some(self.lease.as_i32()) } }
    }

    /// The oldest slot that has come back. It stays until [`Self::reclaim`].
    #[must_use]
    pub fn poll_returned(&self) -> Option<(SlotInfo, Fate)> {
        let info = self.core.oldest(|state| fate(state).is_some())?;
        Some((info, fate(self.core.state(usize::from(info.index)))?))
    }

    /// Reads a returned slot once more and frees it.
    ///
    /// # Errors
    /// No such slot, or it has not come back.
    pub fn reclaim(
        &mut self,
        index: u8,
        read: impl FnOnce(&SlotInfo, Fate, &[i32]),
    ) -> Result<(), RingError> {
        self.core.header(index)?;
        let slot = usize::from(index);
        let state = self.core.state(slot);
        let fate = fate(state).ok_or(RingError::State(state))?;
        read(&self.core.info(slot), fate, own(&mut self.core.content(slot)));
        self.core.enter(slot, SlotState::Free);
        Ok(())
    }

    /// How full the ring is.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        self.core.occupancy()
    }

    /// What has happened so far.
    #[must_use]
    pub fn counters(&self) -> RingCounters {
        self.core.counters()
    }
}

fn fate(state: SlotState) -> Option<Fate> {
    match state {
        SlotState::Committed => Some(Fate::Committed),
        SlotState::Folded => Some(Fate::Folded),
        _ => None,
    }
}

/// Takes the newest CUT slot out of the node's reach. At most one try per slot: the node only ever takes slots away.
fn take_newest(core: &Core) -> Option<usize> {
    let mut seq_limit = u64::MAX;
    for _ in 0..core.depth() {
        let (seq, index) = (0..core.depth())
            .filter(|index| core.state(*index) == SlotState::Cut)
            .map(|index| (core.headers.slot(index).seq.load(Ordering::Relaxed), index))
            .filter(|(seq, _)| *seq < seq_limit)
            .max()?;
        if core.leave_cut(index, SlotState::Merging) {
            return Some(index);
        }
        seq_limit = seq;
    }
    None
}

fn own(content: &mut Content) -> &mut [i32] {
    match content {
        Content::Filling(lease) => lease.as_i32_mut(),
        Content::InFlight(_) | Content::Taken => panic!("the worker reads slots only while they are its own"),
    }
}

/// Adds `from` into `into`; what would leave the range of an element stays in `from`, the rest of which becomes zero.
/// True when everything fitted.
fn add(into: &mut [i32], from: &mut [i32]) -> bool {
    let mut excess_bits = 0;
    for (sum, part) in into.iter_mut().zip(from) {
        let wanted = i64::from(*sum) + i64::from(*part);
        let kept = wanted.clamp(i64::from(ELEMENT_MIN), i64::from(ELEMENT_MAX));
        *sum = kept as i32;
        // Two elements inside the range leave at most 2^30, which fits; the clamp only guards a worker that broke it.
        *part = (wanted - kept).clamp(i64::from(i32::MIN), i64::from(i32::MAX)) as i32;
        excess_bits |= *part;
    }
    excess_bits == 0
}
