//! Stories of the seven states, and the laws of the actuators.

use super::*;
use proptest::prelude::*;
use std::vec::Vec;

const SECOND: u64 = 1_000_000_000;

fn at(ms: u64) -> Instant {
    Instant(ms * 1_000_000)
}

fn clock(state: ClockState) -> MeshClock {
    MeshClock { usable: true, eps_ns: 20_000, state, ..MeshClock::default() }
}

fn locked() -> Corrector {
    let config = CorrectorConfig { period_ns: SECOND, ..CorrectorConfig::default() };
    let mut corrector = Corrector::new(at(0), config).unwrap();
    corrector.handle_master(at(0), true);
    corrector.handle_clock(at(0), &clock(ClockState::Locked));
    assert_eq!(corrector.state(), State::Locked);
    corrector
}

fn path(corrector: &mut Corrector) -> Vec<State> {
    core::iter::from_fn(|| corrector.poll_event()).map(|transition| transition.to).collect()
}

#[test]
fn a_member_locks_when_it_has_both_a_clock_and_the_state() {
    let mut corrector = Corrector::new(at(0), CorrectorConfig::default()).unwrap();
    corrector.handle_clock(at(1), &clock(ClockState::Locked));
    assert_eq!(corrector.state(), State::Acquire);
    corrector.handle_master(at(2), true);
    assert_eq!(path(&mut corrector), [State::Locked]);
}

#[test]
fn a_clock_with_a_wide_bound_is_no_lock() {
    let mut corrector = Corrector::new(at(0), CorrectorConfig::default()).unwrap();
    corrector.handle_master(at(1), true);
    corrector.handle_clock(at(1), &MeshClock { eps_ns: 50_000_000, ..clock(ClockState::Locked) });
    assert_eq!(corrector.state(), State::Acquire);
    corrector.handle_clock(at(2), &MeshClock { eps_ns: 49_000_000, ..clock(ClockState::Locked) });
    assert_eq!(corrector.state(), State::Locked);
}

#[test]
fn late_slots_strain_it_folds_make_it_slip_and_clean_slots_bring_it_back() {
    let mut corrector = locked();
    corrector.handle_slot(at(0), -0.1, 0, 0);
    corrector.handle_slot(at(0), 0.2, 0, 0);
    assert_eq!(corrector.state(), State::Locked, "one late slot of eight is absorbed");
    corrector.handle_slot(at(0), -0.1, 0, 0);
    assert_eq!(corrector.state(), State::Strained);
    corrector.handle_fold(at(0));
    assert_eq!(corrector.state(), State::Slipping);
    for _ in 0..16 {
        corrector.handle_slot(at(0), 0.2, 0, 1);
    }
    assert_eq!(
        path(&mut corrector),
        [State::Locked, State::Strained, State::Slipping, State::Strained, State::Locked]
    );
}

#[test]
fn a_hopelessly_stale_member_fetches_the_state_and_gives_up_after_three_failures() {
    let mut corrector = locked();
    corrector.handle_fold(at(0));
    corrector.handle_slot(at(0), 0.1, 0, 5);
    assert_eq!(corrector.state(), State::Slipping, "staler than tau");
    corrector.handle_slot(at(0), 0.1, 0, 17);
    assert_eq!(corrector.state(), State::Resync, "staler than 4 tau");
    corrector.handle_resync(at(0), false);
    corrector.handle_resync(at(0), true);
    assert_eq!(corrector.state(), State::Locked, "clock and state are there: ACQUIRE is passed at once");
    corrector.handle_fold(at(1));
    corrector.handle_fold(at(1));
    for _ in 0..16 {
        assert_eq!(corrector.state(), State::Slipping);
        corrector.handle_frame(at(1), 4);
    }
    assert_eq!(corrector.state(), State::Resync, "16 frames with a full ring");
    corrector.handle_quorum(at(1), false);
    for _ in 0..3 {
        corrector.handle_resync(at(1), false);
    }
    assert_eq!(corrector.state(), State::Detached);
    corrector.handle_view(at(2), true, SECOND);
    assert_eq!(path(&mut corrector).last(), Some(&State::Locked));
}

