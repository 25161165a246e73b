//! What a bad path does to datagrams: one machine for the simulator's links and for real ones.
//!
//! `Path` draws what becomes of each datagram and when it arrives; the simulator puts that on its own queue.
//! [`Link`] is the same path with a bounded queue of its own, for whoever carries real datagrams: time and bytes
//! come in, bytes come out when they are due. Same seed, same datagrams at the same times: the same fate.
//!
//! ```text
//!  datagram -> rate -> silence, cut, loss -> copy -> damage -> lateness -> length of the way, jitter -> arrival
//! ```
//!
//! Jitter keeps the order, as queues on a real way do; only what is drawn for reordering, and copies, leave it.

mod link;

pub use link::Link;

use crate::random::Random;
use std::fmt;

/// What a path does to datagrams. Chances are in millionths; nothing is wrong by default.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Impairment {
    /// Each datagram for itself vanishes.
    pub loss_ppm: u32,
    /// Datagrams vanish in rows.
    pub burst: Option<Burst>,
    /// With each datagram the path may fall silent, for an eighth of `silence_ns` to all of it.
    pub silence_ppm: u32,
    /// The longest silence.
    pub silence_ns: u64,
    /// What the path is longer than it would be.
    pub delay_ns: u64,
    /// On top of that, up to so much.
    pub jitter_ns: u64,
    /// How long a draw of the jitter holds, about; 0 draws anew for each datagram. On a dense path fresh draws are no
    /// jitter at all: the order is kept, so the slowest of many neighbours sets the pace of all.
    pub jitter_hold_ns: u64,
    /// On top of that, delays most of which are short and some very long.
    pub tail: Option<Tail>,
    /// A datagram leaves the order.
    pub reorder_ppm: u32,
    /// How much later such a datagram is, at most.
    pub reorder_ns: u64,
    /// A datagram comes twice, the copy up to 300 ms later.
    pub duplicate_ppm: u32,
    /// Bits of a datagram flip, or its end is cut off, or bytes are added to it.
    pub corrupt_ppm: u32,
    /// What the path carries.
    pub rate: Option<Rate>,
    /// Longer datagrams vanish.
    pub mtu_bytes: Option<u32>,
    /// It carries nothing.
    pub cut: bool,
}

impl Impairment {
    /// Whether every figure is one that a path can have.
    ///
    /// # Errors
    /// The first one that is not.
    pub fn check(&self) -> Result<(), ImpairError> {
        let Self { loss_ppm, silence_ppm, reorder_ppm, duplicate_ppm, corrupt_ppm, .. } = *self;
        let chances = [
            ("loss", loss_ppm),
            ("silence", silence_ppm),
            ("reorder", reorder_ppm),
            ("dup", duplicate_ppm),
            ("corrupt", corrupt_ppm),
        ];
        let burst = self.burst.map(|burst| [burst.enter_ppm, burst.leave_ppm, burst.loss_ppm]);
        let bursts = burst.into_iter().flatten().map(|ppm| ("burst", ppm));
        for (name, ppm) in chances.into_iter().chain(bursts) {
            if u64::from(ppm) > MILLION {
                return Err(ImpairError::Chance { name, ppm });
            }
        }
        let times = [
            ("silence", self.silence_ns),
            ("delay", self.delay_ns),
            ("jitter", self.jitter_ns),
            ("jitter's hold", self.jitter_hold_ns),
            ("a tail's longest delay", self.tail.map_or(0, |tail| tail.most_ns)),
            ("a tail's hold", self.tail.map_or(0, |tail| tail.hold_ns)),
            ("reorder", self.reorder_ns),
        ];
        match times.into_iter().find(|(_, time_ns)| *time_ns > TIME_NS_MAX) {
            Some((name, time_ns)) => Err(ImpairError::Time { name, time_ns }),
            None if self.rate.is_some_and(|rate| rate.bytes_per_s == 0) => Err(ImpairError::Rate),
            None => Ok(()),
        }
    }
}

