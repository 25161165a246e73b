//! A small file of two slots, written in turn, so that at any instant one of them is whole.
//!
//! ```text
//!  slot: 0 content, padded with zeros | length - 16 digest of all before
//! ```
//!
//! The file is laid out whole before it gets its name, so a full disk refuses a node at its start and nothing later. A write
//! that ends early tears one slot and never changes the length: a file of another length was damaged, and is refused.

use plesio_wire::digest::Hasher;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Why a file of slots cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum SlotsError {
    /// It cannot be made, read or written.
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another process uses it.
    Busy(PathBuf),
}

/// What is in the two slots of a file, where they are whole; their padding included.
pub type Contents = [Option<Vec<u8>>; 2];

/// The file, open and locked.
#[derive(Debug)]
pub struct SlotFile {
    file: File,
    slot_bytes: usize,
    /// The slot that is written next.
    next: usize,
}

impl SlotFile {
    /// Opens the file at `path`, or makes it with `fresh` in both slots; the contents of those that are whole, their padding
    /// included. [`Self::keep`] says which one is to be kept longest.
    ///
    /// # Errors
    /// What keeps it from outliving this process; [`io::ErrorKind::InvalidData`] where a slot is whole and the length is not
    /// that of two.
    ///
    /// # Panics
    /// When a slot is shorter than its digest.
    pub fn open(path: &Path, slot_bytes: usize, fresh: &[u8]) -> Result<(Self, Contents), SlotsError> {
        assert!(slot_bytes > DIGEST_BYTES, "a slot has a digest");
        let failed = |cause| SlotsError::Io { path: path.to_owned(), cause };
        if !path.try_exists().map_err(failed)? {
            create(path, &slot(fresh, slot_bytes).map_err(failed)?).map_err(failed)?;
        }
        let file = OpenOptions::new().read(true).write(true).open(path).map_err(failed)?;
        if !lock(&file) {
            return Err(SlotsError::Busy(path.to_owned()));
        }
        let read = |at: usize| {
            let mut bytes = vec![0; slot_bytes];
            // Shorter than a slot is a slot that is not whole.
            file.read_exact_at(&mut bytes, (at * slot_bytes) as u64).ok()?;
            let content = slot_bytes - DIGEST_BYTES;
            let is_whole = bytes[content..] == digest(&bytes[..content]);
            bytes.truncate(content);
            is_whole.then_some(bytes)
        };
        let slots = [read(0), read(1)];
        let (len_bytes, whole_bytes) = (file.metadata().map_err(failed)?.len(), 2 * slot_bytes as u64);
        // The slot that is left may be the older one. Where none is left, nobody can take it for the newest.
        if len_bytes != whole_bytes && slots.iter().any(Option::is_some) {
            let why = if len_bytes < whole_bytes {
                "it was cut, and what is missing may be the newest of it"
            } else {
                "something else was written behind it"
            };
            let cause = format!("the file is {len_bytes} bytes long and should be {whole_bytes}: {why}");
            return Err(failed(io::Error::new(io::ErrorKind::InvalidData, cause)));
        }
        Ok((Self { file, slot_bytes, next: 0 }, slots))
    }

    /// The other slot than this one is written next.
    pub const fn keep(&mut self, newest: usize) {
        self.next = 1 - newest % 2;
    }

    /// Puts that in the place of the older of two, where it outlives a loss of power.
    ///
    /// # Errors
    /// What the disk says; the newer of the two is still there.
    pub fn store(&mut self, content: &[u8]) -> io::Result<()> {
        self.note(content)?;
        self.file.sync_data()?;
        self.check_place()?;
        self.next = 1 - self.next;
        Ok(())
    }

    /// Whether the file still has a name, so that what is in it outlives this process.
    ///
    /// # Errors
    /// It was removed, or the disk cannot say.
    pub fn check_place(&self) -> io::Result<()> {
        if self.file.metadata()?.nlink() > 0 {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::NotFound, "its file was removed from under this process"))
    }

    /// The same for what need only outlive this process: what was stored last stays where it is.
    ///
    /// # Errors
    /// As for [`Self::store`].
    pub fn note(&mut self, content: &[u8]) -> io::Result<()> {
        self.file.write_all_at(&slot(content, self.slot_bytes)?, (self.next * self.slot_bytes) as u64)
    }
}

