//! Every instruction set of this machine against the scalar reference, bit for bit.
//!
//! Lengths are odd on purpose; values cross NaN, infinities and subnormals. A NaN equals a NaN whatever its
//! payload: the hardware and the software keep different ones.

use plesio_cpu::{Cpu, Level};
use plesio_kernels::lora::Gradients;
use plesio_kernels::{
    AdamW, AdamWState, Codec, Coding, Device, Lora, Mat, MatMut, Nesterov, Reference, Rope, Scale,
};

/// A call of a norm and its derivative on one device: y, inv_rms, dx, dgain.
type NormCall<'c> = &'c dyn Fn(&mut [f32], &mut [f32], &mut [f32], &mut [f32]);

/// Lengths around every block the kernels work in.
const LENGTHS: [usize; 14] = [0, 1, 2, 15, 16, 17, 31, 63, 64, 65, 127, 130, 1023, 1025];

/// Calls a check with every level that this machine has.
fn each_level(check: impl Fn(Cpu)) {
    let mut checked = 0;
    for level in Level::ALL {
        match Cpu::with_level(level) {
            Some(cpu) => {
                check(cpu);
                checked += 1;
            }
            None => eprintln!("skipped: this machine has no {level}"),
        }
    }
    assert!(checked > 0);
}

/// Values of every size, reproducible.
fn values(len: usize, seed: u64) -> Vec<f32> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    (0..len)
        .map(|_| {
            let unit = (next() >> 40) as f32 / 8_388_608.0 - 1.0;
            unit * 2f32.powi((next() % 12) as i32 - 6)
        })
        .collect()
}

/// The same with the floats that catch mistakes.
fn wild(len: usize, seed: u64) -> Vec<f32> {
    const EXTREMES: [f32; 10] = [
        f32::NAN,
        f32::INFINITY,
        f32::NEG_INFINITY,
        0.0,
        -0.0,
        f32::MIN_POSITIVE / 8.0,
        -1e-44,
        f32::MAX,
        f32::MIN,
        f32::EPSILON,
    ];
    let mut values = values(len, seed);
    for (index, value) in values.iter_mut().enumerate() {
        if (index as u64 * 7 + seed).is_multiple_of(11) {
            *value = EXTREMES[(index + seed as usize) % EXTREMES.len()];
        }
    }
    values
}

#[track_caller]
fn same(what: &str, cpu: Cpu, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (element, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let equal = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
        assert!(equal, "{what} on {}: element {element} is {found:e}, not {expected:e}", cpu.name());
    }
}

#[test]
fn vectors_have_the_references_bits() {
    each_level(|cpu| {
        for len in LENGTHS {
            for make in [values, wild] {
                let (x, y) = (make(len, 1), make(len, 2));
                same("dot", cpu, &[cpu.dot(&x, &y)], &[Reference.dot(&x, &y)]);
                let (mut found, mut expected) = (y.clone(), y.clone());
                cpu.axpy(0.3, &x, &mut found);
                Reference.axpy(0.3, &x, &mut expected);
                same("axpy", cpu, &found, &expected);
                cpu.scale(1e-30, &mut found);
                Reference.scale(1e-30, &mut expected);
                same("scale", cpu, &found, &expected);
            }
        }
    });
}

