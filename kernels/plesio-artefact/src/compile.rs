//! One artefact from the source: how each compiler is called.
//!
//! Invariants: the same bytes from the same source and compiler, wherever the tree lies and whatever else is
//! installed; and the same results from every compiler: no contraction, no flush of subnormals, division and root
//! rounded once.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::time::{Duration, Instant};
use std::{fmt, fs, io, thread};

use crate::toolchain::Compiler;
use crate::{Artefact, Kind, Target, source};

/// What every compiler is told.
const COMMON: [&str; 2] = ["-O3", "-std=c++17"];

/// Clang, for whichever device. No header but ours: results must not depend on what is installed.
const CLANG: [&str; 4] =
    ["--cuda-device-only", "-ffp-contract=off", "-nostdinc", "-fno-gpu-flush-denormals-to-zero"];
/// A toolkit that clang finds by itself would raise the version of the PTX to the toolkit's, and old drivers refuse
/// that. Told so it writes the least that the architecture has; shuffles are not known without a version.
const CLANG_PTX: [&str; 10] = [
    "-x",
    "cuda",
    "--cuda-path=/dev/null",
    "-nocudainc",
    "-nocudalib",
    "-S",
    "-Xclang",
    "-target-feature",
    "-Xclang",
    "+ptx63",
];
/// Without the last flag a digest of the tree's path gets into the object.
const CLANG_OBJECT: [&str; 9] = [
    "-x",
    "hip",
    "--rocm-path=/dev/null",
    "-nogpuinc",
    "-nogpulib",
    "--no-gpu-bundle-output",
    "-mcode-object-version=5",
    "-fhip-fp32-correctly-rounded-divide-sqrt",
    "-fuse-cuid=none",
];
const NVCC: [&str; 8] =
    ["-x", "cu", "--fmad=false", "--prec-div=true", "--prec-sqrt=true", "--ftz=false", "-Xptxas", "-v"];

/// Variables by which a user's settings would get into artefacts.
const UNWANTED: [&str; 6] = [
    "CPATH",
    "C_INCLUDE_PATH",
    "CPLUS_INCLUDE_PATH",
    "CCC_OVERRIDE_OPTIONS",
    "NVCC_PREPEND_FLAGS",
    "NVCC_APPEND_FLAGS",
];

/// One call of one compiler.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Job {
    /// What it makes.
    pub target: Target,
    /// Who makes it.
    pub compiler: Compiler,
    /// Where that lies.
    pub program: PathBuf,
}

/// What a call gave.
#[derive(Clone, Debug)]
pub struct Built {
    /// The artefact.
    pub artefact: Artefact,
    /// What the compiler said: from nvcc, the resources of every kernel.
    pub said: String,
    /// How long it took.
    pub time: Duration,
}

/// A compiler that is there did not make what it was asked for.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CompileError {
    /// What it was asked for.
    pub target: Target,
    /// Who was asked.
    pub compiler: Compiler,
    /// What it said, or why it could not be started.
    pub said: String,
}

impl fmt::Display for CompileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} failed: {}", self.target, self.compiler, self.said.trim())
    }
}

impl std::error::Error for CompileError {}

impl Job {
    /// Compiles the source in `folder`; `scratch` is a folder that exists, for the compiler to write to.
    pub fn run(&self, folder: &Path, scratch: &Path) -> Result<Built, CompileError> {
        let begin = Instant::now();
        let fail = |said: String| CompileError { target: self.target.clone(), compiler: self.compiler, said };
        let refused = |cause: io::Error| fail(cause.to_string());
        // The compiler stands in the source's folder, so that no path of this machine gets into the artefact.
        let out = std::path::absolute(scratch.join(self.target.file_name())).map_err(refused)?;
        let output = self.command(folder, &out).output().map_err(refused)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        if !output.status.success() {
            return Err(fail(format!("{}: {said}", output.status)));
        }
        let bytes = fs::read(&out).map_err(refused)?;
        if bytes.is_empty() {
            return Err(fail("it wrote nothing".into()));
        }
        Ok(Built { artefact: Artefact::new(self.target.clone(), bytes), said, time: begin.elapsed() })
    }

    fn command(&self, folder: &Path, out: &Path) -> Command {
        let mut command = Command::new(&self.program);
        command.args(COMMON);
        let name = self.target.name();
        let capability = self.target.capability().unwrap_or_default();
        match (self.compiler, self.target.kind()) {
            (Compiler::Clang, Kind::CodeObject) => {
                command.args(CLANG).args(CLANG_OBJECT).arg(format!("--offload-arch={name}"));
            }
            (Compiler::Clang, _) => {
                command.args(CLANG).args(CLANG_PTX).arg(format!("--cuda-gpu-arch=sm_{capability}"));
            }
            (Compiler::Nvcc, kind) => {
                command.args(NVCC).arg(if kind == Kind::Ptx { "-ptx" } else { "-cubin" });
                command.arg(format!("-arch={name}"));
            }
        }
        command.arg("-o").arg(out).arg(source::UNIT).current_dir(folder).env("LC_ALL", "C");
        for variable in UNWANTED {
            command.env_remove(variable);
        }
        command
    }
}

/// Does the same to all of them, as many at once as there are processors. Results in the order of `items`.
pub fn each<T: Sync, R: Send>(items: &[T], work: &(dyn Fn(&T) -> R + Sync)) -> Vec<R> {
    let threads = thread::available_parallelism().map_or(1, usize::from).min(items.len());
    let (waiting, done) = (Mutex::new(items.iter().enumerate()), Mutex::new(Vec::new()));
    thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let next = waiting.lock().expect("an iterator does not panic").next();
                    let Some((index, item)) = next else { break };
                    let result = work(item);
                    done.lock().expect("a push does not panic").push((index, result));
                }
            });
        }
    });
    let mut done = done.into_inner().expect("a push does not panic");
    done.sort_by_key(|(index, _)| *index);
    done.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests;
