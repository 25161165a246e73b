//! One arena seen twice: by its owner, and as another process would map it.

use std::sync::Arc;
use std::thread;

use super::*;
use crate::{Arena, ArenaPlan, CutMeta, SegmentPlan, ring};

fn seen(arena: &Arena) -> Foreign {
    let file = arena.file().expect("a mapped arena has a file").try_clone_to_owned().unwrap();
    Foreign::attach(file, arena.memory().1, rustix::process::geteuid().as_raw()).unwrap()
}

fn mapped(regions: &[usize]) -> Arena {
    let mut plan = ArenaPlan::new("plesio-test", 1 << 20);
    regions.iter().for_each(|len| {
        plan.push(*len);
    });
    Arena::map(&plan).unwrap().0
}

#[test]
fn a_region_is_read_while_nobody_may_write_it() {
    let arena = mapped(&[10_000, 64]);
    let foreign = seen(&arena);
    assert_eq!(foreign.regions(), 2);
    let all = foreign.whole(0).unwrap();
    assert_eq!(Some(all), arena.whole(0));
    let part = Span { region: 0, offset_bytes: 9_995, len_bytes: 5 };
    arena.write(part, b"hello").unwrap();
    let mut into = [0; 5];
    foreign.read(part, &mut into).unwrap();
    assert_eq!(&into, b"hello");
    let before = foreign.generation(0).unwrap();
    assert!(foreign.held(0, before));
    let lease = arena.lease(0).unwrap();
    assert_eq!(foreign.generation(0), Err(AccessError::Busy));
    assert_eq!(foreign.read(part, &mut into), Err(AccessError::Busy));
    assert!(!foreign.held(0, before));
    let sent = lease.launch();
    let frozen = foreign.generation(0).unwrap();
    assert_ne!(frozen, before, "it may hold something else now");
    foreign.read(part, &mut into).unwrap();
    let lease = sent.complete().unwrap();
    assert!(!foreign.held(0, frozen));
    drop(lease);
    assert!(foreign.generation(0).is_ok());
    assert!(foreign.generation(1).is_ok(), "each region has its own");
}

#[test]
fn no_span_leaves_its_region() {
    let arena = mapped(&[10_000, 64]);
    let foreign = seen(&arena);
    for (region, offset_bytes, len_bytes) in [(2, 0, 1), (0, 9_996, 5), (1, 64, 1), (1, 1, u32::MAX)] {
        let span = Span { region, offset_bytes, len_bytes };
        assert_eq!(foreign.pointer(span), Err(AccessError::Range), "{span:?}");
        assert_eq!(foreign.read(span, &mut [0; 5]), Err(AccessError::Range), "{span:?}");
    }
    assert_eq!(foreign.generation(2), Err(AccessError::Range));
    let span = Span { region: 1, offset_bytes: 0, len_bytes: 4 };
    assert_eq!(foreign.read(span, &mut [0; 5]), Err(AccessError::Length));
}

/// The owner tells another process what a region holds, and that one may come too late.
#[test]
fn what_was_told_is_read_or_refused() {
    let arena = mapped(&[64, 64]);
    let foreign = seen(&arena);
    assert!(
        foreign.resembles(&arena)
            && !foreign.resembles(&mapped(&[64, 65]))
            && !foreign.resembles(&mapped(&[64]))
    );
    let span = arena.whole(0).unwrap();
    arena.write(span, &[7; 64]).unwrap();
    let told = Generation::told(arena.generation(0).unwrap().word()).expect("nobody writes");
    let mut into = [0; 64];
    foreign.read_told(span, told, &mut into).unwrap();
    assert_eq!(into, [7; 64]);
    let lease = arena.lease(0).unwrap();
    assert_eq!(arena.generation(0), Err(AccessError::Busy));
    assert_eq!(foreign.read_told(span, told, &mut into), Err(AccessError::Busy));
    drop(lease);
    assert_eq!(foreign.read_told(span, told, &mut into), Err(AccessError::Busy), "it may be another slot");
    assert_eq!(Generation::told(told.word() + 1), None);
    assert_eq!(arena.generation(2), Err(AccessError::Range));
    let outside = Span { offset_bytes: 1, ..span };
    let now = arena.generation(0).unwrap();
    assert_eq!(foreign.read_told(outside, now, &mut into), Err(AccessError::Range));
    assert_eq!(foreign.read_told(span, now, &mut into[1..]), Err(AccessError::Length));
}

