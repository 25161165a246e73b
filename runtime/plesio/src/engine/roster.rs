//! Where everybody is: whose word counts about whose address.
//!
//! JOIN and ROSTER are not authenticated, so none of them moves a life that has a seat: its addresses are those it was
//! admitted with, until a view names another life. Who asks to be let in is kept aside with the life that asks; the
//! view that seats this life makes its addresses known ones. A ROSTER fills what is missing, and only from somebody
//! who was asked.

use super::Engine;
use plesio_wire::sideband::RosterEntry;
use plesio_wire::value::{Seat, View};
use plesio_wire::{Incarnation, MemberSet, NodeKey};
use std::net::SocketAddr;

impl Engine {
    /// Whether an answer from there may be one: a member that is known, or an address this node was told to ask.
    pub(super) fn is_asked(&self, from: Option<NodeKey>, address: SocketAddr) -> bool {
        from.is_some()
            || self.joining.as_ref().is_some_and(|joining| joining.seeds.contains(&address))
            || self.roster.values().any(|entry| entry.sideband.0 == address)
            || self.places.contains(address)
    }

    /// Whether a roster of view `number` may tell this node something: an older one may name lives that are over.
    pub(super) fn is_current(&self, number: u32) -> bool {
        !self.consensus.is_started() || number >= self.consensus.view().number
    }

    /// Somebody who was asked says where others are. What is known of seated lives stays, except for one who lost its
    /// way: the lives of today may be elsewhere.
    pub(super) fn learn_roster(&mut self, entries: &[RosterEntry]) {
        let view = *self.consensus.view();
        let lost = self.joining.as_ref().is_some_and(|joining| joining.lost);
        let fixed = |key: NodeKey| key == self.key || (!lost && view.index_of(key).is_some());
        let news: Vec<RosterEntry> = entries
            .iter()
            .filter(|entry| !(fixed(entry.id.key()) && self.roster.contains_key(&entry.id.key())))
            .copied()
            .collect();
        if self.roster.len() + news.len() > ROSTER_MAX {
            let me = self.key;
            self.roster.retain(|key, _| *key == me || view.index_of(*key).is_some());
        }
        for entry in &news {
            if self.roster.len() < ROSTER_MAX {
                self.roster.insert(entry.id.key(), *entry);
                self.places.note(entry);
            }
        }
        self.consensus.handle_roster(&news);
    }

    /// The members of the view in force that have these indices.
    pub(super) fn named(&self, set: MemberSet) -> impl Iterator<Item = NodeKey> + '_ {
        let seats = &self.consensus.view().members;
        set.iter().filter_map(|index| seats.get(usize::from(index)).map(|seat| seat.key))
    }

    /// A life that the agreement knows as a joiner says where it is.
    pub(super) fn note_asking(&mut self, life: Incarnation, entry: &RosterEntry) {
        if self.asking.len() >= ASKING_MAX {
            let observers: Vec<NodeKey> = self.consensus.observers().collect();
            self.asking.retain(|key, _| observers.contains(key));
        }
        self.asking.insert(entry.id.key(), (life, *entry));
    }

    /// A view is in force: the lives it seats are where they said when they asked, and where earlier lives of them
    /// were says nothing. Of whom it does not seat nothing is remembered but where to ask: who comes back is another
    /// life, elsewhere.
    pub(super) fn seat_roster(&mut self, view: &View) {
        let before = std::mem::replace(&mut self.placed, *view);
        let me = self.key;
        self.roster.retain(|key, _| *key == me || view.index_of(*key).is_some());
        for seat in view.members.iter().filter(|seat| seat.key != self.key) {
            let asked = self.asking.get(&seat.key).filter(|(life, _)| *life == seat.incarnation);
            if let Some((_, entry)) = asked {
                let entry = *entry;
                self.asking.remove(&seat.key);
                self.roster.insert(seat.key, entry);
                self.places.note(&entry);
                self.consensus.handle_roster(&[entry]);
            } else if before.index_of(seat.key).is_some_and(|at| !is_same(&before, at, seat)) {
                self.roster.remove(&seat.key);
            }
        }
    }

    /// Where a life of `key` is: as it said when it asked, else as is known of the node.
    pub(super) fn entry_of(&self, key: NodeKey, life: Incarnation) -> Option<&RosterEntry> {
        let asked = self.asking.get(&key).filter(|(asked, _)| *asked == life);
        asked.map(|(_, entry)| entry).or_else(|| self.roster.get(&key))
    }

    pub(super) fn address_of(&self, key: NodeKey) -> Option<&RosterEntry> {
        self.roster.get(&key)
    }
}

fn is_same(view: &View, at: u16, seat: &Seat) -> bool {
    view.members.get(usize::from(at)).is_some_and(|known| known.incarnation == seat.incarnation)
}

/// Entries remembered: members of a few views.
const ROSTER_MAX: usize = 128;
/// Lives remembered that ask to be let in, and some that gave up.
const ASKING_MAX: usize = 32;

#[cfg(test)]
pub(super) mod tests;
