//! Weighted sums and square norms.

use plesio_kernels::norm::CHUNK;
use plesio_kernels::{Device, KernelError, Reference, bf16};

use crate::Effort;
use crate::values::{floats, lengths, same_double, same_floats, views, wild};

/// Every operation of `plesio_kernels::aggregate` that a device has.
pub fn conform<D: Device>(device: D, effort: Effort) {
    sums(device, effort);
    norms(device, effort);
    refusals(device);
}

/// Numbers of contributions.
fn counts(effort: Effort) -> &'static [usize] {
    match effort {
        Effort::Short => &[1, 3, 9, 32],
        Effort::Whole => &[1, 2, 3, 5, 7, 8, 9, 16, 31, 32],
    }
}

/// A weight for each, now and then one that spoils everything it touches.
fn weights(count: usize, seed: u64) -> Vec<f32> {
    if seed.is_multiple_of(3) { wild(count, seed) } else { floats(count, seed) }
}

fn sums<D: Device>(device: D, effort: Effort) {
    for &len in lengths(effort) {
        for &count in counts(effort) {
            for (kind, make) in [("floats", floats as fn(usize, u64) -> Vec<f32>), ("extremes", wild)] {
                let inputs: Vec<Vec<f32>> = (0..count).map(|k| make(len, k as u64 + 1)).collect();
                let weights = weights(count, (len + count) as u64);
                let what = format!("weighted_sum of {count} by {len} {kind}");
                let (mut found, mut expected) = (vec![7.0; len], vec![8.0; len]);
                let norm = device.weighted_sum(&weights, &views(&inputs), &mut found);
                let wanted = Reference.weighted_sum(&weights, &views(&inputs), &mut expected);
                same_floats(&what, device, &found, &expected);
                same_double(&what, device, norm.expect("it fits"), wanted.expect("it fits"));

                let halves: Vec<Vec<u16>> =
                    inputs.iter().map(|input| input.iter().map(|&x| bf16::narrow(x)).collect()).collect();
                let what = format!("weighted_sum_bf16 of {count} by {len} {kind}");
                let (mut found, mut expected) = (vec![7.0; len], vec![8.0; len]);
                let norm = device.weighted_sum_bf16(&weights, &views(&halves), &mut found);
                let wanted = Reference.weighted_sum_bf16(&weights, &views(&halves), &mut expected);
                same_floats(&what, device, &found, &expected);
                same_double(&what, device, norm.expect("it fits"), wanted.expect("it fits"));
            }
        }
    }
}

fn norms<D: Device>(device: D, effort: Effort) {
    let mut all = lengths(effort).to_vec();
    // More partial sums than lanes; and more than are folded at a time.
    all.extend([64 * CHUNK, 67 * CHUNK + 70]);
    if effort == Effort::Whole {
        all.push(4098 * CHUNK + 1);
    }
    for len in all {
        let counts: &[usize] = if len > 64 * CHUNK { &[2] } else { &[1, 2, 5, 32] };
        for &count in counts {
            let make = |k: usize| if k % 2 == 1 { wild(len, k as u64) } else { floats(len, k as u64 + 5) };
            let inputs: Vec<Vec<f32>> = (0..count).map(make).collect();
            let (mut found, mut expected) = (vec![7.0; count], vec![8.0; count]);
            device.square_norms(&views(&inputs), &mut found).expect("it fits");
            Reference.square_norms(&views(&inputs), &mut expected).expect("it fits");
            for (k, (&found, &expected)) in found.iter().zip(&expected).enumerate() {
                same_double(&format!("square norm {k} of {count} by {len}"), device, found, expected);
            }
        }
    }
}

fn refusals<D: Device>(device: D) {
    let (x, halves) = ([1.0, 2.0, 3.0], [4, 5, 6]);
    let mut out = [9.0; 3];
    for count in [0, 33] {
        let refused = Err(KernelError::Count { what: "contributions", found: count, min: 1, max: 32 });
        assert_eq!(device.weighted_sum(&vec![1.0; count], &vec![&x[..]; count], &mut out), refused);
        assert_eq!(device.weighted_sum_bf16(&vec![1.0; count], &vec![&halves[..]; count], &mut out), refused);
        assert_eq!(device.square_norms(&vec![&x[..]; count], &mut vec![9.0; count]).map(|()| 0.0), refused);
    }
    let short = Err(KernelError::Length { what: "input", expected: 3, found: 2 });
    let weights = Err(KernelError::Length { what: "weights", expected: 1, found: 2 });
    assert_eq!(device.weighted_sum(&[1.0, 2.0], &[&x], &mut out), weights);
    assert_eq!(device.weighted_sum(&[1.0, 2.0], &[&x, &x[..2]], &mut out), short);
    assert_eq!(device.weighted_sum_bf16(&[1.0, 2.0], &[&halves], &mut out), weights);
    assert_eq!(device.weighted_sum_bf16(&[1.0], &[&halves[..2]], &mut out), short);
    let mut norms = [9.0; 2];
    assert_eq!(device.square_norms(&[&x, &x[..2]], &mut norms).map(|()| 0.0), short);
    assert_eq!(norms, [9.0; 2], "a refused call writes nothing");
    assert_eq!(out, [9.0; 3], "a refused call writes nothing");
}