#[test]
fn without_a_clock_it_holds_over_with_a_frozen_lead() {
    let mut corrector = locked();
    corrector.handle_clock(at(2_000), &clock(ClockState::Holdover));
    assert_eq!(corrector.state(), State::Holdover, "the clock has waited: nothing waits once more");
    for _ in 0..10 {
        corrector.handle_slot(at(2_000), -0.4, 0, 0);
    }
    assert_eq!((corrector.lead_ns(), corrector.state()), (0, State::Holdover));
    corrector.handle_clock(at(3_000), &clock(ClockState::Locked));
    assert_eq!(corrector.state(), State::Locked);
    corrector.handle_clock(at(5_000), &clock(ClockState::Holdover));
    // Back, but 0.2 frames away: it is slewed, and the member counts as strained meanwhile.
    let far = MeshClock { eps_ns: 200_000_000, ..clock(ClockState::Locked) };
    corrector.handle_clock(at(5_000), &far);
    assert_eq!(corrector.state(), State::Strained);
}

#[test]
fn without_a_quorum_for_a_second_it_is_detached_until_the_mesh_is_back() {
    let mut corrector = locked();
    corrector.handle_quorum(at(100), true);
    corrector.handle_quorum(at(400), false);
    assert_eq!(corrector.poll_timeout(), Some(at(1_100)));
    corrector.handle_timeout(at(1_100));
    assert_eq!(corrector.state(), State::Detached);
    corrector.handle_quorum(at(1_500), true);
    assert_eq!(corrector.state(), State::Locked);
    corrector.handle_view(at(1_600), false, SECOND);
    corrector.handle_quorum(at(1_700), true);
    assert_eq!(corrector.state(), State::Detached, "a view without it keeps it out");
}

#[test]
fn a_member_that_is_away_works_for_tau_and_one_frames_and_stands_until_it_is_back() {
    let mut corrector = locked();
    corrector.handle_quorum(at(0), true);
    corrector.handle_quorum(at(0), false);
    corrector.handle_timeout(at(1_000));
    assert_eq!(corrector.state(), State::Detached);
    assert_eq!(corrector.poll_timeout(), Some(at(6_000)), "five frames of a second");
    corrector.handle_timeout(at(5_999));
    assert!(!corrector.is_paused());
    corrector.handle_timeout(at(6_000));
    assert!(corrector.is_paused());
    assert_eq!(corrector.poll_timeout(), None, "nothing but a word of others ends it");
    corrector.handle_view(at(9_000), true, SECOND);
    assert!(!corrector.is_paused());
    // The same from RESYNC on into DETACHED: one time, not two.
    corrector.handle_quorum(at(9_000), true);
    corrector.handle_diverged(at(10_000));
    assert_eq!((corrector.state(), corrector.resyncs()), (State::Resync, 1));
    for _ in 0..3 {
        corrector.handle_resync(at(13_000), false);
    }
    assert_eq!(corrector.state(), State::Detached, "that it is heard does not help: it has no state");
    corrector.handle_timeout(at(15_000));
    assert!(corrector.is_paused());
    corrector.handle_resync(at(16_000), true);
    assert_eq!((corrector.state(), corrector.is_paused()), (State::Locked, false));
}

#[test]
fn without_hysteresis_everything_moves_it() {
    let config = CorrectorConfig { period_ns: SECOND, ..CorrectorConfig::default() };
    let mut corrector = Corrector::without_hysteresis(at(0), config).unwrap();
    corrector.handle_master(at(0), true);
    corrector.handle_clock(at(0), &clock(ClockState::Locked));
    for slot in 0..10 {
        corrector.handle_slot(at(0), if slot % 2 == 0 { 0.1 } else { 0.25 }, 0, 0);
    }
    assert_eq!(corrector.actuations(), 10, "margins that hysteresis leaves alone");
    let bad = CorrectorConfig { dwell: 0, ..config };
    assert!(Corrector::without_hysteresis(at(0), bad).is_err());
}

