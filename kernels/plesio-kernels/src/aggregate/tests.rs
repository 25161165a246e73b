//! Laws of weighted sums and their norms, against float64 and against their own plain words.

use super::*;
use crate::arithmetic::Soft;
use crate::norm::{fold_partial, square_norm, square_norm_partial};
use proptest::prelude::*;

/// The order of the documentation, with nothing clever.
fn norm_in_order(x: &[f32]) -> f64 {
    let mut lanes = [0.0f64; 64];
    for (p, chunk) in x.chunks(1024).enumerate() {
        let mut sums = [0.0f32; 64];
        for (e, &value) in chunk.iter().enumerate() {
            sums[e % 64] = value.mul_add(value, sums[e % 64]);
        }
        for half in [32, 16, 8, 4, 2, 1] {
            (0..half).for_each(|lane| sums[lane] += sums[lane + half]);
        }
        lanes[p % 64] += f64::from(sums[0]);
    }
    for half in [32, 16, 8, 4, 2, 1] {
        (0..half).for_each(|lane| lanes[lane] += lanes[lane + half]);
    }
    lanes[0]
}

fn wave(len: usize, phase: f32) -> Vec<f32> {
    (0..len).map(|e| (e as f32 * 0.37 + phase).sin() * (1.0 + (e % 7) as f32)).collect()
}

#[test]
fn the_norm_runs_in_the_documented_order() {
    // Beyond 64 chunks the partial sums come back to the first lane.
    for len in [0, 1, 63, 64, 65, 1023, 1024, 1025, 66 * 1024 + 5] {
        let x = wave(len, 0.1);
        assert_eq!(square_norm::<Soft>(&x).to_bits(), norm_in_order(&x).to_bits(), "{len} elements");
    }
}

#[test]
fn the_partial_sums_of_ranges_make_the_norm_of_the_whole() {
    let x = wave(5 * CHUNK + 77, 0.3);
    let mut partials = vec![0.0; 6];
    let (first, second) = partials.split_at_mut(2);
    square_norm_partial::<Soft>(&x[..2 * CHUNK], first).unwrap();
    square_norm_partial::<Soft>(&x[2 * CHUNK..], second).unwrap();
    assert_eq!(fold_partial(&partials).to_bits(), square_norm::<Soft>(&x).to_bits());
    assert!(matches!(
        square_norm_partial::<Soft>(&x, &mut partials[..5]),
        Err(KernelError::Length { what: "partial sums", expected: 6, found: 5 })
    ));
}

#[test]
fn a_sum_tells_the_norm_of_what_it_wrote() {
    for (len, k) in [(0, 1), (1, 1), (2, 3), (15, 8), (64, 2), (130, 5), (1023, 31), (1025, 32), (3000, 16)] {
        let inputs: Vec<Vec<f32>> = (0..k).map(|k| wave(len, k as f32)).collect();
        let views: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let weights: Vec<f32> = (0..k).map(|k| 0.5 - 0.1 * k as f32).collect();
        let mut out = vec![9.0; len];
        let norm = weighted_sum::<Soft>(&weights, &views, &mut out).unwrap();
        assert_eq!(norm.to_bits(), square_norm::<Soft>(&out).to_bits(), "{len} elements of {k}");
        for e in 0..len {
            let plain = weights.iter().zip(&views).fold(0.0f32, |sum, (w, x)| w.mul_add(x[e], sum));
            assert_eq!(out[e].to_bits(), plain.to_bits(), "element {e} of {k}");
        }
    }
}

#[test]
fn halves_are_summed_as_their_widened_values() {
    let inputs: Vec<Vec<u16>> =
        (0..5).map(|k| wave(1100, k as f32).into_iter().map(bf16::narrow).collect()).collect();
    let wide: Vec<Vec<f32>> =
        inputs.iter().map(|input| input.iter().map(|&bits| bf16::widen(bits)).collect()).collect();
    let halves: Vec<&[u16]> = inputs.iter().map(Vec::as_slice).collect();
    let floats: Vec<&[f32]> = wide.iter().map(Vec::as_slice).collect();
    let weights = [1.0, -0.25, 0.1, 3.0, -7.5];
    let (mut found, mut expected) = (vec![1.0; 1100], vec![2.0; 1100]);
    let norm = weighted_sum_bf16::<Soft>(&weights, &halves, &mut found).unwrap();
    assert_eq!(norm.to_bits(), weighted_sum::<Soft>(&weights, &floats, &mut expected).unwrap().to_bits());
    assert_eq!(found, expected);
}

#[test]
fn an_infinite_weight_makes_no_nan_where_the_chunk_has_ended() {
    let mut out = [0.0; 3];
    let norm = weighted_sum::<Soft>(&[f32::INFINITY], &[&[1.0, 2.0, -1.0]], &mut out).unwrap();
    assert_eq!(out, [f32::INFINITY, f32::INFINITY, f32::NEG_INFINITY]);
    assert_eq!(norm, f64::INFINITY);
}