#[test]
fn the_networks_rows_have_the_references_bits() {
    each_level(|cpu| {
        for (width, rows) in [(1, 3), (17, 5), (64, 2), (130, 3)] {
            let (x, dy, gain) = (values(rows * width, 3), values(rows * width, 4), values(width, 5));
            let run = |device: NormCall<'_>| {
                let (mut y, mut inv) = (vec![0.0; rows * width], vec![0.0; rows]);
                let (mut dx, mut dgain) = (values(rows * width, 6), values(width, 7));
                device(&mut y, &mut inv, &mut dx, &mut dgain);
                [y, inv, dx, dgain].concat()
            };
            let found = run(&|y, inv, dx, dgain| {
                cpu.rms_norm(&x, &gain, 1e-5, y, inv);
                cpu.rms_norm_backward(&x, &gain, inv, &dy, dx, Some(dgain), &mut vec![0.0; width]);
            });
            let expected = run(&|y, inv, dx, dgain| {
                Reference.rms_norm(&x, &gain, 1e-5, y, inv);
                Reference.rms_norm_backward(&x, &gain, inv, &dy, dx, Some(dgain), &mut vec![0.0; width]);
            });
            same("rms_norm", cpu, &found, &expected);

            let (gate_up, dout) = (wild(2 * rows * width, 8), values(rows * width, 9));
            let (mut found, mut expected) = (vec![0.0; rows * width], vec![0.0; rows * width]);
            cpu.swiglu(&gate_up, width, &mut found);
            Reference.swiglu(&gate_up, width, &mut expected);
            same("swiglu", cpu, &found, &expected);
            let (mut found, mut expected) = (vec![0.0; 2 * rows * width], vec![0.0; 2 * rows * width]);
            cpu.swiglu_backward(&gate_up, &dout, width, &mut found);
            Reference.swiglu_backward(&gate_up, &dout, width, &mut expected);
            same("swiglu_backward", cpu, &found, &expected);
        }
    });
}

#[test]
fn attention_rows_have_the_references_bits() {
    each_level(|cpu| {
        for len in [1, 2, 15, 16, 17, 65] {
            let scores = values(2 * len * len, 11);
            let (mut found, mut expected) = (scores.clone(), scores);
            cpu.softmax_causal(&mut found, len, 0.37);
            Reference.softmax_causal(&mut expected, len, 0.37);
            same("softmax_causal", cpu, &found, &expected);
            for (row, weights) in expected.chunks(len).enumerate() {
                let total: f32 = weights.iter().sum();
                assert!((total - 1.0).abs() < 1e-5, "row {row} sums to {total}");
                assert!(weights[row % len + 1..].iter().all(|&weight| weight == 0.0));
            }
            let gradient = values(2 * len * len, 12);
            let (mut dfound, mut dexpected) = (gradient.clone(), gradient);
            cpu.softmax_causal_backward(&found, &mut dfound, len, 0.37);
            Reference.softmax_causal_backward(&expected, &mut dexpected, len, 0.37);
            same("softmax_causal_backward", cpu, &dfound, &dexpected);
        }
        let (width, heads, half) = (50, 3, 7);
        let (cos, sin) = (values(4 * half, 13), values(4 * half, 14));
        let rope = Rope { cos: &cos, sin: &sin, half };
        for inverse in [false, true] {
            let rows = wild(9 * width, 15);
            let (mut found, mut expected) = (rows.clone(), rows);
            cpu.rotate(&mut found, width, heads, rope, inverse);
            Reference.rotate(&mut expected, width, heads, rope, inverse);
            same("rotate", cpu, &found, &expected);
        }
        let logits = values(5 * 256, 16);
        let (mut found, mut expected) = (logits.clone(), logits);
        let targets = [0, 255, 7, 7, 100];
        let loss = cpu.cross_entropy(&mut found, &targets, 0.2);
        assert_eq!(loss.to_bits(), Reference.cross_entropy(&mut expected, &targets, 0.2).to_bits());
        same("cross_entropy", cpu, &found, &expected);
        let mut spent = values(5 * 256, 16);
        assert_eq!(cpu.cross_entropy_loss(&mut spent, &targets).to_bits(), loss.to_bits());
    });
}

