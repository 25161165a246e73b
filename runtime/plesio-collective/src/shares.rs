//! Who owns how much, when nodes are not alike: shares that end a direct reduce-scatter and all-gather soonest.
//!
//! Knows: rates, the widths of what travels, arithmetic. Does not know: who measures, when a view takes shares into
//! force. Invariant: the same numbers give the same ranges on every node: only sums, differences, products,
//! quotients and comparisons of doubles, which IEEE 754 rounds alike everywhere, in a fixed order.
//!
//! # The problem
//!
//! Of n nodes, node i owns the share w of all elements. It sends the rest of its contribution to the other owners
//! and its summed share to n - 1 others; it receives n - 1 contributions to its share and all other sums; it adds n
//! contributions. With A bytes in all contributed elements of one node and B bytes in all summed ones, and both
//! directions and both halves under way at once (the transport overlaps them piece by piece), its three resources
//! are busy for
//!
//! ```text
//!   up    (A (1 - w) + B (n - 1) w) / up rate       =  (A + (B (n - 1) - A) w) / up rate
//!   down  (A (n - 1) w + B (1 - w)) / down rate     =  (B + (A (n - 1) - B) w) / down rate
//!   CPU   n w elements / sum rate
//! ```
//!
//! Each is a line (p + q w) / r, and the operation takes as long as the longest of all. Given a time T, a line with
//! q > 0 allows at most (T r - p) / q, one with q < 0 (results wider than contributions: who owns more receives less)
//! asks for at least (p - T r) / -q, and with q = 0, or for a share of nothing, T is at least p / r.
//!
//! # Its solution
//!
//! So T suffices when every node's least is not above its most, the leasts sum to at most 1 and the mosts to at least 1.
//! The first is one quotient for each pair of lines. The mosts are minima of rising lines: their sum is concave,
//! rising and made of lines, and so is where it reaches 1 (water rising over a bottom of unlike steps): with the lines
//! that bind at T, sum (T r - p) / q = 1 gives
//!
//! ```text
//!   T = (1 + sum p / q) / (sum r / q)
//! ```
//!
//! which never is beyond the solution, because each tangent of a concave curve lies above it. Repeating this with the
//! lines that bind at the new T ends at the solution after at most as many steps as there are lines, of which two or
//! three are usual. The leasts are the same upside down. What is left between leasts and mosts at this T is given out in
//! proportion, so that a node with nothing to spare keeps its least: often nothing.
//!
//! Shares pay as far as owning costs. Its own contribution and everybody's sum a node sends and receives whatever it
//! owns: with A = B that is more than half of what it does under equal shares, which are less than twice as slow then.
//! Where contributions are narrower than sums and uplinks unlike they are three to five times as slow on a mix of 10:1,
//! and where CPUs are what is slow up to ten times.

use alloc::vec::Vec;
use core::ops::Range;
use plesio_wire::shares::{SHARE_ONE, share_most};

/// What a node can do, measured. A rate of zero counts as one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rates {
    /// What it sends, to all others together.
    pub up_bytes_per_s: u64,
    /// What it receives, from all others together.
    pub down_bytes_per_s: u64,
    /// What it decodes and adds.
    pub sum_elements_per_s: u64,
}

/// What is to be shared out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Work {
    /// Elements of the tensor.
    pub elements: u64,
    /// Bytes of one node's contribution to all of them, as encoded.
    pub contribution_bytes: u64,
    /// Bytes of all summed elements, as encoded.
    pub result_bytes: u64,
    /// Ranges begin at multiples of it: a block of the codec.
    pub grain_elements: u64,
}

/// Time that one resource takes for a share w: `(fixed + slope w) / rate`.
#[derive(Clone, Copy)]
struct Line {
    fixed: f64,
    slope: f64,
    rate: f64,
}

impl Line {
    fn time_s(self, share: f64) -> f64 {
        (self.fixed + self.slope * share) / self.rate
    }

