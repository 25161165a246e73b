//! What the machine says: messages with their addressees, and events in the order to act in.

use crate::weights::Part;
use alloc::vec::Vec;
use plesio_wire::value::{Manifest, Value, View};
use plesio_wire::{Ballot, Digest, Frame, LogIndex, MemberSet, NodeKey, SlotSeq, Version};

/// A slot of this node: frozen and announced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OwnSlot {
    /// Its number; rises by one, never reused.
    pub seq: SlotSeq,
    /// Version its work started from.
    pub base: Version,
    /// Frame it is aimed at.
    pub target: Frame,
    /// Local steps in it.
    pub n_steps: u32,
    /// Digest of its whole content.
    pub digest: Digest,
}

/// Who gets a message.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum To {
    /// Every member of the view but this one.
    All,
    /// Every member of the view but this one, and the registered joiners.
    AllAndObservers,
    /// One node: a member, a joiner, or a member removed not long ago.
    One(NodeKey),
}

/// What a value is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[expect(missing_docs, reason = "the kinds of the log")]
pub enum Kind {
    Manifest,
    Seal,
    View,
}

impl Kind {
    pub(crate) const fn of(value: &Value) -> Self {
        match value {
            Value::Manifest(_) => Self::Manifest,
            Value::Seal(_) => Self::Seal,
            Value::View(_) => Self::View,
        }
    }
}

/// Why a node commits nothing any more.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Cause {
    /// An element of the state left the range of 64 bits.
    Overflow,
    /// Members hold different bits and no quorum agrees, or this one's went wrong again and again.
    Divergence,
}

/// The proof on which an announced slot goes back into the uncommitted mass (R23).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum FoldReason {
    /// Its entry was dropped with its contributor.
    Dropped,
    /// Listed nowhere, and too stale ever to be.
    Stale,
    /// Listed nowhere, and its admission has ended.
    AdmissionEnded,
    /// It was never announced: this node is no member, or the cut broke a rule.
    NotAnnounced,
}

