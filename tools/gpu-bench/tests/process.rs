//! The program as people start it: without a GPU, and over a driver that is an emulator. Times need a GPU and are not
//! taken here.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use plesio_emulator::Toolchain;
use plesio_launch::system;
use serde_json::Value;

const PROGRAM: &str = env!("CARGO_BIN_EXE_gpu-bench");

/// For everybody who reads the tests' output.
fn say_skipped(why: &str) {
    eprintln!("skipped: {why}");
}

fn said(output: &Output) -> String {
    [&output.stdout[..], &output.stderr].map(String::from_utf8_lossy).concat()
}

/// The program over the fake drivers; none, said aloud, where they cannot be built.
fn command_over_fakes(arguments: &[&str]) -> Option<Command> {
    let toolchain = Toolchain::find().map_err(|why| say_skipped(&why)).ok()?;
    let fakes = toolchain.fakes(&plesio_emulator::kernels(), Path::new(env!("CARGO_TARGET_TMPDIR")));
    let mut command = Command::new(PROGRAM);
    command.env("LD_LIBRARY_PATH", fakes.expect("they compile")).env("HSA_OVERRIDE_GFX_VERSION", "9.4.2");
    command.args(arguments);
    Some(command)
}

/// What it says there; none, said aloud, where the program has no kernels either.
fn over_fakes(arguments: &[&str], settings: &[(&str, &str)]) -> Option<Output> {
    let mut command = command_over_fakes(arguments)?;
    let output = command.envs(settings.iter().copied()).output().expect("the program starts");
    if said(&output).contains("built without kernels") {
        say_skipped("this build has no kernels");
        return None;
    }
    Some(output)
}

/// An empty folder.
fn folder(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let _absent = fs::remove_dir_all(&path);
    fs::create_dir_all(&path).expect("the target folder is writable");
    path
}

/// Whether a process still does anything; one that has ended may wait for whoever inherits it.
fn runs(process: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{process}/status"));
    status.is_ok_and(|status| !status.contains("State:\tZ"))
}

fn within(limit: Duration, mut is_so: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    while !is_so() {
        if begin.elapsed() > limit {
            return false;
        }
        thread::sleep(Duration::from_millis(10));
    }
    true
}

#[test]
fn without_a_gpu_it_says_so_in_one_sentence_and_fails() {
    for (device, vendor, name) in [("cuda:0", "0x10de", "no CUDA"), ("hip:0", "0x1002", "no HIP")] {
        let output = Command::new(PROGRAM).args(["--device", device]).output().expect("the program starts");
        let text = said(&output);
        if !text.contains("cannot open shared object file") {
            say_skipped("this machine has a vendor's library");
            continue;
        }
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.starts_with(&format!("gpu-bench: {name}")) && text.lines().count() == 1, "{text}");
        let is_seen = text.contains(", though ") || system::is_on_pci(vendor);
        let fix =
            if is_seen { "install the vendor's newest driver" } else { "run this where there is a GPU" };
        assert!(text.ends_with(&format!("; {fix}\n")), "{text}");
    }
}

#[test]
fn a_row_that_there_is_not_is_told_with_those_that_there_are() {
    for rows in [&["--row", "fft"][..], &["--row", "commit", "--row", "fft"]] {
        let output = Command::new(PROGRAM).args(rows).output().expect("the program starts");
        assert_eq!(output.status.code(), Some(1));
        let text = said(&output);
        assert!(text.contains("--row fft: there is no such row; there are commit, "), "{text}");
    }
}

#[test]
fn a_run_without_a_result_leaves_no_file_and_leaves_the_one_of_before_as_it_was() {
    let place = folder("without-result");
    let (fresh, old) = (place.join("new.json"), place.join("old.json"));
    fs::write(&old, "of before").expect("it is ours");
    for out in [&fresh, &old] {
        let arguments = ["--kernels", "no-such-folder", "--device", "cuda:99"];
        let output = Command::new(PROGRAM).args(arguments).arg("--out").arg(out).output();
        assert_eq!(output.expect("the program starts").status.code(), Some(1));
    }
    assert!(!fresh.exists());
    assert_eq!(fs::read_to_string(&old).expect("it is still there"), "of before");
}