/// Why no path can be like that.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ImpairError {
    /// More than certain.
    Chance {
        /// Which.
        name: &'static str,
        /// What it is, millionths.
        ppm: u32,
    },
    /// Longer than any path is.
    Time {
        /// Which.
        name: &'static str,
        /// What it is, nanoseconds.
        time_ns: u64,
    },
    /// Nothing per second; a cut is said as one.
    Rate,
}

impl fmt::Display for ImpairError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chance { name, ppm } => {
                write!(f, "{name} happens {ppm} times in a million; choose 1000000 or fewer")
            }
            Self::Time { name, time_ns } => {
                write!(f, "{name} takes {time_ns} ns; choose {TIME_NS_MAX} or less")
            }
            Self::Rate => f.write_str(
                "a rate of 0 bytes per second carries nothing; leave the rate out or cut the path",
            ),
        }
    }
}

impl std::error::Error for ImpairError {}

/// Delays without a mean: longer than `x` once in `1 + x / median` draws (Lomax's law with the exponent 1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Tail {
    /// Half of all draws are shorter, nanoseconds.
    pub median_ns: u64,
    /// No draw is longer, nanoseconds.
    pub most_ns: u64,
    /// How long a draw holds: half of that at least, nanoseconds.
    pub hold_ns: u64,
}

impl Tail {
    fn draw(self, random: &mut Random) -> u64 {
        // median (1 / u - 1), u in (0, 1]: in integers, so that it is the same everywhere.
        let part = random.below(1 << 32) + 1;
        let delay_ns = u128::from(self.median_ns) * u128::from((1 << 32) - part) / u128::from(part);
        u64::try_from(delay_ns).unwrap_or(u64::MAX).min(self.most_ns)
    }
}

/// A path with a good and a bad state, one draw per datagram (Gilbert, 1960; Elliott, 1963). In the good one only
/// [`Impairment::loss_ppm`] loses.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Burst {
    /// From good to bad.
    pub enter_ppm: u32,
    /// From bad to good; its inverse is the mean length of a row.
    pub leave_ppm: u32,
    /// What the bad state loses.
    pub loss_ppm: u32,
}

impl Burst {
    /// Loses `loss_ppm` of all datagrams, in rows of `len_mean` on average; longer ones where so much loss leaves no room
    /// for gaps between them.
    #[must_use]
    pub fn with_loss(loss_ppm: u32, len_mean: u32) -> Self {
        let loss = u64::from(loss_ppm).min(MILLION);
        let kept = MILLION - loss;
        // The share of the bad state is enter / (enter + leave), and neither is more than certain.
        let leave =
            (MILLION / u64::from(len_mean.max(1))).min((kept * MILLION).checked_div(loss).unwrap_or(MILLION));
        let enter = (loss * leave).checked_div(kept).unwrap_or(MILLION);
        Self { enter_ppm: enter as u32, leave_ppm: leave as u32, loss_ppm: MILLION as u32 }
    }
}

/// A token bucket with a queue before it; what does not fit in the queue is lost.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rate {
    /// Bytes of datagrams per second; 0 is taken for 1.
    pub bytes_per_s: u64,
    /// What passes at once after a rest.
    pub bucket_bytes: u64,
    /// What may wait.
    pub queue_bytes: u64,
}

/// What became of the datagrams of a path.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tally {
    /// Came in.
    pub taken: u64,
    /// Vanished by chance, in a row, in a silence, at a cut, or because they were long.
    pub lost: u64,
    /// Did not fit in the queue of the rate.
    pub overrun: u64,
    /// Did not fit in the memory that a link may use.
    pub refused: u64,
    /// Were sent twice.
    pub copied: u64,
    /// Were damaged.
    pub damaged: u64,
    /// Left the order.
    pub late: u64,
    /// Went out, copies included.
    pub sent: u64,
}

impl Tally {
    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            taken: self.taken + other.taken,
            lost: self.lost + other.lost,
            overrun: self.overrun + other.overrun,
            refused: self.refused + other.refused,
            copied: self.copied + other.copied,
            damaged: self.damaged + other.damaged,
            late: self.late + other.late,
            sent: self.sent + other.sent,
        }
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { taken, lost, overrun, refused, copied, damaged, late, sent } = self;
        write!(f, "{taken} datagrams: {lost} lost, {copied} copied, {damaged} damaged, {late} out of order")?;
        write!(f, ", {overrun} over the rate's queue, {refused} over memory, {sent} sent on")
    }
}

