//! The data port over any engine: lanes, sending, waiting. Receiving has its own file.

use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use plesio_memory::Arena;
use plesio_wire::Span;
use plesio_wire::data::{HEADER_BYTES, Header};

use crate::engine::{Engine, Lane, Outgoing, SLOTS_MAX, TRAINS_MAX};
use crate::message::CONTROL_PAYLOAD_BYTES_MAX;
use crate::receive::Receiver;
use crate::{
    Counters, DatagramIo, DatagramSink, IoError, OpenError, Peer, Ready, SendError, Sent, SocketConfig, Tier,
    Waker, socket,
};
use crate::{bounce, train};

/// Times a send is tried again because an earlier one's refusal was reported instead.
const RETRIES_MAX: u32 = 3;

pub(crate) struct Endpoint<E> {
    engine: E,
    waker: Waker,
    config: SocketConfig,
    address: SocketAddr,
    arena: Arena,
    segmentation: bool,
    /// The base socket, then one per peer.
    lanes: Vec<Option<Lane>>,
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
        });
        let endpoint = Self {
            engine,
            waker,
            config: config.clone(),
            address: base.address,
            segmentation: base.segmentation,
            receive_buffer_bytes: base.receive_buffer_bytes,
            lanes,
            generation_next: 1,
            receiver: scatter.then(|| Receiver::new(&arena, SLOTS_MAX)),
            trains: (0..TRAINS_MAX)
                .map(|_| Outgoing::new(Some(arena.clone()), CONTROL_PAYLOAD_BYTES_MAX))
                .collect(),
            counters: Counters::default(),
            notes: Vec::new(),
            arena,
        };
        Ok((endpoint, base.notes))
    }

    fn lane(&mut self, peer: Peer) -> Result<&mut Lane, SendError> {
        let lane = self.lanes.get_mut(usize::from(peer.0) + 1).and_then(Option::as_mut);
        lane.ok_or(SendError::UnknownPeer)
    }

    /// Fills and sends as many trains as one call takes; says how far it got.
    fn send_some(&mut self, peer: Peer, chunks: &[(Header, Span)]) -> (Sent, Result<(), SendError>) {
        let lane = match self.lane(peer) {
            Ok(lane) => lane,
            Err(error) => return (Sent::default(), Err(error)),
        };
        let (descriptor, segmentation) = (lane.socket.as_raw_fd(), lane.segmentation);
        let (mut used, mut at, mut outcome) = (0, 0, Ok(()));
        while used < self.trains.len() && at < chunks.len() {
            let len = train::len_of_first(&chunks[at..], segmentation);
            if let Err(error) = load(&mut self.trains[used], &chunks[at..at + len]) {
                self.trains[used].message.clear();
                outcome = Err(error);
                break;
            }
            used += 1;
            at += len;
        }
        if used > 0 {
            self.engine.send(descriptor, &mut self.trains[..used]);
            self.counters.send_calls += 1;
        }
        let mut sent = Sent::default();
        let mut refused = None;
        for train in &mut self.trains[..used] {
            train.message.clear();
            match train.result {
                Ok(_) if refused.is_none() => {
                    sent.chunks += train.chunks;
                    sent.payload_bytes += train.payload_bytes;
                }
                Ok(_) => {}
                Err(cause) => refused = refused.or(Some((cause, train.chunks))),
            }
        }
        if let Some((cause, chunks)) = refused {
            outcome = self.explain(peer, cause, chunks);
        }
        self.counters.datagrams_sent += sent.chunks as u64;
        self.counters.payload_bytes_sent += sent.payload_bytes;
        (sent, outcome)
    }

    /// Turns a refusal into what the caller can do; `Ok` means: try again now.
    fn explain(&mut self, peer: Peer, cause: Errno, chunks: usize) -> Result<(), SendError> {
        match cause {
            // Not tried, or interrupted.
            Errno::ECANCELED | Errno::EINTR => Ok(()),
            Errno::EAGAIN | Errno::ENOBUFS => {
                self.lane(peer)?.write_wanted = true;
                Err(SendError::WouldBlock)
            }
            Errno::ECONNREFUSED => {
                self.counters.refused += 1;
                Err(SendError::Unreachable)
            }
            Errno::EMSGSIZE => Err(SendError::TooLarge { len_bytes: 0 }),
            Errno::EIO | Errno::EINVAL if chunks > 1 => {
                let lane = self.lane(peer)?;
                lane.segmentation = false;
                let address = lane.peer_address;
                self.counters.offload_refused += 1;
                if let Some(address) = address {
                    let cause = cause.desc();
                    self.notes.push(format!(
                        "send offload refused on the path to {address} ({cause}): one datagram per message from now on"
                    ));
                }
                Ok(())
            }
            cause => Err(SendError::System { cause }),
        }
    }
}

