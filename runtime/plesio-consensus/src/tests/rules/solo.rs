//! One machine fed by hand: what it hears, what it says, and when.

use crate::tests::cluster::{MS, genesis};
use crate::{Config, Consensus, Event, OwnSlot, Start, To};
use plesio_wire::sideband::{Accept, Have, HaveEntry, Message, Propose, Ready};
use plesio_wire::value::{Entry, Manifest, Seat, Value, View};
use plesio_wire::{
    Ballot, Bounded, Digest, Frame, Incarnation, Instant, LogIndex, MeshTime, NodeKey, SlotSeq, Version,
};
use std::vec::Vec;

/// Members 10, 11, 12 at 0, 1, 2. Frame k belongs to member k mod 3.
pub(in crate::tests) struct Solo {
    pub(in crate::tests) machine: Consensus,
    pub(in crate::tests) now: Instant,
    pub(in crate::tests) sent: Vec<(To, Message)>,
    pub(in crate::tests) events: Vec<Event>,
}

pub(in crate::tests) fn ballot(frame: u64, term: u32) -> Ballot {
    Ballot { frame: Frame(frame), term }
}

pub(in crate::tests) fn entry(member: u16, seq: u32) -> Entry {
    // Mode mass, three members: 2^24 / 3 and the one unit left over to the lowest.
    let weight = if member == 0 { 5_592_406 } else { 5_592_405 };
    Entry { member, slot_seq: seq, n_steps: 1, weight, ..Entry::default() }
}

impl Solo {
    pub(in crate::tests) fn new(key: u64) -> Self {
        Self::with(key, Start::Genesis(genesis(3)))
    }

    pub(in crate::tests) fn with(key: u64, start: Start) -> Self {
        Self::timed(key, start, true)
    }

    /// `has_clock`: whether the mesh clock is known here.
    pub(in crate::tests) fn timed(key: u64, start: Start, has_clock: bool) -> Self {
        let config = Config::new(NodeKey(key), Incarnation(90 + key));
        let machine = Consensus::new(config, start, Instant(0)).unwrap();
        let mut solo = Self { machine, now: Instant(0), sent: Vec::new(), events: Vec::new() };
        solo.machine.handle_clock(Instant(0), MeshTime(0), 0, has_clock);
        solo.machine.handle_applied(Instant(0), Version(0), Digest::of(b"0"));
        solo.drain();
        solo
    }

    pub(in crate::tests) fn drain(&mut self) {
        while let Some(event) = self.machine.poll_event() {
            self.events.push(event);
        }
        while let Some(sent) = self.machine.poll_transmit() {
            self.sent.push(sent);
        }
    }

    /// Lets time pass, waking the machine whenever it asks.
    pub(in crate::tests) fn until(&mut self, ms: u64) {
        let end = Instant(ms * MS);
        while let Some(at) = self.machine.poll_timeout().filter(|at| *at <= end) {
            self.now = at.max(self.now);
            self.machine.handle_timeout(self.now);
            self.drain();
        }
        self.now = end;
        self.machine.handle_timeout(end);
        self.drain();
    }

    pub(in crate::tests) fn hear(&mut self, from: u64, message: Message) {
        let number = self.machine.view().number;
        self.machine.handle_message(self.now, NodeKey(from), number, &message);
        self.drain();
    }

    pub(in crate::tests) fn forget(&mut self) {
        self.sent.clear();
        self.events.clear();
    }

    /// Whether a HAVE was sent to that member.
    pub(in crate::tests) fn has_told(&self, key: u64) -> bool {
        let is_have = |(to, message): &(To, Message)| {
            *to == To::One(NodeKey(key)) && matches!(message, Message::Have(_))
        };
        self.sent.iter().any(is_have)
    }

    pub(in crate::tests) fn took<T>(&mut self, pick: impl Fn(&To, &Message) -> Option<T>) -> Vec<T> {
        let found = self.sent.iter().filter_map(|(to, message)| pick(to, message)).collect();
        self.sent.clear();
        found
    }

    pub(in crate::tests) fn accepts(&mut self) -> Vec<(Ballot, Digest)> {
        self.took(|_, message| match message {
            Message::Accept(accept) => {
                Some((Ballot { frame: accept.frame, term: accept.term }, accept.digest))
            }
            _ => None,
        })
    }

