//! The bird's eye: one log, every unit of mass in at most one undropped listed slot, equal bits everywhere.

use crate::ledger::Admission;
use crate::log::{Learnt, LogState};
use plesio_wire::value::{Value, View};
use plesio_wire::{LogIndex, SlotSeq, Version};
use std::collections::{BTreeMap, BTreeSet};
use std::vec::Vec;

/// Where a unit of mass stands in the decided log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Place {
    Open(Admission, SlotSeq),
    Final(Admission, SlotSeq),
}

pub(super) struct Checker {
    log: LogState,
    values: BTreeMap<LogIndex, Value>,
    /// Content of every slot ever announced, frozen (R21).
    slots: BTreeMap<(Admission, SlotSeq), Vec<u64>>,
    places: BTreeMap<u64, Place>,
    /// G of each version, computed from the log alone.
    states: BTreeMap<Version, i64>,
    open: Vec<(Admission, SlotSeq, u32)>,
    /// Every value a member has learnt, before it can be placed (learning is in order per member only).
    pub(super) sealed: u64,
    pub(super) views: u64,
    pub(super) dropped: u64,
    pub(super) folds: BTreeSet<(Admission, SlotSeq)>,
    tau: u64,
}

/// The real-valued content of a unit, as integers.
pub(super) fn mass(units: &[u64]) -> i64 {
    units.iter().map(|unit| (unit.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 44) as i64).sum()
}

impl Checker {
    pub(super) fn new(view: View, tau: u64) -> Self {
        let log = LogState::genesis(view);
        Self {
            log,
            values: BTreeMap::from([(LogIndex(0), Value::View(view))]),
            slots: BTreeMap::new(),
            places: BTreeMap::new(),
            states: BTreeMap::from([(Version(0), 0)]),
            open: Vec::new(),
            sealed: 0,
            views: 0,
            dropped: 0,
            folds: BTreeSet::new(),
            tau,
        }
    }

    pub(super) fn announce(&mut self, admission: Admission, seq: SlotSeq, units: &[u64]) {
        let before = self.slots.insert((admission, seq), units.to_vec());
        assert!(before.is_none(), "R21: {admission:?} {seq:?} announced twice");
    }

    pub(super) fn units(&self, admission: Admission, seq: SlotSeq) -> Option<&Vec<u64>> {
        self.slots.get(&(admission, seq))
    }

    /// A member has learnt `value` at `index`.
    pub(super) fn learn(&mut self, index: LogIndex, value: &Value) {
        if let Some(known) = self.values.get(&index) {
            assert_eq!(known, value, "A1: two values at {index:?}");
            return;
        }
        assert_eq!(index, self.log.index, "an index was decided before the one below it");
        let terms = crate::config::Terms { tau: self.tau, lambda: crate::Lambda::ONE };
        self.log.check(value, terms).unwrap_or_else(|rule| panic!("{rule:?} broken by {value:?}"));
        self.values.insert(index, *value);
        let old_view = self.log.view;
        if let Value::Manifest(manifest) = value {
            for entry in manifest.entries.iter() {
                let admission = Admission::of(&old_view.members[usize::from(entry.member)]);
                let seq = SlotSeq(entry.slot_seq);
                let units = self.slots.get(&(admission, seq)).expect("a slot nobody announced is listed");
                for unit in units {
                    let place = self.places.insert(*unit, Place::Open(admission, seq));
                    assert_eq!(place, None, "A2: unit {unit} listed again in {admission:?} {seq:?}");
                }
                assert!(!self.folds.contains(&(admission, seq)), "R23: a folded slot is listed");
                self.open.push((admission, seq, entry.weight));
            }
        }
        match self.log.learn(value) {
            Learnt::Manifest => {}
            Learnt::Seal(version) => {
                let before = self.states[&Version(version.0 - 1)];
                let mut sum = 0;
                for (admission, seq, weight) in self.open.drain(..) {
                    let units = &self.slots[&(admission, seq)];
                    sum += i64::from(weight) * mass(units);
                    for unit in units {
                        self.places.insert(*unit, Place::Final(admission, seq));
                    }
                }
                self.states.insert(version, before + sum);
                self.sealed += 1;
            }
            Learnt::View(change) => {
                self.views += 1;
                for seat in &change.removed {
                    let gone = Admission::of(seat);
                    let (places, slots) = (&mut self.places, &self.slots);
                    let before = self.open.len();
                    self.open.retain(|(admission, seq, _)| {
                        if *admission == gone {
                            for unit in &slots[&(*admission, *seq)] {
                                places.remove(unit);
                            }
                        }
                        *admission != gone
                    });
                    self.dropped += (before - self.open.len()) as u64;
                }
            }
        }
    }

    pub(super) fn place(&self, unit: u64) -> Option<Place> {
        self.places.get(&unit).copied()
    }

    /// A3: whoever holds a version holds these bits.
    pub(super) fn state(&self, version: Version) -> i64 {
        *self.states.get(&version).expect("A3: a version is held that was never sealed")
    }

    pub(super) fn view(&self) -> &View {
        &self.log.view
    }

    pub(super) fn version(&self) -> Version {
        self.log.version_final
    }
}
