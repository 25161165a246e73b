//! The search: breadth first over every order of steps, each state once.
//!
//! A state is which local state each member is in, and which facts have been said.

use super::fact::Fact;
use super::local::Local;
use super::past::Past;
use super::recovery::Recovery;
use super::rows::Row;
use super::store::{FactId, LocalId, Mind, Mixed, Move, NO_FACT, Store, key_of};
use plesio_wire::sideband::Message;
use plesio_wire::{Ballot, Frame, Incarnation};
use std::collections::HashSet;
use std::format;
use std::string::String;
use std::vec::Vec;

/// Members of a row at most.
pub(super) const IDS_MAX: usize = 4;
/// Incarnations from here on are second lives.
pub(super) const LIFE_NEW: u64 = 200;
/// Facts of a row at most.
const FACTS_MAX: usize = 64 * FACT_WORDS;
pub(super) const FACT_WORDS: usize = 6;

pub(super) type FactSet = [u64; FACT_WORDS];

#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
struct State {
    locals: [LocalId; IDS_MAX],
    facts: FactSet,
}

/// What a search came to.
#[derive(Clone, Debug, Default)]
pub(super) struct Found {
    pub(super) states: usize,
    pub(super) locals: usize,
    pub(super) facts: usize,
    pub(super) recoveries: usize,
    /// Every state was reached.
    pub(super) is_whole: bool,
    pub(super) violation: Option<String>,
}

pub(super) struct World<'a> {
    row: &'a Row,
    store: Store,
    /// Facts of which nothing comes, by local state.
    idle: Vec<FactSet>,
    past: Option<Past>,
    agreed: HashSet<(LocalId, LocalId), Mixed>,
    recovery: Recovery,
}

/// How a state was reached: from which, by whom, how.
type Way = (u32, u8, Move, Mind);

impl<'a> World<'a> {
    pub(super) fn new(row: &'a Row) -> Self {
        Self {
            row,
            store: Store::default(),
            idle: Vec::new(),
            past: Some(Past::new(row)),
            agreed: HashSet::default(),
            recovery: Recovery::new(row.crashes),
        }
    }

    /// The same, without forgetting anything.
    pub(super) fn with_past(row: &'a Row) -> Self {
        Self { past: None, ..Self::new(row) }
    }

