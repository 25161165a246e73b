//! Codecs: what a range of a tensor, or of a slot, looks like on the wire, and what the sender keeps of it.
//!
//! Knows: the byte layouts, the rounding, the steps. Does not know: who sends what to whom. Invariant: a decoder
//! is total (any bytes of the right length decode, and to the same values everywhere), and what an encoder of real
//! values leaves in the residue is what the decoder will not see. Of a slot, whoever has it finds that by decoding.
//!
//! ```text
//!  full    an element: 4 bytes, f32 or i32
//!  bf16    an element: 2 bytes, the upper half of an f32
//!  int8    256 elements: | step 4 | code i8 x 256 |                    element = code * step
//!  int4    64 or 128:    | step 2 | seed 2 | byte x 32 or 64 |         element = (nibble - 7.5 - dither) * step
//!                          byte i: element i in its low half, element i + 32 (or 64) in its high half
//! ```
//!
//! Everything is little-endian. Blocks are counted from the tensor's first element, so a range that begins at a
//! multiple of the block is encoded like the same range within the whole. A last block may be short: `int8` then
//! has as many codes as elements, `int4` min(elements, half a block) bytes.
//!
//! # Two domains
//!
//! *Real values* (f32, the synchronous collectives). The step of `int8` is an f32 of 17 significant bits, at most
//! `max / 127`: so `code * step` is exact, cannot overflow, and is the same with and without a fused multiply-add.
//! The step of `int4` is a bf16, at least `max / 7.5`; the product is exact again. A power of two would do for that
//! too, but is up to twice as coarse as needed: 1.0 % relative error where this has 0.7 (`int8`), 15 where this has 10.
//!
//! *Integers* (slots of the consensus). The step of `int8` is the whole number `ceil(max / 127)` as u32; that of
//! `int4` is `m * 2^(k-11)`, bytes m and k, and elements are rounded to whole numbers, halves up. Decoding is integer
//! arithmetic throughout, so every node and every backend gets the same integers, whatever its floats are like.
//!
//! # NaN and infinities
//!
//! `full` and `bf16` carry them (a NaN stays one and is quiet; what bf16 cannot hold becomes an infinity). A block of
//! `int8` or `int4` with one such element is sent with a NaN for its step and decodes to NaN throughout; its residue
//! stays what it was, so that it does not outlive its cause. A step that no encoder writes (negative, not finite)
//! decodes to NaN, too. The integer domain has neither: a step beyond the largest is read as the largest.
//!
//! # Stochastic rounding of `int4`
//!
//! The dither is uniform over one step, a hash of (seed, element), and the receiver takes it off again (Roberts 1962;
//! Gray and Stockham 1993): the error is uniform, within half a step, and unbiased (to 1/512 of a step) whatever the
//! value is, with half the variance that rounding up or down by chance has. Two bytes of seed in each block make it
//! decodable on its own; they are a hash of the call's seed and the block's number.

pub(crate) mod blocks;
mod int4;

use crate::error::{KernelError, check_len};
use crate::slot;
use blocks::{Block, Full, Half, Int8};
use int4::Int4;

/// How elements are narrowed on the wire.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[non_exhaustive]
pub enum Codec {
    /// As they are, 4 bytes each.
    #[default]
    Full,
    /// The upper half of an f32, rounded half to even.
    Bf16,
    /// 8 bits and a step for 256.
    Int8,
    /// 4 bits, a step and a seed for 64; rounded stochastically.
    Int4By64,
    /// The same for 128.
    Int4By128,
}

impl Codec {
    /// Every codec, widest first.
    pub const ALL: [Self; 5] = [Self::Full, Self::Bf16, Self::Int8, Self::Int4By64, Self::Int4By128];

    /// A common multiple of all blocks: shares cut at it suit every codec.
    pub const GRAIN_ELEMENTS: usize = 256;

    /// Elements that share a step.
    #[must_use]
    pub const fn block_elements(self) -> usize {
        match self {
            Self::Full | Self::Bf16 => 1,
            Self::Int8 => Int8::ELEMENTS,
            Self::Int4By64 => 64,
            Self::Int4By128 => 128,
        }
    }

