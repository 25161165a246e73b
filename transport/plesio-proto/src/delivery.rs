//! How fast payload arrives: the delivery-rate samples of draft-cheng-iccrg-delivery-rate-estimation, kept per train.
//!
//! A sample spans from the acknowledgement that was newest when a train left to the one that tells of that train, or
//! the time in which that much was sent, whichever is longer: so neither a burst of acknowledgements nor a burst of
//! trains makes a path look faster than it is.

use crate::congestion::{RateSample, per_second};
use alloc::vec::Vec;
use plesio_wire::Instant;

/// What was known when a train left.
#[derive(Clone, Copy, Debug, Default)]
struct Note {
    train: u32,
    limited: bool,
    sent: Instant,
    /// When the train left that was newest among the delivered ones.
    first_sent: Instant,
    delivered_bytes: u64,
    delivered_at: Instant,
}

/// The estimator.
#[derive(Debug)]
pub(crate) struct Delivery {
    /// One per train that can fly; a power of two.
    notes: Vec<Note>,
    delivered_bytes: u64,
    delivered_at: Instant,
    first_sent: Instant,
    /// Samples up to so much delivered say more about the sender than about the path.
    limited_until_bytes: u64,
    /// The newest train of the acknowledgement being read.
    newest: Option<Note>,
}

impl Delivery {
    pub(crate) fn new(trains_max: usize) -> Self {
        Self {
            notes: alloc::vec![Note::default(); trains_max],
            delivered_bytes: 0,
            delivered_at: Instant(0),
            first_sent: Instant(0),
            limited_until_bytes: 0,
            newest: None,
        }
    }

    pub(crate) fn forget_trains(&mut self, trains_max: usize) {
        self.notes.clear();
        self.notes.resize(trains_max, Note::default());
    }

    pub(crate) fn handle_sent(&mut self, now: Instant, train: u32, idle: bool) {
        if idle {
            (self.first_sent, self.delivered_at) = (now, now);
            // There had been nothing to send: what leaves before the first of it arrives is as much as there was.
            self.limited_until_bytes = self.limited_until_bytes.max(self.delivered_bytes + 1);
        }
        let at = train as usize & (self.notes.len() - 1);
        self.notes[at] = Note {
            train,
            limited: self.delivered_bytes < self.limited_until_bytes,
            sent: now,
            first_sent: self.first_sent,
            delivered_bytes: self.delivered_bytes,
            delivered_at: self.delivered_at,
        };
    }

    /// There is nothing to send though window and pace would let it go.
    pub(crate) fn handle_limited(&mut self, in_flight_bytes: u64) {
        self.limited_until_bytes = self.delivered_bytes + in_flight_bytes.max(1);
    }

    pub(crate) fn handle_acked(&mut self, now: Instant, train: u32, payload_bytes: u64) {
        self.delivered_bytes += payload_bytes;
        self.delivered_at = now;
        let note = self.notes[train as usize & (self.notes.len() - 1)];
        let newer = self.newest.is_none_or(|newest| train.wrapping_sub(newest.train) as i32 > 0);
        if note.train == train && note.sent > Instant(0) && newer {
            self.newest = Some(note);
        }
    }

    /// The sample of the acknowledgement just read.
    pub(crate) fn sample(&mut self, now: Instant, rtt_min_ns: u64) -> Option<RateSample> {
        let note = self.newest.take()?;
        self.first_sent = self.first_sent.max(note.sent);
        let sent_ns = note.sent.since(note.first_sent);
        let acked_ns = now.since(note.delivered_at);
        let span_ns = sent_ns.max(acked_ns);
        let bytes = self.delivered_bytes - note.delivered_bytes;
        // A span shorter than a round trip is an artefact of acknowledgements that bunch up.
        (span_ns >= rtt_min_ns.max(1))
            .then(|| RateSample { rate: per_second(bytes, span_ns), limited: note.limited })
    }

    pub(crate) const fn delivered_bytes(&self) -> u64 {
        self.delivered_bytes
    }
}