/// What becomes of one datagram.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Fate {
    Lose,
    Arrive {
        at_ns: u64,
        damaged: bool,
        /// When its copy arrives, undamaged.
        copy_at_ns: Option<u64>,
    },
}

/// One direction between two ends.
#[derive(Clone, Debug, Default)]
pub(crate) struct Path {
    /// How long the way is without any fault.
    base_ns: u64,
    now: Impairment,
    bad: bool,
    silent_until: u64,
    last_arrival: u64,
    jitter_ns: u64,
    jitter_until: u64,
    tail_ns: u64,
    tail_until: u64,
    busy_until: u64,
    pub(crate) tally: Tally,
}

impl Path {
    pub(crate) fn new(base_ns: u64) -> Self {
        Self { base_ns, ..Self::default() }
    }

    /// From here on this is wrong with it.
    pub(crate) fn impair(&mut self, impairment: Impairment) {
        self.now = impairment;
        if impairment.silence_ppm == 0 {
            self.silent_until = 0;
        }
        self.bad &= impairment.burst.is_some();
    }

    /// What it carries at most, if it is narrower than others.
    pub(crate) fn mtu_bytes(&self) -> Option<u32> {
        self.now.mtu_bytes
    }

    /// Whether it loses a fifth at most, is never silent, and delays nothing by more than a tenth of a second.
    pub(crate) fn carries(&self) -> bool {
        let now = &self.now;
        let held_ns = now.delay_ns + now.jitter_ns + if now.reorder_ppm > 0 { now.reorder_ns } else { 0 };
        let is_steady = !now.cut && now.burst.is_none() && now.silence_ppm == 0 && now.rate.is_none();
        is_steady && now.loss_ppm + now.corrupt_ppm <= 200_000 && held_ns <= 100_000_000
    }

    /// Draws what becomes of `datagram`, and damages it where it is damaged. `copy` holds it as it was when it goes
    /// twice, and is left alone when not.
    pub(crate) fn pass(
        &mut self,
        random: &mut Random,
        now_ns: u64,
        datagram: &mut Vec<u8>,
        copy: &mut Vec<u8>,
    ) -> Fate {
        self.tally.taken += 1;
        let Some(now_ns) = self.leave(now_ns, datagram.len() as u64) else {
            self.tally.overrun += 1;
            return Fate::Lose;
        };
        let long = self.now.mtu_bytes.is_some_and(|bytes| datagram.len() > bytes as usize);
        if long || self.loses(random, now_ns) {
            self.tally.lost += 1;
            return Fate::Lose;
        }
        let copy_at_ns = random.chance(self.now.duplicate_ppm).then(|| {
            copy.clear();
            copy.extend_from_slice(datagram);
            self.tally.copied += 1;
            let late_ns = random.pick(&COPIES_LATE_NS);
            let late_ns = random.below(late_ns);
            self.arrival(random, now_ns, late_ns)
        });
        let damaged = random.chance(self.now.corrupt_ppm) && damage(random, datagram);
        self.tally.damaged += u64::from(damaged);
        let late_ns = if random.chance(self.now.reorder_ppm) { random.below(self.now.reorder_ns) } else { 0 };
        self.tally.late += u64::from(late_ns > 0);
        let at_ns = self.arrival(random, now_ns, late_ns);
        Fate::Arrive { at_ns, damaged, copy_at_ns }
    }

