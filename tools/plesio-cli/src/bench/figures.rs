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

/// Fewer rounds prove nothing.
const ROUNDS_MIN: usize = 3;
const DIFFERENCE_MAX: f64 = 0.05;

/// Bytes per stretch of 100 ms since the first arrival.
pub(crate) struct Worst {
    begin: Instant,
    last: Instant,
    stretches: Vec<u64>,
}

impl Worst {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self { begin: now, last: now, stretches: Vec::new() }
    }

    pub(crate) fn add(&mut self, bytes: u64) {
        self.last = Instant::now();
        let index = ((self.last - self.begin).as_nanos() / STRETCH.as_nanos()) as usize;
        if index < STRETCHES_MAX {
            self.stretches.resize(self.stretches.len().max(index + 1), 0);
            self.stretches[index] += bytes;
        }
    }

    pub(crate) fn elapsed_ns(&self) -> u64 {
        (self.last - self.begin).as_nanos() as u64
    }

    /// Of whole stretches; the last one is cut short.
    pub(crate) fn bps(&self) -> Option<f64> {
        let whole = self.stretches.split_last()?.1;
        whole.iter().min().map(|bytes| *bytes as f64 * 8.0 / STRETCH.as_secs_f64())
    }
}

const STRETCH: Duration = Duration::from_millis(100);
/// An hour.
const STRETCHES_MAX: usize = 36_000;

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
    fn what_differs_from_itself_is_noisy() {
        assert!(trustworthy(&[1.0, 1.1, 1.0], &[1.02, 1.0, 1.0]));
        assert!(!trustworthy(&[1.0, 1.0, 1.0], &[1.2, 1.2, 1.2]));
        assert!(!trustworthy(&[1.0], &[1.0]), "one round proves nothing");
    }
}
