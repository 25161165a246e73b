//! What others want to know of the log: when things became final, who waited for how long.

use super::{Checker, SlotId, Standing};
use plesio_wire::value::View;
use plesio_wire::{Incarnation, NodeKey, SlotSeq, Version};
use std::collections::BTreeMap;

impl Checker {
    /// When `version` became final, as far as it is.
    pub(crate) fn final_at(&self, version: Version) -> Option<u64> {
        self.finals.get(version.0 as usize).map(|version| version.at_ns)
    }

    /// Newest version that was final at `at_ns`.
    pub(crate) fn final_before(&self, at_ns: u64) -> Version {
        Version(self.finals.partition_point(|version| version.at_ns <= at_ns) as u64 - 1)
    }

    /// Views whose members own unlike parts.
    pub(crate) fn unlike_views(&self) -> u64 {
        self.views.iter().filter(|view| !view.shares.is_empty()).count() as u64
    }

    /// Mean time from announcement to finality; 0 when nothing is final.
    pub(crate) fn commit_ns(&self) -> u64 {
        let took = self.slots.values().filter_map(|slot| match slot.standing {
            Standing::Final(version) => Some(self.final_at(version)?.saturating_sub(slot.announced_ns)),
            _ => None,
        });
        let (sum, count) = took.fold((0u128, 0u128), |(sum, count), ns| (sum + u128::from(ns), count + 1));
        sum.checked_div(count).unwrap_or_default() as u64
    }

    /// How long the newest view has been known.
    pub(crate) fn view_age_ns(&self) -> u64 {
        self.now_ns - self.view_ns
    }

    /// The oldest slot of a process that was announced before `at_ns` and still is in nobody's past.
    pub(crate) fn stuck(&self, process: u32, at_ns: u64) -> Option<(SlotSeq, u64)> {
        self.slots
            .iter()
            .filter(|(_, slot)| slot.process == process && slot.fate.is_none() && slot.announced_ns < at_ns)
            .map(|(id, slot)| (id.seq, slot.announced_ns))
            .min_by_key(|(_, announced_ns)| *announced_ns)
    }

    /// The longest time between two final versions, and from the last one until now.
    pub(crate) fn gap_ns(&self) -> u64 {
        let ends = self.finals.iter().skip(1).map(|version| version.at_ns).chain([self.now_ns]);
        let ends: Vec<u64> = ends.collect();
        ends.windows(2).map(|pair| pair[1].saturating_sub(pair[0])).max().unwrap_or(0)
    }

    /// The version that let others wait longest after that moment, and for how long since then or the one before; one
    /// that has not come yet counts.
    pub(crate) fn slowest_since(&self, since_ns: u64) -> Option<(Version, u64)> {
        let first = self.finals.partition_point(|version| version.at_ns <= since_ns);
        let ends = self.finals[first..].iter().map(|version| version.at_ns).chain([self.now_ns]);
        let begins = [since_ns].into_iter().chain(self.finals[first..].iter().map(|version| version.at_ns));
        let gaps = begins.zip(ends).map(|(begin_ns, end_ns)| end_ns.saturating_sub(begin_ns));
        gaps.enumerate()
            .map(|(at, gap_ns)| (Version((first + at) as u64), gap_ns))
            .max_by_key(|(_, gap_ns)| *gap_ns)
    }

    /// Since when that life has its seat without a break, as far as it has one.
    pub(crate) fn seated_since(&self, key: NodeKey, life: Incarnation) -> Option<u64> {
        let seated = |view: &&View| {
            view.index_of(key).is_some_and(|at| view.members[usize::from(at)].incarnation == life)
        };
        let views = self.views.iter().rev().take_while(seated).count();
        let first = self.views.len().checked_sub(views).filter(|_| views > 0)?;
        Some(first.checked_sub(1).and_then(|at| self.views_ns.get(at)).copied().unwrap_or(0))
    }

    /// Whether that process announced a slot before that moment.
    pub(crate) fn offers_before(&self, process: u32, at_ns: u64) -> bool {
        self.slots.values().any(|slot| slot.process == process && slot.announced_ns < at_ns)
    }

    /// When a slot of that process became final last.
    pub(crate) fn counted_at(&self, process: u32) -> u64 {
        let counts = |slot: &SlotId| self.slots.get(slot).is_some_and(|slot| slot.process == process);
        self.finals
            .iter()
            .rfind(|version| version.slots.iter().any(counts))
            .map_or(0, |version| version.at_ns)
    }

    /// How many views came into force after that moment.
    pub(crate) fn views_since(&self, since_ns: u64) -> u64 {
        self.views_ns.iter().filter(|view_ns| **view_ns > since_ns).count() as u64
    }

    /// Quanta of each process that stand in final versions.
    pub(crate) fn final_mass(&self) -> BTreeMap<u32, i64> {
        let mut mass = BTreeMap::new();
        for slot in self.slots.values().filter(|slot| matches!(slot.standing, Standing::Final(_))) {
            *mass.entry(slot.process).or_default() += slot.content.iter().sum::<i64>();
        }
        mass
    }

    /// Whether that unit of that process stands in a final version.
    pub(crate) fn is_final(&self, process: u32, unit: u32) -> bool {
        self.units.get(&(process, unit)).is_some_and(|version| *version <= self.newest_final())
    }

    /// Whether all that follows from the log is what members hold: nobody lied about payload.
    pub(crate) fn is_honest(&self) -> bool {
        !self.forged && !self.equivocated && self.diverged_ns.is_none()
    }
}
