//! The world: an event queue, links, a failure detector, and processes that come and go.

use super::Rng;
use super::checker::Checker;
use super::engine::{Engine, Out};
use crate::To;
use crate::ledger::Admission;
use plesio_wire::sideband::{Join, Message};
use plesio_wire::value::{Seat, View};
use plesio_wire::{Bounded, Frame, Incarnation, Instant, LogIndex, MeshTime, NodeKey, SlotSeq, Version};
use std::boxed::Box;
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

pub(super) const MS: u64 = 1_000_000;
pub(super) const PERIOD_US: u32 = 250_000;

#[derive(Clone, Debug)]
enum What {
    Message {
        from: NodeKey,
        number: u32,
        message: Box<Message>,
    },
    Slot {
        number: u32,
        admission: Admission,
        seq: SlotSeq,
    },
    Shard {
        context: LogIndex,
        owner: u16,
    },
    FetchRequest {
        by: NodeKey,
    },
    Snapshot {
        bytes: Vec<u8>,
        state: i64,
    },
    Beat {
        from: NodeKey,
        version: Version,
        index: LogIndex,
        suspects: Vec<NodeKey>,
    },
    Join {
        join: Join,
    },
    /// Its own: timer, step, cut, housekeeping.
    Wake,
    Step,
    Cut,
    Tick,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Links {
    pub(super) loss: u64,
    pub(super) duplicate: u64,
    pub(super) delay_ms: u64,
    pub(super) data_ms: u64,
}

pub(super) struct Process {
    pub(super) engine: Engine,
    pub(super) paused_until: u64,
    rate_ppb: i64,
    offset_ns: i64,
    heard: BTreeMap<NodeKey, u64>,
    accused: BTreeMap<NodeKey, Vec<NodeKey>>,
    pub(super) blamed: BTreeSet<NodeKey>,
    fetched_at: u64,
    wake_at: u64,
    step_ms: u64,
    lead_ms: u64,
    /// It beats and votes, but its data never leaves it.
    pub(super) is_mute: bool,
}

pub(super) struct Cluster {
    pub(super) now: u64,
    queue: BTreeMap<(u64, u64), (NodeKey, What)>,
    sequence: u64,
    pub(super) rng: Rng,
    pub(super) links: Links,
    pub(super) live: BTreeMap<NodeKey, Process>,
    /// Pairs that do not hear each other.
    pub(super) cuts: BTreeSet<(NodeKey, NodeKey)>,
    pub(super) checker: Checker,
    /// Somebody was told to deviate.
    pub(super) has_deviants: bool,
    units: u64,
    incarnations: u64,
    /// Bounds work and finds storms.
    pub(super) messages: u64,
}

pub(super) fn genesis(members: u64) -> View {
    let seats: Vec<Seat> = (0..members)
        .map(|at| Seat { key: NodeKey(10 + at), incarnation: Incarnation(100 + at), admitted: LogIndex(0) })
        .collect();
    View { period_us: PERIOD_US, elements: 64, members: Bounded::from_slice(&seats), ..View::default() }
}

impl Cluster {
    pub(super) fn new(members: u64, seed: u64, links: Links) -> Self {
        let view = genesis(members);
        let mut cluster = Self {
            now: 0,
            queue: BTreeMap::new(),
            sequence: 0,
            rng: Rng::new(seed + 1),
            links,
            live: BTreeMap::new(),
            cuts: BTreeSet::new(),
            checker: Checker::new(view, 4),
            has_deviants: false,
            units: 0,
            incarnations: 1_000,
            messages: 0,
        };
        for seat in view.members.iter() {
            cluster.start(seat.key, seat.incarnation, Some(view));
        }
        cluster
    }

    fn start(&mut self, key: NodeKey, incarnation: Incarnation, genesis: Option<View>) {
        let seed = self.rng.next();
        let engine = Engine::new(key, incarnation, genesis, seed, Instant(self.now));
        let process = Process {
            engine,
            paused_until: 0,
            rate_ppb: self.rng.below(400_000) as i64 - 200_000,
            offset_ns: (self.rng.below(10) * MS) as i64 - 5 * MS as i64,
            heard: BTreeMap::new(),
            accused: BTreeMap::new(),
            blamed: BTreeSet::new(),
            fetched_at: 0,
            wake_at: 0,
            step_ms: 20 + self.rng.below(200),
            lead_ms: 30 + self.rng.below(60),
            is_mute: false,
        };
        self.live.insert(key, process);
        for what in [What::Tick, What::Step, What::Cut, What::Wake] {
            self.push(self.now + 1, key, what);
        }
    }

    /// A new process for `key`: a joiner, or the next life of a member.
    pub(super) fn join(&mut self, key: NodeKey) {
        self.incarnations += 1;
        self.start(key, Incarnation(self.incarnations), None);
    }

    pub(super) fn crash(&mut self, key: NodeKey) {
        self.live.remove(&key);
        // What it had scheduled for itself dies with it; its messages may still be under way.
        self.queue.retain(|_, (to, what)| {
            *to != key || !matches!(what, What::Wake | What::Step | What::Cut | What::Tick)
        });
    }

