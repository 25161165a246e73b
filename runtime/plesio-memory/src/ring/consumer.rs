//! The node's end: sees what is cut, announces (and so freezes) it, and returns it when the agreement says how.

use core::sync::atomic::Ordering;
use std::sync::Arc;

use plesio_wire::Span;

use super::hand_over::NodeEnd;
use super::{Core, Occupancy, RingCounters, SlotInfo, SlotState, bump};
use crate::RingError;

/// The node's end of a ring.
pub struct Consumer {
    core: Arc<Core>,
    end: NodeEnd,
}

/// A slot whose content is frozen from now on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Announced {
    /// What it carries; final.
    pub info: SlotInfo,
    /// Its elements, i32 little endian, to be digested and sent from where they lie.
    pub span: Span,
}

impl Consumer {
    pub(super) fn new(core: Arc<Core>, end: NodeEnd) -> Self {
        Self { core, end }
    }

    /// The oldest slot that is CUT. A hint: until it is announced, the worker may still add to it.
    #[must_use]
    pub fn poll_cut(&self) -> Option<SlotInfo> {
        // A scan reads one slot after the other; meanwhile the worker may cut two, the first behind the scan and
        // the second before it. Whoever sees the second sees the first when it looks again, be it cut or merging.
        self.core.oldest(|state| state == SlotState::Cut)?;
        self.core.oldest(|state| matches!(state, SlotState::Cut | SlotState::Merging))
    }

    /// CUT to SENDING: freezes the content.
    ///
    /// # Errors
    /// [`RingError::Merging`] while the worker adds to it; another state; no such slot.
    pub fn announce(&mut self, index: u8) -> Result<Announced, RingError> {
        let (slot, _) = self.core.slot(index)?;
        if !self.core.hand.announce(&mut self.end, slot) {
            return Err(self.not_cut(slot));
        }
        Ok(Announced { info: self.core.info(slot), span: self.whole(slot) })
    }

    /// Notes the digest of an announced slot in its header.
    ///
    /// # Errors
    /// The slot is not announced.
    pub fn record_digest(&mut self, index: u8, digest: [u8; 16]) -> Result<(), RingError> {
        self.expect(index, &[SlotState::Sending, SlotState::Offered])?;
        let (low, high) = digest.split_at(8);
        for (word, half) in self.core.slot(index)?.1.digest.iter().zip([low, high]) {
            let half = half.try_into().expect("half of 16 bytes is 8 bytes");
            word.store(u64::from_le_bytes(half), Ordering::Relaxed);
        }
        Ok(())
    }

    /// The digest noted for a slot; zero when none was.
    ///
    /// # Errors
    /// No such slot.
    pub fn digest(&self, index: u8) -> Result<[u8; 16], RingError> {
        let words = &self.core.slot(index)?.1.digest;
        let mut digest = [0; 16];
        for (bytes, word) in digest.chunks_exact_mut(8).zip(words) {
            bytes.copy_from_slice(&word.load(Ordering::Relaxed).to_le_bytes());
        }
        Ok(digest)
    }

    /// SENDING to OFFERED: every shard owner has it. Its span can still be sent, should an owner be lost.
    ///
    /// # Errors
    /// The slot is not SENDING.
    pub fn offer(&mut self, index: u8) -> Result<(), RingError> {
        let slot = self.expect(index, &[SlotState::Sending])?;
        self.core.hand.offer(&mut self.end, slot);
        Ok(())
    }

    /// To COMMITTED: a sealed version lists it. The worker takes it off its uncommitted mass and frees it.
    ///
    /// # Errors
    /// The slot is not announced, or its bytes are still being read.
    pub fn commit(&mut self, index: u8) -> Result<(), RingError> {
        self.give_back(index, SlotState::Committed)?;
        bump(&self.core.tally.committed);
        Ok(())
    }

    /// To FREE without showing it to the worker.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn release(&mut self, index: u8) -> Result<(), RingError> {
        self.give_back(index, SlotState::Free)?;
        bump(&self.core.tally.committed);
        Ok(())
    }

    /// To FOLDED: the worker takes it back. A slot nobody has heard of may be folded at any time; for an announced one
    /// the caller has the proof that the agreement asks for.
    ///
    /// # Errors
    /// The slot is neither CUT nor announced, is being added to, or its bytes are still being read.
    pub fn fold(&mut self, index: u8) -> Result<(), RingError> {
        let (slot, _) = self.core.slot(index)?;
        if !self.core.hand.fold_cut(&mut self.end, slot) {
            match self.not_cut(slot) {
                RingError::State(SlotState::Sending | SlotState::Offered) => {
                    self.give_back(index, SlotState::Folded)?;
                }
                error => return Err(error),
            }
        }
        bump(&self.core.tally.folded);
        Ok(())
    }

    /// What a slot carries and where it stands; `None` for an index outside the ring.
    #[must_use]
    pub fn slot(&self, index: u8) -> Option<(SlotInfo, SlotState)> {
        let slot = usize::from(index);
        (slot < self.core.depth()).then(|| (self.core.info(slot), self.core.state(slot)))
    }

    /// The frozen elements of a slot; `None` unless it is announced.
    #[must_use]
    pub fn span(&self, index: u8) -> Option<Span> {
        let slot = self.expect(index, &[SlotState::Sending, SlotState::Offered]).ok()?;
        Some(self.whole(slot))
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

    /// Why a slot could not be taken out of CUT.
    fn not_cut(&self, slot: usize) -> RingError {
        match self.core.state(slot) {
            // CUT: the worker has finished adding between our two looks.
            SlotState::Merging | SlotState::Cut => RingError::Merging,
            state => RingError::State(state),
        }
    }

    fn expect(&self, index: u8, wanted: &[SlotState]) -> Result<usize, RingError> {
        let (slot, _) = self.core.slot(index)?;
        let state = self.core.state(slot);
        if wanted.contains(&state) { Ok(slot) } else { Err(RingError::State(state)) }
    }

    /// The elements of a slot.
    fn whole(&self, slot: usize) -> Span {
        let region = self.core.plan.slot_region(slot).expect("the ring holds a lease of this region");
        Span { region, offset_bytes: 0, len_bytes: (self.core.plan.len_elems * size_of::<i32>()) as u32 }
    }

    /// Gives an announced slot back to the worker.
    fn give_back(&mut self, index: u8, state: SlotState) -> Result<(), RingError> {
        let slot = self.expect(index, &[SlotState::Sending, SlotState::Offered])?;
        let given = self.core.hand.give_back(&mut self.end, slot, state);
        if given { Ok(()) } else { Err(RingError::StillRead) }
    }
}
