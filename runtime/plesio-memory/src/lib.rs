//! Unsafe core. The memory that tensor bytes live in: one sealed arena per node, laid out at start, and the elastic
//! ring between the worker that computes and the node that sends.
//!
//! Everything above passes a [`Span`](plesio_wire::Span). Who may touch the bytes is decided per region by an access
//! word: idle, shared by readers, or exclusive to one lease. A conflicting access is a typed error, never a race.
//!
//! A [`Segment`] is memory that processes of one user share; it goes from one to the other through a [`Door`].
//!
//! Unsafe sits in `backing.rs` (the test heap), `mapping.rs` (maps, locks, huge pages), `arena.rs` (slices under the access
//! word), `segment.rs` (atomics over shared memory), `ring/header.rs` (the atomic slot header) and `ring/hand_over.rs` (leases
//! that go from one end of the ring to the other).
#![deny(unsafe_code)]

mod arena;
mod available;
mod backing;
mod door;
mod error;
mod foreign;
mod ladder;
mod lease;
mod mapping;
mod plan;
mod ring;
mod segment;
mod sharing_error;
mod sync;

pub use arena::Arena;
pub use door::{Door, Handed, Offer, Tether, Visit, doors_of_user, knock, sweep, wait};
pub use error::{AccessError, ArenaError, RingError};
pub use foreign::{Foreign, Generation};
pub use ladder::{ArenaReport, Lock};
pub use lease::{Filling, InFlight, Lease, Shared};
pub use plan::{ArenaPlan, PAGE_BYTES, RingPlan};
pub use ring::{
    Announced, Consumer, CutMeta, CutOutcome, ELEMENT_MAX, ELEMENT_MIN, Fate, Held, Holder, Level, Occupancy,
    Producer, RingCounters, SlotInfo, SlotState, ring, shared_ring,
};
pub use segment::{Access, Segment, SegmentPlan};
pub use sharing_error::{AttachError, DoorError, KnockError};
