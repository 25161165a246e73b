//! What members do that no rule allows, and what follows: it is counted, answered, kept, and ends in a view without
//! them where they told two stories (section 9 of the consensus text).
//!
//! Everything here is bounded by the members of one view, and moves nothing but who is listed and who stays.

use super::Consensus;
use crate::event::Event;
use alloc::collections::BTreeMap;
use plesio_wire::sideband::{Message, Nack, nack};
use plesio_wire::value::{Value, View};
use plesio_wire::{Ballot, Digest, Instant, LogIndex, MEMBERS_MAX, MemberIndex, NodeKey};

/// How often a member is told that its view is old.
const EPOCH_NS_MIN: u64 = 1_000_000_000;
/// Slots with unfit data in a minute, and how long a member's slots are not admitted after so many.
const UNFIT_MAX: u32 = 3;
const UNFIT_WITHIN_NS: u64 = 60_000_000_000;
const UNFIT_BAR_NS: u64 = 60_000_000_000;

/// Two values that one member proposed in one ballot: nobody who keeps to R2 does that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Evidence {
    /// The index they were proposed for.
    pub index: LogIndex,
    /// The ballot.
    pub ballot: Ballot,
    /// Digests of both, in the order in which they came.
    pub digests: [Digest; 2],
}

#[derive(Clone, Copy, Debug)]
struct Unfit {
    count: u32,
    since: Instant,
    barred_until: Option<Instant>,
}

/// See the module.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug, Default)]
pub(super) struct Conduct {
    /// The newest of each member, also of some who are none any more.
    evidence: BTreeMap<NodeKey, Evidence>,
    unfit: BTreeMap<NodeKey, Unfit>,
    epoch_told: BTreeMap<NodeKey, Instant>,
}

impl Conduct {
    /// That view is in force. Bars outlive a view, or leaving would lift them.
    pub(super) fn enter(&mut self, now: Instant, view: &View) {
        self.epoch_told.retain(|key, _| view.index_of(*key).is_some());
        self.unfit.retain(|key, unfit| {
            view.index_of(*key).is_some() || unfit.barred_until.is_some_and(|until| now < until)
        });
    }

    pub(super) fn is_barred(&self, now: Instant, key: NodeKey) -> bool {
        self.unfit.get(&key).and_then(|unfit| unfit.barred_until).is_some_and(|until| now < until)
    }

    /// Data that cannot be a slot's; true when it was once too often.
    fn note_unfit(&mut self, now: Instant, key: NodeKey) -> bool {
        if self.unfit.len() >= 2 * MEMBERS_MAX && !self.unfit.contains_key(&key) {
            return false;
        }
        let unfit = self.unfit.entry(key).or_insert(Unfit { count: 0, since: now, barred_until: None });
        if now.since(unfit.since) > UNFIT_WITHIN_NS {
            (unfit.count, unfit.since) = (0, now);
        }
        unfit.count = unfit.count.saturating_add(1);
        if unfit.count < UNFIT_MAX {
            return false;
        }
        (unfit.count, unfit.barred_until) = (0, Some(now.after(UNFIT_BAR_NS)));
        true
    }
}

impl Consensus {
    /// Two values that members proposed in one ballot each, by who did: the newest of each, of 32 members at most.
    pub fn evidence(&self) -> impl Iterator<Item = (NodeKey, Evidence)> + '_ {
        self.conduct.evidence.iter().map(|(key, evidence)| (*key, *evidence))
    }

    /// A slot's data came in a shape that this view does not have: this owner does not hold it, and says so. After three
    /// in a minute the contributor's slots are not admitted here for another.
    pub fn handle_unfit(&mut self, now: Instant, contributor: NodeKey, seq: plesio_wire::SlotSeq) {
        let Some(member) = self.log.view.index_of(contributor).filter(|_| self.is_member()) else { return };
        self.counters.unfit_total += 1;
        self.refuse_slot(member, nack::DATA, seq);
        if self.conduct.note_unfit(now, contributor) {
            self.offers.forget(member);
        }
        self.advance(now);
    }

    /// Whether slots of that member count for nothing here at the moment.
    pub(super) fn is_barred(&self, now: Instant, member: MemberIndex) -> bool {
        self.key_of(member).is_some_and(|key| self.conduct.is_barred(now, key))
    }

    /// NACK for a slot.
    pub(super) fn refuse_slot(&mut self, member: MemberIndex, code: u16, seq: plesio_wire::SlotSeq) {
        let refusal = Nack { code, ref_type: 4, arg: u64::from(seq.0), ..Nack::default() };
        self.send_member(member, Message::Nack(refusal));
    }

    /// Whether a message that counts in one view alone is of the view in force. The sender of an older one is told the
    /// number; a newer one says that this node is behind, by an entry or by more, and catches up (R1).
    pub(super) fn is_of_this_view(&mut self, now: Instant, from: NodeKey, ref_type: u16, view: u32) -> bool {
        let current = self.log.view.number;
        if view == current {
            return true;
        }
        self.counters.other_view_total += 1;
        if view > current {
            self.note_newer_view(now, from, view);
            return false;
        }
        let told = self.conduct.epoch_told.get(&from);
        if told.is_none_or(|told| now.since(*told) >= EPOCH_NS_MIN)
            && let Some(member) = self.log.view.index_of(from)
        {
            self.conduct.epoch_told.insert(from, now);
            let refusal = Nack { code: nack::EPOCH, ref_type, arg: u64::from(current), ..Nack::default() };
            self.send_member(member, Message::Nack(refusal));
        }
        false
    }

    /// Each view is an entry, so there are at least as many to learn.
    fn note_newer_view(&mut self, now: Instant, from: NodeKey, view: u32) {
        let ahead = u64::from(view.saturating_sub(self.log.view.number));
        self.note_ahead(now, from, LogIndex(self.log.index.0.saturating_add(ahead)));
    }

    /// What a member did not take.
    pub(super) fn on_nack(&mut self, now: Instant, from: NodeKey, refusal: &Nack) {
        self.counters.nacked_total += 1;
        let newer = u32::try_from(refusal.arg).ok().filter(|view| *view > self.log.view.number);
        if let (nack::EPOCH, Some(view)) = (refusal.code, newer) {
            self.note_newer_view(now, from, view);
        }
    }

    /// Whether `value` is the second that its proposer puts into this ballot. SEAL is nobody's own: others' votes for it
    /// may have come first, and one that lies must not make an honest proposer look like one.
    pub(super) fn is_second_story(&mut self, from: NodeKey, ballot: Ballot, value: &Value) -> bool {
        let Some((at, first)) = &self.round.accepted else { return false };
        let is_seal = matches!(first, Value::Seal(_)) || matches!(value, Value::Seal(_));
        if *at != ballot || is_seal || first == value {
            return false;
        }
        let digests = [first.digest(), value.digest()];
        let evidence = Evidence { index: self.log.index, ballot, digests };
        self.counters.conflict_total += 1;
        let kept = &mut self.conduct.evidence;
        if kept.len() >= MEMBERS_MAX && !kept.contains_key(&from) {
            let view = &self.log.view;
            kept.retain(|key, _| view.index_of(*key).is_some());
        }
        if kept.insert(from, evidence) != Some(evidence) {
            self.members.condemn(from);
            self.events.push_back(Event::Conflict { peer: from, evidence });
        }
        true
    }
}