    pub(super) fn pause(&mut self, key: NodeKey, until: u64) {
        if let Some(process) = self.live.get_mut(&key) {
            process.paused_until = until;
        }
    }

    fn push(&mut self, at: u64, to: NodeKey, what: What) {
        self.sequence += 1;
        self.queue.insert((at, self.sequence), (to, what));
    }

    fn is_cut(&self, a: NodeKey, b: NodeKey) -> bool {
        self.cuts.contains(&(a, b)) || self.cuts.contains(&(b, a))
    }

    fn sideband(&mut self, from: NodeKey, to: NodeKey, what: What) {
        self.messages += 1;
        let copies = 1 + u64::from(self.rng.chance(self.links.duplicate));
        for _ in 0..copies {
            if self.is_cut(from, to) || self.rng.chance(self.links.loss) {
                continue;
            }
            // Now and then a datagram turns up very late.
            let late_ns = if self.rng.below(500) == 0 { self.rng.below(3_000) * MS } else { 0 };
            let delay_ns = MS / 5 + self.rng.below(self.links.delay_ms * MS) + late_ns;
            self.push(self.now + delay_ns, to, what.clone());
        }
    }

    /// The data plane repairs losses itself: only late, never lost, while both ends live.
    fn data(&mut self, from: NodeKey, to: NodeKey, what: What) {
        let is_payload = matches!(what, What::Slot { .. } | What::Shard { .. });
        if is_payload && self.live.get(&from).is_some_and(|process| process.is_mute) {
            return;
        }
        let delay_ns = MS / 2 + self.rng.below(self.links.data_ms * MS);
        if self.is_cut(from, to) {
            self.push(self.now + 3_000 * MS, to, what);
        } else {
            self.push(self.now + delay_ns, to, what);
        }
    }

    pub(super) fn run_until(&mut self, end: u64) {
        while let Some(((at, _), _)) = self.queue.first_key_value() {
            if *at > end {
                break;
            }
            let ((at, _), (to, what)) = self.queue.pop_first().unwrap();
            self.now = at;
            self.deliver(to, what);
        }
        self.now = end;
    }

    fn deliver(&mut self, to: NodeKey, what: What) {
        let now = Instant(self.now);
        let Some(process) = self.live.get_mut(&to) else { return };
        if process.paused_until > self.now {
            let until = process.paused_until;
            // Sideband queues are short: most of what came meanwhile is gone.
            let keep = !matches!(what, What::Message { .. } | What::Beat { .. }) || self.rng.chance(20);
            if keep {
                self.push(until, to, what);
            }
            return;
        }
        let engine = &mut process.engine;
        match what {
            What::Message { from, number, message } => {
                engine.machine.handle_message(now, from, number, &message)
            }
            What::Slot { number, admission, seq } => engine.handle_slot(now, number, admission, seq),
            What::Shard { context, owner } => engine.handle_shard(now, context, owner),
            What::Snapshot { bytes, state } => engine.handle_snapshot(now, &bytes, state, &self.checker),
            What::Join { join } => engine.machine.handle_joiner(now, &join),
            What::FetchRequest { by } => {
                if let Some((bytes, state)) = engine.snapshot() {
                    self.data(to, by, What::Snapshot { bytes, state });
                }
                return;
            }
            What::Beat { from, version, index, suspects } => {
                process.heard.insert(from, self.now);
                process.accused.insert(from, suspects);
                process.engine.machine.handle_hold(now, from, version, Some(index));
            }
            What::Wake => engine.machine.handle_timeout(now),
            What::Step => {
                self.units += 1;
                engine.step(self.units);
                let at = self.now + process.step_ms * MS;
                self.push(at, to, What::Step);
            }
            What::Cut => {
                engine.cut(now, &mut self.checker);
                let frame = engine.machine.frame_at(now).unwrap_or(Frame(1));
                let lead_ns = process.lead_ms * MS;
                let close = (0..3).filter_map(|k| engine.machine.close_local(Frame(frame.0 + k)));
                let next = close.map(|at| at.0.saturating_sub(lead_ns)).find(|at| *at > self.now);
                self.push(next.unwrap_or(self.now + 50 * MS), to, What::Cut);
            }
            What::Tick => self.tick(to),
        }
        self.settle(to);
    }

