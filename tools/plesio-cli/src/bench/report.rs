//! The document `plesio.bench.udp/1` and its table.

use super::figures::{Spread, trustworthy};
use super::link::Rival;
use super::pair::Outcome;
use crate::args::BenchUdpArgs;
use crate::host::Host;
use serde_json::{Map, Value, json};
use std::fmt::Write as _;

/// What was measured for one size and chunk.
pub(crate) struct Cell {
    bytes: u32,
    chunk_bytes: u32,
    /// Ours, before the rivals of each round and after them.
    pub(crate) first: Vec<Outcome>,
    pub(crate) last: Vec<Outcome>,
    pub(crate) rivals: Vec<(Rival, Vec<Outcome>)>,
}

fn goodput_bps(outcome: &Outcome) -> f64 {
    outcome.received.bytes as f64 * 8e9 / outcome.received.elapsed_ns as f64
}

impl Cell {
    pub(crate) fn new(bytes: u32, chunk_bytes: u32, rivals: &[Rival]) -> Self {
        let rivals = rivals.iter().map(|rival| (*rival, Vec::new())).collect();
        Self { bytes, chunk_bytes, first: Vec::new(), last: Vec::new(), rivals }
    }

    fn ours(&self) -> Vec<&Outcome> {
        self.first.iter().chain(&self.last).collect()
    }

    pub(crate) fn wrong_bytes(&self) -> u64 {
        let rivals = self.rivals.iter().flat_map(|(_, outcomes)| outcomes);
        self.ours().into_iter().chain(rivals).map(|outcome| outcome.received.wrong_bytes).sum()
    }

    fn trustworthy(&self) -> bool {
        let goodput = |outcomes: &[Outcome]| outcomes.iter().map(goodput_bps).collect::<Vec<_>>();
        trustworthy(&goodput(&self.first), &goodput(&self.last))
    }

    /// What both kinds of row hold.
    fn row(&self, args: &BenchUdpArgs, outcomes: &[&Outcome]) -> Map<String, Value> {
        let over =
            |figure: &dyn Fn(&Outcome) -> f64| Spread::of(outcomes.iter().map(|outcome| figure(outcome)));
        let goodput = over(&goodput_bps);
        let cpu = over(&|outcome| {
            (outcome.cpu_ns + outcome.received.cpu_ns) as f64 * 1024.0 / outcome.received.bytes as f64
        });
        let retransmit = over(&|outcome| outcome.retransmitted_bytes as f64 / outcome.sent_bytes as f64);
        let rate =
            over(&|outcome| outcome.received.messages as f64 * 1e9 / outcome.received.elapsed_ns as f64);
        let worst = outcomes.iter().filter_map(|outcome| outcome.received.worst_bps).min_by(f64::total_cmp);
        let middle = |spread: Option<Spread>| spread.map(|spread| spread.median);
        let row = json!({
            "bytes": self.bytes,
            "working_set_bytes": args.working_set,
            "chunk_bytes": self.chunk_bytes,
            "wait": args.wait,
            "goodput_bps": middle(goodput),
            "goodput_min_bps": goodput.map(|spread| spread.min),
            "goodput_max_bps": goodput.map(|spread| spread.max),
            "goodput_worst_bps": worst,
            "cpu_ns_per_kib": middle(cpu),
            "retransmit_ratio": middle(retransmit),
            "messages_per_s": middle(rate),
            "sent_bytes": outcomes.iter().map(|outcome| outcome.sent_bytes).sum::<u64>(),
            "received_bytes": outcomes.iter().map(|outcome| outcome.received.bytes).sum::<u64>(),
            "wrong_bytes": outcomes.iter().map(|outcome| outcome.received.wrong_bytes).sum::<u64>(),
            "repeats": outcomes.len(),
        });
        if let Value::Object(row) = row { row } else { Map::new() }
    }
}

