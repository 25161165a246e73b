//! `plesio bench compare A.json B.json`: row by row, with an interval from the repeats of both.
//!
//! Rows belong together when their independent variables are the same. The files may be anybody's: they are read up to a
//! limit, and what is no number is no figure.

use super::figures::{Resampled, resample};
use super::table;
use crate::args::BenchCompareArgs;
use crate::failure::{Exit, Failure};
use serde_json::{Map, Value, json};
use std::io::Read;
use std::path::Path;

/// What identifies a row.
const KEYS: &[&str] = &[
    "kernel",
    "shape",
    "device",
    "level",
    "threads",
    "bytes",
    "working_set_bytes",
    "chunk_bytes",
    "backend",
    "wait",
    "protection",
    "flows",
    "direction",
    "operation",
    "ranks",
    "path",
    "codec",
    "type",
];

/// What a document is judged by.
struct Figure {
    name: &'static str,
    runs: &'static str,
    more_is_better: bool,
}

pub(crate) fn run(args: &BenchCompareArgs) -> Result<Exit, Failure> {
    let (before, after) = (read(&args.before)?, read(&args.after)?);
    let document = judge(&before, &after, args)?;
    table::show(&args.output, &document)?;
    Ok(if document["verdict"] == "worse" { Exit::Regression } else { Exit::Ok })
}

fn read(path: &Path) -> Result<Value, Failure> {
    let failure = |cause: String| {
        let what = format!("cannot read {}", path.display());
        Failure::usage("compare", what, cause).fix("give two documents that `plesio bench ... --json` wrote")
    };
    let file = std::fs::File::open(path).map_err(|cause| failure(cause.to_string()))?;
    let mut text = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut text).map_err(|cause| failure(cause.to_string()))?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(failure(format!("it is larger than {FILE_BYTES_MAX} bytes")));
    }
    serde_json::from_slice(&text).map_err(|cause| failure(cause.to_string()))
}

fn figure(schema: &str) -> Option<Figure> {
    match schema {
        "plesio.bench.udp/1" => {
            Some(Figure { name: "goodput_bps", runs: "goodput_runs_bps", more_is_better: true })
        }
        "plesio.bench.pingpong/1" => {
            Some(Figure { name: "p50_ns", runs: "p50_runs_ns", more_is_better: false })
        }
        "plesio.bench.allreduce/1" | "plesio.bench.shm/1" | "plesio.bench.kernels/1" => {
            Some(Figure { name: "time_ns", runs: "time_runs_ns", more_is_better: false })
        }
        _ => None,
    }
}

fn judge(before: &Value, after: &Value, args: &BenchCompareArgs) -> Result<Value, Failure> {
    let schema = |document: &Value| document["schema"].as_str().unwrap_or("none").to_owned();
    let (one, two) = (schema(before), schema(after));
    let cannot = |cause: String| {
        Failure::usage("compare", "cannot compare these documents", cause)
            .fix("give two documents of one bench, both with the same flags")
    };
    let figure = figure(&one).filter(|_| one == two);
    let figure = figure.ok_or_else(|| cannot(format!("their schemas are {one:?} and {two:?}")))?;
    let rows = |document: &Value| document["results"].as_array().cloned().unwrap_or_default();
    let theirs = rows(after);
    let (mut results, mut notes) = (Vec::new(), Vec::new());
    let mut worse = false;
    for row in rows(before) {
        let pair = theirs.iter().find(|other| KEYS.iter().all(|key| other[*key] == row[*key]));
        let Some(other) = pair else { continue };
        if let (Some(one), Some(two)) = (row["suite"].as_str(), other["suite"].as_str())
            && one != two
        {
            let note = format!("A is sealed with {one}, B with {two}");
            if !notes.contains(&note) {
                notes.push(note);
            }
        }
        let Some(resampled) = resample(&runs(&row, &figure), &runs(other, &figure)) else { continue };
        let verdict = verdict(&resampled, &figure, args.tolerance);
        worse |= verdict == "worse";
        let keys = KEYS.iter().map(|key| ((*key).to_owned(), row[*key].clone()));
        let mut result: Map<String, Value> = keys.collect();
        let Resampled { before, after, ratio, low, high } = resampled;
        result.insert("figure".into(), json!(figure.name));
        for (name, value) in
            [("before", before), ("after", after), ("ratio", ratio), ("low", low), ("high", high)]
        {
            result.insert(name.into(), json!(value));
        }
        result.insert("verdict".into(), json!(verdict));
        results.push(Value::Object(result));
    }
    if results.is_empty() {
        return Err(cannot("they have no row in common".into()));
    }
    let unmatched = rows(before).len().max(theirs.len()) - results.len();
    if unmatched > 0 {
        notes.push(format!("{unmatched} rows have no counterpart"));
    }
    for (name, document) in [("A", before), ("B", after)] {
        if document["verdict"] == "noisy" {
            notes.push(format!("{name} calls itself noisy: measure it again on a quiet machine"));
        }
        if document["host"]["cpu"] != before["host"]["cpu"] {
            notes.push("A and B come from different machines".into());
        }
    }
    Ok(json!({
        "schema": "plesio.bench.compare/1",
        "config": args,
        "compared": one,
        "results": results,
        "notes": notes,
        "verdict": if worse { "worse" } else { "within" },
    }))
}

