//! `plesio` on devices: what it says where there is none, what it refuses, and whole meshes whose nodes compute on unlike
//! devices. The devices are fakes of the vendors' libraries, which run the kernels of this very program on the emulator.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use plesio_emulator::Toolchain;
use serde_json::Value;

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

/// The same with both fakes in the search path, as they are set; nothing, said aloud, where they or the kernels cannot be
/// compiled.
fn on_fakes(arguments: &[&str], settings: &[(&str, &str)]) -> Option<Output> {
    let fakes = match Toolchain::find() {
        Ok(toolchain) => {
            let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
            toolchain.fakes(&plesio_emulator::kernels(), dir).expect("they compile")
        }
        Err(why) => {
            eprintln!("skipped: {why}");
            return None;
        }
    };
    let mut command = plesio(arguments);
    // No card says what it is here; AMD's own name for that is asked first.
    command
        .env("LD_LIBRARY_PATH", &fakes)
        .env("HSA_OVERRIDE_GFX_VERSION", "9.4.2")
        .envs(settings.iter().copied());
    let output = command.output().expect("the program runs");
    let said = String::from_utf8_lossy(&output.stderr);
    if said.contains("built without kernels") {
        eprintln!("skipped: {}", said.trim());
        return None;
    }
    Some(output)
}

fn document(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(&text)
        .unwrap_or_else(|error| panic!("{error}: {text} {}", String::from_utf8_lossy(&output.stderr)))
}

/// What each member computes on.
fn devices(document: &Value) -> Vec<&str> {
    let members = document["members"].as_array().expect("a demo lists its members");
    members.iter().filter_map(|member| member["device"].as_str()).collect()
}

#[test]
fn without_a_device_a_name_is_refused_with_the_reason() {
    // Where nothing of a vendor's is found, whatever this machine has.
    let empty = folder("no-libraries");
    for (device, library) in [("cuda:0", "libcuda"), ("hip:0", "libamdhip64")] {
        let mut command = plesio(&["demo", "--device", device]);
        let output = command.env("LD_LIBRARY_PATH", &empty).output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if said.contains(library) {
            assert_eq!(output.status.code(), Some(5), "{said}");
            assert!(said.contains("--device auto"), "{said}");
        } else {
            eprintln!("skipped: this machine has {library}");
        }
    }
    for device in ["gpu", "cuda:x", "", "cpu,hip:-1"] {
        let output = plesio(&["demo", "--device", device]).output().expect("the program runs");
        assert_eq!(output.status.code(), Some(2), "'{device}'");
        assert!(String::from_utf8_lossy(&output.stderr).contains("auto, cpu, cuda:N or hip:N"), "'{device}'");
    }
}

#[test]
fn a_folder_of_kernels_that_cannot_be_read_is_refused_before_anything_starts() {
    let flag = &["demo", "--kernels-dir", "/nonexistent"][..];
    for (arguments, named, fix) in
        [(flag, false, "leave --kernels-dir out"), (&flag[..1], true, "unset PLESIO_KERNELS_DIR")]
    {
        let mut command = plesio(arguments);
        if named {
            command.env("PLESIO_KERNELS_DIR", "/nonexistent");
        }
        let output = command.output().expect("the program runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(5), "{said}");
        assert!(said.contains(&format!("fix:   {fix}\n")), "{said}");
        assert!(!said.contains("n0"), "no node was started: {said}");
    }
}

#[test]
fn a_device_that_is_not_there_or_has_no_kernels_is_refused() {
    let refused = |device: &str, settings: &[(&str, &str)], words: &str| {
        let Some(output) = on_fakes(&["demo", "--device", device], settings) else { return };
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(5), "{said}");
        assert!(said.contains(words), "{said}");
    };
    refused("cuda:1", &[], "CUDA_ERROR_INVALID_DEVICE");
    refused("hip:7", &[], "hipErrorInvalidDevice");
    refused(
        "hip:0",
        &[("PLESIO_FAKE_HIP_ARCHITECTURE", "gfx1030"), ("HSA_OVERRIDE_GFX_VERSION", "10.3.0")],
        "fix:   cargo xtask kernels --target gfx1030 --out DIR, and --kernels-dir DIR\n",
    );
    refused("cuda:0", &[("PLESIO_FAKE_CUDA_INIT_CODE", "100")], "CUDA_ERROR_NO_DEVICE");
    refused(
        "cuda:0",
        &[("PLESIO_FAKE_CUDA_ARCHITECTURE", "sm_61")],
        "--target compute_61 --out DIR, and --kernels-dir",
    );
}

