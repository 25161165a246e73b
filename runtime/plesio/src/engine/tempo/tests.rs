//! The corrector in an engine: what reaches it, and what follows from its states.

use super::super::roster::tests::engine;
use super::*;
use plesio_consensus::OwnSlot;
use plesio_phase::{ClockState, MeshClock};
use plesio_wire::{Digest, SlotSeq, Version};

const MS: u64 = 1_000_000;

fn at(ms: u64) -> Instant {
    Instant(ms * MS)
}

fn locked() -> Engine {
    let mut engine = engine();
    let clock = MeshClock { usable: true, eps_ns: 20_000, state: ClockState::Locked, ..MeshClock::default() };
    engine.handle_clock(at(1), clock);
    assert_eq!(states(&mut engine), [State::Locked]);
    engine
}

fn states(engine: &mut Engine) -> Vec<State> {
    std::iter::from_fn(|| engine.poll_transition()).map(|transition| transition.to).collect()
}

fn slot(seq: u32, target: u64) -> OwnSlot {
    OwnSlot {
        seq: SlotSeq(seq),
        base: Version(0),
        target: Frame(target),
        n_steps: 3,
        digest: Digest::default(),
    }
}

#[test]
fn a_full_ring_strains_a_member_and_then_makes_it_slip() {
    let mut engine = locked();
    engine.handle_ring(at(2), 0);
    assert_eq!((states(&mut engine), engine.status(at(2)).fill), (vec![], 0));
    engine.handle_ring(at(3), 1);
    engine.handle_ring(at(3), 1);
    let status = engine.status(at(3));
    assert_eq!((status.fill, status.depth, status.folds), (4, 4, 1), "as many as there are");
    engine.handle_ring(at(4), 3);
    assert_eq!(states(&mut engine), [State::Strained, State::Slipping]);
    assert_eq!(engine.punctuality().folds, 3);
}

#[test]
fn a_ring_that_stays_full_leads_through_resync_and_what_is_not_announced_begins_anew() {
    let mut engine = locked();
    let before = engine.aim();
    for frame in 0..40 {
        engine.handle_ring(at(250 * frame + 10), frame + 2);
        engine.handle_timeout(at(250 * frame + 251));
        // Others are silent, but not for long enough to be missed here: nobody said so.
    }
    let states = states(&mut engine);
    let resync = states.iter().position(|state| *state == State::Resync).expect("16 full frames");
    // It holds what a quorum says it holds: there is nothing to be fetched.
    assert_eq!(states[resync + 1..resync + 3], [State::Acquire, State::Locked]);
    assert!(engine.aim().resyncs > before.resyncs && !engine.aim().holds);
}

#[test]
fn a_slot_that_some_owner_lacks_is_late_without_being_listed() {
    let mut engine = locked();
    engine.handle_cut(at(100), 0, slot(1, 1));
    engine.handle_timeout(at(251));
    assert_eq!(engine.punctuality().late, 0, "its close has come just now");
    engine.handle_timeout(at(501));
    assert_eq!((engine.punctuality().slots, engine.punctuality().late), (1, 1));
    for ms in 1..9 {
        engine.handle_timeout(at(501 + 250 * ms));
    }
    assert_eq!(engine.punctuality().late, 1, "once");
    assert_eq!(engine.status(at(3_000)).slips, 1);
}

#[test]
fn the_margin_of_a_slot_that_waited_in_line_is_its_own() {
    // Listed where it was aimed at, or one close later: the proposer heard of it when it was there.
    assert_eq!((margin(0.2, 0.0, Some(-0.1)), margin(-0.3, 0.0, None)), (0.2, -0.3));
    assert_eq!(margin(0.5, 1.0, Some(-0.4)), -0.5);
    // Two closes later the proposer heard of it only after the first of them, by a slow clock long after it.
    assert!((margin(1.9, 2.0, Some(-0.4)) - 0.4).abs() < 1e-12, "its owners had it before");
    assert!((margin(1.9, 2.0, Some(0.3)) + 0.1).abs() < 1e-12, "acknowledged after the proposer knew");
    assert!((margin(1.9, 2.0, None) + 0.1).abs() < 1e-12, "nothing better is known");
}

#[test]
fn beats_say_the_tempo() {
    let mut engine = locked();
    assert_eq!(engine.status(at(500)).phase, 2 << 32, "before the first cut it is where the mesh is");
    for number in 1..=4 {
        engine.handle_cut(at(u64::from(number) * 250 - 20), number as u8 - 1, slot(number, number.into()));
    }
    engine.handle_pulse(Pulse { step_ns: 12_500_400, steps: 5, per_slot_q8: 10 << 8 });
    let status = engine.status(at(1_105));
    assert_eq!((status.step_us, status.steps_per_slot, status.y_ppb), (12_501, 10, 0));
    assert_eq!(status.phase, (4 << 32) + (1 << 31));
    // The mesh is at 4.42 frames, this member at 4.5.
    assert!((engine.phase_error_frames(at(1_105)) + 0.08).abs() < 1e-6);
}
