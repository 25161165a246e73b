//! Kernel stamps are on `CLOCK_REALTIME`: what they mean on the clock that nobody sets.

/// What `CLOCK_REALTIME` showed beside `CLOCK_MONOTONIC_RAW`.
#[derive(Default)]
pub(super) struct RealtimeMap {
    last: Option<plesio_udp::clock::Bracket>,
    pub(super) steps: u64,
}

impl RealtimeMap {
    /// Reads both clocks; true when one was moved since the last reading.
    pub(super) fn refresh(&mut self) -> bool {
        let next = plesio_udp::clock::bracket();
        let before = self.last.replace(next);
        let stepped = before.is_some_and(|before| {
            let elapsed_ns = next.raw_ns - before.raw_ns;
            let moved_ns = (next.realtime_ns - before.realtime_ns) - elapsed_ns;
            // Slewing by the host's own time service is no step.
            let allowed_ns = MOVED_NS_MAX + elapsed_ns / SLEW_SHARE + before.width_ns + next.width_ns;
            moved_ns.abs() > allowed_ns
        });
        self.steps += u64::from(stepped);
        stepped
    }

    /// A kernel stamp on the raw clock, and how far off that may be; `None` when the program's own is as good.
    pub(super) fn raw_ns(&self, stamp_ns: i64) -> Option<(i64, i64)> {
        let last = self.last.filter(|last| last.width_ns <= WIDTH_NS_MAX)?;
        let age_ns = last.realtime_ns.checked_sub(stamp_ns)?;
        (-WIDTH_NS_MAX..STAMP_AGE_NS_MAX).contains(&age_ns).then(|| (last.raw_ns - age_ns, last.width_ns / 2))
    }
}

const MOVED_NS_MAX: i64 = 10_000;
/// 500 ppm.
const SLEW_SHARE: i64 = 2_000;
const WIDTH_NS_MAX: i64 = 20_000;
const STAMP_AGE_NS_MAX: i64 = 10_000_000_000;
