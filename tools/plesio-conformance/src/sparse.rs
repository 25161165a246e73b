//! The largest elements.

use plesio_kernels::{Device, KernelError, Reference};

use crate::Effort;
use crate::values::{Random, floats, same, wild};

/// Every operation of `plesio_kernels::sparse`.
pub fn conform<D: Device>(device: D, effort: Effort) {
    for &len in lengths(effort) {
        for (kind, x) in inputs(len) {
            let mut counts =
                vec![0, 1, 2, len / 100, len / 4, len / 2, len - len / 8, len.saturating_sub(1), len];
            counts.retain(|&count| count <= len);
            counts.dedup();
            for count in counts {
                selection(device, kind, &x, count);
            }
        }
    }
    if effort == Effort::Whole {
        // More blocks than threads of one.
        let len = 258 * 8192 + 5;
        selection(device, "floats", &floats(len, 3), len / 100);
    }
    refusals(device);
}

/// Around the blocks of 8192, and what is more than a sample takes.
fn lengths(effort: Effort) -> &'static [usize] {
    match effort {
        Effort::Short => &[0, 1, 5, 33, 8193, 20_011],
        Effort::Whole => &[0, 1, 2, 3, 4, 5, 31, 32, 33, 1000, 8191, 8192, 8193, 16_384, 20_011, 40_003],
    }
}

/// What makes a selection hard.
fn inputs(len: usize) -> Vec<(&'static str, Vec<f32>)> {
    let mut random = Random::new(len as u64 + 1);
    let mut any = |mask: u64| (0..len).map(|_| f32::from_bits((random.bits() & mask) as u32)).collect();
    vec![
        ("floats", floats(len, 1)),
        ("extremes", wild(len, 2)),
        ("zeros of both signs", (0..len).map(|e| if e % 3 == 0 { -0.0 } else { 0.0 }).collect()),
        ("equals", vec![-1.5; len]),
        ("any bits", any(0xffff_ffff)),
        ("few values", any(0x8080_0101)),
        (
            "neighbours in the last bits",
            (0..len).map(|e| f32::from_bits(0x3f80_0000 + e as u32 % 700)).collect(),
        ),
        // Few samples of such tensors tell the truth.
        ("large ones in every fifth pack", (0..len).map(striped).collect()),
        (
            "large ones where samples are",
            (0..len).map(|e| if sampled(e, len) { 100.0 } else { 1.0 }).collect(),
        ),
    ]
}

fn striped(element: usize) -> f32 {
    if (element / 4).is_multiple_of(5) { 100.0 + element as f32 } else { 1.0 + element as f32 * 1e-6 }
}

/// Whether an element lies in one of 2048 packs at even distances.
fn sampled(element: usize, len: usize) -> bool {
    let (packs, pack) = (len / 4, element / 4);
    packs <= 2048 || (pack * 2048).div_ceil(packs) * packs / 2048 == pack
}

fn selection<D: Device>(device: D, kind: &str, x: &[f32], count: usize) {
    let what = format!("top_k of {count} of {} {kind}", x.len());
    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<u32>>();
    let (mut found_at, mut found) = (vec![7; count], vec![7.0; count]);
    let (mut expected_at, mut expected) = (vec![8; count], vec![8.0; count]);
    device.top_k(x, count, &mut found_at, &mut found).expect("it fits");
    Reference.top_k(x, count, &mut expected_at, &mut expected).expect("it fits");
    same(&what, device, &found_at, &expected_at);
    same(&what, device, &bits(found), &bits(expected));
}

fn refusals<D: Device>(device: D) {
    let (x, mut indices, mut values) = ([1.0, 2.0, 3.0], [7; 4], [7.0; 4]);
    assert_eq!(
        device.top_k(&x, 4, &mut indices, &mut values),
        Err(KernelError::Count { what: "largest elements", found: 4, min: 0, max: 3 })
    );
    assert_eq!(
        device.top_k(&x, 2, &mut indices[..3], &mut values[..2]),
        Err(KernelError::Length { what: "indices", expected: 2, found: 3 })
    );
    assert_eq!(
        device.top_k(&x, 2, &mut indices[..2], &mut values[..1]),
        Err(KernelError::Length { what: "values", expected: 2, found: 1 })
    );
    assert_eq!((indices, values), ([7; 4], [7.0; 4]), "a refused call writes nothing");
}