#[test]
fn adapters_have_the_references_bits() {
    each_level(|cpu| {
        let shapes = [
            (1, 1, 1, 1),
            (7, 5, 2, 3),
            (64, 65, 1, 4),
            (130, 129, 2, 33),
            (128, 352, 8, 9),
            (70, 66, 64, 2),
        ];
        for (d_in, d_out, rank, rows) in shapes {
            let (a, b) = (values(rank * d_in, 21), values(rank * d_out, 22));
            let (x, g) = (values(rows * d_in, 23), values(rows * d_out, 24));
            let lora = Lora::new(&a, &b, rank, d_in, d_out, 0.7).expect("the shapes fit");
            let run = |forward: &dyn Fn(&mut [f32], &mut [f32]),
                       backward: &dyn Fn(&mut [f32], Gradients<'_>)| {
                let (mut h, mut y) = (vec![0.0; rows * rank], values(rows * d_out, 25));
                forward(&mut h, &mut y);
                let forward_h = h.clone();
                let (mut da, mut db, mut dx) =
                    (values(a.len(), 26), values(b.len(), 27), values(rows * d_in, 28));
                backward(&mut h, Gradients { a: &mut da, b: &mut db, x: Some(&mut dx) });
                [forward_h, y, h, da, db, dx]
            };
            let found =
                run(&|h, y| cpu.lora_forward(lora, &x, h, y).expect("the lengths fit"), &|h, gradients| {
                    cpu.lora_backward(lora, &x, &g, h, gradients).expect("the lengths fit")
                });
            let expected = run(
                &|h, y| Reference.lora_forward(lora, &x, h, y).expect("the lengths fit"),
                &|h, gradients| Reference.lora_backward(lora, &x, &g, h, gradients).expect("the lengths fit"),
            );
            for (what, (found, expected)) in
                ["h", "y", "back", "dA", "dB", "dx"].into_iter().zip(found.iter().zip(&expected))
            {
                same(&format!("lora {what} {d_in}x{d_out} r{rank}"), cpu, found, expected);
            }
            let weights = values(d_in * d_out, 29);
            let (mut found, mut expected) = (vec![0.0; d_in * d_out], vec![0.0; d_in * d_out]);
            cpu.lora_fold(lora, &weights, &mut found).expect("the lengths fit");
            Reference.lora_fold(lora, &weights, &mut expected).expect("the lengths fit");
            same("lora_fold", cpu, &found, &expected);
        }
    });
}

#[test]
fn the_optimiser_has_the_references_bits() {
    each_level(|cpu| {
        for len in LENGTHS {
            let gradient = wild(len, 31);
            let run = |device: &dyn Fn(AdamWState<'_>, &mut [f32])| {
                let (mut params, mut mean) = (values(len, 32), values(len, 33));
                let mut variance: Vec<f32> = values(len, 34).iter().map(|v| v.abs()).collect();
                device(AdamWState { mean: &mut mean, variance: &mut variance, step: 3 }, &mut params);
                [params, mean, variance].concat()
            };
            let settings = AdamW { weight_decay: 0.1, ..AdamW::default() };
            let found = run(&|state, params| cpu.adamw(settings, state, 0.5, &gradient, params));
            let expected = run(&|state, params| Reference.adamw(settings, state, 0.5, &gradient, params));
            same("adamw", cpu, &found, &expected);
        }
    });
}

