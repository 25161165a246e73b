//! Vectors: the 64-lane reduction that fixes the order of every float sum, and the exponential.
//!
//! Element e of a sum is accumulated in lane e mod 64, in rising order of e; then lane l takes lane l + 32,
//! l + 16, ... l + 1. Elements short of a multiple of 16 are filled up with zeros. Four 512-bit, eight 256-bit or
//! sixteen 128-bit registers hold the lanes, and any of them gives the bits of the plain loop.

use crate::arithmetic::Arithmetic;
use crate::element::Element;
use core::hint::black_box;

/// Lanes of every float reduction.
pub const LANES: usize = 64;

/// Lanes that the kernels name together: one 512-bit register, two of 256, four of 128.
pub(crate) const QUARTER: usize = 16;

/// The running sums of one reduction.
pub(crate) type Lanes = [[f32; QUARTER]; LANES / QUARTER];

/// The running sums of all reductions between T vectors and K vectors.
pub(crate) type Sums<const T: usize, const K: usize> = [[Lanes; K]; T];

/// Sums of nothing.
pub(crate) const fn no_sums<const T: usize, const K: usize>() -> Sums<T, K> {
    [[[[0.0; QUARTER]; LANES / QUARTER]; K]; T]
}

/// Folds the lanes of every reduction in the fixed order.
#[inline(always)]
pub(crate) fn fold<const T: usize, const K: usize>(sums: &Sums<T, K>) -> [[f32; K]; T] {
    let mut results = [[0.0; K]; T];
    for t in 0..T {
        for k in 0..K {
            results[t][k] = fold_lanes(&sums[t][k]);
        }
    }
    results
}

/// Lanes on a boundary of their own size, so that no store of them touches two cache lines.
#[repr(align(64))]
struct Aligned<const N: usize>([f32; N]);

/// Left to itself the compiler takes the lanes out one by one and adds them as single floats, which costs more than
/// a reduction of 256 elements does. Lanes that it must keep in memory it adds as vectors.
#[expect(
    clippy::needless_range_loop,
    reason = "adaptors are not inlined into code for a wider instruction set"
)]
#[inline(always)]
pub(crate) fn fold_lanes(lanes: &Lanes) -> f32 {
    let mut quarter = Aligned([0.0f32; QUARTER]);
    for lane in 0..QUARTER {
        // Halves of 32, then of 16.
        quarter.0[lane] = (lanes[0][lane] + lanes[2][lane]) + (lanes[1][lane] + lanes[3][lane]);
    }
    black_box(&mut quarter);
    let mut eighth = Aligned([0.0f32; 8]);
    for lane in 0..8 {
        eighth.0[lane] = quarter.0[lane] + quarter.0[lane + 8];
    }
    black_box(&mut eighth);
    let mut fours = [0.0f32; 4];
    for lane in 0..4 {
        fours[lane] = eighth.0[lane] + eighth.0[lane + 4];
    }
    (fours[0] + fours[2]) + (fours[1] + fours[3])
}

/// Elements in groups of an element for each lane.
type Blocks<'v, E> = &'v [[E; LANES]];

