//! Learning: a decided value takes effect, in order, once; or a whole cut does (R7, R13, R16, R24).

use super::{Consensus, TAIL_MAX};
use crate::event::{Event, Kind, To};
use crate::log::{Learnt, LogState, ViewChange};
use crate::machine::catchup::Basis;
use crate::machine::open::{Late, OpenTrack, STALLED_AFTER};
use crate::restart::generation;
use crate::round::Round;
use crate::snapshot::{Installed, SnapshotCut, SnapshotError};
use crate::weights::Part;
use plesio_wire::sideband::Message;
use plesio_wire::value::{Value, View};
use plesio_wire::{Ballot, Digest, Instant, LogIndex, MemberIndex, NodeKey, Version};

impl Consensus {
    /// Learns the value at d. `counted`: this node counted the quorum itself, so it tells the observers.
    pub(super) fn learn(&mut self, now: Instant, value: Value, ballot: Option<Ballot>, counted: bool) {
        if self.log.check(&value, self.config.terms()).is_err() {
            self.counters.rule_total += 1;
            return;
        }
        let index = self.log.index;
        let me = self.my_index();
        let admission = self.my_admission();
        self.bar_stalled(now, &value);
        let is_complete = self.is_complete();
        let sealers = self.round.sealers();
        // Whatever comes next lays its result over the last one: late shards have no place any more. A state on its way is
        // taken all the same, though another one is wanted after it: where transfers take longer than versions, each would
        // be given up for the next.
        if self.late.take().is_some() {
            self.fetch_by(now);
        }
        self.events.push_back(Event::Decided { index, ballot, kind: Kind::of(&value) });
        if counted {
            self.tell_observers(index, &value, me);
        }
        self.is_unsettled = true;
        let learnt = self.log.learn(&value);
        if self.tail.len() == TAIL_MAX {
            self.tail.pop_front();
        }
        self.tail.push_back((index, value));
        self.round = Round::new(self.log.ballot_first());
        self.pace.enter_index(now);
        match learnt {
            Learnt::Manifest => {
                self.track = OpenTrack::new(now);
                (self.pace.opened, self.pace.opened_at) = (self.log.origin, now);
                self.learn_manifest(me);
            }
            Learnt::Seal(version) => self.learn_seal(now, index, version, is_complete, sealers),
            Learnt::View(change) => self.learn_view(now, index, &change, me, admission),
        }
        self.note_learnt();
    }

    /// Whoever is put out of a context that has lasted so long, and is not dead, held its data back.
    fn bar_stalled(&mut self, now: Instant, value: &Value) {
        let is_old = now.since(self.track.since) >= STALLED_AFTER * self.t_open_ns();
        if let (Value::View(view), true, true) = (value, self.log.open.is_some(), is_old) {
            let heard = self.heard();
            for member in heard.iter() {
                let seat = self.log.view.members.get(usize::from(member));
                if let Some(seat) = seat.filter(|seat| view.index_of(seat.key).is_none()) {
                    self.members.bar(now, seat.key, Some(seat.incarnation));
                }
            }
        }
        self.members.clear_stalled();
        if let Value::View(view) = value {
            self.members.bar_condemned(now, view);
        }
    }

    fn learn_manifest(&mut self, me: Option<MemberIndex>) {
        let Some(open) = &self.log.open else { return };
        let (version, manifest) = (open.version, open.manifest);
        self.events.push_back(Event::Open { context: self.log.context(), version, manifest });
        let entry = me.and_then(|me| manifest.entries.iter().find(|entry| entry.member == me));
        if let (Some(admission), Some(entry)) = (self.my_admission(), entry) {
            let part = Part::of_entry(&self.log.view, &manifest, entry.member);
            self.events.extend(self.own.list(admission, entry, version, part));
        }
        // One more version stands in the prefix: what was just fresh enough is too stale now (R23 b).
        self.own.fold_stale(self.log.version(), self.config.tau, &mut self.events);
    }

    fn learn_seal(
        &mut self,
        now: Instant,
        index: LogIndex,
        version: Version,
        complete: bool,
        sealers: plesio_wire::MemberSet,
    ) {
        // Whoever accepted SEAL holds the version as soon as it has learnt it (A7).
        self.lag.note_sources(version, sealers);
        self.seal_index = index;
        self.cut = self.log.clone();
        let shards = core::mem::replace(&mut self.track, OpenTrack::new(now)).shards;
        self.events.push_back(Event::Sealed { index, version, complete });
        let all = plesio_wire::MemberSet::first(self.log.members());
        let settled = complete || (shards == all && self.gather(version));
        if !settled {
            let context = LogIndex(index.0.saturating_sub(1));
            self.late = Some(Late { context, index, version, shards });
            let may_complete = self.basis.is_some() || (self.has_state && self.held.next() == version);
            self.fetch_after_seal(now, may_complete);
        }
        self.offers.purge(&self.log, self.config.tau);
        self.own.release(&mut self.events);
        if complete {
            self.applying = Some(version);
        }
    }

