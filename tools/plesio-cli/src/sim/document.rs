//! `plesio.sim/1`: what a run came to and all that it takes to run it again, as one JSON document. One for the whole run on
//! stdout, and one in a file for every broken promise, with its seed alone.

use super::replay::Replay;
use super::scenario::{Scenario, Seeds, Text};
use super::{Broken, Job, Tally};
use crate::demo::output::create_new;
use crate::host::Host;
use plesio_sim::{Fault, Mass, Phase};
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
        "config": args,
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
