//! The frame period follows links and steps, and nobody who lags, restarts, comes or lies is harmed by it.

use super::*;
use crate::script::{Reach, Strike};

const SECOND: u64 = 1_000_000_000;
const MS: u64 = 1_000_000;

/// All uplinks carry 200 kB/s from then to then: a contribution and its part of a sum take longer than a frame of 100 ms.
fn narrow(from_s: u64, to_s: u64) -> Strike {
    let lasts_ns = Some((to_s - from_s) * SECOND);
    Strike { fault: Fault::Narrow, host: 0, begin_ns: from_s * SECOND, lasts_ns, reach: Reach::All, level: 5 }
}

fn paced(nodes: u8, simulated_s: u32, script: Vec<Strike>) -> SimConfig {
    let base = config(nodes, "none", simulated_s);
    SimConfig { period_ns: Some(100 * MS), elements: Some(8_000), script: Some(script), ..base }
}

/// Runs a seed; the periods in force, in milliseconds.
fn periods(config: &SimConfig, seed: u64) -> (Vec<u64>, SeedReport) {
    let report = World::new(config, seed).run(config, &AtomicU64::new(0));
    assert_eq!(report.violation, None, "seed {seed}: {:?}", report.periods_ns);
    let periods = report.periods_ns.iter().map(|period_ns| period_ns / MS).collect();
    println!("seed {seed}: {periods:?}, {} versions, {} views", report.frames, report.views);
    (periods, report)
}

#[test]
fn narrow_uplinks_double_the_period_and_wide_ones_bring_it_back() {
    for seed in 0..3 {
        let (periods, report) = periods(&paced(4, 44, vec![narrow(3, 12)]), seed);
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
