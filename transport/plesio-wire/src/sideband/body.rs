//! The body layout of every sideband message.

use crate::codec::{DecodeError, Pad, Reader, Wire, Writer, layout};
use crate::value::{Entry, Manifest, Value};
use crate::{
    Ballot, Bounded, Digest, Frame, Incarnation, LogIndex, MEMBERS_MAX, MemberSet, NodeId, SlotSeq, Speed,
    Took, Version,
};
use core::net::{IpAddr, Ipv6Addr, SocketAddr};

/// States of a member's corrector as BEAT carries them.
pub mod state {
    /// No clock lock or no state yet.
    pub const ACQUIRE: u8 = 0;
    /// Margins inside the band.
    pub const LOCKED: u8 = 1;
    /// The corrector is acting.
    pub const STRAINED: u8 = 2;
    /// Slots fold or are refused; work goes on.
    pub const SLIPPING: u8 = 3;
    /// The clock runs on its last rate.
    pub const HOLDOVER: u8 = 4;
    /// Fetching the state.
    pub const RESYNC: u8 = 5;
    /// Not in the quorum.
    pub const DETACHED: u8 = 6;
}

/// Codes of NACK.
pub mod nack {
    /// The sender's view is old; `arg` is the current number.
    pub const EPOCH: u16 = 1;
    /// A field of the message is out of range.
    pub const FIELD: u16 = 2;
    /// The slot is staler than tau; `arg` is its sequence.
    pub const STALE: u16 = 3;
    /// Roster entries are missing; `arg` is the view number.
    pub const ROSTER: u16 = 4;
    /// A proposal broke a rule; `arg` is the rule.
    pub const RULE: u16 = 5;
    /// Slot data with a wrong length or digest.
    pub const DATA: u16 = 6;
    /// Layout version unknown.
    pub const VERSION: u16 = 7;
    /// The joiner was started with other parameters than the mesh; `arg` holds those of the mesh.
    pub const MODEL: u16 = 8;
    /// The slot is far louder than the others of its frame; `arg` is its sequence.
    pub const NORM: u16 = 9;
}

/// An IP address and port in 18 bytes: IPv6, or IPv4 mapped into it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Address(pub SocketAddr);

impl Default for Address {
    fn default() -> Self {
        Self(SocketAddr::new(IpAddr::V6(Ipv6Addr::UNSPECIFIED), 0))
    }
}

impl Wire for Address {
    fn encode(&self, writer: &mut Writer<'_>) {
        let ip = match self.0.ip() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        };
        writer.write(&ip.octets());
        writer.write(&self.0.port());
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let ip = Ipv6Addr::from(reader.read::<[u8; 16]>()?);
        let ip = ip.to_ipv4_mapped().map_or(IpAddr::V6(ip), IpAddr::V4);
        Ok(Self(SocketAddr::new(ip, reader.read()?)))
    }
}

impl Wire for MemberSet {
    fn encode(&self, writer: &mut Writer<'_>) {
        self.0.encode(writer);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.read().map(Self)
    }
}

layout! {
    /// Asks a peer for its clock (section 5 of the consensus text): t1 of a two-way exchange.
    Probe {
        /// Number of the exchange.
        pair: u32,
        /// 0 or 1 within the pair.
        pos: u8,
        /// Zero.
        pad: Pad<3>,
        /// User-space stamp, sender's clock.
        t1: i64,
        /// Kernel stamp of the sender's previous probe to this peer; 0 = none.
        prev_t1: i64,
        /// The exchange that `prev_t1` belongs to.
        prev_pair: u32,
        /// Zero.
        pad2: Pad<4>,
    }
}

layout! {
    /// Answers a PROBE: t2 and t3, in the replier's mesh time; who has none does not answer.
    ProbeReply {
        /// Echoed.
        pair: u32,
        /// Echoed.
        pos: u8,
        /// Zero.
        pad: Pad<3>,
        /// Echoed `t1`.
        t1_echo: i64,
        /// When the probe arrived, replier's mesh clock.
        t2: i64,
        /// User-space stamp of this reply.
        t3: i64,
        /// Kernel stamp of the previous reply to this peer; 0 = none.
        prev_t3: i64,
        /// The exchange that `prev_t3` belongs to.
        prev_pair: u32,
        /// 0 user space, 1 kernel, 2 hardware: what made `t2`.
        stamp_kind: u8,
        /// Zero.
        pad2: Pad<3>,
    }
}

