//! Every order in which the ends of a ring can meet, by a model checker: run by `cargo xtask loom`.
//!
//! The checker watches each lease: two ends that have one at once, or one that does not see what the other did, end the
//! model.

use loom::thread;

use super::word::{Word, enter, leave, revoke};
use super::*;
use crate::ArenaPlan;
use crate::sync::AtomicU32;

fn ends(depth: usize) -> (Arena, Producer, Consumer) {
    let mut plan = ArenaPlan::new("ring", 1 << 20);
    let shape = plan.push_ring(depth, 1);
    let arena = Arena::heap(&plan).unwrap();
    let (producer, consumer) = ring(&arena, &shape, SlotSeq(1)).unwrap();
    (arena, producer, consumer)
}

fn meta() -> CutMeta {
    CutMeta { base_version: Version(3), target_frame: Frame(9), n_steps: 1 }
}

/// Cuts `value`; what of it went into the ring.
fn cut(producer: &mut Producer, value: i32) -> i32 {
    let outcome = producer.cut(meta(), |slot| {
        slot.fill(value);
        true
    });
    match outcome {
        CutOutcome::Cut(_) | CutOutcome::Merged { excess: None, .. } => value,
        CutOutcome::Open => 0,
        other => panic!("{other:?}"),
    }
}

/// Whatever came back, by fate.
fn take_back(producer: &mut Producer, committed: &mut i32, folded: &mut i32) {
    while let Some((info, _)) = producer.poll_returned() {
        let read = |_: &SlotInfo, fate, elements: &[i32]| match fate {
            Fate::Committed => *committed += elements[0],
            Fate::Folded => *folded += elements[0],
        };
        producer.reclaim(info.index, read).unwrap();
    }
}

/// Sends the oldest slot if there is one; what it carried.
fn send(arena: &Arena, consumer: &mut Consumer, fold: bool) -> i32 {
    let Some(info) = consumer.poll_cut() else { return 0 };
    let announced = match consumer.announce(info.index) {
        Ok(announced) => announced,
        Err(RingError::Merging) => return 0,
        Err(error) => panic!("{error}"),
    };
    let sum = arena.share(announced.span).unwrap().as_i32()[0];
    if fold {
        consumer.fold(info.index).unwrap();
        return 0;
    }
    consumer.offer(info.index).unwrap();
    consumer.commit(info.index).unwrap();
    sum
}

fn check(builder: loom::model::Builder, model: impl Fn() + Sync + Send + 'static) {
    builder.check(model);
}

/// Two switches away from whoever runs find nearly all that any number would, in seconds.
fn bounded() -> loom::model::Builder {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = builder.preemption_bound.or(Some(2));
    builder.max_branches = 100_000;
    builder
}

/// A full ring: the worker's second contribution is merged into the first, or finds it announced, while the node sends.
#[test]
fn merging_and_announcing_meet() {
    for fold in [false, true] {
        check(bounded(), move || {
            let (arena, mut producer, mut consumer) = ends(2);
            let mut quantised = cut(&mut producer, 1);
            let node = thread::spawn(move || {
                let sent = send(&arena, &mut consumer, fold);
                (arena, consumer, sent)
            });
            quantised += cut(&mut producer, 10);
            let (arena, mut consumer, mut sent) = node.join().unwrap();
            sent += send(&arena, &mut consumer, fold);
            sent += send(&arena, &mut consumer, fold);
            let (mut committed, mut folded) = (0, 0);
            take_back(&mut producer, &mut committed, &mut folded);
            assert_eq!(committed, sent, "both ends saw the same bytes");
            assert_eq!(committed + folded, quantised, "nothing is lost and nothing counted twice");
        });
    }
}

/// Slots go round: the worker cuts, takes back and cuts again into what came free, while the node sends.
#[test]
fn slots_go_round() {
    check(bounded(), || {
        let (arena, mut producer, mut consumer) = ends(2);
        let node = thread::spawn(move || {
            let sent = send(&arena, &mut consumer, false);
            (arena, consumer, sent)
        });
        let (mut quantised, mut committed, mut folded) = (0, 0, 0);
        for value in [1, 10] {
            quantised += cut(&mut producer, value);
            take_back(&mut producer, &mut committed, &mut folded);
        }
        let (arena, mut consumer, mut sent) = node.join().unwrap();
        sent += send(&arena, &mut consumer, false) + send(&arena, &mut consumer, false);
        take_back(&mut producer, &mut committed, &mut folded);
        assert_eq!((committed, folded), (sent, 0));
        assert_eq!(committed, quantised);
    });
}

/// The slot word of a shared ring: a holder that the worker gives up wrongly, and another, with the number of the one that
/// was given up, that takes the slot next. Whoever believes that it has moved the slot has.
#[test]
fn one_of_holder_and_worker_moves_the_word() {
    loom::model(|| {
        let word = Arc::new(AtomicU32::new(0));
        enter(&word, SlotState::Cut);
        let cut = Word::read(&word);
        let held = leave(&word, cut, SlotState::Sending, 7).expect("nobody else is there yet");
        let holder = {
            let word = Arc::clone(&word);
            thread::spawn(move || leave(&word, held, SlotState::Committed, 0).is_some())
        };
        let other = {
            let word = Arc::clone(&word);
            thread::spawn(move || {
                let seen = Word::read(&word);
                seen.state() == Some(SlotState::Cut) && leave(&word, seen, SlotState::Sending, 7).is_some()
            })
        };
        let seen = Word::read(&word);
        let revoked = seen.state() == Some(SlotState::Sending)
            && seen.holder() == 7
            && revoke(&word, seen, SlotState::Cut);
        let (committed, taken) = (holder.join().unwrap(), other.join().unwrap());
        assert!(!(revoked && committed), "given up and committed");
        assert!(revoked || committed, "one of them finds the word as it knows it");
        assert!(!taken || revoked, "only what came back is taken");
        assert!(leave(&word, held, SlotState::Committed, 0).is_none(), "an old word fits no more");
        let last = Word::read(&word);
        let expected = match (revoked, taken) {
            (_, true) => (Some(SlotState::Sending), 7),
            (true, false) => (Some(SlotState::Cut), 0),
            (false, false) => (Some(SlotState::Committed), 0),
        };
        assert_eq!((last.state(), last.holder()), expected);
    });
}