/// The repeats of a row; where there are none, its median.
fn runs(row: &Value, figure: &Figure) -> Vec<f64> {
    let runs = row[figure.runs].as_array().into_iter().flatten().filter_map(Value::as_f64);
    let runs: Vec<f64> = runs.filter(|run| run.is_finite() && *run > 0.0).take(RUNS_MAX).collect();
    if runs.is_empty() {
        row[figure.name].as_f64().filter(|figure| *figure > 0.0).into_iter().collect()
    } else {
        runs
    }
}

/// Worse: lost more than allowed, and not only by the spread of the repeats.
fn verdict(found: &Resampled, figure: &Figure, tolerance: f64) -> &'static str {
    let (gain, surely_lost, surely_won) = if figure.more_is_better {
        (found.ratio, found.high < 1.0, found.low > 1.0)
    } else {
        (1.0 / found.ratio, found.low > 1.0, found.high < 1.0)
    };
    match () {
        () if gain < 1.0 - tolerance && surely_lost => "worse",
        () if gain < 1.0 - tolerance => "unclear",
        () if gain > 1.0 + tolerance && surely_won => "better",
        () => "same",
    }
}

const FILE_BYTES_MAX: u64 = 64 << 20;
const RUNS_MAX: usize = 2_000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{BenchCommand, Cli, Command};

    fn args() -> BenchCompareArgs {
        let cli = Cli::read(["plesio", "bench", "compare", "a", "b"]).expect("a line");
        let Command::Bench(command) = cli.command else { panic!("bench") };
        let BenchCommand::Compare(args) = *command else { panic!("compare") };
        args
    }

    fn document(schema: &str, name: &str, runs: &[f64]) -> Value {
        let mut row = json!({ "bytes": 64, "backend": "mio" });
        row[name] = json!(runs);
        json!({ "schema": schema, "results": [row], "verdict": "trustworthy" })
    }

    fn judged(schema: &str, name: &str, before: &[f64], after: &[f64]) -> String {
        let judged = judge(&document(schema, name, before), &document(schema, name, after), &args());
        judged.expect("rows in common")["results"][0]["verdict"].as_str().expect("one").to_owned()
    }

    #[test]
    fn less_goodput_and_longer_trips_are_worse() {
        let (udp, goodput) = ("plesio.bench.udp/1", "goodput_runs_bps");
        assert_eq!(judged(udp, goodput, &[10.0, 10.1, 9.9], &[8.0, 8.1, 7.9]), "worse");
        assert_eq!(judged(udp, goodput, &[10.0, 10.1, 9.9], &[12.0, 12.1, 11.9]), "better");
        assert_eq!(judged(udp, goodput, &[10.0, 10.1, 9.9], &[10.0, 9.8, 9.9]), "same");
        assert_eq!(judged(udp, goodput, &[10.0, 5.0, 9.9, 11.0], &[9.0, 4.0, 12.0, 5.0]), "unclear");
        let (pingpong, p50) = ("plesio.bench.pingpong/1", "p50_runs_ns");
        assert_eq!(judged(pingpong, p50, &[10.0, 10.1, 9.9], &[12.0, 12.1, 11.9]), "worse");
        assert_eq!(judged(pingpong, p50, &[10.0, 10.1, 9.9], &[8.0, 8.1, 7.9]), "better");
    }

    #[test]
    fn other_suites_are_told_once() {
        let with = |suite: &str| {
            let mut document = document("plesio.bench.udp/1", "goodput_runs_bps", &[10.0, 10.1, 9.9]);
            document["results"][0]["suite"] = json!(suite);
            document
        };
        let notes =
            |one, two| judge(&with(one), &with(two), &args()).expect("a row in common")["notes"].clone();
        assert_eq!(
            notes("aegis-128l", "aes-128-gcm"),
            json!(["A is sealed with aegis-128l, B with aes-128-gcm"])
        );
        assert_eq!(notes("aes-128-gcm", "aes-128-gcm"), json!([]));
    }

    #[test]
    fn documents_that_do_not_belong_together_are_refused() {
        let one = document("plesio.bench.udp/1", "goodput_runs_bps", &[1.0]);
        let other = document("plesio.bench.pingpong/1", "p50_runs_ns", &[1.0]);
        for (before, after) in [(&one, &other), (&one, &json!({})), (&json!([]), &json!(7))] {
            assert!(judge(before, after, &args()).is_err());
        }
        let mut apart = one.clone();
        apart["results"][0]["bytes"] = json!(65);
        assert!(judge(&one, &apart, &args()).is_err(), "no row in common");
    }
}
