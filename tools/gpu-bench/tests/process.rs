//! The program as people start it: without a GPU, and over a driver that is an emulator. Times need a GPU and are not
//! taken here.

use std::path::Path;
use std::process::{Command, Output};

use plesio_emulator::Toolchain;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gpu-bench");

/// For everybody who reads the tests' output.
fn say_skipped(why: &str) {
    eprintln!("skipped: {why}");
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// The program over the fake drivers; none, said aloud, where they cannot be built or the program has no kernels.
fn over_fakes(arguments: &[&str]) -> Option<Output> {
    let toolchain = Toolchain::find().map_err(|why| say_skipped(&why)).ok()?;
    let fakes = toolchain.fakes(&plesio_emulator::kernels(), Path::new(env!("CARGO_TARGET_TMPDIR")));
    let mut command = Command::new(PROGRAM);
    command.env("LD_LIBRARY_PATH", fakes.expect("they compile")).env("HSA_OVERRIDE_GFX_VERSION", "9.4.2");
    let output = command.args(arguments).output().expect("the program starts");
    if said(&output).contains("built without kernels") {
        say_skipped("this build has no kernels");
        return None;
    }
    Some(output)
}

#[test]
fn without_a_gpu_it_says_so_in_one_sentence_and_fails() {
    for (device, name) in [("cuda:0", "no CUDA: "), ("hip:0", "no HIP: ")] {
        let output = Command::new(PROGRAM).args(["--device", device]).output().expect("the program starts");
        let text = said(&output);
        if !text.contains("cannot open shared object file") {
            say_skipped("this machine has a vendor's library");
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.starts_with(&format!("gpu-bench: {name}")) && text.lines().count() == 1, "{text}");
        assert!(text.contains("install the vendor's driver"), "{text}");
    }
}

#[test]
fn a_row_that_there_is_not_is_told_with_those_that_there_are() {
    let output = Command::new(PROGRAM).args(["--row", "fft"]).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(1));
    assert!(
        said(&output).contains("--row fft: there is no such row; there are commit, "),
        "{}",
        said(&output)
    );
}

#[test]
fn wrong_flags_are_told() {
    let output = Command::new(PROGRAM).args(["--device", "tpu:0"]).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("'tpu:0' is no GPU: say cuda:N or hip:N"), "{}", said(&output));
}

#[test]
fn checks_run_on_the_device_until_their_time_is_over() {
    let Some(output) = over_fakes(&["--small", "--seconds", "3"]) else { return };
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("binary64 by ") && text.contains(": right, "), "{text}");
}

#[test]
fn a_device_that_is_lost_fails_the_checks() {
    let Some(output) = over_fakes(&["--small", "--seconds", "3"]) else { return };
    assert!(output.status.success(), "{}", said(&output));
    let fakes = Toolchain::find()
        .expect("it was there")
        .fakes(&plesio_emulator::kernels(), Path::new(env!("CARGO_TARGET_TMPDIR")));
    let output = Command::new(PROGRAM)
        .args(["--small", "--seconds", "3"])
        .env("LD_LIBRARY_PATH", fakes.expect("they were compiled"))
        .env("PLESIO_FAKE_LOSE_LAUNCH", "2")
        .output()
        .expect("the program starts");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "the CPU did it, and that must not pass: {text}");
    assert!(text.contains("WRONG: "), "{text}");
}

#[test]
fn without_python_the_rest_still_runs_and_python_is_named() {
    let arguments = ["--rehearse", "--seconds", "20", "--python", "./no-such-python"];
    let Some(output) = over_fakes(&arguments) else { return };
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("is for this chip") && text.contains("not for this chip, which is sm_90"),
        "{text}"
    );
    assert!(text.contains("./no-such-python cannot be started") && text.contains("--python"), "{text}");
}

#[test]
fn every_rival_of_every_row_makes_what_our_kernels_make() {
    // The program takes the same one.
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let torch = Command::new(python).args(["-c", "import torch; torch.compile"]).output();
    if !torch.is_ok_and(|output| output.status.success()) {
        return say_skipped("python3 has no torch 2; name one that has: PYTHON=PROGRAM");
    }
    let results = Path::new(env!("CARGO_TARGET_TMPDIR")).join("rehearsal.json");
    let out = results.to_string_lossy();
    let Some(output) = over_fakes(&["--rehearse", "--seconds", "300", "--out", &*out]) else { return };
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    for row in ["commit", "median_32", "lora_backward", "adamw"] {
        assert!(text.contains(&format!("row {row}: every element was written")), "{text}");
    }
    let written = std::fs::read_to_string(&results).expect("the results were written");
    let document: Value = serde_json::from_str(&written).expect("they are JSON");
    assert_eq!(document["machine"]["architecture"], "sm_90");
    assert_eq!(document["faults"], Value::Array(Vec::new()));
}

#[test]
fn what_the_scripts_do_without_torch_is_right() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("python");
    let tests = Command::new("python3").args(["-B", "-m", "unittest", "-q"]).current_dir(folder).output();
    let Ok(output) = tests else { return say_skipped("no python3; on Debian: apt-get install python3") };
    assert!(output.status.success(), "{}", said(&output));
}
