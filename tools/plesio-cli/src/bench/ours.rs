//! Our end: a connection over a data port, driven by one thread.
//!
//! Knows how to move time, trains and datagrams; what is sent and counted is the caller's.

use super::link::Wait;
use super::memory::{HANDLES_MAX, Memory};
use crate::args::BackendArg;
use crate::demo::requested;
use crate::failure::Failure;
use plesio_proto::{Config, Connection, Event, Stats, Train, Transmit};
use plesio_udp::{DatagramIo, DatagramSink, Peer, Protection, SendError, SocketConfig, open};
use plesio_wire::Instant as Moment;
use plesio_wire::Span;
use plesio_wire::data::{Header, MessageId};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

/// How long one wait lasts at most: who waits also looks for orders.
const WAIT_MAX: Duration = Duration::from_millis(20);

pub(crate) struct End {
    io: Box<dyn DatagramIo>,
    pub(crate) tier: String,
    connection: Connection,
    peer: Option<Peer>,
    begin: Instant,
    wait: Wait,
    /// A train of which the socket has taken so many chunks.
    rest: Option<(Box<Train>, usize)>,
}

impl End {
    pub(crate) fn open(
        backend: BackendArg,
        chunk_bytes: u32,
        wait: Wait,
        memory: &Memory,
    ) -> Result<Self, Failure> {
        let bind = (Ipv4Addr::LOCALHOST, 0).into();
        let config = SocketConfig { protection: Protection::Plaintext, ..SocketConfig::new(bind) };
        let opened = open(requested(backend), &config, memory.arena.clone()).map_err(|error| Failure {
            exit: crate::failure::Exit::Missing,
            ..Failure::run("bench", "cannot open the data port", error)
        })?;
        let budget = opened.io.receive_buffer_bytes() as u64 / 2;
        let config = Config {
            local: SESSION,
            remote: SESSION,
            chunk_bytes,
            window_bytes: budget,
            receive_budget_bytes: budget.max(u64::from(chunk_bytes)),
            ..Config::default()
        };
        let connection = Connection::new(&config, Moment(0))
            .map_err(|error| Failure::usage("bench", "cannot use this chunk size", error))?;
        let tier = opened.probe.tier.to_string();
        Ok(Self { io: opened.io, tier, connection, peer: None, begin: Instant::now(), wait, rest: None })
    }

    pub(crate) fn port(&self) -> u16 {
        self.io.local_address().port()
    }

    pub(crate) fn meet(&mut self, port: u16) -> Result<(), Failure> {
        let address: SocketAddr = (Ipv4Addr::LOCALHOST, port).into();
        let peer = self.io.add_peer(address);
        self.peer = Some(peer.map_err(|error| Failure::run("bench", "cannot reach the other end", error))?);
        Ok(())
    }

    fn now(&self) -> Moment {
        Moment(self.begin.elapsed().as_nanos() as u64)
    }

    pub(crate) fn send(&mut self, message: MessageId, span: Span) -> Result<(), Failure> {
        let now = self.now();
        self.connection.handle_send(now, message, span).map_err(|error| broken(&error))
    }

    pub(crate) fn post(&mut self, handle: u16, span: Span) -> Result<(), Failure> {
        self.connection.handle_post(handle, None, span).map_err(|error| broken(&error))
    }

    pub(crate) fn poll_event(&mut self) -> Option<Event> {
        self.connection.poll_event()
    }

    pub(crate) fn stats(&self) -> Stats {
        self.connection.stats()
    }

    /// Sends what is due, waits once as the mode says, and takes what has come.
    pub(crate) fn turn(&mut self) -> Result<(), Failure> {
        self.transmit()?;
        let now = self.now();
        let due = self.connection.poll_timeout().map(|at| Duration::from_nanos(at.0.saturating_sub(now.0)));
        let limit = match self.wait {
            Wait::Block => due.unwrap_or(WAIT_MAX).min(WAIT_MAX),
            Wait::Spin => Duration::ZERO,
        };
        let ready = self.io.wait(Some(limit)).map_err(|error| broken(&error))?;
        if ready.readable {
            let now = self.now();
            let mut sink = Sink { connection: &mut self.connection, now };
            // One round at a time: what came may be worth an answer.
            self.io.receive(&mut sink, TRAINS_PER_TURN).map_err(|error| broken(&error))?;
        }
        let now = self.now();
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
        self.transmit()
    }

    fn transmit(&mut self) -> Result<(), Failure> {
        let Some(peer) = self.peer else { return Ok(()) };
        loop {
            let (train, taken) = match self.rest.take() {
                Some(rest) => rest,
                None => match self.connection.poll_transmit(self.now()) {
                    None => return Ok(()),
                    Some(Transmit::Train(train)) => (Box::new(train), 0),
                    Some(Transmit::Control(control)) => {
                        // What is not sent counts as lost.
                        let _lost = self.io.send_control(peer, &control.header, control.body());
                        continue;
                    }
                },
            };
            match self.io.send_train(peer, &train[taken..]) {
                Ok(sent) if taken + sent.chunks < train.len() => {
                    self.rest = Some((train, taken + sent.chunks));
                }
                Ok(_) => {}
                Err(SendError::WouldBlock) => {
                    self.rest = Some((train, taken));
                    return Ok(());
                }
                Err(error) => return Err(broken(&error)),
            }
        }
    }
}

/// How many messages go side by side; no two of them share a slot.
pub(crate) fn handles(memory: &Memory) -> u64 {
    memory.slots.min(HANDLES_MAX as u64)
}

fn broken(error: &dyn std::fmt::Display) -> Failure {
    Failure::run("bench", "the link broke", error)
}

struct Sink<'a> {
    connection: &'a mut Connection,
    now: Moment,
}

impl DatagramSink for Sink<'_> {
    fn place(&mut self, _peer: Peer, header: &Header) -> Option<Span> {
        self.connection.place(header)
    }

    // What the connection refuses is counted there.
    fn handle_chunk(&mut self, _peer: Peer, header: &Header, _span: Span) {
        let _counted = self.connection.handle_datagram(self.now, header, &[]);
    }

    fn handle_unplaced(&mut self, _peer: Peer, header: &Header) {
        let _counted = self.connection.handle_unplaced(self.now, header);
    }

    fn handle_control(&mut self, _peer: Peer, header: &Header, payload: &[u8]) {
        let _counted = self.connection.handle_datagram(self.now, header, payload);
    }
}

/// One session between two processes of one command.
const SESSION: u32 = 0x706c_6573;
const TRAINS_PER_TURN: usize = 16;
