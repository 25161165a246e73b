//! What a running node tells the program that started it.

mod of;

use crate::engine::Revival;
use crate::node::DiskState;
use plesio_consensus::{Cause, FoldReason, Kind};
use plesio_sideband::{HaltState, Pace, RelayCounters};
use plesio_wire::{Ballot, Digest, Frame, NodeKey, SlotSeq, Version};
use std::net::SocketAddr;

/// Something happened, at a moment of `CLOCK_MONOTONIC_RAW`: comparable between processes of one machine.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeEvent {
    /// When, nanoseconds.
    pub raw_ns: i64,
    /// The same moment on the mesh clock, nanoseconds; none where this node has no usable one.
    pub mesh_ns: Option<i64>,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "a few a second, and moved once or twice")]
pub enum What {
    /// A view is in force.
    View {
        /// Its number.
        number: u32,
        /// Its log index.
        index: u64,
        /// Its members, ascending.
        members: Vec<NodeKey>,
        /// Who came.
        added: Vec<NodeKey>,
        /// Who went.
        removed: Vec<NodeKey>,
        /// What each of them owns of every sum; none: equal parts.
        shares: Vec<f64>,
        /// This life of the node is one of them; a node that is only about to join hears of views too.
        seated: bool,
    },
    /// How far this node has come on its way into the mesh, when that has changed.
    Entering(Entering),
    /// Another life of a member asks to be let in from elsewhere: it was started anew there, or two processes have one
    /// key, and each throws the other out.
    Namesake {
        /// Whose key.
        key: NodeKey,
        /// Where the member is.
        seated: SocketAddr,
        /// Where the other life asks from.
        asks: SocketAddr,
    },
    /// A version is final and its state held here.
    Version {
        /// Which.
        version: Version,
        /// Digest of the master state.
        digest: Digest,
    },
    /// A manifest is decided: a version is open.
    Manifest {
        /// Log index of the decision.
        index: u64,
        /// Which version it will be.
        version: Version,
        /// Digest of the manifest, as COMMIT names it.
        digest: Digest,
        /// Frame it was proposed in.
        frame: u64,
        /// What is summed.
        entries: Vec<Contribution>,
    },
    /// A view was decided while a version was open: its sums are made anew, without what was dropped.
    Reopened {
        /// Log index of the view.
        index: u64,
        /// Which version.
        version: Version,
        /// What is summed now.
        entries: Vec<Contribution>,
        /// How many contributions were dropped.
        dropped: usize,
    },
    /// The open version is final; it may not be held here yet.
    Sealed {
        /// Log index of the seal.
        index: u64,
        /// Which version.
        version: Version,
        /// All that it takes is here: it is applied now.
        complete: bool,
    },
    /// The results of a final version are kept until the state before them has come.
    Gathered(Version),
    /// A newer state is asked for.
    Fetching {
        /// Of whom.
        from: NodeKey,
        /// Oldest version that helps.
        version: Version,
    },
    /// An own contribution is cut and announced.
    Cut {
        /// Its number.
        slot: SlotSeq,
        /// Version its work started from.
        base: Version,
        /// Frame it is aimed at.
        target: Frame,
        /// Local steps in it.
        steps: u32,
        /// Digest of its whole content.
        digest: Digest,
    },
    /// An own contribution stands in a manifest: what the corrector goes by.
    Listed {
        /// Which.
        slot: SlotSeq,
        /// In the manifest of this version.
        version: Version,
        /// How early it was complete, frames.
        margin_frames: f32,
        /// Versions between its base and the close.
        staleness: u16,
    },
    /// An own contribution is in a final version.
    Released {
        /// Which.
        slot: SlotSeq,
        /// All of it; else the rest goes with a later one.
        whole: bool,
    },
    /// An own contribution can never be listed: it goes with a later one.
    Folded {
        /// Which.
        slot: SlotSeq,
        /// On what proof.
        reason: FoldReason,
    },
    /// Nobody can tell any more what became of an own contribution: its mass is lost.
    Lost(SlotSeq),
    /// Cuts that found the ring full, since the start: added into an earlier contribution, or put off.
    Crowded {
        /// Added into an earlier one.
        merged: u64,
        /// Put off, because every other one was announced.
        put_off: u64,
    },
    /// No version was opened in this frame.
    Void(Frame),
    /// The frame period is another one from the close of that frame on: links or steps ask for it.
    Period {
        /// The last frame of the period before.
        frame: Frame,
        /// P before, nanoseconds.
        before_ns: u64,
        /// P now, nanoseconds.
        period_ns: u64,
    },
    /// This node asks what was accepted at an index.
    Queried {
        /// Log index.
        index: u64,
        /// In this ballot.
        ballot: Ballot,
    },
    /// This node proposes.
    Proposed {
        /// Log index.
        index: u64,
        /// In this ballot.
        ballot: Ballot,
        /// What.
        kind: Kind,
    },
    /// An index is learnt.
    Decided {
        /// Log index.
        index: u64,
        /// In this ballot, where this node counted the votes.
        ballot: Option<Ballot>,
        /// What.
        kind: Kind,
    },
    /// This node hears less than half of its view and takes itself for the sick one; or not any more.
    Sick(bool),
    /// This node was itself not running for so long, nanoseconds: it accuses nobody, and what it missed it is told.
    Late(u64),
    /// The mesh clock is known better or worse than before: `acquire`, `locked` or `holdover`.
    Clock {
        /// From.
        from: &'static str,
        /// To.
        to: &'static str,
        /// Bound of its error, nanoseconds; `u32::MAX` without a clock.
        eps_ns: u32,
        /// How much faster than this node's own clock it runs, in parts per billion.
        rate_ppb: i32,
    },
    /// The mesh clock moved at once by so much, nanoseconds, as on entry to a mesh.
    ClockStep(i64),
    /// Whose clock is followed now; none: nobody's.
    Reference(Option<NodeKey>),
    /// Its clock contradicts a majority and is not asked for a while.
    FalseTicker(NodeKey),
    /// Keys of the session with a peer changed.
    Keys {
        /// Who.
        peer: NodeKey,
        /// `open`: what it seals is read; `seal`: what goes to it is sealed with them; `close`: old ones open nothing any more;
        /// `expire`: nothing goes to it any more.
        change: &'static str,
    },
    /// A member has been silent for the suspicion time.
    Suspect(NodeKey),
    /// It is heard again.
    Recover(NodeKey),
    /// It has been silent for longer, and a quorum agrees.
    Dead(NodeKey),
    /// A member says that it is leaving.
    Leaving(NodeKey),
    /// Members that can be heard are too few to commit; training goes on.
    NoQuorum {
        /// Members heard, this one included.
        live: usize,
        /// Members of the view.
        members: usize,
    },
    /// Enough can be heard again.
    Quorum,
    /// A view without this node is in force; it asks to be let in again.
    Excluded,
    /// This node left in good order and may go.
    Left,
    /// HALT is in force: nothing is announced, sent, proposed or committed until the operators say RESUME.
    Halted {
        /// Of the order.
        sequence: u64,
        /// It outlives this process.
        stored: bool,
    },
    /// RESUME is in force: the node goes on where it stood.
    Resumed {
        /// Of the order.
        sequence: u64,
    },
    /// Another member says other bits of a version than a quorum, this node among it. The mesh goes on.
    Diverged {
        /// Which version.
        version: Version,
        /// Who.
        peer: NodeKey,
    },
    /// A quorum says other bits of that version than this node, which takes its state from them.
    Resync(Version),
    /// The node commits nothing any more; it goes on answering those who want what it holds. An operator has to decide.
    Stopped {
        /// Newest version concerned.
        version: Version,
        /// Why.
        cause: Cause,
    },
    /// The phase corrector changed its state: every transition, in order.
    Phase {
        /// From, as `LOCKED`.
        from: &'static str,
        /// To.
        to: &'static str,
    },
    /// The state of a member was taken over: the node is up to date.
    Installed(Version),
    /// The mesh's log had ended, and this node began it again from its disk, with others that came back.
    Revived(Revival),
    /// What is to outlive this node cannot be written, and why; training goes on.
    Degraded(String),
    /// It can be written again.
    Mended,
    /// How datagrams go to the peers, when that has changed.
    Ways(Vec<Way>),
    /// Said once each: what the node found and fell back to.
    Note(String),
    /// Regular report.
    Progress(Progress),
    /// The last word of an orderly end.
    Final(Box<Final>),
    /// The last word of any other end: what went wrong.
    Failed(String),
}

