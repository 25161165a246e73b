//! Laws of the codecs: layouts, error bars, what the residue keeps, and that any bytes decode.

use super::*;
use crate::arithmetic::Store;
use crate::slot::slot_sum;
use proptest::prelude::*;

const NARROW: [Codec; 4] = [Codec::Bf16, Codec::Int8, Codec::Int4By64, Codec::Int4By128];

/// Independent normal values by Box and Muller, reproducible.
fn gaussian(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed;
    let mut unit = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) >> 11) as f64 / (1u64 << 53) as f64
    };
    (0..len)
        .map(|_| {
            let radius = libm::sqrt(-2.0 * libm::log(1.0 - unit()));
            (radius * libm::cos(core::f64::consts::TAU * unit())) as f32
        })
        .collect()
}

/// In steps of 2^-24.
fn fixed(values: &[f32]) -> Vec<i32> {
    values.iter().map(|value| (f64::from(*value) * 16_777_216.0).round_ties_even() as i32).collect()
}

fn encoded(coding: Coding, input: &[f32], residue: Option<&mut [f32]>) -> (Vec<u8>, bool) {
    let mut out = vec![0xaa; coding.codec.encoded_bytes(input.len())];
    let finite = encode(coding, input, residue, &mut out).unwrap().finite;
    (out, finite)
}

fn decoded(codec: Codec, codes: &[u8], len: usize) -> Vec<f32> {
    let mut out = vec![7.0; len];
    decode(codec, codes, &mut out).unwrap();
    out
}

/// Root of the squared error's share.
fn relative_error(found: &[f32], wanted: &[f32]) -> f64 {
    let square = |x: f64| x * x;
    let error: f64 = found.iter().zip(wanted).map(|(&a, &b)| square(f64::from(a) - f64::from(b))).sum();
    libm::sqrt(error / wanted.iter().map(|&b| square(f64::from(b))).sum::<f64>())
}

