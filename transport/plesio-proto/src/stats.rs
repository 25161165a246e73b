//! Counters of one connection, since its start.

use plesio_wire::Instant;

/// What happened so far.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Stats {
    /// Smoothed round trip; `None` before the first sample.
    pub srtt_ns: Option<u64>,
    /// When anything of the peer's was last heard; the start before that.
    pub heard: Instant,
    /// Payload in flight now.
    pub in_flight_bytes: u64,
    /// Payload that may be in flight now.
    pub window_bytes: u64,
    /// Payload bytes per second at which trains leave now; `None`: as fast as they can.
    pub pace: Option<u64>,
    /// What new messages are cut by now.
    pub chunk_bytes: u32,
    /// Messages queued or in flight now.
    pub messages: usize,
    /// Payload sent, retransmissions included.
    pub sent_bytes: u64,
    /// Payload sent again.
    pub retransmitted_bytes: u64,
    /// Payload of packets that the peer acknowledged.
    pub delivered_bytes: u64,
    /// Packets given up as lost.
    pub lost_packets: u64,
    /// Packets given up that turned out to have arrived.
    pub spurious_packets: u64,
    /// Messages that began anew in smaller chunks, because the path took no larger ones.
    pub restarts: u64,
    /// Times that a message was silent for too long and the peer was asked about it.
    pub strikes: u64,
    /// Payload placed, each byte once.
    pub received_bytes: u64,
    /// ACK datagrams sent.
    pub acks_sent: u64,
    /// Packets or chunks that were received before.
    pub duplicates: u64,
    /// Chunks dropped because no window was posted for them.
    pub dropped_unposted: u64,
    /// Chunks dropped because their packet was given up or their sequence is old.
    pub dropped_stale: u64,
    /// Chunks dropped because they do not fit their window.
    pub dropped_range: u64,
    /// Chunks dropped because their sender was not given the credit for them.
    pub dropped_credit: u64,
    /// Datagrams dropped because they belong to another session.
    pub dropped_receiver: u64,
    /// Control datagrams dropped because they make no sense.
    pub dropped_control: u64,
}
