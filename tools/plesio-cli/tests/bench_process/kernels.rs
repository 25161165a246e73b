//! `plesio bench kernels` as a process.

use super::common::{bench, document, output, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// A run that is over soon: small inputs and short rounds.
const SHORT: &[&str] =
    &["kernels", "--size", "4k", "--working-set", "20M", "--repeats", "1", "--seconds", "0.002"];

/// Those whose call takes more than that.
const LARGE: [&str; 2] = ["lora_forward_bf16", "lora_backward_bf16"];

const NAMES: &[&str] = &[
    "slot_sum",
    "commit",
    "encode_int8",
    "coded_sum_int8",
    "weighted_sum",
    "weighted_sum_bf16",
    "weighted_sum_q8",
    "square_norms",
    "median",
    "trimmed_mean",
    "top_k",
    "sign_pack",
    "sign_vote",
    "quantise_q8",
    "lora_forward",
    "lora_backward",
    "lora_forward_bf16",
    "lora_backward_bf16",
    "lora_grouped",
    "product_q8",
    "adamw",
];

#[test]
fn every_kernel_gives_the_reference_s_bits_and_has_its_row() {
    let document = document(SHORT);
    assert_eq!(document["schema"], "plesio.bench.kernels/1");
    assert_eq!(document["verdict"], "noisy", "one round proves nothing");
    let rows = document["results"].as_array().expect("rows");
    for row in rows {
        for field in
            ["bytes", "time_ns", "time_min_ns", "time_max_ns", "floor_ns", "floor_ratio", "rate_Bps", "sets"]
        {
            assert!(row[field].as_f64().is_some_and(|value| value > 0.0), "{field} of {row}");
        }
        for field in ["kernel", "device", "level", "shape", "floor"] {
            assert!(row[field].is_string(), "{field} of {row}");
        }
        assert_eq!(row["must"].is_null(), row["met"].is_null(), "a bound is met or missed: {row}");
        assert_eq!(
            (&row["wrong"], &row["repeats"], &row["threads"]),
            (&0.into(), &2.into(), &1.into()),
            "{row}"
        );
        assert!(row["rivals"].as_object().is_some_and(|rivals| rivals.is_empty()), "{row}");
        let kernel = row["kernel"].as_str().expect("checked above");
        assert!(document["ratio"][kernel]["floor"].as_f64() > Some(0.0), "{kernel}");
        assert_eq!(row["vector_ns"].is_number(), kernel.starts_with("lora_"), "{row}");
    }
    assert_eq!(document["baseline"].as_array().map(Vec::len), Some(rows.len()), "a floor for each");
    let commit = rows.iter().find(|row| row["kernel"] == "commit").expect("it is measured");
    assert_eq!(commit["bytes"], 1024 * (4 * 8 + 16), "4 for each of eight inputs, 16 for the master");
    assert!(commit["working_set_bytes"].as_u64() > Some(15 << 20), "{commit}");
    let named: BTreeSet<_> = rows.iter().flat_map(|row| row["kernel"].as_str()).collect();
    assert_eq!(named, BTreeSet::from_iter(NAMES.iter().copied().filter(|name| !LARGE.contains(name))));
    let said = document["notes"].to_string();
    for name in LARGE {
        assert!(said.contains(&format!("left out: a call of {name} ")), "{name}: {said}");
    }
}

#[test]
fn adapters_of_large_models_give_the_reference_s_bits_too() {
    let line =
        ["kernels", "--working-set", "160M", "--repeats", "1", "--seconds", "0.001", "--threads", "1,2"];
    let document = document(&[&line[..], &["--kernels", &LARGE.join(",")]].concat());
    let rows = document["results"].as_array().expect("rows");
    assert_eq!(rows.len(), 2 * LARGE.len(), "on one thread and on two");
    for (index, row) in rows.iter().enumerate() {
        assert_eq!((&row["wrong"], &row["threads"]), (&0.into(), &(1 + index % 2).into()), "{row}");
        assert!(row["bytes"].as_u64() > Some(100_000_000), "{row}");
    }
}

#[test]
fn every_level_of_this_machine_can_be_asked_for() {
    for level in ["scalar", "neon", "avx2", "avx512"] {
        let line = ["--kernels", "commit,lora_forward", "--level", level, "--json"];
        let output = output(&[SHORT, &line].concat());
        if output.status.code() == Some(5) {
            let said = text(&output.stderr);
            assert!(said.contains("say one of scalar"), "{said}");
            continue;
        }
        let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
        let rows = document["results"].as_array().expect("rows");
        assert!(rows.iter().all(|row| row["level"] == level && row["wrong"] == 0), "{rows:?}");
        assert_eq!(rows.len(), 3, "two shapes of an adapter");
        let asked = rows.iter().filter(|row| row["must"]["vector_ns"].is_number() && row["met"].is_boolean());
        assert_eq!(asked.count(), if level == "avx512" { 2 } else { 0 }, "{rows:?}");
    }
}

#[test]
fn numpy_computes_the_same() {
    let document = document(&[SHORT, &["--vs", "numpy"]].concat());
    let notes = document["notes"].to_string();
    if notes.contains("numpy is left out") {
        // To stderr itself: what a passing test prints is kept from the reader.
        let _closed = writeln!(std::io::stderr(), "skipped: {notes}");
        assert!(notes.contains("python3-numpy"), "what to install is named: {notes}");
        return;
    }
    let baseline = document["baseline"].as_array().expect("rows");
    let rivals: Vec<_> = baseline.iter().filter(|row| row["rival"] == "numpy").collect();
    for kernel in ["slot_sum", "commit", "adamw", "lora_forward", "lora_backward"] {
        let row = rivals.iter().find(|row| row["kernel"] == kernel).expect(kernel);
        assert!(row["time_ns"].as_f64() > Some(0.0) && row["version"].is_string(), "{row}");
        assert_eq!(row["wrong"], 0, "{row}");
        assert!(document["ratio"][kernel]["numpy"].as_f64() > Some(0.0), "{kernel}");
    }
    let ours = document["results"].as_array().expect("rows");
    assert!(ours.iter().any(|row| row["rivals"]["numpy"].as_f64() > Some(0.0)), "{ours:?}");
}

/// A script that goes by the name of python3, in a folder that is gone with it.
struct Python(PathBuf);

impl Python {
    fn of(name: &str, script: &str) -> Self {
        let folder = std::env::temp_dir().join(format!("plesio-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("python3");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("room");
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("ours");
        Self(folder)
    }

    /// Where it comes first.
    fn path(&self) -> String {
        format!("{}:{}", self.0.display(), std::env::var("PATH").unwrap_or_default())
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}

#[test]
fn a_python_that_hangs_keeps_nobody_from_ending_and_leaves_nothing() {
    // Each says which process must be gone, and never answers: when it is looked at, and when it is to compute.
    let asleep = "sleep 600 & echo $! >\"$TMPDIR/asleep\"; wait";
    let computing = format!("case \"$2\" in *__version__*) echo numpy 0.0; exit;; esac; {asleep}");
    for (name, script, signal) in
        [("hang-first", asleep, Signal::SIGTERM), ("hang-later", &computing, Signal::SIGINT)]
    {
        let python = Python::of(name, script);
        let folder = python.0.join("scratch");
        std::fs::create_dir(&folder).expect("ours");
        let line = [SHORT, &["--kernels", "commit", "--vs", "numpy"]].concat();
        let mut command = bench(&line);
        command.env("PATH", python.path()).env("TMPDIR", &folder);
        let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("it starts");
        let deadline = Instant::now() + Duration::from_secs(60);
        let asleep = loop {
            let said = std::fs::read_to_string(folder.join("asleep")).unwrap_or_default();
            if let Some(pid) = said.strip_suffix('\n') {
                break pid.to_owned();
            }
            assert!(Instant::now() < deadline, "{name}: no python was started");
            std::thread::sleep(Duration::from_millis(10));
        };
        kill(Pid::from_raw(child.id() as i32), signal).expect("it is ours");
        let begin = Instant::now();
        let status = child.wait().expect("it ends");
        assert!(begin.elapsed() < Duration::from_secs(20), "{name}: {:?}", begin.elapsed());
        assert_eq!(status.code(), Some(130), "{name}");
        // An orphan that was killed stays until whoever adopted it looks.
        let gone = || {
            let stat = std::fs::read_to_string(format!("/proc/{asleep}/stat")).unwrap_or_default();
            stat.rsplit(')').next().is_none_or(|rest| rest.is_empty() || rest.starts_with(" Z"))
        };
        while !gone() {
            assert!(Instant::now() < deadline, "{name}: process {asleep} lives");
            std::thread::sleep(Duration::from_millis(10));
        }
        let left: Vec<_> =
            std::fs::read_dir(&folder).expect("ours").flatten().map(|file| file.file_name()).collect();
        assert_eq!(left, ["asleep"], "{name}");
    }
}

#[test]
fn a_rival_that_computes_something_else_fails_the_run() {
    // Answers as the script does, with eight zeros where results belong.
    let python = Python::of(
        "liar",
        "case \"$2\" in *__version__*) echo numpy 0.0; exit;; esac\nwhile read -r line; do\n\
        case \"$line\" in *results*) echo '{\"bytes\": 8}'; printf '\\0\\0\\0\\0\\0\\0\\0\\0';;\n\
        *) echo '{\"time_ns\": 1}';; esac; done",
    );
    let line = [SHORT, &["--kernels", "slot_sum", "--vs", "numpy", "--json"]].concat();
    let output = bench(&line).env("PATH", python.path()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("as numpy has them are not ours"), "{}", text(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert!(document["baseline"][1]["wrong"].as_u64() > Some(1_000), "{document}");
}

#[test]
fn a_machine_without_python_measures_without_numpy_and_says_so() {
    let line = [SHORT, &["--kernels", "commit", "--vs", "numpy", "--json"]].concat();
    let output = bench(&line).env("PATH", "/nonexistent").output().expect("it runs");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(text(&output.stderr).contains("numpy is left out"), "{}", text(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).expect("one document");
    assert!(document["notes"][0].as_str().is_some_and(|note| note.contains("python3")), "{document}");
    let required = [&line[..], &["--require", "ratio.numpy>=1"]].concat();
    let refused = bench(&required).env("PATH", "/nonexistent").output().expect("it runs");
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stderr));
}

#[test]
fn a_bound_that_is_missed_exits_3_and_the_table_is_there_all_the_same() {
    let line = [SHORT, &["--kernels", "commit"]].concat();
    for (bound, code) in
        [("ratio.commit.floor>=1e9", 3), ("ratio.commit.floor>=0", 0), ("ratio.comit.floor>=0", 2)]
    {
        let output = output(&[&line[..], &["--require", bound]].concat());
        assert_eq!(output.status.code(), Some(code), "{bound}: {}", text(&output.stderr));
        let head = text(&output.stdout).lines().next().unwrap_or_default().to_owned();
        for column in ["kernel", "shape", "time", "of_floor", "#wrong"] {
            assert!(code == 2 || head.contains(column), "{bound}: {head}");
        }
    }
}

#[test]
fn a_line_that_cannot_be_run_is_refused() {
    for (line, code, said) in [
        (&["--kernels", "matmul"][..], 2, "possible values"),
        (&["--kernels", "comit"], 2, "similar value exists: 'commit'"),
        (&["--size", "0"], 2, "0"),
        (&["--size", "1x"], 2, "write bytes as"),
        (&["--size", "512"], 2, "--size of 1k or more"),
        (&["--size", "1G"], 2, "give a --size of"),
        (&["--size", "1M", "--working-set", "4M"], 2, "give a --working-set of"),
        (&["--device", "cpu", "--kernels-dir", "/nonexistent"], 2, "leave --kernels-dir out"),
        (&["--level", "scalar", "--kernels-dir", "/nonexistent"], 2, "leave --kernels-dir out"),
        (&["--device", "auto", "--kernels-dir", "/nonexistent"], 5, "/nonexistent"),
        (&["--device", "auto", "--kernels-dir", "/nonexistent"], 5, "fix:   leave --kernels-dir out"),
        (&["--device", "gpu"], 2, "cuda:N"),
        (&["--device", "cuda:99"], 5, "--device auto"),
        (&["--device", "cuda:0", "--threads", "2"], 2, "--threads is of the CPU"),
        (&["--device", "hip:0", "--level", "scalar"], 2, "--level is of the CPU"),
        (&["--threads", "0"], 2, "1..=256"),
        (&["--level", "mmx"], 2, "possible values"),
        (&["--vs", "sona"], 2, "possible values"),
        (&["--repeats", "0"], 2, "1..=1000"),
        (&["--seconds", "0"], 2, "0.001"),
        (&["--require", "ratio"], 2, "NAME>=X or NAME<=X, where dots"),
    ] {
        let output = output(&[&["kernels"], line].concat());
        assert_eq!(output.status.code(), Some(code), "{line:?}: {}", text(&output.stderr));
        assert!(text(&output.stderr).contains(said), "{line:?}: {}", text(&output.stderr));
        assert!(output.stdout.is_empty());
    }
}

#[test]
fn what_a_refusal_says_to_do_works() {
    let base = ["--repeats", "1", "--seconds", "0.001"];
    for line in [
        &["--kernels", "commit", "--size", "1G"][..],
        &["--kernels", "adamw,top_k", "--size", "4k,1G", "--working-set", "64M"],
        &["--kernels", "commit", "--size", "1G", "--working-set", "2k"],
        &["--kernels", "commit", "--size", "1M", "--working-set", "4M"],
        &["--size", "64k", "--working-set", "100k"],
        &["--kernels", "lora_forward_bf16", "--working-set", "1k"],
    ] {
        let refused = output(&[&["kernels"], &base[..], line].concat());
        let said = text(&refused.stderr);
        assert_eq!(refused.status.code(), Some(2), "{line:?}: {said}");
        let mut mended: Vec<&str> = line.to_vec();
        let fix: Vec<&str> = said.lines().last().expect("a fix").split(' ').collect();
        for words in fix.windows(3).filter(|words| words[0].starts_with("--") && words[1] == "of") {
            match mended.iter().position(|word| *word == words[0]) {
                Some(flag) => mended[flag + 1] = words[2],
                None => mended.extend([words[0], words[2]]),
            }
        }
        assert_ne!(mended, line, "{said}");
        let done = output(&[&["kernels"], &base[..], &mended].concat());
        assert_eq!(done.status.code(), Some(0), "{mended:?}: {}", text(&done.stderr));
    }
}

#[test]
fn a_value_that_is_said_twice_has_one_row() {
    let twice = ["--kernels", "commit,commit", "--threads", "1,2,1", "--size", "4k,8k,4k"];
    let document = document(&[SHORT, &twice].concat());
    let rows = document["results"].as_array().expect("rows");
    let of = |row: &Value| (row["shape"].to_string(), row["threads"].as_u64());
    assert_eq!(rows.iter().map(of).collect::<BTreeSet<_>>().len(), rows.len());
    assert_eq!(rows.len(), 4, "{rows:?}");
    assert_eq!(document["config"]["threads"], serde_json::json!([1, 2]));
}

#[test]
fn threads_that_the_system_does_not_give_are_told_of() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plesio"));
    // The stack of a thread then finds no room, whoever runs this.
    command.arg("bench-kernels").env("RUST_MIN_STACK", (1_u64 << 60).to_string());
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut worker = command.spawn().expect("it starts");
    let mut orders = worker.stdin.take().expect("is piped");
    let commit = NAMES.iter().position(|name| *name == "commit").expect("it is one");
    for order in [
        serde_json::json!({ "device": { "device": "cpu", "kernels_dir": null, "level": null } }),
        serde_json::json!({ "row": {
            "kernel": commit, "size": 4 << 20, "sets": 1, "threads": 4, "seed": 1, "numpy": false,
        } }),
        serde_json::json!({ "round": { "seconds": 0.001 } }),
    ] {
        writeln!(orders, "{order}").expect("it listens");
    }
    drop(orders);
    let output = worker.wait_with_output().expect("it ends");
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let said: Vec<Value> =
        text(&output.stdout).lines().map(|line| serde_json::from_str(line).expect("an answer")).collect();
    assert!(said.len() == 3 && said[1]["opened"]["wrong"] == 0, "the kernel does without: {said:?}");
    let failed = said[2]["failed"].to_string();
    assert!(failed.contains("no 4 threads") && failed.contains("ulimit -u"), "{failed}");
}

#[test]
fn ctrl_c_prints_what_there_is_and_leaves_nobody() {
    let line = ["kernels", "--size", "4k", "--working-set", "1M", "--repeats", "1000", "--json-stream"];
    let mut child = bench(&line).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
    let deadline = Instant::now() + Duration::from_secs(60);
    let children = format!("/proc/{0}/task/{0}/children", child.id());
    let worker = loop {
        let said = std::fs::read_to_string(&children).unwrap_or_default();
        if let Some(worker) = said.split_whitespace().next() {
            break Pid::from_raw(worker.parse().expect("a number"));
        }
        assert!(Instant::now() < deadline, "no process of its own was started");
        std::thread::sleep(Duration::from_millis(10));
    };
    std::thread::sleep(Duration::from_millis(1_500));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it is ours");
    let status = child.wait().expect("it ends");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().expect("is piped"), &mut said).expect("text");
    assert_eq!(status.code(), Some(130), "{said}");
    let last: Value = serde_json::from_str(said.lines().last().expect("lines")).expect("one event");
    assert_eq!((&last["event"], &last["data"]["ended"]), (&"end".into(), &"interrupted".into()));
    assert!(kill(worker, None).is_err(), "nobody is left");
}

#[test]
fn two_documents_are_compared_row_by_row() {
    let folder = std::env::temp_dir().join(format!("plesio-kernels-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut document = document(&[SHORT, &["--kernels", "commit,adamw"]].concat());
    let write = |name: &str, document: &Value| {
        let path = folder.join(name);
        std::fs::write(&path, document.to_string()).expect("room");
        path.to_str().expect("text").to_owned()
    };
    document["results"][0]["time_runs_ns"] = serde_json::json!([100.0, 101.0, 99.0]);
    let before = write("a.json", &document);
    document["results"][0]["time_runs_ns"] = serde_json::json!([150.0, 151.0, 149.0]);
    let after = write("b.json", &document);
    let judged = output(&["compare", &before, &after, "--json"]);
    let found: Value = serde_json::from_slice(&judged.stdout).expect("one document");
    std::fs::remove_dir_all(&folder).expect("it is there");
    assert_eq!(judged.status.code(), Some(3), "{found}");
    assert_eq!(
        (&found["results"][0]["kernel"], &found["results"][0]["verdict"]),
        (&"commit".into(), &"worse".into())
    );
}
