//! The state word of a slot: where it stands, who holds it, and how often it has been used.
//!
//! ```text
//! bits 0..8 state | 8..16 holder, 0 inside one process | 16..32 generation
//! ```
//!
//! Whoever moves a slot compares the whole word, so that a holder which was given up for dead cannot move a slot that has
//! meanwhile been given to somebody else. A generation comes again after 65,536 uses of its slot; a holder that sleeps
//! through all of them and wakes up in the same place was told by its tether long before.

use core::sync::atomic::Ordering;

use super::SlotState;
use crate::sync::AtomicU32;

/// A state word that was read once.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Word(u32);

impl Word {
    pub(crate) fn read(word: &AtomicU32) -> Self {
        Self(word.load(Ordering::Acquire))
    }

    pub(crate) fn of(bits: u32) -> Self {
        Self(bits)
    }

    /// `None`: no ring has written it.
    pub(crate) fn state(self) -> Option<SlotState> {
        SlotState::from_word(self.0 & 0xff)
    }

    pub(crate) fn holder(self) -> u8 {
        (self.0 >> 8) as u8
    }

    fn with(self, state: SlotState, holder: u8) -> Self {
        Self(self.0 & 0xffff_0000 | u32::from(holder) << 8 | state as u32)
    }

    /// The next use of the slot: what was known of the last one no longer fits.
    fn next(self) -> Self {
        Self(self.0.wrapping_add(1 << 16))
    }
}

/// Moves a slot that this side alone may move; holders of an earlier word no longer fit where a use ends.
pub(super) fn enter(word: &AtomicU32, state: SlotState) {
    let held = Word(word.load(Ordering::Relaxed));
    let held = if state == SlotState::Free { held.next() } else { held };
    word.store(held.with(state, 0).0, Ordering::Release);
}

/// Moves a slot from where it was seen, if it still stands there. One try: it never waits.
pub(crate) fn leave(word: &AtomicU32, seen: Word, to: SlotState, holder: u8) -> Option<Word> {
    let next = seen.with(to, holder);
    word.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire).is_ok().then_some(next)
}

/// Takes a slot from whoever holds it: the generation moves on, so that nothing the holder still does fits.
pub(crate) fn revoke(word: &AtomicU32, seen: Word, to: SlotState) -> bool {
    let next = seen.next().with(to, 0);
    word.compare_exchange(seen.0, next.0, Ordering::AcqRel, Ordering::Acquire).is_ok()
}
