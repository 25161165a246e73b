//! Sparse contributions: the elements that are largest.
//!
//! Knows: exact selection, by counting. Does not know: what becomes of the rest. Invariant: the same elements
//! whatever does it; magnitudes are compared as bits, so a NaN stands above the infinities, and equals go by index.

use crate::error::{KernelError, check_count, check_len};

/// The `count` elements of largest magnitude, by rising index; of equal ones those with the lower index.
///
/// # Errors
/// More elements asked for than there are, more than 2^32 - 1 there, or room for another number. Nothing was written.
#[inline(always)]
pub fn top_k(x: &[f32], count: usize, indices: &mut [u32], values: &mut [f32]) -> Result<(), KernelError> {
    check(x, count, indices, values)?;
    if count == 0 {
        return Ok(());
    }
    let (floor, mut ties) = threshold(x, count as u32);
    let mut kept = indices.iter_mut().zip(values);
    for (index, block) in x.chunks(BLOCK).enumerate() {
        // Yes or no for the whole block first: where few are kept, most have none.
        let mut any = false;
        for &value in block {
            any |= magnitude(value) >= floor;
        }
        if !any {
            continue;
        }
        for (e, &value) in block.iter().enumerate() {
            let tie = magnitude(value) == floor;
            if magnitude(value) > floor || (tie && ties > 0) {
                ties -= u32::from(tie);
                let (index_kept, value_kept) = kept.next().expect("as many as were counted");
                (*index_kept, *value_kept) = ((index * BLOCK + e) as u32, value);
            }
        }
    }
    Ok(())
}

/// Checks the shapes of [`top_k`].
///
/// # Errors
/// As [`top_k`].
#[inline(always)]
pub fn check(x: &[f32], count: usize, indices: &[u32], values: &[f32]) -> Result<(), KernelError> {
    check_count("elements", x.len(), 0, u32::MAX as usize)?;
    check_count("largest elements", count, 0, x.len())?;
    check_len("indices", count, indices.len())?;
    check_len("values", count, values.len())
}

/// Elements that are looked at together.
const BLOCK: usize = 16;

/// Bits that order like magnitudes.
#[inline(always)]
fn magnitude(value: f32) -> u32 {
    value.to_bits() & 0x7fff_ffff
}

/// The magnitude of the `count`-th largest element, and how many of exactly that one belong to the `count`.
///
/// From the highest bits down: how many elements have which next bits, of those that begin as the wanted one does.
#[inline(always)]
fn threshold(x: &[f32], count: u32) -> (u32, u32) {
    let mut counts = [[0u32; 1 << 11]; 2];
    for pair in x.chunks(2) {
        // Two tables in turn: neighbours are often alike, and would wait for each other's count.
        for (counts, &value) in counts.iter_mut().zip(pair) {
            counts[(magnitude(value) >> 20) as usize] += 1;
        }
    }
    let [mut both, second] = counts;
    for (both, second) in both.iter_mut().zip(second) {
        *both += second;
    }
    let (mut prefix, mut wanted) = cut(&both, count);
    for shift in [10, 0] {
        let mut counts = [0u32; 1 << 10];
        for block in x.chunks(BLOCK) {
            let mut any = false;
            for &value in block {
                any |= magnitude(value) >> (shift + 10) == prefix;
            }
            if any {
                for &value in block {
                    if magnitude(value) >> (shift + 10) == prefix {
                        counts[(magnitude(value) >> shift & 1023) as usize] += 1;
                    }
                }
            }
        }
        let (next, rest) = cut(&counts, wanted);
        (prefix, wanted) = (prefix << 10 | next, rest);
    }
    (prefix, wanted)
}

/// From the top: the place where the `wanted`-th is, and which one it is there.
#[inline(always)]
fn cut(counts: &[u32], mut wanted: u32) -> (u32, u32) {
    for (place, &count) in counts.iter().enumerate().rev() {
        if wanted <= count {
            return (place as u32, wanted);
        }
        wanted -= count;
    }
    unreachable!("no more are wanted than were counted")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// By sorting.
    fn naive(x: &[f32], count: usize) -> Vec<(u32, u32)> {
        let mut order: Vec<u32> = (0..x.len() as u32).collect();
        order.sort_by_key(|&e| (core::cmp::Reverse(x[e as usize].to_bits() & 0x7fff_ffff), e));
        order.truncate(count);
        order.sort_unstable();
        order.into_iter().map(|e| (e, x[e as usize].to_bits())).collect()
    }

    fn found(x: &[f32], count: usize) -> Vec<(u32, u32)> {
        let (mut indices, mut values) = (vec![9; count], vec![9.0; count]);
        top_k(x, count, &mut indices, &mut values).expect("the lengths fit");
        indices.into_iter().zip(values.into_iter().map(f32::to_bits)).collect()
    }

    #[test]
    fn equals_go_by_index_and_nan_stands_above_infinity() {
        let x = [1.0, -1.0, f32::INFINITY, 1.0, -f32::NAN, 0.5, -0.0, 0.0];
        let indices = |count| found(&x, count).into_iter().map(|(e, _)| e).collect::<Vec<u32>>();
        assert_eq!(indices(1), [4]);
        assert_eq!(indices(2), [2, 4]);
        assert_eq!(indices(4), [0, 1, 2, 4]);
        assert_eq!(indices(7), [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(found(&x, 8).len(), 8);
        assert_eq!(found(&[], 0), []);
    }

    #[test]
    fn bad_counts_and_lengths_are_refused_and_nothing_is_written() {
        let (x, mut indices, mut values) = ([1.0, 2.0, 3.0], [7; 4], [7.0; 4]);
        assert_eq!(
            top_k(&x, 4, &mut indices, &mut values),
            Err(KernelError::Count { what: "largest elements", found: 4, min: 0, max: 3 })
        );
        assert!(matches!(
            top_k(&x, 2, &mut indices[..3], &mut values[..2]),
            Err(KernelError::Length { what: "indices", expected: 2, found: 3 })
        ));
        assert!(matches!(
            top_k(&x, 2, &mut indices[..2], &mut values[..1]),
            Err(KernelError::Length { what: "values", expected: 2, found: 1 })
        ));
        assert_eq!((indices, values), ([7; 4], [7.0; 4]));
    }

    proptest! {
        #[test]
        fn it_is_what_sorting_finds(bits in prop::collection::vec(any::<u32>(), 1..700), narrow in any::<bool>(),
            part in 0.0f64..=1.0) {
            // Few different values make ties of every kind.
            let x: Vec<f32> = bits.iter()
                .map(|&bits| f32::from_bits(if narrow { bits & 0x8000_0401 } else { bits })).collect();
            let count = (x.len() as f64 * part) as usize;
            prop_assert_eq!(found(&x, count), naive(&x, count));
        }
    }
}
