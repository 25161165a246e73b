//! Laws of the fixed-point contract.

use super::*;
use crate::arithmetic::Soft;
use proptest::prelude::*;

#[test]
fn quantisation_rounds_half_to_even() {
    let unit = 2f32.powi(-24);
    let updates = [0.5 * unit, 1.5 * unit, 2.5 * unit, -0.5 * unit, -1.5 * unit, 0.51 * unit];
    let mut residue = [0.0; 6];
    let mut slot = [9; 6];
    quantise(&updates, &mut residue, Scale::DEFAULT, &mut slot).unwrap();
    assert_eq!(slot, [0, 2, 2, 0, -2, 1]);
    assert_eq!(residue[0], 0.5 * unit);
    assert_eq!(residue[1], -0.5 * unit);
}

#[test]
fn the_residue_keeps_what_the_slot_cannot_hold() {
    let mut residue = [100.0f32, -100.0, 63.999_996, -64.0, 1e-30, f32::MIN_POSITIVE / 8.0];
    let before = residue;
    let mut slot = [0; 6];
    let done = quantise_residue(&mut residue, Scale::DEFAULT, &mut slot).unwrap();
    assert_eq!(done.clamped_elements, 2);
    assert_eq!(slot, [(1 << 30) - 1, -(1 << 30), 1_073_741_760, -(1 << 30), 0, 0]);
    for (element, (&residue, &slot)) in residue.iter().zip(&slot).enumerate() {
        let whole = f64::from(residue) + f64::from(slot) * 2f64.powi(-24);
        let error = (whole - f64::from(before[element])).abs();
        assert!(error <= 2e-6 * f64::from(before[element]).abs(), "element {element}: off by {error:e}");
    }
}

#[test]
fn a_non_finite_update_writes_nothing() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let updates = [1.0, 2.0, bad];
        let mut residue = [0.25; 3];
        let mut slot = [7; 3];
        let error = quantise(&updates, &mut residue, Scale::DEFAULT, &mut slot).unwrap_err();
        assert_eq!(error, KernelError::NonFinite { what: "update", element: 2 });
        assert_eq!((residue, slot), ([0.25; 3], [7; 3]));
        let mut own = updates;
        quantise_residue(&mut own, Scale::DEFAULT, &mut slot).unwrap_err();
        assert_eq!((own[0], slot), (1.0, [7; 3]));
    }
    // Finite terms whose sum is not.
    let error = quantise(&[f32::MAX], &mut [f32::MAX], Scale::DEFAULT, &mut [0]).unwrap_err();
    assert_eq!(error, KernelError::NonFinite { what: "update", element: 0 });
}

#[test]
fn wrong_lengths_are_refused() {
    let scale = Scale::DEFAULT;
    assert!(matches!(
        quantise(&[0.0; 3], &mut [0.0; 2], scale, &mut [0; 3]),
        Err(KernelError::Length { .. })
    ));
    assert!(matches!(quantise_residue(&mut [0.0; 3], scale, &mut [0; 2]), Err(KernelError::Length { .. })));
    assert!(matches!(
        slot_sum::<Soft>(&[1], &[&[1, 2]], &mut [0; 3], Store::Cached),
        Err(KernelError::Length { .. })
    ));
    assert!(matches!(
        slot_sum::<Soft>(&[1, 2], &[&[1, 2]], &mut [0; 2], Store::Cached),
        Err(KernelError::Length { .. })
    ));
    assert!(matches!(apply(&mut [0; 2], &[0; 3]), Err(KernelError::Length { .. })));
    assert!(matches!(commit::<Soft>(&[1], &[&[1]], &mut [0; 2]), Err(KernelError::Length { .. })));
    assert!(matches!(to_float(&[0; 2], scale, &mut [0.0]), Err(KernelError::Length { .. })));
    assert!(matches!(dequantise(&[0; 2], scale, &mut [0.0]), Err(KernelError::Length { .. })));
    assert!(matches!(merge(&mut [0; 2], &[0; 2], scale, &mut [0.0]), Err(KernelError::Length { .. })));
    assert_eq!(Scale::new(65), Err(KernelError::Scale { exponent: 65 }));
}

#[test]
fn weights_that_could_overflow_are_refused_before_any_write() {
    let slot = [i32::MIN; 4];
    let mut sum = [3; 4];
    let error = slot_sum::<Soft>(&[u32::MAX, 1], &[&slot, &slot], &mut sum, Store::Cached).unwrap_err();
    assert_eq!(error, KernelError::Weights { sum: 1 << 32 });
    assert_eq!(sum, [3; 4]);
    slot_sum::<Soft>(&[i32::MAX as u32], &[&slot], &mut sum, Store::Cached).unwrap();
    assert_eq!(sum[0], i64::from(i32::MAX) * i64::from(i32::MIN));
}

