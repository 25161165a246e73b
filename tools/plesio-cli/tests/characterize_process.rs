//! `plesio characterize` as a process: what it leaves, that it is the same twice, and what it refuses.

use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

/// A folder of this test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _absent = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("the target folder is writable");
    path
}

fn characterize(folder: &Path, line: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plesio"));
    command.arg("characterize").args(line.split_whitespace()).stdin(Stdio::null()).current_dir(folder);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLESIO_")) {
        command.env_remove(name);
    }
    command.output().expect("the program runs")
}

/// Rows by column.
fn rows(path: &Path) -> Vec<std::collections::BTreeMap<String, String>> {
    let text = fs::read_to_string(path).expect("it was written");
    let mut lines = text.split_terminator("\r\n").map(|line| line.split(',').map(str::to_owned));
    let names: Vec<String> = lines.next().expect("a head").collect();
    assert_eq!((names.len(), names[0].as_str(), names[34].as_str()), (36, "cell_id", "digest_ok"));
    lines.map(|line| names.iter().cloned().zip(line).collect()).collect()
}

#[test]
fn a_sweep_leaves_a_table_plots_and_traces_and_is_the_same_twice() {
    let at = folder("characterize");
    let line =
        "--nodes 3,4 --mix 20:80 --churn 0,600 --alpha 0.1 --period-ms 250 --seconds 14 --seeds 3..4 --json";
    let first = characterize(&at, &format!("{line} --out one"));
    assert_eq!(first.status.code(), Some(0), "{}", String::from_utf8_lossy(&first.stderr));
    let document: Value = serde_json::from_slice(&first.stdout).expect("one document");
    assert_eq!(document["schema"], "plesio.characterize/1");
    let rows = rows(&at.join("one/characterize.csv"));
    assert_eq!((rows.len(), document["rows"].as_array().map(Vec::len)), (4, Some(4)));
    for row in &rows {
        let number = |name: &str| row[name].parse::<f64>().unwrap_or_else(|_| panic!("{name}: {row:?}"));
        assert_eq!(
            (row["digest_ok"].as_str(), row["mix"].as_str(), row["seed"].as_str()),
            ("true", "20:80", "3")
        );
        // From ln 32 = 3.47, above what no mesh can beat by more than its luck with batches.
        assert!(
            (1.5..3.3).contains(&number("loss_final")) && number("loss_gap_vs_serial") > -0.05,
            "{row:?}"
        );
        assert!(number("useful_frac") > 0.5 && number("useful_frac") + number("lost_frac") <= 1.0, "{row:?}");
        assert!(number("frames") > 40.0 && number("commit_lat_p50_ms") > 0.0, "{row:?}");
        let dies = row["churn_per_node_h"] == "600";
        assert!((number("epoch_changes") > 0.0) == dies && (number("lost_frac") > 0.0) == dies, "{row:?}");
        assert_eq!(row["reconfig_stall_ms_p99"].is_empty(), !dies);
    }
    let trace = fs::read_to_string(at.join("one/traces/cell-0-seed-3.jsonl")).expect("it was written");
    assert!(
        trace.lines().count() > 200 && trace.lines().all(|line| serde_json::from_str::<Value>(line).is_ok())
    );
    let plots = fs::read_to_string(at.join("one/plots.html")).expect("it was written");
    assert_eq!(plots.matches("<polyline").count(), 4);
    let second = characterize(&at, &format!("{line} --out two --no-traces"));
    assert_eq!(second.status.code(), Some(0));
    let csv = |name: &str| fs::read(at.join(name).join("characterize.csv")).expect("it was written");
    assert!(csv("one") == csv("two") && !at.join("two/traces").exists());
}

#[test]
fn what_cannot_be_swept_is_refused_before_it_begins() {
    let at = folder("characterize-refused");
    for (line, word) in [
        ("--nodes 33", "1..=32"),
        ("--mix 10:0", "1..=10000"),
        ("--alpha 0", "0.01 to 1000"),
        ("--seeds 5..5", "no seed"),
        ("--seeds 0..9999999", "at most 10000"),
        ("--out /proc/none", "/proc/none"),
    ] {
        let refused = characterize(&at, line);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert!(refused.status.code() == Some(2) && said.contains(word), "{line}: {said}");
        assert!(refused.stdout.is_empty() && !at.join("plesio-characterize").exists(), "{line}");
    }
}
