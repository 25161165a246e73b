//! The documents `plesio.bench.allreduce/1` and `plesio.bench.shm/1`. Other programs read them; names are an interface.

use super::rank::rates;
use super::ranks::Outcome;
use crate::args::{ElementArg, NarrowArg, OperationArg, PathArg, SharesArg};
use crate::bench::figures::{Spread, trustworthy, verdict};
use crate::bench::{Mode, Wait};
use crate::host::Host;
use plesio_collective::{Network, Operation, Rates, Work, range, shares};
use serde_json::{Map, Value, json};

/// How ranks reach each other, and how many there are: what one group is formed by.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) path: PathArg,
    /// Of datagrams.
    pub(super) protection: Option<Mode>,
    /// For datagrams.
    pub(super) wait: Option<Wait>,
    pub(super) ranks: u8,
}

/// The independent variables of a row.
#[derive(Clone, Copy, Debug)]
pub(super) struct Key {
    pub(super) way: Way,
    pub(super) operation: OperationArg,
    pub(super) element: ElementArg,
    pub(super) codec: NarrowArg,
    pub(super) bytes: u32,
}

impl Key {
    /// Which row it is, in words.
    fn said(&self) -> String {
        let Way { path, protection, wait, ranks } = self.way;
        let words = [
            Some(match path {
                PathArg::Shm => "shm",
                PathArg::Udp => "udp",
            }),
            protection.map(Mode::name),
            wait.map(Wait::name),
            (self.codec != NarrowArg::None).then(|| self.codec.codec().name()),
        ];
        let by: String = words.into_iter().flatten().map(|word| format!(", {word}")).collect();
        format!("{} bytes, {ranks} ranks{by}", self.bytes)
    }

    /// Whether there is a bare pass to compare with.
    pub(super) fn has_floor(&self) -> bool {
        self.way.path == PathArg::Shm && self.operation == OperationArg::AllReduce
    }
}

/// What was measured for one row: ours before and after the bare pass of each round.
pub(super) struct Row {
    pub(super) key: Key,
    pub(super) first: Vec<Outcome>,
    pub(super) floor: Vec<Outcome>,
    pub(super) last: Vec<Outcome>,
    /// Operations in which a rank was killed.
    pub(super) killed: Vec<Outcome>,
    /// How often the rank to be killed was through before that.
    pub(super) killed_late: u32,
    pub(super) bounds: Option<Bounds>,
}

/// What an all-reduce takes at least, by what the links carry.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// With the best shares there are.
    best_ns: f64,
    /// The way it was done: with the shares that were used, or whole.
    used_ns: f64,
}

impl Bounds {
    pub(super) fn of(key: &Key, links_bits_per_s: &[u64], how: SharesArg) -> Option<Self> {
        let ranks = usize::from(key.way.ranks);
        if links_bits_per_s.len() < ranks || key.operation != OperationArg::AllReduce {
            return None;
        }
        let elements = u64::from(key.bytes) / key.element.element().bytes();
        let bytes = match key.codec {
            NarrowArg::None => u64::from(key.bytes),
            codec => codec.codec().encoded_bytes(elements as usize) as u64,
        };
        let work = Work {
            elements,
            contribution_bytes: bytes,
            result_bytes: bytes,
            grain_elements: plesio::Codec::GRAIN_ELEMENTS as u64,
        };
        let rates: Vec<Rates> = links_bits_per_s[..ranks].iter().map(|bits| rates(bits / 8)).collect();
        let best = shares(&work, &rates);
        let equal: Vec<_> = (0..ranks).map(|rank| range(elements, ranks, rank)).collect();
        let (used, mail_bytes) = match how {
            SharesArg::Rate => (&best, Network::mail_bytes_by(&rates)),
            SharesArg::Equal => (&equal, Network::mail_bytes_max(ranks)),
        };
        let time_ns = |ranges: &[_]| work.time_s(&rates, ranges) * 1e9;
        let used_ns = if u64::from(key.bytes) <= mail_bytes {
            // Whole, as it is, from everybody to everybody.
            let slowest = links_bits_per_s[..ranks].iter().min().copied().unwrap_or(0).max(8) / 8;
            (ranks as u64 - 1) as f64 * f64::from(key.bytes) * 1e9 / slowest as f64
        } else {
            time_ns(used)
        };
        Some(Self { best_ns: time_ns(&best), used_ns })
    }
}

