//! Layers in bfloat16.

use plesio_kernels::lora::{Adapter, Gradients};
use plesio_kernels::{Device, Reference};

use super::{Backward, Shape};
use crate::values::{Halves, halves, same_floats, same_halves, wild};

pub(super) fn forward<D: Device>(device: D, shape: Shape, values: Halves) {
    let Shape { rows, d_in, d_out, rank } = shape;
    let factors = factors(shape);
    let (adapter, x) = (adapter(shape, &factors), values(rows * d_in, 3));
    let what = format!("lora_forward_bf16 of {shape:?}");
    let (mut h, mut y) = (vec![-7.0; rows * rank], values(rows * d_out, 5));
    let (mut h_expected, mut y_expected) = (h.clone(), y.clone());
    assert_eq!(device.lora_forward_bf16(adapter, &x, &mut h, &mut y), Ok(()), "{what}");
    assert_eq!(Reference.lora_forward_bf16(adapter, &x, &mut h_expected, &mut y_expected), Ok(()), "{what}");
    same_floats(&what, device, &h, &h_expected);
    same_halves(&what, device, &y, &y_expected);
}

pub(super) fn backward<D: Device>(device: D, shape: Shape, values: Halves, with_dx: bool) {
    let Shape { rows, d_in, d_out, rank } = shape;
    let factors = factors(shape);
    let (adapter, x, g) = (adapter(shape, &factors), values(rows * d_in, 3), values(rows * d_out, 4));
    let what = format!("lora_backward_bf16 of {shape:?}, dx: {with_dx}");
    let gradients = |device: Backward<'_, u16>| {
        let mut h = wild(rows * rank, 6);
        let (mut da, mut db) = (wild(rank * d_in, 7), wild(rank * d_out, 8));
        let mut dx = values(rows * d_in, 9);
        let gradients = Gradients { a: &mut da, b: &mut db, x: with_dx.then_some(&mut dx) };
        assert_eq!(device(&mut h, gradients), Ok(()), "{what}");
        ([("h", h), ("dA", da), ("dB", db)], dx)
    };
    let (found, dx) = gradients(&|h, gradients| device.lora_backward_bf16(adapter, &x, &g, h, gradients));
    let (expected, dx_expected) =
        gradients(&|h, gradients| Reference.lora_backward_bf16(adapter, &x, &g, h, gradients));
    for ((part, found), (_, expected)) in found.iter().zip(&expected) {
        same_floats(&format!("{part} of {what}"), device, found, expected);
    }
    same_halves(&format!("dx of {what}"), device, &dx, &dx_expected);
}

pub(super) fn refusals<D: Device>(device: D) {
    let shape = Shape { rows: 2, d_in: 4, d_out: 3, rank: 2 };
    let factors = factors(shape);
    let adapter = adapter(shape, &factors);
    for (x_len, h_len, y_len) in [(7, 4, 6), (8, 3, 6), (8, 4, 5)] {
        let (mut h, mut y) = (vec![7.0; h_len], vec![7; y_len]);
        let found = device.lora_forward_bf16(adapter, &vec![7; x_len], &mut h, &mut y);
        assert_eq!(found, Reference.lora_forward_bf16(adapter, &vec![7; x_len], &mut h, &mut y));
        assert!(
            found.is_err() && h.iter().all(|&h| h == 7.0) && y.iter().all(|&y| y == 7),
            "nothing is written"
        );
    }
    for (a_len, b_len, x_len, h_len) in [(7, 6, 8, 4), (8, 5, 8, 4), (8, 6, 7, 4), (8, 6, 8, 3)] {
        let backward = |device: Backward<'_, u16>| {
            let (mut h, mut dx) = (vec![7.0; h_len], vec![7; x_len]);
            let (mut da, mut db) = (vec![7.0; a_len], vec![7.0; b_len]);
            let found = device(&mut h, Gradients { a: &mut da, b: &mut db, x: Some(&mut dx) });
            assert!(h.iter().chain(&da).chain(&db).all(|&v| v == 7.0), "nothing is written");
            assert!(dx.iter().all(|&v| v == 7), "nothing is written");
            found.expect_err("it is refused")
        };
        let (x, g) = ([7; 8], [7; 6]);
        let found = backward(&|h, gradients| device.lora_backward_bf16(adapter, &x, &g, h, gradients));
        let expected = backward(&|h, gradients| Reference.lora_backward_bf16(adapter, &x, &g, h, gradients));
        assert_eq!(found, expected);
    }
}

/// Finite factors.
pub(super) fn factors(shape: Shape) -> (Vec<u16>, Vec<u16>) {
    (halves(shape.rank * shape.d_in, 1), halves(shape.rank * shape.d_out, 2))
}

pub(super) fn adapter(shape: Shape, (a, b): &(Vec<u16>, Vec<u16>)) -> Adapter<'_> {
    Adapter::new(a, b, shape.rank, shape.d_in, shape.d_out, 0.3).expect("a legal shape")
}
