//! Messages: who may say what about which index, and what follows (R1, R4 to R7).

use super::Consensus;
use crate::log::{FRAME_MAX, STEPS_MAX};
use crate::offers::Ready as Offered;
use crate::restart::generation;
use plesio_wire::sideband::{Accept, Have, Last, Message, Nack, Ready, nack};
use plesio_wire::value::Value;
use plesio_wire::{Ballot, Digest, Instant, LogIndex, MemberIndex, NodeKey, SlotSeq};

/// How far ahead of this node's clock a ballot may lie: farther ones are refused, or one wild clock would raise
/// every promise beyond reach.
const FRAMES_AHEAD_MAX: u64 = 256;
/// The same for a node that never had a clock.
const FRAMES_BLIND_MAX: u64 = 4_096;
const TERM_MAX: u32 = 0xFFFF;

impl Consensus {
    /// A message of the agreement; others are ignored. `view` is the number in its header.
    pub fn handle_message(&mut self, now: Instant, from: NodeKey, view: u32, message: &Message) {
        if self.receive(now, from, view, message) {
            self.advance(now);
        }
    }

    /// False when the sender has no business here.
    pub(super) fn receive(&mut self, now: Instant, from: NodeKey, view: u32, message: &Message) -> bool {
        if !self.is_started || self.is_halted || from == self.config.me {
            return false;
        }
        let member = self.log.view.index_of(from);
        // A stranger gets silence. Who is no member itself may be told by members it does not know yet.
        let is_known = self.log.ledger.knows(from) || self.members.is_observer(from) || !self.is_member();
        if !is_known {
            self.counters.foreign_total += 1;
            return false;
        }
        match message {
            // Stopped, it answers who asks for the past, and has no say in what is to come.
            Message::Query(query) if self.stopped.is_some() => {
                if query.index < self.log.index {
                    self.answer_lower(from, query.index);
                }
            }
            _ if self.stopped.is_some() => {}
            Message::Query(query) => {
                let ballot = Ballot { frame: query.frame, term: query.term };
                self.on_query(now, from, query.index, ballot);
            }
            Message::Decided { index, value } => self.on_decided(now, from, *index, value),
            Message::Snapshot(offer) => self.note_offer(now, from, offer),
            message => match member {
                Some(member) => self.on_member_message(now, from, member, view, message),
                None => self.counters.foreign_total += 1,
            },
        }
        true
    }

    fn on_member_message(
        &mut self,
        now: Instant,
        from: NodeKey,
        member: MemberIndex,
        view: u32,
        message: &Message,
    ) {
        match message {
            Message::Ready(ready) => self.on_ready(now, from, member, view, ready),
            Message::Have(have) => self.on_have(now, from, member, view, have),
            Message::Propose(propose) => {
                let value = Value::Manifest(propose.manifest);
                self.on_proposal(now, from, member, propose.index, propose.ballot, value);
            }
            Message::Epoch(epoch) => {
                self.on_proposal(now, from, member, epoch.index, epoch.ballot, Value::View(epoch.view));
            }
            Message::Accept(accept) => self.on_accept(now, from, member, accept),
            Message::Seal(accept) => self.on_seal(now, from, member, accept),
            Message::Commit(commit) => self.on_commit(now, from, commit.index, commit.digest),
            // Another generation counts the versions anew after the one that it began with. Whoever says none came by a state.
            Message::Shard(shard)
                if shard.index != LogIndex(0) && generation(shard.index) != generation(self.log.index) => {}
            Message::Shard(shard) => {
                // Only who holds a version has its digest. Beats say so too, but they may keep step with the closes and come
                // too late for each.
                self.members.insert_hold(&self.log.view, from, shard.version);
                self.compare_digest(from, shard.version, shard.digest);
            }
            Message::Last(last) => self.on_last(now, from, member, last),
            Message::Leave(leave) => {
                let frame = self.pace.closed.unwrap_or_default();
                self.members.insert_leaver(&self.log.view, from, leave.incarnation, frame);
            }
            Message::Nack(refusal) => self.on_nack(now, from, refusal),
            _ => {}
        }
    }

    /// Whether a message about `index` concerns d; a higher one says that this node is behind.
    fn is_current(&mut self, now: Instant, from: NodeKey, index: LogIndex) -> bool {
        if index > self.log.index {
            self.note_ahead(now, from, index);
        }
        index == self.log.index
    }

