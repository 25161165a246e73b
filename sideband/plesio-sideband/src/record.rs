//! The order in force, on disk: a file of two slots of a block each.
//!
//! ```text
//!  0 "plesio halt v1  " | 16 mesh u64 | 24 type (0: none yet) | 25 order | 4,080 digest of all before
//! ```
//!
//! A file that is there and has no whole slot is no fresh start: who halted is not to be asked again by a damaged disk.

use crate::slots::{SlotFile, SlotsError};
use plesio_membership::Given;
use plesio_wire::{Reader, Wire, Writer};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

/// Why a record cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum RecordError {
    /// It cannot be made, read or written.
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another process uses it.
    Busy(PathBuf),
    /// It is none, or nothing of it is whole.
    Damaged(PathBuf),
    /// It belongs to another mesh.
    Mesh {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        found: u64,
    },
}

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, cause } => {
                write!(f, "{}: {cause}; name a file in a folder that this user may write in", path.display())
            }
            Self::Busy(path) => {
                write!(f, "{}: another process uses it; give every node a record of its own", path.display())
            }
            Self::Damaged(path) => write!(
                f,
                "{}: no whole record is in it; if the mesh is not halted (ask another node), move it away",
                path.display()
            ),
            Self::Mesh { path, found } => {
                write!(f, "{}: it is of the mesh {found:016x}; give this mesh another file", path.display())
            }
        }
    }
}

impl std::error::Error for RecordError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

impl From<SlotsError> for RecordError {
    fn from(error: SlotsError) -> Self {
        match error {
            SlotsError::Io { path, cause } => Self::Io { path, cause },
            SlotsError::Busy(path) => Self::Busy(path),
        }
    }
}

/// The order in force, on disk.
#[derive(Debug)]
pub struct Record {
    file: SlotFile,
    mesh: u64,
    stored: Option<Given>,
}

impl Record {
    /// Opens the record of `mesh` at `path`, or makes it.
    ///
    /// # Errors
    /// What keeps an order from outliving this process.
    pub fn open(path: &Path, mesh: u64) -> Result<Self, RecordError> {
        let (mut file, contents) = SlotFile::open(path, SLOT_BYTES, &content(mesh, None))?;
        let slots = contents.map(|content| content.as_deref().and_then(read));
        let sequence = |slot: &Option<(u64, Option<Given>)>| {
            slot.map(|(_, given)| given.map_or(0, |given| given.order.sequence))
        };
        let newest = usize::from(sequence(&slots[1]) > sequence(&slots[0]));
        let Some((found, stored)) = slots[newest] else { return Err(RecordError::Damaged(path.to_owned())) };
        if found != mesh {
            return Err(RecordError::Mesh { path: path.to_owned(), found });
        }
        file.keep(newest);
        Ok(Self { file, mesh, stored })
    }

    /// What it held when it was opened.
    #[must_use]
    pub const fn stored(&self) -> Option<Given> {
        self.stored
    }

    /// Puts an order in the place of the older of two.
    ///
    /// # Errors
    /// What the disk says; the newer of the two is still there.
    pub fn store(&mut self, given: &Given) -> io::Result<()> {
        self.file.store(&content(self.mesh, Some(given)))
    }
}

fn content(mesh: u64, given: Option<&Given>) -> Vec<u8> {
    let mut bytes = vec![0; SLOT_BYTES - 16];
    let mut writer = Writer::new(&mut bytes);
    writer.put(MAGIC);
    writer.write(&mesh);
    match given {
        Some(given) => {
            writer.write(&given.kind);
            writer.write(&given.order);
        }
        None => writer.write(&0_u8),
    }
    bytes
}