    pub(in crate::tests) fn seals(&mut self) -> Vec<Ballot> {
        self.took(|_, message| match message {
            Message::Seal(accept) => Some(Ballot { frame: accept.frame, term: accept.term }),
            _ => None,
        })
    }

    pub(in crate::tests) fn proposals(&mut self) -> Vec<(Ballot, Value)> {
        self.took(|_, message| match message {
            Message::Propose(propose) => Some((propose.ballot, Value::Manifest(propose.manifest))),
            Message::Epoch(epoch) => Some((epoch.ballot, Value::View(epoch.view))),
            _ => None,
        })
    }

    pub(in crate::tests) fn queries(&mut self) -> Vec<Ballot> {
        self.took(|_, message| match message {
            Message::Query(query) if query.frame.0 > 0 => {
                Some(Ballot { frame: query.frame, term: query.term })
            }
            _ => None,
        })
    }

    pub(in crate::tests) fn manifest(&self, origin: u64, entries: &[Entry]) -> Manifest {
        Manifest {
            origin: Frame(origin),
            close: 1,
            period_next_us: 250_000,
            view: self.machine.view().digest(),
            entries: Bounded::from_slice(entries),
        }
    }

    pub(in crate::tests) fn propose(&mut self, from: u64, at: Ballot, manifest: Manifest) {
        let index = self.machine.index();
        self.hear(from, Message::Propose(Propose { index, ballot: at, manifest }));
    }

    pub(in crate::tests) fn decide(&mut self, value: Value) {
        let index = self.machine.index();
        self.hear(
            10 + (self.machine.my_index().unwrap_or(0) as u64 + 1) % 3,
            Message::Decided { index, value },
        );
        assert_eq!(self.machine.index(), index.next(), "{value:?} was not learnt");
    }

    pub(in crate::tests) fn seal_vote(&mut self, from: u64, at: Ballot) {
        let index = self.machine.index();
        let digest = self.seal().digest();
        let accept = Accept { frame: at.frame, index, term: at.term, digest, ..Accept::default() };
        self.hear(from, Message::Seal(accept));
    }

    pub(in crate::tests) fn seal(&self) -> Value {
        Value::Seal(self.machine.log.origin)
    }

    pub(in crate::tests) fn shards(&mut self, owners: &[u16]) {
        let context = LogIndex(self.machine.index().0 - 1);
        for owner in owners {
            self.machine.handle_shard(self.now, context, *owner);
        }
        self.drain();
    }

    pub(in crate::tests) fn apply(&mut self, version: u64) {
        self.machine.handle_applied(self.now, Version(version), Digest::of(&version.to_le_bytes()));
        self.drain();
    }

    pub(in crate::tests) fn cut(&mut self, seq: u32, base: u64) {
        let digest = Digest::default();
        let slot = OwnSlot { seq: SlotSeq(seq), base: Version(base), target: Frame(1), n_steps: 1, digest };
        self.machine.handle_cut(self.now, slot);
        self.drain();
    }

    /// `member`'s slot is ready, and all owners but this one say that they have it.
    pub(in crate::tests) fn offer(&mut self, member: u16, seq: u32) {
        let ready = Ready { slot_seq: u64::from(seq), n_steps: 1, ..Ready::default() };
        let me = self.machine.my_index().unwrap();
        if member != me {
            self.hear(10 + u64::from(member), Message::Ready(ready));
        }
        let held = HaveEntry { member, slot_seq: seq, sumsq: 5, ..HaveEntry::default() };
        let have = Have { frame: Frame(1), entries: Bounded::from_slice(&[held]) };
        for owner in (0..self.machine.view().members.len() as u16).filter(|owner| *owner != me) {
            self.hear(10 + u64::from(owner), Message::Have(have));
        }
        self.machine.handle_held(self.now, NodeKey(10 + u64::from(member)), SlotSeq(seq), 5);
        self.drain();
    }

    pub(in crate::tests) fn without(&self, key: u64, origin: u64) -> View {
        let view = *self.machine.view();
        let seats: Vec<Seat> = view.members.iter().filter(|seat| seat.key.0 != key).copied().collect();
        View {
            number: view.number + 1,
            previous: view.digest(),
            origin: Frame(origin),
            effective: Frame(origin + 1),
            members: Bounded::from_slice(&seats),
            ..view
        }
    }
}
