//! A mesh's story in lines, and what becomes of it.

use super::*;
use crate::args::{Cli, Command};
use crate::trace::{Line, read::read};

const A: &str = "0a00000000000000";
const B: &str = "0b00000000000000";
const C: &str = "0c00000000000000";

fn args() -> SimArgs {
    match Cli::read(["plesio", "sim"]).expect("a good line").command {
        Command::Sim(args) => *args,
        other => panic!("{other:?}"),
    }
}

/// At so many milliseconds; mesh time runs 7 s before this machine's.
fn record(at_ms: i64, node: Option<&str>, kind: &'static str, fields: Value) -> Record {
    let mesh_ns = node.map(|_| (at_ms + 7_000) * 1_000_000);
    let line = Line::new(kind, fields).of(node, at_ms * 1_000_000, mesh_ns);
    read(format!("{line}\n").as_bytes(), |_| true).expect("a line").remove(0)
}

fn view(at_ms: i64, node: &str, number: u32, members: &[&str], added: &[&str], removed: &[&str]) -> Record {
    let fields =
        json!({ "number": number, "index": number, "members": members, "added": added, "removed": removed });
    record(at_ms, Some(node), "view", fields)
}

/// B is killed and comes back, C joins, pauses, and is not heard by A for a while; then it leaves.
fn story() -> Vec<Record> {
    let peer = |at_ms, node, kind, peer: &str| record(at_ms, Some(node), kind, json!({ "peer": peer }));
    let setup = json!({ "setup": { "period_ns": 250_000_000, "rules": { "tau": 8 }, "links": "--loss 1%" } });
    let mut records = vec![
        record(900, None, "start", setup),
        view(1_000, A, 0, &[A, B], &[], &[]),
        view(1_000, B, 0, &[A, B], &[], &[]),
        record(3_000, Some(B), "killed", json!({ "by": "demo" })),
        peer(3_500, A, "suspect", B),
        view(4_100, A, 1, &[A], &[], &[B]),
        record(5_000, Some(B), "started", json!({})),
        view(6_000, B, 2, &[A, B], &[A, B], &[]),
        view(6_010, A, 2, &[A, B], &[B], &[]),
        record(7_000, Some(C), "started", json!({})),
        view(8_000, A, 3, &[A, B, C], &[C], &[]),
        peer(9_500, A, "suspect", C),
        record(9_900, Some(C), "late", json!({ "late_ns": 900_000_000 })),
        peer(9_910, A, "recover", C),
        peer(14_500, A, "suspect", C),
        peer(15_200, A, "recover", C),
        peer(18_000, A, "leaving", C),
        view(18_500, A, 4, &[A, B], &[], &[C]),
        record(
            20_000,
            Some(A),
            "manifest",
            json!({ "index": 9, "version": 9, "digest": "aa", "entries": [] }),
        ),
        // Everybody is told to stop: no story.
        view(21_500, A, 5, &[A], &[], &[B]),
    ];
    records.extend([view(6_020, C, 9, &[], &[C], &[])]);
    records
}

#[test]
fn what_befell_nodes_is_what_happens_again() {
    let observed = of_traces(story(), &args()).expect("a story");
    assert_eq!(observed.names, [A, B, C]);
    let scenario = &observed.scenario;
    assert_eq!((scenario.nodes, scenario.period_ms, scenario.rules.tau), (2, Some(250.0), Some(8)));
    assert_eq!(scenario.links.0.to_string(), "--loss 1%");
    let told: Vec<(&str, f64, Option<u8>, Option<f64>)> = scenario
        .fault
        .iter()
        .map(|fault| {
            (fault.kind.as_str(), fault.at_s, fault.node, fault.for_s.map(|s| (s * 1e3).round() / 1e3))
        })
        .collect();
    let expected = [
        ("crash", 2.0, Some(1), Some(2.0)),
        ("join", 6.0, Some(2), None),
        ("pause", 8.0, Some(2), Some(0.9)),
        ("one-way", 13.0, Some(2), Some(1.2)),
        ("leave", 17.0, Some(2), None),
    ];
    assert_eq!(told, expected);
    assert_eq!(scenario.fault[3].to, Some(0));
    let config = scenario.config(&args()).expect("it can happen");
    assert_eq!(config.simulated_s, 27);
    assert!(observed.words().contains("crash of n1 for 2.000 s"), "{}", observed.words());
}

/// The story of a mesh whose view of 20 s is without C, beside what else was seen.
fn without_c(seen: Vec<Record>) -> Observed {
    let mut records: Vec<Record> = [A, B, C].map(|node| view(1_000, node, 0, &[A, B, C], &[], &[])).into();
    records.push(view(20_000, A, 5, &[A, B], &[], &[C]));
    records.push(record(22_000, Some(A), "manifest", json!({})));
    records.extend(seen);
    of_traces(records, &args()).expect("a story")
}

/// What becomes of C there; seconds since the first view.
fn ends_of_c(seen: Vec<Record>) -> Vec<(String, f64)> {
    let of_c = without_c(seen).scenario.fault.into_iter().filter(|fault| fault.node == Some(2));
    of_c.map(|fault| (fault.kind, fault.at_s)).collect()
}

