//! Messages waiting to be sent or acknowledged: which of their chunks fly, which arrived, which comes next.
//!
//! Messages of one window handle go one after the other, so a newer sequence on the wire always means that
//! the older one was delivered or aborted. Across handles the oldest message goes first, but one that the
//! peer does not take never holds up the others: it strikes and falls back to probing with one chunk.

use crate::bits::Bits;
use crate::error::SendError;
use crate::rtt::Rtt;
use alloc::vec::Vec;
use plesio_wire::data::MessageId;
use plesio_wire::{Instant, Span};

/// Bytes of every message that go without credit.
pub(crate) const UNSCHEDULED_BYTES: u64 = 64 << 10;

/// One message.
#[derive(Debug, Default)]
pub(crate) struct Outgoing {
    pub(crate) message: MessageId,
    pub(crate) span: Span,
    pub(crate) chunks: u32,
    pub(crate) generation: u32,
    /// An older message of the same handle is not finished.
    waits: bool,
    acked: Bits,
    flying: Bits,
    acked_count: u32,
    flying_count: u32,
    /// Chunks below went out at least once.
    fresh: u32,
    /// No chunk below needs sending.
    scan: u32,
    /// Rounds without any acknowledgement.
    strikes: u32,
    /// Packets below belong to rounds that were counted.
    round: u64,
    /// One past the newest acknowledged packet.
    newest: u64,
    probing: bool,
    probe_at: Instant,
    /// The peer posted a window while a probe flew.
    hurried: bool,
    /// When something was last sent or acknowledged.
    active: Instant,
}

impl Outgoing {
    /// The next chunk that should go, were there room.
    pub(crate) fn next_chunk(&mut self) -> Option<u32> {
        self.scan = self.acked.first_in_neither(&self.flying, self.scan, self.chunks);
        (self.scan < self.chunks).then_some(self.scan)
    }

    /// Whether the message may send at all now.
    pub(crate) const fn may_send(&self, now: Instant) -> bool {
        !self.waits && (!self.probing || (self.flying_count == 0 && self.probe_at.0 <= now.0))
    }

    /// Whether it may send more than one chunk.
    pub(crate) const fn is_probing(&self) -> bool {
        self.probing
    }

    /// Whether chunks wait for nothing but room.
    pub(crate) const fn has_more(&self) -> bool {
        !self.waits && !self.probing && self.scan < self.chunks
    }

    /// Whether `chunk` was sent before.
    pub(crate) const fn is_repeat(&self, chunk: u32) -> bool {
        chunk < self.fresh
    }

    pub(crate) fn handle_sent(&mut self, now: Instant, chunk: u32) {
        self.flying.insert(chunk);
        self.flying_count += 1;
        self.fresh = self.fresh.max(chunk + 1);
        self.active = now;
    }

    /// `chunk` arrived in `packet`; `flew` says that this very packet was in flight. Whether that was the
    /// last one missing.
    pub(crate) fn handle_acked(&mut self, now: Instant, chunk: u32, packet: u64, flew: bool) -> bool {
        if flew && self.flying.remove(chunk) {
            self.flying_count -= 1;
        }
        if self.acked.insert(chunk) {
            self.acked_count += 1;
        }
        self.newest = self.newest.max(packet + 1);
        self.strikes = 0;
        self.probing = false;
        self.hurried = false;
        self.active = now;
        self.acked_count == self.chunks
    }

    /// The packet that carried `chunk` is lost. Whether that is a strike: nothing of the message was
    /// acknowledged since it was sent.
    pub(crate) fn handle_lost(&mut self, lost: &Lost, chunk: u32, rtt: &Rtt) -> bool {
        let Lost { now, heard, packet, next } = *lost;
        if self.flying.remove(chunk) {
            self.flying_count -= 1;
        }
        self.scan = self.scan.min(chunk);
        if packet < self.newest || packet < self.round {
            return false;
        }
        self.round = next;
        // What was taken before may be sent again whole, once; what never was asks first.
        if self.strikes > 0 || self.acked_count == 0 {
            self.probing = true;
            let patient = self.strikes > 0 && !self.hurried;
            self.probe_at = if patient { now.max(self.active.after(self.wait_ns(heard, rtt))) } else { now };
            self.hurried = false;
        }
        self.strikes = self.strikes.saturating_add(1);
        true
    }

    /// The peer says that windows were posted: probe at once, but not twice within a round trip.
    pub(crate) fn hurry(&mut self, now: Instant, rtt: &Rtt) {
        self.hurried = self.probing && self.flying_count > 0;
        self.probe_at = self.probe_at.min(now.max(self.active.after(rtt.srtt_ns())));
    }

