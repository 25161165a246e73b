//! The q8 format: a byte for each element and a binary16 scale for every 32, in two arrays.
//!
//! ```text
//!  codes    i8 x n               element e = code[e] * scale[e / 32], exactly
//!  scales   binary16 x n/32      the last block may be short
//! ```
//!
//! A scale has 11 significant bits and a code 7: their product is exact in binary32, with and without a fused
//! multiply-add. The scale is a 127th of the block's largest magnitude, rounded up, so that no code is clamped; the error
//! is half a scale at most. Decoders are total: any bits are values, NaN and infinities among them.
//!
//! What a block cannot say stays with its sender, in the residue: all of it where the scale would be subnormal (2^-14 is
//! the least). A block with a NaN or an infinity, or too large for a binary16 scale (about 8.3 million), is sent with a NaN
//! for its scale, and leaves its residue as it was, so that it does not outlive its cause.

use crate::aggregate::{CONTRIBUTIONS_MAX, keep};
use crate::arithmetic::{Arithmetic, one_by_one};
use crate::codec::Encoded;
use crate::codec::blocks::{LEVELS, byte_code};
use crate::error::{KernelError, check_count, check_len};
use crate::f16;
use crate::norm::{CHUNK, SquareNorm, check_partials};
use crate::vector::dot;

/// Elements that share a scale.
pub const BLOCK: usize = 32;

/// Elements of which every input is read before the next.
const SUMS: usize = 2 * BLOCK;

/// Encoded elements, checked.
#[derive(Clone, Copy, Debug)]
pub struct Q8<'a> {
    codes: &'a [i8],
    scales: &'a [u16],
}

impl<'a> Q8<'a> {
    /// Accepts a scale for every 32 codes or fewer.
    pub fn new(codes: &'a [i8], scales: &'a [u16]) -> Result<Self, KernelError> {
        check_len("scales", codes.len().div_ceil(BLOCK), scales.len())?;
        Ok(Self { codes, scales })
    }

    /// The codes.
    #[must_use]
    pub fn codes(&self) -> &'a [i8] {
        self.codes
    }
    /// The scales, binary16.
    #[must_use]
    pub fn scales(&self) -> &'a [u16] {
        self.scales
    }
    /// Elements.
    #[must_use]
    pub fn len(&self) -> usize {
        self.codes.len()
    }
    /// The first `elements`, whole blocks of them, and the rest.
    ///
    /// # Panics
    /// Where there are fewer, or a block would be cut.
    #[must_use]
    pub fn split_at(&self, elements: usize) -> (Self, Self) {
        assert!(elements.is_multiple_of(BLOCK), "a block would be cut");
        let (codes, more_codes) = self.codes.split_at(elements);
        let (scales, more_scales) = self.scales.split_at(elements / BLOCK);
        (Self { codes, scales }, Self { codes: more_codes, scales: more_scales })
    }
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.codes.is_empty()
    }
}

/// Encodes `input + residue` and leaves in `residue` what the codes do not say.
#[inline(always)]
pub fn quantise_q8(
    input: &[f32],
    residue: &mut [f32],
    codes: &mut [i8],
    scales: &mut [u16],
) -> Result<Encoded, KernelError> {
    check_quantise(input, residue, codes, scales)?;
    let chunks = input.chunks(CHUNK).zip(residue.chunks_mut(CHUNK)).zip(codes.chunks_mut(CHUNK));
    let (mut values, mut steps, mut finite) = ([0.0; CHUNK], Steps::default(), true);
    for (((input, residue), codes), scales) in chunks.zip(scales.chunks_mut(BLOCKS)) {
        let tops = add(input, residue, &mut values);
        finite &= steps.fit(&tops);
        scales.copy_from_slice(&steps.scales[..scales.len()]);
        steps.encode(&values, residue, codes);
    }
    Ok(Encoded { finite })
}

/// Checks the shapes of [`quantise_q8`].
///
/// # Errors
/// [`KernelError::Length`] of the first that disagrees.
#[inline(always)]
pub fn check_quantise(
    input: &[f32],
    residue: &[f32],
    codes: &[i8],
    scales: &[u16],
) -> Result<(), KernelError> {
    check_len("residue", input.len(), residue.len())?;
    check_len("codes", input.len(), codes.len())?;
    check_len("scales", input.len().div_ceil(BLOCK), scales.len())
}

/// Blocks of a chunk. Its scales are found together, because each takes two divisions.
const BLOCKS: usize = CHUNK / BLOCK;

