//! Round-trip estimate and what follows from it: probe timeout and the patience before a packet is lost.
//!
//! Smoothing as in RFC 6298. Samples come from this side's own record of when a packet left, so a peer can
//! lengthen them by waiting and never make them up.

use plesio_wire::Instant;

/// The estimate.
#[derive(Debug)]
pub(crate) struct Rtt {
    srtt_ns: u64,
    var_ns: u64,
    latest_ns: u64,
    min_ns: u64,
    sampled: bool,
    /// Greatest age at which a packet given up turned out to be only late; halves with time.
    late_ns: u64,
    late_since: Instant,
}

impl Rtt {
    pub(crate) fn new(initial_ns: u64, now: Instant) -> Self {
        let initial_ns = initial_ns.clamp(1, BACKOFF_NS_MAX);
        Self {
            srtt_ns: initial_ns,
            var_ns: initial_ns / 2,
            latest_ns: initial_ns,
            min_ns: u64::MAX,
            sampled: false,
            late_ns: 0,
            late_since: now,
        }
    }

    /// Takes a sample; `held_ns` is how long the receiver says it held the packet back.
    pub(crate) fn handle_sample(&mut self, elapsed_ns: u64, held_ns: u64) {
        self.min_ns = self.min_ns.min(elapsed_ns);
        // A claim that would push the sample below the shortest trip ever seen is not believed.
        let trusted = elapsed_ns.checked_sub(held_ns).filter(|net_ns| *net_ns >= self.min_ns);
        let sample_ns = trusted.unwrap_or(elapsed_ns);
        self.latest_ns = sample_ns;
        if self.sampled {
            let deviation_ns = self.srtt_ns.abs_diff(sample_ns);
            self.var_ns = self.var_ns - self.var_ns / 4 + deviation_ns / 4;
            self.srtt_ns = self.srtt_ns - self.srtt_ns / 8 + sample_ns / 8;
        } else {
            self.sampled = true;
            self.srtt_ns = sample_ns;
            self.var_ns = sample_ns / 2;
        }
    }

    /// A packet given up was only late. On a path that reorders, samples favour the packets that overtake,
    /// so what was overtaken has to be learnt from.
    pub(crate) fn handle_late(&mut self, now: Instant, age_ns: u64) {
        self.late_ns = self.late_ns.max(age_ns.min(BACKOFF_NS_MAX));
        self.late_since = now;
    }

    /// Order returned: waiting gets shorter again.
    pub(crate) fn relax(&mut self, now: Instant) {
        if self.late_ns > 0 && now.since(self.late_since) >= LATE_NS {
            self.late_ns = if self.late_ns > GRANULARITY_NS { self.late_ns / 2 } else { 0 };
            self.late_since = now;
        }
    }

    /// The shortest sample; zero before the first.
    pub(crate) const fn min_ns(&self) -> u64 {
        if self.sampled { self.min_ns } else { 0 }
    }

    pub(crate) const fn srtt_ns(&self) -> u64 {
        self.srtt_ns
    }

    pub(crate) fn sample(&self) -> Option<u64> {
        self.sampled.then_some(self.srtt_ns)
    }

    /// Three newer trains overtook a packet that was not given up: order has not returned.
    pub(crate) fn handle_overtaken(&mut self, now: Instant) {
        if self.late_ns > 0 {
            self.late_since = now;
        }
    }

    /// Whether newer trains tell that a packet is lost. On a path that reorders only age does (as in RFC 8985).
    pub(crate) const fn is_ordered(&self) -> bool {
        self.late_ns == 0
    }

    /// Age at which a packet counts as lost when a newer one was acknowledged: 1.25 round trips, or more than
    /// was seen of late ones.
    pub(crate) fn loss_ns(&self) -> u64 {
        let rtt_ns = self.srtt_ns.max(self.latest_ns).max(self.late_ns);
        rtt_ns.saturating_add(rtt_ns / 4).clamp(GRANULARITY_NS, BACKOFF_NS_MAX)
    }

    /// Silence after which a probe goes out.
    pub(crate) fn probe_ns(&self) -> u64 {
        let wait_ns = self.srtt_ns.saturating_add(self.var_ns.saturating_mul(4).max(GRANULARITY_NS));
        wait_ns.max(self.late_ns).clamp(PROBE_NS_MIN, BACKOFF_NS_MAX)
    }

    /// The same, doubled `strikes` times: towards a peer that answers but does not take (its window is not
    /// posted yet) never rarer than [`UNPOSTED_NS_MAX`], towards a silent one never than [`BACKOFF_NS_MAX`].
    pub(crate) fn backoff_ns(&self, strikes: u32, answers: bool) -> u64 {
        let base_ns = self.probe_ns();
        let cap_ns = if answers { UNPOSTED_NS_MAX.max(base_ns) } else { BACKOFF_NS_MAX };
        (base_ns << strikes.min(STRIKES_MAX)).min(cap_ns)
    }
}

const GRANULARITY_NS: u64 = 1_000_000;
const PROBE_NS_MIN: u64 = 2_000_000;
const UNPOSTED_NS_MAX: u64 = 50_000_000;
const BACKOFF_NS_MAX: u64 = 500_000_000;
const STRIKES_MAX: u32 = 16;
const LATE_NS: u64 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_probe_timeout_follows_the_path_and_keeps_its_bounds() {
        let mut rtt = Rtt::new(10_000_000, Instant(0));
        assert_eq!(rtt.probe_ns(), 30_000_000);
        for _ in 0..100 {
            rtt.handle_sample(100_000, 0);
        }
        assert_eq!(rtt.probe_ns(), PROBE_NS_MIN);
        assert_eq!(rtt.backoff_ns(200, true), UNPOSTED_NS_MAX);
        assert_eq!(rtt.backoff_ns(200, false), BACKOFF_NS_MAX);
        rtt.handle_sample(u64::MAX / 2, 0);
        assert_eq!(rtt.probe_ns(), BACKOFF_NS_MAX);
    }

    #[test]
    fn a_claimed_delay_cannot_undercut_the_shortest_trip() {
        let mut rtt = Rtt::new(1, Instant(0));
        rtt.handle_sample(1_000_000, 0);
        rtt.handle_sample(3_000_000, 2_000_000);
        assert_eq!(rtt.latest_ns, 1_000_000);
        rtt.handle_sample(3_000_000, 2_999_999);
        assert_eq!(rtt.latest_ns, 3_000_000);
    }
}
