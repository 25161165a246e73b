//! `plesio bench allreduce` and `plesio bench shm` as processes.

use super::common::{bench, document, output, text};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use std::process::Stdio;
use std::time::Duration;

#[test]
fn sums_are_right_and_the_document_has_what_was_promised() {
    let document = document(&[
        "allreduce",
        "--size",
        "4,1k,300k",
        "--ranks",
        "1,2,3",
        "--iterations",
        "3",
        "--repeats",
        "1",
    ]);
    assert_eq!(document["schema"], "plesio.bench.allreduce/1");
    let rows = document["results"].as_array().expect("rows");
    assert_eq!(rows.len(), 9);
    for row in rows {
        assert_eq!((&row["path"], &row["wrong"]), (&Value::from("shm"), &Value::from(0)), "{row}");
        for field in
            ["ranks", "bytes", "count", "time_ns", "algbw_Bps", "busbw_Bps", "rss_above_payload_bytes"]
        {
            assert!(row[field].is_number(), "{field} of {row}");
        }
        let most = 8.0 * f64::from(1 << 20) + row["bytes"].as_f64().expect("a number") * 0.02;
        // This process is measured with all of its code and a debug build's is large.
        assert!(row["rss_above_payload_bytes"].as_f64().expect("a number") < 3.0 * most, "{row}");
    }
    assert_eq!(document["baseline"].as_array().map(Vec::len), Some(9));
    assert!(document["ratio"]["floor"].as_f64().is_some_and(|ratio| ratio > 0.0));
}

#[test]
fn sums_by_datagrams_come_out_right_too() {
    let line =
        ["--size", "4,100k,3M", "--ranks", "2,3", "--path", "udp", "--iterations", "2", "--repeats", "1"];
    let both = ["allreduce", "--protection", "both", "--wait", "block,adaptive"];
    let document = document(&[&both, &line[..]].concat());
    let rows = document["results"].as_array().expect("rows");
    assert_eq!(rows.len(), 24);
    assert!(
        rows.iter().all(|row| row["wrong"] == 0 && row["path"] == "udp" && row["in_place"] == false),
        "{rows:?}"
    );
    for (at, row) in rows.iter().enumerate() {
        let protection = ["sealed", "plaintext"][at / 12];
        assert_eq!(row["protection"], protection, "{row}");
        assert_eq!(row["wait"], ["block", "adaptive"][at / 6 % 2], "{row}");
        assert_eq!(row["suite"].is_string(), protection == "sealed", "{row}");
    }
    assert_eq!(document["ratio"]["floor"], Value::Null);
}

