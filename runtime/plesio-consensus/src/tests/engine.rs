//! The engine around one machine: units of work, slots, windows, result shards and G, as small as they can be.

use super::checker::{Checker, Place, mass};
use crate::ledger::Admission;
use crate::{Config, Consensus, Event, OwnSlot, SnapshotCut, Start, To};
use plesio_wire::sideband::{Address, Join, Message};
use plesio_wire::value::{Manifest, View};
use plesio_wire::{Digest, Incarnation, Instant, LogIndex, MemberSet, NodeId, NodeKey, SlotSeq, Version};
use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::vec::Vec;

/// What an engine wants the world to carry.
#[derive(Clone, Debug)]
pub(super) enum Out {
    Sideband(To, u32, Box<Message>),
    /// Slot data for one owner; `number` is the sender's view.
    Slot {
        to: NodeKey,
        number: u32,
        admission: Admission,
        seq: SlotSeq,
    },
    Shard {
        to: NodeKey,
        context: LogIndex,
        owner: u16,
    },
    Fetch {
        from: NodeKey,
    },
}

#[derive(Clone, Debug)]
pub(super) struct Slot {
    pub(super) units: Vec<u64>,
    pub(super) admission: Admission,
}

pub(super) struct Engine {
    pub(super) key: NodeKey,
    pub(super) incarnation: Incarnation,
    pub(super) machine: Consensus,
    pub(super) state: i64,
    pub(super) held: Version,
    /// Work not in any slot, and the version it started from.
    pub(super) filling: Vec<u64>,
    pub(super) base: Version,
    pub(super) slots: BTreeMap<SlotSeq, Slot>,
    next_seq: u32,
    /// Slots complete here, in the view in force.
    windows: BTreeSet<(Admission, SlotSeq)>,
    early_slots: Vec<(u32, Admission, SlotSeq)>,
    early_shards: BTreeSet<(LogIndex, u16)>,
    open: Option<(LogIndex, Version, Manifest)>,
    computed: Option<LogIndex>,
    pub(super) lost: u64,
    pub(super) refused: u64,
    pub(super) finals: BTreeSet<u64>,
    pub(super) produced: u64,
    pub(super) excluded: bool,
    pub(super) left: bool,
    pub(super) no_quorum: bool,
    /// Versions whose sum it still gets wrong.
    pub(super) bends: u32,
    is_bent: bool,
    /// It says wrong digests of right states.
    pub(super) lies: bool,
    /// Others that were said to deviate, states given up, and that it stopped.
    pub(super) deviants: Vec<NodeKey>,
    pub(super) resyncs: u32,
    pub(super) stopped: bool,
    pub(super) out: Vec<Out>,
    learnt: LogIndex,
}

fn digest_of(state: i64) -> Digest {
    Digest::of(&state.to_le_bytes())
}

impl Engine {
    pub(super) fn new(
        key: NodeKey,
        incarnation: Incarnation,
        genesis: Option<View>,
        seed: u64,
        now: Instant,
    ) -> Self {
        let config = Config { seed, ..Config::new(key, incarnation) };
        let start = genesis.map_or(Start::Observer, Start::Genesis);
        let mut machine = Consensus::new(config, start, now).unwrap();
        machine.handle_applied(now, Version(0), digest_of(0));
        Self {
            key,
            incarnation,
            machine,
            state: 0,
            held: Version(0),
            filling: Vec::new(),
            base: Version(0),
            slots: BTreeMap::new(),
            next_seq: 0,
            windows: BTreeSet::new(),
            early_slots: Vec::new(),
            early_shards: BTreeSet::new(),
            open: None,
            computed: None,
            lost: 0,
            refused: 0,
            finals: BTreeSet::new(),
            produced: 0,
            excluded: false,
            left: false,
            no_quorum: false,
            bends: 0,
            is_bent: false,
            lies: false,
            deviants: Vec::new(),
            resyncs: 0,
            stopped: false,
            out: Vec::new(),
            learnt: LogIndex(0),
        }
    }

    pub(super) fn admission(&self) -> Option<Admission> {
        let view = self.machine.view();
        let at = self.machine.my_index()?;
        Some(Admission::of(&view.members[usize::from(at)]))
    }

    pub(super) fn step(&mut self, unit: u64) {
        if self.filling.is_empty() {
            self.base = self.held;
        }
        self.filling.push(unit);
        self.produced += 1;
    }

    pub(super) fn cut(&mut self, now: Instant, checker: &mut Checker) {
        if self.filling.is_empty() || self.slots.len() >= 4 || self.excluded || self.left {
            return;
        }
        let Some(admission) = self.admission() else { return };
        let seq = SlotSeq(self.next_seq);
        self.next_seq += 1;
        let units = core::mem::take(&mut self.filling);
        checker.announce(admission, seq, &units);
        let (base, n_steps) = (self.base, units.len() as u32);
        let digest = digest_of(mass(&units));
        self.slots.insert(seq, Slot { units, admission });
        let target = self.machine.frame_at(now).unwrap_or_default();
        self.machine.handle_cut(now, OwnSlot { seq, base, target, n_steps, digest });
        if self.slots.contains_key(&seq) {
            self.send_slot(seq, admission);
            self.arrive(now, admission, seq);
        }
    }

