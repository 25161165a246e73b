//! Where every unit of one worker's mass is (I2): produced = committed + held in slots + residue + lost, in integers,
//! for each element.
//!
//! A unit is one step: element e of it is a keyed hash, so the books can say from its number alone what it weighs; of a worker
//! that learns they keep it until it is final.
//! The books never trust the ring: what a slot must hold is computed here, and the slot's memory is compared with it
//! when it is announced and again when it comes back.

use crate::mass::Held;
use crate::random::mix;
use plesio_consensus::Part;
use std::collections::BTreeMap;

/// What a slot must hold.
#[derive(Clone, Debug, Default)]
pub(crate) struct Parcel {
    pub(crate) content: Vec<i64>,
    pub(crate) units: Vec<u32>,
    /// What of the content travels, where a codec leaves something out.
    pub(crate) sent: Option<Vec<i64>>,
    /// What a version took of that, where it did not take all.
    pub(crate) part: Option<Part>,
}

/// The books of one process; see the module.
#[derive(Debug)]
pub(crate) struct Books {
    key: u64,
    unit: u32,
    produced: Vec<i64>,
    committed: Vec<i64>,
    lost: Vec<i64>,
    /// Of `lost`, over all elements: thrown away after a return.
    trimmed: i64,
    residue: Parcel,
    held: Vec<Option<Parcel>>,
    /// Of a worker that learns: the units that are not final.
    learnt: BTreeMap<u32, Vec<i32>>,
}

impl Books {
    pub(crate) fn new(key: u64, elements: usize, depth: usize) -> Self {
        Self {
            key,
            unit: 0,
            produced: vec![0; elements],
            committed: vec![0; elements],
            lost: vec![0; elements],
            trimmed: 0,
            residue: Parcel { content: vec![0; elements], ..Parcel::default() },
            held: vec![None; depth],
            learnt: BTreeMap::new(),
        }
    }

    /// A step is done: one more unit waits for the next cut.
    pub(crate) fn handle_step(&mut self) {
        for element in 0..self.produced.len() {
            let value = self.value(self.unit, element);
            self.produced[element] += value;
            self.residue.content[element] += value;
        }
        self.residue.units.push(self.unit);
        self.unit += 1;
    }

    /// The same, and this is what was learnt.
    pub(crate) fn handle_learnt(&mut self, change: Vec<i32>) {
        self.learnt.insert(self.unit, change);
        self.handle_step();
    }

    /// Element of a unit.
    fn value(&self, unit: u32, element: usize) -> i64 {
        match self.learnt.get(&unit) {
            Some(change) => i64::from(change[element]),
            None => value(self.key, unit, element),
        }
    }

    /// Units made so far, and those that are in no version yet.
    pub(crate) fn steps(&self) -> (u64, u64) {
        let held = self.held.iter().flatten().map(|parcel| parcel.units.len());
        let waiting = held.sum::<usize>() + self.residue.units.len();
        (self.unit.into(), waiting as u64)
    }

    /// What is not in any version yet: u of I1.
    pub(crate) fn own(&self) -> Vec<i64> {
        let mut own = self.residue.content.clone();
        self.held.iter().flatten().for_each(|parcel| add(&mut own, &parcel.content));
        own
    }

    /// What waits, cut to the range of a slot's elements.
    pub(crate) fn quantise(&self, slot: &mut [i32]) {
        for (out, whole) in slot.iter_mut().zip(&self.residue.content) {
            *out = (*whole).clamp(ELEMENT_MIN, ELEMENT_MAX) as i32;
        }
    }

    /// That went into ring place `index`, alone or on top of what was there; `excess` did not fit on top.
    pub(crate) fn handle_cut(&mut self, index: u8, merged: bool, excess: Option<&[i32]>) {
        let place = &mut self.held[usize::from(index)];
        let mut parcel = if merged { place.take().unwrap_or_default() } else { Parcel::default() };
        parcel.content.resize(self.produced.len(), 0);
        for (element, (held, waits)) in parcel.content.iter_mut().zip(&mut self.residue.content).enumerate() {
            let excess = excess.map_or(0, |excess| i64::from(excess[element]));
            let taken = (*waits).clamp(ELEMENT_MIN, ELEMENT_MAX) - excess;
            *waits -= taken;
            *held += taken;
        }
        parcel.units.append(&mut self.residue.units);
        *place = Some(parcel);
    }

    /// What ring place `index` must hold.
    pub(crate) fn parcel(&self, index: u8) -> Option<&Parcel> {
        self.held.get(usize::from(index))?.as_ref()
    }

    /// The slot in `index` is announced, and this much of it travels.
    pub(crate) fn handle_encoded(&mut self, index: u8, sent: Vec<i64>) {
        if let Some(parcel) = &mut self.held[usize::from(index)] {
            parcel.sent = Some(sent);
        }
    }

    /// A version took this part of the slot in `index`.
    pub(crate) fn handle_part(&mut self, index: u8, part: Part) {
        if let Some(parcel) = &mut self.held[usize::from(index)] {
            parcel.part = Some(part);
        }
    }

    /// The slot in `index` came back committed: what did not travel, and what the version did not take, goes with the next
    /// cut.
    pub(crate) fn commit(&mut self, index: u8) {
        if let Some(parcel) = self.held[usize::from(index)].take() {
            let part = parcel.part.unwrap_or(Part::WHOLE);
            self.forget(&parcel.units);
            let sent = parcel.sent.as_deref().unwrap_or(&parcel.content);
            // Elements of slots are 32 bits.
            let taken: Vec<i64> = sent.iter().map(|q| i64::from(part.of(*q as i32))).collect();
            add(&mut self.committed, &taken);
            for (element, rest) in self.residue.content.iter_mut().enumerate() {
                *rest += parcel.content[element] - taken[element];
            }
        }
    }

