//! Receiving: where chunks belong, what is acknowledged when, and how much credit is given.

use super::{Connection, Event, is_small};
use crate::arrivals::Arrival;
use crate::config::Grants;
use crate::error::Refused;
use crate::granter::Demand;
use crate::outbox::UNSCHEDULED_BYTES;
use crate::transmit::Control;
use crate::windows::Fit;
use plesio_wire::data::{COUNT_MAX, Credit, Flags, Header, Kind, MessageId, Ping, chunk_of_step, count_of};
use plesio_wire::{Instant, Reader, Span, Wire};

impl Connection {
    /// Where the payload of this chunk belongs. `None`: it is to be dropped, and reported to
    /// `handle_unplaced` once checked. The header need not have been checked yet: only holes are named.
    #[must_use]
    pub fn place(&self, header: &Header) -> Option<Span> {
        let ours = self.open
            && header.kind == Kind::Data
            && header.receiver == self.config.local
            && self.numbers(header);
        if !ours || self.arrivals.check(count_of(header.packet)) != Arrival::New || self.overdraws(header) {
            return None;
        }
        match self.windows.fit(header) {
            Fit::Hole(span) => Some(span),
            _ => None,
        }
    }

    pub(super) fn handle_data(&mut self, now: Instant, header: &Header) -> Result<(), Refused> {
        if self.place(header).is_none() {
            return Err(self.refuse_data(now, header));
        }
        self.stats.received_bytes += u64::from(header.payload_bytes);
        if !header.flags.has(Flags::LAST_OF_MSG) {
            self.peer_chunk_bytes = u32::from(header.payload_bytes);
        }
        self.note_arrival(now, header);
        if let Some((message, span)) = self.windows.accept(header) {
            self.events.push_back(Event::Received { message, span });
            // The sender of a small one has asked, or does not wait.
            self.ack_due |= !is_small(header);
        } else if header.flags.has(Flags::LAST_OF_MSG) {
            // The end is here and holes remain.
            self.ack_due = true;
            (self.holes_at, self.holes_asked) = (Some(now.after(HOLES_NS)), 0);
        } else if self.holes_at.is_some() {
            self.holes_at = Some(now.after(HOLES_NS << self.holes_asked));
        }
        Ok(())
    }

    /// Asks for the holes of a message whose end is here, ever more rarely: the sender may be waiting for an
    /// acknowledgement that was lost, or have lost its repetition too.
    pub(super) fn ask_for_holes(&mut self, now: Instant) {
        if self.holes_at.is_none_or(|at| at > now) {
            return;
        }
        if !self.windows.has_holes() || self.holes_asked == HOLES_ASKED_MAX {
            self.holes_at = None;
            return;
        }
        self.holes_asked += 1;
        self.holes_at = Some(now.after(HOLES_NS << self.holes_asked));
        (self.asks_holes, self.ack_due) = (true, true);
    }

    /// Counts a chunk that has no place, and acknowledges it if it is here already.
    pub(super) fn refuse_data(&mut self, now: Instant, header: &Header) -> Refused {
        // Whoever asks gets an answer, which claims nothing that was dropped.
        self.ack_due |= header.flags.has(Flags::ACK_REQ);
        let refused = match self.arrivals.check(count_of(header.packet)) {
            Arrival::Old => Refused::Stale,
            Arrival::Seen => Refused::Duplicate,
            Arrival::Beyond => Refused::Packet,
            Arrival::New if self.overdraws(header) => Refused::Credit,
            Arrival::New => match self.windows.fit(header) {
                Fit::Repeat => {
                    self.note_arrival(now, header);
                    self.ack_due = true; // its first acknowledgement may have been lost
                    Refused::Duplicate
                }
                Fit::Newer => {
                    self.windows.rebind(header);
                    Refused::Unposted
                }
                // The window has changed since the payload was read, so the payload is not in it.
                Fit::Hole(_) => Refused::Unposted,
                Fit::Drop(refused) => refused,
            },
        };
        match refused {
            Refused::Duplicate => self.stats.duplicates += 1,
            Refused::Unposted => {
                self.missed = true;
                self.stats.dropped_unposted += 1;
            }
            Refused::Stale => self.stats.dropped_stale += 1,
            Refused::Credit => self.stats.dropped_credit += 1,
            _ => self.stats.dropped_range += 1,
        }
        refused
    }

    pub(super) fn handle_ping(&mut self, header: &Header, bytes: &[u8]) -> Result<(), Refused> {
        let ping: Ping = body(bytes)?;
        if ping.floor > COUNT_MAX {
            return Err(Refused::Packet);
        }
        self.arrivals.handle_floor(ping.floor);
        self.ack_due = true;
        if header.chunk == 0 {
            return Ok(());
        }
        self.windows.recut(header);
        let takes = self.windows.takes(header.message);
        self.answers.push(header.chunk, takes);
        if takes {
            return Ok(());
        }
        self.missed = true;
        Err(Refused::Unposted)
    }

    /// A padded datagram arrived: that is all its sender wants to know.
    pub(super) fn handle_probe(&mut self, header: &Header) -> Result<(), Refused> {
        self.ack_due = true;
        self.answers.push(header.chunk, true);
        Ok(())
    }

