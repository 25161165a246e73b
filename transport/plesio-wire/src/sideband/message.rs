//! One message of any type: its code, and which body belongs to it.

use super::body::{
    Accept, Beat, Commit, Epoch, Have, Join, Last, Leave, Nack, Probe, ProbeReply, Propose, Query, Ready,
    Revive, Roster, Shard, ShortBeat, Snapshot,
};
use super::order::{Order, OrderAck};
use super::relay::Relay;
use crate::LogIndex;
use crate::codec::{DecodeError, Reader, Writer};
use crate::value::Value;

/// A sideband message.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    missing_docs,
    reason = "decoded in place; each variant is its body's type"
)]
#[non_exhaustive]
pub enum Message {
    Probe(Probe),
    ProbeReply(ProbeReply),
    Beat(Beat),
    Ready(Ready),
    Have(Have),
    Propose(Propose),
    Accept(Accept),
    Commit(Commit),
    Query(Query),
    Last(Last),
    Join(Join),
    Epoch(Epoch),
    Leave(Leave),
    Nack(Nack),
    ShortBeat(ShortBeat),
    /// An order of the operators: stop.
    Halt(Order),
    /// An order of the operators: go on.
    Resume(Order),
    Shard(Shard),
    Roster(Roster),
    /// A decided entry, told to one who asked about a lower index.
    Decided {
        index: LogIndex,
        value: Value,
    },
    /// ACCEPT of SEAL, to all.
    Seal(Accept),
    Snapshot(Snapshot),
    OrderAck(OrderAck),
    /// A datagram of one member for another, carried by a third.
    Relay(Relay),
    Revive(Revive),
}

impl Message {
    /// Type on the wire.
    #[must_use]
    pub const fn code(&self) -> u8 {
        match self {
            Self::Probe(_) => 1,
            Self::ProbeReply(_) => 2,
            Self::Beat(_) => 3,
            Self::Ready(_) => 4,
            Self::Have(_) => 5,
            Self::Propose(_) => 6,
            Self::Accept(_) => 7,
            Self::Commit(_) => 8,
            Self::Query(_) => 9,
            Self::Last(_) => 10,
            Self::Join(_) => 11,
            Self::Epoch(_) => 12,
            Self::Leave(_) => 13,
            Self::Nack(_) => 14,
            Self::ShortBeat(_) => 15,
            Self::Halt(_) => 16,
            Self::Resume(_) => 17,
            Self::Shard(_) => 18,
            Self::Roster(_) => 19,
            Self::Decided { .. } => 20,
            Self::Seal(_) => 21,
            Self::Snapshot(_) => 22,
            Self::OrderAck(_) => 23,
            Self::Relay(_) => 24,
            Self::Revive(_) => 28,
        }
    }

    pub(super) fn encode_body(&self, writer: &mut Writer<'_>) {
        match self {
            Self::Probe(body) => writer.write(body),
            Self::ProbeReply(body) => writer.write(body),
            Self::Beat(body) => writer.write(body),
            Self::Ready(body) => writer.write(body),
            Self::Have(body) => writer.write(body),
            Self::Propose(body) => writer.write(body),
            Self::Accept(body) | Self::Seal(body) => writer.write(body),
            Self::Commit(body) => writer.write(body),
            Self::Query(body) => writer.write(body),
            Self::Last(body) => writer.write(body),
            Self::Join(body) => writer.write(body),
            Self::Epoch(body) => writer.write(body),
            Self::Leave(body) => writer.write(body),
            Self::Nack(body) => writer.write(body),
            Self::ShortBeat(body) => writer.write(body),
            Self::Halt(body) | Self::Resume(body) => writer.write(body),
            Self::Shard(body) => writer.write(body),
            Self::Roster(body) => writer.write(body),
            Self::Decided { index, value } => {
                writer.write(index);
                writer.write(value);
            }
            Self::Snapshot(body) => writer.write(body),
            Self::OrderAck(body) => writer.write(body),
            Self::Relay(body) => writer.write(body),
            Self::Revive(body) => writer.write(body),
        }
    }

    pub(super) fn decode_body(code: u8, reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(match code {
            1 => Self::Probe(reader.read()?),
            2 => Self::ProbeReply(reader.read()?),
            3 => Self::Beat(reader.read()?),
            4 => Self::Ready(reader.read()?),
            5 => Self::Have(reader.read()?),
            6 => Self::Propose(reader.read()?),
            7 => Self::Accept(reader.read()?),
            8 => Self::Commit(reader.read()?),
            9 => Self::Query(reader.read()?),
            10 => Self::Last(reader.read()?),
            11 => Self::Join(reader.read()?),
            12 => Self::Epoch(reader.read()?),
            13 => Self::Leave(reader.read()?),
            14 => Self::Nack(reader.read()?),
            15 => Self::ShortBeat(reader.read()?),
            16 => Self::Halt(reader.read()?),
            17 => Self::Resume(reader.read()?),
            18 => Self::Shard(reader.read()?),
            19 => Self::Roster(reader.read()?),
            20 => Self::Decided { index: reader.read()?, value: reader.read()? },
            21 => Self::Seal(reader.read()?),
            22 => Self::Snapshot(reader.read()?),
            23 => Self::OrderAck(reader.read()?),
            24 => Self::Relay(reader.read()?),
            28 => Self::Revive(reader.read()?),
            _ => return Err(DecodeError::Kind(code)),
        })
    }
}
