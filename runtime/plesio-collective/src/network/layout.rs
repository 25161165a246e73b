//! What lies where in the region that a rank sets aside for the network path, and how a tensor is cut.
//!
//! ```text
//! hellos sent, 3 │ hellos received, 3 of each rank │ control sent, received, 8 of each │ contributions │ results
//! ```
//!
//! Three hellos, because that of the last call is kept for one who lacks it while those of this and the next arrive.

use super::DEPTH_MAX;
use super::control::{MESSAGE_BYTES, RING};
use super::record::HELLO_BYTES;
use crate::call::{Call, Element, Ranks};
use alloc::vec::Vec;
use core::ops::Range;
use plesio_kernels::Codec;
use plesio_wire::Span;

/// Calls whose hellos are kept.
pub(crate) const SIDES: u64 = 3;
/// Pieces begin at multiples of it: a common multiple of all codecs' blocks.
pub(crate) const GRAIN_ELEMENTS: u64 = 1024;

/// 128 KiB for two ranks, 8 KiB for 32: below it messages after one another cost more than the bytes they save.
const MAIL_BYTES_ALL: u32 = 256 << 10;
/// Bytes of all windows for contributions and results.
const WINDOW_BYTES: u32 = 27 << 18;
const SLOT_BYTES_MAX: u32 = 1 << 20;
const SLOT_GRAIN_BYTES: u32 = GRAIN_ELEMENTS as u32 * 4;
/// A share is cut into so many pieces at least, so that summing and sending go side by side,
const PIECES_MIN: u64 = 4;
/// unless they were smaller than this.
const PIECE_BYTES_MIN: u64 = 16 << 10;

#[derive(Clone, Copy, Debug)]
pub(crate) struct Layout {
    me: usize,
    ranks: usize,
    region: u16,
    slot_bytes_max: u32,
}

impl Layout {
    pub(crate) fn new(me: usize, ranks: usize, region: u16) -> Self {
        assert!(me < ranks && ranks <= Ranks::MAX, "a rank of a group of at most 32");
        Self { me, ranks, region, slot_bytes_max: SLOT_BYTES_MAX }
    }

    /// With pieces of at most so many bytes; the region gets no larger by it.
    pub(crate) fn with_slots(self, slot_bytes_max: u32) -> Self {
        Self { slot_bytes_max: slot_bytes_max.clamp(SLOT_GRAIN_BYTES, SLOT_BYTES_MAX), ..self }
    }

    /// Pieces that a rank sums at a time, and windows for results of one owner.
    pub(crate) const fn depth(&self) -> usize {
        if self.ranks <= 8 { DEPTH_MAX } else { DEPTH_MAX / 2 }
    }

    /// The largest tensor that goes to everybody whole: where ranks are few, one message costs less than three short ones
    /// after one another that carry half as much.
    pub(crate) const fn mail_bytes_max(&self) -> u32 {
        let ranks = if self.ranks > 2 { self.ranks.next_power_of_two() } else { 2 };
        MAIL_BYTES_ALL / ranks as u32
    }

    /// Bytes of a hello with mail.
    pub(crate) const fn letter_bytes(&self) -> u32 {
        HELLO_BYTES + self.mail_bytes_max()
    }

    /// Bytes of the largest piece.
    pub(crate) const fn slot_bytes(&self) -> u32 {
        let others = if self.ranks > 1 { self.ranks - 1 } else { 1 };
        let each = WINDOW_BYTES / (2 * others * self.depth()) as u32;
        let each = if each < self.slot_bytes_max { each } else { self.slot_bytes_max };
        each / SLOT_GRAIN_BYTES * SLOT_GRAIN_BYTES
    }

    /// Bytes of the largest piece, as it is, of a call with a codec: encoded or not, it fits half a slot. Its elements are a
    /// multiple of half the grain, which is still one of all codecs' blocks.
    pub(crate) const fn coded_slot_bytes(&self) -> u32 {
        self.slot_bytes() / 2
    }

    pub(crate) const fn region_bytes(&self) -> u32 {
        self.slots_at() + 2 * ((self.ranks - 1) * self.depth()) as u32 * self.slot_bytes()
    }

    pub(crate) fn letter_out(&self, number: u64, len_bytes: u32) -> Span {
        self.span((number % SIDES) as u32 * self.letter_bytes(), len_bytes)
    }

    pub(crate) fn letter_in(&self, rank: usize, number: u64, len_bytes: u32) -> Span {
        self.span((SIDES + rank as u64 * SIDES + number % SIDES) as u32 * self.letter_bytes(), len_bytes)
    }

    pub(crate) fn control_out(&self, rank: usize, slot: usize, len_bytes: u32) -> Span {
        self.span(self.control_at() + (2 * rank * RING + slot) as u32 * MESSAGE_BYTES, len_bytes)
    }

