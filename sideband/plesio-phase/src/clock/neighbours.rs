//! Whom to exchange stamps with, and how often.

use super::Clock;
use crate::ClockState;
use plesio_wire::{Instant, MemberIndex, MemberSet};

impl Clock {
    /// Indices i+1, i+2, i+4, i+8; the reference too, once per 2 s if it is none of them and we are locked.
    pub(super) fn choose_neighbours(&mut self, now: Instant) {
        let seats = self.peers.len() + usize::from(self.me.is_some());
        let mut near = MemberSet::EMPTY;
        for step in [1, 2, 4, 8] {
            let index = self.me.map_or(step - 1, |me| usize::from(me) + step) % seats.max(1);
            near.insert(index as MemberIndex);
        }
        // Whoever has to lock asks as often as at the start: a mesh that comes together again waits for its clocks.
        let hungry = now.since(self.started) < FAST_NS || self.line.state != ClockState::Locked;
        let interval_ns = if hungry { INTERVAL_FAST_NS } else { INTERVAL_NS };
        for at in 0..self.peers.len() {
            let near = near.contains(self.index_of(at));
            let far = self.reference == Some(self.peers[at].key) || (self.reference.is_none() && at == 0);
            let peer = &mut self.peers[at];
            let chosen = match (near, far) {
                (true, _) => Some(interval_ns),
                (false, true) if hungry => Some(interval_ns),
                (false, true) => Some(INTERVAL_FAR_NS),
                (false, false) => None,
            };
            if peer.interval_ns.is_none() && chosen.is_some() {
                peer.next_pair_at = now;
                peer.window.clear();
            }
            peer.interval_ns = chosen;
        }
    }
}

const FAST_NS: u64 = 8_000_000_000;
const INTERVAL_FAST_NS: u64 = 125_000_000;
const INTERVAL_NS: u64 = 500_000_000;
const INTERVAL_FAR_NS: u64 = 2_000_000_000;
