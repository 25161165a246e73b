//! A node's half of a loopback story: its port, its memory, windows that take what comes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use plesio_memory::{Arena, ArenaPlan};
use plesio_udp::{
    DatagramIo, DatagramSink, Peer, Placement, Protection, Requested, SendError, SocketConfig, open, probe,
};
use plesio_wire::Span;
use plesio_wire::data::{Flags, Header, Kind, MessageId};

/// Bytes of each window and each source region.
pub(crate) const REGION_BYTES: usize = 3 << 20;
pub(crate) const WINDOWS: u16 = 4;

/// A way to open the port.
#[derive(Clone, Copy, Debug)]
pub(crate) struct How {
    pub(crate) backend: Requested,
    pub(crate) placement: Placement,
}

impl How {
    /// Bytes that a receiver moves itself for so many that are placed.
    pub(crate) fn moved(self, placed_bytes: u64) -> u64 {
        if self.placement == Placement::Bounce { placed_bytes } else { 0 }
    }
}

impl fmt::Display for How {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {:?}", self.backend, self.placement)
    }
}

/// Runs a story under each backend that works here and both placements; a refused io_uring is said, not hidden.
pub(crate) fn for_each_backend(story: impl Fn(How)) {
    for backend in [Requested::Uring, Requested::UringLegacy, Requested::Mio] {
        match probe(backend) {
            Ok(_) => [Placement::Scatter, Placement::Bounce]
                .into_iter()
                .for_each(|placement| story(How { backend, placement })),
            Err(reason) => println!("skipped {backend}: {reason}"),
        }
    }
}

/// A node's half of the story: its port, its memory, and what has come.
pub(crate) struct Node {
    pub(crate) io: Box<dyn DatagramIo>,
    pub(crate) arena: Arena,
    pub(crate) sink: Windows,
}

/// Windows 0..4, filled by messages of the same handle; chunk size is the window's.
#[derive(Default)]
pub(crate) struct Windows {
    pub(crate) chunk_bytes: u32,
    pub(crate) received: BTreeMap<(Peer, MessageId, u32), u32>,
    pub(crate) control: Vec<(Peer, Kind, Vec<u8>)>,
    pub(crate) strangers: Vec<(SocketAddr, usize)>,
    pub(crate) unplaced: usize,
    /// What belongs to sessions: handshakes, and the first words under an index.
    pub(crate) handshakes: Vec<(SocketAddr, Vec<u8>)>,
    pub(crate) confirmed: Vec<u32>,
    pub(crate) own: Vec<u32>,
}

impl DatagramSink for Windows {
    fn place(&mut self, peer: Peer, header: &Header) -> Option<Span> {
        let known = self.received.contains_key(&(peer, header.message, header.chunk));
        let offset_bytes = header.chunk.checked_mul(self.chunk_bytes)?;
        let end = offset_bytes.checked_add(u32::from(header.payload_bytes))?;
        let inside = header.message.handle < WINDOWS && end as usize <= REGION_BYTES;
        (!known && inside).then_some(Span {
            region: header.message.handle,
            offset_bytes,
            len_bytes: u32::from(header.payload_bytes),
        })
    }

    fn handle_chunk(&mut self, peer: Peer, header: &Header, span: Span) {
        assert_eq!(span.offset_bytes, header.chunk * self.chunk_bytes);
        let before = self.received.insert((peer, header.message, header.chunk), span.len_bytes);
        assert_eq!(before, None, "a chunk is delivered once");
    }

    fn handle_unplaced(&mut self, _peer: Peer, _header: &Header) {
        self.unplaced += 1;
    }

    fn handle_control(&mut self, peer: Peer, header: &Header, payload: &[u8]) {
        self.control.push((peer, header.kind, payload.to_vec()));
    }

    fn handle_stranger(&mut self, from: SocketAddr, datagram: &[u8]) {
        self.strangers.push((from, datagram.len()));
        self.handshakes.push((from, datagram.to_vec()));
    }

    fn handle_confirmed(&mut self, _peer: Peer, local: u32) {
        self.confirmed.push(local);
    }

    fn handle_own(&mut self, _peer: Peer, local: u32) {
        self.own.push(local);
    }
}

impl Node {
    pub(crate) fn new(how: How, chunk_bytes: u32) -> Self {
        Self::with(how, chunk_bytes, true)
    }

