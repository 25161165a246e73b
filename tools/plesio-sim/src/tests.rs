//! Whole meshes: each kind of fault, the same story twice, bugs planted on purpose, and seeds that once failed.

mod laws;
mod timing;

use super::*;
use crate::impair::Impairment;
use crate::random::Random;
use plesio::{Codec, Lambda, Nesterov, Outer, Rules, Sharing, WeightMode, What};

fn config(nodes: u8, faults: &str, simulated_s: u32) -> SimConfig {
    SimConfig { nodes, faults: faults.parse().unwrap(), simulated_s, ..SimConfig::default() }
}

fn violations(config: &SimConfig, seeds: std::ops::Range<u64>) -> Vec<String> {
    let report = run(&SimConfig { seeds, ..config.clone() }).unwrap();
    report.violations.iter().map(ToString::to_string).collect()
}

/// Runs one seed with every process prepared by `plant`; what the checker says.
fn planted(faults: &str, seed: u64, plant: impl Fn(&mut process::Process)) -> String {
    let config = config(4, faults, 12);
    let mut world = World::new(&config, seed);
    for host in &mut world.hosts {
        host.process.iter_mut().for_each(&plant);
    }
    let report = world.run(&config, &AtomicU64::new(0));
    report.violation.map_or_else(String::new, |violation| violation.what)
}

#[test]
fn every_kind_of_fault_alone_breaks_nothing() {
    for fault in Fault::ALL {
        let config = config(4, fault.name(), 12);
        let found = violations(&config, 0..3);
        assert!(found.is_empty(), "{found:?}");
    }
}

/// README decision 8: a mesh clock that is off by a tenth of a frame at half of the members costs nothing but margin, one that is off
/// by a frame costs time and no promise. The table in ARCHITECTURE is of `plesio sim --clock-error`.
#[test]
fn a_wrong_mesh_clock_costs_pace_and_no_promise() {
    let paced = |clock_error_millis| {
        let report = run(&SimConfig { seeds: 0..4, clock_error_millis, ..config(8, "none", 15) }).unwrap();
        assert!(report.violations.is_empty(), "{clock_error_millis}: {:?}", report.violations);
        println!("{clock_error_millis}: {:?}, {} ns", report.timing, report.commit_ns);
        (report.timing.slots as f64, report.timing.late_ratio())
    };
    let (exact, tenth, frame) = (paced(0), paced(100), paced(1_000));
    assert!(exact.1 < 0.08, "{exact:?}");
    assert!(tenth.0 > 0.9 * exact.0, "{exact:?}, {tenth:?}");
    assert!(frame.1 > exact.1, "the error is felt: {exact:?}, {frame:?}");
    assert!(frame.0 > 0.5 * exact.0, "{exact:?}, {frame:?}");
}

#[test]
fn all_kinds_together_break_nothing_and_all_take_place() {
    let config = SimConfig { seeds: 0..12, ..config(5, "all", 12) };
    let report = run(&config).unwrap();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert!(report.frames > 12 * 10 && report.seeds == 12, "{report:?}");
    assert_eq!(report.faults.len(), Fault::ALL.len(), "{:?}", report.faults);
    assert_eq!(report.faults_injected, report.faults.values().sum::<u64>());
}

/// F27: all of a mesh die, or all but one that keeps its memory and is no quorum; who comes back goes on once.
#[test]
fn f27_a_mesh_that_died_begins_again_from_its_disks_and_only_once() {
    for seed in 0..10 {
        let config = SimConfig { disks: true, story: true, ..config(5, "none", 30) };
        let mut world = World::new(&config, seed);
        let mut random = Random::new(seed, "power cut");
        for host in random.below(2) as u8..5 {
            let dies_ns = 8_000_000_000 + random.below(500_000_000);
            let back_ns = random.between(9_000_000_000, 13_000_000_000);
            world.power_cut(host, (dies_ns, back_ns));
        }
        let report = world.run(&config, &AtomicU64::new(0));
        let begun = report.story.iter().filter(|line| line.contains("BEGINS AGAIN")).count();
        assert!(report.violation.is_none(), "seed {seed}: {:?}", report.violation);
        assert_eq!(begun, 1, "seed {seed}");
        assert!(report.frames > 15, "seed {seed}: {} versions", report.frames);
    }
}

