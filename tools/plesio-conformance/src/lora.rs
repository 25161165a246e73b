//! Low-rank layers.

mod grouped;
mod half;

use plesio_kernels::lora::{Gradients, Lora, RANK_MAX};
use plesio_kernels::{Device, KernelError, Mat, MatMut, Reference};

use crate::Effort;
use crate::values::{floats, halves, same_floats, wild, wild_halves};

/// Every operation of `plesio_kernels::lora`.
pub fn conform<D: Device>(device: D, effort: Effort) {
    for shape in shapes(effort) {
        for scale in [1.0, -0.37, 0.0] {
            shrink(device, shape, scale);
            outer(device, shape, scale);
        }
        for values in [floats, wild] {
            forward(device, shape, values);
            backward(device, shape, values, true);
            backward(device, shape, values, false);
        }
        for values in [halves, wild_halves] {
            half::forward(device, shape, values);
            half::backward(device, shape, values, true);
            half::backward(device, shape, values, false);
        }
        fold(device, shape);
    }
    views(device);
    zeros(device);
    refusals(device);
    half::refusals(device);
    grouped::conform(device, effort);
}

/// Small shapes that go through every part of shared memory twice: for a device that watches its threads, which is
/// very slow.
pub fn glance<D: Device>(device: D) {
    forward(device, Shape { rows: 3, d_in: 260, d_out: 36, rank: 9 }, floats);
    outer(device, Shape { rows: 130, d_in: 36, d_out: 36, rank: 3 }, 1.0);
    half::forward(device, Shape { rows: 3, d_in: 520, d_out: 36, rank: 9 }, halves);
    grouped::mixed(device, (4160, 24), 2, &[3, 17]);
}

/// A backward pass on some device: h and where the gradients go.
type Backward<'a, E> = &'a dyn Fn(&mut [f32], Gradients<'_, E>) -> Result<(), KernelError>;

/// Rows, widths of x and y, rank.
#[derive(Clone, Copy, Debug)]
struct Shape {
    rows: usize,
    d_in: usize,
    d_out: usize,
    rank: usize,
}

/// Every width to 130, every rank, and rows and widths around every block that the kernels work in.
fn shapes(effort: Effort) -> Vec<Shape> {
    let step = match effort {
        Effort::Short => 7,
        Effort::Whole => 1,
    };
    let widths =
        (1..=130).step_by(step).map(|width| Shape { rows: 3, d_in: width, d_out: 131 - width, rank: 1 });
    let ranks =
        (1..=RANK_MAX).step_by(step).map(|rank| Shape { rows: 5, d_in: 68, d_out: 100 - rank / 2, rank });
    let rows = [0, 1, 2, 3, 65].map(|rows| Shape { rows, d_in: 72, d_out: 130, rank: 6 });
    let large = [
        (33, 256, 264, 16),
        (130, 64, 192, 9),
        (17, 255, 257, 17),
        (257, 32, 36, 8),
        (2, 1028, 1100, 24),
        (8, 520, 2052, 64),
    ];
    let large = large.map(|(rows, d_in, d_out, rank)| Shape { rows, d_in, d_out, rank });
    let all = widths.chain(ranks).chain(rows).chain(large);
    all.map(|shape| Shape { rank: shape.rank.min(shape.d_in).min(shape.d_out), ..shape }).collect()
}

fn shrink<D: Device>(device: D, shape: Shape, scale: f32) {
    let Shape { rows, d_in, rank, .. } = shape;
    let (x, factors) = (wild(rows * d_in, 1), wild(rank * d_in, 5));
    let x = Mat::dense(&x, rows, d_in);
    let (mut found, mut expected) = (vec![-7.0; rows * rank], vec![-7.0; rows * rank]);
    device.lora_shrink(scale, x, &factors, MatMut::dense(&mut found, rows, rank));
    Reference.lora_shrink(scale, x, &factors, MatMut::dense(&mut expected, rows, rank));
    same_floats(&format!("lora_shrink of {shape:?} by {scale}"), device, &found, &expected);
}

fn outer<D: Device>(device: D, shape: Shape, scale: f32) {
    let Shape { rows, d_in, rank, .. } = shape;
    let (x, coefficients) = (wild(rows * d_in, 1), wild(rows * rank, 3));
    let (x, coefficients) = (Mat::dense(&x, rows, d_in), Mat::dense(&coefficients, rows, rank));
    let (mut found, mut expected) = (wild(rank * d_in, 8), wild(rank * d_in, 8));
    device.lora_outer(scale, coefficients, x, &mut found);
    Reference.lora_outer(scale, coefficients, x, &mut expected);
    same_floats(&format!("lora_outer of {shape:?} by {scale}"), device, &found, &expected);
}

/// Reproducible floats, by length and seed.
type Values = fn(usize, u64) -> Vec<f32>;

impl Shape {
    /// Finite factors.
    fn factors(self) -> (Vec<f32>, Vec<f32>) {
        (floats(self.rank * self.d_in, 1), floats(self.rank * self.d_out, 2))
    }

    fn lora<'a>(self, (a, b): &'a (Vec<f32>, Vec<f32>)) -> Lora<'a> {
        Lora::new(a, b, self.rank, self.d_in, self.d_out, 0.3).expect("a legal shape")
    }
}

