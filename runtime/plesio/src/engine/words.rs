//! What a shell gives an engine and what it gets: configuration, work on bytes, words for the sideband.

use super::near::Note;
use super::{Common, Rules, Steering};
use plesio_collective::{Alias, ArenaId, Regions, Sum};
use plesio_consensus::{Part, Record};
use plesio_sideband::To;
use plesio_wire::data::MessageId;
use plesio_wire::sideband::{Message, RosterEntry};
use plesio_wire::value::View;
use plesio_wire::{Digest, Incarnation, NodeKey, SlotSeq, Span, Version};
use std::net::SocketAddr;

/// What an engine must know before it starts.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// This node, as others will reach it.
    pub entry: RosterEntry,
    /// Which life of it.
    pub incarnation: Incarnation,
    /// Which mesh.
    pub mesh: u64,
    /// Digest of model and adapter configuration.
    pub model: Digest,
    /// Fixed-point exponent of slots.
    pub scale_exponent: i8,
    /// Frame period until a view says otherwise, nanoseconds.
    pub period_ns: u64,
    /// Where everything lies.
    pub regions: Regions,
    /// Payload bytes per datagram to peers on this host, and at most to others: there it is what the path carries.
    pub chunk_bytes: u32,
    /// What versions are decided by.
    pub rules: Rules,
    /// How this node keeps its contributions in time, checked.
    pub steering: Steering,
    /// Digest of the operators and of how many of them it takes; zero without.
    pub operators: Digest,
    /// Whether the shell seals datagrams: a session of its own then tells whom a datagram is for, and receiver indices
    /// are zero here.
    pub sealed: bool,
    /// What the kernel granted as receive buffer: half of it is in flight at most, to a peer and, off this host, from all
    /// peers together.
    pub receive_buffer_bytes: u64,
    /// Which of all arenas this node's is, where processes of this host may map it.
    pub arena: Option<u64>,
    /// Seed of every random choice.
    pub seed: u64,
}

impl EngineConfig {
    /// What must be the same on all nodes; those that differ do not join.
    #[must_use]
    pub fn common(&self) -> Common {
        Common {
            model: self.model,
            elements: self.regions.elements,
            codec: self.regions.codec,
            share_factor: self.regions.factor,
            scale_exponent: self.scale_exponent,
            ring_depth: self.regions.depth,
            chunk_bytes: self.chunk_bytes,
            rules: self.rules,
            operators: self.operators,
        }
    }
}

/// How the engine comes into the mesh.
#[derive(Clone, Debug)]
pub enum Entrance {
    /// The operator gave every node the same roster: view 0.
    Genesis(Vec<RosterEntry>, Box<View>),
    /// Some members' sideband addresses are known.
    Join(Vec<SocketAddr>),
}

