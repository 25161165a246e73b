//! The square norm of a long vector, from the sums of its chunks: what a pass that writes the vector adds up beside.
//!
//! A chunk's elements are summed in binary32 in the 64-lane order of [`crate::vector`], the chunks' sums in binary64, the
//! p-th in lane p mod 64, in the same order. So whoever has the partial sums, in whatever order, has the norm; its relative
//! error hardly depends on the length, and it does not overflow before a single chunk does.

use crate::aggregate::CONTRIBUTIONS_MAX;
use crate::arithmetic::Arithmetic;
use crate::error::{KernelError, check_count, check_len};
use crate::vector::{LANES, dot};

/// Elements of a chunk; only the last may have fewer.
pub const CHUNK: usize = 1024;

/// The sum of the squares of all elements.
#[inline(always)]
#[must_use]
pub fn square_norm<F: Arithmetic>(x: &[f32]) -> f64 {
    let mut norm = SquareNorm::new();
    x.chunks(CHUNK).for_each(|chunk| norm.add(dot::<F>(chunk, chunk)));
    norm.finish()
}

/// [`square_norm`] of each of 1 to 32 contributions of one length.
///
/// # Errors
/// No contribution or too many, another number of norms, or contributions of unequal length. Nothing was written.
#[inline(always)]
pub fn square_norms<F: Arithmetic>(inputs: &[&[f32]], norms: &mut [f64]) -> Result<(), KernelError> {
    check_norms(inputs, norms)?;
    for (input, norm) in inputs.iter().zip(norms) {
        *norm = square_norm::<F>(input);
    }
    Ok(())
}

/// Checks the shapes of [`square_norms`].
///
/// # Errors
/// As [`square_norms`].
#[inline(always)]
pub fn check_norms(inputs: &[&[f32]], norms: &[f64]) -> Result<(), KernelError> {
    check_count("contributions", inputs.len(), 1, CONTRIBUTIONS_MAX)?;
    check_len("norms", inputs.len(), norms.len())?;
    inputs.iter().try_for_each(|input| check_len("input", inputs[0].len(), input.len()))
}

/// The partial sums of [`square_norm`], one a chunk.
///
/// # Errors
/// Where there are not as many partial sums as chunks; nothing was written.
#[inline(always)]
pub fn square_norm_partial<F: Arithmetic>(x: &[f32], partials: &mut [f32]) -> Result<(), KernelError> {
    check_partials(x.len(), partials)?;
    for (chunk, partial) in x.chunks(CHUNK).zip(partials) {
        *partial = dot::<F>(chunk, chunk);
    }
    Ok(())
}

/// The square norm of which these are all the partial sums, in order.
#[must_use]
pub fn fold_partial(partials: &[f32]) -> f64 {
    let mut norm = SquareNorm::new();
    partials.iter().for_each(|&partial| norm.add(partial));
    norm.finish()
}

/// Checks that there is a partial sum for each chunk of `len` elements.
#[inline(always)]
pub(crate) fn check_partials(len: usize, partials: &[f32]) -> Result<(), KernelError> {
    check_len("partial sums", len.div_ceil(CHUNK), partials.len())
}

/// A square norm in the making.
pub(crate) struct SquareNorm {
    lanes: [f64; LANES],
    next: usize,
}

impl SquareNorm {
    /// That of nothing.
    #[inline(always)]
    pub(crate) fn new() -> Self {
        Self { lanes: [0.0; LANES], next: 0 }
    }

    /// Adds the sum of the next chunk.
    #[inline(always)]
    pub(crate) fn add(&mut self, partial: f32) {
        self.lanes[self.next] += f64::from(partial);
        self.next = (self.next + 1) % LANES;
    }

    /// The sum of all chunks.
    #[inline(always)]
    pub(crate) fn finish(mut self) -> f64 {
        for half in [32, 16, 8, 4, 2, 1] {
            for lane in 0..half {
                self.lanes[lane] += self.lanes[lane + half];
            }
        }
        self.lanes[0]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::Soft;

    fn of(x: &[f32]) -> f64 {
        square_norm::<Soft>(x)
    }

    #[test]
    fn the_norm_is_that_of_double_precision() {
        for len in [0, 1, 63, 64, 1023, 1024, 1025, 70_000, 200_000] {
            let x: Vec<f32> = (0..len).map(|e| (e as f32 * 0.37).sin() * 1e3).collect();
            let exact: f64 = x.iter().map(|&x| f64::from(x) * f64::from(x)).sum();
            // 16 terms a lane and 6 folds of half an ulp each.
            assert!((of(&x) - exact).abs() <= 22.0 * f64::from(f32::EPSILON) / 2.0 * exact, "{len}");
        }
    }

    #[test]
    fn chunks_are_summed_in_the_64_lane_order() {
        // Powers of two that double precision cannot hold together: the order shows.
        let chunks = 150;
        let mut x = vec![0.0f32; chunks * CHUNK];
        for chunk in 0..chunks {
            x[chunk * CHUNK + chunk] = 2f32.powi((chunk as i32 * 37 % 59) - 29);
        }
        let mut lanes = [0.0f64; 64];
        for chunk in 0..chunks {
            lanes[chunk % 64] += f64::from(x[chunk * CHUNK + chunk]).powi(2);
        }
        for half in [32, 16, 8, 4, 2, 1] {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
        }
        assert_eq!(of(&x).to_bits(), lanes[0].to_bits());
    }

    #[test]
    fn nothing_finite_is_lost_and_nothing_else_hidden() {
        assert_eq!(of(&[f32::MIN_POSITIVE; 10]), 0.0, "squares below the smallest subnormal");
        assert!(!of(&[1e19; 5 * CHUNK]).is_finite(), "a chunk's own sum overflows");
        let mut large = vec![0.0; 64 * CHUNK];
        large.iter_mut().step_by(CHUNK).for_each(|x| *x = 1.8e19);
        assert!(of(&large) > f64::from(f32::MAX), "the sum of chunks does not");
        assert!(of(&[1.0, f32::NAN]).is_nan());
    }
}
