//! The local clock of a node, with a seam through which a demonstration makes it wrong.

use plesio_wire::Instant;

/// What is wrong with a clock, on purpose.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ClockSeam {
    /// Ahead by this much from the start.
    pub offset_ns: i64,
    /// Fast by this much; -10,000 to 10,000 parts per million.
    pub rate_ppm: f64,
}

/// `CLOCK_MONOTONIC_RAW` through the seam. All threads of a node read the same one.
#[derive(Clone, Copy, Debug)]
pub struct LocalClock {
    started_raw_ns: i64,
    offset_ns: i64,
    rate_ppb: i64,
}

impl LocalClock {
    /// Starts now. A rate outside the range is cut to it; not a number is no rate.
    #[must_use]
    pub fn new(seam: ClockSeam) -> Self {
        let rate_ppb = (seam.rate_ppm * 1e3).clamp(-1e7, 1e7) as i64;
        let offset_ns = seam.offset_ns.clamp(-OFFSET_NS_MAX, OFFSET_NS_MAX);
        Self { started_raw_ns: plesio_udp::clock::monotonic_raw_ns(), offset_ns, rate_ppb }
    }

    /// The local time.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.at_raw(plesio_udp::clock::monotonic_raw_ns())
    }

    /// The local time when `CLOCK_MONOTONIC_RAW` showed `raw_ns`.
    #[must_use]
    pub fn at_raw(&self, raw_ns: i64) -> Instant {
        let elapsed = i128::from(raw_ns) - i128::from(self.started_raw_ns);
        let drift = (elapsed * i128::from(self.rate_ppb)).div_euclid(1_000_000_000);
        let local = i128::from(START_NS + self.offset_ns) + elapsed + drift;
        Instant(u64::try_from(local).unwrap_or(0))
    }
}

/// Local time at the start: leaves room for offsets of years either way.
const START_NS: i64 = 1 << 60;
const OFFSET_NS_MAX: i64 = 1 << 59;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seam_makes_a_clock_fast_and_wrong() {
        let honest = LocalClock::new(ClockSeam::default());
        let seam = ClockSeam { offset_ns: 5_000_000_000, rate_ppm: 200.0 };
        let skewed = LocalClock { started_raw_ns: honest.started_raw_ns, ..LocalClock::new(seam) };
        let later = honest.started_raw_ns + 1_000_000_000;
        assert_eq!(skewed.at_raw(later).since(honest.at_raw(later)), 5_000_200_000);
        let broken = LocalClock::new(ClockSeam { offset_ns: i64::MIN, rate_ppm: f64::NAN });
        assert!(broken.now() < honest.now());
    }
}
