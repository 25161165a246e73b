//! Fixed-point slots and the 64-bit master state: quantise with error feedback, weighted sum, commit, merge.
//!
//! The contract of the commit: a slot element is an i32 with `sx` fraction bits, a weight has 24, the master
//! has sx + 24 in an i64. Only integers meet here, so the master depends neither on the order of the sum nor
//! on who computes it.

use crate::arithmetic::{Arithmetic, LINE_BYTES, STREAMS, Store, ahead_of};
use crate::error::{KernelError, check_len};
use crate::vector::first_non_finite;

/// A weight of one: weights have 24 fraction bits.
pub const WEIGHT_ONE: u32 = 1 << WEIGHT_BITS;
const WEIGHT_BITS: i32 = 24;

/// Smallest and largest element of a slot.
const SLOT_MIN: i32 = -(1 << 30);
const SLOT_MAX: i32 = (1 << 30) - 1;

/// Adding this to a double of magnitude below 2^51 rounds it half to even; the integer is in the low bits.
const ROUNDER: f64 = 6_755_399_441_055_744.0; // 1.5 * 2^52

/// Elements handled together so that they stay in the first-level cache.
const BLOCK: usize = 1024;

/// Fraction bits of a slot element.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Scale(i8);

impl Scale {
    /// 24 fraction bits: updates up to 64 in steps of 6e-8.
    pub const DEFAULT: Self = Self(24);

    /// Accepts -64..=64, where every power of two involved is a normal double.
    pub fn new(exponent: i8) -> Result<Self, KernelError> {
        if (-64..=64).contains(&exponent) { Ok(Self(exponent)) } else { Err(KernelError::Scale { exponent }) }
    }

    /// The exponent sx.
    pub fn exponent(self) -> i8 {
        self.0
    }

    /// Fraction bits of the master: sx + 24.
    pub fn master_bits(self) -> i32 {
        i32::from(self.0) + WEIGHT_BITS
    }

    /// 2^sx.
    #[inline(always)]
    fn up(self) -> f64 {
        power_of_two(i32::from(self.0))
    }

    /// 2^-sx.
    #[inline(always)]
    fn down(self) -> f64 {
        power_of_two(-i32::from(self.0))
    }
}

impl Default for Scale {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// 2^n for -1022..=1023.
#[inline(always)]
fn power_of_two(n: i32) -> f64 {
    f64::from_bits(((n + 1023) as u64) << 52)
}

/// What a quantisation did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Quantised {
    /// Elements that left the slot's range; their excess stays in the residue.
    pub clamped_elements: u64,
}

/// What a merge did.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Merged {
    /// Elements whose sum left the slot's range; their excess went to the residue.
    pub excess_elements: u64,
}

/// Quantises one block of real values in place to residues.
#[inline(always)]
fn quantise_block(values: &mut [f32], scale: Scale, slot: &mut [i32]) -> u64 {
    let (up, down) = (scale.up(), scale.down());
    let mut clamped = 0u32;
    for (value, slot) in values.iter_mut().zip(slot) {
        let real = f64::from(*value);
        let wanted = real * up;
        let low = if wanted < f64::from(SLOT_MIN) { f64::from(SLOT_MIN) } else { wanted };
        let held = if low > f64::from(SLOT_MAX) { f64::from(SLOT_MAX) } else { low };
        clamped += u32::from(held != wanted);
        let shifted = held + ROUNDER;
        *slot = shifted.to_bits() as u32 as i32;
        *value = (real - (shifted - ROUNDER) * down) as f32;
    }
    u64::from(clamped)
}

/// Checks the shapes of [`quantise_residue`].
#[inline(always)]
pub fn check_quantise_residue(residue: &[f32], slot: &[i32]) -> Result<(), KernelError> {
    check_len("slot", residue.len(), slot.len())
}

/// Quantises `residue` itself into `slot` and leaves what the slot could not hold.
#[inline(always)]
pub fn quantise_residue(
    residue: &mut [f32],
    scale: Scale,
    slot: &mut [i32],
) -> Result<Quantised, KernelError> {
    check_quantise_residue(residue, slot)?;
    if let Some(element) = first_non_finite(residue) {
        return Err(KernelError::NonFinite { what: "update", element });
    }
    let mut clamped_elements = 0;
    for (values, slot) in residue.chunks_mut(BLOCK).zip(slot.chunks_mut(BLOCK)) {
        clamped_elements += quantise_block(values, scale, slot);
    }
    Ok(Quantised { clamped_elements })
}

/// Checks the shapes of [`quantise`].
#[inline(always)]
pub fn check_quantise(update: &[f32], residue: &[f32], slot: &[i32]) -> Result<(), KernelError> {
    check_len("residue", update.len(), residue.len())?;
    check_len("slot", update.len(), slot.len())
}