    /// Bytes of `elements` elements.
    #[must_use]
    pub const fn encoded_bytes(self, elements: usize) -> usize {
        let block = self.block_elements();
        let (blocks, rest) = (elements / block, elements % block);
        match self {
            Self::Full => 4 * elements,
            Self::Bf16 => 2 * elements,
            Self::Int8 => blocks * (4 + block) + if rest > 0 { 4 + rest } else { 0 },
            Self::Int4By64 | Self::Int4By128 => {
                let half = block / 2;
                let last = if rest < half { rest } else { half };
                blocks * (4 + half) + if rest > 0 { 4 + last } else { 0 }
            }
        }
    }

    /// The name in settings and reports.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::Bf16 => "bf16",
            Self::Int8 => "int8",
            Self::Int4By64 => "int4",
            Self::Int4By128 => "int4-128",
        }
    }

    /// The number on the wire.
    #[must_use]
    pub const fn id(self) -> u8 {
        self as u8
    }

    /// The codec of a number.
    #[must_use]
    pub fn from_id(id: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|codec| codec.id() == id)
    }
}

/// A codec, and what stochastic rounding is derived from.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Coding {
    /// The layout.
    pub codec: Codec,
    /// Seed of the operation: another one for each, so that errors do not repeat.
    pub seed: u64,
    /// Where in its tensor the range begins; a multiple of the codec's block.
    pub first_element: u64,
}

impl Coding {
    /// `codec` for a range that begins a tensor.
    #[must_use]
    pub const fn new(codec: Codec, seed: u64) -> Self {
        Self { codec, seed, first_element: 0 }
    }

    /// The same for the range that begins at `first_element`.
    #[must_use]
    pub const fn at(self, first_element: u64) -> Self {
        Self { first_element, ..self }
    }
}

/// What an encoding did.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Encoded {
    /// Everything will decode to finite values. If not, no residue has changed where something was not finite.
    pub finite: bool,
}

/// Runs an expression with the codec's block type and its two sizes.
macro_rules! for_codec {
    ($codec:expr, $call:ident ( $($arg:expr),* )) => {
        match $codec {
            Codec::Full => $call::<Full, 64, 256>($($arg),*),
            Codec::Bf16 => $call::<Half, 64, 128>($($arg),*),
            Codec::Int8 => $call::<Int8, 256, 260>($($arg),*),
            Codec::Int4By64 => $call::<Int4, 64, 36>($($arg),*),
            Codec::Int4By128 => $call::<Int4, 128, 68>($($arg),*),
        }
    };
}

/// Checks that `codes` are as long as `elements` elements are in a codec.
#[inline(always)]
pub fn check_codes(codec: Codec, elements: usize, codes: &[u8]) -> Result<(), KernelError> {
    check_len("encoded bytes", codec.encoded_bytes(elements), codes.len())
}

/// Checks the shapes of [`encode`].
#[inline(always)]
pub fn check_encode(
    codec: Codec,
    input: &[f32],
    residue: Option<&[f32]>,
    out: &[u8],
) -> Result<(), KernelError> {
    check_codes(codec, input.len(), out)?;
    residue.map_or(Ok(()), |residue| check_len("residue", input.len(), residue.len()))
}

/// Checks the shapes of [`coded_sum`], and that no sum of any slots under these weights can leave 64 bits.
#[inline(always)]
pub fn check_coded_sum(
    codec: Codec,
    weights: &[u32],
    slots: &[&[u8]],
    len: usize,
) -> Result<(), KernelError> {
    check_len("slots", weights.len(), slots.len())?;
    for slot in slots {
        check_codes(codec, len, slot)?;
    }
    slot::check_weights(weights)
}

/// Encodes `input + residue` into `out` and leaves in `residue` what the receiver will not see. Without a residue
/// that is dropped.
#[inline(always)]
pub fn encode(
    coding: Coding,
    input: &[f32],
    residue: Option<&mut [f32]>,
    out: &mut [u8],
) -> Result<Encoded, KernelError> {
    check_encode(coding.codec, input, residue.as_deref(), out)?;
    let finite = match residue {
        Some(residue) => for_codec!(coding.codec, encode_kept(coding, input, residue, out)),
        None => for_codec!(coding.codec, encode_dropped(coding, input, out)),
    };
    Ok(Encoded { finite })
}

/// `out = ` what `codes` say.
#[inline(always)]
pub fn decode(codec: Codec, codes: &[u8], out: &mut [f32]) -> Result<(), KernelError> {
    check_codes(codec, out.len(), codes)?;
    for_codec!(codec, decode_blocks(codes, out));
    Ok(())
}

