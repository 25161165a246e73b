//! Messages waiting to be sent or acknowledged: which of their chunks fly, which arrived, which comes next.
//!
//! Messages of one window handle go one after the other, so a newer sequence on the wire always means that
//! the older one was delivered or aborted. Across handles the oldest message goes first, but one that the
//! peer does not take never holds up the others: it is parked until the peer says that its window is posted.

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
    pub(crate) chunk_bytes: u32,
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
    /// Questions in a row without an acknowledgement or an answer.
    strikes: u32,
    /// Questions in a row to which nothing came back.
    unanswered: u32,
    /// Rounds in a row that were lost whole, though the peer would have taken them.
    rounds: u32,
    /// The peer has no window for it: nothing is sent before it says that it has.
    parked: bool,
    /// When to ask about a parked message again.
    ask_at: Instant,
    /// A question is to be sent.
    asks: bool,
    /// The question that is not answered yet.
    question: Option<Question>,
    /// The peer posted a window while a question flew.
    hurried: bool,
    /// When something was last sent, asked or acknowledged.
    active: Instant,
    /// When it is given up.
    deadline: Option<Instant>,
}

impl Outgoing {
    /// The next chunk that should go, were there room.
    pub(crate) fn next_chunk(&mut self) -> Option<u32> {
        if self.scan < self.chunks {
            self.scan = self.acked.first_in_neither(&self.flying, self.scan, self.chunks);
        }
        (self.scan < self.chunks).then_some(self.scan)
    }

    /// Whether the message may send at all now.
    pub(crate) const fn may_send(&self) -> bool {
        !self.waits && !self.parked && (!self.is_narrow() || self.flying_count == 0)
    }

    /// Whether only one chunk may fly: what the peer would have taken did not reach it, twice.
    pub(crate) const fn is_narrow(&self) -> bool {
        self.rounds >= ROUNDS_WHOLE
    }

    /// Whether an older message of the same handle has to be finished first.
    pub(crate) const fn waits(&self) -> bool {
        self.waits
    }

    /// Whether chunks wait for nothing but room.
    pub(crate) const fn has_more(&self) -> bool {
        !self.waits && !self.parked && !self.is_narrow() && self.scan < self.chunks
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

    /// `chunk` arrived; `flew` says that this very packet was in flight. Whether that was the last one
    /// missing.
    pub(crate) fn handle_acked(&mut self, now: Instant, chunk: u32, flew: bool) -> bool {
        if flew && self.flying.remove(chunk) {
            self.flying_count -= 1;
        }
        if self.acked.insert(chunk) {
            self.acked_count += 1;
        }
        self.strikes = 0;
        self.unanswered = 0;
        self.rounds = 0;
        self.parked = false;
        self.asks = false;
        self.hurried = false;
        self.active = now;
        self.acked_count == self.chunks
    }

    /// The packet that carried `chunk` is lost.
    pub(crate) fn handle_lost(&mut self, chunk: u32) {
        if self.flying.remove(chunk) {
            self.flying_count -= 1;
        }
        self.scan = self.scan.min(chunk);
    }

    /// Silence lasted too long: what became of it is asked, not sent again. Whether that was so.
    pub(crate) fn handle_timeout(&mut self, now: Instant, heard: Instant, rtt: &Rtt) -> bool {
        if self.ask_timeout(heard, rtt).is_none_or(|at| at > now) {
            return false;
        }
        self.asks = true;
        self.strikes = self.strikes.saturating_add(1);
        self.unanswered = self.unanswered.saturating_add(u32::from(self.question.is_some()));
        self.active = now;
        self.ask_at = now.after(self.wait_ns(heard, rtt));
        true
    }

    /// Questions before the newest one to which nothing came back.
    pub(crate) const fn unanswered(&self) -> u32 {
        self.unanswered
    }

    /// Whether a question is to be sent.
    pub(crate) const fn asks(&self) -> bool {
        self.asks
    }

    pub(crate) const fn handle_asked(&mut self, question: Question) {
        self.asks = false;
        self.question = Some(question);
    }

    /// The question, if `number` is the one not answered yet.
    pub(crate) fn question(&self, number: u32) -> Option<Question> {
        self.question.filter(|question| question.number == number)
    }

    /// The peer answered, and `lost` of its packets are not there.
    pub(crate) fn handle_answer(&mut self, now: Instant, takes: bool, lost: bool, heard: Instant, rtt: &Rtt) {
        self.question = None;
        self.unanswered = 0;
        self.parked = !takes;
        self.active = now;
        if takes {
            self.rounds = if lost { self.rounds.saturating_add(1) } else { self.rounds };
            self.strikes = self.strikes.min(self.rounds);
        } else {
            self.asks = self.hurried;
            self.strikes = self.strikes.max(2);
            self.ask_at = now.after(self.wait_ns(heard, rtt));
        }
        self.hurried = false;
    }

    /// The peer says that windows were posted: ask at once, but not twice within a round trip.
    pub(crate) fn hurry(&mut self, now: Instant, rtt: &Rtt) {
        if self.parked {
            self.hurried = self.question.is_some();
            self.ask_at = self.ask_at.min(now.max(self.active.after(rtt.srtt_ns())));
        } else {
            self.hurried = self.flying_count > 0;
        }
    }

    /// When the peer is to be asked what became of the message, or it is given up.
    pub(crate) fn timeout(&self, heard: Instant, rtt: &Rtt) -> Option<Instant> {
        self.ask_timeout(heard, rtt).into_iter().chain(self.deadline).min()
    }

    fn ask_timeout(&self, heard: Instant, rtt: &Rtt) -> Option<Instant> {
        if self.waits {
            None
        } else if self.parked {
            Some(self.ask_at)
        } else {
            (self.flying_count > 0).then(|| self.active.after(self.wait_ns(heard, rtt)))
        }
    }

    /// The pause before the next question: the second is as patient as the first, then it doubles.
    fn wait_ns(&self, heard: Instant, rtt: &Rtt) -> u64 {
        rtt.backoff_ns(self.strikes.saturating_sub(1), self.active.since(heard) < SILENCE_NS)
    }

    pub(crate) const fn is_flying(&self) -> bool {
        self.flying_count > 0
    }
}

/// What was asked of the peer about a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question {
    pub(crate) number: u32,
    /// Packets below were sent before it.
    pub(crate) next: u64,
}

