//! Weighted sums of contributions, and the norms by which their weights are clipped.
//!
//! Knows: the order of every sum. Does not know: who contributed, or why a weight is what it is. Invariant: an
//! element takes its contributions in rising order, each multiply-add rounded once.

use crate::arithmetic::{Arithmetic, STREAMS, Store, ahead_of};
use crate::bf16;
use crate::error::{KernelError, check_count, check_len};
use crate::norm::{CHUNK, SquareNorm, check_partials};
use crate::vector::{LANES, Lanes, QUARTER, fold_lanes};

/// Most contributions of an aggregation.
pub const CONTRIBUTIONS_MAX: usize = 32;

/// `out[e] = fused(w_k, x_k[e], ...)` for k rising, from zero; the square norm of `out`, as [`square_norm`](crate::norm::square_norm) has it.
///
/// # Errors
/// No input or more than [`CONTRIBUTIONS_MAX`], another number of weights, or inputs of another length than `out`.
/// Nothing was written.
#[inline(always)]
pub fn weighted_sum<F: Arithmetic>(
    weights: &[f32],
    inputs: &[&[f32]],
    out: &mut [f32],
) -> Result<f64, KernelError> {
    let mut norm = SquareNorm::new();
    sum_chunks::<F, f32, 64, 32>(weights, inputs, out, Store::Cached, |x| x, |partial| norm.add(partial))?;
    Ok(norm.finish())
}

/// The same over bfloat16, each widened.
///
/// # Errors
/// As [`weighted_sum`].
#[inline(always)]
pub fn weighted_sum_bf16<F: Arithmetic>(
    weights: &[f32],
    inputs: &[&[u16]],
    out: &mut [f32],
) -> Result<f64, KernelError> {
    let mut norm = SquareNorm::new();
    sum_chunks::<F, u16, 64, 32>(weights, inputs, out, Store::Cached, bf16::widen, |partial| {
        norm.add(partial)
    })?;
    Ok(norm.finish())
}

/// [`weighted_sum`] of a range that begins at a multiple of [`CHUNK`]; the partial sums of its square norm, one a
/// chunk.
///
/// # Errors
/// As [`weighted_sum`], and where there are not as many partial sums as chunks.
#[inline(always)]
pub fn weighted_sum_partial<F: Arithmetic>(
    weights: &[f32],
    inputs: &[&[f32]],
    out: &mut [f32],
    partials: &mut [f32],
    store: Store,
) -> Result<(), KernelError> {
    check_partials(out.len(), partials)?;
    let mut partials = partials.iter_mut();
    sum_chunks::<F, f32, 64, 32>(weights, inputs, out, store, |x| x, |sum| keep(&mut partials, sum))
}

/// The same over bfloat16.
///
/// # Errors
/// As [`weighted_sum_partial`].
#[inline(always)]
pub fn weighted_sum_bf16_partial<F: Arithmetic>(
    weights: &[f32],
    inputs: &[&[u16]],
    out: &mut [f32],
    partials: &mut [f32],
    store: Store,
) -> Result<(), KernelError> {
    check_partials(out.len(), partials)?;
    let mut partials = partials.iter_mut();
    sum_chunks::<F, u16, 64, 32>(weights, inputs, out, store, bf16::widen, |sum| keep(&mut partials, sum))
}

/// Hands sums to their places in turn.
#[inline(always)]
pub(crate) fn keep(partials: &mut core::slice::IterMut<'_, f32>, sum: f32) {
    *partials.next().expect("the length was checked") = sum;
}

/// Checks the shapes of a weighted sum of `len` elements.
///
/// # Errors
/// As [`weighted_sum`].
#[inline(always)]
pub fn check_sum<T>(weights: &[f32], inputs: &[&[T]], len: usize) -> Result<(), KernelError> {
    check_count("contributions", inputs.len(), 1, CONTRIBUTIONS_MAX)?;
    check_len("weights", inputs.len(), weights.len())?;
    inputs.iter().try_for_each(|input| check_len("input", len, input.len()))
}

