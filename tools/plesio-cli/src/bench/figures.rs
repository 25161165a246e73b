//! Numbers of several runs: median and spread, the worst stretch of one run, and whether to trust them.

use serde::Serialize;
use std::time::{Duration, Instant};

/// One quantity over the repeats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) min: f64,
    pub(crate) max: f64,
    pub(crate) repeats: usize,
}

impl Spread {
    /// None of no values.
    pub(crate) fn of(values: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut values: Vec<f64> = values.into_iter().filter(|value| value.is_finite()).collect();
        values.sort_by(f64::total_cmp);
        let (min, max) = (*values.first()?, *values.last()?);
        Some(Self { median: median(&values), min, max, repeats: values.len() })
    }
}

fn median(sorted: &[f64]) -> f64 {
    let middle = sorted.len() / 2;
    if sorted.len() % 2 == 1 { sorted[middle] } else { (sorted[middle - 1] + sorted[middle]) / 2.0 }
}

/// Whether the same thing, measured first and last in every round, came out the same.
pub(crate) fn trustworthy(first: &[f64], last: &[f64]) -> bool {
    let (Some(a), Some(b)) = (Spread::of(first.iter().copied()), Spread::of(last.iter().copied())) else {
        return false;
    };
    first.len() >= ROUNDS_MIN && (a.median / b.median - 1.0).abs() <= DIFFERENCE_MAX
}

/// The same in a document's word.
pub(crate) const fn verdict(trusted: bool) -> &'static str {
    if trusted { "trustworthy" } else { "noisy" }
}

/// The ratio of two medians, and where it would be had the repeats come out a little differently.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Resampled {
    pub(crate) before: f64,
    pub(crate) after: f64,
    pub(crate) ratio: f64,
    pub(crate) low: f64,
    pub(crate) high: f64,
}

/// None where one side has no values. The same values always give the same interval.
pub(crate) fn resample(before: &[f64], after: &[f64]) -> Option<Resampled> {
    let (one, two) = (Spread::of(before.iter().copied())?.median, Spread::of(after.iter().copied())?.median);
    let mut state = 0_u64;
    let mut draw = |values: &[f64]| {
        let mut drawn: Vec<f64> = (0..values.len())
            .map(|_| {
                // SplitMix64.
                state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                values[((mixed ^ (mixed >> 31)) % values.len() as u64) as usize]
            })
            .collect();
        drawn.sort_by(f64::total_cmp);
        median(&drawn)
    };
    let mut ratios: Vec<f64> = (0..RESAMPLES).map(|_| draw(after) / draw(before)).collect();
    ratios.sort_by(f64::total_cmp);
    let (low, high) = (ratios[RESAMPLES / 40], ratios[RESAMPLES - 1 - RESAMPLES / 40]);
    Some(Resampled { before: one, after: two, ratio: two / one, low, high })
}

/// 25 of them lie beyond each end of the interval.
const RESAMPLES: usize = 1_000;
/// Fewer rounds prove nothing.
const ROUNDS_MIN: usize = 3;
const DIFFERENCE_MAX: f64 = 0.05;

/// Bytes per stretch of 100 ms, counted from the run's begin, which all flows of an end share.
pub(crate) struct Stretches {
    begin: Instant,
    first: Option<Instant>,
    last: Option<Instant>,
    stopped: Option<Instant>,
    bytes: Vec<u64>,
}

impl Stretches {
    pub(crate) fn new(begin: Instant) -> Self {
        Self { begin, first: None, last: None, stopped: None, bytes: Vec::new() }
    }

    /// The link works: time counts from here.
    pub(crate) fn open(&mut self) {
        self.first = self.first.or(Some(Instant::now()));
    }

    pub(crate) fn add(&mut self, bytes: u64) {
        let now = Instant::now();
        self.first = self.first.or(Some(now));
        self.last = Some(now);
        let index = ((now - self.begin).as_nanos() / STRETCH.as_nanos()) as usize;
        if index < STRETCHES_MAX {
            self.bytes.resize(self.bytes.len().max(index + 1), 0);
            self.bytes[index] += bytes;
        }
    }

    /// From the first arrival to the last.
    pub(crate) fn elapsed_ns(&self) -> u64 {
        self.first.zip(self.last).map_or(0, |(first, last)| (last - first).as_nanos() as u64)
    }

    /// No more is taken.
    pub(crate) fn stop(&mut self) {
        self.stopped = Some(Instant::now());
    }

    /// From the first arrival to the end.
    pub(crate) fn stopped_ns(&self) -> u64 {
        self.first.zip(self.stopped).map_or(0, |(first, stopped)| (stopped - first).as_nanos() as u64)
    }

    /// Flows side by side: the earliest arrival to the latest.
    pub(crate) fn merge(&mut self, other: &Self) {
        self.first = self.first.into_iter().chain(other.first).min();
        self.last = self.last.max(other.last);
        self.stopped = self.stopped.max(other.stopped);
        add_up(&mut self.bytes, &other.bytes);
    }

    pub(crate) fn into_bytes(self) -> Vec<u64> {
        self.bytes
    }
}

/// Adds element by element.
pub(crate) fn add_up(sums: &mut Vec<u64>, more: &[u64]) {
    sums.resize(sums.len().max(more.len()), 0);
    sums.iter_mut().zip(more).for_each(|(sum, more)| *sum += more);
}

/// The slowest whole stretch; the first and the last one with any bytes are cut short.
pub(crate) fn worst_bps(stretches: &[u64]) -> Option<f64> {
    let first = stretches.iter().position(|bytes| *bytes > 0)?;
    let last = stretches.iter().rposition(|bytes| *bytes > 0)?;
    let whole = stretches.get(first + 1..last)?;
    whole.iter().min().map(|bytes| *bytes as f64 * 8.0 / STRETCH.as_secs_f64())
}

const STRETCH: Duration = Duration::from_millis(100);
/// A little more than the longest run.
const STRETCHES_MAX: usize = 6_200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_spread() {
        let spread = Spread::of([3.0, 1.0, f64::NAN, 2.0]).expect("three");
        assert_eq!((spread.median, spread.min, spread.max, spread.repeats), (2.0, 1.0, 3.0, 3));
        assert_eq!(Spread::of([1.0, 2.0]).expect("two").median, 1.5);
        assert_eq!(Spread::of([]), None);
    }

    #[test]
    fn the_worst_stretch_is_a_whole_one() {
        assert_eq!(worst_bps(&[0, 5, 100, 70, 90, 1, 0]), Some(70.0 * 80.0));
        for short in [&[][..], &[0, 0], &[1], &[1, 2]] {
            assert_eq!(worst_bps(short), None, "{short:?}");
        }
        assert_eq!(worst_bps(&[1, 0, 1]), Some(0.0), "a silence is a stretch");
    }

    #[test]
    fn what_differs_from_itself_is_noisy() {
        assert!(trustworthy(&[1.0, 1.1, 1.0], &[1.02, 1.0, 1.0]));
        assert!(!trustworthy(&[1.0, 1.0, 1.0], &[1.2, 1.2, 1.2]));
        assert!(!trustworthy(&[1.0], &[1.0]), "one round proves nothing");
    }
}