/// Rounds that may be lost whole before only one chunk flies.
const ROUNDS_WHOLE: u32 = 2;
/// A peer not heard for so long does not answer.
const SILENCE_NS: u64 = 500_000_000;

/// All messages of one connection.
#[derive(Debug)]
pub(crate) struct Outbox {
    slots: Vec<Outgoing>,
    free: Vec<u8>,
    /// Slots in use, oldest message first.
    order: Vec<u8>,
}

impl Outbox {
    pub(crate) fn new(messages_max: usize) -> Self {
        let slots = (0..messages_max).map(|_| Outgoing::default()).collect();
        let free = (0..messages_max).rev().map(|slot| slot as u8).collect();
        Self { slots, free, order: Vec::with_capacity(messages_max) }
    }

    /// Queues a message; whether it waits for an older one of the same handle.
    pub(crate) fn push(
        &mut self,
        now: Instant,
        message: MessageId,
        span: Span,
        chunk_bytes: u32,
        deadline: Option<Instant>,
    ) -> Result<bool, SendError> {
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
        let slot = self.free.pop().expect("the caller asked for room");
        self.order.push(slot);
        let chunks = span.len_bytes.div_ceil(chunk_bytes);
        let outgoing = &mut self.slots[usize::from(slot)];
        let (mut acked, mut flying) =
            (core::mem::take(&mut outgoing.acked), core::mem::take(&mut outgoing.flying));
        acked.reset(chunks);
        flying.reset(chunks);
        *outgoing = Outgoing {
            message,
            span,
            chunks,
            chunk_bytes,
            generation: outgoing.generation,
            waits,
            acked,
            flying,
            active: now,
            deadline,
            ..Outgoing::default()
        };
        Ok(waits)
    }

    pub(crate) fn is_full(&self) -> bool {
        self.free.is_empty()
    }

    /// The oldest message whose deadline has passed.
    pub(crate) fn first_late(&self, now: Instant) -> Option<u8> {
        self.order.iter().copied().find(|slot| self.at(*slot).deadline.is_some_and(|at| at <= now))
    }

    /// Begins a message anew in chunks of this size. The peer is asked first, so that it begins anew as well.
    pub(crate) fn restart(&mut self, now: Instant, slot: u8, chunk_bytes: u32) {
        let outgoing = &mut self.slots[usize::from(slot)];
        outgoing.generation = outgoing.generation.wrapping_add(1);
        outgoing.chunk_bytes = chunk_bytes;
        outgoing.chunks = outgoing.span.len_bytes.div_ceil(chunk_bytes);
        outgoing.acked.reset(outgoing.chunks);
        outgoing.flying.reset(outgoing.chunks);
        (outgoing.acked_count, outgoing.flying_count) = (0, 0);
        let begun = outgoing.fresh > 0;
        (outgoing.fresh, outgoing.scan, outgoing.rounds, outgoing.question) = (0, 0, 0, None);
        if begun && !outgoing.waits {
            (outgoing.parked, outgoing.asks) = (true, true);
            (outgoing.active, outgoing.ask_at) = (now, now);
        }
    }

    /// The slot of a queued message.
    pub(crate) fn find(&self, message: MessageId) -> Option<u8> {
        self.order.iter().copied().find(|slot| self.at(*slot).message == message)
    }

    /// The message that question `number` was about, if it is not answered yet.
    pub(crate) fn asked(&self, number: u32) -> Option<(u8, u32, Question)> {
        self.order.iter().find_map(|slot| {
            let outgoing = self.at(*slot);
            outgoing.question(number).map(|question| (*slot, outgoing.generation, question))
        })
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
