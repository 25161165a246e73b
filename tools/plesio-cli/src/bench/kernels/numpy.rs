//! numpy as a rival: a script in a process of its own that reads the same inputs in the same memory, and writes to
//! its own.
//!
//! One thread, as numpy's own loops have; its library of matrices is told to have one as well.

use super::memory::Memory;
use super::plan::{Plan, Role};
use crate::bench::scratch::Scratch;
use crate::failure::Failure;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

const SCRIPT: &str = include_str!("../../../../../benches/rivals/numpy_kernels.py");
/// How the libraries that numpy may be built with are told to keep to one thread.
const THREADS: [&str; 4] = ["OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS"];

/// Dropping it ends the process.
pub(super) struct Numpy {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// Its version, or why it cannot be a rival.
pub(super) fn version() -> Result<String, String> {
    let code = "import numpy; print(numpy.__version__)";
    let said = Command::new("python3").args(["-c", code]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    match said {
        Ok(said) if said.status.success() => Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned()),
        Ok(_) => {
            Err("numpy is left out: python3 has no such module; install the package python3-numpy".into())
        }
        Err(cause) => {
            Err(format!("numpy is left out: there is no python3 here ({cause}); install python3-numpy"))
        }
    }
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
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = child.map_err(|cause| Failure::run("bench", "cannot start python3", cause))?;
        let (Some(orders), Some(answers)) = (child.stdin.take(), child.stdout.take()) else {
            return Err(Failure::run("bench", "cannot start python3", "it has no pipes"));
        };
        let mut numpy = Self { child, orders, answers: BufReader::new(answers) };
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

    /// What it writes to the first set, one buffer after the other.
    pub(super) fn results(&mut self) -> Result<Vec<u8>, Failure> {
        // Only for so long: whoever ends this process may not leave it time to tidy up.
        let folder = Scratch::make("numpy")?;
        let path = folder.path().join("results");
        self.ask(&json!({ "results": path }))?;
        std::fs::read(&path).map_err(|cause| Failure::run("bench", "numpy left no results", cause))
    }

    /// The median time of a call, in nanoseconds.
    pub(super) fn time_ns(&mut self, length: Duration) -> Result<f64, Failure> {
        let said = self.ask(&json!({ "seconds": length.as_secs_f64() }))?;
        said["time_ns"].as_f64().ok_or_else(|| gone("it told no time"))
    }

    fn ask(&mut self, order: &Value) -> Result<Value, Failure> {
        writeln!(self.orders, "{order}").map_err(gone)?;
        let mut line = String::new();
        self.answers.read_line(&mut line).map_err(gone)?;
        serde_json::from_str(&line).map_err(|_| gone("its process ended"))
    }
}

fn gone(cause: impl std::fmt::Display) -> Failure {
    Failure::run("bench", "numpy does not go on", cause).fix("see what it said on stderr, or leave --vs out")
}

impl Drop for Numpy {
    fn drop(&mut self) {
        // Fails only for a process that has already ended.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}
