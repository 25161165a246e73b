//! Which arena region holds what. Everything is sized once, for any number of members: ranges shrink as members
//! come, so the windows of one ring slot never need more than one slot's bytes where all own equal parts, and `factor`
//! times as much where a member may own `factor` equal parts: n contributions to at most factor / n of a slot.
//!
//! With a codec a slot is encoded into a region beside it, whole; ranges then begin at whole blocks, so that each is
//! a run of those bytes and can be decoded alone.

use crate::{Parts, Work};
use plesio_kernels::Codec;
use plesio_wire::near::NEAR_BYTES;
use plesio_wire::shares::{SHARE_ONE, share_most};
use plesio_wire::{MEMBERS_MAX, Span};

/// Bytes of an element of the sum and of the master state.
const SUM_ELEMENT_BYTES: u64 = 8;
/// Windows begin at multiples of it.
const WINDOW_ALIGN_BYTES: u64 = 64;
/// Cells of a neighbour, each way.
const CELLS: u64 = 64;

/// Region numbers of an arena, in the order of the arena's plan.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Regions {
    /// Elements of the trained state.
    pub elements: u64,
    /// How slots are encoded on the wire.
    pub codec: Codec,
    /// Equal parts that a member may own at most; 1: all own equal parts.
    pub factor: u8,
    /// Ring slots, and so windows per contributor.
    pub depth: u8,
    /// First of `depth` regions of one slot each: this node's own ring.
    pub slots: u16,
    /// First of `depth` regions of one encoded slot each; those of `slots` with [`Codec::Full`].
    pub codes: u16,
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
    /// First of two regions of cells, for what neighbours say about memory: what comes, what goes.
    pub cells: u16,
}

impl Regions {
    /// Bytes of a window region: one range of each contributor, each padded, for as many members as need most, where
    /// nobody owns more than `factor` equal parts.
    #[must_use]
    pub fn window_bytes(elements: u64, codec: Codec, factor: u8) -> u64 {
        let grain = grain_elements(codec);
        let grains = elements.div_ceil(grain);
        let owned_most = |members: usize| {
            // Both ends of a range are rounded down, so it is the exact one or one grain longer.
            let equal = grains.div_ceil(members as u64);
            let weighted = u128::from(grains) * u128::from(share_most(members, factor));
            let weighted = weighted.div_ceil(u128::from(SHARE_ONE)) as u64;
            let most = if factor <= 1 { equal } else { equal.max(weighted) };
            most.saturating_mul(grain).min(elements)
        };
        let stride = |members: usize| stride_bytes(codec, owned_most(members));
        (1..=MEMBERS_MAX).map(|members| members as u64 * stride(members)).max().unwrap_or_default()
    }

    /// Bytes of an encoded slot.
    #[must_use]
    pub fn code_bytes(elements: u64, codec: Codec) -> u64 {
        encoded_bytes(codec, elements)
    }

    /// Bytes of a sum or result region.
    #[must_use]
    pub const fn sum_bytes(elements: u64) -> u64 {
        elements * SUM_ELEMENT_BYTES
    }

    /// Neighbours that have cells: more than a view has members.
    pub const DESKS: u16 = 48;

    /// Bytes of a region of cells.
    #[must_use]
    pub const fn cells_bytes() -> u64 {
        Self::DESKS as u64 * CELLS * NEAR_BYTES as u64
    }

    /// A cell of a desk, for what comes or what goes; `None` when it has no such cell.
    #[must_use]
    pub fn cell(&self, inward: bool, desk: u16, cell: u16) -> Option<Span> {
        let fits = desk < Self::DESKS && u64::from(cell) < CELLS;
        let number = u64::from(desk) * CELLS + u64::from(cell);
        fits.then(|| {
            self.span(self.cells + u16::from(!inward), number * NEAR_BYTES as u64, NEAR_BYTES as u64)
        })
    }

    /// Who owns which elements in a view of `members` members with these shares.
    #[must_use]
    pub fn parts(&self, members: usize, shares: &[u16]) -> Parts {
        Parts::new(self.elements, grain_elements(self.codec), members, shares)
    }

    /// What a version shares out among its owners.
    #[must_use]
    pub fn work(&self) -> Work {
        Work {
            elements: self.elements,
            contribution_bytes: encoded_bytes(self.codec, self.elements),
            result_bytes: self.elements * SUM_ELEMENT_BYTES,
            grain_elements: grain_elements(self.codec),
        }
    }

    /// Where own ring slot `slot` lies as it is sent.
    #[must_use]
    pub fn slot(&self, slot: u8) -> Span {
        self.span(self.codes + u16::from(slot), 0, encoded_bytes(self.codec, self.elements))
    }

    /// Range of own ring slot `slot` that `owner` sums.
    #[must_use]
    pub fn slot_part(&self, slot: u8, parts: &Parts, owner: usize) -> Span {
        let part = parts.range(owner);
        let start_bytes = encoded_bytes(self.codec, part.start);
        let len_bytes = encoded_bytes(self.codec, part.end) - start_bytes;
        self.span(self.codes + u16::from(slot), start_bytes, len_bytes)
    }

