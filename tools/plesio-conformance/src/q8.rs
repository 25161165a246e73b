//! Codes of eight bits with a scale for each block of 32.

use plesio_kernels::{Device, KernelError, Q8, Reference, f16};

use crate::Effort;
use crate::values::{Random, floats, lengths, same, same_double, same_floats, wild};

/// Every operation of `plesio_kernels::q8`.
pub fn conform<D: Device>(device: D, effort: Effort) {
    encodings(device, effort);
    decodings(device, effort);
    sums(device, effort);
    refusals(device);
}

/// One block after the other: ordinary, zero, with a NaN or an infinity, too large for a scale and just not, too small
/// and just not, subnormal.
fn blocks(len: usize, seed: u64) -> Vec<f32> {
    // A binary16 scale reaches 65504, its least normal one is 2^-14, and there are 127 steps.
    const TOPS: [f32; 16] = [
        1.0,
        0.0,
        f32::NAN,
        3.0,
        f32::NEG_INFINITY,
        65_504.0 * 127.0,
        65_505.0 * 127.0,
        f32::MAX,
        127.0 / 16_384.0,
        126.9 / 16_384.0,
        126.999 / 16_384.0,
        126.992_24 / 16_384.0,
        1e-6,
        1e-42,
        1e4,
        -f32::NAN,
    ];
    let mut values = floats(len, seed);
    for (index, block) in values.chunks_mut(32).enumerate() {
        let top = TOPS[(index + seed as usize) % TOPS.len()];
        let largest = block.iter().fold(0.0f32, |largest, x| largest.max(x.abs()));
        for x in block.iter_mut() {
            *x *= if top.is_finite() { top / largest } else { 1.0 };
        }
        // Somewhere in it, of either sign, and exactly.
        let place = (index * 7 + 5) % block.len();
        block[place] = if index % 2 == 0 { top } else { -top };
    }
    values
}

fn encodings<D: Device>(device: D, effort: Effort) {
    for &len in lengths(effort) {
        for seed in 0..3 {
            for (kind, input, before) in [
                ("blocks", blocks(len, seed), vec![0.0; len]),
                ("floats", floats(len, seed + 1), floats(len, seed + 4)),
                ("extremes", floats(len, seed + 1), wild(len, seed + 4)),
                ("small ones", floats(len, seed).iter().map(|x| x * 1e-3).collect(), vec![1e-3; len]),
            ] {
                let what = format!("quantise_q8 of {len} {kind}, seed {seed}");
                let scales = len.div_ceil(32);
                let (mut codes, mut steps, mut rest) = (vec![5; len], vec![5; scales], before.clone());
                let found = device.quantise_q8(&input, &mut rest, &mut codes, &mut steps);
                let (mut codes_wanted, mut steps_wanted, mut rest_wanted) =
                    (vec![6; len], vec![6; scales], before);
                let wanted =
                    Reference.quantise_q8(&input, &mut rest_wanted, &mut codes_wanted, &mut steps_wanted);
                assert_eq!(found, wanted, "{what}");
                same(&what, device, &steps, &steps_wanted);
                same(&what, device, &codes, &codes_wanted);
                same_floats(&what, device, &rest, &rest_wanted);
            }
        }
    }
}

/// Any codes; scales of which some are subnormal, infinite or NaN.
fn any(len: usize, seed: u64) -> (Vec<i8>, Vec<u16>) {
    let mut random = Random::new(seed + 1);
    let codes = (0..len).map(|_| random.bits() as i8).collect();
    let mut scale = |block: usize| match block % 4 {
        0 => random.bits() as u16,
        1 => random.bits() as u16 & 0x83ff,
        _ => f16::narrow((random.bits() >> 40) as f32 / 4096.0),
    };
    (codes, (0..len.div_ceil(32)).map(&mut scale).collect())
}