#[test]
fn bad_shapes_are_refused_and_nothing_is_written() {
    let (x, mut out, mut partials) = ([1.0f32; 4], [7.0f32; 4], [7.0f32; 1]);
    let count = |found| KernelError::Count { what: "contributions", found, min: 1, max: 32 };
    assert_eq!(weighted_sum::<Soft>(&[], &[], &mut out), Err(count(0)));
    assert_eq!(weighted_sum::<Soft>(&[1.0; 33], &[&x[..]; 33], &mut out), Err(count(33)));
    assert_eq!(weighted_sum_bf16::<Soft>(&[], &[], &mut out), Err(count(0)));
    assert!(matches!(
        weighted_sum::<Soft>(&[1.0], &[&x, &x], &mut out),
        Err(KernelError::Length { what: "weights", expected: 2, found: 1 })
    ));
    assert!(matches!(
        weighted_sum::<Soft>(&[1.0; 2], &[&x, &x[1..]], &mut out),
        Err(KernelError::Length { what: "input", expected: 4, found: 3 })
    ));
    assert!(matches!(
        weighted_sum_partial::<Soft>(&[1.0], &[&x], &mut out, &mut partials[1..], Store::Cached),
        Err(KernelError::Length { what: "partial sums", .. })
    ));
    assert_eq!((out, partials), ([7.0; 4], [7.0; 1]));
}

#[test]
fn clipping_shortens_what_is_too_long_and_drops_what_has_no_length() {
    let mut weights = [0.5, 0.5, 0.5, 0.5, 0.5, -0.5, 0.25];
    let norms = [4.0, 1.0, 0.0, f64::NAN, f64::INFINITY, 16.0, -1.0];
    let clipped = clip_weights(&mut weights, &norms, 1.0).unwrap();
    assert_eq!(weights, [0.25, 0.5, 0.5, 0.0, 0.0, -0.125, 0.0]);
    assert_eq!(clipped, Clipped { non_finite: 1 << 3 | 1 << 4 | 1 << 6 });
    // Rounded once: the f64 ratio goes into the product as it is.
    let mut weights = [0.3f32];
    clip_weights(&mut weights, &[7.0], 1.1).unwrap();
    assert_eq!(weights[0], (f64::from(0.3f32) * (f64::from(1.1f32) / 7.0f64.sqrt())) as f32);
    // No limit, none at all, and lengths at both ends of f64.
    let mut weights = [1.0f32; 3];
    assert_eq!(clip_weights(&mut weights, &[1e300, 5e-324, 0.0], f32::INFINITY), Ok(Clipped::default()));
    assert_eq!(weights, [1.0; 3]);
    clip_weights(&mut weights, &[1e300, 5e-324, 0.0], 0.0).unwrap();
    assert_eq!(weights, [0.0, 0.0, 1.0]);
}

#[test]
fn bad_limits_and_counts_are_refused_and_no_weight_changes() {
    let mut weights = [1.0f32; 2];
    for limit in [f32::NAN, -1.0, f32::NEG_INFINITY] {
        let error = clip_weights(&mut weights, &[9.0; 2], limit).unwrap_err();
        assert_eq!(error, KernelError::Limit { bits: limit.to_bits() });
    }
    assert!(matches!(
        clip_weights(&mut weights, &[9.0], 1.0),
        Err(KernelError::Length { what: "norms", .. })
    ));
    assert!(matches!(clip_weights(&mut [], &[], 1.0), Err(KernelError::Count { found: 0, .. })));
    assert!(matches!(
        clip_weights(&mut [1.0; 33], &[1.0; 33], 1.0),
        Err(KernelError::Count { found: 33, .. })
    ));
    assert_eq!(weights, [1.0; 2]);
}

proptest! {
    #[test]
    fn sums_and_norms_are_near_those_of_float64(
        inputs in prop::collection::vec(prop::collection::vec(-1e3f32..1e3, 99), 1..=32),
        weight in -2.0f32..2.0,
    ) {
        let weights: Vec<f32> = (0..inputs.len()).map(|k| weight + k as f32 / 16.0).collect();
        let views: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
        let mut out = vec![0.0; 99];
        let norm = weighted_sum::<Soft>(&weights, &views, &mut out).unwrap();
        let mut exact_norm = 0.0;
        for e in 0..99 {
            let terms = || weights.iter().zip(&views).map(|(&w, x)| f64::from(w) * f64::from(x[e]));
            let (exact, size) = (terms().sum::<f64>(), terms().map(f64::abs).sum::<f64>());
            prop_assert!((f64::from(out[e]) - exact).abs() <= 33.0 * size * f64::from(f32::EPSILON));
            exact_norm += f64::from(out[e]) * f64::from(out[e]);
        }
        prop_assert!((norm - exact_norm).abs() <= 1e-5 * exact_norm, "{norm} against {exact_norm}");
    }
}