    fn learn_view(
        &mut self,
        now: Instant,
        index: LogIndex,
        change: &ViewChange,
        me_before: Option<MemberIndex>,
        admission: Option<crate::ledger::Admission>,
    ) {
        // Everybody who stays tells those who go; one of these words gets through (R18).
        let goodbye = Message::Decided { index, value: Value::View(self.log.view) };
        self.enter_view(now, &change.added);
        for seat in &change.removed {
            if self.is_member() && seat.key != self.config.me {
                self.send(To::One(seat.key), goodbye);
            }
        }
        let removed: alloc::vec::Vec<NodeKey> = change.removed.iter().map(|seat| seat.key).collect();
        let added = change.added.clone();
        self.events.push_back(Event::View { index, view: self.log.view, added, removed });
        if me_before.is_some() && self.my_admission() != admission {
            self.own.fold_all(&mut self.events);
            self.end_membership(now, index);
        }
        self.track = OpenTrack::new(now);
        match (&self.log.open, change.dropped) {
            (Some(open), Some(dropped)) => {
                let (version, manifest) = (open.version, open.manifest);
                let context = self.log.context();
                self.events.push_back(Event::Reopen { context, version, manifest, dropped });
            }
            _ => self.cut = self.log.clone(),
        }
        self.own.announce_anew(now);
    }

    /// What was said under the view before is void.
    fn enter_view(&mut self, now: Instant, added: &[NodeKey]) {
        self.members.enter(&self.log.view, added, now.after(self.config.t_dead_ns));
        self.conduct.enter(now, &self.log.view);
        self.offers.reset(self.log.members());
        if let Some(before) = self.control.enter(&self.log.view) {
            // The frame that closed last may have another number now, and a lower one for those who learn this late.
            self.pace.closed = None;
            let (frame, before_ns, period_ns) = (self.log.view.anchor, before.period_ns, self.period_ns());
            if before_ns > 0 && before_ns != period_ns {
                self.events.push_back(Event::Period { frame, before_ns, period_ns });
            }
        }
        let view = &self.log.view;
        self.votes.enter(|key| view.index_of(key).is_some());
        if let Some(me) = self.my_index() {
            let ready: alloc::vec::Vec<_> = self.own.iter().map(|(slot, _)| slot).collect();
            for slot in ready {
                let ready = crate::offers::Ready { seq: slot.seq, base: slot.base, n_steps: slot.n_steps };
                self.offers.insert_ready(me, ready);
            }
        }
    }

    fn end_membership(&mut self, now: Instant, index: LogIndex) {
        if self.is_leaving {
            self.begin_departure(now, index);
        } else {
            self.events.push_back(Event::Excluded { index });
        }
        self.quorum_told = true;
    }

    fn tell_observers(&mut self, index: LogIndex, value: &Value, me: Option<MemberIndex>) {
        // A proposer is one; of those who count SEALs the lowest that is heard speaks.
        let speaks = match value {
            Value::Seal(_) => self.heard().iter().next() == me,
            _ => true,
        };
        if me.is_some() && speaks {
            let observers: alloc::vec::Vec<NodeKey> = self.members.observers().collect();
            for observer in observers {
                self.send(To::One(observer), Message::Decided { index, value: *value });
            }
        }
    }

    pub(super) fn hold_state(&mut self, version: Version, digest: Digest) {
        self.held = version;
        self.held_digest = digest;
        self.has_state = true;
        self.basis.take_if(|basis| basis.gathered <= version);
        self.votes.hold(version, self.seal_index, digest);
    }

    /// The cut of a state that is on its way: from here on the log is followed, and the results of the versions after
    /// that state are gathered. So a transfer may take as long as it takes.
    ///
    /// # Errors
    /// [`SnapshotError`]: give that transfer up; another one is asked for by [`Event::Fetch`].
    pub fn handle_cut_ahead(&mut self, now: Instant, cut: &SnapshotCut) -> Result<Installed, SnapshotError> {
        let log = cut.to_state()?;
        let needed = self.log.version_final;
        let is_before = cut.version.next() == needed && self.late.is_some();
        let is_held = self.has_state && self.held >= cut.version;
        let is_anew = generation(log.index) > generation(self.log.index);
        let is_news = !self.is_started || log.index > self.log.index;
        let is_same = cut.digest == self.held_digest || cut.version == Version(0);
        if is_held && is_news && !is_anew && self.held == cut.version && is_same && self.applying.is_none() {
            // Views came since, and their entries are forgotten: the state is here, only the log lacks.
            self.install_cut(now, log, None)?;
            self.advance(now);
            return Ok(Installed::Log);
        }
        if self.is_started && (self.applying.is_some() || is_held) && !is_anew {
            return Err(SnapshotError::Old { version: cut.version, needed });
        }
        if is_news {
            self.install_cut(now, log, None)?;
        } else if cut.version != needed && !is_before {
            self.fetch_again(now);
            self.advance(now);
            return Err(SnapshotError::Old { version: cut.version, needed });
        }
        self.basis = Some(Basis { version: cut.version, gathered: cut.version });
        // Shards of what the state contains are of no use any more.
        self.late.take_if(|late| late.version <= cut.version);
        self.extend_fetch(now);
        self.complete_late();
        self.advance(now);
        Ok(if is_news { Installed::Cut } else { Installed::State })
    }

