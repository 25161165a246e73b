//! The folder a demo leaves behind. Nothing half-written: every file is written beside and renamed.

use crate::failure::Failure;
use plesio_model::PeftFiles;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// All files of a demo, but for its logs.
const FILES: [&str; 4] = [REPORT, DOCUMENT, ADAPTER_CONFIG, ADAPTER];
pub(crate) const REPORT: &str = "report.html";
pub(crate) const DOCUMENT: &str = "run.json";
const ADAPTER_CONFIG: &str = "adapter/adapter_config.json";
const ADAPTER: &str = "adapter/adapter_model.safetensors";

pub(crate) struct Folder {
    path: PathBuf,
}

impl Folder {
    /// Makes the folder and tries to write in it, so that a run does not end with nowhere to go.
    pub(crate) fn create(path: &Path) -> Result<Self, Failure> {
        let failure = |cause: io::Error| {
            Failure::usage("out", format!("cannot write to --out {}", path.display()), cause)
                .fix("name a folder that you may write to, as in --out ~/plesio-demo")
        };
        let folder = Self { path: path.to_path_buf() };
        fs::create_dir_all(folder.logs()).map_err(failure)?;
        let trial = path.join(".plesio-trial");
        fs::write(&trial, b"").map_err(failure)?;
        fs::remove_file(&trial).map_err(failure)?;
        // What an earlier run left must not pass for this one's.
        for name in FILES {
            match fs::remove_file(path.join(name)) {
                Err(cause) if cause.kind() != io::ErrorKind::NotFound => return Err(failure(cause)),
                _ => {}
            }
        }
        Ok(folder)
    }

    /// Where the nodes' logs go.
    pub(crate) fn logs(&self) -> PathBuf {
        self.path.join("logs")
    }

    pub(crate) fn report(&self) -> PathBuf {
        self.path.join(REPORT)
    }

    /// Writes one file, whole or not at all.
    pub(crate) fn write(&self, name: &str, bytes: &[u8]) -> Result<(), Failure> {
        let (path, beside) = (self.path.join(name), self.path.join(format!("{name}.part")));
        fs::write(&beside, bytes).and_then(|()| fs::rename(&beside, &path)).map_err(|cause| {
            Failure::run("write", format!("cannot write {}", path.display()), cause)
                .fix("see whether the disk is full (df) and the folder still there")
        })
    }

    /// The adapter in PEFT's layout.
    pub(crate) fn write_adapter(&self, files: &PeftFiles) -> Result<(), Failure> {
        let path = self.path.join("adapter");
        fs::create_dir_all(&path).map_err(|cause| {
            Failure::run("write", format!("cannot make {}", path.display()), cause)
                .fix("move away what stands in its place")
        })?;
        self.write(ADAPTER_CONFIG, files.config_json.as_bytes())?;
        self.write(ADAPTER, &files.safetensors)
    }
}