layout! {
    /// What a node says it can do; a claim, which guides who owns how much and is never trusted further.
    Speeds {
        /// Bytes that it sends, to all others together.
        up: Speed,
        /// Bytes that it receives, from all others together.
        down: Speed,
        /// Elements that it decodes and adds.
        sum: Speed,
    }
}

layout! {
    /// Full beat, every 500 ms: 72 bytes and the HOLD field.
    Beat {
        /// Sender's mesh time.
        mesh_time: i64,
        /// Sender's phase, Q32.32 frames.
        phase: i64,
        /// Fractional frequency offset, parts per billion.
        y_ppb: i32,
        /// Newest margin, Q16.16 frames.
        margin: i32,
        /// HOLD: final version held (c).
        version: u64,
        /// Clock error bound; never 0.
        eps_ns: u32,
        /// How early slots are cut.
        lead_us: u32,
        /// Smoothed step duration.
        step_us: u32,
        /// Smoothed steps per slot.
        steps_per_slot: u32,
        /// Slots that missed their frame.
        slips: u32,
        /// Slots folded or merged.
        folds: u32,
        /// [`state`].
        state: u8,
        /// Frames per slot.
        stride: u8,
        /// Ring slots in use.
        fill: u8,
        /// Ring depth.
        depth: u8,
        /// What it can do, as measured.
        speeds: Speeds,
        /// `T_xfer`: how long its slots take to the last owner.
        transfer: Took,
        /// Members this sender has not heard for the suspicion time.
        suspect: MemberSet,
        /// Highest HALT seen.
        halt_sequence: u32,
        /// HOLD: first log index not learnt (d).
        index: u64,
    }
}

layout! {
    /// Short beat, every 100 ms: 24 bytes.
    ShortBeat {
        /// HOLD: final version held (c).
        version: u64,
        /// As in [`Beat`].
        suspect: MemberSet,
        /// As in [`Beat`].
        halt_sequence: u32,
        /// [`state`].
        state: u8,
        /// Bit 0: leaving.
        flags: u8,
        /// Zero.
        pad: Pad<6>,
    }
}

layout! {
    /// A slot is cut; its content is frozen from here on (R21).
    Ready {
        /// Which slot of the sender's admission.
        slot_seq: u64,
        /// Frame it is aimed at.
        target: Frame,
        /// Version its work started from.
        base_version: Version,
        /// Local steps in it.
        n_steps: u32,
        /// Zero.
        pad: Pad<4>,
        /// Digest of its whole content.
        digest: Digest,
    }
}

layout! {
    /// One slot whose shard an owner holds complete and checked.
    HaveEntry {
        /// Contributor, index in the view of the header.
        member: u16,
        /// Zero.
        pad: Pad<2>,
        /// Which slot.
        slot_seq: u32,
        /// Saturating sum of squares of this owner's shard.
        sumsq: u64,
    }
}

/// Slots an owner holds: 8 + 16 n bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Have {
    /// Frame the sender is in, below 2^56.
    pub frame: Frame,
    /// The slots.
    pub entries: Bounded<HaveEntry, 64>,
}

impl Wire for Have {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.write(&((self.entries.len() as u64) << 56 | self.frame.0 & FRAME_MASK));
        for entry in self.entries.iter() {
            writer.write(entry);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let word: u64 = reader.read()?;
        let entries = Bounded::decode_counted(reader, (word >> 56) as usize)?;
        Ok(Self { frame: Frame(word & FRAME_MASK), entries })
    }
}

/// A MANIFEST proposed in a ballot: 56 + 20 n bytes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Propose {
    /// Log index.
    pub index: LogIndex,
    /// Ballot.
    pub ballot: Ballot,
    /// The value.
    pub manifest: Manifest,
}

