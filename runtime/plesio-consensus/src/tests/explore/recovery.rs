//! One fair run from any state: the dead stay dead, what was on its way is lost, everybody else hears everything, and
//! the lowest member leads. It must get to where no version is open, nobody dead is a member, everybody who lives is
//! one, and every unit of theirs is final (A4 to A6).

use super::fact::Fact;
use super::local::{Local, has_quorum};
use super::store::{FactId, LocalId, Mind, Mixed, Move, Store, key_of};
use super::world::IDS_MAX;
use plesio_wire::value::View;
use plesio_wire::{Ballot, Incarnation, LogIndex, NodeKey};
use std::boxed::Box;
use std::collections::{HashMap, HashSet, VecDeque};
use std::format;
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

/// Rounds after which a run is stuck; each has a leader, a ballot and everything that follows.
const ROUNDS_MAX: u32 = 40;
const DELIVERIES_MAX: usize = 20_000;

/// No local state: who is in this place is dead.
const DEAD: LocalId = LocalId::MAX;

pub(super) struct Recovery {
    crashes: usize,
    /// Members that live, by their local states, from whom a run got to its goal.
    done: HashSet<[LocalId; IDS_MAX], Mixed>,
    /// Who stands where, by the numbers of the search.
    standings: HashMap<LocalId, Rc<Standing>, Mixed>,
    store: Store,
    words: HashMap<LocalId, Rc<Words>, Mixed>,
    runs: usize,
}

/// What the condition of A6 asks of a member.
struct Standing {
    life: (NodeKey, Incarnation),
    is_started: bool,
    has_left: bool,
    view: LogIndex,
    /// In force, or accepted.
    views: Vec<View>,
    /// Its number in the runs.
    local: LocalId,
}

/// What a member tells when it is asked for everything.
struct Words {
    decided: Vec<FactId>,
    snapshot: Option<FactId>,
    offers: Vec<FactId>,
    shards: Vec<FactId>,
    progress: FactId,
}

impl Recovery {
    pub(super) fn new(crashes: usize) -> Self {
        Self {
            crashes,
            done: HashSet::default(),
            standings: HashMap::default(),
            store: Store::default(),
            words: HashMap::default(),
            runs: 0,
        }
    }

    pub(super) const fn runs(&self) -> usize {
        self.runs
    }

    /// Crashes every set of members that may crash and runs on with the rest.
    pub(super) fn judge(&mut self, store: &Store, locals: &[LocalId]) -> Result<(), String> {
        for dead in 0u32..1 << locals.len() {
            if dead.count_ones() as usize > self.crashes {
                continue;
            }
            let mut live = [DEAD; IDS_MAX];
            for (at, local) in locals.iter().enumerate().filter(|(at, _)| dead & 1 << at == 0) {
                live[at] = *local;
            }
            if self.done.contains(&live) {
                continue;
            }
            let all: Vec<Rc<Standing>> = locals.iter().map(|local| self.standing(store, *local)).collect();
            let standings = (0..all.len()).filter(|at| dead & 1 << at == 0).map(|at| &*all[at]);
            let standings: Vec<&Standing> = standings.collect();
            if !may_go_on(&all, &standings) {
                continue;
            }
            self.done.insert(live);
            self.runs += 1;
            // Who has left did so by the rules: it counts as living, and does nothing any more.
            let there: Vec<&&Standing> = standings.iter().filter(|standing| !standing.has_left).collect();
            let locals = there.iter().map(|standing| standing.local).collect();
            let keys: Vec<u64> = there.iter().map(|standing| standing.life.0.0).collect();
            let mut run =
                Run { store: &mut self.store, words: &mut self.words, locals, queue: VecDeque::new() };
            run.finish().map_err(|what| format!("{what}, when only {keys:?} live on"))?;
        }
        Ok(())
    }

