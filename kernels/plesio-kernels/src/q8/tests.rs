//! Laws of the q8 format: the layout, the error, what the residue keeps, and that any bits decode.

use super::*;
use crate::arithmetic::Soft;
use proptest::prelude::*;

/// What an encoding leaves.
#[derive(Debug, PartialEq)]
struct Coded {
    codes: Vec<i8>,
    scales: Vec<u16>,
    residue: Vec<f32>,
    finite: bool,
}

fn coded(input: &[f32], residue: &[f32]) -> Coded {
    let (mut codes, mut scales) = (vec![99; input.len()], vec![99; input.len().div_ceil(BLOCK)]);
    let mut residue = residue.to_vec();
    let finite = quantise_q8(input, &mut residue, &mut codes, &mut scales).unwrap().finite;
    Coded { codes, scales, residue, finite }
}

fn decoded(coded: &Coded) -> Vec<f32> {
    let mut out = vec![7.0; coded.codes.len()];
    dequantise_q8(Q8::new(&coded.codes, &coded.scales).unwrap(), &mut out).unwrap();
    out
}

/// Values between -1 and 1, reproducible.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 40) as f32 / 8_388_608.0 - 1.0
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn a_block_of_whole_numbers_up_to_127_has_a_scale_of_one() {
    let mut input = vec![127.0, -127.0, 0.5, 1.5, 2.5, -0.5, -1.5, 3.0];
    input.resize(40, 0.0);
    input[39] = 254.0;
    let found = coded(&input, &[0.0; 40]);
    assert_eq!(found.scales, [0x3C00, 0x4000], "1 and 2");
    assert_eq!(found.codes[..8], [127, -127, 0, 2, 2, 0, -2, 3], "halves go to the even code");
    assert_eq!(found.codes[39], 127);
    assert_eq!(found.residue[..8], [0.0, 0.0, 0.5, -0.5, 0.5, -0.5, 0.5, 0.0]);
    assert!(found.finite);
}

#[test]
fn what_has_no_scale_stays_in_the_residue() {
    // 127 times the largest subnormal scale, and the least float above.
    let below = 127.0 * f16::widen(0x03FF);
    for (top, scale) in [(0.0, 0), (f32::from_bits(1), 0), (below, 0), (below.next_up(), 0x0400)] {
        let input = [top, -top / 3.0, -0.0];
        let found = coded(&input, &[-0.0; 3]);
        assert_eq!(found.scales, [scale], "{top:e}");
        if scale == 0 {
            assert_eq!(found.codes, [0; 3]);
            assert_eq!(found.residue.map_bits(), input.map_bits(), "{top:e}");
        }
        assert!(found.finite);
    }
}

/// Bits, so that a negative zero is one.
trait Bits {
    fn map_bits(&self) -> Vec<u32>;
}

impl Bits for [f32] {
    fn map_bits(&self) -> Vec<u32> {
        self.iter().map(|value| value.to_bits()).collect()
    }
}

#[test]
fn a_block_that_is_not_finite_or_too_large_spoils_itself_alone() {
    let largest = 127.0 * 65_504.0f32;
    assert_eq!(coded(&[largest; 3], &[0.0; 3]).scales, [0x7BFF]);
    assert_eq!(coded(&[largest.next_up(); 3], &[0.0; 3]).scales, [f16::NAN]);
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, -1.001 * largest] {
        for at in [0, 31, 32, 64] {
            let (mut input, kept) = (values(65, 1), values(65, 2));
            let clean = coded(&input, &kept);
            input[at] = bad;
            let found = coded(&input, &kept);
            assert!(!found.finite, "{bad} at {at}");
            for (block, range) in [0..32, 32..64, 64..65].into_iter().enumerate() {
                if range.contains(&at) {
                    assert_eq!(found.scales[block], f16::NAN);
                    assert!(found.codes[range.clone()].iter().all(|&code| code == 0));
                    assert_eq!(found.residue[range.clone()], kept[range.clone()], "as it was");
                    assert!(decoded(&found)[range].iter().all(|value| value.is_nan()));
                } else {
                    assert_eq!(found.scales[block], clean.scales[block]);
                    assert_eq!(found.codes[range.clone()], clean.codes[range.clone()]);
                    assert_eq!(found.residue[range.clone()], clean.residue[range]);
                }
            }
        }
    }
    // A sum that overflows, of finite terms.
    assert!(!coded(&[f32::MAX], &[f32::MAX]).finite);
}

/// The format again, an element at a time and in double precision.
fn defined(values: &[f32]) -> (Vec<i8>, Vec<u16>) {
    let (mut codes, mut scales) = (Vec::new(), Vec::new());
    for block in values.chunks(32) {
        let top = block.iter().fold(0.0f32, |top, value| top.max(value.abs()));
        let wanted = top / 127.0;
        let scale =
            (0..0x7C00u16).collect::<Vec<_>>().partition_point(|&bits| f16::widen(bits) < wanted) as u16;
        let scale = if scale < 0x0400 { 0 } else { scale };
        scales.push(scale);
        let inverse = if scale == 0 { 0.0 } else { 1.0 / f16::widen(scale) };
        codes.extend(block.iter().map(|value| (value * inverse).round_ties_even() as i8));
    }
    (codes, scales)
}