    fn is_plausible(&mut self, ballot: Ballot) -> bool {
        let first = self.log.frame_first().0;
        let limit = match self.pace.closed {
            Some(closed) => first.max(closed.0).saturating_add(FRAMES_AHEAD_MAX),
            None => first.saturating_add(FRAMES_BLIND_MAX),
        };
        let plausible = ballot.frame.0 <= limit && ballot.term <= TERM_MAX;
        self.counters.far_ballot_total += u64::from(!plausible);
        plausible
    }

    fn on_ready(&mut self, now: Instant, from: NodeKey, member: MemberIndex, view: u32, ready: &Ready) {
        if !self.is_of_this_view(now, from, 4, view) || self.is_barred(now, member) {
            return;
        }
        match ready.seq() {
            Some(seq) if (1..=STEPS_MAX).contains(&ready.n_steps) => {
                let offered = Offered { seq, base: ready.base_version, n_steps: ready.n_steps };
                self.offers.insert_ready(member, offered);
            }
            _ => {
                self.counters.field_total += 1;
                let refusal = Nack { code: nack::FIELD, ref_type: 4, arg: ready.slot_seq, ..Nack::default() };
                self.send_member(member, Message::Nack(refusal));
            }
        }
    }

    fn on_have(&mut self, now: Instant, from: NodeKey, owner: MemberIndex, view: u32, have: &Have) {
        if !self.is_of_this_view(now, from, 5, view) {
            return;
        }
        for entry in have.entries.iter() {
            self.offers.insert_have(now, owner, entry.member, SlotSeq(entry.slot_seq), entry.sumsq);
        }
    }

    /// R4: promises and answers LAST. R1: tells the past to whoever asks.
    fn on_query(&mut self, now: Instant, from: NodeKey, index: LogIndex, ballot: Ballot) {
        if index < self.log.index {
            self.answer_lower(from, index);
            return;
        }
        let Some(member) = self.log.view.index_of(from) else { return };
        if !self.is_current(now, from, index) || !self.is_member() {
            return;
        }
        let is_owner = ballot.owner(self.log.members()) == member;
        if ballot <= self.round.first || !is_owner || !self.is_plausible(ballot) {
            return;
        }
        if self.round.promise(ballot) || ballot == self.round.promised {
            self.pace.activity = Some(now);
            self.track.diagnosed = now;
            self.answer_last(member, ballot);
        }
    }

    pub(super) fn answer_last(&mut self, to: MemberIndex, ballot: Ballot) {
        let (accepted, value) = match self.round.accepted {
            Some((accepted, value)) => (accepted, Some(value)),
            None => (Ballot::default(), None),
        };
        let last = Last {
            index: self.log.index,
            ballot,
            accepted,
            version: self.held,
            context: self.log.context(),
            shards: self.track.shards,
            value,
        };
        // The proposer chooses by what the owners have.
        self.send_have(to);
        if self.log.open.is_some() {
            // Everybody may see who lacks which shard, and serve.
            self.send(crate::event::To::All, Message::Last(last));
        } else {
            self.send_member(to, Message::Last(last));
        }
    }

    fn on_last(&mut self, now: Instant, from: NodeKey, member: MemberIndex, last: &Last) {
        if !self.is_current(now, from, last.index) || !self.is_member() {
            return;
        }
        self.members.insert_hold(&self.log.view, from, last.version);
        let sound = last.value.is_none_or(|value| {
            last.accepted <= last.ballot
                && last.accepted >= self.round.first
                && value.origin() <= last.accepted.frame
                && self.log.check(&value, self.config.terms()).is_ok()
        });
        if !sound {
            self.counters.rule_total += 1;
            return;
        }
        self.note_shards(now, member, last);
        let shards = if self.log.open.is_some() && last.context == self.log.context() {
            last.shards.and(plesio_wire::MemberSet::first(self.log.members()))
        } else {
            plesio_wire::MemberSet::EMPTY
        };
        let accepted = last.value.map(|value| (last.accepted, value));
        if self.round.count_last(member, self.log.members(), last.ballot, accepted, shards) {
            self.note_shown(now);
            self.continue_attempt(now);
        }
    }

