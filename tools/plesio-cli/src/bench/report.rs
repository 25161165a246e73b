//! The documents `plesio.bench.udp/1` and `plesio.bench.pingpong/1`. Other programs read them; names are an interface.

use super::ends::Outcome;
use super::figures::{Spread, add_up, trustworthy, verdict, worst_bps};
use super::link::{FlowHalf, Half, Mode, Rival, Wait, What};
use super::relay::RelayFigures;
use super::round::RoundTrips;
use crate::args::{BackendArg, ChunkArg};
use crate::failure::Failure;
use crate::host::Host;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// The independent variables of a row.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Key {
    pub(crate) bytes: u32,
    pub(crate) chunk: ChunkArg,
    pub(crate) backend: BackendArg,
    pub(crate) wait: Wait,
    pub(crate) protection: Mode,
}

/// What was measured for one row.
pub(crate) struct Cell {
    pub(crate) key: Key,
    /// Ours, before the rivals of each round and after them.
    pub(crate) first: Vec<Outcome>,
    pub(crate) last: Vec<Outcome>,
    pub(crate) rivals: Vec<(Rival, Vec<Outcome>)>,
}

impl Outcome {
    fn halves(&self) -> [&Half; 2] {
        [&self.begin, &self.answer]
    }

    fn sum(&self, of: impl Fn(&Half) -> u64) -> u64 {
        self.halves().into_iter().map(of).fold(0, u64::saturating_add)
    }

    /// What the receivers hold, each over its own time.
    fn goodput_bps(&self) -> f64 {
        let ends = self.halves().into_iter().filter(|half| half.elapsed_ns > 0);
        // An empty sum of floats is -0.
        ends.map(|half| half.received_bytes as f64 * 8e9 / half.elapsed_ns as f64)
            .fold(0.0, |sum, bps| sum + bps)
    }

    fn messages_per_s(&self) -> f64 {
        let ends = self.halves().into_iter().filter(|half| half.elapsed_ns > 0);
        ends.map(|half| half.messages as f64 * 1e9 / half.elapsed_ns as f64).fold(0.0, |sum, rate| sum + rate)
    }

    fn worst_bps(&self) -> Option<f64> {
        let mut stretches = self.begin.stretches.clone();
        add_up(&mut stretches, &self.answer.stretches);
        worst_bps(&stretches)
    }

    fn quantile_ns(&self, share: f64) -> f64 {
        self.trips.as_ref().map_or(f64::NAN, |trips| trips.quantile_ns(share))
    }
}

impl Cell {
    pub(crate) fn new(key: Key, rivals: &[Rival]) -> Self {
        let rivals = rivals.iter().map(|rival| (*rival, Vec::new())).collect();
        Self { key, first: Vec::new(), last: Vec::new(), rivals }
    }

    /// A row as a run of this kind leaves it, with 1 for every figure.
    pub(crate) fn sample(key: Key, rivals: &[Rival], flows: u16, relayed: bool) -> Result<Self, Failure> {
        let half = Half {
            sent_bytes: 1,
            received_bytes: 1,
            messages: 1,
            elapsed_ns: 1,
            stretches: vec![1; 4],
            cpu_ns: 1,
            chunk_bytes: 1,
            flows: vec![FlowHalf { received_bytes: 1, messages: 1, ..FlowHalf::default() }; flows.into()],
            ..Half::default()
        };
        let mut trips = RoundTrips::new()?;
        trips.add(Duration::from_nanos(1));
        let path = relayed.then(RelayFigures::default);
        let outcome = Outcome { begin: half.clone(), answer: half, trips: Some(trips), path };
        let mut cell = Self::new(key, rivals);
        cell.first.push(outcome.clone());
        cell.last.push(outcome.clone());
        cell.rivals.iter_mut().for_each(|(_, outcomes)| outcomes.push(outcome.clone()));
        Ok(cell)
    }

    fn ours(&self) -> Vec<&Outcome> {
        self.first.iter().chain(&self.last).collect()
    }

    fn outcomes(&self) -> impl Iterator<Item = &Outcome> {
        let rivals = self.rivals.iter().flat_map(|(_, outcomes)| outcomes);
        self.first.iter().chain(&self.last).chain(rivals)
    }
}