pub(crate) fn document(args: &BenchUdpArgs, host: &Host, cells: &[Cell], interrupted: bool) -> Value {
    let measured: Vec<&Cell> = cells.iter().filter(|cell| !cell.first.is_empty()).collect();
    let (mut results, mut baseline, mut ratio) = (Vec::new(), Vec::new(), Map::new());
    for cell in &measured {
        let ours = cell.ours();
        let mut row = cell.row(args, &ours);
        row.insert("backend".into(), json!(ours.first().map(|outcome| &outcome.tier)));
        row.insert("protection".into(), json!("plaintext"));
        results.push(Value::Object(row));
        for (rival, outcomes) in &cell.rivals {
            let mut row = cell.row(args, &outcomes.iter().collect::<Vec<_>>());
            row.insert("rival".into(), json!(rival));
            // A stream has no messages, and what counts here are calls.
            row.insert("messages_per_s".into(), Value::Null);
            baseline.push(Value::Object(row));
        }
    }
    for rival in &args.vs {
        let ratios = measured.iter().filter_map(|cell| {
            let (_, outcomes) = cell.rivals.iter().find(|(other, _)| other == rival)?;
            let theirs = Spread::of(outcomes.iter().map(goodput_bps))?.median;
            Some(Spread::of(cell.ours().into_iter().map(goodput_bps))?.median / theirs)
        });
        ratio.insert(rival.name().into(), json!(Spread::of(ratios).map(|spread| spread.median)));
    }
    let trusted = !interrupted && !measured.is_empty() && measured.iter().all(|cell| cell.trustworthy());
    json!({
        "schema": "plesio.bench.udp/1",
        "config": args,
        "host": host,
        "ended": if interrupted { "interrupted" } else { "whole" },
        "results": results,
        "baseline": baseline,
        "ratio": { "plaintext": ratio },
        "verdict": if trusted { "trustworthy" } else { "noisy" },
    })
}

/// Columns after perftest, in Gbit/s.
pub(crate) fn table(document: &Value) -> String {
    let mut text = format!(
        "{:>9} {:>8} {:>7} {:>6} {:>11} {:>8} {:>8} {:>10} {:>12} {:>12} {:>10}\n",
        "#who",
        "#bytes",
        "chunk",
        "wait",
        "#iterations",
        "BW_peak",
        "BW_avg",
        "MsgRate",
        "worst_window",
        "CPU_ns/KiB",
        "retransmit"
    );
    let rows = |name: &str| document[name].as_array().cloned().unwrap_or_default();
    for row in rows("results").into_iter().chain(rows("baseline")) {
        let who = row["rival"].as_str().or(row["backend"].as_str()).unwrap_or("?");
        let number = |name: &str, scale: f64, digits: usize| {
            row[name].as_f64().map_or_else(|| "-".into(), |value| format!("{:.digits$}", value / scale))
        };
        let _ = writeln!(
            text,
            "{who:>9} {:>8} {:>7} {:>6} {:>11} {:>8} {:>8} {:>10} {:>12} {:>12} {:>10}",
            number("bytes", 1.0, 0),
            number("chunk_bytes", 1.0, 0),
            row["wait"].as_str().unwrap_or("?"),
            number("repeats", 1.0, 0),
            number("goodput_max_bps", 1e9, 2),
            number("goodput_bps", 1e9, 2),
            number("messages_per_s", 1.0, 0),
            number("goodput_worst_bps", 1e9, 2),
            number("cpu_ns_per_kib", 1.0, 1),
            number("retransmit_ratio", 1.0, 5),
        );
    }
    for (rival, ratio) in document["ratio"]["plaintext"].as_object().into_iter().flatten() {
        let ratio = ratio.as_f64().map_or_else(|| "none".into(), |ratio| format!("{ratio:.3}"));
        let _ = writeln!(text, "ratio.plaintext.{rival}  {ratio}");
    }
    let _ = writeln!(
        text,
        "BW in Gbit/s at the receiver; verdict: {}",
        document["verdict"].as_str().unwrap_or("?")
    );
    text
}
