//! The codecs of the collectives and of the slots, level by level, beside the machine's streaming rate in the same
//! run. Criterion reports bytes/s of what the tensor has, 4 for each element: how much faster than memory a codec
//! could at most be follows from what it moves, which each name says (`encode` reads and writes a residue, too).

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use plesio_cpu::{Cpu, Level};
use plesio_kernels::{Codec, Coding, Device, WEIGHT_ONE};
use std::hint::black_box;

/// Beyond the last-level cache: 64 MiB of input, and as much of residue.
const LARGE: usize = 16 << 20;
/// A megabyte: what a rank works on between two looks at the network.
const PART: usize = 256 << 10;

fn codecs(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("codecs");
    group.sample_size(10);
    for (size, len) in [("1MiB", PART), ("64MiB", LARGE)] {
        group.throughput(Throughput::Bytes(4 * len as u64));
        let input: Vec<f32> =
            (0..len as u32).map(|e| (e.wrapping_mul(2_654_435_761) as i32) as f32).collect();
        let mut residue = vec![0.0; len];
        group.bench_function(BenchmarkId::new("stream/copy", size), |bencher| {
            bencher.iter(|| black_box(&mut residue).copy_from_slice(black_box(&input)));
        });
        for level in [Level::Avx512, Level::Avx2, Level::Neon] {
            let Some(cpu) = Cpu::with_level(level).map(|cpu| cpu.with_threads(1)) else { continue };
            for codec in Codec::ALL {
                let mut codes = vec![0; codec.encoded_bytes(len)];
                let coding = Coding::new(codec, 1);
                let name = |what: &str| BenchmarkId::new(format!("{what}/{codec:?}/{}", cpu.name()), size);
                residue.fill(0.0);
                group.bench_function(name("encode"), |bencher| {
                    bencher.iter(|| cpu.encode(coding, black_box(&input), Some(&mut residue), &mut codes));
                });
                group.bench_function(name("encode_without_residue"), |bencher| {
                    bencher.iter(|| cpu.encode(coding, black_box(&input), None, &mut codes));
                });
                group.bench_function(name("decode"), |bencher| {
                    bencher.iter(|| cpu.decode(codec, black_box(&codes), &mut residue));
                });
                residue.fill(0.0);
                group.bench_function(name("decode_add"), |bencher| {
                    bencher.iter(|| cpu.decode_add(codec, black_box(&codes), &mut residue));
                });
                let slot: Vec<i32> = input.iter().map(|value| (value / 4.0) as i32).collect();
                group.bench_function(name("encode_slot"), |bencher| {
                    bencher.iter(|| cpu.encode_slot(coding, black_box(&slot), &mut codes));
                });
                let mut sum = vec![0i64; len];
                group.bench_function(name("coded_sum/k2"), |bencher| {
                    let slots: [&[u8]; 2] = [&codes, &codes];
                    bencher.iter(|| cpu.coded_sum(codec, &[WEIGHT_ONE / 2; 2], black_box(&slots), &mut sum));
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, codecs);
criterion_main!(benches);
