//! The open version: which shards are here, when to accept SEAL, who serves whom (R10 to R12, R17).

use super::Consensus;
use crate::event::{Event, To};
use plesio_wire::sideband::{Accept, Last, Message};
use plesio_wire::{Ballot, Instant, LogIndex, MEMBERS_MAX, MemberIndex, MemberSet, SlotSeq, Version};

/// T_opens of one context after which whoever holds its data back is put out.
pub(super) const STALLED_AFTER: u64 = 3;

/// One context: from a MANIFEST, or a VIEW over an open version, to the next entry.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct OpenTrack {
    /// Result shards of this context that are here.
    pub(super) shards: MemberSet,
    /// Shards of others, as their LASTs said.
    pub(super) told: [MemberSet; MEMBERS_MAX],
    pub(super) since: Instant,
    /// When the newest shard came.
    newest: Instant,
    /// Since when LASTs of a quorum have shown all shards (R17).
    pub(super) shown_since: Option<Instant>,
    /// When this node last asked around.
    pub(super) diagnosed: Instant,
    served: [Instant; MEMBERS_MAX],
    seal_due: Instant,
    seals_sent: u32,
}

/// A version that was sealed before all its shards were here. They are the same bits as ever, so as long as they
/// still come, nothing needs to be fetched.
#[cfg_attr(test, derive(Clone))]
#[derive(Debug)]
pub(super) struct Late {
    pub(super) context: LogIndex,
    pub(super) index: LogIndex,
    pub(super) version: Version,
    pub(super) shards: MemberSet,
}

impl OpenTrack {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            shards: MemberSet::EMPTY,
            told: [MemberSet::EMPTY; MEMBERS_MAX],
            since: now,
            newest: now,
            shown_since: None,
            diagnosed: now,
            served: [Instant(0); MEMBERS_MAX],
            seal_due: now,
            seals_sent: 0,
        }
    }

    /// After a halt: nobody held anything back, everybody stood still.
    pub(super) fn resume(&mut self, now: Instant) {
        (self.since, self.newest, self.diagnosed) = (now, now, now);
        self.shown_since = None;
    }

    pub(super) fn insert(&mut self, now: Instant, owner: MemberIndex) {
        if !self.shards.contains(owner) {
            self.shards.insert(owner);
            self.newest = now;
        }
    }
}

impl Consensus {
    /// R11: G of the version before and all shards of the open one, in the current context.
    pub(crate) fn is_complete(&self) -> bool {
        self.log.open.is_some()
            && self.has_state
            && self.held == self.log.version_final
            && self.track.shards == MemberSet::first(self.log.members())
    }

    /// A shard of the version sealed last; true when it was the last one missing.
    pub(super) fn insert_late(&mut self, context: LogIndex, owner: MemberIndex) -> bool {
        let Some(late) = self.late.as_mut().filter(|late| late.context == context) else { return false };
        late.shards.insert(owner);
        self.complete_late()
    }

    /// Whether the version sealed last can be applied by now; then it is said once more that it is sealed.
    pub(super) fn complete_late(&mut self) -> bool {
        let all = MemberSet::first(self.log.members());
        let Some(late) = &self.late else { return false };
        let (index, version) = (late.index, late.version);
        if late.shards != all || self.applying.is_some() {
            return false;
        }
        if !self.has_state || self.held.next() != version {
            let gathered = self.gather(version);
            self.late.take_if(|_| gathered);
            return gathered;
        }
        self.late = None;
        self.fetching = None;
        self.applying = Some(version);
        self.events.push_back(Event::Sealed { index, version, complete: true });
        true
    }

    /// All shards of a version just sealed are here, and a state that lacks them and none before is on its way.
    pub(super) fn gather(&mut self, version: Version) -> bool {
        let Some(basis) = self.basis.as_mut().filter(|basis| basis.gathered.next() == version) else {
            return false;
        };
        let first = basis.gathered == basis.version;
        basis.gathered = version;
        self.events.push_back(Event::Gather { version, first });
        true
    }