#[test]
fn the_late_side_is_fast_and_the_early_side_slow() {
    let mut corrector = locked();
    corrector.handle_slot(at(0), 0.0, 0, 0);
    assert_eq!(corrector.lead_ns(), 0);
    corrector.handle_slot(at(0), 0.0, 0, 0);
    assert_eq!(corrector.lead_ns(), SECOND / 10, "lo - m + 0.05 = 0.1 frames");
    for _ in 0..7 {
        corrector.handle_slot(at(0), 0.5, 0, 0);
    }
    assert_eq!(corrector.lead_ns(), SECOND / 10);
    corrector.handle_slot(at(0), 0.5, 0, 0);
    assert_eq!(corrector.lead_ns(), 0, "half of m - hi = 0.1 frames");
    assert_eq!(corrector.actuations(), 2);
}

#[test]
fn slots_that_queue_let_a_frame_pass_and_a_lead_does_not() {
    let mut corrector = locked();
    // Two slots of this member are always before the one just cut: each is in time and waits two frames.
    for _ in 0..8 {
        corrector.handle_slot(at(0), 0.2, 2, 2);
    }
    assert_eq!((corrector.passes(), corrector.lead_ns(), corrector.actuations()), (1, 0, 1));
    for _ in 0..20 {
        corrector.handle_slot(at(0), 0.2, 1, 1);
    }
    assert_eq!(corrector.passes(), 1, "a queue of one is left alone");
    // A lead of a frame and a half makes slots early by as much: that is no queue.
    let mut corrector = locked();
    while corrector.lead_ns() < 900_000_000 {
        corrector.handle_slot(at(0), -1.0, 0, 0);
    }
    let lead_ns = corrector.lead_ns();
    for _ in 0..80 {
        corrector.handle_slot(at(0), 1.6, 0, 0);
    }
    assert!(corrector.lead_ns() < lead_ns && corrector.passes() == 0);
}

#[test]
fn delays_with_a_long_tail_get_a_lead_that_stays() {
    let mut corrector = locked();
    // One slot of ten is 0.4 frames late at no lead, all others are there after 0.05: no two in a row.
    let (mut late, mut moves) = (0, 0);
    for slot in 0..400 {
        let delay = if slot % 10 == 9 { 0.4 } else { 0.05 };
        let margin = corrector.lead_ns() as f64 / SECOND as f64 - delay;
        late += u32::from(margin < 0.0);
        corrector.handle_slot(at(0), margin, 0, 0);
        if slot == 99 {
            moves = corrector.actuations();
        }
    }
    assert!(late == 4 && corrector.lead_ns() >= 400_000_000, "{late} late at {}", corrector.lead_ns());
    assert!(corrector.actuations() <= moves + 2, "{moves} moves, then {}", corrector.actuations());
}

#[test]
fn what_few_slots_tell_of_a_tail_is_believed_whole_and_what_many_tell_but_for_two() {
    let mut corrector = locked();
    let slot = |corrector: &mut Corrector, delay: f64| {
        corrector.handle_slot(at(0), corrector.lead_ns() as f64 / SECOND as f64 - delay, 0, 0);
    };
    // The second late slot of five raises the lead to what the later of both needed.
    for delay in [-0.1, 0.35, -0.1, -0.1, 0.2] {
        slot(&mut corrector, delay);
    }
    let lead_ns = corrector.lead_ns();
    assert!(lead_ns.abs_diff(450_000_000) < 10, "{lead_ns}: 0.35 + lo + 0.05");
    assert_eq!(corrector.actuations(), 1);
    // That was one of a hundred: when 64 others are known, the lead goes down to what they need, step by step.
    for _ in 0..120 {
        slot(&mut corrector, 0.1);
    }
    let lead_ns = corrector.lead_ns();
    assert!((150_000_000..410_000_000).contains(&lead_ns), "{lead_ns}");
    // Four late ones of 64 are accidents then, five are not.
    for late in 0..5 {
        assert_eq!(corrector.lead_ns(), lead_ns, "after {late}");
        for _ in 0..8 {
            slot(&mut corrector, 0.1);
        }
        slot(&mut corrector, 0.6);
    }
    assert!(corrector.lead_ns() > lead_ns);
}

