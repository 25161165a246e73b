//! What the ranks of a bench bring, and whether what comes out is right.

use plesio_collective::Element;

/// An element's bits.
pub(super) fn bits(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte))
}

/// Whether an element is the value wanted, or not farther from it.
pub(super) fn matches(element: Element, wanted: u32, found: &[u8], error_max: f64) -> bool {
    let exact = encode(element, wanted)[..found.len()] == *found;
    let near = || (f64::from(f32::from_bits(bits(found) as u32)) - f64::from(wanted)).abs() <= error_max;
    exact || (error_max > 0.0 && near())
}

/// Small whole numbers: every sum of 32 of them is exact in every type. They have no order that a block in a wrong place,
/// of a wrong rank or of an earlier operation could hide in.
pub(super) fn value(rank: u64, at: u64, turn: u64) -> u32 {
    let mixed = (at % PATTERN as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (turn << 8 | rank);
    let mixed = (mixed ^ mixed >> 29).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    1 + (mixed >> 33) as u32 % VALUE_MAX
}

/// An element's bytes, from the first on.
pub(super) fn encode(element: Element, value: u32) -> [u8; 4] {
    match element {
        Element::Bf16 => ((value as f32).to_bits() >> 16).to_le_bytes(),
        Element::I32 => value.to_le_bytes(),
        _ => (value as f32).to_le_bytes(),
    }
}

/// Elements written and compared at once; what they hold repeats after so many: a prime, so that no two blocks of a tensor
/// are the same.
pub(super) const PATTERN: usize = 16_381;
/// The largest value of an element.
pub(super) const VALUE_MAX: u32 = 7;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_in_a_wrong_place_or_of_another_rank_or_turn_shows() {
        let block =
            |rank, start: u64, turn| (0..1024).map(|at| value(rank, start + at, turn)).collect::<Vec<_>>();
        let right = block(1, 0, 3);
        for other in (1..300).map(|block| block * 1024) {
            let same = right.iter().zip(block(1, other, 3)).filter(|(one, two)| **one == *two).count();
            assert!(same < 300, "{same} of 1024 at {other}");
        }
        for other in [block(2, 0, 3), block(1, 0, 4), block(0, 0, 3)] {
            let same = right.iter().zip(other).filter(|(one, two)| **one == *two).count();
            assert!(same < 300, "{same} of 1024");
        }
        assert!((0..20_000).all(|at| (1..=7).contains(&value(31, at, u64::MAX))));
    }
}
