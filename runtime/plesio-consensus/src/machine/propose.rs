//! This member's own attempt: QUERY, the choice of a value, PROPOSE, and saying things again (R5, R7, R15, R17).

use super::Consensus;
use crate::event::{Event, Kind, To};
use crate::offers::{Candidate, guard_norms};
use crate::period;
use crate::quorum::is_quorum;
use crate::weights::weights;
use alloc::vec::Vec;
use plesio_wire::sideband::{Accept, Commit, Epoch, Message, Propose, Query, nack};
use plesio_wire::value::{Entry, Manifest, Value, View};
use plesio_wire::{Ballot, Bounded, Frame, Instant, MemberIndex, MemberSet};

/// Frames that the shares of a view stand at least, unless its members change.
const SHARE_FRAMES_MIN: u64 = 16;

/// What an attempt without a value does next.
#[expect(clippy::large_enum_variant, reason = "lives for one call")]
enum Choice {
    Propose(Value),
    /// SEAL, once this member is complete itself.
    Seal,
    /// More LASTs, or shards, until that moment.
    Wait(Instant),
    Nothing,
}

impl Consensus {
    /// Opens an attempt in `ballot`: the first ballot proposes at once, any other asks first.
    pub(super) fn begin_attempt(&mut self, now: Instant, ballot: Ballot) {
        let Some(me) = self.my_index() else { return };
        if !self.round.begin(now, ballot) {
            return;
        }
        let index = self.log.index;
        if ballot > self.round.first {
            self.counters.takeover_total += 1;
            self.track.diagnosed = now;
            self.events.push_back(Event::Queried { index, ballot });
            self.send_query(To::All, ballot);
            self.tell_shards(me, ballot);
            let accepted = self.round.accepted;
            let shards = self.track.shards;
            self.round.count_last(me, self.log.members(), ballot, accepted, shards);
            self.note_shown(now);
        }
        self.continue_attempt(now);
    }

    /// R17: who asks may itself lack what the others hold, and only a LAST says so.
    fn tell_shards(&mut self, me: MemberIndex, ballot: Ballot) {
        if self.log.open.is_some() && !self.is_complete() {
            self.answer_last(me, ballot);
        }
    }

    fn send_query(&mut self, to: To, ballot: Ballot) {
        let query =
            Query { index: self.log.index, frame: ballot.frame, term: ballot.term, ..Query::default() };
        self.send(to, Message::Query(query));
    }

    /// R17: notes since when LASTs of a quorum have shown every shard.
    pub(super) fn note_shown(&mut self, now: Instant) {
        let all = MemberSet::first(self.log.members());
        let Some(attempt) = self.round.attempt.as_ref().filter(|attempt| attempt.is_ready) else { return };
        if self.log.open.is_some() && attempt.lasts.shown.or(self.track.shards) == all {
            self.track.shown_since.get_or_insert(now);
        }
    }

    /// Goes on with the own attempt once it may carry a value.
    pub(super) fn continue_attempt(&mut self, now: Instant) {
        let waiting =
            self.round.attempt.as_ref().is_some_and(|attempt| attempt.is_ready && attempt.proposal.is_none());
        if !waiting {
            return;
        }
        match self.choose(now) {
            Choice::Propose(value) => self.propose(now, value),
            Choice::Seal if self.is_complete() => {
                if let (Some(me), Some(attempt)) = (self.my_index(), &self.round.attempt) {
                    let (ballot, seal) = (attempt.ballot, self.log.seal());
                    self.round.propose(seal, seal.digest());
                    self.events.push_back(Event::Proposed {
                        index: self.log.index,
                        ballot,
                        kind: Kind::Seal,
                    });
                    self.accept_seal(now, me, ballot);
                }
            }
            // Holders that saw the LASTs serve what is missing.
            Choice::Seal => {}
            Choice::Wait(until) => self.alarm(now, until),
            Choice::Nothing => {
                self.round.attempt = None;
                self.pace.activity = Some(now);
                self.pace.close_done = true;
            }
        }
    }

