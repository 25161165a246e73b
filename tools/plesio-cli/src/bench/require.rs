//! `--require 'ratio.plaintext.tcp>=0.95'`: a bound on a number of the document.

use crate::failure::{Exit, Failure};
use serde::{Serialize, Serializer};
use serde_json::Value;
use std::fmt;
use std::io::Write;
use std::str::FromStr;

#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Requirement {
    path: String,
    at_least: bool,
    bound: f64,
}

impl FromStr for Requirement {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || {
            "write it as NAME>=X or NAME<=X, where dots in NAME lead to a number of the document".to_owned()
        };
        let (at_least, parts) = match (text.split_once(">="), text.split_once("<=")) {
            (Some(parts), None) => (true, parts),
            (None, Some(parts)) => (false, parts),
            _ => return Err(wrong()),
        };
        let bound: f64 = parts.1.trim().parse().map_err(|_| wrong())?;
        let path = parts.0.trim();
        if path.is_empty() || !bound.is_finite() {
            return Err(wrong());
        }
        Ok(Self { path: path.into(), at_least, bound })
    }
}

impl fmt::Display for Requirement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}{}", self.path, if self.at_least { ">=" } else { "<=" }, self.bound)
    }
}

impl Serialize for Requirement {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl Requirement {
    /// What to say instead, where no document of this kind has such a number.
    pub(crate) fn unknown(&self, sample: &Value) -> Option<String> {
        let mut at = sample;
        let mut known: Vec<&str> = Vec::new();
        for part in self.path.split('.') {
            let next = match at {
                Value::Object(fields) => fields.get(part),
                Value::Array(rows) => part.parse().ok().and_then(|row: usize| rows.get(row)),
                _ => None,
            };
            let Some(next) = next else { break };
            known.push(part);
            at = next;
        }
        if at.is_number() && known.len() == self.path.split('.').count() {
            return None;
        }
        let names: Vec<String> = match at {
            Value::Object(fields) => {
                fields.iter().filter(|(_, value)| leads_on(value)).map(|(name, _)| name.clone()).collect()
            }
            Value::Array(rows) => (0..rows.len()).map(|row| row.to_string()).collect(),
            _ => Vec::new(),
        };
        let place = if known.is_empty() { "the document".into() } else { known.join(".") };
        Some(if names.is_empty() {
            format!("{place} is no number and holds none")
        } else {
            format!("{place} has {}", names.join(", "))
        })
    }

    /// Why it is not met. A number that is not there is a miss.
    pub(crate) fn miss(&self, document: &Value) -> Option<String> {
        let pointer = format!("/{}", self.path.replace('.', "/"));
        let Some(found) = document.pointer(&pointer).and_then(Value::as_f64) else {
            return Some(format!("required {self}, but the document has no such number"));
        };
        let met = if self.at_least { found >= self.bound } else { found <= self.bound };
        (!met).then(|| format!("required {self}, found {found:.4}"))
    }
}

/// Whether a document like this one has all the numbers.
pub(crate) fn check(required: &[Requirement], sample: &Value) -> Result<(), Failure> {
    let unknown = required.iter().find_map(|bound| Some((bound, bound.unknown(sample)?)));
    unknown.map_or(Ok(()), |(bound, known)| {
        let cause = "the document of this command line has no such number";
        Err(Failure::usage("require", format!("cannot require {bound}"), cause)
            .fix(format!("name one that is there: {known}")))
    })
}

/// Says which bounds are missed, and how that ends.
pub(crate) fn judge(required: &[Requirement], document: &Value) -> Exit {
    let mut exit = Exit::Ok;
    for miss in required.iter().filter_map(|bound| bound.miss(document)) {
        let _gone = writeln!(std::io::stderr(), "plesio: {miss}");
        exit = Exit::Regression;
    }
    exit
}

/// Whether it is a number or holds some.
fn leads_on(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.values().any(leads_on),
        Value::Array(rows) => rows.iter().any(leads_on),
        value => value.is_number(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_bound_holds_or_is_missed() {
        let document = json!({ "ratio": { "plaintext": { "tcp": 1.1 } }, "results": [{ "bytes": 7 }] });
        for (bound, met) in [
            ("ratio.plaintext.tcp>=1.1", true),
            ("ratio.plaintext.tcp >= 1.2", false),
            ("ratio.plaintext.tcp<=1.2", true),
            ("results.0.bytes<=6", false),
            ("ratio.sealed.tcp>=0", false),
        ] {
            let requirement: Requirement = bound.parse().expect(bound);
            assert_eq!(requirement.miss(&document).is_none(), met, "{bound}");
        }
        for (bound, said) in [
            ("ratio.plaintext.tcp>=1", None),
            ("ratio.sealed.tcp>=1", Some("ratio has plaintext")),
            ("ratio.plaintext>=1", Some("ratio.plaintext has tcp")),
            ("results.1.bytes>=1", Some("results has 0")),
            ("results.0.bytes.x>=1", Some("results.0.bytes is no number and holds none")),
            ("nothing>=1", Some("the document has ratio, results")),
        ] {
            let requirement: Requirement = bound.parse().expect(bound);
            assert_eq!(requirement.unknown(&document).as_deref(), said, "{bound}");
        }
        for wrong in ["", "x", "x>1", ">=1", "x>=y", "x>=NaN"] {
            assert!(wrong.parse::<Requirement>().is_err(), "{wrong}");
        }
    }
}
