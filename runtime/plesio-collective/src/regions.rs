//! Which arena region holds what. Everything is sized once, for any number of members: ranges shrink as members
//! come, so the windows of one ring slot never need more than one slot's bytes.
//!
//! With a codec a slot is encoded into a region beside it, whole; ranges then begin at whole blocks, so that each is
//! a run of those bytes and can be decoded alone.

use crate::{range, range_in_grains};
use core::ops::Range;
use plesio_kernels::Codec;
use plesio_wire::{MEMBERS_MAX, Span};

/// Bytes of an element of the sum and of the master state.
const SUM_ELEMENT_BYTES: u64 = 8;
/// Windows begin at multiples of it.
const WINDOW_ALIGN_BYTES: u64 = 64;

/// Region numbers of an arena, in the order of the arena's plan.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Regions {
    /// Elements of the trained state.
    pub elements: u64,
    /// How slots are encoded on the wire.
    pub codec: Codec,
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
}

impl Regions {
    /// Bytes of a window region: one range of each contributor, each padded, for as many members as need most.
    #[must_use]
    pub fn window_bytes(elements: u64, codec: Codec) -> u64 {
        let owned_max = |members: usize| {
            (0..members).map(|me| len(&part(elements, codec, members, me))).max().unwrap_or_default()
        };
        let stride = |members: usize| stride_bytes(codec, owned_max(members));
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

    /// Elements that `owner` of `members` sums.
    #[must_use]
    pub fn part(&self, members: usize, owner: usize) -> Range<u64> {
        part(self.elements, self.codec, members, owner)
    }

    /// Where own ring slot `slot` lies as it is sent.
    #[must_use]
    pub fn slot(&self, slot: u8) -> Span {
        self.span(self.codes + u16::from(slot), 0, encoded_bytes(self.codec, self.elements))
    }

    /// Range of own ring slot `slot` that `owner` of `members` sums.
    #[must_use]
    pub fn slot_part(&self, slot: u8, members: usize, owner: usize) -> Span {
        let part = self.part(members, owner);
        let start_bytes = encoded_bytes(self.codec, part.start);
        let len_bytes = encoded_bytes(self.codec, part.end) - start_bytes;
        self.span(self.codes + u16::from(slot), start_bytes, len_bytes)
    }

    /// Where this node, owner `me` of `members`, receives its range of `contributor`'s ring slot `slot`, on one side.
    #[must_use]
    pub fn window(&self, slot: u8, side: bool, members: usize, me: usize, contributor: usize) -> Span {
        let len = len(&self.part(members, me));
        let region = self.windows + 2 * u16::from(slot) + u16::from(side);
        let start_bytes = stride_bytes(self.codec, len) * contributor as u64;
        self.span(region, start_bytes, encoded_bytes(self.codec, len))
    }

    /// Where owner `owner`'s summed range is received.
    #[must_use]
    pub fn result(&self, members: usize, owner: usize) -> Span {
        let part = self.part(members, owner);
        self.span(self.results, part.start * SUM_ELEMENT_BYTES, len(&part) * SUM_ELEMENT_BYTES)
    }

    /// Where this node's own summed range lies; `turn` alternates.
    #[must_use]
    pub fn sum(&self, members: usize, me: usize, turn: bool) -> Span {
        let len = len(&self.part(members, me));
        self.span(self.sums + u16::from(turn), 0, len * SUM_ELEMENT_BYTES)
    }

    fn span(&self, region: u16, offset_bytes: u64, len_bytes: u64) -> Span {
        let word = |bytes: u64| {
            u32::try_from(bytes).expect("a region is smaller than 4 GiB: the arena's plan says so")
        };
        Span { region, offset_bytes: word(offset_bytes), len_bytes: word(len_bytes) }
    }
}

/// The equal shard table; encoded, in whole blocks of any codec.
fn part(elements: u64, codec: Codec, members: usize, owner: usize) -> Range<u64> {
    match codec {
        Codec::Full => range(elements, members, owner),
        _ => range_in_grains(elements, Codec::GRAIN_ELEMENTS as u64, members, owner),
    }
}

fn len(part: &Range<u64>) -> u64 {
    part.end - part.start
}

fn encoded_bytes(codec: Codec, elements: u64) -> u64 {
    codec.encoded_bytes(elements as usize) as u64
}

fn stride_bytes(codec: Codec, elements: u64) -> u64 {
    encoded_bytes(codec, elements).next_multiple_of(WINDOW_ALIGN_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_of_all_contributors_fit_their_region_and_do_not_overlap() {
        let cases = [1u64, 5, 64, 255, 257, 1000, 74_752];
        for (elements, codec) in
            cases.into_iter().flat_map(|elements| Codec::ALL.map(|codec| (elements, codec)))
        {
            let regions = Regions {
                elements,
                codec,
                depth: 4,
                slots: 1,
                codes: 1,
                windows: 5,
                sums: 13,
                results: 15,
                snapshot_out: 16,
                snapshot_in: 17,
            };
            for members in 1..=32 {
                let mut sent = 0;
                for me in 0..members {
                    let part = regions.slot_part(2, members, me);
                    assert_eq!(
                        (part.region, part.offset_bytes),
                        (3, sent),
                        "parts of a slot follow one another"
                    );
                    sent += part.len_bytes;
                    let mut end = 0;
                    for contributor in 0..members {
                        let window = regions.window(2, true, members, me, contributor);
                        assert!(window.offset_bytes >= end && window.region == 10);
                        assert_eq!(window.len_bytes, part.len_bytes);
                        end = window.offset_bytes + window.len_bytes;
                    }
                    assert!(u64::from(end) <= Regions::window_bytes(elements, codec), "{elements} {members}");
                }
                assert_eq!(u64::from(sent), Regions::code_bytes(elements, codec));
            }
        }
    }
}
