//! `plesio bench churn`: processes that are killed, started anew and stopped, and the one model that comes of it.
//!
//! What is judged is what must hold on any machine, however busy: no times but those that are far apart.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};

/// A whole mesh each: two at once would share too few cores to mean anything.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// Runs it in a folder for temporary files of its own, expects success, and that nothing is left there.
fn churn(name: &str, line: &[&str]) -> Value {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = folder(name);
    let mut command = Command::new(env!("CARGO_BIN_EXE_plesio"));
    command.args(["bench", "churn", "--json", "--quiet"]).args(line).stdin(Stdio::null());
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("PLESIO_")) {
        command.env_remove(name);
    }
    let output = command.env("TMPDIR", &folder).output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    let document = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{line:?}: {said}\n{document}");
    let left: Vec<PathBuf> = std::fs::read_dir(&folder)
        .expect("it is there")
        .filter_map(|entry| Some(entry.ok()?.path()))
        // Doors are one folder for all nodes of a user; what is in it is not.
        .flat_map(|path| {
            match path.file_name().is_some_and(|name| name.to_string_lossy().contains("doors")) {
                true => {
                    std::fs::read_dir(path).expect("a folder").filter_map(|e| Some(e.ok()?.path())).collect()
                }
                false => vec![path],
            }
        })
        .collect();
    assert!(left.is_empty(), "{left:?}");
    serde_json::from_slice(&output.stdout).expect("one document")
}

fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _absent = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("the target folder is writable");
    path
}

/// What must hold of every run.
fn check(document: &Value) {
    assert_eq!(document["schema"], "plesio.bench.churn/1");
    assert_eq!(document["digests_equal"], true, "{document:#}");
    assert_eq!(document["leaks"], 0, "{document:#}");
    assert_eq!(document["crashes"], 0, "{document:#}");
    assert_eq!(document["unrecovered"], 0, "{document:#}");
    assert!(document["versions"].as_u64() > Some(6), "{document:#}");
}

#[test]
fn a_mesh_in_churn_keeps_one_model_and_leaks_nothing() {
    let document = churn("churn-kill", &["--nodes", "5", "--seconds", "10"]);
    check(&document);
    assert!(document["kills"].as_u64() >= Some(3), "{document:#}");
    assert!(document["joins"].as_u64() >= Some(3), "{document:#}");
    assert_eq!(document["protection"], "sealed");
    for field in ["gap_max_s", "gap_p99_s", "recovery_median_s", "detection_max_s", "join_to_first_s"] {
        assert!(document[field].as_f64().is_some_and(|seconds| seconds > 0.0), "{field}: {document:#}");
    }
}

/// Not through memory, and without sessions: other code.
#[test]
fn a_mesh_in_churn_by_udp_in_plaintext_keeps_one_model() {
    let line = ["--nodes", "4", "--seconds", "6", "--plaintext", "--path", "udp", "--backend", "mio"];
    let document = churn("churn-udp", &line);
    check(&document);
    assert_eq!(document["protection"], "plaintext");
}

/// F3: a fifth of a second is not noticed; who slept for three is out of the view, accuses nobody when it wakes, and is let
/// in again.
#[test]
fn a_stopped_process_wakes_accuses_nobody_and_comes_back() {
    let document = churn("churn-pause", &["--nodes", "5", "--seconds", "18", "--pause", "--no-kill"]);
    check(&document);
    assert_eq!(document["kills"], 0);
    let pauses = document["pauses"].as_array().expect("pauses");
    assert_eq!(pauses.len(), 3, "of 0.2, 0.7 and 3 s: {document:#}");
    for pause in pauses {
        let (count, excluded) = (pause["count"].as_u64(), pause["excluded"].as_u64());
        assert_eq!(pause["accused"], 0, "{document:#}");
        assert!(pause["back_max_s"].as_f64().is_some(), "{document:#}");
        match pause["pause_s"].as_f64() {
            Some(0.2) => assert_eq!(excluded, Some(0), "{document:#}"),
            Some(3.0) => assert_eq!(excluded, count, "{document:#}"),
            // Long enough to be suspected, too short to be put out unless the machine adds to it.
            _ => {}
        }
    }
}

#[test]
fn a_wrong_command_line_is_refused_and_explained() {
    for (line, hint) in [
        (&["--nodes", "2"][..], "3..=16"),
        (&["--seconds", "0"], "2..=86400"),
        (&["--no-kill"], "--pause"),
        (&["--require", "gap_min_s<=1"], "gap_max_s"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_plesio"))
            .args(["bench", "churn"])
            .args(line)
            .output()
            .expect("the program runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{line:?}: {said}");
        assert!(said.contains(hint), "{line:?}: {said}");
    }
}
