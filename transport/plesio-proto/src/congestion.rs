//! How much may be in flight and how fast it leaves: the question put to a congestion controller, and what it is told.
//!
//! A controller knows payload, time and the path's answers; no messages, no credit and no packets. The connection asks
//! [`window_bytes`](CongestionController::window_bytes) before every datagram and
//! [`rate`](CongestionController::rate) before every train, and tells what each acknowledgement brought.

mod base;
mod credit;
mod loss;
mod rate_delay;

pub use credit::Credit;
pub use rate_delay::RateDelay;
pub(crate) use rate_delay::per_second;

use alloc::boxed::Box;
use core::fmt;
use plesio_wire::Instant;

/// Which controller a connection has.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Congestion {
    /// [`Credit`]: for loopback, where nothing queues but the receiver's buffer.
    #[default]
    Credit,
    /// [`RateDelay`]: for every real path.
    RateDelay,
}

impl Congestion {
    pub(crate) fn controller(self, rtt_initial_ns: u64) -> Box<dyn CongestionController> {
        match self {
            Self::Credit => Box::new(Credit),
            Self::RateDelay => Box::new(RateDelay::new(rtt_initial_ns)),
        }
    }
}

/// What one acknowledgement, or one silence, told about the path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Report {
    /// When.
    pub now: Instant,
    /// Payload newly known to have arrived.
    pub acked_bytes: u64,
    /// Payload newly given up.
    pub lost_bytes: u64,
    /// Payload given up before that turned out to have arrived.
    pub late_bytes: u64,
    /// What messages are cut by now.
    pub chunk_bytes: u32,
    /// Payload still in flight.
    pub in_flight_bytes: u64,
    /// Payload known to have arrived since the start.
    pub delivered_bytes: u64,
    /// Packets newly known to have arrived.
    pub packets: u64,
    /// Sum of their round trips, the time included that the peer held its acknowledgement back.
    pub rtt_sum_ns: u64,
    /// How fast payload arrived.
    pub rate: Option<RateSample>,
}

/// How fast payload arrived between two acknowledgements, as the delivery-rate estimation of
/// draft-cheng-iccrg-delivery-rate-estimation has it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RateSample {
    /// Payload bytes per second.
    pub rate: u64,
    /// There was too little to send, or too little credit: the path could have carried more.
    pub limited: bool,
}

/// Decides window and rate of one direction of one connection.
pub trait CongestionController: fmt::Debug + Send {
    /// Learns from an acknowledgement, or from packets given up.
    fn handle_report(&mut self, report: &Report);

    /// Payload that may be in flight.
    fn window_bytes(&self) -> u64;

    /// Payload bytes per second at which trains leave; `None`: as fast as they can.
    fn rate(&self) -> Option<u64>;
}