/// What a manifest says of one contribution.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Contribution {
    /// Whose.
    pub node: NodeKey,
    /// Its number, the low 32 bits.
    pub slot: u32,
    /// Local steps in it.
    pub steps: u32,
    /// Its weight, in 2^-24.
    pub weight: u32,
    /// Versions between its base and the close.
    pub staleness: u16,
    /// How early it was complete, frames.
    pub margin_frames: f32,
}

/// How far a node that is no member has come on its way into a mesh.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Entering {
    /// A member answered its handshake; always false in plaintext.
    pub session: bool,
    /// Number and members of the view that a member told it.
    pub view: Option<(u32, usize)>,
    /// The state of that view came.
    pub state: bool,
    /// A member refused it: it was started with another value of this.
    pub differs: Option<&'static str>,
    /// Where the mesh knows another life of this node, one with the same key: an earlier one, or another process.
    pub namesake: Option<SocketAddr>,
}

/// State of the node a few times per second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Progress {
    /// Own mesh time, nanoseconds, at `raw_ns`.
    pub mesh_ns: i64,
    /// Bound of its error; `u32::MAX` without a clock.
    pub eps_ns: u32,
    /// Corrector's state, 0 to 6.
    pub state: u8,
    /// Newest margin of an own slot, in frames: the phase detector's output.
    pub margin_frames: f32,
    /// Corrector's lead.
    pub lead_ns: u64,
    /// Frame period.
    pub period_ns: u64,
    /// Version held.
    pub version: u64,
    /// Own local steps in final versions.
    pub steps_committed: u64,
    /// What the operators ordered.
    pub halt: HaltState,
    /// What is on its disk; none: it has none.
    pub disk: Option<DiskState>,
    /// How often this node was itself not running, and for how long in all.
    pub lateness: Lateness,
    /// Local steps by what became of them.
    pub steps: StepCounters,
    /// How fast it goes, and how well it keeps in time.
    pub tempo: TempoReport,
    /// Traffic and memory.
    pub counters: Counters,
}