/// Mesh and order of a whole slot.
fn read(bytes: &[u8]) -> Option<(u64, Option<Given>)> {
    let mut reader = Reader::new(bytes);
    if reader.take(MAGIC.len()).ok()? != MAGIC {
        return None;
    }
    let mesh = reader.read().ok()?;
    if *bytes.get(KIND_AT)? == 0 {
        return Some((mesh, None));
    }
    let (kind, order) = (Wire::decode(&mut reader).ok()?, reader.read().ok()?);
    Some((mesh, Some(Given { kind, order })))
}

const MAGIC: &[u8; 16] = b"plesio halt v1  ";
const KIND_AT: usize = 24;
/// What a disk writes at once; and longer than any order.
const SLOT_BYTES: usize = 4_096;

#[cfg(test)]
mod tests {
    use super::*;
    use plesio_wire::sideband::{Order, OrderKind, OrderSignature, SIGNERS_MAX};
    use std::fs;

    fn given(kind: OrderKind, sequence: u64) -> Given {
        let mut order = Order { sequence, ..Order::default() };
        for signer in 0..SIGNERS_MAX as u8 {
            order.signatures.push(OrderSignature { signer, signature: [sequence as u8; 64] }).unwrap();
        }
        Given { kind, order }
    }

    struct Folder(PathBuf);

    impl Folder {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("plesio-record-{name}-{}", std::process::id()));
            let _absent = fs::remove_dir_all(&path);
            fs::create_dir(&path).expect("the folder for temporary files is writable");
            Self(path)
        }
    }

    impl Drop for Folder {
        fn drop(&mut self) {
            let _gone = fs::remove_dir_all(&self.0);
        }
    }

    #[test]
    fn what_was_stored_is_there_and_the_file_never_grows() {
        let folder = Folder::new("stored");
        let path = folder.0.join("record");
        let mut record = Record::open(&path, 5).expect("a folder of our own");
        assert_eq!(record.stored(), None);
        assert!(matches!(Record::open(&path, 5), Err(RecordError::Busy(_))));
        for sequence in 1..=5 {
            let kind = if sequence % 2 == 1 { OrderKind::Halt } else { OrderKind::Resume };
            record.store(&given(kind, sequence)).expect("the space is there");
            drop(record);
            record = Record::open(&path, 5).expect("whole");
            assert_eq!(record.stored(), Some(given(kind, sequence)));
            assert_eq!(fs::metadata(&path).expect("it is there").len(), 2 * SLOT_BYTES as u64);
        }
        drop(record);
        assert!(matches!(Record::open(&path, 6), Err(RecordError::Mesh { found: 5, .. })));
        let nowhere = Record::open(&folder.0.join("absent/record"), 5);
        assert!(matches!(nowhere, Err(RecordError::Io { .. })));
    }

    /// Killed while an order is written, at every byte: the one before it is in force, or it is.
    #[test]
    fn a_write_that_ends_anywhere_leaves_a_whole_record() {
        let folder = Folder::new("torn");
        let path = folder.0.join("record");
        let mut record = Record::open(&path, 5).expect("a folder of our own");
        record.store(&given(OrderKind::Halt, 1)).expect("the space is there");
        record.store(&given(OrderKind::Resume, 2)).expect("the space is there");
        drop(record);
        let before = fs::read(&path).expect("it is there");
        let mut record = Record::open(&path, 5).expect("whole");
        record.store(&given(OrderKind::Halt, 3)).expect("the space is there");
        drop(record);
        let after = fs::read(&path).expect("it is there");
        let changed: Vec<usize> = (0..before.len()).filter(|at| before[*at] != after[*at]).collect();
        for end in changed {
            let torn = [&after[..end], &before[end..]].concat();
            fs::write(&path, torn).expect("our own folder");
            let found = Record::open(&path, 5).expect("one slot is whole").stored();
            assert_eq!(found, Some(given(OrderKind::Resume, 2)), "cut at {end}");
        }
        fs::write(&path, &after[..100]).expect("our own folder");
        assert!(matches!(Record::open(&path, 5), Err(RecordError::Damaged(_))));
    }
}
