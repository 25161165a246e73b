//! Encoded sums that are on their way: where they lie, and who has not got them yet. A place is free when all have.

use super::DEPTH_MAX;
use crate::call::Ranks;
use alloc::collections::BTreeMap;
use plesio_wire::data::MessageId;

#[derive(Debug, Default)]
pub(crate) struct Narrowed {
    /// By slot: of which piece, and who has not got it yet.
    places: [Option<(u32, Ranks)>; DEPTH_MAX],
    /// Messages that carry them, and from which slot.
    flying: BTreeMap<(u8, MessageId), usize>,
}

impl Narrowed {
    pub(crate) fn is_free(&self, slot: usize) -> bool {
        self.places[slot].is_none()
    }

    /// The sum of a piece will lie in a slot until `others` have it.
    pub(crate) fn keep(&mut self, slot: usize, piece: u32, others: Ranks) {
        self.places[slot] = Some((piece, others));
    }

    /// Where the sum of a piece lies.
    pub(crate) fn slot_of(&self, piece: u32) -> Option<usize> {
        self.places.iter().position(|place| place.is_some_and(|(of, _)| of == piece))
    }

    pub(crate) fn handle_sending(&mut self, to: u8, message: MessageId, slot: usize) {
        self.flying.insert((to, message), slot);
    }

    /// A message has arrived.
    pub(crate) fn handle_sent(&mut self, to: u8, message: MessageId) {
        if let Some(slot) = self.flying.remove(&(to, message)) {
            self.release(slot, to.into());
        }
    }

    pub(crate) fn handle_dead(&mut self, rank: usize) {
        (0..DEPTH_MAX).for_each(|slot| self.release(slot, rank));
        self.flying.retain(|(to, _), _| usize::from(*to) != rank);
    }

    /// `rank` needs what lies in a slot no more.
    fn release(&mut self, slot: usize, rank: usize) {
        if let Some((_, waiting)) = &mut self.places[slot] {
            *waiting = waiting.without(Ranks::default().with(rank));
            if waiting.is_empty() {
                self.places[slot] = None;
            }
        }
    }
}
