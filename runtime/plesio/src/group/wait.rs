//! How a rank waits for another: looks again for a few microseconds where every rank has a core, then sleeps on its own
//! bell. Whoever makes something happen rings those that sleep.
//!
//! Invariant: nobody sleeps through what happened. Who sleeps says so, looks once more, and only then sleeps, unless its
//! bell has rung meanwhile; who acts acts first and asks then who sleeps. Whatever else goes wrong ends with [`NAP`].

use super::form::{BELL, Member, SLEEPS};
use plesio_collective::Ranks;
use rustix::fs::Timespec;
use rustix::thread::futex;
use std::sync::atomic::{AtomicU32, Ordering, fence};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(super) struct Waiting {
    /// How long to look before sleeping.
    spin: Duration,
    cores: usize,
}

impl Waiting {
    pub(super) fn new(ranks: usize) -> Self {
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let spin = if ranks <= cores { SPIN } else { Duration::ZERO };
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
        if !self.spin.is_zero() {
            let began = Instant::now();
            loop {
                for _ in 0..LOOKS {
                    if acts(dead) {
                        return dead;
                    }
                    std::hint::spin_loop();
                }
                if began.elapsed() > self.spin {
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
            // An error is a bell that rang, a signal, or the end of the nap: all mean to look again.
            let slept = futex::wait(bell, futex::Flags::empty(), rung, Some(&NAP));
            if slept.is_err() {
                dead = parted(members, dead);
            }
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
const SPIN: Duration = Duration::from_micros(5);
/// Looks between two looks at the clock.
const LOOKS: usize = 64;
/// How long nobody is asked whether it lives.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 2_000_000 };
