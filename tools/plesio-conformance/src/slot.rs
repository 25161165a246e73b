//! Slots, the master state, and the momentum.

use plesio_kernels::{Device, KernelError, Nesterov, Quantised, Reference, Scale, WEIGHT_ONE};

use crate::Effort;
use crate::values::{Random, floats, integers, lengths, same, same_floats, states, wild};

/// Every operation of `plesio_kernels::slot`, and that of `plesio_kernels::outer`.
pub fn conform<D: Device>(device: D, effort: Effort) {
    sums(device, effort);
    applications(device, effort);
    momenta(device, effort);
    quantisations(device, effort);
    conversions(device, effort);
    merges(device, effort);
    refusals(device);
}

/// Numbers of contributions.
pub(crate) fn counts(effort: Effort) -> &'static [usize] {
    match effort {
        Effort::Short => &[0, 1, 3, 32],
        Effort::Whole => &[0, 1, 2, 3, 5, 8, 16, 31, 32, 33],
    }
}

/// A weight for each of so many contributions.
pub(crate) fn weights(count: usize, seed: u64) -> Vec<u32> {
    let mut random = Random::new(seed);
    (0..count).map(|_| random.below(u64::from(WEIGHT_ONE) * 2) as u32).collect()
}

/// Fraction bits of a slot.
const EXPONENTS: [i8; 6] = [-64, -7, 0, 16, 24, 64];

fn scale(exponent: i8) -> Scale {
    Scale::new(exponent).expect("at most 64 on both sides")
}

fn sums<D: Device>(device: D, effort: Effort) {
    for &len in lengths(effort) {
        for &count in counts(effort) {
            let slots: Vec<Vec<i32>> = (0..count).map(|slot| integers(len, slot as u64 + 1)).collect();
            let slots: Vec<&[i32]> = slots.iter().map(Vec::as_slice).collect();
            let weights = weights(count, len as u64);
            let what = format!("slot_sum of {count} by {len}");
            let (mut found, mut expected) = (vec![-1; len], vec![-1; len]);
            assert_eq!(
                device.slot_sum(&weights, &slots, &mut found),
                Reference.slot_sum(&weights, &slots, &mut expected),
                "{what}"
            );
            same(&what, device, &found, &expected);

            let what = format!("commit of {count} by {len}");
            let (mut found, mut expected) = (states(len, 9), states(len, 9));
            assert_eq!(
                device.commit(&weights, &slots, &mut found),
                Reference.commit(&weights, &slots, &mut expected),
                "{what}"
            );
            same(&what, device, &found, &expected);
        }
    }
}

fn applications<D: Device>(device: D, effort: Effort) {
    for &len in lengths(effort) {
        for seed in 1..4 {
            let sum = states(len, seed);
            let what = format!("apply of {len}, seed {seed}");
            let (mut found, mut expected) = (states(len, seed + 7), states(len, seed + 7));
            assert_eq!(device.apply(&mut found, &sum), Reference.apply(&mut expected, &sum), "{what}");
            same(&what, device, &found, &expected);
        }
    }
}

fn momenta<D: Device>(device: D, effort: Effort) {
    const EXTREMES: [i64; 13] = [
        i64::MIN,
        i64::MIN + 1,
        -65_537,
        -65_536,
        -65_535,
        -1,
        0,
        1,
        65_535,
        65_536,
        1 << 62,
        i64::MAX - 1,
        i64::MAX,
    ];
    let of = |pick: fn(usize) -> usize| -> Vec<i64> {
        (0..EXTREMES.len().pow(3)).map(|index| EXTREMES[pick(index) % EXTREMES.len()]).collect()
    };
    let mut cases = vec![(of(|index| index), of(|index| index / 13), of(|index| index / 169))];
    cases.extend(lengths(effort).iter().map(|&len| (states(len, 1), states(len, 2), states(len, 3))));
    // Nothing saturates.
    let small = |seed| states(777, seed).iter().map(|state| state >> 3).collect();
    cases.push((small(4), small(5), small(6)));
    for (mu, eta) in [(58_982, 13_107), (65_535, 65_536), (0, 65_536), (1, 1), (32_768, 3)] {
        let factors = Nesterov::new(mu, eta).expect("factors in their range");
        for (master, momentum, sum) in &cases {
            let what = format!("apply_nesterov of {}, {factors:?}", sum.len());
            let (mut found, mut found_momentum) = (master.clone(), momentum.clone());
            let (mut expected, mut expected_momentum) = (master.clone(), momentum.clone());
            assert_eq!(
                device.apply_nesterov(factors, &mut found, &mut found_momentum, sum),
                Reference.apply_nesterov(factors, &mut expected, &mut expected_momentum, sum),
                "{what}"
            );
            same(&what, device, &found, &expected);
            same(&format!("{what}: momentum"), device, &found_momentum, &expected_momentum);
        }
    }
}

