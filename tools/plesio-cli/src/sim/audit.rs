//! What the traces of real nodes must agree on, whatever happened to them: one log, and of every version the same bits.
//!
//! | promise | judged by |
//! |---|---|
//! | I5, A1 | `manifest`, `sealed`, `view`: one entry at an index |
//! | I4 | `version`: one digest of a version in a generation of the log |
//! | I3 | `manifest`: weights are 2^24 together at most, and members stand in it once |
//! | I6 | `manifest`: no slot of one life twice; staleness within tau where that is known |
//!
//! After a majority was lost, a mesh that comes back begins a generation of its log (the bits of an index above 2^40) from
//! an older version: what was decided above that is lost, and its numbers are given again. A state that was taken over is
//! that of some generation.
//!
//! What traces do not hold cannot be judged: the contents of slots are in none, so no sum is made again.

use crate::trace::read::Record;
use plesio::generation;
use plesio_wire::LogIndex;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Audit {
    nodes: usize,
    entries: usize,
    versions: usize,
    /// Versions whose digest two nodes at least say.
    compared: usize,
    pub(super) broken: Vec<String>,
}

impl Audit {
    pub(super) fn words(&self) -> String {
        let Self { nodes, entries, versions, compared, broken } = self;
        let mut text = format!(
            "record      {nodes} nodes, {entries} entries of the log, {versions} versions, {compared} of them held by several nodes\n"
        );
        if broken.is_empty() {
            text += "            one log, and of every version the same digest\n";
        }
        for what in broken {
            let _ = writeln!(text, "            BROKEN {what}");
        }
        text
    }

    pub(super) fn document(&self) -> Value {
        json!({ "nodes": self.nodes, "entries": self.entries, "versions": self.versions,
            "versions_compared": self.compared, "broken": self.broken })
    }
}

/// Judges what nodes of one mesh wrote down.
pub(super) fn audit(records: &[Record]) -> Audit {
    let mut found = Audit::default();
    let mut nodes: Vec<&str> = records.iter().filter_map(|record| record.node.as_deref()).collect();
    nodes.sort_unstable();
    nodes.dedup();
    found.nodes = nodes.len();
    // What stands at an index, and who said so first.
    let mut log: BTreeMap<u64, (String, &str)> = BTreeMap::new();
    let mut digests = Digests::default();
    let mut manifests: BTreeMap<u64, &Record> = BTreeMap::new();
    for record in records {
        let Some(node) = record.node.as_deref() else { continue };
        let entry = match record.kind.as_str() {
            "manifest" => record.text("digest").map(|digest| format!("manifest {digest}")),
            "sealed" => record.number("version").map(|version| format!("seal of version {version}")),
            "view" => {
                let members: Vec<&str> = record.nodes("members").collect();
                record.number("number").map(|number| format!("view {number} of {}", members.join(" ")))
            }
            _ => None,
        };
        if let (Some(entry), Some(index)) = (entry, record.number("index")) {
            match log.get(&index) {
                Some((other, who)) if *other != entry => found
                    .broken
                    .push(format!("I5, A1: at index {index} {node} learnt {entry}, {who} {other}")),
                Some(_) => {}
                None => drop(log.insert(index, (entry, node))),
            }
            if record.kind == "manifest" {
                manifests.entry(index).or_insert(record);
            }
        }
        digests.add(node, record, &mut found.broken);
    }
    digests.judge_installed(&mut found.broken);
    let tau = records.iter().find_map(|record| record.line["setup"]["rules"]["tau"].as_u64());
    found.entries = log.len();
    found.versions = digests.held.len();
    found.compared = digests.held.values().filter(|(_, who)| who.len() > 1).count();
    judge_manifests(&manifests, &lives(records), tau, &mut found.broken);
    found.broken.truncate(BROKEN_MAX);
    found
}

