//! What a node brings to its sessions, and the limits they live under.

use plesio_wire::Incarnation;

use crate::identity::{NodeSecret, PoolKey};
use crate::secret::Secret;
use crate::suites::Suites;
use crate::ticket::Ticket;

/// Times, counts and rates; the defaults are the product's.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Limits {
    /// First wait for a RESPONSE; doubles with every retry. 500 ms.
    pub retry_ns: u64,
    /// Longest wait for a RESPONSE. 4 s.
    pub retry_ns_max: u64,
    /// How long a handshake is tried before it fails. 10 s.
    pub deadline_ns: u64,
    /// How long new keys wait for the first packet that shows that the other end has them. 5 s.
    pub unconfirmed_ns: u64,
    /// Age at which keys are changed. 120 s.
    pub rekey_ns: u64,
    /// Packets after which keys are changed. 2^22.
    pub rekey_packets: u64,
    /// Age at which keys are wiped, changed or not. 180 s.
    pub session_ns_max: u64,
    /// Packets that keys carry at most, each way. 2^23.
    pub packets_max: u64,
    /// How long old keys still receive. 10 s.
    pub overlap_ns: u64,
    /// INITs a second that are answered without a cookie. 200.
    pub inits_per_second: u32,
    /// INITs a second from one source prefix. 20.
    pub inits_per_source_and_second: u32,
}

impl Default for Limits {
    fn default() -> Self {
        const S: u64 = 1_000_000_000;
        Self {
            retry_ns: S / 2,
            retry_ns_max: 4 * S,
            deadline_ns: 10 * S,
            unconfirmed_ns: 5 * S,
            rekey_ns: 120 * S,
            rekey_packets: 1 << 22,
            session_ns_max: 180 * S,
            packets_max: 1 << 23,
            overlap_ns: 10 * S,
            inits_per_second: 200,
            inits_per_source_and_second: 20,
        }
    }
}

/// Most operators whose tickets are looked at.
pub const OPERATORS_MAX: usize = 16;

/// What a node brings.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its keys.
    pub node: NodeSecret,
    /// The mesh's id and key.
    pub pool: PoolKey,
    /// Its own admission.
    pub ticket: Ticket,
    /// Whose tickets count, the first [`OPERATORS_MAX`] of them.
    pub operators: alloc::vec::Vec<[u8; 32]>,
    /// Its life.
    pub incarnation: Incarnation,
    /// Largest datagram it receives.
    pub mtu: u16,
    /// What it may seal with: [`Suites::available`], or fewer.
    pub suites: Suites,
    /// Most peers at once.
    pub peers_max: u16,
    /// Times, counts and rates.
    pub limits: Limits,
    /// 32 bytes of the system's randomness, never the same twice.
    pub seed: Secret<32>,
}