#[test]
fn nodes_on_unlike_devices_hold_one_model() {
    let out = folder("unlike-devices");
    let out = out.to_str().expect("a path of ours is text");
    let arguments =
        ["demo", "--nodes", "4", "--seconds", "12", "--device", "hip:0,cuda:0,cpu", "--out", out, "--json"];
    let launched = Path::new(out).join("launched");
    let told = [("PLESIO_FAKE_KERNELS_FILE", launched.to_str().expect("a path of ours is text"))];
    let Some(output) = on_fakes(&arguments, &told) else { return };
    let document = document(&output);
    let devices = devices(&document);
    assert!(devices[0].starts_with("hip:0 ") && devices[1].starts_with("cuda:0 "), "{devices:?}");
    assert!(devices[2..].iter().all(|device| device.starts_with("cpu ")), "{devices:?}");
    assert_eq!(document["digests_equal"], true);
    assert!(document["versions_committed"].as_u64() > Some(8), "{}", document["versions_committed"]);
    let launched = fs::read_to_string(&launched).expect("kernels were launched");
    for vendor in ["HIP", "CUDA"] {
        for kernel in [
            "lora_shrink",
            "lora_expand",
            "lora_outer",
            "adamw",
            "quantise_residue",
            "coded_sum_full",
            "apply",
        ] {
            assert!(launched.lines().any(|line| line == format!("{vendor} plesio_{kernel}")), "{launched}");
        }
    }
}

/// Small enough for an emulator.
const BENCH: &[&str] =
    &["bench", "kernels", "--kernels", "commit,median", "--size", "1k", "--working-set", "64k", "--json"];

#[test]
fn the_kernels_of_a_device_are_measured_and_give_the_references_bits() {
    for device in ["hip:0", "cuda:0"] {
        let arguments = [BENCH, &["--device", device, "--repeats", "1", "--seconds", "0.001"]].concat();
        let Some(output) = on_fakes(&arguments, &[]) else { return };
        let document = document(&output);
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let found = document["device"]["found"].as_str().expect("it says what it is");
        assert!(found.starts_with(&format!("{device} ")), "{found}");
        let rows = document["results"].as_array().expect("rows");
        assert_eq!(rows.len(), 3, "two shapes of a median");
        for row in rows {
            assert_eq!((&row["device"], &row["wrong"]), (&device.into(), &0.into()), "{row}");
            assert!(row["time_ns"].as_f64() > Some(0.0), "{row}");
            for field in ["level", "threads", "floor_ratio", "must", "met"] {
                assert!(row[field].is_null(), "only the CPU has {field}: {row}");
            }
        }
        assert!(document["notes"].to_string().contains("has no floor"), "{}", document["notes"]);
    }
}

#[test]
fn what_the_cpu_did_in_its_place_is_no_figure_of_a_device() {
    let arguments = [BENCH, &["--device", "cuda:0", "--repeats", "1000", "--seconds", "0.001"]].concat();
    // Each of the first row's rounds has two launches at least, and the first one far fewer than this, so it is over by then.
    let Some(output) = on_fakes(&arguments, &[("PLESIO_FAKE_LOSE_LAUNCH", "2000")]) else { return };
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("does not run this kernel") && said.contains("LAUNCH_FAILED"), "{said}");
    assert_eq!(document(&output)["ended"], "interrupted", "what was measured is shown");
}

#[test]
fn a_device_that_is_lost_at_its_trial_is_not_the_fastest() {
    let arguments = [BENCH, &["--device", "auto", "--repeats", "1", "--seconds", "0.001"]].concat();
    let Some(output) = on_fakes(&arguments, &[("PLESIO_FAKE_LOSE_LAUNCH", "1")]) else { return };
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let device = document(&output)["device"].to_string();
    assert!(device.contains("is left out") && device.contains("LAUNCH_FAILED"), "{device}");
    assert!(
        document(&output)["device"]["found"].as_str().is_some_and(|found| found.starts_with("cpu")),
        "{device}"
    );
}

#[test]
fn a_device_that_fails_under_way_is_told_once_and_the_cpu_goes_on() {
    for (fault, words) in
        [("PLESIO_FAKE_LOSE_LAUNCH", "LAUNCH_FAILED"), ("PLESIO_FAKE_HANG_LAUNCH", "the device hangs")]
    {
        let out = folder("failing-device");
        let out = out.to_str().expect("a path of ours is text");
        let arguments =
            ["demo", "--nodes", "2", "--seconds", "20", "--device", "cuda:0,cpu", "--out", out, "--json"];
        let Some(output) = on_fakes(&arguments, &[(fault, "40")]) else { return };
        let document = document(&output);
        assert_eq!(document["digests_equal"], true, "{fault}");
        let notes = document["notes"].to_string();
        assert_eq!(notes.matches(words).count(), 1, "{fault}: {notes}");
        assert!(notes.contains("; the CPU does what the device does not"), "{fault}: {notes}");
    }
}