/// What nodes say that versions are, told apart by the generation of the log that made them.
#[derive(Default)]
struct Digests<'a> {
    /// By version and generation: the digest, and who said it, the first one first.
    held: BTreeMap<(u64, u64), (&'a str, Vec<&'a str>)>,
    /// In which generation a node saw a version made.
    made: BTreeMap<(&'a str, u64), u64>,
    /// The version that a node took over, until it says its digest.
    taking: BTreeMap<&'a str, u64>,
    /// Node, version, digest.
    installed: Vec<(&'a str, u64, &'a str)>,
}

impl<'a> Digests<'a> {
    /// The records of a node come in their order.
    fn add(&mut self, node: &'a str, record: &'a Record, broken: &mut Vec<String>) {
        let Some(version) = record.number("version") else { return };
        match (record.kind.as_str(), record.number("index"), record.text("digest")) {
            ("manifest" | "sealed", Some(index), _) => {
                self.made.insert((node, version), generation(LogIndex(index)));
            }
            ("installed", ..) => {
                self.taking.insert(node, version);
            }
            ("version", _, Some(digest)) => {
                let was_taken = self.taking.remove(node) == Some(version);
                match self.made.get(&(node, version)) {
                    Some(generation) if !was_taken => {
                        let (first, who) =
                            self.held.entry((version, *generation)).or_insert((digest, Vec::new()));
                        if *first != digest {
                            broken.push(differs(version, first, who[0], digest, node));
                        }
                        if !who.contains(&node) {
                            who.push(node);
                        }
                    }
                    _ => self.installed.push((node, version, digest)),
                }
            }
            _ => {}
        }
    }

    /// What was taken over is what some generation made, where a trace says what that was; else it makes one entry itself.
    fn judge_installed(&mut self, broken: &mut Vec<String>) {
        for (node, version, digest) in std::mem::take(&mut self.installed) {
            let mut known = self.held.range_mut((version, 0)..=(version, u64::MAX)).map(|(_, held)| held);
            let first = known.next();
            match first {
                None => drop(self.held.insert((version, 0), (digest, vec![node]))),
                Some(held) => {
                    let (first, who) = (held.0, held.1[0]);
                    match std::iter::once(held).chain(known).find(|(known, _)| *known == digest) {
                        Some((_, who)) if who.contains(&node) => {}
                        Some((_, who)) => who.push(node),
                        None => broken.push(differs(version, first, who, digest, node)),
                    }
                }
            }
        }
    }
}

fn differs(version: u64, first: &str, who: &str, digest: &str, node: &str) -> String {
    format!("I4: version {version} has digest {first} at {who}, {digest} at {node}")
}

/// When nodes were admitted, by log index: their slots are numbered anew from there.
fn lives(records: &[Record]) -> BTreeMap<&str, Vec<u64>> {
    let mut lives: BTreeMap<&str, Vec<u64>> = BTreeMap::new();
    for record in records.iter().filter(|record| record.kind == "view") {
        let Some(index) = record.number("index") else { continue };
        for node in record.nodes("added") {
            lives.entry(node).or_default().push(index);
        }
    }
    lives
}

fn judge_manifests(
    manifests: &BTreeMap<u64, &Record>,
    lives: &BTreeMap<&str, Vec<u64>>,
    tau: Option<u64>,
    broken: &mut Vec<String>,
) {
    let mut listed: BTreeMap<(&str, u64, u64), u64> = BTreeMap::new();
    for (index, record) in manifests {
        let entries = record.line["entries"].as_array().map(Vec::as_slice).unwrap_or_default();
        let weight: u64 = entries.iter().filter_map(|entry| entry["weight"].as_u64()).sum();
        if weight > 1 << 24 {
            broken.push(format!("I3: the weights of index {index} are {weight}, above 2^24"));
        }
        for entry in entries {
            let (Some(node), Some(slot)) = (entry["node"].as_str(), entry["slot"].as_u64()) else { continue };
            let admissions = lives.get(node).map(Vec::as_slice).unwrap_or_default();
            let life =
                admissions.iter().filter(|admitted| *admitted < index).max().copied().unwrap_or_default();
            if let Some(before) = listed.insert((node, life, slot), *index) {
                broken.push(format!("I6: slot {slot} of {node} stands at index {before} and at {index}"));
            }
            let staleness = entry["staleness"].as_u64().unwrap_or_default();
            if tau.is_some_and(|tau| staleness > tau) {
                broken.push(format!(
                    "I6: slot {slot} of {node} is {staleness} versions stale at index {index}"
                ));
            }
        }
    }
}

