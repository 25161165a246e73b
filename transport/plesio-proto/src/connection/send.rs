//! Sending: what goes next, and how much of it fits under window, credit and packet numbers.

use super::{Connection, is_small};
use crate::flight::Record;
use crate::outbox::{Outgoing, Question, UNSCHEDULED_BYTES};
use crate::transmit::{Control, Next, Train, Transmit};
use plesio_wire::data::{Bye, COUNT_MAX, Flags, Header, Kind, Ping, packet_first};
use plesio_wire::{Instant, Span};

/// Why a message's next chunk stays.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Block {
    /// Too much payload in flight: an acknowledgement or a loss will free it.
    Window,
    /// Credit or packet numbers ran out: the peer has to be asked if it stays silent.
    Grant,
}

impl Connection {
    /// The next datagram or train for the wire; call until `None`.
    pub fn poll_transmit(&mut self, now: Instant) -> Option<Transmit> {
        if let Some(control) = self.transmit_control(now) {
            return Some(Transmit::Control(control));
        }
        if self.outbox.len() > 0 {
            let mut train = Train::default();
            if self.transmit_train(now, &mut train) {
                return Some(Transmit::Train(train));
            }
        }
        self.ping_due.then(|| Transmit::Control(self.transmit_ping(now)))
    }

    /// The same into a train of the caller's, who saves moving the 3 KB that a train is.
    pub fn poll_transmit_into(&mut self, now: Instant, train: &mut Train) -> Option<Next> {
        if let Some(control) = self.transmit_control(now) {
            return Some(Next::Control(control));
        }
        train.clear();
        if self.outbox.len() > 0 && self.transmit_train(now, train) {
            return Some(Next::Train);
        }
        self.ping_due.then(|| Next::Control(self.transmit_ping(now)))
    }

    /// What goes before all payload.
    fn transmit_control(&mut self, now: Instant) -> Option<Control> {
        self.end_exhausted();
        if let Some(reason) = self.bye.take() {
            let header = self.control_header(now, Kind::Bye);
            return Some(Control::new(header, &Bye { reason }, 0, |_| {}));
        }
        if !self.open {
            return None;
        }
        if self.ack_due || self.ack_at.is_some_and(|at| at <= now) {
            return Some(self.transmit_ack(now));
        }
        if self.credit_due || self.grant_due {
            return Some(self.transmit_credit(now));
        }
        if let Some(question) = self.transmit_question(now) {
            return Some(question);
        }
        if let Some(probe) = self.transmit_probe(now) {
            return Some(probe);
        }
        self.ping_due.then(|| self.transmit_ping(now))
    }

    fn transmit_ping(&mut self, now: Instant) -> Control {
        self.ping_due = false;
        self.floor_sent = now;
        let ping = Ping { floor: self.flight.floor() };
        self.floor_told = ping.floor;
        Control::new(self.control_header(now, Kind::Ping), &ping, 0, |_| {})
    }

    /// A PING about a message that has been silent: what of it arrived, and is there a window for it?
    fn transmit_question(&mut self, now: Instant) -> Option<Control> {
        let next = self.flight.next();
        let mut place = 0;
        while let Some((_, outgoing)) = self.outbox.nth(place) {
            place += 1;
            if !outgoing.asks() {
                continue;
            }
            let (message, chunk_bytes) = (outgoing.message, outgoing.chunk_bytes);
            let number = self.next_question();
            let (_, outgoing) = self.outbox.nth(place - 1).expect("was there a moment ago");
            outgoing.handle_asked(Question { number, next });
            let mut ping = self.transmit_ping(now).about(message, number);
            ping.header.flags = ping.header.flags.with_step(self.step(chunk_bytes));
            return Some(ping);
        }
        None
    }

    /// Fills an empty train; whether there was something for it.
    fn transmit_train(&mut self, now: Instant, train: &mut Train) -> bool {
        if self.path.is_paced(now) {
            if !self.has_more() {
                // Nothing waits for its turn: no timer, and what flies says nothing of what the path could carry.
                self.path.rest(self.flight.in_flight_bytes());
            }
            return false;
        }
        let (mut starved, mut full) = (false, false);
        let mut place = 0;
        while let Some((slot, outgoing)) = self.outbox.nth(place) {
            place += 1;
            if !outgoing.may_send() || outgoing.next_chunk().is_none() {
                continue;
            }
            let in_flight_bytes = self.flight.in_flight_bytes();
            let block = self.fill_train(now, slot, train);
            starved |= block == Some(Block::Grant);
            full |= block == Some(Block::Window);
            if !train.is_empty() {
                let train_bytes = self.flight.in_flight_bytes() - in_flight_bytes;
                self.path.handle_sent(now, self.train, train_bytes, in_flight_bytes == 0);
                if self.should_ask(train) {
                    train.ask();
                    (self.unasked_bytes, self.spared) = (0, false);
                }
                self.train = self.train.wrapping_add(1);
                return true;
            }
        }
        if !full {
            self.path.handle_limited(self.flight.in_flight_bytes());
        }
        // Packets given up still cost credit and numbers until the peer knows.
        self.ping_due |= starved && self.owes_floor(now, 0);
        if starved && self.ping_at.is_none() {
            let answers = self.stats.heard >= self.floor_sent;
            self.ping_at = Some(now.after(self.rtt.backoff_ns(self.pings, answers)));
        }
        false
    }