/// Quantises `update + residue` into `slot`; `residue` keeps the rest. A non-finite sum writes nothing.
#[inline(always)]
pub fn quantise(
    update: &[f32],
    residue: &mut [f32],
    scale: Scale,
    slot: &mut [i32],
) -> Result<Quantised, KernelError> {
    check_quantise(update, residue, slot)?;
    let mut bad = false;
    for (&update, &residue) in update.iter().zip(&*residue) {
        bad |= !(update + residue).is_finite();
    }
    if bad {
        let sums = update.iter().zip(&*residue).map(|(&update, &residue)| update + residue);
        let element = sums.take_while(|sum| sum.is_finite()).count();
        return Err(KernelError::NonFinite { what: "update", element });
    }
    let mut clamped_elements = 0;
    let blocks = update.chunks(BLOCK).zip(residue.chunks_mut(BLOCK)).zip(slot.chunks_mut(BLOCK));
    for ((update, residue), slot) in blocks {
        for (residue, &update) in residue.iter_mut().zip(update) {
            *residue += update;
        }
        clamped_elements += quantise_block(residue, scale, slot);
    }
    Ok(Quantised { clamped_elements })
}

/// Checks the shapes of [`dequantise`].
#[inline(always)]
pub fn check_dequantise(slot: &[i32], out: &[f32]) -> Result<(), KernelError> {
    check_len("out", slot.len(), out.len())
}

/// The real values of a slot.
#[inline(always)]
pub fn dequantise(slot: &[i32], scale: Scale, out: &mut [f32]) -> Result<(), KernelError> {
    check_dequantise(slot, out)?;
    let down = scale.down();
    for (out, &slot) in out.iter_mut().zip(slot) {
        *out = (f64::from(slot) * down) as f32;
    }
    Ok(())
}

/// Checks the shapes of [`apply`].
pub fn check_apply(master: &[i64], sum: &[i64]) -> Result<(), KernelError> {
    check_len("sum", master.len(), sum.len())
}

/// Checks the shapes and that no sum of any slots under these weights can leave 64 bits.
#[inline(always)]
pub fn check_sum(weights: &[u32], slots: &[&[i32]], len: usize) -> Result<(), KernelError> {
    check_len("slots", weights.len(), slots.len())?;
    for slot in slots {
        check_len("slot", len, slot.len())?;
    }
    check_weights(weights)
}

/// Refuses weights under which the sum of some slots could leave 64 bits.
#[inline(always)]
pub(crate) fn check_weights(weights: &[u32]) -> Result<(), KernelError> {
    // |q| <= 2^31 and sum w < 2^31 bound every partial sum by 2^62, whatever a peer sent.
    let sum = weights.iter().map(|&weight| u64::from(weight)).fold(0, u64::saturating_add);
    if sum > i32::MAX as u64 { Err(KernelError::Weights { sum }) } else { Ok(()) }
}

/// `sum[e] = w_0 q_0[e] + w_1 q_1[e] + ...`, exactly.
#[inline(always)]
pub fn slot_sum<F: Arithmetic>(
    weights: &[u32],
    slots: &[&[i32]],
    sum: &mut [i64],
    store: Store,
) -> Result<(), KernelError> {
    check_sum(weights, slots, sum.len())?;
    sum_run::<F>(weights, slots, 0, sum, store);
    F::settle(store);
    Ok(())
}

/// Sums of a run of elements: as many at a time as registers hold while every slot adds to them. Of many slots one line
/// of each: two of them, or eight slots after the other for long runs, are followed by memory at 5/6 of the rate.
#[inline(always)]
fn sum_run<F: Arithmetic>(weights: &[u32], slots: &[&[i32]], start: usize, run: &mut [i64], store: Store) {
    if slots.len() > STREAMS {
        sum_chunks::<F, { LINE_BYTES / size_of::<i32>() }>(weights, slots, start, run, store);
    } else if const { F::REGISTERS_FLOATS >= 512 } {
        sum_chunks::<F, 64>(weights, slots, start, run, store);
    } else {
        sum_chunks::<F, 32>(weights, slots, start, run, store);
    }
}

#[inline(always)]
fn sum_chunks<F: Arithmetic, const W: usize>(
    weights: &[u32],
    slots: &[&[i32]],
    start: usize,
    run: &mut [i64],
    store: Store,
) {
    let (chunks, tail) = run.as_chunks_mut::<W>();
    let tail_start = start + chunks.len() * W;
    for (index, chunk) in chunks.iter_mut().enumerate() {
        F::store_sums(chunk, sum_chunk::<F, W>(weights, slots, start + index * W), store);
    }
    for (index, sum) in tail.iter_mut().enumerate() {
        [*sum] = sum_chunk::<F, 1>(weights, slots, tail_start + index);
    }
}

