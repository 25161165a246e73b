//! Two reliable-datagram machines, one of them under forged headers and bodies; bytes are the commands.
//!
//! Knows what a caller may rely on: payload is placed inside posted windows only, a message is complete only with
//! the bytes that were sent, nothing waits for ever that nobody took back, and a machine that is polled at one
//! moment says only so much.

use super::{Script, Target};
use plesio_proto::{Config, Connection, Event, Transmit};
use plesio_wire::data::{self, CONTROL_PACKET_FIRST, Flags, HEADER_BYTES, Header, Kind, MessageId};
use plesio_wire::{Instant, Span};
use std::collections::{BTreeMap, VecDeque};

/// The machine of one connection.
pub const TARGET: Target =
    Target { name: "proto", begin: || Box::new(take), life: 1, seeds, bytes_max: 256, allocates: true };

const CHUNK: u32 = 64;
const HANDLES: u16 = 4;
/// Room for one window.
const PLACE_BYTES: u32 = 2_048;
/// Most datagrams and control messages that one machine says at one moment.
const SAID_MAX: usize = 600;
/// Most datagrams held back.
const HELD_MAX: usize = 24;
const WINDOW_BYTES: u64 = 16 << 10;

/// One end and its memory; a window of handle h lies at h x [`PLACE_BYTES`].
struct End {
    machine: Connection,
    local: u32,
    memory: Vec<u8>,
    posted: [u32; HANDLES as usize],
    next: [u16; HANDLES as usize],
    sent: BTreeMap<MessageId, u32>,
    /// Something was forged towards it: what it believes may be wrong.
    deceived: bool,
}

/// A datagram between the ends.
#[derive(Clone)]
struct Datagram {
    to: usize,
    header: Header,
    body: Vec<u8>,
}

struct Pair {
    now: Instant,
    ends: [End; 2],
    held: VecDeque<Datagram>,
    /// Something was taken back or ended: what is queued may stay so.
    taken_back: bool,
}

fn take(bytes: &[u8]) {
    let mut script = Script::new(bytes);
    let mut pair = Pair::new();
    while !script.is_over() {
        pair.step(&mut script);
        pair.check();
    }
    pair.settle();
}

/// The byte `at` of a message: nothing but the message says what it is.
fn content(message: MessageId, at: u32) -> u8 {
    (u32::from(message.handle) * 83 + u32::from(message.sequence) * 29 + at * 7 + (at >> 8)) as u8
}

fn len_of(message: MessageId) -> u32 {
    1 + (u32::from(message.handle) * 397 + u32::from(message.sequence) * 631) % PLACE_BYTES
}

impl Pair {
    fn new() -> Self {
        let end = |local, remote| {
            let config = Config {
                local,
                remote,
                chunk_bytes: CHUNK,
                window_bytes: WINDOW_BYTES,
                receive_budget_bytes: WINDOW_BYTES,
                messages_max: 6,
                windows_max: usize::from(HANDLES),
                ..Config::default()
            };
            End {
                machine: Connection::new(&config, Instant(0)).expect("the configuration is one"),
                local,
                memory: vec![0; usize::from(HANDLES) * PLACE_BYTES as usize],
                posted: [0; HANDLES as usize],
                next: [1; HANDLES as usize],
                sent: BTreeMap::new(),
                deceived: false,
            }
        };
        Self { now: Instant(0), ends: [end(7, 9), end(9, 7)], held: VecDeque::new(), taken_back: false }
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let command = script.byte();
        // Forged datagrams go to the first end alone; the second stays honest and undeceived.
        let end = usize::from(command >> 7);
        match command % 11 {
            0 => self.pass(u64::from(script.short()) * 10_000),
            1 => self.send(end, script.byte()),
            2 => self.post(end, script.byte()),
            3 | 4 => self.carry(end, script),
            5 => self.release(script.byte()),
            6 | 7 => self.forge(script),
            8 => {
                self.taken_back = true;
                self.ends[end].machine.handle_withdraw(u16::from(script.byte()) % HANDLES);
            }
            9 => {
                self.taken_back = true;
                let handle = u16::from(script.byte()) % HANDLES;
                let sequence = self.ends[end].next[usize::from(handle)].wrapping_sub(1);
                self.ends[end].machine.handle_abort(MessageId { handle, sequence });
            }
            _ => {
                if script.byte() == 0 {
                    self.taken_back = true;
                    self.ends[end].machine.handle_close(0);
                }
            }
        }
    }

