//! numpy as a rival: a script in a process of its own that reads the same inputs in the same memory, and writes to
//! its own.
//!
//! One thread, as numpy's own loops have; its library of matrices is told to have one as well.

use super::memory::Memory;
use super::plan::{Plan, Role};
use super::python::{Python, Silence};
use crate::failure::Failure;
use serde_json::{Value, json};
use std::io::ErrorKind;
use std::process::{Command, Stdio};
use std::sync::atomic::AtomicBool;
use std::time::Duration;

const SCRIPT: &str = include_str!("../../../../../benches/rivals/numpy_kernels.py");
/// How the libraries that numpy may be built with are told to keep to one thread.
const THREADS: [&str; 4] = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"];

/// Says in one line whether there is numpy, and what keeps it from working.
const PROBE: &str = "
try:
    import numpy
    print('numpy', numpy.__version__)
except ModuleNotFoundError as why:
    print('none' if why.name == 'numpy' else f'broken {why}')
except BaseException as why:
    print('broken', type(why).__name__, ' '.join(str(why).split()))
";

/// In the process group of whoever has it, and ended with that at the latest. Dropping it ends the process.
pub(super) struct Numpy(Python);

/// Its version, or why it cannot be a rival.
pub(super) fn version(interrupted: &AtomicBool) -> Result<String, String> {
    version_of("python3", PROBE_LIMIT, interrupted).map_err(|why| format!("numpy is left out: {why}"))
}

fn version_of(program: &str, limit: Duration, interrupted: &AtomicBool) -> Result<String, String> {
    let python = Python::start(Command::new(program).args(["-c", PROBE]).stderr(Stdio::null()), true);
    let mut python = python.map_err(|cause| match cause.kind() {
        ErrorKind::NotFound => "there is no python3 on the PATH; install python3-numpy".into(),
        _ => format!("python3 cannot be started ({cause})"),
    })?;
    let said = python.line(limit, interrupted).map_err(|why| format!("python3 {why}"))?;
    match said.split_once(' ').unwrap_or((&said, "")) {
        ("numpy", version) if is_version(version) => Ok(version.into()),
        ("none", "") => Err("python3 has no such module; install python3-numpy, or with \
                             `python3 -m pip install numpy`"
            .into()),
        ("broken", why) => Err(format!("python3 cannot import it: {}", short(why))),
        _ => Err(format!("python3 was asked for its version and said {:?}", short(&said))),
    }
}

fn is_version(text: &str) -> bool {
    let plain = |letter: char| letter.is_ascii_alphanumeric() || ".+-_".contains(letter);
    text.len() <= SHORT && text.starts_with(|first: char| first.is_ascii_digit()) && text.chars().all(plain)
}

/// The beginning of what somebody else says.
fn short(text: &str) -> String {
    let plain = text.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    let mut begin: String = plain.take(SHORT).collect();
    if text.chars().count() > SHORT {
        begin.push_str("...");
    }
    begin
}

