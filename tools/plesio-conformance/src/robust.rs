//! Medians and trimmed means.

use plesio_kernels::{Device, KernelError, Reference, Robust};

use crate::Effort;
use crate::values::{same, views, wild};

/// Both rules of `plesio_kernels::robust`.
pub fn conform<D: Device>(device: D, effort: Effort) {
    for count in 2..=32 {
        for &len in lengths(effort) {
            rules(device, count, len);
        }
    }
    refusals(device);
}

/// Around every block of a kernel: 512 elements with few contributions, 128 with many.
fn lengths(effort: Effort) -> &'static [usize] {
    match effort {
        Effort::Short => &[0, 5, 130, 513],
        Effort::Whole => &[0, 1, 2, 3, 4, 5, 63, 127, 128, 129, 511, 512, 513, 1027],
    }
}

/// Many extremes in each column, NaN of both signs and zeros of both among them.
fn columns(count: usize, len: usize) -> Vec<Vec<f32>> {
    (0..count)
        .map(|k| {
            let (plain, other) = (wild(len, k as u64 + 2), wild(len, k as u64 + 90));
            let mix = |(e, (a, b)): (usize, (f32, f32))| match (e * 3 + k) % 5 {
                0 => b * 0.0, // NaN of infinities, zeros of the rest
                1 => f32::from_bits(b.to_bits() ^ 0x8000_0001),
                _ => a,
            };
            plain.into_iter().zip(other).enumerate().map(mix).collect()
        })
        .collect()
}

fn rules<D: Device>(device: D, count: usize, len: usize) {
    let inputs = columns(count, len);
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
    let most = (count - 1) / 2;
    let trims = [0, 1, most / 2, most].into_iter().filter(|&trim| trim <= most);
    let trimmed = trims.map(|trim| Robust::TrimmedMean { trim });
    for rule in [Robust::Median].into_iter().chain(trimmed) {
        let what = format!("{rule:?} of {count} by {len}");
        let (mut found, mut expected) = (vec![7.0; len], vec![8.0; len]);
        device.robust(rule, &views(&inputs), &mut found).expect("it fits");
        Reference.robust(rule, &views(&inputs), &mut expected).expect("it fits");
        same(&what, device, &bits(found), &bits(expected));
    }
}

fn refusals<D: Device>(device: D) {
    let x = [1.0, 2.0, 3.0];
    let mut out = [9.0; 3];
    for count in [0, 1, 33] {
        let refused = Err(KernelError::Count { what: "contributions", found: count, min: 2, max: 32 });
        assert_eq!(device.robust(Robust::Median, &vec![&x[..]; count], &mut out), refused);
        assert_eq!(device.robust(Robust::TrimmedMean { trim: 9 }, &vec![&x[..]; count], &mut out), refused);
    }
    for (trim, count) in [(1, 2), (2, 4), (usize::MAX, 5)] {
        let rule = Robust::TrimmedMean { trim };
        let refused = Err(KernelError::Trim { trim, count });
        assert_eq!(device.robust(rule, &vec![&x[..]; count], &mut out), refused);
    }
    assert_eq!(
        device.robust(Robust::Median, &[&x, &x[..1]], &mut out),
        Err(KernelError::Length { what: "input", expected: 3, found: 1 })
    );
    assert_eq!(out, [9.0; 3], "a refused call writes nothing");
}
