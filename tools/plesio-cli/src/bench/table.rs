//! A bench's document as columns: after perftest for a terminal, with commas, or in Markdown.

use crate::args::{BenchOutputArgs, FormArg};
use crate::failure::Failure;
use crate::stdout;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::Write as _;

/// A column: its head, the field it shows (with points between names), what one unit of it is, and how many digits
/// follow the point. Without a unit the field is text, or whether something holds.
struct Column(&'static str, &'static str, Option<f64>, usize);

const STREAM: &[Column] = &[
    Column("#bytes", "bytes", Some(1.0), 0),
    Column("chunk", "chunk_bytes", Some(1.0), 0),
    Column("wait", "wait", None, 0),
    Column("protection", "protection", None, 0),
    Column("#iterations", "repeats", Some(1.0), 0),
    Column("BW_peak", "goodput_max_bps", Some(1e9), 2),
    Column("BW_avg", "goodput_bps", Some(1e9), 2),
    Column("MsgRate", "messages_per_s", Some(1.0), 0),
    Column("worst_window", "goodput_worst_bps", Some(1e9), 2),
    Column("CPU_ns/KiB", "cpu_ns_per_kib", Some(1.0), 1),
    Column("retransmit", "retransmit_ratio", Some(1.0), 5),
];

const PINGPONG: &[Column] = &[
    Column("#bytes", "bytes", Some(1.0), 0),
    Column("wait", "wait", None, 0),
    Column("protection", "protection", None, 0),
    Column("#iterations", "round_trips", Some(1.0), 0),
    Column("t_min", "min_ns", Some(1e3), 2),
    Column("t_typical", "p50_ns", Some(1e3), 2),
    Column("t_avg", "mean_ns", Some(1e3), 2),
    Column("t_stdev", "stdev_ns", Some(1e3), 2),
    Column("p99", "p99_ns", Some(1e3), 2),
    Column("p99.9", "p999_ns", Some(1e3), 2),
    Column("t_max", "max_ns", Some(1e3), 2),
];

const COLLECTIVE: &[Column] = &[
    Column("ranks", "ranks", Some(1.0), 0),
    Column("path", "path", None, 0),
    Column("protection", "protection", None, 0),
    Column("wait", "wait", None, 0),
    Column("size", "bytes", Some(1.0), 0),
    Column("count", "count", Some(1.0), 0),
    Column("type", "type", None, 0),
    Column("redop", "redop", None, 0),
    Column("codec", "codec", None, 0),
    Column("time", "time_ns", Some(1e3), 2),
    Column("min", "time_min_ns", Some(1e3), 2),
    Column("max", "time_max_ns", Some(1e3), 2),
    Column("algbw", "algbw_Bps", Some(1e9), 2),
    Column("busbw", "busbw_Bps", Some(1e9), 2),
    Column("#wrong", "wrong", Some(1.0), 0),
    Column("verdict", "verdict", None, 0),
];

const KERNELS: &[Column] = &[
    Column("kernel", "kernel", None, 0),
    Column("shape", "shape", None, 0),
    Column("level", "level", None, 0),
    Column("threads", "threads", Some(1.0), 0),
    Column("sets", "sets", Some(1.0), 0),
    Column("bytes", "bytes", Some(1.0), 0),
    Column("time", "time_ns", Some(1e3), 2),
    Column("min", "time_min_ns", Some(1e3), 2),
    Column("max", "time_max_ns", Some(1e3), 2),
    Column("rate", "rate_Bps", Some(1e9), 2),
    Column("ns/vector", "vector_ns", Some(1.0), 1),
    Column("at_most", "must.vector_ns", Some(1.0), 0),
    Column("floor", "floor", None, 0),
    Column("of_floor", "floor_ratio", Some(1.0), 3),
    Column("at_least", "must.floor_ratio", Some(1.0), 2),
    Column("met", "met", None, 0),
    Column("numpy", "rivals.numpy", Some(1.0), 2),
    Column("#wrong", "wrong", Some(1.0), 0),
    Column("verdict", "verdict", None, 0),
];

const COMPARE: &[Column] = &[
    Column("kernel", "kernel", None, 0),
    Column("shape", "shape", None, 0),
    Column("#bytes", "bytes", Some(1.0), 0),
    Column("chunk", "chunk_bytes", Some(1.0), 0),
    Column("backend", "backend", None, 0),
    Column("wait", "wait", None, 0),
    Column("protection", "protection", None, 0),
    Column("A", "before", Some(1.0), 0),
    Column("B", "after", Some(1.0), 0),
    Column("ratio", "ratio", Some(1.0), 3),
    Column("low", "low", Some(1.0), 3),
    Column("high", "high", Some(1.0), 3),
    Column("verdict", "verdict", None, 0),
];

impl Column {
    /// A figure that is small beside its unit has two digits all the same.
    fn figure(&self, value: f64) -> String {
        let lacks = |digits: &usize| value.abs() * 10_f64.powi(*digits as i32) < 10.0;
        let some = value != 0.0 && self.3 > 0;
        let digits = if some { (self.3..DIGITS_MAX).find(|digits| !lacks(digits)) } else { Some(self.3) };
        format!("{value:.*}", digits.unwrap_or(DIGITS_MAX))
    }

    fn show(&self, row: &Value) -> String {
        let field = self.1.split('.').fold(row, |at, name| &at[name]);
        match self.2 {
            Some(unit) => field.as_f64().map_or_else(|| "-".into(), |value| self.figure(value / unit)),
            None => match field {
                Value::Bool(holds) => if *holds { "yes" } else { "no" }.into(),
                other => other.as_str().unwrap_or("-").into(),
            },
        }
    }
}

const DIGITS_MAX: usize = 9;

