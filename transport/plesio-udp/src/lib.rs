//! Unsafe core. Datagram sockets: bulk payload between an arena and the network with no copy in user space, and the
//! sideband's time-stamped socket.
//!
//! ```text
//!  Endpoint          lanes, placement, checks, counters: the same code for every backend
//!    Engine          run these calls, wait for these sockets:  io_uring  |  mio
//!  TimestampedSocket its own descriptor, its own thread
//! ```
//!
//! Nothing here decides about protocol: which chunk goes where is asked ([`DatagramSink::place`]), what arrives is
//! handed up, and what the kernel refuses is said.
//!
//! Unsafe sits in `message.rs` (the buffers a call names, and the calls), `uring.rs` and `uring/buffers.rs` (submitting calls, and memory shared with the kernel) and
//! `option.rs` (one socket option without a safe interface).
#![deny(unsafe_code)]

mod address;
mod backend;
mod bounce;
pub mod clock;
mod control;
mod cores;
mod drain;
mod endpoint;
mod engine;
mod error;
mod io;
mod keys;
mod message;
mod mio_engine;
mod option;
mod receive;
mod slice;
mod socket;
mod timestamped;
mod train;
mod uring;
mod wait;
mod waker;

pub use backend::{Opened, Probe, Requested, Tier, open, probe};
pub use error::{IoError, OpenError, SendError};
pub use io::{
    Counters, DatagramIo, DatagramSink, OPENERS_MAX, Peer, Placement, Protection, Ready, STRANGER_BYTES_MAX,
    Sent, SocketConfig,
};
pub use slice::shorten_slice;
pub use socket::refuse_off_host;
pub use timestamped::{Received, Report, StampKind, TimestampedSocket};
pub use train::SEGMENTS_MAX;
pub use wait::{Gaps, WaitMode, Waiter};
pub use waker::Waker;
