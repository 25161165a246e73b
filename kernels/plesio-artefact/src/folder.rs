//! A folder of artefacts: read whole or refused, and written so that a broken run leaves no manifest.
//!
//! Invariant: of what the manifest names, every byte that is returned has passed its digest; nothing else in the
//! folder is opened.

use std::fmt;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use crate::manifest::{self, Entry, Manifest, ManifestError};
use crate::{Artefact, Digest};

/// What mends a folder that cannot be read.
pub const FIX: &str = "build the folder anew with cargo xtask kernels --out DIR";

/// Why a folder is refused.
#[derive(Debug)]
#[non_exhaustive]
pub enum FolderError {
    /// A file cannot be read or written.
    File {
        /// Which.
        path: PathBuf,
        /// The system's reason.
        cause: io::Error,
    },
    /// A folder, a device, a pipe: nothing that artefacts are.
    Special {
        /// Which.
        path: PathBuf,
    },
    /// A file has another length than it must have.
    Length {
        /// Which.
        path: PathBuf,
        /// Bytes that it has.
        found: u64,
        /// Bytes that the manifest names, or the most that a manifest may have.
        expected: u64,
    },
    /// The manifest is none.
    Manifest {
        /// Which.
        path: PathBuf,
        /// Why.
        cause: ManifestError,
    },
    /// An artefact's digest is not the manifest's.
    Altered {
        /// Which.
        path: PathBuf,
    },
    /// The artefacts are compiled from another source than the program that wants them.
    Source {
        /// The folder.
        path: PathBuf,
        /// Digest of their source.
        found: Digest,
        /// Digest of the program's.
        expected: Digest,
    },
}

impl fmt::Display for FolderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File { path, cause } => write!(f, "{}: {cause}", path.display()),
            Self::Special { path } => write!(f, "{}: not a plain file", path.display()),
            Self::Length { path, found, expected } => {
                write!(f, "{}: {found} bytes where {expected} are expected", path.display())
            }
            Self::Manifest { path, cause } => write!(f, "{}: {cause}", path.display()),
            Self::Altered { path } => {
                write!(f, "{}: altered, its digest is not the manifest's", path.display())
            }
            Self::Source { path, found, expected } => write!(
                f,
                "{}: kernels of another source, {found}, than this program's, {expected}",
                path.display()
            ),
        }
    }
}

impl std::error::Error for FolderError {}

/// Reads the artefacts of `folder`, which must be compiled from the source with this digest.
pub fn read(folder: &Path, source: Digest) -> Result<(Manifest, Vec<Artefact>), FolderError> {
    let path = folder.join(manifest::FILE);
    let bytes = plain(&path, manifest::MANIFEST_BYTES_MAX)?;
    let listed = Manifest::parse(&bytes).map_err(|cause| FolderError::Manifest { path, cause })?;
    if listed.source != source {
        return Err(FolderError::Source { path: folder.into(), found: listed.source, expected: source });
    }
    let artefacts = listed.entries.iter().map(|entry| artefact(folder, entry)).collect::<Result<_, _>>()?;
    Ok((listed, artefacts))
}

/// Writes artefacts and, once they are all there, their manifest.
pub fn write(
    folder: &Path,
    source: Digest,
    compilers: Vec<String>,
    artefacts: &[Artefact],
) -> Result<Manifest, FolderError> {
    let put = |path: PathBuf, bytes: &[u8]| {
        fs::write(&path, bytes).map_err(|cause| FolderError::File { path, cause })
    };
    fs::create_dir_all(folder).map_err(|cause| FolderError::File { path: folder.into(), cause })?;
    clear(folder)?;
    let mut entries = Vec::new();
    for artefact in artefacts {
        let file = artefact.target.file_name();
        put(folder.join(&file), &artefact.bytes)?;
        let len_bytes = artefact.bytes.len() as u64;
        entries.push(Entry { digest: artefact.digest, len_bytes, target: artefact.target.clone(), file });
    }
    let listed = Manifest { source, compilers, entries };
    put(folder.join(manifest::FILE), listed.to_text().as_bytes())?;
    Ok(listed)
}

