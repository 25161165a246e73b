//! Senders, one receiver, and between them one bottleneck: a rate, a queue that drops at its tail, and behind it delay,
//! jitter, reordering, duplicates and losses. Headers travel without their payload, so a gigabit takes little time.

use plesio_proto::{Config, Connection, Event, Granter, Stats, Transmit};
use plesio_wire::data::{Header, Kind, MessageId};
use plesio_wire::{Instant, Span};
use std::collections::BTreeMap;

/// What the path does; percentages in hundredths (1 % is 100).
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    /// Bits per second of the bottleneck.
    pub(crate) rate: u64,
    /// Bytes that wait before it at most.
    pub(crate) queue_bytes: u64,
    /// One way, each.
    pub(crate) delay_ns: u64,
    /// Added to or taken from every datagram's delay, each way; nothing keeps their order, unless the jitter holds.
    pub(crate) jitter_ns: u64,
    /// How long a draw of the jitter holds at most, and at least half of that; then order is kept, as a radio link and
    /// other people's queues do. 0: every datagram has its own.
    pub(crate) hold_ns: u64,
    /// How many overtake by the whole delay.
    pub(crate) reorder: u64,
    pub(crate) duplicate: u64,
    /// How many are lost one by one, both ways.
    pub(crate) loss: u64,
    /// How many begin a burst of losses.
    pub(crate) burst: u64,
    /// How long such a burst lasts.
    pub(crate) burst_ns: u64,
}

pub(crate) const GIGABIT: Shape = Shape {
    rate: 1_000_000_000,
    queue_bytes: 256 << 10,
    delay_ns: 100_000,
    jitter_ns: 0,
    hold_ns: 0,
    reorder: 0,
    duplicate: 0,
    loss: 0,
    burst: 0,
    burst_ns: 0,
};

/// Header and body, IPv4, UDP, Ethernet with preamble and gap: 1,506 bytes for a chunk of 1,408.
const WIRE_BYTES: u64 = 28 + 38 + 32;
pub(crate) const CHUNK: u64 = 1_408;
const MESSAGE_BYTES: u32 = 16_000_000;
const HANDLES: u16 = 3;

struct Datagram {
    flow: usize,
    forth: bool,
    header: Header,
    body: Vec<u8>,
}

/// One sender and the receiver's end of it.
pub(crate) struct Flow {
    pub(crate) sender: Connection,
    pub(crate) receiver: Connection,
    sequence: u16,
}

pub(crate) struct Net {
    pub(crate) now: Instant,
    pub(crate) shape: Shape,
    pub(crate) flows: Vec<Flow>,
    /// Gives credit, if the connections do not.
    pub(crate) granter: Option<Granter>,
    wire: BTreeMap<(u64, u64), Datagram>,
    /// Until when the bottleneck is busy.
    busy_ns: u64,
    burst_end_ns: u64,
    /// Each way: the jitter that holds, until when, and when the last datagram arrives.
    held: [(u64, u64, u64); 2],
    serial: u64,
    pub(crate) random: u64,
    pub(crate) dropped: u64,
}

