//! Where all mass of a mesh is in the end: produced = final + waiting + lost, in integers, by the log's word and by the
//! books of every process that ever ran.
//!
//! The log says what is final; the books say what each process had when it ended, or has now. Both must agree on every
//! process. What is lost was with a process that was killed, and of its announced slots never more than its ring holds.

use crate::books::Books;
use std::collections::BTreeMap;
use std::ops::AddAssign;

/// Quanta, summed over elements, and what of them went with whom. A step of a simulated worker is worth half a million
/// quanta for each element.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Mass {
    /// What workers made.
    pub produced: i64,
    /// What stands in final versions.
    pub committed: i64,
    /// What living processes hold, in slots and not yet cut.
    pub waiting: i64,
    /// What was in slots of processes that were killed.
    pub lost_in_slots: i64,
    /// What processes that were killed had not cut yet.
    pub lost_uncut: i64,
    /// What processes that left in order had to leave behind, because the mesh did not take it in time.
    pub left_behind: i64,
    /// What processes threw away when they came back after too long (section 8 of the consensus text).
    pub trimmed: i64,
    /// Most slots that one killed process took with it.
    pub slots_lost_most: u32,
    /// Processes that were killed.
    pub killed: u64,
}

impl Mass {
    /// Whether every quantum is somewhere.
    #[must_use]
    pub const fn is_exact(&self) -> bool {
        let lost = self.lost_in_slots + self.lost_uncut + self.left_behind + self.trimmed;
        self.produced == self.committed + self.waiting + lost
    }
}

impl AddAssign for Mass {
    fn add_assign(&mut self, other: Self) {
        self.produced += other.produced;
        self.committed += other.committed;
        self.waiting += other.waiting;
        self.lost_in_slots += other.lost_in_slots;
        self.lost_uncut += other.lost_uncut;
        self.left_behind += other.left_behind;
        self.trimmed += other.trimmed;
        self.slots_lost_most = self.slots_lost_most.max(other.slots_lost_most);
        self.killed += other.killed;
    }
}

/// How a process came to its end.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum End {
    /// It did not.
    Lives,
    /// It left in order.
    Left,
    /// It was killed.
    Killed,
}

/// What one process had at its end, or has now.
#[derive(Debug)]
struct Estate {
    host: u8,
    process: u32,
    end: End,
    produced: i64,
    /// What its slots brought into versions, as far as it knows, and what is not in any slot.
    committed: i64,
    uncut: i64,
    trimmed: i64,
    slots: Vec<Held>,
}

/// A slot of a ring, in quanta.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Held {
    /// A unit that is in it.
    pub(crate) unit: Option<u32>,
    /// What it holds.
    pub(crate) whole: i64,
    /// What of that travels.
    pub(crate) sent: i64,
}

/// Everybody's, collected as they end.
#[derive(Debug, Default)]
pub(crate) struct Estates(Vec<Estate>);

impl Estates {
    /// A process ends, or the run does.
    pub(crate) fn add(&mut self, host: u8, process: u32, end: End, books: &Books) {
        let [produced, committed, uncut, trimmed] = books.totals();
        let slots = books.slots().collect();
        self.0.push(Estate { host, process, end, produced, committed, uncut, trimmed, slots });
    }

    /// Adds it all up. `finals` is what the log holds of each process, `is_final` whether it holds that unit of it.
    ///
    /// # Errors
    /// What does not add up, or was lost and should not have been.
    pub(crate) fn sum(
        &self,
        depth: u8,
        finals: &BTreeMap<u32, i64>,
        is_final: impl Fn(u32, u32) -> bool,
    ) -> Result<Mass, String> {
        let mut all = Mass::default();
        for estate in &self.0 {
            let (host, process) = (estate.host, estate.process);
            let by_log = finals.get(&process).copied().unwrap_or(0);
            let (mut unreleased, mut in_slots, mut slots) = (0, 0, 0);
            for held in &estate.slots {
                if held.unit.is_some_and(|unit| is_final(process, unit)) {
                    (unreleased, in_slots) = (unreleased + held.sent, in_slots + held.whole - held.sent);
                } else {
                    (in_slots, slots) = (in_slots + held.whole, slots + 1);
                }
            }
            if by_log != estate.committed + unreleased {
                return Err(format!(
                    "I2: the log holds {by_log} quanta of n{host}'s process {process}, its books {} and {unreleased} \
                     that it has not released",
                    estate.committed
                ));
            }
            if estate.end == End::Killed && slots > u32::from(depth) {
                return Err(format!("F1: n{host} took {slots} slots with it, and its ring has {depth}"));
            }
            let mut mass = Mass {
                produced: estate.produced,
                committed: by_log,
                trimmed: estate.trimmed,
                ..Mass::default()
            };
            match estate.end {
                End::Lives => mass.waiting = in_slots + estate.uncut,
                End::Left => mass.left_behind = in_slots + estate.uncut,
                End::Killed => {
                    (mass.lost_in_slots, mass.lost_uncut) = (in_slots, estate.uncut);
                    (mass.slots_lost_most, mass.killed) = (slots, 1);
                }
            }
            if !mass.is_exact() {
                return Err(format!(
                    "I2: mass of n{host}'s process {process} is not where it should be: {mass:?}"
                ));
            }
            all += mass;
        }
        Ok(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process with two steps in a slot, one in another, and one that is not cut.
    fn books() -> Books {
        let mut books = Books::new(5, 3, 4);
        for (index, steps) in [(0, 2), (1, 1)] {
            (0..steps).for_each(|_| books.handle_step());
            books.handle_cut(index, false, None);
        }
        books.handle_step();
        books
    }

    #[test]
    fn what_died_is_lost_unless_the_log_has_it() {
        let books = books();
        let slots: Vec<Held> = books.slots().collect();
        assert_eq!((slots[0].unit, slots[1].unit), (Some(0), Some(2)));
        let mut estates = Estates::default();
        estates.add(1, 7, End::Killed, &books);
        estates.add(2, 8, End::Lives, &books);
        estates.add(3, 9, End::Left, &books);
        let finals = BTreeMap::from([(7, slots[0].whole)]);
        let listed = |process, unit| (process, unit) == (7, 0);
        let mass = estates.sum(4, &finals, listed).unwrap();
        assert_eq!((mass.lost_in_slots, mass.slots_lost_most, mass.killed), (slots[1].whole, 1, 1));
        assert_eq!((mass.waiting, mass.left_behind), (books.totals()[0], books.totals()[0]));
        assert!(mass.is_exact() && mass.lost_uncut > 0 && mass.committed == slots[0].whole);
        // The log holds something that the books know nothing of, or less than was released; more than a ring is lost.
        assert!(estates.sum(4, &finals, |_, _| false).unwrap_err().starts_with("I2"));
        assert!(estates.sum(4, &BTreeMap::new(), listed).unwrap_err().starts_with("I2"));
        assert!(estates.sum(0, &finals, listed).unwrap_err().starts_with("F1"));
    }
}
