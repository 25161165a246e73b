//! Coming into a running mesh, and letting others in.
//!
//! ```text
//! joiner                               member
//!   JOIN to seeds, every 100 ms  --->   ROSTER, DECIDED{VIEW in force}
//!   connections to all members   --->   (registers the observer, connects)
//!   SNAPSHOT request to one      --->   offer, then the bulk transfer
//!   JOIN with HOLD to all        --->   a frame's owner proposes a VIEW that names it
//! ```

use super::bearings::{Bearings, Headway};
use super::{Engine, Out, SlotFate, Work, consensus_config};
use crate::event::Entering;
use plesio_collective::Exchange;
use plesio_consensus::{Consensus, Event, Start};
use plesio_sideband::To;
use plesio_wire::digest::Hasher;
use plesio_wire::sideband::{Join, Message, Nack, Roster, RosterEntry, nack};
use plesio_wire::value::{Seat, Value, View};
use plesio_wire::{Bounded, Incarnation, Instant, LogIndex, MemberIndex, NodeKey};
use std::net::SocketAddr;

/// A node that is not in the view and wants to be.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) seeds: Vec<SocketAddr>,
    pub(super) next: Instant,
    /// The view that a member said is in force.
    pub(super) sponsor: Option<View>,
    attempt: usize,
    /// Nobody that this node knows can help: the lives of today are asked for, as a stranger does, wherever nodes were.
    pub(super) lost: bool,
    pub(super) headway: Headway,
    /// A member said that this node was started with another value of this.
    differs: Option<&'static str>,
    /// Where another life of this node is in the roster of the mesh.
    namesake: Option<SocketAddr>,
}

impl Joining {
    pub(super) fn new(seeds: Vec<SocketAddr>, now: Instant) -> Self {
        Self {
            seeds,
            next: now,
            sponsor: None,
            attempt: 0,
            lost: false,
            headway: Headway::new(now),
            differs: None,
            namesake: None,
        }
    }
}

/// A member's key, asked with from elsewhere.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Namesake {
    /// Whose.
    pub key: NodeKey,
    /// Where the member is.
    pub seated: SocketAddr,
    /// Where it is asked from.
    pub asks: SocketAddr,
}

/// Members of the view in force whose addresses are not known here: asked for, from one member after the other.
#[derive(Debug, Default)]
pub(super) struct Gaps {
    due: Option<Instant>,
    attempt: usize,
    /// How many they were when the sideband was last told where the members are.
    missing: usize,
}

impl Engine {
    /// Which life of the node this is: another one begins when a view excludes it.
    #[must_use]
    pub fn incarnation(&self) -> Incarnation {
        self.config.incarnation
    }

    /// This life's seat in `view`. A seat of an earlier life is somebody else's (R19).
    pub(super) fn seat(&self, view: &View) -> Option<MemberIndex> {
        let index = view.index_of(self.key)?;
        (view.members[usize::from(index)].incarnation == self.config.incarnation).then_some(index)
    }

    /// Whether a view told by somebody is news that only a stranger needs.
    pub(super) fn asks_for_view(&self) -> bool {
        self.joining.as_ref().is_some_and(|joining| joining.lost || !self.consensus.is_started())
    }

    /// How far this node has come on its way into the mesh; `None`: it is in, or was never told to enter.
    #[must_use]
    pub fn entering(&self) -> Option<Entering> {
        let joining = self.joining.as_ref()?;
        let view = joining.sponsor.as_ref().map(|view| (view.number, view.members.len()));
        let state = self.consensus.has_state();
        let Joining { differs, namesake, .. } = *joining;
        Some(Entering { session: false, view, state, differs, namesake })
    }

    /// Whether this life of the node has a seat in `view`.
    #[must_use]
    pub fn is_seated(&self, view: &View) -> bool {
        self.seat(view).is_some()
    }

    /// A member tells where the mesh knows this node's key, if that is not here.
    pub(super) fn note_namesake(&mut self, entries: &[RosterEntry]) {
        let (key, own) = (self.key, self.config.entry.sideband);
        let Some(joining) = &mut self.joining else { return };
        let is_other = |entry: &&RosterEntry| entry.id.key() == key && entry.sideband != own;
        joining.namesake = entries.iter().find(is_other).map(|entry| entry.sideband.0).or(joining.namesake);
    }

