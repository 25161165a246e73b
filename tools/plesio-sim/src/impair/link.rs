//! A path that holds its datagrams itself until they are due.
//!
//! Knows no socket and no clock. What it holds is bounded in bytes, whatever the delay and whatever comes in; what is
//! over that is dropped and counted.

use super::{Fate, Impairment, Path, Tally};
use crate::random::Random;
use plesio_wire::Instant;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// One direction between two real ends; see the module.
#[derive(Debug)]
pub struct Link {
    path: Path,
    random: Random,
    /// What is under way: when it is due, the order of coming in, and where its bytes are.
    held: BinaryHeap<Reverse<(u64, u64, u32)>>,
    order: u64,
    places: Vec<Vec<u8>>,
    free: Vec<u32>,
    held_bytes: u64,
    held_bytes_max: u64,
    spare_bytes: u64,
    /// The datagram that went out last; its bytes are the caller's until the next call.
    out: Vec<u8>,
    work: Vec<u8>,
    copy: Vec<u8>,
}

impl Link {
    /// A link with this wrong with it. Links of one seed with other names draw other numbers. What is under way takes
    /// `held_bytes_max` bytes of memory at most.
    #[must_use]
    pub fn new(impairment: Impairment, seed: u64, name: &str, held_bytes_max: u64) -> Self {
        let mut path = Path::default();
        path.impair(impairment);
        Self {
            path,
            random: Random::new(seed, name),
            held: BinaryHeap::new(),
            order: 0,
            places: Vec::new(),
            free: Vec::new(),
            held_bytes: 0,
            held_bytes_max,
            spare_bytes: 0,
            out: Vec::new(),
            work: Vec::new(),
            copy: Vec::new(),
        }
    }

    /// From here on this is wrong with it; what is under way is not concerned.
    pub fn handle_impairment(&mut self, impairment: Impairment) {
        self.path.impair(impairment);
    }

    /// Takes a datagram in.
    pub fn handle_datagram(&mut self, now: Instant, datagram: &[u8]) {
        let (mut work, mut copy) = (std::mem::take(&mut self.work), std::mem::take(&mut self.copy));
        work.clear();
        work.extend_from_slice(datagram);
        let fate = self.path.pass(&mut self.random, now.0, &mut work, &mut copy);
        if let Fate::Arrive { at_ns, copy_at_ns, .. } = fate {
            if let Some(copy_at_ns) = copy_at_ns {
                self.hold(copy_at_ns, &copy);
            }
            self.hold(at_ns, &work);
        }
        (self.work, self.copy) = (work, copy);
    }

    /// The next datagram that is due, to be sent on at once.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<&[u8]> {
        let Reverse((at_ns, _, place)) = *self.held.peek()?;
        if at_ns > now.0 {
            return None;
        }
        self.held.pop();
        let held = &mut self.places[place as usize];
        self.held_bytes -= held.capacity() as u64 + PLACE_BYTES;
        std::mem::swap(&mut self.out, held);
        // A link that once carried much does not sit on that memory.
        if self.spare_bytes + held.capacity() as u64 > SPARE_BYTES_MAX {
            *held = Vec::new();
        }
        self.spare_bytes += held.capacity() as u64;
        self.free.push(place);
        self.path.tally.sent += 1;
        Some(&self.out)
    }

    /// When the next datagram is due.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        self.held.peek().map(|Reverse((at_ns, ..))| Instant(*at_ns))
    }

    /// What became of everything so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.path.tally
    }

    /// Memory of what is under way.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.held_bytes
    }

    fn hold(&mut self, at_ns: u64, bytes: &[u8]) {
        let place = self.free.pop().unwrap_or_else(|| {
            self.places.push(Vec::new());
            (self.places.len() - 1) as u32
        });
        let buffer = &mut self.places[place as usize];
        self.spare_bytes -= buffer.capacity() as u64;
        // A buffer much too large for what it is to hold would count as full.
        if buffer.capacity() > 2 * bytes.len() + SMALL_BYTES {
            *buffer = Vec::new();
        }
        let cost = buffer.capacity().max(bytes.len()) as u64 + PLACE_BYTES;
        if self.held_bytes + cost > self.held_bytes_max {
            self.spare_bytes += buffer.capacity() as u64;
            self.free.push(place);
            self.path.tally.refused += 1;
            return;
        }
        buffer.clear();
        buffer.reserve_exact(bytes.len());
        buffer.extend_from_slice(bytes);
        self.held_bytes += buffer.capacity() as u64 + PLACE_BYTES;
        self.order += 1;
        self.held.push(Reverse((at_ns, self.order, place)));
    }
}

/// What a datagram costs besides its bytes.
const PLACE_BYTES: u64 = 64;
/// Buffers kept for the next datagrams.
const SPARE_BYTES_MAX: u64 = 1 << 20;
const SMALL_BYTES: usize = 2_048;
