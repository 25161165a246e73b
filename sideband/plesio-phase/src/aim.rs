//! When a slot is cut: the cut rule of the worker's step loop. No allocation, nothing that waits.

use crate::MeshClock;
use plesio_wire::{Frame, Instant, MeshTime};

/// Where slots are aimed: plain data that the node publishes to its worker. Frame k closes at k P.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Aim {
    /// The mesh clock.
    pub clock: MeshClock,
    /// Frame period P.
    pub period_ns: u64,
    /// How long before the close a slot is cut.
    pub lead_ns: u64,
    /// Frames from one slot to the next.
    pub stride: u8,
    /// Counts frames to let pass once, so that a queue drains.
    pub passes: u32,
}

impl Aim {
    /// Mesh time at which `frame` closes.
    #[must_use]
    pub fn close(&self, frame: Frame) -> MeshTime {
        let close = i128::from(frame.0) * i128::from(self.period_ns);
        MeshTime(i64::try_from(close).unwrap_or(i64::MAX))
    }

    /// Local moment at which the slot aimed at `target` is due.
    #[must_use]
    pub fn cut(&self, target: Frame) -> Instant {
        let lead_ns = i64::try_from(self.lead_ns).unwrap_or(i64::MAX);
        self.clock.local_of(MeshTime(self.close(target).0.saturating_sub(lead_ns)))
    }

    /// The frame that is open now: the first one whose close lies in the future.
    #[must_use]
    pub fn frame_at(&self, now: Instant) -> Frame {
        self.first_after(self.clock.at(now).0)
    }

    /// Target after a slot aimed at `after` was cut: a stride on, or the first frame whose cut is still to come.
    #[must_use]
    pub fn next_target(&self, now: Instant, after: Frame) -> Frame {
        let lead_ns = i64::try_from(self.lead_ns).unwrap_or(i64::MAX);
        let open = self.first_after(self.clock.at(now).0.saturating_add(lead_ns));
        Frame(after.0.saturating_add(u64::from(self.stride.max(1)))).max(open)
    }

    fn first_after(&self, mesh_ns: i64) -> Frame {
        u64::try_from(mesh_ns).map_or(Frame(1), |mesh_ns| Frame(mesh_ns / self.period_ns.max(1) + 1))
    }
}

/// Knows how long a step takes, and so whether another one still fits before the cut.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cutter {
    step_ns: u64,
    passes: u32,
    /// Steps per slot in 1/256, 0: no slot yet.
    slot_steps: u64,
}

impl Cutter {
    /// Knows nothing yet: the first step sets the estimate.
    #[must_use]
    pub const fn new() -> Self {
        Self { step_ns: 0, passes: 0, slot_steps: 0 }
    }

    /// A step took `duration_ns`: smoothed with a gain of 0.2.
    pub fn handle_step(&mut self, duration_ns: u64) {
        let duration_ns = duration_ns.min(DURATION_NS_MAX);
        self.step_ns = if self.step_ns == 0 { duration_ns } else { (self.step_ns * 4 + duration_ns) / 5 };
    }

    /// Smoothed duration of a step.
    #[must_use]
    pub const fn step_ns(&self) -> u64 {
        self.step_ns
    }

    /// A slot of so many steps was cut: smoothed with a gain of 1/4 (H_i of the consensus text).
    pub fn handle_cut(&mut self, n_steps: u32) {
        let steps = u64::from(n_steps) << 8;
        self.slot_steps = if self.slot_steps == 0 { steps } else { (self.slot_steps * 3 + steps) / 4 };
    }

    /// H_i: smoothed steps per slot, 1 at least.
    #[must_use]
    pub fn steps_per_slot(&self) -> u32 {
        u32::try_from((self.slot_steps + 128) >> 8).unwrap_or(u32::MAX).max(1)
    }

    /// Frames to let pass before the next target: one when `passes`, of the aim, has risen.
    pub fn pass(&mut self, passes: u32) -> u64 {
        u64::from(core::mem::replace(&mut self.passes, passes) != passes)
    }

    /// Whether the slot is to be cut now: it holds a step, and one more would end after `cut`.
    #[must_use]
    pub fn is_due(&self, now: Instant, cut: Instant, n_steps: u32) -> bool {
        n_steps >= 1 && now.after(self.step_ns) > cut
    }
}

/// A step longer than this says nothing about the next one.
const DURATION_NS_MAX: u64 = 3_600_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn aim() -> Aim {
        let clock = MeshClock { base_local: Instant(10_000 * MS), usable: true, ..MeshClock::default() };
        Aim { clock, period_ns: 250 * MS, lead_ns: 20 * MS, stride: 1, passes: 0 }
    }

    #[test]
    fn a_slot_is_cut_when_one_more_step_would_miss_the_cut_time() {
        let aim = aim();
        let cut = aim.cut(Frame(4));
        assert_eq!(cut, Instant(10_980 * MS));
        let mut cutter = Cutter::new();
        cutter.handle_step(30 * MS);
        assert!(!cutter.is_due(Instant(10_950 * MS), cut, 3));
        assert!(cutter.is_due(Instant(10_951 * MS), cut, 3));
        assert!(!cutter.is_due(Instant(11_500 * MS), cut, 0), "an empty slot is never cut");
        cutter.handle_step(80 * MS);
        assert_eq!(cutter.step_ns(), 40 * MS);
    }

    #[test]
    fn the_next_target_is_a_stride_on_or_the_first_that_can_still_be_met() {
        let aim = aim();
        assert_eq!(aim.frame_at(Instant(10_999 * MS)), Frame(4));
        assert_eq!(aim.frame_at(Instant(11_000 * MS)), Frame(5));
        assert_eq!(aim.next_target(Instant(10_970 * MS), Frame(4)), Frame(5));
        // Frame 4's cut time is past, and so are those up to 9.
        assert_eq!(aim.next_target(Instant(12_235 * MS), Frame(4)), Frame(10));
        assert_eq!(Aim { stride: 3, ..aim }.next_target(Instant(10_970 * MS), Frame(4)), Frame(7));
        assert_eq!(aim.frame_at(Instant(0)), Frame(1), "before mesh time 0 the first frame is open");
        assert_eq!(aim.next_target(Instant(0), Frame(u64::MAX)), Frame(u64::MAX));
    }

    #[test]
    fn steps_per_slot_follow_with_a_gain_of_a_quarter_and_are_one_at_least() {
        let mut cutter = Cutter::new();
        assert_eq!(cutter.steps_per_slot(), 1);
        let seen = [8, 16, 16, 0, 0].map(|n_steps| {
            cutter.handle_cut(n_steps);
            cutter.steps_per_slot()
        });
        assert_eq!(seen, [8, 10, 12, 9, 6]);
        (0..40).for_each(|_| cutter.handle_cut(0));
        assert_eq!(cutter.steps_per_slot(), 1);
        (0..99).for_each(|_| cutter.handle_cut(u32::MAX));
        assert!(cutter.steps_per_slot() > u32::MAX / 2);
    }

    #[test]
    fn a_frame_passes_once() {
        let mut cutter = Cutter::new();
        assert_eq!([0, 1, 1, 2, 2].map(|passes| cutter.pass(passes)), [0, 1, 0, 1, 0]);
    }
}
