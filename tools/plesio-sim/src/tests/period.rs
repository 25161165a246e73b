//! The frame period follows links and steps, and nobody who lags, restarts, comes or lies is harmed by it.

use super::*;
use crate::script::{Reach, Strike};

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// All uplinks carry 125 kB/s from then to then: a contribution and its part of a sum take longer than a frame of 100 ms.
fn narrow(from_s: u64, to_s: u64) -> Strike {
    let lasts_ns = Some((to_s - from_s) * SECOND);
    Strike { fault: Fault::Narrow, host: 0, begin_ns: from_s * SECOND, lasts_ns, reach: Reach::All, level: 8 }
}

fn paced(nodes: u8, simulated_s: u32, script: Vec<Strike>) -> SimConfig {
    let base = config(nodes, "none", simulated_s);
    // Ways that are short enough for clocks to lock within a tenth of such a frame.
    let profile = Some(crate::profile::Profile::Lan);
    SimConfig {
        profile,
        period_ns: Some(100 * MS),
        elements: Some(8_000),
        script: Some(script),
        sharing: Sharing::Equal,
        ..base
    }
}

/// Seeds whose datagrams are not so short that a state of this size is thousands of them.
fn seeds(config: &SimConfig, count: usize) -> impl Iterator<Item = u64> {
    (0..100).filter(|seed| World::new(config, *seed).pace().1 >= 1_408).take(count)
}

/// Runs a seed; the periods in force, in milliseconds.
fn periods(config: &SimConfig, seed: u64) -> (Vec<u64>, SeedReport) {
    run(World::new(config, seed), config, seed)
}

fn run(world: World, config: &SimConfig, seed: u64) -> (Vec<u64>, SeedReport) {
    let report = world.run(config, &AtomicU64::new(0));
    assert_eq!(report.violation, None, "seed {seed}: {:?}", report.periods_ns);
    let periods = report.periods_ns.iter().map(|period_ns| period_ns / MS).collect();
    println!("seed {seed}: {periods:?}, {} versions, {} views", report.frames, report.views);
    (periods, report)
}

#[test]
fn narrow_uplinks_double_the_period_and_wide_ones_bring_it_back() {
    let config = paced(4, 64, vec![narrow(3, 12)]);
    // With steps longer than half of a frame the period stays long for their sake.
    let is_quick = |seed: &u64| {
        let hosts = World::new(&config, *seed).hosts;
        hosts.iter().filter(|host| host.step_ns < 45 * MS).count() >= 3
    };
    for seed in seeds(&config, 100).filter(is_quick).take(4) {
        let (periods, report) = periods(&config, seed);
        assert!(periods.len() >= 3 && periods[1] == 200, "{periods:?}");
        assert_eq!(periods.last(), Some(&100), "{periods:?}");
        assert!(report.frames > 60, "{}", report.frames);
    }
}

#[test]
fn on_good_links_with_quick_steps_the_period_stays() {
    for seed in 0..3 {
        let config = SimConfig { period_min_ns: None, ..config(6, "none", 20) };
        assert_eq!(periods(&config, seed).0.len(), 1);
    }
}

#[test]
fn steps_longer_than_two_frames_double_the_period() {
    for seed in 0..3 {
        let slow = Strike { fault: Fault::Slow, lasts_ns: Some(12 * SECOND), level: 100, ..narrow(3, 4) };
        let script = (0..5).map(|host| Strike { host, reach: Reach::Into(host), ..slow }).collect();
        let mut config = SimConfig { elements: None, ..paced(5, 22, script) };
        config.period_ns = Some(50 * MS);
        let (periods, _) = periods(&config, seed);
        assert!(periods.len() >= 2 && periods[1] == 100, "{periods:?}");
    }
}

