//! Pure. What time it is on the mesh, when to cut, and how far ahead to aim.
//!
//! [`Clock`] estimates the mesh clock from two-way exchanges with a few neighbours; [`Corrector`] turns the margins
//! of committed slots into a lead and a stride; [`Aim`] and [`Cutter`] apply both in the worker's step loop.
//! Safety never depends on any of it: a wrong clock costs margin, not agreement (P9).
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod aim;
mod clock;
mod corrector;
mod fusion;
mod mesh_clock;
mod tempo;
mod window;

pub use aim::{Aim, Cutter};
pub use clock::{BadExchange, Clock, ClockCounters, ClockEvent, ClockTransmit, StampKey};
pub use corrector::{ConfigError, Corrector, CorrectorConfig, State, Transition};
pub use mesh_clock::{ClockState, MeshClock};
pub use tempo::{Pulse, Tempo};

/// Largest slew of the mesh clock relative to its estimated rate (I10), in parts per billion.
pub const SLEW_PPB_MAX: i64 = 500_000;
/// Largest rate estimate that is believed, in parts per billion.
pub const RATE_PPB_MAX: i64 = 2_000_000;
