//! Files of keys and tickets: who may read them, how long they may be, and that none is ever overwritten.
//!
//! A secret is read from a file that only its owner can read, and written into a new one. What is inside is
//! `plesio-session`'s.

use crate::failure::Failure;
use plesio_session::TextError;
use std::fmt::Display;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use zeroize::Zeroizing;

/// Far longer than any key file; what is longer is not one.
const FILE_BYTES_MAX: usize = 4_096;
/// Bits that let others than the owner do something.
const OTHERS: u32 = 0o077;

/// How a file of keys may be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Kind {
    /// The owner's alone.
    Secret,
    /// Anybody's.
    Public,
}

/// Reads a file and what it says.
pub(crate) fn read<T>(
    path: &Path,
    kind: Kind,
    parse: impl FnOnce(&str) -> Result<T, TextError>,
) -> Result<T, Failure> {
    let text = text(path, kind)?;
    parse(&text).map_err(|cause| damaged(path, cause))
}

/// A key file that does not hold what it should.
pub(crate) fn damaged(path: &Path, cause: impl Display) -> Failure {
    Failure::usage("key-text", format!("cannot use {}", path.display()), cause)
        .fix("see `plesio key --help` for what makes which file")
}

/// A file's text; it is wiped when it goes.
pub(crate) fn text(path: &Path, kind: Kind) -> Result<Zeroizing<String>, Failure> {
    let what = || format!("cannot read {}", path.display());
    let failed = |cause: io::Error| {
        Failure::usage("key-file", what(), cause).fix("give the path of a file that you may read")
    };
    // A pipe without a writer must not hold us up; it is refused below.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path).map_err(failed)?;
    let found = file.metadata().map_err(failed)?;
    if !found.is_file() {
        return Err(Failure::usage("key-file", what(), "it is not a regular file")
            .fix("put the key into a file of its own"));
    }
    if kind == Kind::Secret && found.mode() & OTHERS != 0 {
        let cause = format!("its mode is {:04o}: others than its owner may use it", found.mode() & 0o7777);
        return Err(Failure::usage("key-mode", what(), cause)
            .fix(format!("chmod 600 {}; make a new key if somebody may have read it", path.display())));
    }
    // One capacity for good: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() > FILE_BYTES_MAX {
        return Err(damaged(path, format!("it is longer than {FILE_BYTES_MAX} bytes, so it is no key file")));
    }
    let text = str::from_utf8(&bytes).map_err(|_| damaged(path, "it is not text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

/// Whether a path is the usual word for stdout.
pub(crate) fn is_stdout(path: &Path) -> bool {
    path.as_os_str() == "-"
}

/// Writes a text into a file that was not there before.
pub(crate) fn write_new(path: &Path, kind: Kind, text: &str) -> Result<(), Failure> {
    let mode = match kind {
        Kind::Secret => 0o600,
        Kind::Public => 0o644,
    };
    let what = || format!("cannot write {}", path.display());
    let opened = OpenOptions::new().write(true).create_new(true).mode(mode).open(path);
    let mut file = opened.map_err(|cause| match cause.kind() {
        io::ErrorKind::AlreadyExists => {
            Failure::usage("key-exists", what(), "it is there already, and no key file is overwritten")
                .fix("give another name, or move the old file away")
        }
        _ => Failure::usage("key-file", what(), cause).fix("give a path in a folder that you may write in"),
    })?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.map_err(|cause| {
        remove(path, &file);
        Failure::run("key-file", what(), cause).fix("see whether the disk is full (df)")
    })
}

/// Takes away the half that was written, unless something else has taken its name meanwhile.
fn remove(path: &Path, file: &File) {
    let ours = file.metadata().map(|found| (found.dev(), found.ino()));
    let there = fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()));
    if matches!((ours, there), (Ok(ours), Ok(there)) if ours == there) {
        let _gone = fs::remove_file(path);
    }
}