#[test]
fn what_cannot_be_said_or_written_is_a_failure() {
    let arguments = ["--rehearse", "--seconds", "1", "--python", "./no-such-python"];
    let Some(output) = over_fakes(&[&arguments[..], &["--out", "/dev/full"]].concat(), &[]) else { return };
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let told = "gpu-bench: --out /dev/full: No space left on device (os error 28); name a file where there is room\n";
    assert!(text.ends_with(told), "{text}");

    let Some(mut command) = command_over_fakes(&arguments) else { return };
    let full = fs::OpenOptions::new().write(true).open("/dev/full").expect("it is there");
    let output = command.stdout(full).output().expect("the program starts");
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "{text}");
    let told = "gpu-bench: stdout: No space left on device (os error 28); send it to where there is room\n";
    assert!(text.ends_with(told), "{text}");
}

#[test]
fn without_room_for_threads_it_fails_in_words() {
    // Somebody who runs nothing else, where this may be said: a limit is no limit for root.
    const OTHER: u32 = 54_321;
    let place = folder("without-threads");
    let program = place.join("gpu-bench");
    fs::copy(PROGRAM, &program).expect("the target folder is writable");
    let is_root = fs::metadata("/proc/self").expect("Linux").uid() == 0;
    let mut refused = 0;
    for limit in 1..=6 {
        let mut command = Command::new("bash");
        command.args(["-c", "ulimit -u $1 && exec $2 --rehearse --seconds 5", "bash", &limit.to_string()]);
        command.arg(&program).current_dir("/");
        if is_root {
            command.uid(OTHER).gid(OTHER);
        }
        let output = match command.output() {
            Ok(output) => output,
            Err(error) => return say_skipped(&format!("bash as somebody else: {error}")),
        };
        let text = said(&output);
        if !text.contains("gpu-bench: ") && !text.contains("panicked") {
            return say_skipped(&format!("somebody else cannot start the program: {text}"));
        }
        assert!(!text.contains("panicked"), "{limit}: {text}");
        assert_eq!(output.status.code(), Some(1), "{limit}: {text}");
        refused += usize::from(text.contains("; raise the limit of processes with ulimit -u\n"));
    }
    assert!(refused > 0);
}

#[test]
fn wrong_flags_are_told() {
    let output = Command::new(PROGRAM).args(["--device", "tpu:0"]).output().expect("the program starts");
    assert_eq!(output.status.code(), Some(2));
    assert!(said(&output).contains("'tpu:0' is no GPU: say cuda:N or hip:N"), "{}", said(&output));
}

#[test]
fn checks_run_on_the_device_until_their_time_is_over() {
    let Some(output) = over_fakes(&["--small", "--seconds", "3"], &[]) else { return };
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("binary64 by ") && text.contains(": right, "), "{text}");
}

#[test]
fn a_device_that_is_lost_fails_the_checks() {
    let lose = [("PLESIO_FAKE_LOSE_LAUNCH", "2")];
    let Some(output) = over_fakes(&["--small", "--seconds", "3"], &lose) else { return };
    let text = said(&output);
    assert_eq!(output.status.code(), Some(1), "the CPU did it, and that must not pass: {text}");
    assert!(text.contains("WRONG: ") && text.contains("CUDA_ERROR_LAUNCH_FAILED (719)\n"), "{text}");
    let fix = "was not checked further; see what the kernel's log says of the device\n";
    assert!(text.contains(fix) && !text.contains("the node") && !text.contains("--device cpu"), "{text}");
}

#[test]
fn without_python_the_rest_still_runs_and_python_is_named() {
    let arguments = ["--rehearse", "--seconds", "20", "--python", "./no-such-python"];
    let Some(output) = over_fakes(&arguments, &[]) else { return };
    let text = said(&output);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(
        text.contains("is for this chip") && text.contains("not for this chip, which is sm_90"),
        "{text}"
    );
    assert!(text.contains("./no-such-python cannot be started") && text.contains("--python"), "{text}");
}