/// The sums after some more elements of T vectors x and K vectors y, `step` folding a pair of elements into a lane.
/// They begin at a multiple of 64 elements and end at another, or at the vectors' end.
///
/// Q quarters of the lanes are kept in registers at once, and the elements are gone through 4 / Q times: T and K of 2
/// and all quarters fill sixteen 512-bit registers, a single quarter eight of 256 bits or sixteen of 128.
///
/// Loops and no adaptors over arrays: those are not inlined into code for a wider instruction set.
#[inline(always)]
pub(crate) fn add_elements<const Q: usize, const T: usize, const K: usize, X: Element, Y: Element>(
    mut lanes: Sums<T, K>,
    x: [&[X]; T],
    y: [&[Y]; K],
    step: impl Fn(f32, f32, f32) -> f32,
) -> Sums<T, K> {
    let len = x[0].len();
    let (mut x_blocks, mut y_blocks): ([Blocks<'_, X>; T], [Blocks<'_, Y>; K]) = ([&[]; T], [&[]; K]);
    let (mut x_tails, mut y_tails): ([&[X]; T], [&[Y]; K]) = ([&[]; T], [&[]; K]);
    for t in 0..T {
        assert!(x[t].len() == len, "vectors of unequal length");
        (x_blocks[t], x_tails[t]) = x[t].as_chunks();
        x_blocks[t] = &x_blocks[t][..len / LANES];
    }
    for k in 0..K {
        assert!(y[k].len() == len, "vectors of unequal length");
        (y_blocks[k], y_tails[k]) = y[k].as_chunks();
        y_blocks[k] = &y_blocks[k][..len / LANES];
    }
    // Calls instead of a loop: where it is not unrolled, sums in registers become sums in memory. And sums that the
    // registers do not hold are better in memory from the beginning than saved in the middle of a loop.
    add_quarters::<Q, T, K, X, Y>(&mut lanes, 0, x_blocks, y_blocks, &step);
    if const { Q < 4 } {
        black_box(&mut lanes);
        add_quarters::<Q, T, K, X, Y>(&mut lanes, Q, x_blocks, y_blocks, &step);
        black_box(&mut lanes);
    }
    if const { Q < 2 } {
        add_quarters::<Q, T, K, X, Y>(&mut lanes, 2, x_blocks, y_blocks, &step);
        black_box(&mut lanes);
        add_quarters::<Q, T, K, X, Y>(&mut lanes, 3, x_blocks, y_blocks, &step);
        black_box(&mut lanes);
    }
    if !x_tails[0].is_empty() { add_tail(lanes, x_tails, y_tails, step) } else { lanes }
}