impl Net {
    pub(crate) fn new(config: &Config, shape: Shape, flows: usize) -> Self {
        let connection = |local, remote| {
            let config = Config { local, remote, chunk_bytes: CHUNK as u32, ..*config };
            Connection::new(&config, Instant(0)).unwrap()
        };
        let flows = (0..flows as u32)
            .map(|flow| Flow {
                sender: connection(2 * flow, 2 * flow + 1),
                receiver: connection(2 * flow + 1, 2 * flow),
                sequence: 0,
            })
            .collect();
        let mut net = Self {
            now: Instant(0),
            shape,
            flows,
            granter: None,
            wire: BTreeMap::new(),
            busy_ns: 0,
            burst_end_ns: 0,
            held: [(0, 0, 0); 2],
            serial: 0,
            random: 7,
            dropped: 0,
        };
        for flow in &mut net.flows {
            for handle in 0..HANDLES {
                flow.receiver.handle_post(handle, None, window(handle)).unwrap();
                flow.send(Instant(0), handle);
            }
        }
        net
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.random ^ (self.random >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    fn chance(&mut self, hundredths: u64) -> bool {
        hundredths > 0 && self.random() % 10_000 < hundredths
    }

    pub(crate) fn run_for(&mut self, span_ns: u64) {
        let end = self.now.after(span_ns);
        while self.now < end {
            self.step(end);
        }
    }

    /// Payload that arrived, of each flow.
    pub(crate) fn received(&self) -> Vec<u64> {
        self.flows.iter().map(|flow| flow.receiver.stats().received_bytes).collect()
    }

    pub(crate) fn sender(&self, flow: usize) -> Stats {
        self.flows[flow].sender.stats()
    }

    fn step(&mut self, end: Instant) {
        let now = self.now;
        for flow in 0..self.flows.len() {
            for forth in [true, false] {
                while let Some(transmit) = self.end(flow, forth).poll_transmit(now) {
                    match transmit {
                        Transmit::Train(train) => {
                            for (header, _) in train.iter() {
                                self.carry(Datagram { flow, forth, header: *header, body: Vec::new() });
                            }
                        }
                        Transmit::Control(control) => {
                            let body = control.body().to_vec();
                            self.carry(Datagram { flow, forth, header: control.header, body });
                        }
                    }
                }
            }
        }
        let arrival = self.wire.keys().next().map(|(at, _)| Instant(*at));
        let ends = self.flows.iter().flat_map(|flow| [&flow.sender, &flow.receiver]);
        let next = ends.filter_map(Connection::poll_timeout).chain(arrival).chain([end]).min().unwrap();
        self.now = self.now.max(next);
        while let Some(entry) = self.wire.first_entry().filter(|entry| entry.key().0 <= self.now.0) {
            let datagram = entry.remove();
            self.deliver(&datagram);
        }
        for flow in 0..self.flows.len() {
            for forth in [true, false] {
                let now = self.now;
                let end = self.end(flow, forth);
                if end.poll_timeout().is_some_and(|at| at <= now) {
                    end.handle_timeout(now);
                }
            }
            self.handle_events(flow);
        }
        self.grant();
    }

    fn grant(&mut self) {
        let Some(granter) = &mut self.granter else { return };
        for (key, flow) in (0..).zip(&self.flows) {
            granter.handle_demand(key, flow.receiver.demand());
        }
        while let Some((key, bytes)) = granter.poll_grant() {
            self.flows[key as usize].receiver.handle_grant(bytes);
        }
    }

    fn end(&mut self, flow: usize, sends: bool) -> &mut Connection {
        let flow = &mut self.flows[flow];
        if sends { &mut flow.sender } else { &mut flow.receiver }
    }

    fn handle_events(&mut self, flow: usize) {
        let now = self.now;
        let flow = &mut self.flows[flow];
        while let Some(event) = flow.receiver.poll_event() {
            if let Event::Received { message, span } = event {
                assert_eq!(span.len_bytes, MESSAGE_BYTES);
                flow.receiver.handle_post(message.handle, None, window(message.handle)).unwrap();
            }
        }
        while let Some(event) = flow.sender.poll_event() {
            if let Event::Delivered { message } = event {
                flow.send(now, message.handle);
            }
        }
    }

    /// The bottleneck stands in the way of the senders; the way back is free, but as long.
    fn carry(&mut self, datagram: Datagram) {
        let shape = self.shape;
        let mut at_ns = self.now.0;
        if datagram.forth {
            let payload_bytes = u64::from(datagram.header.payload_bytes);
            let queued_bytes = self.busy_ns.saturating_sub(at_ns) * shape.rate / 8_000_000_000;
            if queued_bytes > shape.queue_bytes {
                self.dropped += 1;
                return;
            }
            self.busy_ns =
                self.busy_ns.max(at_ns) + (payload_bytes + WIRE_BYTES) * 8_000_000_000 / shape.rate;
            at_ns = self.busy_ns;
        }
        if self.chance(shape.burst) {
            self.burst_end_ns = at_ns + shape.burst_ns;
        }
        if at_ns < self.burst_end_ns || self.chance(shape.loss) {
            return;
        }
        for _ in 0..1 + u64::from(self.chance(shape.duplicate)) {
            let early = self.chance(shape.reorder);
            let arrives_ns = if early { at_ns } else { self.arrival(at_ns, datagram.forth) };
            self.serial += 1;
            let copy = Datagram { body: datagram.body.clone(), ..datagram };
            self.wire.insert((arrives_ns, self.serial), copy);
        }
    }

    fn arrival(&mut self, at_ns: u64, forth: bool) -> u64 {
        let shape = self.shape;
        let shortest_ns = at_ns + shape.delay_ns - shape.jitter_ns;
        let span_ns = (2 * shape.jitter_ns).max(1);
        if shape.hold_ns == 0 {
            return shortest_ns + self.random() % span_ns;
        }
        let mut held = self.held[usize::from(forth)];
        if held.1 <= at_ns {
            let jitter_ns = self.random() % span_ns;
            held = (jitter_ns, at_ns + shape.hold_ns / 2 + self.random() % (shape.hold_ns / 2), held.2);
        }
        held.2 = held.2.max(shortest_ns + held.0);
        self.held[usize::from(forth)] = held;
        held.2
    }

    fn deliver(&mut self, datagram: &Datagram) {
        let (now, header) = (self.now, &datagram.header);
        let to = self.end(datagram.flow, !datagram.forth);
        if header.kind != Kind::Data {
            to.handle_datagram(now, header, &datagram.body).unwrap();
        } else if to.place(header).is_some() {
            to.handle_datagram(now, header, &[]).unwrap();
        } else {
            to.handle_unplaced(now, header);
        }
    }
}

impl Flow {
    fn send(&mut self, now: Instant, handle: u16) {
        self.sequence += 1;
        let message = MessageId { handle, sequence: self.sequence };
        self.sender.handle_send(now, message, window(handle)).unwrap();
    }
}

fn window(handle: u16) -> Span {
    Span { region: handle, offset_bytes: 0, len_bytes: MESSAGE_BYTES }
}
