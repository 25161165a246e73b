//! Kernel stamps as local time: what `CLOCK_REALTIME` showed beside `CLOCK_MONOTONIC_RAW`, and when somebody moved it.
//!
//! Reads no clock; it is given readings of both. A stamp from before a step means another moment than the clocks say now, so
//! that the exchanges in between are to be thrown away: the wall clock may jump by hours, and mesh time goes on.

use plesio_udp::clock::Bracket;

/// The newest reading of both clocks.
#[derive(Debug, Default)]
pub(crate) struct RealtimeMap {
    last: Option<Bracket>,
    steps: u64,
}

impl RealtimeMap {
    /// Another reading; true when one of the clocks was moved since the last one.
    pub(crate) fn refresh(&mut self, next: Bracket) -> bool {
        let stepped = self.last.replace(next).is_some_and(|before| {
            let elapsed_ns = i128::from(next.raw_ns) - i128::from(before.raw_ns);
            let moved_ns = i128::from(next.realtime_ns) - i128::from(before.realtime_ns) - elapsed_ns;
            // Slewing by the host's own time service is no step.
            let doubt_ns = i128::from(before.width_ns) + i128::from(next.width_ns);
            moved_ns.abs() > MOVED_NS_MAX + elapsed_ns.abs() / SLEW_SHARE + doubt_ns
        });
        self.steps += u64::from(stepped);
        stepped
    }

    /// Times that `CLOCK_REALTIME` was moved.
    pub(crate) const fn steps(&self) -> u64 {
        self.steps
    }

    /// A kernel stamp on the raw clock, and how far off that may be; `None` when the program's own is as good, or when no
    /// datagram can have had it.
    pub(crate) fn raw_ns(&self, stamp_ns: i64) -> Option<(i64, i64)> {
        let last = self.last.filter(|last| last.width_ns <= WIDTH_NS_MAX)?;
        let age_ns = last.realtime_ns.checked_sub(stamp_ns)?;
        let possible = (-WIDTH_NS_MAX..STAMP_AGE_NS_MAX).contains(&age_ns);
        // Since the stamp the two may have run apart as fast as a time service may slew one of them.
        let slewed_ns = age_ns.abs() / SLEW_SHARE as i64;
        possible.then(|| (last.raw_ns.saturating_sub(age_ns), last.width_ns / 2 + slewed_ns))
    }
}

const MOVED_NS_MAX: i128 = 10_000;
/// 500 ppm.
const SLEW_SHARE: i128 = 2_000;
const WIDTH_NS_MAX: i64 = 20_000;
const STAMP_AGE_NS_MAX: i64 = 10_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SECOND_NS: i64 = 1_000_000_000;
    const HOUR_NS: i64 = 3_600 * SECOND_NS;
    const WALL_NS: i64 = 1_800_000_000 * SECOND_NS;

    fn reading(raw_ns: i64, realtime_ns: i64) -> Bracket {
        Bracket { raw_ns, realtime_ns, width_ns: 100 }
    }

    /// F11: the wall clock is set by an hour either way between a stamp and its reading.
    #[test]
    fn a_wall_clock_set_by_an_hour_is_noticed_once_and_means_nothing_after() {
        for step_ns in [HOUR_NS, -HOUR_NS] {
            let mut map = RealtimeMap::default();
            assert!(!map.refresh(reading(0, WALL_NS)), "nothing to compare with");
            assert!(!map.refresh(reading(SECOND_NS, WALL_NS + SECOND_NS)));
            let stamp_ns = WALL_NS + SECOND_NS + 500;
            assert!(map.refresh(reading(SECOND_NS + 1_000, WALL_NS + SECOND_NS + 1_000 + step_ns)));
            // The stamp from before the step cannot be read any more: it looks an hour old, or not yet there.
            assert_eq!(map.raw_ns(stamp_ns), None, "{step_ns}");
            assert!(!map.refresh(reading(2 * SECOND_NS, WALL_NS + 2 * SECOND_NS + step_ns)), "noticed once");
            let after_ns = WALL_NS + 2 * SECOND_NS + step_ns - 700;
            assert_eq!(map.raw_ns(after_ns), Some((2 * SECOND_NS - 700, 50)));
            assert_eq!(map.steps(), 1);
        }
    }

    #[test]
    fn ten_microseconds_are_a_step_and_slewing_is_none() {
        let mut map = RealtimeMap::default();
        map.refresh(reading(0, WALL_NS));
        // 500 ppm for a second, as adjtimex does at most.
        assert!(!map.refresh(reading(SECOND_NS, WALL_NS + SECOND_NS + 500_000)));
        let wall_ns = WALL_NS + SECOND_NS + 500_000;
        assert!(!map.refresh(reading(SECOND_NS + 1_000, wall_ns + 1_000 + 10_000)));
        assert!(map.refresh(reading(SECOND_NS + 2_000, wall_ns + 2_000 + 10_000 - 10_300)));
        assert_eq!(map.steps(), 1);
    }

    #[test]
    fn a_reading_that_took_long_says_nothing_about_stamps() {
        let mut map = RealtimeMap::default();
        assert_eq!(map.raw_ns(WALL_NS), None, "nothing was read yet");
        map.refresh(Bracket { width_ns: WIDTH_NS_MAX + 1, ..reading(0, WALL_NS) });
        assert_eq!(map.raw_ns(WALL_NS - 5), None);
        map.refresh(reading(1_000, WALL_NS + 1_000));
        assert_eq!(map.raw_ns(WALL_NS + 1_000 - STAMP_AGE_NS_MAX), None, "older than any queue");
        let (raw_ns, doubt_ns) = map.raw_ns(WALL_NS + 1_000 - SECOND_NS).expect("a second old");
        assert_eq!((raw_ns, doubt_ns), (1_000 - SECOND_NS, 50 + 500_000), "500 ppm of its age");
        assert_eq!(map.raw_ns(WALL_NS + 1_000 + WIDTH_NS_MAX + 1), None, "from the future");
    }

    proptest! {
        #[test]
        fn no_reading_panics(readings in prop::collection::vec((any::<i64>(), any::<i64>(), 0..i64::MAX), 0..9), stamp: i64) {
            let mut map = RealtimeMap::default();
            for (raw_ns, realtime_ns, width_ns) in readings {
                map.refresh(Bracket { raw_ns, realtime_ns, width_ns });
                map.raw_ns(stamp);
            }
        }
    }
}