/// Finite values with those among them that round, clamp and vanish at this many fraction bits.
fn quantisable(len: usize, exponent: i8, seed: u64) -> Vec<f32> {
    let unit = 2f64.powi(-i32::from(exponent));
    let limit = 2f64.powi(30) * unit;
    let marked = [
        0.5 * unit,
        1.5 * unit,
        -2.5 * unit,
        limit,
        -limit,
        limit * (1.0 - 1e-7),
        -limit * (1.0 + 2e-7),
        3.3 * limit,
        -1e9 * limit,
        0.0,
        -0.0,
        1e-44,
        -3e-42,
    ];
    let mut random = Random::new(seed);
    let mut values = floats(len, seed + 1);
    for value in &mut values {
        match random.below(4) {
            0 => *value = marked[random.below(marked.len() as u64) as usize] as f32,
            1 => *value *= (limit * 2f64.powi(-(random.below(60) as i32))) as f32,
            _ => {}
        }
        if !value.is_finite() {
            *value = f32::MAX;
        }
    }
    values
}

fn quantisations<D: Device>(device: D, effort: Effort) {
    for &len in lengths(effort) {
        for exponent in EXPONENTS {
            for (kind, update, residue) in [
                ("ordinary", floats(len, 1), floats(len, 2)),
                ("marked", quantisable(len, exponent, 3), vec![-0.0; len]),
                ("twice marked", quantisable(len, exponent, 4), quantisable(len, exponent, 5)),
                ("wild", floats(len, 6), wild(len, 7)),
            ] {
                quantise(device, &format!("{kind} {len} at {exponent}"), &update, &residue, scale(exponent));
            }
        }
        // The first of several is told, wherever it is.
        for at in (0..len).step_by(len / 3 + 1) {
            let mut update = floats(len, 8);
            update[at..].fill(f32::NAN);
            quantise(device, &format!("{len}, not finite from {at}"), &update, &vec![0.0; len], scale(24));
        }
    }
}

fn quantise<D: Device>(device: D, what: &str, update: &[f32], residue: &[f32], scale: Scale) {
    type Call<'c> = &'c dyn Fn(&mut [f32], &mut [i32]) -> Result<Quantised, KernelError>;
    let len = update.len();
    let run = |call: Call<'_>| {
        let (mut rest, mut slot) = (residue.to_vec(), vec![-7; len]);
        let result = call(&mut rest, &mut slot);
        (result, rest, slot)
    };
    let check = |what: &str, found: (_, Vec<f32>, Vec<i32>), expected: (_, Vec<f32>, Vec<i32>)| {
        assert_eq!(found.0, expected.0, "{what} on {}", device.name());
        same_floats(&format!("{what}: residue"), device, &found.1, &expected.1);
        same(what, device, &found.2, &expected.2);
    };
    check(
        &format!("quantise, {what}"),
        run(&|rest, slot| device.quantise(update, rest, scale, slot)),
        run(&|rest, slot| Reference.quantise(update, rest, scale, slot)),
    );
    check(
        &format!("quantise_residue, {what}"),
        run(&|rest, slot| device.quantise_residue(rest, scale, slot)),
        run(&|rest, slot| Reference.quantise_residue(rest, scale, slot)),
    );
}

