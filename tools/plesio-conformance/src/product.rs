//! Layers with int8 weights.

use plesio_kernels::lora::Adapter;
use plesio_kernels::{Device, KernelError, Q8, Reference};

use crate::Effort;
use crate::values::{Random, halves, same_floats, wild_halves};

/// Every operation of `plesio_kernels::product`.
pub fn conform<D: Device>(device: D, effort: Effort) {
    let (widths, heights): (&[usize], &[usize]) = match effort {
        Effort::Short => (&[0, 32, 64, 96, 1056, 4128], &[0, 1, 33]),
        Effort::Whole => {
            (&[0, 32, 64, 96, 128, 736, 768, 800, 1056, 4096, 4128, 8224], &[0, 1, 2, 31, 32, 33, 70])
        }
    };
    for &d_in in widths {
        for &d_out in heights {
            for rank in [0, 1, 4, 16, 19, 64] {
                product(device, d_in, d_out, rank);
            }
        }
    }
    zeros(device);
    refusals(device);
}

/// Products that vanish from below: their sum is a negative zero, of rows of whole steps and of others.
fn zeros<D: Device>(device: D) {
    for d_in in [32, 64, 96, 128] {
        let (codes, scales) = ([-1].repeat(2 * d_in), [1].repeat(d_in / 16));
        let weights = Q8::new(&codes, &scales).expect("a scale for each block");
        let (x, mut found, mut expected) = (vec![1; d_in], [7.0; 2], [7.0; 2]);
        assert_eq!(device.product_q8(weights, &x, None, &mut found), Ok(()));
        assert_eq!(Reference.product_q8(weights, &x, None, &mut expected), Ok(()));
        same_floats(&format!("product_q8 of {d_in} vanishing products"), device, &found, &expected);
    }
}

/// One small product of two blocks and more than one chunk of x: for a device that watches its threads, which is very
/// slow.
pub fn glance<D: Device>(device: D) {
    product(device, 4128, 33, 3);
}

/// An adapter of a rank, or of the largest that fits, or none for a rank of zero.
fn product<D: Device>(device: D, d_in: usize, d_out: usize, rank: usize) {
    let rank = rank.min(d_in).min(d_out);
    let (codes, scales) = weights(d_in * d_out);
    let weights = Q8::new(&codes, &scales).expect("a scale for each block");
    let (a, b) = (halves(rank * d_in, 1), halves(rank * d_out, 2));
    let adapter = Adapter::new(&a, &b, rank, d_in, d_out, 0.3).ok();
    assert_eq!(adapter.is_some(), rank > 0);
    for values in [halves, wild_halves] {
        let what = format!("product_q8 of {d_out} x {d_in}, rank {rank}");
        let (x, mut found, mut expected) = (values(d_in, 3), vec![-7.0; d_out], vec![-7.0; d_out]);
        assert_eq!(device.product_q8(weights, &x, adapter, &mut found), Ok(()), "{what}");
        assert_eq!(Reference.product_q8(weights, &x, adapter, &mut expected), Ok(()), "{what}");
        same_floats(&what, device, &found, &expected);
    }
}

/// Any codes, and scales of all kinds, few of which are no numbers.
fn weights(len: usize) -> (Vec<i8>, Vec<u16>) {
    let mut random = Random::new(len as u64 + 1);
    let codes = (0..len).map(|_| random.bits() as i8).collect();
    let mut scale = || match random.below(256) {
        0 => 0x7E00,
        1 => 0xFC00,
        2 => 0,
        3 => 0x8000,
        4..64 => random.bits() as u16 & 0x83FF, // subnormal
        _ => random.bits() as u16 & 0xBFFF,     // below 2
    };
    (codes, (0..len.div_ceil(32)).map(|_| scale()).collect())
}

fn refusals<D: Device>(device: D) {
    let (codes, scales) = weights(64);
    let weights = Q8::new(&codes, &scales).expect("a scale for each block");
    let (a, b) = (halves(32, 1), halves(2, 2));
    let adapter = |d_in: usize, d_out: usize| {
        Some(Adapter::new(&a[..d_in], &b[..d_out], 1, d_in, d_out, 1.0).expect("a legal shape"))
    };
    let refused = |x: usize, adapter: Option<Adapter<'_>>, y: usize| {
        let (x, mut y) = (vec![0; x], vec![7.0; y]);
        let found = device.product_q8(weights, &x, adapter, &mut y);
        assert_eq!(found, Reference.product_q8(weights, &x, adapter, &mut y));
        assert!(y.iter().all(|&y| y == 7.0), "a refused call writes nothing");
        found.expect_err("it is refused")
    };
    assert!(matches!(refused(31, None, 2), KernelError::Blocks { .. }));
    assert!(matches!(refused(32, None, 3), KernelError::Length { what: "weights", .. }));
    assert!(matches!(refused(32, adapter(31, 2), 2), KernelError::Length { what: "d_in", .. }));
    assert!(matches!(refused(32, adapter(32, 1), 2), KernelError::Length { what: "d_out", .. }));
}
