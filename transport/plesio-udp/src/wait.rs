//! How a thread waits for datagrams: asleep, asking again and again, or asking only as long as it is likely to pay.
//!
//! [`Gaps`] is the decision, without clock or kernel: it learns how long the last waits took and says how long the
//! next one may ask before it sleeps. [`Waiter`] is a thread's own: it has the clock, and looks now and then at how many
//! threads want a core.
//!
//! ```text
//!  wait begins ── ask, ask, ask ──▶ something came        asked for: spin_ns(), 0 to 50 us
//!                      └─ too long ─▶ sleep in the kernel ──▶ something came, or the limit
//! ```

use crate::cores::online_cores;
use core::fmt;
use core::str::FromStr;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{Duration, Instant};

/// How to wait.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum WaitMode {
    /// Sleep in the kernel until something comes.
    #[default]
    Block,
    /// Ask again and again; wants a core of its own.
    Spin,
    /// Ask for a time that follows the gaps seen, then sleep; never ask while threads outnumber cores.
    Adaptive,
}

impl FromStr for WaitMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "block" => Ok(Self::Block),
            "spin" => Ok(Self::Spin),
            "adaptive" => Ok(Self::Adaptive),
            _ => Err(format!("`{}` is none of block, spin, adaptive", text.escape_debug())),
        }
    }
}

impl fmt::Display for WaitMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Block => "block",
            Self::Spin => "spin",
            Self::Adaptive => "adaptive",
        })
    }
}

/// What the last waits took, and how long the next one may ask.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gaps {
    mean_ns: u64,
    deviation_ns: u64,
    crowded: bool,
    /// How long threads that outnumbered cores are taken to go on to.
    crowd_ns: u64,
    /// Waits since one asked before it slept.
    slept: u8,
}

impl Gaps {
    /// Nothing seen yet: ask briefly, and learn.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A wait took so long, asking or asleep.
    pub fn handle_gap(&mut self, gap_ns: u64) {
        // One long silence says little about the gaps after it.
        let gap_ns = gap_ns.min(GAP_NS_MAX);
        if self.tries() && gap_ns <= SPIN_NS_MAX {
            // It was the sleep, here and there, that made gaps long.
            (self.mean_ns, self.deviation_ns) = (gap_ns, gap_ns / 2);
        }
        self.slept = if self.spin_ns() > 0 { 0 } else { self.slept.saturating_add(1) };
        let apart = gap_ns.abs_diff(self.mean_ns);
        self.deviation_ns = self.deviation_ns - self.deviation_ns / 4 + apart / 4;
        self.mean_ns = self.mean_ns - self.mean_ns / 8 + gap_ns / 8;
    }

    /// So many threads want a core, this one among them.
    pub fn handle_runnable(&mut self, runnable: u32, cores: u32) {
        self.crowded = runnable > cores;
        // Of threads that wait for each other fewer are runnable at times: a look that finds them so says less.
        self.crowd_ns = if self.crowded {
            (self.crowd_ns * 2).clamp(LOOK_NS_MIN, LOOK_NS_MAX)
        } else {
            self.crowd_ns - self.crowd_ns / 4
        };
    }

    /// How long after [`Self::handle_runnable`] it is worth counting again.
    #[must_use]
    pub fn look_after_ns(&self) -> u64 {
        match self.crowded {
            true => self.crowd_ns,
            // It comes back more often than not.
            false if self.crowd_ns > LOOK_NS_MIN => LOOK_NS_MIN,
            false => LOOK_NS,
        }
    }

    /// How long the next wait may ask before it sleeps.
    #[must_use]
    pub fn spin_ns(&self) -> u64 {
        let likely_ns = self.mean_ns + 2 * self.deviation_ns;
        if self.crowded {
            return 0;
        }
        if self.mean_ns > SPIN_NS_MAX {
            // Most gaps outlast what asking may cost: it would be paid for nothing.
            return if self.tries() { SPIN_NS_MAX } else { 0 };
        }
        likely_ns.clamp(SPIN_NS_MIN, SPIN_NS_MAX)
    }

    /// Whether a wait asks though gaps seem long: two that sleep make each other's gaps as long as two wake-ups, and neither
    /// would ever see that they need not be.
    fn tries(&self) -> bool {
        self.mean_ns > SPIN_NS_MAX && self.slept >= TRY_AFTER
    }
}

