//! How much of what strangers send may cost private-key work or a signature's: a total, and a share for each source
//! prefix.
//!
//! Knows addresses and times, no messages. Memory is fixed at start: prefixes share the buckets of a table by
//! a keyed hash, so a flood of sources cannot make it grow, and nobody outside can aim at a bucket.

use alloc::boxed::Box;
use alloc::vec;
use core::net::{IpAddr, SocketAddr};

use plesio_wire::Instant;

use crate::Secret;

const NS_PER_S: u64 = 1_000_000_000;
/// Buckets of the table.
const BUCKETS: usize = 1_024;

/// Tokens that come back at a fixed rate, up to one second's worth.
#[derive(Clone, Copy, Debug)]
struct Bucket {
    tokens_ns: u64, // a token is 1 s / rate
    filled: Instant,
}

impl Bucket {
    const fn full(now: Instant) -> Self {
        Self { tokens_ns: NS_PER_S, filled: now }
    }

    fn take(&mut self, now: Instant, per_second: u32) -> bool {
        self.tokens_ns = self.tokens_ns.saturating_add(now.since(self.filled)).min(NS_PER_S);
        self.filled = self.filled.max(now);
        let price_ns = NS_PER_S / u64::from(per_second.max(1));
        let affordable = self.tokens_ns >= price_ns;
        if affordable {
            self.tokens_ns -= price_ns;
        }
        affordable
    }
}

/// A total without a source.
#[derive(Debug)]
pub struct TotalLimit {
    bucket: Bucket,
    per_second: u32,
}

impl TotalLimit {
    /// A second's worth is there at once.
    #[must_use]
    pub const fn new(now: Instant, per_second: u32) -> Self {
        Self { bucket: Bucket::full(now), per_second }
    }

    /// Whether one more may be looked at.
    pub fn take(&mut self, now: Instant) -> bool {
        self.bucket.take(now, self.per_second)
    }
}

/// A share for every source prefix: /24 of IPv4, /56 of IPv6.
#[derive(Debug)]
pub struct SourceLimit {
    buckets: Box<[Bucket]>,
    key: Secret<32>,
    per_second: u32,
}

impl SourceLimit {
    /// A second's worth is there at once, for everybody; `key` keeps others from aiming at a share.
    #[must_use]
    pub fn new(now: Instant, per_second: u32, key: Secret<32>) -> Self {
        Self { buckets: vec![Bucket::full(now); BUCKETS].into(), key, per_second }
    }

    /// Whether one more of `source` may be looked at.
    pub fn take(&mut self, now: Instant, source: SocketAddr) -> bool {
        let hash = blake3::keyed_hash(self.key.expose(), &prefix(source));
        let [low, high, ..] = *hash.as_bytes();
        let index = usize::from(u16::from_le_bytes([low, high])) % BUCKETS;
        self.buckets[index].take(now, self.per_second)
    }
}

fn prefix(source: SocketAddr) -> [u8; 8] {
    let mut prefix = [0; 8];
    match source.ip().to_canonical() {
        IpAddr::V4(address) => prefix[..3].copy_from_slice(&address.octets()[..3]),
        IpAddr::V6(address) => {
            prefix[0] = 6;
            prefix[1..].copy_from_slice(&address.octets()[..7]);
        }
    }
    prefix
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_prefix_gets_its_share_and_no_more() {
        let mut limit = SourceLimit::new(Instant(0), 20, Secret::new([1; 32]));
        let granted = |limit: &mut SourceLimit, now: u64, count: u16| {
            (0..count)
                .filter(|port| limit.take(Instant(now), SocketAddr::new([10, 0, 0, 9].into(), *port)))
                .count()
        };
        assert_eq!(granted(&mut limit, 0, 500), 20, "ports of one host share");
        assert_eq!(granted(&mut limit, NS_PER_S / 2, 500), 10);
        assert!(!limit.take(Instant(NS_PER_S / 2), from("10.0.0.200:1")), "so does its prefix");
        assert!(!limit.take(Instant(NS_PER_S / 2), from("[::ffff:10.0.0.7]:1")), "however it is written");
        assert!(limit.take(Instant(NS_PER_S / 2), from("10.0.1.9:1")));
        assert_eq!(granted(&mut limit, 90 * NS_PER_S, 500), 20, "no more than a second's worth is saved up");
        assert_eq!(granted(&mut limit, 0, 500), 0, "a clock that steps back gives nothing");
    }

    #[test]
    fn the_total_is_a_total() {
        let mut limit = TotalLimit::new(Instant(0), 200);
        assert_eq!((0..1_000).filter(|_| limit.take(Instant(0))).count(), 200);
        assert_eq!((0..1_000).filter(|_| limit.take(Instant(NS_PER_S / 10))).count(), 20);
    }
}
