//! Frames on the mesh clock, as the view in force schedules them. Safety never asks this file anything.

use plesio_wire::{Frame, Instant, MeshTime, Schedule};

/// The mesh clock as last told, run on at the rate last told.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct MeshClock {
    local: Instant,
    mesh_ns: i64,
    rate_ppb: i64,
    usable: bool,
    told: bool,
}

const BILLION: i128 = 1_000_000_000;

impl MeshClock {
    pub(crate) fn set(&mut self, now: Instant, mesh: MeshTime, rate_ppb: i32, usable: bool) {
        self.told |= usable;
        self.usable = usable;
        if usable {
            // Clocks that differ by a tenth are not clocks; the bound keeps the arithmetic sane.
            let rate_ppb = i64::from(rate_ppb).clamp(-100_000_000, 100_000_000);
            (self.local, self.mesh_ns, self.rate_ppb) = (now, mesh.0, rate_ppb);
        }
    }

    /// Whether closes may be timed by it.
    pub(crate) const fn is_usable(&self) -> bool {
        self.usable
    }

    fn mesh_at(&self, now: Instant) -> i128 {
        let local_ns = i128::from(now.0) - i128::from(self.local.0);
        i128::from(self.mesh_ns) + (local_ns * (BILLION + i128::from(self.rate_ppb))).div_euclid(BILLION)
    }

    /// The newest frame whose close has passed, also on a clock that ran out of news; none before that of frame 0.
    pub(crate) fn closed(&self, now: Instant, schedule: Schedule) -> Option<Frame> {
        if self.told { schedule.closed(self.mesh_at(now)) } else { None }
    }

    /// The first local moment at which `frame` has closed.
    pub(crate) fn close_local(&self, frame: Frame, schedule: Schedule) -> Option<Instant> {
        if !self.told || schedule.period_ns == 0 {
            return None;
        }
        let mesh_ns = schedule.close_ns(frame) - i128::from(self.mesh_ns);
        let scaled = mesh_ns.saturating_mul(BILLION);
        let rate = BILLION + i128::from(self.rate_ppb);
        // Rounded up, so that `closed` agrees at the very moment.
        let local_ns =
            i128::from(self.local.0) + scaled.div_euclid(rate) + i128::from(scaled.rem_euclid(rate) > 0);
        Some(Instant(u64::try_from(local_ns.max(0)).unwrap_or(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUARTER: Schedule = Schedule::every(250_000_000);

    #[test]
    fn a_frame_has_closed_exactly_at_its_close() {
        let bent = Schedule { frame: Frame(999), close: MeshTime(300_000_000_123), period_ns: 500_000_000 };
        for (rate_ppb, schedule) in [0, 200_000, -200_000, 1, -1, 99_999_999]
            .into_iter()
            .flat_map(|rate| [(rate, QUARTER), (rate, bent)])
        {
            let mut clock = MeshClock::default();
            assert_eq!(clock.closed(Instant(5), schedule), None);
            clock.set(Instant(7_000_000_123), MeshTime(1_234_567), rate_ppb, true);
            for frame in
                [1, 2, 3, 1000, 999_983].into_iter().filter(|frame| schedule.close_ns(Frame(*frame)) > 0)
            {
                let close = clock.close_local(Frame(frame), schedule).unwrap();
                assert_eq!(clock.closed(close, schedule), Some(Frame(frame)));
                assert_eq!(
                    clock.closed(Instant(close.0 - 1), schedule),
                    Some(Frame(frame - 1)),
                    "rate {rate_ppb}"
                );
            }
        }
    }

    #[test]
    fn absurd_frames_and_times_saturate() {
        let mut clock = MeshClock::default();
        clock.set(Instant(9), MeshTime(i64::MAX), i32::MAX, true);
        assert_eq!(clock.close_local(Frame(1), QUARTER), Some(Instant(0)));
        clock.set(Instant(9), MeshTime(i64::MIN), i32::MIN, true);
        assert_eq!(clock.closed(Instant(10), QUARTER), None);
        let wild = Schedule { frame: Frame(u64::MAX), close: MeshTime(i64::MIN), period_ns: 60_000_000_000 };
        assert_eq!(
            clock.close_local(Frame(u64::MAX), Schedule::every(60_000_000_000)),
            Some(Instant(u64::MAX))
        );
        assert_eq!(clock.close_local(Frame(0), wild), Some(Instant(0)));
        assert_eq!(clock.closed(Instant(10), Schedule::default()), None, "there is no view yet");
    }
}