    /// Adds chunks of one message until the train or the room ends.
    fn fill_train(&mut self, now: Instant, slot: u8, train: &mut Train) -> Option<Block> {
        let chunk_bytes = self.outbox.at(slot).chunk_bytes;
        let step = self.step(chunk_bytes);
        let base = self.header(now, Kind::Data);
        let generation = self.outbox.at(slot).generation;
        let narrow = self.outbox.at(slot).is_narrow();
        let idle = self.flight.in_flight_bytes() == 0;
        let paced_max = (self.path.train_bytes(now, idle) / u64::from(chunk_bytes)).max(1);
        let segments_max =
            Train::segments_max(chunk_bytes).min(usize::try_from(paced_max).unwrap_or(usize::MAX));
        let segments_max = if narrow { 1 } else { segments_max };
        let first = packet_first(self.config.channel);
        while train.len() < segments_max {
            let outgoing = self.outbox.of(slot, generation)?;
            let chunk = outgoing.next_chunk()?;
            let offset_bytes = chunk * chunk_bytes;
            let len_bytes = chunk_bytes.min(outgoing.span.len_bytes - offset_bytes);
            let span = outgoing.span.part(offset_bytes, len_bytes)?;
            let repeat = outgoing.is_repeat(chunk);
            let is_last = chunk + 1 == outgoing.chunks;
            let message = outgoing.message;
            let end_bytes = u64::from(chunk + 1) * u64::from(chunk_bytes);
            let scheduled = chunk > 0 && end_bytes > UNSCHEDULED_BYTES;
            if let Some(block) = self.block(scheduled && !repeat, len_bytes) {
                return Some(block);
            }
            let mut flags = if is_last { Flags::LAST_OF_MSG } else { Flags::NONE }.with_step(step);
            if repeat {
                flags = flags.with(Flags::RETX);
                self.stats.retransmitted_bytes += u64::from(len_bytes);
            }
            let packet = self.flight.push(Record {
                sent: now,
                generation,
                chunk,
                train: self.train,
                payload_bytes: len_bytes as u16,
                slot,
                ..Record::default()
            });
            self.outbox.of(slot, generation)?.handle_sent(now, chunk);
            self.stats.sent_bytes += u64::from(len_bytes);
            self.unasked_bytes += u64::from(len_bytes);
            train.push(
                Header {
                    flags,
                    payload_bytes: len_bytes as u16,
                    packet: first | packet,
                    message,
                    chunk,
                    ..base
                },
                span,
            );
        }
        None
    }

    /// What keeps a chunk back. One packet may always fly; repetitions and a message's first 64 KiB need no
    /// credit.
    fn block(&self, scheduled: bool, len_bytes: u32) -> Option<Block> {
        let chunk_bytes = u64::from(self.config.chunk_bytes);
        let in_flight_bytes = self.flight.in_flight_bytes();
        if !self.flight.has_room() || self.flight.next() >= COUNT_MAX {
            return Some(Block::Grant);
        }
        if in_flight_bytes > 0 && in_flight_bytes + u64::from(len_bytes) > self.path.window_bytes() {
            return Some(Block::Window);
        }
        let total_bytes = (self.flight.next() + 1).saturating_mul(chunk_bytes);
        (scheduled && total_bytes > self.credit_limit_bytes).then_some(Block::Grant)
    }

    /// Whether the train just built should ask for an acknowledgement: nothing follows it, or much of the
    /// window went out unasked. A few small messages on a path without delay can wait for what the peer sends of itself:
    /// an answer that is under way shall not queue behind it.
    fn should_ask(&mut self, train: &Train) -> bool {
        if self.unasked_bytes >= self.path.window_bytes() / 2 {
            return true;
        }
        if self.has_more() {
            return false;
        }
        let waits = self.outbox.iter().any(Outgoing::waits);
        let is_spared = |(header, _): &(Header, Span)| is_small(header) && !header.flags.has(Flags::RETX);
        let few = self.outbox.len() <= SPARED_MESSAGES_MAX.min(self.config.messages_max / 2);
        self.spared = train.iter().all(is_spared) && few && !waits && !self.path.is_watched();
        !self.spared
    }

    /// Whether any chunk waits for nothing but room.
    fn has_more(&mut self) -> bool {
        let mut place = 0;
        while let Some((_, outgoing)) = self.outbox.nth(place) {
            place += 1;
            outgoing.next_chunk();
            if outgoing.has_more() {
                return true;
            }
        }
        false
    }
}

/// Messages that may be on their way without a question for an acknowledgement, which the peer then sends within a
/// millisecond.
const SPARED_MESSAGES_MAX: usize = 8;
