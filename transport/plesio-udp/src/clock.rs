//! The two clocks the sideband relates: CLOCK_MONOTONIC_RAW, which is never stepped, and CLOCK_REALTIME, which the
//! kernel's stamps are on.

use nix::time::{ClockId, clock_gettime};

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Bracket {
    /// CLOCK_MONOTONIC_RAW at the middle of the exchange.
    pub raw_ns: i64,
    /// CLOCK_REALTIME at that moment.
    pub realtime_ns: i64,
    /// Length of the exchange: the reading is right to half of it.
    pub width_ns: i64,
}

/// CLOCK_MONOTONIC_RAW.
#[must_use]
pub fn monotonic_raw_ns() -> i64 {
    read_ns(ClockId::CLOCK_MONOTONIC_RAW)
}

/// CLOCK_REALTIME.
#[must_use]
pub fn realtime_ns() -> i64 {
    read_ns(ClockId::CLOCK_REALTIME)
}

/// Both clocks at one moment: raw, real, raw; the shortest of five exchanges.
#[must_use]
pub fn bracket() -> Bracket {
    let exchange = || {
        let before_ns = monotonic_raw_ns();
        let realtime_ns = realtime_ns();
        let width_ns = monotonic_raw_ns() - before_ns;
        Bracket { raw_ns: before_ns + width_ns / 2, realtime_ns, width_ns }
    };
    let mut best = exchange();
    for _ in 1..5 {
        let next = exchange();
        if next.width_ns < best.width_ns {
            best = next;
        }
    }
    best
}

fn read_ns(clock: ClockId) -> i64 {
    let time = clock_gettime(clock).expect("both clocks exist on every Linux this builds for");
    time.tv_sec().saturating_mul(1_000_000_000).saturating_add(time.tv_nsec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_raw_clock_advances_and_the_bracket_is_narrow() {
        let before_ns = monotonic_raw_ns();
        let bracket = bracket();
        let after_ns = monotonic_raw_ns();
        assert!(before_ns <= bracket.raw_ns && bracket.raw_ns <= after_ns);
        assert!((0..50_000_000).contains(&bracket.width_ns));
        // 2020: a clock before that has never been set.
        assert!(bracket.realtime_ns > 1_577_836_800_000_000_000);
    }
}
