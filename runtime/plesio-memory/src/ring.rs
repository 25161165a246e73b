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
//! SENDING and OFFERED; CUT is the only state both may leave, by compare-and-exchange. Neither side ever waits: there is
//! no lock, and every call is a bounded number of steps.
//!
//! Both ends may be threads of one process, or the node's part is played by other processes of the same user, each with
//! a number of its own in the state word: see [`Holder`].

mod consumer;
mod hand_over;
mod header;
mod holder;
mod occupancy;
mod producer;
pub(crate) mod word;

use core::sync::atomic::{AtomicU64, Ordering};
use std::sync::Arc;

use plesio_wire::{Frame, SlotSeq, Version};

use crate::{Arena, Filling, Lease, RingError, RingPlan, Segment};
use hand_over::HandOver;
use header::{Headers, SlotHeader};

pub use consumer::{Announced, Consumer};
pub use holder::{Held, Holder};
pub use occupancy::{Level, Occupancy};
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

/// Makes the two ends of a ring. Slot numbers start at `first_seq`.
///
/// # Errors
/// A shape that is not allowed, or regions that the arena does not have or has given to somebody.
pub fn ring(arena: &Arena, plan: &RingPlan, first_seq: SlotSeq) -> Result<(Producer, Consumer), RingError> {
    let (region, leases) = take(arena, plan)?;
    let headers = Headers::leased(region, plan.depth).ok_or(RingError::Shape)?;
    prepare(&headers, plan);
    let (hand, worker, node) = HandOver::new(headers, leases);
    let core = Arc::new(Core { hand, tally: Tally::default(), plan: *plan });
    Ok((Producer::new(Arc::clone(&core), worker, first_seq), Consumer::new(core, node)))
}

/// Makes a ring whose header words stand in a segment, which others that have it and this arena's file may take slots
/// from as [`Holder`]s. The words are theirs to write too; the elements are ours alone.
///
/// # Errors
/// As [`ring`], or a segment that is too short or read-only.
pub fn shared_ring(
    arena: &Arena,
    plan: &RingPlan,
    first_seq: SlotSeq,
    words: Segment,
) -> Result<Producer, RingError> {
    let (_region, leases) = take(arena, plan)?;
    let headers = Headers::shared(words, plan.depth).ok_or(RingError::Shape)?;
    prepare(&headers, plan);
    let (hand, worker) = HandOver::alone(headers, leases);
    let core = Arc::new(Core { hand, tally: Tally::default(), plan: *plan });
    Ok(Producer::new(core, worker, first_seq))
}

/// The leases of a ring's regions: that of the headers, then those of the slots.
fn take(arena: &Arena, plan: &RingPlan) -> Result<(Lease<Filling>, Vec<Lease<Filling>>), RingError> {
    check_shape(plan)?;
    let headers = arena.lease(plan.first_region)?;
    let mut leases = Vec::with_capacity(plan.depth);
    for index in 0..plan.depth {
        let lease = arena.lease(plan.slot_region(index).ok_or(RingError::Shape)?)?;
        if lease.as_i32().len() != plan.len_elems {
            return Err(RingError::Shape);
        }
        leases.push(lease);
    }
    Ok((headers, leases))
}

fn check_shape(plan: &RingPlan) -> Result<(), RingError> {
    let good = plan.depth.is_power_of_two() && (2..=16).contains(&plan.depth) && plan.len_elems > 0;
    if good { Ok(()) } else { Err(RingError::Shape) }
}

/// All FREE but the first.
fn prepare(headers: &Headers, plan: &RingPlan) {
    for index in 0..plan.depth {
        let header = headers.slot(index);
        header.len_elems.store(plan.len_elems as u64, Ordering::Relaxed);
        let state = if index == 0 { SlotState::Filling } else { SlotState::Free };
        word::enter(&header.state, state);
    }
}

/// What both ends see.
struct Core {
    hand: HandOver,
    tally: Tally,
    plan: RingPlan,
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
        self.plan.depth
    }

    /// A slot's place and header, of an index that came from outside.
    fn slot(&self, index: u8) -> Result<(usize, &SlotHeader), RingError> {
        let index = usize::from(index);
        if index < self.depth() { Ok((index, self.header(index))) } else { Err(RingError::NoSlot) }
    }

    fn header(&self, index: usize) -> &SlotHeader {
        self.hand.headers().slot(index)
    }

    fn state(&self, index: usize) -> SlotState {
        self.hand.state(index)
    }

    fn info(&self, index: usize) -> SlotInfo {
        self.header(index).info(index)
    }

    /// The slot with the lowest number among those in the wanted states.
    fn oldest(&self, wanted: impl Fn(SlotState) -> bool) -> Option<SlotInfo> {
        (0..self.depth())
            .filter(|index| wanted(self.state(*index)))
            .map(|index| self.info(index))
            .min_by_key(|info| info.seq)
    }

    fn occupancy(&self) -> Occupancy {
        let slot_bytes = (self.plan.len_elems * size_of::<i32>()) as u64;
        Occupancy::of((0..self.depth()).map(|index| self.state(index)), slot_bytes)
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

#[cfg(all(loom, test))]
mod models;
#[cfg(all(test, not(any(loom, miri))))]
mod shared_tests;
#[cfg(all(test, not(loom)))]
mod tests;