/// Something to act on or to write down.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
#[expect(
    clippy::large_enum_variant,
    reason = "moved once, from a short queue; views are rare and manifests not much smaller"
)]
pub enum Event {
    /// A MANIFEST is decided: owners sum their range and distribute it to members and observers.
    Open {
        /// Stamp of the result shards (R10).
        context: LogIndex,
        /// The version it will become.
        version: Version,
        /// What is summed.
        manifest: Manifest,
    },
    /// A VIEW is decided while a version is open (R16): everything is recomputed in the new context.
    Reopen {
        /// New stamp; older shards are void.
        context: LogIndex,
        /// The version, as before.
        version: Version,
        /// The remaining entries, members numbered as in the new view, weights as before.
        manifest: Manifest,
        /// Whose entries were dropped, numbered as in the old view.
        dropped: MemberSet,
    },
    /// A member lacks result shards whose owner cannot send them (R17).
    Serve {
        /// Who lacks them.
        to: NodeKey,
        /// Their stamp.
        context: LogIndex,
        /// Which ones.
        shards: MemberSet,
    },
    /// A SEAL is decided: the version is final.
    Sealed {
        /// Index of the SEAL.
        index: LogIndex,
        /// The version.
        version: Version,
        /// All shards and the version before are here: apply now. Else keep the shards: if the missing ones come
        /// before the next entry, the same event follows with true; if not, [`Event::Fetch`].
        complete: bool,
    },
    /// A SEAL is decided, all shards are here, and the state before them is on its way: keep the sum of their results
    /// until it has come.
    Gather {
        /// The version.
        version: Version,
        /// It is the first after that state: what was gathered before is void.
        first: bool,
    },
    /// Fetch the snapshot of at least this version from that node.
    Fetch {
        /// Source; another one follows when it fails.
        from: NodeKey,
        /// Oldest version that helps.
        version: Version,
    },
    /// A view is in force: windows are laid anew, frozen slots sent to the new owners, HAVE starts empty.
    View {
        /// Index of the VIEW.
        index: LogIndex,
        /// The view.
        view: View,
        /// Members admitted.
        added: Vec<NodeKey>,
        /// Members gone.
        removed: Vec<NodeKey>,
    },
    /// The slot is in a final version: free it (R22).
    Release {
        /// Which.
        seq: SlotSeq,
        /// How much of it the version took: the rest is uncommitted again.
        part: Part,
    },
    /// The slot can never be listed any more: its content goes back into the uncommitted mass.
    Fold {
        /// Which.
        seq: SlotSeq,
        /// On what proof.
        reason: FoldReason,
    },
    /// Nobody knows any more what became of the slot; its mass is counted as lost.
    Lost {
        /// Which.
        seq: SlotSeq,
    },
    /// An own slot is listed: input of the phase corrector.
    Listed {
        /// Which.
        seq: SlotSeq,
        /// In the manifest of this version.
        version: Version,
        /// How early it was complete, Q1.14 frames.
        margin: i16,
        /// Versions between its base and the close.
        staleness: u16,
    },
    /// A view without this node is in force though it did not leave: go on as an observer.
    Excluded {
        /// Index of the VIEW.
        index: LogIndex,
    },
    /// This node has left and is needed no more (R18).
    Left,
    /// The members that are not suspected are no quorum: nothing can be decided.
    NoQuorum {
        /// How many are not suspected.
        live: usize,
        /// How many there are.
        members: usize,
    },
    /// There is a quorum again.
    Quorum,
    /// Another member says other bits of a version than a quorum, this node among it. Said once until it does not any
    /// more; the mesh goes on.
    Diverged {
        /// Which version.
        version: Version,
        /// Who differs.
        peer: NodeKey,
        /// Digest here.
        ours: Digest,
        /// Digest there.
        theirs: Digest,
    },
    /// A member proposed two values in one ballot. Said once for each such pair; a view without it is proposed.
    Conflict {
        /// Who.
        peer: NodeKey,
        /// What it said.
        evidence: crate::Evidence,
    },
    /// A quorum says other bits of a version than this node, which gives its state up and fetches theirs.
    Resync {
        /// Which version.
        version: Version,
    },
    /// This node commits nothing any more; it answers those who ask for what it holds. An operator has to decide. With
    /// [`Cause::Divergence`] it may be this node alone, which then leaves.
    Stopped {
        /// Newest version concerned.
        version: Version,
        /// Why.
        cause: Cause,
    },
    /// Another node was started with other parameters: neither can work in the other's mesh. Said once.
    Differs {
        /// Who, where that is known.
        peer: Option<NodeKey>,
        /// What differs, in words.
        what: &'static str,
    },
    /// No version was opened in this frame.
    Void {
        /// Which.
        frame: Frame,
    },
    /// The frame period is another one from the close of `frame` on, as the view in force says (R26).
    Period {
        /// The last frame of the period before.
        frame: Frame,
        /// P before, nanoseconds.
        before_ns: u64,
        /// P now, nanoseconds.
        period_ns: u64,
    },
    /// Trace: this node asks what was accepted.
    Queried {
        /// Index.
        index: LogIndex,
        /// Ballot.
        ballot: Ballot,
    },
    /// Trace: this node proposes.
    Proposed {
        /// Index.
        index: LogIndex,
        /// Ballot.
        ballot: Ballot,
        /// What.
        kind: Kind,
    },
    /// Trace: an index is learnt.
    Decided {
        /// Index.
        index: LogIndex,
        /// Ballot, where this node counted.
        ballot: Option<Ballot>,
        /// What.
        kind: Kind,
    },
}

/// What the machine refused or repeated; each only ever rises.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Counters {
    /// Messages from nodes that have no say in this view.
    pub foreign_total: u64,
    /// Messages with a field out of range.
    pub field_total: u64,
    /// Proposals that break a rule of the log.
    pub rule_total: u64,
    /// Ballots too far ahead of the clock.
    pub far_ballot_total: u64,
    /// READY or HAVE of another view.
    pub other_view_total: u64,
    /// Messages sent again.
    pub resent_total: u64,
    /// Attempts opened with QUERY.
    pub takeover_total: u64,
    /// Digests of members that say other bits than a quorum.
    pub deviant_total: u64,
    /// States given up because a quorum says other bits.
    pub resync_total: u64,
    /// Slots held back by the NORM guard.
    pub norm_total: u64,
    /// Contributions whose data had a shape that the view does not have.
    pub unfit_total: u64,
    /// Second values in a ballot that had one.
    pub conflict_total: u64,
    /// HAVEs of slots that nobody announced within two frames.
    pub unknown_total: u64,
    /// Refusals of others that reached this node.
    pub nacked_total: u64,
    /// Messages dropped because the outbox was full.
    pub outbox_full_total: u64,
}
