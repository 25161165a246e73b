//! What becomes of a dead owner's pieces.
//!
//! Its pieces go to heirs. Everybody, nothing of the dead one's open any more, tells the heir of each piece whether it
//! holds the result. If somebody does, the heir gets it there: there is one result of a piece, ever. If nobody does who
//! lives, the heir wants the contributions and sums them. An heir knows itself as one only when all that stand
//! before it are dead, and is told only by those who know that too; so no two of them decide.

use super::{Duty, Work};
use crate::call::{Operation, Ranks};
use crate::network::links::Links;
use crate::network::record::Record;

impl Work {
    /// `dead` is one of `links.dead` already.
    pub(crate) fn handle_dead(&mut self, links: &mut Links, dead: usize) {
        let (me, ranks) = (links.me, links.ranks);
        self.wants[dead].clear();
        self.asks.retain(|(_, from), _| usize::from(*from) != dead);
        self.to_ask[dead].clear();
        for piece in core::mem::take(&mut self.asked[dead]).into_iter().flatten() {
            let state = &mut self.states[piece as usize];
            (state.verdict, state.arrived) = (None, None);
        }
        self.narrowed.handle_dead(dead);
        for duty in self.duties.values_mut() {
            duty.fetching.take_if(|from| *from == dead);
        }
        if self.call.operation == Operation::ReduceScatter {
            return;
        }
        let root = match self.call.operation {
            Operation::Broadcast { root } => Some(usize::from(root)),
            _ => None,
        };
        if root == Some(dead) {
            // Only the root could give a piece to its owner, and nobody else has what that one has not.
            for piece in self.pieces.of_owner(me) {
                if self.states[piece as usize].held.is_none() {
                    self.hold(piece, Ranks::default());
                }
            }
        }
        let before = links.dead.without(Ranks::default().with(dead));
        for piece in 0..self.pieces.count() {
            if self.pieces.owner(piece, ranks, before) != dead {
                continue;
            }
            let has = self.states[piece as usize].held.is_some();
            match self.pieces.owner(piece, ranks, links.dead) {
                heir if heir != me => {
                    links.tell(heir, Record::State { number: links.number as u32, piece, has });
                    if !has {
                        self.to_ask[heir].push_back(piece);
                    }
                }
                _ if !has => {
                    self.duties.insert(piece, Duty { inherited: true, ..Duty::default() });
                }
                _ => {}
            }
        }
    }

    /// Whether the result of an inherited piece is somewhere, or is to be made.
    pub(super) fn inherit(&mut self, links: &Links, piece: u32) {
        let others = links.others();
        let Some(duty) = self.duties.get_mut(&piece) else { return };
        let decided = !duty.inherited || duty.queued || duty.fetching.is_some();
        let (known, holders) = self.told.get(&piece).copied().unwrap_or_default();
        if decided || !others.without(known).is_empty() {
            return;
        }
        if let Some(holder) = others.iter().find(|rank| holders.contains(*rank)) {
            duty.fetching = Some(holder);
            self.to_ask[holder].push_front(piece);
        } else if self.sums() {
            self.want(piece, true);
        } else {
            self.duties.remove(&piece);
            self.hold(piece, Ranks::default());
        }
    }
}