/// For the shell, in this order, at once.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Work {
    /// Open the data path to a peer; its connections begin anew, so what seals them must be new as well.
    Connect {
        /// Who.
        peer: NodeKey,
        /// Which life of it.
        life: Incarnation,
        /// Where, on both planes, and its full id.
        entry: RosterEntry,
    },
    /// Sealed, ask a node for a session, so that it can be asked for more: it is known from before, and may be there.
    Seek {
        /// Who and where.
        entry: RosterEntry,
    },
    /// Close it.
    Disconnect {
        /// Who.
        peer: NodeKey,
    },
    /// Sum of squares of a contribution, then [`Engine::handle_squared`](super::Engine::handle_squared).
    Square {
        /// Contributor.
        contributor: NodeKey,
        /// Slot.
        seq: SlotSeq,
        /// The contribution, as encoded.
        span: Span,
        /// How many elements it has.
        elements: u32,
    },
    /// Weighted sum, then [`Engine::handle_summed`](super::Engine::handle_summed).
    Sum(Sum),
    /// Add the summed ranges to the master state, then [`Engine::handle_applied`](super::Engine::handle_applied).
    Apply {
        /// The version that this makes.
        version: Version,
        /// i64 elements, in order of the owners.
        results: Vec<Span>,
    },
    /// An own slot's life has ended.
    Settle {
        /// Place in the ring.
        index: u8,
        /// Slot.
        seq: SlotSeq,
        /// How.
        fate: SlotFate,
        /// Committed, how much of it: the worker gets the rest back.
        part: Part,
    },
    /// Write a snapshot for others, then [`Engine::handle_captured`](super::Engine::handle_captured).
    Capture {
        /// The cut's bytes, to precede the master state.
        cut: Vec<u8>,
    },
    /// Keep the sum of these ranges until the state that they go on top of is here; `first`: of these alone.
    Gather {
        /// The version that they make; where there is no room, [`Engine::handle_unapplied`](super::Engine::handle_unapplied).
        version: Version,
        /// i64 elements, in order of the owners.
        results: Vec<Span>,
        /// What was kept before is void.
        first: bool,
    },
    /// Add what was gathered to the state just installed, then [`Engine::handle_applied`](super::Engine::handle_applied).
    Merge {
        /// The version that this makes.
        version: Version,
    },
    /// Read the cut of a snapshot whose state is still coming, then [`Engine::handle_cut_inspected`](super::Engine::handle_cut_inspected).
    InspectCut {
        /// Received bytes.
        span: Span,
    },
    /// Read a received snapshot, then [`Engine::handle_inspected`](super::Engine::handle_inspected).
    Inspect {
        /// Received bytes.
        span: Span,
    },
    /// Write a note into a cell, then [`Engine::handle_written`](super::Engine::handle_written).
    Tell {
        /// For whom.
        to: NodeKey,
        /// The message that it is, or stands for.
        message: MessageId,
        /// Where.
        cell: Span,
        /// What.
        note: Note,
    },
    /// Read a cell, then [`Engine::handle_read`](super::Engine::handle_read).
    Read {
        /// Who wrote it.
        peer: NodeKey,
        /// As which message it came.
        message: MessageId,
        /// Where it lies.
        cell: Span,
    },
    /// Find a peer's arena on this host and map it; some time later, if it can be done,
    /// [`Engine::handle_mapped`](super::Engine::handle_mapped).
    Map(ArenaId),
    /// Nothing needs that arena any more, if it is mapped at all.
    Unmap(ArenaId),
    /// Copy out of a peer's memory, then [`Engine::handle_taken`](super::Engine::handle_taken).
    Take {
        /// The message it counts as.
        message: MessageId,
        /// From where.
        from: Alias,
        /// To where, with the same length.
        into: Span,
    },
    /// As `Square`, of a contribution in a peer's memory. If that is not what was told of, nothing but
    /// [`Engine::handle_gone`](super::Engine::handle_gone).
    SquareNear {
        /// Contributor.
        contributor: NodeKey,
        /// Slot.
        seq: SlotSeq,
        /// The contribution, as encoded.
        alias: Alias,
        /// How many elements it has.
        elements: u32,
    },
    /// As `Sum`, with some inputs in memory of peers. If one of them is not what was told of, nothing but
    /// [`Engine::handle_torn`](super::Engine::handle_torn).
    SumNear {
        /// The sum.
        sum: Sum,
        /// For each input the place it is the name of, if it is one.
        aliases: Vec<Option<Alias>>,
    },
    /// Write that down so that it outlives a loss of power, then
    /// [`Engine::handle_persisted`](super::Engine::handle_persisted). Only shells that called
    /// [`Engine::handle_disk`](super::Engine::handle_disk) are asked.
    Persist {
        /// Of the record; newer ones make older ones void.
        number: u64,
        /// What.
        record: Box<Record>,
        /// Where the members are that it names.
        entries: Vec<RosterEntry>,
    },
    /// The checkpoint of that version and digest becomes the master state, or, without, the state that all begin with does;
    /// then [`Engine::handle_loaded`](super::Engine::handle_loaded).
    Load {
        /// Which.
        checkpoint: Option<(Version, Digest)>,
    },
    /// The inspected snapshot's state becomes the master state.
    Install {
        /// Version it is.
        version: Version,
    },
}

/// How an own slot ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SlotFate {
    /// In a final version.
    Commit,
    /// Back to the uncommitted mass.
    Fold,
    /// Gone: nobody can tell whether it was committed, so it is never sent again.
    Lose,
}

/// For the sideband.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "moved once, from a queue into a socket's buffer")]
pub enum Out {
    /// Send a message.
    Send(To, Message),
    /// A view is in force: its members' sideband addresses.
    View(View, Vec<(NodeKey, SocketAddr)>),
    /// This life of a node follows without a seat, from there; `None` forgets it.
    Observer(NodeKey, Option<(Incarnation, SocketAddr)>),
    /// The node enters anew: its mesh clock may step once.
    Reentry,
}
