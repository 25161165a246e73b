//! Which compilers are here, and the one line that brings one that is not.
//!
//! Looks where it is told and nowhere else, starts what it finds only to ask for its version, and installs nothing.
//! Knows: what the compilers are called and which of them makes which artefact.

use std::ffi::OsString;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{Job, Kind, Target};

/// Brings clang, its linker for AMD's objects, and what reads their notes.
pub const CLANG_LINE: &str = "apt-get install clang-19 lld-19 llvm-19";
/// Brings nvcc and ptxas without root and without a driver; all four belong to the same release.
pub const NVCC_LINE: &str = "pip install --target cuda nvidia-cuda-nvcc==13.0.88 nvidia-nvvm==13.0.88 \
                             nvidia-cuda-crt==13.0.88 nvidia-cuda-runtime==13.0.96, and --cuda cuda/nvidia/cu13";

/// The first that knows all of our targets. A plain `clang` serves too where it is as new.
const CLANG_MAJOR: u32 = 19;
const CLANG_NAMES: [&str; 2] = ["clang-19", "clang"];

/// Who makes an artefact.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Compiler {
    /// PTX and AMD's objects, with no SDK.
    Clang,
    /// Cubins, and PTX for drivers as new as itself.
    Nvcc,
}

impl fmt::Display for Compiler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Clang => "clang",
            Self::Nvcc => "nvcc",
        })
    }
}

/// Where compilers may lie.
#[derive(Clone, Debug, Default)]
pub struct Places {
    /// The value of PATH; relative folders in it are passed over.
    pub path: OsString,
    /// Roots of CUDA toolkits, asked before PATH, each with the name of who names it.
    pub cuda: Vec<(&'static str, PathBuf)>,
}

/// The variables that name a CUDA toolkit.
pub const CUDA_VARIABLES: [&str; 2] = ["CUDA_HOME", "CUDA_PATH"];

impl Places {
    /// What the environment says, after `cuda`, which a command line may name.
    #[must_use]
    pub fn of_environment(cuda: Option<PathBuf>) -> Self {
        let variables = CUDA_VARIABLES.iter().filter_map(|name| {
            let value = std::env::var_os(name).filter(|value| !value.is_empty())?;
            Some((*name, value.into()))
        });
        let cuda = cuda.map(|root| ("--cuda", root)).into_iter().chain(variables).collect();
        Self { path: std::env::var_os("PATH").unwrap_or_default(), cuda }
    }

    fn in_path(&self, name: &str) -> impl Iterator<Item = PathBuf> {
        let name = name.to_string();
        std::env::split_paths(&self.path)
            .filter(|folder| folder.is_absolute())
            .map(move |folder| folder.join(&name))
            .filter(|program| is_program(program))
    }

    /// A program of a CUDA toolkit.
    fn in_cuda(&self, name: &str) -> Option<PathBuf> {
        let named = self.cuda.iter().map(|(_, root)| root.join("bin").join(name));
        named.filter(|program| is_program(program)).chain(self.in_path(name)).next()
    }

    fn looked(&self) -> String {
        let mut looked = String::from("PATH");
        for name in CUDA_VARIABLES.iter().copied().chain(["--cuda"]) {
            looked += ", ";
            looked += name;
            if let Some((_, root)) = self.cuda.iter().find(|(said_by, _)| *said_by == name) {
                looked += &format!("={}", root.display());
            }
        }
        looked
    }
}

/// A compiler and what it says it is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tool {
    /// Where it lies.
    pub program: PathBuf,
    /// One line.
    pub version: String,
}

/// What keeps an artefact from being made or judged, with the line that mends it.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Lack {
    /// No clang, or none as new as 19.
    Clang,
    /// Clang without the linker that AMD's objects need.
    Lld,
    /// Nothing that reads the notes of AMD's objects.
    Readelf,
    /// No nvcc in the places that are told.
    Nvcc(String),
    /// No ptxas in the places that are told.
    Ptxas(String),
    /// This nvcc does not know the architecture, or makes no such artefact.
    Architecture(String),
    /// Nothing here makes this chip's machine code, nor would a newer nvcc; why, and what serves instead.
    Old(String, Target),
}

impl fmt::Display for Lack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Clang => write!(f, "no clang-19 in PATH: {CLANG_LINE}"),
            Self::Lld => write!(f, "clang finds no lld of its version: {CLANG_LINE}"),
            Self::Readelf => write!(f, "clang finds no llvm-readelf of its version: {CLANG_LINE}"),
            Self::Nvcc(looked) => write!(f, "no nvcc in {looked}: {NVCC_LINE}"),
            Self::Ptxas(looked) => write!(f, "no ptxas in {looked}: {NVCC_LINE}"),
            Self::Architecture(nvcc) => write!(f, "not by {nvcc}: {NVCC_LINE}"),
            Self::Old(why, ptx) => write!(f, "{why}: take --target {ptx}, which clang makes"),
        }
    }
}

