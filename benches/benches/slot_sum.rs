//! The commit of the consensus: the integer sum of k slots into the master, beside the machine's own streaming
//! rate in the same run. Criterion reports bytes/s: 4 for each slot element read, 16 for a master element read
//! and written.

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use plesio_cpu::{Cpu, Level};
use plesio_kernels::{Device, WEIGHT_ONE};
use std::hint::black_box;

/// Beyond the last-level cache: 8 slots and the master are 192 MiB.
const LARGE: usize = 4 << 20;
/// The demo's adapter.
const ADAPTER: usize = 74_752;

fn slot_sum(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("slot_sum");
    group.sample_size(20);
    for (size, len) in [("adapter", ADAPTER), ("large", LARGE)] {
        // The streaming rate: what copying moves, with the same buffers as a commit of two slots.
        let source = vec![3i64; len];
        let mut target = vec![0i64; len];
        group.throughput(Throughput::Bytes(16 * len as u64));
        group.bench_function(BenchmarkId::new("stream/copy", size), |bencher| {
            bencher.iter(|| black_box(&mut target).copy_from_slice(black_box(&source)));
        });
        for k in [2, 4, 8] {
            // Small values: a bench commits many times and must not saturate.
            let slots: Vec<Vec<i32>> =
                (0..k).map(|slot| (0..len as i32).map(|e| (e % 1000 - 500) * (slot + 1)).collect()).collect();
            let views: Vec<&[i32]> = slots.iter().map(Vec::as_slice).collect();
            let weights = vec![WEIGHT_ONE / k as u32; k as usize];
            group.throughput(Throughput::Bytes((4 * k as u64 + 16) * len as u64));
            for level in [Level::Avx512, Level::Avx2, Level::Neon] {
                let Some(cpu) = Cpu::with_level(level).map(|cpu| cpu.with_threads(1)) else { continue };
                let mut master = vec![0i64; len];
                let name = format!("commit/{}/k{k}", cpu.name());
                group.bench_function(BenchmarkId::new(name, size), |bencher| {
                    bencher.iter(|| {
                        cpu.commit(black_box(&weights), black_box(&views), &mut master).expect("in range");
                    });
                });
            }
        }
    }
    group.finish();
}

criterion_group!(benches, slot_sum);
criterion_main!(benches);
