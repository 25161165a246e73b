//! `plesio bench` as two processes: what it prints, what it refuses, and how it ends when its partner dies.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::fs;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

fn bench(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plesio"));
    command.args(["bench", "udp"]).args(arguments).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLESIO_")) {
        command.env_remove(name);
    }
    command
}

fn output(arguments: &[&str]) -> Output {
    bench(arguments).output().expect("the program runs")
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn a_line_that_cannot_be_run_is_refused() {
    for (line, said) in [
        (&["--chunk", "1400"][..], "multiple of 64"),
        (&["--size", "1x"], "write bytes as"),
        (&["--size", "4M", "--working-set", "hot"], "does not fit"),
        (&["--require", "ratio"], "NAME>=X"),
        (&["--vs", "carrier-pigeon"], "possible values"),
        (&["--repeats", "0"], "1..=1000"),
    ] {
        let output = output(line);
        assert_eq!(output.status.code(), Some(2), "{line:?}");
        assert!(text(&output.stderr).contains(said), "{line:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn both_backends_and_the_rivals_move_the_right_bytes() {
    for backend in ["uring", "mio"] {
        if plesio_udp::probe(backend.parse().expect("a name")).is_err() {
            println!("skipped {backend}: it does not work here");
            continue;
        }
        let output = output(&[
            "--backend",
            backend,
            "--size",
            "64k,1000",
            "--chunk",
            "1408,65408",
            "--working-set",
            "hot",
            "--repeats",
            "1",
            "--seconds",
            "0.2",
            "--vs",
            "tcp,udp-raw",
            "--json",
        ]);
        assert_eq!(output.status.code(), Some(0), "{backend}: {}", text(&output.stderr));
        let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
        assert_eq!(document["schema"], "plesio.bench.udp/1");
        assert_eq!(document["verdict"], "noisy", "one round proves nothing");
        let rows = document["results"].as_array().expect("rows");
        assert_eq!(rows.len(), 4);
        for row in rows {
            assert_eq!(row["backend"], backend);
            assert_eq!((&row["protection"], &row["wait"]), (&"plaintext".into(), &"block".into()));
            for field in ["bytes", "working_set_bytes", "chunk_bytes", "goodput_bps", "cpu_ns_per_kib"] {
                assert!(row[field].as_f64().is_some_and(|value| value > 0.0), "{field}: {row}");
            }
            assert!(row["retransmit_ratio"].as_f64().is_some_and(|ratio| (0.0..1.0).contains(&ratio)));
            assert_eq!((&row["wrong_bytes"], &row["repeats"]), (&0.into(), &2.into()));
        }
        assert_eq!(document["baseline"].as_array().expect("rows").len(), 8);
        for rival in ["tcp", "udp-raw"] {
            assert!(
                document["ratio"]["plaintext"][rival].as_f64().is_some_and(|ratio| ratio > 0.0),
                "{rival}"
            );
        }
    }
}

#[test]
fn a_required_ratio_that_is_missed_exits_3() {
    let short =
        ["--size", "64k", "--chunk", "1408", "--working-set", "hot", "--repeats", "1", "--seconds", "0.1"];
    for (bound, code) in [("results.0.goodput_bps>=1e18", 3), ("results.0.goodput_bps>=1", 0)] {
        let output = output(&[&short[..], &["--require", bound]].concat());
        assert_eq!(output.status.code(), Some(code), "{bound}: {}", text(&output.stderr));
        assert!(text(&output.stdout).starts_with("     #who"), "the table is there all the same");
    }
}

/// The other end of a bench, once it runs.
fn partner(pid: u32) -> Pid {
    let deadline = Instant::now() + Duration::from_secs(10);
    while Instant::now() < deadline {
        let threads = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
        if let Some(child) = threads.split_whitespace().next().and_then(|child| child.parse().ok()) {
            return Pid::from_raw(child);
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("no partner was started");
}

fn start(arguments: &[&str]) -> (std::process::Child, Pid) {
    let child = bench(arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it runs");
    let partner = partner(child.id());
    std::thread::sleep(Duration::from_millis(700));
    (child, partner)
}

#[test]
fn a_partner_that_dies_ends_the_bench() {
    let (child, partner) =
        start(&["--chunk", "1408", "--working-set", "hot", "--size", "64k", "--seconds", "60"]);
    kill(partner, Signal::SIGKILL).expect("it lives");
    let begin = Instant::now();
    let output = child.wait_with_output().expect("it ends");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("the other end is gone"), "{}", text(&output.stderr));
}

#[test]
fn an_interrupted_bench_prints_what_it_has_and_leaves_nobody() {
    let (child, partner) =
        start(&["--chunk", "1408", "--working-set", "hot", "--size", "64k", "--seconds", "60", "--json"]);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it lives");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!((&document["ended"], &document["verdict"]), (&"interrupted".into(), &"noisy".into()));
    assert!(document["results"][0]["goodput_bps"].as_f64().is_some_and(|goodput| goodput > 0.0));
    assert!(kill(partner, None).is_err(), "the partner is gone");
}