    /// When the last byte of a datagram has left for the path, behind all those before it; none when it does not fit
    /// in the queue.
    fn leave(&mut self, now_ns: u64, len_bytes: u64) -> Option<u64> {
        let Some(rate) = self.now.rate else { return Some(now_ns) };
        let bytes_per_s = u128::from(rate.bytes_per_s.max(1));
        let takes_ns = |bytes: u64| {
            u64::try_from(u128::from(bytes) * 1_000_000_000 / bytes_per_s).unwrap_or(u64::MAX / 4)
        };
        let waits_bytes = u128::from(self.busy_until.saturating_sub(now_ns)) * bytes_per_s / 1_000_000_000;
        if waits_bytes + u128::from(len_bytes) > u128::from(rate.queue_bytes) {
            return None;
        }
        // The bucket: after a rest the path is as if it had been free for so long.
        let free_since = now_ns.saturating_sub(takes_ns(rate.bucket_bytes));
        self.busy_until = self.busy_until.max(free_since).saturating_add(takes_ns(len_bytes));
        Some(self.busy_until.max(now_ns))
    }

    fn loses(&mut self, random: &mut Random, now_ns: u64) -> bool {
        if random.chance(self.now.silence_ppm) {
            let longest_ns = self.now.silence_ns;
            self.silent_until = now_ns.saturating_add(random.between(longest_ns / 8, longest_ns));
        }
        let mut lost = false;
        if let Some(burst) = self.now.burst {
            self.bad =
                if self.bad { !random.chance(burst.leave_ppm) } else { random.chance(burst.enter_ppm) };
            lost = self.bad && random.chance(burst.loss_ppm);
        }
        lost || self.now.cut || now_ns < self.silent_until || random.chance(self.now.loss_ppm)
    }

    /// Late datagrams leave the order of their path; all others keep it.
    fn arrival(&mut self, random: &mut Random, now_ns: u64, late_ns: u64) -> u64 {
        let hold_ns = self.now.jitter_hold_ns;
        if hold_ns == 0 || now_ns >= self.jitter_until {
            self.jitter_ns = random.below(self.now.jitter_ns.saturating_add(1));
            if hold_ns > 0 {
                self.jitter_until = now_ns.saturating_add(random.between(hold_ns / 2, hold_ns));
            }
        }
        if let Some(tail) = self.now.tail.filter(|_| now_ns >= self.tail_until) {
            self.tail_ns = tail.draw(random);
            self.tail_until = now_ns.saturating_add(random.between(tail.hold_ns / 2, tail.hold_ns));
        }
        let tail_ns = if self.now.tail.is_some() { self.tail_ns } else { 0 };
        let way_ns = self.base_ns.saturating_add(self.now.delay_ns).saturating_add(self.jitter_ns);
        let way_ns = way_ns.saturating_add(tail_ns);
        let arrival = now_ns.saturating_add(way_ns);
        if late_ns > 0 {
            return arrival.saturating_add(late_ns);
        }
        self.last_arrival = self.last_arrival.max(arrival);
        self.last_arrival
    }
}

/// Changes a datagram as no checksum should overlook; false when the flips cancelled each other out.
fn damage(random: &mut Random, bytes: &mut Vec<u8>) -> bool {
    let len = bytes.len() as u64;
    match random.below(8) {
        0 if len > 0 => bytes.truncate(random.below(len) as usize),
        2.. if len > 0 => {
            let mut flipped = [0; FLIPS_MAX as usize];
            let count = random.between(1, FLIPS_MAX) as usize;
            for place in &mut flipped[..count] {
                *place = random.below(len * 8);
                bytes[(*place / 8) as usize] ^= 1 << (*place % 8);
            }
            let times = |bit| flipped[..count].iter().filter(|place| **place == bit).count();
            return flipped[..count].iter().any(|bit| times(*bit) % 2 == 1);
        }
        _ => {
            for _ in 0..random.between(1, 40) {
                bytes.push(random.next() as u8);
            }
        }
    }
    true
}

/// What is certain, in millionths.
const MILLION: u64 = 1_000_000;
/// The longest delay that a path may have.
pub const TIME_NS_MAX: u64 = 10_000_000_000;
const FLIPS_MAX: u64 = 4;
/// A copy comes at once, or when its original is old, or from another age.
const COPIES_LATE_NS: [u64; 3] = [1_000_000, 20_000_000, 300_000_000];

#[cfg(test)]
mod tests;
