//! What the peer says about packets sent: taken, lost, credit; and what silence means.

use super::{Connection, Event};
use crate::error::Refused;
use crate::flight::{Fate, Record};
use plesio_wire::data::{ACK_BLOCKS_MAX, Ack, COUNT_MAX, Credit, Flags, Header};
use plesio_wire::{DecodeError, Instant, Reader};

impl Connection {
    pub(super) fn handle_ack(&mut self, now: Instant, header: &Header, bytes: &[u8]) -> Result<(), Refused> {
        let mut reader = Reader::new(bytes);
        let ack: Ack = reader.read().map_err(Refused::Malformed)?;
        let extra = reader.take(reader.remaining()).map_err(Refused::Malformed)?;
        if extra.len() % 32 != 0 || extra.len() > 32 * ACK_BLOCKS_MAX {
            return Err(Refused::Malformed(DecodeError::Field("bitmap")));
        }
        let extra = Extra { skipped: header.message.handle, blocks: extra };
        self.check_claims(&ack, extra)?;
        self.check_limit(ack.credit_limit_bytes)?;

        for packet in self.flight.base()..ack.cumulative {
            // Below a floor that the peer was told a packet given up tells nothing: it may be why the peer moved on.
            let flies = self.flight.record(packet).is_some_and(|record| record.fate == Fate::Flying);
            if flies || packet >= self.floor_told {
                self.handle_acked(now, packet, &ack);
            }
        }
        self.flight.release(ack.cumulative);
        for (packet, bits) in claims(&ack, extra) {
            let mut bits = self.flight.unknown(packet, bits);
            while bits != 0 {
                self.handle_acked(now, packet + u64::from(bits.trailing_zeros()), &ack);
                bits &= bits - 1;
            }
        }
        self.flight.advance();
        self.handle_answer(now, header.chunk);
        self.raise_limit(ack.credit_limit_bytes);
        (self.unasked_bytes, self.spared) = (0, false);
        self.rtt.relax(now);
        self.detect_losses(now);
        if header.flags.has(Flags::ACK_REQ) {
            self.fill_holes(now);
        }
        self.report(now);
        // The peer keeps holes that will never be filled: tell it, rarely while they do no harm.
        // (What was only late is dropped once the peer has moved on.)
        let urgent = self.flight.is_crowded();
        self.ping_due |= self.owes_floor(now, if urgent { 0 } else { FLOOR_NS });
        Ok(())
    }

    pub(super) fn handle_credit(&mut self, now: Instant, bytes: &[u8]) -> Result<(), Refused> {
        let credit: Credit = super::receive::body(bytes)?;
        self.check_limit(credit.credit_limit_bytes)?;
        self.raise_limit(credit.credit_limit_bytes);
        let mut place = 0;
        while let Some((_, outgoing)) = self.outbox.nth(place) {
            outgoing.hurry(now, &self.rtt);
            place += 1;
        }
        Ok(())
    }

    /// Gives up what newer acknowledgements have overtaken.
    pub(super) fn detect_losses(&mut self, now: Instant) {
        self.loss_at = None;
        let mut from = 0;
        loop {
            let (by_trains, age_ns) = (self.rtt.is_ordered(), self.rtt.loss_ns());
            let (lost, due) = self.flight.first_lost(now, from, by_trains, age_ns);
            self.loss_at = match (self.loss_at, due) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
            let Some(packet) = lost else { return };
            self.handle_lost(now, packet);
            from = packet + 1;
        }
    }

    /// The peer has a message's end and lacks other parts of it: what had its time to be acknowledged and is not there
    /// is lost, even if nothing newer arrived.
    fn fill_holes(&mut self, now: Instant) {
        let age_ns = self.rtt.loss_ns();
        let mut from = 0;
        while let Some(packet) = self.flight.first_aged(now, from, age_ns) {
            self.handle_lost(now, packet);
            from = packet + 1;
        }
    }

    /// Asks about messages that were silent too long.
    pub(super) fn ask_silent(&mut self, now: Instant) {
        let mut place = 0;
        while let Some((_, outgoing)) = self.outbox.nth(place) {
            place += 1;
            if outgoing.handle_timeout(now, self.stats.heard, &self.rtt) {
                self.stats.strikes += 1;
                let unanswered = outgoing.unanswered();
                self.note_silence(now, unanswered);
            }
        }
    }

