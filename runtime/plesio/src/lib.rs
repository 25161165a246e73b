//! Shell. The node: every machine composed, the threads that drive them, and the worker's way in.
//!
//! [`engine::Engine`] and [`store::Store`] are pure of sockets and threads; the simulator drives them too. [`Node`]
//! binds sockets and memory, then runs: one thread for the sideband, one for everything else, and the caller's own
//! for training through [`Worker`].
#![forbid(unsafe_code)]

pub mod device;
pub mod engine;
mod event;
mod group;
mod mailbox;
mod node;
mod sealing;
pub mod store;
mod worker;

pub use device::{AnyDevice, DeviceChoice, DeviceError, OpenedDevice};
pub use engine::{Period, Revival, Rules, Steering};
pub use event::{
    Contribution, Counters, Entering, Final, Lateness, NodeEvent, Progress, StepCounters, TempoReport, Way,
    What,
};
pub use group::{Excluder, GroupError, Narrowing, NetworkGroup, NetworkPlan, SharedGroup, SharedPlan};
pub use node::{
    Control, DataPath, DiskState, Found, HaltConfig, Hello, Identity, Listens, Node, NodeConfig, NodeError,
    NodeThread, Protection, Running, Seed, Sharing, StateConfig, StateError, Trust,
};
pub use plesio_consensus::{Cause, FoldReason, Kind, Lambda, WeightMode, generation};
pub use plesio_kernels::{Codec, Nesterov, Outer};

pub use plesio_sideband::{
    Given, HaltState, Operators, OperatorsError, OrderCounters, Pace, RelayCounters, SEQUENCE_MAX,
};
pub use worker::{StepOutcome, Stopped, Worker};