/// `sum += ` what `codes` say, each element rounded once.
#[inline(always)]
pub fn decode_add(codec: Codec, codes: &[u8], sum: &mut [f32]) -> Result<(), KernelError> {
    check_codes(codec, sum.len(), codes)?;
    for_codec!(codec, decode_add_blocks(codes, sum));
    Ok(())
}

/// Encodes a slot's integers. What `out` decodes to may differ from them by about half a step: [`decode_slot`] says.
#[inline(always)]
pub fn encode_slot(coding: Coding, slot: &[i32], out: &mut [u8]) -> Result<(), KernelError> {
    check_codes(coding.codec, slot.len(), out)?;
    for_codec!(coding.codec, encode_slot_blocks(coding, slot, out));
    Ok(())
}

/// The integers of an encoded slot.
#[inline(always)]
pub fn decode_slot(codec: Codec, codes: &[u8], slot: &mut [i32]) -> Result<(), KernelError> {
    check_codes(codec, slot.len(), codes)?;
    for_codec!(codec, decode_slot_blocks(codes, slot));
    Ok(())
}

/// [`slot::slot_sum`] over encoded slots: `sum[e] = w_0 q_0[e] + w_1 q_1[e] + ...`, exactly.
#[inline(always)]
pub fn coded_sum(codec: Codec, weights: &[u32], slots: &[&[u8]], sum: &mut [i64]) -> Result<(), KernelError> {
    check_coded_sum(codec, weights, slots, sum.len())?;
    for_codec!(codec, coded_sum_blocks(weights, slots, sum));
    Ok(())
}

/// The seed of block number `block` of the range.
#[inline(always)]
fn seed_of<const B: usize>(coding: Coding, block: usize) -> u16 {
    int4::block_seed(coding.seed, coding.first_element / B as u64 + block as u64)
}

/// A short block filled up with zeros.
#[inline(always)]
fn padded<T: Copy + Default, const B: usize>(tail: &[T]) -> [T; B] {
    let mut block = [T::default(); B];
    block[..tail.len()].copy_from_slice(tail);
    block
}

#[inline(always)]
fn encode_kept<F: Block<B, N>, const B: usize, const N: usize>(
    coding: Coding,
    input: &[f32],
    residue: &mut [f32],
    out: &mut [u8],
) -> bool {
    let (blocks, tail) = input.as_chunks::<B>();
    let (kept, tail_kept) = residue.as_chunks_mut::<B>();
    let (codes, tail_codes) = out.split_at_mut(blocks.len() * N);
    let (mut finite, mut values) = (true, [0.0; B]);
    for (index, codes) in codes.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        let seed = seed_of::<B>(coding, index);
        let (input, rest) = (&blocks[index], &mut kept[index]);
        finite &= encode_block::<F, B, N, true>(input, &mut values, rest, seed, codes);
    }
    if !tail.is_empty() {
        let (mut rest, mut codes) = (padded(tail_kept), [0; N]);
        let seed = seed_of::<B>(coding, blocks.len());
        finite &= encode_block::<F, B, N, true>(&padded(tail), &mut values, &mut rest, seed, &mut codes);
        tail_kept.copy_from_slice(&rest[..tail.len()]);
        F::cut_tail(&mut codes, tail.len());
        tail_codes.copy_from_slice(&codes[..tail_codes.len()]);
    }
    finite
}

#[inline(always)]
fn encode_dropped<F: Block<B, N>, const B: usize, const N: usize>(
    coding: Coding,
    input: &[f32],
    out: &mut [u8],
) -> bool {
    let (blocks, tail) = input.as_chunks::<B>();
    let (codes, tail_codes) = out.split_at_mut(blocks.len() * N);
    let (mut finite, mut values, mut rest) = (true, [0.0; B], [0.0; B]);
    for (index, codes) in codes.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        let seed = seed_of::<B>(coding, index);
        let input = &blocks[index];
        finite &= encode_block::<F, B, N, false>(input, &mut values, &mut rest, seed, codes);
    }
    if !tail.is_empty() {
        let mut codes = [0; N];
        let seed = seed_of::<B>(coding, blocks.len());
        finite &= encode_block::<F, B, N, false>(&padded(tail), &mut values, &mut rest, seed, &mut codes);
        F::cut_tail(&mut codes, tail.len());
        tail_codes.copy_from_slice(&codes[..tail_codes.len()]);
    }
    finite
}