    fn send_slot(&mut self, seq: SlotSeq, admission: Admission) {
        let view = *self.machine.view();
        for seat in view.members.iter().filter(|seat| seat.key != self.key) {
            self.out.push(Out::Slot { to: seat.key, number: view.number, admission, seq });
        }
    }

    pub(super) fn handle_slot(&mut self, now: Instant, number: u32, admission: Admission, seq: SlotSeq) {
        match number.cmp(&self.machine.view().number) {
            core::cmp::Ordering::Equal => self.arrive(now, admission, seq),
            core::cmp::Ordering::Greater => self.early_slots.push((number, admission, seq)),
            core::cmp::Ordering::Less => {}
        }
    }

    fn arrive(&mut self, now: Instant, admission: Admission, seq: SlotSeq) {
        let view = self.machine.view();
        let seated = view
            .index_of(admission.key)
            .is_some_and(|at| Admission::of(&view.members[usize::from(at)]) == admission);
        if seated && self.machine.is_member() {
            self.windows.insert((admission, seq));
            self.machine.handle_held(now, admission.key, seq, 1_000);
            self.compute(now);
        }
    }

    pub(super) fn handle_shard(&mut self, now: Instant, context: LogIndex, owner: u16) {
        self.early_shards.insert((context, owner));
        self.machine.handle_shard(now, context, owner);
    }

    /// An owner sums its range once per context, when all slots are here.
    fn compute(&mut self, now: Instant) {
        let Some((context, _, manifest)) = self.open else { return };
        let Some(me) = self.machine.my_index() else { return };
        if self.computed == Some(context) {
            return;
        }
        let view = *self.machine.view();
        let all = manifest.entries.iter().all(|entry| {
            let admission = Admission::of(&view.members[usize::from(entry.member)]);
            self.windows.contains(&(admission, SlotSeq(entry.slot_seq)))
        });
        if all {
            self.computed = Some(context);
            let members = view.members.iter().map(|seat| seat.key).filter(|key| *key != self.key);
            let observers: Vec<NodeKey> = self.machine.observers().collect();
            for to in members.chain(observers) {
                self.out.push(Out::Shard { to, context, owner: me });
            }
            self.handle_shard(now, context, me);
        }
    }

    pub(super) fn handle_snapshot(&mut self, now: Instant, bytes: &[u8], state: i64, checker: &Checker) {
        let cut = SnapshotCut::decode(bytes).unwrap();
        assert_eq!(state, checker.state(cut.version), "A3: a snapshot of other bits");
        match self.machine.handle_snapshot(now, &cut) {
            Ok(installed) => {
                self.state = state;
                self.is_bent = false;
                self.held = cut.version;
                if installed == crate::Installed::Cut {
                    self.open = None;
                    self.learnt = self.machine.index();
                }
            }
            Err(_) => self.refused += 1,
        }
    }

    pub(super) fn snapshot(&self) -> Option<(Vec<u8>, i64)> {
        self.machine.snapshot().map(|cut| {
            assert_eq!(cut.version, self.held);
            assert!(cut.encode().len() <= crate::SNAPSHOT_CUT_BYTES_MAX);
            (cut.encode(), self.state)
        })
    }

    /// Acts on events until there is none, then collects what is to be sent.
    pub(super) fn drain(&mut self, now: Instant, checker: &mut Checker) {
        loop {
            self.report(checker);
            match self.machine.poll_event() {
                Some(event) => self.act(now, event, checker),
                None => break,
            }
        }
        while let Some((to, message)) = self.machine.poll_transmit() {
            if let Message::Seal(accept) = &message {
                // A7: whoever accepts SEAL holds every shard of that context.
                let context = LogIndex(accept.index.0 - 1);
                let holds_all =
                    self.members().iter().all(|owner| self.early_shards.contains(&(context, owner)));
                let is_newest = self.open.is_none_or(|(open, ..)| open <= context);
                assert!(holds_all || !is_newest, "A7: SEAL accepted without possession");
            }
            let message = match message {
                Message::Shard(shard) if self.lies => {
                    Message::Shard(plesio_wire::sideband::Shard { digest: Digest::of(b"a lie"), ..shard })
                }
                message => message,
            };
            self.out.push(Out::Sideband(to, self.machine.view().number, Box::new(message)));
        }
    }

    fn report(&mut self, checker: &mut Checker) {
        for (index, value) in &self.machine.tail {
            if *index >= self.learnt {
                checker.learn(*index, value);
            }
        }
        self.learnt = self.machine.index();
    }

