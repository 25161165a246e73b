//! When a slot is cut: the cut rule of the worker's step loop. No allocation, nothing that waits.

use crate::MeshClock;
use crate::tempo::Pulse;
use plesio_wire::{Frame, Instant, MeshTime, Schedule, Version};

/// Where slots are aimed: plain data that the node publishes to its worker.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Aim {
    /// The mesh clock.
    pub clock: MeshClock,
    /// When frames close.
    pub schedule: Schedule,
    /// How long before the close a slot is cut.
    pub lead_ns: u64,
    /// Frames from one slot to the next.
    pub stride: u8,
    /// Counts frames to let pass once, so that a queue drains.
    pub passes: u32,
    /// Counts the times that what is not cut begins anew, on the version held then.
    pub resyncs: u32,
    /// Nothing is cut for now: the state is being fetched, and what is uncommitted goes into one slot afterwards.
    pub holds: bool,
}

impl Aim {
    /// Frame period P, nanoseconds.
    #[must_use]
    pub const fn period_ns(&self) -> u64 {
        self.schedule.period_ns
    }

    /// Mesh time at which `frame` closes.
    #[must_use]
    pub fn close(&self, frame: Frame) -> MeshTime {
        self.schedule.close_of(frame)
    }

    /// Local moment at which the slot aimed at `target` is due.
    #[must_use]
    pub fn cut(&self, target: Frame) -> Instant {
        let lead_ns = i64::try_from(self.lead_ns).unwrap_or(i64::MAX);
        self.clock.local_of(MeshTime(self.close(target).0.saturating_sub(lead_ns)))
    }

    /// Closes between that of `target` and mesh time `close`, which is the close of a frame; negative when it lies before.
    #[must_use]
    pub fn closes_after(&self, target: Frame, close: MeshTime) -> f64 {
        let apart_ns = i128::from(close.0) - i128::from(self.close(target).0);
        apart_ns as f64 / self.period_ns().max(1) as f64
    }

    /// PHI: the mesh phase at a local moment, Q32.32 frames.
    #[must_use]
    pub fn mesh_phase(&self, now: Instant) -> i64 {
        self.schedule.phase(self.clock.at(now))
    }

    /// The target of the slot that is filling: the one chosen before, unless frames close otherwise than when it was.
    /// Then it is the first whose cut is still to come, if that comes sooner: the number of a frame far ahead, chosen when
    /// they were shorter, may stand for a close that is farther still. So may one that nobody would choose now whose steps
    /// take `step_ns`: the clock has entered anew since, at an earlier mesh time.
    #[must_use]
    pub fn target(&self, now: Instant, step_ns: u64, chosen: Option<(Frame, Schedule)>) -> Frame {
        let first = || self.next_target(now, Frame(0));
        // That of the slot before was due within a step; a stride on, one let pass, and one that a longer lead left out.
        let before = self.next_target(now.after(step_ns), Frame(0));
        let farthest = before.0.saturating_add(u64::from(self.stride.max(1)) + 2);
        match chosen {
            Some((target, schedule)) if schedule == self.schedule && target.0 <= farthest => target,
            Some((target, _)) => first().min(target),
            None => first(),
        }
    }

    /// The version that a slot cut now is said to stand on, of one that was begun on `base` while `version` is held. It is
    /// `base`, unless more than `tau` versions may follow that before the slot is listed: its way takes as long as its
    /// stride. Then it would come back, wait for the next cut and be too old again, for ever, and nobody would learn how
    /// long a way takes now. So it is rebased at once, as it would be after its return (section 3, "slip").
    #[must_use]
    pub fn base(&self, base: Version, version: Version, tau: u64) -> Version {
        let age = version.0.saturating_sub(base.0);
        let way = u64::from(self.stride.saturating_sub(1));
        if age.saturating_add(way) > tau { version } else { base }
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
        let closed = self.schedule.closed(mesh_ns.into()).unwrap_or_default();
        Frame(closed.0.saturating_add(1))
    }
}

/// Knows how long a step takes, and so whether another one still fits before the cut; and how many make a slot.
#[derive(Clone, Copy, Debug, Default)]
pub struct Cutter {
    step_ns: u64,
    passes: u32,
    resyncs: u32,
    steps: u32,
    per_slot_q8: u32,
}

impl Cutter {
    /// Knows nothing yet: the first step sets the estimate.
    #[must_use]
    pub const fn new() -> Self {
        Self { step_ns: 0, passes: 0, resyncs: 0, steps: 0, per_slot_q8: 0 }
    }

    /// A step took `duration_ns`: smoothed with a gain of 0.2.
    pub fn handle_step(&mut self, duration_ns: u64) {
        let duration_ns = duration_ns.min(DURATION_NS_MAX);
        self.step_ns = if self.step_ns == 0 { duration_ns } else { (self.step_ns * 4 + duration_ns) / 5 };
        self.steps = self.steps.saturating_add(1);
    }

    /// A slot was cut. What came back from earlier ones and goes along is no step of this one.
    pub fn handle_cut(&mut self) {
        let steps_q8 = core::mem::take(&mut self.steps).min(STEPS_MAX) << 8;
        let before = self.per_slot_q8;
        // Gain 1/4, rounded; at least one step.
        let mean =
            if before == 0 { steps_q8 } else { (3 * u64::from(before) + u64::from(steps_q8) + 2) as u32 / 4 };
        self.per_slot_q8 = mean.max(1 << 8);
    }