    /// R12: accepts SEAL wherever it is known to be proposed, and says so again until it is learnt.
    pub(super) fn tick_seal(&mut self, now: Instant) {
        let Some(me) = self.my_index() else { return };
        if !self.is_complete() {
            return;
        }
        let first = (self.round.promised == self.round.first && self.round.accepted.is_none())
            .then_some(self.round.first);
        if let Some(ballot) = first {
            self.accept_seal(now, me, ballot);
        }
        if self.log.open.is_some()
            && let Some(ballot) = self.round.seal_ballot()
            && self.round.accepted.as_ref().is_none_or(|(accepted, _)| ballot > *accepted)
        {
            self.accept_seal(now, me, ballot);
        }
        // Still open: others may have missed it.
        if self.log.open.is_some()
            && let Some((ballot, plesio_wire::value::Value::Seal(_))) = self.round.accepted
        {
            if now >= self.track.seal_due {
                self.counters.resent_total += 1;
                self.send_seal(now, ballot);
            }
            self.alarm(now, self.track.seal_due);
        }
    }

    /// Accepts SEAL in `ballot`: stored first, then sent to all. Only ever while complete (A7).
    pub(super) fn accept_seal(&mut self, now: Instant, me: MemberIndex, ballot: Ballot) {
        let seal = self.log.seal();
        if !self.is_complete() || !self.round.accept(ballot, &seal) {
            return;
        }
        self.track.seals_sent = 0;
        self.send_seal(now, ballot);
        if self.round.count_seal(me, self.log.members(), ballot) {
            self.learn(now, seal, Some(ballot), true);
        }
    }

    fn send_seal(&mut self, now: Instant, ballot: Ballot) {
        let accept = Accept {
            frame: ballot.frame,
            index: self.log.index,
            term: ballot.term,
            digest: self.log.seal().digest(),
            ..Accept::default()
        };
        self.send(To::AllAndObservers, Message::Seal(accept));
        self.track.seal_due = now.after(self.resend_ns() << self.track.seals_sent.min(3));
        self.track.seals_sent = self.track.seals_sent.saturating_add(1);
    }

    /// A LAST told which shards a member holds; who lacks some is served by one live holder (R17).
    pub(super) fn note_shards(&mut self, now: Instant, from: MemberIndex, last: &Last) {
        let members = self.log.members();
        if self.log.open.is_none() || last.context != self.log.context() {
            return;
        }
        let all = MemberSet::first(members);
        self.track.told[usize::from(from)] = last.shards.and(all);
        let (Some(me), Some(to)) = (self.my_index(), self.key_of(from)) else { return };
        let heard = self.heard();
        let settled = now.since(self.track.newest) > 2 * self.t_prop_ns();
        let mut shards = MemberSet::EMPTY;
        for shard in all.without(last.shards).and(self.track.shards).iter() {
            // The owner's own transport is at it; it steps in only when that seems to have come to nothing.
            let owner_serves = heard.contains(shard);
            let holder = (0..members as MemberIndex).find(|at| {
                heard.contains(*at) && (*at == me || self.track.told[usize::from(*at)].contains(shard))
            });
            if (owner_serves && shard == me && settled) || (!owner_serves && holder == Some(me)) {
                shards.insert(shard);
            }
        }
        let served = &mut self.track.served[usize::from(from)];
        if !shards.is_empty() && (served.0 == 0 || now.since(*served) >= self.config.t_dead_ns / 4) {
            *served = now;
            self.events.push_back(Event::Serve { to, context: last.context, shards });
        }
    }

    /// Whose data keeps the version open, once that has lasted three T_open: an owner whose shard nobody else holds
    /// though it has all slots, or a contributor whose slot most owners lack (R14).
    pub(super) fn find_stalled(&self, now: Instant) -> MemberSet {
        let mut stalled = MemberSet::EMPTY;
        let Some(open) = self.log.open.as_ref() else { return stalled };
        if now.since(self.track.since) < STALLED_AFTER * self.t_open_ns() {
            return stalled;
        }
        let members = self.log.members();
        let mut spread = MemberSet::EMPTY;
        for member in 0..members as MemberIndex {
            let is_me = self.my_index() == Some(member);
            let mut held = if is_me { self.track.shards } else { self.track.told[usize::from(member)] };
            held.remove(member);
            spread = spread.or(held);
        }
        for owner in MemberSet::first(members).without(spread).iter() {
            let lacking = open.manifest.entries.iter().find(|entry| {
                let owners = self.offers.owners_of(entry.member, SlotSeq(entry.slot_seq));
                entry.member != owner && !owners.contains(owner) && 2 * owners.len() < members
            });
            stalled.insert(lacking.map_or(owner, |entry| entry.member));
        }
        stalled
    }
}