/// T18: a member serves joiners a state that nobody agreed on, with a digest that fits it. Nobody holds it.
#[test]
fn t18_a_faked_state_is_not_taken_when_another_member_says_otherwise() {
    let mut thrown_away = 0;
    for seed in 0..12 {
        let config = SimConfig { sharing: Sharing::Equal, story: true, ..config(5, "join", 16) };
        let mut world = World::new(&config, seed);
        // Two of five, so that most joiners ask one of them.
        for host in &mut world.hosts[..2] {
            host.process.iter_mut().for_each(|process| process.fakes = true);
        }
        let report = world.run(&config, &AtomicU64::new(0));
        assert!(report.violation.is_none(), "seed {seed}: {:?}", report.violation);
        let met = |line: &&String| line.contains("fakes: ") && !line.contains("fakes: 0,");
        thrown_away += report.story.iter().filter(met).count();
    }
    assert!(thrown_away > 2, "{thrown_away} faked states were met");
}

#[test]
fn every_phase_is_struck() {
    let config = SimConfig { seeds: 0..40, ..config(8, "crash,proposer,mtu", 12) };
    let report = run(&config).unwrap();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    let least = report.coverage.least(config.faults);
    assert!(
        least.is_some_and(|(.., hits)| hits > 0),
        "{least:?} of {}",
        report.coverage.table(config.faults)
    );
    let phases = |fault| Phase::ALL.map(|phase| report.coverage.of(fault, phase)).iter().sum::<u64>();
    assert!(config.faults.iter().all(|fault| phases(fault) >= report.faults[&fault]));
}

/// The longest gap between versions of any of these seeds, milliseconds.
fn longest_gap_ms(config: &SimConfig) -> u64 {
    let reports = reports(config);
    let broken: Vec<_> = reports.iter().filter_map(|report| report.violation.as_ref()).collect();
    assert!(broken.is_empty(), "{broken:?}");
    reports.iter().map(|report| report.gap_ns / 1_000_000).max().unwrap_or(0)
}

#[test]
fn f12_a_path_that_becomes_narrow_is_no_black_hole_for_a_second() {
    // Two frames of half a second besides.
    let config = SimConfig { seeds: 0..12, ..config(5, "mtu", 20) };
    let gap_ms = longest_gap_ms(&config);
    assert!(gap_ms <= 2_000, "{gap_ms} ms");
}

/// The longest gap of meshes of six in which one thing goes wrong from 5 to 9 s, milliseconds.
fn gap_after_ms(kind: Fault) -> u64 {
    let config = SimConfig { sharing: Sharing::Equal, ..config(6, "none", 20) };
    let gap = |seed| {
        let mut world = World::new(&config, seed);
        world.strike_at(kind, 2, (5_000_000_000, 9_000_000_000));
        let report = world.run(&config, &AtomicU64::new(0));
        assert_eq!((&report.violation, report.faults[&kind]), (&None, 1));
        report.gap_ns / 1_000_000
    };
    (0..8).map(gap).max().unwrap_or(0)
}

#[test]
fn f5_one_half_goes_on() {
    // The others are left out after a second, and frames take up to half of one.
    let gap_ms = gap_after_ms(Fault::Split);
    assert!((1_000..3_000).contains(&gap_ms), "{gap_ms} ms");
}

#[test]
fn f7_a_fifth_of_all_datagrams_may_be_lost_and_nobody_is_left_out() {
    let links = Impairment { loss_ppm: 200_000, ..Impairment::default() };
    let config = SimConfig { seeds: 0..8, links, sharing: Sharing::Equal, ..config(8, "none", 30) };
    let reports = reports(&config);
    assert!(reports.iter().all(|report| report.violation.is_none() && report.views == 0));
}

