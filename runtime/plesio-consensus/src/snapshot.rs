//! One cut of the log without an open version: what a node needs beside G to go on from there (R24).

use crate::ledger::{Admission, LEDGER_BYTES_MAX, Ledger};
use crate::log::{FRAME_MAX, LogState};
use crate::period;
use crate::weights::WeightMode;
use alloc::vec::Vec;
use core::fmt;
use plesio_wire::codec::{DecodeError, Reader, Wire, Writer};
use plesio_wire::shares::SharesError;
use plesio_wire::value::View;
use plesio_wire::{Digest, Frame, LogIndex, Version};

const FIXED_BYTES_MAX: usize = 1_232;
/// Most bytes of an encoded cut.
pub const SNAPSHOT_CUT_BYTES_MAX: usize = FIXED_BYTES_MAX + LEDGER_BYTES_MAX;

/// State of the log at an index with no open version. It travels with G of the same version.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SnapshotCut {
    /// First index that it does not cover.
    pub index: LogIndex,
    /// Origin frame of the entry before `index`.
    pub origin: Frame,
    /// Index of the view in force.
    pub view_index: LogIndex,
    /// The view in force.
    pub view: View,
    /// Final version.
    pub version: Version,
    /// Digest of G of that version.
    pub digest: Digest,
    /// Encoded ledger.
    pub ledger: Vec<u8>,
}

/// What a snapshot was good for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Installed {
    /// It lay ahead: view, ledger and G are taken from it.
    Cut,
    /// View and ledger lay ahead of the same G: nothing is to be fetched.
    Log,
    /// Only G was missing.
    State,
    /// G was missing, and what was gathered up to this version goes on top of it: answer with
    /// [`Consensus::handle_applied`](crate::Consensus::handle_applied).
    Gathered(Version),
}

/// Why a snapshot is thrown away.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SnapshotError {
    /// Its bytes are no cut.
    Decode(DecodeError),
    /// Its G is older than what is needed.
    Old {
        /// Its version.
        version: Version,
        /// The version needed.
        needed: Version,
    },
    /// Its fields contradict each other.
    Inconsistent,
    /// The shares of its view break a rule.
    Shares(SharesError),
}

impl fmt::Display for SnapshotError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Decode(error) => write!(f, "snapshot refused: {error}; fetch it from another member"),
            Self::Old { version, needed } => {
                write!(f, "snapshot of version {} but {} is needed; fetch a newer one", version.0, needed.0)
            }
            Self::Shares(error) => write!(f, "snapshot refused: {error}; fetch it from another member"),
            Self::Inconsistent => f.write_str("snapshot contradicts itself; fetch it from another member"),
        }
    }
}

impl core::error::Error for SnapshotError {}

impl SnapshotCut {
    /// The bytes that precede G.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = alloc::vec![0; FIXED_BYTES_MAX];
        let mut writer = Writer::new(&mut bytes);
        writer.write(&self.index);
        writer.write(&self.origin);
        writer.write(&self.view_index);
        writer.write(&self.version);
        writer.write(&self.digest);
        writer.write(&self.view);
        let len_bytes = writer.len_bytes();
        bytes.truncate(len_bytes);
        bytes.extend_from_slice(&self.ledger);
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote.
    ///
    /// # Errors
    /// [`SnapshotError`] when the bytes are no cut.
    pub fn decode(bytes: &[u8]) -> Result<Self, SnapshotError> {
        if bytes.len() > SNAPSHOT_CUT_BYTES_MAX {
            return Err(SnapshotError::Decode(DecodeError::Trailing));
        }
        let mut reader = Reader::new(bytes);
        let cut = Self::decode_fields(&mut reader).map_err(SnapshotError::Decode)?;
        cut.to_state().map(|_| cut)
    }

    fn decode_fields(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (index, origin, view_index) = (reader.read()?, reader.read()?, reader.read()?);
        let (version, digest, view) = (reader.read()?, reader.read()?, View::decode(reader)?);
        let ledger = reader.take(reader.remaining())?.to_vec();
        Ok(Self { index, origin, view_index, view, version, digest, ledger })
    }

    pub(crate) fn of(state: &LogState, digest: Digest) -> Self {
        Self {
            index: state.index,
            origin: state.origin,
            view_index: state.view_index,
            view: state.view,
            version: state.version_final,
            digest,
            ledger: state.ledger.encode(),
        }
    }

    pub(crate) fn to_state(&self) -> Result<LogState, SnapshotError> {
        let ledger = Ledger::decode(&self.ledger).map_err(SnapshotError::Decode)?;
        let view = &self.view;
        let sorted = view.members.windows(2).all(|pair| pair[0].key < pair[1].key);
        // Every version takes two entries of the log behind index 0.
        let counted =
            self.version.0 < self.index.0 && self.view_index < self.index && self.index.0 < FRAME_MAX;
        let ranges = self.origin.0 < FRAME_MAX
            && period::is_sound(view)
            && view.anchor.0 < FRAME_MAX
            && WeightMode::from_id(view.weight_mode).is_ok()
            && u64::from(view.number) <= self.view_index.0;
        let seated = view
            .members
            .iter()
            .all(|seat| seat.admitted <= self.view_index && !ledger.has_ended(Admission::of(seat)));
        if view.members.is_empty() || !sorted || !counted || !ranges || !seated || ledger.has_open() {
            return Err(SnapshotError::Inconsistent);
        }
        view.check_shares().map_err(SnapshotError::Shares)?;
        Ok(LogState {
            index: self.index,
            origin: self.origin,
            view: *view,
            view_index: self.view_index,
            view_digest: view.digest(),
            version_final: self.version,
            open: None,
            ledger,
        })
    }
}