/// Takes a file for this process alone; false when another one keeps it. Who was killed a moment ago keeps it until the
/// kernel has taken its memory and rings apart, and whoever is started in its place waits for that.
pub fn lock(file: &File) -> bool {
    let end = Instant::now() + LOCK_WAIT;
    loop {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) if Instant::now() < end => std::thread::sleep(LOCK_RETRY),
            Err(TryLockError::WouldBlock) => return false,
            // A file system without locks keeps nobody.
            Err(TryLockError::Error(_)) | Ok(()) => return true,
        }
    }
}

/// Gives a file its name when it is whole, and the name to the disk.
///
/// # Errors
/// What the disk says; whatever had that name before still has it.
pub fn publish(file: &File, fresh: &Path, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(fresh, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

/// A whole file, before its name is there.
fn create(path: &Path, slot: &[u8]) -> io::Result<()> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let fresh = Path::new(&name);
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(fresh)?;
    file.write_all_at(&[slot, slot].concat(), 0)?;
    publish(&file, fresh, path)
}

fn slot(content: &[u8], slot_bytes: usize) -> io::Result<Vec<u8>> {
    let mut bytes = content.to_vec();
    let room = slot_bytes - DIGEST_BYTES;
    if bytes.len() > room {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "more than a slot holds"));
    }
    bytes.resize(room, 0);
    let digest = digest(&bytes);
    bytes.extend_from_slice(&digest);
    Ok(bytes)
}

fn digest(bytes: &[u8]) -> [u8; DIGEST_BYTES] {
    let mut hasher = Hasher::default();
    hasher.update(bytes);
    hasher.finish().0
}

const DIGEST_BYTES: usize = 16;
const LOCK_WAIT: Duration = Duration::from_secs(2);
const LOCK_RETRY: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    const SLOT_BYTES: usize = 64;

    /// A cut file passed for one whose newest slot was torn while it was written, and the older one came into force: who
    /// had acknowledged a HALT forgot it.
    #[test]
    fn a_file_of_another_length_is_damaged_and_not_torn() {
        let path = std::env::temp_dir().join(format!("plesio-slots-{}", std::process::id()));
        let _absent = fs::remove_file(&path);
        let open = || SlotFile::open(&path, SLOT_BYTES, b"older").map(|(_, contents)| contents);
        let (mut file, _) =
            SlotFile::open(&path, SLOT_BYTES, b"older").expect("a folder for temporary files");
        file.keep(0);
        file.store(b"newer").expect("the space is there");
        drop(file);
        let whole = fs::read(&path).expect("it is there");

        for len_bytes in SLOT_BYTES..whole.len() + 3 {
            let bytes = [&whole[..], b"junk"].concat();
            fs::write(&path, &bytes[..len_bytes]).expect("our own file");
            let opened = open();
            if len_bytes == whole.len() {
                assert!(opened.expect("whole").iter().all(Option::is_some));
                continue;
            }
            let Err(SlotsError::Io { cause, .. }) = opened else { panic!("{len_bytes} bytes: {opened:?}") };
            let said = cause.to_string();
            assert_eq!(cause.kind(), io::ErrorKind::InvalidData, "{said}");
            assert!(said.contains(&format!("{len_bytes} bytes long and should be 128")), "{said}");
            assert_eq!(said.contains("cut"), len_bytes < whole.len(), "{said}");
        }
        for len_bytes in 0..SLOT_BYTES {
            fs::write(&path, &whole[..len_bytes]).expect("our own file");
            assert_eq!(open().expect("its owner says that nothing is whole"), [None, None]);
        }
        let mut torn = whole;
        torn[SLOT_BYTES + 3] ^= 1;
        fs::write(&path, &torn).expect("our own file");
        assert!(matches!(open(), Ok([Some(_), None])), "torn while it was written");
        fs::remove_file(&path).expect("our own file");
    }
}