    fn standing(&mut self, store: &Store, id: LocalId) -> Rc<Standing> {
        if let Some(standing) = self.standings.get(&id) {
            return Rc::clone(standing);
        }
        let local = store.local(id);
        let standing = Rc::new(Standing {
            life: (local.key, local.life),
            is_started: local.machine.is_started(),
            has_left: local.has_left,
            view: local.machine.view_index(),
            views: local.views(),
            local: self.store.insert_local(local.clone()),
        });
        self.standings.insert(id, Rc::clone(&standing));
        standing
    }
}

/// A6 speaks of what happens while a quorum of each view that is in force somewhere, or accepted, lives.
fn may_go_on(all: &[Rc<Standing>], live: &[&Standing]) -> bool {
    let lives: Vec<(NodeKey, Incarnation)> = live.iter().map(|standing| standing.life).collect();
    let newest = all.iter().map(|standing| standing.view).max().unwrap_or_default();
    let matters = |standing: &&Rc<Standing>| {
        standing.is_started && (standing.view == newest || lives.contains(&standing.life))
    };
    all.iter().filter(matters).flat_map(|standing| &standing.views).all(|view| has_quorum(view, &lives))
}

struct Run<'a> {
    store: &'a mut Store,
    words: &'a mut HashMap<LocalId, Rc<Words>, Mixed>,
    locals: Vec<LocalId>,
    queue: VecDeque<FactId>,
}

