//! Every instruction set of this machine against the scalar reference, bit for bit: what accelerators leave to the CPU,
//! and sizes that are the CPU's own. What all devices do, `plesio-tests` checks at every level.
//!
//! Lengths are odd on purpose; values cross NaN, infinities and subnormals. A NaN equals a NaN whatever its
//! payload: the hardware and the software keep different ones.

use plesio_cpu::{Cpu, Level};
use plesio_kernels::{Adapter, Device, Mat, MatMut, NO_ADAPTER, Reference, Rope, bf16};

#[path = "bits/past.rs"]
mod past;
#[path = "bits/threads.rs"]
mod threads;

/// A call of a norm and its derivative on one device: y, inv_rms, dx, dgain.
type NormCall<'c> = &'c dyn Fn(&mut [f32], &mut [f32], &mut [f32], &mut [f32]);

/// Lengths around every block the kernels work in.
const LENGTHS: [usize; 14] = [0, 1, 2, 15, 16, 17, 31, 63, 64, 65, 127, 130, 1023, 1025];

/// Calls a check with every level that this machine has.
fn each_level(check: impl Fn(Cpu)) {
    let levels = Level::ALL.into_iter().filter_map(Cpu::with_level);
    assert!(levels.inspect(|&cpu| check(cpu)).count() > 0);
}

/// Values of every size, reproducible.
fn floats(len: usize, seed: u64) -> Vec<f32> {
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
    let mut values = floats(len, seed);
    for (index, value) in values.iter_mut().enumerate() {
        if (index as u64 * 7 + seed).is_multiple_of(11) {
            *value = EXTREMES[(index + seed as usize) % EXTREMES.len()];
        }
    }
    values
}

#[track_caller]
fn same_floats(what: &str, cpu: Cpu, found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (element, (&found, &expected)) in found.iter().zip(expected).enumerate() {
        let equal = found.to_bits() == expected.to_bits() || (found.is_nan() && expected.is_nan());
        assert!(equal, "{what} on {}: element {element} is {found:e}, not {expected:e}", cpu.name());
    }
}

/// [`floats`] in bfloat16.
fn halves(len: usize, seed: u64) -> Vec<u16> {
    floats(len, seed).into_iter().map(bf16::narrow).collect()
}

/// Lists as calls take them.
fn views<T>(lists: &[Vec<T>]) -> Vec<&[T]> {
    lists.iter().map(Vec::as_slice).collect()
}

#[test]
fn vectors_have_the_references_bits() {
    each_level(|cpu| {
        for len in LENGTHS {
            for make in [floats as fn(usize, u64) -> Vec<f32>, wild] {
                let (x, y) = (make(len, 1), make(len, 2));
                same_floats("dot", cpu, &[cpu.dot(&x, &y)], &[Reference.dot(&x, &y)]);
                let (mut found, mut expected) = (y.clone(), y.clone());
                cpu.axpy(0.3, &x, &mut found);
                Reference.axpy(0.3, &x, &mut expected);
                same_floats("axpy", cpu, &found, &expected);
                cpu.scale(1e-30, &mut found);
                Reference.scale(1e-30, &mut expected);
                same_floats("scale", cpu, &found, &expected);
            }
        }
    });
}

#[test]
fn the_networks_rows_have_the_references_bits() {
    each_level(|cpu| {
        for (width, rows) in [(1, 3), (17, 5), (64, 2), (130, 3)] {
            let (x, dy, gain) = (floats(rows * width, 3), floats(rows * width, 4), floats(width, 5));
            let run = |device: NormCall<'_>| {
                let (mut y, mut inv) = (vec![0.0; rows * width], vec![0.0; rows]);
                let (mut dx, mut dgain) = (floats(rows * width, 6), floats(width, 7));
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
            same_floats("rms_norm", cpu, &found, &expected);

            let (gate_up, dout) = (wild(2 * rows * width, 8), floats(rows * width, 9));
            let (mut found, mut expected) = (vec![0.0; rows * width], vec![0.0; rows * width]);
            cpu.swiglu(&gate_up, width, &mut found);
            Reference.swiglu(&gate_up, width, &mut expected);
            same_floats("swiglu", cpu, &found, &expected);
            let (mut found, mut expected) = (vec![0.0; 2 * rows * width], vec![0.0; 2 * rows * width]);
            cpu.swiglu_backward(&gate_up, &dout, width, &mut found);
            Reference.swiglu_backward(&gate_up, &dout, width, &mut expected);
            same_floats("swiglu_backward", cpu, &found, &expected);
        }
    });
}