    /// The peer says, with this acknowledgement, what became of a message it was asked about: packets that went before
    /// the question and are not there, though they had their time, never will be.
    fn handle_answer(&mut self, now: Instant, answer: u32) {
        let (number, takes) = (answer >> 1, answer & 1 == 1);
        self.search.handle_answer(now, number);
        let Some((slot, generation, question)) = self.outbox.asked(number) else { return };
        let age_ns = self.rtt.loss_ns();
        let mut from = 0;
        let mut lost = false;
        while let Some(packet) = self.flight.first_of(slot, generation, from) {
            let late = self.flight.record(packet).is_some_and(|record| record.sent.after(age_ns) <= now);
            if packet >= question.next {
                break;
            }
            if late {
                self.handle_lost(now, packet);
                lost = true;
            }
            from = packet + 1;
        }
        if let Some(outgoing) = self.outbox.of(slot, generation) {
            outgoing.handle_answer(now, takes, lost, self.stats.heard, &self.rtt);
        }
    }

    /// Whether the peer should hear which packets were given up, if it last did `pause_ns` ago.
    pub(super) fn owes_floor(&self, now: Instant, pause_ns: u64) -> bool {
        let pause_ns = pause_ns.max(self.rtt.srtt_ns()).max(FLOOR_NS_MIN);
        self.flight.floor() > self.flight.base() && now.since(self.floor_sent) >= pause_ns
    }

    /// An acknowledgement must not speak of packets that were never sent.
    fn check_claims(&self, ack: &Ack, extra: Extra<'_>) -> Result<(), Refused> {
        let next = self.flight.next();
        let beyond = claims(ack, extra).any(|(packet, bits)| {
            bits != 0 && packet.saturating_add(63 - u64::from(bits.leading_zeros())) >= next
        });
        if ack.cumulative > next || ack.largest > next.saturating_sub(1) || beyond {
            return Err(Refused::Unsent);
        }
        Ok(())
    }

    fn handle_acked(&mut self, now: Instant, packet: u64, ack: &Ack) {
        let Some(record) = self.flight.handle_acked(packet) else { return };
        if packet == ack.largest {
            self.rtt.handle_sample(now.since(record.sent), u64::from(ack.delay_us) * 1_000);
        }
        self.stats.delivered_bytes += u64::from(record.payload_bytes);
        self.path.handle_acked(now, &record);
        self.search.handle_acked(u32::from(record.payload_bytes));
        let flew = record.fate == Fate::Flying;
        if !flew {
            self.stats.spurious_packets += 1;
        } else if self.flight.is_overtaken(record.train) {
            self.rtt.handle_overtaken(now);
        }
        if record.fate == Fate::Lost {
            self.rtt.handle_late(now, now.since(record.sent));
        }
        let Record { slot, generation, chunk, .. } = record;
        let Some(outgoing) = self.outbox.of(slot, generation) else { return };
        if outgoing.handle_acked(now, chunk, flew) {
            let message = self.drop_message(slot);
            self.events.push_back(Event::Delivered { message });
        }
    }

    fn handle_lost(&mut self, now: Instant, packet: u64) {
        let record = self.flight.lose(packet);
        self.path.handle_lost(&record);
        self.stats.lost_packets += 1;
        if let Some(outgoing) = self.outbox.of(record.slot, record.generation) {
            outgoing.handle_lost(record.chunk);
        }
        let (train, payload_bytes) = (record.train, u32::from(record.payload_bytes));
        let wait_ns = self.rtt.probe_ns();
        let shrinks = self.search.handle_lost(now, train, payload_bytes, self.stats.heard, wait_ns);
        if let Some(chunk_bytes) = shrinks {
            self.recut(now, chunk_bytes);
        }
    }

    /// Nobody has credit for more packets than a connection can count.
    fn check_limit(&self, limit_bytes: u64) -> Result<(), Refused> {
        if limit_bytes / u64::from(self.config.chunk_bytes) > CREDIT_PACKETS_MAX {
            return Err(Refused::Credit);
        }
        Ok(())
    }

    fn raise_limit(&mut self, limit_bytes: u64) {
        if limit_bytes > self.credit_limit_bytes {
            self.credit_limit_bytes = limit_bytes;
            self.pings = 0;
        }
        self.ping_at = None;
    }
}

/// Blocks of the bitmap behind an ACK.
#[derive(Clone, Copy, Debug)]
struct Extra<'a> {
    skipped: u16,
    blocks: &'a [u8],
}

/// The bitmap as words, each with the packet number of its lowest bit.
fn claims<'a>(ack: &'a Ack, extra: Extra<'a>) -> impl Iterator<Item = (u64, u64)> + 'a {
    let first = ack.selective.chunks_exact(8).zip(0u64..);
    let behind = 4 * (1 + u64::from(extra.skipped));
    first.chain(extra.blocks.chunks_exact(8).zip(behind..)).map(|(bytes, index)| {
        let bits = bytes.iter().rev().fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        (ack.cumulative.saturating_add(index * 64), bits)
    })
}

const CREDIT_PACKETS_MAX: u64 = 2 * COUNT_MAX;
const FLOOR_NS: u64 = 50_000_000;
const FLOOR_NS_MIN: u64 = 1_000_000;
