//! Where nodes were seen last, whatever became of them since: for asking, and for nothing else.
//!
//! The roster forgets whom the view in force does not seat, because the next life of a node may be elsewhere and what is
//! known of the last one would be taken for it. But a node that all others have left behind knows nobody then. Here it
//! finds whom to ask, as a stranger asks: whoever answers says which view is in force and where its lives are.
//!
//! Bounded, and it never connects anything: an address here is a place to knock at, not a name.

use plesio_wire::NodeKey;
use plesio_wire::sideband::RosterEntry;
use std::collections::VecDeque;
use std::net::SocketAddr;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// What this node was told to ask when it was started; kept for good.
    seeds: Vec<SocketAddr>,
    /// Whom rosters and views named, the one named last at the end.
    seen: VecDeque<RosterEntry>,
    /// Whose turn it is: the seeds, then what was seen last.
    turn: usize,
}

impl Places {
    pub(super) fn new(seeds: &[SocketAddr]) -> Self {
        Self { seeds: seeds.iter().copied().take(PLACES_MAX).collect(), ..Self::default() }
    }

    /// A node is there, by the word of somebody who may know.
    pub(super) fn note(&mut self, entry: &RosterEntry) {
        if self.seen.back() == Some(entry) {
            return;
        }
        let key = entry.id.key();
        self.seen.retain(|known| known.id.key() != key);
        if self.seen.len() == PLACES_MAX {
            self.seen.pop_front();
        }
        self.seen.push_back(*entry);
    }

    /// Whether somebody may answer from there.
    pub(super) fn contains(&self, address: SocketAddr) -> bool {
        self.seeds.contains(&address) || self.seen.iter().any(|entry| entry.sideband.0 == address)
    }

    /// The next `count` places but those of `me`, each once: address, and whom to expect there where that is known.
    pub(super) fn next(&mut self, me: NodeKey, count: usize) -> Vec<(SocketAddr, Option<RosterEntry>)> {
        let seeds = self.seeds.iter().map(|seed| (*seed, None));
        let seen = self.seen.iter().rev().filter(|entry| entry.id.key() != me);
        let all: Vec<_> = seeds.chain(seen.map(|entry| (entry.sideband.0, Some(*entry)))).collect();
        let from = self.turn % all.len().max(1);
        self.turn = from + count;
        all.iter().cycle().skip(from).take(count.min(all.len())).copied().collect()
    }
}

/// Nodes remembered, twice as many as a view has members.
const PLACES_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::super::roster::tests::{address, entry};
    use super::*;
    use crate::engine::node_id;

    #[test]
    fn everybody_has_a_turn_and_the_oldest_make_room() {
        let me = node_id(b"me");
        let mut places = Places::new(&[address(9)]);
        places.note(&entry(me, 1));
        for number in 0..100u16 {
            places.note(&entry(node_id(&number.to_le_bytes()), 1_000 + 2 * number));
        }
        assert_eq!(places.seen.len(), PLACES_MAX);
        assert!(places.contains(address(9)) && places.contains(address(1_198)));
        assert!(!places.contains(address(1_000)), "the oldest made room");
        let first = places.next(me.key(), 2);
        assert_eq!(first[0], (address(9), None));
        assert_eq!(first[1].0, address(1_198), "what was seen last is asked first");
        let mut asked: Vec<u16> = first.iter().map(|(to, _)| to.port()).collect();
        for _ in 0..8 {
            asked.extend(places.next(me.key(), 8).iter().map(|(to, _)| to.port()));
        }
        asked.sort_unstable();
        asked.dedup();
        assert_eq!(asked.len(), 1 + PLACES_MAX, "each has a turn");
    }

    #[test]
    fn who_moves_is_looked_for_where_it_was_last_and_nobody_asks_itself() {
        let (me, other) = (node_id(b"me"), node_id(b"other"));
        let mut places = Places::default();
        assert!(places.next(me.key(), 8).is_empty());
        for (id, port) in [(other, 10), (me, 20), (other, 30)] {
            places.note(&entry(id, port));
        }
        assert_eq!(places.next(me.key(), 8), [(address(30), Some(entry(other, 30)))]);
        assert!(!places.contains(address(10)));
    }
}