    /// No room for the probe: look again shortly.
    pub(crate) const fn postpone(&mut self, until: Instant) {
        self.probe_at = until;
    }

    /// When everything in flight counts as lost, or when the next probe is due.
    pub(crate) fn timeout(&self, heard: Instant, rtt: &Rtt) -> Option<Instant> {
        if self.waits {
            None
        } else if self.flying_count > 0 {
            let wait_ns = if self.probing { rtt.probe_ns() } else { self.wait_ns(heard, rtt) };
            Some(self.active.after(wait_ns))
        } else {
            self.probing.then_some(self.probe_at)
        }
    }

    /// The pause between two tries, longer with every strike.
    fn wait_ns(&self, heard: Instant, rtt: &Rtt) -> u64 {
        rtt.backoff_ns(self.strikes, self.active.since(heard) < SILENCE_NS)
    }

    pub(crate) const fn is_flying(&self) -> bool {
        self.flying_count > 0
    }
}

/// A packet given up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lost {
    pub(crate) now: Instant,
    /// When the peer was last heard.
    pub(crate) heard: Instant,
    pub(crate) packet: u64,
    /// The next packet number.
    pub(crate) next: u64,
}

/// A peer not heard for so long does not answer.
const SILENCE_NS: u64 = 500_000_000;

/// All messages of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    chunk_bytes: u32,
    slots: Vec<Outgoing>,
    free: Vec<u8>,
    /// Slots in use, oldest message first.
    order: Vec<u8>,
}

impl Outbox {
    pub(crate) fn new(chunk_bytes: u32, messages_max: usize) -> Self {
        let slots = (0..messages_max).map(|_| Outgoing::default()).collect();
        let free = (0..messages_max).rev().map(|slot| slot as u8).collect();
        Self { chunk_bytes, slots, free, order: Vec::with_capacity(messages_max) }
    }

    pub(crate) fn push(&mut self, now: Instant, message: MessageId, span: Span) -> Result<(), SendError> {
        if span.len_bytes == 0 {
            return Err(SendError::Empty);
        }
        if span.offset_bytes.checked_add(span.len_bytes).is_none() {
            return Err(SendError::Range);
        }
        if self.find(message).is_some() {
            return Err(SendError::Busy);
        }
        let waits = self.order.iter().any(|slot| self.at(*slot).message.handle == message.handle);
        let slot = self.free.pop().ok_or(SendError::QueueFull { messages_max: self.slots.len() })?;
        self.order.push(slot);
        let chunks = span.len_bytes.div_ceil(self.chunk_bytes);
        let outgoing = &mut self.slots[usize::from(slot)];
        let (mut acked, mut flying) =
            (core::mem::take(&mut outgoing.acked), core::mem::take(&mut outgoing.flying));
        acked.reset(chunks);
        flying.reset(chunks);
        *outgoing = Outgoing {
            message,
            span,
            chunks,
            generation: outgoing.generation,
            waits,
            acked,
            flying,
            active: now,
            ..Outgoing::default()
        };
        Ok(())
    }

    /// The slot of a queued message.
    pub(crate) fn find(&self, message: MessageId) -> Option<u8> {
        self.order.iter().copied().find(|slot| self.at(*slot).message == message)
    }

    /// Frees a slot; the next message of the same handle may start. The spent generation makes packets still
    /// in flight mean nothing.
    pub(crate) fn remove(&mut self, slot: u8) -> MessageId {
        let outgoing = &mut self.slots[usize::from(slot)];
        outgoing.generation = outgoing.generation.wrapping_add(1);
        let message = outgoing.message;
        self.order.retain(|other| *other != slot);
        self.free.push(slot);
        let next = self.order.iter().copied().find(|s| self.at(*s).message.handle == message.handle);
        if let Some(next) = next {
            self.slots[usize::from(next)].waits = false;
        }
        message
    }

    pub(crate) fn len(&self) -> usize {
        self.order.len()
    }

    /// The `place`-th oldest message.
    pub(crate) fn nth(&mut self, place: usize) -> Option<(u8, &mut Outgoing)> {
        let slot = *self.order.get(place)?;
        Some((slot, &mut self.slots[usize::from(slot)]))
    }

    /// The message a packet belonged to, if it is still the one in that slot.
    pub(crate) fn of(&mut self, slot: u8, generation: u32) -> Option<&mut Outgoing> {
        self.slots.get_mut(usize::from(slot)).filter(|outgoing| outgoing.generation == generation)
    }

    pub(crate) fn at(&self, slot: u8) -> &Outgoing {
        &self.slots[usize::from(slot)]
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Outgoing> {
        self.order.iter().map(|slot| self.at(*slot))
    }
}
