//! `plesio sim --replay FILE`: a run that was written down, once more.
//!
//! | file | what is run | what must be equal |
//! |---|---|---|
//! | a document of `plesio sim`, or the one that it leaves of a broken promise | the same scenario | the hash over all that happened |
//! | run.json of `plesio demo` | who died, joined and left when, over links as bad | nothing of the run: the promises must hold |
//! | traces of real nodes (`--trace`) | the same, and pauses and silences as they were seen | the log that the traces hold, among the nodes |
//!
//! A real run cannot be made again to the bit: what the kernel did with every thread and datagram is in no record. What one
//! decided log must have led to is checked instead, by [`audit`](super::audit), before its faults meet the simulator.

use super::audit::{self, Audit};
use super::observed::{self, Observed};
use super::scenario::Scenario;
use super::{Tally, document};
use crate::args::SimArgs;
use crate::failure::Failure;
use crate::trace;
use crate::up::input;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};

/// What is to be run, and what it is measured by.
#[derive(Debug)]
pub(super) struct Replay {
    pub(super) scenario: Scenario,
    files: Vec<PathBuf>,
    of: Of,
}

#[derive(Debug)]
enum Of {
    Simulation(Expected),
    Mesh { observed: Box<Observed>, audit: Option<Audit> },
}

/// What a simulation came to.
#[derive(Clone, Debug, PartialEq)]
struct Expected {
    trace_hash: String,
    events: u64,
    frames: u64,
    violations: u64,
    same_build: bool,
}

impl Expected {
    /// Whether the figures are what the run came to.
    fn counts(&self, tally: &Tally) -> bool {
        (self.events, self.frames) == (tally.events, tally.frames)
    }
}

impl Replay {
    /// Reads what `--replay` names.
    ///
    /// # Errors
    /// What is no record, or one that this build would not tell the same story of.
    pub(super) fn read(args: &SimArgs) -> Result<Self, Failure> {
        let files = args.replay.clone();
        let first = &files[0];
        let cannot = |cause: &dyn std::fmt::Display| {
            Failure::usage("replay", format!("cannot replay {}", first.display()), cause)
                .fix("give a document of plesio sim or demo, or a trace of plesio up or demo")
        };
        if is_trace(first).map_err(|cause| cannot(&cause))? {
            return Self::of_traces(args, files);
        }
        if files.len() > 1 {
            return Err(cannot(&"only traces are read together: a document stands for itself"));
        }
        let bytes = input::read(first, DOCUMENT_BYTES_MAX).map_err(|cause| cannot(&cause))?;
        let document: Value =
            serde_json::from_slice(&bytes).map_err(|cause| cannot(&format!("it is no JSON: {cause}")))?;
        let (scenario, of) = match document["schema"].as_str() {
            Some("plesio.sim/1") => {
                let (scenario, expected) = simulated(&document, args).map_err(|cause| cannot(&cause))?;
                (scenario, Of::Simulation(expected))
            }
            Some("plesio.demo/1") => {
                let observed = observed::of_demo(&document, args).map_err(|cause| cannot(&cause))?;
                (observed.scenario.clone(), Of::Mesh { observed: Box::new(observed), audit: None })
            }
            Some(trace::SCHEMA) => return Self::of_traces(args, files),
            Some(other) => {
                return Err(cannot(&format!(
                    "its schema is {other:?}; this build replays plesio.sim/1, plesio.demo/1 and {}",
                    trace::SCHEMA
                )));
            }
            None => return Err(cannot(&"it names no schema")),
        };
        Ok(Self { scenario, files, of })
    }

    fn of_traces(args: &SimArgs, files: Vec<PathBuf>) -> Result<Self, Failure> {
        let mut records = Vec::new();
        for path in &files {
            let cannot = |cause: &dyn std::fmt::Display| {
                Failure::usage("replay", format!("cannot replay {}", path.display()), cause)
                    .fix("give files that --trace of plesio up or demo wrote, all of one mesh")
            };
            let file = File::open(path).map_err(|cause| cannot(&cause))?;
            records.extend(
                trace::read::read(BufReader::new(file), observed::is_wanted)
                    .map_err(|cause| cannot(&cause))?,
            );
        }
        let cannot = |cause: String| {
            Failure::usage("replay", "cannot replay these traces", cause)
                .fix("give whole traces of the nodes of one mesh")
        };
        let audit = audit::audit(&records);
        let observed = Box::new(observed::of_traces(records, args).map_err(cannot)?);
        Ok(Self { scenario: observed.scenario.clone(), files, of: Of::Mesh { observed, audit: Some(audit) } })
    }

