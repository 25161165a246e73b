//! What is past: facts of which a member will never make anything again. They say nothing about what is to come, so two
//! states that differ in them alone are one.
//!
//! A member's index, its promise within an index and its view only rise in one life, so what lies below them stays there.

use super::fact::Fact;
use super::local::Local;
use super::rows::Row;
use super::store::{LocalId, Mind, Move, Store};
use super::world::{FACT_WORDS, FactSet, LIFE_NEW, insert, members_of};
use plesio_wire::Ballot;
use plesio_wire::sideband::{Accept, Commit, Epoch, Last, Message, Propose, Query};
use std::string::String;
use std::vec::Vec;

/// Past facts by local state.
pub(super) struct Past {
    row: Row,
    of: Vec<Known>,
}

#[derive(Clone, Copy)]
struct Known {
    judged: FactSet,
    /// Said to this member alone.
    own: FactSet,
    /// Said to everybody: past once they are for all.
    shared: FactSet,
}

const NOTHING: Known = Known { judged: [0; FACT_WORDS], own: [0; FACT_WORDS], shared: [0; FACT_WORDS] };

impl Past {
    pub(super) fn new(row: &Row) -> Self {
        Self { row: row.clone(), of: Vec::new() }
    }

    /// Takes out of `facts` what is past for those in `locals`.
    pub(super) fn clear(
        &mut self,
        store: &mut Store,
        locals: &[LocalId],
        facts: &mut FactSet,
    ) -> Result<(), String> {
        let (mut own, mut shared) = ([0; FACT_WORDS], [u64::MAX; FACT_WORDS]);
        for local in locals {
            self.judge(store, *local, facts)?;
            let known = &self.of[*local as usize];
            own.iter_mut().zip(known.own).for_each(|(own, known)| *own |= known);
            shared.iter_mut().zip(known.shared).for_each(|(shared, known)| *shared &= known);
        }
        for (facts, (own, shared)) in facts.iter_mut().zip(own.into_iter().zip(shared)) {
            *facts &= !(own | shared);
        }
        Ok(())
    }

    fn judge(&mut self, store: &mut Store, id: LocalId, facts: &FactSet) -> Result<(), String> {
        let at = id as usize;
        self.of.resize(self.of.len().max(at + 1), NOTHING);
        let mut news = *facts;
        news.iter_mut().zip(self.of[at].judged).for_each(|(facts, judged)| *facts &= !judged);
        for fact in members_of(&news) {
            insert(&mut self.of[at].judged, fact);
            let is_own = matches!(store.fact(fact), Fact::Message { .. });
            // The rule says that nothing can come of it; the machine is asked as well.
            if is_past(&self.row, store.local(id), store.fact(fact))
                && store.step(id, Move::Receive(fact), Mind::default())?.is_none()
            {
                let known = &mut self.of[at];
                insert(if is_own { &mut known.own } else { &mut known.shared }, fact);
            }
        }
        Ok(())
    }
}

/// Whether nothing can come of the fact for this member any more, in this life.
fn is_past(row: &Row, local: &Local, fact: &Fact) -> bool {
    if row.restarts == Some(local.key) && local.life.0 < LIFE_NEW {
        return false;
    }
    if local.has_left {
        return true;
    }
    if !local.machine.is_started() {
        return false;
    }
    let index = local.index();
    match fact {
        Fact::Message { to, message, .. } => *to == local.key && is_message_past(local, message),
        // Who knows an entry holds it against every other of that index.
        Fact::Decided { index: of, .. } => *of < index && local.knows(*of),
        // Of the version sealed last they may still be gathered.
        Fact::Shard { context, .. } => context.0 + 2 < index.0,
        Fact::Offer { view, .. } => *view < local.machine.view_index(),
        Fact::Snapshot { cut, .. } => {
            cut.index <= index && local.machine.has_state() && local.machine.version_held() >= cut.version
        }
        // Nothing is forgotten of a member that stays one, and only who leaves counts who has learnt what.
        Fact::Hold { of, .. } => {
            !row.joins && row.leaves != Some(local.key) && local.machine.view().index_of(*of).is_some()
        }
        Fact::Join { .. } => false,
    }
}

fn is_message_past(local: &Local, message: &Message) -> bool {
    let round = &local.machine.round;
    let (index, rests) = match message {
        // Below the promise nothing is answered (R4).
        Message::Query(Query { index, frame, term, .. }) => {
            (*index, Ballot { frame: *frame, term: *term } < round.promised)
        }
        // An attempt below the promise is over, and after the proposal an answer shows shards and nothing else.
        Message::Last(Last { index, ballot, .. }) => {
            let own = round.attempt.as_ref().filter(|attempt| attempt.ballot == *ballot);
            let is_proposed = own.is_some_and(|attempt| attempt.proposal.is_some());
            (*index, *ballot < round.promised || is_proposed)
        }
        // Votes are for a ballot that was used and is used once (R2), and each counts once.
        Message::Accept(Accept { index, .. }) | Message::Seal(Accept { index, .. }) => (*index, true),
        // These leave their value behind whatever comes of them, and a COMMIT may name it.
        Message::Propose(Propose { index, .. }) => (*index, false),
        Message::Epoch(Epoch { index, .. }) => (*index, false),
        Message::Commit(Commit { index, .. }) => (*index, false),
        _ => return false,
    };
    index < local.index() || (index == local.index() && rests)
}