/// Prints the document in the form that was asked for. What it remarks goes to stderr too where stdout is for programs.
pub(crate) fn show(output: &BenchOutputArgs, document: &Value) -> Result<(), Failure> {
    if output.common.json_stream {
        stdout::emit("end", document);
    } else if output.form() == FormArg::Json {
        stdout::document(document);
    } else {
        stdout::text(&render(document, output.form())?);
    }
    if !output.common.quiet && (output.common.json_stream || output.form() != FormArg::Table) {
        for note in document["notes"].as_array().into_iter().flatten() {
            let _gone = writeln!(std::io::stderr(), "plesio: note: {}", note.as_str().unwrap_or_default());
        }
    }
    Ok(())
}

/// The document in a form for people or spreadsheets.
fn render(document: &Value, form: FormArg) -> Result<String, Failure> {
    let schema = document["schema"].as_str().unwrap_or_default();
    let (columns, last) = match schema {
        "plesio.bench.udp/1" => (STREAM, "BW in Gbit/s at the receiver"),
        "plesio.bench.pingpong/1" => (PINGPONG, "times of whole round trips in microseconds"),
        "plesio.bench.allreduce/1" | "plesio.bench.shm/1" => {
            (COLLECTIVE, "times in microseconds, of the slowest rank; bandwidths in GB/s")
        }
        "plesio.bench.kernels/1" => {
            (KERNELS, "times of a call in microseconds; rate in GB/s; the rest as times as fast")
        }
        "plesio.bench.compare/1" => (COMPARE, "ratio of B to A with its interval"),
        _ => {
            return Err(Failure::run(
                "bench",
                "cannot show this document",
                format!("its schema is {schema:?}"),
            ));
        }
    };
    let rows = |name: &str| document[name].as_array().cloned().unwrap_or_default();
    let mut lines: Vec<Vec<String>> = Vec::new();
    let compares = schema == "plesio.bench.compare/1";
    let who = (!compares).then(|| "#who".to_owned());
    lines.push(who.into_iter().chain(columns.iter().map(|column| column.0.to_owned())).collect());
    for row in rows("results").into_iter().chain(rows("baseline")) {
        let who = row["rival"]
            .as_str()
            .or(row["operation"].as_str())
            .or(row["backend"].as_str())
            .or(row["device"].as_str())
            .unwrap_or("?")
            .to_owned();
        let who = (!compares).then_some(who);
        lines.push(who.into_iter().chain(columns.iter().map(|column| column.show(&row))).collect());
    }
    let mut text = match form {
        FormArg::Csv => return Ok(csv(&lines)),
        FormArg::Md => markdown(&lines),
        FormArg::Table | FormArg::Json => aligned(&lines),
    };
    ratios(&mut text, "ratio", &document["ratio"]);
    let verdict = document["verdict"].as_str().unwrap_or("?");
    let _ = writeln!(text, "{last}; verdict: {verdict}");
    let mut suites: Vec<&str> = Vec::new();
    for row in document["results"].as_array().into_iter().flatten() {
        suites.extend(row["suite"].as_str().filter(|suite| !suites.contains(suite)));
    }
    if !suites.is_empty() {
        let _ = writeln!(text, "sealed: {}", suites.join(", "));
    }
    for note in document["notes"].as_array().into_iter().flatten() {
        let _ = writeln!(text, "note: {}", note.as_str().unwrap_or_default());
    }
    Ok(text)
}

fn ratios(text: &mut String, path: &str, ratio: &Value) {
    for (name, value) in ratio.as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        if value.is_object() {
            ratios(text, &path, value);
        } else {
            let shown = value.as_f64().map_or_else(|| "none".into(), |ratio| format!("{ratio:.3}"));
            let _ = writeln!(text, "{path}  {shown}");
        }
    }
}

fn aligned(lines: &[Vec<String>]) -> String {
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let cells: Vec<String> =
            line.iter().zip(&widths).map(|(cell, &width)| format!("{cell:>width$}")).collect();
        let _ = writeln!(text, "{}", cells.join("  "));
    }
    text
}

fn csv(lines: &[Vec<String>]) -> String {
    // No cell has a comma or a quote: they are numbers and our own names.
    lines.iter().map(|line| format!("{}\n", line.join(","))).collect()
}

fn markdown(lines: &[Vec<String>]) -> String {
    let mut text = String::new();
    for (index, line) in lines.iter().enumerate() {
        let _ = writeln!(text, "| {} |", line.join(" | "));
        if index == 0 {
            let rule: Vec<&str> = line.iter().map(|_| "---:").collect();
            let _ = writeln!(text, "|{}|", rule.join("|"));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_form_shows_every_row() {
        let document = json!({
            "schema": "plesio.bench.udp/1",
            "results": [{ "backend": "mio", "bytes": 64, "goodput_bps": 2e9, "wait": "spin" }],
            "baseline": [{ "rival": "tcp", "bytes": 64, "goodput_bps": null, "goodput_max_bps": 95_123.0 }],
            "ratio": { "plaintext": { "tcp": 1.5 } },
            "verdict": "noisy",
            "notes": ["a remark"],
        });
        let table = render(&document, FormArg::Table).expect("known");
        assert!(table.trim_start().starts_with("#who"), "{table}");
        for part in ["mio", "2.00", "0.000095", "spin", "tcp", "ratio.plaintext.tcp  1.500", "note: a remark"]
        {
            assert!(table.contains(part), "{part}: {table}");
        }
        let csv = render(&document, FormArg::Csv).expect("known");
        assert_eq!(csv.lines().count(), 3);
        assert!(csv.lines().all(|line| line.split(',').count() == STREAM.len() + 1));
        assert!(render(&document, FormArg::Md).expect("known").contains("|---:|"));
        assert!(render(&json!({ "schema": "x" }), FormArg::Md).is_err());
    }
}
