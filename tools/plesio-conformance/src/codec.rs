//! Codecs, of real values and of slots.

use plesio_kernels::{Codec, Coding, Device, Encoded, KernelError, Reference};

use crate::Effort;
use crate::slot::{counts, is_length, weights};
use crate::values::{Random, floats, integers, same, same_floats, sized_integers, stretches, wild};

/// Every operation of `plesio_kernels::codec`.
pub fn conform<D: Device>(device: D, effort: Effort) {
    for codec in Codec::ALL {
        for &len in lengths(effort) {
            values(device, codec, len);
            slots(device, codec, len);
            any_bytes(device, codec, len);
            sums(device, codec, len, effort);
        }
        refusals(device, codec);
    }
}

/// Lengths around every block, and around half of one.
fn lengths(effort: Effort) -> &'static [usize] {
    match effort {
        Effort::Short => &[0, 1, 31, 64, 99, 130, 255, 256, 2047, 2311],
        Effort::Whole => &[
            0, 1, 2, 3, 4, 5, 31, 32, 33, 35, 63, 64, 65, 66, 95, 99, 127, 128, 129, 191, 195, 255, 256, 257,
            511, 1023, 1025, 2047, 2048, 2049, 2311, 4096, 5000,
        ],
    }
}

/// Operations and ranges of a tensor.
fn codings(codec: Codec) -> [Coding; 3] {
    let last = u64::MAX / codec.block_elements() as u64 * codec.block_elements() as u64;
    [
        Coding::new(codec, 0),
        Coding::new(codec, u64::MAX).at(5 * Codec::GRAIN_ELEMENTS as u64),
        Coding::new(codec, 0x1234_5678_9abc_def0).at(last),
    ]
}

fn values<D: Device>(device: D, codec: Codec, len: usize) {
    for coding in codings(codec) {
        for (kind, input, residue) in [
            ("ordinary", floats(len, 1), floats(len, 2)),
            ("stretches of 64", stretches(len, 64, 3), floats(len, 4)),
            ("stretches of 256", stretches(len, 256, 5), stretches(len, 256, 6)),
            ("stretches alone", stretches(len, 128, 7), vec![-0.0; len]),
            ("wild", wild(len, 8), floats(len, 9)),
        ] {
            let what = format!("{codec:?} of {len} {kind} values, {coding:?}");
            let codes = encode(device, &what, coding, &input, None);
            encode(device, &what, coding, &input, Some(&residue));
            decode(device, &what, codec, &codes, &residue);
        }
    }
}

/// Encodes on both sides, which agree; what comes out.
fn encode<D: Device>(
    device: D,
    what: &str,
    coding: Coding,
    input: &[f32],
    residue: Option<&[f32]>,
) -> Vec<u8> {
    type Call<'c> = &'c dyn Fn(Option<&mut [f32]>, &mut [u8]) -> Result<Encoded, KernelError>;
    let run = |call: Call<'_>| {
        let mut rest = residue.map(<[f32]>::to_vec);
        let mut codes = vec![0xaa; coding.codec.encoded_bytes(input.len())];
        let encoded = call(rest.as_deref_mut(), &mut codes).expect("the lengths are right");
        (encoded, rest.unwrap_or_default(), codes)
    };
    let found = run(&|rest, codes| device.encode(coding, input, rest, codes));
    let expected = run(&|rest, codes| Reference.encode(coding, input, rest, codes));
    let kept = if residue.is_some() { "kept" } else { "dropped" };
    let what = format!("encode, {kept}, {what}");
    assert_eq!(found.0, expected.0, "{what} on {}", device.name());
    same_floats(&format!("{what}: residue"), device, &found.1, &expected.1);
    same_codes(&what, device, coding.codec, &found.2, &expected.2);
    expected.2
}

/// Panics unless codes have the same bytes; a NaN that travels as itself equals a NaN, because machines keep
/// different payloads.
#[track_caller]
fn same_codes<D: Device>(what: &str, device: D, codec: Codec, found: &[u8], expected: &[u8]) {
    if codec.block_elements() > 1 {
        return same(what, device, found, expected);
    }
    let elements = expected.len() / codec.encoded_bytes(1);
    let [found, expected] = [found, expected].map(|codes| {
        let mut values = vec![0.0; elements];
        Reference.decode(codec, codes, &mut values).expect("whole elements");
        values
    });
    same_floats(what, device, &found, &expected);
}

/// Decodes on both sides, which agree, in every way.
fn decode<D: Device>(device: D, what: &str, codec: Codec, codes: &[u8], sum: &[f32]) {
    let (mut found, mut expected) = (vec![7.0; sum.len()], vec![9.0; sum.len()]);
    assert_eq!(device.decode(codec, codes, &mut found), Ok(()));
    Reference.decode(codec, codes, &mut expected).expect("the lengths are right");
    same_floats(&format!("decode, {what}"), device, &found, &expected);

    let (mut found, mut expected) = (sum.to_vec(), sum.to_vec());
    assert_eq!(device.decode_add(codec, codes, &mut found), Ok(()));
    Reference.decode_add(codec, codes, &mut expected).expect("the lengths are right");
    same_floats(&format!("decode_add, {what}"), device, &found, &expected);
}

fn decode_slot<D: Device>(device: D, what: &str, codec: Codec, codes: &[u8], len: usize) {
    let (mut found, mut expected) = (vec![7; len], vec![9; len]);
    assert_eq!(device.decode_slot(codec, codes, &mut found), Ok(()));
    Reference.decode_slot(codec, codes, &mut expected).expect("the lengths are right");
    same(&format!("decode_slot, {what}"), device, &found, &expected);
}