    fn choose(&mut self, now: Instant) -> Choice {
        if self.log.open.is_some() && self.members.gone(now, &self.log.view, self.config.me).is_empty() {
            let stalled = self.find_stalled(now);
            self.members.set_stalled(&self.log.view, stalled);
        }
        let Some(attempt) = &self.round.attempt else { return Choice::Nothing };
        let (ballot, since) = (attempt.ballot, attempt.since);
        match attempt.lasts.best(self.trusted_lasts(now)) {
            Some(Value::Seal(_)) => return Choice::Seal,
            Some(value) => return Choice::Propose(value),
            None => {}
        }
        // A fresh value is better chosen on the word of all who can be heard.
        let patience = since.after(self.t_prop_ns() / 2);
        let is_alone = ballot == self.round.first || self.heard().without(attempt.lasts.from).is_empty();
        if !is_alone && now < patience {
            return Choice::Wait(patience);
        }
        if self.log.open.is_some() {
            self.choose_open(now, ballot.frame)
        } else {
            self.choose_closed(now, ballot.frame)
        }
    }

    /// The LASTs that bind the choice: those of any quorum will do (R5). One that holds shards back keeps the others
    /// from completing; when its word is all that speaks for SEAL, a quorum without it decides.
    fn trusted_lasts(&self, now: Instant) -> MemberSet {
        let Some(attempt) = &self.round.attempt else { return MemberSet::EMPTY };
        let from = attempt.lasts.from;
        let others = from.without(self.members.gone(now, &self.log.view, self.config.me));
        let enough = self.log.open.is_some() && !self.is_served(now) && is_quorum(self.log.members(), others);
        if enough { others } else { from }
    }

    /// R17: whether holders may still be serving each other; T_open after all shards were shown they have failed.
    fn is_served(&self, now: Instant) -> bool {
        self.track.shown_since.is_none_or(|since| now.since(since) < self.t_open_ns())
    }

    fn choose_open(&mut self, now: Instant, origin: Frame) -> Choice {
        let all = MemberSet::first(self.log.members());
        let Some(attempt) = &self.round.attempt else { return Choice::Nothing };
        let shown = attempt.lasts.shown.or(self.track.shards);
        if shown == all && self.is_served(now) {
            return Choice::Seal;
        }
        match self.removal(now, origin) {
            Some(view) => Choice::Propose(Value::View(view)),
            None if shown == all => Choice::Seal,
            None => Choice::Nothing,
        }
    }

    fn choose_closed(&mut self, now: Instant, origin: Frame) -> Choice {
        if let Some(view) = self.removal(now, origin).or_else(|| self.orderly_change(now, origin)) {
            return Choice::Propose(Value::View(view));
        }
        match self.build_manifest(origin) {
            Some(manifest) => Choice::Propose(Value::Manifest(manifest)),
            None => Choice::Nothing,
        }
    }

    /// Whether there is anything to propose at a close.
    pub(super) fn has_something(&mut self, now: Instant) -> bool {
        // Of the ballot that it would be proposed in: behind this frame the log is when frames were void.
        let origin = self.log.frame_first().max(self.pace.closed.unwrap_or_default());
        !self.removable(now).is_empty()
            || self.orderly_change(now, origin).is_some()
            || !self.candidates().0.is_empty()
    }

    fn removal(&self, now: Instant, origin: Frame) -> Option<View> {
        let gone = self.removable(now);
        (!gone.is_empty()).then(|| self.members.next_view(&self.log, origin, gone, &[]))
    }

    /// A leave, a join, other shares or another period, in this order, if due; they wait for SEAL (R16) and for HOLD (R15).
    fn orderly_change(&mut self, now: Instant, origin: Frame) -> Option<View> {
        let closed = self.pace.closed.unwrap_or_default();
        let mut leaving = MemberSet::EMPTY;
        for (member, heard) in self.members.leavers(&self.log.view) {
            // It contributes to the next close, and a slot on its way gets a few more.
            let pending = self.offers.has_pending(&self.log, member, self.config.tau);
            if closed.0 > heard.0 + 3 || (closed > heard && !pending) {
                leaving.insert(member);
            }
        }
        // Where all leave one stays, who needs nobody's word to end.
        if let Some(me) = self.my_index().filter(|_| leaving.len() == self.log.members()) {
            leaving.remove(me);
        }
        let view = if !leaving.is_empty() {
            self.members.next_view(&self.log, origin, leaving, &[])
        } else {
            let joining = self.members.ready_joiners(now, &self.log);
            let view = self.members.next_view(&self.log, origin, MemberSet::EMPTY, &joining);
            if joining.is_empty() && !self.is_share_due(&view) { self.turned_view(origin)? } else { view }
        };
        self.members.holds_quorum(&self.log, &view, self.config.me, self.held).then_some(view)
    }