#[test]
fn t14_liars_that_are_no_majority_have_nobody_left_out() {
    for nodes in [3, 5, 8] {
        let config = SimConfig { seeds: 0..6, sharing: Sharing::Equal, ..config(nodes, "accuse", 20) };
        let reports = reports(&config);
        assert!(
            reports.iter().all(|report| report.violation.is_none() && report.views == 0),
            "{nodes} nodes"
        );
        assert!(reports.iter().all(|report| report.faults[&Fault::Accuse] > 0));
    }
}

#[test]
fn t15_who_sends_no_data_holds_nobody_up_for_long() {
    // It is waited for, found out and left out: three times what a version may stay open, a second, and a view.
    let gap_ms = gap_after_ms(Fault::Stall);
    assert!((1_000..6_000).contains(&gap_ms), "{gap_ms} ms");
}

#[test]
fn t11_whoever_forges_what_it_announced_cannot_part_the_others() {
    let config = SimConfig { seeds: 0..12, ..config(5, "forge,crash,loss", 15) };
    let report = run(&config).unwrap();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert!(report.lies > 100, "{} lies", report.lies);
}

#[test]
fn t11_whoever_tells_this_one_that_and_that_one_this_is_noticed() {
    let config = SimConfig { seeds: 0..12, ..config(5, "equivocate", 15) };
    let report = run(&config).unwrap();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert!(report.lies > 100 && report.frames > 0, "{} lies", report.lies);
}

#[test]
fn who_works_on_after_halt_is_found() {
    let config = config(4, "none", 12);
    let mut world = World::new(&config, 1);
    world.strike_at(Fault::Halt, 0, (3_000_000_000, 5_000_000_000));
    world.hosts[2].process.as_mut().unwrap().ignores = true;
    let what = world.run(&config, &AtomicU64::new(0)).violation.unwrap().what;
    assert!(what.starts_with("P8, T17: n2 works on"), "{what}");
}

#[test]
fn the_sideband_keeps_its_budget_for_a_minute() {
    for (nodes, budget, simulated_s) in [(16, 32_000, 70), (32, 64_000, 24)] {
        let config = SimConfig { period_ns: Some(1_000_000_000), ..config(nodes, "none", simulated_s) };
        let report = World::new(&config, 1).run(&config, &AtomicU64::new(0));
        assert_eq!(report.violation, None);
        let rate = report.sideband_bytes_per_s;
        println!(
            "N = {nodes}, {} versions: {rate} of {budget} B/s, beats every {} ms",
            report.frames,
            report.beat_ns / 1_000_000
        );
        assert!(report.frames > 15 && rate > budget / 4 && rate < budget, "{rate} B/s of {budget}");
    }
}

/// The longest gap between versions of six members of which one does not hear another one from 5 to 12 s, and how many views.
fn deaf(seed: u64) -> (u64, u64, u64) {
    let config = SimConfig { sharing: Sharing::Equal, story: true, ..config(6, "none", 24) };
    let mut world = World::new(&config, seed);
    world.cut_at((1, 2), (5_000_000_000, 12_000_000_000));
    let report = world.run(&config, &AtomicU64::new(0));
    assert_eq!((&report.violation, report.faults[&Fault::OneWay]), (&None, 1), "seed {seed}");
    (report.gap_ns / 1_000_000, report.views, report.frames)
}

#[test]
fn f6_one_dead_direction_puts_nobody_out_and_holds_nobody_up() {
    for seed in 0..4 {
        let (gap_ms, views, frames) = deaf(seed);
        println!("seed {seed}: {frames} versions, the longest gap {gap_ms} ms");
        // A frame of half a second at most, and the time until somebody is helped.
        assert!(views == 0 && gap_ms <= 1_500 && frames >= 40, "seed {seed}: {gap_ms} ms, {views}, {frames}");
    }
}

