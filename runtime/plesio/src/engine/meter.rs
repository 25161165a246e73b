//! What this node can do, measured on what it does: the rates that its beats report.
//!
//! Bytes are counted in windows without a pause, and the best window of a frame counts: in the others the node waited
//! for somebody else. Frames then enter a moving average. What was never measured is not guessed.

use plesio_wire::sideband::Speeds;
use plesio_wire::{Instant, Speed};
use std::collections::VecDeque;

/// Measures one node; see the module.
#[derive(Debug, Default)]
pub(super) struct Meter {
    due: Instant,
    up: Flow,
    down: Flow,
    /// When so many bytes had been sent, lately.
    sends: VecDeque<(Instant, u64)>,
    /// Elements decoded and added, and the nanoseconds that took, the older ones less and less.
    summed: (u64, u64),
    /// Elements of the sum that is being computed.
    summing: u64,
}

#[derive(Debug, Default)]
struct Flow {
    /// Bytes so far.
    total: u64,
    /// When some were last seen to have moved.
    moved: Instant,
    /// When the window began, and the bytes before it.
    window: Option<(Instant, u64)>,
    /// The best window of this frame, bytes per second.
    best: u64,
    mean: Option<u64>,
}

impl Meter {
    /// Whether the bytes should be counted again.
    pub(super) fn is_due(&self, now: Instant) -> bool {
        now >= self.due
    }

    /// So many bytes were sent, delivered and received since the start.
    pub(super) fn handle_bytes(&mut self, now: Instant, sent: u64, delivered: u64, received: u64) {
        self.due = now.after(SAMPLE_NS);
        if self.sends.back().is_none_or(|(_, before)| sent > *before) {
            if self.sends.len() == SENDS_MAX {
                self.sends.pop_front();
            }
            self.sends.push_back((now, sent));
        }
        let sent_at = |bytes: u64| {
            let at = self.sends.partition_point(|(_, sent)| *sent < bytes);
            self.sends.get(at).map_or(now, |(at, _)| *at)
        };
        // What acknowledgements report at once did not leave at once.
        self.up.handle_total(now, delivered, |before, total| sent_at(total).since(sent_at(before)));
        self.down.handle_total(now, received, |_, _| 0);
    }

    /// A sum over so many elements, each contribution's counted, is about to be computed.
    pub(super) fn handle_sum(&mut self, elements: u64) {
        self.summing = elements;
    }

    /// It is computed.
    pub(super) fn handle_summed(&mut self, took_ns: u64) {
        let fade = |sum: u64, part: u64| (sum - sum / SUMS).saturating_add(part);
        let elements = core::mem::take(&mut self.summing);
        if elements > 0 && took_ns > 0 {
            self.summed = (fade(self.summed.0, elements), fade(self.summed.1, took_ns));
        }
    }

    /// A frame is over.
    pub(super) fn handle_frame(&mut self) {
        self.up.handle_frame();
        self.down.handle_frame();
    }

    /// What the beats say.
    pub(super) fn speeds(&self) -> Speeds {
        let (elements, took_ns) = self.summed;
        let sum = if elements < SUM_ELEMENTS_MIN { 0 } else { per_s(elements, took_ns) };
        Speeds { up: self.up.speed(), down: self.down.speed(), sum: Speed::of(sum) }
    }
}

impl Flow {
    /// `least_ns`: what bytes from one total to another took at least, by another measure.
    fn handle_total(&mut self, now: Instant, total: u64, least_ns: impl Fn(u64, u64) -> u64) {
        if total <= self.total {
            return;
        }
        let is_dense = now.since(self.moved) <= PAUSE_NS;
        let window = self.window.filter(|_| is_dense);
        (self.total, self.moved) = (total, now);
        let Some((since, before)) = window else {
            self.window = Some((now, total));
            return;
        };
        let (bytes, took_ns) = (total - before, now.since(since));
        if bytes >= WINDOW_BYTES && took_ns >= WINDOW_NS {
            let took_ns = took_ns.max(least_ns(before, total));
            self.best = self.best.max(per_s(bytes, took_ns));
            self.window = Some((now, total));
        }
    }

