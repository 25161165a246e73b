//! The document `plesio.bench.kernels/1`. Other programs read it; names are an interface.

use super::list::Kernel;
use super::plan::{Must, Plan, Scale};
use super::worker::{Found, Opened, Round};
use super::{names, sizes};
use crate::args::KernelsArgs;
use crate::bench::figures::{Spread, trustworthy, verdict};
use crate::host::{self, Host};
use plesio_cpu::Level;
use serde_json::{Map, Value, json};

/// Which row.
#[derive(Clone, Copy)]
pub(super) struct Key {
    pub(super) kernel: &'static Kernel,
    /// Its place in the list.
    pub(super) index: usize,
    pub(super) size: u32,
    pub(super) sets: usize,
    pub(super) threads: u16,
}

/// What was measured of it.
pub(super) struct Row {
    key: Key,
    plan: Plan,
    opened: Opened,
    pub(super) rounds: Vec<Round>,
}

impl Row {
    pub(super) fn new(key: Key, opened: Opened) -> Self {
        Self { key, plan: (key.kernel.plan)(Scale::Full(key.size)), opened, rounds: Vec::new() }
    }

    /// A row as a run leaves it, with 1 for every time.
    pub(super) fn sample(key: Key, numpy: bool) -> Self {
        let numpy_ns = (numpy && key.kernel.numpy).then_some(1.0);
        let round = Round { first_ns: 1.0, floor_ns: Some(1.0), numpy_ns, last_ns: 1.0 };
        Self { rounds: vec![round], ..Self::new(key, Opened::default()) }
    }

    pub(super) fn shape(&self) -> &str {
        &self.plan.shape
    }

    fn times(&self) -> Vec<f64> {
        self.rounds.iter().flat_map(|round| [round.first_ns, round.last_ns]).collect()
    }

    fn trustworthy(&self) -> bool {
        let of = |time: fn(&Round) -> f64| self.rounds.iter().map(time).collect::<Vec<_>>();
        trustworthy(&of(|round| round.first_ns), &of(|round| round.last_ns))
    }

    /// The median over rounds of another's time by ours in the same round.
    fn ratio(&self, theirs: impl Fn(&Round) -> Option<f64>) -> Option<f64> {
        let of = |round: &Round| Some(2.0 * theirs(round)? / (round.first_ns + round.last_ns));
        Spread::of(self.rounds.iter().filter_map(of)).map(|spread| spread.median)
    }

    fn floor_ratio(&self) -> Option<f64> {
        self.ratio(|round| round.floor_ns)
    }

    fn numpy_ratio(&self) -> Option<f64> {
        self.ratio(|round| round.numpy_ns)
    }

    /// What it has to reach here: the field, its bound, and whether that is met.
    fn must(&self, report: &Report<'_>) -> Option<(&'static str, f64, bool)> {
        let level = report.found.level.as_deref()?;
        if self.key.threads != 1 {
            return None;
        }
        match self.plan.must? {
            Must::OfFloor(bound) if !self.cached(report) => {
                Some(("floor_ratio", bound, self.floor_ratio()? >= bound))
            }
            Must::VectorNs(bound) if level == Level::Avx512.name() && self.cached(report) => {
                let time = Spread::of(self.times())?.median;
                Some(("vector_ns", bound, time / f64::from(self.plan.vectors?) <= bound))
            }
            Must::OfFloor(_) | Must::VectorNs(_) => None,
        }
    }

    /// Whether caches hold all that its calls walk through.
    fn cached(&self, report: &Report<'_>) -> bool {
        self.plan.set_bytes() * self.key.sets as u64 <= report.cache_bytes
    }

    /// What ours and the others' rows have in common.
    fn json(&self, report: &Report<'_>, times: Vec<f64>) -> Value {
        let Self { key, plan, .. } = self;
        let spread = Spread::of(times.iter().copied());
        let of_spread = |value: fn(Spread) -> f64| spread.map(value);
        let median = of_spread(|spread| spread.median);
        json!({
            "kernel": key.kernel.name,
            "device": report.found.name,
            "level": report.found.level,
            "threads": report.found.level.as_ref().map(|_| key.threads),
            "shape": plan.shape,
            "bytes": plan.moved_bytes(),
            "working_set_bytes": plan.set_bytes() * key.sets as u64,
            "sets": key.sets,
            "time_ns": median,
            "time_min_ns": of_spread(|spread| spread.min),
            "time_max_ns": of_spread(|spread| spread.max),
            "time_runs_ns": times,
            "rate_Bps": median.map(|time| plan.moved_bytes() as f64 * 1e9 / time),
            "vector_ns": median.zip(plan.vectors).map(|(time, rows)| time / f64::from(rows)),
            "repeats": times.len(),
        })
    }

    fn ours(&self, report: &Report<'_>) -> Value {
        let mut row = self.json(report, self.times());
        let floor = Spread::of(self.rounds.iter().filter_map(|round| round.floor_ns));
        row["floor"] = json!(floor.map(|_| if self.cached(report) { "cache" } else { "memory" }));
        row["floor_ns"] = json!(floor.map(|spread| spread.median));
        row["floor_ratio"] = json!(self.floor_ratio());
        let rivals = self.numpy_ratio().map(|ratio| ("numpy".to_owned(), json!(ratio)));
        row["rivals"] = Value::Object(rivals.into_iter().collect());
        let must = self.must(report);
        row["must"] = json!(must.map(|(field, bound, _)| Map::from_iter([(field.to_owned(), json!(bound))])));
        row["met"] = json!(must.map(|(_, _, met)| met));
        row["wrong"] = json!(self.opened.wrong);
        row["verdict"] = json!(verdict(self.trustworthy()));
        row
    }