    fn pass(&mut self, span_ns: u64) {
        self.now = self.now.after(span_ns);
        for end in &mut self.ends {
            end.machine.handle_timeout(self.now);
        }
    }

    fn send(&mut self, end: usize, byte: u8) {
        let handle = u16::from(byte) % HANDLES;
        let sender = &mut self.ends[end];
        let next = &mut sender.next[usize::from(handle)];
        let message = MessageId { handle, sequence: *next };
        let span = Span { region: 0, offset_bytes: 0, len_bytes: len_of(message) };
        if sender.machine.handle_send(self.now, message, span).is_ok() {
            *next = next.wrapping_add(1);
            sender.sent.insert(message, span.len_bytes);
        }
    }

    fn post(&mut self, end: usize, byte: u8) {
        let handle = u16::from(byte) % HANDLES;
        let receiver = &mut self.ends[end];
        let len_bytes = if byte & 0x80 == 0 { PLACE_BYTES } else { 1 + u32::from(byte) * 8 };
        let span = Span { region: 0, offset_bytes: u32::from(handle) * PLACE_BYTES, len_bytes };
        // A window that is too small for its message is the caller's mistake: that message never arrives.
        self.taken_back |= len_bytes < PLACE_BYTES;
        if receiver.machine.handle_post(handle, None, span).is_ok() {
            receiver.posted[usize::from(handle)] = len_bytes;
        }
    }

    /// Polls one end, and lets each datagram through, drops it, repeats it or holds it back.
    fn carry(&mut self, from: usize, script: &mut Script<'_>) {
        let mut fates = script.short();
        for datagram in self.poll(from) {
            match fates % 4 {
                0 => {}
                1 if self.held.len() < HELD_MAX => self.held.push_back(datagram),
                2 => {
                    self.deliver(&datagram);
                    self.deliver(&datagram);
                }
                _ => self.deliver(&datagram),
            }
            fates = fates.rotate_right(2);
        }
    }

    fn release(&mut self, byte: u8) {
        let next = if byte & 1 == 0 { self.held.pop_back() } else { self.held.pop_front() };
        if let Some(datagram) = next {
            self.deliver(&datagram);
        }
    }

    /// All that one end says now.
    fn poll(&mut self, from: usize) -> Vec<Datagram> {
        let mut said = Vec::new();
        let to = 1 - from;
        while let Some(transmit) = self.ends[from].machine.poll_transmit(self.now) {
            assert!(said.len() < SAID_MAX, "it never stops talking");
            match transmit {
                Transmit::Control(control) => {
                    said.push(Datagram { to, header: control.header, body: control.body().to_vec() });
                }
                Transmit::Train(train) => {
                    for (header, span) in train.iter() {
                        let len_bytes = self.ends[from].sent.get(&header.message);
                        let len_bytes = *len_bytes.unwrap_or_else(|| panic!("{header:?} was never queued"));
                        assert!(span.offset_bytes + span.len_bytes <= len_bytes, "{span:?} of {len_bytes}");
                        assert_eq!(span.len_bytes, u32::from(header.payload_bytes));
                        let body = (span.offset_bytes..span.offset_bytes + span.len_bytes)
                            .map(|at| content(header.message, at))
                            .collect();
                        said.push(Datagram { to, header: *header, body });
                    }
                }
            }
        }
        said
    }