#[test]
fn why_there_is_no_device_is_told_with_one_fix_that_is_true_here() {
    for (arguments, settings, told) in [
        (
            &[][..],
            &[("PLESIO_FAKE_CUDA_INIT_CODE", "100")][..],
            "no CUDA: cuInit: CUDA_ERROR_NO_DEVICE (100); run this where there is a GPU",
        ),
        (
            &["--device", "cuda:9"],
            &[],
            "device cuda:9: cuDeviceGet: CUDA_ERROR_INVALID_DEVICE (101); name one of 0 to 0 with --device",
        ),
        (
            &[],
            &[("PLESIO_FAKE_CUDA_VERSION", "10020")],
            "no CUDA: CUDA 10.2 is too old, CUDA 11.4 is needed; install the vendor's newest driver",
        ),
        (
            &["--kernels", "no-such-folder"],
            &[],
            "no-such-folder/manifest: No such file or directory (os error 2); build the folder anew with cargo xtask \
             kernels --out DIR",
        ),
        (
            &[],
            &[("PLESIO_FAKE_CUDA_ARCHITECTURE", "sm_61")],
            "; cargo xtask kernels --target compute_61 --out DIR, and --kernels DIR",
        ),
    ] {
        let Some(output) = over_fakes(arguments, settings) else { return };
        let text = said(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        let line = text.lines().find_map(|line| line.strip_prefix("gpu-bench: ")).expect("it says why");
        assert!(if told.starts_with(';') { line.ends_with(told) } else { line == told }, "{line}");
    }
}

#[test]
fn it_ends_when_its_time_is_over_whatever_it_does_and_says_what_it_left_out() {
    // Found by a user: with two seconds it took fifteen, most of them for plans of rows that nobody could time.
    let out = folder("late").join("late.json");
    let arguments = ["--seconds", "1", "--python", "./no-such-python", "--out", &*out.to_string_lossy()];
    // Fakes are compiled before it starts.
    let Some(mut command) = command_over_fakes(&arguments) else { return };
    let begin = Instant::now();
    let output = command.output().expect("the program starts");
    let (took, text) = (begin.elapsed(), said(&output));
    if text.contains("built without kernels") {
        return say_skipped("this build has no kernels");
    }
    assert!(took < Duration::from_secs(4), "{took:?}: {text}");
    assert!(text.contains(" faults, 1 s\n") && text.contains("note: the time was over: "), "{text}");
    assert_eq!(output.status.code(), Some(0), "what is left out is no failure: {text}");
    let document: Value =
        serde_json::from_str(&fs::read_to_string(&out).expect("it was written")).expect("JSON");
    assert_eq!(document["ended"], "late");
}

#[test]
fn however_it_is_ended_python_ends_too_and_its_folder_goes() {
    // In the place of torch: says who it is, and takes its time.
    const TORCH: &str = "import os, time
with open(os.environ['GPU_BENCH_TEST_FILE'] + '.part', 'w') as file:
    file.write(str(os.getpid()))
os.rename(file.name, os.environ['GPU_BENCH_TEST_FILE'])
time.sleep(300)
";
    for signal in [Signal::SIGTERM, Signal::SIGINT, Signal::SIGKILL] {
        let place = folder(&format!("ended-by-{signal}"));
        let (modules, temporary, told) = (place.join("modules"), place.join("tmp"), place.join("python"));
        for folder in [&modules, &temporary] {
            fs::create_dir(folder).expect("it is ours");
        }
        fs::write(modules.join("torch.py"), TORCH).expect("it is ours");
        let Some(mut command) = command_over_fakes(&["--rehearse", "--seconds", "120"]) else { return };
        command.env("PYTHONPATH", &modules).env("TMPDIR", &temporary).env("GPU_BENCH_TEST_FILE", &told);
        let mut program = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("it starts");
        let ended =
            |program: &mut std::process::Child| program.try_wait().is_ok_and(|status| status.is_some());
        assert!(within(Duration::from_secs(100), || told.exists() || ended(&mut program)), "it hangs");
        let Ok(python) = fs::read_to_string(&told) else {
            let text = said(&program.wait_with_output().expect("it has ended"));
            let without = ["built without kernels", "cannot be started"];
            assert!(without.iter().any(|why| text.contains(why)), "{text}");
            return say_skipped("no kernels, or no python3");
        };
        let python = python.parse().expect("its number");
        let made: Vec<_> = fs::read_dir(&temporary).expect("it is ours").flatten().collect();
        let [made] = &made[..] else { panic!("one folder: {made:?}") };
        assert_eq!(made.metadata().expect("it is there").mode() & 0o7777, 0o700);
        let id = i32::try_from(program.id()).expect("a process");
        assert!(!made.file_name().to_string_lossy().contains(&id.to_string()), "{made:?} can be guessed");

        kill(Pid::from_raw(id), signal).expect("it is ours");
        let output = program.wait_with_output().expect("it ends");
        assert!(within(Duration::from_secs(10), || !runs(python)), "{signal}: Python still runs");
        let text = said(&output);
        if signal == Signal::SIGKILL {
            assert_eq!(output.status.signal(), Some(9));
            continue;
        }
        assert_eq!(output.status.code(), Some(130), "{text}");
        assert!(
            text.contains("note: interrupted: times of commit, ") && text.contains(" 0 faults, "),
            "{text}"
        );
        assert_eq!(fs::read_dir(&temporary).expect("it is ours").count(), 0, "{signal}: the folder is left");
    }
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
    let Some(output) = over_fakes(&["--rehearse", "--seconds", "300", "--out", &*out], &[]) else { return };
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