    /// Searches until every state was reached, a promise is broken or it is over.
    pub(super) fn run(&mut self, is_over: impl Fn() -> bool) -> Found {
        let mut known: HashSet<u64, Mixed> = HashSet::default();
        let mut parents: Vec<Way> = Vec::new();
        let first = self.first();
        known.insert(hash(&first));
        parents.push((0, 0, Move::Continue, Mind::default()));
        let mut level = Vec::from([(first, 0u32)]);
        let mut found = Found { is_whole: true, ..Found::default() };
        let violation = self.judge(&first).err();
        let mut violation = violation.map(|what| (0, what));
        while violation.is_none() && !level.is_empty() {
            let mut next = Vec::new();
            'level: for (state, number) in &level {
                for member in 0..self.row.ids {
                    for (step, mind) in self.moves(state, member) {
                        let after = match self.advance(state, member, step, mind) {
                            Ok(Some(after)) => after,
                            Ok(None) => continue,
                            Err(what) => {
                                parents.push((*number, member as u8, step, mind));
                                violation = Some((parents.len() as u32 - 1, what));
                                break 'level;
                            }
                        };
                        if !known.insert(hash(&after)) {
                            continue;
                        }
                        parents.push((*number, member as u8, step, mind));
                        let number = parents.len() as u32 - 1;
                        if let Err(what) = self.judge(&after) {
                            violation = Some((number, what));
                            break 'level;
                        }
                        next.push((after, number));
                    }
                }
                if is_over() {
                    found.is_whole = false;
                    break 'level;
                }
            }
            level = if found.is_whole { next } else { Vec::new() };
        }
        found.states = known.len();
        found.locals = self.store.locals();
        found.facts = self.store.facts();
        found.recoveries = self.recovery.runs();
        found.violation = violation.map(|(number, what)| self.tell(&parents, number, &what));
        found
    }

    fn first(&mut self) -> State {
        let mut state = State { locals: [0; IDS_MAX], facts: [0; FACT_WORDS] };
        let (locals, facts) = self.row.begin();
        for (at, local) in locals.into_iter().enumerate() {
            state.locals[at] = self.store.insert_local(local);
        }
        for fact in facts {
            let fact = self.store.insert_fact(fact);
            insert(&mut state.facts, fact);
        }
        state
    }

    /// Every step of `member` that may come to something.
    fn moves(&mut self, state: &State, member: usize) -> Vec<(Move, Mind)> {
        if self.row.silent == Some(key_of(member)) {
            return Vec::new();
        }
        let id = state.locals[member];
        self.idle.resize(self.idle.len().max(id as usize + 1), [0; FACT_WORDS]);
        let local = self.store.local(id);
        let quiet = Mind::default();
        let minds = self.row.beliefs.iter().map(|gone| Mind { gone: *gone, ..quiet });
        let mut moves = Vec::new();
        let mut facts = state.facts;
        facts.iter_mut().zip(&self.idle[id as usize]).for_each(|(facts, idle)| *facts &= !idle);
        for fact in members_of(&facts) {
            if self.row.gathers && matches!(self.store.fact(fact), Fact::Shard { .. }) {
                continue;
            }
            // Only where a choice may follow does it matter what is believed.
            let chooses = matches!(self.store.fact(fact), Fact::Message { message, .. } if matches!(**message, Message::Last(_)));
            let count = if chooses { usize::MAX } else { 1 };
            moves.extend(minds.clone().take(count).map(|mind| (Move::Receive(fact), mind)));
        }
        moves.extend(self.shards(local, &state.facts).map(|shards| (Move::Gather(shards), quiet)));
        let is_inside = local.index().0 <= self.row.log_max;
        if is_inside {
            for ballot in self.ballots(id) {
                moves.extend(minds.clone().map(|mind| (Move::Begin(ballot), mind)));
            }
            for is_unserved in [false, true] {
                let waited = minds.clone().map(|mind| Mind { is_impatient: true, is_unserved, ..mind });
                moves.extend(waited.map(|mind| (Move::Continue, mind)));
            }
            moves.push((Move::Compute, quiet));
        }
        let key = Some(key_of(member));
        if self.row.cuts && is_inside {
            moves.push((Move::Cut, quiet));
        }
        if self.row.restarts == key && local.life.0 < LIFE_NEW {
            moves.push((Move::Restart(Incarnation(LIFE_NEW + local.life.0)), quiet));
        }
        if self.row.leaves == key {
            moves.push((Move::Leave, quiet));
        }
        moves
    }

    /// All result shards of the version that is open for this member, or was sealed before it was complete.
    fn shards(&self, local: &Local, facts: &FactSet) -> Option<[FactId; IDS_MAX]> {
        let context = local.context().filter(|_| self.row.gathers)?;
        let mut shards = [NO_FACT; IDS_MAX];
        for fact in members_of(facts) {
            match self.store.fact(fact) {
                Fact::Shard { context: of, owner, .. } if *of == context => {
                    shards[usize::from(*owner)] = fact
                }
                _ => {}
            }
        }
        let members = local.machine.view().members.len();
        shards[..members].iter().all(|shard| *shard != NO_FACT).then_some(shards)
    }

    /// Ballots of the row that belong to this member.
    fn ballots(&self, id: LocalId) -> Vec<Ballot> {
        let machine = &self.store.local(id).machine;
        let first = machine.log.ballot_first();
        let is_open = machine.open().is_some();
        let ballots = if is_open { self.row.ballots_open } else { self.row.ballots }.iter();
        let ballots =
            ballots.map(|(ahead, term)| Ballot { frame: Frame(first.frame.0 + ahead), term: *term });
        let is_mine =
            |ballot: &Ballot| machine.my_index() == Some(ballot.owner(machine.view().members.len()));
        ballots.filter(is_mine).collect()
    }

    /// The state after a step; none when nothing comes of it.
    fn advance(
        &mut self,
        state: &State,
        member: usize,
        step: Move,
        mind: Mind,
    ) -> Result<Option<State>, String> {
        let before = state.locals[member];
        let Some(outcome) = self.store.step(before, step, mind)? else {
            if let (Move::Receive(fact), 0) = (step, mind.gone) {
                insert(&mut self.idle[before as usize], fact);
            }
            return Ok(None);
        };
        let mut after = *state;
        after.locals[member] = outcome.local;
        for fact in outcome.facts.iter().copied().filter(|fact| self.is_told(*fact)) {
            assert!(usize::from(fact) < FACTS_MAX, "a row of more than {FACTS_MAX} facts is too large");
            if insert(&mut after.facts, fact) {
                check_decided(&self.store, state, fact)?;
            }
        }
        if let Some(past) = &mut self.past {
            past.clear(&mut self.store, &after.locals[..self.row.ids], &mut after.facts)?;
        }
        Ok((after != *state).then_some(after))
    }

    fn is_told(&self, fact: FactId) -> bool {
        match self.store.fact(fact) {
            Fact::Hold { .. } => self.row.beats,
            Fact::Join { .. } => self.row.joins,
            Fact::Snapshot { .. } => self.row.snapshots,
            _ => true,
        }
    }

    /// What is judged in every state: members that applied the same version hold the same bits, and from here, after
    /// whoever crashes, the rest gets to its goal.
    fn judge(&mut self, state: &State) -> Result<(), String> {
        let members = self.row.ids;
        for a in 0..members {
            for b in a + 1..members {
                let pair = (state.locals[a], state.locals[b]);
                if self.agreed.insert(pair) {
                    self.compare(pair)?;
                }
            }
        }
        self.recovery.judge(&self.store, &state.locals[..members])
    }

    fn compare(&self, (a, b): (LocalId, LocalId)) -> Result<(), String> {
        let (a, b) = (self.store.local(a), self.store.local(b));
        for (index, entry) in a.entries() {
            if b.entries().get(index).is_some_and(|other| other != entry) {
                return Err(format!("A1: {:?} and {:?} differ at index {}", a.key, b.key, index.0));
            }
        }
        for (version, state) in a.applied() {
            if b.applied().get(version).is_some_and(|other| other != state) {
                return Err(format!("A3: {:?} and {:?} differ in version {}", a.key, b.key, version.0));
            }
        }
        Ok(())
    }

    /// The way to a state, and what is wrong with it.
    fn tell(&self, parents: &[Way], mut number: u32, what: &str) -> String {
        let mut path = Vec::new();
        while number != 0 {
            let (parent, member, step, mind) = parents[number as usize];
            path.push((member, step, mind));
            number = parent;
        }
        path.reverse();
        let mut text = format!("row {:?}: {what}\n", self.row.name);
        for (member, step, mind) in path {
            let step = match step {
                Move::Receive(fact) => say(self.store.fact(fact)),
                step => format!("{step:?}"),
            };
            let mind = if mind == Mind::default() { String::new() } else { format!(", {mind:?}") };
            text += &format!("  {:?} {step}{mind}\n", key_of(usize::from(member)));
        }
        text
    }
}