    /// Every 100 ms: clock, beats, verdicts, JOIN.
    fn tick(&mut self, key: NodeKey) {
        self.push(self.now + 100 * MS, key, What::Tick);
        let now = Instant(self.now);
        let process = self.live.get_mut(&key).unwrap();
        let machine = &mut process.engine.machine;
        let mesh = self.now as i64
            + process.offset_ns
            + self.now as i64 / 1_000_000_000 * process.rate_ppb % MS as i64;
        machine.handle_clock(now, MeshTime(mesh), process.rate_ppb as i32, true);
        let view = *machine.view();
        if view.members.is_empty() {
            // A joiner that knows nothing asks whoever lives.
            if self.now >= process.fetched_at + 700 * MS {
                process.fetched_at = self.now;
                let known: Vec<NodeKey> = self.live.keys().copied().filter(|other| *other != key).collect();
                if !known.is_empty() {
                    let from = known[self.rng.below(known.len() as u64) as usize];
                    self.data(key, from, What::FetchRequest { by: key });
                }
            }
        }
        let process = self.live.get_mut(&key).unwrap();
        let is_member = process.engine.machine.is_member();
        let mut suspects = Vec::new();
        let mut dead: Vec<NodeKey> = process.blamed.iter().copied().collect();
        for seat in view.members.iter().filter(|seat| seat.key != key) {
            let heard = *process.heard.entry(seat.key).or_insert(self.now);
            if self.now - heard > 500 * MS {
                suspects.push(seat.key);
            }
            let agree = process.accused.values().filter(|accused| accused.contains(&seat.key)).count() + 1;
            if self.now - heard > 1_000 * MS && (2 * agree > view.members.len() || view.members.len() == 2) {
                dead.push(seat.key);
            }
        }
        let machine = &mut process.engine.machine;
        machine.handle_suspects(now, &suspects, &dead);
        let (version, index) = (machine.version_held(), machine.index());
        let join = process.engine.join();
        // Who leaves does not ask to be let in, as no node does.
        let asks = !is_member && !process.engine.machine.is_leaving_by_hand();
        let targets: Vec<NodeKey> = if view.members.is_empty() {
            self.live.keys().copied().collect()
        } else {
            view.members.iter().map(|seat| seat.key).collect()
        };
        for to in targets.into_iter().filter(|to| *to != key) {
            if is_member {
                let suspects = suspects.clone();
                self.sideband(key, to, What::Beat { from: key, version, index, suspects });
            } else if asks {
                self.sideband(key, to, What::Join { join });
            }
        }
    }

    fn settle(&mut self, key: NodeKey) {
        let now = Instant(self.now);
        let Some(process) = self.live.get_mut(&key) else { return };
        process.engine.drain(now, &mut self.checker);
        let out = core::mem::take(&mut process.engine.out);
        let view = *process.engine.machine.view();
        let observers: Vec<NodeKey> = process.engine.machine.observers().collect();
        let wake = process.engine.machine.poll_timeout().map(|at| at.0.max(self.now));
        if let Some(at) = wake
            && (process.wake_at <= self.now || at < process.wake_at)
        {
            process.wake_at = at;
            self.push(at, key, What::Wake);
        }
        for out in out {
            match out {
                Out::Sideband(to, number, message) => {
                    let members = view.members.iter().map(|seat| seat.key).filter(|to| *to != key);
                    let to: Vec<NodeKey> = match to {
                        To::All => members.collect(),
                        To::AllAndObservers => members.chain(observers.iter().copied()).collect(),
                        To::One(to) => [to].to_vec(),
                    };
                    for to in to {
                        self.sideband(key, to, What::Message { from: key, number, message: message.clone() });
                    }
                }
                Out::Slot { to, number, admission, seq } => {
                    self.data(key, to, What::Slot { number, admission, seq });
                }
                Out::Shard { to, context, owner } => self.data(key, to, What::Shard { context, owner }),
                Out::Fetch { from } => self.data(key, from, What::FetchRequest { by: key }),
            }
        }
    }

    // ---- judgement

    pub(super) fn check_mass(&self) {
        for (key, process) in &self.live {
            let deviants = &process.engine.deviants;
            assert!(deviants.is_empty() || self.has_deviants, "A3: {key:?} says that {deviants:?} deviate");
            process.engine.check_mass(&self.checker);
        }
    }

    /// Members of the newest decided view that live and know they are in it.
    pub(super) fn seated(&self) -> usize {
        let view = self.checker.view();
        let of = |seat: &&Seat| {
            self.live.get(&seat.key).is_some_and(|process| {
                process.engine.incarnation == seat.incarnation && process.engine.machine.is_member()
            })
        };
        view.members.iter().filter(of).count()
    }

    /// Waits until every live process is a member and a new version has been applied by all of them.
    pub(super) fn await_health(&mut self, seed: u64, within: u64) -> u64 {
        let start = self.now;
        let mut goal = None;
        while self.now < start + within {
            self.run_until(self.now + 50 * MS);
            let whole =
                self.seated() == self.live.len() && self.checker.view().members.len() == self.live.len();
            if !whole {
                goal = None;
                continue;
            }
            let goal = *goal.get_or_insert(Version(self.checker.version().0 + 2));
            if self.live.values().all(|process| process.engine.held >= goal) {
                return self.now - start;
            }
        }
        for (key, process) in &self.live {
            let machine = &process.engine.machine;
            std::eprintln!(
                "{key:?} d {:?} final {:?} held {:?} member {} open {:?} members {:?}",
                machine.index(),
                machine.version_final(),
                process.engine.held,
                machine.is_member(),
                machine.open().map(|open| (open.context, open.shards)),
                process.engine.members(),
            );
        }
        panic!("A6: seed {seed}: not healthy {} ms after the faults stopped", within / MS);
    }
}
