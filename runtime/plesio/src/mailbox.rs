//! What the node thread leaves for the worker: the newest committed state and when to cut. Both sides hold the lock
//! only to swap a pointer or copy a few words, and the worker never waits for it.

use plesio_consensus::Part;
use plesio_phase::{Aim, Pulse};
use plesio_wire::{SlotSeq, Version};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The committed state in floats, with what the worker needs to know to take it.
#[derive(Debug)]
pub(crate) struct Letter {
    /// Rises with every state left here; 0 until the first.
    pub(crate) serial: u64,
    /// Version of `state`.
    pub(crate) version: Version,
    /// float(G(version)).
    pub(crate) state: Vec<f32>,
    /// Own slots settled as committed, up to and in this version: the worker takes the state only together with them.
    pub(crate) commits: u64,
    /// When to cut.
    pub(crate) aim: Option<Aim>,
}

/// Shared by the worker and the node thread.
#[derive(Debug)]
pub(crate) struct Mailbox {
    letter: Mutex<Letter>,
    /// Own slots of which a version took only a part; left here before the slot comes back.
    parts: Mutex<Vec<(SlotSeq, Part)>>,
    stopped: AtomicBool,
    halted: AtomicBool,
    /// How often the node came back from where the mesh went on without it.
    returns: AtomicU32,
    bad_local: AtomicU64,
    trimmed: AtomicU64,
    paused: AtomicBool,
    /// Whoever stands waits here until one of the three changes.
    gate: (Mutex<()>, Condvar),
    /// The worker's pulse: step in nanoseconds, steps since the cut, steps per slot. Each is read for itself.
    pulse: [AtomicU64; 3],
}

impl Mailbox {
    pub(crate) fn new(elements: usize) -> Self {
        let letter =
            Letter { serial: 0, version: Version(0), state: vec![0.0; elements], commits: 0, aim: None };
        Self {
            letter: Mutex::new(letter),
            parts: Mutex::default(),
            stopped: AtomicBool::new(false),
            halted: AtomicBool::new(false),
            returns: AtomicU32::new(0),
            bad_local: AtomicU64::new(0),
            trimmed: AtomicU64::new(0),
            paused: AtomicBool::new(false),
            gate: (Mutex::new(()), Condvar::new()),
            pulse: [const { AtomicU64::new(0) }; 3],
        }
    }

    /// For the node thread: the worker holds the lock for a few instructions only.
    pub(crate) fn lock(&self) -> MutexGuard<'_, Letter> {
        self.letter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// For the worker: `None` when the node thread is writing at this moment.
    pub(crate) fn try_lock(&self) -> Option<MutexGuard<'_, Letter>> {
        match self.letter.try_lock() {
            Ok(guard) => Some(guard),
            Err(std::sync::TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(std::sync::TryLockError::WouldBlock) => None,
        }
    }

    /// For the node thread.
    pub(crate) fn leave_part(&self, seq: SlotSeq, part: Part) {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner).push((seq, part));
    }

    /// For the worker, whose slot has come back committed: what was taken of it. `None` when the node thread is writing at
    /// this moment.
    pub(crate) fn try_part(&self, seq: SlotSeq) -> Option<Part> {
        let mut parts = match self.parts.try_lock() {
            Ok(guard) => guard,
            Err(std::sync::TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(std::sync::TryLockError::WouldBlock) => return None,
        };
        // It may be asked for again. Numbers are never used again, and a ring has 16 slots at most.
        parts.retain(|(known, _)| known.0.saturating_add(RING_SLOTS_MAX) >= seq.0);
        let part = parts.iter().find(|(known, _)| *known == seq);
        Some(part.map_or(Part::WHOLE, |(_, part)| *part))
    }

    pub(crate) fn stop(&self) {
        self.set(&self.stopped, true);
    }

    pub(crate) fn halt(&self, is_halted: bool) {
        self.set(&self.halted, is_halted);
    }

    /// For the node thread: the worker has to stand, or may go on.
    pub(crate) fn pause(&self, is_paused: bool) {
        if self.is_paused() != is_paused {
            self.set(&self.paused, is_paused);
        }
    }

    /// Under the lock that those who stand look at it with, so that none of them misses it.
    fn set(&self, word: &AtomicBool, value: bool) {
        let _guard = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        word.store(value, Ordering::Release);
        self.gate.1.notify_all();
    }

    /// For the worker: sleeps while it is halted or paused, until the node ends, or for `limit`. Whether it may go on.
    pub(crate) fn await_way(&self, limit: Duration) -> bool {
        let stands = || (self.is_halted() || self.is_paused()) && !self.is_stopped();
        let guard = self.gate.0.lock().unwrap_or_else(PoisonError::into_inner);
        let waited = self.gate.1.wait_timeout_while(guard, limit, |()| stands());
        drop(waited.unwrap_or_else(PoisonError::into_inner));
        !stands()
    }

    /// For the worker.
    pub(crate) fn leave_pulse(&self, pulse: Pulse) {
        let words = [pulse.step_ns, u64::from(pulse.steps), u64::from(pulse.per_slot_q8)];
        self.pulse.iter().zip(words).for_each(|(place, word)| place.store(word, Ordering::Relaxed));
    }

    pub(crate) fn pulse(&self) -> Pulse {
        let [step_ns, steps, per_slot_q8] = [0, 1, 2].map(|at: usize| self.pulse[at].load(Ordering::Relaxed));
        Pulse { step_ns, steps: steps as u32, per_slot_q8: per_slot_q8 as u32 }
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::Acquire)
    }

    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }

    /// For the node thread: it was away, and is back.
    pub(crate) fn come_back(&self) {
        self.returns.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn returns(&self) -> u32 {
        self.returns.load(Ordering::Acquire)
    }

    /// For the worker: steps that it threw away, for not being finite and for being too many after a return.
    pub(crate) fn throw_away(&self, bad_local: u32, trimmed: u32) {
        self.bad_local.fetch_add(bad_local.into(), Ordering::Relaxed);
        self.trimmed.fetch_add(trimmed.into(), Ordering::Relaxed);
    }

    /// What the worker threw away so far, in the same order.
    pub(crate) fn thrown_away(&self) -> (u64, u64) {
        (self.bad_local.load(Ordering::Relaxed), self.trimmed.load(Ordering::Relaxed))
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}

const RING_SLOTS_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn whoever_is_paused_sleeps_until_it_may_go_on() {
        let mailbox = Mailbox::new(1);
        assert!(mailbox.await_way(Duration::ZERO));
        mailbox.pause(true);
        assert!(!mailbox.await_way(Duration::from_millis(1)));
        let began = Instant::now();
        std::thread::scope(|scope| {
            let stands = scope.spawn(|| mailbox.await_way(Duration::from_secs(60)));
            mailbox.halt(true);
            mailbox.pause(false);
            mailbox.halt(false);
            assert!(stands.join().unwrap());
        });
        mailbox.pause(true);
        std::thread::scope(|scope| {
            let stands = scope.spawn(|| mailbox.await_way(Duration::from_secs(60)));
            mailbox.stop();
            assert!(stands.join().unwrap(), "nobody waits for a node that has ended");
        });
        assert!(began.elapsed() < Duration::from_secs(30), "woken, not timed out");
        let pulse = Pulse { step_ns: 5, steps: 6, per_slot_q8: 7 };
        mailbox.leave_pulse(pulse);
        assert_eq!(mailbox.pulse(), pulse);
    }
}
