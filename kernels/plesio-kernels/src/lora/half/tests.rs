//! The layer in bfloat16 against the one in binary32 and against double precision.

use super::*;
use crate::arithmetic::Soft;
use crate::bf16;
use crate::lora::{self, Lora};

fn halves(len: usize, seed: u32) -> Vec<u16> {
    let value = |e: u32| (e + 1).wrapping_mul(2 * seed + 1).wrapping_mul(2_654_435_761) >> 8;
    (0..len as u32).map(|e| bf16::narrow(value(e) as f32 / 8_388_608.0 - 1.0)).collect()
}

fn wide(halves: &[u16]) -> Vec<f32> {
    halves.iter().map(|&bits| bf16::widen(bits)).collect()
}

fn narrow(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&value| bf16::narrow(value)).collect()
}

const SHAPES: [(usize, usize, usize, usize); 7] = [
    (1, 1, 1, 1),
    (7, 5, 3, 3),
    (64, 65, 1, 4),
    (130, 1100, 2, 33),
    (128, 352, 9, 18),
    (70, 66, 64, 2),
    (16, 16, 4, 0),
];

#[test]
fn both_passes_are_those_of_binary32_rounded_once() {
    for (d_in, d_out, rank, rows) in SHAPES {
        let (a, b) = (halves(rank * d_in, 1), halves(rank * d_out, 2));
        let (x, g) = (halves(rows * d_in, 3), halves(rows * d_out, 4));
        let (start, dx_start) = (halves(rows * d_out, 5), halves(rows * d_in, 6));
        let adapter = Adapter::new(&a, &b, rank, d_in, d_out, 0.7).unwrap();
        let (mut h, mut y) = (vec![0.0; rows * rank], start.clone());
        lora_forward_bf16::<Soft>(adapter, &x, &mut h, &mut y).unwrap();
        let (wide_a, wide_b, wide_x, wide_g) = (wide(&a), wide(&b), wide(&x), wide(&g));
        let lora = Lora::new(&wide_a, &wide_b, rank, d_in, d_out, 0.7).unwrap();
        let (mut wide_h, mut wide_y) = (vec![0.0; rows * rank], wide(&start));
        lora::forward::<Soft>(lora, &wide_x, &mut wide_h, &mut wide_y).unwrap();
        assert_eq!(h, wide_h, "{d_in}x{d_out}");
        assert_eq!(y, narrow(&wide_y), "{d_in}x{d_out}");

        let (mut da, mut db, mut dx) = (vec![0.25; a.len()], vec![0.5; b.len()], dx_start.clone());
        let gradients = Gradients { a: &mut da, b: &mut db, x: Some(&mut dx) };
        lora_backward_bf16::<Soft>(adapter, &x, &g, &mut h, gradients).unwrap();
        let (mut wide_da, mut wide_db) = (vec![0.25; a.len()], vec![0.5; b.len()]);
        let mut wide_dx = wide(&dx_start);
        let gradients = Gradients { a: &mut wide_da, b: &mut wide_db, x: Some(&mut wide_dx) };
        lora::backward::<Soft>(lora, &wide_x, &wide_g, &mut wide_h, gradients).unwrap();
        assert_eq!((h, da, db), (wide_h, wide_da, wide_db), "{d_in}x{d_out}");
        assert_eq!(dx, narrow(&wide_dx), "{d_in}x{d_out}");
    }
}

#[test]
fn the_forward_pass_is_within_its_rounding_of_double_precision() {
    let wide = |halves: &[u16]| -> Vec<f64> { halves.iter().map(|&h| f64::from(bf16::widen(h))).collect() };
    for (d_in, d_out, rank, rows) in SHAPES {
        let (a, b, x) = (halves(rank * d_in, 1), halves(rank * d_out, 2), halves(rows * d_in, 3));
        let start = halves(rows * d_out, 5);
        let adapter = Adapter::new(&a, &b, rank, d_in, d_out, 0.5).unwrap();
        let (mut h, mut y) = (vec![0.0; rows * rank], start.clone());
        lora_forward_bf16::<Soft>(adapter, &x, &mut h, &mut y).unwrap();
        let (a, b, x, start) = (wide(&a), wide(&b), wide(&x), wide(&start));
        let half_ulp = f64::from(f32::EPSILON) / 2.0;
        for t in 0..rows {
            for j in 0..d_out {
                let (mut exact, mut size) = (start[t * d_out + j], start[t * d_out + j].abs());
                for k in 0..rank {
                    let products = (0..d_in).map(|i| a[k * d_in + i] * x[t * d_in + i]);
                    exact += 0.5 * products.clone().sum::<f64>() * b[k * d_out + j];
                    size += 0.5 * products.map(f64::abs).sum::<f64>() * b[k * d_out + j].abs();
                }
                // A lane's terms, six folds, the scale and the ranks in binary32; then bfloat16 once.
                let roundings = (d_in.div_ceil(64) + 7 + rank) as f64;
                let bound = roundings * half_ulp * size + 2f64.powi(-8) * exact.abs();
                let error = (f64::from(bf16::widen(y[t * d_out + j])) - exact).abs();
                assert!(error <= bound, "{d_in}x{d_out} row {t} column {j}: {error:e} above {bound:e}");
            }
        }
    }
}

#[test]
fn adapters_that_do_not_fit_are_refused_and_buffers_left_alone() {
    let (a, b) = (halves(70 * 80, 1), halves(70 * 80, 2));
    for rank in [0, 65, 70] {
        let found = Adapter::new(&a[..rank * 80], &b[..rank * 80], rank, 80, 80, 1.0).unwrap_err();
        assert_eq!(found, KernelError::Rank { rank, rank_max: 64 });
    }
    assert_eq!(
        Adapter::new(&a[..24], &b[..12], 6, 4, 2, 1.0).unwrap_err(),
        KernelError::Rank { rank: 6, rank_max: 2 }
    );
    assert!(Adapter::new(&a[..7], &b[..6], 2, 4, 3, 1.0).is_err());
    for bad in [0x7F80, 0xFF80, 0x7FC0, 0xFFC1] {
        let mut a = a[..8].to_vec();
        a[5] = bad;
        let found = Adapter::new(&a, &b[..6], 2, 4, 3, 1.0).unwrap_err();
        assert_eq!(found, KernelError::NonFinite { what: "A", element: 5 });
    }
    let adapter = Adapter::new(&a[..8], &b[..6], 2, 4, 3, 1.0).unwrap();
    for (x, h, y) in [(7, 4, 6), (8, 3, 6), (8, 4, 5), (8, 4, 9), (4, 4, 6)] {
        let (mut h, mut y) = (vec![7.0; h], vec![7; y]);
        assert!(lora_forward_bf16::<Soft>(adapter, &a[..x], &mut h, &mut y).is_err());
        assert!(h.iter().all(|&v| v == 7.0) && y.iter().all(|&v| v == 7));
    }
    for (da, db, dx) in [(7, 6, 8), (8, 5, 8), (8, 6, 7)] {
        let (mut da, mut db, mut dx, mut h) = (vec![7.0; da], vec![7.0; db], vec![7; dx], [7.0; 4]);
        let gradients = Gradients { a: &mut da, b: &mut db, x: Some(&mut dx) };
        assert!(lora_backward_bf16::<Soft>(adapter, &a[..8], &b[..6], &mut h, gradients).is_err());
        assert!(h.iter().chain(&da).chain(&db).all(|&v| v == 7.0) && dx.iter().all(|&v| v == 7));
    }
}