    /// The share that takes `time_s`: at most that with a rising line, at least with a falling one.
    fn share(self, time_s: f64) -> f64 {
        (time_s * self.rate - self.fixed) / self.slope
    }
}

impl Work {
    fn lines(&self, rates: &Rates, nodes: usize) -> [Line; 3] {
        let (a, b, n) = (self.contribution_bytes as f64, self.result_bytes as f64, nodes as f64);
        let others = n - 1.0;
        let rate = |rate: u64| rate.max(1) as f64;
        [
            Line { fixed: a, slope: b * others - a, rate: rate(rates.up_bytes_per_s) },
            Line { fixed: b, slope: a * others - b, rate: rate(rates.down_bytes_per_s) },
            Line { fixed: 0.0, slope: n * self.elements as f64, rate: rate(rates.sum_elements_per_s) },
        ]
    }

    /// How long the operation takes by this model if node i of `rates` owns `ranges[i]`.
    #[must_use]
    pub fn time_s(&self, rates: &[Rates], ranges: &[Range<u64>]) -> f64 {
        let mut time_s = 0.0;
        for (rates, range) in rates.iter().zip(ranges) {
            let share = (range.end - range.start) as f64 / self.elements.max(1) as f64;
            for line in self.lines(rates, ranges.len()) {
                time_s = larger(time_s, line.time_s(share));
            }
        }
        time_s
    }
}

/// The weights of a view, in order, where a node may own `factor` equal parts; they sum to
/// [`SHARE_ONE`](plesio_wire::shares::SHARE_ONE). A node may own nothing.
#[must_use]
pub fn share_weights(work: &Work, rates: &[Rates], factor: u8) -> Vec<u16> {
    let most = share_most(rates.len(), factor);
    let one = f64::from(SHARE_ONE);
    let shares = weights(work, rates, f64::from(most) / one);
    let total: f64 = shares.iter().fold(0.0, |sum, share| sum + share);
    // Down to whole weights, then the rest to whoever lost most, the first among equals.
    let exact: Vec<f64> = shares.iter().map(|share| share / total * one).collect();
    let mut weights: Vec<u16> = exact.iter().map(|exact| (*exact as u16).min(most)).collect();
    let given: u32 = weights.iter().map(|weight| u32::from(*weight)).sum();
    let mut rest = u32::from(SHARE_ONE).saturating_sub(given);
    while rest > 0 {
        let mut lacks: Option<(usize, f64)> = None;
        for (index, weight) in weights.iter().enumerate() {
            let lack = exact[index] - f64::from(*weight);
            if *weight < most && lacks.is_none_or(|(_, most)| lack > most) {
                lacks = Some((index, lack));
            }
        }
        let Some((index, _)) = lacks else { break };
        weights[index] += 1;
        rest -= 1;
    }
    weights
}

/// The range of each node, in order: they follow one another and cover every element. A node may own nothing.
#[must_use]
pub fn shares(work: &Work, rates: &[Rates]) -> Vec<Range<u64>> {
    let weights = weights(work, rates, 1.0);
    let grain = work.grain_elements.max(1);
    let blocks = work.elements.div_ceil(grain);
    let total: f64 = weights.iter().fold(0.0, |sum, weight| sum + weight);
    let (mut sum, mut start) = (0.0, 0);
    let mut ranges = Vec::with_capacity(weights.len());
    for (index, weight) in weights.iter().enumerate() {
        sum += weight;
        // To the nearest block; a product of doubles is exact enough to differ from it by less than one.
        let cut = ((sum / total * blocks as f64 + 0.5) as u64).min(blocks);
        let cut = if index + 1 == weights.len() { blocks } else { cut };
        let end = (cut * grain).min(work.elements);
        ranges.push(start..end);
        start = end;
    }
    ranges
}

