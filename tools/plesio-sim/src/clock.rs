//! A host's own clock: it runs at its own rate from its own start, is never set, and goes on while the host's
//! process is stopped. Only a machine that sleeps stops it, as CLOCK_MONOTONIC does.

use plesio_wire::Instant;

/// Local time as a straight line of virtual time, bent where the rate changes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LocalClock {
    /// Virtual and local time of the last bend.
    bend: (u64, u64),
    rate_ppb: i64,
    /// It stands still, for so many reasons.
    stops: u32,
}

impl LocalClock {
    pub(crate) const fn new(offset_ns: u64, rate_ppb: i64) -> Self {
        Self { bend: (0, offset_ns), rate_ppb, stops: 0 }
    }

    pub(crate) fn at(&self, now_ns: u64) -> Instant {
        if self.stops > 0 {
            return Instant(self.bend.1);
        }
        let passed = i128::from(now_ns.saturating_sub(self.bend.0));
        let local = passed + passed * i128::from(self.rate_ppb) / BILLION;
        Instant(self.bend.1 + local as u64)
    }

    /// First virtual moment at which this clock shows at least `local`; never, as long as it stands still.
    pub(crate) fn when(&self, local: Instant) -> u64 {
        if self.stops > 0 {
            return u64::MAX;
        }
        let passed = i128::from(local.0.saturating_sub(self.bend.1));
        let mut now = self.bend.0 + (passed * BILLION / (BILLION + i128::from(self.rate_ppb))) as u64;
        while self.at(now) < local {
            now += 1;
        }
        now
    }

    pub(crate) fn change_rate(&mut self, now_ns: u64, rate_ppb: i64) {
        *self = Self { bend: (now_ns, self.at(now_ns).0), rate_ppb, ..*self };
    }

    pub(crate) fn stop(&mut self, now_ns: u64) {
        *self = Self { bend: (now_ns, self.at(now_ns).0), stops: self.stops + 1, ..*self };
    }

    /// Goes on from where it stopped, if nothing else stops it.
    pub(crate) fn go_on(&mut self, now_ns: u64) {
        *self = Self { bend: (now_ns, self.at(now_ns).0), stops: self.stops.saturating_sub(1), ..*self };
    }
}

const BILLION: i128 = 1_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_agree_and_a_bend_does_not_jump() {
        for rate_ppb in [-500_000, -1, 0, 1, 73_123, 500_000] {
            let mut clock = LocalClock::new(5_000_000_000, rate_ppb);
            clock.change_rate(1_234_567_891, rate_ppb / 2);
            for local in [6_500_000_000, 7_000_000_001, 12_345_678_901] {
                let now = clock.when(Instant(local));
                assert!(clock.at(now) >= Instant(local) && clock.at(now - 1) < Instant(local));
            }
        }
        let clock = LocalClock::new(7, 100_000);
        assert_eq!(clock.at(1_000_000_000), Instant(1_000_100_007));
        assert_eq!(clock.when(Instant(3)), 0);
    }

    #[test]
    fn a_clock_that_slept_is_behind() {
        let mut clock = LocalClock::new(0, 0);
        clock.stop(1_000);
        clock.stop(2_000);
        assert_eq!((clock.at(9_000), clock.when(Instant(5_000))), (Instant(1_000), u64::MAX));
        clock.go_on(10_000);
        clock.change_rate(15_000, 0);
        assert_eq!(clock.at(20_000), Instant(1_000));
        clock.go_on(20_000);
        assert_eq!((clock.at(21_000), clock.when(Instant(2_000))), (Instant(2_000), 21_000));
    }
}
