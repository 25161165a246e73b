//! Two machines joined by a seeded link that loses, delays, reorders, duplicates and corrupts; heap memory
//! stands for the arenas, and payload goes where the receiver says before its checksum is looked at.

use plesio_proto::{Config, Connection, Event, Refused, Transmit};
use plesio_wire::data::{Flags, HEADER_BYTES, Header, Kind, MessageId};
use plesio_wire::{Instant, Reader, Span, data};
use std::collections::BTreeMap;

/// SplitMix64 (Steele, Lea, Flood, 2014).
pub(crate) struct Seeded(pub u64);

impl Seeded {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }
    pub(crate) fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// What the link does to a datagram, in percent and nanoseconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Faults {
    pub(crate) loss: u64,
    pub(crate) duplicate: u64,
    pub(crate) corrupt: u64,
    pub(crate) delay_ns: u64,
    pub(crate) jitter_ns: u64,
    /// Nanoseconds per KiB on the wire.
    pub(crate) pace_ns: u64,
}

pub(crate) const CLEAN: Faults =
    Faults { loss: 0, duplicate: 0, corrupt: 0, delay_ns: 50_000, jitter_ns: 0, pace_ns: 800 };

/// One end: the machine and its memory.
pub(crate) struct End {
    pub(crate) machine: Connection,
    pub(crate) memory: Vec<Vec<u8>>,
    pub(crate) events: Vec<Event>,
    /// Largest credit limit that reached this end.
    pub(crate) limit_bytes: u64,
    /// Largest number of bytes in flight seen.
    pub(crate) flight_bytes: u64,
    /// Until when the process is descheduled: it neither reads nor answers, its socket keeps what comes.
    pub(crate) stalled: Instant,
    link_free: u64,
}

pub(crate) struct World {
    pub(crate) now: Instant,
    pub(crate) ends: [End; 2],
    pub(crate) faults: Faults,
    pub(crate) config: Config,
    pub(crate) random: Seeded,
    pub(crate) datagrams: u64,
    /// Counts of DATA from end 0 that vanish.
    pub(crate) lost: Vec<u64>,
    /// Longer datagrams vanish.
    pub(crate) mtu_bytes: usize,
    wire: BTreeMap<(u64, u64), (usize, Vec<u8>)>,
    serial: u64,
}

pub(crate) fn id(handle: u16, sequence: u16) -> MessageId {
    MessageId { handle, sequence }
}

pub(crate) fn pattern(seed: u64, len_bytes: usize) -> Vec<u8> {
    let mut random = Seeded(seed);
    (0..len_bytes).map(|_| random.next() as u8).collect()
}

impl World {
    pub(crate) fn new(config: Config, faults: Faults, seed: u64) -> Self {
        let end = |local, remote| End {
            machine: Connection::new(&Config { local, remote, ..config }, Instant(0)).unwrap(),
            memory: Vec::new(),
            events: Vec::new(),
            limit_bytes: 0,
            flight_bytes: 0,
            stalled: Instant(0),
            link_free: 0,
        };
        Self {
            now: Instant(0),
            ends: [end(7, 9), end(9, 7)],
            faults,
            config,
            random: Seeded(seed),
            datagrams: 0,
            lost: Vec::new(),
            mtu_bytes: usize::MAX,
            wire: BTreeMap::new(),
            serial: 0,
        }
    }

    /// Adds a region with these bytes at `end`.
    pub(crate) fn region(&mut self, end: usize, bytes: Vec<u8>) -> Span {
        let region = self.ends[end].memory.len() as u16;
        let len_bytes = bytes.len() as u32;
        self.ends[end].memory.push(bytes);
        Span { region, offset_bytes: 0, len_bytes }
    }

    pub(crate) fn bytes(&self, end: usize, span: Span) -> &[u8] {
        let from = span.offset_bytes as usize;
        &self.ends[end].memory[usize::from(span.region)][from..from + span.len_bytes as usize]
    }

