//! Where a node's socket lies: a folder that is its owner's alone.

use crate::failure::Failure;
use std::fs::{self, DirBuilder};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// Longest path of a socket: the kernel's 108 bytes and a zero.
const PATH_BYTES_MAX: usize = 107;

/// Most entries of the folder that are looked at.
const SOCKETS_MAX: usize = 1_024;

/// The folder for sockets of this user's nodes.
pub(crate) fn folder() -> PathBuf {
    let user = rustix::process::geteuid().as_raw();
    let run = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from).filter(|path| path.is_absolute());
    let run = run.or_else(|| Some(PathBuf::from(format!("/run/user/{user}"))).filter(|path| path.is_dir()));
    match run {
        Some(run) => run.join("plesio"),
        None => std::env::temp_dir().join(format!("plesio-{user}")),
    }
}

/// Whether a socket lies there, and not something that a link leads to.
pub(crate) fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|found| found.file_type().is_socket())
}

/// A listening socket that only this user reaches; its file goes when this does.
pub(super) struct Place {
    pub(super) path: PathBuf,
}

impl Place {
    /// Takes the path `asked`, or one in the usual folder named after `name`.
    pub(super) fn take(asked: Option<&Path>, name: &str) -> Result<(Self, UnixListener), Failure> {
        let path = asked.map_or_else(|| folder().join(format!("{name}.sock")), Path::to_path_buf);
        let failure = |cause: io::Error| {
            Failure::usage("socket", format!("cannot listen on {}", path.display()), cause)
                .fix("give --socket a path in a folder of your own with mode 0700")
        };
        if asked.is_none() {
            tidy().map_err(failure)?;
        }
        let listener = listen(&path).map_err(failure)?;
        Ok((Self { path }, listener))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let _gone = fs::remove_file(&self.path);
    }
}

/// Makes the usual folder, and takes away what nodes left there that were killed.
fn tidy() -> io::Result<()> {
    let folder = folder();
    match DirBuilder::new().mode(0o700).create(&folder) {
        Err(cause) if cause.kind() != io::ErrorKind::AlreadyExists => return Err(cause),
        _ => {}
    }
    let sockets = fs::read_dir(&folder)?.filter_map(|entry| Some(entry.ok()?.path()));
    for path in sockets.take(SOCKETS_MAX).filter(|path| is_socket(path) && is_left(path)) {
        let _gone = fs::remove_file(path);
    }
    Ok(())
}

/// Whether nobody listens any more where a socket lies.
fn is_left(path: &Path) -> bool {
    UnixStream::connect(path).is_err_and(|cause| cause.kind() == io::ErrorKind::ConnectionRefused)
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if path.as_os_str().len() > PATH_BYTES_MAX {
        return Err(io::Error::other(format!("a socket's path has at most {PATH_BYTES_MAX} bytes")));
    }
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let found = fs::metadata(folder)?;
    if found.uid() != rustix::process::geteuid().as_raw() || found.mode() & 0o077 != 0 {
        let mode = found.mode() & 0o7777;
        return Err(io::Error::other(format!(
            "its folder belongs to user {} with mode {mode:04o}, so that others reach it",
            found.uid()
        )));
    }
    // What a node left that was killed goes; what a node listens on stays.
    if is_socket(path) {
        if !is_left(path) {
            return Err(io::Error::other("another node listens there"));
        }
        fs::remove_file(path)?;
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    Ok(listener)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_its_owners_alone_and_leaves_nothing() {
        let home = std::env::temp_dir().join(format!("plesio-place-{}", std::process::id()));
        let path = home.join("own/node.sock");
        DirBuilder::new().mode(0o700).create(&home).expect("a folder of our own");
        let take = |path: &Path| Place::take(Some(path), "unused");
        assert!(take(&path).is_err() && !home.join("own").exists(), "a folder that was named is not made");
        DirBuilder::new().mode(0o700).create(home.join("own")).expect("our own folder");
        let (place, listener) = take(&path).expect("a folder of our own");
        let mode = |path: &Path| fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(&home.join("own"))), (0o600, 0o700));
        assert!(take(&path).is_err_and(|refused| refused.cause.contains("another node")));
        drop(listener);
        // As after a kill: the file is there, and nobody listens.
        let (again, _listener) = take(&path).expect("what was left is taken over");
        drop(place);
        drop(again);
        assert!(!path.exists());

        let open = home.join("open");
        fs::create_dir(&open).expect("our own folder");
        fs::set_permissions(&open, fs::Permissions::from_mode(0o755)).expect("our own folder");
        assert!(take(&open.join("node.sock")).is_err_and(|refused| refused.cause.contains("0755")));
        fs::write(home.join("own/file"), b"precious").expect("our own folder");
        assert!(take(&home.join("own/file")).is_err(), "no file is replaced");
        assert_eq!(fs::read(home.join("own/file")).expect("still there"), b"precious");
        assert!(take(&home.join("x".repeat(200))).is_err());
        fs::remove_dir_all(&home).expect("our own folder");
    }
}
