//! What a node has on its disk of views: the newest decided one, and those that may have been decided after it.

use crate::log::FRAME_MAX;
use alloc::vec::Vec;
use plesio_wire::digest::Hasher;
use plesio_wire::value::View;
use plesio_wire::{DecodeError, Digest, LogIndex, Reader, Version, Wire, Writer};

/// Which stretch of the log an index belongs to.
#[must_use]
pub const fn generation(index: LogIndex) -> u64 {
    index.0 >> GENERATION_BITS
}

/// What outlives a process: the newest view that it knows to be decided, the views that may have been decided after it,
/// and how far the state had come.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Record {
    pub(super) decided: (LogIndex, View),
    /// Accepted, or pledged to: above `decided`.
    pub(super) maybe: Vec<(LogIndex, View)>,
    pub(super) reached: Version,
}

impl Record {
    /// Of a node that has learnt its first view.
    #[must_use]
    pub const fn new(index: LogIndex, view: View) -> Self {
        Self { decided: (index, view), maybe: Vec::new(), reached: Version(0) }
    }

    /// The newest decided view, with its index.
    #[must_use]
    pub const fn decided(&self) -> (LogIndex, &View) {
        (self.decided.0, &self.decided.1)
    }

    /// Newest version held when it was written last.
    #[must_use]
    pub const fn reached(&self) -> Version {
        self.reached
    }

    /// A version is held; whether that is news.
    pub fn reach(&mut self, version: Version) -> bool {
        let news = version != self.reached;
        self.reached = version;
        news
    }

    /// A view is decided; whether that is news.
    pub fn learn(&mut self, index: LogIndex, view: &View) -> bool {
        if index <= self.decided.0 {
            return false;
        }
        self.decided = (index, *view);
        self.maybe.retain(|(at, _)| *at > index);
        true
    }

    /// This node, a member, accepts a view: only the newest one accepted may have been decided, for whoever proposes
    /// another one has asked a quorum first (R5). Whether that is news.
    pub fn accept(&mut self, index: LogIndex, view: &View) -> bool {
        if index <= self.decided.0 || self.maybe.contains(&(index, *view)) {
            return false;
        }
        let ours = generation(self.decided.0);
        self.maybe.retain(|(at, _)| generation(*at) != ours);
        self.maybe.insert(0, (index, *view));
        true
    }

    /// This node takes part in nothing before that view from here on; false when it can remember no more of them.
    pub(super) fn pledge(&mut self, index: LogIndex, view: &View) -> bool {
        let fits = self.maybe.len() < MAYBE_MAX;
        if fits {
            self.maybe.push((index, *view));
        }
        fits
    }

    /// Nothing below this index concerns this node any more.
    #[must_use]
    pub fn floor(&self) -> LogIndex {
        let ours = generation(self.decided.0);
        let pledged = self.maybe.iter().map(|(at, _)| *at).filter(|at| generation(*at) > ours);
        pledged.max().unwrap_or(LogIndex(0))
    }

    /// All views, the decided one first.
    pub(super) fn views(&self) -> impl ExactSizeIterator<Item = &(LogIndex, View)> {
        let count = 1 + self.maybe.len();
        (0..count).map(|at| if at == 0 { &self.decided } else { &self.maybe[at - 1] })
    }

    /// What tells one record from another.
    #[must_use]
    pub fn digest(&self) -> Digest {
        let mut hasher = Hasher::default();
        for (index, view) in self.views() {
            hasher.update(&index.0.to_le_bytes());
            hasher.update(&view.digest().0);
        }
        hasher.finish()
    }

    /// Its bytes: [`RECORD_BYTES_MAX`] at most.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = alloc::vec![0; RECORD_BYTES_MAX];
        let mut writer = Writer::new(&mut bytes);
        writer.write(&self.reached);
        writer.write(&(self.maybe.len() as u8));
        for (index, view) in self.views() {
            writer.write(index);
            writer.write(view);
        }
        let len_bytes = writer.len_bytes();
        bytes.truncate(len_bytes);
        bytes
    }

    /// Reads what [`encode`](Self::encode) wrote, and whatever follows it is left.
    ///
    /// # Errors
    /// [`DecodeError`]: it is none.
    pub fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let (reached, count) = (reader.read()?, reader.read::<u8>()?);
        if usize::from(count) > MAYBE_MAX {
            return Err(DecodeError::Field("views of a record"));
        }
        let view = |reader: &mut Reader<'_>| {
            let read: (LogIndex, View) = (reader.read()?, View::decode(reader)?);
            if is_sound(read.0, &read.1) { Ok(read) } else { Err(DecodeError::Field("view of a record")) }
        };
        let decided = view(reader)?;
        let maybe = (0..count).map(|_| view(reader)).collect::<Result<Vec<_>, _>>()?;
        if maybe.iter().any(|(index, _)| *index <= decided.0) {
            return Err(DecodeError::Field("views of a record"));
        }
        Ok(Self { decided, maybe, reached })
    }
}

/// Whether it can be a view at that index.
pub(super) fn is_sound(index: LogIndex, view: &View) -> bool {
    let sorted = view.members.windows(2).all(|pair| pair[0].key < pair[1].key);
    !view.members.is_empty() && sorted && index.0 < FRAME_MAX
}

/// How the bits of an index are shared between generations and what is in one: 2^16 of 2^40 entries each.
pub(super) const GENERATION_BITS: u32 = 40;
/// Views that may have been decided after the newest one that is known to be: an accepted one and pledges.
pub(super) const MAYBE_MAX: usize = 6;
/// Most bytes of an encoded record.
pub const RECORD_BYTES_MAX: usize = 9 + (1 + MAYBE_MAX) * (8 + 1_024);
