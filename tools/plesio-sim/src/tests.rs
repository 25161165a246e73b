//! Whole meshes: each kind of fault, the same story twice, bugs planted on purpose, and seeds that once failed.

use super::*;

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

#[test]
fn all_kinds_together_break_nothing_and_all_take_place() {
    let config = SimConfig { seeds: 0..12, ..config(5, "all", 12) };
    let report = run(&config).unwrap();
    assert!(report.violations.is_empty(), "{:?}", report.violations);
    assert!(report.frames > 12 * 10 && report.seeds == 12, "{report:?}");
    assert_eq!(report.faults.len(), Fault::ALL.len(), "{:?}", report.faults);
    assert_eq!(report.faults_injected, report.faults.values().sum::<u64>());
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
        let mut word = || words.next().expect("seed, nodes, faults, story");
        let seed: u64 = word().parse().unwrap();
        let config = config(word().parse().unwrap(), word(), 20);
        found.extend(violations(&config, seed..seed + 1));
    }
    assert!(found.is_empty(), "{found:#?}");
}