    /// Installs a fetched cut, or only its G when the log has been learnt entry by entry (R24).
    ///
    /// # Errors
    /// [`SnapshotError`]: throw it away.
    pub fn handle_snapshot(&mut self, now: Instant, cut: &SnapshotCut) -> Result<Installed, SnapshotError> {
        let installed = self.install(now, cut);
        self.advance(now);
        installed
    }

    pub(super) fn install(&mut self, now: Instant, cut: &SnapshotCut) -> Result<Installed, SnapshotError> {
        let log = cut.to_state()?;
        let basis = self.basis.filter(|basis| basis.version == cut.version && self.applying.is_none());
        if let Some(basis) = basis {
            Ok(self.install_basis(now, basis, cut.digest))
        } else if self.is_started && log.index <= self.log.index {
            self.install_state(cut).inspect_err(|_| self.fetch_again(now))?;
            Ok(Installed::State)
        } else {
            self.install_cut(now, log, Some(cut.digest))?;
            Ok(Installed::Cut)
        }
    }

    /// The state is here whose cut was taken before; what was gathered since goes on top of it.
    fn install_basis(&mut self, now: Instant, basis: Basis, digest: Digest) -> Installed {
        self.basis = None;
        self.hold_state(basis.version, digest);
        self.fetching = None;
        if basis.gathered < self.log.version_final {
            // The shards of one more version may still come.
            self.fetch_after_seal(now, true);
        }
        if basis.gathered > basis.version {
            self.applying = Some(basis.gathered);
            return Installed::Gathered(basis.gathered);
        }
        if basis.version == self.log.version_final {
            self.tell_digest(basis.version, digest);
        } else {
            self.complete_late();
        }
        Installed::State
    }

    /// The learnt prefix holds the ledger of that version, so its G may be used.
    fn install_state(&mut self, cut: &SnapshotCut) -> Result<(), SnapshotError> {
        let needed = self.log.version_final;
        let is_needed = cut.version == needed;
        // One version behind is enough while the shards of the last one are kept.
        let is_before = cut.version.next() == needed && self.late.is_some();
        let is_held = self.has_state && self.held >= cut.version;
        if !(is_needed || is_before) || is_held || self.applying.is_some() {
            return Err(SnapshotError::Old { version: cut.version, needed });
        }
        self.hold_state(cut.version, cut.digest);
        if is_needed {
            self.late = None;
            self.tell_digest(cut.version, cut.digest);
        } else {
            self.complete_late();
        }
        Ok(())
    }

    fn install_cut(
        &mut self,
        now: Instant,
        log: LogState,
        digest: Option<Digest>,
    ) -> Result<(), SnapshotError> {
        let behind = log.version_final < self.log.version_final
            || log.view.number < self.log.view.number
            || (self.has_state && log.version_final < self.held);
        // A later generation begins with an earlier version: what came after it is void here too.
        let is_anew = generation(log.index) > generation(self.log.index);
        if self.is_started && behind && !is_anew {
            return Err(SnapshotError::Inconsistent);
        }
        if self.is_started && is_anew {
            self.votes = super::votes::Votes::default();
            (self.has_state, self.held) = (false, log.version_final);
        }
        let was_member = self.my_admission();
        let old_view: View = core::mem::replace(&mut self.log, log).view;
        self.is_started = true;
        self.is_unsettled = true;
        self.cut = self.log.clone();
        self.tail.clear();
        self.round = Round::new(self.log.ballot_first());
        self.pace.enter_index(now);
        self.pace.opened = self.pace.opened.max(self.log.origin);
        self.track = OpenTrack::new(now);
        self.applying = None;
        self.late = None;
        self.fetching = None;
        self.basis = None;
        if let Some(digest) = digest {
            self.hold_state(self.log.version_final, digest);
        }
        if old_view == self.log.view {
            self.offers.purge(&self.log, self.config.tau);
        } else {
            let (view, index) = (self.log.view, self.log.view_index);
            let missing = |from: &View, other: &View| -> alloc::vec::Vec<NodeKey> {
                from.members
                    .iter()
                    .map(|seat| seat.key)
                    .filter(|key| other.index_of(*key).is_none())
                    .collect()
            };
            let (added, removed) = (missing(&view, &old_view), missing(&old_view, &view));
            self.enter_view(now, &added);
            self.events.push_back(Event::View { index, view, added, removed });
        }
        let (version, tau) = (self.log.version_final, self.config.tau);
        self.own.reconcile(&self.log.ledger, version, tau, &mut self.events);
        if was_member.is_some() && !self.is_member() {
            self.end_membership(now, self.log.view_index);
        }
        self.own.announce_anew(now);
        self.note_learnt();
        Ok(())
    }
}
