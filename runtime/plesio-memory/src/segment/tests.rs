//! The rules, over heap memory; what the kernel has to do with it is in `mapped`.

#[cfg(not(miri))]
mod mapped;

use std::sync::Arc;
use std::thread;

use super::*;

const LEN_BYTES: usize = 12_288 + 100;

fn plan(access: Access) -> SegmentPlan {
    SegmentPlan { name: "plesio-test".into(), len_bytes: LEN_BYTES, access, budget_bytes: 1 << 20 }
}

#[test]
fn no_range_leaves_the_segment() {
    let mapped = || Segment::create(&plan(Access::Shared)).unwrap().0;
    let heap = Segment::heap(&plan(Access::Shared)).unwrap();
    for segment in [heap].into_iter().chain((!cfg!(miri)).then(mapped)) {
        assert_eq!(segment.len_bytes(), LEN_BYTES);
        for (offset_bytes, len) in
            [(LEN_BYTES, 1), (LEN_BYTES - 3, 4), (usize::MAX, 1), (0, usize::MAX), (1, LEN_BYTES)]
        {
            assert_eq!(segment.pointer(offset_bytes, len), Err(AccessError::Range), "{offset_bytes} {len}");
            let mut small = vec![0; len.min(LEN_BYTES)];
            if len == small.len() {
                assert_eq!(segment.copy_out(offset_bytes, &mut small), Err(AccessError::Range));
                assert_eq!(segment.copy_in(offset_bytes, &small), Err(AccessError::Range));
            }
        }
        assert_eq!(segment.word(LEN_BYTES).unwrap_err(), AccessError::Range);
        assert_eq!(segment.words(0, usize::MAX).unwrap_err(), AccessError::Range);
        assert_eq!(segment.words(0, LEN_BYTES / 4 + 1).unwrap_err(), AccessError::Range);
        assert_eq!(segment.word(2).unwrap_err(), AccessError::Alignment);
        assert_eq!(segment.word64(4).unwrap_err(), AccessError::Alignment);
        assert_eq!(segment.peek64(LEN_BYTES - 4, Ordering::Relaxed), Err(AccessError::Range));
        assert!(segment.pointer(LEN_BYTES, 0).is_ok());
        assert_eq!(segment.words(LEN_BYTES, 0).unwrap().len(), 0);
    }
}

#[test]
fn copies_are_exact_at_every_alignment() {
    let from: Vec<u8> = (1..=40).collect();
    for offset_bytes in 0..17 {
        for len in (0..from.len()).filter(|len| !cfg!(miri) || len % 9 == offset_bytes % 9) {
            let segment = Segment::heap(&SegmentPlan { len_bytes: 64, ..plan(Access::Shared) }).unwrap();
            segment.copy_in(offset_bytes, &from[..len]).unwrap();
            let mut part = vec![0; len];
            segment.copy_out(offset_bytes, &mut part).unwrap();
            assert_eq!(part, from[..len]);
            // Miri has no model of atomics of different sizes in one place.
            if cfg!(miri) {
                continue;
            }
            let mut all = [0xff; 64];
            segment.copy_out(0, &mut all).unwrap();
            let mut expected = [0; 64];
            expected[offset_bytes..offset_bytes + len].copy_from_slice(&from[..len]);
            assert_eq!(all, expected, "{len} bytes at {offset_bytes}");
        }
    }
}

#[test]
fn threads_may_copy_at_once() {
    let segment = Arc::new(Segment::heap(&plan(Access::Shared)).unwrap());
    let writer = Arc::clone(&segment);
    let writing = thread::spawn(move || {
        for round in 0..20_u8 {
            writer.copy_in(8, &[round; 64]).unwrap();
        }
    });
    let mut lanes = [0; 64];
    for _ in 0..20 {
        segment.copy_out(8, &mut lanes).unwrap();
        for lane in lanes.chunks_exact(8) {
            assert!(lane.iter().all(|byte| *byte == lane[0]), "eight aligned bytes come out whole: {lane:?}");
        }
    }
    writing.join().unwrap();
}

#[test]
fn a_plan_is_refused_before_anything_is_allocated() {
    let with = |len_bytes, budget_bytes| {
        let plan = SegmentPlan { len_bytes, budget_bytes, ..plan(Access::Shared) };
        (Segment::create(&plan).unwrap_err(), Segment::heap(&plan).unwrap_err())
    };
    assert!(matches!(with(0, 10), (ArenaError::Plan { .. }, ArenaError::Plan { .. })));
    assert!(matches!(with(usize::MAX, usize::MAX), (ArenaError::Plan { .. }, ArenaError::Plan { .. })));
    let (mapped, heap) = with(4_097, 4_096);
    for found in [mapped, heap] {
        assert!(matches!(found, ArenaError::Budget { needed_bytes: 4_097, budget_bytes: 4_096 }), "{found}");
    }
}