/// The owner writes one value all over a region, again and again; what is read whole is of one writing.
#[test]
fn what_is_torn_is_not_taken() {
    let arena = mapped(&[8_192]);
    let foreign = Arc::new(seen(&arena));
    let span = arena.whole(0).unwrap();
    let reading = {
        let foreign = Arc::clone(&foreign);
        thread::spawn(move || {
            let (mut into, mut whole, mut torn) = (vec![0; 8_192], 0_u32, 0_u32);
            while whole < 200 {
                match foreign.read(span, &mut into) {
                    Ok(()) => {
                        assert!(into.iter().all(|byte| *byte == into[0]), "torn and not seen");
                        whole += 1;
                    }
                    Err(AccessError::Busy) => torn += 1,
                    Err(other) => panic!("{other}"),
                }
            }
            (whole, torn)
        })
    };
    let mut round = 0_u8;
    while !reading.is_finished() {
        round = round.wrapping_add(1);
        arena.write(span, &[round; 8_192]).unwrap();
        // Else the region is hardly ever at rest, and on one core never when the reader looks.
        thread::yield_now();
    }
    let (whole, _torn) = reading.join().unwrap();
    assert_eq!(whole, 200);
}

#[test]
fn a_slot_is_seen_with_its_state() {
    let mut plan = ArenaPlan::new("plesio-test", 1 << 20);
    plan.push(100);
    let shape = plan.push_ring(4, 16);
    let (arena, _) = Arena::map(&plan).unwrap();
    let (mut producer, mut consumer) = ring(&arena, &shape, SlotSeq(7)).unwrap();
    let foreign = seen(&arena);
    let meta = CutMeta { base_version: Version(3), target_frame: Frame(9), n_steps: 2 };
    producer.cut(meta, |elements| {
        elements.fill(-5);
        true
    });
    assert_eq!(foreign.slot(&shape, 0).unwrap().1, SlotState::Cut);
    assert_eq!(
        foreign.generation(shape.first_region + 1),
        Err(AccessError::Busy),
        "it may still be merged into"
    );
    let announced = consumer.announce(0).unwrap();
    let before = foreign.generation(announced.span.region).unwrap();
    let (info, state) = foreign.slot(&shape, 0).unwrap();
    assert_eq!((info, state), (announced.info, SlotState::Sending));
    let mut into = [0; 64];
    foreign.read(announced.span, &mut into).unwrap();
    assert_eq!(into[..8], [251, 255, 255, 255, 251, 255, 255, 255]);
    assert!(foreign.held(announced.span.region, before));
    consumer.commit(0).unwrap();
    assert!(!foreign.held(announced.span.region, before));
    assert!(foreign.slot(&shape, 4).is_none());
    let elsewhere = RingPlan { first_region: 90, ..shape };
    assert!(foreign.slot(&elsewhere, 0).is_none());
}

/// Whatever stands at the beginning of a segment, opening it is an answer and never more.
#[test]
fn a_beginning_that_is_wrong_is_refused() {
    let arena = mapped(&[10_000, 64]);
    let len_bytes = arena.memory().1;
    let mut good = vec![0; len_bytes];
    seen(&arena).segment.copy_out(0, &mut good).unwrap();
    let open = |bytes: &[u8]| {
        let plan = SegmentPlan {
            name: "plesio-test".into(),
            len_bytes: bytes.len(),
            access: Access::Shared,
            budget_bytes: 1 << 20,
        };
        let segment = Segment::heap(&plan).unwrap();
        segment.copy_in(0, bytes).unwrap();
        Foreign::open(segment)
    };
    assert!(open(&good).is_ok());
    for (at, value) in [
        (0, 0_u32),
        (1, 2),
        (2, 0),
        (2, 65_536),
        (2, u32::MAX),
        (2, 3_000),
        (16, u32::MAX),
        (17, 1),
        (18, 0),
        (18, u32::MAX),
        (20, 20_480),
    ] {
        let mut bytes = good.clone();
        bytes[at * 4..at * 4 + 4].copy_from_slice(&value.to_ne_bytes());
        let refused = open(&bytes);
        assert!(matches!(refused, Err(AttachError::Layout { .. })), "word {at} = {value}: {refused:?}");
    }
    assert!(matches!(open(&good[..4]), Err(AttachError::Layout { .. })), "too short for a word more");
    // A state that no ring writes.
    let foreign = open(&good).unwrap();
    assert!(
        foreign.slot(&RingPlan { first_region: 1, depth: 2, len_elems: 1 }, 1).is_none(),
        "it leaves its region"
    );
}
