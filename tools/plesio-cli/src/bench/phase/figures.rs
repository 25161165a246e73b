//! What the moments of a run amount to. Pure.

use super::end::Sample;
use serde::Serialize;

/// What one process said in one run.
#[derive(Clone, Debug, Default)]
pub(super) struct Track {
    /// In the order of their moments.
    pub(super) samples: Vec<Sample>,
    /// Estimated rates, each with the moment at which it was told.
    pub(super) rates: Vec<(i64, i64)>,
    /// Bytes sent so far, each with its moment.
    pub(super) bytes: Vec<(i64, u64)>,
    pub(super) exchanges: u64,
    pub(super) clock_steps: u64,
    pub(super) false_tickers: u64,
}

/// How far off a clock was at a moment.
#[derive(Clone, Copy, Debug, Eq, PartialEq, Serialize)]
pub(super) struct Point {
    /// Since the run's begin.
    pub(super) at_ns: i64,
    pub(super) error_ns: i64,
    pub(super) bound_ns: i64,
}

/// Percentiles of magnitudes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Errors {
    pub(super) offset_error_p50_ns: f64,
    pub(super) offset_error_p99_ns: f64,
    pub(super) offset_error_max_ns: f64,
    pub(super) samples: usize,
}

/// One clock of one run.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub(super) struct Figures {
    #[serde(flatten)]
    pub(super) errors: Errors,
    pub(super) bound_p50_ns: Option<f64>,
    pub(super) bound_max_ns: Option<f64>,
    /// Moments since lock at which the bound did not cover the truth.
    pub(super) violations: usize,
    pub(super) lock_time_s: Option<f64>,
    /// Of the rate at the end.
    pub(super) rate_error_ppm: Option<f64>,
    /// The largest since the settling.
    pub(super) rate_error_max_ppm: Option<f64>,
    pub(super) sideband_bytes_per_s: Option<f64>,
    pub(super) exchanges: u64,
    pub(super) clock_steps: u64,
    pub(super) false_tickers: u64,
}

impl Errors {
    /// None of nothing.
    pub(super) fn of(errors_ns: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sizes: Vec<f64> = errors_ns.into_iter().map(f64::abs).collect();
        sizes.sort_by(f64::total_cmp);
        Some(Self {
            offset_error_p50_ns: quantile(&sizes, 0.5)?,
            offset_error_p99_ns: quantile(&sizes, 0.99)?,
            offset_error_max_ns: quantile(&sizes, 1.0)?,
            samples: sizes.len(),
        })
    }
}

/// Where two processes speak of the same moment: what one is off the other.
pub(super) fn points(reference: &[Sample], follower: &[Sample], begin_ns: i64) -> Vec<Point> {
    let mut truth = reference.iter().peekable();
    let mut points = Vec::new();
    for sample in follower {
        while truth.next_if(|known| known.raw_ns < sample.raw_ns).is_some() {}
        let Some(known) = truth.peek().filter(|known| known.raw_ns == sample.raw_ns) else { continue };
        points.push(Point {
            at_ns: sample.raw_ns.saturating_sub(begin_ns),
            error_ns: sample.mesh_ns.saturating_sub(known.mesh_ns),
            bound_ns: i64::from(sample.eps_ns),
        });
    }
    points
}

impl Figures {
    /// `rate_ppm` is what the clock runs fast; the run began at `begin_ns` and counts from `settled_ns` on.
    pub(super) fn of(track: &Track, points: &[Point], rate_ppm: f64, begin_ns: i64, settled_ns: i64) -> Self {
        let settled = || points.iter().filter(|point| point.at_ns >= settled_ns);
        let mut bounds: Vec<f64> = settled().map(|point| point.bound_ns as f64).collect();
        bounds.sort_by(f64::total_cmp);
        // Mesh time runs as the reference's clock does, which is true.
        let truth_ppm = (1.0 / (1.0 + rate_ppm / 1e6) - 1.0) * 1e6;
        let off = |rate_ppb: i64| (rate_ppb as f64 / 1e3 - truth_ppm).abs();
        let late = track.rates.iter().filter(|(at_ns, _)| at_ns - begin_ns >= settled_ns);
        Self {
            errors: Errors::of(settled().map(|point| point.error_ns as f64)).unwrap_or_default(),
            bound_p50_ns: quantile(&bounds, 0.5),
            bound_max_ns: quantile(&bounds, 1.0),
            violations: points.iter().filter(|point| point.error_ns.abs() > point.bound_ns).count(),
            lock_time_s: track.samples.first().map(|first| (first.raw_ns - begin_ns) as f64 / 1e9),
            rate_error_ppm: track.rates.last().map(|(_, rate_ppb)| off(*rate_ppb)),
            rate_error_max_ppm: late.map(|(_, rate_ppb)| off(*rate_ppb)).max_by(f64::total_cmp),
            sideband_bytes_per_s: rate_of(&track.bytes, begin_ns + settled_ns),
            exchanges: track.exchanges,
            clock_steps: track.clock_steps,
            false_tickers: track.false_tickers,
        }
    }
}

