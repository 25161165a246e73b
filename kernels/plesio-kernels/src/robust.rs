//! Rules over contributions that bear some that are wrong: the median and the trimmed mean of each coordinate
//! (Yin et al., "Byzantine-robust distributed learning", 2018).
//!
//! Elements are ordered by IEEE 754's totalOrder: -NaN, -inf, ..., -0, +0, ..., +inf, +NaN. So a NaN is an extreme
//! like any other and is trimmed like one; minima and maxima of floats would drop it silently, and let one liar in.

use crate::aggregate::CONTRIBUTIONS_MAX;
use crate::arithmetic::{Arithmetic, STREAMS, Store, ahead_of};
use crate::error::{KernelError, check_count, check_len};

/// Fewest contributions that a rule chooses among.
pub const ROBUST_MIN: usize = 2;

/// How contributions become one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Robust {
    /// The middle one; the mean of both where there are two.
    Median,
    /// The mean of those that remain without the `trim` smallest and the `trim` largest.
    TrimmedMean {
        /// How many go on each side; less than half of all.
        trim: usize,
    },
}

impl Robust {
    /// Refuses what leaves nothing of `count` contributions.
    #[inline(always)]
    fn check_count(self, count: usize) -> Result<(), KernelError> {
        check_count("contributions", count, ROBUST_MIN, CONTRIBUTIONS_MAX)?;
        match self {
            // Without a product: a trim of any size is a legal value.
            Self::TrimmedMean { trim } if trim > (count - 1) / 2 => Err(KernelError::Trim { trim, count }),
            Self::TrimmedMean { .. } | Self::Median => Ok(()),
        }
    }
}

/// `out[e] =` what the rule makes of element e of the inputs, 2 to 32 of them. A NaN result is 0x7fc00000.
///
/// The trimmed mean is the sum of what remains in rising order, from zero, times the f32 nearest to one over its
/// count; a median of two is `a * 0.5 + b * 0.5`.
///
/// # Errors
/// Too few inputs or too many, inputs of another length than `out`, or a trim that leaves none. Nothing was written.
#[inline(always)]
pub fn robust<F: Arithmetic>(
    rule: Robust,
    inputs: &[&[f32]],
    out: &mut [f32],
    store: Store,
) -> Result<(), KernelError> {
    check(rule, inputs, out.len())?;
    by_count::<F>(rule, inputs, out, store);
    F::settle(store);
    Ok(())
}

/// Checks the rule and the shapes of [`robust`] over `len` elements.
///
/// # Errors
/// As [`robust`].
#[inline(always)]
pub fn check(rule: Robust, inputs: &[&[f32]], len: usize) -> Result<(), KernelError> {
    rule.check_count(inputs.len())?;
    inputs.iter().try_for_each(|input| check_len("input", len, input.len()))
}

/// Elements that are sorted together: a line of memory of each input.
const LINE: usize = 16;
/// Elements of each input that are looked up together.
const BLOCK: usize = 4 * LINE;

/// Lanes that a literal list of compare-swaps sorts.
trait Network {
    fn sort(&mut self);
}

/// The lists of `networks.rs`.
macro_rules! networks {
    ($($lanes:literal { $($low:literal $high:literal,)+ })+) => {
        $(
            impl super::Network for [i32; $lanes] {
                #[inline(always)]
                fn sort(&mut self) {
                    $(super::swap(self, $low, $high);)+
                }
            }
        )+
    };
}

mod networks;

