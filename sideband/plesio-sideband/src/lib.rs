//! Shell. The sideband's socket and thread, and the machine they drive.
//!
//! [`Machine`] joins clock, membership and the gate for bad input; it reads no clock and no socket, so the
//! simulator drives the same one. [`Sideband`] is the thread that gives it a [`TimestampedSocket`] and a
//! [`LocalClock`], and decides nothing.
//!
//! [`TimestampedSocket`]: plesio_udp::TimestampedSocket
#![forbid(unsafe_code)]

mod clock;
mod counters;
mod directory;
mod guard;
mod keeper;
mod machine;
mod realtime;
mod record;
mod replay;
mod slots;
mod stamps;
mod thread;

pub use clock::{ClockSeam, LocalClock};
pub use counters::{Drops, RelayCounters, SidebandCounters};
pub use guard::KeyChange;
pub use machine::{
    Carried, Event, HaltState, Machine, MachineConfig, Pace, SendError, Status, Through, To, Transmit,
};
pub use plesio_membership::{Given, Halt, Operators, OperatorsError, OrderCounters, SEQUENCE_MAX};
pub use plesio_phase::{ClockCounters, MeshClock};
pub use record::{Record, RecordError};
pub use slots::{Contents, SlotFile, SlotsError, lock, publish};
pub use thread::{Bound, Obedience, Sideband, SidebandConfig, StartError};
