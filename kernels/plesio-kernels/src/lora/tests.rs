//! Laws of the low-rank layer.

use super::*;
use crate::arithmetic::Soft;
use crate::optimiser::{AdamW, AdamWState, adamw};
use crate::vector::dot;

fn values(len: usize, seed: u32) -> Vec<f32> {
    (0..len as u32)
        .map(|e| (((e + 1) * (2 * seed + 1)).wrapping_mul(2_654_435_761) >> 8) as f32 / 8_388_608.0 - 1.0)
        .collect()
}

#[test]
fn folded_weights_give_the_same_forward() {
    let (d_in, d_out, rank, rows) = (48, 40, 5, 7);
    let (a, b) = (values(rank * d_in, 1), values(rank * d_out, 2));
    let (weights, x) = (values(d_in * d_out, 3), values(rows * d_in, 4));
    let lora = Lora::new(&a, &b, rank, d_in, d_out, 0.4).unwrap();
    let plain = |weights: &[f32]| -> Vec<f32> {
        x.chunks(d_in).flat_map(|x| weights.chunks(d_in).map(|w| dot::<Soft>(w, x))).collect()
    };
    let mut unmerged = plain(&weights);
    let mut h = vec![0.0; rows * rank];
    forward::<Soft>(lora, &x, &mut h, &mut unmerged).unwrap();
    let mut merged = vec![0.0; weights.len()];
    fold_into::<Soft>(lora, &weights, &mut merged).unwrap();
    let size = unmerged.iter().map(|y| y * y).sum::<f32>().sqrt();
    let error: f32 = unmerged.iter().zip(plain(&merged)).map(|(a, b)| (a - b) * (a - b)).sum::<f32>().sqrt();
    assert!(error < 1e-5 * size, "{error} of {size}");
}

/// The layer's loss `sum(y * g)` in double precision, for differences.
fn loss(a: &[f64], b: &[f64], x: &[f64], g: &[f64], (d_in, d_out): (usize, usize), s: f64) -> f64 {
    let mut loss = 0.0;
    for (x, g) in x.chunks(d_in).zip(g.chunks(d_out)) {
        let h: Vec<f64> = a.chunks(d_in).map(|a| a.iter().zip(x).map(|(a, x)| a * x).sum()).collect();
        for (b, h) in b.chunks(d_out).zip(&h) {
            loss += s * h * b.iter().zip(g).map(|(b, g)| b * g).sum::<f64>();
        }
    }
    loss
}

#[test]
fn gradients_agree_with_central_differences() {
    let (d_in, d_out, rank, rows) = (9, 70, 3, 4);
    let (a, b) = (values(rank * d_in, 1), values(rank * d_out, 2));
    let (x, g) = (values(rows * d_in, 3), values(rows * d_out, 4));
    let lora = Lora::new(&a, &b, rank, d_in, d_out, 0.4).unwrap();
    let (mut h, mut y) = (vec![0.0; rows * rank], vec![0.0; rows * d_out]);
    forward::<Soft>(lora, &x, &mut h, &mut y).unwrap();
    let (mut da, mut db, mut dx) = (vec![0.0; a.len()], vec![0.0; b.len()], vec![0.0; x.len()]);
    let gradients = Gradients { a: &mut da, b: &mut db, x: Some(&mut dx) };
    backward::<Soft>(lora, &x, &g, &mut h, gradients).unwrap();

    let wide = |values: &[f32]| -> Vec<f64> { values.iter().map(|&v| f64::from(v)).collect() };
    let parts = [wide(&a), wide(&b), wide(&x)];
    for (part, found) in [&da, &db, &dx].into_iter().enumerate() {
        for element in 0..found.len() {
            let at = |step: f64| {
                let mut parts = parts.clone();
                parts[part][element] += step;
                loss(&parts[0], &parts[1], &parts[2], &wide(&g), (d_in, d_out), f64::from(0.4f32))
            };
            let numeric = (at(1e-3) - at(-1e-3)) / 2e-3;
            let error = (f64::from(found[element]) - numeric).abs();
            assert!(
                error <= 1e-3 * numeric.abs().max(1e-2),
                "part {part}, element {element}: {error:e} of {numeric}"
            );
        }
    }
}

