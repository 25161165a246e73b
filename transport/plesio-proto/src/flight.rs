//! The sender's record of every packet whose number the peer has not yet let go.
//!
//! ```text
//!  base: peer's cumulative    floor: first one flying      next
//!   │ done, lost, lost, done   │ flying, done, lost, flying │
//! ```
//!
//! A record of a lost packet is kept, because its acknowledgement may only be late. Invariant: a chunk has
//! at most one flying record, and everything below `floor` is settled, so `floor` may be told to the peer.

use alloc::vec::Vec;
use plesio_wire::Instant;

/// What became of a packet.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(crate) enum Fate {
    #[default]
    Done,
    Flying,
    /// Given up: newer ones were acknowledged and it was not, or the peer said that it is not there.
    Lost,
}

/// One packet sent.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Record {
    pub(crate) sent: Instant,
    pub(crate) generation: u32,
    pub(crate) chunk: u32,
    pub(crate) train: u32,
    pub(crate) payload_bytes: u16,
    pub(crate) slot: u8,
    pub(crate) fate: Fate,
}

/// All packets in flight.
#[derive(Debug)]
pub(crate) struct Flight {
    records: Vec<Record>,
    base: u64,
    floor: u64,
    next: u64,
    in_flight_bytes: u64,
    /// Newest acknowledged packet and its train.
    newest: Option<(u64, u32)>,
}

impl Flight {
    /// `packets_max` is a power of two.
    pub(crate) fn new(packets_max: usize) -> Self {
        Self::starting(packets_max, 0)
    }

    /// The same, with the first packet's count.
    pub(crate) fn starting(packets_max: usize, first: u64) -> Self {
        Self {
            records: alloc::vec![Record::default(); packets_max],
            base: first,
            floor: first,
            next: first,
            in_flight_bytes: 0,
            newest: None,
        }
    }

    /// Whether another packet number can be used.
    pub(crate) const fn has_room(&self) -> bool {
        self.next - self.base < self.records.len() as u64
    }

    /// Whether the numbers in use are many compared with those there are.
    pub(crate) const fn is_crowded(&self) -> bool {
        self.next - self.base > self.records.len() as u64 / 2
    }

    pub(crate) const fn base(&self) -> u64 {
        self.base
    }

    pub(crate) const fn floor(&self) -> u64 {
        self.floor
    }

    pub(crate) const fn next(&self) -> u64 {
        self.next
    }

    pub(crate) const fn in_flight_bytes(&self) -> u64 {
        self.in_flight_bytes
    }

    /// Adds a packet; there must be room. Returns its number.
    pub(crate) fn push(&mut self, record: Record) -> u64 {
        assert!(self.has_room(), "the caller asked for room");
        let packet = self.next;
        self.in_flight_bytes += u64::from(record.payload_bytes);
        *self.at(packet) = Record { fate: Fate::Flying, ..record };
        self.next += 1;
        packet
    }

    /// The record of `packet`, while it is kept.
    pub(crate) fn record(&self, packet: u64) -> Option<&Record> {
        (self.base..self.next).contains(&packet).then(|| &self.records[self.index(packet)])
    }

    /// The peer has `packet`. The record as it was, unless that was known.
    pub(crate) fn handle_acked(&mut self, packet: u64) -> Option<Record> {
        let before = *self.record(packet)?;
        if before.fate == Fate::Done {
            return None;
        }
        self.settle(packet, Fate::Done);
        if self.newest.is_none_or(|(newest, _)| packet > newest) {
            self.newest = Some((packet, before.train));
        }
        Some(before)
    }

    /// The peer will not speak of packets below `cumulative` again; all flying ones among them were taken.
    pub(crate) fn release(&mut self, cumulative: u64) {
        self.base = self.base.max(cumulative.min(self.next));
        self.advance();
    }

    /// The oldest packet from `from` on that counts as lost, and when the next one would: a packet older
    /// than the newest acknowledged one, by `trains` trains or by `age_ns`.
    pub(crate) fn first_lost(
        &self,
        now: Instant,
        from: u64,
        trains: i32,
        age_ns: u64,
    ) -> (Option<u64>, Option<Instant>) {
        let Some((newest, train)) = self.newest else { return (None, None) };
        let mut due: Option<Instant> = None;
        for packet in from.max(self.floor)..newest.min(self.next) {
            let record = &self.records[self.index(packet)];
            if record.fate != Fate::Flying {
                continue;
            }
            let lost_at = record.sent.after(age_ns);
            if lost_at <= now || train.wrapping_sub(record.train) as i32 >= trains {
                return (Some(packet), due);
            }
            due = Some(due.map_or(lost_at, |due| due.min(lost_at)));
        }
        (None, due)
    }

    /// The first flying packet of a message, from `from` on.
    pub(crate) fn first_of(&self, slot: u8, generation: u32, from: u64) -> Option<u64> {
        (from.max(self.floor)..self.next).find(|packet| {
            let record = &self.records[self.index(*packet)];
            record.fate == Fate::Flying && record.slot == slot && record.generation == generation
        })
    }

    /// Gives a flying packet up; its acknowledgement is still understood.
    pub(crate) fn lose(&mut self, packet: u64) -> Record {
        let before = self.records[self.index(packet)];
        self.settle(packet, Fate::Lost);
        self.advance();
        before
    }

    /// Stops counting a flying packet, whose chunk nobody needs any more.
    pub(crate) fn forget(&mut self, packet: u64) {
        self.settle(packet, Fate::Done);
        self.advance();
    }

    fn settle(&mut self, packet: u64, fate: Fate) {
        let record = self.at(packet);
        let flew = record.fate == Fate::Flying;
        record.fate = fate;
        if flew {
            let payload_bytes = u64::from(record.payload_bytes);
            self.in_flight_bytes -= payload_bytes;
        }
    }

    /// Moves the floor up to the first flying packet.
    pub(crate) fn advance(&mut self) {
        self.floor = self.floor.max(self.base);
        while self.floor < self.next && self.records[self.index(self.floor)].fate != Fate::Flying {
            self.floor += 1;
        }
    }

    const fn index(&self, packet: u64) -> usize {
        packet as usize & (self.records.len() - 1)
    }

    fn at(&mut self, packet: u64) -> &mut Record {
        let index = self.index(packet);
        &mut self.records[index]
    }
}