/// The rule over all elements, with the smallest network that has a lane for each input. Not with every one of them:
/// they are most of this crate's code.
#[inline(always)]
fn by_count<F: Arithmetic>(rule: Robust, inputs: &[&[f32]], out: &mut [f32], store: Store) {
    match inputs.len() {
        ..=2 => with_lanes::<F, 2>(rule, inputs, out, store),
        3 => with_lanes::<F, 3>(rule, inputs, out, store),
        4 => with_lanes::<F, 4>(rule, inputs, out, store),
        5 => with_lanes::<F, 5>(rule, inputs, out, store),
        6 => with_lanes::<F, 6>(rule, inputs, out, store),
        7 => with_lanes::<F, 7>(rule, inputs, out, store),
        8 => with_lanes::<F, 8>(rule, inputs, out, store),
        9..=10 => with_lanes::<F, 10>(rule, inputs, out, store),
        11..=12 => with_lanes::<F, 12>(rule, inputs, out, store),
        13..=16 => with_lanes::<F, 16>(rule, inputs, out, store),
        17..=20 => with_lanes::<F, 20>(rule, inputs, out, store),
        21..=24 => with_lanes::<F, 24>(rule, inputs, out, store),
        25..=28 => with_lanes::<F, 28>(rule, inputs, out, store),
        29.. => with_lanes::<F, CONTRIBUTIONS_MAX>(rule, inputs, out, store),
    }
}

/// The smaller of two lanes to the first place.
#[inline(always)]
fn swap<const K: usize>(lanes: &mut [i32; K], low: usize, high: usize) {
    let (a, b) = (lanes[low], lanes[high]);
    lanes[low] = if b < a { b } else { a };
    lanes[high] = if b < a { a } else { b };
}

/// Integers that rise in totalOrder; its own inverse.
#[inline(always)]
fn key(bits: i32) -> i32 {
    bits ^ ((bits >> 31) & 0x7fff_ffff)
}

/// The float of a key.
#[inline(always)]
fn value(key_of_it: i32) -> f32 {
    f32::from_bits(key(key_of_it) as u32)
}

/// What stands in lanes that have no input: the largest key, which stays behind all others.
const LARGEST: [f32; BLOCK] = [f32::from_bits(0x7fff_ffff); BLOCK];

/// Whether so many inputs are asked for by blocks, or by the lines that are sorted together: of few, memory delivers
/// several lines of each in turn faster; of many, more than can be under way at a time.
const fn by_block(lanes: usize) -> bool {
    lanes <= STREAMS
}

/// The rule with K lanes for at most K inputs.
#[inline(always)]
fn with_lanes<F: Arithmetic, const K: usize>(rule: Robust, inputs: &[&[f32]], out: &mut [f32], store: Store)
where
    [i32; K]: Network,
{
    // A lane without an input has the same block throughout: its mask keeps it at the first.
    let mut lanes = [(&LARGEST[..], 0); K];
    for (lane, input) in lanes.iter_mut().zip(inputs) {
        *lane = (input, usize::MAX);
    }
    let mut tails = [LARGEST; K];
    let mut rows = [[0i32; LINE]; K];
    for (index, out) in out.chunks_mut(BLOCK).enumerate() {
        let (start, len) = (index * BLOCK, out.len());
        let mut block = [&LARGEST; K];
        if len == BLOCK {
            for k in 0..K {
                let (input, mask) = lanes[k];
                block[k] = input[start & mask..].first_chunk().expect("the lengths were checked");
            }
        } else {
            for (tail, input) in tails.iter_mut().zip(inputs) {
                tail[..len].copy_from_slice(&input[start..]);
            }
            block = tails.each_ref();
        }
        if const { by_block(K) } {
            block.into_iter().for_each(|block| ahead_of::<F, f32>(block));
        }
        let mut results = [0.0; BLOCK];
        for (line, results) in results.as_chunks_mut().0.iter_mut().enumerate() {
            *results = if const { K <= EXACT } {
                choose::<F, K>(rule, &block, line)
            } else {
                sort_columns::<F, K>(&block, line, &mut rows);
                combine(rule, &rows[..inputs.len()])
            };
        }
        match out.first_chunk_mut() {
            Some(out) => F::store(out, results, store),
            None => out.copy_from_slice(&results[..len]),
        }
    }
}

/// Up to so many inputs each has a network of its own, and all its lanes stay in registers.
const EXACT: usize = 8;

