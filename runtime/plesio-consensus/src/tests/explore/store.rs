//! Local states and facts, each kept once and numbered (Holzmann, "State compression in SPIN", 1997); and what a step
//! makes of a local state, remembered: so the machines run once for each pair of them however often it is met.

use super::fact::Fact;
use super::local::{Local, Step};
use super::world::IDS_MAX;
use crate::machine::by_hand::Belief;
use plesio_wire::{Ballot, Digest, Incarnation, NodeKey};
use std::collections::HashMap;
use std::format;
use std::rc::Rc;
use std::string::String;
use std::vec::Vec;

/// Number of a local state.
pub(super) type LocalId = u32;
/// Number of a fact.
pub(super) type FactId = u16;

/// No fact.
pub(super) const NO_FACT: FactId = FactId::MAX;

/// A step by numbers.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(super) enum Move {
    Receive(FactId),
    /// All result shards of a version at once, by owner.
    Gather([FactId; IDS_MAX]),
    Begin(Ballot),
    Continue,
    Compute,
    Cut,
    Restart(Incarnation),
    Leave,
}

/// A belief by numbers.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub(super) struct Mind {
    /// Who is gone: bit i for [`key_of`] i.
    pub(super) gone: u8,
    pub(super) is_impatient: bool,
    pub(super) is_unserved: bool,
}

/// What comes of a step.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    pub(super) local: LocalId,
    pub(super) facts: Rc<[FactId]>,
}

/// See the module.
#[derive(Default)]
pub(super) struct Store {
    locals: Vec<Local>,
    by_essence: HashMap<Digest, LocalId>,
    facts: Vec<Fact>,
    by_fact: HashMap<Digest, FactId>,
    outcomes: HashMap<(LocalId, Move, Mind), Option<Outcome>, Mixed>,
}

/// Key of the node in place `at`.
pub(super) const fn key_of(at: usize) -> NodeKey {
    NodeKey(10 + at as u64)
}

impl Store {
    pub(super) fn local(&self, id: LocalId) -> &Local {
        &self.locals[id as usize]
    }

    pub(super) fn fact(&self, id: FactId) -> &Fact {
        &self.facts[usize::from(id)]
    }

    pub(super) const fn locals(&self) -> usize {
        self.locals.len()
    }

    pub(super) const fn facts(&self) -> usize {
        self.facts.len()
    }

    pub(super) fn insert_local(&mut self, local: Local) -> LocalId {
        *self.by_essence.entry(local.essence()).or_insert_with(|| {
            self.locals.push(local);
            self.locals.len() as LocalId - 1
        })
    }

    pub(super) fn insert_fact(&mut self, fact: Fact) -> FactId {
        let name = Digest::of(format!("{fact:?}").as_bytes());
        *self.by_fact.entry(name).or_insert_with(|| {
            self.facts.push(fact);
            FactId::try_from(self.facts.len() - 1).expect("a row has fewer facts than numbers")
        })
    }

    /// What comes of a step: nothing, where it is not one that this member can take or nothing changes.
    pub(super) fn step(&mut self, local: LocalId, step: Move, mind: Mind) -> Result<Option<Outcome>, String> {
        if let Some(known) = self.outcomes.get(&(local, step, mind)) {
            return Ok(known.clone());
        }
        let outcome = self.try_step(local, step, mind)?;
        self.outcomes.insert((local, step, mind), outcome.clone());
        Ok(outcome)
    }

    fn try_step(&mut self, id: LocalId, step: Move, mind: Mind) -> Result<Option<Outcome>, String> {
        let step = match step {
            Move::Receive(fact) => Step::Receive(self.fact(fact).clone()),
            Move::Gather(shards) => {
                let shards = shards.iter().filter(|shard| **shard != NO_FACT);
                Step::Gather(shards.map(|shard| self.fact(*shard).clone()).collect())
            }
            Move::Begin(ballot) => Step::Begin(ballot),
            Move::Continue => Step::Continue,
            Move::Compute => Step::Compute,
            Move::Cut => Step::Cut,
            Move::Restart(life) => Step::Restart(life),
            Move::Leave => Step::Leave,
        };
        if !self.local(id).concerns(&step) {
            return Ok(None);
        }
        let gone: Vec<NodeKey> = (0..8).filter(|at| mind.gone & 1 << at != 0).map(key_of).collect();
        let belief = Belief { gone: &gone, is_impatient: mind.is_impatient, is_unserved: mind.is_unserved };
        let (local, facts) = self.local(id).step(&step, belief)?;
        let local = self.insert_local(local);
        let facts: Rc<[FactId]> = facts.into_iter().map(|fact| self.insert_fact(fact)).collect();
        Ok((local != id || !facts.is_empty()).then_some(Outcome { local, facts }))
    }
}

/// A quick hash of numbers: nobody chooses them to collide.
pub(super) type Mixed = core::hash::BuildHasherDefault<Mixer>;

#[derive(Default)]
pub(super) struct Mixer(u64);

impl core::hash::Hasher for Mixer {
    fn finish(&self) -> u64 {
        self.0 ^ self.0 >> 29
    }

    fn write(&mut self, bytes: &[u8]) {
        for bytes in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..bytes.len()].copy_from_slice(bytes);
            self.write_u64(u64::from_le_bytes(word));
        }
    }

    fn write_u8(&mut self, word: u8) {
        self.write_u64(u64::from(word));
    }

    fn write_u16(&mut self, word: u16) {
        self.write_u64(u64::from(word));
    }

    fn write_u32(&mut self, word: u32) {
        self.write_u64(u64::from(word));
    }

    fn write_isize(&mut self, word: isize) {
        self.write_u64(word as u64);
    }

    fn write_u64(&mut self, word: u64) {
        self.0 = (self.0.rotate_left(23) ^ word).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }
}