/// All rows of one command.
pub(crate) struct Report<'a> {
    name: &'static str,
    config: &'a Value,
    host: &'a Host,
    what: What,
    working_set_bytes: u32,
    flows: u16,
    direction: &'static str,
    rivals: Vec<Rival>,
    cells: Vec<Cell>,
    notes: Vec<String>,
}

impl<'a> Report<'a> {
    pub(crate) fn new(
        name: &'static str,
        config: &'a Value,
        host: &'a Host,
        what: What,
        working_set_bytes: u32,
    ) -> Self {
        let (cells, notes, rivals) = (Vec::new(), Vec::new(), Vec::new());
        Self {
            name,
            config,
            host,
            what,
            working_set_bytes,
            flows: 1,
            direction: "one-way",
            rivals,
            cells,
            notes,
        }
    }

    /// Flows, directions and rivals of every row.
    pub(crate) fn shape(&mut self, flows: u16, direction: &'static str, rivals: &[Rival]) {
        (self.flows, self.direction, self.rivals) = (flows, direction, rivals.to_vec());
    }

    /// A remark, said once.
    pub(crate) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(crate) fn push(&mut self, cell: Cell) {
        let notes: Vec<String> =
            cell.outcomes().flat_map(Outcome::halves).flat_map(|half| half.notes.clone()).collect();
        notes.into_iter().for_each(|note| self.note(note));
        let path = cell.outcomes().filter_map(|outcome| outcome.path);
        let path = path.fold(RelayFigures::default(), RelayFigures::and);
        if path.overflowed > 0 {
            self.note(format!(
                "the bad path was too slow: the kernel dropped {} of {} datagrams before the relay read them; give a --rate \
                 that this machine relays",
                path.overflowed,
                path.overflowed + path.taken,
            ));
        }
        self.cells.push(cell);
    }

    /// Whether anything was measured.
    pub(crate) fn has_rows(&self) -> bool {
        self.cells.iter().any(|cell| !cell.first.is_empty())
    }

    pub(crate) fn wrong_bytes(&self) -> u64 {
        self.cells.iter().flat_map(Cell::outcomes).map(|outcome| outcome.sum(|half| half.wrong_bytes)).sum()
    }

    /// The figure that rivals are measured by.
    fn figure(&self, outcome: &Outcome) -> f64 {
        match self.what {
            What::Stream => outcome.goodput_bps(),
            What::Pingpong => outcome.quantile_ns(0.5),
        }
    }

    fn trustworthy(&self, cell: &Cell) -> bool {
        let figures =
            |outcomes: &[Outcome]| outcomes.iter().map(|outcome| self.figure(outcome)).collect::<Vec<_>>();
        trustworthy(&figures(&cell.first), &figures(&cell.last))
    }

    /// What both kinds of row hold.
    fn row(&self, cell: &Cell, outcomes: &[&Outcome], ours: bool) -> Map<String, Value> {
        let key = cell.key;
        let mut row = object(json!({
            "bytes": key.bytes,
            "working_set_bytes": self.working_set_bytes,
            "chunk_bytes": chunk_bytes(key.chunk, outcomes),
            "wait": key.wait,
            "flows": self.flows,
            "direction": self.direction,
        }));
        if self.flows > 1 {
            row.append(&mut flow_figures(outcomes));
        }
        row.append(&mut match self.what {
            What::Stream => stream_figures(outcomes, ours),
            What::Pingpong => pingpong_figures(outcomes),
        });
        let sum = |of: &dyn Fn(&Half) -> u64| outcomes.iter().map(|outcome| outcome.sum(of)).sum::<u64>();
        row.append(&mut object(json!({
            "sent_bytes": sum(&|half| half.sent_bytes),
            "received_bytes": sum(&|half| half.received_bytes),
            "wrong_bytes": sum(&|half| half.wrong_bytes),
            "repeats": outcomes.len(),
        })));
        if outcomes.iter().any(|outcome| outcome.path.is_some()) {
            let path = outcomes.iter().filter_map(|outcome| outcome.path);
            row.insert("path".into(), json!(path.fold(RelayFigures::default(), RelayFigures::and)));
        }
        row
    }

    /// The newest row of ours.
    pub(crate) fn last_row(&self) -> Value {
        self.cells.last().map_or(Value::Null, |cell| self.our_row(cell))
    }

