//! Replays seeds and tells their story: `replay SEED|A..B [NODES] [FAULTS] [SECONDS] [story]`.

use plesio_sim::{FaultSet, SimConfig, run_with};
use std::time::Instant;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seeds = arguments.next().expect("a seed or a range A..B");
    let (from, to) = seeds.split_once("..").unwrap_or((&seeds, ""));
    let from: u64 = from.parse().expect("a seed is a number");
    let to = if to.is_empty() { from + 1 } else { to.parse().expect("a seed is a number") };
    let nodes = arguments.next().map_or(8, |text| text.parse().expect("a number of nodes"));
    let faults: FaultSet =
        arguments.next().map_or(FaultSet::ALL, |text| text.parse().expect("names of faults"));
    let simulated_s = arguments.next().map_or(20, |text| text.parse().expect("seconds"));
    let story = arguments.next().is_some();
    let config = SimConfig { nodes, seeds: from..to, faults, simulated_s, story, ..SimConfig::default() };
    let begin = Instant::now();
    let report = run_with(&config, |seed| {
        for line in &seed.story {
            println!("{line}");
        }
        if story || to - from <= 20 {
            println!(
                "seed {}: {} events, {} datagrams, {} versions, {} views, {} faults, {}",
                seed.seed,
                seed.events,
                seed.datagrams,
                seed.frames,
                seed.views,
                seed.faults.values().sum::<u64>(),
                seed.trace_hash
            );
        }
    })
    .expect("a configuration within its ranges");
    print!("{}", report.coverage.table(faults));
    for violation in &report.violations {
        println!("{violation}");
    }
    println!(
        "{} seeds, {} violations, {} versions, {} events, {} faults {:?}, hash {}, {:.2} s",
        report.seeds,
        report.violations.len(),
        report.frames,
        report.events,
        report.faults_injected,
        report.faults,
        report.trace_hash,
        begin.elapsed().as_secs_f64()
    );
}