/// One block of real values; `rest` goes in with KEEP, and comes out. `values` is room, kept by the caller because
/// clearing it costs as much as a tenth of the work.
#[inline(always)]
fn encode_block<F: Block<B, N>, const B: usize, const N: usize, const KEEP: bool>(
    input: &[f32; B],
    values: &mut [f32; B],
    rest: &mut [f32; B],
    seed: u16,
    codes: &mut [u8; N],
) -> bool {
    let mut top = 0;
    for e in 0..B {
        values[e] = if KEEP { input[e] + rest[e] } else { input[e] };
        // Among magnitudes bits rise with the value, and NaN stands above the infinities.
        let bits = values[e].to_bits() & 0x7fff_ffff;
        top = if bits > top { bits } else { top };
    }
    F::encode(values, top, rest, seed, codes)
}

#[inline(always)]
fn decode_blocks<F: Block<B, N>, const B: usize, const N: usize>(codes: &[u8], out: &mut [f32]) {
    let (blocks, tail) = out.as_chunks_mut::<B>();
    let (codes, tail_codes) = codes.split_at(blocks.len() * N);
    for (index, codes) in codes.as_chunks::<N>().0.iter().enumerate() {
        F::decode(codes, &mut blocks[index]);
    }
    if !tail.is_empty() {
        let mut values = [0.0; B];
        F::decode(&padded(tail_codes), &mut values);
        tail.copy_from_slice(&values[..tail.len()]);
    }
}

#[inline(always)]
fn decode_add_blocks<F: Block<B, N>, const B: usize, const N: usize>(codes: &[u8], sum: &mut [f32]) {
    let (blocks, tail) = sum.as_chunks_mut::<B>();
    let (codes, tail_codes) = codes.split_at(blocks.len() * N);
    let mut values = [0.0; B];
    for (index, codes) in codes.as_chunks::<N>().0.iter().enumerate() {
        F::decode(codes, &mut values);
        let sum = &mut blocks[index];
        for e in 0..B {
            sum[e] += values[e];
        }
    }
    if !tail.is_empty() {
        F::decode(&padded(tail_codes), &mut values);
        for (e, sum) in tail.iter_mut().enumerate() {
            *sum += values[e];
        }
    }
}

#[inline(always)]
fn encode_slot_blocks<F: Block<B, N>, const B: usize, const N: usize>(
    coding: Coding,
    slot: &[i32],
    out: &mut [u8],
) {
    let (blocks, tail) = slot.as_chunks::<B>();
    let (codes, tail_codes) = out.split_at_mut(blocks.len() * N);
    for (index, codes) in codes.as_chunks_mut::<N>().0.iter_mut().enumerate() {
        F::encode_integers(&blocks[index], seed_of::<B>(coding, index), codes);
    }
    if !tail.is_empty() {
        let mut codes = [0; N];
        F::encode_integers(&padded(tail), seed_of::<B>(coding, blocks.len()), &mut codes);
        F::cut_tail(&mut codes, tail.len());
        tail_codes.copy_from_slice(&codes[..tail_codes.len()]);
    }
}

#[inline(always)]
fn decode_slot_blocks<F: Block<B, N>, const B: usize, const N: usize>(codes: &[u8], slot: &mut [i32]) {
    let (blocks, tail) = slot.as_chunks_mut::<B>();
    let (codes, tail_codes) = codes.split_at(blocks.len() * N);
    for (index, codes) in codes.as_chunks::<N>().0.iter().enumerate() {
        F::decode_integers(codes, &mut blocks[index]);
    }
    if !tail.is_empty() {
        let mut values = [0; B];
        F::decode_integers(&padded(tail_codes), &mut values);
        tail.copy_from_slice(&values[..tail.len()]);
    }
}

#[inline(always)]
fn coded_sum_blocks<F: Block<B, N>, const B: usize, const N: usize>(
    weights: &[u32],
    slots: &[&[u8]],
    sum: &mut [i64],
) {
    let mut values = [0i32; B];
    for (index, sum) in sum.chunks_mut(B).enumerate() {
        let mut sums = [0i64; B];
        for (&weight, slot) in weights.iter().zip(slots) {
            let codes = &slot[index * N..];
            match codes.first_chunk::<N>() {
                Some(codes) => F::decode_integers(codes, &mut values),
                None => F::decode_integers(&padded(codes), &mut values),
            }
            // Both factors are sign-extended 32-bit values: one widening multiply each.
            let weight = weight as i32;
            for e in 0..B {
                sums[e] += i64::from(weight) * i64::from(values[e]);
            }
        }
        sum.copy_from_slice(&sums[..sum.len()]);
    }
}

#[cfg(test)]
mod tests;
