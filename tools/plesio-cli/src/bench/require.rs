//! `--require 'ratio.plaintext.tcp>=0.95'`: a bound on a number of the document.

use serde::{Serialize, Serializer};
use serde_json::Value;
use std::fmt;
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
        let wrong = || "write it as NAME>=X or NAME<=X, for example ratio.plaintext.tcp>=0.95".to_owned();
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
        for wrong in ["", "x", "x>1", ">=1", "x>=y", "x>=NaN"] {
            assert!(wrong.parse::<Requirement>().is_err(), "{wrong}");
        }
    }
}
