//! R26: which view may state another frame period, who proposes it, and what follows from it.

use super::solo::{Solo, ballot};
use crate::period::{FRAMES_APART, Turn, turned};
use crate::tests::cluster::genesis;
use crate::{Event, Report, Start};
use plesio_wire::sideband::{Epoch, Last, Message, nack};
use plesio_wire::value::{Value, View};
use plesio_wire::{Frame, MeshTime, NodeKey, Version};

/// Frames of 250 ms that may become 125 ms, 500 ms or a second.
fn begin(key: u64) -> Solo {
    Solo::with(key, Start::Genesis(View { halvings: 1, doublings: 2, ..genesis(3) }))
}

/// The view that follows the one in force and doubles its period at `origin`.
fn doubled(solo: &Solo, origin: u64) -> View {
    let now = *solo.machine.view();
    let next = turned(&now, Frame(origin), Turn::Double).expect("late enough");
    let (number, effective) = (now.number + 1, Frame(origin + 1));
    View { number, effective, origin: Frame(origin), previous: now.digest(), ..next }
}

fn refused(solo: &mut Solo) -> std::vec::Vec<u64> {
    solo.took(|_, message| match message {
        Message::Nack(refusal) if refusal.code == nack::RULE => Some(refusal.arg),
        _ => None,
    })
}

#[test]
fn r26_a_proposer_cannot_choose_the_period_at_will() {
    let mut solo = begin(11);
    solo.until(8_260);
    solo.forget();
    let good = doubled(&solo, 33);
    let early = FRAMES_APART - 1;
    let bad = [
        View { period_us: 1_000_000, halvings: 3, doublings: 0, ..good },
        View { period_us: 400_000, ..good },
        View { doublings: 2, ..good },
        View { anchor_close: good.anchor_close + 1, ..good },
        View { anchor: Frame(34), anchor_close: 8_500_000_000, ..good },
        View { origin: Frame(early), anchor: Frame(early), anchor_close: 7_750_000_000, ..good },
        // Another period is a view of its own.
        View { members: plesio_wire::Bounded::from_slice(&good.members[..2]), ..good },
    ];
    // One ballot of the same owner for each: two stories in one would be told apart by other means.
    for (at, view) in bad.into_iter().enumerate() {
        let (index, at) = (solo.machine.index(), ballot(33 + 3 * at as u64, 0));
        solo.hear(10, Message::Epoch(Epoch { index, ballot: at, view }));
        assert_eq!(refused(&mut solo), [26], "{view:?}");
    }
    assert_eq!(solo.machine.counters().rule_total, 7);
    let index = solo.machine.index();
    solo.hear(10, Message::Epoch(Epoch { index, ballot: ballot(54, 0), view: good }));
    assert_eq!(solo.accepts(), [(ballot(54, 0), Value::View(good).digest())]);
}

#[test]
fn r26_a_period_waits_for_seal() {
    let mut solo = begin(11);
    solo.until(8_010);
    let manifest = solo.manifest(32, &[super::solo::entry(0, 0)]);
    solo.decide(Value::Manifest(manifest));
    solo.forget();
    let (index, view) = (solo.machine.index(), doubled(&solo, 33));
    solo.hear(10, Message::Epoch(Epoch { index, ballot: ballot(33, 0), view }));
    assert_eq!((refused(&mut solo), solo.accepts()), (std::vec![16], std::vec![]));
}

#[test]
fn r26_frames_go_on_from_the_close_that_both_periods_share() {
    let mut solo = begin(11);
    // It learns of frame 33 only when its own count has come to 61.
    solo.until(15_300);
    assert_eq!(solo.machine.frame_at(solo.now), Some(Frame(62)));
    solo.forget();
    let view = doubled(&solo, 33);
    solo.decide(Value::View(view));
    let told = Event::Period { frame: Frame(33), before_ns: 250_000_000, period_ns: 500_000_000 };
    assert!(solo.events.contains(&told), "{:?}", solo.events);
    // 8.25 s and 14 frames of half a second.
    assert_eq!(solo.machine.frame_at(solo.now), Some(Frame(48)));
    assert_eq!(view.schedule().close_of(Frame(48)), MeshTime(15_750_000_000));
    assert_eq!(solo.machine.close_local(Frame(48)).map(|at| at.0), Some(15_750_000_000));
    // It proposes at closes of the new count: (49, 0) is its own.
    solo.until(16_240);
    solo.offer(0, 0);
    solo.until(16_300);
    assert_eq!(solo.queries(), [ballot(49, 0)]);
    // And no sooner than 32 frames later again.
    let soon = turned(&view, Frame(64), Turn::Double);
    assert!(soon.is_none() && turned(&view, Frame(65), Turn::Halve).is_some());
}

#[test]
fn r26_who_is_asked_by_the_medians_proposes_and_nobody_else() {
    let mut solo = begin(11);
    let slow = Report { transfer_ns: Some(1_000_000), step_ns: Some(600_000_000) };
    for key in [10, 11, 12] {
        solo.machine.handle_report(NodeKey(key), Report { step_ns: Some(200_000_000), ..slow });
        solo.machine.handle_hold(solo.now, NodeKey(key), Version(0), None);
    }
    solo.machine.handle_report(NodeKey(12), slow);
    solo.machine.handle_report(NodeKey(77), slow);
    solo.until(9_000);
    assert_eq!(solo.queries(), [], "one of three");
    solo.machine.handle_report(NodeKey(11), slow);
    solo.until(10_700);
    assert_eq!(solo.queries(), [], "for less than eight frames");
    solo.until(11_600);
    let asked = solo.queries();
    let at = *asked.first().expect("frame 43, 46 or the like is its own");
    let index = solo.machine.index();
    solo.hear(10, Message::Last(Last { index, ballot: at, ..Last::default() }));
    let proposed = solo.proposals();
    let [(_, Value::View(view)), ..] = proposed.as_slice() else { panic!("{proposed:?}") };
    let period = (view.period_us, view.anchor, view.halvings, view.doublings);
    assert_eq!(period, (500_000, at.frame, 2, 1));
    assert_eq!(view.members, solo.machine.view().members);
}