    /// When joining or asking for addresses wants to go on.
    pub(super) fn join_timeout(&self) -> Option<Instant> {
        let next = self.joining.as_ref().map(|joining| joining.next);
        next.into_iter().chain(self.gaps.due).chain(self.bearings_timeout()).min()
    }

    /// Notes whether somebody of the view in force cannot be reached for want of an address.
    pub(super) fn note_gaps(&mut self, now: Instant, view: &View) {
        self.gaps.missing = self.count_gaps(view);
        self.gaps.due = (self.gaps.missing > 0).then_some(now);
    }

    fn count_gaps(&self, view: &View) -> usize {
        let is_known = |seat: &&Seat| seat.key == self.key || self.roster.contains_key(&seat.key);
        view.members.len() - view.members.iter().filter(is_known).count()
    }

    /// Addresses came: whoever could not be reached is connected now.
    pub(super) fn fill_gaps(&mut self, now: Instant) {
        if self.gaps.due.is_none() {
            return;
        }
        let view = *self.consensus.view();
        let number = self.seat(&view).map(|_| view.number);
        let mut any = self.count_gaps(&view) < self.gaps.missing;
        for seat in view.members.iter() {
            // A connection may be there already, from when that member was asking to be let in; without the view's session.
            let is_new = self.connect(now, seat.key, seat.incarnation);
            if self.links.open_view(now, (seat.key, seat.incarnation), number) || is_new {
                any = true;
                self.exchange.handle_peer(seat.key);
            }
        }
        if any {
            self.tell_view(&view);
            self.note_gaps(now, &view);
        }
    }

    fn ask_for_roster(&mut self, now: Instant) {
        if self.gaps.due.is_none_or(|due| now < due) {
            return;
        }
        self.gaps.due = Some(now.after(ROSTER_INTERVAL_NS));
        self.gaps.attempt = self.gaps.attempt.wrapping_add(1);
        let view = self.consensus.view();
        let others = view.members.iter().filter(|seat| seat.key != self.key);
        let known: Vec<SocketAddr> =
            others.filter_map(|seat| Some(self.address_of(seat.key)?.sideband.0)).collect();
        let ask = Nack { code: nack::ROSTER, arg: u64::from(view.number), ..Nack::default() };
        let target = match known.get(self.gaps.attempt % known.len().max(1)) {
            Some(target) => Some(*target),
            // All that this node knew are other lives now: whoever is where somebody was may be a member.
            None => self.next_places(1).pop(),
        };
        if let Some(target) = target {
            self.out.push_back(Out::Send(To::Address(target), Message::Nack(ask)));
        }
    }

