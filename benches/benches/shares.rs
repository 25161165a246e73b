//! Shares of unlike nodes: what a view pays to solve them anew. The bound is 10 us for 32 nodes.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use plesio_collective::{Rates, Work, shares};
use std::hint::black_box;

fn solve(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("shares");
    let work = Work {
        elements: 16 << 20,
        contribution_bytes: 17 << 20,
        result_bytes: 64 << 20,
        grain_elements: 256,
    };
    for nodes in [4u64, 8, 32] {
        // Every node another one, over a range of 100 to 1: as many changes of the binding resource as there can be.
        let rates = |index: u64, prime: u64| 10_000_000 + index * prime % nodes * 990_000_000 / nodes;
        let mix: Vec<Rates> = (0..nodes)
            .map(|index| Rates {
                up_bytes_per_s: rates(index, 7),
                down_bytes_per_s: rates(index, 11),
                sum_elements_per_s: rates(index, 13) * 3,
            })
            .collect();
        group.bench_function(BenchmarkId::new("unlike", nodes), |bencher| {
            bencher.iter(|| shares(black_box(&work), black_box(&mix)));
        });
    }
    group.finish();
}

criterion_group!(benches, solve);
criterion_main!(benches);
