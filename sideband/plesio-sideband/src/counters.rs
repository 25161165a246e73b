//! What the sideband counts: every datagram that was dropped, by reason, and what was sent.

use crate::{Machine, Pace};
use plesio_phase::ClockCounters;
use plesio_udp::StampKind;

/// Datagrams dropped, by reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub struct Drops {
    /// Shorter than its layout, or longer than any datagram.
    pub length: u64,
    /// Not ours.
    pub magic: u64,
    /// A layout version we do not speak.
    pub version: u64,
    /// A message type we do not know.
    pub kind: u64,
    /// A field out of range.
    pub field: u64,
    /// The checksum does not fit.
    pub checksum: u64,
    /// Another mesh.
    pub mesh: u64,
    /// The source index is not that of the address, or the name not that of who sealed it.
    pub spoof: u64,
    /// Not sealed, where everything has to be.
    pub plaintext: u64,
    /// Sealed with keys of nobody known, or altered on the way.
    pub authentication: u64,
    /// Seen before, or older than the window.
    pub replay: u64,
    /// From an unknown address, and nothing a stranger may say.
    pub stranger: u64,
    /// A stranger's, beyond the rate we listen to them.
    pub rate_limited: u64,
    /// A beat whose fields contradict each other: a sign of life, and nothing more.
    pub beat_fields: u64,
    /// A probe reply that taught nothing.
    pub clock_exchange: u64,
    /// To be brought to somebody who does not say that it lacks it, or more than is carried; or brought without need.
    pub relay: u64,
    /// Events nobody fetched, and messages handed in faster than they leave.
    pub queue_full: u64,
}

impl Drops {
    /// All of them.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.length
            + self.magic
            + self.version
            + self.kind
            + self.field
            + self.checksum
            + self.mesh
            + self.spoof
            + self.plaintext
            + self.authentication
            + self.replay
            + self.stranger
            + self.rate_limited
            + self.beat_fields
            + self.clock_exchange
            + self.relay
            + self.queue_full
    }
}

/// Datagrams that went through a third member.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct RelayCounters {
    /// Ours, handed to somebody who hears whom they are for.
    pub handed: u64,
    /// Others', passed on.
    pub carried: u64,
    /// Others' for us.
    pub received: u64,
}

/// What the thread publishes every 100 ms.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct SidebandCounters {
    /// Dropped datagrams.
    pub drops: Drops,
    /// Clock exchanges.
    pub clock: ClockCounters,
    /// Estimated rate of mesh time against ours, parts per billion, without the slew in progress.
    pub rate_ppb: i64,
    /// Bytes sent, IP and UDP headers included.
    pub bytes_sent: u64,
    /// Datagrams sent.
    pub datagrams_sent: u64,
    /// Datagrams received, good or bad.
    pub datagrams_received: u64,
    /// Datagrams that went through a third member.
    pub relays: RelayCounters,
    /// How far it is within its budget.
    pub pace: Pace,
    /// Datagrams the socket did not take.
    pub sends_refused: u64,
    /// Datagrams not sent because there was no session with who is there.
    pub sends_unsealed: u64,
    /// Times CLOCK_REALTIME was moved under an exchange.
    pub clock_steps: u64,
    /// What makes the stamps.
    pub stamps: StampKind,
}

impl SidebandCounters {
    /// What the machine counted, and nothing of its socket.
    pub(crate) fn of(machine: &Machine, stamps: StampKind) -> Self {
        Self {
            drops: *machine.drops(),
            clock: machine.clock_counters(),
            rate_ppb: machine.rate_ppb(),
            bytes_sent: machine.bytes_sent(),
            datagrams_sent: machine.datagrams_sent(),
            datagrams_received: machine.datagrams_received(),
            relays: machine.relay_counters(),
            pace: machine.pace(),
            sends_refused: 0,
            sends_unsealed: 0,
            clock_steps: 0,
            stamps,
        }
    }
}
