//! `plesio.sim/1`: what a run came to and all that it takes to run it again, as one JSON document. One for the whole run on
//! stdout, and one in a file for every broken promise, with its seed alone.

use super::replay::Replay;
use super::scenario::{Scenario, Seeds, Text};
use super::{Broken, Job, Tally};
use crate::args::SimArgs;
use crate::demo::output::create_new;
use crate::host::Host;
use plesio_sim::{Fault, FaultSet, Mass, Phase};
use plesio_wire::digest::Hasher;
use serde_json::{Map, Value, json};
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::OnceLock;

/// The run.
pub(super) fn document(job: &Job<'_>, tally: &Tally, replay: Option<&Replay>, wall_s: f64) -> Value {
    let (args, scenario) = (job.args, &job.scenario);
    let violations: Vec<Value> = tally
        .violations
        .iter()
        .map(|violation| {
            json!({
                "seed": violation.seed,
                "nodes": violation.nodes,
                "faults": violation.faults.to_string(),
                "at_s": violation.at_ns as f64 / 1e9,
                "what": violation.what,
                "replay": job.again(violation),
                "file": tally.file(violation.seed),
            })
        })
        .collect();
    let faults: Map<String, Value> =
        tally.faults.iter().map(|(fault, count)| ((*fault).to_owned(), json!(count))).collect();
    let row = |fault: Fault| -> Map<String, Value> {
        let cell = |phase: &Phase| (phase.name().to_owned(), json!(tally.coverage.of(fault, *phase)));
        Phase::ALL.iter().map(cell).collect()
    };
    let coverage: Map<String, Value> =
        scenario.faults.0.iter().map(|fault| (fault.name().to_owned(), Value::Object(row(fault)))).collect();
    let least = tally
        .coverage
        .least(scenario.faults.0)
        .map(|(fault, phase, hits)| json!({ "fault": fault.name(), "phase": phase.name(), "hits": hits }));
    let Mass { produced, committed, waiting, lost_in_slots, lost_uncut, left_behind, trimmed, .. } =
        tally.mass;
    let mass = json!({
        "produced": produced,
        "committed": committed,
        "waiting": waiting,
        "lost_in_slots": lost_in_slots,
        "lost_uncut": lost_uncut,
        "left_behind": left_behind,
        "trimmed": trimmed,
        "killed": tally.mass.killed,
        "slots_lost_most": tally.mass.slots_lost_most,
        "exact": tally.mass.is_exact(),
    });
    let seen = tally
        .seen()
        .map(|(kills, median_s, max_s)| json!({ "kills": kills, "median_s": median_s, "max_s": max_s }));
    let mut document = json!({
        "schema": "plesio.sim/1",
        "config": config(args, scenario),
        "scenario": scenario,
        "build": build(),
        "host": Host::look("none".into(), "virtual links".into()),
        "ended": match (job.interrupted, &tally.trace_hash) {
            (true, _) => "interrupted",
            (false, None) => "failed",
            (false, Some(_)) => "whole",
        },
        "seeds": tally.seeds,
        "simulated_s": scenario.seconds,
        "events": tally.events,
        "violations": violations,
        "trace_hash": tally.trace_hash,
        "faults_injected": tally.faults.values().sum::<u64>(),
        "faults": faults,
        "coverage": coverage,
        "coverage_least": least,
        "lies": tally.lies,
        "mass": mass,
        "crash_seen": seen,
        "frames": tally.frames,
        "versions_per_min": tally.per_min(scenario, tally.frames),
        "contributions_per_min": tally.per_min(scenario, tally.timing.slots),
        "commit_s": tally.commit_s(),
        "timing": {
            "nodes": tally.timing.nodes,
            "slots": tally.timing.slots,
            "late_ratio": tally.timing.late_ratio(),
            "folds": tally.timing.folds,
            "corrections_per_node_min": tally.timing.corrections_per_node_min(),
            "never_locked": tally.timing.never_locked,
            "lock_s_max": tally.timing.lock_ns_max as f64 / 1e9,
            "lock_frames_max": tally.timing.lock_frames_max,
        },
        "wall_s": wall_s,
    });
    if let Some(replay) = replay {
        document["replay"] = replay.document(tally);
    }
    document
}