    fn act(&mut self, now: Instant, event: Event, checker: &mut Checker) {
        if std::env::var_os("PLESIO_CONSENSUS_TRACE").is_some() {
            std::eprintln!("{:>9.3} ms {:?} {event:?}", now.0 as f64 / 1e6, self.key.0);
        }
        match event {
            Event::Open { context, version, manifest } | Event::Reopen { context, version, manifest, .. } => {
                self.open = Some((context, version, manifest));
                let early: Vec<u16> = self
                    .early_shards
                    .iter()
                    .filter(|(at, _)| *at == context)
                    .map(|(_, owner)| *owner)
                    .collect();
                for owner in early {
                    self.machine.handle_shard(now, context, owner);
                }
                self.early_shards.retain(|(at, _)| *at >= context);
                self.compute(now);
            }
            Event::Serve { to, context, shards } => {
                for owner in shards.iter() {
                    self.out.push(Out::Shard { to, context, owner });
                }
            }
            Event::Sealed { version, complete: true, .. } => self.apply(now, version, checker),
            Event::Fetch { from, .. } => self.out.push(Out::Fetch { from }),
            Event::View { view, .. } => {
                assert_eq!(view, *self.machine.view(), "the view runs ahead of its events");
                self.windows.clear();
                self.open = None;
                if self.machine.is_member() {
                    self.excluded = false;
                    let own: Vec<(OwnSlot, bool)> = self.machine.own_slots().collect();
                    for (slot, _) in own {
                        let admission = self.slots[&slot.seq].admission;
                        self.send_slot(slot.seq, admission);
                        self.arrive(now, admission, slot.seq);
                    }
                }
                let early = core::mem::take(&mut self.early_slots);
                for (number, admission, seq) in early {
                    if number >= view.number {
                        self.handle_slot(now, number, admission, seq);
                    }
                }
            }
            Event::Release { seq, part } => {
                assert!(part.is_whole(), "nothing is discounted here");
                let slot = self.slots.remove(&seq).expect("R22: released twice");
                for unit in slot.units {
                    let place = checker.place(unit);
                    assert_eq!(place, Some(Place::Final(slot.admission, seq)), "R22: released before final");
                    assert!(self.finals.insert(unit));
                }
            }
            Event::Fold { seq, .. } => {
                let slot = self.slots.remove(&seq).expect("R23: folded twice");
                for unit in &slot.units {
                    assert_eq!(checker.place(*unit), None, "R23: folded though listed");
                }
                checker.folds.insert((slot.admission, seq));
                self.filling.extend(slot.units);
                self.base = self.held;
            }
            Event::Lost { seq } => {
                self.lost += self.slots.remove(&seq).expect("R24: lost twice").units.len() as u64;
            }
            Event::Excluded { .. } => self.excluded = true,
            Event::Left => self.left = true,
            Event::NoQuorum { .. } => self.no_quorum = true,
            Event::Quorum => self.no_quorum = false,
            Event::Diverged { peer, .. } => self.deviants.push(peer),
            Event::Resync { .. } => {
                assert!(self.is_bent, "A3: an honest state is given up");
                self.resyncs += 1;
            }
            Event::Stopped { .. } => self.stopped = true,
            _ => {}
        }
    }

    fn apply(&mut self, now: Instant, version: Version, checker: &Checker) {
        let (_, open_version, manifest) = self.open.take().expect("sealed what was not open");
        assert_eq!((open_version, self.held.next()), (version, version), "A3: applied out of order");
        let view = *self.machine.view();
        for entry in manifest.entries.iter() {
            let admission = Admission::of(&view.members[usize::from(entry.member)]);
            let units = checker.units(admission, SlotSeq(entry.slot_seq)).unwrap();
            self.state += i64::from(entry.weight) * mass(units);
        }
        if self.bends > 0 {
            self.bends -= 1;
            self.is_bent = true;
            self.state ^= 1 << 40;
        }
        let is_right = self.state == checker.state(version);
        assert!(is_right || self.is_bent, "A3: {:?} computed other bits", self.key);
        self.held = version;
        self.machine.handle_applied(now, version, digest_of(self.state));
    }

    pub(super) fn join(&self) -> Join {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.key.0.to_le_bytes());
        let hold = if self.machine.is_started() { self.held.0 + 1 } else { 0 };
        let index = self.machine.index();
        let sideband = Address(SocketAddr::from(([10, 0, 0, self.key.0 as u8], 47_701)));
        Join { id: NodeId(id), incarnation: self.incarnation, sideband, hold, index, ..Join::default() }
    }

    /// A4: every unit this process made is final, held in one slot, in the filling, or counted as lost.
    pub(super) fn check_mass(&self, checker: &Checker) {
        let in_slots: usize = self.slots.values().map(|slot| slot.units.len()).sum();
        let total = (in_slots + self.filling.len() + self.finals.len()) as u64 + self.lost;
        assert_eq!(total, self.produced, "A4: mass of {:?}", self.key);
        for unit in &self.filling {
            assert_eq!(checker.place(*unit), None, "A4: a unit is held and listed");
        }
    }

    pub(super) fn members(&self) -> MemberSet {
        MemberSet::first(self.machine.view().members.len())
    }
}
