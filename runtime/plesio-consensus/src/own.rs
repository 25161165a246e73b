//! This node's announced slots: exactly once into a final version or back into the uncommitted mass.
//!
//! ```text
//!   announced --MANIFEST lists it--> listed --SEAL--> Release
//!       |  |                           |
//!       |  +--too stale, or admission ended: Fold     +--dropped with the admission: Fold
//!       +--after a snapshot: what its ledger says; unknown there: Lost
//! ```
//!
//! Only the learnt prefix moves a slot (R22, R23): never a timer, a NACK or a full ring.

use crate::event::{Event, FoldReason, OwnSlot};
use crate::ledger::{Admission, Fate, Ledger};
use crate::weights::Part;
use alloc::vec::Vec;
use plesio_wire::value::Entry;
use plesio_wire::{Instant, SlotSeq, Version};

#[derive(Clone, Copy, Debug)]
struct Announced {
    slot: OwnSlot,
    admission: Admission,
    listed: bool,
    /// What a version took of it, once one lists it.
    part: Option<Part>,
    /// When it is announced anew, and how often it was.
    again: Instant,
    repeats: u32,
}

impl Announced {
    /// In a version whose manifest was not learnt here nobody can tell how stale it was, so it counts as taken whole: with a
    /// discount, what was not taken is then in no state and with no worker. A member that keeps up never gets there.
    fn released(&self) -> Event {
        Event::Release { seq: self.slot.seq, part: self.part.unwrap_or(Part::WHOLE) }
    }
}

#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(crate) struct OwnSlots {
    slots: Vec<Announced>,
    last: Option<SlotSeq>,
}

impl OwnSlots {
    /// Takes a frozen slot; false when its number does not rise or the ring cannot hold so many.
    pub(crate) fn announce(
        &mut self,
        again: Instant,
        slot: OwnSlot,
        admission: Admission,
        depth: u8,
    ) -> bool {
        let fits = self.slots.len() < usize::from(depth) && self.last.is_none_or(|last| slot.seq > last);
        if fits {
            self.last = Some(slot.seq);
            self.slots.push(Announced { slot, admission, listed: false, part: None, again, repeats: 0 });
        }
        fits
    }

    /// All that no version lists are due to be announced: others may know nothing of them.
    pub(crate) fn announce_anew(&mut self, now: Instant) {
        for own in &mut self.slots {
            (own.again, own.repeats) = (now, 0);
        }
    }

    /// A slot that is due to be announced once more: after `every_ns`, twice and then four times that.
    pub(crate) fn next_due(&mut self, now: Instant, every_ns: u64) -> Option<OwnSlot> {
        let own = self.slots.iter_mut().find(|own| !own.listed && now >= own.again)?;
        own.repeats = own.repeats.saturating_add(1);
        own.again = now.after(every_ns << own.repeats.min(2));
        Some(own.slot)
    }

    /// When the next one is.
    pub(crate) fn poll_timeout(&self) -> Option<Instant> {
        self.slots.iter().filter(|own| !own.listed).map(|own| own.again).min()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (OwnSlot, bool)> + '_ {
        self.slots.iter().map(|own| (own.slot, own.listed))
    }

    /// All but what only says when.
    #[cfg(test)]
    pub(crate) fn essence(&self) -> impl Iterator<Item = impl core::fmt::Debug> + '_ {
        self.slots.iter().map(|own| (own.slot, own.admission, own.listed, own.part))
    }

    /// A MANIFEST with `entry` for this node is learnt.
    pub(crate) fn list(
        &mut self,
        admission: Admission,
        entry: &Entry,
        version: Version,
        part: Part,
    ) -> Option<Event> {
        let seq = SlotSeq(entry.slot_seq);
        let own = self.slots.iter_mut().find(|own| own.slot.seq == seq && own.admission == admission)?;
        (own.listed, own.part) = (true, Some(part));
        Some(Event::Listed { seq, version, margin: entry.margin, staleness: entry.staleness })
    }

    /// R22: SEAL is learnt, so every listed slot is final.
    pub(crate) fn release(&mut self, events: &mut impl Extend<Event>) {
        self.settle(events, |own| own.listed.then(|| own.released()));
    }

    /// R23 (b): unlisted in a prefix that holds `version` versions, and too stale for any later one.
    pub(crate) fn fold_stale(&mut self, version: Version, tau: u64, events: &mut impl Extend<Event>) {
        self.settle(events, |own| {
            let stale = !own.listed && version.0.saturating_sub(own.slot.base.0) > tau;
            stale.then_some(Event::Fold { seq: own.slot.seq, reason: FoldReason::Stale })
        });
    }

    /// R23 (a) and (c): the VIEW just learnt ended this node's admission; an open entry was dropped by it.
    pub(crate) fn fold_all(&mut self, events: &mut impl Extend<Event>) {
        self.settle(events, |own| {
            let reason = if own.listed { FoldReason::Dropped } else { FoldReason::AdmissionEnded };
            Some(Event::Fold { seq: own.slot.seq, reason })
        });
    }

    /// R24: the prefix was not learnt entry by entry; the ledger of the cut says what it holds.
    pub(crate) fn reconcile(
        &mut self,
        ledger: &Ledger,
        version: Version,
        tau: u64,
        events: &mut impl Extend<Event>,
    ) {
        for own in &mut self.slots {
            own.listed = false; // No version is open at a cut.
        }
        self.settle(events, |own| {
            let seq = own.slot.seq;
            let fold = |reason| Some(Event::Fold { seq, reason });
            match ledger.fate(own.admission, seq) {
                None | Some(Fate::Forgotten) => Some(Event::Lost { seq }),
                Some(Fate::Final | Fate::Open) => Some(own.released()),
                Some(Fate::Dropped) => fold(FoldReason::Dropped),
                Some(Fate::Unlisted) if ledger.has_ended(own.admission) => fold(FoldReason::AdmissionEnded),
                Some(Fate::Unlisted) if version.0.saturating_sub(own.slot.base.0) > tau => {
                    fold(FoldReason::Stale)
                }
                Some(Fate::Unlisted) => None,
            }
        });
    }

    fn settle(&mut self, events: &mut impl Extend<Event>, verdict: impl Fn(&Announced) -> Option<Event>) {
        self.slots.retain(|own| {
            let event = verdict(own);
            let keep = event.is_none();
            events.extend(event);
            keep
        });
    }
}
