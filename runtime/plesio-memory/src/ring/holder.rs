//! The node's part of a ring, played by another process of the same user: it takes slots that are CUT, reads their elements
//! in place and gives them back.
//!
//! It may die at any instruction, and so may the worker. A slot that a dead holder had is taken back by the worker; of a
//! dead worker's ring the slots that are CUT can still be read, and one that was being filled or merged into is seen to be
//! torn by its state. What a holder reads counts only while the whole state word is the one that made it the holder.

use core::ptr::NonNull;
use core::sync::atomic::{Ordering, fence};

use plesio_wire::Span;

use super::header::{Headers, SlotHeader};
use super::word::{self, Word};
use super::{Level, Occupancy, SlotInfo, SlotState, check_shape};
use crate::{Foreign, RingError, RingPlan, Segment};

/// One of the processes that take slots from a shared ring.
pub struct Holder {
    headers: Headers,
    elements: Foreign,
    plan: RingPlan,
    id: u8,
}

/// A slot in a holder's hands.
#[derive(Debug, Eq, PartialEq)]
pub struct Held {
    /// What it carries, as the words say.
    pub info: SlotInfo,
    /// Its elements in the worker's arena.
    pub span: Span,
    word: Word,
}

impl Holder {
    /// Joins a ring by its words, which are mapped to be written, and the worker's arena. `id` is one that no other living
    /// holder has, and not 0.
    ///
    /// # Errors
    /// A shape that is not the arena's, words that are too few or read-only, an id of 0.
    pub fn new(words: Segment, elements: Foreign, plan: &RingPlan, id: u8) -> Result<Self, RingError> {
        check_shape(plan)?;
        let slot_bytes = plan.len_elems.checked_mul(size_of::<i32>()).ok_or(RingError::Shape)?;
        let whole = |index| elements.whole(plan.slot_region(index)?);
        let fits = (0..plan.depth)
            .all(|index| whole(index).is_some_and(|span| span.len_bytes as usize == slot_bytes));
        if !fits || id == 0 {
            return Err(RingError::Shape);
        }
        let headers = Headers::shared(words, plan.depth).ok_or(RingError::Shape)?;
        Ok(Self { headers, elements, plan: *plan, id })
    }

    /// The oldest slot that is CUT. A hint: another holder may be faster, and the worker may still add to it.
    #[must_use]
    pub fn poll_cut(&self) -> Option<SlotInfo> {
        let is_cut = |index: &usize| Word::read(&self.header(*index).state).state() == Some(SlotState::Cut);
        (0..self.plan.depth)
            .filter(is_cut)
            .map(|index| self.header(index).info(index))
            .min_by_key(|info| info.seq)
    }

    /// CUT to SENDING: takes the slot, and freezes it.
    ///
    /// # Errors
    /// Another state, by now perhaps; no such slot.
    pub fn announce(&mut self, index: u8) -> Result<Held, RingError> {
        let slot = usize::from(index);
        if slot >= self.plan.depth {
            return Err(RingError::NoSlot);
        }
        let header = self.header(slot);
        let seen = Word::read(&header.state);
        if seen.state() != Some(SlotState::Cut) {
            return Err(seen.state().map_or(RingError::Revoked, RingError::State));
        }
        let word = word::leave(&header.state, seen, SlotState::Sending, self.id).ok_or(RingError::Merging)?;
        let region = self.plan.slot_region(slot).ok_or(RingError::Shape)?;
        let span = self.elements.whole(region).ok_or(RingError::Shape)?;
        Ok(Held { info: header.info(slot), span, word })
    }

    /// Copies the elements out, as bytes.
    ///
    /// # Errors
    /// Another length, or the slot was taken back meanwhile: what was copied is worth nothing.
    pub fn read(&self, held: &Held, into: &mut [u8]) -> Result<(), RingError> {
        self.elements.copy(held.span, into)?;
        if self.holds(held) { Ok(()) } else { Err(RingError::Revoked) }
    }

    /// Where the elements begin, for a kernel that reads them in place, makes no reference, and asks [`Self::holds`]
    /// afterwards.
    ///
    /// # Errors
    /// None for a slot of this ring.
    pub fn pointer(&self, held: &Held) -> Result<NonNull<u8>, RingError> {
        Ok(self.elements.pointer(held.span)?)
    }

    /// Whether the slot is still in our hands; what was read of it before was what it carries.
    #[must_use]
    pub fn holds(&self, held: &Held) -> bool {
        // What was read before must not be read after the word.
        fence(Ordering::Acquire);
        Word::read(&self.header(usize::from(held.info.index)).state) == held.word
    }

    /// SENDING to OFFERED; it stays in our hands.
    ///
    /// # Errors
    /// The slot was taken back.
    pub fn offer(&mut self, held: Held) -> Result<Held, RingError> {
        let word = self.leave(&held, SlotState::Offered, self.id)?;
        Ok(Held { word, ..held })
    }

    /// To COMMITTED.
    ///
    /// # Errors
    /// The slot was taken back: the worker counts it as folded.
    pub fn commit(&mut self, held: Held) -> Result<(), RingError> {
        self.leave(&held, SlotState::Committed, 0).map(|_| ())
    }

    /// To FOLDED.
    ///
    /// # Errors
    /// The slot was taken back.
    pub fn fold(&mut self, held: Held) -> Result<(), RingError> {
        self.leave(&held, SlotState::Folded, 0).map(|_| ())
    }

    /// How full the ring is; words that no ring has written count as sent.
    #[must_use]
    pub fn occupancy(&self) -> Occupancy {
        let state = |index| Word::read(&self.header(index).state).state().unwrap_or(SlotState::Sending);
        Occupancy::of((0..self.plan.depth).map(state), (self.plan.len_elems * size_of::<i32>()) as u64)
    }

    /// Which watermark it has reached.
    #[must_use]
    pub fn level(&self) -> Level {
        self.occupancy().level()
    }

    fn leave(&self, held: &Held, to: SlotState, holder: u8) -> Result<Word, RingError> {
        let header = self.header(usize::from(held.info.index));
        word::leave(&header.state, held.word, to, holder).ok_or(RingError::Revoked)
    }

    fn header(&self, index: usize) -> &SlotHeader {
        self.headers.slot(index)
    }
}