/// What the rule makes of a line of each of K inputs. Swaps that its result does not depend on fall away.
#[inline(always)]
fn choose<F: Arithmetic, const K: usize>(rule: Robust, block: &[&[f32; BLOCK]; K], line: usize) -> [f32; LINE]
where
    [i32; K]: Network,
{
    let lines = lines_of::<F, K>(block, line);
    let mut out = [0.0; LINE];
    match rule {
        Robust::Median => {
            for (e, out) in out.iter_mut().enumerate() {
                let column = sorted(&lines, e);
                let (low, high) = (value(column[(K - 1) / 2]), value(column[K / 2]));
                *out = if K.is_multiple_of(2) { low * 0.5 + high * 0.5 } else { high };
            }
        }
        Robust::TrimmedMean { trim } => {
            let (end, factor) = (K - trim, 1.0 / (K - 2 * trim) as f32);
            for (e, out) in out.iter_mut().enumerate() {
                let column = sorted(&lines, e);
                let mut sum = 0.0;
                for (k, &key) in column.iter().enumerate() {
                    sum = if trim <= k && k < end { sum + value(key) } else { sum };
                }
                *out = sum * factor;
            }
        }
    }
    one_nan(&mut out);
    out
}

/// The keys of element e of each line, sorted.
#[inline(always)]
fn sorted<const K: usize>(lines: &[&[f32; LINE]; K], e: usize) -> [i32; K]
where
    [i32; K]: Network,
{
    let mut column = [0i32; K];
    for k in 0..K {
        column[k] = key(lines[k][e].to_bits() as i32);
    }
    column.sort();
    column
}

/// A line of each input.
#[inline(always)]
fn lines_of<'a, F: Arithmetic, const K: usize>(
    block: &[&'a [f32; BLOCK]; K],
    line: usize,
) -> [&'a [f32; LINE]; K] {
    let mut lines = [&[0.0; LINE]; K];
    for k in 0..K {
        lines[k] = &block[k].as_chunks().0[line];
        if const { !by_block(K) } {
            F::ahead(&lines[k][0]);
        }
    }
    lines
}

/// The keys of a line of each input, every column sorted. One loop over columns, and everything else spelled out:
/// columns become the lanes of vectors, and rows registers.
#[expect(
    clippy::needless_range_loop,
    reason = "iterators cost a quarter here: the rows were not vectorised alike"
)]
#[inline(always)]
fn sort_columns<F: Arithmetic, const K: usize>(
    block: &[&[f32; BLOCK]; K],
    line: usize,
    rows: &mut [[i32; LINE]; K],
) where
    [i32; K]: Network,
{
    let lines = lines_of::<F, K>(block, line);
    for e in 0..LINE {
        let column = sorted(&lines, e);
        for k in 0..K {
            rows[k][e] = column[k];
        }
    }
}

/// Results that are NaN are the same one.
#[inline(always)]
fn one_nan(results: &mut [f32; LINE]) {
    for result in results {
        *result = if result.is_nan() { f32::from_bits(0x7fc0_0000) } else { *result };
    }
}

/// What the rule makes of sorted columns.
#[inline(always)]
fn combine(rule: Robust, rows: &[[i32; LINE]]) -> [f32; LINE] {
    let count = rows.len();
    let mut out = [0.0; LINE];
    match rule {
        // Halves before the sum, which could overflow.
        Robust::Median if count.is_multiple_of(2) => {
            for ((out, &low), &high) in out.iter_mut().zip(&rows[count / 2 - 1]).zip(&rows[count / 2]) {
                *out = value(low) * 0.5 + value(high) * 0.5;
            }
        }
        Robust::Median => {
            for (out, &middle) in out.iter_mut().zip(&rows[count / 2]) {
                *out = value(middle);
            }
        }
        Robust::TrimmedMean { trim } => {
            for row in &rows[trim..count - trim] {
                for (sum, &kept) in out.iter_mut().zip(row) {
                    *sum += value(kept);
                }
            }
            let factor = 1.0 / (count - 2 * trim) as f32;
            for sum in &mut out {
                *sum *= factor;
            }
        }
    }
    one_nan(&mut out);
    out
}

#[cfg(test)]
mod tests;