/// Takes away what was built earlier: the manifest, and the files that it lists.
pub fn clear(folder: &Path) -> Result<(), FolderError> {
    let path = folder.join(manifest::FILE);
    let listed =
        plain(&path, manifest::MANIFEST_BYTES_MAX).ok().and_then(|bytes| Manifest::parse(&bytes).ok());
    let files = listed.into_iter().flat_map(|listed| listed.entries).map(|entry| folder.join(entry.file));
    for path in [path].into_iter().chain(files) {
        match fs::remove_file(&path) {
            Err(cause) if cause.kind() != io::ErrorKind::NotFound => {
                return Err(FolderError::File { path, cause });
            }
            _ => {}
        }
    }
    Ok(())
}

fn artefact(folder: &Path, entry: &Entry) -> Result<Artefact, FolderError> {
    let path = folder.join(&entry.file);
    let bytes = plain(&path, entry.len_bytes)?;
    let found = bytes.len() as u64;
    if found != entry.len_bytes {
        return Err(FolderError::Length { path, found, expected: entry.len_bytes });
    }
    let artefact = Artefact { target: entry.target.clone(), bytes: bytes.into(), digest: entry.digest };
    if artefact.is_whole() { Ok(artefact) } else { Err(FolderError::Altered { path }) }
}

/// A plain file of at most so many bytes. What is looked at first is only for the message: the reading is bounded
/// too.
fn plain(path: &Path, len_bytes_max: u64) -> Result<Vec<u8>, FolderError> {
    let refuse = |cause| FolderError::File { path: path.into(), cause };
    let seen = fs::metadata(path).map_err(refuse)?;
    if !seen.is_file() {
        return Err(FolderError::Special { path: path.into() });
    }
    let too_long = |found| FolderError::Length { path: path.into(), found, expected: len_bytes_max };
    if seen.len() > len_bytes_max {
        return Err(too_long(seen.len()));
    }
    let mut bytes = Vec::new();
    File::open(path).map_err(refuse)?.take(len_bytes_max + 1).read_to_end(&mut bytes).map_err(refuse)?;
    if bytes.len() as u64 > len_bytes_max { Err(too_long(bytes.len() as u64)) } else { Ok(bytes) }
}

#[cfg(test)]
pub(crate) mod tests {
    #[cfg(unix)]
    use std::process::Command;

    use super::*;

    /// A folder of a test's own, gone when the test ends.
    pub(crate) struct Scratch(PathBuf);