#[test]
fn slots_behind_one_that_is_on_its_way_are_late_and_move_no_lead() {
    let mut corrector = locked();
    // One slot was stuck, and those cut meanwhile came one by one behind it.
    corrector.handle_slot(at(0), 0.1, 0, 0);
    corrector.handle_slot(at(0), -0.2, 0, 2);
    for margin in [-1.4, -0.4, -0.3] {
        corrector.handle_slot_behind(at(0), margin, 0, 2);
    }
    assert_eq!((corrector.lead_ns(), corrector.actuations()), (0, 0));
    assert_eq!((corrector.state(), corrector.seen()), (State::Strained, 5), "they are late all the same");
    // Had they been remembered, the next slot that is a little late would have raised the lead by what they lacked.
    corrector.handle_slot(at(0), -0.01, 0, 0);
    assert!(corrector.lead_ns() < SECOND / 2, "{}", corrector.lead_ns());
    // In time behind another they prove no lead too long either.
    let lead_ns = corrector.lead_ns();
    for _ in 0..40 {
        corrector.handle_slot_behind(at(0), 0.9, 0, 0);
    }
    assert_eq!(corrector.lead_ns(), lead_ns);
}

#[test]
fn slots_behind_others_lengthen_the_stride_and_let_a_frame_pass() {
    let mut corrector = locked();
    corrector.handle_transfer(1_700_000_000);
    for _ in 0..20 {
        corrector.handle_slot_behind(at(0), -0.9, 0, 0);
    }
    assert_eq!((corrector.stride(), corrector.lead_ns()), (3, 0), "a link that is too slow for every frame");
    for _ in 0..8 {
        corrector.handle_slot_behind(at(0), 0.2, 2, 2);
    }
    assert_eq!(corrector.passes(), 1);
}

#[test]
fn who_is_alone_has_no_stride_for_the_sake_of_links() {
    let mut corrector = locked();
    corrector.handle_transfer(1_700_000_000);
    for _ in 0..20 {
        corrector.handle_slot(at(0), 0.2, 0, 0);
    }
    corrector.handle_alone();
    assert_eq!((corrector.stride(), corrector.transfer_ns()), (1, None));
}

#[test]
fn a_slow_link_lengthens_the_stride_and_a_fast_one_shortens_it() {
    let mut corrector = locked();
    corrector.handle_transfer(1_700_000_000);
    for _ in 0..20 {
        corrector.handle_slot(at(0), 0.2, 0, 0);
    }
    assert_eq!(corrector.stride(), 3, "1.7 frames fit into 0.8 of three");
    corrector.handle_transfer(5_000_000_000);
    corrector.handle_slot(at(0), 0.2, 0, 0);
    assert_eq!(corrector.stride(), 3, "one bad moment");
    corrector.handle_transfer(300_000_000);
    for _ in 0..40 {
        corrector.handle_slot(at(0), 0.2, 0, 0);
    }
    assert_eq!(corrector.stride(), 1);
}

