//! The folder of what outlives a node: which views there may be, and the newest states. One process at a time.
//!
//! ```text
//!  views           two slots (plesio-sideband's SlotFile) of 12,288 bytes: 0 "plesio views v2 " | 16 mesh u64
//!                  | 24 parameters 16 | 40 node 32 | 72 sequence u64 | 80 record: 0 none, 1 as plesio-consensus writes it
//!                  | entries u8, 72 bytes each: where its members were
//!  checkpoint-0,1  0 "plesio state v1 " | 16 mesh u64 | 24 parameters 16 | 40 index u64 | 48 version u64 | 56 bytes u64
//!                  | 64 digest of the state 16 | 80 digest of these 80 bytes 16 | 96 state: i64, momentum behind it
//! ```
//!
//! All words little endian, digests BLAKE3 cut to 16 bytes. Both slots are laid out when the folder is made, so a disk
//! that fills up keeps views all the same. A checkpoint is written beside, then takes the name of the older one: at any
//! instant the newest whole one is there. A file of another mesh, of other parameters or of another node refuses this one: who
//! answers for what another accepted breaks the agreement's promise. A checkpoint that is not whole is passed over and said.

mod writer;

pub(super) use writer::{Done, Job, Writer};

use super::{NodeConfig, NodeId, Seed};
use crate::device::AnyDevice;
use crate::engine::Disk;
use crate::store::Store;
use plesio_consensus::{RECORD_BYTES_MAX, Record};
use plesio_sideband::{SlotFile, SlotsError};
use plesio_wire::digest::Hasher;
use plesio_wire::sideband::RosterEntry;
use plesio_wire::{Digest, LogIndex, MEMBERS_MAX, Reader, Version, Wire, Writer as Pen};
use std::fmt;
use std::fs::{self, DirBuilder, File};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// Where a node keeps what outlives it, and how often.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct StateConfig {
    /// A folder of this node's own; made if it is not there.
    pub folder: PathBuf,
    /// Between two checkpoints at least, nanoseconds; 1 s to a day.
    pub checkpoint_ns: u64,
}

/// What is on a node's disk.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DiskState {
    /// Version of the newest checkpoint.
    pub checkpoint: Option<u64>,
    /// The newest write failed: what is there is older than it should be.
    pub degraded: bool,
    /// Writes that failed.
    pub failures: u64,
}

/// Why a folder cannot be used.
#[derive(Debug)]
#[non_exhaustive]
pub enum StateError {
    /// It cannot be made, read or written.
    Io {
        /// Where.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// Another process uses it.
    Busy(PathBuf),
    /// There is no whole record in it.
    Damaged(PathBuf),
    /// It belongs to another mesh, or to one whose nodes were started otherwise.
    Foreign {
        /// Where.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
    /// It belongs to another node of this mesh.
    Node {
        /// Where.
        path: PathBuf,
        /// Whose it is.
        found: NodeId,
    },
}

impl fmt::Display for StateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Io { path, cause } => {
                write!(f, "{}: {cause}; name a folder that this user may write in", path.display())
            }
            Self::Busy(path) => {
                write!(f, "{}: another process uses it; give every node a folder of its own", path.display())
            }
            Self::Damaged(path) => write!(
                f,
                "{}: nothing in it is whole; move it away, and let this node join the others anew",
                path.display()
            ),
            Self::Foreign { path, what } => write!(
                f,
                "{}: it is of another mesh: {what} differs; start the node as that mesh was, or give it an empty folder",
                path.display()
            ),
            Self::Node { path, found } => write!(
                f,
                "{}: it is of another node of this mesh, {}; give every node a folder and a key of its own",
                path.display(),
                found.0[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>()
            ),
        }
    }
}

impl std::error::Error for StateError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

/// Whose files they are.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Owner {
    mesh: u64,
    parameters: Digest,
    node: NodeId,
}

/// A checkpoint, by its head.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Mark {
    pub(super) index: LogIndex,
    pub(super) version: Version,
    pub(super) len_bytes: u64,
    pub(super) digest: Digest,
}

/// The folder, open and this process's.
pub(super) struct Folder {
    path: PathBuf,
    owner: Owner,
    views: SlotFile,
    sequence: u64,
    checkpoints: [Option<Mark>; 2],
    disk: Disk,
    notes: Vec<String>,
}

impl Folder {
    /// Opens it, or makes it.
    pub(super) fn open(state: &StateConfig, config: &NodeConfig) -> Result<Self, StateError> {
        let owner = Owner { mesh: config.mesh, parameters: config.common().digest(), node: config.id };
        let bytes = crate::store::snapshot_bytes(config.elements as u64, config.rules.outer)
            - crate::store::SNAPSHOT_HEAD_BYTES as u64;
        Self::of(&state.folder, owner, bytes)
    }