    /// Whether the run kept to the record.
    pub(super) fn holds(&self, tally: &Tally) -> bool {
        match &self.of {
            Of::Simulation(expected) => expected.trace_hash == hash(tally) && expected.counts(tally),
            Of::Mesh { audit, .. } => audit.as_ref().is_none_or(|audit| audit.broken.is_empty()),
        }
    }

    /// The same in words.
    pub(super) fn words(&self, tally: &Tally) -> String {
        let mut text = String::new();
        let files: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
        match &self.of {
            Of::Simulation(expected) if self.holds(tally) => {
                let how = if expected.same_build { "" } else { ", by another build" };
                let _ = writeln!(
                    text,
                    "replay      {}: the same story, {} events{how}",
                    files[0], expected.events
                );
            }
            Of::Simulation(expected) => {
                let _ = writeln!(
                    text,
                    "replay      {}: ANOTHER story: {} events, {} frames, {} violations then; {}, {}, {} now",
                    files[0],
                    expected.events,
                    expected.frames,
                    expected.violations,
                    tally.events,
                    tally.frames,
                    tally.violations.len()
                );
                let why = if expected.trace_hash == hash(tally) {
                    "the hash is the same and the figures are not: the record was changed"
                } else if expected.same_build {
                    "the same build told both: the record was changed, or the simulator is not deterministic, which is a bug"
                } else {
                    "another build told that one: what it does differs, or what it draws"
                };
                let _ = writeln!(text, "            {why}");
            }
            Of::Mesh { observed, audit } => {
                let _ = writeln!(text, "replay      the faults of a real mesh: {}", files.join(", "));
                if let Some(audit) = audit {
                    text += &audit.words();
                }
                text += &observed.words();
            }
        }
        text
    }

    /// The same for a document.
    pub(super) fn document(&self, tally: &Tally) -> Value {
        let files: Vec<String> = self.files.iter().map(|path| path.display().to_string()).collect();
        match &self.of {
            Of::Simulation(expected) => json!({
                "files": files, "of": "simulation", "same_build": expected.same_build,
                "trace_hash": expected.trace_hash, "reproduced": self.holds(tally),
            }),
            Of::Mesh { observed, audit } => json!({
                "files": files, "of": "mesh", "observed": observed.document(),
                "audit": audit.as_ref().map(Audit::document),
            }),
        }
    }
}

/// Whether a file's first line is one of a trace.
fn is_trace(path: &Path) -> std::io::Result<bool> {
    use std::io::Read;
    let mut line = Vec::new();
    BufReader::new(File::open(path)?.take(FIRST_LINE_BYTES_MAX)).read_until(b'\n', &mut line)?;
    let first: Option<Value> = serde_json::from_slice(&line).ok();
    Ok(first.is_some_and(|first| first["schema"].as_str() == Some(trace::SCHEMA)))
}

/// A simulation's scenario, and what it came to.
fn simulated(document: &Value, args: &SimArgs) -> Result<(Scenario, Expected), String> {
    let scenario = document
        .get("scenario")
        .ok_or("it holds no scenario: an earlier build wrote it; run its command again")?;
    let scenario: Scenario =
        serde_json::from_value(scenario.clone()).map_err(|cause| format!("its scenario: {cause}"))?;
    let hash = document["trace_hash"].as_str().ok_or("it has no hash: that run did not come to its end")?;
    let (then, now) = (&document["build"], document::build());
    let same_build = now["program"].is_string() && then["program"] == now["program"];
    if !same_build && !args.any_build {
        return Err(format!(
            "program {} of version {} wrote it, and this is program {} of version {}: another build may draw and do other things, \
             so its story proves nothing here; take that build, or say --any-build to see whether the story is the same",
            word(&then["program"]),
            word(&then["version"]),
            word(&now["program"]),
            word(&now["version"])
        ));
    }
    let count = |field: &str| {
        document[field].as_u64().ok_or_else(|| format!("its {field} are no number: it was changed"))
    };
    let expected = Expected {
        trace_hash: hash.to_owned(),
        events: count("events")?,
        frames: count("frames")?,
        violations: document["violations"].as_array().map_or(0, Vec::len) as u64,
        same_build,
    };
    Ok((scenario, expected))
}

