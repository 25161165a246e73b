//! `plesio bench --listen` and `--connect` on two hosts with a cable between them: the chunks follow the cable, and what
//! arrives is what was sent, whatever the cable does.
//!
//! Each test skips aloud where the kernel grants no namespaces, no rate or no packet filter.

use crate::common::{ends, moving, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plesio_netns::{Pair, Side};
use serde_json::Value;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// Ends the test where this machine cannot run it.
macro_rules! or_skip {
    ($asked:expr) => {
        match $asked {
            Ok(got) => got,
            Err(why) => {
                // To stderr itself: what a passing test prints is kept from the reader.
                let _unheard = writeln!(std::io::stderr(), "skipped: no two hosts here: {why}");
                return;
            }
        }
    };
}

/// Two hosts, the second of which listens.
struct Hosts {
    pair: Pair,
    key: PathBuf,
    listening: Child,
    address: String,
}

impl Hosts {
    fn open(name: &str, mtu: u32) -> Result<Self, String> {
        let pair = Pair::open(mtu)?;
        let key = std::env::temp_dir().join(format!("plesio-net-{name}-{}.key", std::process::id()));
        let program = Path::new(env!("CARGO_BIN_EXE_plesio"));
        let made = Command::new(program).args(["key", "gen", "pool", "-o"]).arg(&key).output();
        assert!(made.expect("it runs").status.success());
        let mut listen = command(&pair, Side::Right);
        listen.args(["bench", "udp", "--listen", &format!("{}:0", Side::Right.address())]);
        listen.args(["--trust", "captive", "--key-file"]).arg(&key);
        let mut listening =
            listen.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("the program runs");
        let mut said = String::new();
        let out = listening.stderr.take().expect("piped");
        BufReader::new(out).read_line(&mut said).expect("it says where it listens");
        let address = said.split("--connect ").nth(1).and_then(|rest| rest.split(' ').next());
        let address = address.unwrap_or_else(|| panic!("{said}")).to_owned();
        Ok(Self { pair, key, listening, address })
    }

    fn bench(&self, line: &[&str]) -> Command {
        let mut bench = command(&self.pair, Side::Left);
        bench.arg("bench").args(line).args(["--connect", &self.address, "--trust", "captive", "--key-file"]);
        bench.arg(&self.key).arg("--json").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        bench
    }

    fn document(&self, line: &[&str]) -> Value {
        read(self.bench(line).spawn().expect("the program runs"))
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        // It may have ended on its own; either way nothing of it stays.
        let _ended = kill(Pid::from_raw(self.listening.id() as i32), Signal::SIGINT);
        let _reaped = self.listening.wait();
        let _removed = std::fs::remove_file(&self.key);
    }
}

fn command(pair: &Pair, side: Side) -> Command {
    let mut command = pair.command(side, Path::new(env!("CARGO_BIN_EXE_plesio")));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLESIO_")) {
        command.env_remove(name);
    }
    command
}

fn read(bench: Child) -> Value {
    let output = bench.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("one document")
}

/// Short runs in a small working set, sealed and in plaintext.
const SHORT: &[&str] = &["--protection", "both", "--working-set", "8M", "--repeats", "1", "--seconds", "0.3"];

#[test]
fn chunks_follow_the_cable_and_the_right_bytes_arrive() {
    for (mtu, chunk_bytes) in [(1_500, 1_408), (9_000, 8_896)] {
        let hosts = or_skip!(Hosts::open("mtu", mtu));
        or_skip!(hosts.pair.shape(Side::Left, 1_000, 10));
        let line = ["udp", "--vs", "tcp,udp-raw", "--size", "1M,1000"];
        let document = hosts.document(&[&line, SHORT].concat());
        assert_eq!(document["config"]["chunk"][0], "path");
        let rows = document["results"].as_array().expect("rows");
        assert_eq!(rows.len(), 4);
        for row in rows.iter().chain(document["baseline"].as_array().expect("rows")) {
            assert_eq!(row["wrong_bytes"], 0, "{row}");
            assert!(row["received_bytes"].as_u64() > Some(0), "{row}");
        }
        for row in rows {
            assert_eq!(row["chunk_bytes"], chunk_bytes, "MTU {mtu}: {row}");
        }
        let round_trips = hosts.document(&[&["pingpong", "--vs", "tcp,udp-raw"][..], SHORT].concat());
        assert!(round_trips["results"].as_array().expect("rows").iter().all(|row| row["wrong_bytes"] == 0));
    }
}

#[test]
fn behind_a_bad_path_chunks_fit_the_cable_too() {
    let hosts = or_skip!(Hosts::open("relayed", 1_500));
    let line = ["udp", "--vs", "udp-raw", "--delay", "2ms"];
    let document = hosts.document(&[&line, SHORT].concat());
    for row in document["results"].as_array().expect("rows") {
        assert_eq!((&row["wrong_bytes"], &row["chunk_bytes"]), (&0.into(), &1_408.into()), "{row}");
    }
    let raw = &document["baseline"][0];
    assert!(raw["chunk_bytes"].as_u64() <= Some(1_472) && raw["received_bytes"].as_u64() > Some(0), "{raw}");
    let large = hosts.bench(&[&line[..], &["--chunk", "8896"], SHORT].concat()).output().expect("it runs");
    assert_eq!(large.status.code(), Some(2), "{}", text(&large.stderr));
    assert!(text(&large.stderr).contains("up to 1408 bytes"), "{}", text(&large.stderr));
}

#[test]
fn a_cable_that_loses_costs_what_it_loses_and_no_byte() {
    let hosts = or_skip!(Hosts::open("loss", 1_500));
    // With room for what a starved sender makes up for: nothing but the filter loses.
    or_skip!(hosts.pair.shape(Side::Left, 1_000, 50));
    or_skip!(hosts.pair.lose(Side::Right, 10));
    let document = hosts.document(&[&["udp"], SHORT].concat());
    assert!(hosts.pair.lost(Side::Right).expect("a counter") > 0);
    for row in document["results"].as_array().expect("rows") {
        assert_eq!(row["wrong_bytes"], 0, "{row}");
        let again = row["retransmit_ratio"].as_f64().expect("a share");
        assert!(again > 0.0 && again < 0.03, "{row}");
    }
}

#[test]
fn a_cable_that_swallows_large_packets_in_mid_run_leaves_smaller_chunks() {
    let hosts = or_skip!(Hosts::open("hole", 9_000));
    or_skip!(hosts.pair.shape(Side::Left, 1_000, 10));
    let line = ["udp", "--working-set", "8M", "--repeats", "1", "--seconds", "3", "--protection", "sealed"];
    let bench = hosts.bench(&line).spawn().expect("the program runs");
    moving(ends::<1>(bench.id()));
    let narrowed = hosts.pair.narrow(Side::Right, 1_500);
    let document = read(bench);
    or_skip!(narrowed);
    let row = &document["results"][0];
    assert!(hosts.pair.lost(Side::Right).expect("a counter") > 0, "it swallowed nothing");
    assert_eq!((&row["wrong_bytes"], &row["chunk_bytes"]), (&0.into(), &1_408.into()), "{row}");
}