#[test]
fn datagrams_are_sealed_unless_told_otherwise_and_unlike_protections_are_not_compared() {
    let line =
        ["allreduce", "--path", "udp", "--ranks", "2", "--size", "4", "--iterations", "1", "--repeats", "1"];
    let folder = std::env::temp_dir().join(format!("plesio-protection-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a temporary folder");
    let write = |name: &str, flags: &[&str], protection: &str| {
        let document = document(&[&line[..], flags].concat());
        assert_eq!(document["config"]["protection"], protection);
        assert_eq!(document["results"][0]["protection"], protection);
        let path = folder.join(name);
        std::fs::write(&path, document.to_string()).expect("it fits");
        path
    };
    let sealed = write("sealed.json", &[], "sealed");
    let plaintext = write("plaintext.json", &["--protection", "plaintext"], "plaintext");
    let compare = |one: &std::path::Path, two: &std::path::Path| {
        let paths = [one, two].map(|path| path.to_str().expect("text"));
        output(&[&["compare", "--tolerance", "0.9"], &paths[..]].concat())
    };
    let refused = compare(&sealed, &plaintext);
    let itself = compare(&sealed, &sealed);
    let _gone = std::fs::remove_dir_all(&folder);
    assert_eq!(refused.status.code(), Some(2), "{}", text(&refused.stdout));
    assert!(text(&refused.stderr).contains("no row in common"), "{}", text(&refused.stderr));
    assert_eq!(itself.status.code(), Some(0), "{}", text(&itself.stderr));
}

#[test]
fn narrowed_sums_are_the_same_on_every_rank() {
    for codec in ["bf16", "int8", "int4"] {
        let line = ["allreduce", "--path", "udp", "--ranks", "3", "--size", "4,900k", "--codec", codec];
        let document = document(&[&line[..], &["--iterations", "3", "--repeats", "1"]].concat());
        let rows = document["results"].as_array().expect("rows");
        assert!(rows.iter().all(|row| row["wrong"] == 0 && row["codec"] == codec), "{rows:?}");
    }
}

#[test]
fn links_say_what_the_slowest_would_need() {
    let line = ["allreduce", "--path", "udp", "--ranks", "3", "--size", "600k", "--links", "1G,1G,100M"];
    let bound = |shares: &str| {
        let document =
            document(&[&line[..], &["--shares", shares, "--iterations", "1", "--repeats", "1"]].concat());
        let row = &document["results"][0];
        assert_eq!(row["wrong"], 0, "{row}");
        (
            row["links_bound_ns"].as_f64().expect("a number"),
            row["shares_bound_ns"].as_f64().expect("a number"),
        )
    };
    let (best, used) = bound("rate");
    assert!((used / best - 1.0).abs() < 0.01, "{used} of {best}");
    assert!(bound("equal").1 > 1.2 * best, "equal shares wait for the slow link");
}

#[test]
fn who_is_killed_inside_an_operation_leaves_the_same_bits_to_the_others() {
    for path in ["shm", "udp"] {
        let line = ["allreduce", "--path", path, "--ranks", "4", "--size", "32M", "--kills", "2"];
        let document = document(&[&line[..], &["--iterations", "2", "--repeats", "1"]].concat());
        let said = document["notes"].as_array().expect("notes");
        let is_said =
            |start: &str| said.iter().any(|note| note.as_str().is_some_and(|note| note.contains(start)));
        let killed = &document["results"][0]["killed"];
        // On a starved machine every kill may come too late, which is said.
        if killed.is_null() {
            assert!(is_said("none of 20 kills came before"), "{said:?}");
            continue;
        }
        let count = |name: &str| killed[name].as_u64().expect("a number");
        assert!(count("kills") == 2 || count("kills") + count("kills_late") == 20, "{killed}");
        assert_eq!(count("wrong"), 0, "{killed}");
        // In shared memory nobody counts what is done again.
        let redone = killed["redone_share_max"].as_f64();
        assert_eq!(redone.is_some(), path == "udp", "{killed}");
        assert!(redone.is_none_or(|share| share <= 0.26), "{killed}");
        assert!(is_said(&format!("killed {} times inside", killed["kills"])), "{said:?}");
    }
}

#[test]
fn every_operation_and_every_type_comes_out_right() {
    for element in ["f32", "bf16", "i32"] {
        let line = [
            "shm",
            "--size",
            "36,100k",
            "--ranks",
            "3",
            "--element",
            element,
            "--iterations",
            "2",
            "--repeats",
            "1",
        ];
        let document = document(&line);
        let rows = document["results"].as_array().expect("rows");
        let operations: Vec<_> = rows.iter().filter_map(|row| row["operation"].as_str()).collect();
        assert_eq!(operations.len(), 8, "{operations:?}");
        assert!(rows.iter().all(|row| row["wrong"] == 0 && row["type"] == element), "{rows:?}");
    }
}

#[test]
fn a_table_has_the_columns_of_nccl_tests_and_a_bound_that_is_missed_exits_3() {
    let table =
        output(&["allreduce", "--size", "64k", "--ranks", "2", "--iterations", "2", "--repeats", "1"]);
    assert_eq!(table.status.code(), Some(0), "{}", text(&table.stderr));
    let head = text(&table.stdout).lines().next().unwrap_or_default().to_owned();
    for column in ["size", "count", "type", "redop", "time", "algbw", "busbw", "#wrong"] {
        assert!(head.contains(column), "{head}");
    }
    let line =
        ["allreduce", "--size", "4", "--ranks", "2", "--iterations", "1", "--repeats", "1", "--require"];
    let missed = output(&[&line[..], &["ratio.floor<=0.0001"]].concat());
    assert_eq!(missed.status.code(), Some(3), "{}", text(&missed.stderr));
    for (bound, said) in [("ratio.flor<=1", "name one that is there"), ("nonsense", "NAME>=X")] {
        let refused = output(&[&line[..], &[bound]].concat());
        assert_eq!(refused.status.code(), Some(2));
        assert!(text(&refused.stderr).contains(said), "{}", text(&refused.stderr));
    }
    for (line, said) in [
        (&["allreduce", "--size", "5"][..], "no whole number of elements"),
        (&["allreduce", "--ranks", "33"], "1..=32"),
        (&["allreduce", "--path", "pigeon"], "possible values"),
        (&["shm", "--pin", "65535"], "core 65535"),
        (&["shm", "--path", "udp"], "allreduce --path udp"),
        (&["allreduce", "--codec", "int8"], "add --path udp"),
        (
            &["allreduce", "--path", "udp", "--codec", "int8", "--element", "i32"],
            "without --operation and --element",
        ),
        (&["allreduce", "--links", "1G,1G"], "add --path udp"),
        (&["allreduce", "--path", "udp", "--links", "1G,100M"], "name one for each rank"),
        (&["allreduce", "--path", "udp", "--links", "fast"], "write it as 100M"),
        (&["allreduce", "--ranks", "1", "--kills", "1"], "--ranks 2 or more"),
        (&["allreduce", "--path", "udp", "--ranks", "2", "--namespaces", "no/such,x"], "`ip netns list`"),
        (&["allreduce", "--size", "1k,,2k"], "nothing between two commas"),
    ] {
        let refused = output(line);
        assert!(matches!(refused.status.code(), Some(1 | 2)), "{line:?}");
        assert!(text(&refused.stderr).contains(said), "{line:?}: {}", text(&refused.stderr));
    }
}

#[test]
fn a_folder_that_cannot_be_written_is_named_and_a_killed_driver_leaves_none() {
    let line = ["allreduce", "--size", "4", "--ranks", "2", "--repeats", "1000", "--iterations", "100000"];
    let refused = bench(&line).env("TMPDIR", "/proc/no-such-folder").output().expect("it starts");
    assert_eq!(refused.status.code(), Some(1));
    assert!(text(&refused.stderr).contains("set TMPDIR"), "{}", text(&refused.stderr));
    let folder = std::env::temp_dir().join(format!("plesio-killed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let names = || std::fs::read_dir(&folder).expect("our folder").count();
    let mut child = bench(&line).env("TMPDIR", &folder).stdout(Stdio::null()).spawn().expect("it starts");
    let wait = |what: &str, is_so: &dyn Fn() -> bool| {
        let until = std::time::Instant::now() + Duration::from_secs(60);
        while !is_so() {
            assert!(std::time::Instant::now() < until, "{what} never came");
            std::thread::sleep(Duration::from_millis(1));
        }
    };
    wait("a folder", &|| names() > 0);
    // Ranks meet there, and leave nothing behind.
    wait("an empty folder", &|| names() == 0);
    child.kill().expect("it runs");
    child.wait().expect("it has ended");
    assert_eq!(names(), 0);
    std::fs::remove_dir(&folder).expect("nothing is in it");
}

#[test]
fn ctrl_c_prints_what_there_is_and_leaves_no_folder() {
    let folder = std::env::temp_dir().join(format!("plesio-ctrl-c-{}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("a folder");
    let mut child = bench(&["allreduce", "--size", "4,16M", "--ranks", "2", "--repeats", "1000", "--json"])
        .env("TMPDIR", &folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    std::thread::sleep(Duration::from_millis(1500));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGINT).expect("it is ours");
    let status = child.wait().expect("it ends");
    let mut said = String::new();
    std::io::Read::read_to_string(&mut child.stdout.take().expect("is piped"), &mut said).expect("text");
    assert_eq!(status.code(), Some(130), "{said}");
    let document: Value = serde_json::from_str(&said).expect("one document");
    assert_eq!(document["ended"], "interrupted");
    std::fs::remove_dir(&folder).expect("nothing was left in it");
}