impl Run<'_> {
    fn finish(&mut self) -> Result<(), String> {
        for _ in 0..ROUNDS_MAX {
            self.catch_up()?;
            if self.is_done() {
                return Ok(());
            }
            self.exchange()?;
            self.lead()?;
        }
        Err(format!("A6: stuck, {}", self.describe()))
    }

    fn all(&self) -> impl Iterator<Item = &Local> {
        self.locals.iter().map(|id| self.store.local(*id)).filter(|local| !local.has_left)
    }

    fn describe(&self) -> String {
        let of = |local: &Local| {
            let machine = &local.machine;
            format!(
                "{:?} at {:?}, {:?} held, {:?} final, open {:?}, member {}, slots {:?}, filling {:b}",
                local.key,
                machine.index(),
                machine.version_held(),
                machine.version_final(),
                machine.open().map(|open| open.shards),
                machine.is_member(),
                local.slots.keys().collect::<Vec<_>>(),
                local.filling,
            )
        };
        let all: Vec<String> = self.all().map(of).collect();
        all.join("; ")
    }

    fn lives(&self, life: (NodeKey, Incarnation)) -> bool {
        self.all().any(|local| (local.key, local.life) == life)
    }

    fn is_done(&self) -> bool {
        self.all().all(|local| {
            let machine = &local.machine;
            (machine.is_member() || local.leaves())
                && machine.open().is_none()
                && machine.version_held() == machine.version_final()
                && (local.is_content() || local.leaves())
                && machine.view().members.iter().all(|seat| self.lives((seat.key, seat.incarnation)))
        })
    }

    fn words(&mut self, at: usize) -> Rc<Words> {
        let id = self.locals[at];
        if let Some(words) = self.words.get(&id) {
            return Rc::clone(words);
        }
        let local = self.store.local(id);
        let decided: Vec<Fact> = local
            .machine
            .tail
            .iter()
            .map(|(index, value)| Fact::Decided { index: *index, value: Box::new(*value) })
            .collect();
        let (of, version, index) = (local.key, local.machine.version_held(), local.index());
        let is_member = local.machine.is_member();
        let progress =
            if is_member { Fact::Hold { of, version, index } } else { Fact::Join { join: local.join() } };
        let (snapshot, shards) = (local.snapshot(), local.held_shards());
        let offers = [local.offers(), local.goodbyes()].concat();
        let mut number = |facts: Vec<Fact>| -> Vec<FactId> {
            facts.into_iter().map(|fact| self.store.insert_fact(fact)).collect()
        };
        let words = Rc::new(Words {
            decided: number(decided),
            snapshot: number(snapshot.into_iter().collect()).first().copied(),
            offers: number(offers),
            shards: number(shards),
            progress: number([progress].into())[0],
        });
        self.words.insert(id, Rc::clone(&words));
        words
    }

    /// Whoever is behind hears what was decided, or gets a snapshot.
    fn catch_up(&mut self) -> Result<(), String> {
        loop {
            // Who is furthest may have got there by a snapshot, and have no entry to tell.
            let mut told = Vec::new();
            for at in 0..self.locals.len() {
                let words = self.words(at);
                told.extend(words.decided.iter().copied().chain(words.snapshot));
            }
            told.sort_unstable();
            told.dedup();
            let before = self.locals.clone();
            self.spread(&told, 0)?;
            self.queue.clear();
            if self.locals == before {
                return Ok(());
            }
        }
    }

    /// Everybody who lives hears of every slot, shard and joiner there is, and who can, sums.
    fn exchange(&mut self) -> Result<(), String> {
        let quiet = Mind::default();
        for at in 0..self.locals.len() {
            self.step(at, Move::Cut, quiet)?;
        }
        let mut facts = Vec::new();
        for at in 0..self.locals.len() {
            if !self.store.local(self.locals[at]).has_left {
                let words = self.words(at);
                facts.extend(words.offers.iter().copied().chain([words.progress]));
            }
        }
        self.spread(&facts, 0)?;
        for at in 0..self.locals.len() {
            self.step(at, Move::Compute, quiet)?;
        }
        let mut shards = Vec::new();
        for at in 0..self.locals.len() {
            shards.extend_from_slice(&self.words(at).shards);
        }
        self.spread(&shards, 0)?;
        self.drain(0)
    }

    /// The lowest live member that is furthest takes the next ballot of its own.
    fn lead(&mut self) -> Result<(), String> {
        // An observer may be further than all members that live: it took a snapshot from one that died.
        let members = self.all().filter(|local| local.machine.is_member());
        let furthest = members.map(Local::index).max().unwrap_or_default();
        let leads = |local: &Local| !local.has_left && local.machine.is_member() && local.index() == furthest;
        let leader = self
            .locals
            .iter()
            .position(|id| leads(self.store.local(*id)))
            .ok_or("A6: nobody who lives is a member")?;
        let machine = &self.store.local(self.locals[leader]).machine;
        let seats = machine.view().members.iter();
        let gone = seats.filter(|seat| !self.lives((seat.key, seat.incarnation)));
        let gone = gone.fold(0, |gone, seat| gone | 1 << (seat.key.0 - key_of(0).0));
        let here = self.all().filter(|local| local.index() == furthest);
        let promised = here.map(|local| local.machine.round.promised).max();
        let promised = promised.unwrap_or_default().max(machine.log.ballot_first());
        let members = machine.view().members.len();
        let ballot = (1..=members as u32)
            .map(|ahead| Ballot { frame: promised.frame, term: promised.term + ahead })
            .find(|ballot| Some(ballot.owner(members)) == machine.my_index())
            .ok_or("R2: no ballot belongs to the leader")?;
        self.step(leader, Move::Begin(ballot), Mind { gone, ..Mind::default() })?;
        self.drain(gone)?;
        for is_unserved in [false, true] {
            self.step(leader, Move::Continue, Mind { gone, is_impatient: true, is_unserved })?;
            self.drain(gone)?;
        }
        Ok(())
    }

    fn spread(&mut self, facts: &[FactId], gone: u8) -> Result<(), String> {
        for fact in facts {
            for at in 0..self.locals.len() {
                self.step(at, Move::Receive(*fact), Mind { gone, ..Mind::default() })?;
            }
        }
        Ok(())
    }

    fn drain(&mut self, gone: u8) -> Result<(), String> {
        for _ in 0..DELIVERIES_MAX {
            let Some(fact) = self.queue.pop_front() else { return Ok(()) };
            self.spread(&[fact], gone)?;
        }
        Err("A6: the members talk without end".into())
    }

    fn step(&mut self, at: usize, step: Move, mind: Mind) -> Result<(), String> {
        if let Some(outcome) = self.store.step(self.locals[at], step, mind)? {
            self.locals[at] = outcome.local;
            self.queue.extend(outcome.facts.iter());
        }
        Ok(())
    }
}