/// A mesh of eight of which two keep orders to themselves, a tenth of all datagrams lost: HALT from 5 to 9 s.
fn halted(seed: u64) -> SeedReport {
    let links = Impairment { loss_ppm: 100_000, ..Impairment::default() };
    let config = SimConfig { links, sharing: Sharing::Equal, story: true, ..config(8, "none", 18) };
    let mut world = World::new(&config, seed);
    let liars = [seed % 8, (seed + 3) % 8].map(|host| host as u8);
    for liar in liars {
        world.strike_at(Fault::Suppress, liar, (4_000_000_000, 10_000_000_000));
    }
    let origin = (0..8).find(|host| !liars.contains(host)).unwrap();
    world.strike_at(Fault::Halt, origin, (5_000_000_000, 9_000_000_000));
    // One of those that stand still dies, and begins anew with nothing but its disk.
    world.strike_at(
        Fault::Crash,
        (0..8).rfind(|host| !liars.contains(host)).unwrap(),
        (6_600_000_000, 7_000_000_000),
    );
    world.run(&config, &AtomicU64::new(0))
}

#[test]
fn t17_p8_eight_nodes_stand_still_within_a_second_though_two_keep_halt_to_themselves() {
    let mut took_ms: Vec<u64> = Vec::new();
    for seed in 0..20 {
        let report = halted(seed);
        assert_eq!(report.violation, None, "seed {seed}");
        assert_eq!((report.faults[&Fault::Halt], report.faults[&Fault::Suppress]), (1, 2), "seed {seed}");
        // Nobody decides anything while it lasts, and after it the mesh goes on.
        assert!(report.gap_ns > 3_000_000_000 && report.frames > 20, "seed {seed}: {report:?}");
        took_ms.push(report.halt_ns / 1_000_000);
    }
    took_ms.sort_unstable();
    println!("halted after {took_ms:?} ms");
    assert!(took_ms.iter().all(|ms| (1..=1_000).contains(ms)), "{took_ms:?}");
}

#[test]
fn p8_orders_come_through_whatever_else_goes_wrong() {
    for (faults, seeds) in [
        ("halt,suppress", 0..8),
        ("halt,suppress,partition,crash,restart,loss", 0..8),
        ("all,halt,suppress", 0..12),
    ] {
        let config = SimConfig { seeds, ..config(6, faults, 20) };
        let reports = reports(&config);
        let broken: Vec<_> = reports.iter().filter_map(|report| report.violation.as_ref()).collect();
        assert!(broken.is_empty(), "{faults}: {broken:?}");
        let halts: u64 = reports.iter().filter_map(|report| report.faults.get(&Fault::Halt)).sum();
        assert!(halts > 2, "{faults}: {halts} halts");
        println!(
            "{faults}: {halts} halts, {:?} ms",
            reports.iter().map(|report| report.halt_ns / 1_000_000).max()
        );
    }
}

#[test]
fn thirty_two_nodes_and_five_minutes() {
    let found = violations(&config(32, "all", 12), 0..1);
    assert!(found.is_empty(), "{found:?}");
    let found = violations(&config(4, "all", 280), 0..1);
    assert!(found.is_empty(), "{found:?}");
}

/// Shows: a crash is seen by all after 0.6 s (median) and 1.2 s (at most); what it costs is what the dead had, and of their
/// slots no more than a ring.
#[test]
fn f1_a_crash_is_seen_by_all_and_costs_no_more_than_a_ring() {
    let report = run(&SimConfig { seeds: 0..10, ..config(8, "crash", 20) }).unwrap();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    let mut seen_ns = report.seen_ns;
    seen_ns.sort_unstable();
    let (median_ns, most_ns) = (seen_ns[seen_ns.len() / 2], seen_ns[seen_ns.len() - 1]);
    assert!(seen_ns.len() >= 20, "{} kills", seen_ns.len());
    assert!(median_ns <= 600_000_000 && most_ns <= 1_200_000_000, "{median_ns} and {most_ns} ns");
    let mass = report.mass;
    assert!(mass.is_exact() && mass.committed > mass.produced / 2, "{mass:?}");
    assert!(mass.killed >= 20 && (1..=8).contains(&mass.slots_lost_most), "{mass:?}");
}