/// Bytes per second from a moment on.
fn rate_of(bytes: &[(i64, u64)], from_ns: i64) -> Option<f64> {
    let first = bytes.iter().find(|(at_ns, _)| *at_ns >= from_ns)?;
    let last = bytes.last()?;
    let elapsed_s = (last.0 - first.0) as f64 / 1e9;
    (elapsed_s > 0.0).then(|| last.1.saturating_sub(first.1) as f64 / elapsed_s)
}

/// Nearest rank; none of nothing.
fn quantile(sorted: &[f64], share: f64) -> Option<f64> {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.clamp(1, sorted.len().max(1)) - 1).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(raw_ns: i64, mesh_ns: i64, eps_ns: u32) -> Sample {
        Sample { raw_ns, mesh_ns, eps_ns }
    }

    #[test]
    fn only_moments_that_both_saw_are_compared() {
        let reference: Vec<Sample> = [10, 20, 40, 50].map(|raw_ns| sample(raw_ns, raw_ns, 1)).into();
        let follower = [sample(20, 23, 5), sample(30, 99, 5), sample(40, 34, 5), sample(60, 0, 5)];
        let found = points(&reference, &follower, 10);
        assert_eq!(
            found,
            [Point { at_ns: 10, error_ns: 3, bound_ns: 5 }, Point { at_ns: 30, error_ns: -6, bound_ns: 5 }]
        );
    }

    #[test]
    fn figures_count_from_the_settling_and_violations_from_lock() {
        let points: Vec<Point> = (1..=100)
            .map(|at_ns| Point { at_ns, error_ns: if at_ns == 1 { 90 } else { -at_ns }, bound_ns: 95 })
            .collect();
        let track = Track {
            samples: vec![sample(1_000, 0, 1)],
            rates: vec![(10, 0), (60, -199_000), (100, -199_960)],
            bytes: vec![(0, 0), (50, 100), (1_000_000_050, 600)],
            ..Track::default()
        };
        let figures = Figures::of(&track, &points, 200.0, 0, 51);
        assert_eq!((figures.errors.offset_error_p50_ns, figures.errors.offset_error_max_ns), (75.0, 100.0));
        assert_eq!((figures.errors.samples, figures.violations), (50, 5), "96 to 100");
        assert_eq!(figures.lock_time_s, Some(1e-6));
        // 200 ppm fast is 199.96 ppm slow of the other.
        assert!(figures.rate_error_ppm.is_some_and(|off| off < 1e-4), "{figures:?}");
        assert!(figures.rate_error_max_ppm.is_some_and(|off| (0.95..0.97).contains(&off)), "{figures:?}");
        assert_eq!(Figures::of(&track, &points, 0.0, 0, 50).sideband_bytes_per_s, Some(500.0));
        assert_eq!(Figures::of(&Track::default(), &[], 0.0, 0, 0).errors, Errors::default());
    }

    #[test]
    fn a_quantile_is_a_value_that_was_there() {
        let values: Vec<f64> = (1..=200).map(f64::from).collect();
        assert_eq!(
            [0.5, 0.99, 1.0].map(|share| quantile(&values, share)),
            [Some(100.0), Some(198.0), Some(200.0)]
        );
        assert_eq!(quantile(&[], 0.5), None);
        assert_eq!(quantile(&[7.0], 0.0), Some(7.0));
    }
}
