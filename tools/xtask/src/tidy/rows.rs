//! Every row of the specification's tables of bad input, attacks and faults has a test that carries the row's id in its
//! name, and `tests/rows.md` lists them all.

use super::Finding;
use std::collections::{BTreeMap, BTreeSet};

/// The table.
pub(super) const TABLE: &str = "tests/rows.md";
/// Lines between the attribute and the name of a test.
const ATTRIBUTES_MAX: usize = 4;

/// Names of the tests of all files, gathered one file after the other.
#[derive(Default)]
pub(super) struct Tests {
    /// Where each id was met first.
    met: BTreeMap<String, (String, usize)>,
}

impl Tests {
    /// Reads the tests of one file.
    pub(super) fn read(&mut self, path: &str, text: &str) {
        if !path.ends_with(".rs") {
            return;
        }
        let mut since_attribute = usize::MAX;
        for (at, line) in text.lines().map(str::trim_start).enumerate() {
            since_attribute = since_attribute.saturating_add(1);
            if line.starts_with("#[test]") {
                since_attribute = 0;
            }
            let name = line.strip_prefix("fn ").and_then(|rest| rest.split(['(', '<']).next());
            if let Some(name) = name.filter(|_| since_attribute <= ATTRIBUTES_MAX) {
                since_attribute = usize::MAX;
                for id in ids(name) {
                    self.met.entry(id).or_insert_with(|| (path.to_string(), at + 1));
                }
            }
        }
    }

    /// Rows without a test, and tests of rows that are not in the table.
    pub(super) fn judge(&self, table: &str) -> Vec<Finding> {
        let mut rows = BTreeSet::new();
        let mut findings = Vec::new();
        for (at, line) in table.lines().enumerate() {
            let Some(id) = line.strip_prefix("| ").and_then(|rest| rest.split(" |").next()) else { continue };
            if ids(id) != [id] {
                continue;
            }
            if !self.met.contains_key(id) {
                let what = format!("no test is called after row {id}: write one, with the id in its name");
                findings.push(Finding { path: TABLE.to_string(), line: at + 1, what });
            }
            rows.insert(id);
        }
        for (id, (path, line)) in &self.met {
            if !rows.contains(id.as_str()) {
                let what =
                    format!("a test is called after row {id}, which {TABLE} does not have: add the row");
                findings.push(Finding { path: path.clone(), line: *line, what });
            }
        }
        findings
    }
}

/// The ids in a name: `c9_01` to `c9_18`, `t1` to `t22`, `f1` to `f28`.
fn ids(name: &str) -> Vec<String> {
    let words: Vec<&str> = name.split('_').collect();
    let number = |word: &str, prefix: char, max: u32| {
        let digits = word.strip_prefix(prefix)?;
        digits.parse().ok().filter(|number: &u32| (1..=max).contains(number) && !digits.starts_with('0'))
    };
    let mut ids = Vec::new();
    for (at, word) in words.iter().enumerate() {
        let next = words.get(at + 1).filter(|next| next.len() == 2 && next.parse::<u32>().is_ok());
        if let ("c9", Some(next)) = (*word, next) {
            ids.push(format!("c9_{next}"));
        } else if number(word, 't', 22).or_else(|| number(word, 'f', 28)).is_some() {
            ids.push((*word).to_string());
        }
    }
    ids
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_found_in_names() {
        assert_eq!(ids("c9_12_t11_two_manifests"), ["c9_12", "t11"]);
        assert_eq!(ids("r9_c9_12_manifests"), ["c9_12"]);
        for none in ["f32_sums", "t0_starts", "t1x", "c9_x", "t01_padded", "of_t_and_f"] {
            assert_eq!(ids(none), [""; 0], "{none}");
        }
    }

    #[test]
    fn a_row_without_a_test_and_a_test_without_a_row_are_found() {
        let mut tests = Tests::default();
        tests.read("a.rs", "#[test]\nfn c9_01_short() {}\nfn t5_helper() {}\n    #[test]\n    #[cfg(x)]\n    fn f7_loss() {}\n");
        tests.read("b.md", "#[test]\nfn t9_not_code() {}\n");
        let table = "| row | input |\n|---|---|\n| c9_01 | short |\n| t5 | replay |\n";
        let found: Vec<(String, usize)> =
            tests.judge(table).into_iter().map(|finding| (finding.path, finding.line)).collect();
        assert_eq!(found, [(TABLE.to_string(), 4), ("a.rs".to_string(), 6)]);
        assert_eq!(tests.judge("| c9_01 | x |\n| f7 | y |\n"), []);
    }
}
