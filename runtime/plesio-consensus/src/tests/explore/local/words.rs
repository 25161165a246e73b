//! What a member says when it is asked for everything: what the facts about it are.

use super::{Fact, Local};
use crate::quorum::is_quorum;
use plesio_wire::sideband::{Address, Join, Leave, Message};
use plesio_wire::value::{Value, View};
use plesio_wire::{Incarnation, MemberIndex, MemberSet, NodeId, NodeKey};
use std::vec::Vec;

impl Local {
    pub(super) fn tell_progress(&self, before: &Self, told: &mut Vec<Fact>) {
        let (version, index) = (self.machine.version_held(), self.index());
        if self.machine.is_member() {
            told.push(Fact::Hold { of: self.key, version, index });
        } else if self.machine.is_started() {
            told.push(Fact::Join { join: self.join() });
        }
        let had = before.machine.snapshot().map(|cut| cut.index);
        told.extend(self.snapshot().filter(|_| self.machine.snapshot().map(|cut| cut.index) != had));
    }

    /// The snapshot that it can give now.
    pub(in super::super) fn snapshot(&self) -> Option<Fact> {
        let cut = self.machine.snapshot()?;
        let state = *self.applied.get(&cut.version)?;
        let books = Some(&self.books_cut).filter(|books| books.next() == cut.index)?;
        Some(Fact::Snapshot { cut: cut.into(), books: books.clone().into(), state })
    }

    /// LEAVE, to every other member; nothing before it wants to go.
    pub(in super::super) fn goodbyes(&self) -> Vec<Fact> {
        let leave = Leave { incarnation: self.life };
        let view = self.machine.view();
        let others = view.members.iter().map(|seat| seat.key).filter(|key| self.leaves() && *key != self.key);
        let message = |to| Fact::Message {
            from: self.key,
            to,
            view: view.number,
            message: Message::Leave(leave).into(),
        };
        others.map(message).collect()
    }

    /// The word of a joiner.
    pub(in super::super) fn join(&self) -> Join {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&self.key.0.to_le_bytes());
        let hold = if self.machine.has_state() { self.machine.version_held().0 + 1 } else { 0 };
        let sideband = Address(([10, 0, 0, self.key.0 as u8], 47_701).into());
        Join { id: NodeId(id), incarnation: self.life, sideband, hold, ..Join::default() }
    }

    /// Its announced slots, as the owners of the view in force get them.
    pub(in super::super) fn offers(&self) -> Vec<Fact> {
        let Some(admission) = self.admission() else { return Vec::new() };
        let view = self.machine.view_index();
        self.machine.own_slots().map(|(slot, _)| Fact::Offer { view, admission, slot }).collect()
    }

    /// Result shards of the open version that it holds.
    pub(in super::super) fn held_shards(&self) -> Vec<Fact> {
        let shards = self.shards.iter();
        shards
            .map(|((context, owner), content)| Fact::Shard {
                context: *context,
                owner: *owner,
                content: *content,
            })
            .collect()
    }

    /// Values that it has accepted or that stand in force here and change the members.
    pub(in super::super) fn views(&self) -> Vec<View> {
        let mut views: Vec<View> = [*self.machine.view()].into();
        if let Some((_, Value::View(view))) = self.machine.round.accepted {
            views.push(view);
        }
        views
    }
}

/// Whether `live` holds a quorum of `view`, by key and life.
pub(in super::super) fn has_quorum(view: &View, live: &[(NodeKey, Incarnation)]) -> bool {
    let mut set = MemberSet::EMPTY;
    for (at, seat) in view.members.iter().enumerate() {
        if live.contains(&(seat.key, seat.incarnation)) {
            set.insert(at as MemberIndex);
        }
    }
    is_quorum(view.members.len(), set)
}
