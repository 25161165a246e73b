//! Chunk sizes in mid-run: probes upwards, and messages that begin anew in smaller chunks.

use super::Connection;
use crate::transmit::Control;
use plesio_wire::Instant;
use plesio_wire::data::{HEADER_BYTES, Kind, MessageId, step_of_chunk};

impl Connection {
    /// The path takes no datagram of more than `datagram_bytes`, header and tag included: the kernel said so, or the
    /// interface changed. Messages under way begin anew in chunks that fit.
    pub fn handle_path_limit(&mut self, now: Instant, datagram_bytes: u32) {
        let around_bytes = HEADER_BYTES as u32 + self.config.tag_bytes;
        let limit_bytes = datagram_bytes.saturating_sub(around_bytes);
        if let Some(chunk_bytes) = self.search.shrink(now, limit_bytes) {
            self.recut(now, chunk_bytes);
        }
    }

    /// Cuts every message that is not delivered by `chunk_bytes`.
    pub(super) fn recut(&mut self, now: Instant, chunk_bytes: u32) {
        let packets_max = self.config.packets_max(chunk_bytes);
        self.flight.grow(packets_max);
        self.path.handle_packets_max(packets_max);
        let mut place = 0;
        while let Some((slot, outgoing)) = self.outbox.nth(place) {
            place += 1;
            if outgoing.chunk_bytes > chunk_bytes {
                self.forget_flying(slot);
                self.outbox.restart(now, slot, chunk_bytes);
                self.stats.restarts += 1;
            }
        }
    }

    /// When a padded probe is due: once a round trip is known and something is to be sent.
    pub(super) fn probe_timeout(&self) -> Option<Instant> {
        self.search.timeout().filter(|_| self.outbox.len() > 0 && self.rtt.sample().is_some())
    }

    pub(super) fn transmit_probe(&mut self, now: Instant) -> Option<Control> {
        if self.probe_timeout().is_none_or(|at| at > now) {
            return None;
        }
        let size = self.search.poll_probe(now, self.rtt.probe_ns(), self.question_next)?;
        let number = self.next_question();
        let header = self.control_header(now, Kind::Probe);
        Some(Control::padded(header, size as u16).about(MessageId::default(), number))
    }

    /// What a header's flags say of chunks of this size.
    pub(super) fn step(&self, chunk_bytes: u32) -> u8 {
        if chunk_bytes == self.config.chunk_bytes { 0 } else { step_of_chunk(chunk_bytes) }
    }

    /// The number of the next question.
    pub(super) const fn next_question(&mut self) -> u32 {
        let number = self.question_next;
        self.question_next = if number == QUESTION_MAX { 1 } else { number + 1 };
        number
    }
}

/// Question numbers have 31 bits on the wire, beside the answer's one; 0 asks nothing.
const QUESTION_MAX: u32 = u32::MAX >> 1;