    /// What a shell does with a datagram whose checksum holds.
    fn deliver(&mut self, datagram: &Datagram) {
        let Datagram { to, header, body } = datagram;
        let receiver = &mut self.ends[*to];
        if header.kind != Kind::Data {
            let _refused = receiver.machine.handle_datagram(self.now, header, body);
        } else if let Some(span) = receiver.machine.place(header) {
            let base = u32::from(header.message.handle) * PLACE_BYTES;
            let posted = receiver.posted[usize::from(header.message.handle)];
            assert_eq!(span.len_bytes as usize, body.len());
            assert!(
                span.region == 0
                    && span.offset_bytes >= base
                    && span.offset_bytes + span.len_bytes <= base + posted,
                "{span:?} lies outside the window of {posted} bytes at {base}"
            );
            let at = span.offset_bytes as usize;
            receiver.memory[at..at + body.len()].copy_from_slice(body);
            let taken = receiver.machine.handle_datagram(self.now, header, &[]);
            assert_eq!(taken, Ok(()), "it named a place for {header:?}");
        } else {
            receiver.machine.handle_unplaced(self.now, header);
        }
        self.hear(*to);
    }

    fn hear(&mut self, end: usize) {
        let (head, tail) = self.ends.split_at_mut(1);
        let (receiver, sender) = if end == 0 { (&mut head[0], &tail[0]) } else { (&mut tail[0], &head[0]) };
        for _ in 0..SAID_MAX {
            let Some(event) = receiver.machine.poll_event() else { return };
            match event {
                Event::Received { message, span } if !receiver.deceived => {
                    assert_eq!(Some(&span.len_bytes), sender.sent.get(&message), "{message:?}");
                    for at in 0..span.len_bytes {
                        let byte = receiver.memory[(span.offset_bytes + at) as usize];
                        assert_eq!(byte, content(message, at), "{message:?} at {at}");
                    }
                }
                Event::Delivered { message } | Event::Aborted { message, .. } => {
                    assert!(receiver.sent.contains_key(&message), "{message:?} was never sent");
                }
                _ => {}
            }
        }
        panic!("its events never end");
    }

    /// A datagram that the peer never said, with the right index: a liar, or what got past a checksum.
    fn forge(&mut self, script: &mut Script<'_>) {
        let mut bytes: [u8; HEADER_BYTES] = script.array();
        bytes[0] = 0x10 | (4 + bytes[0] % 6);
        bytes[1] &= 7;
        let Ok(mut header) = Header::parse(&bytes) else { return };
        let receiver = &mut self.ends[0];
        receiver.deceived = true;
        if header.receiver & 7 != 0 {
            header.receiver = receiver.local;
        }
        header.message.handle %= HANDLES + 1;
        // Most numbers are near those in use, so that they are looked at.
        if header.packet & 3 != 0 {
            let lane = if header.kind == Kind::Data { 0 } else { CONTROL_PACKET_FIRST };
            header.packet = lane | (data::count_of(header.packet >> 2) % 300);
        }
        if header.kind == Kind::Data {
            header.chunk %= 40;
            header.payload_bytes =
                if header.flags.has(Flags::LAST_OF_MSG) { header.payload_bytes % 65 } else { 64 };
        }
        let len_bytes =
            usize::from(if header.kind == Kind::Data { header.payload_bytes } else { script.byte().into() });
        let mut body = script.take(len_bytes).to_vec();
        body.resize(len_bytes, 0);
        header.payload_bytes = len_bytes as u16;
        self.deliver(&Datagram { to: 0, header, body });
    }

    fn check(&mut self) {
        for index in 0..2 {
            self.hear(index);
            let stats = self.ends[index].machine.stats();
            assert!(stats.in_flight_bytes <= WINDOW_BYTES, "{stats:?}");
            assert!(stats.messages <= 6, "{stats:?}");
        }
    }