    fn handle_frame(&mut self) {
        let best = core::mem::take(&mut self.best);
        if best > 0 {
            self.mean = Some(match self.mean {
                Some(mean) if best < mean => mean - (mean - best) / FRAMES_FALL,
                Some(mean) => mean + (best - mean) / FRAMES_RISE,
                None => best,
            });
        }
    }

    fn speed(&self) -> Speed {
        Speed::of(self.mean.unwrap_or_default())
    }
}

fn per_s(count: u64, took_ns: u64) -> u64 {
    let per_s = u128::from(count) * 1_000_000_000 / u128::from(took_ns.max(1));
    u64::try_from(per_s).unwrap_or(u64::MAX)
}

/// Moments of sending that are remembered.
const SENDS_MAX: usize = 512;
/// Bytes are counted so often at most.
const SAMPLE_NS: u64 = 1_000_000;
/// A window holds at least so much and lasts at least so long, or it measures the scheduler.
const WINDOW_BYTES: u64 = 32 << 10;
const WINDOW_NS: u64 = 4_000_000;
/// A longer pause ends a window: there was nothing to send.
const PAUSE_NS: u64 = 50_000_000;
/// A frame's weight in the average is one in so many. What was reached once can be reached again, and frames in which
/// others were what was slow are many: it falls slowly.
const FRAMES_RISE: u64 = 2;
const FRAMES_FALL: u64 = 32;
/// A sum's weight likewise.
const SUMS: u64 = 8;
/// Fewer elements say nothing of how fast they are summed.
const SUM_ELEMENTS_MIN: u64 = 1 << 14;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    /// Moves `bytes_per_ms` both ways for so long.
    fn run(meter: &mut Meter, from_ms: u64, ms: u64, total: &mut u64, bytes_per_ms: u64) {
        for at in from_ms..from_ms + ms {
            *total += bytes_per_ms;
            meter.handle_bytes(Instant(at * MS), *total, *total, *total / 2);
        }
    }

    #[test]
    fn the_best_window_counts_and_pauses_do_not() {
        let (mut meter, mut total) = (Meter::default(), 0);
        run(&mut meter, 1, 100, &mut total, 10_000);
        // Held up by a slow receiver, then silent.
        run(&mut meter, 101, 100, &mut total, 1_000);
        meter.handle_frame();
        assert_eq!(meter.speeds().up, Speed::of(10_000_000));
        assert_eq!(meter.speeds().down, Speed::of(5_000_000));
        run(&mut meter, 5_000, 100, &mut total, 10_000);
        meter.handle_frame();
        assert_eq!(meter.speeds().up, Speed::of(10_000_000), "what happened in between is no rate");
        for frame in 0..200 {
            run(&mut meter, 6_000 + frame * 200, 100, &mut total, 1_000);
            meter.handle_frame();
        }
        let slow = meter.speeds().up.per_s().unwrap();
        assert!((900_000..1_100_000).contains(&slow), "{slow}");
    }

    #[test]
    fn too_little_is_not_measured() {
        let (mut meter, mut total) = (Meter::default(), 0);
        for frame in 0..20 {
            run(&mut meter, 1 + frame * 250, 3, &mut total, 8_000);
            meter.handle_frame();
        }
        assert_eq!(meter.speeds(), Speeds::default());
        meter.handle_sum(1_000);
        meter.handle_summed(1_000);
        assert_eq!(meter.speeds(), Speeds::default());
        meter.handle_sum(1 << 20);
        meter.handle_summed(1 << 20);
        meter.handle_summed(1 << 30);
        assert_eq!(meter.speeds().sum, Speed::of(1_000_000_000));
    }

    #[test]
    fn acknowledgements_that_come_together_are_no_faster_link() {
        // A kilobyte a millisecond leaves; word of it comes every 40 ms, and half of that 8 ms later.
        let mut meter = Meter::default();
        for at in 1..2_000u64 {
            let told = at / 40 * 40 * 1_000 - if at % 40 < 8 && at >= 40 { 20_000 } else { 0 };
            meter.handle_bytes(Instant(at * MS), at * 1_000, told, 0);
            if at % 250 == 0 {
                meter.handle_frame();
            }
        }
        let up = meter.speeds().up.per_s().unwrap();
        assert!((800_000..1_200_000).contains(&up), "{up}");
        assert_eq!(meter.speeds().down, Speed(0));
    }
}