/// `values = input + residue`, filled up with zeros, and the bits of each block's largest magnitude.
#[inline(always)]
fn add(input: &[f32], residue: &[f32], values: &mut [f32; CHUNK]) -> [u32; BLOCKS] {
    for ((value, &input), &residue) in values.iter_mut().zip(input).zip(residue) {
        *value = input + residue;
    }
    values[input.len()..].fill(0.0);
    let mut tops = [0; BLOCKS];
    for (top, values) in tops.iter_mut().zip(values.as_chunks::<BLOCK>().0) {
        let mut largest = 0;
        for value in values {
            // Among magnitudes bits rise with the value, and NaN stands above the infinities.
            let bits = value.to_bits() & 0x7FFF_FFFF;
            largest = if bits > largest { bits } else { largest };
        }
        *top = one_by_one(largest);
    }
    tops
}

/// The scales of a chunk's blocks.
#[derive(Default)]
struct Steps {
    scales: [u16; BLOCKS],
    steps: [f32; BLOCKS],
    inverses: [f32; BLOCKS],
}

impl Steps {
    /// Finds them; whether all are finite.
    #[inline(always)]
    fn fit(&mut self, tops: &[u32; BLOCKS]) -> bool {
        let mut finite = true;
        let found = self.scales.iter_mut().zip(&mut self.steps).zip(&mut self.inverses);
        for (&top, ((scale, step), inverse)) in tops.iter().zip(found) {
            let wanted = f16::narrow_up(f32::from_bits(top) / LEVELS);
            let large = wanted >= f16::INFINITY; // or NaN
            let small = wanted < f16::MIN_POSITIVE;
            let wide = f16::widen(wanted);
            let held = if small { 0 } else { wanted };
            *scale = if large { f16::NAN } else { held };
            // With zeros all codes are zero, and all of the block is left over.
            *step = if small { 0.0 } else { wide };
            *inverse = if small { 0.0 } else { 1.0 / wide };
            finite &= !large;
        }
        finite
    }

    /// Encodes the blocks that have a finite scale; the others' codes are zero, and their residue stays.
    #[inline(always)]
    fn encode(&self, values: &[f32; CHUNK], residue: &mut [f32], codes: &mut [i8]) {
        let (residues, tail_residue) = residue.as_chunks_mut::<BLOCK>();
        let (coded, tail_codes) = codes.as_chunks_mut::<BLOCK>();
        let values = values.as_chunks::<BLOCK>().0;
        for (block, codes) in coded.iter_mut().enumerate() {
            self.encode_block(block, &values[block], &mut residues[block], codes);
        }
        if !tail_codes.is_empty() {
            let (block, len, mut rest, mut codes) = (coded.len(), tail_codes.len(), [0.0; BLOCK], [0; BLOCK]);
            rest[..len].copy_from_slice(tail_residue);
            self.encode_block(block, &values[block], &mut rest, &mut codes);
            tail_residue.copy_from_slice(&rest[..len]);
            tail_codes.copy_from_slice(&codes[..len]);
        }
    }

    #[inline(always)]
    fn encode_block(
        &self,
        block: usize,
        values: &[f32; BLOCK],
        residue: &mut [f32; BLOCK],
        codes: &mut [i8; BLOCK],
    ) {
        if self.scales[block] == f16::NAN {
            *codes = [0; BLOCK];
            return;
        }
        let (step, inverse) = (self.steps[block], self.inverses[block]);
        for e in 0..BLOCK {
            let (code, whole) = byte_code(values[e], inverse);
            codes[e] = code as i8;
            residue[e] = values[e] - whole * step;
        }
    }
}

/// `out = ` what `coded` says.
#[inline(always)]
pub fn dequantise_q8(coded: Q8<'_>, out: &mut [f32]) -> Result<(), KernelError> {
    check_dequantise(coded, out)?;
    let (blocks, tail) = out.as_chunks_mut::<BLOCK>();
    let (codes, tail_codes) = coded.codes.as_chunks::<BLOCK>();
    for (index, out) in blocks.iter_mut().enumerate() {
        let step = f16::widen(coded.scales[index]);
        for e in 0..BLOCK {
            out[e] = f32::from(codes[index][e]) * step;
        }
    }
    for (out, &code) in tail.iter_mut().zip(tail_codes) {
        *out = f32::from(code) * f16::widen(coded.scales[codes.len()]);
    }
    Ok(())
}