    pub(crate) fn control_in(&self, rank: usize, slot: usize) -> Span {
        self.span(self.control_at() + ((2 * rank + 1) * RING + slot) as u32 * MESSAGE_BYTES, MESSAGE_BYTES)
    }

    /// Where a rank's contribution to a piece of mine arrives.
    pub(crate) fn part(&self, rank: usize, slot: usize, len_bytes: u32) -> Span {
        self.slot(self.other(rank) * self.depth() + slot, len_bytes)
    }

    /// Where this rank's contribution lies, encoded, while it goes to a rank's slot: behind the one that comes from there.
    pub(crate) fn part_out(&self, rank: usize, slot: usize, len_bytes: u32) -> Span {
        self.half(self.other(rank) * self.depth() + slot, len_bytes)
    }

    /// Where a sum made in a slot lies, encoded, while it goes to everybody; a rank that is alone has none.
    pub(crate) fn result_out(&self, slot: usize, len_bytes: u32) -> Span {
        self.half((self.ranks - 1) * self.depth() + slot, len_bytes)
    }

    /// Where an owner's result arrives when it cannot go to its place at once.
    pub(crate) fn staging(&self, rank: usize, slot: usize, len_bytes: u32) -> Span {
        self.slot((self.ranks - 1 + self.other(rank)) * self.depth() + slot, len_bytes)
    }

    const fn control_at(&self) -> u32 {
        (SIDES as u32 + SIDES as u32 * self.ranks as u32) * self.letter_bytes()
    }

    const fn slots_at(&self) -> u32 {
        self.control_at() + (2 * self.ranks * RING) as u32 * MESSAGE_BYTES
    }

    const fn other(&self, rank: usize) -> usize {
        if rank > self.me { rank - 1 } else { rank }
    }

    fn slot(&self, slot: usize, len_bytes: u32) -> Span {
        debug_assert!(len_bytes <= self.slot_bytes());
        self.span(self.slots_at() + slot as u32 * self.slot_bytes(), len_bytes)
    }

    /// The upper half of a slot: encoded pieces are so short that what comes needs the lower one only.
    fn half(&self, slot: usize, len_bytes: u32) -> Span {
        debug_assert!(len_bytes <= self.coded_slot_bytes());
        self.span(self.slots_at() + slot as u32 * self.slot_bytes() + self.coded_slot_bytes(), len_bytes)
    }

    const fn span(&self, offset_bytes: u32, len_bytes: u32) -> Span {
        Span { region: self.region, offset_bytes, len_bytes }
    }
}

/// How the tensor of a call is cut: each owner's share into pieces, numbered in order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pieces {
    shares: Vec<Range<u64>>,
    /// Number of each owner's first piece, and the number of all.
    first: Vec<u32>,
    each: u64,
}

impl Pieces {
    pub(crate) fn new(call: &Call, shares: &[Range<u64>], slot_bytes: u32) -> Self {
        let bytes = call.element.bytes();
        let largest = shares.iter().map(|share| share.end - share.start).max().unwrap_or(0);
        let least = (largest / PIECES_MIN).max(PIECE_BYTES_MIN / bytes).next_multiple_of(GRAIN_ELEMENTS);
        let each = least.min(u64::from(slot_bytes) / bytes);
        let mut first = Vec::with_capacity(shares.len() + 1);
        let mut next = 0u32;
        for share in shares {
            first.push(next);
            next += (share.end - share.start).div_ceil(each) as u32;
        }
        first.push(next);
        Self { shares: shares.to_vec(), first, each }
    }

    pub(crate) fn count(&self) -> u32 {
        self.first.last().copied().unwrap_or(0)
    }

    pub(crate) fn of_owner(&self, owner: usize) -> Range<u32> {
        self.first[owner]..self.first[owner + 1]
    }

    /// In whose share a piece lies.
    pub(crate) fn home(&self, piece: u32) -> usize {
        self.first.partition_point(|first| *first <= piece) - 1
    }

    pub(crate) fn elements(&self, piece: u32) -> Range<u64> {
        let home = self.home(piece);
        let share = &self.shares[home];
        let start = share.start + u64::from(piece - self.first[home]) * self.each;
        start..share.end.min(start + self.each)
    }

    /// Elements of all pieces but each share's last.
    pub(crate) const fn each(&self) -> u64 {
        self.each
    }

    /// Whose a piece is when these are dead: its home's, or of those that live the one that a hash favours, so that what
    /// one leaves is spread over all and everybody knows to whom it goes.
    pub(crate) fn owner(&self, piece: u32, ranks: usize, dead: Ranks) -> usize {
        let home = self.home(piece);
        if !dead.contains(home) {
            return home;
        }
        let live = Ranks::first(ranks).without(dead);
        live.iter().max_by_key(|rank| mix(u64::from(piece) << 8 | *rank as u64)).unwrap_or(home)
    }
}

