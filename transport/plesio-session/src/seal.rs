//! Packet protection of one session: what seals, what opens, and the keys between them.
//!
//! Knows numbers, keys and windows; no peers and no time. Data plane and sideband have keys, and so objects, of
//! their own: each moves to the thread where its bytes are. Keeps: no number is sealed twice under one key
//! (numbers only rise, and nothing here can be cloned), no number is opened twice, and a key carries no more than
//! its limit.
//!
//! ```text
//! packet number: lane in the two highest bits, then the channel (22), then the count (40)
//!   0  DATA of the data plane      2  its other kinds      3  the session's own      1  never used
//! ```

use alloc::sync::Arc;
use core::fmt;
use core::sync::atomic::{AtomicU64, Ordering};

use plesio_wire::handshake::Suite;

use crate::noise::Keys;

mod channels;
mod data;
mod sideband;

pub(crate) use data::OwnSealer;
pub use data::{DataOpener, DataSealer};
pub use sideband::{SidebandKeys, SidebandOpened, SidebandOpener, SidebandSealer};

/// Why something was not sealed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum SealError {
    /// There is no session with this peer; connect, or wait for its event.
    NoSession,
    /// The packet number was used before, or is not of a lane that may be used; a retransmission takes a new one.
    NumberUsed {
        /// The smallest number that this lane and channel still have.
        next: u64,
    },
    /// The keys have carried what they may; wait for the new ones.
    Exhausted,
    /// The buffer is too small, or the payload too large for a datagram.
    Size {
        /// Bytes that the datagram takes.
        needed_bytes: usize,
    },
    /// Not a sideband datagram in plaintext form.
    Sideband,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoSession => f.write_str("no session with this peer; connect first"),
            Self::NumberUsed { next } => {
                write!(f, "packet number used before; number it {next} or higher")
            }
            Self::Exhausted => f.write_str("the session's keys are used up; wait for the new ones"),
            Self::Size { needed_bytes } => {
                write!(f, "the datagram takes {needed_bytes} bytes; give a larger buffer or less payload")
            }
            Self::Sideband => f.write_str("not a plaintext sideband datagram; encode it first"),
        }
    }
}

impl core::error::Error for SealError {}

/// How much a session's keys have carried. What seals and opens writes it where it runs, and the machine that
/// changes the keys reads it.
#[derive(Debug, Default)]
pub(crate) struct Usage {
    sealed: AtomicU64,
    opened: AtomicU64,
    sideband_sealed: AtomicU64,
}

impl Usage {
    /// Packets of the busiest key.
    pub(crate) fn packets(&self) -> u64 {
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        of(&self.sealed).max(of(&self.opened)).max(of(&self.sideband_sealed))
    }
}

/// Everything that one handshake gives to one end.
#[derive(Debug)]
pub(crate) struct KeySet {
    pub(crate) data_sealer: DataSealer,
    pub(crate) data_opener: DataOpener,
    pub(crate) sideband_sealer: SidebandSealer,
    pub(crate) sideband_opener: SidebandOpener,
    pub(crate) own_sealer: OwnSealer,
    pub(crate) usage: Arc<Usage>,
}

impl KeySet {
    /// `local` is the index by which the peer names us, `remote` the one by which we name it.
    pub(crate) fn new(keys: &Keys, suite: Suite, local: u32, remote: u32, packets_max: u64) -> Self {
        let usage = Arc::new(Usage::default());
        Self {
            data_sealer: DataSealer::new(suite, &keys.data_send, remote, packets_max, usage.clone()),
            data_opener: DataOpener::new(suite, &keys.data_receive, local, packets_max, usage.clone()),
            sideband_sealer: SidebandSealer::new(suite, &keys.sideband_send, packets_max, usage.clone()),
            sideband_opener: SidebandOpener::new(suite, &keys.sideband_receive, local),
            own_sealer: OwnSealer::new(suite, &keys.data_send, remote),
            usage,
        }
    }
}