/// The short form of ten hours: `plesio sim --nodes 8 --seeds 0..10 --faults none --loss 20% --seconds 3600`.
#[test]
fn f7_who_is_heard_four_times_in_five_is_never_left_out() {
    let links = Impairment { loss_ppm: 200_000, ..Impairment::default() };
    let report = run(&SimConfig { seeds: 0..2, links, ..config(8, "none", 60) }).unwrap();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    let mass = report.mass;
    assert!(mass.is_exact() && (mass.killed, mass.lost_in_slots, mass.lost_uncut) == (0, 0, 0), "{mass:?}");
}

#[test]
fn one_alone_and_two_are_meshes_too() {
    for nodes in 1..=2 {
        let found = violations(&config(nodes, "loss,pause,clock", 10), 0..3);
        assert!(found.is_empty(), "{found:?}");
    }
}

#[test]
fn a_seed_has_one_story_however_many_threads_tell_it() {
    let one = SimConfig { seeds: 3..7, threads: 1, story: true, ..config(4, "all", 10) };
    let two = SimConfig { threads: 2, story: false, ..one.clone() };
    let stories = Mutex::new(Vec::new());
    let first = run_with(&one, |seed| stories.lock().unwrap().push(seed.story.clone())).unwrap();
    assert_eq!(first, run(&two).unwrap());
    let stories = stories.into_inner().unwrap();
    assert!(stories.iter().all(|story| story.len() > 100));
    let other = SimConfig { seeds: 4..8, ..two };
    assert_ne!(first.trace_hash, run(&other).unwrap().trace_hash);
}

#[test]
fn a_bent_sum_is_found() {
    // One node's own result is changed by a bit's worth before it is added.
    let key = std::cell::Cell::new(true);
    let what = planted("none", 1, |process| process.bends = key.replace(false));
    assert!(what.starts_with("I4: n0 holds"), "{what}");
}

#[test]
fn a_node_that_reckons_wrong_once_takes_the_right_state_over() {
    let config = SimConfig { story: true, ..config(4, "loss", 12) };
    for seed in 0..4 {
        let mut world = World::new(&config, seed);
        world.hosts[seed as usize].process.as_mut().unwrap().errs = 1;
        let report = world.run(&config, &AtomicU64::new(0));
        assert_eq!(report.violation, None, "seed {seed}");
        let given_up = report.story.iter().filter(|line| line.contains("Resync {")).count();
        assert_eq!(given_up, 1, "seed {seed}");
        let went = |words: &str| report.story.iter().any(|line| line.contains(words));
        assert!(went("-> RESYNC") && went("RESYNC -> ACQUIRE"), "seed {seed}");
        assert!(report.frames > 12, "seed {seed}: {} versions", report.frames);
    }
}

#[test]
fn spilled_mass_is_found() {
    let what = planted("pause,partition", 2, |process| process.worker.spills = true);
    assert!(what.contains("I2: element 0: produced"), "{what}");
}

#[test]
fn a_slot_committed_twice_is_found() {
    let what = planted("none", 3, |process| process.repeats = true);
    assert!(what.starts_with("I6:") && what.contains("stands Final"), "{what}");
}

#[test]
fn datagrams_received_before_the_work_that_waits_are_found() {
    let found = (0..20).map(|seed| planted("loss,delay", seed, |process| process.hurries = true));
    let found: Vec<String> = found.filter(|what| !what.is_empty()).collect();
    assert!(found.iter().any(|what| what.starts_with("I4: ")), "{found:?}");
}

/// The number that ends a line of a story with these words.
fn number_after(line: &str, words: &str) -> Option<u64> {
    line.split_once(words)?.1.trim().parse().ok()
}