/// The shares as fractions, none above `cap`, which lets them sum to 1: but for rounding, they do.
fn weights(work: &Work, rates: &[Rates], cap: f64) -> Vec<f64> {
    let n = rates.len();
    // Alone there is nobody to send to, and of nothing everybody owns as much.
    if n < 2 || work.elements == 0 {
        return alloc::vec![1.0; n];
    }
    let lines: Vec<[Line; 3]> = rates.iter().map(|rates| work.lines(rates, n)).collect();
    let most = |lines: &[Line; 3], time_s| most(lines, time_s, cap);
    let time_s = least_time_s(&lines, cap);
    let time_s = larger(time_s, fill(&lines, time_s, most));
    let time_s = larger(time_s, fill(&lines, time_s, least));
    let (mut sum_least, mut sum_room) = (0.0, 0.0);
    let mut boxes = Vec::with_capacity(n);
    for lines in &lines {
        let low = least(lines, time_s).0;
        let room = larger(most(lines, time_s).0 - low, 0.0);
        sum_least += low;
        sum_room += room;
        boxes.push((low, room));
    }
    let given = if sum_room > 0.0 { larger(1.0 - sum_least, 0.0) / sum_room } else { 0.0 };
    boxes.into_iter().map(|(low, room)| low + room * given).collect()
}

/// The time below which some node alone cannot end, whatever it owns.
fn least_time_s(lines: &[[Line; 3]], cap: f64) -> f64 {
    let mut time_s = 0.0;
    for lines in lines {
        for line in lines {
            // A falling line is lowest for the largest share, the others for one of nothing.
            let share = if line.slope < 0.0 { cap } else { 0.0 };
            time_s = larger(time_s, line.time_s(share));
        }
        for falling in lines.iter().filter(|line| line.slope < 0.0) {
            for rising in lines.iter().filter(|line| line.slope > 0.0) {
                // Where (p - T r) / -q meets (T r' - p') / q'.
                let met = (falling.fixed * rising.slope - rising.fixed * falling.slope)
                    / (falling.rate * rising.slope - rising.rate * falling.slope);
                time_s = larger(time_s, met);
            }
        }
    }
    time_s
}

/// A bound of one node's share at a time, and the line it lies on: `slope * T - offset`.
type Bound = (f64, f64, f64);

/// The most that a node can own: the lowest of its rising lines, and the cap.
fn most(lines: &[Line; 3], time_s: f64, cap: f64) -> Bound {
    let mut bound = (cap, 0.0, -cap);
    for line in lines.iter().filter(|line| line.slope > 0.0) {
        let share = line.share(time_s);
        if share < bound.0 {
            bound = (share, line.rate / line.slope, line.fixed / line.slope);
        }
    }
    bound
}

/// The least that a node must own: the highest of its falling lines, and 0.
fn least(lines: &[Line; 3], time_s: f64) -> Bound {
    let mut bound = (0.0, 0.0, 0.0);
    for line in lines.iter().filter(|line| line.slope < 0.0) {
        let share = line.share(time_s);
        if share > bound.0 {
            bound = (share, line.rate / line.slope, line.fixed / line.slope);
        }
    }
    bound
}

/// The earliest time, from `time_s` on, at which the bounds of all nodes sum to 1; `time_s` if they do already.
fn fill(lines: &[[Line; 3]], mut time_s: f64, bound: impl Fn(&[Line; 3], f64) -> Bound) -> f64 {
    // Each round but the last moves at least one node to its next line.
    for _ in 0..=3 * lines.len() {
        let (mut slopes, mut offsets) = (0.0, 0.0);
        for lines in lines {
            let (_, slope, offset) = bound(lines, time_s);
            slopes += slope;
            offsets += offset;
        }
        let next = (1.0 + offsets) / slopes;
        // A sum beyond 1 lies behind; without a slope it is a number of whole shares; rounding may stand still.
        if next.is_nan() || next <= time_s || slopes == 0.0 {
            break;
        }
        time_s = next;
    }
    time_s
}

/// The larger of two numbers, spelt out: `max` is free in how it treats zeros of two signs.
fn larger(a: f64, b: f64) -> f64 {
    if b > a { b } else { a }
}

#[cfg(test)]
mod tests;