/// The weighted sum, chunk by chunk; `partial` is told the sum of squares of each. Of a few inputs FEW elements are read
/// in turn, else MANY: what memory follows best.
#[inline(always)]
fn sum_chunks<F: Arithmetic, T: Copy, const FEW: usize, const MANY: usize>(
    weights: &[f32],
    inputs: &[&[T]],
    out: &mut [f32],
    store: Store,
    widen: impl Fn(T) -> f32 + Copy,
    mut partial: impl FnMut(f32),
) -> Result<(), KernelError> {
    check_sum(weights, inputs, out.len())?;
    for (index, chunk) in out.chunks_mut(CHUNK).enumerate() {
        let start = index * CHUNK;
        partial(if inputs.len() <= STREAMS {
            sum_chunk::<F, T, FEW>(weights, inputs, start, chunk, store, widen)
        } else {
            sum_chunk::<F, T, MANY>(weights, inputs, start, chunk, store, widen)
        });
    }
    F::settle(store);
    Ok(())
}

/// A chunk, of W elements of each input in turn.
#[inline(always)]
fn sum_chunk<F: Arithmetic, T: Copy, const W: usize>(
    weights: &[f32],
    inputs: &[&[T]],
    start: usize,
    chunk: &mut [f32],
    store: Store,
    widen: impl Fn(T) -> f32 + Copy,
) -> f32 {
    let (blocks, tail) = chunk.as_chunks_mut::<LANES>();
    let mut lanes: Lanes = [[0.0; QUARTER]; LANES / QUARTER];
    for (index, out) in blocks.iter_mut().enumerate() {
        let mut sums = [0.0; LANES];
        for (part, sums) in sums.as_chunks_mut::<W>().0.iter_mut().enumerate() {
            let at = start + index * LANES + part * W;
            *sums = sum_block::<F, T, W>(weights, inputs, at, widen);
        }
        add_squares::<F>(&mut lanes, &sums);
        F::store(out, sums, store);
    }
    if !tail.is_empty() {
        let tail_start = start + blocks.len() * LANES;
        let mut rest = [0.0; LANES];
        for (index, (out, rest)) in tail.iter_mut().zip(&mut rest).enumerate() {
            [*out] = sum_block::<F, T, 1>(weights, inputs, tail_start + index, widen);
            *rest = *out;
        }
        add_squares::<F>(&mut lanes, &rest);
    }
    fold_lanes(&lanes)
}

/// A block of sums, in registers while every input adds to them.
#[inline(always)]
fn sum_block<F: Arithmetic, T: Copy, const W: usize>(
    weights: &[f32],
    inputs: &[&[T]],
    at: usize,
    widen: impl Fn(T) -> f32,
) -> [f32; W] {
    let mut sums = [0.0; W];
    for (&weight, input) in weights.iter().zip(inputs) {
        let block: &[T; W] = input[at..].first_chunk().expect("the lengths were checked");
        ahead_of::<F, T>(block);
        for e in 0..W {
            sums[e] = F::fused(weight, widen(block[e]), sums[e]);
        }
    }
    sums
}

#[inline(always)]
fn add_squares<F: Arithmetic>(lanes: &mut Lanes, block: &[f32; LANES]) {
    for (lanes, quarter) in lanes.iter_mut().zip(block.as_chunks::<QUARTER>().0) {
        for lane in 0..QUARTER {
            lanes[lane] = F::fused(quarter[lane], quarter[lane], lanes[lane]);
        }
    }
}

/// What a clipping found.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Clipped {
    /// Bit k: the norm of contribution k is NaN or infinite, and its weight zero now.
    pub non_finite: u32,
}

/// Makes every contribution at most `limit` long: each weight times `min(1, limit / sqrt(norm))`, in f64, rounded to
/// f32 once. A norm of zero keeps its weight; one that is NaN, infinite or below zero takes it away.
///
/// # Errors
/// No weight or more than [`CONTRIBUTIONS_MAX`], another number of norms, or a limit that is NaN or below zero.
/// Nothing was written.
pub fn clip_weights(weights: &mut [f32], norms_squared: &[f64], limit: f32) -> Result<Clipped, KernelError> {
    check_count("weights", weights.len(), 1, CONTRIBUTIONS_MAX)?;
    check_len("norms", weights.len(), norms_squared.len())?;
    if limit.is_nan() || limit < 0.0 {
        return Err(KernelError::Limit { bits: limit.to_bits() });
    }
    let mut clipped = Clipped::default();
    for (k, (weight, &norm)) in weights.iter_mut().zip(norms_squared).enumerate() {
        if !norm.is_finite() || norm < 0.0 {
            *weight = 0.0;
            clipped.non_finite |= 1 << k;
        } else if norm > 0.0 {
            let ratio = f64::from(limit) / libm::sqrt(norm);
            *weight = (f64::from(*weight) * if ratio < 1.0 { ratio } else { 1.0 }) as f32;
        }
    }
    Ok(clipped)
}

#[cfg(test)]
mod tests;