fn conversions<D: Device>(device: D, effort: Effort) {
    for &len in lengths(effort) {
        for exponent in EXPONENTS {
            let (slot, scale) = (integers(len, 1), scale(exponent));
            let (mut found, mut expected) = (vec![7.0; len], vec![9.0; len]);
            assert_eq!(device.dequantise(&slot, scale, &mut found), Ok(()));
            Reference.dequantise(&slot, scale, &mut expected).expect("the same lengths");
            same_floats(&format!("dequantise of {len} at {exponent}"), device, &found, &expected);

            let mut master = states(len, 2);
            for (index, master) in master.iter_mut().enumerate() {
                // Between two floats but for a little that a double does not see, and where doubles begin to round.
                match index % 5 {
                    0 => *master = (1 << 62 | 1 << 38 | (index as i64 & 1023)) * (1 - 2 * (index as i64 & 1)),
                    1 => *master = (1 << 53) - 2 + index as i64 % 4,
                    2 => *master = -(1 << 53) - 2 + index as i64 % 4,
                    _ => {}
                }
            }
            assert_eq!(device.to_float(&master, scale, &mut found), Ok(()));
            Reference.to_float(&master, scale, &mut expected).expect("the same lengths");
            same_floats(&format!("to_float of {len} at {exponent}"), device, &found, &expected);
        }
    }
}

fn merges<D: Device>(device: D, effort: Effort) {
    for &len in lengths(effort) {
        for exponent in EXPONENTS {
            let (from, scale) = (integers(len, 1), scale(exponent));
            let what = format!("merge of {len} at {exponent}");
            let (mut found, mut found_residue) = (integers(len, 2), wild(len, 3));
            let (mut expected, mut expected_residue) = (found.clone(), found_residue.clone());
            assert_eq!(
                device.merge(&mut found, &from, scale, &mut found_residue),
                Reference.merge(&mut expected, &from, scale, &mut expected_residue),
                "{what}"
            );
            same(&what, device, &found, &expected);
            same_floats(&format!("{what}: residue"), device, &found_residue, &expected_residue);
        }
    }
}

/// Whether a call was refused for a length.
pub(crate) fn is_length<T>(result: Result<T, KernelError>, expected: &'static str) -> bool {
    matches!(result, Err(KernelError::Length { what, .. }) if what == expected)
}

fn refusals<D: Device>(device: D) {
    let (slot, scale) = ([1, 2, 3], Scale::DEFAULT);
    let mut sum = [0; 3];
    let heavy = [u32::MAX, 1];
    assert!(matches!(device.slot_sum(&heavy, &[&slot, &slot], &mut sum), Err(KernelError::Weights { .. })));
    assert!(is_length(device.slot_sum(&[1], &[&slot[..2]], &mut sum), "slot"));
    assert!(is_length(device.commit(&[1, 1], &[&slot], &mut sum), "slots"));
    assert!(is_length(device.apply(&mut sum, &[1]), "sum"));
    let mut momentum = [0; 3];
    let tuned = Nesterov::TUNED;
    assert!(is_length(device.apply_nesterov(tuned, &mut sum, &mut momentum[..2], &[1; 3]), "momentum"));
    assert!(is_length(device.apply_nesterov(tuned, &mut sum, &mut momentum, &[1; 4]), "sum"));
    assert_eq!((sum, momentum), ([0; 3], [0; 3]), "a refused call writes nothing");

    let (mut residue, mut out, mut into) = ([0.5; 3], [0.5; 3], [7; 3]);
    assert!(is_length(device.quantise(&[1.0; 2], &mut residue, scale, &mut into[..2]), "residue"));
    assert!(is_length(device.quantise(&[1.0; 3], &mut residue, scale, &mut into[..2]), "slot"));
    assert!(is_length(device.quantise_residue(&mut residue, scale, &mut into[..2]), "slot"));
    assert!(is_length(device.dequantise(&slot, scale, &mut out[..2]), "out"));
    assert!(is_length(device.to_float(&[1; 4], scale, &mut out), "out"));
    assert!(is_length(device.merge(&mut into, &slot[..2], scale, &mut residue), "from"));
    assert!(is_length(device.merge(&mut into, &slot, scale, &mut residue[..2]), "residue"));
    assert_eq!((residue, out, into), ([0.5; 3], [0.5; 3], [7; 3]), "a refused call writes nothing");
}