    /// s, h and H of this member now, for its beats.
    #[must_use]
    pub fn pulse(&self) -> Pulse {
        Pulse { step_ns: self.step_ns, steps: self.steps, per_slot_q8: self.per_slot_q8 }
    }

    /// Smoothed duration of a step.
    #[must_use]
    pub const fn step_ns(&self) -> u64 {
        self.step_ns
    }

    /// H_i: smoothed steps per slot, 1 at least.
    #[must_use]
    pub const fn steps_per_slot(&self) -> u32 {
        let steps = (self.per_slot_q8 + 128) >> 8;
        if steps == 0 { 1 } else { steps }
    }

    /// Frames to let pass before the next target: one when `passes`, of the aim, has risen.
    pub fn pass(&mut self, passes: u32) -> u64 {
        u64::from(core::mem::replace(&mut self.passes, passes) != passes)
    }

    /// Whether what is not cut is to begin anew: when `resyncs`, of the aim, has risen.
    pub fn rebase(&mut self, resyncs: u32) -> bool {
        core::mem::replace(&mut self.resyncs, resyncs) != resyncs
    }

    /// Whether the slot is to be cut now: it holds a step, and one more would end after `cut`.
    #[must_use]
    pub fn is_due(&self, now: Instant, cut: Instant, n_steps: u32) -> bool {
        n_steps >= 1 && now.after(self.step_ns) > cut
    }
}

/// A step longer than this says nothing about the next one.
const DURATION_NS_MAX: u64 = 3_600_000_000_000;
/// More steps in a slot than anybody takes, and than the smoothing has room for.
const STEPS_MAX: u32 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    fn aim() -> Aim {
        let clock = MeshClock { base_local: Instant(10_000 * MS), usable: true, ..MeshClock::default() };
        let schedule = Schedule::every(250 * MS);
        Aim { clock, schedule, lead_ns: 20 * MS, stride: 1, passes: 0, resyncs: 0, holds: false }
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
    fn a_slot_that_would_be_too_old_when_it_is_listed_is_rebased_as_it_is_cut() {
        let base = |stride, held| Aim { stride, ..aim() }.base(Version(10), Version(held), 4).0;
        assert_eq!([base(1, 9), base(1, 10), base(1, 14), base(1, 15)], [10, 10, 10, 15]);
        assert_eq!([base(3, 12), base(3, 13), base(16, 11), base(16, 26)], [10, 13, 11, 26]);
    }

    #[test]
    fn a_target_of_another_schedule_is_chosen_anew() {
        let before = aim();
        // Doubled at frame 40; this member learns it ten seconds later, when frame 60 is open and it aims at 81.
        let schedule = Schedule { frame: Frame(40), close: MeshTime(10_000_000_000), period_ns: 500 * MS };
        let (after, now) = (Aim { schedule, ..before }, Instant(30_010 * MS));
        let chosen = (Frame(81), before.schedule);
        let target = |aim: Aim, chosen| aim.target(now, 100 * MS, chosen);
        assert_eq!(target(Aim { stride: 16, ..before }, Some(chosen)), Frame(81));
        assert_eq!((target(after, Some(chosen)), target(after, None)), (Frame(61), Frame(61)));
        assert_eq!(target(after, Some((Frame(64), schedule))), Frame(64));
        // Halved: what it aimed at comes sooner, and is cut at once where that is over.
        let halved = Schedule { frame: Frame(78), close: MeshTime(19_500 * MS as i64), period_ns: 125 * MS };
        assert_eq!(target(Aim { schedule: halved, ..before }, Some(chosen)), Frame(81));
    }

    #[test]
    fn a_target_that_a_clock_set_back_leaves_far_ahead_is_chosen_anew() {
        let aim = aim();
        let now = Instant(30_010 * MS);
        let target = |step_ns, chosen| aim.target(now, step_ns, Some((Frame(chosen), aim.schedule))).0;
        assert_eq!(aim.next_target(now, Frame(0)), Frame(81));
        assert_eq!([target(MS, 84), target(MS, 85), target(MS, 104)], [84, 81, 81]);
        // Whose steps take five seconds aims as far ahead.
        assert_eq!([target(5_000 * MS, 104), target(5_000 * MS, 105)], [104, 81]);
    }

    #[test]
    fn steps_per_slot_are_smoothed_with_a_gain_of_a_quarter() {
        let mut cutter = Cutter::new();
        let mut slot = |steps: u32| {
            (0..steps).for_each(|_| cutter.handle_step(MS));
            assert_eq!(cutter.pulse().steps, steps);
            cutter.handle_cut();
            cutter.pulse().per_slot_q8
        };
        assert_eq!([slot(8), slot(4), slot(0)], [8 << 8, 7 << 8, 1344]);
        assert!((0..40).all(|_| slot(0) >= 1 << 8));
        assert_eq!(slot(0), 1 << 8, "never below one");
        assert_eq!((cutter.steps_per_slot(), Cutter::new().steps_per_slot()), (1, 1));
    }

    #[test]
    fn a_frame_passes_once() {
        let mut cutter = Cutter::new();
        assert_eq!([0, 1, 1, 2, 2].map(|passes| cutter.pass(passes)), [0, 1, 0, 1, 0]);
    }
}
