//! Rows with an adapter each.

use plesio_kernels::lora::Adapter;
use plesio_kernels::{Device, KernelError, NO_ADAPTER, Reference, bf16};

use super::{Shape, half};
use crate::Effort;
use crate::values::{Random, halves, same_halves, wild_halves};

/// Widths around chunks of x and slices of y.
fn widths(effort: Effort) -> &'static [(usize, usize)] {
    match effort {
        Effort::Short => &[(1, 1), (3, 5), (64, 64), (72, 1032), (130, 1025), (4168, 8)],
        Effort::Whole => &[
            (1, 1),
            (3, 5),
            (16, 16),
            (63, 17),
            (64, 64),
            (65, 1023),
            (72, 1032),
            (130, 1025),
            (1024, 24),
            (1032, 2056),
            (4095, 3),
            (4096, 4),
            (4160, 16),
            (4168, 8),
            (8201, 2),
        ],
    }
}

pub(super) fn conform<D: Device>(device: D, effort: Effort) {
    for &(d_in, d_out) in widths(effort) {
        for rows in [0, 1, 7] {
            mixed(device, (d_in, d_out), rows, &[1, 4, 64, 16, 17]);
        }
    }
    for rank in (1..=64).step_by(if effort == Effort::Whole { 3 } else { 9 }) {
        mixed(device, (96, 80), 3, &[rank]);
    }
    zeros(device);
    refusals(device);
}

/// Products that vanish from below, added to a negative zero: it stays one where no lane was filled up.
fn zeros<D: Device>(device: D) {
    for d_in in [64, 65, 72, 79, 80, 81, 112, 113, 128, 140] {
        let (a, b) = ([bf16::narrow(-1e-30)].repeat(d_in), [bf16::narrow(1.0)]);
        let adapter = Adapter::new(&a, &b, 1, d_in, 1, 1.0).expect("a legal shape");
        let (x, mut found) = ([bf16::narrow(1e-30)].repeat(d_in), [bf16::narrow(-0.0)]);
        let mut expected = found;
        assert_eq!(device.lora_grouped(&[adapter], &[0], &x, &mut found), Ok(()));
        assert_eq!(Reference.lora_grouped(&[adapter], &[0], &x, &mut expected), Ok(()));
        same_halves(&format!("lora_grouped of {d_in} vanishing products"), device, &found, &expected);
    }
}

/// Rows with adapters of different ranks, and some with none; the same as each row alone.
pub(super) fn mixed<D: Device>(device: D, (d_in, d_out): (usize, usize), rows: usize, ranks: &[usize]) {
    let shapes = ranks.iter().map(|&rank| Shape { rows: 1, d_in, d_out, rank: rank.min(d_in).min(d_out) });
    let factors: Vec<_> = shapes.map(|shape| (shape, half::factors(shape))).collect();
    let adapters: Vec<Adapter<'_>> =
        factors.iter().map(|(shape, factors)| half::adapter(*shape, factors)).collect();
    let mut random = Random::new((d_in + d_out + rows) as u64);
    let which: Vec<u32> = (0..rows)
        .map(|_| random.below(adapters.len() as u64 + 1) as u32)
        .map(|index| if index as usize == adapters.len() { NO_ADAPTER } else { index })
        .collect();
    for values in [halves, wild_halves] {
        let what =
            format!("lora_grouped of {rows} rows {d_in} to {d_out}, adapters {which:?} of ranks {ranks:?}");
        let (x, mut found) = (values(rows * d_in, 3), values(rows * d_out, 5));
        let mut expected = found.clone();
        assert_eq!(device.lora_grouped(&adapters, &which, &x, &mut found), Ok(()), "{what}");
        assert_eq!(Reference.lora_grouped(&adapters, &which, &x, &mut expected), Ok(()), "{what}");
        same_halves(&what, device, &found, &expected);
    }
}

fn refusals<D: Device>(device: D) {
    let shape = Shape { rows: 1, d_in: 4, d_out: 3, rank: 2 };
    let other = Shape { d_in: 5, ..shape };
    let (factors, others) = (half::factors(shape), half::factors(other));
    let (first, other) = (half::adapter(shape, &factors), half::adapter(other, &others));
    let mut y = [7; 6];
    let mut refused = |adapters: &[Adapter<'_>], which: &[u32], x: &[u16]| {
        let found = device.lora_grouped(adapters, which, x, &mut y);
        assert_eq!(found, Reference.lora_grouped(adapters, which, x, &mut y));
        assert_eq!(y, [7; 6], "a refused call writes nothing");
        found.expect_err("it is refused")
    };
    assert!(matches!(refused(&[first], &[0, 1], &[0; 8]), KernelError::Adapter { row: 1, .. }));
    assert!(matches!(refused(&[], &[0, NO_ADAPTER], &[0; 8]), KernelError::Adapter { row: 0, .. }));
    assert!(matches!(refused(&[first, other], &[0, 1], &[0; 8]), KernelError::Length { .. }));
    assert!(matches!(refused(&[first], &[0, 0], &[0; 7]), KernelError::Length { .. }));
    assert!(matches!(refused(&[first], &[0, 0, 0], &[0; 12]), KernelError::Length { .. }));
    assert_eq!(
        device.lora_grouped(&[], &[NO_ADAPTER; 2], &[0; 3], &mut y),
        Ok(()),
        "no adapter and no row with one"
    );
}
