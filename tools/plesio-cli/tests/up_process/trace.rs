//! `--trace`: what nodes write down, what a full disk does to them, and what `plesio sim --replay` makes of it.

use crate::agree;
use crate::common::{Node, folder, output, plesio, refused, wait};
use serde_json::Value;
use std::fs;

/// F13: one node's trace is on a disk that is full, and it trains on and says so; the other's holds the whole log, how the first
/// came and how it left. The simulator then repeats that.
#[test]
fn a_trace_holds_the_log_and_a_full_disk_holds_nobody_up() {
    let at = folder("up-trace");
    let common = ["up", "--plaintext", "--json-stream", "--duty", "0.3"];
    let alone = ["--found", "--socket", "a.sock", "--out", "a", "--trace", "a.jsonl"];
    let mut founder = Node::start(plesio(&at, &[&common[..], &alone].concat()));
    let join = founder.started("join");
    let with = ["--join", &join, "--socket", "b.sock", "--out", "b", "--trace", "/dev/full"];
    let mut joiner = Node::start(plesio(&at, &[&common[..], &with].concat()));
    let key = joiner.started("node")[..16].to_owned();
    agree(&founder, &joiner);
    let status = |socket: &str| -> Value {
        let said = output(&at, &["status", "--json", "--socket", socket]).stdout;
        serde_json::from_slice(&said).expect("a status")
    };
    let degraded = status("b.sock")["trace"].clone();
    assert!(degraded["degraded"].as_str().is_some_and(|cause| cause.contains("No space left")), "{degraded}");
    assert!(degraded["dropped"].as_u64() > Some(0), "{degraded}");
    let whole = status("a.sock")["trace"].clone();
    assert!(
        whole["degraded"].is_null() && whole["dropped"] == 0 && whole["lines"].as_u64() > Some(50),
        "{whole}"
    );
    // In good order: of two the one with the lower key alone could go on after a crash, and keys are drawn.
    let _left = joiner.interrupt();
    wait("a view without it", || founder.members() == 1);
    let after = founder.version();
    wait("versions alone", || founder.version() > after + 3);
    let (code, _) = founder.interrupt();
    assert_eq!(code, Some(130));

    let text = fs::read_to_string(at.join("a.jsonl")).expect("written");
    let kinds: Vec<String> = text
        .lines()
        .map(|line| {
            let line: Value = serde_json::from_str(line).expect("one object a line");
            assert_eq!(line["schema"], "plesio.trace/1");
            line["kind"].as_str().expect("a kind").to_owned()
        })
        .collect();
    let kind = |kind: &str| kinds.iter().filter(|other| *other == kind).count();
    assert_eq!((kinds[0].as_str(), kind("start"), kind("end"), kind("unknown")), ("start", 1, 1, 0));
    for wanted in
        ["view", "manifest", "sealed", "version", "cut", "released", "clock", "phase", "decided", "listed"]
    {
        assert!(kind(wanted) > 0, "no {wanted}: {kinds:?}");
    }
    let replayed = output(&at, &["sim", "--replay", "a.jsonl", "--json"]);
    let document: Value = serde_json::from_slice(&replayed.stdout).expect("one document on stdout");
    let replay = &document["replay"];
    assert_eq!(replay["audit"]["broken"].as_array().map(Vec::len), Some(0), "{replay:#}");
    assert!(replay["audit"]["versions"].as_u64() > Some(8), "{replay:#}");
    let faults = replay["observed"]["faults"].as_array().expect("faults");
    let is_one =
        |kind: &str| faults.iter().filter(|fault| fault["kind"] == kind && fault["node"] == 1).count() == 1;
    assert!(is_one("join"), "{replay:#}");
    assert_eq!(replay["observed"]["nodes"][1], key.as_str());
    assert_eq!(replayed.status.code(), Some(0), "{document:#}");

    let said = refused(&at, &["up", "--plaintext", "--found", "--trace", "nowhere/a.jsonl"], 2);
    assert!(said.contains("nowhere/a.jsonl"), "{said}");
}
