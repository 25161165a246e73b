//! The exchanges with one peer, and what they say about its mesh clock: a rate, and an interval for M - C.
//!
//! ```text
//!   fwd = t2 - t1 = theta + forward delay        theta(t) = theta(now) + rate (t - now)
//!   rev = t4 - t3 = return delay - theta
//! ```
//!
//! Delays are not negative, so every exchange proves -rev <= theta <= fwd. The interval is the intersection of all
//! these proofs, each carried to now by the rate and widened by 1.25 times the rate's residual and its age. It
//! holds the truth for any asymmetry, and cannot be narrower without hardware.

use crate::RATE_PPB_MAX;
use crate::fusion::Interval;
use alloc::collections::VecDeque;

/// One two-way exchange. Stamps taken in user space keep the proof, and are widened all the same.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Sample {
    /// Local time of the reply's arrival.
    pub(crate) at: i64,
    pub(crate) fwd: i64,
    pub(crate) rev: i64,
    pub(crate) fwd_kernel: bool,
    pub(crate) rev_kernel: bool,
    pub(crate) pair: u32,
    pub(crate) pos: u8,
}

/// What a window says now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fit {
    /// dM/dC - 1.
    pub(crate) rate: f64,
    /// Bound on the rate's error.
    pub(crate) residual: f64,
    /// M - C at the moment asked for.
    pub(crate) theta: Interval,
    /// When the newest exchange came back.
    pub(crate) newest: i64,
}

#[derive(Debug)]
pub(crate) struct Window {
    samples: VecDeque<Sample>,
    rate: f64,
    /// Short-window slopes at the last bin borders, newest last.
    slopes: [f64; SLOPES],
    slopes_len: usize,
    border: i64,
}

impl Window {
    pub(crate) fn new() -> Self {
        Self {
            samples: VecDeque::with_capacity(SAMPLES_MAX),
            rate: 0.0,
            slopes: [0.0; SLOPES],
            slopes_len: 0,
            border: i64::MIN,
        }
    }

    pub(crate) fn clear(&mut self) {
        self.samples.clear();
        self.rate = 0.0;
        self.slopes_len = 0;
        self.border = i64::MIN;
    }

    pub(crate) fn push(&mut self, sample: Sample) {
        while self.samples.len() >= SAMPLES_MAX
            || self.samples.front().is_some_and(|old| sample.at.saturating_sub(old.at) > SPAN_NS_MAX)
        {
            self.samples.pop_front();
        }
        self.samples.push_back(sample);
    }

    /// The exchange (pair, pos), if it is among the last few: kernel stamps arrive after it.
    pub(crate) fn recent_mut(&mut self, pair: u32, pos: u8) -> Option<&mut Sample> {
        self.samples.iter_mut().rev().take(RECENT).find(|sample| sample.pair == pair && sample.pos == pos)
    }

    /// How far `sample` lies from where the window expects M - C; 0 while there is nothing to expect.
    pub(crate) fn surprise(&self, sample: &Sample) -> i64 {
        let Some(last) = self.samples.back() else { return 0 };
        let (was, is) = (last.middle(), sample.middle());
        let drift = (self.rate * sample.at.saturating_sub(last.at) as f64) as i64;
        is.saturating_sub(was).saturating_sub(drift).saturating_abs()
    }

    /// Rate and interval at local time `now`; `None` with fewer than three usable bins.
    pub(crate) fn fit(&mut self, now: i64) -> Option<Fit> {
        let newest = self.samples.back()?.at;
        let span = newest - self.samples.front()?.at;
        let short_bin =
            BIN_NS_SHORT.into_iter().find(|bin| span <= bin * (BINS as i64 - 1)).unwrap_or(BIN_NS);
        let short = self.settled_line(short_bin, newest)?;
        if newest.div_euclid(short_bin) != self.border {
            self.border = newest.div_euclid(short_bin);
            self.slopes.rotate_left(1);
            self.slopes[SLOPES - 1] = short.slope;
            self.slopes_len = (self.slopes_len + 1).min(SLOPES);
        }
        let scatter = 3.0 * self.slope_mad();
        let mut line = short;
        // A longer look is better while the oscillators hold their rate, and worse once one drifts.
        let long_bin =
            BIN_NS_LONG.into_iter().find(|bin| span <= bin * (BINS as i64 - 1)).unwrap_or(BIN_NS_MAX);
        if span > BIN_NS * BINS as i64
            && let Some(long) = self.settled_line(long_bin, newest)
            && (long.slope - short.slope).abs() <= RATE_NOISE_MIN * 2.0 + scatter
        {
            line = long;
        }
        let limit = RATE_PPB_MAX as f64 / 1e9;
        // A short look at a noisy path proves little: of the rates it allows, take the one next to none.
        let doubt = if span < SPAN_NS_SETTLED { line.slope_bound } else { 0.0 };
        self.rate = line.slope.signum() * (line.slope.abs() - doubt).clamp(0.0, limit);
        let known =
            if self.slopes_len == SLOPES { scatter.max(line.slope_bound / 2.0) } else { f64::INFINITY };
        let withheld = (line.slope - self.rate).abs().min(doubt);
        let residual = line.slope_bound.min(known).max(RATE_NOISE_MIN) + withheld;
        Some(Fit { rate: self.rate, residual, theta: self.interval(now, newest, residual), newest })
    }

