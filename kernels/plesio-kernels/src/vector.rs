//! Vectors: the 64-lane reduction that fixes the order of every float sum, and the exponential.
//!
//! Element e of a sum is accumulated in lane e mod 64, in rising order of e; then lane l takes lane l + 32,
//! l + 16, ... l + 1. Elements short of a multiple of 16 are filled up with zeros. Four 512-bit, eight 256-bit or sixteen 128-bit registers hold the lanes, and any of them
//! gives the bits of the plain loop below.

use crate::arithmetic::Arithmetic;

/// Lanes of every float reduction.
pub const LANES: usize = 64;

/// Lanes that the kernels name together: one 512-bit register, two of 256, four of 128.
pub(crate) const QUARTER: usize = 16;

/// The running sums of one reduction.
pub(crate) type Lanes = [[f32; QUARTER]; LANES / QUARTER];

/// Folds the lanes of a reduction in the fixed order.
#[inline(always)]
pub(crate) fn fold(lanes: &Lanes) -> f32 {
    let mut sums = [0.0f32; QUARTER];
    for lane in 0..QUARTER {
        // Halves of 32, then of 16.
        sums[lane] = (lanes[0][lane] + lanes[2][lane]) + (lanes[1][lane] + lanes[3][lane]);
    }
    for lane in 0..8 {
        sums[lane] += sums[lane + 8];
    }
    for lane in 0..4 {
        sums[lane] += sums[lane + 4];
    }
    (sums[0] + sums[2]) + (sums[1] + sums[3])
}

/// The last elements of a vector, filled up with zeros to a quarter.
#[inline(always)]
pub(crate) fn pad(tail: &[f32]) -> [f32; QUARTER] {
    let mut quarter = [0.0; QUARTER];
    for (to, from) in quarter.iter_mut().zip(tail) {
        *to = *from;
    }
    quarter
}

/// All reductions between T vectors x and K vectors y of one length, `step` folding a pair of elements into a
/// lane. T and K of 2 keep the sums in sixteen 512-bit registers and read each vector once for two results.
///
/// Loops and no adaptors over arrays: those are not inlined into code for a wider instruction set.
#[inline(always)]
pub(crate) fn reductions<const T: usize, const K: usize>(
    x: [&[f32]; T],
    y: [&[f32]; K],
    step: impl Fn(f32, f32, f32) -> f32,
) -> [[f32; K]; T] {
    let len = x[0].len();
    assert!(
        x.iter().all(|x| x.len() == len) && y.iter().all(|y| y.len() == len),
        "vectors of unequal length"
    );
    let mut lanes = [[[[0.0f32; QUARTER]; 4]; K]; T];
    let mut start = 0;
    while start + LANES <= len {
        for quarter in 0..4 {
            let (x, y) = quarters(x, y, start + quarter * QUARTER);
            add_quarter(&mut lanes, quarter, x, y, &step);
        }
        start += LANES;
    }
    for quarter in 0..4 {
        if start + QUARTER <= len {
            let (x, y) = quarters(x, y, start);
            add_quarter(&mut lanes, quarter, x, y, &step);
            start += QUARTER;
        } else if start < len {
            let (mut x_pad, mut y_pad) = ([[0.0; QUARTER]; T], [[0.0; QUARTER]; K]);
            for t in 0..T {
                x_pad[t] = pad(&x[t][start..]);
            }
            for k in 0..K {
                y_pad[k] = pad(&y[k][start..]);
            }
            add_quarter(&mut lanes, quarter, x_pad.each_ref(), y_pad.each_ref(), &step);
            start = len;
        }
    }
    let mut results = [[0.0; K]; T];
    for t in 0..T {
        for k in 0..K {
            results[t][k] = fold(&lanes[t][k]);
        }
    }
    results
}

/// One quarter of every pair of vectors into its lanes.
#[inline(always)]
fn add_quarter<const T: usize, const K: usize>(
    lanes: &mut [[Lanes; K]; T],
    quarter: usize,
    x: [&[f32; QUARTER]; T],
    y: [&[f32; QUARTER]; K],
    step: &impl Fn(f32, f32, f32) -> f32,
) {
    for t in 0..T {
        for k in 0..K {
            for lane in 0..QUARTER {
                let sum = &mut lanes[t][k][quarter][lane];
                *sum = step(x[t][lane], y[k][lane], *sum);
            }
        }
    }
}

/// The quarters of all vectors at one place.
#[inline(always)]
fn quarters<'v, const T: usize, const K: usize>(
    x: [&'v [f32]; T],
    y: [&'v [f32]; K],
    start: usize,
) -> ([&'v [f32; QUARTER]; T], [&'v [f32; QUARTER]; K]) {
    let (mut x_quarters, mut y_quarters) = ([&[0.0; QUARTER]; T], [&[0.0; QUARTER]; K]);
    for t in 0..T {
        x_quarters[t] = x[t][start..].first_chunk().expect("inside the vector");
    }
    for k in 0..K {
        y_quarters[k] = y[k][start..].first_chunk().expect("inside the vector");
    }
    (x_quarters, y_quarters)
}

/// The dot product.
#[inline(always)]
pub fn dot<F: Arithmetic>(x: &[f32], y: &[f32]) -> f32 {
    reductions([x], [y], |x, y, sum| F::fused(x, y, sum))[0][0]
}

/// The sum of all elements.
#[inline(always)]
pub fn sum(x: &[f32]) -> f32 {
    reductions([x], [x], |x, _, sum| sum + x)[0][0]
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
pub fn first_non_finite(x: &[f32]) -> Option<usize> {
    // A blockwise yes-or-no first: the search itself cannot be vectorised.
    let mut bad = false;
    for &value in x {
        bad |= !value.is_finite();
    }
    if bad { x.iter().position(|value| !value.is_finite()) } else { None }
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
