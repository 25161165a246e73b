//! The record of a run: a hash over everything that happens, in order, and on request the same in words.

use plesio_wire::Digest;
use plesio_wire::digest::Hasher;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    hasher: Hasher,
    buffer: Vec<u8>,
    events: u64,
    story: Option<Vec<String>>,
}

impl Trace {
    pub(crate) fn new(story: bool) -> Self {
        Self { story: story.then(Vec::new), ..Self::default() }
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

    pub(crate) fn finish(mut self) -> (Digest, Vec<String>) {
        self.hasher.update(&self.buffer);
        (self.hasher.finish(), self.story.unwrap_or_default())
    }
}

const BUFFER_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_sees_order_time_host_and_detail() {
        let hash = |records: &[(u64, u8, u8, &[u8])]| {
            let mut trace = Trace::new(false);
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
        let mut silent = Trace::new(false);
        silent.tell(0, 0, || unreachable!("nobody reads it"));
        assert!(silent.finish().1.is_empty());
        let mut told = Trace::new(true);
        told.tell(1_500_000_000, 4, || "crash".into());
        assert_eq!(told.finish().1, ["  1.500000 n4  crash"]);
    }
}
