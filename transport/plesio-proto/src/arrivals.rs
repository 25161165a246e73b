//! Which packet numbers arrived and were taken, as far back as the sender still asks.
//!
//! ```text
//!   arrived or given up │ base: not here │ 1 0 1 1 0 ... up to 8,192 packets │ beyond: refused
//! ```
//!
//! Invariant: a number counts as arrived only if its chunk was placed or had been before; a chunk that was
//! dropped leaves a hole until the sender gives the number up.

use plesio_wire::Instant;
use plesio_wire::data::{ACK_BLOCK_PACKETS, ACK_BLOCKS_MAX, Ack};

/// Packets behind `base` that can be told apart; a packet delayed by more than this many is dropped.
pub(crate) const PACKETS_MAX: u64 = (ACK_BLOCK_PACKETS * (1 + ACK_BLOCKS_MAX)) as u64;

/// What a packet number means to the receiver.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Arrival {
    New,
    Seen,
    Old,
    Beyond,
}

/// The newest packet that arrived.
#[derive(Clone, Copy, Debug, Default)]
struct Largest {
    packet: u64,
    clock_us: u32,
    at: Instant,
}

/// The receiver's view of the packet numbers.
#[derive(Debug)]
pub(crate) struct Arrivals {
    base: u64,
    words: [u64; WORDS],
    above: u64,
    largest: Option<Largest>,
}

impl Arrivals {
    pub(crate) const fn new() -> Self {
        Self { base: 0, words: [0; WORDS], above: 0, largest: None }
    }

    pub(crate) fn check(&self, packet: u64) -> Arrival {
        match packet.checked_sub(self.base) {
            None => Arrival::Old,
            Some(ahead) if ahead >= PACKETS_MAX => Arrival::Beyond,
            Some(_) if self.has(packet) => Arrival::Seen,
            Some(_) => Arrival::New,
        }
    }

    /// Takes a packet that `check` called new; whether it left or filled a gap.
    pub(crate) fn insert(&mut self, now: Instant, packet: u64, clock_us: u32) -> bool {
        debug_assert_eq!(self.check(packet), Arrival::New);
        let expected = self.largest.map_or(self.base, |largest| self.base.max(largest.packet + 1));
        if packet >= expected {
            self.largest = Some(Largest { packet, clock_us, at: now });
        }
        if packet == self.base {
            self.base += 1;
            self.advance();
        } else {
            self.words[word(packet)] |= bit(packet);
            self.above += 1;
        }
        packet != expected
    }

    /// The sender gave up everything below `floor`.
    pub(crate) fn handle_floor(&mut self, floor: u64) {
        if floor.saturating_sub(self.base) >= PACKETS_MAX {
            self.words = [0; WORDS];
            self.above = 0;
            self.base = floor;
        }
        while self.base < floor {
            self.forget_base();
        }
        self.advance();
    }

    /// Packets that are settled: what credit is counted from.
    pub(crate) const fn settled(&self) -> u64 {
        self.base + self.above
    }

    /// The acknowledgement, and how many blocks of bitmap must follow it.
    pub(crate) fn ack(&self, now: Instant, credit_limit_bytes: u64) -> (Ack, usize) {
        let largest = self.largest.unwrap_or_default();
        let mut ack = Ack {
            cumulative: self.base,
            largest: largest.packet,
            echo_us: largest.clock_us,
            delay_us: u32::try_from(now.since(largest.at) / 1_000).unwrap_or(u32::MAX),
            credit_limit_bytes,
            selective: [0; 32],
        };
        self.fill(0, &mut ack.selective);
        let span = (largest.packet + 1).saturating_sub(self.base) as usize;
        (ack, span.div_ceil(ACK_BLOCK_PACKETS).clamp(1, 1 + ACK_BLOCKS_MAX) - 1)
    }

    /// Writes bitmap from packet `base + 256 * block` on.
    pub(crate) fn fill(&self, block: usize, bytes: &mut [u8]) {
        let mut packet = self.base + (block * ACK_BLOCK_PACKETS) as u64;
        for chunk in bytes.chunks_exact_mut(8) {
            let shift = packet % 64;
            let low = self.words[word(packet)] >> shift;
            // The ring's last word is shared by both ends of the window, but only bits inside it are set.
            let high = if shift == 0 { 0 } else { self.words[word(packet + 64)] << (64 - shift) };
            chunk.copy_from_slice(&(low | high).to_le_bytes());
            packet += 64;
        }
    }

    fn has(&self, packet: u64) -> bool {
        self.words[word(packet)] & bit(packet) != 0
    }

    fn advance(&mut self) {
        while self.has(self.base) {
            self.forget_base();
        }
    }

    fn forget_base(&mut self) {
        if self.has(self.base) {
            self.words[word(self.base)] &= !bit(self.base);
            self.above -= 1;
        }
        self.base += 1;
    }
}

const WORDS: usize = PACKETS_MAX as usize / 64;

const fn word(packet: u64) -> usize {
    (packet / 64) as usize % WORDS
}

const fn bit(packet: u64) -> u64 {
    1 << (packet % 64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::vec;

    fn set_of(arrivals: &Arrivals) -> BTreeSet<u64> {
        let (ack, extra) = arrivals.ack(Instant(0), 0);
        let mut bytes = ack.selective.to_vec();
        for block in 1..=extra {
            let mut more = vec![0; 32];
            arrivals.fill(block, &mut more);
            bytes.extend(more);
        }
        let bits = (0..bytes.len() * 8).filter(|i| bytes[i / 8] >> (i % 8) & 1 == 1);
        bits.map(|i| ack.cumulative + i as u64).collect()
    }

    #[test]
    fn the_bitmap_tells_what_arrived_across_the_ring_s_end() {
        for start in [0, 8_100, 8_191, 100_003] {
            let mut arrivals = Arrivals::new();
            arrivals.handle_floor(start);
            let taken: BTreeSet<u64> = [1, 63, 64, 65, 255, 256, 300, 8_000, 8_191].map(|i| start + i).into();
            for packet in &taken {
                assert_eq!(arrivals.check(*packet), Arrival::New);
                arrivals.insert(Instant(0), *packet, 0);
                assert_eq!(arrivals.check(*packet), Arrival::Seen);
            }
            assert_eq!(set_of(&arrivals), taken);
            assert_eq!(arrivals.settled(), start + 9);
            assert_eq!(arrivals.check(start + 8_192), Arrival::Beyond);
            arrivals.insert(Instant(0), start, 0);
            assert_eq!(arrivals.base, start + 2);
            arrivals.handle_floor(start + 63);
            assert_eq!(arrivals.base, start + 66);
            assert_eq!(arrivals.settled(), start + 66 + 5);
            assert_eq!(arrivals.check(start + 65), Arrival::Old);
            arrivals.handle_floor(start + 1_000_000);
            assert_eq!(arrivals.settled(), start + 1_000_000);
            assert!(set_of(&arrivals).is_empty());
        }
    }
}
