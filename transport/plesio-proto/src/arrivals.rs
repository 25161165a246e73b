//! Which packet numbers arrived and were taken, as far back as the sender still asks.
//!
//! ```text
//!   arrived or given up │ base: not here │ 1 0 1 1 0 ... up to 32,768 packets │ beyond: refused
//! ```
//!
//! Invariant: a number counts as arrived only if its chunk was placed or had been before; a chunk that was
//! dropped leaves a hole until the sender gives the number up.

use alloc::vec::Vec;
use plesio_wire::Instant;
use plesio_wire::data::{ACK_BLOCK_PACKETS, ACK_BLOCKS_MAX, ACK_PACKETS_MAX, Ack};

/// Packets behind `base` that can be told apart; a packet delayed by more than this many is dropped.
pub(crate) const PACKETS_MAX: u64 = ACK_PACKETS_MAX;

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
    words: Vec<u64>,
    above: u64,
    largest: Option<Largest>,
    /// Turn of the next acknowledgement that cannot tell everything.
    turn: usize,
}

/// Which blocks of the bitmap follow an acknowledgement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Blocks {
    /// Left out behind the first.
    pub(crate) skipped: usize,
    pub(crate) count: usize,
}

impl Arrivals {
    pub(crate) fn new() -> Self {
        Self { base: 0, words: alloc::vec![0; WORDS], above: 0, largest: None, turn: 0 }
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
            self.words.fill(0);
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

    /// The acknowledgement, and which blocks of bitmap must follow it: the newest, and every other time older ones in
    /// turn if there are too many for one datagram.
    pub(crate) fn ack(&mut self, now: Instant, credit_limit_bytes: u64) -> (Ack, Blocks) {
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
        let more = span.div_ceil(ACK_BLOCK_PACKETS).max(1) - 1;
        let newest = more.saturating_sub(ACK_BLOCKS_MAX);
        let mut skipped = newest;
        if newest > 0 {
            self.turn += 1;
            if self.turn.is_multiple_of(2) {
                skipped = (self.turn / 2 % more.div_ceil(ACK_BLOCKS_MAX) * ACK_BLOCKS_MAX).min(newest);
            }
        }
        (ack, Blocks { skipped, count: more.min(ACK_BLOCKS_MAX) })
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

    /// What the acknowledgements of one turn tell together.
    fn set_of(arrivals: &mut Arrivals) -> BTreeSet<u64> {
        let mut set = BTreeSet::new();
        for _ in 0..2 * (PACKETS_MAX as usize / ACK_BLOCK_PACKETS).div_ceil(ACK_BLOCKS_MAX) {
            let (ack, blocks) = arrivals.ack(Instant(0), 0);
            assert!(blocks.count <= ACK_BLOCKS_MAX);
            let mut more = vec![0; 32 * blocks.count];
            arrivals.fill(1 + blocks.skipped, &mut more);
            for (bytes, first) in [(&ack.selective[..], 0), (&more, (1 + blocks.skipped) * ACK_BLOCK_PACKETS)]
            {
                let bits = (0..bytes.len() * 8).filter(|i| bytes[i / 8] >> (i % 8) & 1 == 1);
                set.extend(bits.map(|i| ack.cumulative + (first + i) as u64));
            }
        }
        set
    }

    #[test]
    fn the_bitmap_tells_what_arrived_across_the_ring_s_end() {
        for start in [0, 32_700, 32_767, 100_003] {
            let mut arrivals = Arrivals::new();
            arrivals.handle_floor(start);
            let taken = [1, 63, 64, 65, 255, 256, 300, 8_000, 8_191, 8_192, 20_000, 32_767];
            let taken: BTreeSet<u64> = taken.map(|i| start + i).into();
            for packet in &taken {
                assert_eq!(arrivals.check(*packet), Arrival::New);
                arrivals.insert(Instant(0), *packet, 0);
                assert_eq!(arrivals.check(*packet), Arrival::Seen);
            }
            assert_eq!(set_of(&mut arrivals), taken);
            assert_eq!(arrivals.settled(), start + 12);
            assert_eq!(arrivals.check(start + 32_768), Arrival::Beyond);
            arrivals.insert(Instant(0), start, 0);
            assert_eq!(arrivals.base, start + 2);
            arrivals.handle_floor(start + 63);
            assert_eq!(arrivals.base, start + 66);
            assert_eq!(arrivals.settled(), start + 66 + 8);
            assert_eq!(arrivals.check(start + 65), Arrival::Old);
            arrivals.handle_floor(start + 1_000_000);
            assert_eq!(arrivals.settled(), start + 1_000_000);
            assert!(set_of(&mut arrivals).is_empty());
        }
    }
}