/// How often a node was itself not running, as its own clock says.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Lateness {
    /// How often.
    pub wakes: u64,
    /// For how long in all, nanoseconds.
    pub total_ns: u64,
}

/// What became of local steps that are in no version (I2). Steps stand for the mass of the updates that they are.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct StepCounters {
    /// Steps of announced contributions that nobody can tell any more whether they were counted (`mass_lost`).
    pub lost: u64,
    /// Steps of listed contributions that a view dropped; they came back and go with a later one (`mass_dropped`).
    pub dropped: u64,
    /// Steps thrown away because they were not finite (`bad_local_total`).
    pub bad_local: u64,
    /// Steps thrown away when this node came back after too long (the trim of section 8).
    pub trimmed: u64,
    /// Contributions that came back and were folded into later ones (`fold_total`).
    pub folds: u64,
}

/// How fast a node goes against its mesh, and how well it keeps in time. Counts are since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct TempoReport {
    /// e: how late it is against the mesh, lead included, in frames.
    pub phase_error_frames: f32,
    /// y: how much faster than one stride per stride its slots are cut, parts per billion, over the last eight.
    pub y_ppb: i32,
    /// s: smoothed duration of a step.
    pub step_ns: u64,
    /// H: smoothed steps per slot.
    pub steps_per_slot: f32,
    /// Frames from one slot to the next.
    pub stride: u8,
    /// Own slots whose margin is known.
    pub slots: u64,
    /// Of these, complete at the last owner only after the close that they were aimed at.
    pub late_slots: u64,
    /// Slots folded, merged, or put off by a full ring.
    pub folded_slots: u64,
    /// How often the corrector moved lead or stride, or let a frame pass.
    pub corrections: u64,
    /// The worker stands still: the node is not with its mesh for longer than tau + 1 frames.
    pub paused: bool,
}

/// How datagrams go to one peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Way {
    /// Who.
    pub peer: NodeKey,
    /// Payload bytes per datagram, as far as the path is known by now.
    pub chunk_bytes: u32,
    /// What keeps the path from being overloaded: `credit` on this host, `rate-delay` elsewhere.
    pub congestion: &'static str,
    /// `memory` when each reads in the other's memory and only notices are sent, `udp` otherwise.
    pub path: &'static str,
}

/// Bytes and datagrams since the start.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Payload bytes handed to the data socket.
    pub data_sent_bytes: u64,
    /// Payload bytes accepted from it.
    pub data_received_bytes: u64,
    /// Payload bytes copied in user space on the way out.
    pub copied_sent_bytes: u64,
    /// Payload bytes copied in user space on the way in.
    pub copied_received_bytes: u64,
    /// Payload bytes sent again.
    pub retransmitted_bytes: u64,
    /// Data-plane datagrams dropped, all causes.
    pub data_dropped: u64,
    /// Handshake datagrams refused, all causes.
    pub handshakes_refused: u64,
    /// Sideband bytes sent, IP and UDP headers included.
    pub sideband_sent_bytes: u64,
    /// What the sideband sends, over the last seconds, and what it may: beats come more rarely before it is more.
    pub sideband_pace: Pace,
    /// Control that went through a third member.
    pub relays: RelayCounters,
    /// Sideband datagrams dropped, all causes.
    pub sideband_dropped: u64,
    /// Neighbours whose clocks contradicted the majority's and were left out for a minute.
    pub falsetickers: u64,
    /// Times that somebody moved CLOCK_REALTIME, which the kernel's stamps are on; exchanges of that moment are thrown away.
    pub clock_steps: u64,
    /// Bytes of contributions that were read where they lie in the memory of peers on this host.
    pub memory_read_bytes: u64,
    /// Bytes of sums and states that were copied from there, once.
    pub memory_taken_bytes: u64,
    /// Notices of such bytes that were of no use: wrong, too late, or no longer true.
    pub notices_refused: u64,
}

/// What the node ends with.
#[derive(Clone, Debug, PartialEq)]
pub struct Final {
    /// Version held.
    pub version: Version,
    /// Digest of its master state.
    pub digest: Digest,
    /// float(G): what to add to the common start.
    pub state: Vec<f32>,
    /// As in the last progress.
    pub progress: Progress,
}