fn forward<D: Device>(device: D, shape: Shape, values: Values) {
    let Shape { rows, d_in, d_out, rank } = shape;
    let factors = shape.factors();
    let (lora, x) = (shape.lora(&factors), values(rows * d_in, 3));
    let what = format!("lora_forward of {shape:?}");
    let (mut h, mut y) = (vec![-7.0; rows * rank], values(rows * d_out, 5));
    let (mut h_expected, mut y_expected) = (h.clone(), y.clone());
    assert_eq!(device.lora_forward(lora, &x, &mut h, &mut y), Ok(()), "{what}");
    assert_eq!(Reference.lora_forward(lora, &x, &mut h_expected, &mut y_expected), Ok(()), "{what}");
    same_floats(&what, device, &h, &h_expected);
    same_floats(&what, device, &y, &y_expected);
}

fn backward<D: Device>(device: D, shape: Shape, values: Values, with_dx: bool) {
    let Shape { rows, d_in, d_out, rank } = shape;
    let factors = shape.factors();
    let (lora, x, g) = (shape.lora(&factors), values(rows * d_in, 3), values(rows * d_out, 4));
    let what = format!("lora_backward of {shape:?}, dx: {with_dx}");
    let gradients = |device: Backward<'_, f32>| {
        let mut h = values(rows * rank, 6);
        let (mut da, mut db) = (values(rank * d_in, 7), values(rank * d_out, 8));
        let mut dx = values(rows * d_in, 9);
        let gradients = Gradients { a: &mut da, b: &mut db, x: with_dx.then_some(&mut dx) };
        assert_eq!(device(&mut h, gradients), Ok(()), "{what}");
        [("h", h), ("dA", da), ("dB", db), ("dx", dx)]
    };
    let found = gradients(&|h, gradients| device.lora_backward(lora, &x, &g, h, gradients));
    let expected = gradients(&|h, gradients| Reference.lora_backward(lora, &x, &g, h, gradients));
    for ((part, found), (_, expected)) in found.iter().zip(&expected) {
        same_floats(&format!("{part} of {what}"), device, found, expected);
    }
}

fn fold<D: Device>(device: D, shape: Shape) {
    let factors = shape.factors();
    let (lora, weights) = (shape.lora(&factors), wild(shape.d_in * shape.d_out, 7));
    let what = format!("lora_fold of {shape:?}");
    let (mut found, mut expected) = (vec![-7.0; weights.len()], vec![-7.0; weights.len()]);
    assert_eq!(device.lora_fold(lora, &weights, &mut found), Ok(()), "{what}");
    assert_eq!(Reference.lora_fold(lora, &weights, &mut expected), Ok(()), "{what}");
    same_floats(&what, device, &found, &expected);
}