#[test]
fn a_state_that_takes_many_frames_still_catches_up() {
    // Every version brings results as large as the state, an eighth on each link to the joiner; the state itself
    // comes over one of them, in what the results leave free: more than five frames.
    let config = SimConfig { story: true, sharing: plesio::Sharing::Equal, ..config(8, "join", 16) };
    let mut caught_up = 0;
    for seed in 0..100 {
        let mut world = World::with_state(&config, seed, Some(60_000));
        if world.pace() != (250_000_000, 1_408) || world.hosts.len() == 8 {
            continue;
        }
        for host in 8..world.hosts.len() as u8 {
            world.net.throttle(host, 600_000);
        }
        let joiners = world.hosts.len() as u64 - 8;
        let report = world.run(&config, &AtomicU64::new(0));
        assert_eq!(report.violation, None, "seed {seed}");
        assert!(report.views >= joiners, "seed {seed}: {} views", report.views);
        let versions = |words| report.story.iter().filter_map(move |line| number_after(line, words));
        let (first, last) = (versions("installs version "), versions("goes on to version "));
        let gathered: Vec<u64> = first.zip(last).map(|(first, last)| last - first).collect();
        assert!(gathered.iter().any(|versions| *versions >= 5), "seed {seed}: {gathered:?}");
        caught_up += gathered.len();
        if caught_up >= 2 {
            return;
        }
    }
    panic!("no seed has joiners");
}

/// Every seed's report.
fn reports(config: &SimConfig) -> Vec<SeedReport> {
    let reports = Mutex::new(Vec::new());
    run_with(config, |seed| reports.lock().unwrap().push(seed.clone())).unwrap();
    reports.into_inner().unwrap()
}

#[test]
fn every_codec_survives_all_faults() {
    for codec in [Codec::Bf16, Codec::Int8, Codec::Int4By64, Codec::Int4By128] {
        let config = SimConfig { seeds: 0..4, codec, ..config(4, "all", 12) };
        let report = run(&config).unwrap();
        assert!(report.violations.is_empty(), "{codec:?}: {:?}", report.violations);
        assert!(report.frames > 4 * 8, "{codec:?}: {report:?}");
    }
}

#[test]
fn every_weight_mode_survives_all_faults_with_exact_sums() {
    for weights in [WeightMode::Work, WeightMode::Equal] {
        let rules = Rules { weights, ..Rules::default() };
        let config = SimConfig { seeds: 0..4, rules, ..config(5, "all", 12) };
        let report = run(&config).unwrap();
        assert!(report.violations.is_empty(), "{weights:?}: {:?}", report.violations);
        assert!(report.frames > 4 * 8, "{weights:?}: {report:?}");
        // Other weights make another story out of the same seed.
        let mass = run(&SimConfig { rules: Rules::default(), ..config }).unwrap();
        assert_ne!(report.trace_hash, mass.trace_hash, "{weights:?}");
    }
}

#[test]
fn what_staleness_takes_comes_back_in_every_mode_and_codec() {
    let half = Lambda::new(1 << 23).unwrap();
    for (weights, codec) in
        [(WeightMode::Mass, Codec::Full), (WeightMode::Work, Codec::Int8), (WeightMode::Equal, Codec::Full)]
    {
        let rules = Rules { weights, lambda: half, ..Rules::default() };
        let config = SimConfig { seeds: 0..4, rules, codec, ..config(5, "all", 12) };
        let report = run(&config).unwrap();
        assert!(report.violations.is_empty(), "{weights:?}: {:?}", report.violations);
        assert!(report.frames > 4 * 8, "{weights:?}: {report:?}");
        let all = run(&SimConfig { rules: Rules { weights, ..Rules::default() }, ..config }).unwrap();
        assert_ne!(report.trace_hash, all.trace_hash, "{weights:?}: nothing was discounted");
    }
}

#[test]
fn the_outer_momentum_is_part_of_the_state() {
    let rules = Rules { outer: Outer::Nesterov(Nesterov::TUNED), ..Rules::default() };
    // Joiners and laggards take it over, and results that they gather go through it one by one.
    for (faults, seeds) in [("all", 0..6), ("join,leave,loss", 6..10)] {
        let config = SimConfig { seeds, rules, ..config(5, faults, 12) };
        let report = run(&config).unwrap();
        assert!(report.violations.is_empty(), "{faults}: {:?}", report.violations);
        assert!(report.frames > 4 * 8, "{faults}: {report:?}");
    }
}