    fn forget(&mut self, units: &[u32]) {
        units.iter().for_each(|unit| drop(self.learnt.remove(unit)));
    }

    /// The slot in `index` came back: its mass goes with the next cut.
    pub(crate) fn fold(&mut self, index: u8) {
        if let Some(parcel) = self.held[usize::from(index)].take() {
            add(&mut self.residue.content, &parcel.content);
            self.residue.units.extend_from_slice(&parcel.units);
        }
    }

    /// So many of the steps that wait are thrown away, the newest first: a node that came back has more than it may bring.
    pub(crate) fn trim(&mut self, steps: u32) {
        for _ in 0..steps {
            let Some(unit) = self.residue.units.pop() else { return };
            for element in 0..self.produced.len() {
                let value = self.value(unit, element);
                self.residue.content[element] -= value;
                self.lost[element] += value;
                self.trimmed += value;
            }
            self.forget(&[unit]);
        }
    }

    /// The slot in `index` is gone for good.
    pub(crate) fn lose(&mut self, index: u8) {
        if let Some(parcel) = self.held[usize::from(index)].take() {
            self.forget(&parcel.units);
            add(&mut self.lost, &parcel.content);
        }
    }

    /// Quanta produced, committed, not yet cut, and thrown away after a return, over all elements.
    pub(crate) fn totals(&self) -> [i64; 4] {
        let sum = |part: &[i64]| part.iter().sum();
        [sum(&self.produced), sum(&self.committed), sum(&self.residue.content), self.trimmed]
    }

    /// The slots held.
    pub(crate) fn slots(&self) -> impl Iterator<Item = Held> {
        self.held.iter().flatten().map(|parcel| {
            let sent = parcel.sent.as_deref().unwrap_or(&parcel.content);
            let (unit, whole) = (parcel.units.first().copied(), parcel.content.iter().sum());
            Held { unit, whole, sent: sent.iter().sum() }
        })
    }

    /// I2, element by element.
    pub(crate) fn check(&self) -> Result<(), String> {
        for element in 0..self.produced.len() {
            let held: i64 = self.held.iter().flatten().map(|parcel| parcel.content[element]).sum();
            let (produced, committed) = (self.produced[element], self.committed[element]);
            let (residue, lost) = (self.residue.content[element], self.lost[element]);
            if produced != committed + held + residue + lost {
                return Err(format!(
                    "I2: element {element}: produced {produced} != committed {committed} + held {held} + residue \
                     {residue} + lost {lost}"
                ));
            }
        }
        Ok(())
    }

    /// Forgets the residue: what a worker with a bug does.
    #[cfg(test)]
    pub(crate) fn spill(&mut self) {
        self.residue.content.fill(0);
    }
}

/// Element of a unit: below 2^20.
fn value(key: u64, unit: u32, element: usize) -> i64 {
    (mix(key ^ mix(u64::from(unit) << 32 | element as u64)) >> 44) as i64
}

fn add(sum: &mut [i64], parts: &[i64]) {
    for (sum, part) in sum.iter_mut().zip(parts) {
        *sum += part;
    }
}

const ELEMENT_MIN: i64 = plesio_memory::ELEMENT_MIN as i64;
const ELEMENT_MAX: i64 = plesio_memory::ELEMENT_MAX as i64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mass_moves_and_is_never_lost() {
        let mut books = Books::new(9, 8, 4);
        let mut slot = [0; 8];
        books.handle_step();
        books.quantise(&mut slot);
        books.handle_cut(0, false, None);
        let first: Vec<i64> = slot.iter().map(|q| i64::from(*q)).collect();
        assert_eq!(books.parcel(0).unwrap().content, first);
        books.fold(0);
        books.handle_step();
        books.quantise(&mut slot);
        books.handle_cut(1, false, None);
        assert_eq!(books.parcel(1).unwrap().units, [0, 1]);
        assert!(slot.iter().zip(&first).all(|(second, first)| i64::from(*second) >= *first));
        books.handle_step();
        books.handle_cut(1, true, Some(&[1; 8]));
        assert_eq!(books.residue.content, [1; 8]);
        books.check().unwrap();
        books.commit(1);
        books.check().unwrap();
        books.lose(1);
        books.check().unwrap();
        let before = books.lost.clone();
        (0..3).for_each(|_| books.handle_step());
        books.trim(2);
        books.check().unwrap();
        assert_eq!(books.residue.units.len(), 1);
        assert!(books.lost.iter().zip(&before).all(|(lost, before)| lost > before));
        books.trim(99);
        books.check().unwrap();
        assert!(books.residue.units.is_empty());
        books.spill();
        let what = books.check().unwrap_err();
        assert!(what.starts_with("I2: element 0"), "{what}");
    }

    #[test]
    fn values_are_spread_below_two_to_the_twentieth() {
        let values: Vec<i64> = (0..1000).map(|unit| value(1, unit, 3)).collect();
        assert!(values.iter().all(|value| (0..1 << 20).contains(value)));
        assert!(values.iter().max() > Some(&1_000_000) && values.iter().min() < Some(&50_000));
        assert_ne!(value(1, 2, 3), value(2, 2, 3));
    }
}