#[test]
fn the_bytes_are_what_the_layout_says() {
    // int8: the step is 254 / 127.
    let (codes, _) = encoded(Coding::new(Codec::Int8, 0), &[254.0, -254.0, 1.0, 3.0, 5.1], None);
    assert_eq!(codes[..4], 2f32.to_le_bytes());
    assert_eq!(codes[4..], [127, 0x81, 0, 2, 3], "halves go to the even code");
    // bf16: halves to even, a NaN stays one though its payload is cut off, the largest floats round to infinity.
    let (codes, finite) = encoded(
        Coding::new(Codec::Bf16, 0),
        &[
            1.0,
            f32::from_bits(0x3f80_8000),
            f32::from_bits(0x3f81_8000),
            f32::from_bits(0x7f80_0001),
            f32::MAX,
            f32::from_bits(u32::MAX),
        ],
        None,
    );
    assert_eq!(codes, [0x80, 0x3f, 0x80, 0x3f, 0x82, 0x3f, 0xc0, 0x7f, 0x80, 0x7f, 0xff, 0xff]);
    assert!(!finite);
    // int4: the step is 15 / 7.5, and the extremes take the extreme nibbles whatever the dither is.
    let mut values = [0.0; 64];
    (values[0], values[1], values[32], values[33]) = (15.0, -15.0, 15.0, -15.0);
    let (codes, _) = encoded(Coding::new(Codec::Int4By64, 9), &values, None);
    assert_eq!(codes[..2], [0, 0x40]);
    assert_eq!(codes[4..6], [0xff, 0x00]);
    // Full: as it is, in either domain.
    let mut codes = [0; 8];
    encode_slot(Coding::default(), &[1, -2], &mut codes).unwrap();
    assert_eq!(codes, [1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
}

#[test]
fn the_bytes_stay_what_they_are() {
    // Another digest is another wire format: nodes of two versions would not understand each other.
    let values = gaussian(300, 5);
    let expected = [0x3d47_1573_u32, 0x72af_9c95, 0xf6c6_032d, 0xa192_6bd4, 0xaea8_c745];
    let digests = Codec::ALL.map(|codec| {
        let (codes, _) = encoded(Coding::new(codec, 77), &values, None);
        let mut whole = vec![0; codec.encoded_bytes(values.len())];
        encode_slot(Coding::new(codec, 77), &fixed(&values), &mut whole).unwrap();
        // FNV-1a.
        codes
            .iter()
            .chain(&whole)
            .fold(0x811c_9dc5u32, |digest, &byte| (digest ^ u32::from(byte)).wrapping_mul(0x0100_0193))
    });
    assert_eq!(digests, expected, "{digests:#x?}");
}

#[test]
fn one_quantisation_of_gaussian_data_stays_in_its_bar() {
    let values = gaussian(1 << 17, 1);
    for (codec, bar) in [
        (Codec::Full, 0.0),
        (Codec::Bf16, 0.003),
        (Codec::Int8, 0.01),
        (Codec::Int4By64, 0.13),
        (Codec::Int4By128, 0.13),
    ] {
        let (codes, finite) = encoded(Coding::new(codec, 3), &values, None);
        assert!(finite);
        let error = relative_error(&decoded(codec, &codes, values.len()), &values);
        println!("{codec:?}: {error:.5}");
        assert!(error <= bar, "{codec:?}: {error}");
        // A slot, in steps of 2^-24.
        let mut codes = vec![0; codec.encoded_bytes(values.len())];
        encode_slot(Coding::new(codec, 3), &fixed(&values), &mut codes).unwrap();
        let mut slot = vec![0; values.len()];
        decode_slot(codec, &codes, &mut slot).unwrap();
        let found: Vec<f32> = slot.iter().map(|&q| q as f32 / 16_777_216.0).collect();
        let error = relative_error(&found, &values);
        println!("{codec:?}, integers: {error:.5}");
        assert!(error <= bar.max(1e-6), "{codec:?}: {error}");
    }
}

#[test]
fn the_dither_takes_the_bias_away() {
    // The same block under many seeds: its mean error falls like that of independent errors.
    let values = gaussian(64, 2);
    let (mut means, seeds) = (vec![0f64; 64], 4096);
    for seed in 0..seeds {
        let (codes, _) = encoded(Coding::new(Codec::Int4By64, seed), &values, None);
        for ((mean, found), wanted) in means.iter_mut().zip(decoded(Codec::Int4By64, &codes, 64)).zip(&values)
        {
            *mean += (f64::from(found) - f64::from(*wanted)) / seeds as f64;
        }
    }
    let step = f64::from(values.iter().fold(0f32, |top, value| top.max(value.abs()))) / 7.5;
    // One error has step / sqrt(12); five deviations of the mean of 4,096, and the dither's own grain.
    let bound = step * (5.0 / 12f64.sqrt() / 64.0 + 1.0 / 512.0);
    for mean in means {
        assert!(mean.abs() < bound, "{mean} of {bound}");
    }
}

#[test]
fn what_is_not_finite_is_seen_by_all_and_leaves_the_residue_alone() {
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        for codec in Codec::ALL {
            let mut values = vec![1.0; 600];
            values[300] = bad;
            let mut residue = vec![0.25; 600];
            let (codes, finite) = encoded(Coding::new(codec, 1), &values, Some(&mut residue));
            assert!(!finite);
            assert_eq!(residue[300], 0.25, "{codec:?}");
            assert!(residue.iter().all(|residue| residue.is_finite()));
            let found = decoded(codec, &codes, 600);
            match codec {
                Codec::Full | Codec::Bf16 => {
                    assert!(found[300].is_nan() == bad.is_nan() && !found[300].is_finite());
                    assert!(found.iter().filter(|value| !value.is_finite()).count() == 1);
                }
                _ => {
                    let block = codec.block_elements();
                    let blocks = found.chunks(block).enumerate();
                    for (index, found) in blocks {
                        let hit = index == 300 / block;
                        assert!(found.iter().all(|value| value.is_nan() == hit), "{codec:?} {index}");
                    }
                }
            }
        }
    }
    // Two finite values whose sum is not.
    let mut residue = [f32::MAX];
    let (_, finite) = encoded(Coding::new(Codec::Int8, 1), &[f32::MAX], Some(&mut residue));
    assert!(!finite && residue == [f32::MAX]);
}

#[test]
fn the_ends_of_the_floats_survive() {
    for codec in NARROW {
        for value in [f32::MAX, 1e38, 1e-30, 1e-38, f32::MIN_POSITIVE / 8.0, 1e-45, 0.0] {
            let mut residue = vec![0.0; 3];
            let values = [value, -value, value / 3.0];
            let (codes, _) = encoded(Coding::new(codec, 1), &values, Some(&mut residue));
            let found = decoded(codec, &codes, 3);
            for ((&found, &residue), &value) in found.iter().zip(&residue).zip(&values) {
                if codec == Codec::Bf16 && value.abs() == f32::MAX {
                    assert!(found.is_infinite());
                    continue;
                }
                let whole = f64::from(found) + f64::from(residue);
                let error = (whole - f64::from(value)).abs();
                assert!(error <= f64::from(value.abs()) * 1e-6 + 1e-45, "{codec:?} {value:e}: {whole:e}");
            }
        }
    }
}

#[test]
fn lengths_that_disagree_are_refused() {
    for codec in Codec::ALL {
        for len in [0usize, 1, 31, 33, 63, 64, 65, 257] {
            let bytes = codec.encoded_bytes(len);
            let coding = Coding::new(codec, 0);
            let (values, mut sum) = (vec![0.0; len], vec![0; len]);
            assert!(encode(coding, &values, None, &mut vec![0; bytes + 1]).is_err());
            assert!(encode(coding, &values, Some(&mut vec![0.0; len + 1]), &mut vec![0; bytes]).is_err());
            assert!(decode(codec, &vec![0; bytes + 1], &mut vec![0.0; len]).is_err());
            assert!(decode_add(codec, &vec![0; bytes + 1], &mut vec![0.0; len]).is_err());
            assert!(
                decode_slot(codec, &vec![0; bytes + 1], &mut sum.iter().map(|_| 0).collect::<Vec<_>>())
                    .is_err()
            );
            assert!(coded_sum(codec, &[1], &[&vec![0; bytes + 1]], &mut sum).is_err());
            assert!(coded_sum(codec, &[1, 1], &[&vec![0; bytes]], &mut sum).is_err());
            assert!(coded_sum(codec, &[u32::MAX], &[&vec![0; bytes]], &mut sum).is_err());
        }
    }
}

#[test]
fn names_and_numbers_are_one_to_one() {
    for codec in Codec::ALL {
        assert_eq!(Codec::from_id(codec.id()), Some(codec));
        assert_eq!(Codec::ALL.iter().filter(|other| other.name() == codec.name()).count(), 1);
        assert_eq!(Codec::GRAIN_ELEMENTS % codec.block_elements(), 0);
    }
    assert_eq!(Codec::from_id(5), None);
}

fn codec() -> impl Strategy<Value = Codec> {
    (0..Codec::ALL.len()).prop_map(|index| Codec::ALL[index])
}

proptest! {
    #[test]
    fn the_residue_keeps_what_is_not_sent(
        codec in codec(),
        values in prop::collection::vec(-1e6f32..1e6, 0..600),
        scale in -30i32..30,
    ) {
        let factor = 2f32.powi(scale);
        let values: Vec<f32> = values.iter().map(|value| value * factor).collect();
        let mut residue = vec![0.0; values.len()];
        let (codes, finite) = encoded(Coding::new(codec, 4), &values, Some(&mut residue));
        prop_assert!(finite);
        let found = decoded(codec, &codes, values.len());
        for e in 0..values.len() {
            let whole = f64::from(found[e]) + f64::from(residue[e]);
            let error = (whole - f64::from(values[e])).abs();
            // The dither's product may be finer than a float of the residue; all else is exact.
            let int4 = matches!(codec, Codec::Int4By64 | Codec::Int4By128);
            let bound = if int4 { f64::from(residue[e].abs()) * 2f64.powi(-24) } else { 0.0 };
            prop_assert!(error <= bound, "{codec:?} {e}: {error:e}");
        }
        // Adding is decoding and adding.
        let mut sum = values.clone();
        decode_add(codec, &codes, &mut sum).unwrap();
        for e in 0..values.len() {
            prop_assert_eq!(sum[e].to_bits(), (values[e] + found[e]).to_bits());
        }
    }

    #[test]
    fn a_range_is_encoded_as_within_the_whole(codec in codec(), blocks in 0usize..5, rest in 0usize..300) {
        let block = codec.block_elements().max(64);
        let values = gaussian(blocks * block + rest, 6);
        let coding = Coding { codec, seed: 8, first_element: 3 * block as u64 };
        let (whole, _) = encoded(coding, &values, None);
        let (head, tail) = values.split_at(blocks * block);
        let (mut parts, _) = encoded(coding, head, None);
        parts.extend(encoded(coding.at((3 + blocks as u64) * block as u64), tail, None).0);
        prop_assert_eq!(whole, parts);
    }

    #[test]
    fn a_slot_is_off_by_at_most_half_a_step(
        codec in codec(),
        values in prop::collection::vec(-(1 << 30)..1 << 30, 0..600),
        shift in 0i32..30,
    ) {
        let slot: Vec<i32> = values.iter().map(|value| value >> shift).collect();
        let mut codes = vec![1; codec.encoded_bytes(slot.len())];
        encode_slot(Coding::new(codec, 5), &slot, &mut codes).unwrap();
        let mut found = vec![9; slot.len()];
        decode_slot(codec, &codes, &mut found).unwrap();
        for (slot, found) in slot.chunks(codec.block_elements()).zip(found.chunks(codec.block_elements())) {
            let top = slot.iter().map(|q| f64::from(q.unsigned_abs())).fold(0.0, f64::max);
            let step = match codec {
                Codec::Full => 0.0,
                Codec::Bf16 => top / 128.0,
                Codec::Int8 => (top / 127.0).ceil(),
                // Rounded to 8 bits, and the element to a whole number.
                _ => top / 7.5 * (1.0 + 1.0 / 128.0) + 1.0,
            };
            for (&wanted, &found) in slot.iter().zip(found) {
                let error = (f64::from(wanted) - f64::from(found)).abs();
                prop_assert!(error <= step * 0.500_01, "{codec:?}: {error} of {step}");
            }
        }
    }

    #[test]
    fn small_integers_pass_unchanged(values in prop::collection::vec(-7i32..=7, 0..300)) {
        for codec in Codec::ALL {
            let mut codes = vec![0; codec.encoded_bytes(values.len())];
            encode_slot(Coding::new(codec, 5), &values, &mut codes).unwrap();
            let mut found = vec![9; values.len()];
            decode_slot(codec, &codes, &mut found).unwrap();
            prop_assert_eq!(&found, &values, "{:?}", codec);
        }
    }

    #[test]
    fn any_bytes_decode(codec in codec(), bytes in prop::collection::vec(any::<u8>(), 0..900), len in 0usize..600) {
        let bytes = &bytes[..bytes.len().min(codec.encoded_bytes(len))];
        let mut padded = vec![0xff; codec.encoded_bytes(len)];
        padded[..bytes.len()].copy_from_slice(bytes);
        let mut values = vec![0.0; len];
        decode(codec, &padded, &mut values).unwrap();
        decode_add(codec, &padded, &mut values).unwrap();
        let (mut slot, mut sum, mut plain) = (vec![0; len], vec![0; len], vec![0; len]);
        decode_slot(codec, &padded, &mut slot).unwrap();
        let weights = [1 << 30, (1 << 30) - 1];
        coded_sum(codec, &weights, &[&padded, &padded], &mut sum).unwrap();
        slot_sum::<crate::Soft>(&weights, &[&slot, &slot], &mut plain, Store::Cached).unwrap();
        prop_assert_eq!(sum, plain);
    }

    #[test]
    fn any_slot_encodes(values in prop::collection::vec(any::<i32>(), 1..300)) {
        for codec in Codec::ALL {
            let mut codes = vec![0; codec.encoded_bytes(values.len())];
            encode_slot(Coding::new(codec, 5), &values, &mut codes).unwrap();
            let mut found = vec![0; values.len()];
            decode_slot(codec, &codes, &mut found).unwrap();
            // Beyond what a slot may hold the sign stays.
            prop_assert!(values.iter().zip(&found).all(|(a, b)| i64::from(*a) * i64::from(*b) >= 0 || codec != Codec::Int8));
        }
    }
}