/// A node that had been suspected within the minute before it left was repeated as one that crashed, though it had
/// been heard again, or had come in anew, and though its own trace said `left`.
#[test]
fn who_leaves_in_good_order_did_not_crash() {
    let of_c = |at_ms, by, kind| record(at_ms, Some(by), kind, json!({ "peer": C }));
    let own = |at_ms, kind| record(at_ms, Some(C), kind, json!({}));
    let suspected = || of_c(5_000, A, "suspect");
    let again = || [view(7_000, A, 1, &[A, B], &[], &[C]), view(9_000, A, 2, &[A, B, C], &[C], &[])];
    let leave = || [("leave".to_owned(), 18.5)];
    // Its own word, before the others' view or soon after it, whatever they thought of it and whatever it says then.
    assert_eq!(ends_of_c(vec![of_c(19_400, A, "suspect"), own(20_300, "left"), own(20_400, "end")]), leave());
    let killed_later = vec![of_c(19_400, A, "suspect"), own(19_900, "left"), own(19_950, "killed")];
    assert_eq!(ends_of_c(killed_later), [("leave".to_owned(), 18.4)]);
    // Heard again since.
    let heard_again = vec![suspected(), of_c(5_400, A, "recover"), own(19_800, "version")];
    assert!(ends_of_c(heard_again).ends_with(&leave()));
    // One alone suspects it, and sees views that keep it.
    let alone = vec![suspected(), view(8_000, A, 1, &[A, B, C], &[], &[]), own(19_800, "version")];
    assert_eq!(ends_of_c(alone), leave());
    // Who suspected it is out itself.
    let accuser_gone = vec![of_c(5_000, B, "suspect"), view(7_000, A, 1, &[A, C], &[], &[B])];
    assert_eq!(ends_of_c(accuser_gone), leave());
    // It died, and was let in again.
    let died = [vec![own(6_000, "killed"), suspected()], again().into(), vec![own(20_100, "left")]].concat();
    assert_eq!(ends_of_c(died), [[("crash".to_owned(), 5.0)], leave()].concat());
    // Those who do crash: suspected still, or killed, or told that it is out before it goes.
    assert_eq!(
        ends_of_c(vec![own(19_000, "version"), of_c(19_400, A, "suspect")]),
        [("crash".to_owned(), 18.0)]
    );
    assert_eq!(ends_of_c(vec![own(19_100, "killed"), own(20_300, "left")]), [("crash".to_owned(), 18.1)]);
    let put_out = vec![of_c(19_400, A, "suspect"), own(20_200, "excluded"), own(20_300, "left")];
    assert_eq!(ends_of_c(put_out), [("one-way".to_owned(), 17.9)]);
    let dies = vec![own(19_000, "version"), of_c(19_400, A, "suspect")];
    let left_before = [vec![of_c(6_500, A, "leaving")], again().into(), dies].concat();
    let told = [("leave".to_owned(), 5.5), ("crash".to_owned(), 18.0)];
    assert_eq!(ends_of_c(left_before.clone()), told);
    assert!(without_c(left_before).words().contains(&format!("not repeated: return of {C}")));
}

#[test]
fn what_is_no_story_of_a_mesh_is_refused() {
    let none = vec![record(1, Some(A), "version", json!({}))];
    assert!(of_traces(none, &args()).is_err_and(|cause| cause.contains("no node ever was in a view")));
    let mut simulated = story();
    simulated.push(record(1, None, "start", json!({ "scenario": {} })));
    assert!(of_traces(simulated, &args()).is_err_and(|cause| cause.contains("simulation")));
    let mut long = story();
    long.push(record(9_000_000, Some(A), "manifest", json!({})));
    assert!(of_traces(long, &args()).is_err_and(|cause| cause.contains("an hour")));
    let mut wrong = story();
    wrong.push(record(1, Some(A), "start", json!({ "setup": { "codec": "int9" } })));
    assert!(of_traces(wrong, &args()).is_err_and(|cause| cause.contains("codec")));
}

#[test]
fn a_demo_tells_of_its_kill_and_its_joiner() {
    let document = json!({
        "schema": "plesio.demo/1", "nodes": 3, "trained_s": 12.5, "period_ns": 250_000_000,
        "config": { "codec": "int8", "shares": "rate", "rules": {} },
        "path": { "flags": "--delay 2ms" },
        "events": [
            { "t_s": 4.8, "node": "n1", "kind": "crash", "cause": "" },
            { "t_s": 5.9, "node": "n1", "kind": "exclude", "cause": "" },
            { "t_s": 8.5, "node": "n3", "kind": "join", "cause": "" },
            { "t_s": 13.0, "node": "n0", "kind": "leave", "cause": "the run is over" },
        ],
    });
    let observed = of_demo(&document, &args()).expect("a demo");
    let told: Vec<(&str, Option<u8>)> =
        observed.scenario.fault.iter().map(|fault| (fault.kind.as_str(), fault.node)).collect();
    assert_eq!(told, [("crash", Some(1)), ("join", Some(3))]);
    assert_eq!(observed.scenario.links.0.to_string(), "--delay 2ms");
    assert!(of_demo(&json!({ "nodes": 99 }), &args()).is_err());
}