    pub(crate) fn send(&mut self, end: usize, message: MessageId, bytes: Vec<u8>) -> Span {
        let span = self.region(end, bytes);
        self.ends[end].machine.handle_send(self.now, message, span).unwrap();
        span
    }

    pub(crate) fn post(&mut self, end: usize, handle: u16, sequence: Option<u16>, len_bytes: usize) -> Span {
        let span = self.region(end, vec![0xEE; len_bytes]);
        self.ends[end].machine.handle_post(handle, sequence, span).unwrap();
        span
    }

    /// The span of a message received at `end`, if it was.
    pub(crate) fn received(&self, end: usize, wanted: MessageId) -> Option<Span> {
        let mut spans = self.ends[end].events.iter().filter_map(|event| match event {
            Event::Received { message, span } if *message == wanted => Some(*span),
            _ => None,
        });
        let first = spans.next();
        assert!(spans.next().is_none(), "{wanted:?} received twice");
        first
    }

    pub(crate) fn delivered(&self, end: usize, message: MessageId) -> bool {
        self.ends[end].events.contains(&Event::Delivered { message })
    }

    /// Runs until `done`, or panics at virtual time `limit_ns` from now.
    pub(crate) fn run_until(&mut self, limit_ns: u64, done: impl Fn(&Self) -> bool) {
        let end = self.now.after(limit_ns);
        while !done(self) {
            assert!(self.now <= end, "nothing came of it: {:#?} {:#?}", self.stats(0), self.stats(1));
            self.step(end);
        }
    }

    pub(crate) fn run_for(&mut self, span_ns: u64) {
        let end = self.now.after(span_ns);
        while self.now < end {
            self.step(end);
        }
    }

    pub(crate) fn stats(&self, end: usize) -> plesio_proto::Stats {
        self.ends[end].machine.stats()
    }

    fn step(&mut self, end: Instant) {
        for from in 0..2 {
            if self.ends[from].stalled > self.now {
                continue;
            }
            while let Some(transmit) = self.ends[from].machine.poll_transmit(self.now) {
                self.check(from, &transmit);
                self.put_on_wire(from, transmit);
            }
        }
        let arrival = self.wire.keys().next().map(|(at, _)| Instant(*at));
        let timeouts =
            self.ends.iter().filter_map(|end| end.machine.poll_timeout().map(|at| at.max(end.stalled)));
        let next = timeouts.chain(arrival).chain([end.after(1)]).min().unwrap();
        self.now = self.now.max(next);
        while let Some(entry) = self.wire.first_entry() {
            if entry.key().0 > self.now.0 {
                break;
            }
            let serial = entry.key().1;
            let (to, datagram) = entry.remove();
            if self.ends[to].stalled > self.now {
                self.wire.insert((self.ends[to].stalled.0, serial), (to, datagram));
            } else {
                self.deliver(to, &datagram);
            }
        }
        for end in &mut self.ends {
            if end.stalled <= self.now && end.machine.poll_timeout().is_some_and(|at| at <= self.now) {
                end.machine.handle_timeout(self.now);
            }
            while let Some(event) = end.machine.poll_event() {
                end.events.push(event);
            }
        }
    }