    /// Lets everything through from here on: if nobody lied and nothing was taken back, everything arrives.
    fn settle(&mut self) {
        let whole = !self.taken_back && !self.ends[0].deceived;
        while let Some(datagram) = self.held.pop_front() {
            self.deliver(&datagram);
        }
        for _ in 0..ROUNDS_MAX {
            if self.ends.iter().all(|end| end.machine.stats().messages == 0) {
                return;
            }
            for end in 0..2 {
                for handle in 0..HANDLES as u8 {
                    self.post(end, handle);
                }
                for datagram in self.poll(end) {
                    self.deliver(&datagram);
                }
            }
            self.check();
            let due = self.ends.iter().filter_map(|end| end.machine.poll_timeout()).min();
            let span_ns = due.map_or(ROUND_NS, |at| at.since(self.now).clamp(1, ROUND_NS));
            self.pass(span_ns);
            if !whole && self.now.0 > DECEIVED_NS {
                return;
            }
        }
        assert!(
            !whole,
            "messages still wait: {:?} {:?}",
            self.ends[0].machine.stats(),
            self.ends[1].machine.stats()
        );
    }
}

/// Rounds in which whatever is queued has to arrive on a link without faults, and their longest pause.
const ROUNDS_MAX: usize = 2_000;
const ROUND_NS: u64 = 10_000_000;
/// How long a deceived machine is watched.
const DECEIVED_NS: u64 = 1_000_000_000;

fn seeds() -> Vec<Vec<u8>> {
    let (b, post, send) = (0x80, 2, 1);
    // Command numbers are taken modulo 11: the second end's are those that give the same rest above 127.
    let at_b = |command: u8| (b..=255_u8).find(|byte| byte % 11 == command).unwrap_or(b);
    let everything = [0xFF, 0xFF];
    let transfer = [
        &[at_b(post), 1, send, 1, send, 1, 3][..],
        &everything,
        &[at_b(3)],
        &everything,
        &[0, 0, 4, 3],
        &everything,
        &[at_b(3)],
        &everything,
    ]
    .concat();
    let losses = [
        &[at_b(post), 2, at_b(post), 3, send, 2, send, 3, 3, 0b1101_0001, 0b0111_0010, at_b(3)][..],
        &[0x33, 0x12, 5, 1, 5, 0, 0, 0xFF, 0x20, 3, 0xFF, 0x0F, at_b(4), 0xC3, 0xFF, 0, 0, 0x40],
    ]
    .concat();
    let header = |kind: Kind, packet: u64| Header {
        kind,
        flags: Flags::NONE,
        payload_bytes: 64,
        receiver: 7,
        packet,
        message: MessageId { handle: 1, sequence: 1 },
        chunk: 0,
        clock_us: 5,
        crc32: 0,
    };
    let forged = |kind, packet: u64, body: &[u8]| {
        let mut bytes = header(kind, packet).to_bytes();
        bytes[0] = match kind {
            Kind::Data => 0,
            Kind::Ack => 1,
            Kind::Credit => 2,
            Kind::Ping => 4,
            _ => 5,
        };
        let len: &[u8] = if kind == Kind::Data { &[] } else { &[body.len() as u8] };
        [&[6][..], &bytes, len, body].concat()
    };
    let mut ack = [0; 96];
    ack[0] = 2;
    ack[8] = 3;
    ack[24..32].copy_from_slice(&u64::MAX.to_le_bytes());
    ack[32..].fill(0xFF);
    let lies = [
        vec![post, 1, send, 2, send, 2, 3, 0xFF, 0xFF],
        forged(Kind::Ack, 5, &ack),
        forged(Kind::Data, 1, &[9; 64]),
        forged(Kind::Credit, 9, &u64::MAX.to_le_bytes()),
        forged(Kind::Ping, 13, &40_u64.to_le_bytes()),
    ]
    .concat();
    let goodbye = [vec![send, 1, post, 1], forged(Kind::Bye, 17, &[1, 0]), vec![0, 0, 1, send, 1]].concat();
    vec![transfer, losses, lies, goodbye]
}
