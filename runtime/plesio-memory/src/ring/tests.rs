//! The ring as stories of one slot, and two threads that never lose a unit of mass.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use super::*;
use crate::ArenaPlan;

fn ends(depth: usize, len_elems: usize) -> (Arena, Producer, Consumer) {
    let mut plan = ArenaPlan::new("ring", 1 << 24);
    plan.push(100);
    let shape = plan.push_ring(depth, len_elems);
    let arena = Arena::heap(&plan).unwrap();
    let (producer, consumer) = ring(&arena, &shape, SlotSeq(1)).unwrap();
    (arena, producer, consumer)
}

fn meta(base_version: u64, n_steps: u32) -> CutMeta {
    CutMeta { base_version: Version(base_version), target_frame: Frame(9), n_steps }
}

fn cut(producer: &mut Producer, value: i32) -> SlotInfo {
    let outcome = producer.cut(meta(3, 2), |slot| {
        slot.fill(value);
        true
    });
    match outcome {
        CutOutcome::Cut(info) => info,
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_slot_goes_round() {
    let (arena, mut producer, mut consumer) = ends(4, 10);
    assert_eq!(consumer.poll_cut(), None);
    let info = cut(&mut producer, 7);
    assert_eq!(consumer.poll_cut(), Some(info));
    assert_eq!((info.seq, info.n_steps, info.base_version), (SlotSeq(1), 2, Version(3)));
    let announced = consumer.announce(info.index).unwrap();
    assert_eq!(arena.share(announced.span).unwrap().as_i32(), [7; 10]);
    consumer.record_digest(info.index, [5; 16]).unwrap();
    assert_eq!(consumer.digest(info.index), Ok([5; 16]));
    consumer.offer(info.index).unwrap();
    assert_eq!(consumer.span(info.index), Some(announced.span), "can be resent");
    assert_eq!(producer.poll_returned(), None);
    consumer.commit(info.index).unwrap();
    assert_eq!(consumer.span(info.index), None);
    assert_eq!(producer.poll_returned(), Some((info, Fate::Committed)));
    let mut seen = 0;
    producer.reclaim(info.index, |_, _, elements| seen = elements.iter().sum()).unwrap();
    assert_eq!(seen, 70);
    assert_eq!(producer.reclaim(info.index, |_, _, _| {}), Err(RingError::State(SlotState::Free)));
    let rest = Occupancy { depth: 4, free: 3, slot_bytes: 40, ..Occupancy::default() };
    assert_eq!(producer.occupancy(), rest);
}

#[test]
fn an_announced_slot_cannot_be_touched() {
    let (arena, mut producer, mut consumer) = ends(2, 10);
    let info = cut(&mut producer, 1);
    let whole = arena.whole(u16::from(info.index) + 2).unwrap();
    assert_eq!(
        arena.share(whole).unwrap_err(),
        crate::AccessError::Busy,
        "not even read before it is announced"
    );
    let span = consumer.announce(info.index).unwrap().span;
    assert_eq!(arena.write(span, &[0; 40]), Err(crate::AccessError::Busy));
    // The ring is full and its only cut slot is announced: the contribution stays with the worker.
    let outcome = producer.cut(meta(3, 1), |_| panic!("nothing may be quantised"));
    assert_eq!(outcome, CutOutcome::Open);
    let reading = arena.share(span).unwrap();
    assert_eq!(consumer.fold(info.index), Err(RingError::StillRead));
    assert_eq!(consumer.commit(info.index), Err(RingError::StillRead));
    drop(reading);
    consumer.release(info.index).unwrap();
    assert_eq!(consumer.release(info.index), Err(RingError::State(SlotState::Free)));
    cut(&mut producer, 2);
}

#[test]
fn a_full_ring_merges_into_the_newest_unannounced_slot() {
    let (arena, mut producer, mut consumer) = ends(4, 3);
    let first = cut(&mut producer, 1);
    let second = cut(&mut producer, 10);
    let third = cut(&mut producer, 100);
    consumer.announce(third.index).unwrap();
    let outcome = producer.cut(meta(2, 5), |slot| {
        slot.copy_from_slice(&[1_000, ELEMENT_MAX, ELEMENT_MIN]);
        true
    });
    // Element 1 holds 10 already, so 10 of the new mass do not fit.
    let CutOutcome::Merged { into, excess } = outcome else { panic!("{outcome:?}") };
    assert_eq!(excess, Some(&[0, 10, 0][..]));
    assert_eq!((into.index, into.seq, into.n_steps), (second.index, second.seq, 7));
    assert_eq!(into.base_version, Version(2), "the older");
    let announced = consumer.announce(second.index).unwrap();
    assert_eq!(announced.info, into);
    assert_eq!(arena.share(announced.span).unwrap().as_i32(), [1_010, ELEMENT_MAX, ELEMENT_MIN + 10]);
    assert_eq!(consumer.poll_cut(), Some(first));
    assert_eq!(producer.counters().fold_total(), 1);
    assert_eq!(consumer.occupancy().fill(), 3);
}

#[test]
fn what_is_not_finite_leaves_no_trace() {
    let (_arena, mut producer, mut consumer) = ends(2, 3);
    assert_eq!(producer.cut(meta(0, 1), |_| false), CutOutcome::Discarded);
    assert_eq!(consumer.poll_cut(), None);
    let info = cut(&mut producer, 4);
    assert_eq!(info.seq, SlotSeq(1), "no number was used up");
    // Merging and discarding: the cut slot stays as it was.
    let garbage = |slot: &mut [i32]| {
        slot.fill(99);
        false
    };
    assert_eq!(producer.cut(meta(0, 1), garbage), CutOutcome::Discarded);
    consumer.fold(info.index).unwrap();
    let mut seen = Vec::new();
    producer.reclaim(info.index, |_, fate, slot| seen.push((fate, slot.to_vec()))).unwrap();
    assert_eq!(seen, [(Fate::Folded, vec![4; 3])]);
}

#[test]
fn a_panicking_worker_leaves_the_slot_to_the_node() {
    let (_arena, mut producer, mut consumer) = ends(2, 3);
    let info = cut(&mut producer, 4);
    let attempt = std::panic::AssertUnwindSafe(|| {
        let _ = producer.cut(meta(0, 1), |_| panic!("in the worker"));
    });
    assert!(std::panic::catch_unwind(attempt).is_err());
    assert_eq!(consumer.announce(info.index).unwrap().info, info);
}

#[test]
fn only_legal_shapes_and_indices() {
    let (_arena, _producer, mut consumer) = ends(2, 3);
    assert_eq!(consumer.announce(2).unwrap_err(), RingError::NoSlot);
    assert_eq!(consumer.fold(255), Err(RingError::NoSlot));
    assert_eq!(consumer.offer(0), Err(RingError::State(SlotState::Filling)));
    for (depth, len_elems) in [(1, 1), (3, 1), (32, 1), (0, 1)] {
        let mut plan = ArenaPlan::new("ring", 1 << 24);
        plan.push(100);
        let shape = plan.push_ring(depth.max(1), len_elems);
        let arena = Arena::heap(&plan).unwrap();
        let shape = RingPlan { depth, ..shape };
        assert!(matches!(ring(&arena, &shape, SlotSeq(1)), Err(RingError::Shape)), "{depth}");
    }
    let mut plan = ArenaPlan::new("ring", 1 << 24);
    let shape = plan.push_ring(2, 8);
    let arena = Arena::heap(&plan).unwrap();
    assert!(ring(&arena, &RingPlan { depth: 4, ..shape }, SlotSeq(1)).is_err(), "regions outside the plan");
    assert!(ring(&arena, &RingPlan { len_elems: 9, ..shape }, SlotSeq(1)).is_err());
    let _ends = ring(&arena, &shape, SlotSeq(1)).unwrap();
    assert!(matches!(ring(&arena, &shape, SlotSeq(1)), Err(RingError::Access(_))), "one ring per plan");
}

/// Everything quantised is committed, folded, refused as excess, or still in the ring: per element, exactly.
#[test]
fn two_threads_lose_nothing() {
    const LEN_ELEMS: usize = 64;
    let rounds: i64 = if cfg!(miri) { 60 } else { 60_000 };
    for depth in [2, 4, 16] {
        let (arena, mut producer, mut consumer) = ends(depth, LEN_ELEMS);
        let done = AtomicBool::new(false);
        let (committed_by_node, worker) = thread::scope(|scope| {
            let node = scope.spawn(|| run_node(&arena, &mut consumer, &done));
            let worker = run_worker(&mut producer, rounds);
            done.store(true, Ordering::Release);
            (node.join().unwrap(), worker)
        });
        let mut worker = worker;
        while let Some((info, _)) = producer.poll_returned() {
            worker.take(&mut producer, info.index);
        }
        assert_eq!(
            producer.occupancy().fill() + producer.occupancy().offered,
            0,
            "the node drained the ring"
        );
        assert_eq!(worker.committed, committed_by_node, "both ends saw the same bytes");
        assert_eq!(worker.quantised, worker.committed + worker.folded + worker.excess);
        let counters = producer.counters();
        assert!(counters.cut > 0 && counters.folded + counters.committed == counters.cut, "{counters:?}");
    }
}

#[derive(Default)]
struct WorkerSums {
    quantised: i64,
    committed: i64,
    folded: i64,
    excess: i64,
}

impl WorkerSums {
    fn take(&mut self, producer: &mut Producer, index: u8) {
        producer
            .reclaim(index, |_, fate, elements| {
                let sum = uniform(elements);
                match fate {
                    Fate::Committed => self.committed += sum,
                    Fate::Folded => self.folded += sum,
                }
            })
            .unwrap();
    }
}

/// All elements of a slot are equal unless a write was torn.
fn uniform(elements: &[i32]) -> i64 {
    assert!(elements.iter().all(|element| *element == elements[0]), "torn: {elements:?}");
    i64::from(elements[0])
}

fn run_worker(producer: &mut Producer, rounds: i64) -> WorkerSums {
    let mut sums = WorkerSums::default();
    for round in 0..rounds {
        // Every eleventh contribution is so large that merging it overflows.
        let value = if round % 11 == 0 { ELEMENT_MAX } else { round as i32 };
        let outcome = producer.cut(meta(round as u64, 1), |slot| {
            slot.fill(value);
            true
        });
        match outcome {
            CutOutcome::Cut(_) => sums.quantised += i64::from(value),
            CutOutcome::Merged { excess, .. } => {
                sums.quantised += i64::from(value);
                sums.excess += excess.map_or(0, uniform);
            }
            CutOutcome::Open => thread::yield_now(),
            CutOutcome::Discarded => panic!("all contributions are finite"),
        }
        if let Some((info, _)) = producer.poll_returned() {
            sums.take(producer, info.index);
        }
    }
    sums
}

/// Announces everything, reads it as the socket would, and commits or folds; returns the sum of what it committed.
fn run_node(arena: &Arena, consumer: &mut Consumer, done: &AtomicBool) -> i64 {
    let mut committed = 0;
    let mut seq_last = SlotSeq(0);
    let mut turn = 0;
    loop {
        let finishing = done.load(Ordering::Acquire);
        let Some(cut) = consumer.poll_cut() else {
            if finishing {
                return committed;
            }
            thread::yield_now();
            continue;
        };
        turn += 1;
        if turn % 7 == 0 {
            match consumer.fold(cut.index) {
                Ok(()) | Err(RingError::Merging) => continue,
                Err(error) => panic!("{error}"),
            }
        }
        let announced = match consumer.announce(cut.index) {
            Ok(announced) => announced,
            Err(RingError::Merging) => continue,
            Err(error) => panic!("{error}"),
        };
        assert!(announced.info.seq > seq_last, "oldest first, no number twice");
        seq_last = announced.info.seq;
        let sum = uniform(arena.share(announced.span).unwrap().as_i32());
        if turn % 2 == 0 {
            consumer.offer(cut.index).unwrap();
        }
        if turn % 5 == 0 {
            consumer.fold(cut.index).unwrap();
        } else {
            consumer.commit(cut.index).unwrap();
            committed += sum;
        }
    }
}
