//! When frames close: one line on the mesh clock, through the close of a frame that is known, a period apart.
//!
//! A period changes by a view, and the line is bent at a close that both periods share: so whoever knows the view in
//! force knows when every frame closes, and the frame in progress goes on.

use crate::{Frame, MeshTime};

/// The closes of all frames.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Schedule {
    /// A frame whose close is known.
    pub frame: Frame,
    /// Mesh time of that close.
    pub close: MeshTime,
    /// Frame period P, nanoseconds.
    pub period_ns: u64,
}

impl Schedule {
    /// Frame k closes at k P.
    #[must_use]
    pub const fn every(period_ns: u64) -> Self {
        Self { frame: Frame(0), close: MeshTime(0), period_ns }
    }

    /// Mesh time of the close of `frame`, nanoseconds, without bounds.
    #[must_use]
    pub fn close_ns(self, frame: Frame) -> i128 {
        let frames = i128::from(frame.0) - i128::from(self.frame.0);
        frames.saturating_mul(self.period_ns.into()).saturating_add(self.close.0.into())
    }

    /// Mesh time of the close of `frame`, saturating.
    #[must_use]
    pub fn close_of(self, frame: Frame) -> MeshTime {
        let close_ns = self.close_ns(frame);
        MeshTime(i64::try_from(close_ns).unwrap_or(if close_ns < 0 { i64::MIN } else { i64::MAX }))
    }

    /// The newest frame that has closed at mesh time `mesh_ns`; none before frame 0 has, and without a period.
    #[must_use]
    pub fn closed(self, mesh_ns: i128) -> Option<Frame> {
        let passed_ns = mesh_ns.checked_sub(self.close.0.into())?;
        let frame = passed_ns.checked_div_euclid(self.period_ns.into())?.checked_add(self.frame.0.into())?;
        u64::try_from(frame).ok().map(Frame)
    }

    /// PHI: the mesh phase at mesh time `mesh`, Q32.32 frames, saturating.
    #[must_use]
    pub fn phase(self, mesh: MeshTime) -> i64 {
        let passed_ns = i128::from(mesh.0) - i128::from(self.close.0);
        let part = passed_ns * (1 << 32) / i128::from(self.period_ns.max(1));
        let phase = (i128::from(self.frame.0) << 32) + part;
        i64::try_from(phase).unwrap_or(if phase < 0 { i64::MIN } else { i64::MAX })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn a_bent_schedule_shares_the_close_at_its_bend() {
        let before = Schedule::every(250_000_000);
        assert_eq!((before.close_of(Frame(40)), before.closed(0)), (MeshTime(10_000 * MS), Some(Frame(0))));
        let after = Schedule { frame: Frame(40), close: before.close_of(Frame(40)), period_ns: 500_000_000 };
        for at_ms in [10_000, 10_001, 10_249] {
            let mesh_ns = i128::from(at_ms * MS);
            assert_eq!((before.closed(mesh_ns), after.closed(mesh_ns)), (Some(Frame(40)), Some(Frame(40))));
        }
        assert_eq!(before.phase(MeshTime(10_000 * MS)), after.phase(MeshTime(10_000 * MS)));
        assert_eq!(after.close_of(Frame(42)), MeshTime(11_000 * MS));
        assert_eq!(after.closed(i128::from(10_999 * MS)), Some(Frame(41)));
        // What lies before the bend has a place too: earlier frames, down to the first.
        assert_eq!(after.closed(i128::from(9_999 * MS)), Some(Frame(39)));
        assert_eq!(after.closed(-i128::from(10_000 * MS)), Some(Frame(0)));
        assert_eq!(after.closed(-i128::from(10_001 * MS)), None);
    }

    #[test]
    fn absurd_schedules_saturate() {
        let wild = Schedule { frame: Frame(u64::MAX), close: MeshTime(i64::MIN), period_ns: u64::MAX };
        assert_eq!(wild.close_of(Frame(0)), MeshTime(i64::MIN));
        assert_eq!(Schedule::every(u64::MAX).close_of(Frame(u64::MAX)), MeshTime(i64::MAX));
        assert_eq!(wild.phase(MeshTime(i64::MAX)), i64::MAX);
        assert_eq!((wild.closed(i128::MAX), Schedule::default().closed(5)), (None, None));
        assert_eq!(Schedule::default().phase(MeshTime(0)), 0);
    }
}
