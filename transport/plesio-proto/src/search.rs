//! How large a chunk the path takes: padded probes upwards, and back when large packets vanish and small ones do not.
//!
//! As datagram path MTU discovery has it (RFC 8899): no answer of a router is waited for or believed. It starts at a
//! datagram of 1,440 bytes, asks about the largest chunk first, and a chunk is used only after a probe of its size was
//! answered. A black hole is three trains lost whole, and nothing of their size acknowledged for a probe timeout,
//! while the peer is heard. A message may be shorter than a chunk and still too long for a path that has shrunk, so it
//! is sizes lost that count, not whole chunks.

use plesio_wire::Instant;
use plesio_wire::data::{CHUNK_STEPS, HEADER_BYTES};

/// The search of one direction.
#[derive(Debug)]
pub(crate) struct Search {
    active: bool,
    chunk_bytes_max: u32,
    /// What new messages use.
    chunk_bytes: u32,
    /// What a search starts and a fall-back ends at.
    chunk_bytes_first: u32,
    /// Size to be asked about next, while a search goes on.
    candidate: Option<u32>,
    tries: u32,
    /// The question that flies.
    question: Option<u32>,
    /// When the next probe goes, or the one that flies counts as lost.
    next: Instant,
    /// Since when trains of more than the smallest chunk were lost and none of their size arrived.
    lost_since: Option<Instant>,
    lost_trains: u32,
    last_lost: u32,
    /// The shortest packet among them.
    lost_bytes: u32,
}

impl Search {
    pub(crate) fn new(active: bool, chunk_bytes_max: u32, tag_bytes: u32, now: Instant) -> Self {
        let room_bytes = DATAGRAM_BYTES_FIRST - HEADER_BYTES as u32 - tag_bytes.min(64);
        let first = sizes(chunk_bytes_max).find(|size| *size <= room_bytes).unwrap_or(chunk_bytes_max);
        let chunk_bytes = if active { first } else { chunk_bytes_max };
        Self {
            active,
            chunk_bytes_max,
            chunk_bytes,
            chunk_bytes_first: first,
            candidate: (active && first < chunk_bytes_max).then_some(chunk_bytes_max),
            tries: 0,
            question: None,
            next: now,
            lost_since: None,
            lost_trains: 0,
            last_lost: 0,
            lost_bytes: u32::MAX,
        }
    }

    /// What new messages use.
    pub(crate) const fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// When the search wants to be asked, once the path is known at all.
    pub(crate) fn timeout(&self) -> Option<Instant> {
        (self.active && self.chunk_bytes < self.chunk_bytes_max).then_some(self.next)
    }

    /// The size of a probe to be sent now, which is question `number`.
    pub(crate) fn poll_probe(&mut self, now: Instant, wait_ns: u64, number: u32) -> Option<u32> {
        if self.timeout().is_none_or(|at| at > now) {
            return None;
        }
        if self.question.take().is_some() && self.tries >= TRIES {
            self.tries = 0;
            let smaller =
                self.candidate.and_then(|size| sizes(self.chunk_bytes_max).find(|next| *next < size));
            self.candidate = smaller.filter(|size| *size > self.chunk_bytes);
            if self.candidate.is_none() {
                self.rest(now);
                return None;
            }
        }
        let size = *self.candidate.get_or_insert(self.chunk_bytes_max);
        self.tries += 1;
        self.question = Some(number);
        self.next = now.after(wait_ns);
        Some(size)
    }

    /// Question `number` was answered; whether larger chunks may be used from now on.
    pub(crate) fn handle_answer(&mut self, now: Instant, number: u32) -> bool {
        if self.question != Some(number) {
            return false;
        }
        self.question = None;
        let Some(size) = self.candidate else { return false };
        self.chunk_bytes = size;
        self.rest(now);
        true
    }

    /// A packet of this size arrived.
    pub(crate) const fn handle_acked(&mut self, payload_bytes: u32) {
        if payload_bytes >= self.lost_bytes {
            self.begin_anew();
        }
    }

    const fn begin_anew(&mut self) {
        (self.lost_since, self.lost_trains, self.lost_bytes) = (None, 0, u32::MAX);
    }

    /// A packet of this size was given up. The chunk size to go on with, if large ones vanish.
    pub(crate) fn handle_lost(
        &mut self,
        now: Instant,
        train: u32,
        payload_bytes: u32,
        heard: Instant,
        wait_ns: u64,
    ) -> Option<u32> {
        if !self.active || payload_bytes <= CHUNK_BYTES_LEAST.min(self.chunk_bytes - 1) {
            return None;
        }
        self.lost_bytes = self.lost_bytes.min(payload_bytes);
        let since = *self.lost_since.get_or_insert(now);
        if self.lost_trains == 0 || self.last_lost != train {
            self.lost_trains += 1;
            self.last_lost = train;
        }
        let vanish =
            self.lost_trains >= TRAINS && heard > since && now.since(since) >= wait_ns.min(BLACK_HOLE_NS_MAX);
        if vanish { self.shrink(now, self.lost_bytes.min(self.chunk_bytes) - 1) } else { None }
    }

