//! What most members say the time is. Exchanges are made with few of them, and who has just come has made none with most:
//! if the first to answer has slept, its time is a second or more behind and looks as good as any. Beats come from all, and a
//! beat's mesh time, late by its way and no more, tells one who slept from the others.

use super::founding::holds_clock;
use super::peer::local;
use super::{Clock, STILL_NS, Sure, UPDATE_NS};
use crate::{ClockState, MeshClock};
use plesio_wire::{Instant, MEMBERS_MAX, MeshTime, NodeKey};

impl Clock {
    /// Notes M - C as the beat of a member says; `None`: it has no clock.
    pub(super) fn note_told(&mut self, now: Instant, from: NodeKey, offset_ns: Option<i64>) {
        if let Some(peer) = self.peers.iter_mut().find(|peer| peer.key == from) {
            peer.told = offset_ns.map(|offset_ns| (now, offset_ns));
        }
    }

    /// M - C on which most of those agree to a second who told theirs lately, this node among them; `None` when fewer than
    /// three did, or no such number of them agrees.
    pub(super) fn majority_ns(&self, now: Instant) -> Option<i64> {
        let mut offsets = [0; MEMBERS_MAX];
        let lately = |(at, offset_ns): (Instant, i64)| (now.since(at) < TOLD_NS).then_some(offset_ns);
        let others = self.peers.iter().filter(|peer| !peer.suspected && holds_clock(peer.state));
        let others = others.filter_map(|peer| peer.told);
        let own = self.line.usable.then(|| self.offset_ns(now));
        let mut count = 0;
        for (slot, offset_ns) in offsets.iter_mut().zip(others.filter_map(lately).chain(own)) {
            *slot = offset_ns;
            count += 1;
        }
        let offsets = &mut offsets[..count];
        offsets.sort_unstable();
        let median = *offsets.get(count / 2)?;
        let agree = offsets.iter().filter(|offset_ns| is_near(**offset_ns, median)).count();
        (count >= 3 && 2 * agree > count).then_some(median)
    }

    /// Enters anew: a clock a second or more from what most members say stood still, or theirs did, and slewing would take
    /// hours. It goes on from there, as one that has just entered: nobody takes the time from it until it has locked anew.
    /// Whether that was so. More than half cannot say two things, so two sides never step past each other.
    pub(super) fn enter_anew(&mut self, now: Instant) -> bool {
        let is_far = |majority_ns: &i64| !is_near(self.offset_ns(now), *majority_ns);
        let Some(majority_ns) = self.majority_ns(now).filter(is_far).filter(|_| self.has_line) else {
            return false;
        };
        let base_mesh = MeshTime(local(now).saturating_add(majority_ns));
        let state = ClockState::Acquire;
        self.line = MeshClock { base_local: now, base_mesh, state, ..self.line };
        self.counters.steps += 1;
        (self.entry, self.good_in_row) = (true, 0);
        self.peers.iter_mut().for_each(|peer| peer.window.clear());
        let sure = Sure { eps_ns: STILL_NS as u32, until: now.after(UPDATE_NS), growth_ppb: 0 };
        self.publish(now, 0, sure, state);
        true
    }

    /// M - C as the line has it.
    fn offset_ns(&self, now: Instant) -> i64 {
        self.line.at(now).0.saturating_sub(local(now))
    }
}

/// Whether two clocks differ by what rates and ways explain.
pub(super) fn is_near(one_ns: i64, other_ns: i64) -> bool {
    one_ns.saturating_sub(other_ns).saturating_abs() < STILL_NS
}

/// Some full beats, of which one or the other is lost.
const TOLD_NS: u64 = 3_000_000_000;
