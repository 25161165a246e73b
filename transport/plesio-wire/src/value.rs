//! What the log holds: MANIFEST, SEAL, VIEW (agreement, section 1). A value's digest covers these bytes and
//! never a ballot, so the same value keeps its digest through any number of take-overs.

use crate::codec::{DecodeError, Reader, Wire, Writer, layout};
use crate::shares::{Shares, SharesError, check_shares};
use crate::{
    Bounded, Digest, Frame, Incarnation, LogIndex, MEMBERS_MAX, MemberIndex, MeshTime, NodeKey, Schedule,
};

/// 1.0 in the Q0.24 of weights; the weights of a manifest sum to exactly this.
pub const WEIGHT_ONE: u32 = 1 << 24;

layout! {
    /// One contribution of a manifest: 20 bytes.
    Entry {
        /// Contributor, by its index in the view in force.
        member: u16,
        /// Version at the close minus the slot's base version.
        staleness: u16,
        /// The slot.
        slot_seq: u32,
        /// Local optimiser steps summed in it.
        n_steps: u32,
        /// Q0.24 share of the sum.
        weight: u32,
        /// How early the slot was complete, Q1.14 frames, saturating; negative is late.
        margin: i16,
        /// Zero.
        eflags: u16,
    }
}

layout! {
    /// Opens a version: these slots are summed.
    Manifest {
        /// Frame in whose ballot the value was first proposed.
        origin: Frame,
        /// Mesh time of the close, nanoseconds.
        close: i64,
        /// Frame period from the next frame on, microseconds.
        period_next_us: u32,
        /// Digest of the VIEW in force.
        view: Digest,
        /// Ascending by member, one each.
        entries: Bounded<Entry, MEMBERS_MAX>,
    }
}

layout! {
    /// A member of a view: 24 bytes. Sorted by `key`.
    Seat {
        /// Who.
        key: NodeKey,
        /// Which life of it.
        incarnation: Incarnation,
        /// Index of the VIEW that admitted it; (key, incarnation, admitted) is its admission.
        admitted: LogIndex,
    }
}

layout! {
    /// A numbered member set with the parameters that hold while it is in force.
    View {
        /// Frame in whose ballot the value was first proposed.
        origin: Frame,
        /// Membership epoch, rises by one.
        number: u32,
        /// Tells a joiner when its first slot is due; nothing else.
        effective: Frame,
        /// Frame period, microseconds.
        period_us: u32,
        /// Frame at whose close that period began; 0 at genesis.
        anchor: Frame,
        /// Mesh time of that close, nanoseconds.
        anchor_close: i64,
        /// How often the period may be halved from here, and how often doubled; none of both: it stays.
        halvings: u8,
        /// See `halvings`.
        doublings: u8,
        /// Fixed-point exponent of slots.
        scale_exponent: i8,
        /// 0 mass, 1 work, 2 equal.
        weight_mode: u8,
        /// Elements of the trained state.
        elements: u64,
        /// A member owns at most so many equal parts of the elements, and has windows for them; 1: all parts are equal.
        share_factor: u8,
        /// Digest of the VIEW before; zeros at genesis.
        previous: Digest,
        /// Digest of the roster (ids and addresses) of these members.
        roster: Digest,
        /// Sorted by key.
        members: Bounded<Seat, MEMBERS_MAX>,
        /// What each of them owns of the elements; none: equal parts.
        shares: Shares,
    }
}

impl View {
    /// Index of the member `key`.
    #[must_use]
    pub fn index_of(&self, key: NodeKey) -> Option<MemberIndex> {
        self.members.binary_search_by_key(&key, |seat| seat.key).ok().map(|index| index as MemberIndex)
    }

    /// When frames close while it is in force.
    #[must_use]
    pub const fn schedule(&self) -> Schedule {
        let period_ns = self.period_us as u64 * 1_000;
        Schedule { frame: self.anchor, close: MeshTime(self.anchor_close), period_ns }
    }

    /// Whether its shares cover all elements once, and nobody's are more than it has windows for.
    ///
    /// # Errors
    /// The rule that they break.
    pub fn check_shares(&self) -> Result<(), SharesError> {
        check_shares(&self.shares, self.members.len(), self.share_factor)
    }

    /// Digest of the view as a value.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Value::View(*self).digest()
    }
}

/// One entry of the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(clippy::large_enum_variant, reason = "decoding allocates nothing, and few values are kept")]
pub enum Value {
    /// Opens a version.
    Manifest(Manifest),
    /// Makes the open version final; its origin is that of the entry before it.
    Seal(Frame),
    /// Changes the member set from the next index on.
    View(View),
}

impl Value {
    /// Frame in whose ballot the value was first proposed.
    #[must_use]
    pub const fn origin(&self) -> Frame {
        match self {
            Self::Manifest(manifest) => manifest.origin,
            Self::Seal(origin) => *origin,
            Self::View(view) => view.origin,
        }
    }

    /// Digest of the value.
    #[must_use]
    pub fn digest(&self) -> Digest {
        Digest::of_value(self)
    }
}

impl Wire for Value {
    fn encode(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Manifest(manifest) => {
                writer.write(&1u8);
                writer.write(manifest);
            }
            Self::Seal(origin) => {
                writer.write(&2u8);
                writer.write(origin);
            }
            Self::View(view) => {
                writer.write(&3u8);
                writer.write(view);
            }
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match reader.read::<u8>()? {
            1 => Self::Manifest(reader.read()?),
            2 => Self::Seal(reader.read()?),
            3 => Self::View(reader.read()?),
            _ => return Err(DecodeError::Field("value kind")),
        })
    }
}

impl Wire for Option<Value> {
    fn encode(&self, writer: &mut Writer<'_>) {
        match self {
            None => writer.write(&0u8),
            Some(value) => writer.write(value),
        }
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let mut ahead = reader.clone();
        if ahead.read::<u8>()? == 0 {
            *reader = ahead;
            return Ok(None);
        }
        reader.read().map(Some)
    }
}
