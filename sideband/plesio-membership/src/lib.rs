//! Pure. Who is alive: beats out, silence in, and exclusion only when a quorum hears the same silence.
//!
//! ```text
//!   heard --500 ms silent--> suspect --1,000 ms silent and a quorum suspects it--> dead
//!     ^                         |                                                   |
//!     +-------- a beat ---------+---------------------- a beat ---------------------+
//! ```
//!
//! Where a process ended and its host says so (port unreachable), four silent beats are enough for both.
//!
//! Frames stop waiting for a suspect at once; only a dead one is proposed for removal. A node that was itself
//! stopped excuses everybody for as long, and one that suspects more than half of its view knows that it is the
//! sick one and accuses nobody (F3, T14).
//!
//! And what the operators ordered: [`Halt`] knows whether the mesh is to stand still, and that nobody undoes it alone.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod detector;
mod halt;
mod operators;
mod quorum;

pub use detector::{BEAT_NS, BeatKind, Event, Membership};
pub use halt::{Bearer, Given, Halt, OrderCounters, SEQUENCE_MAX, Target};
pub use operators::{Operators, OperatorsError, Verify};
pub use quorum::{is_quorum, weight};
