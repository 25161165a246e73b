//! The data port over any engine: lanes and waiting. Sending and receiving have their own files.

mod send;

use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use plesio_memory::Arena;
use plesio_session::{DataOpener, DataSealer};
use plesio_wire::Span;
use plesio_wire::data::{DATAGRAM_BYTES_MAX, Header};

use crate::engine::{Engine, Lane, Outgoing, SLOTS_MAX, TRAINS_MAX};
use crate::keys::Keys;
use crate::receive::Receiver;
use crate::{
    Counters, DatagramIo, DatagramSink, IoError, OpenError, Peer, Protection, Ready, SendError, Sent,
    SocketConfig, Tier, Waker, bounce, socket,
};

/// Trains that are sealed before they are sent: few, so that they are still in the cache then.
const SEALED_TRAINS_MAX: usize = 4;

pub(crate) struct Endpoint<E> {
    engine: E,
    waker: Waker,
    config: SocketConfig,
    address: SocketAddr,
    arena: Arena,
    segmentation: bool,
    /// The base socket, then one per peer.
    lanes: Vec<Option<Lane>>,
    /// Behind these there is none.
    lanes_len: usize,
    generation_next: u32,
    /// For payload that is received in place; otherwise it is received aside.
    receiver: Option<Receiver>,
    trains: Vec<Outgoing>,
    counters: Counters,
    receive_buffer_bytes: usize,
    notes: Vec<String>,
}

impl<E: Engine> Endpoint<E> {
    pub(crate) fn open(
        mut engine: E,
        waker: Waker,
        config: &SocketConfig,
        arena: Arena,
        scatter: bool,
    ) -> Result<(Self, Vec<String>), OpenError> {
        let base = socket::open_base(config)?;
        engine.add(0, base.socket.as_fd()).map_err(socket::system("watching", base.address))?;
        let mut lanes: Vec<Option<Lane>> = (0..=config.peers_max).map(|_| None).collect();
        lanes[0] = Some(Lane {
            socket: base.socket,
            generation: 0,
            peer_address: None,
            readable: true,
            writable: false,
            write_wanted: false,
            segmentation: base.segmentation,
            overflow_seen: 0,
            keys: Keys::new(),
        });
        // What is not of a train goes out through the first; what is sealed, through each.
        let (trains, sealing) = match config.protection {
            Protection::Sealed => (SEALED_TRAINS_MAX, SEALED_TRAINS_MAX),
            Protection::Plaintext | Protection::Captive => (TRAINS_MAX, 1),
        };
        let aside_bytes = |index| if index < sealing { DATAGRAM_BYTES_MAX } else { 0 };
        let endpoint = Self {
            engine,
            waker,
            config: config.clone(),
            address: base.address,
            segmentation: base.segmentation,
            receive_buffer_bytes: base.receive_buffer_bytes,
            lanes,
            lanes_len: 1,
            generation_next: 1,
            receiver: scatter.then(|| Receiver::new(&arena, SLOTS_MAX, !config.protection.is_plaintext())),
            trains: (0..trains).map(|index| Outgoing::new(Some(arena.clone()), aside_bytes(index))).collect(),
            counters: Counters::default(),
            notes: Vec::new(),
            arena,
        };
        Ok((endpoint, base.notes))
    }
}

impl<E: Engine> DatagramIo for Endpoint<E> {
    fn local_address(&self) -> SocketAddr {
        self.address
    }

    fn receive_buffer_bytes(&self) -> usize {
        self.receive_buffer_bytes
    }

    fn tier(&self) -> Tier {
        self.engine.tier()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }

    fn add_peer(&mut self, address: SocketAddr) -> Result<Peer, OpenError> {
        let peers_max = self.config.peers_max;
        let free = (1..self.lanes.len()).find(|index| self.lanes[*index].is_none());
        let index = free.ok_or(OpenError::TooManyPeers { peers_max })?;
        let socket = socket::open_peer(&self.config, self.address, address)?;
        self.engine.add(index, socket.as_fd()).map_err(socket::system("watching", address))?;
        self.lanes[index] = Some(Lane {
            socket,
            generation: self.generation_next,
            peer_address: Some(address),
            readable: true,
            writable: false,
            write_wanted: false,
            segmentation: self.segmentation,
            overflow_seen: 0,
            keys: Keys::new(),
        });
        self.lanes_len = self.lanes_len.max(index + 1);
        self.generation_next = self.generation_next.wrapping_add(1);
        Ok(Peer((index - 1) as u16))
    }

