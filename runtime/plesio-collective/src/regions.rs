//! Which arena region holds what. Everything is sized once, for any number of members: ranges shrink as members
//! come, so the windows of one ring slot never need more than one slot's bytes.

use crate::range;
use plesio_wire::Span;

/// Bytes of a slot element.
pub(crate) const SLOT_ELEMENT_BYTES: u64 = 4;
/// Bytes of an element of the sum and of the master state.
pub(crate) const SUM_ELEMENT_BYTES: u64 = 8;

/// Region numbers of an arena, in the order of the arena's plan.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Regions {
    /// Elements of the trained state.
    pub elements: u64,
    /// Ring slots, and so windows per contributor.
    pub depth: u8,
    /// First of `depth` regions of one slot each: this node's own ring.
    pub slots: u16,
    /// First of `2 depth` regions; regions 2b and 2b + 1, the two sides, receive this node's range of everybody's
    /// slot b in turn, so that what is held never lies where something may still be received.
    pub windows: u16,
    /// First of two regions for this node's own summed range, used in turn.
    pub sums: u16,
    /// Region that receives the other owners' summed ranges, laid out as the master state.
    pub results: u16,
    /// Region a snapshot is sent from.
    pub snapshot_out: u16,
    /// Region a snapshot is received into.
    pub snapshot_in: u16,
}

impl Regions {
    /// Bytes of a window region: one range of each of up to 32 contributors, each padded to 64 bytes.
    #[must_use]
    pub const fn window_bytes(elements: u64) -> u64 {
        elements * SLOT_ELEMENT_BYTES + 32 * (64 + SLOT_ELEMENT_BYTES)
    }

    /// Bytes of a sum or result region.
    #[must_use]
    pub const fn sum_bytes(elements: u64) -> u64 {
        elements * SUM_ELEMENT_BYTES
    }

    /// Range of own ring slot `slot` that `owner` of `members` sums.
    #[must_use]
    pub fn slot_part(&self, slot: u8, members: usize, owner: usize) -> Span {
        let part = range(self.elements, members, owner);
        self.span(
            self.slots + u16::from(slot),
            part.start * SLOT_ELEMENT_BYTES,
            part.end - part.start,
            SLOT_ELEMENT_BYTES,
        )
    }

    /// Where this node, owner `me` of `members`, receives its range of `contributor`'s ring slot `slot`, on one side.
    #[must_use]
    pub fn window(&self, slot: u8, side: bool, members: usize, me: usize, contributor: usize) -> Span {
        let part = range(self.elements, members, me);
        let len = part.end - part.start;
        let stride_bytes = (len * SLOT_ELEMENT_BYTES).next_multiple_of(64);
        let region = self.windows + 2 * u16::from(slot) + u16::from(side);
        self.span(region, stride_bytes * contributor as u64, len, SLOT_ELEMENT_BYTES)
    }

    /// Where owner `owner`'s summed range is received.
    #[must_use]
    pub fn result(&self, members: usize, owner: usize) -> Span {
        let part = range(self.elements, members, owner);
        self.span(self.results, part.start * SUM_ELEMENT_BYTES, part.end - part.start, SUM_ELEMENT_BYTES)
    }

    /// Where this node's own summed range lies; `turn` alternates.
    #[must_use]
    pub fn sum(&self, members: usize, me: usize, turn: bool) -> Span {
        let part = range(self.elements, members, me);
        self.span(self.sums + u16::from(turn), 0, part.end - part.start, SUM_ELEMENT_BYTES)
    }

    fn span(&self, region: u16, offset_bytes: u64, len: u64, element_bytes: u64) -> Span {
        let word = |bytes: u64| {
            u32::try_from(bytes).expect("a region is smaller than 4 GiB: the arena's plan says so")
        };
        Span { region, offset_bytes: word(offset_bytes), len_bytes: word(len * element_bytes) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_all_contributors_fit_their_region_and_do_not_overlap() {
        for elements in [1u64, 5, 64, 1000, 74_752] {
            let regions = Regions {
                elements,
                depth: 4,
                slots: 1,
                windows: 5,
                sums: 13,
                results: 15,
                snapshot_out: 16,
                snapshot_in: 17,
            };
            for members in 1..=32 {
                for me in 0..members {
                    let mut end = 0;
                    for contributor in 0..members {
                        let window = regions.window(2, true, members, me, contributor);
                        assert!(window.offset_bytes >= end && window.region == 10);
                        end = window.offset_bytes + window.len_bytes;
                    }
                    assert!(u64::from(end) <= Regions::window_bytes(elements), "{elements} {members}");
                }
            }
        }
    }
}
