//! A folder for what a bench's processes write while they run.

use crate::failure::Failure;
use crate::random;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Gone, with all that is in it, when it is dropped.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    /// A new folder of this user's alone, named after the bench.
    pub(super) fn make(bench: &str) -> Result<Self, Failure> {
        let path = std::env::temp_dir().join(format!("plesio-{bench}-{:016x}", random::number()?));
        DirBuilder::new().mode(0o700).create(&path).map_err(|cause| {
            Failure::run("bench", format!("cannot make the folder {}", path.display()), cause)
                .fix("set TMPDIR to a folder that this user may write to")
        })?;
        Ok(Self(path))
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _gone = std::fs::remove_dir_all(&self.0);
    }
}