fn slots<D: Device>(device: D, codec: Codec, len: usize) {
    for coding in codings(codec) {
        for (kind, slot) in [
            ("stretches of 64", sized_integers(len, 64, 1)),
            ("stretches of 256", sized_integers(len, 256, 2)),
            ("all sizes", integers(len, 3)),
            ("edges", edges(len)),
        ] {
            let what = format!("{codec:?} of {len} integers, {kind}, {coding:?}");
            let bytes = codec.encoded_bytes(len);
            let (mut found, mut expected) = (vec![0x55; bytes], vec![0xaa; bytes]);
            assert_eq!(device.encode_slot(coding, &slot, &mut found), Ok(()));
            Reference.encode_slot(coding, &slot, &mut expected).expect("the lengths are right");
            same(&format!("encode_slot, {what}"), device, &found, &expected);
            decode_slot(device, &what, codec, &expected, len);
        }
    }
}

/// Integers of which the largest of 64 needs a step of `Int4` that is rounded up to a power of two.
fn edges(len: usize) -> Vec<i32> {
    let mut random = Random::new(4);
    let mut values = vec![0; len];
    for (values, shift) in values.chunks_mut(64).zip((12..=30).cycle()) {
        // 7.5 steps of 255.5 2^-11, times a power of two.
        let top = ((511u64 << shift) * 15) >> 13;
        values.fill_with(|| random.below(top) as i32 - (top / 2) as i32);
        values[0] = -(top as i32);
    }
    values
}

/// Bytes that no encoder writes, with steps of every kind: zero, subnormal, huge, infinite, NaN, negative.
fn bytes(codec: Codec, len: usize, seed: u64) -> Vec<u8> {
    const STEPS: [u32; 9] = [
        0,
        0x0000_0001,
        0x0001_0000,
        0x0040_0000,
        0x3f80_0000,
        0x7f7f_ffff,
        0x7f80_0000,
        0x7fc0_0000,
        0x8000_0000,
    ];
    let mut random = Random::new(seed);
    let mut codes: Vec<u8> = (0..codec.encoded_bytes(len)).map(|_| random.bits() as u8).collect();
    let block_bytes = codec.encoded_bytes(codec.block_elements());
    for block in codes.chunks_mut(block_bytes) {
        let step = STEPS[random.below(STEPS.len() as u64) as usize].to_le_bytes();
        match codec {
            Codec::Int8 if random.below(3) > 0 => block[..4].copy_from_slice(&step),
            Codec::Int4By64 | Codec::Int4By128 if random.below(3) > 0 => {
                block[..2].copy_from_slice(&step[2..]);
            }
            _ => {}
        }
    }
    codes
}

fn any_bytes<D: Device>(device: D, codec: Codec, len: usize) {
    for seed in 1..6 {
        let what = format!("{codec:?} of {len} elements in any bytes, seed {seed}");
        let codes = bytes(codec, len, seed);
        decode(device, &what, codec, &codes, &wild(len, seed));
        decode_slot(device, &what, codec, &codes, len);
    }
}

fn sums<D: Device>(device: D, codec: Codec, len: usize, effort: Effort) {
    for &count in counts(effort) {
        let what = format!("coded_sum, {codec:?}, {count} by {len}");
        let slots: Vec<Vec<u8>> = (0..count).map(|slot| bytes(codec, len, slot as u64 + 1)).collect();
        let slots: Vec<&[u8]> = slots.iter().map(Vec::as_slice).collect();
        let weights = weights(count, len as u64);
        let (mut found, mut expected) = (vec![-1; len], vec![-2; len]);
        assert_eq!(device.coded_sum(codec, &weights, &slots, &mut found), Ok(()), "{what}");
        Reference.coded_sum(codec, &weights, &slots, &mut expected).expect("as many as weights");
        same(&what, device, &found, &expected);
    }
}

fn refusals<D: Device>(device: D, codec: Codec) {
    const LEN: usize = 300;
    let coding = Coding::new(codec, 1);
    let bytes = codec.encoded_bytes(LEN);
    let (mut codes, mut values, mut slot) = (vec![7; bytes], vec![0.5; LEN], vec![7; LEN]);
    let wrong = vec![7; bytes - 1];
    let (input, integers) = (floats(LEN, 1), sized_integers(LEN, 64, 2));
    let what = "encoded bytes";
    assert!(is_length(device.encode(coding, &input, None, &mut codes[1..]), what));
    assert!(is_length(device.encode(coding, &input, Some(&mut values[1..]), &mut codes), "residue"));
    assert!(is_length(device.encode_slot(coding, &integers, &mut codes[1..]), what));
    assert!(is_length(device.decode(codec, &wrong, &mut values), what));
    assert!(is_length(device.decode_add(codec, &wrong, &mut values), what));
    assert!(is_length(device.decode_slot(codec, &wrong, &mut slot), what));
    let mut sum = vec![7; LEN];
    assert!(is_length(device.coded_sum(codec, &[1], &[&wrong], &mut sum), what));
    assert!(is_length(device.coded_sum(codec, &[1, 1], &[&codes], &mut sum), "slots"));
    let heavy = device.coded_sum(codec, &[u32::MAX, 1], &[&codes, &codes], &mut sum);
    assert!(matches!(heavy, Err(KernelError::Weights { .. })));
    let untouched = values.iter().all(|value| *value == 0.5)
        && codes.iter().all(|code| *code == 7)
        && slot.iter().all(|value| *value == 7)
        && sum.iter().all(|value| *value == 7);
    assert!(untouched, "a refused call writes nothing");
}
