//! What the node thread leaves for the worker: the newest committed state and when to cut. Both sides hold the lock
//! only to swap a pointer or copy a few words, and the worker never waits for it.

use plesio_phase::Aim;
use plesio_wire::Version;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

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
    stopped: AtomicBool,
}

impl Mailbox {
    pub(crate) fn new(elements: usize) -> Self {
        let letter =
            Letter { serial: 0, version: Version(0), state: vec![0.0; elements], commits: 0, aim: None };
        Self { letter: Mutex::new(letter), stopped: AtomicBool::new(false) }
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

    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }
}