    /// A view without this node is in force though it did not leave. It comes back as a new life: what the old one
    /// promised, sent and received then cannot be taken for the new one's. Its slots were settled on proof.
    pub(super) fn begin_next_life(&mut self, now: Instant) {
        for seq in self.transfers.unsettled() {
            self.settle(seq, SlotFate::Lose);
        }
        let members = self.consensus.view().members;
        let seeds = members.iter().filter(|seat| seat.key != self.key);
        let seeds = seeds.filter_map(|seat| Some(self.address_of(seat.key)?.sideband.0)).collect();
        self.forget_told();
        for peer in self.links.peers() {
            self.links.close(peer);
            self.part(peer);
            self.work.push_back(Work::Disconnect { peer });
        }
        let mut hasher = Hasher::default();
        hasher.update(&self.config.incarnation.0.to_le_bytes());
        hasher.update(&now.0.to_le_bytes());
        let digest = hasher.finish().0;
        self.config.incarnation =
            Incarnation(digest[..8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte)));
        self.consensus = Consensus::new(consensus_config(&self.config), Start::Observer, now)
            .expect("the same configuration was accepted before");
        let entries: Vec<RosterEntry> = self.roster.values().copied().collect();
        self.consensus.handle_roster(&entries);
        self.consensus.handle_clock(now, self.clock.at(now), self.clock.rate_ppb, self.clock.usable);
        self.exchange = Exchange::new(self.key, self.config.regions);
        self.links.begin_life(self.config.incarnation);
        (self.fetching, self.serving) = (None, self.serving.next_life());
        self.placed = View::default();
        self.bearings = Bearings::new(now);
        self.joining = Some(Joining::new(seeds, now));
        self.out.push_back(Out::Reentry);
    }

    pub(super) fn handle_join_timeout(&mut self, now: Instant) {
        self.ask_for_roster(now);
        self.handle_bearings_timeout(now);
        let Some(joining) = &mut self.joining else { return };
        if now < joining.next {
            return;
        }
        joining.next = now.after(JOIN_INTERVAL_NS);
        joining.attempt += 1;
        self.note_headway(now);
        let Some(joining) = &mut self.joining else { return };
        let attempt = joining.attempt;
        let mut view = joining.sponsor;
        let mut targets = joining.seeds.clone();
        let lost = joining.lost;
        if self.consensus.is_started() && (!lost || view.is_none()) {
            view = Some(*self.consensus.view());
        }
        if let Some(view) = &view {
            let known = view.members.iter().filter(|seat| seat.key != self.key);
            targets = known.filter_map(|seat| Some(self.address_of(seat.key)?.sideband.0)).collect();
        }
        if lost {
            let places = self.next_places(PLACES_AT_ONCE);
            targets.extend(places.into_iter().filter(|place| !targets.contains(place)).collect::<Vec<_>>());
        }
        let held = (self.consensus.has_state() && !lost).then(|| self.consensus.version_held().0 + 1);
        let join = Join {
            id: self.config.entry.id,
            incarnation: self.config.incarnation,
            model: self.config.common().digest(),
            sideband: self.config.entry.sideband,
            data: self.config.entry.data,
            hold: held.unwrap_or(0),
            index: self.consensus.index(),
        };
        for target in targets {
            self.out.push_back(Out::Send(To::Address(target), Message::Join(join)));
        }
        // Without a state of use: ask one member after the other for it, a new one every second.
        let started = self.consensus.is_started();
        if let Some(view) = view
            && (!started || (lost && view.number > self.consensus.view().number))
            && attempt % FETCH_EVERY == 1
        {
            let members: Vec<NodeKey> =
                view.members.iter().map(|seat| seat.key).filter(|key| *key != self.key).collect();
            if !members.is_empty() {
                // Each begins with another one.
                let turn = attempt / FETCH_EVERY + self.key.0 as usize % members.len();
                let next = members[turn % members.len()];
                // Where everybody begins again, one has the state.
                let founder = self.founder().filter(|key| members.contains(key));
                self.fetch(now, founder.unwrap_or(next));
            }
        }
    }

    /// Somebody asks to be let in.
    pub(super) fn handle_join(&mut self, now: Instant, address: SocketAddr, join: &Join) {
        let key = join.id.key();
        if key == self.key || join.sideband.0 != address || !self.consensus.is_member() {
            return;
        }
        let common = self.config.common();
        if join.model != common.digest() {
            let refusal = Nack { code: nack::MODEL, ref_type: 11, arg: common.pack(), ..Nack::default() };
            self.out.push_back(Out::Send(To::Address(address), Message::Nack(refusal)));
            return;
        }
        self.note_other_life(join);
        // What a life before had sent may come late. Connections that were closed for it would begin anew at this end alone.
        if self.links.asks_already(now, key, join.incarnation) {
            return;
        }
        let entry = RosterEntry { id: join.id, sideband: join.sideband, data: join.data, weight: 1_000 };
        self.consensus.handle_joiner(now, join);
        let heard = self.consensus.observers().any(|observer| observer == key);
        let seated = |seat: &Seat| (seat.key, seat.incarnation) == (key, join.incarnation);
        if heard {
            self.note_asking(join.incarnation, &entry);
        } else if self.consensus.view().members.iter().any(seated) {
            // It was let in and does not know it; this node may not know where it is.
            self.learn_roster(&[entry]);
            self.fill_gaps(now);
        }
        if join.hold == 0 {
            self.send_roster(address);
            let value = Value::View(*self.consensus.view());
            let index = self.consensus.view_index();
            self.say(now, To::Address(address), Message::Decided { index, value });
        }
        // While another life of it has a seat, this may be an old word of one before that (R19): its links stay.
        let taken = |seat: &Seat| seat.key == key && seat.incarnation != join.incarnation;
        if !heard || self.consensus.view().members.iter().any(taken) {
            return;
        }
        let fresh = self.connect(now, key, join.incarnation);
        self.links.handle_asking(now, key);
        if fresh {
            self.let_go(now); // who asks under ever new names keeps no connection under the old ones
        }
        if fresh || !self.registered.contains(&key) {
            // One that was silent for a while was let go of, and a new life has received nothing.
            self.follow_observers();
            let others: Vec<NodeKey> = self.consensus.observers().filter(|other| *other != key).collect();
            self.exchange.handle_observers(&others);
            self.out.push_back(Out::Observer(key, Some((join.incarnation, address))));
            if !self.registered.contains(&key) {
                self.registered.push(key);
            }
            self.follow_observers();
        }
    }

    /// Who asked with a member's key from elsewhere, in this order.
    #[must_use]
    pub fn namesakes(&self) -> impl ExactSizeIterator<Item = Namesake> {
        self.namesakes.iter().map(|(_, namesake)| *namesake)
    }

    fn note_other_life(&mut self, join: &Join) {
        let key = join.id.key();
        let taken = |seat: &Seat| seat.key == key && seat.incarnation != join.incarnation;
        if !self.consensus.view().members.iter().any(taken) {
            return;
        }
        let Some(seated) = self.address_of(key).map(|entry| entry.sideband.0) else { return };
        let known = self.namesakes.iter().any(|(life, _)| *life == join.incarnation);
        if seated != join.sideband.0 && !known && self.namesakes.len() < NAMESAKES_MAX {
            self.namesakes.push((join.incarnation, Namesake { key, seated, asks: join.sideband.0 }));
        }
    }

    /// The exchange serves whom the agreement knows as observers, and the sideband hears them. Whoever asks no more makes
    /// room there: it hears only so many.
    pub(super) fn follow_observers(&mut self) {
        let observers: Vec<NodeKey> = self.consensus.observers().collect();
        let gone = self.registered.extract_if(.., |key| !observers.contains(key));
        self.out.extend(gone.map(|key| Out::Observer(key, None)));
        self.exchange.handle_observers(&observers);
    }

    /// A member says which view is in force, to one who knows none.
    pub(super) fn handle_sponsor(&mut self, now: Instant, index: LogIndex, value: &Value) {
        let Value::View(view) = value else { return };
        if index < self.floor() {
            return;
        }
        if !view.members.iter().all(|seat| seat.key == self.key || self.roster.contains_key(&seat.key)) {
            return;
        }
        let is_started = self.consensus.is_started();
        let own = is_started.then_some(self.consensus.view().number);
        let Some(joining) = &mut self.joining else { return };
        if joining.sponsor.map(|known| known.number).max(own).is_some_and(|known| known >= view.number) {
            return;
        }
        joining.sponsor = Some(*view);
        self.placed = *view;
        joining.next = now;
        // Views may come faster than states: who was asked goes on, and if nothing comes of it the next one has its turn.
        let goes_on = self.fetching.as_ref().is_some_and(|fetching| view.index_of(fetching.from()).is_some());
        if !goes_on {
            joining.attempt = 0;
        }
        for seat in view.members.iter() {
            self.connect(now, seat.key, seat.incarnation);
        }
        // A lost node stays in the view it knows until the state is there.
        if !is_started {
            self.tell_view(view);
        }
    }

    pub(super) fn handle_nack(&mut self, from: Option<NodeKey>, address: SocketAddr, body: &Nack) {
        if body.code == nack::MODEL && !self.consensus.is_member() && self.is_asked(from, address) {
            let what = self.config.common().compare(body.arg);
            let joining = self.joining.as_mut().filter(|joining| joining.differs.is_none());
            let Some(joining) = joining else { return };
            joining.differs = Some(what);
            self.events.push_back(Event::Differs { peer: from, what });
        }
        if body.code == nack::ROSTER && self.consensus.is_member() {
            self.send_roster(address);
        }
    }

    /// Full ids and addresses of the view in force, 16 to a datagram.
    fn send_roster(&mut self, address: SocketAddr) {
        let view = self.consensus.view();
        let number = view.number;
        let entries: Vec<_> =
            view.members.iter().filter_map(|seat| self.roster.get(&seat.key).copied()).collect();
        for part in entries.chunks(16) {
            let roster = Roster { view: number, entries: Bounded::from_slice(part) };
            self.out.push_back(Out::Send(To::Address(address), Message::Roster(roster)));
        }
    }
}

/// Anybody may ask under any key in plaintext, so no more than this many are told of.
const NAMESAKES_MAX: usize = 8;
const JOIN_INTERVAL_NS: u64 = 100_000_000;
const ROSTER_INTERVAL_NS: u64 = 50_000_000;
/// Places asked at with each JOIN of one who is lost.
const PLACES_AT_ONCE: usize = 8;
/// Every so many JOINs another member is asked for the state.
const FETCH_EVERY: usize = 10;
