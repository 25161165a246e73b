//! How well nodes keep in time, and what those do that are cut off.

use super::*;
use crate::profile::Profile;

fn timing(profile: Profile, hysteresis: bool, simulated_s: u32) -> Timing {
    let base = config(8, "none", simulated_s);
    let config = SimConfig { profile: Some(profile), hysteresis, seeds: 0..2, ..base };
    let mut all = Timing::default();
    for report in reports(&config) {
        assert_eq!(report.violation, None);
        all.add(&report.timing);
    }
    assert_eq!((all.nodes, all.never_locked), (16, 0));
    assert!(all.lock_ns_max <= 5_000_000_000 && all.lock_frames_max <= 16, "{all:?}");
    all
}

#[test]
fn on_a_lan_slots_are_in_time_with_few_corrections_and_hysteresis_is_why() {
    let with = timing(Profile::Lan, true, 62);
    assert!(with.late_ratio() <= 0.08 && with.corrections_per_node_min() <= 2.0, "{with:?}");
    let without = timing(Profile::Lan, false, 62);
    assert!(without.corrections > 5 * with.corrections, "{without:?} against {with:?}");
}

#[test]
fn on_a_bad_network_slots_are_in_time_all_the_same_and_hysteresis_spares_corrections() {
    // What a tail needs is learnt from slots, one a second: the first minute is the worst.
    let (with, without) = (timing(Profile::Wifi, true, 182), timing(Profile::Wifi, false, 182));
    assert!(with.late_ratio() <= 0.08 && with.corrections_per_node_min() <= 2.0, "{with:?}");
    assert!(3 * with.corrections < without.corrections, "{with:?} against {without:?}");
}

#[test]
fn whoever_is_cut_off_works_for_some_frames_and_stands_until_it_is_back() {
    let config = SimConfig { sharing: Sharing::Equal, ..config(6, "none", 24) };
    for seed in 0..3 {
        let run = |cut: bool| {
            let mut world = World::new(&config, seed);
            if cut {
                world.strike_at(Fault::Split, 2, (5_000_000_000, 12_000_000_000));
            }
            let report = world.run(&config, &AtomicU64::new(0));
            assert_eq!(report.violation, None, "seed {seed}");
            report.timing
        };
        assert_eq!(run(false).rests, 0, "seed {seed}: nobody stands who is in the mesh");
        let timing = run(true);
        // Three of six are cut off for seven seconds, and work for T_dead and five frames of half a second at most.
        assert!(timing.rests > 0 && timing.never_locked == 0, "seed {seed}: {timing:?}");
    }
}