impl Numpy {
    /// Has it ready for a kernel over the inputs as they are now.
    pub(super) fn open(kernel: &str, plan: &Plan, memory: &Memory) -> Result<Self, Failure> {
        let Some(path) = memory.path() else {
            let cause = "the device's driver keeps this memory to itself";
            return Err(Failure::run("bench", "numpy cannot read the inputs", cause).fix("leave --vs out"));
        };
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]).envs(THREADS.map(|name| (name, "1")));
        let python = Python::start(&mut command, false);
        let mut numpy =
            Self(python.map_err(|cause| Failure::run("bench", "cannot start python3", cause).fix(LEAVE))?);
        let buffers = plan.buffers.iter().enumerate();
        let buffers: Vec<Value> = buffers
            .map(|(index, buffer)| {
                let (offset, stride) = memory.place(index);
                let written = !matches!(buffer.role, Role::Read | Role::ReadTwice);
                json!({
                    "type": buffer.element.numpy(),
                    "count": buffer.count,
                    "offset": offset,
                    "stride": stride,
                    "written": written,
                })
            })
            .collect();
        numpy.ask(&json!({
            "kernel": kernel, "told": plan.parameters, "path": path, "sets": memory.count(), "buffers": buffers,
        }))?;
        Ok(numpy)
    }

    /// What it writes to the first set, one buffer after the other: so many bytes, or fewer.
    pub(super) fn results(&mut self, bytes_max: usize) -> Result<Vec<u8>, Failure> {
        // Through its pipe: a file would stay where this process is ended.
        let said = self.ask(&json!({ "results": true }))?;
        let bytes = said["bytes"].as_u64().and_then(|bytes| usize::try_from(bytes).ok());
        let bytes = bytes.filter(|bytes| *bytes <= bytes_max);
        let bytes = bytes.ok_or_else(|| gone("it told no length that its results can have"))?;
        self.0.bytes(bytes, ANSWER_LIMIT, &UNINTERRUPTED).map_err(silent)
    }

    /// The median time of a call, in nanoseconds.
    pub(super) fn time_ns(&mut self, length: Duration) -> Result<f64, Failure> {
        let said = self.ask(&json!({ "seconds": length.as_secs_f64() }))?;
        let time = said["time_ns"].as_f64().filter(|time| *time > 0.0);
        time.ok_or_else(|| gone("it told no time"))
    }

    fn ask(&mut self, order: &Value) -> Result<Value, Failure> {
        self.0.tell(&order.to_string()).map_err(silent)?;
        let line = self.0.line(ANSWER_LIMIT, &UNINTERRUPTED).map_err(silent)?;
        serde_json::from_str(&line).map_err(|_| gone(format!("it answered with {:?}", short(&line))))
    }
}

fn silent(why: Silence) -> Failure {
    gone(format!("python3 {why}"))
}

fn gone(cause: impl std::fmt::Display) -> Failure {
    Failure::run("bench", "numpy does not go on", cause).fix(LEAVE)
}

const LEAVE: &str = "see what it said on stderr, or leave --vs out";
/// Who interrupts ends this process and its group.
static UNINTERRUPTED: AtomicBool = AtomicBool::new(false);
/// A slow disk may take a while for its first import.
const PROBE_LIMIT: Duration = Duration::from_secs(30);
/// It imports, copies a working set, or calls a kernel for a minute at most and then to the end.
const ANSWER_LIMIT: Duration = Duration::from_secs(180);
/// Letters of what others say.
const SHORT: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::scratch::Scratch;
    use std::os::unix::fs::PermissionsExt;
    use std::time::Instant;

    fn said_by(script: &str) -> Result<String, String> {
        let folder = Scratch::make("probe").expect("a folder");
        let path = folder.path().join("python3");
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("room");
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("ours");
        version_of(path.to_str().expect("text"), Duration::from_millis(500), &UNINTERRUPTED)
    }

    #[test]
    fn every_python_is_told_of_in_a_short_sentence() {
        let begin = Instant::now();
        for (script, said) in [
            (
                "echo none",
                "python3 has no such module; install python3-numpy, or with `python3 -m pip install numpy`",
            ),
            (
                "echo broken ImportError libopenblas.so.0: cannot open",
                "python3 cannot import it: ImportError libopenblas.so.0: cannot open",
            ),
            ("echo Python 2.7", "python3 was asked for its version and said \"Python 2.7\""),
            ("echo numpy", "python3 was asked for its version and said \"numpy\""),
            ("exit 3", "python3 ended without an answer (exit status: 3)"),
            ("sleep 600", "python3 did not answer within 0.5 s"),
            ("sleep 600 & exit 0", "python3 did not answer within 0.5 s"),
        ] {
            assert_eq!(said_by(script), Err(said.into()), "{script}");
        }
        let long = said_by("printf '%9999s\\n' x | tr ' ' '\\033'").expect_err("no version");
        assert!(long.len() < 200 && !long.contains('\u{1b}'), "{long:?}");
        assert_eq!(said_by("echo numpy 2.3.0rc1"), Ok("2.3.0rc1".into()));
        let none = version_of("no-such-python3", PROBE_LIMIT, &UNINTERRUPTED);
        assert_eq!(none, Err("there is no python3 on the PATH; install python3-numpy".into()));
        assert!(begin.elapsed() < PROBE_LIMIT, "nobody was waited for");
    }
}