    impl Scratch {
        pub(crate) fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("plesio-artefact-{}-{name}", std::process::id()));
            let _ = fs::remove_dir_all(&path);
            fs::create_dir_all(&path).unwrap();
            Self(path)
        }

        pub(crate) fn path(&self) -> &Path {
            &self.0
        }

        pub(crate) fn write(&self, name: &str, text: &str) {
            fs::write(self.0.join(name), text).unwrap();
        }

        /// A shell script that can be run. A process of its own writes it: a test beside this one that starts
        /// something just then would hold the file open for writing, and it could not be started.
        #[cfg(unix)]
        pub(crate) fn program(&self, name: &str, script: &str) -> PathBuf {
            let path = self.0.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let write = "printf '#!/bin/sh\n%s\n' \"$2\" > \"$1\" && chmod 755 \"$1\"";
            let status =
                Command::new("sh").args(["-c", write, "sh"]).arg(&path).arg(script).status().unwrap();
            assert!(status.success());
            path
        }
    }

    impl Drop for Scratch {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    const SOURCE: Digest = Digest([7; 16]);

    fn artefacts() -> Vec<Artefact> {
        [("compute_75", "//\n.version 6.3\n"), ("gfx942", "object code")]
            .map(|(target, bytes)| Artefact::new(target.parse().unwrap(), bytes.into()))
            .into()
    }

    fn written(name: &str) -> Scratch {
        let scratch = Scratch::new(name);
        write(scratch.path(), SOURCE, vec!["clang 19".into()], &artefacts()).unwrap();
        scratch
    }

    fn told(scratch: &Scratch) -> String {
        read(scratch.path(), SOURCE).unwrap_err().to_string()
    }

    #[test]
    fn a_folder_comes_back_and_strangers_in_it_stay_unread() {
        let scratch = written("back");
        scratch.write("gfx906.co", "left from an earlier build");
        let (manifest, read) = read(scratch.path(), SOURCE).unwrap();
        assert_eq!(read, artefacts());
        assert_eq!(manifest.compilers, ["clang 19"]);
    }

    #[test]
    fn altered_shorter_longer_and_missing_files_are_refused_by_name() {
        let scratch = written("altered");
        for (bytes, what) in [
            ("object cOde", "altered"),
            ("object cod", "10 bytes where 11"),
            ("object code+", "12 bytes where 11"),
        ] {
            scratch.write("gfx942.co", bytes);
            let told = told(&scratch);
            assert!(told.contains("gfx942.co") && told.contains(what), "{told}");
            assert!(!told.contains("xtask"), "what mends it is for who asked to say: {told}");
        }
        fs::remove_file(scratch.path().join("gfx942.co")).unwrap();
        assert!(told(&scratch).contains("gfx942.co: "), "{}", told(&scratch));
    }

    #[test]
    fn a_manifest_that_is_missing_cut_or_huge_is_refused() {
        let scratch = written("cut");
        let path = scratch.path().join(manifest::FILE);
        let text = fs::read_to_string(&path).unwrap();
        scratch.write(manifest::FILE, &text[..text.len() - 40]);
        assert!(told(&scratch).contains("manifest: its end is missing"), "{}", told(&scratch));
        scratch.write(manifest::FILE, &text.repeat(1 + (manifest::MANIFEST_BYTES_MAX as usize) / text.len()));
        assert!(told(&scratch).contains("bytes where 32768"), "{}", told(&scratch));
        fs::remove_file(&path).unwrap();
        assert!(told(&scratch).contains("manifest: "), "{}", told(&scratch));
    }

    #[test]
    fn a_file_of_many_gigabytes_is_refused_unread() {
        let scratch = written("sparse");
        let sparse = File::create(scratch.path().join("gfx942.co")).unwrap();
        sparse.set_len(1 << 40).unwrap();
        assert!(told(&scratch).contains("1099511627776 bytes where 11"), "{}", told(&scratch));
    }

    #[test]
    fn what_is_no_plain_file_is_refused() {
        let scratch = written("special");
        fs::remove_file(scratch.path().join("gfx942.co")).unwrap();
        fs::create_dir(scratch.path().join("gfx942.co")).unwrap();
        assert!(told(&scratch).contains("not a plain file"), "{}", told(&scratch));
        #[cfg(unix)]
        {
            fs::remove_dir(scratch.path().join("gfx942.co")).unwrap();
            std::os::unix::fs::symlink("/dev/zero", scratch.path().join("gfx942.co")).unwrap();
            assert!(told(&scratch).contains("not a plain file"), "{}", told(&scratch));
        }
    }

    #[test]
    fn artefacts_of_another_source_are_refused() {
        let scratch = written("source");
        let told = read(scratch.path(), Digest([8; 16])).unwrap_err().to_string();
        assert!(told.contains("another source") && told.contains("0707") && told.contains("0808"), "{told}");
    }

    #[test]
    fn an_earlier_build_is_taken_away_and_strangers_stay() {
        let scratch = written("earlier");
        scratch.write("notes.txt", "mine");
        write(scratch.path(), SOURCE, Vec::new(), &artefacts()[..1]).unwrap();
        let mut left: Vec<_> =
            fs::read_dir(scratch.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["compute_75.ptx", "manifest", "notes.txt"]);
    }

    #[test]
    fn a_run_that_breaks_off_leaves_no_manifest() {
        let scratch = written("broken");
        let target = scratch.path().join("gfx942.co");
        fs::remove_file(&target).unwrap();
        fs::create_dir(&target).unwrap();
        assert!(write(scratch.path(), SOURCE, Vec::new(), &artefacts()).is_err());
        assert!(!scratch.path().join(manifest::FILE).exists());
    }
}