/// Rows that are apart, and that overlap where they are only read; between rows nothing is written.
fn views<D: Device>(device: D) {
    for (rows, width, rank, x_stride, stride) in [
        (5, 64, 8, 68, 8),
        (5, 64, 8, 64, 11),
        (3, 130, 12, 133, 16),
        (40, 20, 3, 7, 3),
        (1, 9, 2, 9, 2),
        (4, 8, 1, 0, 5),
    ] {
        let (x, factors) = (wild(rows * x_stride + width, 1), wild(rank * width, 2));
        let coefficients = wild(rows * stride + rank, 3);
        let what = format!("{rows} x {width} by rank {rank}, rows {x_stride} and {stride} apart");
        let x = Mat::new(&x, rows, width, x_stride);
        let (mut found, mut expected) = (vec![-7.0; rows * stride + 3], vec![-7.0; rows * stride + 3]);
        device.lora_shrink(0.5, x, &factors, MatMut::new(&mut found, rows, rank, stride));
        Reference.lora_shrink(0.5, x, &factors, MatMut::new(&mut expected, rows, rank, stride));
        same_floats(&format!("lora_shrink of {what}"), device, &found, &expected);

        let coefficients = Mat::new(&coefficients, rows, rank, stride);
        let (mut found, mut expected) = (wild(rank * width, 8), wild(rank * width, 8));
        device.lora_outer(0.5, coefficients, x, &mut found);
        Reference.lora_outer(0.5, coefficients, x, &mut expected);
        same_floats(&format!("lora_outer of {what}"), device, &found, &expected);
    }
}

/// Products that vanish from below: the sign of a lane's zero tells whether the lane was filled up, and when.
fn zeros<D: Device>(device: D) {
    for width in [63, 64, 65, 79, 80, 81, 112, 113, 128, 140] {
        let (x, factors) = (vec![1e-30; 2 * width], vec![-1e-30; 3 * width]);
        let x = Mat::dense(&x, 2, width);
        let (mut found, mut expected) = ([7.0; 6], [7.0; 6]);
        device.lora_shrink(1.0, x, &factors, MatMut::dense(&mut found, 2, 3));
        Reference.lora_shrink(1.0, x, &factors, MatMut::dense(&mut expected, 2, 3));
        same_floats(&format!("lora_shrink of vanishing products of {width}"), device, &found, &expected);
    }
    // A matrix of no columns has products all the same, and a matrix of no rows adds nothing.
    let mut found = [7.0; 6];
    device.lora_shrink(-1.0, Mat::dense(&[], 2, 0), &[], MatMut::dense(&mut found, 2, 3));
    same_floats("lora_shrink of no columns", device, &found, &[-0.0; 6]);
    let mut found = [7.0; 12];
    device.lora_outer(1.0, Mat::dense(&[], 0, 3), Mat::dense(&[], 0, 4), &mut found);
    same_floats("lora_outer of no rows", device, &found, &[7.0; 12]);
}

fn refusals<D: Device>(device: D) {
    let (a, b) = (floats(2 * 4, 1), floats(2 * 3, 2));
    let lora = Lora::new(&a, &b, 2, 4, 3, 1.0).expect("a legal shape");
    let x = [1.0; 8];
    for (x_len, h_len, y_len) in [(7, 4, 6), (8, 3, 6), (8, 4, 5), (8, 4, 3), (8, 4, 9), (4, 4, 6)] {
        let (mut h, mut y) = (vec![7.0; h_len], vec![7.0; y_len]);
        let found = device.lora_forward(lora, &x[..x_len], &mut h, &mut y);
        assert_eq!(found, Reference.lora_forward(lora, &x[..x_len], &mut h, &mut y));
        assert!(found.is_err() && h.iter().chain(&y).all(|&v| v == 7.0), "a refused call writes nothing");
    }
    for (a_len, b_len, x_len, h_len) in [(7, 6, 8, 4), (8, 5, 8, 4), (8, 6, 7, 4), (8, 6, 8, 3)] {
        let backward = |device: Backward<'_, f32>| {
            let mut h = vec![7.0; h_len];
            let (mut da, mut db, mut dx) = (vec![7.0; a_len], vec![7.0; b_len], vec![7.0; x_len]);
            let found = device(&mut h, Gradients { a: &mut da, b: &mut db, x: Some(&mut dx) });
            assert!(h.iter().chain(&da).chain(&db).chain(&dx).all(|&v| v == 7.0), "nothing is written");
            found.expect_err("it is refused")
        };
        let found = backward(&|h, gradients| device.lora_backward(lora, &x, &[1.0; 6], h, gradients));
        let expected = backward(&|h, gradients| Reference.lora_backward(lora, &x, &[1.0; 6], h, gradients));
        assert_eq!(found, expected);
    }
    for (weights, merged) in [(12, 11), (11, 12)] {
        let mut merged = vec![7.0; merged];
        let found = device.lora_fold(lora, &vec![1.0; weights], &mut merged);
        assert_eq!(found, Reference.lora_fold(lora, &vec![1.0; weights], &mut merged));
        assert!(found.is_err() && merged.iter().all(|&v| v == 7.0), "nothing is written");
    }
}
