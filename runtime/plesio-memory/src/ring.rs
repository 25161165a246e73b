//! The elastic ring: gradient contributions between the worker, which fills and cuts, and the node, which announces,
//! sends and returns them.
//!
//! ```text
//!            worker                    node                          worker
//!  FREE -> FILLING -> CUT -> SENDING -> OFFERED -> COMMITTED -> FREE
//!                      |        |          |
//!                      +--------+----------+----> FOLDED -----> FREE
//! ```
//!
//! Exactly one slot is FILLING. MERGING is a CUT slot that the worker has taken back for the length of one addition.
//! Announcing freezes a slot: its region is leased in flight, and nothing can write it until it returns.
//!
//! Invariant: each edge has one owner. The worker moves FREE, FILLING, MERGING, COMMITTED and FOLDED; the node moves
//! SENDING and OFFERED; CUT is the only state both may leave, by compare-and-exchange. Neither side ever waits.

mod consumer;
mod header;
mod producer;

use core::mem;
use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use plesio_wire::{Frame, SlotSeq, Version};

use crate::{Arena, Filling, InFlight, Lease, RingError, RingPlan};
use header::{Headers, SlotHeader};

pub use consumer::{Announced, Consumer};
pub use producer::{CutMeta, CutOutcome, Producer};

/// Largest element a slot may carry.
pub const ELEMENT_MAX: i32 = (1 << 30) - 1;
/// Smallest element a slot may carry.
pub const ELEMENT_MIN: i32 = -(1 << 30);

/// Life of a slot.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u32)]
pub enum SlotState {
    /// Empty.
    Free = 0,
    /// The worker's next contribution goes here.
    Filling = 1,
    /// Complete, and nobody has heard of it.
    Cut = 2,
    /// Announced: on its way to the shard owners.
    Sending = 3,
    /// All shard owners have it; resent from here if one is lost.
    Offered = 4,
    /// Part of a sealed version; the worker takes it off its uncommitted mass.
    Committed = 5,
    /// Given back to the worker's uncommitted mass.
    Folded = 6,
    /// CUT, taken back by the worker for one addition.
    Merging = 7,
}

impl SlotState {
    pub(crate) fn from_word(word: u32) -> Option<Self> {
        Some(match word {
            0 => Self::Free,
            1 => Self::Filling,
            2 => Self::Cut,
            3 => Self::Sending,
            4 => Self::Offered,
            5 => Self::Committed,
            6 => Self::Folded,
            7 => Self::Merging,
            _ => return None,
        })
    }
}

/// Why a slot came back to the worker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fate {
    /// Its version is sealed: it leaves the uncommitted mass.
    Committed,
    /// It will never be committed under this number: it stays in the uncommitted mass.
    Folded,
}

/// What a slot carries.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SlotInfo {
    /// Place in the ring.
    pub index: u8,
    /// Number of the contribution.
    pub seq: SlotSeq,
    /// Version the local updates were computed from; the older one after a merge.
    pub base_version: Version,
    /// Frame it is meant for.
    pub target_frame: Frame,
    /// Local steps in it.
    pub n_steps: u32,
}

/// How many slots are in which state, at one moment.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Occupancy {
    /// Slots in the ring.
    pub depth: u8,
    /// FREE.
    pub free: u8,
    /// CUT, or being merged into.
    pub cut: u8,
    /// SENDING.
    pub sending: u8,
    /// OFFERED.
    pub offered: u8,
    /// COMMITTED or FOLDED: waiting for the worker.
    pub returned: u8,
}

impl Occupancy {
    /// The figure that travels in BEAT.
    #[must_use]
    pub fn fill(&self) -> u8 {
        self.cut + self.sending
    }
}

/// What has happened since the ring was made.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RingCounters {
    /// Slots cut.
    pub cut: u64,
    /// Contributions added into an earlier slot because none was free.
    pub merged: u64,
    /// Cuts put off because every other slot was announced.
    pub open: u64,
    /// Contributions thrown away because they were not finite.
    pub discarded: u64,
    /// Slots folded back.
    pub folded: u64,
    /// Slots whose version was sealed.
    pub committed: u64,
}

impl RingCounters {
    /// `fold_total` of the consensus text: cuts that found the ring full.
    #[must_use]
    pub fn fold_total(&self) -> u64 {
        self.merged + self.open
    }
}

/// The lease of a slot, as it stands.
enum Content {
    Filling(Lease<Filling>),
    InFlight(Lease<InFlight>),
    /// Elsewhere: with the worker while FILLING, or inside a change from one to the other.
    Taken,
}

