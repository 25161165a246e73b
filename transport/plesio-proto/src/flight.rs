//! The sender's record of every packet whose number the peer has not yet let go.
//!
//! ```text
//!  base: peer's cumulative    floor: first one flying      next
//!   │ done, lost, lost, done   │ flying, done, lost, flying │
//! ```
//!
//! A record of a lost packet is kept, because its acknowledgement may only be late. Two bitmaps beside the
//! records say which fly and which are not known to have arrived, so that an acknowledgement costs what it
//! tells and a search what it finds. Invariant: a chunk has at most one flying record, and everything below
//! `floor` is settled, so `floor` may be told to the peer.

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
    /// One bit per record: it flies.
    flying: Vec<u64>,
    /// One bit per record: its packet flies or was given up.
    open: Vec<u64>,
    base: u64,
    floor: u64,
    next: u64,
    in_flight_bytes: u64,
    /// Newest acknowledged packet.
    newest: Option<u64>,
    /// The newest trains of which something was acknowledged, newest first.
    trains: [Option<u32>; LOSS_TRAINS],
}

/// Newer trains that must be acknowledged before a packet counts as lost.
const LOSS_TRAINS: usize = 3;

impl Flight {
    /// `packets_max` is a power of two, at least 64.
    pub(crate) fn new(packets_max: usize) -> Self {
        Self::starting(packets_max, 0)
    }

    /// The same, with the first packet's count.
    pub(crate) fn starting(packets_max: usize, first: u64) -> Self {
        Self {
            records: alloc::vec![Record::default(); packets_max],
            flying: alloc::vec![0; packets_max / 64],
            open: alloc::vec![0; packets_max / 64],
            base: first,
            floor: first,
            next: first,
            in_flight_bytes: 0,
            newest: None,
            trains: [None; LOSS_TRAINS],
        }
    }

    /// Makes room for as many packets, a larger power of two.
    pub(crate) fn grow(&mut self, packets_max: usize) {
        if packets_max <= self.records.len() {
            return;
        }
        let mut grown = Self::starting(packets_max, self.base);
        for packet in self.base..self.next {
            let record = self.records[self.index(packet)];
            grown.push(record);
            if record.fate != Fate::Flying {
                grown.settle(packet, record.fate);
            }
        }
        (grown.floor, grown.newest, grown.trains) = (self.floor, self.newest, self.trains);
        *self = grown;
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
        let (word, bit) = self.place(packet);
        self.flying[word] |= bit;
        self.open[word] |= bit;
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
        self.newest = self.newest.max(Some(packet));
        self.note_train(before.train);
        Some(before)
    }

    /// Which of the 64 packets from `packet` on that `bits` names are not known to have arrived.
    pub(crate) fn unknown(&self, packet: u64, bits: u64) -> u64 {
        let (word, _) = self.place(packet);
        let shift = packet % 64;
        let next = if word + 1 == self.open.len() { 0 } else { word + 1 };
        let high = if shift == 0 { 0 } else { self.open[next] << (64 - shift) };
        // Beyond the ring's length `record` tells them apart.
        bits & (self.open[word] >> shift | high)
    }

    /// Whether a packet of `train` would be lost by the count of newer trains acknowledged.
    pub(crate) fn is_overtaken(&self, train: u32) -> bool {
        self.trains[LOSS_TRAINS - 1].is_some_and(|third| is_newer(third, train))
    }

    fn note_train(&mut self, train: u32) {
        if self.trains[0] == Some(train) {
            return;
        }
        let mut train = Some(train);
        for place in &mut self.trains {
            match (*place, train) {
                (Some(noted), Some(new)) if noted == new => return,
                (Some(noted), Some(new)) if !is_newer(new, noted) => {}
                _ => core::mem::swap(place, &mut train),
            }
        }
    }

    /// The peer will not speak of packets below `cumulative` again; all flying ones among them were taken.
    pub(crate) fn release(&mut self, cumulative: u64) {
        self.base = self.base.max(cumulative.min(self.next));
        self.advance();
    }

    /// The oldest packet from `from` on that counts as lost, and when the next one would: a packet older
    /// than the newest acknowledged one, with three newer trains acknowledged (if `by_trains`) or as old as
    /// `age_ns`.
    pub(crate) fn first_lost(
        &self,
        now: Instant,
        from: u64,
        by_trains: bool,
        age_ns: u64,
    ) -> (Option<u64>, Option<Instant>) {
        let Some(newest) = self.newest else { return (None, None) };
        let end = newest.min(self.next);
        let mut due: Option<Instant> = None;
        let mut from = from;
        while let Some(packet) = self.next_flying(from, end) {
            let record = &self.records[self.index(packet)];
            let lost_at = record.sent.after(age_ns);
            if lost_at <= now || by_trains && self.is_overtaken(record.train) {
                return (Some(packet), due);
            }
            due = Some(due.map_or(lost_at, |due| due.min(lost_at)));
            from = packet + 1;
        }
        (None, due)
    }

