//! The worker's end: fills, cuts, merges when the ring is full, and takes back what returns. Every call is bounded by
//! the depth and the length of a slot; none waits for the node.

use core::mem;
use core::sync::atomic::Ordering;
use std::sync::Arc;

use plesio_wire::{Frame, SlotSeq, Version};

use super::hand_over::WorkerEnd;
use super::word::Word;
use super::{Core, ELEMENT_MAX, ELEMENT_MIN, Fate, Occupancy, RingCounters, SlotInfo, SlotState, bump};
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
    end: WorkerEnd,
    /// Index of the slot that is FILLING.
    filling: usize,
    /// Its lease: only this end can reach its elements.
    lease: Lease<Filling>,
    seq_next: u64,
}

/// Puts a slot that is being merged into back to CUT, also when a closure panics.
struct Reopen<'a> {
    core: &'a Core,
    end: &'a mut WorkerEnd,
    index: usize,
}

impl Drop for Reopen<'_> {
    fn drop(&mut self) {
        self.core.hand.enter(self.end, self.index, SlotState::Cut);
    }
}

impl Producer {
    pub(super) fn new(core: Arc<Core>, mut end: WorkerEnd, first_seq: SlotSeq) -> Self {
        let lease = core.hand.swap(&mut end, 0, None).expect("a new ring has all its leases");
        Self { core, end, filling: 0, lease, seq_next: u64::from(first_seq.0) }
    }

    /// Ends the contribution in the FILLING slot.
    ///
    /// `quantise` writes every element (it finds whatever an earlier contribution left there), each within
    /// [`ELEMENT_MIN`]..=[`ELEMENT_MAX`], and answers whether the contribution is finite.
    pub fn cut(&mut self, meta: CutMeta, quantise: impl FnOnce(&mut [i32]) -> bool) -> CutOutcome<'_> {
        // Where others write the words, ours may be said to be free; we know better.
        let is_free = |index: &usize| *index != self.filling && self.core.state(*index) == SlotState::Free;
        let free = (0..self.core.depth()).find(is_free);
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
        let header = core.header(self.filling);
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
        let empty = core.hand.swap(&mut self.end, free, None).expect("only the filling slot's lease is out");
        let full = mem::replace(&mut self.lease, empty);
        core.hand.swap(&mut self.end, self.filling, Some(full));
        core.hand.enter(&mut self.end, self.filling, SlotState::Cut);
        core.hand.enter(&mut self.end, free, SlotState::Filling);
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
        let Self { core, end, filling, lease, .. } = self;
        let core = &**core;
        // The slot is taken before anything is quantised, so that what leaves the worker's floats has a place for
        // certain.
        let Some(target) = take_newest(core, end, *filling) else {
            bump(&core.tally.open);
            return CutOutcome::Open;
        };
        let reopen = Reopen { core, end, index: target };
        if !quantise(lease.as_i32_mut()) {
            bump(&core.tally.discarded);
            return CutOutcome::Discarded;
        }
        let fits = core.hand.elements(reopen.end, target, |into| add(into, lease.as_i32_mut()));
        let header = core.header(target);
        let base_version = header.base_version.load(Ordering::Relaxed).min(meta.base_version.0);
        header.base_version.store(base_version, Ordering::Relaxed);
        let n_steps = header.n_steps.load(Ordering::Relaxed).saturating_add(meta.n_steps);
        header.n_steps.store(n_steps, Ordering::Relaxed);
        let into = core.info(target);
        drop(reopen);
        bump(&core.tally.merged);
        CutOutcome::Merged { into, excess: if fits { None } else { Some(lease.as_i32()) } }
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
        let (slot, _) = self.core.slot(index)?;
        let state = self.core.state(slot);
        let fate = fate(state).filter(|_| slot != self.filling).ok_or(RingError::State(state))?;
        let info = self.core.info(slot);
        self.core.hand.elements(&mut self.end, slot, |elements| read(&info, fate, elements));
        self.core.hand.enter(&mut self.end, slot, SlotState::Free);
        Ok(())
    }

    /// Takes back, as FOLDED, what dead holders of a shared ring had, and slots whose words no ring has written. Whatever a
    /// holder that was given up wrongly still does with its slot finds the word changed. To be called when a tether has
    /// parted, and now and then where others cannot be trusted with the words.
    ///
    /// Says how many were taken back. A ring inside one process has no holders and gives nothing.
    pub fn recover(&mut self, is_alive: impl Fn(u8) -> bool) -> usize {
        if !self.core.hand.is_alone() {
            return 0;
        }
        let mut taken = 0;
        for slot in 0..self.core.depth() {
            let word = Word::read(&self.core.header(slot).state);
            if slot == self.filling {
                if word.state() != Some(SlotState::Filling) {
                    self.core.hand.enter(&mut self.end, slot, SlotState::Filling);
                }
                continue;
            }
            let at_rest = match word.state() {
                Some(SlotState::Sending | SlotState::Offered) => is_alive(word.holder()),
                Some(SlotState::Free | SlotState::Cut | SlotState::Committed | SlotState::Folded) => true,
                // Only one slot is being filled, and none is merged into outside a cut.
                Some(SlotState::Filling | SlotState::Merging) | None => false,
            };
            if !at_rest && self.core.hand.revoke(&mut self.end, slot, word) {
                bump(&self.core.tally.folded);
                taken += 1;
            }
        }
        taken
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
fn take_newest(core: &Core, end: &mut WorkerEnd, filling: usize) -> Option<usize> {
    let mut seq_limit = u64::MAX;
    for _ in 0..core.depth() {
        let (seq, index) = (0..core.depth())
            .filter(|index| *index != filling && core.state(*index) == SlotState::Cut)
            .map(|index| (core.header(index).seq.load(Ordering::Relaxed), index))
            .filter(|(seq, _)| *seq < seq_limit)
            .max()?;
        if core.hand.merge(end, index) {
            return Some(index);
        }
        seq_limit = seq;
    }
    None
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
