//! What memory costs: taking it, copying through a segment's words beside a plain copy, reading a peer's region.
//!
//! Criterion reports bytes/s of payload. `plain` is the standard library's copy between two buffers of the process.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use plesio_memory::{Access, Arena, ArenaPlan, Foreign, Segment, SegmentPlan};

const SIZES: [(&str, usize); 3] = [("4KiB", 4 << 10), ("1MiB", 1 << 20), ("64MiB", 64 << 20)];

fn plan(len_bytes: usize) -> ArenaPlan {
    let mut plan = ArenaPlan::new("bench", usize::MAX);
    plan.push(len_bytes);
    plan
}

fn map(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("arena/map");
    group.sample_size(10);
    for (name, len_bytes) in SIZES {
        group.throughput(Throughput::Bytes(len_bytes as u64));
        group.bench_function(BenchmarkId::from_parameter(name), |bencher| {
            bencher.iter(|| Arena::map(&plan(len_bytes)).expect("the machine has it"));
        });
    }
    group.finish();
}

fn copy(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("arena/copy");
    group.sample_size(20);
    for (name, len_bytes) in SIZES {
        let segment =
            SegmentPlan { name: "bench".into(), len_bytes, access: Access::Shared, budget_bytes: len_bytes };
        let (segment, _) = Segment::create(&segment).expect("the machine has it");
        let (arena, _) = Arena::map(&plan(len_bytes)).expect("the machine has it");
        let file = arena.file().expect("it is mapped").try_clone_to_owned().expect("a free descriptor");
        let uid = std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own));
        let foreign = Foreign::attach(file, arena.memory().1, uid.expect("proc")).expect("our own arena");
        let whole = foreign.whole(0).expect("the only region");
        let from = vec![7_u8; len_bytes];
        let mut into = vec![1_u8; len_bytes];
        group.throughput(Throughput::Bytes(len_bytes as u64));
        group.bench_function(BenchmarkId::new("plain", name), |bencher| {
            bencher.iter(|| black_box(&mut into).copy_from_slice(black_box(&from)));
        });
        group.bench_function(BenchmarkId::new("segment_in", name), |bencher| {
            bencher.iter(|| segment.copy_in(0, black_box(&from)).expect("in range"));
        });
        group.bench_function(BenchmarkId::new("segment_out", name), |bencher| {
            bencher.iter(|| segment.copy_out(0, black_box(&mut into)).expect("in range"));
        });
        group.bench_function(BenchmarkId::new("foreign_read", name), |bencher| {
            bencher.iter(|| foreign.read(whole, black_box(&mut into)).expect("nobody writes"));
        });
    }
    group.finish();
}

criterion_group!(benches, map, copy);
criterion_main!(benches);