#[test]
fn settings_out_of_range_are_refused_by_name() {
    let good = CorrectorConfig::default();
    let refused = |config| Corrector::new(at(0), config).err();
    assert_eq!(refused(good), None);
    assert_eq!(refused(CorrectorConfig { period_ns: 1, ..good }), Some(ConfigError::Period { period_ns: 1 }));
    assert_eq!(refused(CorrectorConfig { dwell: 0, ..good }), Some(ConfigError::Dwell { dwell: 0 }));
    assert_eq!(
        refused(CorrectorConfig { staleness_max: 1, ..good }),
        Some(ConfigError::Staleness { staleness_max: 1 })
    );
    assert_eq!(
        refused(CorrectorConfig { ring_depth: 17, ..good }),
        Some(ConfigError::Depth { ring_depth: 17 })
    );
    assert!(refused(CorrectorConfig { lo: 0.2, hi: 0.25, ..good }).is_some());
    assert!(refused(CorrectorConfig { lo: f64::NAN, ..good }).is_some());
}

proptest! {
    /// I9, first half: noise inside the band moves nothing.
    #[test]
    fn noise_inside_the_band_moves_nothing(
        margins in prop::collection::vec(0.0501f64..0.2999, 1..400), dwell in 1u32..8,
    ) {
        let config = CorrectorConfig { period_ns: SECOND, dwell, ..CorrectorConfig::default() };
        let mut corrector = Corrector::new(at(0), config).unwrap();
        corrector.handle_master(at(0), true);
        corrector.handle_clock(at(0), &clock(ClockState::Locked));
        corrector.handle_transfer(SECOND / 2);
        for margin in margins {
            corrector.handle_slot(at(0), margin, 0, 0);
        }
        prop_assert_eq!((corrector.actuations(), corrector.lead_ns(), corrector.stride()), (0, 0, 1));
    }

    /// I9, second half: whatever comes in, at most one actuator moves, at most once per dwell, inside its range.
    #[test]
    fn the_actuators_are_bounded_whatever_comes(
        inputs in prop::collection::vec((0u8..10, -20.0f64..20.0, 0u64..40), 1..500), dwell in 1u32..6,
    ) {
        let config = CorrectorConfig { period_ns: SECOND, dwell, ..CorrectorConfig::default() };
        let mut corrector = Corrector::new(at(0), config).unwrap();
        let mut since = dwell;
        for (step, (kind, margin, staleness)) in inputs.into_iter().enumerate() {
            let now = at(step as u64 * 100);
            let before = (corrector.lead_ns(), corrector.stride(), corrector.actuations(), corrector.passes());
            match kind {
                0..=3 => { corrector.handle_slot(now, margin, staleness % 3, staleness); since += 1 }
                4 => corrector.handle_fold(now),
                5 => corrector.handle_frame(now, staleness as u8),
                6 => corrector.handle_transfer(staleness * SECOND / 4),
                7 => {
                    corrector.handle_quorum(now, staleness != 0);
                    corrector.handle_resync(now, staleness % 2 == 0);
                    corrector.handle_view(now, staleness % 9 != 0, SECOND);
                    corrector.handle_master(now, staleness % 5 != 0);
                    if staleness % 7 == 1 { corrector.handle_diverged(now) }
                }
                8 => { corrector.handle_slot_behind(now, margin, staleness % 3, staleness); since += 1 }
                _ => {
                    let states = [ClockState::Acquire, ClockState::Locked, ClockState::Holdover];
                    corrector.handle_clock(now, &clock(states[staleness as usize % 3]));
                }
            }
            let moved = u64::from(before.0 != corrector.lead_ns())
                + u64::from(before.1 != corrector.stride())
                + u64::from(before.3 != corrector.passes());
            prop_assert_eq!(corrector.actuations() - before.2, moved);
            prop_assert!(moved <= 1);
            if moved == 1 {
                prop_assert!(since >= dwell, "moved after {} slots of {}", since, dwell);
                since = 0;
            }
            let away = matches!(corrector.state(), State::Resync | State::Detached);
            prop_assert!(away || !corrector.is_paused());
            prop_assert!(corrector.lead_ns() <= 3 * SECOND && (1..=16).contains(&corrector.stride()));
            while let Some(transition) = corrector.poll_event() {
                prop_assert_ne!(transition.from, transition.to);
            }
        }
    }
}
