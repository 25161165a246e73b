//! A member's tempo in frames: its phase, its frequency and how far that is from the mesh's. Reported in beats; nothing
//! of it decides anything but the frame period.

use plesio_wire::{Frame, MeshTime};

/// What the step loop says of itself.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pulse {
    /// s: smoothed duration of a step, nanoseconds.
    pub step_ns: u64,
    /// h: steps done since the last cut.
    pub steps: u32,
    /// H: smoothed steps per slot, in 1/256; 0 before the first cut, at least 256 after it.
    pub per_slot_q8: u32,
}

/// The newest cuts of this member.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tempo {
    cuts: [(MeshTime, Frame); CUTS],
    count: usize,
    pulse: Pulse,
}

impl Tempo {
    /// A slot aimed at `target` was cut at mesh time `at`.
    pub fn handle_cut(&mut self, at: MeshTime, target: Frame) {
        // A clock or a target that went back says nothing of a frequency.
        if self.newest().is_some_and(|(then, before)| at <= then || target < before) {
            self.count = 0;
        }
        if self.count == CUTS {
            self.cuts.rotate_left(1);
            self.count -= 1;
        }
        self.cuts[self.count] = (at, target);
        self.count += 1;
    }

    /// The newest word of the step loop.
    pub fn handle_pulse(&mut self, pulse: Pulse) {
        self.pulse = pulse;
    }

    /// Frames are counted otherwise from here on.
    pub fn handle_period(&mut self) {
        self.count = 0;
    }

    /// What the step loop said last.
    #[must_use]
    pub const fn pulse(&self) -> Pulse {
        self.pulse
    }

    /// phi = K + q h / H, Q32.32 frames: K the target of the slot cut last, q the stride. `None` before the first cut.
    #[must_use]
    pub fn phase(&self, stride: u8) -> Option<i64> {
        let (_, target) = self.newest()?;
        let per_slot = i128::from(self.pulse.per_slot_q8.max(1 << 8));
        let done = (i128::from(self.pulse.steps) << 40) * i128::from(stride.max(1)) / per_slot;
        Some(i64::try_from((i128::from(target.0) << 32) + done).unwrap_or(i64::MAX))
    }

    /// f: frames per second over the last eight cuts; `None` before the second one.
    #[must_use]
    pub fn frequency_hz(&self) -> Option<f64> {
        let (from, first) = *self.cuts.first().filter(|_| self.count > 1)?;
        let (to, last) = self.newest()?;
        Some((last.0 - first.0) as f64 * 1e9 / (to.0 as f64 - from.0 as f64))
    }

    /// y = f P - 1, parts per billion, saturating; 0 before the second cut.
    #[must_use]
    pub fn y_ppb(&self, period_ns: u64) -> i32 {
        // A cast to an integer saturates.
        self.frequency_hz().map_or(0, |f| (f * period_ns as f64 - 1e9) as i32)
    }

    fn newest(&self) -> Option<(MeshTime, Frame)> {
        self.count.checked_sub(1).map(|newest| self.cuts[newest])
    }
}

/// Eight intervals between cuts.
const CUTS: usize = 9;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: i64 = 1_000_000;

    #[test]
    fn phase_and_frequency_are_those_of_the_text() {
        let mut tempo = Tempo::default();
        assert_eq!((tempo.phase(1), tempo.frequency_hz(), tempo.y_ppb(250_000_000)), (None, None, 0));
        for frame in 0..20 {
            // Cut a frame apart, but a hundredth slow.
            tempo.handle_cut(MeshTime(frame * 2_525 * MS / 10), Frame(100 + frame as u64));
        }
        tempo.handle_pulse(Pulse { step_ns: 7, steps: 3, per_slot_q8: 4 << 8 });
        assert_eq!(tempo.phase(1), Some((119 << 32) + (3 << 30)));
        assert_eq!(tempo.phase(2), Some((119 << 32) + (6 << 30)), "a stride of two frames");
        assert!((tempo.frequency_hz().unwrap() - 4.0 / 1.01).abs() < 1e-9);
        assert_eq!(tempo.y_ppb(250_000_000), -9_900_990);
    }

    #[test]
    fn absurd_cuts_saturate_and_never_panic() {
        let mut tempo = Tempo::default();
        tempo.handle_cut(MeshTime(i64::MIN), Frame(0));
        tempo.handle_cut(MeshTime(i64::MAX), Frame(u64::MAX));
        tempo.handle_pulse(Pulse { step_ns: u64::MAX, steps: u32::MAX, per_slot_q8: 0 });
        assert_eq!(tempo.phase(u8::MAX), Some(i64::MAX));
        assert_eq!(tempo.y_ppb(60_000_000_000), i32::MAX);
        tempo.handle_cut(MeshTime(5), Frame(1));
        assert_eq!(tempo.frequency_hz(), None, "a clock that went back begins anew");
        tempo.handle_cut(MeshTime(6), Frame(1));
        assert_eq!(tempo.y_ppb(1_000_000_000), -1_000_000_000, "a member that stands");
    }
}