#[test]
fn an_overflow_of_the_master_saturates_and_is_reported() {
    let mut master = vec![0i64; 3000];
    master[2500] = i64::MAX - 5;
    master[2700] = i64::MIN + 5;
    let mut sum = vec![1i64; 3000];
    sum[2500] = 6;
    sum[2700] = -6;
    assert_eq!(apply(&mut master, &sum), Err(KernelError::Overflow { element: 2500 }));
    assert_eq!((master[2500], master[2700], master[0]), (i64::MAX, i64::MIN, 1));

    let mut master = [i64::MAX - 10, 0];
    let error = commit::<Soft>(&[1], &[&[11, 11]], &mut master).unwrap_err();
    assert_eq!(error, KernelError::Overflow { element: 0 });
    assert_eq!(master, [i64::MAX, 11]);
    // An element that has stood at its limit all the time is not the one.
    let (mut master, mut sum) = (vec![0i64; 300], vec![0i64; 300]);
    (master[3], master[140], sum[140], master[299], sum[299]) = (i64::MAX, i64::MIN, -1, i64::MAX, 1);
    assert_eq!(apply(&mut master, &sum), Err(KernelError::Overflow { element: 140 }));
    assert_eq!(apply(&mut master[141..], &sum[141..]), Err(KernelError::Overflow { element: 158 }));
}

#[test]
fn the_master_converts_by_its_own_scale() {
    let mut out = [0.0; 3];
    to_float(&[1 << 48, -(1 << 47), 0], Scale::DEFAULT, &mut out).unwrap();
    assert_eq!(out, [1.0, -0.5, 0.0]);
    dequantise(&[1 << 24, -(1 << 23), 0], Scale::DEFAULT, &mut out).unwrap();
    assert_eq!(out, [1.0, -0.5, 0.0]);
}

proptest! {
    #[test]
    fn error_feedback_loses_nothing(
        updates in prop::collection::vec(-0.01f32..0.01, 1..80),
        rounds in 1usize..20,
    ) {
        let mut residue = vec![0.0f32; updates.len()];
        let mut slot = vec![0i32; updates.len()];
        let mut sent = vec![0i64; updates.len()];
        for _ in 0..rounds {
            quantise(&updates, &mut residue, Scale::DEFAULT, &mut slot).unwrap();
            for (sent, &slot) in sent.iter_mut().zip(&slot) {
                *sent += i64::from(slot);
            }
        }
        for e in 0..updates.len() {
            let whole = sent[e] as f64 / f64::from(1 << 24) + f64::from(residue[e]);
            let wanted = f64::from(updates[e]) * rounds as f64;
            prop_assert!((whole - wanted).abs() < 1e-8 * rounds as f64, "{whole} against {wanted}");
        }
    }

    #[test]
    fn the_sum_does_not_depend_on_the_order(
        slots in prop::collection::vec(prop::collection::vec(any::<i32>(), 67), 1..9),
        weight in 0u32..(1 << 27),
    ) {
        let weights: Vec<u32> = (0..slots.len() as u32).map(|member| weight + member).collect();
        let views: Vec<&[i32]> = slots.iter().map(|slot| slot.as_slice()).collect();
        let mut sum = vec![0i64; 67];
        slot_sum::<Soft>(&weights, &views, &mut sum, Store::Cached).unwrap();
        for e in 0..67 {
            let exact: i128 =
                slots.iter().zip(&weights).map(|(slot, &w)| i128::from(w) * i128::from(slot[e])).sum();
            prop_assert_eq!(i128::from(sum[e]), exact);
        }
        let mut reversed = vec![0i64; 67];
        let weights_reversed: Vec<u32> = weights.iter().rev().copied().collect();
        let views_reversed: Vec<&[i32]> = views.iter().rev().copied().collect();
        slot_sum::<Soft>(&weights_reversed, &views_reversed, &mut reversed, Store::Cached).unwrap();
        prop_assert_eq!(&sum, &reversed);

        let mut master = vec![5i64; 67];
        commit::<Soft>(&weights, &views, &mut master).unwrap();
        let mut applied = vec![5i64; 67];
        apply(&mut applied, &sum).unwrap();
        prop_assert_eq!(master, applied);
    }

    #[test]
    fn a_merge_keeps_the_mass(a in any::<i32>(), b in any::<i32>()) {
        // Slots hold 31 bits; what a peer could never have made is clamped all the same.
        let (a, b) = (a >> 1, b >> 1);
        let mut into = [a];
        let mut residue = [0.0f32];
        let merged = merge(&mut into, &[b], Scale::DEFAULT, &mut residue).unwrap();
        let wanted = (f64::from(a) + f64::from(b)) / f64::from(1 << 24);
        let whole = f64::from(into[0]) / f64::from(1 << 24) + f64::from(residue[0]);
        prop_assert!((whole - wanted).abs() <= 64.0 * f64::from(f32::EPSILON));
        prop_assert_eq!(merged.excess_elements == 0, residue[0] == 0.0);
    }
}