    /// A shell's receive path: look up, write, check, report.
    fn deliver(&mut self, to: usize, datagram: &[u8]) {
        let Ok(header) = Header::parse(datagram) else { return };
        let payload = &datagram[HEADER_BYTES..];
        let end = &mut self.ends[to];
        if header.kind == Kind::Data {
            let span = end.machine.place(&header).filter(|span| span.len_bytes as usize == payload.len());
            if let Some(span) = span {
                let from = span.offset_bytes as usize;
                end.memory[usize::from(span.region)][from..from + payload.len()].copy_from_slice(payload);
            }
            if header.verify(payload).is_err() {
                return;
            }
            if span.is_some() {
                end.machine.handle_datagram(self.now, &header, &[]).unwrap();
            } else {
                end.machine.handle_unplaced(self.now, &header);
            }
        } else if header.verify(payload).is_ok() {
            let mut reader = Reader::new(payload);
            let limit_bytes = match header.kind {
                Kind::Ack => reader.read::<data::Ack>().unwrap().credit_limit_bytes,
                Kind::Credit => reader.read::<data::Credit>().unwrap().credit_limit_bytes,
                _ => 0,
            };
            end.limit_bytes = end.limit_bytes.max(limit_bytes);
            let open = end.machine.is_open();
            let taken = end.machine.handle_datagram(self.now, &header, payload);
            let offers = header.kind == Kind::Ping && taken == Err(Refused::Unposted);
            assert_eq!(taken.is_ok() || offers, open, "{taken:?}");
        }
    }

    /// What must hold for everything that leaves a machine.
    fn check(&mut self, from: usize, transmit: &Transmit) {
        let end = &mut self.ends[from];
        let in_flight_bytes = end.machine.stats().in_flight_bytes;
        end.flight_bytes = end.flight_bytes.max(in_flight_bytes);
        let Transmit::Train(train) = transmit else { return };
        let chunk_bytes = u64::from(self.config.chunk_bytes);
        let cut_bytes =
            data::chunk_of_step(train[0].0.flags.step(), self.config.chunk_bytes).map_or(0, u64::from);
        assert!(!train.is_empty() && train.len() <= 64);
        let sizes: Vec<u64> = train.iter().map(|(header, _)| u64::from(header.payload_bytes)).collect();
        assert!(sizes[..sizes.len() - 1].iter().all(|size| *size == cut_bytes));
        assert!(sizes.iter().map(|size| size + HEADER_BYTES as u64).sum::<u64>() <= 65_507);
        assert!(in_flight_bytes <= self.config.window_bytes.max(chunk_bytes), "window exceeded");
        for (header, span) in train.iter() {
            assert_eq!(u32::from(header.payload_bytes), span.len_bytes);
            let end_bytes = (u64::from(header.chunk) + 1) * cut_bytes;
            if header.chunk > 0 && end_bytes > 64 << 10 && !header.flags.has(Flags::RETX) {
                assert!(
                    (data::count_of(header.packet) + 1) * chunk_bytes <= end.limit_bytes,
                    "credit exceeded"
                );
            }
        }
    }

    fn put_on_wire(&mut self, from: usize, transmit: Transmit) {
        match transmit {
            Transmit::Train(train) => {
                for (header, span) in train.iter() {
                    let payload = self.bytes(from, *span).to_vec();
                    self.carry(from, *header, &payload);
                }
            }
            Transmit::Control(control) => self.carry(from, control.header, control.body()),
        }
    }

    fn carry(&mut self, from: usize, mut header: Header, payload: &[u8]) {
        header.protect(payload);
        let mut datagram = header.to_bytes().to_vec();
        datagram.extend_from_slice(payload);
        self.datagrams += 1;
        let named =
            header.kind == Kind::Data && from == 0 && self.lost.contains(&data::count_of(header.packet));
        if named || datagram.len() > self.mtu_bytes {
            return;
        }
        let free = self.ends[from].link_free.max(self.now.0)
            + self.faults.pace_ns * (datagram.len() as u64 + 64) / 1024;
        self.ends[from].link_free = free;
        let copies = 1 + u64::from(self.random.percent(self.faults.duplicate));
        for _ in 0..copies {
            if self.random.percent(self.faults.loss) {
                continue;
            }
            let mut copy = datagram.clone();
            if self.random.percent(self.faults.corrupt) {
                let bit = self.random.below(copy.len() as u64 * 8) as usize;
                copy[bit / 8] ^= 1 << (bit % 8);
            }
            let at = free + self.faults.delay_ns + self.random.below(self.faults.jitter_ns + 1);
            self.serial += 1;
            self.wire.insert((at, self.serial), (1 - from, copy));
        }
    }
}