    fn of(path: &Path, owner: Owner, state_bytes: u64) -> Result<Self, StateError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |cause| StateError::Io { path, cause }
        };
        DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(failed(path))?;
        let file = path.join("views");
        let fresh = views(owner, 0, None, &[]);
        let (mut slots, contents) =
            SlotFile::open(&file, SLOT_BYTES, &fresh).map_err(|error| match error {
                SlotsError::Io { path, cause } => StateError::Io { path, cause },
                SlotsError::Busy(path) => StateError::Busy(path),
                _ => StateError::Damaged(file.clone()),
            })?;
        let read = contents.map(|content| content.and_then(|content| read_views(&content)));
        let sequence = |at: usize| read[at].as_ref().map(|(_, sequence, _)| *sequence);
        let newest = usize::from(sequence(1) > sequence(0));
        slots.keep(newest);
        let Some((found, sequence, mut disk)) = read.into_iter().nth(newest).flatten() else {
            return Err(StateError::Damaged(file));
        };
        owner.check(found.mesh, found.parameters, &file)?;
        if found.node != owner.node {
            return Err(StateError::Node { path: path.to_owned(), found: found.node });
        }
        // What was being written when the last process ended.
        let _absent = fs::remove_file(path.join(FRESH));
        let mut folder = Self {
            path: path.to_owned(),
            owner,
            views: slots,
            sequence,
            checkpoints: [None; 2],
            disk: Disk::default(),
            notes: Vec::new(),
        };
        for (at, name) in NAMES.iter().enumerate() {
            let file = folder.path.join(name);
            match read_mark(&file, owner, state_bytes) {
                Ok(mark) => folder.checkpoints[at] = mark,
                Err(Unfit::Foreign(error)) => return Err(error),
                Err(Unfit::Damaged(cause)) => {
                    folder.notes.push(format!("{} is passed over: {cause}", file.display()));
                }
            }
        }
        disk.checkpoint = folder.newest().map(|mark| (mark.version, mark.digest));
        folder.disk = disk;
        Ok(folder)
    }

    /// What the engine is to know of it.
    pub(super) fn disk(&self) -> Disk {
        self.disk.clone()
    }

    /// What is not as it should be.
    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The other members of the mesh that is in it, if there is one.
    pub(super) fn known(&self, me: NodeId) -> Option<Vec<Seed>> {
        self.disk.record.as_ref()?;
        let others = self.disk.entries.iter().filter(|entry| entry.id != me);
        let seed =
            |entry: &RosterEntry| Seed { id: entry.id, sideband: entry.sideband.0, data: entry.data.0 };
        Some(others.map(seed).collect())
    }

    /// The newest whole checkpoint: of the later generation, then of the later index.
    pub(super) fn newest(&self) -> Option<Mark> {
        self.checkpoints.iter().flatten().max_by_key(|mark| mark.index).copied()
    }

    /// Where the newest checkpoint lies.
    pub(super) fn source(&self) -> Option<Source> {
        let newest = self.newest();
        let at = self.checkpoints.iter().position(|mark| mark.is_some() && *mark == newest)?;
        Some(Source(self.path.join(NAMES[at])))
    }
}

/// A checkpoint's file.
pub(super) struct Source(PathBuf);

impl Source {
    /// Reads its state into the store; the digest of what is there then.
    pub(super) fn load(&self, store: &mut Store<AnyDevice>) -> io::Result<Digest> {
        let mut file = File::open(&self.0)?;
        file.seek(SeekFrom::Start(HEAD_BYTES as u64))?;
        store.restore(|part| file.read_exact(part))
    }
}

impl Owner {
    fn check(self, mesh: u64, parameters: Digest, path: &Path) -> Result<(), StateError> {
        let foreign = |what| Err(StateError::Foreign { path: path.to_owned(), what });
        if mesh != self.mesh {
            return foreign("the pool key");
        }
        if parameters != self.parameters {
            return foreign("the model, the operators or a parameter that all nodes share");
        }
        Ok(())
    }
}

fn views(owner: Owner, sequence: u64, record: Option<&Record>, entries: &[RosterEntry]) -> Vec<u8> {
    let mut bytes = vec![0; VIEWS_HEAD_BYTES];
    let mut pen = Pen::new(&mut bytes);
    pen.put(VIEWS_MAGIC);
    pen.write(&owner.mesh);
    pen.write(&owner.parameters);
    pen.write(&owner.node);
    pen.write(&sequence);
    pen.write(&u8::from(record.is_some()));
    if let Some(record) = record {
        bytes.extend(record.encode());
        let entries = &entries[..entries.len().min(MEMBERS_MAX)];
        bytes.push(entries.len() as u8);
        for entry in entries {
            let mut word = [0; ENTRY_BYTES];
            entry.encode(&mut Pen::new(&mut word));
            bytes.extend(word);
        }
    }
    bytes
}