/// The flags as they would have to be for what ran, whoever said it: line, file or record. What flags cannot say
/// stands in the scenario alone; beside a script no faults are drawn.
pub(super) fn config(args: &SimArgs, scenario: &Scenario) -> SimArgs {
    let seeds = scenario.seeds.0.0.clone();
    SimArgs {
        nodes: scenario.nodes,
        seed: args.seed.filter(|seed| (*seed, seed.saturating_add(1)) == (seeds.start, seeds.end)),
        seeds,
        faults: if scenario.fault.is_empty() { scenario.faults.0 } else { FaultSet::NONE },
        seconds: scenario.seconds,
        codec: scenario.codec,
        shares: scenario.shares,
        clock_error: scenario.clock_error,
        links: scenario.network,
        no_hysteresis: scenario.no_hysteresis,
        rules: scenario.rules,
        impair: scenario.links.0,
        ..args.clone()
    }
}

/// Leaves a file that replays one seed; where.
pub(super) fn save(job: &Job<'_>, broken: &Broken) -> io::Result<PathBuf> {
    let folder = &job.args.out;
    std::fs::create_dir_all(folder)?;
    let report = &broken.report;
    let scenario =
        Scenario { seeds: Text(Seeds(broken.seed..broken.seed.saturating_add(1))), ..job.scenario.clone() };
    let document = json!({
        "schema": "plesio.sim/1",
        "scenario": scenario,
        "build": build(),
        "seeds": 1,
        "simulated_s": report.simulated_s,
        "events": report.events,
        "frames": report.frames,
        "trace_hash": report.trace_hash.to_string(),
        "violations": report.violations.iter().map(|violation| json!({
            "seed": violation.seed,
            "at_s": violation.at_ns as f64 / 1e9,
            "what": violation.what,
        })).collect::<Vec<_>>(),
    });
    let path = folder.join(format!("seed-{}.json", broken.seed));
    let beside = folder.join(format!("seed-{}.json.part", broken.seed));
    create_new(&beside)?.write_all(format!("{document:#}\n").as_bytes())?;
    std::fs::rename(&beside, &path)?;
    Ok(path)
}

/// What tells this program from others: its version, and the digest of its own file. The same seed tells another story in
/// another build, if that draws or does something else.
pub(super) fn build() -> Value {
    static PROGRAM: OnceLock<Option<String>> = OnceLock::new();
    let program = PROGRAM.get_or_init(|| program().ok());
    json!({ "version": env!("CARGO_PKG_VERSION"), "program": program })
}

fn program() -> io::Result<String> {
    let mut file = std::fs::File::open("/proc/self/exe")?;
    let (mut hasher, mut buffer) = (Hasher::default(), vec![0; 1 << 20]);
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok(hasher.finish().to_string());
        }
        hasher.update(&buffer[..read]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::sim_args;

    /// It said the defaults of the flags while a file or a record had said what ran.
    #[test]
    fn the_configuration_is_what_ran() {
        let config_of = |args: &SimArgs, scenario| {
            document(&Job { args, scenario, interrupted: false }, &Tally::default(), None, 1.0)["config"]
                .take()
        };
        let file = "nodes = 4\nseeds = \"3..5\"\nseconds = 15\nfaults = \"crash\"\nnetwork = \"lan\"\n\
            clock_error = 1.5\nno_hysteresis = true\nlinks = \"--loss 1%\"\nrules = { tau = 8 }\n";
        let by_file = |line: &str, text: &str| {
            let args = sim_args(line);
            let scenario = Scenario::read(text, &args).expect("a good file");
            config_of(&args, scenario)
        };
        let config = by_file("c.toml --nodes 5 --require-coverage 2", file);
        for (field, ran) in [
            ("nodes", json!(5)),
            ("seeds", json!({ "start": 3, "end": 5 })),
            ("seconds", json!(15)),
            ("faults", json!("crash")),
            ("links", json!("lan")),
            ("clock_error", json!(1.5)),
            ("no_hysteresis", json!(true)),
            ("require_coverage", json!(2)),
        ] {
            assert_eq!(config[field], ran, "{field}: {config:#}");
        }
        assert_eq!((&config["impair"]["loss_ratio"], &config["rules"]["tau"]), (&json!(0.01), &json!(8)));
        // Nothing is drawn beside a script.
        let script = format!("{file}[[fault]]\nkind = \"leave\"\nnode = 1\nat_s = 3.0\n");
        assert_eq!(by_file("c.toml", &script)["faults"], json!("none"));
        // One seed is said as such where it was, and where it is what ran.
        assert_eq!(by_file("c.toml --seed 7", file)["seed"], json!(7));
        let record = Scenario::of(&sim_args("--seed 3"));
        assert_eq!(config_of(&sim_args("--replay run.json --seed 7"), record)["seed"], Value::Null);
        // Flags that say all are what they were, but for the range of the one seed.
        let args = sim_args("--nodes 5 --seeds 2..9 --faults crash --tau 8 --loss 1% --links wifi");
        assert_eq!(config_of(&args, Scenario::of(&args)), json!(args));
    }
}