/// One broken promise leads to many lines.
const BROKEN_MAX: usize = 50;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::Line;

    const A: &str = "0a00000000000000";
    const B: &str = "0b00000000000000";

    fn record(node: &str, kind: &'static str, fields: Value) -> Record {
        let line = Line::new(kind, fields).of(Some(node), 1, None);
        let text = format!("{line}\n");
        crate::trace::read::read(text.as_bytes(), |_| true).expect("a line").remove(0)
    }

    fn manifest(node: &str, index: u64, digest: &str, slot: u64, weight: u64, staleness: u64) -> Record {
        let entries =
            json!([{ "node": A, "slot": slot, "steps": 1, "weight": weight, "staleness": staleness }]);
        record(
            node,
            "manifest",
            json!({ "index": index, "version": index, "digest": digest, "entries": entries }),
        )
    }

    fn sound() -> Vec<Record> {
        let start = record(A, "start", json!({ "setup": { "rules": { "tau": 4 } } }));
        let version = |node| record(node, "version", json!({ "version": 1, "digest": "d1" }));
        vec![
            start,
            manifest(A, 1, "aa", 1, 1 << 23, 0),
            manifest(B, 1, "aa", 1, 1 << 23, 0),
            record(A, "sealed", json!({ "index": 2, "version": 1, "complete": true })),
            version(A),
            version(B),
            manifest(A, 3, "bb", 2, 1 << 23, 4),
        ]
    }

    #[test]
    fn one_log_with_equal_digests_is_sound() {
        let audit = audit(&sound());
        let whole = Audit { nodes: 2, entries: 3, versions: 1, compared: 1, broken: Vec::new() };
        assert_eq!(audit, whole);
    }

    #[test]
    fn every_broken_promise_is_named() {
        for (wrong, promise) in [
            (manifest(B, 3, "cc", 2, 1, 0), "I5"),
            (record(B, "sealed", json!({ "index": 1, "version": 1, "complete": true })), "I5"),
            (record(B, "version", json!({ "version": 1, "digest": "d2" })), "I4"),
            (manifest(A, 5, "cc", 3, (1 << 24) + 1, 0), "I3"),
            (manifest(A, 5, "cc", 1, 1, 0), "I6: slot 1"),
            (manifest(A, 5, "cc", 3, 1, 5), "I6: slot 3"),
        ] {
            let mut records = sound();
            records.push(wrong);
            let audit = audit(&records);
            assert!(audit.broken.len() == 1 && audit.broken[0].starts_with(promise), "{promise}: {audit:?}");
            assert!(audit.words().contains("BROKEN"));
        }
        // A mesh that came back gives numbers again, and who comes later takes over what it made.
        let sealed = |node, index: u64, version: u64| {
            record(node, "sealed", json!({ "index": index, "version": version, "complete": true }))
        };
        let version = |node, digest: &str| record(node, "version", json!({ "version": 1, "digest": digest }));
        let revived = |taken: &str| {
            let installed = record(B, "installed", json!({ "version": 1 }));
            [sealed(A, (1 << 40) + 1, 1), version(A, "d2"), installed, version(B, taken)]
        };
        for (taken, promises) in [("d2", 0), ("d1", 0), ("d3", 1)] {
            let audit = audit(&[sound(), revived(taken).to_vec()].concat());
            assert_eq!((audit.broken.len(), audit.versions), (promises, 2), "{taken}: {audit:?}");
        }
        // A new life numbers its slots anew.
        let mut records = sound();
        records.push(record(B, "view", json!({ "number": 2, "index": 4, "members": [A, B], "added": [A] })));
        records.push(manifest(A, 5, "cc", 1, 1, 0));
        assert_eq!(audit(&records).broken, Vec::<String>::new());
    }
}