/// Checks the shapes of [`dequantise_q8`].
///
/// # Errors
/// [`KernelError::Length`] where they disagree.
#[inline(always)]
pub fn check_dequantise(coded: Q8<'_>, out: &[f32]) -> Result<(), KernelError> {
    check_len("out", coded.len(), out.len())
}

/// `out[e] = w_0 x_0[e] + w_1 x_1[e] + ...`, fused, from zero; returns the square norm of `out` as its chunks of 1024 were
/// summed. 1 to 32 inputs of one length.
#[inline(always)]
pub fn weighted_sum_q8<F: Arithmetic>(
    weights: &[f32],
    inputs: &[Q8<'_>],
    out: &mut [f32],
) -> Result<f64, KernelError> {
    let mut norm = SquareNorm::new();
    sum_chunks::<F>(weights, inputs, out, |partial| norm.add(partial))?;
    Ok(norm.finish())
}

/// [`weighted_sum_q8`] of a range that begins at a multiple of [`CHUNK`]; the partial sums of its square norm, one a
/// chunk.
///
/// # Errors
/// As [`weighted_sum_q8`], and where there are not as many partial sums as chunks.
#[inline(always)]
pub fn weighted_sum_q8_partial<F: Arithmetic>(
    weights: &[f32],
    inputs: &[Q8<'_>],
    out: &mut [f32],
    partials: &mut [f32],
) -> Result<(), KernelError> {
    check_partials(out.len(), partials)?;
    let mut partials = partials.iter_mut();
    sum_chunks::<F>(weights, inputs, out, |sum| keep(&mut partials, sum))
}

/// Checks the shapes of a weighted sum of `len` elements.
///
/// # Errors
/// As [`weighted_sum_q8`].
#[inline(always)]
pub fn check_sum(weights: &[f32], inputs: &[Q8<'_>], len: usize) -> Result<(), KernelError> {
    check_count("contributions", inputs.len(), 1, CONTRIBUTIONS_MAX)?;
    check_len("weights", inputs.len(), weights.len())?;
    inputs.iter().try_for_each(|input| check_len("input", len, input.len()))
}

/// The weighted sum, chunk by chunk; `partial` is told the sum of squares of each.
#[inline(always)]
fn sum_chunks<F: Arithmetic>(
    weights: &[f32],
    inputs: &[Q8<'_>],
    out: &mut [f32],
    mut partial: impl FnMut(f32),
) -> Result<(), KernelError> {
    check_sum(weights, inputs, out.len())?;
    let mut steps = [[0.0; CHUNK / BLOCK]; CONTRIBUTIONS_MAX];
    for (index, out) in out.chunks_mut(CHUNK).enumerate() {
        let start = index * CHUNK;
        for (steps, input) in steps.iter_mut().zip(inputs) {
            for (step, &scale) in steps.iter_mut().zip(&input.scales[start / BLOCK..]) {
                *step = f16::widen(scale);
            }
        }
        let (blocks, tail) = out.as_chunks_mut::<SUMS>();
        for (block, out) in blocks.iter_mut().enumerate() {
            *out = sum_block::<F>(weights, inputs, start, &steps, block);
        }
        for (e, out) in (blocks.len() * SUMS..).zip(tail) {
            *out = 0.0;
            for ((&weight, input), steps) in weights.iter().zip(inputs).zip(&steps) {
                *out = F::fused(weight, f32::from(input.codes[start + e]) * steps[e / BLOCK], *out);
            }
        }
        partial(dot::<F>(out, out));
    }
    Ok(())
}

/// Two blocks of the chunk at `start`: the sums stay in registers while every input adds to them.
#[inline(always)]
fn sum_block<F: Arithmetic>(
    weights: &[f32],
    inputs: &[Q8<'_>],
    start: usize,
    steps: &[[f32; CHUNK / BLOCK]; CONTRIBUTIONS_MAX],
    block: usize,
) -> [f32; SUMS] {
    let mut sums = [0.0f32; SUMS];
    for ((&weight, input), steps) in weights.iter().zip(inputs).zip(steps) {
        let codes: &[i8; SUMS] =
            input.codes[start + block * SUMS..].first_chunk().expect("the lengths were checked");
        for half in 0..SUMS / BLOCK {
            let step = steps[SUMS / BLOCK * block + half];
            for e in half * BLOCK..(half + 1) * BLOCK {
                sums[e] = F::fused(weight, f32::from(codes[e]) * step, sums[e]);
            }
        }
    }
    sums
}

#[cfg(test)]
mod tests;