/// A thread's way of waiting.
#[derive(Debug)]
pub struct Waiter {
    mode: WaitMode,
    gaps: Gaps,
    cores: u32,
    /// Where the kernel says how many threads want a core; without it asking is still bounded.
    load: Option<File>,
    looked: Option<Instant>,
}

impl Waiter {
    /// Waits as `mode` says.
    #[must_use]
    pub fn new(mode: WaitMode) -> Self {
        let load = if mode == WaitMode::Adaptive { File::open("/proc/loadavg").ok() } else { None };
        let cores = online_cores() as u32;
        Self { mode, gaps: Gaps::new(), cores, load, looked: None }
    }

    /// Waits at most for `limit`. `look` is given how long it may sleep, zero for not at all, and says whether the wait
    /// is over. A spinning wait looks a few times, whatever the limit: its caller turns anyway.
    ///
    /// # Errors
    /// What `look` says.
    pub fn wait<T, E>(
        &mut self,
        limit: Duration,
        mut look: impl FnMut(Duration) -> Result<Option<T>, E>,
    ) -> Result<Option<T>, E> {
        match self.mode {
            WaitMode::Block => return look(limit),
            WaitMode::Spin => {
                for _ in 1..SPIN_LOOKS {
                    let found = look(Duration::ZERO)?;
                    if found.is_some() || limit.is_zero() {
                        return Ok(found);
                    }
                }
                return look(Duration::ZERO);
            }
            WaitMode::Adaptive => {}
        }
        let begin = Instant::now();
        self.look_at_load(begin);
        let spin = Duration::from_nanos(self.gaps.spin_ns()).min(limit);
        let mut found = None;
        let mut spent = Duration::ZERO;
        while found.is_none() && spent < spin {
            found = look(Duration::ZERO)?;
            spent = begin.elapsed();
        }
        if found.is_none() {
            found = look(limit.saturating_sub(spent))?;
            spent = begin.elapsed();
        }
        // A limit that was reached before asking ends says nothing about gaps.
        let spent_ns = spent.as_nanos() as u64;
        if found.is_some() || spent_ns >= SPIN_NS_MAX {
            self.gaps.handle_gap(spent_ns);
        }
        Ok(found)
    }

    fn look_at_load(&mut self, now: Instant) {
        let period = Duration::from_nanos(self.gaps.look_after_ns());
        if self.looked.is_some_and(|looked| now - looked < period) {
            return;
        }
        self.looked = Some(now);
        let Some(file) = &self.load else { return };
        let mut text = [0; 64];
        let len_bytes = file.read_at(&mut text, 0).unwrap_or(0);
        if let Some(runnable) = runnable(&text[..len_bytes]) {
            self.gaps.handle_runnable(runnable, self.cores);
        }
    }
}

/// The runnable threads of a `/proc/loadavg`: `0.20 0.18 0.12 1/80 11206`.
fn runnable(text: &[u8]) -> Option<u32> {
    let text = str::from_utf8(text).ok()?;
    text.split_whitespace().nth(3)?.split_once('/')?.0.parse().ok()
}