    pub(crate) fn with(how: How, chunk_bytes: u32, offload: bool) -> Self {
        Self::open(how, chunk_bytes, offload, Protection::Plaintext)
    }

    pub(crate) fn open(how: How, chunk_bytes: u32, offload: bool, protection: Protection) -> Self {
        let mut plan = ArenaPlan::new("udp-test", 64 << 20);
        for _ in 0..2 * WINDOWS {
            plan.push(REGION_BYTES);
        }
        let arena = Arena::heap(&plan).unwrap();
        let mut config = SocketConfig::new("127.0.0.1:0".parse().unwrap());
        config.offload = offload;
        config.placement = how.placement;
        config.protection = protection;
        let opened = open(how.backend, &config, arena.clone()).unwrap();
        let sink = Windows { chunk_bytes, ..Windows::default() };
        Self { io: opened.io, arena, sink }
    }

    pub(crate) fn meet(&mut self, other: &Self) -> Peer {
        self.io.add_peer(other.io.local_address()).unwrap()
    }

    /// Fills a source region (WINDOWS and up) with bytes that no other region has.
    pub(crate) fn write_source(&self, region: u16, salt: u64) -> Vec<u8> {
        let mut state = salt.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let bytes: Vec<u8> = (0..REGION_BYTES)
            .map(|_| {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                state as u8
            })
            .collect();
        self.arena.write(self.arena.whole(region).unwrap(), &bytes).unwrap();
        bytes
    }

    pub(crate) fn chunks(&self, region: u16, handle: u16, len_bytes: usize) -> Vec<(Header, Span)> {
        let mut rest = Span { region, offset_bytes: 0, len_bytes: len_bytes as u32 };
        let parts = std::iter::from_fn(|| rest.split_segment(self.sink.chunk_bytes));
        let message = MessageId { handle, sequence: 1 };
        parts.enumerate().map(|(chunk, span)| (header(Kind::Data, message, chunk as u32), span)).collect()
    }

    pub(crate) fn send_all(&mut self, peer: Peer, chunks: &[(Header, Span)]) {
        let mut sent = 0;
        while sent < chunks.len() {
            match self.io.send_train(peer, &chunks[sent..]) {
                Ok(some) => sent += some.chunks,
                Err(SendError::WouldBlock) => {
                    self.io.wait(Some(Duration::from_secs(1))).unwrap();
                }
                Err(error) => panic!("{error}"),
            }
        }
    }

    /// Receives until `done` or five seconds have passed; says which.
    pub(crate) fn receive_until(&mut self, done: impl Fn(&Windows) -> bool) -> bool {
        let deadline = Instant::now() + Duration::from_secs(5);
        while !done(&self.sink) {
            if Instant::now() > deadline {
                return false;
            }
            if self.io.wait(Some(Duration::from_millis(50))).unwrap().readable {
                while self.io.receive(&mut self.sink, 16).unwrap() {}
            }
        }
        true
    }

    pub(crate) fn window(&self, region: u16, len_bytes: usize) -> Vec<u8> {
        let mut bytes = vec![0; len_bytes];
        self.arena.read(Span { region, offset_bytes: 0, len_bytes: len_bytes as u32 }, &mut bytes).unwrap();
        bytes
    }

    /// Everything that was taken from the kernel is accounted for.
    pub(crate) fn check_ledger(&self) {
        let counters = self.io.counters();
        let delivered = (self.sink.received.len() + self.sink.control.len()) as u64;
        let dropped = counters.dropped_malformed
            + counters.dropped_checksum
            + counters.dropped_unplaced
            + counters.dropped_busy
            + counters.dropped_stranger;
        assert_eq!(counters.datagrams_received, delivered + dropped, "{counters:?}");
    }
}

pub(crate) fn header(kind: Kind, message: MessageId, chunk: u32) -> Header {
    Header {
        kind,
        flags: Flags::default(),
        payload_bytes: 0,
        receiver: 7,
        packet: u64::from(chunk),
        message,
        chunk,
        clock_us: 1,
        crc32: 0,
    }
}

/// A datagram as another program would make it.
pub(crate) fn raw(kind: Kind, handle: u16, chunk: u32, payload: &[u8]) -> Vec<u8> {
    let mut header = header(kind, MessageId { handle, sequence: 1 }, chunk);
    header.payload_bytes = payload.len() as u16;
    header.protect(payload);
    let mut bytes = header.to_bytes().to_vec();
    bytes.extend_from_slice(payload);
    bytes
}
