//! Traces read back: bounded, line by line, and only the kinds that somebody asks for.

use super::SCHEMA;
use serde_json::Value;
use std::fmt;
use std::io::{BufRead, Read};

/// One line, understood as far as all lines are alike.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Record {
    /// 16 digits; none for what no node said.
    pub(crate) node: Option<String>,
    pub(crate) mono_ns: i64,
    pub(crate) mesh_ns: Option<i64>,
    pub(crate) kind: String,
    /// The whole line.
    pub(crate) line: Value,
}

impl Record {
    /// A number of the line.
    pub(crate) fn number(&self, field: &str) -> Option<u64> {
        self.line[field].as_u64()
    }

    /// A text of the line.
    pub(crate) fn text(&self, field: &str) -> Option<&str> {
        self.line[field].as_str()
    }

    /// The nodes in a list of the line.
    pub(crate) fn nodes(&self, field: &str) -> impl Iterator<Item = &str> {
        self.line[field].as_array().into_iter().flatten().filter_map(Value::as_str)
    }
}

/// Why a text is no trace.
#[derive(Debug)]
pub(crate) enum ReadError {
    Io(std::io::Error),
    /// Line, and what is wrong with it.
    Line(usize, String),
    Long,
}

impl fmt::Display for ReadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io(cause) => write!(f, "{cause}"),
            Self::Line(number, what) => write!(f, "line {number}: {what}"),
            Self::Long => write!(f, "more than {RECORDS_MAX} lines of interest: give a part of it"),
        }
    }
}

/// Every line whose kind `wanted` accepts. A last line without its end is one that a crash cut off: it is left out.
pub(crate) fn read(mut from: impl BufRead, wanted: impl Fn(&str) -> bool) -> Result<Vec<Record>, ReadError> {
    let mut records = Vec::new();
    let mut line = Vec::new();
    for number in 1.. {
        line.clear();
        let mut piece = (&mut from).take(LINE_BYTES_MAX);
        if piece.read_until(b'\n', &mut line).map_err(ReadError::Io)? == 0 {
            break;
        }
        if line.pop_if(|last| *last == b'\n').is_none() {
            if line.len() as u64 + 1 >= LINE_BYTES_MAX {
                return Err(ReadError::Line(number, format!("it is longer than {LINE_BYTES_MAX} bytes")));
            }
            break;
        }
        if line.trim_ascii().is_empty() {
            continue;
        }
        let value: Value = serde_json::from_slice(&line)
            .map_err(|error| ReadError::Line(number, format!("it is no JSON: {error}")))?;
        match value["schema"].as_str() {
            Some(SCHEMA) => {}
            Some(other) => {
                return Err(ReadError::Line(
                    number,
                    format!("schema {other:?} is not {SCHEMA:?}, which this build reads"),
                ));
            }
            None => return Err(ReadError::Line(number, "it has no schema: it is no line of a trace".into())),
        }
        let lacks = |field: &str| ReadError::Line(number, format!("{field} is missing"));
        let kind = value["kind"].as_str().ok_or_else(|| lacks("kind"))?;
        if !wanted(kind) {
            continue;
        }
        if records.len() == RECORDS_MAX {
            return Err(ReadError::Long);
        }
        let node = value["node"].as_str();
        if node.is_some_and(|node| crate::hex::parse::<8>(node).is_none()) {
            return Err(ReadError::Line(number, "node is not 16 hexadecimal digits".into()));
        }
        records.push(Record {
            node: node.map(Into::into),
            mono_ns: value["mono_ns"].as_i64().ok_or_else(|| lacks("mono_ns"))?,
            mesh_ns: value["mesh_ns"].as_i64(),
            kind: kind.into(),
            line: value,
        });
    }
    Ok(records)
}

/// A manifest of 32 contributions takes 5 kB.
pub(super) const LINE_BYTES_MAX: u64 = 64 << 10;
/// Some hours of a mesh, and less than a GiB of memory.
const RECORDS_MAX: usize = 1 << 18;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Line;
    use serde_json::json;

    #[test]
    fn whole_lines_are_read_and_half_a_last_one_is_left_out() {
        let line = |kind: &'static str| {
            Line::new(kind, json!({ "version": 3 })).of(Some("0011223344556677"), 5, None)
        };
        let text = format!("{}\n\n{}\n{{\"schema\":\"ples", line("version"), line("progress"));
        let records = read(text.as_bytes(), |kind| kind == "version").expect("a trace");
        assert_eq!(records.len(), 1);
        assert_eq!((records[0].number("version"), records[0].mono_ns), (Some(3), 5));
    }

    #[test]
    fn what_is_no_trace_is_refused_with_its_line() {
        let good = Line::new("void", json!({})).of(None, 5, None);
        for (wrong, word) in [
            ("{}", "no schema"),
            ("nonsense", "no JSON"),
            ("{\"schema\":\"plesio.trace/2\"}", "plesio.trace/1"),
            ("{\"schema\":\"plesio.trace/1\"}", "kind is missing"),
            ("{\"schema\":\"plesio.trace/1\",\"kind\":\"x\"}", "mono_ns is missing"),
            (
                "{\"schema\":\"plesio.trace/1\",\"kind\":\"x\",\"mono_ns\":1,\"node\":\"../../x\"}",
                "hexadecimal",
            ),
        ] {
            let error = read(format!("{good}\n{wrong}\n").as_bytes(), |_| true).expect_err(wrong).to_string();
            assert!(error.starts_with("line 2") && error.contains(word), "{error}");
        }
        let long = vec![b'a'; LINE_BYTES_MAX as usize + 1];
        assert!(read(&long[..], |_| true).is_err());
        let deep = format!("{}\n", "[".repeat(60_000));
        assert!(read(deep.as_bytes(), |_| true).is_err());
    }
}