/// A few letters that a record says of itself.
fn word(value: &Value) -> String {
    let text = value.as_str().unwrap_or("unknown");
    text.chars().filter(|letter| letter.is_ascii_alphanumeric() || ".-+".contains(*letter)).take(16).collect()
}

fn hash(tally: &Tally) -> &str {
    tally.trace_hash.as_deref().unwrap_or_default()
}

const DOCUMENT_BYTES_MAX: usize = 64 << 20;
const FIRST_LINE_BYTES_MAX: u64 = 64 << 10;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::sim_args as args;

    fn written(name: &str, text: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("plesio-replay-{name}-{}", std::process::id()));
        std::fs::write(&path, text).expect("a folder for temporary files");
        path
    }

    fn record() -> Value {
        json!({ "schema": "plesio.sim/1", "scenario": Scenario::of(&args("--seed 3 --faults crash")),
            "build": document::build(), "trace_hash": "ab", "events": 5, "frames": 2, "violations": [] })
    }

    #[test]
    fn a_record_of_another_build_is_refused_unless_asked_for() {
        let path = written("build", &record().to_string());
        let line = format!("--replay {}", path.display());
        let replay = Replay::read(&args(&line)).expect("our own");
        assert_eq!(replay.scenario.seeds.0.0, 3..4);
        let tally =
            |hash: &str| Tally { events: 5, frames: 2, trace_hash: Some(hash.into()), ..Tally::default() };
        assert!(replay.holds(&tally("ab")) && replay.words(&tally("ab")).contains("the same story"));
        assert!(!replay.holds(&tally("ac")) && replay.words(&tally("ac")).contains("not deterministic"));
        let changed = Tally { events: 6, ..tally("ab") };
        assert!(!replay.holds(&changed) && replay.words(&changed).contains("the record was changed"));
        let mut other = record();
        other["build"]["program"] = json!("00ff");
        std::fs::write(&path, other.to_string()).expect("our own file");
        let refused = Replay::read(&args(&line)).expect_err("another build");
        assert!(refused.cause.contains("program 00ff") && refused.cause.contains("--any-build"), "{refused}");
        let replay = Replay::read(&args(&format!("{line} --any-build"))).expect("asked for");
        assert!(replay.words(&tally("ac")).contains("another build"));
        std::fs::remove_file(&path).expect("our own file");
    }

    #[test]
    fn what_is_no_record_is_refused_and_says_why() {
        let mut unended = record();
        unended["trace_hash"] = Value::Null;
        let mut figure = record();
        figure["events"] = json!("x");
        let mut wrong = record();
        wrong["scenario"]["noeds"] = json!(1);
        for (name, text, word) in [
            ("none", "nonsense".into(), "no JSON"),
            ("bare", "{}".into(), "no schema"),
            ("later", json!({ "schema": "plesio.sim/2" }).to_string(), "plesio.sim/2"),
            ("early", json!({ "schema": "plesio.sim/1" }).to_string(), "no scenario"),
            ("unended", unended.to_string(), "did not come to its end"),
            ("unknown", wrong.to_string(), "noeds"),
            ("figure", figure.to_string(), "its events are no number"),
        ] {
            let path = written(name, &text);
            let refused = Replay::read(&args(&format!("--replay {}", path.display()))).expect_err(name);
            assert!(refused.to_string().contains(word), "{name}: {refused}");
            std::fs::remove_file(&path).expect("our own file");
        }
        assert!(Replay::read(&args("--replay /nonexistent")).is_err());
    }
}
