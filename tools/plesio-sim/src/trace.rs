//! The record of a run: a hash over everything that happens, in order, and on request the same in words, and what the nodes
//! would tell their programs.

use crate::fault::Fault;
use plesio::What;
use plesio_wire::digest::Hasher;
use plesio_wire::{Digest, NodeKey};

/// What happened at a host, for a trace.
#[derive(Clone, Debug, PartialEq)]
pub struct Happening {
    /// Virtual time, nanoseconds.
    pub at_ns: u64,
    /// Number of the host; [`u8::MAX`] for none in particular.
    pub host: u8,
    /// What.
    pub what: Happened,
}

/// What happened.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Happened {
    /// A node says something, as a real one does to its program.
    Said {
        /// Which node.
        node: NodeKey,
        /// Its mesh time, nanoseconds; none without a usable clock.
        mesh_ns: Option<i64>,
        /// What it says.
        what: Box<What>,
    },
    /// A process began its life.
    Started {
        /// Of which node.
        node: NodeKey,
    },
    /// A fault begins to last.
    Begun(Fault),
    /// It is over.
    Ended(Fault),
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: Hasher,
    buffer: Vec<u8>,
    events: u64,
    story: Option<Vec<String>>,
    happened: Option<Vec<Happening>>,
}

impl Trace {
    pub(crate) fn new(story: bool, trace: bool) -> Self {
        Self { story: story.then(Vec::new), happened: trace.then(Vec::new), ..Self::default() }
    }

    /// Something for a trace, made only when there is one.
    pub(crate) fn happen(&mut self, at_ns: u64, host: u8, what: impl FnOnce() -> Option<Happened>) {
        if let Some(happened) = &mut self.happened
            && let Some(what) = what()
        {
            happened.push(Happening { at_ns, host, what });
        }
    }

    /// Something happened: what it was goes into the hash.
    pub(crate) fn record(&mut self, at_ns: u64, host: u8, kind: u8, detail: &[u8]) {
        self.buffer.extend_from_slice(&at_ns.to_le_bytes());
        self.buffer.extend_from_slice(&[host, kind]);
        self.buffer.extend_from_slice(detail);
        if self.buffer.len() >= BUFFER_BYTES {
            self.hasher.update(&self.buffer);
            self.buffer.clear();
        }
    }

    /// One more of the queue's events.
    pub(crate) fn count(&mut self) {
        self.events += 1;
    }

    pub(crate) fn events(&self) -> u64 {
        self.events
    }

    /// A line for a reader, made only when there is one.
    pub(crate) fn tell(&mut self, at_ns: u64, host: u8, line: impl FnOnce() -> String) {
        if let Some(story) = &mut self.story {
            let seconds = at_ns as f64 / 1e9;
            story.push(format!("{seconds:10.6} n{host:<2} {}", line()));
        }
    }

    pub(crate) fn finish(mut self) -> (Digest, Vec<String>, Vec<Happening>) {
        self.hasher.update(&self.buffer);
        (self.hasher.finish(), self.story.unwrap_or_default(), self.happened.unwrap_or_default())
    }
}

const BUFFER_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_sees_order_time_host_and_detail() {
        let hash = |records: &[(u64, u8, u8, &[u8])]| {
            let mut trace = Trace::new(false, false);
            for (at, host, kind, detail) in records {
                trace.record(*at, *host, *kind, detail);
            }
            trace.finish().0
        };
        let base = hash(&[(1, 2, 3, b"x"), (2, 2, 3, b"y")]);
        assert_eq!(base, hash(&[(1, 2, 3, b"x"), (2, 2, 3, b"y")]));
        for other in [
            hash(&[(2, 2, 3, b"y"), (1, 2, 3, b"x")]),
            hash(&[(1, 2, 3, b"x"), (3, 2, 3, b"y")]),
            hash(&[(1, 1, 3, b"x"), (2, 2, 3, b"y")]),
            hash(&[(1, 2, 4, b"x"), (2, 2, 3, b"y")]),
            hash(&[(1, 2, 3, b"x"), (2, 2, 3, b"z")]),
        ] {
            assert_ne!(base, other);
        }
    }

    #[test]
    fn a_story_is_told_only_when_asked_for() {
        let mut silent = Trace::new(false, false);
        silent.tell(0, 0, || unreachable!("nobody reads it"));
        silent.happen(0, 0, || unreachable!("nobody reads it"));
        assert!(silent.finish().1.is_empty());
        let mut told = Trace::new(true, false);
        told.tell(1_500_000_000, 4, || "crash".into());
        assert_eq!(told.finish().1, ["  1.500000 n4  crash"]);
    }
}