    fn remove_peer(&mut self, peer: Peer) {
        let index = usize::from(peer.0) + 1;
        if let Some(lane) = self.lanes.get_mut(index).and_then(Option::take) {
            self.engine.remove(index, lane.generation, lane.socket.as_fd());
            let last = self.lanes.iter().rposition(Option::is_some);
            self.lanes_len = last.map_or(0, |last| last + 1);
        }
    }

    fn set_sealer(&mut self, peer: Peer, sealer: DataSealer) {
        if let Ok(lane) = self.lane(peer) {
            lane.keys.sealer = Some(sealer);
        }
    }

    fn remove_sealer(&mut self, peer: Peer) {
        if let Ok(lane) = self.lane(peer) {
            lane.keys.sealer = None;
        }
    }

    fn add_opener(&mut self, peer: Peer, opener: DataOpener, receiver: u32) {
        if let Ok(lane) = self.lane(peer) {
            lane.keys.add(opener, receiver);
        }
    }

    fn remove_opener(&mut self, peer: Peer, local: u32) {
        if let Ok(lane) = self.lane(peer) {
            lane.keys.remove(local);
        }
    }

    fn send_stranger(&mut self, to: SocketAddr, datagram: &[u8]) -> Result<(), SendError> {
        self.send_raw(to, datagram)
    }

    fn send_train(&mut self, peer: Peer, chunks: &[(Header, Span)]) -> Result<Sent, SendError> {
        if self.config.protection.is_plaintext() {
            self.send_plain(peer, chunks)
        } else {
            self.send_sealed(peer, chunks)
        }
    }

    fn send_control(&mut self, peer: Peer, header: &Header, payload: &[u8]) -> Result<(), SendError> {
        self.send_small(peer, header, payload)
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Ready, IoError> {
        // Who only asks needs no clock.
        let asks = timeout == Some(Duration::ZERO);
        let deadline = timeout.filter(|_| !asks).and_then(|timeout| Instant::now().checked_add(timeout));
        let mut rest = timeout;
        let lanes = &mut self.lanes[..self.lanes_len];
        loop {
            let waiting = lanes.iter().flatten().any(|lane| lane.readable);
            // Even then the others and the waker are looked at, or one busy lane would hide them.
            let rest_or_none = if waiting { Some(Duration::ZERO) } else { rest };
            let woken = self.engine.wait(rest_or_none, &self.waker, lanes)?;
            let mut ready = Ready { woken, ..Ready::default() };
            for lane in lanes.iter_mut().flatten() {
                ready.readable |= lane.readable;
                if lane.writable {
                    ready.writable = true;
                    lane.writable = false;
                    lane.write_wanted = false;
                }
            }
            if ready != Ready::default() {
                return Ok(ready);
            }
            if asks {
                return Ok(Ready { timed_out: true, ..ready });
            }
            // Signals and news that nobody waits for end the engine's wait, not this one.
            if let Some(deadline) = deadline {
                let left = deadline.saturating_duration_since(Instant::now());
                if left.is_zero() {
                    return Ok(Ready { timed_out: true, ..ready });
                }
                rest = Some(left);
            }
        }
    }

    fn receive(&mut self, sink: &mut dyn DatagramSink, trains_max: usize) -> Result<bool, IoError> {
        let sealed = !self.config.protection.is_plaintext();
        let Self { receiver, engine, arena, counters, .. } = self;
        let lanes = &mut self.lanes[..self.lanes_len];
        let more = match receiver {
            Some(receiver) => receiver.receive(engine, lanes, arena, sink, trains_max, counters),
            None => engine.collect(lanes, trains_max, &mut |index, lane, taken| {
                bounce::take(index, lane, taken, sealed, arena, sink, counters);
            }),
        };
        Ok(more)
    }

    fn counters(&self) -> Counters {
        self.counters
    }

    fn poll_note(&mut self) -> Option<String> {
        self.notes.pop()
    }
}
