//! The real mapping where the kernel matters, the heap where only the rules do.

use super::*;

fn plan() -> ArenaPlan {
    let mut plan = ArenaPlan::new("plesio-test", 1 << 20);
    plan.push(10_000);
    plan.push(64);
    plan
}

fn span(region: u16, offset_bytes: u32, len_bytes: u32) -> Span {
    Span { region, offset_bytes, len_bytes }
}

#[test]
fn bytes_come_back_as_written() {
    let mapped = || Arena::map(&plan()).unwrap().0;
    for arena in [Arena::heap(&plan()).unwrap()].into_iter().chain((!cfg!(miri)).then(mapped)) {
        let mut into = [1; 5];
        arena.read(span(0, 9_995, 5), &mut into).unwrap();
        assert_eq!(into, [0; 5], "memory is zeroed at start");
        arena.write(span(0, 9_995, 5), b"hello").unwrap();
        arena.read(span(0, 9_995, 5), &mut into).unwrap();
        assert_eq!(&into, b"hello");
        let first = arena.pointer(span(0, 0, 1)).unwrap().as_ptr() as usize;
        let second = arena.pointer(span(1, 0, 1)).unwrap().as_ptr() as usize;
        assert_eq!(first % 4096, 0);
        assert_eq!(second - first, 12_288, "regions start on pages");
    }
}

#[test]
fn no_span_leaves_its_region() {
    let arena = Arena::heap(&plan()).unwrap();
    for bad in [
        span(2, 0, 1),
        span(0, 9_996, 5),
        span(0, 10_001, 0),
        span(0, u32::MAX, u32::MAX),
        span(1, 64, 1),
        span(1, 1, u32::MAX),
    ] {
        assert_eq!(arena.pointer(bad), Err(AccessError::Range), "{bad:?}");
        assert_eq!(arena.share(bad).unwrap_err(), AccessError::Range);
        assert_eq!(arena.write(bad, &[0; 5]), Err(AccessError::Range));
    }
    assert_eq!(arena.write(span(0, 0, 5), &[0; 4]), Err(AccessError::Length));
    assert_eq!(arena.whole(1), Some(span(1, 0, 64)));
    assert_eq!(arena.whole(2), None);
}

#[test]
fn readers_and_writers_exclude_each_other_per_region() {
    let arena = Arena::heap(&plan()).unwrap();
    let first = arena.share(span(0, 0, 8)).unwrap();
    let second = arena.share(span(0, 4, 8)).unwrap();
    assert_eq!(arena.write(span(0, 5_000, 1), &[1]), Err(AccessError::Busy));
    arena.write(span(1, 0, 1), &[1]).unwrap();
    drop((first, second));
    let mut lease = arena.lease(0).unwrap();
    lease.as_i32_mut()[1] = -7;
    assert_eq!(arena.share(span(0, 0, 8)).unwrap_err(), AccessError::Busy);
    assert_eq!(arena.lease(0).unwrap_err(), AccessError::Busy);
    let in_flight = lease.launch();
    let reader = arena.share(in_flight.span()).unwrap();
    assert_eq!(reader.as_i32()[..2], [0, -7]);
    let in_flight = in_flight.complete().unwrap_err();
    drop(reader);
    drop(in_flight.complete().unwrap());
    assert_eq!(arena.lease(0).unwrap().as_i64().len(), 1_250);
}

#[test]
fn a_plan_is_refused_before_anything_is_allocated() {
    let empty = ArenaPlan::new("plesio-test", 1 << 20);
    assert!(matches!(Arena::heap(&empty), Err(ArenaError::Plan { .. })));
    let mut zero = plan();
    zero.push(0);
    assert!(matches!(Arena::heap(&zero), Err(ArenaError::Plan { .. })));
    let mut dear = plan();
    dear.push(1 << 20);
    let error = Arena::heap(&dear).unwrap_err();
    assert!(
        matches!(error, ArenaError::Budget { needed_bytes: 1_069_056, budget_bytes: 1_048_576 }),
        "{error}"
    );
    let mut many = ArenaPlan::new("plesio-test", usize::MAX);
    for _ in 0..65_536 {
        many.push(1);
    }
    assert!(matches!(Arena::heap(&many), Err(ArenaError::Plan { .. })));
}

#[cfg(not(miri))]
mod limits;