impl Wire for Propose {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.write(&self.ballot.frame);
        writer.write(&self.index);
        writer.write(&self.manifest.close);
        writer.write(&self.ballot.term);
        writer.write(&(self.manifest.entries.len() as u16));
        writer.write(&0u16);
        writer.write(&self.manifest.view);
        writer.write(&(self.ballot.frame.0.saturating_sub(self.manifest.origin.0) as u32));
        writer.write(&self.manifest.period_next_us);
        for entry in self.manifest.entries.iter() {
            writer.write(entry);
        }
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let frame: Frame = reader.read()?;
        let index = reader.read()?;
        let close = reader.read()?;
        let term = reader.read()?;
        let count: u16 = reader.read()?;
        reader.read::<Pad<2>>()?;
        let view = reader.read()?;
        let age: u32 = reader.read()?;
        let origin = Frame(frame.0.checked_sub(u64::from(age)).ok_or(DecodeError::Field("origin"))?);
        let period_next_us = reader.read()?;
        let entries: Bounded<Entry, MEMBERS_MAX> = Bounded::decode_counted(reader, usize::from(count))?;
        let manifest = Manifest { origin, close, period_next_us, view, entries };
        Ok(Self { index, ballot: Ballot { frame, term }, manifest })
    }
}

layout! {
    /// A value is accepted in a ballot; as type SEAL it accepts SEAL and goes to all.
    Accept {
        /// Ballot's frame.
        frame: Frame,
        /// Log index.
        index: LogIndex,
        /// Ballot's term.
        term: u32,
        /// Zero.
        pad: Pad<4>,
        /// Digest of the value.
        digest: Digest,
    }
}

layout! {
    /// A value is decided.
    Commit {
        /// Ballot's frame.
        frame: Frame,
        /// Log index.
        index: LogIndex,
        /// Ballot's term.
        term: u32,
        /// Zero.
        pad: Pad<4>,
        /// Digest of the value.
        digest: Digest,
        /// Who accepted, as far as the sender counted.
        accepted: MemberSet,
        /// Zero: a commit adds nothing to the value (R8).
        pad2: Pad<4>,
    }
}

layout! {
    /// Asks what was accepted at an index, and promises nothing lower.
    Query {
        /// Log index.
        index: LogIndex,
        /// Ballot's frame.
        frame: Frame,
        /// Ballot's term.
        term: u32,
        /// Zero.
        pad: Pad<4>,
    }
}

/// Answers a QUERY.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Last {
    /// Log index.
    pub index: LogIndex,
    /// The queried ballot.
    pub ballot: Ballot,
    /// Ballot in which `value` was accepted.
    pub accepted: Ballot,
    /// Final version the sender holds (c).
    pub version: Version,
    /// Context of the shards it holds: index of the last entry it learnt.
    pub context: LogIndex,
    /// Result shards of the open version it holds in that context.
    pub shards: MemberSet,
    /// The value of its highest accepted ballot.
    pub value: Option<Value>,
}

impl Wire for Last {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.write(&self.index);
        writer.write(&self.ballot);
        writer.write(&self.accepted);
        writer.write(&self.version);
        writer.write(&self.context);
        writer.write(&self.shards);
        writer.write(&self.value);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            index: reader.read()?,
            ballot: reader.read()?,
            accepted: reader.read()?,
            version: reader.read()?,
            context: reader.read()?,
            shards: reader.read()?,
            value: reader.read()?,
        })
    }
}

impl Wire for Ballot {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.write(&self.frame);
        writer.write(&self.term);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { frame: reader.read()?, term: reader.read()? })
    }
}

layout! {
    /// A node asks to be admitted, and says how far it has caught up; repeated until a view names it.
    Join {
        /// Who.
        id: NodeId,
        /// Which life of it.
        incarnation: Incarnation,
        /// Digest of model and adapter configuration; must be the mesh's.
        model: Digest,
        /// Its sideband address.
        sideband: Address,
        /// Its data address.
        data: Address,
        /// HOLD: final version held plus one; 0 = none.
        hold: u64,
        /// HOLD: first log index not learnt.
        index: LogIndex,
    }
}

impl Wire for NodeId {
    fn encode(&self, writer: &mut Writer<'_>) {
        self.0.encode(writer);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        reader.read().map(Self)
    }
}