#[test]
fn shares_that_change_all_the_time_break_nothing() {
    // Liars all of them: whatever they say, everybody ends with the same bits.
    for (codec, faults, seeds) in [
        (Codec::Full, "all", 0..8),
        (Codec::Int8, "all", 0..6),
        (Codec::Full, "join,leave,crash,loss", 8..12),
    ] {
        let config = SimConfig { seeds, codec, claims: true, ..config(5, faults, 20) };
        let reports = reports(&config);
        let broken: Vec<_> = reports.iter().filter_map(|report| report.violation.as_ref()).collect();
        assert!(broken.is_empty(), "{codec:?}: {broken:?}");
        let unlike: u64 = reports.iter().map(|report| report.unlike_views).sum();
        assert!(unlike >= reports.len() as u64, "{codec:?}: {unlike} views of unlike shares");
    }
}

/// Four hosts, one of which has ten times the others' uplink.
fn unlike_lines(sharing: Sharing) -> SimConfig {
    let slow = Line { up_bytes_per_s: 1_000_000, down_bytes_per_s: 10_000_000 };
    let fast = Line { up_bytes_per_s: 10_000_000, ..slow };
    SimConfig {
        sharing,
        codec: Codec::Int8,
        elements: Some(60_000),
        lines: vec![slow, fast, slow, slow],
        ..config(4, "none", 20)
    }
}

/// Seeds whose frames and chunks suit such lines: one in thirty.
fn suited(config: &SimConfig) -> impl Iterator<Item = u64> {
    (0..400).filter(|seed| World::new(config, *seed).pace() == (250_000_000, 1_408))
}

#[test]
fn shares_by_rate_shorten_the_exchange_on_unlike_lines() {
    // Of one seed alone chance decides too much: lines are full, and a lost packet more is a frame less.
    let run = |sharing: Sharing| {
        let config = unlike_lines(sharing);
        let one = |seed| {
            let report = World::new(&config, seed).run(&config, &AtomicU64::new(0));
            assert_eq!(report.violation, None);
            let ms = report.commit_ns / 1_000_000;
            println!("{sharing:?} {seed}: {} versions, {ms} ms to final, {:?}", report.frames, report.shares);
            report
        };
        suited(&config).take(4).map(one).collect::<Vec<_>>()
    };
    let (equal, rate) = (run(Sharing::Equal), run(Sharing::Rate));
    assert!(equal.iter().all(|report| report.shares.is_empty()));
    let most = rate.iter().filter_map(|report| report.shares.iter().copied().max()).max().unwrap_or_default();
    assert!(u32::from(most) * 2 > u32::from(plesio_wire::shares::SHARE_ONE), "{most}");
    let total = |reports: &[crate::SeedReport]| reports.iter().map(|report| report.commit_ns).sum::<u64>();
    assert!(5 * total(&rate) < 4 * total(&equal), "{} {}", total(&rate), total(&equal));
}

#[test]
fn the_largest_owner_dies_and_comes_back() {
    // Four times as quick, so that three slow ones alone still end within a frame.
    let mut config = unlike_lines(Sharing::Rate);
    for line in &mut config.lines {
        (line.up_bytes_per_s, line.down_bytes_per_s) = (4 * line.up_bytes_per_s, 4 * line.down_bytes_per_s);
    }
    // Shared out before, without it, and once more with it: when that is, and whether rates have changed enough until then,
    // is the seed's.
    let mut whole = 0;
    for seed in suited(&config).take(6) {
        let mut world = World::new(&config, seed);
        world.strike_at(Fault::Crash, 1, (9_000_000_000, 11_000_000_000));
        let report = world.run(&config, &AtomicU64::new(0));
        assert_eq!(report.violation, None, "seed {seed}");
        whole += u32::from(report.unlike_views >= 1 && report.views >= 3);
    }
    assert!(whole >= 2, "{whole} of 6");
}

