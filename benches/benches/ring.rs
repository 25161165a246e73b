//! The elastic ring: a slot's whole way round, and a cut that finds the ring full.
//!
//! Criterion reports slots/s. `words` are slots of 16 elements, where the hand-over is all there is; `adapter` is the slot of
//! the demo's model, written once and read once on its way.

use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use plesio_memory::{
    Access, Arena, ArenaPlan, Consumer, CutMeta, CutOutcome, Foreign, Holder, Producer, Segment, SegmentPlan,
    ring, shared_ring,
};
use plesio_wire::{Frame, SlotSeq, Version};

const DEPTH: usize = 4;
const SIZES: [(&str, usize); 2] = [("words", 16), ("adapter", 74_752)];
const META: CutMeta = CutMeta { base_version: Version(1), target_frame: Frame(1), n_steps: 1 };

fn ends(len_elems: usize) -> (Arena, Producer, Consumer) {
    let mut plan = ArenaPlan::new("bench", 1 << 24);
    let shape = plan.push_ring(DEPTH, len_elems);
    let (arena, _) = Arena::map(&plan).expect("the machine has it");
    let (producer, consumer) = ring(&arena, &shape, SlotSeq(1)).expect("the plan's own regions");
    (arena, producer, consumer)
}

/// The same with the node's part played through files, as another process would.
fn shared(len_elems: usize) -> (Producer, Holder) {
    let mut plan = ArenaPlan::new("bench", 1 << 24);
    let shape = plan.push_ring(DEPTH, len_elems);
    let (arena, _) = Arena::map(&plan).expect("the machine has it");
    let words = SegmentPlan {
        name: "bench".into(),
        len_bytes: DEPTH * 64,
        access: Access::Shared,
        budget_bytes: 4_096,
    };
    let (words, _) = Segment::create(&words).expect("the machine has it");
    let uid =
        std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own)).expect("proc");
    let file = words.file().expect("it is mapped").try_clone_to_owned().expect("a free descriptor");
    let theirs = Segment::attach(file, DEPTH * 64, Access::Shared, uid).expect("our own segment");
    let file = arena.file().expect("it is mapped").try_clone_to_owned().expect("a free descriptor");
    let elements = Foreign::attach(file, arena.memory().1, uid).expect("our own arena");
    let holder = Holder::new(theirs, elements, &shape, 1).expect("the same plan");
    (shared_ring(&arena, &shape, SlotSeq(1), words).expect("the plan's own regions"), holder)
}

fn cut(producer: &mut Producer) -> bool {
    let outcome = producer.cut(META, |slot| {
        slot.fill(black_box(1));
        true
    });
    matches!(outcome, CutOutcome::Cut(_))
}

fn reclaim(producer: &mut Producer, sum: &mut i64) {
    while let Some((info, _)) = producer.poll_returned() {
        let read = |_: &_, _, elements: &[i32]| {
            *sum += elements.iter().map(|element| i64::from(*element)).sum::<i64>()
        };
        producer.reclaim(info.index, read).expect("it has come back");
    }
}

fn round(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/round");
    group.throughput(Throughput::Elements(1));
    for (name, len_elems) in SIZES {
        let mut sum = 0;
        let (_arena, mut producer, mut consumer) = ends(len_elems);
        group.bench_function(BenchmarkId::new("threads", name), |bencher| {
            bencher.iter(|| {
                assert!(cut(&mut producer));
                let info = consumer.poll_cut().expect("it was just cut");
                black_box(consumer.announce(info.index).expect("nobody merges"));
                consumer.offer(info.index).expect("it is announced");
                consumer.commit(info.index).expect("nobody reads it");
                reclaim(&mut producer, &mut sum);
            });
        });
        let (mut producer, mut holder) = shared(len_elems);
        group.bench_function(BenchmarkId::new("shared", name), |bencher| {
            bencher.iter(|| {
                assert!(cut(&mut producer));
                let info = holder.poll_cut().expect("it was just cut");
                let held = holder.announce(info.index).expect("nobody merges");
                black_box(holder.pointer(&held).expect("its own slot"));
                let held = holder.offer(held).expect("nobody takes it back");
                holder.commit(held).expect("nobody takes it back");
                reclaim(&mut producer, &mut sum);
            });
        });
        black_box(sum);
    }
    group.finish();
}

/// The ring is full: what the worker pays at most.
fn full(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("ring/full");
    group.throughput(Throughput::Elements(1));
    for (name, len_elems) in SIZES {
        let (_arena, mut producer, _consumer) = ends(len_elems);
        while cut(&mut producer) {}
        group.bench_function(BenchmarkId::new("merge", name), |bencher| {
            bencher.iter(|| assert!(!cut(&mut producer)));
        });
    }
    group.finish();
}

criterion_group!(benches, round, full);
criterion_main!(benches);
