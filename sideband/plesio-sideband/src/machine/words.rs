//! What the machine is told and what it tells.

use super::relay::Through;
use plesio_phase::MeshClock;
use plesio_wire::sideband::{Beat, Message, Speeds};
use plesio_wire::{LogIndex, MemberIndex, MemberSet, NodeKey, Took, Version};
use std::net::SocketAddr;

/// To whom a message goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum To {
    /// The members of the view but me.
    All,
    /// [`To::All`] and the observers.
    Everyone,
    /// One member of the view.
    Member(MemberIndex),
    /// A member, an observer, or one who left lately.
    Node(NodeKey),
    /// Anybody: JOIN, and what answers it.
    Address(SocketAddr),
}

/// A message was not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SendError {
    /// Too many wait; drain `poll_transmit` first.
    QueueFull,
    /// No address is known for the node.
    UnknownNode,
}

impl core::fmt::Display for SendError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::QueueFull => "too many sideband messages wait; drain them first",
            Self::UnknownNode => "no sideband address is known for the node; give it a view or register it",
        })
    }
}

impl core::error::Error for SendError {}

/// What the node says about itself in its beats.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Status {
    /// Phase, Q32.32 frames.
    pub phase: i64,
    /// Fractional frequency offset.
    pub y_ppb: i32,
    /// Newest margin, Q16.16 frames.
    pub margin: i32,
    /// HOLD: final version held.
    pub version: u64,
    /// HOLD: first log index not learnt.
    pub index: u64,
    /// How early slots are cut.
    pub lead_us: u32,
    /// Smoothed step duration.
    pub step_us: u32,
    /// Smoothed steps per slot.
    pub steps_per_slot: u32,
    /// Slots that missed their frame.
    pub slips: u32,
    /// Slots folded or merged.
    pub folds: u32,
    /// The corrector's state.
    pub state: u8,
    /// Frames per slot; at least 1.
    pub stride: u8,
    /// Ring slots in use.
    pub fill: u8,
    /// Ring depth.
    pub depth: u8,
    /// What it can do, as measured.
    pub speeds: Speeds,
    /// How long its slots take to the last owner.
    pub transfer: Took,
    /// Whether the node is about to go.
    pub leaving: bool,
}

impl Default for Status {
    fn default() -> Self {
        Self {
            phase: 0,
            y_ppb: 0,
            margin: 0,
            version: 0,
            index: 0,
            lead_us: 0,
            step_us: 0,
            steps_per_slot: 0,
            slips: 0,
            folds: 0,
            state: plesio_wire::sideband::state::ACQUIRE,
            stride: 1,
            fill: 0,
            depth: 0,
            speeds: Speeds::default(),
            transfer: Took::default(),
            leaving: false,
        }
    }
}

/// A datagram to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transmit<'a> {
    /// Where to.
    pub to: SocketAddr,
    /// The datagram.
    pub bytes: &'a [u8],
    /// Give this back with the kernel's transmit stamp.
    pub id: Option<u32>,
    /// Stands for itself: where there are no keys for it, it goes unsealed.
    pub alone: bool,
    /// It does not go as it is: seal it for whom it is for, then send what [`Machine::enclose`](crate::Machine::enclose)
    /// makes of it.
    pub through: Option<Through>,
}

/// What happened.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
#[expect(clippy::large_enum_variant, reason = "events live in a bounded queue, and are moved once")]
pub enum Event {
    /// A message that is not for the clock or the beats.
    Message {
        /// Sender; `None`: a stranger's address.
        from: Option<NodeKey>,
        /// Where it came from.
        from_addr: SocketAddr,
        /// View number of its header.
        view: u32,
        /// Sender's index in that view.
        src: u16,
        /// Sequence of its header.
        sequence: u32,
        /// The message.
        message: Message,
    },
    /// What a node holds, from any of its beats.
    Hold {
        /// Who.
        from: NodeKey,
        /// View number of its header.
        view: u32,
        /// Final version held.
        version: Version,
        /// First log index not learnt; full beats only.
        index: Option<LogIndex>,
    },
    /// A full beat whose fields make sense.
    Beat {
        /// Who.
        from: NodeKey,
        /// The beat.
        beat: Beat,
    },
    /// Silent for 500 ms: do not wait for it.
    Suspect {
        /// Who.
        key: NodeKey,
    },
    /// Heard again.
    Recover {
        /// Who.
        key: NodeKey,
    },
    /// Silent for 1,000 ms, and a quorum suspects it: propose a view without it.
    Dead {
        /// Who.
        key: NodeKey,
    },
    /// The whole verdict, after each of the three above and each view.
    Liveness {
        /// View whose indices the sets use.
        view: u32,
        /// Not to be waited for.
        suspects: MemberSet,
        /// To be removed.
        dead: MemberSet,
        /// Whether we and those we hear weigh a quorum.
        quorum: bool,
    },
    /// What the beats of the view say of their senders, after each change and each view; this node is never named.
    States {
        /// View whose indices the sets use.
        view: u32,
        /// Without a mesh clock: nobody to wait for at a close.
        untimed: MemberSet,
        /// Without a quorum that it hears: nobody to wait for at all.
        detached: MemberSet,
    },
    /// We suspect more than half of the view: it is us.
    Sick {
        /// Whether it is so.
        sick: bool,
    },
    /// We were stopped: the round is lost.
    Late {
        /// For how long.
        late_ns: u64,
    },
    /// A member's beats say that it is about to go.
    Leaving {
        /// Who.
        key: NodeKey,
    },
    /// Keys were used by the peer for the first time; their index, for the machine of the sessions.
    Confirm {
        /// Receiver index of the keys on the data plane.
        local: u32,
    },
    /// A new line of the mesh clock.
    Clock(MeshClock),
    /// Whose clock defines mesh time.
    Reference {
        /// Who.
        key: Option<NodeKey>,
    },
    /// A clock outside the majority; not asked for 60 s.
    FalseTicker {
        /// Whose.
        key: NodeKey,
    },
}