    /// The path takes no chunk above `limit_bytes`. The chunk size to go on with, if that is news.
    pub(crate) fn shrink(&mut self, now: Instant, limit_bytes: u32) -> Option<u32> {
        if self.chunk_bytes <= limit_bytes {
            return None;
        }
        let limit_bytes =
            if limit_bytes > self.chunk_bytes_first { self.chunk_bytes_first } else { limit_bytes };
        self.chunk_bytes = sizes(self.chunk_bytes_max).find(|size| *size <= limit_bytes)?;
        self.begin_anew();
        self.rest(now);
        Some(self.chunk_bytes)
    }

    /// Looks for larger chunks again after a while.
    fn rest(&mut self, now: Instant) {
        (self.candidate, self.question, self.tries) = (None, None, 0);
        self.next = now.after(REST_NS);
    }
}

/// What a connection with chunks of `chunk_bytes_max` can use, largest first.
fn sizes(chunk_bytes_max: u32) -> impl Iterator<Item = u32> {
    let smaller = CHUNK_STEPS.into_iter().filter(move |size| *size < chunk_bytes_max);
    core::iter::once(chunk_bytes_max).chain(smaller)
}

const DATAGRAM_BYTES_FIRST: u32 = 1_440;
/// Whatever is shorter could not be cut any smaller.
const CHUNK_BYTES_LEAST: u32 = CHUNK_STEPS[CHUNK_STEPS.len() - 1];
/// Probes of one size before it counts as too large: one may be lost by chance.
const TRIES: u32 = 3;
const TRAINS: u32 = 3;
/// Whatever the round trip, a black hole is noticed within a second.
const BLACK_HOLE_NS_MAX: u64 = 250_000_000;
/// Between the end of one search and the next.
const REST_NS: u64 = 60_000_000_000;

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;

    #[test]
    fn the_largest_chunk_that_is_answered_is_used() {
        for (path, found) in [(65_408, 65_408), (9_000, 8_832), (1_500, 1_408), (1_408, 1_408)] {
            let mut search = Search::new(true, 65_408, 0, Instant(0));
            assert_eq!(search.chunk_bytes(), 1_408);
            let (mut now, mut number) = (Instant(0), 0);
            while search.timeout().is_some_and(|at| at < Instant(1_000 * MS)) {
                now = search.timeout().unwrap();
                number += 1;
                let Some(size) = search.poll_probe(now, 5 * MS, number) else { continue };
                if size <= path && number % 2 == 0 {
                    search.handle_answer(now, number);
                }
                assert!(!search.handle_answer(now, number + 7));
            }
            assert_eq!(search.chunk_bytes(), found);
            assert!(now.0 < 100 * MS);
        }
        assert_eq!(Search::new(true, 65_408, 16, Instant(0)).chunk_bytes(), 1_344);
        assert_eq!(Search::new(true, 1_152, 0, Instant(0)).timeout(), None);
        assert_eq!(Search::new(false, 65_408, 0, Instant(0)).chunk_bytes(), 65_408);
    }

    #[test]
    fn only_large_packets_that_vanish_from_a_peer_that_is_heard_are_a_black_hole() {
        let mut search = Search::new(true, 1_408, 0, Instant(0));
        let mut lose = |at: u64, train, size, heard: u64| {
            search.handle_lost(Instant(at * MS), train, size, Instant(heard * MS), 5 * MS)
        };
        assert_eq!(lose(10, 1, 1_408, 0), None);
        assert_eq!(lose(12, 2, 1_408, 11), None);
        assert_eq!(lose(14, 3, 1_408, 11), None, "too soon");
        assert_eq!(lose(20, 3, 500, 11), None, "small");
        assert_eq!(lose(20, 4, 1_408, 10), None, "not heard");
        assert_eq!(lose(20, 4, 1_408, 11), Some(1_344));
        assert_eq!(lose(20, 5, 1_344, 11), None, "counts anew");
        search.handle_lost(Instant(21 * MS), 6, 1_344, Instant(20 * MS), MS);
        search.handle_acked(1_344);
        assert_eq!(search.handle_lost(Instant(90 * MS), 8, 1_344, Instant(89 * MS), MS), None);
        assert_eq!(search.shrink(Instant(0), 2_000), None);
        assert_eq!(search.shrink(Instant(0), 1_300), Some(1_152));
        assert_eq!(search.shrink(Instant(0), 100), None, "nothing is smaller");
    }

    #[test]
    fn messages_shorter_than_a_chunk_find_a_path_that_shrank_too() {
        let mut search = Search::new(true, 8_832, 16, Instant(0));
        search.handle_answer(Instant(0), 1);
        assert_eq!(search.poll_probe(Instant(0), MS, 2), Some(8_832));
        assert!(search.handle_answer(Instant(MS), 2));
        let lose = |search: &mut Search, at: u64, size| {
            search.handle_lost(Instant(at * MS), at as u32, size, Instant(at * MS), 5 * MS)
        };
        assert_eq!((lose(&mut search, 10, 4_000), lose(&mut search, 20, 4_000)), (None, None));
        search.handle_acked(3_000);
        assert_eq!(lose(&mut search, 30, 4_000), Some(1_344), "shorter ones arrive");
        assert_eq!((lose(&mut search, 40, 1_300), lose(&mut search, 50, 1_300)), (None, None));
        search.handle_acked(1_300);
        assert_eq!((lose(&mut search, 60, 1_300), lose(&mut search, 70, 1_300)), (None, None), "by chance");
        assert_eq!(lose(&mut search, 80, 1_300), Some(1_152));
    }
}