impl Row {
    pub(super) fn new(key: Key) -> Self {
        let none = Vec::new;
        Self { key, first: none(), floor: none(), last: none(), killed: none(), killed_late: 0, bounds: None }
    }

    /// A row as a run leaves it, with 1 for every time.
    pub(super) fn sample(key: Key) -> Self {
        let outcome = Outcome { times_ns: vec![1], ..Outcome::default() };
        let floor = if key.has_floor() { vec![outcome.clone()] } else { Vec::new() };
        Self { first: vec![outcome.clone()], floor, last: vec![outcome], ..Self::new(key) }
    }

    fn ours(&self) -> impl Iterator<Item = &Outcome> {
        self.first.iter().chain(&self.last)
    }

    fn trustworthy(&self) -> bool {
        let medians = |outcomes: &[Outcome]| -> Vec<f64> {
            outcomes.iter().filter_map(|outcome| time([outcome])).map(|spread| spread.median).collect()
        };
        trustworthy(&medians(&self.first), &medians(&self.last))
    }

    /// What a death inside an operation costs those that live.
    fn killed_json(&self) -> Value {
        let (Some(undisturbed), Some(times)) = (time(self.ours()), time(&self.killed)) else {
            return Value::Null;
        };
        let count = u64::from(self.key.bytes) / self.key.element.element().bytes();
        let redone = self.killed.iter().map(|outcome| outcome.redone).max().unwrap_or(0);
        json!({
            "kills": self.killed.len(),
            "kills_late": self.killed_late,
            "time_ns": times.median,
            "time_max_ns": times.max,
            "above_undisturbed_ns": times.median - undisturbed.median,
            "above_undisturbed_max_ns": times.max - undisturbed.median,
            // In shared memory nobody counts it.
            "redone_share_max": (self.key.way.path == PathArg::Udp).then(|| redone as f64 / count.max(1) as f64),
            "wrong": self.killed.iter().map(|outcome| outcome.wrong).sum::<u64>(),
        })
    }

    /// The same in words.
    pub(super) fn killed_note(&self) -> Option<String> {
        if self.killed.is_empty() && self.killed_late > 0 {
            let late = self.killed_late;
            return Some(format!(
                "{}: none of {late} kills came before its rank's part was over",
                self.key.said()
            ));
        }
        let killed = self.killed_json();
        let ms = |name: &str| Some(killed[name].as_f64()? / 1e6);
        let redone = killed["redone_share_max"].as_f64();
        Some(format!(
            "{}: killed {} times inside it (and {} times after its part was over, which does not count): {:.2} ms over an undisturbed one at the median, {:.2} ms at most; {}{} wrong",
            self.key.said(),
            killed["kills"],
            killed["kills_late"],
            ms("above_undisturbed_ns")?,
            ms("above_undisturbed_max_ns")?,
            redone.map_or(String::new(), |share| format!("at most {share:.3} of it redone, ")),
            killed["wrong"],
        ))
    }

    /// Ours by the bare pass.
    fn floor_ratio(&self) -> Option<f64> {
        Some(time(self.ours())?.median / time(&self.floor)?.median)
    }