proptest! {
    #[test]
    fn the_codes_are_those_of_the_definition_and_nothing_is_lost(
        len in 0usize..70, seed in any::<u64>(), size in -18i32..22, kept in any::<bool>(),
    ) {
        let scaled = |values: Vec<f32>| -> Vec<f32> { values.iter().map(|v| v * 2f32.powi(size)).collect() };
        let input = scaled(values(len, seed));
        let before = if kept { scaled(values(len, !seed)) } else { vec![0.0; len] };
        let sums: Vec<f32> = input.iter().zip(&before).map(|(a, b)| a + b).collect();
        let found = coded(&input, &before);
        prop_assert!(found.finite);
        prop_assert_eq!((found.codes.clone(), found.scales.clone()), defined(&sums));
        for (e, value) in decoded(&found).into_iter().enumerate() {
            let half = f64::from(f16::widen(found.scales[e / 32])) / 2.0;
            let left = f64::from(found.residue[e]);
            prop_assert_eq!(f64::from(value) + left, f64::from(sums[e]), "exactly");
            // The product with the rounded inverse is off by two roundings of up to 127 steps.
            let bound = half * (1.0 + 127.0 * 4.0 * f64::from(f32::EPSILON));
            prop_assert!(found.scales[e / 32] == 0 || left.abs() <= bound, "{left} of {half}");
        }
    }

    #[test]
    fn any_bits_decode_to_the_exact_product(codes in prop::collection::vec(any::<i8>(), 65), scales in any::<[u16; 3]>()) {
        let mut out = vec![7.0; 65];
        dequantise_q8(Q8::new(&codes, &scales).unwrap(), &mut out).unwrap();
        for (e, value) in out.into_iter().enumerate() {
            let exact = f64::from(codes[e]) * f64::from(f16::widen(scales[e / 32]));
            prop_assert!(f64::from(value) == exact || value.is_nan() && exact.is_nan(), "{value} is {exact}");
        }
    }

    #[test]
    fn a_weighted_sum_is_that_of_double_precision(len in 0usize..3000, k in 1usize..=32, seed in any::<u64>()) {
        let inputs: Vec<Coded> =
            (0..k as u64).map(|k| coded(&values(len, seed ^ k), &vec![0.0; len])).collect();
        let views: Vec<Q8<'_>> = inputs.iter().map(|c| Q8::new(&c.codes, &c.scales).unwrap()).collect();
        let weights = values(k, seed.rotate_left(7));
        let mut out = vec![7.0; len];
        let norm = weighted_sum_q8::<Soft>(&weights, &views, &mut out).unwrap();
        let decoded: Vec<Vec<f32>> = inputs.iter().map(decoded).collect();
        let mut exact_norm = 0.0;
        for (e, &found) in out.iter().enumerate() {
            let (mut exact, mut size, mut fused) = (0.0, 0.0, 0.0);
            for (&weight, input) in weights.iter().zip(&decoded) {
                let product = f64::from(weight) * f64::from(input[e]);
                exact += product;
                size += product.abs();
                fused = Soft::fused(weight, input[e], fused);
            }
            prop_assert_eq!(found.to_bits(), fused.to_bits(), "rounded once for each input, k rising");
            let error = (f64::from(found) - exact).abs();
            prop_assert!(error <= k as f64 * f64::from(f32::EPSILON) / 2.0 * size, "{error:e} of {size}");
            exact_norm += f64::from(found) * f64::from(found);
        }
        prop_assert!((norm - exact_norm).abs() <= 22.0 * f64::from(f32::EPSILON) / 2.0 * exact_norm);
    }
}

#[test]
fn the_errors_of_many_rounds_do_not_add_up() {
    let len = 100;
    let (mut residue, mut sent, mut meant) = (vec![0.0; len], vec![0.0f64; len], vec![0.0f64; len]);
    let mut scale = 0.0f64;
    for round in 0..200 {
        let input = values(len, round);
        let found = coded(&input, &residue);
        for (e, value) in decoded(&found).into_iter().enumerate() {
            sent[e] += f64::from(value);
            meant[e] += f64::from(input[e]);
        }
        scale = found.scales.iter().fold(scale, |scale, &bits| scale.max(f64::from(f16::widen(bits))));
        residue = found.residue;
    }
    for e in 0..len {
        let error = (sent[e] - meant[e]).abs();
        // Half a step of the last round, and a rounding of each sum.
        assert!(
            error <= scale / 2.0 + 200.0 * f64::from(f32::EPSILON),
            "element {e} is {error} off after 200 rounds"
        );
    }
}

#[test]
fn buffers_of_another_length_are_refused_and_untouched() {
    let input = [1.0; 40];
    for (residue, codes, scales) in [(39, 40, 2), (40, 41, 2), (40, 40, 1), (40, 40, 3)] {
        let (mut residue, mut codes, mut scales) = (vec![7.0; residue], vec![7; codes], vec![7; scales]);
        assert!(quantise_q8(&input, &mut residue, &mut codes, &mut scales).is_err());
        assert!(residue.iter().all(|&v| v == 7.0) && codes.iter().all(|&v| v == 7));
        assert!(scales.iter().all(|&v| v == 7));
    }
    assert!(Q8::new(&[1; 33], &[1]).is_err());
    assert!(Q8::new(&[], &[1]).is_err());
    let view = Q8::new(&[1; 33], &[1; 2]).unwrap();
    assert_eq!((view.len(), view.is_empty()), (33, false));
    for len in [0, 32, 34] {
        let mut out = vec![7.0; len];
        assert!(dequantise_q8(view, &mut out).is_err());
        assert!(weighted_sum_q8::<Soft>(&[1.0], &[view], &mut out).is_err());
        assert!(out.iter().all(|&v| v == 7.0));
    }
    let mut out = [7.0; 33];
    for count in [0, 33] {
        let found = weighted_sum_q8::<Soft>(&vec![1.0; count], &vec![view; count], &mut out).unwrap_err();
        assert_eq!(found, KernelError::Count { what: "contributions", found: count, min: 1, max: 32 });
    }
    assert!(weighted_sum_q8::<Soft>(&[1.0; 2], &[view], &mut out).is_err());
    assert_eq!(out, [7.0; 33]);
}