    /// Payload the peer may have sent in total: what is settled, and the budget while a window waits.
    pub(super) fn limit_bytes(&self) -> u64 {
        let grants = self.config.grants == Grants::Own && self.windows.posted() > 0;
        let budget_bytes = if grants { self.config.budget_bytes() } else { 0 };
        // Credit counts whole chunks, so of smaller ones it grants as many more.
        let chunk_bytes = u64::from(self.config.chunk_bytes);
        let budget_bytes = budget_bytes / u64::from(self.peer_chunk_bytes) * chunk_bytes;
        let settled_bytes = self.arrivals.settled().saturating_mul(chunk_bytes);
        let most_bytes = COUNT_MAX.saturating_mul(chunk_bytes);
        self.granted_bytes.max(settled_bytes.saturating_add(budget_bytes).min(most_bytes))
    }

    /// Whether a chunk that needs credit comes without. First chunks and repetitions need none.
    fn overdraws(&self, header: &Header) -> bool {
        let chunk_bytes = u64::from(self.config.chunk_bytes);
        let total_bytes = (count_of(header.packet) + 1).saturating_mul(chunk_bytes);
        let cut_bytes = chunk_of_step(header.flags.step(), self.config.chunk_bytes).map_or(0, u64::from);
        let scheduled = header.chunk > 0 && (u64::from(header.chunk) + 1) * cut_bytes > UNSCHEDULED_BYTES;
        scheduled && !header.flags.has(Flags::RETX) && total_bytes > self.granted_bytes
    }

    /// What the peer waits for, to be told to a [`Granter`](crate::Granter).
    #[must_use]
    pub fn demand(&self) -> Demand {
        let lacks_bytes = self.windows.lacks_bytes();
        if !self.open || lacks_bytes == 0 {
            return Demand::default();
        }
        let granted_packets = self.granted_bytes / u64::from(self.config.chunk_bytes);
        let outstanding_packets = granted_packets.saturating_sub(self.arrivals.settled());
        let outstanding_bytes = outstanding_packets.saturating_mul(u64::from(self.peer_chunk_bytes));
        Demand { wanted_bytes: lacks_bytes.saturating_sub(outstanding_bytes), outstanding_bytes }
    }

    /// Lets the peer send so much more than what has arrived and what it may send already.
    pub fn handle_grant(&mut self, bytes: u64) {
        let packets = bytes.div_ceil(u64::from(self.peer_chunk_bytes));
        let more_bytes = packets.saturating_mul(u64::from(self.config.chunk_bytes));
        self.granted_bytes = self.limit_bytes().saturating_add(more_bytes);
        self.grant_due = true;
    }

    pub(super) fn transmit_ack(&mut self, now: Instant) -> Control {
        self.granted_bytes = self.limit_bytes();
        let (ack, blocks) = self.arrivals.ack(now, self.granted_bytes);
        let answer = self.answers.pop();
        self.ack_due = !self.answers.is_empty();
        self.ack_at = None;
        self.grant_due = false; // It says so too.
        self.acked = now;
        self.unacked_bytes = 0;
        self.stats.acks_sent += 1;
        let mut header = self.control_header(now, Kind::Ack);
        if core::mem::take(&mut self.asks_holes) {
            header.flags = Flags::ACK_REQ;
        }
        let fill = |extra: &mut [u8]| self.arrivals.fill(1 + blocks.skipped, extra);
        let ack = Control::new(header, &ack, blocks.count * 32, fill);
        ack.about(MessageId { handle: blocks.skipped as u16, sequence: 0 }, answer)
    }

    pub(super) fn transmit_credit(&mut self, now: Instant) -> Control {
        self.granted_bytes = self.limit_bytes();
        (self.credit_due, self.grant_due) = (false, false);
        self.missed = false;
        let credit = Credit { credit_limit_bytes: self.granted_bytes };
        Control::new(self.control_header(now, Kind::Credit), &credit, 0, |_| {})
    }

    /// A packet arrived and is to be acknowledged: at once when asked or out of order, else after a while.
    fn note_arrival(&mut self, now: Instant, header: &Header) {
        let gap = self.arrivals.insert(now, count_of(header.packet), header.clock_us);
        self.unacked_bytes += u64::from(header.payload_bytes);
        let often_bytes = ACK_BYTES.min(self.config.budget_bytes() / 2);
        self.ack_due |= header.flags.has(Flags::ACK_REQ) || self.unacked_bytes >= often_bytes;
        // A path that mixes up its packets leaves a gap with each: that many acknowledgements say little more.
        let pause_ns = GAP_NS.saturating_sub(now.since(self.acked));
        self.ack_due |= gap && pause_ns == 0;
        let delay_ns = if gap { pause_ns } else { ACK_DELAY_NS };
        let ack_at = now.after(delay_ns);
        self.ack_at = Some(self.ack_at.map_or(ack_at, |at| at.min(ack_at)));
    }
}

/// Reads a control body that has nothing behind it.
pub(super) fn body<T: Wire>(bytes: &[u8]) -> Result<T, Refused> {
    let mut reader = Reader::new(bytes);
    let value = reader.read().map_err(Refused::Malformed)?;
    reader.finish().map_err(Refused::Malformed)?;
    Ok(value)
}

const ACK_BYTES: u64 = 256 << 10;
const ACK_DELAY_NS: u64 = 1_000_000;
const HOLES_NS: u64 = 2_000_000;
/// 2 ms to a second.
const HOLES_ASKED_MAX: u32 = 9;
const GAP_NS: u64 = 100_000;