/// A VIEW proposed in a ballot.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Epoch {
    /// Log index.
    pub index: LogIndex,
    /// Ballot.
    pub ballot: Ballot,
    /// The value.
    pub view: crate::value::View,
}

impl Wire for Epoch {
    fn encode(&self, writer: &mut Writer<'_>) {
        writer.write(&self.index);
        writer.write(&self.ballot);
        writer.write(&self.view);
    }
    fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { index: reader.read()?, ballot: reader.read()?, view: reader.read()? })
    }
}

layout! {
    /// A member says goodbye: it contributes to the next close, then a view without it is due.
    Leave {
        /// Which life of it.
        incarnation: Incarnation,
    }
}

layout! {
    /// Refusal with a reason: 16 bytes.
    Nack {
        /// [`nack`].
        code: u16,
        /// Type of the message refused.
        ref_type: u16,
        /// Its header's sequence.
        ref_sequence: u32,
        /// Depends on the code.
        arg: u64,
    }
}

layout! {
    /// Digest of the master state after a version: what every applier compares.
    Shard {
        /// Log index of the SEAL.
        index: LogIndex,
        /// The version.
        version: Version,
        /// Digest of G.
        digest: Digest,
    }
}

layout! {
    /// A member's full id, addresses and weight: 72 bytes.
    RosterEntry {
        /// Full id.
        id: NodeId,
        /// Sideband address.
        sideband: Address,
        /// Data address.
        data: Address,
        /// Voting weight in thousandths; 1,000 for all today.
        weight: u32,
    }
}

layout! {
    /// Up to 16 roster entries; the digest of the whole roster is in the VIEW.
    Roster {
        /// View it belongs to, or the newest one known to the sender.
        view: u32,
        /// The entries.
        entries: Bounded<RosterEntry, 16>,
    }
}

layout! {
    /// Asks for, or announces, the bulk transfer of one cut: view, G and ledger of one index (R24).
    Snapshot {
        /// 0 request, 1 offer, 2 the request is withdrawn.
        op: u8,
        /// Zero.
        pad: Pad<3>,
        /// View in force at the index.
        view: u32,
        /// Log index of the cut.
        index: LogIndex,
        /// Version of G.
        version: Version,
        /// Bytes of the transfer.
        len_bytes: u64,
        /// Digest of G.
        digest: Digest,
        /// Message of the data plane: handle, sequence.
        message: u32,
    }
}

/// What [`Revive`] says.
pub mod revive {
    /// One view of the sender's record; `digest` is that of the checkpoint it has.
    pub const RECORD: u8 = 0;
    /// The sender wants to begin a generation with this view; `record` is the receiver's record as the sender knows it.
    pub const PROPOSE: u8 = 1;
    /// The sender takes part in no generation before the one that begins with the view of this `digest`.
    pub const PLEDGE: u8 = 2;
}

layout! {
    /// Between nodes that came back from their disks (agreement, section 7): a mesh whose log has ended begins again.
    Revive {
        /// Who.
        id: NodeId,
        /// Which life of it.
        incarnation: Incarnation,
        /// As in [`Join`].
        model: Digest,
        /// Its sideband address.
        sideband: Address,
        /// Its data address.
        data: Address,
        /// [`revive`].
        op: u8,
        /// Which view of the record this is, the newest decided one first.
        part: u8,
        /// Views of the record.
        parts: u8,
        /// Zero.
        pad: Pad<5>,
        /// Digest of a whole record.
        record: Digest,
        /// Newest version that the sender held, as far as its disk says.
        reached: Version,
        /// Version of its checkpoint plus one; 0 = none.
        checkpoint: u64,
        /// Depends on the code.
        digest: Digest,
        /// Log index of the view.
        index: LogIndex,
        /// The view.
        view: crate::value::View,
    }
}

impl Ready {
    /// The slot, if its number is in range.
    #[must_use]
    pub fn seq(&self) -> Option<SlotSeq> {
        u32::try_from(self.slot_seq).ok().map(SlotSeq)
    }
}

const FRAME_MASK: u64 = (1 << 56) - 1;
