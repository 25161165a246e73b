//! The exchanges with one peer, and what they say about its mesh clock: a rate, and an interval for M - C.
//!
//! ```text
//!   fwd = t2 - t1 = theta + forward delay        theta(t) = theta(now) + rate (t - now)
//!   rev = t4 - t3 = return delay - theta
//! ```
//!
//! Delays are not negative, so every exchange proves -rev <= theta <= fwd, give or take what the peer's own mesh time was off
//! *then*: that has to go with each exchange, since a peer that found better since was no better before. The interval is the
//! intersection of all these proofs, each carried to now by the rate and widened by 1.25 times the rate's residual and its
//! age. It holds the truth for any asymmetry, and cannot be narrower without hardware.

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
    /// How long the peer held the probe: `fwd` is of a moment that much before `at`, and the clocks run apart meanwhile.
    pub(crate) held: i64,
    pub(crate) fwd_kernel: bool,
    pub(crate) rev_kernel: bool,
    /// Our own stamp of the probe, where `fwd` rests on it and the kernel's may still come.
    pub(crate) t1_user: Option<i64>,
    /// Whether the peer's kernel stamped the probe's arrival.
    pub(crate) t2_kernel: bool,
    /// What the peer's mesh time may have been off then; `None` until a later word of the peer covers this moment.
    pub(crate) eps: Option<u32>,
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

    /// Stamps still to come are of another clock: what is there stays as it is.
    pub(crate) fn settle_stamps(&mut self) {
        self.samples.iter_mut().rev().take(RECENT).for_each(|sample| sample.t1_user = None);
    }

    /// The peer's mesh time was off by no more than that since its last word.
    pub(crate) fn handle_eps(&mut self, eps: u32) {
        let untold = self.samples.iter_mut().rev().take_while(|sample| sample.eps.is_none());
        untold.for_each(|sample| sample.eps = Some(eps));
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
        let mut told = self.samples.iter().filter(|sample| sample.eps.is_some());
        let oldest = told.next()?.at;
        let newest = told.next_back().map_or(oldest, |sample| sample.at);
        let span = newest - oldest;
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
            && (long.slope - short.slope).abs() <= RATE_NOISE_MIN * 2.0 + scatter.max(short.slope_bound / 2.0)
        {
            line = long;
        }
        let limit = RATE_PPB_MAX as f64 / 1e9;
        // A short look at a noisy path proves little: of the rates it allows, take the one next to none.
        let doubt = if span < SPAN_NS_SETTLED { line.slope_bound } else { 0.0 };
        self.rate = line.slope.signum() * (line.slope.abs() - doubt).clamp(0.0, limit);
        let well_known = self.slopes_len == SLOPES && span >= SPAN_NS_SETTLED;
        let known = if well_known { scatter.max(line.slope_bound / 2.0) } else { f64::INFINITY };
        // What was taken off for doubt, and what is more than anybody's rate: the line is off by it, and says so.
        let beyond = (line.slope.abs() - doubt - limit).max(0.0);
        let withheld = (line.slope - self.rate).abs().min(doubt) + beyond;
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
            let Some((fwd, rev)) = sample.proof() else { continue };
            let age = now.saturating_sub(sample.at) as f64;
            let moved = (self.rate * age) as i64;
            let widened = (1.25 * residual * age.abs()) as i64;
            // The probe came some time in the two-way delay before the peer began to hold it.
            let before = sample.held as f64 + sample.two_way() as f64 / 2.0;
            let apart = (self.rate * before) as i64;
            let unsure = (self.rate.abs() * sample.two_way() as f64 / 2.0 + 1.25 * residual * before) as i64;
            let fwd_slack = widened + apart + unsure + if sample.fwd_kernel { 0 } else { USER_STAMP_NS };
            let rev_slack = widened + if sample.rev_kernel { 0 } else { USER_STAMP_NS };
            hi = hi.min(fwd.saturating_add(moved + fwd_slack));
            lo = lo.max((-rev).saturating_add(moved - rev_slack));
            delay_min = delay_min.min(fwd.saturating_add(rev));
        }
        if lo > hi {
            // The proofs contradict each other: the rate was worse than its bound. Cover them all.
            let slack = delay_min.max(0) / 2;
            return Interval { lo: hi.saturating_sub(slack), hi: lo.saturating_add(slack) };
        }
        Interval { lo, hi }
    }

    /// The detrending needs the slope and the slope the detrended minima: rounds until it stands still. What it still moves in the
    /// last one is doubt, since the minima of one bin may lie at its two ends.
    fn settled_line(&self, bin_ns: i64, newest: i64) -> Option<Line> {
        let mut line = self.line(bin_ns, newest, self.rate)?;
        let mut moved = (line.slope - self.rate).abs();
        for _ in 1..ROUNDS_MAX {
            if moved < STILL {
                break;
            }
            let next = self.line(bin_ns, newest, line.slope)?;
            moved = (next.slope - line.slope).abs();
            line = next;
        }
        Some(Line { slope_bound: line.slope_bound + moved, ..line })
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
            let Some((fwd, rev)) = sample.proof() else { continue };
            let trend = rate * (sample.at.rem_euclid(bin_ns) - bin_ns / 2) as f64;
            let apart = rate * (sample.held as f64 + sample.two_way() as f64 / 2.0);
            minimum.0 = minimum.0.min(fwd.saturating_sub(anchor) as f64 - trend + apart);
            minimum.1 = minimum.1.min(rev.saturating_add(anchor) as f64 + trend);
        }
        let usable = |bin: &usize| minima[*bin].0.is_finite();
        if (0..BINS).filter(usable).count() < BINS_MIN {
            return None;
        }
        let value = |bin: usize| (minima[bin].0 - minima[bin].1) / 2.0;
        let half_delay = |bin: usize| ((minima[bin].0 + minima[bin].1) / 2.0).max(0.0);
        let mut slopes = [0.0; BINS * (BINS - 1) / 2];
        let mut pairs = 0;
        let (mut least, mut most) = (f64::NEG_INFINITY, f64::INFINITY);
        for late in (0..BINS).filter(usable) {
            for early in (0..late).filter(usable) {
                let apart = (late - early) as f64;
                let slope = (value(late) - value(early)) / (apart * bin_ns as f64);
                slopes[pairs] = slope;
                pairs += 1;
                if late - early > 1 {
                    // Minima lie up to half a bin from where they count: what the slope is off moves them, and so itself.
                    let give = (half_delay(late) + half_delay(early)) / ((apart - 1.0) * bin_ns as f64);
                    least = least.max(slope - give);
                    most = most.min(slope + give);
                }
            }
        }
        let slope = median(&mut slopes[..pairs]).clamp(least, most.max(least));
        Some(Line { slope, slope_bound: (most - slope).max(slope - least).max(0.0) })
    }
}

impl Sample {
    /// What it proves of true mesh time: theta is at most the first, and at least the second's negative.
    fn proof(&self) -> Option<(i64, i64)> {
        let eps = i64::from(self.eps?);
        Some((self.fwd.saturating_add(eps), self.rev.saturating_add(eps)))
    }

    /// The two ways' delays, as far as clocks that run apart show them; never negative.
    fn two_way(&self) -> i64 {
        self.fwd.saturating_add(self.rev).max(0)
    }

    fn middle(&self) -> i64 {
        (i128::from(self.fwd) - i128::from(self.rev)).div_euclid(2).clamp(i64::MIN.into(), i64::MAX.into())
            as i64
    }
}

#[derive(Clone, Copy)]
struct Line {
    slope: f64,
    /// How far the true rate may be from it: every pair of bins bounds it by their delays and the peer's own errors, so that no
    /// asymmetry and no slewing of the peer's can bend it further.
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
/// A slope that moves by less, a part per billion, stands still.
const STILL: f64 = 1e-9;
const ROUNDS_MAX: usize = 12;
const RATE_NOISE_MIN: f64 = 0.5e-6;
/// What a stamp taken in user space may be off, beyond the delay that is measured with it.
const USER_STAMP_NS: i64 = 50_000;
