//! Large calls on several threads: the same bits, outcomes and errors as on one.

use super::{each_level, floats, views, wild};
use plesio_cpu::Cpu;
use plesio_kernels::{
    AdamW, AdamWState, Adapter, Codec, Coding, Device, KernelError, Lora, Nesterov, Q8, Reference, Robust,
    Scale, bf16,
};

/// So many elements that a call with as many bytes for each is cut, and the last block is not whole.
fn large(element_bytes: usize) -> usize {
    (17 << 20) / element_bytes + 77
}

/// Runs a call on one thread and on more, and compares all it said and wrote.
#[track_caller]
fn same_on_threads<R: PartialEq>(what: &str, run: impl Fn(Cpu) -> R) {
    let expected = run(Cpu::detect().with_threads(1));
    for threads in [2, 3, 7] {
        assert!(run(Cpu::detect().with_threads(threads)) == expected, "{what} on {threads} threads");
    }
}

/// Floats to compare, NaN and zeros by their bits.
fn bits(values: Vec<f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

fn narrow(values: &[f32]) -> Vec<u16> {
    values.iter().map(|&value| bf16::narrow(value)).collect()
}

fn slots(count: usize, len: usize) -> Vec<Vec<i32>> {
    (0..count).map(|k| floats(len, 7 + k as u64).into_iter().map(|v| (v * 1e7) as i32).collect()).collect()
}

#[test]
fn slots_and_the_master_are_those_of_one_thread() {
    let len = large(20);
    let slots = slots(3, len);
    let weights = [1 << 23, 77, 1 << 22];
    let start: Vec<i64> = (0..large(8) as i64).map(|e| e << 30).collect();
    let scale = Scale::DEFAULT;
    same_on_threads("slot_sum", |cpu| {
        let mut sum = vec![1; len];
        (cpu.slot_sum(&weights, &views(&slots), &mut sum), sum)
    });
    same_on_threads("commit", |cpu| {
        let mut master = start[..len].to_vec();
        (cpu.commit(&weights, &views(&slots), &mut master), master)
    });
    same_on_threads("apply", |cpu| {
        let mut master = start[..large(16)].to_vec();
        (cpu.apply(&mut master, &start[..large(16)]), master)
    });
    same_on_threads("apply_nesterov", |cpu| {
        let start = &start[..large(24)];
        let (mut master, mut momentum) = (start.to_vec(), start.to_vec());
        (cpu.apply_nesterov(Nesterov::TUNED, &mut master, &mut momentum, start), master, momentum)
    });
    same_on_threads("to_float", |cpu| {
        let mut out = vec![1.0; large(12)];
        (cpu.to_float(&start[..large(12)], scale, &mut out), bits(out))
    });
    same_on_threads("dequantise", |cpu| {
        let slot: Vec<i32> = slots[0].iter().copied().cycle().take(large(8)).collect();
        let mut out = vec![1.0; slot.len()];
        (cpu.dequantise(&slot, scale, &mut out), bits(out))
    });
    same_on_threads("merge", |cpu| {
        let grown = |slot: &[i32]| -> Vec<i32> {
            slot.iter().map(|q| q.saturating_mul(9)).cycle().take(large(12)).collect()
        };
        let (mut into, from, mut residue) = (grown(&slots[1]), grown(&slots[2]), floats(large(12), 3));
        let merged = cpu.merge(&mut into, &from, scale, &mut residue);
        assert!(merged.as_ref().is_ok_and(|merged| merged.excess_elements > 0), "{merged:?}");
        (merged, into, bits(residue))
    });
}

#[test]
fn codecs_are_those_of_one_thread() {
    let len = large(4);
    let (input, slots) = (floats(len, 11), slots(1, len));
    let broken = {
        let mut broken = input.clone();
        broken[len - 1000] = f32::NAN;
        broken
    };
    for codec in Codec::ALL {
        let coding = Coding { codec, seed: 5, first_element: 4096 };
        let bytes = codec.encoded_bytes(len);
        for input in [&input, &broken] {
            same_on_threads("encode", |cpu| {
                let (mut residue, mut kept, mut dropped) = (input.clone(), vec![1; bytes], vec![2; bytes]);
                let first = cpu.encode(coding, input, Some(&mut residue), &mut kept);
                let second = cpu.encode(coding, input, None, &mut dropped);
                (first, second, bits(residue), kept, dropped)
            });
        }
        let mut codes = vec![0; bytes];
        same_on_threads("encode_slot", |cpu| {
            let mut codes = vec![0; bytes];
            (cpu.encode_slot(coding, &slots[0], &mut codes), codes)
        });
        Cpu::detect().encode_slot(coding, &slots[0], &mut codes).expect("they fit");
        same_on_threads("decode_slot", |cpu| {
            let mut slot = vec![1; len];
            (cpu.decode_slot(codec, &codes, &mut slot), slot)
        });
        same_on_threads("coded_sum", |cpu| {
            let mut sum = vec![1; len];
            (cpu.coded_sum(codec, &[3, 5], &[&codes, &codes], &mut sum), sum)
        });
        Cpu::detect().encode(coding, &input, None, &mut codes).expect("they fit");
        same_on_threads("decode", |cpu| {
            let (mut out, mut sum) = (vec![1.0; len], input.clone());
            let done = (cpu.decode(codec, &codes, &mut out), cpu.decode_add(codec, &codes, &mut sum));
            (done, bits(out), bits(sum))
        });
    }
}

#[test]
fn a_range_at_the_end_of_all_positions_is_coded_as_by_the_reference() {
    let len = large(4);
    let (input, slots) = (floats(len, 11), slots(1, len));
    // The last call ends at 2^64 - 1; the others go on past it, and their blocks are still counted.
    for before_end in [256, 1 << 20, (len as u64).next_multiple_of(256)] {
        for codec in Codec::ALL {
            let coding = Coding { codec, seed: 5, first_element: u64::MAX - (before_end - 1) };
            let (mut codes, mut slot_codes) =
                (vec![0; codec.encoded_bytes(len)], vec![0; codec.encoded_bytes(len)]);
            let encoded = Reference.encode(coding, &input, None, &mut codes);
            Reference.encode_slot(coding, &slots[0], &mut slot_codes).expect("they fit");
            for threads in [1, 2, 7] {
                let cpu = Cpu::detect().with_threads(threads);
                let (mut ours, mut slot_ours) = (vec![1; codes.len()], vec![1; codes.len()]);
                assert_eq!(cpu.encode(coding, &input, None, &mut ours), encoded);
                cpu.encode_slot(coding, &slots[0], &mut slot_ours).expect("they fit");
                assert!(ours == codes, "{codec:?} {before_end} on {threads} threads");
                assert!(slot_ours == slot_codes, "slot {codec:?} {before_end} on {threads} threads");
            }
        }
    }
}

#[test]
fn aggregation_is_that_of_one_thread() {
    let len = large(14);
    let inputs: Vec<Vec<f32>> = (0..5).map(|k| wild(len, 20 + k)).collect();
    let finite: Vec<Vec<f32>> = (0..5).map(|k| floats(len, 20 + k)).collect();
    let halves: Vec<Vec<u16>> = finite.iter().map(|input| narrow(input)).collect();
    let weights = floats(5, 19);
    same_on_threads("weighted_sum", |cpu| {
        let mut out = vec![1.0; len];
        (cpu.weighted_sum(&weights, &views(&finite), &mut out).map(f64::to_bits), bits(out))
    });
    same_on_threads("weighted_sum_bf16", |cpu| {
        let mut out = vec![1.0; len];
        (cpu.weighted_sum_bf16(&weights, &views(&halves), &mut out).map(f64::to_bits), bits(out))
    });
    for rule in [Robust::Median, Robust::TrimmedMean { trim: 1 }] {
        same_on_threads("robust", |cpu| {
            let mut out = vec![1.0; len];
            (cpu.robust(rule, &views(&inputs), &mut out), bits(out))
        });
    }
    let votes: Vec<Vec<u32>> = inputs.iter().cloned().map(bits).collect();
    same_on_threads("sign_vote", |cpu| {
        let mut out = vec![1; len];
        (cpu.sign_vote(&views(&votes), &mut out), out)
    });
    same_on_threads("adamw", |cpu| {
        let (mut params, mut mean, mut variance) = (finite[1].clone(), finite[2].clone(), vec![0.5; len]);
        let state = AdamWState { mean: &mut mean, variance: &mut variance, step: 3 };
        cpu.adamw(AdamW::default(), state, 0.5, &finite[0], &mut params);
        (bits(params), bits(mean), bits(variance))
    });
    let x = floats(large(4), 33);
    same_on_threads("square_norms", |cpu| {
        let mut norms = [7.0; 2];
        cpu.square_norms(&[&x, &x], &mut norms).expect("it fits");
        norms.map(f64::to_bits)
    });
    same_on_threads("sign_pack", |cpu| {
        let mut out = vec![1; x.len().div_ceil(32)];
        (cpu.sign_pack(&x, &mut out), out)
    });
}

#[test]
fn q8_is_that_of_one_thread() {
    let len = large(5);
    let input = floats(len, 51);
    let broken = {
        let mut broken = input.clone();
        broken[len - 1000] = f32::INFINITY;
        broken
    };
    for input in [&input, &broken] {
        same_on_threads("quantise_q8", |cpu| {
            let (mut residue, mut codes) = (floats(len, 52), vec![1; len]);
            let mut scales = vec![1; len.div_ceil(32)];
            let encoded = cpu.quantise_q8(input, &mut residue, &mut codes, &mut scales);
            (encoded, bits(residue), codes, scales)
        });
    }
    let inputs: Vec<(Vec<i8>, Vec<u16>)> = (0..5)
        .map(|k| {
            let (mut codes, mut scales) = (vec![0; len], vec![0; len.div_ceil(32)]);
            let residue = &mut floats(len, 53 + k);
            Cpu::detect().quantise_q8(&input, residue, &mut codes, &mut scales).expect("they fit");
            (codes, scales)
        })
        .collect();
    let coded: Vec<Q8<'_>> = inputs
        .iter()
        .map(|(codes, scales)| Q8::new(codes, scales).expect("a scale for each block"))
        .collect();
    same_on_threads("dequantise_q8", |cpu| {
        let mut out = vec![1.0; len];
        (cpu.dequantise_q8(coded[0], &mut out), bits(out))
    });
    let weights = floats(5, 59);
    same_on_threads("weighted_sum_q8", |cpu| {
        let mut out = vec![1.0; len];
        (cpu.weighted_sum_q8(&weights, &coded, &mut out).map(f64::to_bits), bits(out))
    });
}

#[test]
fn low_rank_layers_are_those_of_one_thread() {
    // Rows of a layer that has fewer rows than threads, and of one whose last range is not whole.
    for (rows, d_in, d_out) in [(2, 1 << 20, (1 << 20) + 7), (2085, 1031, 1029)] {
        let rank = 3;
        let (a, b) = (floats(rank * d_in, 61), floats(rank * d_out, 62));
        let (x, start) = (floats(rows * d_in, 63), floats(rows * d_out, 64));
        let lora = Lora::new(&a, &b, rank, d_in, d_out, 0.7).expect("the shapes fit");
        same_on_threads("lora_forward", |cpu| {
            let (mut h, mut y) = (vec![1.0; rows * rank], start.clone());
            (cpu.lora_forward(lora, &x, &mut h, &mut y), bits(h), bits(y))
        });
        let [a, b, x, start] = [&a, &b, &x, &start].map(|values| narrow(values));
        let adapter = Adapter::new(&a, &b, rank, d_in, d_out, 0.7).expect("the shapes fit");
        // Twice the rows of half the bytes.
        let (x, start) = (x.repeat(2), start.repeat(2));
        same_on_threads("lora_forward_bf16", |cpu| {
            let (mut h, mut y) = (vec![1.0; 2 * rows * rank], start.clone());
            (cpu.lora_forward_bf16(adapter, &x, &mut h, &mut y), bits(h), y)
        });
        same_on_threads("a short h", |cpu| {
            let (mut h, mut y) = (vec![1.0; 2 * rows * rank - 1], start.clone());
            let refused = cpu.lora_forward_bf16(adapter, &x, &mut h, &mut y);
            assert!(matches!(refused, Err(KernelError::Length { what: "h", .. })), "{refused:?}");
            (bits(h), y)
        });
    }
}

#[test]
fn errors_are_those_of_one_thread() {
    let len = large(16);
    // The first element that overflows, wherever it is, and each other one saturates.
    for first in [0, 1, 500_000, len - 1] {
        same_on_threads("overflow", |cpu| {
            let mut master = vec![0i64; len];
            master[7] = i64::MIN;
            let mut sum = vec![0i64; len];
            for element in [first, (first + 300_000).min(len - 1), len - 1] {
                (master[element], sum[element]) = (i64::MAX - 3, 1 << 20);
            }
            let (mut other, mut momentum) = (master.clone(), vec![0; len]);
            let done = cpu.apply(&mut master, &sum);
            assert_eq!(done, Err(KernelError::Overflow { element: first }));
            let nesterov = cpu.apply_nesterov(Nesterov::TUNED, &mut other, &mut momentum, &sum);
            assert_eq!(nesterov, Err(KernelError::Overflow { element: first }));
            (master, other, momentum)
        });
    }
    let slots = slots(2, len);
    same_on_threads("weights", |cpu| {
        let mut sum = vec![5; len];
        let refused = cpu.slot_sum(&[u32::MAX, 1], &views(&slots), &mut sum);
        assert_eq!((refused, sum[0], sum[len - 1]), (Err(KernelError::Weights { sum: 1 << 32 }), 5, 5));
        sum
    });
    same_on_threads("lengths", |cpu| {
        let mut sum = vec![5; len];
        let refused = cpu.commit(&[1, 1], &[&slots[0], &slots[1][1..]], &mut sum);
        assert_eq!(refused, Err(KernelError::Length { what: "slot", expected: len, found: len - 1 }));
        sum
    });
    let floats = floats(large(12), 41);
    same_on_threads("trim", |cpu| {
        let mut out = vec![5.0; floats.len()];
        let refused = cpu.robust(Robust::TrimmedMean { trim: 1 }, &[&floats, &floats], &mut out);
        assert_eq!(refused, Err(KernelError::Trim { trim: 1, count: 2 }));
        out
    });
    same_on_threads("no contributions", |cpu| {
        let mut out = vec![5.0; large(4)];
        let refused = cpu.weighted_sum(&[], &[], &mut out);
        assert!(matches!(refused, Err(KernelError::Count { found: 0, .. })), "{refused:?}");
        out
    });
}

#[test]
fn threads_are_at_least_one_and_not_without_end() {
    each_level(|cpu| {
        assert_eq!(cpu.with_threads(0).threads(), 1);
        assert_eq!(cpu.with_threads(7).threads(), 7);
        assert_eq!(cpu.with_threads(usize::MAX).threads(), 256);
        assert!(cpu.threads() >= 1);
        assert_eq!(cpu.with_threads(3).level(), cpu.level());
    });
}
