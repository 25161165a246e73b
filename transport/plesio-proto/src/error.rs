//! What can be wrong: with a configuration, with a call, and with a datagram.

use core::fmt;
use plesio_wire::DecodeError;
use plesio_wire::data::Kind;

/// Why a configuration is not one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConfigError {
    /// Chunk size out of range or not a multiple of 64.
    Chunk {
        /// As given.
        chunk_bytes: u32,
    },
    /// More channels than a packet number tells apart.
    Channel {
        /// As given.
        channel: u32,
    },
    /// A send window of zero bytes.
    Window,
    /// Credit below one chunk would never let a chunk through.
    Budget {
        /// As given.
        receive_budget_bytes: u64,
    },
    /// Queue length out of range.
    Messages {
        /// As given.
        messages_max: usize,
    },
    /// Window table size out of range.
    Windows {
        /// As given.
        windows_max: usize,
    },
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunk { chunk_bytes } => {
                write!(f, "chunk of {chunk_bytes} bytes: use a multiple of 64 from 64 to 65408")
            }
            Self::Channel { channel } => write!(f, "channel {channel}: use 0 to 4194303"),
            Self::Window => f.write_str("send window of 0 bytes: use at least one chunk"),
            Self::Budget { receive_budget_bytes } => {
                write!(f, "receive budget of {receive_budget_bytes} bytes: use at least one chunk")
            }
            Self::Messages { messages_max } => {
                write!(f, "queue of {messages_max} messages: use 1 to 255")
            }
            Self::Windows { windows_max } => {
                write!(f, "table of {windows_max} windows: use 1 to 65536")
            }
        }
    }
}

impl core::error::Error for ConfigError {}

/// Why a message was not queued.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SendError {
    /// The peer is gone; wait for the next membership event.
    Departed,
    /// As many messages wait as may; retry after the next `Delivered` or abort one.
    WindowFull {
        /// The queue's length.
        messages_max: usize,
        /// Payload in flight.
        in_flight_bytes: u64,
        /// Payload that may be in flight.
        window_bytes: u64,
    },
    /// The deadline has passed already; give the message more time, or do not send it.
    DeadlineExceeded,
    /// A message must have at least one byte.
    Empty,
    /// The span ends behind the largest offset a region can have.
    Range,
    /// A message of this handle and sequence is queued already; abort it first.
    Busy,
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Departed => f.write_str("peer departed: wait for the next membership event"),
            Self::WindowFull { messages_max, in_flight_bytes, window_bytes } => write!(
                f,
                "send queue full at {messages_max} messages, {in_flight_bytes} of {window_bytes} bytes in flight: \
                 retry after a delivery"
            ),
            Self::DeadlineExceeded => f.write_str("deadline passed already: give the message more time"),
            Self::Empty => f.write_str("empty message: send at least one byte"),
            Self::Range => f.write_str("span ends behind its region: cut it to the region"),
            Self::Busy => f.write_str("message queued already: abort it first"),
        }
    }
}

impl core::error::Error for SendError {}

/// Why a message that was queued, or a window that was posted, came to nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Failure {
    /// The peer is gone; wait for the next membership event.
    Departed,
    /// Its deadline passed; what arrived of it is never shown to anybody.
    DeadlineExceeded,
    /// This side ended the connection.
    Aborted,
    /// The peer refused the connection.
    Refused {
        /// As in BYE.
        reason: u16,
    },
    /// This side's packet numbers are used up; go on under new keys or on another channel.
    Exhausted,
}

impl Failure {
    /// What a goodbye with this reason means for what was under way.
    pub(crate) const fn from_reason(reason: u16) -> Self {
        match reason {
            BYE_LEAVING | BYE_RESTARTING => Self::Departed,
            reason => Self::Refused { reason },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Departed => f.write_str("peer departed: wait for the next membership event"),
            Self::DeadlineExceeded => {
                f.write_str("deadline exceeded: send it again with more time, or not at all")
            }
            Self::Aborted => f.write_str("connection ended on this side: open another one"),
            Self::Refused { reason } => {
                write!(f, "peer refused (reason {reason}): check its view of this node")
            }
            Self::Exhausted => f.write_str("packet numbers used up: open a connection on another channel"),
        }
    }
}

impl core::error::Error for Failure {}

const BYE_LEAVING: u16 = 0;
const BYE_RESTARTING: u16 = 1;

/// Why a window was not posted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum PostError {
    /// The peer is gone.
    Departed,
    /// A window must have at least one byte.
    Empty,
    /// The span ends behind the largest offset a region can have.
    Range,
    /// The table of handles is full; post on a handle used before.
    TooMany {
        /// The table's size.
        windows_max: usize,
    },
    /// The message of this sequence was completed last, or refused in a window of another place; it will not come again.
    Done,
    /// The deadline has passed already.
    DeadlineExceeded,
}

impl fmt::Display for PostError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Departed => f.write_str("peer departed: wait for the next membership event"),
            Self::Empty => f.write_str("empty window: post at least one byte"),
            Self::Range => f.write_str("span ends behind its region: cut it to the region"),
            Self::TooMany { windows_max } => {
                write!(f, "{windows_max} window handles in use: post on one used before")
            }
            Self::DeadlineExceeded => f.write_str("deadline passed already: give the window more time"),
            Self::Done => f.write_str("sequence completed, or refused elsewhere: post the next one"),
        }
    }
}

impl core::error::Error for PostError {}

/// Why a datagram changed nothing, or not what its sender meant.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Refused {
    /// The connection has ended.
    Departed,
    /// Its receiver index is not ours.
    Receiver,
    /// Its body is not what its kind says.
    Malformed(DecodeError),
    /// A kind that means nothing to this machine.
    Kind(Kind),
    /// Its packet number belongs to another kind or channel, or lies too far ahead.
    Packet,
    /// Its packet number was given up, or its sequence is older than what the window accepts.
    Stale,
    /// It was received before; it is acknowledged again where that helps.
    Duplicate,
    /// No window for it yet; its sender is told once there is one.
    Unposted,
    /// Its chunk lies outside the window, or its length is not a chunk's.
    Range,
    /// It claims that packets arrived which were never sent.
    Unsent,
    /// It goes beyond the credit that its sender was given, or gives more than there can be.
    Credit,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Departed => f.write_str("connection has ended"),
            Self::Receiver => f.write_str("receiver index of another session"),
            Self::Malformed(cause) => write!(f, "control body: {cause}"),
            Self::Kind(kind) => write!(f, "unexpected kind {kind:?}"),
            Self::Packet => f.write_str("packet number out of range"),
            Self::Stale => f.write_str("stale packet or sequence"),
            Self::Duplicate => f.write_str("received before"),
            Self::Unposted => f.write_str("no window posted"),
            Self::Range => f.write_str("chunk outside its window"),
            Self::Credit => f.write_str("beyond the credit given"),
            Self::Unsent => f.write_str("acknowledges packets never sent"),
        }
    }
}

impl core::error::Error for Refused {}