    /// The others of the same rounds.
    fn others(&self, report: &Report<'_>) -> Vec<Value> {
        let of = |time: fn(&Round) -> Option<f64>| self.rounds.iter().filter_map(time).collect::<Vec<_>>();
        let others = [(of(|round| round.floor_ns), "floor"), (of(|round| round.numpy_ns), "numpy")];
        let row = |(times, rival): (Vec<f64>, &str)| {
            let mut row = self.json(report, times);
            row["rival"] = json!(rival);
            if rival == "numpy" {
                row["version"] = json!(report.numpy);
                row["wrong"] = json!(self.opened.wrong_rival);
                row["threads"] = json!(1);
            }
            row
        };
        others.into_iter().filter(|(times, _)| !times.is_empty()).map(row).collect()
    }
}

pub(super) struct Report<'a> {
    args: &'a KernelsArgs,
    host: &'a Host,
    found: Found,
    /// The largest of its CPU's.
    cache_bytes: u64,
    /// The rival's version, where it is one.
    numpy: Option<String>,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(args: &'a KernelsArgs, host: &'a Host, numpy: Option<String>) -> Self {
        Self {
            args,
            host,
            found: Found::default(),
            cache_bytes: host::cache_bytes(),
            numpy,
            rows: Vec::new(),
            notes: Vec::new(),
        }
    }

    /// An empty one of the same command.
    pub(super) fn like(&self) -> Self {
        Self::new(self.args, self.host, self.numpy.clone())
    }

    pub(super) fn has_numpy(&self) -> bool {
        self.numpy.is_some()
    }

    /// What is computed on.
    pub(super) fn found(&mut self, found: Found) {
        found.notes.iter().for_each(|note| self.note(note.clone()));
        if found.level.is_none() {
            self.note(format!("{} has no floor: only the CPU can walk its memory bare", found.name));
        }
        self.found = found;
    }

    /// A remark, said once.
    pub(super) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn push(&mut self, row: Row) {
        if !row.rounds.is_empty() {
            self.rows.push(row);
        }
    }

    pub(super) fn has_rows(&self) -> bool {
        !self.rows.is_empty()
    }

    /// How many elements of whose results are wrong.
    pub(super) fn wrong(&self) -> Option<(String, u64)> {
        let of = |row: &Row| {
            let (name, shape) = (row.key.kernel.name, row.shape());
            let Opened { wrong, wrong_rival, .. } = row.opened;
            match (wrong, wrong_rival) {
                (0, 0) => None,
                (0, wrong) => Some((format!("{name} {shape} as numpy has them are not ours"), wrong)),
                (wrong, _) => Some((format!("{name} on a small input are not the reference's"), wrong)),
            }
        };
        self.rows.iter().find_map(of)
    }

    pub(super) fn last_row(&self) -> Value {
        self.rows.last().map_or(Value::Null, |row| row.ours(self))
    }

    pub(super) fn document(&self, interrupted: bool) -> Value {
        let results: Vec<Value> = self.rows.iter().map(|row| row.ours(self)).collect();
        let baseline: Vec<Value> = self.rows.iter().flat_map(|row| row.others(self)).collect();
        let mut config = json!(self.args);
        config["size"] = json!(sizes(self.args));
        let trusted = !interrupted && !self.rows.is_empty() && self.rows.iter().all(Row::trustworthy);
        json!({
            "schema": "plesio.bench.kernels/1",
            "config": config,
            "host": self.host,
            "device": { "found": self.found.found, "reason": self.found.reason },
            "cache_bytes": self.cache_bytes,
            "ended": if interrupted { "interrupted" } else { "whole" },
            "notes": self.notes,
            "results": results,
            "baseline": baseline,
            "ratio": self.ratio(),
            "verdict": verdict(trusted),
        })
    }

    /// Over all rows, and over those of each kernel.
    fn ratio(&self) -> Map<String, Value> {
        let mut ratio = self.ratios(|_| true);
        for name in names() {
            if self.rows.iter().any(|row| row.key.kernel.name == name) {
                ratio.insert(name.into(), Value::Object(self.ratios(|row| row.key.kernel.name == name)));
            }
        }
        ratio
    }

    fn ratios(&self, counts: impl Fn(&Row) -> bool) -> Map<String, Value> {
        let of = |ratio: fn(&Row) -> Option<f64>| {
            let rows = self.rows.iter().filter(|row| counts(row));
            Spread::of(rows.filter_map(ratio)).map(|spread| spread.median)
        };
        let mut ratios = Map::new();
        ratios.insert("floor".into(), json!(of(Row::floor_ratio)));
        if let Some(numpy) = of(Row::numpy_ratio) {
            ratios.insert("numpy".into(), json!(numpy));
        }
        ratios
    }
}
