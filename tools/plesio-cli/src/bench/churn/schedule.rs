//! When something happens, and to whom; drawn from the seed.
//!
//! Pure. Kills, starts and stops have a clock each. What cannot be done when it is due, for want of a quorum or of a dead
//! node, waits for the next look.

use crate::demo::plan::SplitMix64;

/// What is due.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Due {
    Kill,
    Start,
    Pause,
}

pub(super) struct Schedule {
    draw: SplitMix64,
    kill_ns: Option<i64>,
    start_ns: i64,
    pause_ns: Option<i64>,
    pauses: usize,
}

impl Schedule {
    pub(super) fn new(seed: u64, now_ns: i64, kills: bool, pauses: bool) -> Self {
        let mut draw = SplitMix64(seed ^ SALT);
        let mut after = |range| now_ns + between(&mut draw, range);
        let (kill_ns, start_ns) = (after(ACTION_NS), after(ACTION_NS));
        let kill_ns = kills.then_some(kill_ns);
        let pause_ns = pauses.then(|| after(PAUSE_EVERY_NS));
        Self { draw, kill_ns, start_ns, pause_ns, pauses: 0 }
    }

    /// What is due, the longest awaited first. It stays due until [`Self::done`].
    pub(super) fn due(&self, now_ns: i64) -> Vec<Due> {
        let times =
            [(self.kill_ns, Due::Kill), (Some(self.start_ns), Due::Start), (self.pause_ns, Due::Pause)];
        let mut due: Vec<(i64, Due)> = times
            .into_iter()
            .filter_map(|(at, due)| at.filter(|at| *at <= now_ns).map(|at| (at, due)))
            .collect();
        due.sort_by_key(|(at, _)| *at);
        due.into_iter().map(|(_, due)| due).collect()
    }

    /// It was done, or there was nothing to do it to.
    pub(super) fn done(&mut self, due: Due, now_ns: i64) {
        match due {
            Due::Kill => self.kill_ns = Some(now_ns + between(&mut self.draw, ACTION_NS)),
            Due::Start => self.start_ns = now_ns + between(&mut self.draw, ACTION_NS),
            Due::Pause => self.pause_ns = Some(now_ns + between(&mut self.draw, PAUSE_EVERY_NS)),
        }
    }

    /// One of so many; none of none.
    pub(super) fn pick(&mut self, count: usize) -> Option<usize> {
        (count > 0).then(|| self.draw.below(count))
    }

    /// How long the next pause lasts: in turn, so that a short run has all of them.
    pub(super) fn next_pause_ns(&mut self) -> i64 {
        self.pauses += 1;
        PAUSES_NS[(self.pauses - 1) % PAUSES_NS.len()]
    }
}

fn between(draw: &mut SplitMix64, (low, high): (i64, i64)) -> i64 {
    low + (draw.next() % (high - low + 1) as u64) as i64
}

/// So long after one kill the next, after one start the next.
const ACTION_NS: (i64, i64) = (500_000_000, 2_000_000_000);
const PAUSE_EVERY_NS: (i64, i64) = (2_000_000_000, 5_000_000_000);
/// Too short to be noticed, long enough to be suspected, long enough to be excluded.
pub(super) const PAUSES_NS: [i64; 3] = [200_000_000, 3_000_000_000, 700_000_000];
/// The plan draws from the seed itself.
const SALT: u64 = 0x6368_7572_6e00_0000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_clock_ticks_between_half_a_second_and_two() {
        let mut schedule = Schedule::new(7, 0, true, true);
        let (mut kills, mut starts, mut pauses) = (Vec::new(), Vec::new(), Vec::new());
        for now_ns in (0..40_000_000_000).step_by(10_000_000) {
            for due in schedule.due(now_ns) {
                match due {
                    Due::Kill => kills.push(now_ns),
                    Due::Start => starts.push(now_ns),
                    Due::Pause => pauses.push(now_ns),
                }
                schedule.done(due, now_ns);
            }
        }
        for times in [&kills, &starts] {
            assert!((25..=60).contains(&times.len()), "{}", times.len());
            let steps = times.windows(2).map(|pair| pair[1] - pair[0]);
            assert!(steps.into_iter().all(|step| (500_000_000..=2_010_000_000).contains(&step)));
        }
        assert!((8..=20).contains(&pauses.len()) && kills != starts);
    }

    #[test]
    fn a_seed_is_a_course() {
        let course = |seed| {
            let mut schedule = Schedule::new(seed, 0, true, false);
            (0..50).map(|_| schedule.pick(8)).collect::<Vec<_>>()
        };
        assert_eq!(course(3), course(3));
        assert_ne!(course(3), course(4));
        assert_eq!(Schedule::new(1, 0, true, false).pick(0), None);
        assert!(!Schedule::new(1, 0, false, true).due(i64::MAX).contains(&Due::Kill));
        assert_eq!(
            Schedule::new(1, 0, true, false).due(10_000_000_000),
            Schedule::new(1, 0, true, false).due(20_000_000_000)
        );
    }
}