#[inline(always)]
fn sum_chunk<F: Arithmetic, const W: usize>(weights: &[u32], slots: &[&[i32]], start: usize) -> [i64; W] {
    let mut sums = [0; W];
    for (&weight, slot) in weights.iter().zip(slots) {
        let chunk: &[i32; W] = slot[start..].first_chunk().expect("the lengths were checked");
        ahead_of::<F, i32>(chunk);
        // Both factors are sign-extended 32-bit values: one widening multiply each.
        let weight = weight as i32;
        for e in 0..W {
            sums[e] += i64::from(weight) * i64::from(chunk[e]);
        }
    }
    sums
}

/// `master += sum`, saturating; returns whether any element saturated, and leaves a negative number in `sum` for each that did.
#[inline(always)]
fn add_saturating(master: &mut [i64], sum: &mut [i64]) -> bool {
    let mut overflow = 0i64;
    for (master, sum) in master.iter_mut().zip(sum) {
        let wrapped = master.wrapping_add(*sum);
        // Negative where both terms have the sign that the result lacks.
        let excess = (*master ^ wrapped) & (*sum ^ wrapped);
        overflow |= excess;
        let limit = (*master >> 63) ^ i64::MAX;
        *master = if excess < 0 { limit } else { wrapped };
        *sum = excess;
    }
    overflow < 0
}

/// Elements whose sums are made before they are added: long enough a run of the master for the memory, and little beside
/// it in the first-level cache.
const ADDED: usize = 128;

/// Adds to the whole master what `sum_of` makes from an element on; the first element that saturated.
#[inline(always)]
fn add_blocks(master: &mut [i64], sum_of: impl Fn(usize, &mut [i64])) -> Result<(), KernelError> {
    let mut sum = [0i64; ADDED];
    let mut first = None;
    for (index, master) in master.chunks_mut(ADDED).enumerate() {
        let sum = &mut sum[..master.len()];
        sum_of(index * ADDED, sum);
        if add_saturating(master, sum) && first.is_none() {
            first = sum.iter().position(|&excess| excess < 0).map(|element| index * ADDED + element);
        }
    }
    first.map_or(Ok(()), |element| Err(KernelError::Overflow { element }))
}

/// `master += sum`. On overflow the element saturates and the whole range is still applied: the error moves
/// the mesh to HALT, and the master must not be used again.
#[inline(always)]
pub fn apply(master: &mut [i64], sum: &[i64]) -> Result<(), KernelError> {
    check_apply(master, sum)?;
    add_blocks(master, |start, block| block.copy_from_slice(&sum[start..start + block.len()]))
}

/// `master[e] += w_0 q_0[e] + w_1 q_1[e] + ...` in one pass; overflow as in [`apply`].
#[inline(always)]
pub fn commit<F: Arithmetic>(
    weights: &[u32],
    slots: &[&[i32]],
    master: &mut [i64],
) -> Result<(), KernelError> {
    check_sum(weights, slots, master.len())?;
    add_blocks(master, |start, block| sum_run::<F>(weights, slots, start, block, Store::Cached))
}

/// Checks the shapes of [`to_float`].
#[inline(always)]
pub fn check_to_float(master: &[i64], out: &[f32]) -> Result<(), KernelError> {
    check_len("out", master.len(), out.len())
}

/// The real values of the master: `G * 2^-(sx + 24)`.
#[inline(always)]
pub fn to_float(master: &[i64], scale: Scale, out: &mut [f32]) -> Result<(), KernelError> {
    check_to_float(master, out)?;
    let down = power_of_two(-scale.master_bits());
    for (out, &master) in out.iter_mut().zip(master) {
        *out = (master as f64 * down) as f32;
    }
    Ok(())
}

/// Checks the shapes of [`merge`].
#[inline(always)]
pub fn check_merge(into: &[i32], from: &[i32], residue: &[f32]) -> Result<(), KernelError> {
    check_len("from", into.len(), from.len())?;
    check_len("residue", into.len(), residue.len())
}

/// Adds slot `from` to slot `into`. What leaves the slot's range is added to `residue` as a real value.
#[inline(always)]
pub fn merge(
    into: &mut [i32],
    from: &[i32],
    scale: Scale,
    residue: &mut [f32],
) -> Result<Merged, KernelError> {
    check_merge(into, from, residue)?;
    let down = scale.down();
    let mut excess_elements = 0;
    for ((into, &from), residue) in into.iter_mut().zip(from).zip(residue) {
        let sum = i64::from(*into) + i64::from(from);
        let held = sum.clamp(i64::from(SLOT_MIN), i64::from(SLOT_MAX));
        *into = held as i32;
        let excess = sum - held;
        if excess != 0 {
            excess_elements += 1;
            *residue += (excess as f64 * down) as f32;
        }
    }
    Ok(Merged { excess_elements })
}

#[cfg(test)]
mod tests;