#[test]
fn whoever_comes_or_begins_anew_while_the_period_changes_knows_it() {
    let mut script = vec![narrow(3, 24)];
    // Around the changes: some die and return, one sleeps, one is cut off, and two come.
    for (fault, host, at_s, lasts_s) in [
        (Fault::Crash, 1, 6, 2),
        (Fault::Join, 5, 9, 0),
        (Fault::Suspend, 3, 11, 3),
        (Fault::Crash, 4, 19, 4),
        (Fault::Join, 6, 24, 0),
        (Fault::Split, 2, 27, 4),
        (Fault::Pause, 2, 33, 3),
    ] {
        let (begin_ns, lasts_ns) = (at_s * SECOND, Some(lasts_s * SECOND));
        let reach = if fault == Fault::Split { Reach::Between(0b00100) } else { Reach::Into(host) };
        script.push(Strike { fault, host, begin_ns, lasts_ns, reach, level: 50 });
    }
    let config = SimConfig { disks: true, ..paced(5, 52, script) };
    // A slot that is on its way while somebody is silent says nothing of the link, so by chance a seed may see no change.
    let mut changes = 0;
    for seed in seeds(&config, 4) {
        let mut world = World::new(&config, seed);
        world.hosts.iter_mut().for_each(|host| host.step_ns = 40 * MS);
        let (periods, report) = run(world, &config, seed);
        changes += periods.len() - 1;
        assert!(report.views >= 6, "{}", report.views);
    }
    assert!(changes >= 6, "{changes}");
}

#[test]
fn two_of_five_that_say_an_hour_move_nothing() {
    for seed in 0..3 {
        let config = SimConfig { elements: None, ..paced(5, 20, Vec::new()) };
        let mut world = World::new(&config, seed);
        (world.hosts[1].lies.drag, world.hosts[3].lies.drag) = (true, true);
        let report = world.run(&config, &AtomicU64::new(0));
        assert_eq!((report.violation, report.periods_ns), (None, vec![100 * MS]), "seed {seed}");
    }
    // With four of them each hears of a majority, and what it asks for is granted: by factors of two, 32 frames apart, up to the
    // longest that the mesh was begun with.
    let (period_ns, period_max_ns) = (Some(200 * MS), Some(800 * MS));
    let config = SimConfig { elements: None, period_ns, period_max_ns, ..paced(5, 36, Vec::new()) };
    let mut world = World::new(&config, 0);
    (0..4).for_each(|host| world.hosts[host].lies.drag = true);
    let report = world.run(&config, &AtomicU64::new(0));
    assert_eq!((report.violation, report.periods_ns), (None, vec![200 * MS, 400 * MS, 800 * MS]));
}

#[test]
fn periods_that_change_all_the_time_break_nothing() {
    // What members claim of their slots is anything from a millisecond to half a minute.
    let base = config(5, "all", 24);
    let config = SimConfig {
        claims: true,
        period_ns: Some(100 * MS),
        period_min_ns: Some(50 * MS),
        period_max_ns: Some(400 * MS),
        ..base
    };
    let mut changes = 0;
    for seed in 0..10 {
        changes += periods(&config, seed).0.len() - 1;
    }
    assert!(changes >= 10, "{changes}");
}

/// Fifteen who come within three seconds are views of future frames, so the log is ahead of the clock: every close opened two
/// and three versions, the lead grew, and all HAVEs went to everybody for good.
#[test]
fn a_log_that_ran_ahead_opens_one_version_a_frame_and_is_caught_up_with() {
    let join = |host: u8| Strike {
        fault: Fault::Join,
        host,
        begin_ns: 2_000_000_000 + 200_000_000 * u64::from(host),
        lasts_ns: None,
        reach: Reach::All,
        level: 50,
    };
    for seed in 0..3 {
        let base = config(1, "none", 60);
        let config = SimConfig {
            seeds: seed..seed + 1,
            period_ns: Some(1_000_000_000),
            period_max_ns: Some(1_000_000_000),
            script: Some((1..16).map(join).collect()),
            ..base
        };
        let report = reports(&config).remove(0);
        assert_eq!(report.violation, None, "seed {seed}");
        assert!((30..60).contains(&report.frames), "seed {seed}: {} versions in 60 frames", report.frames);
        assert!(report.sideband_bytes_per_s < 32_000, "seed {seed}: {} B/s", report.sideband_bytes_per_s);
    }
}
