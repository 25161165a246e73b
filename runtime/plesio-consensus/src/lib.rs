//! Pure. The plesiochronous consensus machine: frames, manifests, seals, views, the log they stand in, and the
//! ledger that says which slot was listed where.
//!
//! ```text
//!            READY, HAVE            MANIFEST decided        all shards here          SEAL decided
//!   slots ----------------> close ------------------> open ------------------> SEAL ---------------> final
//!                             |                        |  VIEW without the dead: new context, entries dropped
//!                             +--- VIEW (join, leave) -+
//! ```
//!
//! [`Consensus`] takes the time, messages and reports of the data plane in, and hands messages and [`Event`]s out.
//! It never touches payload: a slot is a number and a digest here, a result shard is a bit in a set.
//!
//! | file | knows |
//! |---|---|
//! | `log` | what the learnt prefix means, and which value may follow it (R3, R9, R14 to R16, R25, R26) |
//! | `round` | one index: promise, accepted value, attempt, counting (R2, R4 to R7) |
//! | `ledger` | which slots of which admission were listed, and what became of them |
//! | `offers` | which slots are ready and which owners have them (R0) |
//! | `own` | this node's announced slots until release or fold (R21 to R24) |
//! | `members` | verdicts, joiners, leavers, HOLD (R15, R18, R19) |
//! | `sharing` | what members say they can do, and the shares that a view states for it (R25) |
//! | `period` | when the frame period follows the links and the steps (R26) |
//! | `restart` | who begins a mesh again whose log has ended, and from what (section 7) |
//! | `timing` | mesh time, frames and their closes |
//! | `machine` | the whole: inputs, pacing of proposals, the open version, catching up |
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod config;
mod event;
mod ledger;
mod log;
mod machine;
mod members;
mod offers;
mod own;
mod period;
mod quorum;
mod restart;
mod round;
mod sharing;
mod snapshot;
mod timing;
mod weights;

#[cfg(test)]
mod tests;

pub use config::{Config, ConfigError, Start};
pub use event::{Cause, Counters, Event, FoldReason, Kind, OwnSlot, To};
pub use machine::conduct::Evidence;
pub use machine::{Consensus, Open};
pub use members::roster_digest;
pub use period::Report;
pub use quorum::is_quorum;
pub use restart::{Founding, RECORD_BYTES_MAX, Record, Restart, Restarted, Returner, generation};
pub use snapshot::{Installed, SNAPSHOT_CUT_BYTES_MAX, SnapshotCut, SnapshotError};
pub use weights::{Lambda, Part, WeightMode, weights};