/// Fits `y = target x` by an adapter of a rank; returns the residual's share and the trained A.
fn fit(rank: usize, target: &[f32], d: usize) -> (f32, Vec<f32>) {
    let rows = 32;
    let x = values(rows * d, 7);
    let wanted: Vec<f32> = x.chunks(d).flat_map(|x| target.chunks(d).map(|t| dot::<Soft>(t, x))).collect();
    let mut params: Vec<f32> = values(rank * d, 9).iter().map(|v| v * 0.3).collect();
    params.resize(2 * rank * d, 0.0);
    let (mut mean, mut variance) = (vec![0.0; params.len()], vec![0.0; params.len()]);
    let mut share = 1.0;
    for step in 1..=600 {
        let (a, b) = params.split_at(rank * d);
        let lora = Lora::new(a, b, rank, d, d, 1.0).unwrap();
        let (mut h, mut y) = (vec![0.0; rows * rank], vec![0.0; rows * d]);
        forward::<Soft>(lora, &x, &mut h, &mut y).unwrap();
        let error: Vec<f32> = y.iter().zip(&wanted).map(|(y, w)| y - w).collect();
        share = (dot::<Soft>(&error, &error) / dot::<Soft>(&wanted, &wanted)).sqrt();
        let mut gradient = vec![0.0; params.len()];
        let (da, db) = gradient.split_at_mut(rank * d);
        backward::<Soft>(lora, &x, &error, &mut h, Gradients { a: da, b: db, x: None }).unwrap();
        let state = AdamWState { mean: &mut mean, variance: &mut variance, step };
        let settings = AdamW { learning_rate: 0.02 / (1.0 + step as f32 / 150.0), ..AdamW::default() };
        adamw::<Soft>(settings, state, 1.0 / rows as f32, &gradient, &mut params);
    }
    params.truncate(rank * d);
    (share, params)
}

#[test]
fn a_target_of_rank_two_needs_rank_two() {
    let d = 12;
    let (left, right) = (values(2 * d, 11), values(2 * d, 12));
    let target: Vec<f32> =
        (0..d * d).map(|e| left[e / d] * right[e % d] + left[d + e / d] * right[d + e % d]).collect();
    let (share, a) = fit(2, &target, d);
    assert!(share < 0.01, "rank 2 leaves {share}");
    let (first, second) = a.split_at(d);
    let cosine =
        dot::<Soft>(first, second) / (dot::<Soft>(first, first) * dot::<Soft>(second, second)).sqrt();
    assert!(cosine.abs() < 0.99, "the rows of the trained A coincide: {cosine}");
    let (share, _) = fit(1, &target, d);
    assert!(share > 0.1, "rank 1 leaves only {share}");
}

#[test]
fn factors_that_do_not_fit_are_refused() {
    let (a, b) = (vec![0.5; 2 * 4], vec![0.5; 2 * 3]);
    let rank = |rank, found: Result<Lora<'_>, KernelError>| {
        assert_eq!(found.unwrap_err(), KernelError::Rank { rank, rank_max: 3 });
    };
    rank(0, Lora::new(&a, &b, 0, 4, 3, 1.0));
    rank(4, Lora::new(&a, &b, 4, 4, 3, 1.0));
    assert!(matches!(Lora::new(&a[1..], &b, 2, 4, 3, 1.0), Err(KernelError::Length { what: "A", .. })));
    assert!(matches!(Lora::new(&a, &b[1..], 2, 4, 3, 1.0), Err(KernelError::Length { what: "B", .. })));
    assert!(Lora::new(&a, &b, 2, 4, 3, f32::NAN).is_err());
    for bad in [f32::NAN, f32::INFINITY] {
        let mut a = a.clone();
        a[5] = bad;
        let error = Lora::new(&a, &b, 2, 4, 3, 1.0).unwrap_err();
        assert_eq!(error, KernelError::NonFinite { what: "A", element: 5 });
    }
    assert!(Lora::<f32>::new(&[], &[], 1, 0, 3, 1.0).is_err());
}

#[test]
fn buffers_of_another_length_are_refused_and_untouched() {
    let (a, b) = (vec![0.5; 2 * 4], vec![0.5; 2 * 3]);
    let lora = Lora::new(&a, &b, 2, 4, 3, 1.0).unwrap();
    let x = [1.0; 8];
    for (x_len, h_len, y_len) in [(7, 4, 6), (8, 3, 6), (8, 4, 5), (8, 4, 3), (8, 4, 9), (4, 4, 6)] {
        let (mut h, mut y) = (vec![7.0; h_len], vec![7.0; y_len]);
        assert!(forward::<Soft>(lora, &x[..x_len], &mut h, &mut y).is_err());
        assert!(h.iter().chain(&y).all(|&v| v == 7.0));
    }
    for (a_len, b_len, x_len) in [(7, 6, 8), (8, 5, 8), (8, 6, 7)] {
        let (mut da, mut db, mut dx) = (vec![7.0; a_len], vec![7.0; b_len], vec![7.0; x_len]);
        let gradients = Gradients { a: &mut da, b: &mut db, x: Some(&mut dx) };
        let mut h = [7.0; 4];
        assert!(backward::<Soft>(lora, &x, &[1.0; 6], &mut h, gradients).is_err());
        assert!(h.iter().chain(&da).chain(&db).chain(&dx).all(|&v| v == 7.0));
    }
    let mut merged = [7.0; 11];
    assert!(fold_into::<Soft>(lora, &[1.0; 12], &mut merged).is_err());
    assert!(fold_into::<Soft>(lora, &[1.0; 11], &mut [7.0; 12]).is_err());
    assert_eq!(merged, [7.0; 11]);
}
