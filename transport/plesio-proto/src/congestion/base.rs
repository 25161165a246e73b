//! The path's round trip without a queue: the shortest round seen lately, and how much longer the running one is.
//!
//! As in LEDBAT (RFC 6817, 4.2) the base is a minimum over a short history, so a route that got longer is believed after
//! a while. But it is a minimum of means over whole rounds, not of samples: on a path with jitter the shortest sample is
//! far below what the path needs, and a datagram that overtakes the others would make everyone else look queued.

use plesio_wire::Instant;

/// Base and queue of a path.
#[derive(Debug)]
pub(super) struct Base {
    /// Shortest mean of the running half of the history, and of the one before.
    halves_ns: [u64; 2],
    half_since: Instant,
    round_sum_ns: u64,
    round_packets: u64,
    queue_ns: u64,
    /// By how much rounds differ from the ones before them.
    noise_ns: u64,
    mean_ns: u64,
}

impl Base {
    pub(super) const fn new() -> Self {
        Self {
            halves_ns: [u64::MAX; 2],
            half_since: Instant(0),
            round_sum_ns: 0,
            round_packets: 0,
            queue_ns: 0,
            noise_ns: 0,
            mean_ns: 0,
        }
    }

    /// Takes the round trips of `packets` packets, which are `sum_ns` in all.
    pub(super) const fn handle_samples(&mut self, sum_ns: u64, packets: u64) {
        self.round_sum_ns = self.round_sum_ns.saturating_add(sum_ns);
        self.round_packets += packets;
    }

    /// A round trip is over.
    pub(super) fn end_round(&mut self, now: Instant) {
        if self.round_packets >= PACKETS_MIN || self.sample().is_none() && self.round_packets > 0 {
            if now.since(self.half_since) >= HALF_NS {
                self.half_since = now;
                self.halves_ns = [u64::MAX, self.halves_ns[0]];
            }
            let mean_ns = (self.round_sum_ns / self.round_packets).clamp(1, RTT_NS_MAX);
            self.halves_ns[0] = self.halves_ns[0].min(mean_ns);
            self.queue_ns = mean_ns.saturating_sub(self.rtt_ns());
            if self.mean_ns > 0 {
                let change_ns = mean_ns.abs_diff(self.mean_ns);
                // A queue that comes and goes is no noise, so there never is much.
                self.noise_ns =
                    (self.noise_ns - self.noise_ns / 8 + change_ns / 8).min((self.rtt_ns() / 4).max(LATE_NS));
            }
            self.mean_ns = mean_ns;
            (self.round_sum_ns, self.round_packets) = (0, 0);
        }
    }

    /// The shortest round of the history; before the first what is known of the running one.
    pub(super) fn sample(&self) -> Option<u64> {
        let shortest_ns = self.halves_ns[0].min(self.halves_ns[1]);
        if shortest_ns < u64::MAX {
            return Some(shortest_ns);
        }
        self.round_sum_ns.checked_div(self.round_packets).map(|mean_ns| mean_ns.clamp(1, RTT_NS_MAX))
    }

    fn rtt_ns(&self) -> u64 {
        self.sample().unwrap_or(0)
    }

    /// How much longer than the base the last round was.
    pub(super) const fn queue_ns(&self) -> u64 {
        self.queue_ns
    }

    /// How far a round may be above the base by chance.
    pub(super) const fn noise_ns(&self) -> u64 {
        2 * self.noise_ns
    }

    /// How much longer than the base the round trips of these packets were, if they are enough to tell.
    pub(super) fn queue_of(&self, sum_ns: u64, packets: u64) -> u64 {
        if packets < PACKETS_MIN { 0 } else { (sum_ns / packets).saturating_sub(self.rtt_ns()) }
    }
}

/// Half of the history: a longer route is believed after 5 to 10 seconds.
const HALF_NS: u64 = 5_000_000_000;
/// On a short path rounds differ by how late the ends' threads run, which is milliseconds where they share their cores.
const LATE_NS: u64 = 5_000_000;
const RTT_NS_MAX: u64 = 60_000_000_000;
/// A mean of fewer packets is jitter rather than queue.
const PACKETS_MIN: u64 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn round(base: &mut Base, now: Instant, rtt_ns: u64) {
        for jitter_ns in 0..20 {
            base.handle_samples(rtt_ns - 950 + 100 * jitter_ns, 1);
        }
        base.end_round(now);
    }

    #[test]
    fn a_standing_queue_is_told_from_jitter_and_a_longer_route_is_believed() {
        let mut base = Base::new();
        round(&mut base, Instant(0), 20_000);
        assert_eq!((base.sample(), base.queue_ns()), (Some(20_000), 0));
        base.handle_samples(1_000, 1); // one that overtook the others
        round(&mut base, Instant(1), 50_000);
        assert_eq!(base.sample(), Some(20_000));
        assert!((27_000..30_000).contains(&base.queue_ns()));
        assert_eq!((base.queue_of(16 * 25_000, 16), base.queue_of(15 * 25_000, 15)), (5_000, 0));
        round(&mut base, Instant(HALF_NS), 50_000);
        assert_eq!(base.sample(), Some(20_000));
        round(&mut base, Instant(2 * HALF_NS), 50_000);
        assert_eq!((base.sample(), base.queue_ns()), (Some(50_000), 0));
    }
}
