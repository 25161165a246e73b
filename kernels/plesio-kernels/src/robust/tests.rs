//! The robust rules against sorting, and against those who would abuse them.

use super::*;
use crate::arithmetic::Soft;
use proptest::prelude::*;

const QUIET: u32 = 0x7fc0_0000;

/// The words of the documentation, with the library's total order.
fn naive(rule: Robust, mut column: Vec<f32>) -> u32 {
    column.sort_by(f32::total_cmp);
    let k = column.len();
    let result = match rule {
        Robust::Median if k.is_multiple_of(2) => column[k / 2 - 1] * 0.5 + column[k / 2] * 0.5,
        Robust::Median => column[k / 2],
        Robust::TrimmedMean { trim } => {
            let kept = &column[trim..k - trim];
            kept.iter().fold(0.0, |sum, value| sum + value) * (1.0 / kept.len() as f32)
        }
    };
    if result.is_nan() { QUIET } else { result.to_bits() }
}

fn found(rule: Robust, inputs: &[Vec<f32>]) -> Vec<u32> {
    let views: Vec<&[f32]> = inputs.iter().map(Vec::as_slice).collect();
    let mut out = vec![7.0; inputs[0].len()];
    robust::<Soft>(rule, &views, &mut out, Store::Cached).expect("equal lengths");
    out.into_iter().map(f32::to_bits).collect()
}

#[track_caller]
fn check(rule: Robust, inputs: &[Vec<f32>]) {
    for (e, bits) in found(rule, inputs).into_iter().enumerate() {
        let column: Vec<f32> = inputs.iter().map(|input| input[e]).collect();
        assert_eq!(bits, naive(rule, column.clone()), "{rule:?}, element {e} of {column:?}");
    }
}

/// Any bits, and often the ones that catch mistakes.
fn wild(state: &mut u64) -> f32 {
    const EXTREMES: [u32; 12] = [
        0x7fc0_0000,
        0xffc0_0000,
        0x7f80_0001,
        0xffff_ffff,
        0x7f80_0000,
        0xff80_0000,
        0,
        0x8000_0000,
        1,
        0x8000_0001,
        0x7f7f_ffff,
        0xff7f_ffff,
    ];
    *state ^= *state << 13;
    *state ^= *state >> 7;
    *state ^= *state << 17;
    let bits = (*state >> 32) as u32;
    let extreme = (*state & 0xff) as usize;
    f32::from_bits(EXTREMES.get(extreme % 24).copied().unwrap_or(bits))
}

#[test]
fn every_count_and_every_trim_is_what_sorting_finds() {
    let mut state = 7;
    for k in 2..=32usize {
        for len in [0, 1, 31, 32, 33, 100] {
            let inputs: Vec<Vec<f32>> =
                (0..k).map(|_| (0..len).map(|_| wild(&mut state)).collect()).collect();
            check(Robust::Median, &inputs);
            for trim in 0..k.div_ceil(2) {
                check(Robust::TrimmedMean { trim }, &inputs);
            }
        }
    }
}

#[test]
fn a_minority_of_nan_and_infinities_changes_nothing() {
    let honest = [1.0, 2.0, 3.0];
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let inputs: Vec<Vec<f32>> = honest.iter().chain(&[bad, bad]).map(|&value| vec![value]).collect();
        let median = f32::from_bits(found(Robust::Median, &inputs)[0]);
        assert!((1.0..=3.0).contains(&median), "{bad}: {median}");
        let mean = f32::from_bits(found(Robust::TrimmedMean { trim: 2 }, &inputs)[0]);
        assert!((1.0..=3.0).contains(&mean), "{bad}: {mean}");
    }
    // One on each side.
    let inputs: Vec<Vec<f32>> = [f32::NAN, 5.0, -f32::NAN].map(|value| vec![value]).to_vec();
    assert_eq!(found(Robust::Median, &inputs), [5.0f32.to_bits()]);
    assert_eq!(found(Robust::TrimmedMean { trim: 1 }, &inputs), [5.0f32.to_bits()]);
}

#[test]
fn a_majority_of_nan_is_one_nan() {
    for bad in [f32::from_bits(0xffc1_2345), f32::from_bits(0x7f80_0001)] {
        for k in [3, 4] {
            let inputs: Vec<Vec<f32>> = [bad, bad, bad, 1.0][..k].iter().map(|&value| vec![value]).collect();
            assert_eq!(found(Robust::Median, &inputs), [QUIET]);
            assert_eq!(found(Robust::TrimmedMean { trim: 0 }, &inputs), [QUIET]);
        }
    }
}

#[test]
fn zeros_keep_their_order_and_the_largest_floats_their_mean() {
    let inputs = |values: &[f32]| values.iter().map(|&value| vec![value]).collect::<Vec<_>>();
    assert_eq!(found(Robust::Median, &inputs(&[0.0, -0.0, -0.0])), [0x8000_0000]);
    assert_eq!(found(Robust::Median, &inputs(&[-0.0, 0.0, 0.0])), [0]);
    assert_eq!(found(Robust::Median, &inputs(&[f32::MAX, f32::MAX])), [f32::MAX.to_bits()]);
    let tiny = f32::from_bits(2);
    assert_eq!(found(Robust::Median, &inputs(&[tiny, tiny])), [2]);
}

#[test]
fn bad_counts_lengths_and_trims_are_refused_and_nothing_is_written() {
    let (x, mut out) = ([1.0f32; 4], [7.0f32; 4]);
    let mut refused =
        |rule, inputs: &[&[f32]]| robust::<Soft>(rule, inputs, &mut out, Store::Cached).unwrap_err();
    let count = |found| KernelError::Count { what: "contributions", found, min: 2, max: 32 };
    for k in [0, 1, 33] {
        assert_eq!(refused(Robust::Median, &vec![&x[..]; k]), count(k));
        assert_eq!(refused(Robust::TrimmedMean { trim: 0 }, &vec![&x[..]; k]), count(k));
    }
    for (k, trim) in [(2, 1), (3, 2), (32, 16), (32, usize::MAX)] {
        assert_eq!(
            refused(Robust::TrimmedMean { trim }, &vec![&x[..]; k]),
            KernelError::Trim { trim, count: k }
        );
    }
    assert_eq!(
        refused(Robust::Median, &[&x, &x[1..]]),
        KernelError::Length { what: "input", expected: 4, found: 3 }
    );
    assert_eq!(out, [7.0; 4]);
}

proptest! {
    #[test]
    fn any_bits_are_what_sorting_finds(
        inputs in prop::collection::vec(prop::collection::vec(any::<u32>(), 40), 2..=32),
        part in 0.0f64..1.0,
    ) {
        let inputs: Vec<Vec<f32>> =
            inputs.into_iter().map(|input| input.into_iter().map(f32::from_bits).collect()).collect();
        let trim = ((inputs.len() - 1) / 2) as f64 * part;
        check(Robust::Median, &inputs);
        check(Robust::TrimmedMean { trim: trim as usize }, &inputs);
    }
}
