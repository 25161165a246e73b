//! `plesio demo` as a process among processes: what it leaves behind however it ends, and what it refuses.
//!
//! The stories run one after the other: each is a whole mesh, and two at once would share too few cores to
//! mean anything.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _absent = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("the target folder is writable");
    path
}

fn plesio(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plesio"));
    command.args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLESIO_")) {
        command.env_remove(name);
    }
    command
}

fn output(arguments: &[&str]) -> Output {
    plesio(arguments).output().expect("the program runs")
}

/// Living processes whose parent is `pid`.
fn children(pid: u32) -> Vec<u32> {
    let processes = fs::read_dir("/proc").expect("/proc is there");
    let pids = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    pids.filter(|child| stat(*child).is_some_and(|(state, parent)| state != 'Z' && parent == pid)).collect()
}

/// State and parent of a process.
fn stat(pid: u32) -> Option<(char, u32)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_whitespace();
    Some((fields.next()?.chars().next()?, fields.next()?.parse().ok()?))
}

fn wait_for(limit: Duration, mut done: impl FnMut() -> bool) -> bool {
    let deadline = Instant::now() + limit;
    while Instant::now() < deadline {
        if done() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    done()
}

/// A demo that is training, with its stream of intervals.
struct Running {
    launcher: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Running {
    fn start(name: &str, nodes: usize, seconds: u32) -> Self {
        let out = folder(name);
        let (nodes_text, seconds) = (nodes.to_string(), seconds.to_string());
        let out = out.to_str().expect("a path of ours is text");
        let arguments =
            ["demo", "--nodes", &nodes_text, "--seconds", &seconds, "--out", out, "--json-stream"];
        let mut launcher = plesio(&arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let lines = BufReader::new(launcher.stdout.take().expect("it was piped")).lines();
        let mut running = Self { launcher, lines };
        running.until(|data| steps(data).iter().filter(|(_, steps)| *steps > 0).count() >= nodes);
        running
    }

    /// Reads intervals until one is as wished; panics with the launcher's own words when it ends before.
    fn until(&mut self, mut wished: impl FnMut(&Value) -> bool) -> Value {
        for line in self.lines.by_ref() {
            let line: Value = serde_json::from_str(&line.expect("whole lines")).expect("each line is JSON");
            match line["event"].as_str() {
                Some("interval") if wished(&line["data"]) => return line["data"].clone(),
                Some("end") => panic!("ended before it was as wished: {:#}", line["data"]),
                _ => {}
            }
        }
        let mut said = String::new();
        if let Some(mut stderr) = self.launcher.stderr.take() {
            let _closed = stderr.read_to_string(&mut said);
        }
        panic!("the stream ended before it was as wished; stderr: {said}");
    }

    /// The final document and the exit code.
    fn end(mut self) -> (Value, Option<i32>) {
        let lines = self.lines.by_ref().map_while(Result::ok);
        let last = lines.last().expect("a last line");
        let last: Value = serde_json::from_str(&last).expect("each line is JSON");
        assert_eq!(last["event"], "end");
        let status = self.launcher.wait().expect("it is our child");
        (last["data"].clone(), status.code())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ended = self.launcher.kill();
        let _reaped = self.launcher.wait();
    }
}

/// Name and steps of every node of an interval.
fn steps(data: &Value) -> Vec<(String, u64)> {
    let nodes = data["nodes"].as_array().expect("an interval has nodes");
    nodes.iter().map(|node| (node["node"].to_string(), node["steps"].as_u64().unwrap_or(0))).collect()
}

fn send(pid: u32, signal: Signal) {
    kill(Pid::from_raw(pid as i32), signal).expect("the process is there");
}

#[test]
fn a_wrong_command_line_is_refused_and_explained() {
    for (arguments, hint) in [
        (&["demo", "--nodes", "0"][..], "2..=16"),
        (&["demo", "--nodes", "17"], "2..=16"),
        (&["demo", "--nodes", "many"], "many"),
        (&["demo", "--node", "4"], "--nodes"),
        (&["demo", "--backend", "tcp"], "uring"),
        (&["demo", "--seconds", "0"], "0"),
        (&["demo", "--json", "--json-stream"], "--json-stream"),
        (&["dem"], "demo"),
        (&["demo-node"], "plesio demo"),
    ] {
        let output = output(arguments);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{arguments:?}: {said}");
        assert!(said.contains(hint), "{arguments:?}: {said}");
        assert!(output.stdout.is_empty(), "{arguments:?}");
    }
}

#[test]
fn an_environment_variable_is_a_flag() {
    let output = plesio(&["demo"]).env("PLESIO_NODES", "1").output().expect("the program runs");
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("--nodes"));
}

/// PLESIO_JSON=1 was refused (only "true" was taken), and a flag was refused because of a variable against it.
#[test]
fn a_switch_in_the_environment_gives_way_to_a_flag() {
    let said = |name: &str, value: &str, arguments: &[&str]| {
        let output = plesio(arguments).env(name, value).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("text")
    };
    assert!(said("PLESIO_JSON", "1", &["doctor"]).starts_with("{\n  \"schema\""));
    assert!(!said("PLESIO_JSON", "0", &["doctor"]).starts_with('{'));
    assert!(said("PLESIO_JSON_STREAM", "1", &["doctor"]).starts_with("{\"event\":\"start\""));
    assert!(said("PLESIO_JSON_STREAM", "1", &["doctor", "--json"]).starts_with("{\n  \"schema\""));
    let seeds =
        said("PLESIO_SEEDS", "0..9", &["sim", "--nodes", "2", "--seconds", "10", "--seed", "3", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&seeds).expect("JSON")["seeds"], 1);
    let seeds =
        said("PLESIO_SEED", "3", &["sim", "--nodes", "2", "--seconds", "10", "--seeds", "0..2", "--json"]);
    assert_eq!(serde_json::from_str::<Value>(&seeds).expect("JSON")["seeds"], 2);
}

/// A result redirected to a full disk was lost without a word.
#[test]
fn a_result_that_cannot_be_written_is_a_failure() {
    let full = fs::File::create("/dev/full").expect("Linux has it");
    let output = plesio(&["doctor", "--json"]).stdout(full).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("stdout") && said.contains("cause"), "{said}");
}

#[test]
fn a_folder_that_cannot_be_written_is_told_before_anything_starts() {
    let file = folder("unwritable").join("a-file");
    fs::write(&file, b"in the way").expect("the folder is writable");
    let begin = Instant::now();
    let inside = file.join("out");
    let output = output(&["demo", "--out", inside.to_str().expect("text")]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(said.contains("--out") && said.contains("cause") && said.contains("fix"), "{said}");
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn the_doctor_answers_for_people_and_programs() {
    let table = output(&["doctor"]);
    assert_eq!(table.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&table.stdout).contains("memlock"));
    let json = output(&["doctor", "--json"]);
    let document: Value = serde_json::from_slice(&json.stdout).expect("one document");
    assert_eq!(document["schema"], "plesio.doctor/1");
    assert!(document["host"]["cores"].as_u64() >= Some(1));
    let findings = document["findings"].as_array().expect("a list");
    assert!(findings.len() > 8);
    let arena: Vec<&str> = findings
        .iter()
        .filter(|one| one["name"] == "arena")
        .filter_map(|one| one["found"].as_str())
        .collect();
    assert!(arena.iter().any(|line| line.contains("bytes") && line.contains("lock")), "{arena:?}");
    assert!(arena.iter().any(|line| line.contains("registered") || line.contains("io_uring")), "{arena:?}");
}

#[test]
fn a_killed_launcher_takes_its_nodes_along() {
    let _alone = alone();
    let mut demo = Running::start("killed", 3, 60);
    let pid = demo.launcher.id();
    let nodes = children(pid);
    assert_eq!(nodes.len(), 3);
    send(pid, Signal::SIGKILL);
    demo.launcher.wait().expect("it is our child");
    let gone = wait_for(Duration::from_secs(3), || {
        nodes.iter().all(|node| stat(*node).is_none_or(|(state, _)| state == 'Z'))
    });
    assert!(gone, "still there: {:?}", nodes.iter().map(|node| stat(*node)).collect::<Vec<_>>());
}

#[test]
fn an_interrupted_demo_says_what_there_was() {
    let _alone = alone();
    let demo = Running::start("interrupted", 2, 60);
    let pid = demo.launcher.id();
    let nodes = children(pid);
    assert_eq!(nodes.len(), 2);
    send(pid, Signal::SIGINT);
    let (document, code) = demo.end();
    assert_eq!(code, Some(130));
    assert_eq!(document["schema"], "plesio.demo/1");
    assert_eq!(document["ended"], "interrupted");
    assert!(document["steps_computed"].as_u64() > Some(0));
    assert!(nodes.iter().all(|node| stat(*node).is_none()), "the nodes were reaped");
}

#[test]
fn any_node_may_be_killed_by_hand_the_first_included() {
    let _alone = alone();
    let mut demo = Running::start("by-hand", 4, 14);
    // On a busy machine the demo's own kill may come first: then the view without its victim comes before ours, or two
    // of four were gone at once, and no quorum left.
    demo.until(|data| {
        let count = |kind: &str| {
            data["events"]
                .as_array()
                .map_or(0, |events| events.iter().filter(|event| event["kind"] == kind).count())
        };
        data["versions_committed"].as_u64() >= Some(2) && count("exclude") >= count("crash")
    });
    let first = children(demo.launcher.id()).into_iter().min().expect("four nodes");
    send(first, Signal::SIGKILL);
    let by_hand = |event: &Value| {
        event["kind"] == "crash"
            && event["cause"].as_str().is_some_and(|cause| cause.contains("not by the demo"))
    };
    let crash = demo.until(|data| data["events"].as_array().is_some_and(|events| events.iter().any(by_hand)));
    let then = crash["versions_committed"].as_u64().expect("a count");
    demo.until(|data| data["versions_committed"].as_u64() >= Some(then + 2));
    let (document, _) = demo.end();
    let passed = |name: &str| {
        let checks = document["checks"].as_array().expect("checks");
        checks.iter().any(|check| check["name"] == name && check["pass"] == true)
    };
    assert_eq!(document["ended"], "whole");
    assert!(passed("digests_equal") && passed("orderly_end"), "{:#}", document["checks"]);
}

#[test]
fn without_a_quorum_the_demo_says_so_and_ends() {
    let _alone = alone();
    let mut demo = Running::start("no-quorum", 4, 60);
    demo.until(|data| data["versions_committed"].as_u64() >= Some(2));
    let begin = Instant::now();
    // Three of four at once: whoever is left weighs no more than half.
    for node in children(demo.launcher.id()).into_iter().take(3) {
        send(node, Signal::SIGKILL);
    }
    let (document, code) = demo.end();
    assert_eq!(code, Some(1));
    assert_eq!(document["ended"], "broken");
    assert!(document["ended_cause"].as_str().is_some_and(|cause| cause.contains("quorum")), "{document:#}");
    assert!(begin.elapsed() < Duration::from_secs(25), "{:?}", begin.elapsed());
}

#[test]
fn a_demo_keeps_its_promises() {
    let _alone = alone();
    let out = folder("promises");
    fs::create_dir_all(out.join("adapter")).expect("the folder is writable");
    fs::write(out.join("adapter/adapter_config.json"), b"from an earlier run").expect("writable");
    let trace = out.join("trace.jsonl");
    let trace = trace.to_str().expect("text");
    let line = ["demo", "--nodes", "3", "--seconds", "12", "--json", "--out", out.to_str().expect("text")];
    let output = output(&[&line[..], &["--trace", trace]].concat());
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document on stdout");
    let checks = document["checks"].as_array().expect("checks");
    let failed: Vec<&Value> = checks.iter().filter(|check| check["pass"] != true).collect();
    assert!(failed.is_empty(), "{failed:#?}");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(document["digests_equal"], true);
    assert_eq!(document["processes"], 4);
    let kinds: Vec<&str> = document["events"]
        .as_array()
        .expect("events")
        .iter()
        .filter_map(|event| event["cause"].as_str().and(event["kind"].as_str()))
        .collect();
    assert!(kinds.contains(&"crash") && kinds.contains(&"join"), "{kinds:?}");
    let written = fs::read(out.join("run.json")).expect("run.json");
    assert_eq!(serde_json::from_slice::<Value>(&written).expect("JSON"), document);
    assert!(fs::read_to_string(out.join("report.html")).expect("report.html").contains("</html>"));
    let config = fs::read(out.join("adapter/adapter_config.json")).expect("the adapter's configuration");
    let config: Value = serde_json::from_slice(&config).expect("JSON");
    assert_eq!(config["peft_type"], "LORA");
    assert!(out.join("adapter/adapter_model.safetensors").exists());
    let run = out.join("run.json");
    for record in [trace, run.to_str().expect("text")] {
        let replayed = self::output(&["sim", "--replay", record, "--json"]);
        let document: Value = serde_json::from_slice(&replayed.stdout).expect("one document on stdout");
        let replay = &document["replay"];
        assert_eq!(replayed.status.code(), Some(0), "{record}: {replay:#}\n{:#}", document["violations"]);
        let faults = replay["observed"]["faults"].as_array().expect("faults");
        let has = |kind: &str| faults.iter().any(|fault| fault["kind"] == kind);
        assert!(has("crash") && has("join"), "{replay:#}");
        if record == trace {
            // Four nodes, each of which held most versions: one log, and the same bits.
            assert_eq!(replay["audit"]["nodes"], 4, "{replay:#}");
            assert!(replay["audit"]["versions_compared"].as_u64() > Some(8), "{replay:#}");
        }
    }
}

#[test]
fn a_simulation_is_the_same_twice() {
    let line = ["sim", "--nodes", "3", "--seeds", "0..3", "--seconds", "10", "--json"];
    let [first, second] = [output(&line), output(&line)].map(|output| {
        let document: Value = serde_json::from_slice(&output.stdout).expect("one document on stdout");
        let broken = document["violations"].as_array().is_some_and(|violations| !violations.is_empty());
        assert_eq!(output.status.code(), Some(i32::from(broken)));
        document
    });
    assert_eq!(first["schema"], "plesio.sim/1");
    assert_eq!(first["seeds"], 3);
    assert!(first["events"].as_u64() > Some(0));
    assert_eq!(first["trace_hash"], second["trace_hash"]);
    let place = folder("replay");
    fs::create_dir_all(&place).expect("the folder is writable");
    let [record, scenario, trace] = ["run.json", "scenario.toml", "trace.jsonl"].map(|name| place.join(name));
    fs::write(&record, first.to_string()).expect("writable");
    let replayed = output(&["sim", "--json", "--replay", record.to_str().expect("text")]);
    let again: Value = serde_json::from_slice(&replayed.stdout).expect("one document on stdout");
    assert_eq!((&again["replay"]["reproduced"], &again["trace_hash"]), (&true.into(), &first["trace_hash"]));
    // The same by a scenario, and one with a crash at its time; its trace is no record of a real mesh.
    fs::write(&scenario, "nodes = 3\nseeds = \"0..3\"\nseconds = 10\n").expect("writable");
    let by_file = |more: &[&str]| {
        let line = [&["sim", "--json", scenario.to_str().expect("text")], more].concat();
        serde_json::from_slice::<Value>(&output(&line).stdout).expect("one document on stdout")
    };
    assert_eq!(by_file(&[])["trace_hash"], first["trace_hash"]);
    let crash = "nodes = 3\n[[fault]]\nkind = \"crash\"\nnode = 1\nat_s = 2.5\nfor_s = 1.0\n";
    fs::write(&scenario, crash).expect("writable");
    let trace = trace.to_str().expect("text");
    let crashed = by_file(&["--trace", trace]);
    assert_eq!((&crashed["faults"]["crash"], &crashed["violations"]), (&1.into(), &Value::Array(vec![])));
    let lines = fs::read_to_string(trace).expect("written");
    let begun = |line: &&str| line.contains("\"fault\":\"crash\",\"begins\":true");
    let at: Value = serde_json::from_str(lines.lines().find(begun).expect("it struck")).expect("a line");
    assert_eq!((&at["mono_ns"], &at["host"]), (&2_500_000_000_u64.into(), &1.into()));
    assert_eq!(output(&["sim", "--replay", trace]).status.code(), Some(2));
    let output = output(&["sim", "--faults", "los"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("loss"));
}
