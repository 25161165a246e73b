//! The node's end: sees what is cut, announces (and so freezes) it, and returns it when the agreement says how.

use core::sync::atomic::Ordering;
use std::mem;
use std::sync::Arc;

use plesio_wire::Span;

use super::{Content, Core, Occupancy, RingCounters, SlotInfo, SlotState, bump};
use crate::RingError;

/// The node's end of a ring.
pub struct Consumer {
    core: Arc<Core>,
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
    pub(super) fn new(core: Arc<Core>) -> Self {
        Self { core }
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
        let slot = self.leave_cut(index, SlotState::Sending)?;
        let lease = self.core.take(slot).launch();
        let span = lease.span();
        *self.core.content(slot) = Content::InFlight(lease);
        Ok(Announced { info: self.core.info(slot), span })
    }

    /// Notes the digest of an announced slot in its header.
    ///
    /// # Errors
    /// The slot is not announced.
    pub fn record_digest(&mut self, index: u8, digest: [u8; 16]) -> Result<(), RingError> {
        self.expect(index, &[SlotState::Sending, SlotState::Offered])?;
        let (low, high) = digest.split_at(8);
        for (word, half) in self.core.header(index)?.digest.iter().zip([low, high]) {
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
        let words = &self.core.header(index)?.digest;
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
        self.core.enter(slot, SlotState::Offered);
        Ok(())
    }

    /// To COMMITTED: a sealed version lists it. The worker takes it off its uncommitted mass and frees it.
    ///
    /// # Errors
    /// The slot is not announced, or its bytes are still being read.
    pub fn commit(&mut self, index: u8) -> Result<(), RingError> {
        let slot = self.thaw(index)?;
        bump(&self.core.tally.committed);
        self.core.enter(slot, SlotState::Committed);
        Ok(())
    }

    /// To FREE without showing it to the worker.
    ///
    /// # Errors
    /// As [`Self::commit`].
    pub fn release(&mut self, index: u8) -> Result<(), RingError> {
        let slot = self.thaw(index)?;
        bump(&self.core.tally.committed);
        self.core.enter(slot, SlotState::Free);
        Ok(())
    }

    /// To FOLDED: the worker takes it back. A slot nobody has heard of may be folded at any time; for an announced one
    /// the caller has the proof that the agreement asks for.
    ///
    /// # Errors
    /// The slot is neither CUT nor announced, is being added to, or its bytes are still being read.
    pub fn fold(&mut self, index: u8) -> Result<(), RingError> {
        match self.leave_cut(index, SlotState::Folded) {
            Ok(_) => {}
            Err(RingError::State(SlotState::Sending | SlotState::Offered)) => {
                let slot = self.thaw(index)?;
                self.core.enter(slot, SlotState::Folded);
            }
            Err(error) => return Err(error),
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
        match &*self.core.content(slot) {
            Content::InFlight(lease) => Some(lease.span()),
            Content::Filling(_) | Content::Taken => None,
        }
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

    fn leave_cut(&self, index: u8, to: SlotState) -> Result<usize, RingError> {
        self.core.header(index)?;
        let slot = usize::from(index);
        if self.core.leave_cut(slot, to) {
            return Ok(slot);
        }
        match self.core.state(slot) {
            // CUT: the worker has finished adding between our two looks.
            SlotState::Merging | SlotState::Cut => Err(RingError::Merging),
            state => Err(RingError::State(state)),
        }
    }

    fn expect(&self, index: u8, wanted: &[SlotState]) -> Result<usize, RingError> {
        self.core.header(index)?;
        let state = self.core.state(usize::from(index));
        if wanted.contains(&state) { Ok(usize::from(index)) } else { Err(RingError::State(state)) }
    }

    /// Gives the bytes of an announced slot back to the ring.
    fn thaw(&self, index: u8) -> Result<usize, RingError> {
        let slot = self.expect(index, &[SlotState::Sending, SlotState::Offered])?;
        let mut content = self.core.content(slot);
        match mem::replace(&mut *content, Content::Taken) {
            Content::InFlight(lease) => match lease.complete() {
                Ok(lease) => *content = Content::Filling(lease),
                Err(lease) => {
                    *content = Content::InFlight(lease);
                    return Err(RingError::StillRead);
                }
            },
            Content::Filling(_) | Content::Taken => panic!("an announced slot is in flight"),
        }
        Ok(slot)
    }
}