/// Where `elements` of a tensor lie that begins at `tensor`.
pub(crate) fn part_of(tensor: Span, element: Element, elements: &Range<u64>) -> Span {
    let offset_bytes = (elements.start * element.bytes()) as u32;
    let len_bytes = ((elements.end - elements.start) * element.bytes()) as u32;
    tensor.part(offset_bytes, len_bytes).expect("the call's place was checked")
}

/// In a setup's place: the tensor comes with the hello, and nothing else has to be in common.
pub(crate) const SETUP_MAIL: u64 = 0;

/// A digest that all ranks must have in common.
pub(crate) fn setup(ranks: usize, shares: &[Range<u64>], codec: Codec, slot_bytes: u32) -> u64 {
    let cuts = shares.iter().flat_map(|share| [share.start, share.end]);
    let begin = mix(mix(ranks as u64 | u64::from(codec.id()) << 32) ^ u64::from(slot_bytes));
    cuts.fold(begin, |digest, cut| mix(digest ^ cut)).max(SETUP_MAIL + 1)
}

/// A permutation of the numbers in which near ones go far (Steele, Lea, Flood, "Fast splittable pseudorandom number
/// generators", 2014).
pub(crate) const fn mix(value: u64) -> u64 {
    let value = value.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let value = (value ^ value >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let value = (value ^ value >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
    value ^ value >> 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::Operation;
    use crate::range;

    #[test]
    fn the_region_is_within_its_bound_and_nothing_overlaps() {
        for ranks in 1..=Ranks::MAX {
            for me in [0, ranks / 2, ranks - 1] {
                let layout = Layout::new(me, ranks, 3);
                assert!(layout.region_bytes() <= 8 << 20, "{ranks}: {}", layout.region_bytes());
                let mut spans = Vec::new();
                for number in 0..SIDES {
                    spans.push(layout.letter_out(number, layout.letter_bytes()));
                    spans
                        .extend((0..ranks).map(|rank| layout.letter_in(rank, number, layout.letter_bytes())));
                }
                for rank in (0..ranks).filter(|rank| *rank != me) {
                    for slot in 0..RING {
                        spans.push(layout.control_in(rank, slot));
                        spans.push(layout.control_out(rank, slot, MESSAGE_BYTES));
                    }
                    for slot in 0..layout.depth() {
                        spans.push(layout.part(rank, slot, layout.slot_bytes()));
                        spans.push(layout.staging(rank, slot, layout.slot_bytes()));
                    }
                }
                spans.sort_by_key(|span| span.offset_bytes);
                for pair in spans.windows(2) {
                    assert!(pair[0].offset_bytes + pair[0].len_bytes <= pair[1].offset_bytes);
                }
                let end = spans.last().map_or(0, |span| span.offset_bytes + span.len_bytes);
                assert!(end <= layout.region_bytes());
            }
        }
    }

    #[test]
    fn pieces_tile_the_tensor_and_fit_their_windows() {
        for (ranks, count, element) in [
            (1, 5, Element::F32),
            (2, 0, Element::F32),
            (4, 16 << 20, Element::F32),
            (32, 1_000_003, Element::Bf16),
            (8, 64 << 20, Element::Bf16),
        ] {
            let call = Call { operation: Operation::AllReduce, element, count };
            let shares: Vec<_> = (0..ranks).map(|rank| range(count, ranks, rank)).collect();
            let slot_bytes = Layout::new(0, ranks, 0).slot_bytes();
            let pieces = Pieces::new(&call, &shares, slot_bytes);
            let mut next = 0;
            for piece in 0..pieces.count() {
                let elements = pieces.elements(piece);
                assert_eq!(elements.start, next);
                assert!(
                    elements.end > next && (elements.end - next) * element.bytes() <= u64::from(slot_bytes)
                );
                assert!(pieces.of_owner(pieces.home(piece)).contains(&piece));
                next = elements.end;
            }
            assert_eq!(next, count);
        }
    }

    #[test]
    fn what_the_dead_leave_is_spread_and_moves_only_once() {
        let call = Call { operation: Operation::AllReduce, element: Element::F32, count: 64 << 20 };
        let shares: Vec<_> = (0..4).map(|rank| range(call.count, 4, rank)).collect();
        let pieces = Pieces::new(&call, &shares, 64 << 10);
        let one = Ranks::default().with(2);
        let mut heirs = [0; 4];
        for piece in 0..pieces.count() {
            let owner = pieces.owner(piece, 4, one);
            heirs[owner] += u32::from(pieces.home(piece) == 2);
            let two = one.with(0);
            assert!(owner == 0 || pieces.owner(piece, 4, two) == owner);
        }
        let left = pieces.of_owner(2).len() as u32;
        assert_eq!(heirs[2], 0);
        assert!([0, 1, 3].into_iter().all(|rank| heirs[rank] > left / 5), "{heirs:?} of {left}");
    }
}
