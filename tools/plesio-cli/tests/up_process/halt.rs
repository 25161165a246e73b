//! HALT and RESUME of a running, sealed mesh: silence, kill -9 and a restart in between, forgeries and replays.

use super::common::{Node, output, refused, wait};
use super::mesh::Mesh;
use plesio_sideband::{Given, Record};
use plesio_wire::sideband::{Message, Order, OrderKind};
use serde_json::Value;
use std::fs;
use std::net::UdpSocket;
use std::time::{Duration, Instant};

const NAMES: [&str; 4] = ["a", "b", "c", "d"];

/// Every forgery of RESUME that T16 names.
fn forgeries(mesh: &Mesh) -> Vec<Order> {
    let genuine = mesh.order(OrderKind::Resume, 9, &["one", "two"]);
    let mut altered = genuine;
    altered.signatures[1].signature[40] ^= 1;
    let mut twice = genuine;
    twice.signatures[1] = twice.signatures[0];
    let other_kind = mesh.order(OrderKind::Halt, 9, &["one", "two"]);
    let one = mesh.order(OrderKind::Resume, 9, &["three"]);
    vec![altered, twice, other_kind, one, Order { sequence: 10, ..genuine }, Order { scope: 1, ..genuine }]
}

#[test]
fn a_halt_outlives_kill_9_of_all_and_only_the_operators_lift_it() {
    let mut mesh = Mesh::new("up-halt", &NAMES);
    mesh.start();
    mesh.agree();
    let at = mesh.at.clone();
    let to: Vec<String> = mesh.addresses("sideband").iter().map(ToString::to_string).collect();

    // Two operators who do not share a machine; the order is sent to one node alone.
    let id = format!("{:016x}", mesh.id);
    let line = ["halt", "--sign", "one.halt", "--operator-key", "one.key", "--mesh", &id, "--sequence", "1"];
    assert!(output(&at, &line).status.success());
    let listed = ["--operator", "one.pub,two.pub,three.pub", "--threshold", "2"];
    let line = ["halt", "--signed", "one.halt", "--operator-key", "two.key", "--json", "--to", &to[2]];
    let sent = Instant::now();
    let told = output(&at, &[&line[..], &listed].concat());
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Value = serde_json::from_slice(&told.stdout).expect("one document");
    assert_eq!((&told["schema"], &told["acknowledged"]), (&"plesio.halt/1".into(), &1.into()));
    let key = |name: &str| mesh.status(name)["node"].clone();
    assert_eq!(told["nodes"][0]["node"], key("c"));
    let is_halted =
        |node: &Node| node.newest(|event, data| (event == "halt").then(|| data["sequence"].as_u64()));
    wait("a halt of all", || mesh.nodes.iter().all(|node| is_halted(node) == Some(Some(1))));
    println!("all of {} halted {:?} after the command began", NAMES.len(), sent.elapsed());

    // A second after it nothing more leaves the data sockets, and nothing is committed.
    std::thread::sleep(Duration::from_secs(1).saturating_sub(sent.elapsed()) + Duration::from_millis(600));
    let quiet = (mesh.statuses("data_sent_bytes"), mesh.statuses("version"), mesh.statuses("steps"));
    let beats = mesh.statuses("sideband_sent_bytes");
    std::thread::sleep(Duration::from_secs(3));
    let after = (mesh.statuses("data_sent_bytes"), mesh.statuses("version"), mesh.statuses("steps"));
    assert_eq!(quiet, after, "silent, nothing committed, no step taken");
    let more = mesh.statuses("sideband_sent_bytes");
    assert!(beats.iter().zip(&more).all(|(before, after)| after.as_u64() > before.as_u64()), "beats go on");
    assert_eq!(mesh.statuses("suspects"), vec![Value::Array(Vec::new()); NAMES.len()]);

    // Killed and started again, in another place: halted before anybody could say so.
    mesh.nodes.clear();
    mesh.start();
    wait("the halt after the restart", || mesh.nodes.iter().all(|node| is_halted(node) == Some(Some(1))));
    assert_eq!(mesh.statuses("halt_stored"), vec![Value::Bool(true); NAMES.len()]);

    // Forged or replayed, it changes nothing and is counted.
    for order in forgeries(&mesh) {
        mesh.say(&Message::Resume(order));
    }
    mesh.say(&Message::Resume(mesh.order(OrderKind::Resume, 1, &["one", "two"])));
    let counted =
        |orders: &Value| ["forged", "signers", "unsupported", "replayed"].map(|it| orders[it].as_u64());
    let all = [Some(9), Some(6), Some(3), Some(3)];
    wait("all forgeries counted", || mesh.statuses("orders").iter().all(|orders| counted(orders) == all));
    assert_eq!(mesh.statuses("halted"), vec![Value::Bool(true); NAMES.len()]);
    assert_eq!(mesh.statuses("version"), vec![Value::from(0); NAMES.len()]);
    assert!(mesh.nodes.iter().all(|node| node.digests().is_empty()), "nobody has committed anything");

    // The operators lift it; which sequence comes next the nodes prove.
    let to: Vec<String> = mesh.addresses("sideband").iter().map(ToString::to_string).collect();
    let all = to.join(",");
    let one = ["resume", "--operator-key", "three.key", "--pool", "pool.key", "--to", &all];
    assert!(refused(&at, &[&one[..], &listed].concat(), 2).contains("2 operators have to sign, and 1 did"));
    let line =
        ["resume", "--operator-key", "two.key,three.key", "--pool", "pool.key", "--to", &all, "--json"];
    let told = output(&at, &[&line[..], &listed].concat());
    assert!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let told: Value = serde_json::from_slice(&told.stdout).expect("one document");
    assert_eq!((&told["sequence"], &told["acknowledged"]), (&2.into(), &NAMES.len().into()));
    mesh.agree();

    // What was once an order is one no more.
    mesh.say(&Message::Halt(mesh.order(OrderKind::Halt, 1, &["one", "two"])));
    wait("the replay counted", || {
        mesh.statuses("orders").iter().all(|orders| orders["replayed"].as_u64() >= Some(6))
    });
    assert_eq!(mesh.statuses("halted"), vec![Value::Bool(false); NAMES.len()]);
    mesh.agree();
}

