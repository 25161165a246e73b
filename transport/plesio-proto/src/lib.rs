//! Pure. The reliable datagram machine between two nodes: messages of known length go into windows posted
//! ahead, in chunks that may arrive in any order, each placed exactly once.
//!
//! ```text
//!  sender                                     receiver
//!  handle_send ─ Outbox ─ poll_transmit ──DATA──▶ place ─ handle_datagram ─ Windows ─▶ Event::Received
//!      ▲            │ next chunk                        │ packet number
//!   Delivered ◀── Flight ◀── handle_datagram ◀──ACK── Arrivals ◀┘
//! ```
//!
//! Silence is asked about: a PING names a message and carries a question's number in `chunk`; its ACK tells what
//! arrived, and in `chunk` which question it answers and, in the lowest bit, whether a window takes that message. So
//! nothing is sent again because somebody was slow, and nothing at all to a window that is not posted.
//!
//! [`Connection`] holds both directions for one peer and one session. It knows spans, never bytes; the
//! shell reads payload straight to where [`Connection::place`] says, checks it, and reports it.
#![cfg_attr(not(test), no_std)]
#![forbid(unsafe_code)]

extern crate alloc;
#[cfg(test)]
extern crate std;

mod answers;
mod arrivals;
mod bits;
mod config;
mod congestion;
mod connection;
mod delivery;
mod error;
mod flight;
mod granter;
mod outbox;
mod pacer;
mod rtt;
mod search;
mod stats;
mod transmit;
mod windows;

pub use config::{Config, Grants};
pub use congestion::{Congestion, CongestionController, Credit, RateDelay, RateSample, Report};
pub use connection::{Connection, Event};
pub use error::{ConfigError, Failure, PostError, Refused, SendError};
pub use granter::{Demand, Granter, Turn};
pub use stats::Stats;
pub use transmit::{Control, Next, SEGMENTS_MAX, Train, Transmit};