    /// R6: stores, then answers.
    fn on_proposal(
        &mut self,
        now: Instant,
        from: NodeKey,
        member: MemberIndex,
        index: LogIndex,
        ballot: Ballot,
        value: Value,
    ) {
        if !self.is_current(now, from, index) || !self.is_member() {
            return;
        }
        let is_owner = ballot.owner(self.log.members()) == member;
        if !is_owner || ballot < self.round.first || !self.is_plausible(ballot) {
            return;
        }
        if self.is_second_story(from, ballot, &value) {
            return;
        }
        let matches_ready = match &value {
            Value::Manifest(manifest) => {
                manifest.entries.iter().all(|entry| self.offers.matches(entry, self.log.version_final))
            }
            _ => true,
        };
        // With a version open the first ballot carries SEAL only (R3).
        let is_carried =
            value.origin() <= ballot.frame && (self.log.open.is_none() || ballot > self.round.first);
        if let Err(rule) = self.log.check(&value, self.config.terms()) {
            self.note_other_view(from, &value);
            self.refuse(member, rule.0);
            return;
        }
        if !matches_ready || !is_carried {
            self.refuse(member, 9);
            return;
        }
        let digest = value.digest();
        self.round.seen = Some((digest, value));
        if self.round.accept(ballot, &value) {
            self.pace.activity = Some(now);
            self.send_accept(member, ballot, digest);
        }
    }

    /// The same prefix makes the same view; another one began with another first view.
    fn note_other_view(&mut self, from: NodeKey, value: &Value) {
        let theirs = match value {
            Value::Manifest(manifest) => manifest.view,
            Value::View(view) => view.previous,
            Value::Seal(_) => return,
        };
        if theirs != self.log.view_digest && !core::mem::replace(&mut self.differs_told, true) {
            let what = "the first view: its roster, the frame period, or what it says that all nodes share";
            self.events.push_back(crate::Event::Differs { peer: Some(from), what });
        }
    }

    fn refuse(&mut self, member: MemberIndex, rule: u16) {
        self.counters.rule_total += 1;
        let refusal = Nack { code: nack::RULE, ref_type: 6, arg: u64::from(rule), ..Nack::default() };
        self.send_member(member, Message::Nack(refusal));
    }

    fn on_accept(&mut self, now: Instant, from: NodeKey, member: MemberIndex, accept: &Accept) {
        if self.is_current(now, from, accept.index) && self.is_member() {
            let ballot = Ballot { frame: accept.frame, term: accept.term };
            self.count_accept(now, member, ballot, accept.digest);
        }
    }

    /// An ACCEPT(SEAL): a vote, and the word that SEAL is proposed in that ballot.
    fn on_seal(&mut self, now: Instant, from: NodeKey, member: MemberIndex, accept: &Accept) {
        if !self.is_current(now, from, accept.index) || self.log.open.is_none() {
            return;
        }
        let ballot = Ballot { frame: accept.frame, term: accept.term };
        let seal = self.log.seal();
        if ballot < self.round.first || accept.digest != seal.digest() || !self.is_plausible(ballot) {
            return;
        }
        if ballot > self.round.promised {
            self.pace.activity = Some(now);
        }
        if self.round.count_seal(member, self.log.members(), ballot) {
            self.learn(now, seal, Some(ballot), true);
        }
    }

    fn on_commit(&mut self, now: Instant, from: NodeKey, index: LogIndex, digest: Digest) {
        if !self.is_current(now, from, index) {
            return;
        }
        match self.round.value_of(digest) {
            Some(value) => {
                self.learn(now, value, None, false);
                // It is the word of one who has learnt it, also where it ends the receiver's membership.
                self.count_departure(from, LogIndex(index.0 + 1));
            }
            // The sender has learnt it: its answer to a poll brings the value.
            None => self.note_ahead(now, from, LogIndex(index.0 + 1)),
        }
    }

    fn on_decided(&mut self, now: Instant, from: NodeKey, index: LogIndex, value: &Value) {
        if index.0 >= FRAME_MAX {
            return;
        }
        self.count_departure(from, LogIndex(index.0 + 1));
        if index > self.log.index {
            self.note_ahead(now, from, index);
        } else if index == self.log.index {
            self.learn(now, *value, None, false);
        }
    }
}