/// Q quarters of whole blocks.
#[expect(
    clippy::needless_range_loop,
    reason = "adaptors are not inlined into code for a wider instruction set"
)]
#[inline(always)]
fn add_quarters<const Q: usize, const T: usize, const K: usize, X: Element, Y: Element>(
    lanes: &mut Sums<T, K>,
    first: usize,
    x_blocks: [Blocks<'_, X>; T],
    y_blocks: [Blocks<'_, Y>; K],
    step: &impl Fn(f32, f32, f32) -> f32,
) {
    let mut sums = [[[[0.0f32; QUARTER]; Q]; K]; T];
    for t in 0..T {
        for k in 0..K {
            for q in 0..Q {
                sums[t][k][q] = lanes[t][k][first + q];
            }
        }
    }
    for block in 0..x_blocks[0].len() {
        for q in 0..Q {
            let start = (first + q) * QUARTER;
            let (mut x, mut y) = ([[0.0; QUARTER]; T], [[0.0; QUARTER]; K]);
            for t in 0..T {
                x[t] = widen(x_blocks[t][block][start..].first_chunk().expect("four quarters"));
            }
            for k in 0..K {
                y[k] = widen(y_blocks[k][block][start..].first_chunk().expect("four quarters"));
            }
            for t in 0..T {
                for k in 0..K {
                    for lane in 0..QUARTER {
                        let sum = &mut sums[t][k][q][lane];
                        *sum = step(x[t][lane], y[k][lane], *sum);
                    }
                }
            }
        }
    }
    for t in 0..T {
        for k in 0..K {
            for q in 0..Q {
                lanes[t][k][first + q] = sums[t][k][q];
            }
        }
    }
}

/// The values of a quarter.
#[inline(always)]
pub(crate) fn widen<E: Element>(elements: &[E; QUARTER]) -> [f32; QUARTER] {
    let mut values = [0.0; QUARTER];
    for lane in 0..QUARTER {
        values[lane] = elements[lane].widen();
    }
    values
}

/// The sums after fewer elements than there are lanes.
#[inline(always)]
fn add_tail<const T: usize, const K: usize, X: Element, Y: Element>(
    mut lanes: Sums<T, K>,
    x: [&[X]; T],
    y: [&[Y]; K],
    step: impl Fn(f32, f32, f32) -> f32,
) -> Sums<T, K> {
    for quarter in 0..LANES / QUARTER {
        // A lane that gets no element and no filling stays even a negative zero.
        if quarter * QUARTER < x[0].len() {
            let (mut x_values, mut y_values) = ([[0.0; QUARTER]; T], [[0.0; QUARTER]; K]);
            for t in 0..T {
                x_values[t] = widen_filled(&x[t][quarter * QUARTER..]);
            }
            for k in 0..K {
                y_values[k] = widen_filled(&y[k][quarter * QUARTER..]);
            }
            for t in 0..T {
                for k in 0..K {
                    for lane in 0..QUARTER {
                        let sum = &mut lanes[t][k][quarter][lane];
                        *sum = step(x_values[t][lane], y_values[k][lane], *sum);
                    }
                }
            }
        }
    }
    lanes
}

/// The values of a quarter, or of what elements there are, filled up with zeros.
#[inline(always)]
fn widen_filled<E: Element>(elements: &[E]) -> [f32; QUARTER] {
    if let Some(elements) = elements.first_chunk() {
        return widen(elements);
    }
    let mut filled = [E::default(); QUARTER];
    filled[..elements.len()].copy_from_slice(elements);
    widen(&filled)
}

/// The reduction between two vectors.
#[inline(always)]
fn reduce(x: &[f32], y: &[f32], step: impl Fn(f32, f32, f32) -> f32) -> f32 {
    fold(&add_elements::<4, 1, 1, _, _>(no_sums(), [x], [y], step))[0][0]
}

/// The dot product.
#[inline(always)]
pub fn dot<F: Arithmetic>(x: &[f32], y: &[f32]) -> f32 {
    reduce(x, y, |x, y, sum| F::fused(x, y, sum))
}

/// The sum of all elements.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    reduce(x, x, |x, _, sum| sum + x)
}

/// The largest element, NaN passed over; negative infinity for none.
#[inline(always)]
pub fn max(x: &[f32]) -> f32 {
    // By lanes, like the sums: a chain of single comparisons cannot be vectorised.
    let mut lanes = [f32::NEG_INFINITY; QUARTER];
    let (blocks, tail) = x.as_chunks::<QUARTER>();
    for block in blocks {
        for lane in 0..QUARTER {
            lanes[lane] = larger(lanes[lane], block[lane]);
        }
    }
    for (lane, &value) in lanes.iter_mut().zip(tail) {
        *lane = larger(*lane, value);
    }
    for lane in 0..8 {
        lanes[lane] = larger(lanes[lane], lanes[lane + 8]);
    }
    for lane in 0..4 {
        lanes[lane] = larger(lanes[lane], lanes[lane + 4]);
    }
    larger(larger(lanes[0], lanes[2]), larger(lanes[1], lanes[3]))
}

/// The larger of two, the first when the second is NaN.
#[inline(always)]
fn larger(a: f32, b: f32) -> f32 {
    if b > a { b } else { a }
}

/// `y += alpha * x`.
#[inline(always)]
pub fn axpy<F: Arithmetic>(alpha: f32, x: &[f32], y: &mut [f32]) {
    assert_eq!(x.len(), y.len(), "vectors of unequal length");
    for (y, &x) in y.iter_mut().zip(x) {
        *y = F::fused(alpha, x, *y);
    }
}

/// `x *= alpha`.
#[inline(always)]
pub fn scale(alpha: f32, x: &mut [f32]) {
    for x in x {
        *x *= alpha;
    }
}

/// The first element that is NaN or infinite.
#[inline(always)]
pub fn first_non_finite<E: Element>(x: &[E]) -> Option<usize> {
    // A blockwise yes-or-no first: the search itself cannot be vectorised.
    let mut bad = false;
    for &value in x {
        bad |= !value.widen().is_finite();
    }
    if bad { x.iter().position(|value| !value.widen().is_finite()) } else { None }
}

/// Adding this rounds a float of magnitude below 2^22 to an integer kept in the low mantissa bits.
const ROUNDER: f32 = 12_582_912.0; // 1.5 * 2^23
/// Where `exp` starts to saturate: results stay normal floats.
const EXP_MIN: f32 = -87.0;
const EXP_MAX: f32 = 88.0;

/// e to the x: relative error below 3e-7 on -87..=88, held constant outside, NaN for NaN.
///
/// x = n ln 2 + r with |r| <= 0.35; the Taylor series of degree 7 leaves 6e-9 of e^r.
#[inline(always)]
pub fn exp<F: Arithmetic>(x: f32) -> f32 {
    let x = if x < EXP_MIN { EXP_MIN } else { x };
    let x = if x > EXP_MAX { EXP_MAX } else { x };
    let shifted = F::fused(x, core::f32::consts::LOG2_E, ROUNDER);
    let n = shifted - ROUNDER;
    // ln 2 in two parts; the first has nine bits, so n times it is exact.
    let r = F::fused(n, -355.0 / 512.0, x);
    let r = F::fused(n, 2.121_944_4e-4, r);
    let mut p = 1.0 / 5040.0;
    p = F::fused(p, r, 1.0 / 720.0);
    p = F::fused(p, r, 1.0 / 120.0);
    p = F::fused(p, r, 1.0 / 24.0);
    p = F::fused(p, r, 1.0 / 6.0);
    p = F::fused(p, r, 0.5);
    p = F::fused(p, r, 1.0);
    p = F::fused(p, r, 1.0);
    // 2^n: the low bits of `shifted` are n; the bits above them leave by the shift.
    let power = f32::from_bits(shifted.to_bits().wrapping_add(127) << 23);
    p * power
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arithmetic::Soft;

    #[test]
    fn dot_runs_in_the_documented_order() {
        let x: Vec<f32> = (0..131).map(|e| (e as f32 * 0.37).sin()).collect();
        let y: Vec<f32> = (0..131).map(|e| (e as f32 * 1.3).cos()).collect();
        let mut lanes = [0.0f32; 64];
        for e in 0..131 {
            lanes[e % 64] = x[e].mul_add(y[e], lanes[e % 64]);
        }
        for half in [32, 16, 8, 4, 2, 1] {
            for lane in 0..half {
                lanes[lane] += lanes[lane + half];
            }
        }
        assert_eq!(dot::<Soft>(&x, &y).to_bits(), lanes[0].to_bits());
    }

    #[test]
    fn exp_has_its_stated_error() {
        let mut worst = 0.0f64;
        for step in 0..=175_000 {
            let x = (-87.0 + step as f32 * 0.001).min(88.0);
            let exact = f64::from(x).exp();
            worst = worst.max((f64::from(exp::<Soft>(x)) - exact).abs() / exact);
        }
        assert!(worst < 3e-7, "worst relative error {worst:e}");
    }

    #[test]
    fn exp_saturates_and_keeps_nan() {
        assert!(exp::<Soft>(f32::NAN).is_nan());
        assert_eq!(exp::<Soft>(f32::INFINITY), exp::<Soft>(88.0));
        assert_eq!(exp::<Soft>(f32::NEG_INFINITY), exp::<Soft>(-87.0));
        assert_eq!(exp::<Soft>(0.0), 1.0);
    }

    #[test]
    fn non_finite_elements_are_found_wherever_they_are() {
        for at in [0, 1, 63, 64, 99] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let mut x = vec![1.0; 100];
                x[at] = bad;
                assert_eq!(first_non_finite(&x), Some(at));
            }
        }
        assert_eq!(first_non_finite(&[f32::MIN_POSITIVE / 4.0, f32::MAX]), None);
    }
}
