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
    /// Acknowledgements that told of them: all packets of one have the same way back.
    round_reports: u64,
    queue_ns: u64,
    /// By how much rounds differ from the ones before them.
    change_ns: u64,
    mean_ns: u64,
    /// The mean of rounds, smoothed.
    smooth_ns: u64,
}

impl Base {
    pub(super) const fn new() -> Self {
        Self {
            halves_ns: [u64::MAX; 2],
            half_since: Instant(0),
            round_sum_ns: 0,
            round_packets: 0,
            round_reports: 0,
            queue_ns: 0,
            change_ns: 0,
            mean_ns: 0,
            smooth_ns: 0,
        }
    }

    /// Takes the round trips of `packets` packets, which are `sum_ns` in all.
    pub(super) fn handle_samples(&mut self, sum_ns: u64, packets: u64) {
        self.round_sum_ns = self.round_sum_ns.saturating_add(sum_ns);
        self.round_packets += packets;
        self.round_reports += u64::from(packets > 0);
    }

    fn tells(&self) -> bool {
        let reports_min = if self.is_short() { 1 } else { REPORTS_MIN };
        self.round_packets >= PACKETS_MIN && self.round_reports >= reports_min
    }

    /// Whether a round is so short that the probes soon find what a start that ended early has left.
    pub(super) fn is_short(&self) -> bool {
        self.rtt_ns() <= LATE_NS
    }

    /// A round trip is over.
    pub(super) fn end_round(&mut self, now: Instant) {
        if self.tells() {
            if now.since(self.half_since) >= HALF_NS {
                self.half_since = now;
                self.halves_ns = [u64::MAX, self.halves_ns[0]];
            }
            let mean_ns = (self.round_sum_ns / self.round_packets).clamp(1, RTT_NS_MAX);
            self.halves_ns[0] = self.halves_ns[0].min(mean_ns);
            self.queue_ns = mean_ns.saturating_sub(self.rtt_ns());
            if self.mean_ns > 0 {
                let change_ns = mean_ns.abs_diff(self.mean_ns);
                self.change_ns = self.change_ns - self.change_ns / 8 + change_ns / 8;
            }
            self.smooth_ns =
                if self.mean_ns > 0 { self.smooth_ns - self.smooth_ns / 4 + mean_ns / 4 } else { mean_ns };
            self.mean_ns = mean_ns;
            (self.round_sum_ns, self.round_packets, self.round_reports) = (0, 0, 0);
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
    pub(super) fn noise_ns(&self) -> u64 {
        // A queue that comes and goes is no noise, so there never is much.
        2 * self.change_ns.min((self.rtt_ns() / 4).max(LATE_NS))
    }

    /// What rounds take on average where that is the path's doing: a queue of our own stands, or grows slowly, and
    /// jitter jumps. But twice the base are given anyway.
    pub(super) fn swing_ns(&self) -> u64 {
        let jumps_ns = self.rtt_ns().saturating_add(4 * self.change_ns);
        self.smooth_ns.min(jumps_ns.max(3 * self.rtt_ns()))
    }

    /// How much longer than the base the running round is, once it is enough to tell.
    pub(super) fn queue_so_far(&self) -> u64 {
        let mean_ns = self.round_sum_ns / self.round_packets.max(1);
        if self.tells() { mean_ns.saturating_sub(self.rtt_ns()) } else { 0 }
    }
}

/// Half of the history: a longer route is believed after 5 to 10 seconds.
const HALF_NS: u64 = 5_000_000_000;
/// On a short path rounds differ by how late the ends' threads run, which is milliseconds where they share their cores.
const LATE_NS: u64 = 5_000_000;
const RTT_NS_MAX: u64 = 60_000_000_000;
/// A mean of fewer packets is jitter rather than queue.
const PACKETS_MIN: u64 = 16;
/// As in HyStart++ (RFC 9406, N_RTT_SAMPLE).
const REPORTS_MIN: u64 = 8;

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
        round(&mut base, Instant(HALF_NS), 50_000);
        assert_eq!(base.sample(), Some(20_000));
        round(&mut base, Instant(2 * HALF_NS), 50_000);
        assert_eq!((base.sample(), base.queue_ns()), (Some(50_000), 0));
        base.handle_samples(16 * 55_000, 16);
        assert_eq!(base.queue_so_far(), 5_000, "on a short path one acknowledgement tells");
    }

    #[test]
    fn on_a_long_path_one_acknowledgement_tells_nothing() {
        let (mut base, rtt_ns) = (Base::new(), 8 * LATE_NS);
        round(&mut base, Instant(0), rtt_ns);
        (0..7).for_each(|_| base.handle_samples(4 * (rtt_ns + 5_000), 4));
        assert_eq!(base.queue_so_far(), 0);
        base.handle_samples(4 * (rtt_ns + 5_000), 4);
        assert_eq!(base.queue_so_far(), 5_000);
    }
}