    fn json(&self, outcomes: &[&Outcome], ours: bool) -> Value {
        let Key { way, operation, element, codec, bytes } = self.key;
        let Way { path, protection, wait, ranks } = way;
        let suite = outcomes.iter().map(|outcome| &outcome.suite).find(|suite| !suite.is_empty());
        let spread = time(outcomes.iter().copied());
        let (operation, element) = (operation.operation(), element.element());
        let n = f64::from(ranks);
        let share = match operation {
            Operation::AllReduce => 2.0 * (n - 1.0) / n,
            Operation::Broadcast { .. } => 1.0,
            _ => (n - 1.0) / n,
        };
        let algbw = spread.map(|spread| f64::from(bytes) * 1e9 / spread.median);
        let reduces = matches!(operation, Operation::AllReduce | Operation::ReduceScatter);
        json!({
            "operation": if ours { operation.name() } else { "floor" },
            "ranks": ranks,
            "path": path,
            "protection": protection,
            "wait": wait,
            "suite": suite,
            "codec": codec,
            "in_place": path == PathArg::Shm,
            "bytes": bytes,
            "count": u64::from(bytes) / element.bytes(),
            "type": element.name(),
            "redop": if reduces { "sum" } else { "none" },
            "time_ns": spread.map(|spread| spread.median),
            "time_min_ns": spread.map(|spread| spread.min),
            "time_max_ns": spread.map(|spread| spread.max),
            "time_runs_ns": outcomes.iter().filter_map(|outcome| time([*outcome])).map(|spread| spread.median).collect::<Vec<_>>(),
            "algbw_Bps": algbw,
            "busbw_Bps": algbw.map(|algbw| algbw * share),
            "wrong": if ours { Some(outcomes.iter().map(|outcome| outcome.wrong).sum::<u64>()) } else { None },
            "rss_above_payload_bytes": outcomes.iter().map(|outcome| outcome.above_bytes).max(),
            "links_bound_ns": self.bounds.map(|bounds| bounds.best_ns),
            "shares_bound_ns": self.bounds.map(|bounds| bounds.used_ns),
            "of_links_bound": self.bounds.zip(spread).map(|(bounds, spread)| bounds.best_ns / spread.median),
            "killed": if ours { self.killed_json() } else { Value::Null },
            "repeats": outcomes.len(),
            "iterations": outcomes.iter().map(|outcome| outcome.times_ns.len()).sum::<usize>(),
            "verdict": if ours { Some(verdict(self.trustworthy())) } else { None },
        })
    }
}

/// Of every operation.
fn time<'a>(outcomes: impl IntoIterator<Item = &'a Outcome>) -> Option<Spread> {
    Spread::of(outcomes.into_iter().flat_map(|outcome| &outcome.times_ns).map(|time| *time as f64))
}

pub(super) struct Report<'a> {
    name: &'static str,
    config: Value,
    host: &'a Host,
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl<'a> Report<'a> {
    pub(super) fn new(name: &'static str, config: Value, host: &'a Host) -> Self {
        Self { name, config, host, rows: Vec::new(), notes: Vec::new() }
    }

    /// An empty one of the same command.
    pub(super) fn like(&self) -> Self {
        Self { config: self.config.clone(), rows: Vec::new(), notes: Vec::new(), ..*self }
    }

    /// A remark, said once.
    pub(super) fn note(&mut self, note: String) {
        if !self.notes.contains(&note) {
            self.notes.push(note);
        }
    }

    pub(super) fn push(&mut self, row: Row) {
        self.rows.push(row);
    }

    pub(super) fn has_rows(&self) -> bool {
        !self.rows.is_empty()
    }

    pub(super) fn wrong(&self) -> u64 {
        let all = self.rows.iter().flat_map(|row| row.ours().chain(&row.killed));
        all.map(|outcome| outcome.wrong).sum()
    }

    pub(super) fn last_row(&self) -> Value {
        self.rows.last().map_or(Value::Null, |row| row.json(&row.ours().collect::<Vec<_>>(), true))
    }

    pub(super) fn document(&self, interrupted: bool) -> Value {
        let (mut results, mut baseline) = (Vec::new(), Vec::new());
        for row in &self.rows {
            results.push(row.json(&row.ours().collect::<Vec<_>>(), true));
            if !row.floor.is_empty() {
                baseline.push(row.json(&row.floor.iter().collect::<Vec<_>>(), false));
            }
        }
        let mut ratio = Map::new();
        let floors = self.rows.iter().filter_map(Row::floor_ratio);
        ratio.insert("floor".into(), json!(Spread::of(floors).map(|spread| spread.median)));
        let trusted = !interrupted && !self.rows.is_empty() && self.rows.iter().all(Row::trustworthy);
        json!({
            "schema": format!("plesio.bench.{}/1", self.name),
            "config": self.config,
            "host": self.host,
            "ended": if interrupted { "interrupted" } else { "whole" },
            "notes": self.notes,
            "results": results,
            "baseline": baseline,
            "ratio": ratio,
            "verdict": verdict(trusted),
        })
    }
}
