//! What this node can do, measured on what it does: the rates that its beats report.
//!
//! Bytes are counted in windows without a pause, and the best window of a frame counts: in the others the node waited
//! for somebody else. Frames then enter a moving average. What was never measured is not guessed.

use plesio_wire::sideband::Speeds;
use plesio_wire::{Instant, Speed};

/// Measures one node; see the module.
#[derive(Debug, Default)]
pub(super) struct Meter {
    due: Instant,
    up: Flow,
    down: Flow,
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

    /// So many bytes were delivered and received since the start.
    pub(super) fn handle_bytes(&mut self, now: Instant, delivered: u64, received: u64) {
        self.due = now.after(SAMPLE_NS);
        self.up.handle_total(now, delivered);
        self.down.handle_total(now, received);
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
    fn handle_total(&mut self, now: Instant, total: u64) {
        // What was given up and is sent again counts as not delivered for a while.
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
            self.best = self.best.max(per_s(bytes, took_ns));
            self.window = Some((now, total));
        }
    }

    fn handle_frame(&mut self) {
        let best = core::mem::take(&mut self.best);
        if best > 0 {
            self.mean = Some(self.mean.map_or(best, |mean| mean - mean / FRAMES + best / FRAMES));
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

/// Bytes are counted so often at most.
const SAMPLE_NS: u64 = 1_000_000;
/// A window holds at least so much and lasts at least so long, or it measures the scheduler.
const WINDOW_BYTES: u64 = 64 << 10;
const WINDOW_NS: u64 = 5_000_000;
/// A longer pause ends a window: there was nothing to send.
const PAUSE_NS: u64 = 50_000_000;
/// A frame's weight in the average is one in so many, a sum's likewise.
const FRAMES: u64 = 4;
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
            meter.handle_bytes(Instant(at * MS), *total, *total / 2);
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
        for frame in 0..40 {
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
            run(&mut meter, 1 + frame * 250, 3, &mut total, 20_000);
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
    fn bytes_that_come_back_do_not_count_twice() {
        let mut meter = Meter::default();
        for at in 1..=100u64 {
            let total = at * 10_000 - if at % 3 == 0 { 15_000 } else { 0 };
            meter.handle_bytes(Instant(at * MS), total, 0);
        }
        meter.handle_frame();
        let up = meter.speeds().up.per_s().unwrap();
        assert!((8_000_000..11_000_000).contains(&up), "{up}");
        assert_eq!(meter.speeds().down, Speed(0));
    }
}