    fn slope_mad(&self) -> f64 {
        let mut slopes = self.slopes;
        let known = &mut slopes[SLOPES - self.slopes_len..];
        let centre = median(known);
        for slope in known.iter_mut() {
            *slope = (*slope - centre).abs();
        }
        median(known)
    }

    /// The intersection of what every exchange of the last 16 s proves.
    fn interval(&self, now: i64, newest: i64, residual: f64) -> Interval {
        let (mut lo, mut hi) = (i64::MIN, i64::MAX);
        let mut delay_min = i64::MAX;
        for sample in self.samples.iter().filter(|sample| newest - sample.at <= BIN_NS * BINS as i64) {
            let age = now.saturating_sub(sample.at) as f64;
            let moved = (self.rate * age) as i64;
            let widened = (1.25 * residual * age.abs()) as i64;
            let fwd_slack = widened + if sample.fwd_kernel { 0 } else { USER_STAMP_NS };
            let rev_slack = widened + if sample.rev_kernel { 0 } else { USER_STAMP_NS };
            hi = hi.min(sample.fwd.saturating_add(moved + fwd_slack));
            lo = lo.max((-sample.rev).saturating_add(moved - rev_slack));
            delay_min = delay_min.min(sample.fwd.saturating_add(sample.rev));
        }
        if lo > hi {
            // The proofs contradict each other: the rate was worse than its bound. Cover them all.
            let slack = delay_min.max(0) / 2;
            return Interval { lo: hi.saturating_sub(slack), hi: lo.saturating_add(slack) };
        }
        Interval { lo, hi }
    }

    /// The detrending needs the slope and the slope the detrended minima: three rounds settle it.
    fn settled_line(&self, bin_ns: i64, newest: i64) -> Option<Line> {
        let mut line = self.line(bin_ns, newest, self.rate)?;
        for _ in 0..2 {
            line = self.line(bin_ns, newest, line.slope)?;
        }
        Some(line)
    }

    /// Theil-Sen line through the bins' values, with `rate` for detrending inside the bins.
    fn line(&self, bin_ns: i64, newest: i64, rate: f64) -> Option<Line> {
        let anchor = self.samples.back()?.middle();
        let first = newest.div_euclid(bin_ns) - (BINS as i64 - 1);
        let mut minima = [(f64::INFINITY, f64::INFINITY); BINS];
        for sample in &self.samples {
            let bin = sample.at.div_euclid(bin_ns) - first;
            let Some(minimum) = usize::try_from(bin).ok().and_then(|bin| minima.get_mut(bin)) else {
                continue;
            };
            let trend = rate * (sample.at.rem_euclid(bin_ns) - bin_ns / 2) as f64;
            minimum.0 = minimum.0.min(sample.fwd.saturating_sub(anchor) as f64 - trend);
            minimum.1 = minimum.1.min(sample.rev.saturating_add(anchor) as f64 + trend);
        }
        let usable = |bin: &usize| minima[*bin].0.is_finite();
        let (head, tail) = ((0..BINS).find(usable)?, (0..BINS).rfind(usable)?);
        if (0..BINS).filter(usable).count() < BINS_MIN {
            return None;
        }
        let value = |bin: usize| (minima[bin].0 - minima[bin].1) / 2.0;
        let half_delay = |bin: usize| ((minima[bin].0 + minima[bin].1) / 2.0).max(0.0);
        let mut slopes = [0.0; BINS * (BINS - 1) / 2];
        let mut pairs = 0;
        for late in (0..BINS).filter(usable) {
            for early in (0..late).filter(usable) {
                slopes[pairs] = (value(late) - value(early)) / ((late - early) as f64 * bin_ns as f64);
                pairs += 1;
            }
        }
        let slope_bound = (half_delay(head) + half_delay(tail)) / ((tail - head) as f64 * bin_ns as f64);
        Some(Line { slope: median(&mut slopes[..pairs]), slope_bound })
    }
}

impl Sample {
    fn middle(&self) -> i64 {
        (i128::from(self.fwd) - i128::from(self.rev)).div_euclid(2).clamp(i64::MIN.into(), i64::MAX.into())
            as i64
    }
}

#[derive(Clone, Copy)]
struct Line {
    slope: f64,
    /// The two end bins' half delays over their distance: no asymmetry can bend the slope further.
    slope_bound: f64,
}

/// Median, 0 of nothing; sorts in place.
fn median(values: &mut [f64]) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let Some(last) = values.len().checked_sub(1) else { return 0.0 };
    (values[last / 2] + values[last.div_ceil(2)]) / 2.0
}

const BINS: usize = 8;
const BINS_MIN: usize = 3;
const SLOPES: usize = 8;
const BIN_NS: i64 = 2_000_000_000;
const BIN_NS_SHORT: [i64; 4] = [250_000_000, 500_000_000, 1_000_000_000, BIN_NS];
const BIN_NS_LONG: [i64; 2] = [4_000_000_000, BIN_NS_MAX];
const BIN_NS_MAX: i64 = 8_000_000_000;
/// From here on the slope is taken as it is.
const SPAN_NS_SETTLED: i64 = 4_000_000_000;
const SPAN_NS_MAX: i64 = BIN_NS_MAX * BINS as i64;
/// 64 pairs of the first 8 s and four exchanges a second after.
const SAMPLES_MAX: usize = 384;
const RECENT: usize = 8;
const RATE_NOISE_MIN: f64 = 0.5e-6;
/// What a stamp taken in user space may be off, beyond the delay that is measured with it.
const USER_STAMP_NS: i64 = 50_000;