#[test]
fn slots_and_the_master_have_the_references_bits() {
    let scale = Scale::DEFAULT;
    each_level(|cpu| {
        for len in LENGTHS {
            for make in [values, wild] {
                let (update, residue) = (make(len, 41), values(len, 42));
                let (mut found, mut expected) = (residue.clone(), residue.clone());
                let (mut slot_found, mut slot_expected) = (vec![3; len], vec![3; len]);
                assert_eq!(
                    cpu.quantise(&update, &mut found, scale, &mut slot_found),
                    Reference.quantise(&update, &mut expected, scale, &mut slot_expected)
                );
                same("quantise", cpu, &found, &expected);
                assert_eq!(slot_found, slot_expected);
                let (mut found, mut expected) = (update.clone(), update);
                assert_eq!(
                    cpu.quantise_residue(&mut found, scale, &mut slot_found),
                    Reference.quantise_residue(&mut expected, scale, &mut slot_expected)
                );
                same("quantise_residue", cpu, &found, &expected);
                assert_eq!(slot_found, slot_expected);
            }
            let slots: Vec<Vec<i32>> = (0..5)
                .map(|slot| values(len, 50 + slot).iter().map(|v| (v * 3e7) as i32).collect())
                .collect();
            let views: Vec<&[i32]> = slots.iter().map(Vec::as_slice).collect();
            let weights = [1 << 24, 5, 0, 77_777, (1 << 22) + 1];
            let (mut found, mut expected) = (vec![1; len], vec![2; len]);
            assert_eq!(
                cpu.slot_sum(&weights, &views, &mut found),
                Reference.slot_sum(&weights, &views, &mut expected)
            );
            assert_eq!(found, expected);
            let start: Vec<i64> =
                (0..len as i64).map(|e| if e % 9 == 8 { i64::MAX - e } else { e << 40 }).collect();
            let (mut found, mut expected) = (start.clone(), start);
            assert_eq!(
                cpu.commit(&weights, &views, &mut found),
                Reference.commit(&weights, &views, &mut expected)
            );
            assert_eq!(found, expected);
            let sum: Vec<i64> = (0..len as i64).map(|e| e * 1_000_003 - 5_000_000).collect();
            assert_eq!(cpu.apply(&mut found, &sum), Reference.apply(&mut expected, &sum));
            assert_eq!(found, expected);
            let (mut real_found, mut real_expected) = (vec![0.0; len], vec![0.0; len]);
            assert_eq!(
                cpu.to_float(&found, scale, &mut real_found),
                Reference.to_float(&expected, scale, &mut real_expected)
            );
            same("to_float", cpu, &real_found, &real_expected);
            assert_eq!(
                cpu.dequantise(&slots[0], scale, &mut real_found),
                Reference.dequantise(&slots[0], scale, &mut real_expected)
            );
            same("dequantise", cpu, &real_found, &real_expected);
            let (mut into_found, mut into_expected) = (slots[1].clone(), slots[1].clone());
            assert_eq!(
                cpu.merge(&mut into_found, &slots[2], scale, &mut real_found),
                Reference.merge(&mut into_expected, &slots[2], scale, &mut real_expected)
            );
            assert_eq!(into_found, into_expected);
            same("merge", cpu, &real_found, &real_expected);
        }
    });
}

#[test]
fn the_outer_step_has_the_references_bits() {
    // Values of every size, and those that leave 64 bits.
    let integers = |len: usize, seed: u64| -> Vec<i64> {
        let mut state = seed | 1;
        let extremes = [i64::MAX, i64::MIN, 0, -1, 1, i64::MAX - 1, i64::MIN + 1];
        let next = |element: usize| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if state.is_multiple_of(13) { extremes[element % 7] } else { (state as i64) >> (state >> 58) }
        };
        (0..len).map(next).collect()
    };
    each_level(|cpu| {
        for len in LENGTHS {
            for (mu16, eta16) in [(58_982, 13_107), (65_535, 65_536), (0, 65_536), (1, 1)] {
                let factors = Nesterov::new(mu16, eta16).expect("in range");
                let (mut found, mut found_v) = (integers(len, 3), integers(len, 5));
                let (mut expected, mut expected_v) = (found.clone(), found_v.clone());
                for turn in 0..3 {
                    let sum = integers(len, 7 + turn);
                    assert_eq!(
                        cpu.apply_nesterov(factors, &mut found, &mut found_v, &sum),
                        Reference.apply_nesterov(factors, &mut expected, &mut expected_v, &sum),
                        "{} at {len}",
                        cpu.name()
                    );
                }
                assert_eq!((found, found_v), (expected, expected_v), "{} at {len}", cpu.name());
            }
        }
    });
}

/// Lengths around the blocks of the codecs.
const BLOCKS: [usize; 12] = [0, 1, 31, 32, 33, 63, 65, 129, 255, 257, 300, 1025];

/// Whatever the codecs of a device write.
#[derive(Default)]
struct Coded {
    reals: Vec<f32>,
    codes: Vec<Vec<u8>>,
    integers: Vec<i64>,
    verdicts: Vec<bool>,
}