fn say(fact: &Fact) -> String {
    match fact {
        Fact::Message { from, message, .. } => {
            let mut text = format!("{message:?}");
            text.truncate(400);
            format!("hears {from:?}: {text}")
        }
        Fact::Decided { index, value } => {
            format!("learns {}: {:?}", index.0, value.digest())
        }
        Fact::Shard { context, owner, .. } => format!("gets shard {owner} of {context:?}"),
        Fact::Offer { admission, slot, .. } => format!("gets slot {} of {:?}", slot.seq.0, admission.key),
        Fact::Hold { of, version, index } => format!("hears that {of:?} holds {version:?} at {index:?}"),
        Fact::Join { join } => format!("hears {:?} join with {}", join.id.key(), join.hold),
        Fact::Snapshot { cut, .. } => format!("gets a snapshot of {:?} at {:?}", cut.version, cut.index),
    }
}

/// A1: nobody has learnt another entry at that index.
fn check_decided(store: &Store, state: &State, news: FactId) -> Result<(), String> {
    let Fact::Decided { index, value } = store.fact(news) else { return Ok(()) };
    for fact in members_of(&state.facts) {
        if let Fact::Decided { index: other, value: theirs } = store.fact(fact)
            && other == index
            && theirs != value
        {
            let kinds = [value, theirs].map(|value| crate::Kind::of(value));
            return Err(format!("A1: two values are decided at index {}: {kinds:?}", index.0));
        }
    }
    Ok(())
}

pub(super) fn insert(set: &mut FactSet, fact: FactId) -> bool {
    let (word, bit) = (usize::from(fact) / 64, 1 << (fact % 64));
    let is_news = set[word] & bit == 0;
    set[word] |= bit;
    is_news
}

pub(super) fn members_of(set: &FactSet) -> impl Iterator<Item = FactId> + '_ {
    set.iter().enumerate().flat_map(|(word, bits)| {
        let mut bits = *bits;
        core::iter::from_fn(move || {
            let bit = bits.trailing_zeros();
            (bit < 64).then(|| {
                bits &= bits - 1;
                (word * 64) as FactId + bit as FactId
            })
        })
    })
}

/// 64 bits of a state, as its identity.
fn hash(state: &State) -> u64 {
    let mut sum = 0xcbf2_9ce4_8422_2325_u64;
    let words = state.locals.iter().map(|local| u64::from(*local)).chain(state.facts);
    for word in words {
        sum = (sum ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        sum ^= sum >> 29;
    }
    sum
}