#[test]
fn attention_rows_have_the_references_bits() {
    each_level(|cpu| {
        for len in [1, 2, 15, 16, 17, 65] {
            let scores = floats(2 * len * len, 11);
            let (mut found, mut expected) = (scores.clone(), scores);
            cpu.softmax_causal(&mut found, len, 0.37);
            Reference.softmax_causal(&mut expected, len, 0.37);
            same_floats("softmax_causal", cpu, &found, &expected);
            for (row, weights) in expected.chunks(len).enumerate() {
                let total: f32 = weights.iter().sum();
                assert!((total - 1.0).abs() < 1e-5, "row {row} sums to {total}");
                assert!(weights[row % len + 1..].iter().all(|&weight| weight == 0.0));
            }
            let gradient = floats(2 * len * len, 12);
            let (mut dfound, mut dexpected) = (gradient.clone(), gradient);
            cpu.softmax_causal_backward(&found, &mut dfound, len, 0.37);
            Reference.softmax_causal_backward(&expected, &mut dexpected, len, 0.37);
            same_floats("softmax_causal_backward", cpu, &dfound, &dexpected);
        }
        let (width, heads, half) = (50, 3, 7);
        let (cos, sin) = (floats(4 * half, 13), floats(4 * half, 14));
        let rope = Rope { cos: &cos, sin: &sin, half };
        for inverse in [false, true] {
            let rows = wild(9 * width, 15);
            let (mut found, mut expected) = (rows.clone(), rows);
            cpu.rotate(&mut found, width, heads, rope, inverse);
            Reference.rotate(&mut expected, width, heads, rope, inverse);
            same_floats("rotate", cpu, &found, &expected);
        }
        let logits = floats(5 * 256, 16);
        let (mut found, mut expected) = (logits.clone(), logits);
        let targets = [0, 255, 7, 7, 100];
        let loss = cpu.cross_entropy(&mut found, &targets, 0.2);
        assert_eq!(loss.to_bits(), Reference.cross_entropy(&mut expected, &targets, 0.2).to_bits());
        same_floats("cross_entropy", cpu, &found, &expected);
        let mut spent = floats(5 * 256, 16);
        assert_eq!(cpu.cross_entropy_loss(&mut spent, &targets).to_bits(), loss.to_bits());
    });
}

#[test]
fn products_agree_with_the_plain_loop() {
    let cpu = Cpu::detect();
    for (m, n, k) in [(1, 1, 1), (3, 5, 7), (17, 33, 65), (64, 8, 352), (5, 4, 0), (0, 3, 2)] {
        for accumulate in [false, true] {
            for (a_turned, b_turned) in [(false, false), (true, false), (false, true), (true, true)] {
                let (a, b) = (floats(m * k, 61), floats(k * n, 62));
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
                let start = floats(m * stride, 63);
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

#[test]
fn long_runs_of_one_adapter_have_the_references_bits() {
    let (d_in, d_out, ranks) = (130, 1100, [7, 64, 2]);
    let factors = ranks.map(|rank| (halves(rank * d_in, 1), halves(rank * d_out, 2)));
    let adapters: Vec<Adapter<'_>> = ranks
        .iter()
        .zip(&factors)
        .map(|(&rank, (a, b))| Adapter::new(a, b, rank, d_in, d_out, 0.3).expect("the shapes fit"))
        .collect();
    let which = [vec![1; 33], vec![0; 16], vec![NO_ADAPTER; 3], vec![0, 2, 2, 2]].concat();
    let (x, start) = (halves(which.len() * d_in, 3), halves(which.len() * d_out, 4));
    let mut expected = start.clone();
    Reference.lora_grouped(&adapters, &which, &x, &mut expected).expect("the lengths fit");
    each_level(|cpu| {
        let mut found = start.clone();
        cpu.lora_grouped(&adapters, &which, &x, &mut found).expect("the lengths fit");
        assert!(found == expected, "lora_grouped on {}", cpu.name());
    });
}