/// Every codec call of a device.
fn coded(device: impl Device, coding: Coding, input: &[f32], start: &[f32]) -> Coded {
    let (len, bytes) = (input.len(), coding.codec.encoded_bytes(input.len()));
    let (mut done, why) = (Coded::default(), "the lengths fit");
    let (mut residue, mut kept, mut dropped) = (start.to_vec(), vec![1; bytes], vec![2; bytes]);
    done.verdicts.push(device.encode(coding, input, Some(&mut residue), &mut kept).expect(why).finite);
    done.verdicts.push(device.encode(coding, input, None, &mut dropped).expect(why).finite);
    done.reals.extend(residue);
    let noise: Vec<u8> = values(bytes, 73).iter().map(|v| (v * 1e4) as i64 as u8).collect();
    for codes in [&kept, &dropped, &noise] {
        let mut reals = start.to_vec();
        device.decode_add(coding.codec, codes, &mut reals).expect(why);
        done.reals.extend(&reals);
        device.decode(coding.codec, codes, &mut reals).expect(why);
        done.reals.extend(&reals);
        let mut slot = vec![1; len];
        device.decode_slot(coding.codec, codes, &mut slot).expect(why);
        done.integers.extend(slot.into_iter().map(i64::from));
    }
    let mut sum = vec![1; len];
    let slots: [&[u8]; 3] = [&kept, &dropped, &noise];
    device.coded_sum(coding.codec, &[5, 1 << 24, 77], &slots, &mut sum).expect(why);
    done.integers.extend(sum);
    let slot: Vec<i32> = input.iter().map(|v| (v * 3e7) as i32).collect();
    let mut coded = vec![5; bytes];
    device.encode_slot(coding, &slot, &mut coded).expect(why);
    done.codes = vec![kept, dropped, coded];
    done
}

#[test]
fn codecs_have_the_references_bits() {
    each_level(|cpu| {
        for codec in Codec::ALL {
            for len in BLOCKS {
                for input in [values(len, 71), wild(len, 71)] {
                    let coding = Coding { codec, seed: 99, first_element: 1024 };
                    let found = coded(cpu, coding, &input, &values(len, 72));
                    let expected = coded(Reference, coding, &input, &values(len, 72));
                    same(codec.name(), cpu, &found.reals, &expected.reals);
                    assert_eq!(found.codes, expected.codes, "{codec:?} on {}", cpu.name());
                    assert_eq!(found.integers, expected.integers, "{codec:?} on {}", cpu.name());
                    assert_eq!(found.verdicts, expected.verdicts, "{codec:?} on {}", cpu.name());
                }
            }
        }
    });
}

#[test]
fn products_agree_with_the_plain_loop() {
    let cpu = Cpu::detect();
    for (m, n, k) in [(1, 1, 1), (3, 5, 7), (17, 33, 65), (64, 8, 352), (5, 4, 0), (0, 3, 2)] {
        for accumulate in [false, true] {
            for (a_turned, b_turned) in [(false, false), (true, false), (false, true), (true, true)] {
                let (a, b) = (values(m * k, 61), values(k * n, 62));
                let mat = |data, rows, cols, turned| {
                    if turned {
                        Mat::dense(data, cols, rows).transposed()
                    } else {
                        Mat::dense(data, rows, cols)
                    }
                };
                let (a, b) = (mat(&a, m, k, a_turned), mat(&b, k, n, b_turned));
                // Two unused columns at the end of each row must stay as they are.
                let stride = n + 2;
                let start = values(m * stride, 63);
                let (mut found, mut expected) = (start.clone(), start);
                cpu.matmul(MatMut::new(&mut found, m, n, stride), a, b, accumulate);
                Reference.matmul(MatMut::new(&mut expected, m, n, stride), a, b, accumulate);
                for (index, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    if index % stride >= n {
                        assert_eq!(found, expected);
                    }
                    let error = (found - expected).abs();
                    assert!(error < 1e-3 * (1.0 + expected.abs()), "{m}x{n}x{k}: {found} against {expected}");
                }
            }
        }
    }
}