#[test]
fn f1_a_host_that_says_that_a_process_ended_shortens_the_gap() {
    let gap_ms = |kind, seed| {
        let config = config(5, "none", 15);
        let mut world = World::new(&config, seed);
        world.strike_at(kind, 2, (8_000_000_000, 15_000_000_000));
        let report = world.run(&config, &AtomicU64::new(0));
        assert!(report.violation.is_none() && report.views >= 1, "seed {seed}: {:?}", report.violation);
        report.gap_ns / 1_000_000
    };
    let gaps = (0..6).map(|seed| (gap_ms(Fault::Crash, seed), gap_ms(Fault::Exit, seed)));
    let gaps: Vec<(u64, u64)> = gaps.inspect(|gaps| println!("{gaps:?} ms")).collect();
    // Most of it is the silence that has to be waited for; frames of up to a second are the rest.
    assert!(gaps.iter().all(|(crash, exit)| exit < crash), "{gaps:?}");
    let sum = |of: fn(&(u64, u64)) -> u64| gaps.iter().map(of).sum::<u64>();
    assert!(sum(|gaps| gaps.0) >= sum(|gaps| gaps.1) + 6 * 400, "{gaps:?}");
}

#[test]
fn a_panic_is_a_violation_with_its_seed() {
    let report = run_caught(&config(4, "none", 10), 9, |_, _| panic!("planted"));
    let violation = report.violation.unwrap();
    assert_eq!((violation.seed, violation.what.as_str()), (9, "panic: planted"));
    assert!(violation.to_string().starts_with("seed 9, nodes 4, faults none, at 0.0"), "{violation}");
}

#[test]
fn seeds_that_once_failed() {
    let lines = include_str!("../regressions.txt").lines().filter(|line| !line.starts_with('#'));
    let mut found = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace();
        let mut word = || words.next().expect("seed, nodes, faults, seconds, story");
        let seed: u64 = word().parse().unwrap();
        let config = config(word().parse().unwrap(), word(), word().parse().unwrap());
        found.extend(violations(&config, seed..seed + 1));
    }
    assert!(found.is_empty(), "{found:#?}");
}

/// What is written down changes nothing; what a script says happens when it says, in every seed, and twice alike.
#[test]
fn a_script_strikes_at_its_time_and_a_trace_only_watches() {
    let strike = |fault, host, begin_ms: u64, lasts_ms: Option<u64>| Strike {
        fault,
        host,
        begin_ns: begin_ms * 1_000_000,
        lasts_ns: lasts_ms.map(|ms| ms * 1_000_000),
        reach: Reach::From(host),
        level: 50,
    };
    let script = vec![
        strike(Fault::Crash, 1, 1_500, Some(1_000)),
        strike(Fault::OneWay, 2, 3_000, Some(300)),
        strike(Fault::Join, 4, 3_500, None),
        strike(Fault::Leave, 3, 5_000, None),
    ];
    let base = SimConfig { seeds: 3..5, threads: 1, period_ns: Some(200_000_000), ..config(4, "none", 15) };
    let scripted = SimConfig { script: Some(script), ..base };
    let silent = run(&scripted).unwrap();
    assert!(silent.violations.is_empty(), "{:?}", silent.violations);
    assert_eq!(silent.faults.values().copied().collect::<Vec<_>>(), [2, 2, 2, 2]);
    let happened = Mutex::new(Vec::new());
    let traced = SimConfig { trace: true, ..scripted };
    let told = run_with(&traced, |seed| happened.lock().unwrap().push(seed.happened.clone())).unwrap();
    assert_eq!(silent.trace_hash, told.trace_hash);
    for happened in happened.into_inner().unwrap() {
        let began = |fault| {
            let found = happened.iter().find(|found| found.what == Happened::Begun(fault)).unwrap();
            (found.at_ns / 1_000_000, found.host)
        };
        assert_eq!((began(Fault::Crash), began(Fault::Leave)), ((1_500, 1), (5_000, 3)));
        let said = |wanted: fn(&What) -> bool| {
            let said = |found: &Happening| matches!(&found.what, Happened::Said { what, .. } if wanted(what));
            happened.iter().filter(|found| said(found)).count()
        };
        assert!(said(|what| matches!(what, What::Phase { .. })) >= 5, "each member finds its phase");
        assert!(
            said(|what| matches!(what, What::Dead(_))) > 0 && said(|what| matches!(what, What::Left)) == 1
        );
        assert!(said(|what| matches!(what, What::Manifest { .. })) > 40);
        assert!(said(|what| matches!(what, What::Cut { .. })) > 40);
    }
}
