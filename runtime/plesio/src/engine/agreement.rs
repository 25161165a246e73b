//! What the agreement decided, carried to the other machines.

use super::{Engine, Out, SlotFate, Work};
use plesio_consensus::{Event, Part};
use plesio_wire::value::View;
use plesio_wire::{Incarnation, Instant, MeshTime, NodeKey, SlotSeq};

impl Engine {
    pub(super) fn handle_agreed(&mut self, now: Instant, event: &Event) {
        match event {
            Event::View { index, view, .. } => {
                self.enter_view(now, view);
                self.keep_view(now, *index, view);
            }
            Event::Open { context, manifest, .. } | Event::Reopen { context, manifest, .. } => {
                self.timing.close = MeshTime(manifest.close);
                self.exchange.handle_open(*context, manifest);
            }
            Event::Serve { to, shards, .. } => self.exchange.handle_serve(*to, *shards),
            // Sealed before all shards are here: they may still come until the next manifest.
            Event::Sealed { version, complete: true, .. } => {
                match self.exchange.results() {
                    Some(results) => self.work.push_back(Work::Apply { version: *version, results }),
                    None => self.consensus.handle_unapplied(now, *version),
                }
                self.exchange.handle_sealed();
            }
            Event::Gather { version, first } => {
                match self.exchange.results() {
                    Some(results) => {
                        self.work.push_back(Work::Gather { version: *version, results, first: *first })
                    }
                    None => self.consensus.handle_unapplied(now, *version),
                }
                self.exchange.handle_sealed();
            }
            Event::Fetch { from, .. } => {
                self.note_fetch(now);
                self.fetch(now, *from);
            }
            Event::Release { seq, part } => self.settle_part(*seq, SlotFate::Commit, *part),
            Event::Fold { seq, .. } => {
                self.note_folds(now, 1);
                self.transfers.handle_given_up(now, *seq);
                self.settle(*seq, SlotFate::Fold);
            }
            Event::Lost { seq } => self.settle(*seq, SlotFate::Lose),
            Event::Listed { seq, margin, staleness, .. } => {
                self.judge_listed(now, *seq, f64::from(*margin) / 16_384.0, u64::from(*staleness));
            }
            Event::Resync { .. } => self.corrector.handle_diverged(now),
            Event::Excluded { .. } => self.excluded = true,
            Event::NoQuorum { .. } => {
                self.note_no_quorum(now);
                self.corrector.handle_quorum(now, false);
            }
            Event::Quorum => {
                self.note_quorum(now);
                self.corrector.handle_quorum(now, true);
            }
            _ => {}
        }
    }

    /// A view is in force: everybody in it gets a connection, everybody else loses it.
    pub(super) fn enter_view(&mut self, now: Instant, view: &View) {
        let members: Vec<NodeKey> = view.members.iter().map(|seat| seat.key).collect();
        let seated = self.seat(view).is_some();
        self.seat_roster(view);
        for seat in view.members.iter() {
            self.connect(now, seat.key, seat.incarnation);
            self.links.open_view(now, (seat.key, seat.incarnation), seated.then_some(view.number));
        }
        self.let_go(now);
        self.tell_view(view);
        self.note_gaps(now, view);
        self.transfers.handle_view();
        self.forget_told();
        self.exchange.handle_view(&members, &view.shares, seated);
        self.timing.tempo.handle_period();
        self.corrector.handle_view(now, seated, u64::from(view.period_us) * 1_000);
        if seated && view.members.len() == 1 {
            self.corrector.handle_alone();
        }
        if seated {
            self.joining = None;
        }
        self.follow_observers();
    }

    /// Whoever is neither member nor observer loses its connection after a while, or at once when there are many.
    pub(super) fn let_go(&mut self, now: Instant) {
        let view = *self.consensus.view();
        let observers: Vec<NodeKey> = self.consensus.observers().collect();
        for peer in self.links.peers() {
            let stays = view.index_of(peer).is_some() || observers.contains(&peer);
            if !stays && self.links.is_over(now, peer) && self.links.close(peer) {
                self.part(peer);
                self.work.push_back(Work::Disconnect { peer });
            }
        }
    }

    /// Whom the sideband takes the seat of a former life of this node for: nobody.
    #[must_use]
    pub const fn stand_in(&self) -> NodeKey {
        NodeKey(self.key.0 ^ 1)
    }

    /// Tells the sideband who is in the view and where, as far as that is known.
    pub(super) fn tell_view(&mut self, view: &View) {
        let keys = view.members.iter().map(|seat| seat.key).filter(|key| *key != self.key);
        let addresses = keys.filter_map(|key| Some((key, self.address_of(key)?.sideband.0))).collect();
        let mut view = *view;
        // A seat of an earlier life is not ours (R19), and the sideband knows us by key alone: there it belongs to
        // somebody who never speaks.
        let me = view.index_of(self.key).filter(|_| self.seat(&view).is_none());
        if let Some(me) = me {
            view.members[usize::from(me)].key = self.stand_in();
        }
        self.out.push_back(Out::View(view, addresses));
    }

    /// Opens connection and data path to one life of a node whose address is known; true when the connection is new.
    pub(super) fn connect(&mut self, now: Instant, peer: NodeKey, life: Incarnation) -> bool {
        let Some(entry) = self.entry_of(peer, life).copied() else { return false };
        let near = entry.data.0.ip().to_canonical().is_loopback();
        if !self.links.open(now, peer, life, near) {
            return false;
        }
        self.stop_serving(now, peer);
        self.part(peer);
        self.work.push_back(Work::Disconnect { peer });
        self.work.push_back(Work::Connect { peer, life, entry });
        self.greet(peer);
        true
    }

    pub(super) fn settle(&mut self, seq: SlotSeq, fate: SlotFate) {
        self.settle_part(seq, fate, Part::WHOLE);
    }

    fn settle_part(&mut self, seq: SlotSeq, fate: SlotFate, part: Part) {
        self.exchange.handle_done(seq);
        if let Some(index) = self.transfers.handle_done(seq) {
            self.work.push_back(Work::Settle { index, seq, fate, part });
        }
    }
}