    fn our_row(&self, cell: &Cell) -> Value {
        let ours = cell.ours();
        let mut row = self.row(cell, &ours, true);
        row.insert("backend".into(), json!(ours.first().map(|outcome| &outcome.begin.tier)));
        row.insert("protection".into(), json!(cell.key.protection));
        let suite = ours.iter().map(|outcome| &outcome.begin.suite).find(|suite| !suite.is_empty());
        row.insert("suite".into(), json!(suite));
        row.insert("verdict".into(), json!(verdict(self.trustworthy(cell))));
        Value::Object(row)
    }

    pub(crate) fn document(&self, interrupted: bool) -> Value {
        let measured: Vec<&Cell> = self.cells.iter().filter(|cell| !cell.first.is_empty()).collect();
        let (mut results, mut baseline) = (Vec::new(), Vec::new());
        for cell in &measured {
            results.push(self.our_row(cell));
            for (rival, outcomes) in &cell.rivals {
                let mut row = self.row(cell, &outcomes.iter().collect::<Vec<_>>(), false);
                row.insert("rival".into(), json!(rival));
                baseline.push(Value::Object(row));
            }
        }
        let trusted =
            !interrupted && !measured.is_empty() && measured.iter().all(|cell| self.trustworthy(cell));
        json!({
            "schema": format!("plesio.bench.{}/1", self.name),
            "config": self.config,
            "host": self.host,
            "ended": if interrupted { "interrupted" } else { "whole" },
            "notes": self.notes,
            "results": results,
            "baseline": baseline,
            "ratio": self.ratio(&measured),
            "verdict": verdict(trusted),
        })
    }

    /// `ratio.PROTECTION.RIVAL`; a pingpong has `ratio.RIVAL` over all rows as well.
    fn ratio(&self, measured: &[&Cell]) -> Value {
        let mut ratio = Map::new();
        if self.what == What::Pingpong {
            ratio.append(&mut self.ratios(measured));
        }
        for mode in [Mode::Sealed, Mode::Plaintext] {
            let cells: Vec<&Cell> =
                measured.iter().filter(|cell| cell.key.protection == mode).copied().collect();
            if !cells.is_empty() {
                ratio.insert(mode.name().into(), Value::Object(self.ratios(&cells)));
            }
        }
        Value::Object(ratio)
    }

    fn ratios(&self, cells: &[&Cell]) -> Map<String, Value> {
        let ratio_of = |rival: Rival| {
            let ratios = cells.iter().filter_map(|cell| {
                let (_, outcomes) = cell.rivals.iter().find(|(other, _)| *other == rival)?;
                let theirs = Spread::of(outcomes.iter().map(|outcome| self.figure(outcome)))?.median;
                let ours = Spread::of(cell.ours().into_iter().map(|outcome| self.figure(outcome)))?.median;
                Some(ours / theirs)
            });
            json!(Spread::of(ratios).map(|spread| spread.median))
        };
        self.rivals.iter().map(|rival| (rival.name().into(), ratio_of(*rival))).collect()
    }

    /// Every row's round trips, named for a log.
    pub(crate) fn histograms(&self) -> Result<Vec<(String, RoundTrips)>, Failure> {
        let mut rows = Vec::new();
        for cell in &self.cells {
            let key = cell.key;
            let mut push = |who: &str, outcomes: &[&Outcome]| -> Result<(), Failure> {
                let mut all = RoundTrips::new()?;
                for trips in outcomes.iter().filter_map(|outcome| outcome.trips.as_ref()) {
                    all.merge(trips)?;
                }
                let chunk = key.chunk.to_string();
                rows.push((format!("{who}-{}-{chunk}-{}", key.bytes, key.wait.name()), all));
                Ok(())
            };
            let tier = cell.first.first().map_or("plesio", |outcome| &outcome.begin.tier);
            push(&format!("{tier}-{}", key.protection.name()), &cell.ours())?;
            for (rival, outcomes) in &cell.rivals {
                push(rival.name(), &outcomes.iter().collect::<Vec<_>>())?;
            }
        }
        Ok(rows)
    }
}