/// The compilers of this machine.
#[derive(Clone, Debug, Default)]
pub struct Toolchain {
    /// Clang.
    pub clang: Option<Tool>,
    /// NVIDIA's compiler.
    pub nvcc: Option<Tool>,
    lld: bool,
    readelf: Option<PathBuf>,
    ptxas: Option<PathBuf>,
    /// Machine codes that nvcc knows, as it tells them.
    codes: Vec<String>,
    looked: String,
}

impl Toolchain {
    /// Looks for all of them.
    #[must_use]
    pub fn find(places: &Places) -> Self {
        let clang = CLANG_NAMES.iter().flat_map(|name| places.in_path(name)).find_map(clang);
        let beside_clang = |name: &str| {
            let told = said(&clang.as_ref()?.program, &[&format!("-print-prog-name={name}")])?;
            let program = PathBuf::from(told.trim());
            (program.is_absolute() && is_program(&program)).then_some(program)
        };
        let nvcc = places.in_cuda("nvcc").and_then(nvcc);
        let codes =
            nvcc.as_ref().and_then(|nvcc| said(&nvcc.program, &["--list-gpu-code"])).unwrap_or_default();
        Self {
            lld: beside_clang("lld").is_some(),
            readelf: beside_clang("llvm-readelf"),
            ptxas: places.in_cuda("ptxas"),
            codes: codes.split_whitespace().map(String::from).collect(),
            looked: places.looked(),
            clang,
            nvcc,
        }
    }

    /// What makes an artefact for `target` with `compiler`.
    pub fn job(&self, target: &Target, compiler: Compiler) -> Result<Job, Lack> {
        let tool = match compiler {
            Compiler::Clang => {
                let clang = self.clang.as_ref().ok_or(Lack::Clang)?;
                if target.kind() == Kind::CodeObject && !self.lld {
                    return Err(Lack::Lld);
                }
                clang
            }
            Compiler::Nvcc => {
                let instead = target.ptx_instead();
                let nvcc = self.nvcc.as_ref().ok_or_else(|| match &instead {
                    Some(ptx) => Lack::Old(format!("no nvcc in {}", self.looked), ptx.clone()),
                    None => Lack::Nvcc(self.looked.clone()),
                })?;
                let known = target.capability().is_some_and(|capability| {
                    self.codes.iter().any(|code| code.strip_prefix("sm_") == Some(&capability.to_string()))
                });
                if !known {
                    return Err(match instead {
                        Some(ptx) => Lack::Old(format!("not by {}", nvcc.version), ptx),
                        None => Lack::Architecture(nvcc.version.clone()),
                    });
                }
                nvcc
            }
        };
        Ok(Job { target: target.clone(), compiler, program: tool.program.clone() })
    }

    /// What prints the notes of AMD's objects.
    pub fn readelf(&self) -> Result<&Path, Lack> {
        if self.clang.is_none() {
            return Err(Lack::Clang);
        }
        self.readelf.as_deref().ok_or(Lack::Readelf)
    }

    /// NVIDIA's assembler.
    pub fn ptxas(&self) -> Result<&Path, Lack> {
        self.ptxas.as_deref().ok_or_else(|| Lack::Ptxas(self.looked.clone()))
    }

    /// Compilers and versions, for a manifest.
    #[must_use]
    pub fn versions(&self) -> Vec<String> {
        let named = [(Compiler::Clang, &self.clang), (Compiler::Nvcc, &self.nvcc)];
        named.iter().filter_map(|(name, tool)| Some(format!("{name} {}", tool.as_ref()?.version))).collect()
    }
}

fn clang(program: PathBuf) -> Option<Tool> {
    let told = said(&program, &["--version"])?;
    let version = told.lines().next()?.trim().to_string();
    let digits = version.split_once("clang version ")?.1.split('.').next()?;
    (digits.parse::<u32>().ok()? >= CLANG_MAJOR).then_some(Tool { program, version })
}

fn nvcc(program: PathBuf) -> Option<Tool> {
    let told = said(&program, &["--version"])?;
    let version = told.lines().find(|line| line.contains("release"))?.trim().to_string();
    Some(Tool { program, version })
}

/// What a program prints when it ends well.
fn said(program: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).env("LC_ALL", "C").output().ok()?;
    output.status.success().then(|| String::from_utf8_lossy(&output.stdout).into_owned())
}

#[cfg(unix)]
fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|seen| seen.is_file() && seen.permissions().mode() & 0o111 != 0)
}

#[cfg(not(unix))]
fn is_program(path: &Path) -> bool {
    path.is_file()
}

#[cfg(all(test, unix))]
mod tests;