    /// The oldest packet from `from` on that has flown for `age_ns`, whatever was acknowledged.
    pub(crate) fn first_aged(&self, now: Instant, from: u64, age_ns: u64) -> Option<u64> {
        let mut from = from;
        while let Some(packet) = self.next_flying(from, self.next) {
            if self.records[self.index(packet)].sent.after(age_ns) <= now {
                return Some(packet);
            }
            from = packet + 1;
        }
        None
    }

    /// The first flying packet of a message, from `from` on.
    pub(crate) fn first_of(&self, slot: u8, generation: u32, from: u64) -> Option<u64> {
        let mut from = from;
        while let Some(packet) = self.next_flying(from, self.next) {
            let record = &self.records[self.index(packet)];
            if record.slot == slot && record.generation == generation {
                return Some(packet);
            }
            from = packet + 1;
        }
        None
    }

    /// The first flying packet in `from..end`.
    fn next_flying(&self, from: u64, end: u64) -> Option<u64> {
        let mut packet = from.max(self.floor);
        while packet < end {
            let word = self.flying[self.place(packet).0] >> (packet % 64);
            if word != 0 {
                // A ring that is full shares its first word with its last: what lies behind the end is older.
                return Some(packet + u64::from(word.trailing_zeros())).filter(|found| *found < end);
            }
            packet = (packet / 64 + 1) * 64;
        }
        None
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
        let payload_bytes = u64::from(record.payload_bytes);
        let (word, bit) = self.place(packet);
        self.flying[word] &= !bit;
        if fate == Fate::Done {
            self.open[word] &= !bit;
        }
        if flew {
            self.in_flight_bytes -= payload_bytes;
        }
    }

    /// Moves the floor up to the first flying packet.
    pub(crate) fn advance(&mut self) {
        self.floor = self.floor.max(self.base);
        self.floor = self.next_flying(self.floor, self.next).unwrap_or(self.next);
    }

    const fn index(&self, packet: u64) -> usize {
        packet as usize & (self.records.len() - 1)
    }

    /// Word and bit of a packet in the bitmaps.
    const fn place(&self, packet: u64) -> (usize, u64) {
        (self.index(packet) / 64, 1 << (packet % 64))
    }

    fn at(&mut self, packet: u64) -> &mut Record {
        let index = self.index(packet);
        &mut self.records[index]
    }
}

/// Whether train `a` left after train `b`.
const fn is_newer(a: u32, b: u32) -> bool {
    a.wrapping_sub(b) as i32 > 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(trains: &[u32]) -> Flight {
        let mut flight = Flight::new(64);
        for (at, train) in trains.iter().enumerate() {
            flight.push(Record {
                sent: Instant(at as u64),
                train: *train,
                payload_bytes: 1,
                ..Record::default()
            });
        }
        flight
    }

    fn lost(flight: &Flight) -> Option<u64> {
        flight.first_lost(Instant(100), 0, true, 1_000).0
    }

    #[test]
    fn three_newer_trains_must_be_acknowledged_not_only_sent() {
        let mut flight = flight(&[0, 1, 1, 1, 2, 3, 4]);
        for packet in [1, 2, 3, 6] {
            flight.handle_acked(packet);
            assert_eq!(lost(&flight), None, "trains 1 and 4 are two");
        }
        flight.handle_acked(4);
        assert_eq!(lost(&flight), Some(0));
        flight.lose(0);
        assert_eq!(lost(&flight), None, "train 3 has one newer");
        assert_eq!(flight.first_lost(Instant(100), 0, true, 95), (Some(5), None), "but age tells too");
    }

    #[test]
    fn what_flies_is_found_across_the_ring_s_end() {
        let mut flight = flight(&[0; 60]);
        for packet in 0..60 {
            flight.handle_acked(packet);
        }
        flight.release(60);
        for train in 1..=64 {
            flight.push(Record { train, payload_bytes: 1, ..Record::default() });
        }
        assert!(!flight.has_room());
        assert_eq!(flight.unknown(64, u64::MAX), u64::MAX, "the ring is full");
        flight.handle_acked(100);
        assert_eq!(flight.unknown(64, u64::MAX), !(1 << 36));
        assert_eq!(flight.next_flying(100, 124), Some(101));
        for packet in 60..124 {
            flight.handle_acked(packet);
        }
        assert_eq!(flight.next_flying(0, 124), None);
        flight.advance();
        assert_eq!((flight.floor(), flight.in_flight_bytes()), (124, 0));
    }

    #[test]
    fn a_table_that_grows_keeps_what_it_knows() {
        let mut flight = flight(&[1, 2, 3, 4, 5, 6]);
        flight.handle_acked(5);
        flight.handle_acked(0);
        flight.lose(1);
        flight.grow(256);
        assert_eq!((flight.in_flight_bytes(), flight.floor(), flight.next()), (3, 2, 6));
        assert_eq!(flight.unknown(0, u64::MAX), 0b01_1110);
        assert_eq!(flight.handle_acked(1).map(|record| record.fate), Some(Fate::Lost));
        assert!(flight.is_overtaken(0));
    }
}