    /// R25: whether a view with other shares and nothing else is worth the exchange that it interrupts.
    fn is_share_due(&self, view: &View) -> bool {
        let closed = self.pace.closed.unwrap_or_default();
        let is_old = closed.0.saturating_sub(self.log.view.origin.0) >= SHARE_FRAMES_MIN;
        let all = MemberSet::first(self.log.members());
        is_old
            && self.heard() == all
            && view.shares != self.log.view.shares
            && self.members.sharing.is_worth(&self.log.view, &view.shares)
    }

    /// R26: a view with another frame period and nothing else, if one is due.
    fn turned_view(&self, origin: Frame) -> Option<View> {
        let now = &self.log.view;
        let turned = period::turned(now, origin, self.control.due(now)?)?;
        let (number, effective) = (now.number.saturating_add(1), Frame(origin.0.saturating_add(1)));
        Some(View { origin, number, effective, previous: self.log.view_digest, ..turned })
    }

    /// Every valid slot that all owners HAVE whom this node does not suspect and who hear others, but those that the NORM
    /// guard holds back.
    fn candidates(&mut self) -> (Vec<Candidate>, Vec<Candidate>) {
        let (mut candidates, _) = self.offers.candidates(&self.log, self.reached(), self.config.tau);
        let loud = guard_norms(&mut candidates, self.config.kappa);
        self.counters.norm_total += loud.len() as u64;
        (candidates, loud)
    }

    fn build_manifest(&mut self, origin: Frame) -> Option<Manifest> {
        let (candidates, loud) = self.candidates();
        for slot in loud {
            self.refuse_slot(slot.member, nack::NORM, slot.seq);
        }
        let (_, stale) = self.offers.candidates(&self.log, self.reached(), self.config.tau);
        for (member, seq) in stale {
            self.refuse_slot(member, nack::STALE, seq);
        }
        // Begun on a version that this proposer does not know of: whoever of the two is behind, it cannot be listed.
        for (member, seq) in self.offers.ahead(self.log.version_final) {
            self.refuse_slot(member, nack::FIELD, seq);
        }
        if candidates.is_empty() {
            return None;
        }
        let listed: Vec<(MemberIndex, u32)> =
            candidates.iter().map(|one| (one.member, one.n_steps)).collect();
        let weights = weights(self.log.view.weight_mode, self.log.members(), &listed);
        let mut entries = Bounded::default();
        for (candidate, whole) in candidates.iter().zip(weights) {
            let weight = self.config.lambda.discount(whole, candidate.staleness);
            let entry = Entry {
                member: candidate.member,
                staleness: candidate.staleness,
                slot_seq: candidate.seq.0,
                n_steps: candidate.n_steps,
                weight,
                margin: self.margin(candidate.arrival),
                eflags: 0,
            };
            let _ = entries.push(entry); // One per member, so there is room.
        }
        let period_us = self.log.view.period_us;
        let close = self.log.view.schedule().close_of(self.pace.closed.unwrap_or(origin)).0;
        Some(Manifest { origin, close, period_next_us: period_us, view: self.log.view_digest, entries })
    }

    /// (T_k - arrival of the last HAVE) / P in Q1.14, saturating.
    fn margin(&self, arrival: Instant) -> i16 {
        let early_ns = i128::from(self.pace.close_at.0) - i128::from(arrival.0);
        let scaled = early_ns * 16_384 / i128::from(self.period_ns().max(1));
        scaled.clamp(i128::from(i16::MIN), i128::from(i16::MAX)) as i16
    }

    /// Proposes in the own attempt's ballot, and accepts first itself.
    fn propose(&mut self, now: Instant, value: Value) {
        let (Some(me), Some(attempt)) = (self.my_index(), &self.round.attempt) else { return };
        let ballot = attempt.ballot;
        let digest = value.digest();
        if self.log.check(&value, self.config.terms()).is_err() || !self.round.accept(ballot, &value) {
            self.round.attempt = None;
            self.pace.activity = Some(now);
            return;
        }
        self.round.propose(value, digest);
        self.events.push_back(Event::Proposed { index: self.log.index, ballot, kind: Kind::of(&value) });
        if let Some(attempt) = &mut self.round.attempt {
            attempt.since = now;
            attempt.sent = now;
        }
        self.send_proposal(To::All, ballot, &value);
        self.count_accept(now, me, ballot, digest);
    }