    /// Where this node, owner `me`, receives its range of `contributor`'s ring slot `slot`, on one side.
    #[must_use]
    pub fn window(&self, slot: u8, side: bool, parts: &Parts, me: usize, contributor: usize) -> Span {
        let len = parts.elements(me);
        let region = self.windows + 2 * u16::from(slot) + u16::from(side);
        let start_bytes = stride_bytes(self.codec, len) * contributor as u64;
        self.span(region, start_bytes, encoded_bytes(self.codec, len))
    }

    /// Where owner `owner`'s summed range is received.
    #[must_use]
    pub fn result(&self, parts: &Parts, owner: usize) -> Span {
        let start_bytes = parts.range(owner).start * SUM_ELEMENT_BYTES;
        self.span(self.results, start_bytes, parts.elements(owner) * SUM_ELEMENT_BYTES)
    }

    /// Where this node's own summed range lies; `turn` alternates.
    #[must_use]
    pub fn sum(&self, parts: &Parts, me: usize, turn: bool) -> Span {
        self.span(self.sums + u16::from(turn), 0, parts.elements(me) * SUM_ELEMENT_BYTES)
    }

    fn span(&self, region: u16, offset_bytes: u64, len_bytes: u64) -> Span {
        let word = |bytes: u64| {
            u32::try_from(bytes).expect("a region is smaller than 4 GiB: the arena's plan says so")
        };
        Span { region, offset_bytes: word(offset_bytes), len_bytes: word(len_bytes) }
    }
}

/// Where ranges may begin: encoded, at whole blocks of any codec.
const fn grain_elements(codec: Codec) -> u64 {
    match codec {
        Codec::Full => 1,
        _ => Codec::GRAIN_ELEMENTS as u64,
    }
}

fn encoded_bytes(codec: Codec, elements: u64) -> u64 {
    codec.encoded_bytes(elements as usize) as u64
}

fn stride_bytes(codec: Codec, elements: u64) -> u64 {
    encoded_bytes(codec, elements).next_multiple_of(WINDOW_ALIGN_BYTES)
}

/// Regions for tests: those of an arena with a ring of four slots, one after the other.
#[cfg(test)]
pub(crate) fn sample(elements: u64, codec: Codec, factor: u8) -> Regions {
    Regions {
        elements,
        codec,
        factor,
        depth: 4,
        slots: 1,
        codes: 1,
        windows: 5,
        sums: 13,
        results: 15,
        snapshot_out: 16,
        snapshot_in: 17,
        cells: 18,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn windows_of_all_contributors_fit_their_region_and_do_not_overlap() {
        let cases = [1u64, 5, 64, 255, 257, 1000, 74_752];
        for (elements, codec) in
            cases.into_iter().flat_map(|elements| Codec::ALL.map(|codec| (elements, codec)))
        {
            let regions = sample(elements, codec, 4);
            for (members, factor) in (1..=32).flat_map(|members| [1, 2, 4].map(|factor| (members, factor))) {
                let window_bytes = Regions::window_bytes(elements, codec, factor);
                let mut shares = Vec::new();
                if factor > 1 {
                    // As much as may be with as few as possible, and the last one takes the rest.
                    let mut rest = SHARE_ONE;
                    shares = (0..members).map(|_| share_most(members, factor)).collect::<Vec<u16>>();
                    for share in shares.iter_mut().rev() {
                        *share = (*share).min(rest);
                        rest -= *share;
                    }
                }
                let parts = regions.parts(members, &shares);
                let mut sent = 0;
                for me in 0..members {
                    let part = regions.slot_part(2, &parts, me);
                    assert_eq!(
                        (part.region, part.offset_bytes),
                        (3, sent),
                        "parts of a slot follow one another"
                    );
                    sent += part.len_bytes;
                    let mut end = 0;
                    for contributor in 0..members {
                        let window = regions.window(2, true, &parts, me, contributor);
                        assert!(window.offset_bytes >= end && window.region == 10);
                        assert_eq!(window.len_bytes, part.len_bytes);
                        end = window.offset_bytes + window.len_bytes;
                    }
                    assert!(u64::from(end) <= window_bytes, "{elements} {members} {factor}");
                }
                assert_eq!(u64::from(sent), Regions::code_bytes(elements, codec));
            }
        }
    }

    #[test]
    fn windows_cost_a_slot_for_every_equal_part_that_one_may_own() {
        let slot_bytes = 4 * 74_752;
        for factor in 1..=4 {
            let window_bytes = Regions::window_bytes(74_752, Codec::Full, factor);
            // Padding and rounding take a little on top.
            let over = window_bytes - u64::from(factor) * slot_bytes;
            assert!(over <= 32 * 2 * WINDOW_ALIGN_BYTES, "{factor}: {over}");
        }
    }
}
