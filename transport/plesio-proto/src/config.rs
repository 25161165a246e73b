//! What a connection is told at its start; every limit it keeps to follows from here.

use crate::congestion::Congestion;
use crate::error::ConfigError;
use plesio_wire::data::{CHANNEL_MAX, CHUNK_BYTES_LOOPBACK, CHUNK_BYTES_MIN};

/// Who gives the peer credit.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Grants {
    /// The connection, `receive_budget_bytes` ahead of what has arrived.
    #[default]
    Own,
    /// A [`Granter`](crate::Granter), which many connections share, through `handle_grant`.
    Shared,
}

/// One connection's parameters. Both ends use the same chunk size.
#[derive(Clone, Copy, Debug)]
pub struct Config {
    /// Receiver index this side chose: what the peer writes into headers. Default 0, to be set.
    pub local: u32,
    /// Receiver index the peer chose. Default 0, to be set.
    pub remote: u32,
    /// Which of the connections that share the session's keys this is; both ends use the same, and no two
    /// under one key may. At most 4,194,303. Default 0.
    pub channel: u32,
    /// Payload of every chunk but a message's last; a multiple of 64, 64 to 65,408. Default 1,408.
    pub chunk_bytes: u32,
    /// Whether to find out which chunk size the path takes: starts at datagrams of 1,440 bytes, probes up to
    /// `chunk_bytes`, and falls back when large packets vanish. Otherwise `chunk_bytes` is used as it is. Default
    /// `false`.
    pub search: bool,
    /// Bytes that the shell puts behind each payload: a sealed datagram's tag. Default 0.
    pub tag_bytes: u32,
    /// Payload in flight at most; at least one chunk always may be. Default 4 MiB.
    pub window_bytes: u64,
    /// Credit given to the peer ahead of what has arrived. Default 4 MiB.
    pub receive_budget_bytes: u64,
    /// What the kernel granted this end's socket as receive buffer, read back; credit keeps within half of it.
    /// Default `u64::MAX`: unknown.
    pub receive_buffer_bytes: u64,
    /// Who gives credit. Default [`Grants::Own`].
    pub grants: Grants,
    /// How long a message may take that is sent without a deadline of its own; `None`: until it is aborted.
    /// Default `None`.
    pub deadline_ns: Option<u64>,
    /// Messages queued for sending at most, 1 to 255. Default 64.
    pub messages_max: usize,
    /// Window handles ever posted at most. Default 256.
    pub windows_max: usize,
    /// What keeps the path from being overloaded. Default [`Congestion::Credit`]: nothing but the receiver's
    /// credit, as loopback wants it.
    pub congestion: Congestion,
    /// Round trip assumed before the first sample. Default 10 ms.
    pub rtt_initial_ns: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            local: 0,
            remote: 0,
            channel: 0,
            chunk_bytes: plesio_wire::data::CHUNK_BYTES_ETHERNET,
            search: false,
            tag_bytes: 0,
            window_bytes: 4 << 20,
            receive_budget_bytes: 4 << 20,
            receive_buffer_bytes: u64::MAX,
            grants: Grants::Own,
            deadline_ns: None,
            messages_max: 64,
            windows_max: 256,
            congestion: Congestion::Credit,
            rtt_initial_ns: 10_000_000,
        }
    }
}

impl Config {
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        if !(CHUNK_BYTES_MIN..=CHUNK_BYTES_LOOPBACK).contains(&self.chunk_bytes)
            || !self.chunk_bytes.is_multiple_of(64)
        {
            return Err(ConfigError::Chunk { chunk_bytes: self.chunk_bytes });
        }
        if self.channel > CHANNEL_MAX {
            return Err(ConfigError::Channel { channel: self.channel });
        }
        if self.window_bytes == 0 {
            return Err(ConfigError::Window);
        }
        if self.receive_budget_bytes < u64::from(self.chunk_bytes) {
            return Err(ConfigError::Budget { receive_budget_bytes: self.receive_budget_bytes });
        }
        if self.receive_buffer_bytes / 2 < u64::from(self.chunk_bytes) {
            return Err(ConfigError::Budget { receive_budget_bytes: self.receive_buffer_bytes / 2 });
        }
        if !(1..=usize::from(u8::MAX)).contains(&self.messages_max) {
            return Err(ConfigError::Messages { messages_max: self.messages_max });
        }
        if !(1..=usize::from(u16::MAX) + 1).contains(&self.windows_max) {
            return Err(ConfigError::Windows { windows_max: self.windows_max });
        }
        Ok(())
    }

    /// Payload that may be on its way here beyond what is unscheduled.
    pub(crate) fn budget_bytes(&self) -> u64 {
        self.receive_budget_bytes.min(self.receive_buffer_bytes / 2)
    }

    /// Packets whose fate is remembered: four windows' worth, so that holes do not stop the flow at once.
    pub(crate) fn packets_max(&self, chunk_bytes: u32) -> usize {
        let wanted = (self.window_bytes / u64::from(chunk_bytes)).saturating_mul(4);
        // Loopback has no long path to fill; there a table that stays in the cache is worth more.
        let most = match self.congestion {
            Congestion::Credit => PACKETS_NEAR,
            Congestion::RateDelay => crate::arrivals::PACKETS_MAX,
        };
        let bounded = wanted.clamp(PACKETS_MIN, most);
        bounded.next_power_of_two() as usize
    }
}

const PACKETS_MIN: u64 = 256;
const PACKETS_NEAR: u64 = 8_192;
