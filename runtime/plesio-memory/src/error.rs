//! What can go wrong with memory: at start (the arena), per access, and in the ring.

use core::fmt;
use std::io;

use crate::SlotState;

/// The arena cannot be made. Nothing is left behind: no name, no mapping.
#[derive(Debug)]
#[non_exhaustive]
pub enum ArenaError {
    /// The plan has no region, a region of no bytes, one above 4 GiB, or more than 65,535 of them.
    Plan {
        /// Which rule the plan breaks.
        rule: &'static str,
    },
    /// The plan needs more than the declared budget.
    Budget {
        /// Bytes that the regions need, pages rounded up.
        needed_bytes: u64,
        /// Bytes that may be used.
        budget_bytes: u64,
    },
    /// The machine, or the control group, has not that much left.
    Memory {
        /// Bytes that the regions need.
        needed_bytes: u64,
        /// Bytes that can be had.
        available_bytes: u64,
    },
    /// The kernel refused a step.
    System {
        /// The system call.
        step: &'static str,
        /// Bytes asked for.
        bytes: u64,
        /// Its answer.
        cause: io::Error,
    },
}

impl fmt::Display for ArenaError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Plan { rule } => write!(f, "arena: {rule}; fix the list of regions"),
            Self::Budget { needed_bytes, budget_bytes } => write!(
                f,
                "arena: {needed_bytes} bytes needed, {budget_bytes} allowed; raise the memory budget or train fewer \
                 elements"
            ),
            Self::Memory { needed_bytes, available_bytes } => write!(
                f,
                "arena: {needed_bytes} bytes needed, {available_bytes} available; free memory, raise the container's \
                 limit or train fewer elements"
            ),
            Self::System { step, bytes, cause } => write!(
                f,
                "arena: {step} of {bytes} bytes failed: {cause}; free memory or raise the container's limit"
            ),
        }
    }
}

impl std::error::Error for ArenaError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::System { cause, .. } => Some(cause),
            _ => None,
        }
    }
}

/// Some bytes may not be touched now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum AccessError {
    /// The span leaves its region, or there is no such region; the span is wrong.
    Range,
    /// The slice is not as long as the span.
    Length,
    /// Somebody else holds the region in a way that excludes this access; try again when it is returned.
    Busy,
    /// The memory is mapped for reading only.
    ReadOnly,
    /// The offset is not a multiple of the word's size.
    Alignment,
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Range => "arena access: the span leaves its region; check region, offset and length",
            Self::Length => "arena access: slice and span differ in length; make them equal",
            Self::Busy => "arena access: the region is held by somebody else; try again when it is returned",
            Self::ReadOnly => "arena access: mapped for reading only; ask whoever owns it to write",
            Self::Alignment => "arena access: a word's offset is a multiple of its size; correct it",
        })
    }
}

impl std::error::Error for AccessError {}

/// The ring refuses a command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum RingError {
    /// Depth must be a power of two in 2..=16, the length at least one element, the regions those of the plan.
    Shape,
    /// The arena refused the ring's regions.
    Access(AccessError),
    /// No slot has this index.
    NoSlot,
    /// The slot is in a state that does not allow the command.
    State(SlotState),
    /// The worker is adding to this slot at this moment; poll again.
    Merging,
    /// The slot is no longer in this holder's hands; what was read of it since is worth nothing.
    Revoked,
    /// The socket or a reader still holds the slot's bytes; drop that and repeat.
    StillRead,
}

impl fmt::Display for RingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shape => f.write_str("ring: depth must be 2, 4, 8 or 16 and a slot at least one element"),
            Self::Access(cause) => write!(f, "ring: its regions cannot be taken: {cause}"),
            Self::NoSlot => f.write_str("ring: no slot has this index; use the index of a `SlotInfo`"),
            Self::State(state) => write!(f, "ring: a slot that is {state:?} does not allow this command"),
            Self::Merging => f.write_str("ring: the worker is adding to this slot; poll again"),
            Self::Revoked => {
                f.write_str("ring: the slot was taken back from this holder; forget it and take another")
            }
            Self::StillRead => {
                f.write_str("ring: the slot's bytes are still being read; finish the read first")
            }
        }
    }
}

impl std::error::Error for RingError {}

impl From<AccessError> for RingError {
    fn from(cause: AccessError) -> Self {
        Self::Access(cause)
    }
}