fn decodings<D: Device>(device: D, effort: Effort) {
    for len in lengths(effort).iter().copied().chain([4096, 4097, 9000]) {
        let (codes, scales) = any(len, len as u64);
        decoding(device, &format!("dequantise_q8 of {len}"), &codes, &scales);
    }
    if effort == Effort::Whole {
        let scales: Vec<u16> = (0..=u16::MAX).collect();
        decoding(device, "dequantise_q8 of every scale", &vec![1; 32 * scales.len()], &scales);
    }
}

fn decoding<D: Device>(device: D, what: &str, codes: &[i8], scales: &[u16]) {
    let coded = Q8::new(codes, scales).expect("a scale for each block");
    let (mut found, mut expected) = (vec![7.0; codes.len()], vec![8.0; codes.len()]);
    device.dequantise_q8(coded, &mut found).expect("it fits");
    Reference.dequantise_q8(coded, &mut expected).expect("it fits");
    same_floats(what, device, &found, &expected);
}

fn sums<D: Device>(device: D, effort: Effort) {
    let counts: &[usize] = match effort {
        Effort::Short => &[1, 3, 9, 32],
        Effort::Whole => &[1, 2, 3, 7, 8, 9, 31, 32],
    };
    for &len in lengths(effort) {
        for &count in counts {
            let inputs: Vec<(Vec<i8>, Vec<u16>)> = (0..count)
                .map(|k| {
                    let (codes, mut scales) = any(len, k as u64);
                    // Finite ones in most sums.
                    if !(len + count).is_multiple_of(3) {
                        scales.iter_mut().for_each(|scale| *scale &= 0x3fff);
                    }
                    (codes, scales)
                })
                .collect();
            let coded = |(codes, scales)| Q8::new(codes, scales).expect("a scale for each block");
            let inputs: Vec<Q8<'_>> =
                inputs.iter().map(|(codes, scales)| coded((&codes[..], &scales[..]))).collect();
            let weights = floats(count, len as u64);
            let what = format!("weighted_sum_q8 of {count} by {len}");
            let (mut found, mut expected) = (vec![7.0; len], vec![8.0; len]);
            let norm = device.weighted_sum_q8(&weights, &inputs, &mut found).expect("it fits");
            let wanted = Reference.weighted_sum_q8(&weights, &inputs, &mut expected).expect("it fits");
            same_floats(&what, device, &found, &expected);
            same_double(&what, device, norm, wanted);
        }
    }
}

fn refusals<D: Device>(device: D) {
    let (input, mut residue, mut codes, mut scales) = ([1.0; 33], [2.0; 33], [3; 33], [4; 2]);
    let wrong = |what, expected, found| Err(KernelError::Length { what, expected, found });
    assert_eq!(
        device.quantise_q8(&input, &mut residue[..32], &mut codes, &mut scales).map(|_| ()),
        wrong("residue", 33, 32)
    );
    assert_eq!(
        device.quantise_q8(&input, &mut residue, &mut codes[..1], &mut scales).map(|_| ()),
        wrong("codes", 33, 1)
    );
    assert_eq!(
        device.quantise_q8(&input, &mut residue, &mut codes, &mut scales[..1]).map(|_| ()),
        wrong("scales", 2, 1)
    );
    let coded = Q8::new(&codes, &scales).expect("a scale for each block");
    let mut out = [9.0; 32];
    assert_eq!(device.dequantise_q8(coded, &mut out), wrong("out", 33, 32));
    for count in [0, 33] {
        let refused = Err(KernelError::Count { what: "contributions", found: count, min: 1, max: 32 });
        assert_eq!(device.weighted_sum_q8(&vec![1.0; count], &vec![coded; count], &mut out), refused);
    }
    assert_eq!(device.weighted_sum_q8(&[1.0; 2], &[coded], &mut out).map(|_| ()), wrong("weights", 1, 2));
    assert_eq!(device.weighted_sum_q8(&[1.0], &[coded], &mut out).map(|_| ()), wrong("input", 32, 33));
    assert_eq!((residue, out), ([2.0; 33], [9.0; 32]), "a refused call writes nothing");
    assert_eq!((codes, scales), ([3; 33], [4; 2]));
}
