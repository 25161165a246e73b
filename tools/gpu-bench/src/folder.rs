//! A folder of this process alone, which goes when its owner drops it.

use std::path::{Path, PathBuf};
use std::{env, fs};

use nix::unistd;

/// Files for another program to read.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    /// A new one that nobody else can enter, by a name that nobody can guess: what others put there is not ours to
    /// use.
    ///
    /// # Errors
    /// The system's reason.
    pub(crate) fn new() -> Result<Self, String> {
        let name = env::temp_dir().join("gpu-bench-XXXXXX");
        let made = unistd::mkdtemp(&name);
        Ok(Self(made.map_err(|errno| format!("{}: {}", name.display(), errno.desc()))?))
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays hurts nobody.
        let _gone = fs::remove_dir_all(&self.0);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn a_folder_is_ours_alone_and_goes_with_its_owner() {
        let (one, other) = (Folder::new().expect("writable"), Folder::new().expect("writable"));
        assert_ne!(one.path(), other.path());
        let found = fs::metadata(one.path()).expect("it was made");
        assert_eq!((found.is_dir(), found.mode() & 0o7777), (true, 0o700));
        fs::write(one.path().join("file"), "of ours").expect("writable");
        let path = one.path().to_path_buf();
        drop(one);
        assert!(!path.exists() && other.path().exists());
    }
}