/// Longer than this no wait asks: about what a sleep and its wake-up cost on a slow machine.
const SPIN_NS_MAX: u64 = 50_000;
/// One look at the socket and back.
const SPIN_NS_MIN: u64 = 2_000;
/// Looks of one spinning wait: few enough to be done within microseconds.
const SPIN_LOOKS: u32 = 16;
/// Longer gaps count as this one.
const GAP_NS_MAX: u64 = 1_000_000;
/// A look at the load takes some microseconds.
const LOOK_NS: u64 = 4_000_000;
/// After the first that found threads outnumbering cores: who gives an order is runnable for a moment.
const LOOK_NS_MIN: u64 = 500_000;
/// After many.
const LOOK_NS_MAX: u64 = 16_000_000;
/// One wait of so many asks for [`SPIN_NS_MAX`] where gaps seem longer: of gaps that are, a share of 6 % at most.
const TRY_AFTER: u8 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    fn after(gaps: &[u64]) -> Gaps {
        let mut learnt = Gaps::new();
        gaps.iter().for_each(|gap| learnt.handle_gap(*gap));
        learnt
    }

    #[test]
    fn short_gaps_are_waited_out_and_long_ones_slept() {
        let short = after(&[5_000; 50]).spin_ns();
        assert!((5_000..=10_000).contains(&short), "{short}");
        let mut long = after(&[2_000_000; 50]);
        let asked = (0..1_700).filter(|_| {
            let asks = long.spin_ns() > 0;
            long.handle_gap(2_000_000);
            asks
        });
        assert_eq!(asked.count(), 100, "one in seventeen is tried");
    }

    #[test]
    fn two_that_sleep_find_out_that_they_need_not() {
        let (wake_ns, work_ns) = (35_000, 5_000);
        let mut ends = [after(&[1_000_000; 20]); 2];
        for _ in 0..200 {
            let asks = ends.map(|end| end.spin_ns() >= SPIN_NS_MAX / 2);
            for (at, end) in ends.iter_mut().enumerate() {
                // A sleeper answers late, and hears late.
                let late = [asks[at], asks[1 - at]].iter().filter(|asks| !**asks).count() as u64;
                end.handle_gap(work_ns + late * wake_ns);
            }
        }
        assert!(ends.iter().all(|end| (work_ns..SPIN_NS_MAX).contains(&end.spin_ns())), "{ends:?}");
    }

    #[test]
    fn one_silence_is_forgotten_after_a_few_short_gaps() {
        let mut gaps = after(&[5_000; 50]);
        gaps.handle_gap(10_000_000_000);
        assert_eq!(gaps.spin_ns(), 0, "a silence is slept through");
        for _ in 0..20 {
            gaps.handle_gap(5_000);
        }
        assert!(gaps.spin_ns() > 0);
    }

    #[test]
    fn asking_is_bounded_and_stops_when_threads_outnumber_cores() {
        let mut gaps = Gaps::new();
        for gap in [0, 1, 49_000, 3, 48_000, 0, 50_000].into_iter().cycle().take(1_000) {
            gaps.handle_gap(gap);
            assert!(gaps.spin_ns() <= SPIN_NS_MAX);
        }
        gaps.handle_runnable(3, 2);
        assert_eq!(gaps.spin_ns(), 0);
        gaps.handle_runnable(2, 2);
        assert!(gaps.spin_ns() > 0);
    }

    #[test]
    fn a_crowd_that_comes_back_is_looked_at_less_and_less() {
        let mut gaps = Gaps::new();
        assert_eq!(gaps.look_after_ns(), LOOK_NS);
        gaps.handle_runnable(3, 2);
        assert_eq!(gaps.look_after_ns(), LOOK_NS_MIN, "it may be whoever gave an order");
        gaps.handle_runnable(2, 2);
        assert_eq!(gaps.look_after_ns(), LOOK_NS, "it was");
        let (mut crowded_ns, mut free_ns) = (0, 0);
        for look in 0..100 {
            gaps.handle_runnable(2 + look % 2, 2);
            *if gaps.crowded { &mut crowded_ns } else { &mut free_ns } += gaps.look_after_ns();
        }
        assert_eq!(gaps.look_after_ns(), LOOK_NS_MAX);
        assert!(crowded_ns > 20 * free_ns, "{crowded_ns} {free_ns}");
    }

    #[test]
    fn a_wait_looks_as_its_mode_says() {
        let looks = |mode: WaitMode, after: u32| {
            let mut slept = Vec::new();
            let found = Waiter::new(mode).wait(Duration::from_millis(1), |limit| {
                slept.push(!limit.is_zero());
                Ok::<_, ()>((slept.len() as u32 > after).then_some(()))
            });
            (found.expect("no error").is_some(), slept)
        };
        assert_eq!(looks(WaitMode::Block, 0), (true, vec![true]));
        assert_eq!(looks(WaitMode::Spin, 1), (true, vec![false; 2]));
        assert_eq!(looks(WaitMode::Spin, u32::MAX), (false, vec![false; SPIN_LOOKS as usize]));
        let (found, slept) = looks(WaitMode::Adaptive, u32::MAX);
        assert!(!found);
        assert_eq!(slept.iter().filter(|slept| **slept).count(), 1, "it sleeps once, in the end");
        assert_eq!(slept.last(), Some(&true));
    }

    #[test]
    fn the_kernels_count_of_runnable_threads_is_read() {
        assert_eq!(runnable(b"0.20 0.18 0.12 3/80 11206\n"), Some(3));
        for wrong in [&b""[..], b"0.20 0.18", b"a b c d/e f", b"\xff\xff\xff"] {
            assert_eq!(runnable(wrong), None);
        }
        assert!("spin".parse::<WaitMode>().is_ok() && "nap".parse::<WaitMode>().is_err());
    }
}