    fn send_proposal(&mut self, to: To, ballot: Ballot, value: &Value) {
        let index = self.log.index;
        match value {
            Value::Manifest(manifest) => {
                self.send(to, Message::Propose(Propose { index, ballot, manifest: *manifest }));
            }
            Value::View(view) => self.send(to, Message::Epoch(Epoch { index, ballot, view: *view })),
            Value::Seal(_) => {} // Carried by its ACCEPT.
        }
    }

    pub(super) fn count_accept(
        &mut self,
        now: Instant,
        from: MemberIndex,
        ballot: Ballot,
        digest: plesio_wire::Digest,
    ) {
        if let Some(value) = self.round.count_accept(from, self.log.members(), ballot, digest) {
            let accepted = self.round.attempt.as_ref().and_then(|attempt| attempt.proposal.as_ref());
            let accepted = accepted.map_or(MemberSet::EMPTY, |proposal| proposal.accepts);
            let commit = Commit {
                frame: ballot.frame,
                index: self.log.index,
                term: ballot.term,
                digest,
                accepted,
                ..Commit::default()
            };
            // Sent before the value is learnt: members of the view in force at that index are meant.
            self.send_each(Message::Commit(commit));
            self.learn(now, value, Some(ballot), true);
        }
    }

    /// To every other member by name: the view may change before the outbox is drained.
    fn send_each(&mut self, message: Message) {
        for member in 0..self.log.members() as MemberIndex {
            self.send_member(member, message);
        }
    }

    pub(super) fn send_accept(&mut self, to: MemberIndex, ballot: Ballot, digest: plesio_wire::Digest) {
        let accept = Accept {
            frame: ballot.frame,
            index: self.log.index,
            term: ballot.term,
            digest,
            ..Accept::default()
        };
        self.send_member(to, Message::Accept(accept));
    }

    /// Keeps the own attempt going: says things again, and gives up when it has lasted too long.
    pub(super) fn tick_attempt(&mut self, now: Instant) {
        if self.is_unsettled {
            self.alarm(now, now);
            return;
        }
        let Some(attempt) = &self.round.attempt else { return };
        let (ballot, since, sent) = (attempt.ballot, attempt.since, attempt.sent);
        let awaits_seal = self.log.open.is_some() && attempt.is_ready && attempt.proposal.is_none();
        let life_ns = if awaits_seal { 2 * self.t_open_ns() } else { 4 * self.t_prop_ns() };
        let end = since.after(life_ns);
        if now >= end {
            self.round.attempt = None;
            self.round.churn = self.round.churn.saturating_add(1);
            self.pace.activity = Some(now);
            return;
        }
        self.alarm(now, end);
        let due = sent.after(self.resend_ns());
        if now < due {
            self.alarm(now, due);
        } else {
            self.resend_attempt(now, ballot, awaits_seal);
        }
        self.continue_attempt(now);
    }

    fn resend_attempt(&mut self, now: Instant, ballot: Ballot, awaits_seal: bool) {
        let Some(attempt) = &mut self.round.attempt else { return };
        attempt.sent = now;
        let proposal = attempt.proposal.as_ref().map(|proposal| (proposal.value, proposal.accepts));
        let silent = match &proposal {
            Some((_, accepts)) => *accepts,
            // Asked again, a member answers with the shards it holds by now.
            None if awaits_seal => MemberSet::EMPTY,
            None => attempt.lasts.from,
        };
        self.counters.resent_total += 1;
        if let Some(me) = self.my_index().filter(|_| awaits_seal) {
            self.tell_shards(me, ballot);
        }
        for member in MemberSet::first(self.log.members()).without(silent).iter() {
            let Some(key) = self.key_of(member).filter(|key| *key != self.config.me) else { continue };
            match &proposal {
                Some((value, _)) => self.send_proposal(To::One(key), ballot, value),
                None => self.send_query(To::One(key), ballot),
            }
        }
        self.alarm(now, now.after(self.resend_ns()));
    }
}
