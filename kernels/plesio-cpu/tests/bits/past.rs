//! Results that are too large for the caches and go past them: the bits of those that do not.

use super::{each_level, floats, halves, same_floats, views, wild};
use plesio_cpu::Cpu;
use plesio_kernels::norm::CHUNK;
use plesio_kernels::{Device, Robust};

/// So many floats that their results go past the caches, and the last block is not whole.
const LEN: usize = (8 << 20) / 4 + 77;
/// Pieces of them that do not.
const PIECE: usize = 1 << 10 << 10;
const _: () = assert!(PIECE.is_multiple_of(CHUNK));

/// Parts of all inputs.
fn piece<'a, T>(inputs: &[&'a [T]], at: usize, len: usize) -> Vec<&'a [T]> {
    inputs.iter().map(|input| &input[at..at + len]).collect()
}

/// Calls with the number of contributions, room that begins somewhere in a line, and one thread or more.
fn each_way(check: impl Fn(Cpu, usize, usize)) {
    each_level(|cpu| {
        if cpu.level() > plesio_cpu::Level::Scalar {
            check(cpu.with_threads(1), 3, 0);
            check(cpu.with_threads(1), 9, 4);
            check(cpu.with_threads(2), 8, 1);
        }
    });
}

fn norm_of(cpu: Cpu, x: &[f32]) -> f64 {
    let mut norms = [7.0];
    cpu.square_norms(&[x], &mut norms).expect("they fit");
    norms[0]
}

#[test]
fn weighted_sums_past_the_caches_are_the_same() {
    let inputs: Vec<Vec<f32>> = (0..9).map(|k| floats(LEN, k)).collect();
    let stored: Vec<Vec<u16>> = (0..9).map(|k| halves(LEN, k)).collect();
    each_way(|cpu, count, first| {
        let weights = floats(count, 20);
        let (inputs, stored) = (&views(&inputs)[..count], &views(&stored)[..count]);
        let (mut found, mut expected) = (vec![7.0; first + LEN], vec![8.0; LEN]);
        let norm = cpu.weighted_sum(&weights, inputs, &mut found[first..]).expect("they fit");
        for (index, out) in expected.chunks_mut(PIECE).enumerate() {
            let inputs = piece(inputs, index * PIECE, out.len());
            cpu.weighted_sum(&weights, &inputs, out).expect("they fit");
        }
        same_floats("weighted_sum", cpu, &found[first..], &expected);
        assert_eq!(norm.to_bits(), norm_of(cpu, &expected).to_bits(), "its norm on {}", cpu.name());

        let norm = cpu.weighted_sum_bf16(&weights, stored, &mut found[first..]).expect("they fit");
        for (index, out) in expected.chunks_mut(PIECE).enumerate() {
            let inputs = piece(stored, index * PIECE, out.len());
            cpu.weighted_sum_bf16(&weights, &inputs, out).expect("they fit");
        }
        same_floats("weighted_sum_bf16", cpu, &found[first..], &expected);
        assert_eq!(norm.to_bits(), norm_of(cpu, &expected).to_bits(), "its norm on {}", cpu.name());
    });
}

#[test]
fn slot_sums_past_the_caches_are_the_same() {
    let slots: Vec<Vec<i32>> =
        (0..9).map(|k| floats(LEN, k).into_iter().map(|v| (v * 1e7) as i32).collect()).collect();
    each_way(|cpu, count, first| {
        let weights: Vec<u32> = (1..=count as u32).map(|k| k << 16).collect();
        let slots = &views(&slots)[..count];
        let (mut found, mut expected) = (vec![7; first + LEN], vec![8; LEN]);
        cpu.slot_sum(&weights, slots, &mut found[first..]).expect("they fit");
        for (index, sum) in expected.chunks_mut(PIECE / 2).enumerate() {
            cpu.slot_sum(&weights, &piece(slots, index * (PIECE / 2), sum.len()), sum).expect("they fit");
        }
        assert!(found[first..] == expected, "slot_sum on {}", cpu.name());
    });
}

#[test]
fn robust_rules_past_the_caches_are_the_same() {
    let inputs: Vec<Vec<f32>> = (0..9).map(|k| wild(LEN, k)).collect();
    each_way(|cpu, count, first| {
        let inputs = &views(&inputs)[..count];
        for rule in [Robust::Median, Robust::TrimmedMean { trim: 1 }] {
            let (mut found, mut expected) = (vec![7.0; first + LEN], vec![8.0; LEN]);
            cpu.robust(rule, inputs, &mut found[first..]).expect("they fit");
            for (index, out) in expected.chunks_mut(PIECE).enumerate() {
                cpu.robust(rule, &piece(inputs, index * PIECE, out.len()), out).expect("they fit");
            }
            same_floats("robust", cpu, &found[first..], &expected);
        }
    });
}
