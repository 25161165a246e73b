//! `plesio bench` as processes: what it prints, what it refuses, and how it ends when an end dies or stops.

mod collective;
mod common;
mod hosts;
mod kernels;
mod network;
mod path;

use common::{SHORT, bench, document, ends, moving, output, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::process::{Child, Command, Stdio};

#[test]
fn a_line_that_cannot_be_run_is_refused() {
    for (line, said) in [
        (&["udp", "--chunk", "1400"][..], "multiple of 64"),
        (&["udp", "--size", "1x"], "write bytes as"),
        (&["udp", "--size", "4M", "--working-set", "hot"], "does not fit"),
        (&["udp", "--require", "ratio"], "NAME>=X"),
        (&["udp", "--vs", "carrier-pigeon"], "possible values"),
        (&["udp", "--repeats", "0"], "1..=1000"),
        (&["udp", "--flows", "33"], "1..=32"),
        (&["udp", "--size", "1G", "--working-set", "1G", "--flows", "2"], "too much memory"),
        (&["udp", "--listen", "127.0.0.1:0", "--connect", "h:1"], "cannot be used with"),
        (&["udp", "--key-file", "x"], "--listen and --connect"),
        (&["udp", "--loss", "1%", "--vs", "udp-raw,tcp"], "carries no datagrams"),
        (&["udp", "--flows", "4", "--incast", "--both"], "leave out --incast or --both"),
        (&["udp", "--pin", "65535"], "core 65535"),
        (&["udp", "--pin", "0,0,0"], "name two cores at most"),
        (&["udp", "--incast"], "--flows 2 or more"),
        (&["udp", "--require", "ratio.sealed.tcp>=1"], "name one that is there: ratio"),
        (&["udp", "--require", "results.0.goodput_bp>=1"], "goodput_bps"),
        (&["udp", "--bind", "192.0.2.1"], "--bind an address of this machine"),
        (&["udp", "--listen", "192.0.2.1:7470", "--trust", "captive"], "cannot listen at 192.0.2.1:7470"),
        (&["pingpong", "--hist", "no-such-folder/x.hlog"], "cannot write the histogram"),
        (&["relay", "--to", "127.0.0.1:0"], "--to ADDRESS:PORT"),
        (
            &["relay", "--to", "127.0.0.1:9", "--listen", "192.0.2.1:9"],
            "--listen as an address of this machine",
        ),
        (&["relay", "--to", "127.0.0.1:7471", "--listen", "127.0.0.1:7471"], "listens itself"),
        (&["relay", "--to", "127.0.0.1:7471", "--listen", "0.0.0.0:7471"], "listens itself"),
        (&["pingpong", "--incast"], "unexpected argument"),
        (&["pingpong", "--size", "64k", "--vs", "udp-raw"], "one datagram"),
        (&["compare", "no-such-a.json", "no-such-b.json"], "cannot read"),
    ] {
        let output = output(line);
        assert_eq!(output.status.code(), Some(2), "{line:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(said), "{line:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}

fn works(backend: &str) -> bool {
    let works = plesio_udp::probe(backend.parse().expect("a name")).is_ok();
    if !works {
        println!("skipped {backend}: it does not work here");
    }
    works
}

#[test]
fn both_backends_and_the_rivals_move_the_right_bytes() {
    for backend in ["uring", "uring-legacy", "mio"].into_iter().filter(|backend| works(backend)) {
        let line = ["udp", "--backend", backend, "--size", "64k,1000", "--vs", "tcp,udp-raw"];
        let document = document(&[&line[..], &["--protection", "both"], SHORT].concat());
        assert_eq!(document["schema"], "plesio.bench.udp/1");
        assert_eq!(document["verdict"], "noisy", "one round proves nothing");
        assert_eq!(document["config"]["working_set"], 2 << 20);
        let rows = document["results"].as_array().expect("rows");
        assert_eq!(rows.len(), 8);
        for (index, row) in rows.iter().enumerate() {
            assert_eq!(row["backend"], backend);
            let protection = ["sealed", "plaintext"][index % 2];
            assert_eq!((&row["protection"], &row["wait"]), (&protection.into(), &"block".into()));
            for field in ["bytes", "working_set_bytes", "chunk_bytes", "goodput_bps", "cpu_ns_per_kib"] {
                assert!(row[field].as_f64().is_some_and(|value| value > 0.0), "{field}: {row}");
            }
            assert!(row["retransmit_ratio"].as_f64().is_some_and(|ratio| (0.0..1.0).contains(&ratio)));
            assert_eq!((&row["wrong_bytes"], &row["repeats"]), (&0.into(), &2.into()));
        }
        let baseline = document["baseline"].as_array().expect("rows");
        assert_eq!(baseline.len(), 16);
        assert!(
            baseline.iter().all(|row| row["retransmit_ratio"].is_null()),
            "what is not known is not zero"
        );
        for rival in ["tcp", "udp-raw"] {
            for protection in ["sealed", "plaintext"] {
                let ratio = document["ratio"][protection][rival].as_f64();
                assert!(ratio.is_some_and(|ratio| ratio > 0.0), "{protection} {rival}");
            }
        }
    }
}

#[test]
fn every_way_of_waiting_moves_the_right_bytes_both_ways_and_side_by_side() {
    let lists = ["udp", "--wait", "block,spin,adaptive", "--chunk", "1408", "--size", "64k", "--vs", "tcp"];
    for shape in [&["--both"][..], &["--flows", "2"], &["--both", "--flows", "2"]] {
        let document = document(&[&lists, shape, SHORT].concat());
        let rows = document["results"].as_array().expect("rows");
        assert_eq!(rows.len(), 3, "{shape:?}");
        for row in rows.iter().chain(document["baseline"].as_array().expect("rows")) {
            assert_eq!(row["wrong_bytes"], 0, "{shape:?}: {row}");
            assert!(row["goodput_bps"].as_f64().is_some_and(|goodput| goodput > 0.0), "{shape:?}: {row}");
            let two_way = shape.contains(&"--both");
            assert_eq!(row["direction"], if two_way { "two-way" } else { "one-way" });
        }
    }
}

#[test]
fn many_flows_into_one_port_share_it_and_move_the_right_bytes() {
    let lists = ["udp", "--chunk", "1408,65408", "--size", "200k", "--vs", "tcp", "--protection", "both"];
    let document = document(&[&lists[..], &["--flows", "5", "--incast"], SHORT].concat());
    let rows = document["results"].as_array().expect("rows");
    assert_eq!(rows.len(), 4);
    for row in rows.iter().chain(document["baseline"].as_array().expect("rows")) {
        assert_eq!((&row["wrong_bytes"], &row["direction"]), (&0.into(), &"incast".into()), "{row}");
        let flows = row["flow_goodput_bps"].as_array().expect("a figure for each");
        assert!(flows.len() == 5 && flows.iter().all(|goodput| goodput.as_f64() > Some(0.0)), "{row}");
        assert!(
            row["flow_least_ratio"].as_f64() <= Some(1.0) && row["flow_most_ratio"].as_f64() >= Some(1.0)
        );
    }
}

#[test]
fn payload_is_put_where_it_belongs_either_way() {
    for placement in ["scatter", "bounce"] {
        let line = ["udp", "--placement", placement, "--size", "200k,1000", "--protection", "both"];
        let document = document(&[&line, SHORT].concat());
        assert_eq!(document["config"]["placement"], placement);
        let rows = document["results"].as_array().expect("rows");
        assert!(rows.len() == 8 && rows.iter().all(|row| row["wrong_bytes"] == 0), "{document}");
    }
}

#[test]
fn ends_keep_to_their_cores() {
    let status = |pid: &str| fs::read_to_string(format!("/proc/{pid}/status")).expect("it lives");
    let cores = |pid: &str| {
        let status = status(pid);
        let line = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
        line.expect("the kernel says it").trim().to_owned()
    };
    let all = cores("self");
    let first = all.split(['-', ',']).next().expect("one at least");
    let last = all.split(['-', ',']).next_back().expect("one at least");
    let (child, ends) = start(&["--pin", &format!("{first},{last}")]);
    assert_eq!(ends.map(|end| cores(&end.to_string())), [first, last]);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it lives");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
}

#[test]
fn round_trips_are_counted_for_us_and_the_rivals() {
    let hist = std::env::temp_dir().join(format!("plesio-bench-{}.hlog", std::process::id()));
    let path = hist.to_str().expect("text");
    for wait in ["block", "spin", "adaptive"] {
        let line = ["pingpong", "--size", "64,1000", "--wait", wait, "--vs", "tcp,udp-raw", "--hist", path];
        let document = document(&[&line, SHORT].concat());
        assert_eq!(document["schema"], "plesio.bench.pingpong/1");
        let rows = document["results"].as_array().expect("rows").iter();
        for row in rows.chain(document["baseline"].as_array().expect("rows")) {
            let time = |name: &str| row[name].as_f64().unwrap_or_else(|| panic!("{name}: {row}"));
            assert!(time("min_ns") > 0.0 && time("min_ns") <= time("p50_ns"), "{row}");
            assert!(time("p50_ns") <= time("p99_ns") && time("p99_ns") <= time("p999_ns"), "{row}");
            assert!(time("p999_ns") <= time("max_ns") && time("round_trips") > 0.0, "{row}");
            assert_eq!((&row["wrong_bytes"], &row["wait"]), (&0.into(), &wait.into()));
        }
        for ratio in [&document["ratio"], &document["ratio"]["sealed"]] {
            assert!(ratio["tcp"].as_f64().is_some_and(|ratio| ratio > 0.0), "{ratio}");
        }
        let log = fs::read_to_string(&hist).expect("the log was written");
        let intervals = log.lines().filter(|line| line.starts_with("Tag=")).count();
        assert_eq!(intervals, 6, "ours and two rivals, two sizes: {log}");
    }
    fs::remove_file(&hist).expect("it is there");
}

#[test]
fn a_required_ratio_that_is_missed_exits_3() {
    for (bound, code) in [("results.0.goodput_bps>=1e18", 3), ("results.0.goodput_bps>=1", 0)] {
        let output =
            output(&[&["udp", "--size", "64k", "--chunk", "1408", "--require", bound], SHORT].concat());
        assert_eq!(output.status.code(), Some(code), "{bound}: {}", text(&output.stderr));
        assert!(text(&output.stdout).trim_start().starts_with("#who"), "the table is there all the same");
    }
}

#[test]
fn a_result_has_four_forms_and_a_stream() {
    let line = ["udp", "--size", "64k", "--chunk", "1408", "-o"];
    let shown = |form: &str| text(&output(&[&line, &[form][..], SHORT].concat()).stdout);
    assert!(shown("csv").starts_with("#who,#bytes,"));
    assert!(shown("md").starts_with("| #who | #bytes |"));
    assert!(serde_json::from_str::<Value>(&shown("json")).is_ok());
    let stream = output(&[&["udp", "--size", "64k", "--chunk", "1408", "--json-stream"], SHORT].concat());
    let lines = text(&stream.stdout);
    let events: Vec<Value> = lines.lines().map(|line| serde_json::from_str(line).expect("a line")).collect();
    let names: Vec<&str> = events.iter().flat_map(|event| event["event"].as_str()).collect();
    assert_eq!(names, ["start", "interval", "end"]);
    assert_eq!(events[2]["data"]["schema"], "plesio.bench.udp/1");
}

#[test]
fn a_document_is_compared_with_another() {
    let folder = std::env::temp_dir().join(format!("plesio-compare-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let path = |name: &str| folder.join(name).to_str().expect("text").to_owned();
    let mut document = document(&[&["udp", "--size", "64k", "--chunk", "1408"], SHORT].concat());
    document["results"][0]["goodput_runs_bps"] = json!([10e9, 10.1e9, 9.9e9]);
    fs::write(path("a.json"), document.to_string()).expect("room");
    document["results"][0]["goodput_runs_bps"] = json!([9e9, 9.1e9, 8.9e9]);
    fs::write(path("b.json"), document.to_string()).expect("room");
    fs::write(path("c.json"), "{").expect("room");
    for (one, two, more, code) in [
        ("a.json", "a.json", &[][..], 0),
        ("a.json", "b.json", &[], 3),
        ("b.json", "a.json", &[], 0),
        ("a.json", "b.json", &["--tolerance", "0.2"], 0),
        ("a.json", "c.json", &[], 2),
    ] {
        let output = output(&[&["compare", &path(one), &path(two)], more].concat());
        assert_eq!(output.status.code(), Some(code), "{one} {two}: {}", text(&output.stderr));
    }
    fs::remove_dir_all(&folder).expect("it is there");
}

#[test]
fn quinn_is_a_rival_of_builds_that_have_it() {
    for (command, figure) in [("udp", "goodput_bps"), ("pingpong", "p50_ns")] {
        let size = if command == "udp" { "256k,1000" } else { "1000" };
        let line = [&[command, "--size", size, "--vs", "quinn"], SHORT].concat();
        if cfg!(feature = "rivals") {
            for row in document(&line)["baseline"].as_array().expect("rows") {
                assert!(row[figure].as_f64().is_some_and(|figure| figure > 0.0), "{row}");
                assert_eq!(row["wrong_bytes"], 0);
            }
        } else {
            let refused = output(&line);
            assert_eq!(refused.status.code(), Some(5), "{}", text(&refused.stderr));
            assert!(text(&refused.stderr).contains("--features rivals"));
        }
    }
}

#[test]
fn a_capped_receive_buffer_is_said_with_the_sysctl() {
    let path = "/proc/sys/net/core/rmem_max";
    let most: u64 =
        fs::read_to_string(path).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(u64::MAX);
    let document = document(&[&["udp", "--size", "64k", "--chunk", "1408"], SHORT].concat());
    let notes = document["notes"].to_string();
    assert_eq!(notes.contains("sysctl -w net.core.rmem_max="), most < 4 << 20, "{most}: {notes}");
}

#[test]
fn both_families_of_addresses_work() {
    if std::net::UdpSocket::bind("[::1]:0").is_err() {
        println!("skipped: this machine has no IPv6");
        return;
    }
    let line = ["udp", "--bind", "::1", "--size", "64k", "--chunk", "1408", "--vs", "tcp,udp-raw"];
    let document = document(&[&line, SHORT].concat());
    assert_eq!(document["results"][0]["wrong_bytes"], 0);
    assert!(document["ratio"]["sealed"]["tcp"].as_f64().is_some_and(|ratio| ratio > 0.0));
}

/// A bench that would run for a minute, and its ends, once bytes move.
fn start(more: &[&str]) -> (Child, [Pid; 2]) {
    let line = ["udp", "--chunk", "1408", "--working-set", "hot", "--size", "64k", "--seconds", "60"];
    let child = bench(&[&line, more].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let ends = ends(child.id());
    moving(ends);
    (child, ends.map(Pid::from_raw))
}

#[test]
fn an_end_that_dies_ends_the_bench() {
    for which in [0, 1] {
        let (child, ends) = start(&[]);
        kill(ends[which], Signal::SIGKILL).expect("it lives");
        let output = child.wait_with_output().expect("it ends");
        assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
        assert!(text(&output.stderr).contains("the other end is gone"), "{}", text(&output.stderr));
        assert!(kill(ends[1 - which], None).is_err(), "nobody is left");
    }
}

#[test]
fn an_end_that_stops_reading_ends_the_bench() {
    let (child, ends) = start(&[]);
    kill(ends[1], Signal::SIGSTOP).expect("it lives");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(4), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("stopped reading"), "{}", text(&output.stderr));
    assert!(kill(ends[1], None).is_err(), "nobody is left");
}

#[test]
fn an_interrupted_bench_prints_what_it_has_and_leaves_nobody() {
    let (child, ends) = start(&["--json"]);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it lives");
    let output = child.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(130), "{}", text(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert_eq!((&document["ended"], &document["verdict"]), (&"interrupted".into(), &"noisy".into()));
    assert!(document["results"][0]["goodput_bps"].as_f64().is_some_and(|goodput| goodput > 0.0));
    assert!(ends.into_iter().all(|end| kill(end, None).is_err()), "the ends are gone");
}

#[test]
fn a_bench_s_process_that_gets_no_threads_says_so() {
    for what in ["bench-end", "bench-clock", "bench-rank"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_plesio"));
        // The stack of a thread then finds no room, whoever runs this.
        command.arg(what).env("RUST_MIN_STACK", (1_u64 << 60).to_string());
        let output = command.stdin(Stdio::null()).output().expect("the program runs");
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{what}: {said}");
        assert!(said.contains("cannot start a thread"), "{what}: {said}");
    }
}