/// Payload per datagram: as given, or as the path was found to carry it, where that is said.
fn chunk_bytes(chunk: ChunkArg, outcomes: &[&Outcome]) -> Option<u32> {
    match chunk {
        ChunkArg::Bytes(bytes) => Some(bytes),
        ChunkArg::Path => {
            let found = outcomes.iter().flat_map(|outcome| outcome.halves()).map(|half| half.chunk_bytes);
            found.filter(|bytes| *bytes > 0).max()
        }
    }
}

/// What each flow got in the mean, and the least and the most that one got in a run, as shares of its flows' mean.
fn flow_figures(outcomes: &[&Outcome]) -> Map<String, Value> {
    let mut goodput: Vec<f64> = Vec::new();
    let (mut least, mut most) = (f64::INFINITY, 0.0_f64);
    for half in outcomes.iter().flat_map(|outcome| outcome.halves()).filter(|half| half.elapsed_ns > 0) {
        let mean = half.received_bytes as f64 / half.flows.len() as f64;
        goodput.resize(goodput.len().max(half.flows.len()), 0.0);
        for (goodput, flow) in goodput.iter_mut().zip(&half.flows) {
            let received = flow.received_bytes as f64;
            *goodput += received * 8e9 / half.elapsed_ns as f64 / outcomes.len() as f64;
            (least, most) = (least.min(received / mean), most.max(received / mean));
        }
    }
    object(json!({
        "flow_goodput_bps": goodput,
        "flow_least_ratio": least.is_finite().then_some(least),
        "flow_most_ratio": least.is_finite().then_some(most),
    }))
}

fn object(value: Value) -> Map<String, Value> {
    if let Value::Object(object) = value { object } else { Map::new() }
}

fn middle(spread: Option<Spread>) -> Option<f64> {
    spread.map(|spread| spread.median)
}

fn stream_figures(outcomes: &[&Outcome], ours: bool) -> Map<String, Value> {
    let over = |figure: &dyn Fn(&Outcome) -> f64| Spread::of(outcomes.iter().map(|outcome| figure(outcome)));
    let goodput = over(&Outcome::goodput_bps);
    let cpu = over(&|outcome| {
        outcome.sum(|half| half.cpu_ns) as f64 * 1024.0 / outcome.sum(|half| half.received_bytes) as f64
    });
    let retransmit = over(&|outcome| {
        outcome.sum(|half| half.retransmitted_bytes) as f64 / outcome.sum(|half| half.sent_bytes) as f64
    });
    object(json!({
        "goodput_bps": middle(goodput),
        "goodput_min_bps": goodput.map(|spread| spread.min),
        "goodput_max_bps": goodput.map(|spread| spread.max),
        "goodput_worst_bps": outcomes.iter().filter_map(|outcome| outcome.worst_bps()).min_by(f64::total_cmp),
        "goodput_runs_bps": outcomes.iter().map(|outcome| outcome.goodput_bps()).collect::<Vec<_>>(),
        "cpu_ns_per_kib": middle(cpu),
        // What a rival sends again it does not say.
        "retransmit_ratio": if ours { middle(retransmit) } else { None },
        "messages_per_s": middle(over(&Outcome::messages_per_s)),
    }))
}

fn pingpong_figures(outcomes: &[&Outcome]) -> Map<String, Value> {
    let trips =
        || outcomes.iter().filter_map(|outcome| outcome.trips.as_ref()).filter(|trips| trips.count() > 0);
    let over = |figure: &dyn Fn(&RoundTrips) -> f64| Spread::of(trips().map(figure));
    let p50 = over(&|trips| trips.quantile_ns(0.5));
    object(json!({
        "p50_ns": middle(p50),
        "p50_min_ns": p50.map(|spread| spread.min),
        "p50_max_ns": p50.map(|spread| spread.max),
        "p50_runs_ns": trips().map(|trips| trips.quantile_ns(0.5)).collect::<Vec<_>>(),
        "p99_ns": middle(over(&|trips| trips.quantile_ns(0.99))),
        "p999_ns": middle(over(&|trips| trips.quantile_ns(0.999))),
        "min_ns": over(&RoundTrips::min_ns).map(|spread| spread.min),
        "mean_ns": middle(over(&RoundTrips::mean_ns)),
        "stdev_ns": middle(over(&RoundTrips::deviation_ns)),
        "max_ns": over(&RoundTrips::max_ns).map(|spread| spread.max),
        "round_trips": trips().map(RoundTrips::count).sum::<u64>(),
    }))
}