#[test]
fn an_order_that_reaches_nobody_or_cannot_be_kept_is_said() {
    let mesh = Mesh::new("up-halt-refused", &NAMES);
    let at = &mesh.at;
    let silent = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let to = silent.local_addr().expect("it is bound").to_string();
    let both =
        ["--operator-key", "one.key,two.key", "--operator", "one.pub,two.pub,three.pub", "--mesh", "2f"];
    let line = ["halt", "--to", &to, "--seconds", "1", "--sequence", "3"];
    assert!(refused(at, &[&line[..], &both].concat(), 4).contains(&to));
    assert!(refused(at, &[&["halt", "--to", &to][..], &both].concat(), 4).contains("--sequence"));
    assert!(refused(at, &[&["resume"][..], &both].concat(), 2).contains("--to"));
    let last = ["halt", "--to", &to, "--sequence", "4294967295"];
    assert!(refused(at, &[&last[..], &both].concat(), 2).contains("no RESUME could lift"));
    // What is signed for HALT is no RESUME.
    let sign = ["halt", "--sign", "one.halt", "--operator-key", "one.key", "--mesh", "2f", "--sequence", "3"];
    assert!(output(at, &sign).status.success());
    let line =
        ["resume", "--signed", "one.halt", "--operator-key", "two.key", "--operator", "one.pub,two.pub"];
    assert!(refused(at, &[&line[..], &["--to", &to]].concat(), 2).contains("the other of halt and resume"));
    let up = ["up", "--found", "--key", "a.key", "--ticket", "a.ticket", "--pool", "pool.key"];
    let up = [&up[..], &["--operator", "one.pub,two.pub", "--socket", "a.sock"]].concat();
    let nowhere = [&up[..], &["--halt-record", "nowhere/a.halt"]].concat();
    assert!(refused(at, &nowhere, 2).contains("halt-record"));
    fs::write(at.join("damaged.halt"), [7; 8_192]).expect("our own folder");
    let damaged = [&up[..], &["--halt-record", "damaged.halt"]].concat();
    let said = refused(at, &damaged, 2);
    assert!(said.contains("no whole record") && !said.contains("may write"), "{said}");
    // Cut between its slots, it told of the order before the newest one.
    let mut record = Record::open(&at.join("cut.halt"), mesh.id).expect("our own folder");
    for (kind, sequence) in [(OrderKind::Resume, 1), (OrderKind::Halt, 2)] {
        let order = mesh.order(kind, sequence, &["one", "two"]);
        record.store(&Given { kind, order }).expect("the space is there");
    }
    drop(record);
    let file = fs::OpenOptions::new().write(true).open(at.join("cut.halt")).expect("it was made");
    file.set_len(4_096).expect("shorter");
    let said = refused(at, &[&up[..], &["--halt-record", "cut.halt", "--seconds", "1"]].concat(), 2);
    assert!(said.contains("4096 bytes long and should be 8192: it was cut"), "{said}");
    assert!(said.contains("whether the mesh is halted") && !said.contains("may write"), "{said}");
    assert!(refused(at, &[&up[..], &["--threshold", "3"]].concat(), 2).contains("the threshold is 3"));
    let bare = ["up", "--found", "--plaintext", "--operator", "one.pub"];
    assert!(refused(at, &bare, 2).contains("--halt-record"));
}