/// Describes a train: headers from its own memory, payload from where it lies.
fn load(train: &mut Outgoing, chunks: &[(Header, Span)]) -> Result<(), SendError> {
    let message = &mut train.message;
    message.clear();
    train.chunks = chunks.len();
    train.payload_bytes = 0;
    for (index, (header, span)) in chunks.iter().enumerate() {
        let len_bytes = HEADER_BYTES + span.len_bytes as usize;
        let too_large = SendError::TooLarge { len_bytes };
        let payload_bytes = u16::try_from(span.len_bytes).map_err(|_| too_large)?;
        let mut header = Header { payload_bytes, ..*header };
        message.push_header(index);
        header.protect(message.push_payload(*span)?);
        message.set_header(index, header.to_bytes());
        train.payload_bytes += u64::from(payload_bytes);
    }
    if let [(_, first), _, ..] = chunks {
        // A train is at most 65,507 bytes, and each of its segments is less.
        message.set_segment((HEADER_BYTES + first.len_bytes as usize) as u16);
    }
    Ok(())
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
        });
        self.generation_next = self.generation_next.wrapping_add(1);
        Ok(Peer((index - 1) as u16))
    }

    fn remove_peer(&mut self, peer: Peer) {
        let index = usize::from(peer.0) + 1;
        if let Some(lane) = self.lanes.get_mut(index).and_then(Option::take) {
            self.engine.remove(index, lane.generation, lane.socket.as_fd());
        }
    }

    fn send_train(&mut self, peer: Peer, chunks: &[(Header, Span)]) -> Result<Sent, SendError> {
        let mut sent = Sent::default();
        let mut retries = 0;
        while sent.chunks < chunks.len() {
            let (some, outcome) = self.send_some(peer, &chunks[sent.chunks..]);
            sent.chunks += some.chunks;
            sent.payload_bytes += some.payload_bytes;
            retries = if some.chunks > 0 { 0 } else { retries + 1 };
            match outcome {
                Ok(()) if retries <= RETRIES_MAX => {}
                Ok(()) => break,
                // The refusal was of an earlier datagram; taking it has cleared it.
                Err(SendError::Unreachable) if retries <= RETRIES_MAX => {}
                Err(SendError::TooLarge { .. }) if sent.chunks == 0 => {
                    let len_bytes = HEADER_BYTES + chunks[0].1.len_bytes as usize;
                    return Err(SendError::TooLarge { len_bytes });
                }
                Err(error) if sent.chunks == 0 => return Err(error),
                Err(_) => break,
            }
        }
        if sent.chunks == 0 && !chunks.is_empty() {
            return Err(SendError::WouldBlock);
        }
        Ok(sent)
    }

    fn send_control(&mut self, peer: Peer, header: &Header, payload: &[u8]) -> Result<(), SendError> {
        let descriptor = self.lane(peer)?.socket.as_raw_fd();
        let len_bytes = HEADER_BYTES + payload.len();
        if payload.len() > CONTROL_PAYLOAD_BYTES_MAX {
            return Err(SendError::TooLarge { len_bytes });
        }
        let mut header = Header { payload_bytes: payload.len() as u16, ..*header };
        header.protect(payload);
        let mut outcome = Err(SendError::WouldBlock);
        for _ in 0..RETRIES_MAX {
            let train = &mut self.trains[0];
            train.message.clear();
            train.message.push_header(0);
            train.message.set_header(0, header.to_bytes());
            train.message.aside_mut()[..payload.len()].copy_from_slice(payload);
            train.message.push_aside(0..payload.len());
            self.engine.send(descriptor, &mut self.trains[..1]);
            self.trains[0].message.clear();
            self.counters.send_calls += 1;
            let cause = match self.trains[0].result {
                Ok(_) => {
                    self.counters.datagrams_sent += 1;
                    return Ok(());
                }
                Err(cause) => cause,
            };
            outcome = match self.explain(peer, cause, 1) {
                Ok(()) => Err(SendError::WouldBlock),
                Err(SendError::TooLarge { .. }) => return Err(SendError::TooLarge { len_bytes }),
                Err(SendError::Unreachable) => Err(SendError::Unreachable),
                Err(error) => return Err(error),
            };
        }
        outcome
    }

    fn wait(&mut self, timeout: Option<Duration>) -> Result<Ready, IoError> {
        let deadline = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let mut rest = timeout;
        loop {
            let waiting = self.lanes.iter().flatten().any(|lane| lane.readable);
            // Even then the others and the waker are looked at, or one busy lane would hide them.
            let rest_or_none = if waiting { Some(Duration::ZERO) } else { rest };
            let woken = self.engine.wait(rest_or_none, &self.waker, &mut self.lanes)?;
            let mut ready = Ready { woken, ..Ready::default() };
            for lane in self.lanes.iter_mut().flatten() {
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
        let Self { receiver, engine, lanes, arena, counters, .. } = self;
        let more = match receiver {
            Some(receiver) => receiver.receive(engine, lanes, arena, sink, trains_max, counters),
            None => engine.collect(lanes, trains_max, &mut |index, lane, taken| {
                bounce::take(index, lane, taken, arena, sink, counters);
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
