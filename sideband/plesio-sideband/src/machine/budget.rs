//! How much the sideband may send, and beats that come more rarely before it is more.
//!
//! ```text
//!   budget = members x (1 kB/s for beats and clocks + 1 kB for each frame; a second's frame at least)
//!            32 kB/s for 16 and 64 kB/s for 32 members with frames of a second, headers and tags included
//!   beat interval = 100 ms up to 9/10 of it, 200 ms from all of it on, and straight between
//! ```
//!
//! At 200 ms two beats in a row may be lost before anybody suspects, and four before anybody is left out.

use super::Machine;
use plesio_wire::Instant;

/// The rate of what is sent, smoothed, and what follows from it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Budget {
    /// Bytes a second that may be sent.
    bytes_per_s: u64,
    /// Bytes a second that are sent, over the last seconds.
    rate: u64,
    looked: (Instant, u64),
    beat_ns: u64,
    /// Turns of a look at which beats were rarer.
    lengthened: u64,
}

impl Budget {
    pub(super) const fn new(now: Instant) -> Self {
        Self { bytes_per_s: u64::MAX, rate: 0, looked: (now, 0), beat_ns: BEAT_NS, lengthened: 0 }
    }

    /// A view of so many members, and frames of that length, is in force.
    pub(super) fn handle_view(&mut self, members: usize, period_ns: u64) {
        let frames_per_s = (SECOND_NS / period_ns.max(1)).max(1);
        self.bytes_per_s = (members as u64).saturating_mul(BEATS_BYTES + frames_per_s * FRAME_BYTES);
    }

    /// So many bytes were sent since the beginning; whether the interval is another one.
    fn handle_sent(&mut self, now: Instant, sent_bytes: u64) -> bool {
        let (then, before) = self.looked;
        let elapsed_ns = now.since(then);
        if elapsed_ns < LOOK_NS {
            return false;
        }
        self.looked = (now, sent_bytes);
        let rate =
            u128::from(sent_bytes.saturating_sub(before)) * u128::from(SECOND_NS) / u128::from(elapsed_ns);
        let rate = u64::try_from(rate).unwrap_or(u64::MAX);
        // An average over the last seconds, however long this look took.
        let part = elapsed_ns.min(SMOOTH_NS);
        let weigh = |rate: u64, part_ns: u64| u128::from(rate) * u128::from(part_ns);
        self.rate = ((weigh(self.rate, SMOOTH_NS - part) + weigh(rate, part)) / u128::from(SMOOTH_NS)) as u64;
        let free = self.bytes_per_s / 10 * 9;
        let over = self.rate.saturating_sub(free).min(self.bytes_per_s - free);
        let more_ns = u128::from(BEAT_NS) * u128::from(over) / u128::from((self.bytes_per_s - free).max(1));
        let beat_ns = BEAT_NS + more_ns as u64;
        self.lengthened += u64::from(beat_ns > BEAT_NS);
        std::mem::replace(&mut self.beat_ns, beat_ns) != beat_ns
    }
}

/// How far the sideband is within its budget.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Pace {
    /// What it may send, bytes a second with all headers; `u64::MAX` before the first view.
    pub budget: u64,
    /// What it sends, over the last 8 s.
    pub rate: u64,
    /// Nanoseconds between beats: 100 ms unless there is no room for as many.
    pub beat_ns: u64,
    /// Half seconds in which beats were rarer than that.
    pub lengthened: u64,
    /// How long others' full beats took to come, nanoseconds by the mesh clock: 99 in 100 of the newest 512 came sooner.
    pub delay_p99_ns: u64,
    /// How many of them there were, 512 at most.
    pub delays: u32,
}

impl Machine {
    /// Beats come as often as there is room for.
    pub(super) fn keep_budget(&mut self, now: Instant) {
        let tags = self.datagrams_sent.saturating_mul(self.config.tag_bytes);
        if self.budget.handle_sent(now, self.bytes_sent.saturating_add(tags)) {
            self.membership.handle_beat_ns(self.budget.beat_ns);
        }
    }

    /// What is sent, and what may be.
    #[must_use]
    pub fn pace(&self) -> Pace {
        let (delays, delay_p99_ns) = self.delays.p99();
        let delays = delays as u32;
        let Budget { bytes_per_s, rate, beat_ns, lengthened, .. } = self.budget;
        Pace { budget: bytes_per_s, rate, beat_ns, lengthened, delay_p99_ns, delays }
    }
}

const SECOND_NS: u64 = 1_000_000_000;
const BEATS_BYTES: u64 = 1_000;
const FRAME_BYTES: u64 = 1_000;
const BEAT_NS: u64 = plesio_membership::BEAT_NS;
const LOOK_NS: u64 = SECOND_NS / 2;
const SMOOTH_NS: u64 = 8 * SECOND_NS;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn beats_are_rarer_before_the_budget_is_spent_and_as_often_again_after_it() {
        let mut budget = Budget::new(Instant(0));
        budget.handle_view(16, SECOND_NS);
        assert_eq!(budget.bytes_per_s, 32_000);
        budget.handle_view(32, SECOND_NS);
        assert_eq!(budget.bytes_per_s, 64_000);
        budget.handle_view(16, SECOND_NS);
        let (mut now, mut sent) = (0, 0);
        let mut run = |budget: &mut Budget, bytes_per_s: u64, seconds: u64| {
            for _ in 0..seconds * 10 {
                (now, sent) = (now + SECOND_NS / 10, sent + bytes_per_s / 10);
                budget.handle_sent(Instant(now), sent);
            }
            budget.beat_ns
        };
        assert_eq!(run(&mut budget, 25_000, 60), BEAT_NS);
        let middle = run(&mut budget, 30_400, 60);
        assert!((BEAT_NS * 14 / 10..BEAT_NS * 16 / 10).contains(&middle), "{middle}");
        // What an hour of silence or a flood makes of it is bounded.
        assert_eq!(run(&mut budget, 900_000, 60), 2 * BEAT_NS);
        assert!(budget.lengthened > 200);
        assert_eq!(run(&mut budget, 5_000, 60), BEAT_NS);
        let mut stopped = budget;
        stopped.handle_sent(Instant(u64::MAX), u64::MAX);
        assert!((BEAT_NS..=2 * BEAT_NS).contains(&stopped.beat_ns));
    }
}
