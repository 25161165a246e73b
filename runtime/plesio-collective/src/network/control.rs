//! Records to and from one peer, in order: a ring of small messages, several of which may be on their way.
//!
//! Message i goes to handle `CONTROL` + i mod [`RING`] with sequence i / [`RING`]. The receiver has a window open for each
//! of the next [`RING`]; the sender waits for the oldest to be acknowledged before it uses its window again, and meanwhile
//! gathers records for the next message.

use super::record::{RECORD_BYTES, Record};
use alloc::collections::VecDeque;
use alloc::vec::Vec;

/// Messages that may be on their way.
pub(crate) const RING: usize = 8;
/// Bytes of the largest message.
pub(crate) const MESSAGE_BYTES: u32 = (RECORDS_MAX * RECORD_BYTES) as u32;

const RECORDS_MAX: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Control {
    queue: VecDeque<Record>,
    /// Number of the next message sent.
    next: u64,
    /// Messages of these windows are on their way.
    flying: [bool; RING],
    /// Messages received in each window.
    received: [u64; RING],
    /// Received before one that goes first.
    early: [Option<Vec<Record>>; RING],
    /// Number of the next message to be read.
    read: u64,
}

impl Control {
    pub(crate) fn push(&mut self, record: Record) {
        self.queue.push_back(record);
    }

    /// The next message: its slot, its sequence, its bytes.
    pub(crate) fn poll_message(&mut self) -> Option<(usize, u16, Vec<u8>)> {
        let slot = (self.next % RING as u64) as usize;
        if self.queue.is_empty() || self.flying[slot] {
            return None;
        }
        let sequence = (self.next / RING as u64) as u16;
        self.next += 1;
        self.flying[slot] = true;
        let count = self.queue.len().min(RECORDS_MAX);
        Some((slot, sequence, self.queue.drain(..count).flat_map(Record::to_bytes).collect()))
    }

    pub(crate) fn handle_sent(&mut self, slot: usize) {
        self.flying[slot] = false;
    }

    /// Sequence of the message that the window takes next.
    pub(crate) fn expected(&self, slot: usize) -> u16 {
        self.received[slot] as u16
    }

    /// Takes a message; whether it was the one expected, so that the window is to be opened again. Bytes that are no
    /// records are left out: their sender is broken, and is waited for until the deadline.
    pub(crate) fn handle_received(&mut self, slot: usize, sequence: u16, bytes: &[u8]) -> bool {
        if sequence != self.expected(slot) || self.early[slot].is_some() {
            return false;
        }
        self.received[slot] += 1;
        let records = bytes.chunks(RECORD_BYTES).take(RECORDS_MAX).filter_map(Record::parse);
        self.early[slot] = Some(records.collect());
        true
    }

    /// The records of the next message in order.
    pub(crate) fn poll_records(&mut self) -> Option<Vec<Record>> {
        let records = self.early[(self.read % RING as u64) as usize].take()?;
        self.read += 1;
        Some(records)
    }
}