fn read_views(bytes: &[u8]) -> Option<(Owner, u64, Disk)> {
    let mut reader = Reader::new(bytes);
    if reader.take(VIEWS_MAGIC.len()).ok()? != VIEWS_MAGIC {
        return None;
    }
    let owner =
        Owner { mesh: reader.read().ok()?, parameters: reader.read().ok()?, node: reader.read().ok()? };
    let (sequence, has_record) = (reader.read().ok()?, reader.read::<u8>().ok()?);
    let mut disk = Disk::default();
    if has_record == 1 {
        disk.record = Some(Record::decode(&mut reader).ok()?);
        let count = usize::from(reader.read::<u8>().ok()?);
        if count > MEMBERS_MAX {
            return None;
        }
        for _ in 0..count {
            disk.entries.push(reader.read().ok()?);
        }
    }
    Some((owner, sequence, disk))
}

/// Why a checkpoint is not used.
enum Unfit {
    Foreign(StateError),
    Damaged(String),
}

fn head(owner: Owner, mark: &Mark) -> [u8; HEAD_BYTES] {
    let mut bytes = [0; HEAD_BYTES];
    let mut pen = Pen::new(&mut bytes);
    pen.put(STATE_MAGIC);
    pen.write(&owner.mesh);
    pen.write(&owner.parameters);
    pen.write(&mark.index);
    pen.write(&mark.version);
    pen.write(&mark.len_bytes);
    pen.write(&mark.digest);
    let digest = Digest::of(&bytes[..HEAD_BYTES - 16]);
    bytes[HEAD_BYTES - 16..].copy_from_slice(&digest.0);
    bytes
}

/// The head of a whole checkpoint; none: there is no file.
fn read_mark(path: &Path, owner: Owner, state_bytes: u64) -> Result<Option<Mark>, Unfit> {
    let mut file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(Unfit::Damaged(error.to_string())),
    };
    let io = |error: io::Error| Unfit::Damaged(error.to_string());
    let damaged = |what: &str| Unfit::Damaged(what.into());
    let mut bytes = [0; HEAD_BYTES];
    file.read_exact(&mut bytes).map_err(io)?;
    if bytes[HEAD_BYTES - 16..] != Digest::of(&bytes[..HEAD_BYTES - 16]).0 || &bytes[..16] != STATE_MAGIC {
        return Err(damaged("it is no checkpoint, or its head was changed"));
    }
    let mut reader = Reader::new(&bytes[16..]);
    let short = |_| Unfit::Damaged("its head is too short".into());
    let (mesh, parameters) = (reader.read().map_err(short)?, reader.read().map_err(short)?);
    owner.check(mesh, parameters, path).map_err(Unfit::Foreign)?;
    let mark = Mark {
        index: reader.read().map_err(short)?,
        version: reader.read().map_err(short)?,
        len_bytes: reader.read().map_err(short)?,
        digest: reader.read().map_err(short)?,
    };
    if mark.len_bytes != state_bytes {
        return Err(damaged("its state has another length than this node's"));
    }
    let (mut hasher, mut left) = (Hasher::default(), mark.len_bytes);
    let mut part = vec![0; READ_BYTES];
    while left > 0 {
        let len = part.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        file.read_exact(&mut part[..len]).map_err(io)?;
        hasher.update(&part[..len]);
        left -= len as u64;
    }
    if hasher.finish() != mark.digest {
        return Err(damaged("its state was changed, or not written to its end"));
    }
    Ok(Some(mark))
}

const VIEWS_MAGIC: &[u8; 16] = b"plesio views v2 ";
const STATE_MAGIC: &[u8; 16] = b"plesio state v1 ";
const NAMES: [&str; 2] = ["checkpoint-0", "checkpoint-1"];
const FRESH: &str = "checkpoint.new";
const HEAD_BYTES: usize = 96;
const VIEWS_HEAD_BYTES: usize = 81;
const ENTRY_BYTES: usize = 72;
const SLOT_BYTES: usize = 12_288;
const READ_BYTES: usize = 1 << 20;
const _: () = assert!(VIEWS_HEAD_BYTES + RECORD_BYTES_MAX + 1 + MEMBERS_MAX * ENTRY_BYTES <= SLOT_BYTES - 16);

#[cfg(test)]
mod tests;
