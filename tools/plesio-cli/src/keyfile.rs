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
/// How files begin that hold no secret.
const PUBLIC: [&str; 3] = ["plesio-node-public", "plesio-operator-public", "plesio-ticket"];
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

/// A key file that this process alone uses.
#[derive(Debug)]
pub(crate) struct Hold(
    /// Its lock goes with it.
    #[expect(dead_code, reason = "held, not used")]
    File,
);

/// Keeps other processes of this machine from running with the key in `path`; waits for one that is just ending.
pub(crate) fn hold(path: &Path) -> Result<Hold, Failure> {
    let file = open(path)?;
    if !plesio_sideband::lock(&file) {
        return Err(Failure::usage(
            "key-busy",
            format!("cannot run with {}", path.display()),
            "another process of this machine runs with it: a mesh takes two nodes with one key for the same, and each would \
            throw the other out",
        )
        .fix("end that one (plesio status names it), or make this node a key and a ticket of its own: plesio key gen"));
    }
    Ok(Hold(file))
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
    let file = open(path)?;
    let found = file.metadata().map_err(|cause| unreadable(path, cause))?;
    // One capacity for good: growing would leave copies behind.
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_BYTES_MAX + 1));
    file.take(FILE_BYTES_MAX as u64 + 1).read_to_end(&mut bytes).map_err(|cause| unreadable(path, cause))?;
    let public = PUBLIC.iter().find(|kind| bytes.starts_with(kind.as_bytes()));
    if let (Kind::Secret, Some(kind)) = (kind, public) {
        return Err(Failure::usage(
            "key-text",
            format!("cannot use {}", path.display()),
            format!("it is a {kind} file, which anybody may know"),
        )
        .fix("give the secret key file that it was made from (plesio key gen)"));
    }
    if kind == Kind::Secret && found.mode() & OTHERS != 0 {
        let cause = format!("its mode is {:04o}: others than its owner may use it", found.mode() & 0o7777);
        return Err(Failure::usage("key-mode", format!("cannot read {}", path.display()), cause)
            .fix(format!("chmod 600 {}; make a new key if somebody may have read it", path.display())));
    }
    if bytes.len() > FILE_BYTES_MAX {
        return Err(damaged(path, format!("it is longer than {FILE_BYTES_MAX} bytes, so it is no key file")));
    }
    let text = str::from_utf8(&bytes).map_err(|_| damaged(path, "it is not text"))?;
    Ok(Zeroizing::new(text.to_owned()))
}

fn open(path: &Path) -> Result<File, Failure> {
    // A pipe without a writer must not hold us up; it is refused below.
    let nonblock = rustix::fs::OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path);
    let file = file.map_err(|cause| unreadable(path, cause))?;
    if !file.metadata().map_err(|cause| unreadable(path, cause))?.is_file() {
        let what = format!("cannot read {}", path.display());
        return Err(Failure::usage("key-file", what, "it is not a regular file")
            .fix("put the key into a file of its own"));
    }
    Ok(file)
}

fn unreadable(path: &Path, cause: io::Error) -> Failure {
    Failure::usage("key-file", format!("cannot read {}", path.display()), cause)
        .fix("give the path of a file that you may read")
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
