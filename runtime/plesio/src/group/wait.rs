//! How a rank waits for another: looks again for a while where every rank has a core, then sleeps on its own bell. Whoever
//! makes something happen rings those that sleep.
//!
//! The while begins with a few microseconds. A sleep that was over at once would have been cheaper awake: then it doubles,
//! up to [`SPIN_MAX`]; one that was long halves it. That also parts two ranks that the scheduler has put on one core: while
//! both only sleep and wake each other, it has no reason to.
//!
//! Invariant: nobody sleeps through what happened. Who sleeps says so, looks once more, and only then sleeps, unless its
//! bell has rung meanwhile; who acts acts first and asks then who sleeps. Whatever else goes wrong ends with [`NAP`].

use super::form::{BELL, CORES, Member, SLEEPS};
use plesio_collective::Ranks;
use rustix::fs::Timespec;
use rustix::thread::futex;
use std::cell::Cell;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Waiting {
    /// How long to look before sleeping; nothing where ranks share cores.
    spin: Cell<Option<Duration>>,
    cores: usize,
}

impl Waiting {
    /// By the cores that the ranks have together: who is pinned to one has it beside the others' still.
    pub(super) fn new(members: &[Member]) -> Self {
        let words = members.iter().filter_map(|member| member.segment.words64(CORES, 1).ok()?.first());
        let all = words.fold(0, |all, word| all | word.load(Ordering::Relaxed));
        let cores = (all.count_ones() as usize).max(1);
        let spin = Cell::new((members.len() <= cores).then_some(SPIN_MIN));
        Self { spin, cores }
    }

    /// The own call is posted. The last to come rings as many as there are cores for; the others may sleep on.
    pub(super) fn posted(&self, members: &[Member], me: usize, has_posted: impl Fn(usize) -> bool) {
        fence(Ordering::SeqCst);
        if (0..members.len()).all(has_posted) {
            ring(members, me, self.cores.saturating_sub(1));
        }
    }

    /// The own part is done: whoever still sleeps can look.
    pub(super) fn done(&self, members: &[Member], me: usize) {
        fence(Ordering::SeqCst);
        ring(members, me, members.len());
    }

    /// Until `acts` says that there is something to do, or for a while; then who is dead.
    pub(super) fn wait(
        &self,
        members: &[Member],
        me: usize,
        dead: Ranks,
        acts: impl Fn(Ranks) -> bool,
    ) -> Ranks {
        if let Some(spin) = self.spin.get() {
            let began = Instant::now();
            loop {
                for _ in 0..LOOKS {
                    if acts(dead) {
                        return dead;
                    }
                    std::hint::spin_loop();
                }
                if began.elapsed() > spin {
                    break;
                }
            }
        }
        let Some((bell, sleeps)) = bell(&members[me]) else { return dead };
        sleeps.store(1, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        let rung = bell.load(Ordering::SeqCst);
        let mut dead = dead;
        if !acts(dead) {
            let began = Instant::now();
            // An error is a bell that rang, a signal, or the end of the nap: all mean to look again.
            let slept = futex::wait(bell, futex::Flags::empty(), rung, Some(&NAP));
            if slept.is_err() {
                dead = parted(members, dead);
            }
            let short = began.elapsed() < SPIN_MAX;
            let next = |spin: Duration| if short { spin * 2 } else { spin / 2 }.clamp(SPIN_MIN, SPIN_MAX);
            self.spin.set(self.spin.get().map(next));
        }
        sleeps.store(0, Ordering::Relaxed);
        dead
    }
}

/// Wakes at most `limit` of those that sleep.
fn ring(members: &[Member], me: usize, limit: usize) {
    let others = members.iter().enumerate().filter(|(rank, _)| *rank != me);
    let asleep = others.filter_map(|(_, member)| bell(member));
    for (bell, _) in asleep.filter(|(_, sleeps)| sleeps.load(Ordering::SeqCst) == 1).take(limit) {
        bell.fetch_add(1, Ordering::SeqCst);
        // What can fail is an address that is none; then the nap ends by itself.
        let _ = futex::wake(bell, futex::Flags::empty(), 1);
    }
}

/// Those and whose processes have ended since.
fn parted(members: &[Member], dead: Ranks) -> Ranks {
    let gone = |member: &Member| member.tether.as_ref().is_some_and(|tether| tether.parted());
    let found = members.iter().enumerate().filter(|(rank, member)| !dead.contains(*rank) && gone(member));
    found.fold(dead, |dead, (rank, _)| dead.with(rank))
}

fn bell(member: &Member) -> Option<(&AtomicU32, &AtomicU32)> {
    Some((member.segment.word(BELL).ok()?, member.segment.word(SLEEPS).ok()?))
}

/// Long enough for a partner that runs, too short to matter.
const SPIN_MIN: Duration = Duration::from_micros(5);
/// What two wake-ups cost, some times over.
const SPIN_MAX: Duration = Duration::from_micros(200);
/// Looks between two looks at the clock.
const LOOKS: usize = 64;
/// How long nobody is asked whether it lives.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