/// Makes the two ends of a ring. Slot numbers start at `first_seq`.
///
/// # Errors
/// A shape that is not allowed, or regions that the arena does not have or has given to somebody.
pub fn ring(arena: &Arena, plan: &RingPlan, first_seq: SlotSeq) -> Result<(Producer, Consumer), RingError> {
    let shape = plan.depth.is_power_of_two() && (2..=16).contains(&plan.depth) && plan.len_elems > 0;
    if !shape {
        return Err(RingError::Shape);
    }
    let headers = Headers::new(arena.lease(plan.first_region)?, plan.depth).ok_or(RingError::Shape)?;
    let mut contents = Vec::with_capacity(plan.depth);
    for index in 0..plan.depth {
        let region =
            u16::try_from(usize::from(plan.first_region) + 1 + index).map_err(|_| RingError::Shape)?;
        let lease = arena.lease(region)?;
        if lease.as_i32().len() != plan.len_elems {
            return Err(RingError::Shape);
        }
        headers.slot(index).state.store(SlotState::Free as u32, Ordering::Relaxed);
        headers.slot(index).len_elems.store(plan.len_elems as u64, Ordering::Relaxed);
        contents.push(Mutex::new(Content::Filling(lease)));
    }
    headers.slot(0).state.store(SlotState::Filling as u32, Ordering::Release);
    let core = Arc::new(Core { headers, contents, tally: Tally::default() });
    Ok((Producer::new(Arc::clone(&core), u64::from(first_seq.0)), Consumer::new(core)))
}

/// What both ends see.
struct Core {
    headers: Headers,
    contents: Vec<Mutex<Content>>,
    tally: Tally,
}

#[derive(Default)]
struct Tally {
    cut: AtomicU64,
    merged: AtomicU64,
    open: AtomicU64,
    discarded: AtomicU64,
    folded: AtomicU64,
    committed: AtomicU64,
}

impl Core {
    fn depth(&self) -> usize {
        self.contents.len()
    }

    fn header(&self, index: u8) -> Result<&SlotHeader, RingError> {
        let index = usize::from(index);
        if index < self.depth() { Ok(self.headers.slot(index)) } else { Err(RingError::NoSlot) }
    }

    fn state(&self, index: usize) -> SlotState {
        let word = self.headers.slot(index).state.load(Ordering::Acquire);
        // The header region is leased by the ring: nobody else can have written it.
        SlotState::from_word(word)
            .unwrap_or_else(|| panic!("slot state {word} was never written by this ring"))
    }

    fn enter(&self, index: usize, state: SlotState) {
        self.headers.slot(index).state.store(state as u32, Ordering::Release);
    }

    /// Leaves CUT, if the other side has not.
    fn leave_cut(&self, index: usize, to: SlotState) -> bool {
        let state = &self.headers.slot(index).state;
        state.compare_exchange(SlotState::Cut as u32, to as u32, Ordering::AcqRel, Ordering::Acquire).is_ok()
    }

    /// The slot's lease. Only the side that owns the slot's state asks, so the lock is never contended and `try_lock`
    /// cannot fail; it is there so that the hand-over needs no unsafe code.
    fn content(&self, index: usize) -> MutexGuard<'_, Content> {
        match self.contents[index].try_lock() {
            Ok(guard) => guard,
            // A closure of the worker panicked: the elements are whatever it wrote, which is memory-safe.
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => panic!("two sides own slot {index} at once"),
        }
    }

    /// Takes the lease of a slot that nobody reads.
    fn take(&self, index: usize) -> Lease<Filling> {
        match mem::replace(&mut *self.content(index), Content::Taken) {
            Content::Filling(lease) => lease,
            Content::InFlight(_) | Content::Taken => {
                panic!("slot {index} is taken only while its state is ours")
            }
        }
    }

    fn put(&self, index: usize, lease: Lease<Filling>) {
        *self.content(index) = Content::Filling(lease);
    }

    fn info(&self, index: usize) -> SlotInfo {
        let header = self.headers.slot(index);
        SlotInfo {
            index: index as u8,
            seq: SlotSeq(header.seq.load(Ordering::Relaxed) as u32),
            base_version: Version(header.base_version.load(Ordering::Relaxed)),
            target_frame: Frame(header.target_frame.load(Ordering::Relaxed)),
            n_steps: header.n_steps.load(Ordering::Relaxed),
        }
    }

    /// The slot with the lowest number among those in the wanted states.
    fn oldest(&self, wanted: impl Fn(SlotState) -> bool) -> Option<SlotInfo> {
        (0..self.depth())
            .filter(|index| wanted(self.state(*index)))
            .map(|index| self.info(index))
            .min_by_key(|info| info.seq)
    }

    fn occupancy(&self) -> Occupancy {
        let mut count = Occupancy { depth: self.depth() as u8, ..Occupancy::default() };
        for index in 0..self.depth() {
            match self.state(index) {
                SlotState::Free => count.free += 1,
                SlotState::Filling => {}
                SlotState::Cut | SlotState::Merging => count.cut += 1,
                SlotState::Sending => count.sending += 1,
                SlotState::Offered => count.offered += 1,
                SlotState::Committed | SlotState::Folded => count.returned += 1,
            }
        }
        count
    }

    fn counters(&self) -> RingCounters {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        RingCounters {
            cut: read(&self.tally.cut),
            merged: read(&self.tally.merged),
            open: read(&self.tally.open),
            discarded: read(&self.tally.discarded),
            folded: read(&self.tally.folded),
            committed: read(&self.tally.committed),
        }
    }
}

fn bump(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
