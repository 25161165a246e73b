//! What can go wrong with a group.

use core::fmt;
use plesio_collective::{CallError, Ranks};
use plesio_memory::{AccessError, ArenaError, AttachError, DoorError, KnockError};
use plesio_session::{Refusal, TicketError};
use plesio_udp::OpenError;
use std::io;
use std::time::Duration;

/// A group that cannot be formed, or a call without a result.
#[derive(Debug)]
#[non_exhaustive]
pub enum GroupError {
    /// The plan cannot be.
    Plan {
        /// Which rule it breaks.
        rule: &'static str,
    },
    /// The own ticket admits this rank to no group.
    Ticket(TicketError),
    /// There is no session with some ranks, where everything is sealed; the group is broken.
    Unmet {
        /// Which ones.
        ranks: Ranks,
        /// After how long.
        after: Duration,
        /// Why this rank refused somebody's handshake meanwhile, if it did.
        refusal: Option<Refusal>,
    },
    /// The own segment cannot be made.
    Arena(ArenaError),
    /// The place where others would knock cannot be made.
    Door(DoorError),
    /// The system gives no thread that answers those who knock.
    Thread(io::Error),
    /// A rank did not open.
    Knock {
        /// Which one.
        rank: u8,
        /// Why.
        cause: KnockError,
    },
    /// What a rank handed over is not what the group agreed on.
    Attach {
        /// Which one.
        rank: u8,
        /// Why.
        cause: AttachError,
    },
    /// Not everybody asked for this rank's segment in time.
    Alone {
        /// How many did.
        came: usize,
        /// How many there are beside this rank.
        expected: usize,
    },
    /// The data port cannot be opened.
    Open(OpenError),
    /// The data port broke.
    Port(String),
    /// Bytes that do not lie in this rank's tensors.
    Range,
    /// Memory that cannot be touched like that.
    Access(AccessError),
    /// The ranks did not agree; every one of them is told the same, and the group goes on.
    Call(CallError),
    /// Ranks that live did not act in time; the group is broken.
    Late {
        /// Which ones.
        ranks: Ranks,
        /// After how long.
        after: Duration,
    },
    /// An earlier call broke the group, or it has made all the calls it can.
    Broken,
}

impl fmt::Display for GroupError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan { rule } => write!(f, "group: {rule}; fix its plan"),
            Self::Ticket(cause) => write!(f, "group: {cause}"),
            Self::Unmet { ranks, after, refusal } => {
                write!(f, "group: no session within {} ms with rank", after.as_millis())?;
                for rank in ranks.iter() {
                    write!(f, " {rank}")?;
                }
                match refusal {
                    Some(refusal) => write!(f, "; a handshake was refused: {refusal}"),
                    None => f.write_str(
                        ": no handshake was answered; give all ranks the same session, pool key and ids, and start each of them",
                    ),
                }
            }
            Self::Arena(cause) => write!(f, "group: its memory: {cause}"),
            Self::Door(cause) => write!(f, "group: its door: {cause}"),
            Self::Thread(cause) => {
                write!(f, "group: no thread: {cause}; allow more (ulimit -u, pids.max of the cgroup)")
            }
            Self::Knock { rank, cause } => write!(f, "group: rank {rank} cannot be met: {cause}"),
            Self::Attach { rank, cause } => write!(f, "group: the memory of rank {rank} is refused: {cause}"),
            Self::Alone { came, expected } => write!(
                f,
                "group: {came} of {expected} other ranks came; start every rank of the group within its time limit"
            ),
            Self::Open(cause) => write!(f, "group: its port: {cause}"),
            Self::Port(cause) => write!(f, "group: its port broke: {cause}; form a new group"),
            Self::Range => f.write_str("group: these bytes leave the tensors; check offset and length"),
            Self::Access(cause) => write!(f, "group: {cause}"),
            Self::Call(cause) => write!(f, "{cause}"),
            Self::Late { ranks, after } => {
                write!(f, "group: no answer for {} ms from rank", after.as_millis())?;
                for rank in ranks.iter() {
                    write!(f, " {rank}")?;
                }
                f.write_str(
                    ", whose process lives; find out why it does not make the call, and form a new group",
                )
            }
            Self::Broken => {
                f.write_str("group: broken by an earlier call, or at its last call; form a new group")
            }
        }
    }
}

impl std::error::Error for GroupError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Ticket(cause) => Some(cause),
            Self::Unmet { refusal: Some(refusal), .. } => Some(refusal),
            Self::Arena(cause) => Some(cause),
            Self::Door(cause) => Some(cause),
            Self::Thread(cause) => Some(cause),
            Self::Knock { cause, .. } => Some(cause),
            Self::Attach { cause, .. } => Some(cause),
            Self::Access(cause) => Some(cause),
            Self::Open(cause) => Some(cause),
            Self::Call(cause) => Some(cause),
            _ => None,
        }
    }
}
