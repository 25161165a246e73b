//! Our end: a connection over a data port, driven by one thread.
//!
//! Knows how to move time, trains, datagrams and keys; what is sent and counted is in `ours/patterns.rs`.

mod keys;
mod patterns;

pub(crate) use keys::pool;
pub(crate) use patterns::run;

use super::link::{Mode, Run};
use super::memory::Memory;
use crate::demo::requested;
use crate::failure::{Exit, Failure};
use keys::Keys;
use plesio_proto::{Config, Congestion, Connection, Next, Stats, Train};
use plesio_session::SealError;
use plesio_udp::{
    DatagramIo, DatagramSink, OpenError, Peer, Placement, Protection, SendError, SocketConfig, Waiter, open,
};
use plesio_wire::Instant as Moment;
use plesio_wire::Span;
use plesio_wire::data::Header;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) struct End {
    io: Box<dyn DatagramIo>,
    pub(crate) tier: String,
    pub(crate) notes: Vec<String>,
    connection: Connection,
    peer: Option<Peer>,
    /// Of a sealed run.
    keys: Option<Keys>,
    begin: Instant,
    waiter: Waiter,
    train: Box<Train>,
    /// How much of the train the socket has taken, while there is a rest.
    taken: Option<usize>,
}

impl End {
    /// `pool` is the text of the key that both ends of a sealed run hold.
    pub(crate) fn open(run: &Run, pool: &str, memory: &Memory) -> Result<Self, Failure> {
        let here = run.bind.to_canonical().is_loopback();
        let (protection, keys) = match run.protection {
            Mode::Sealed => (Protection::Sealed, Some(Keys::new(pool)?)),
            // Who drives both ends has looked whether the network is trusted.
            Mode::Plaintext if here => (Protection::Plaintext, None),
            Mode::Plaintext => (Protection::Captive, None),
        };
        let placement = Placement::for_chunk(run.chunk_bytes.min(run.bytes));
        let config = SocketConfig { protection, placement, ..SocketConfig::new((run.bind, 0).into()) };
        let opened = open(requested(run.backend), &config, memory.arena.clone()).map_err(refused)?;
        let budget = opened.io.receive_buffer_bytes() as u64 / 2;
        let config = Config {
            local: SESSION,
            remote: SESSION,
            chunk_bytes: run.chunk_bytes,
            window_bytes: budget,
            receive_budget_bytes: budget.max(u64::from(run.chunk_bytes)),
            congestion: if here { Congestion::Credit } else { Congestion::RateDelay },
            ..Config::default()
        };
        let connection = Connection::new(&config, Moment(0))
            .map_err(|error| Failure::usage("bench", "cannot use this chunk size", error))?;
        Ok(Self {
            io: opened.io,
            tier: opened.probe.tier.to_string(),
            notes: opened.notes,
            connection,
            peer: None,
            keys,
            begin: Instant::now(),
            waiter: Waiter::new(run.wait.mode()),
            train: Box::default(),
            taken: None,
        })
    }

    pub(crate) fn port(&self) -> u16 {
        self.io.local_address().port()
    }

    /// What the other end has to know of a sealed one.
    pub(crate) fn word(&self) -> String {
        self.keys.as_ref().map_or_else(String::new, Keys::word)
    }

    fn meet(&mut self, address: SocketAddr, word: &str, begins: bool) -> Result<(), Failure> {
        let peer = self.io.add_peer(address).map_err(refused)?;
        self.peer = Some(peer);
        let now = self.now();
        match &mut self.keys {
            Some(keys) => keys.meet(now, peer, address, word, begins),
            None => Ok(()),
        }
    }

    /// Turns until there is a session, where there has to be one.
    fn establish(&mut self) -> Result<(), Failure> {
        let begin = Instant::now();
        while self.keys.as_ref().is_some_and(|keys| !keys.are_there()) {
            self.turn()?;
            if begin.elapsed() > STALL_LIMIT {
                return Err(stalled());
            }
        }
        Ok(())
    }

    fn now(&self) -> Moment {
        Moment(self.begin.elapsed().as_nanos() as u64)
    }

    fn post(&mut self, handle: u16, span: Span) -> Result<(), Failure> {
        self.connection.handle_post(handle, None, span).map_err(|error| broken(&error))
    }

    fn stats(&self) -> Stats {
        self.connection.stats()
    }

    /// Sends what is due, waits once as the mode says, and takes what has come.
    fn turn(&mut self) -> Result<(), Failure> {
        self.transmit()?;
        let now = self.now();
        let due = self.connection.poll_timeout().map(|at| Duration::from_nanos(at.0.saturating_sub(now.0)));
        let limit = due.unwrap_or(WAIT_MAX).min(WAIT_MAX);
        let io = &mut self.io;
        let look = |limit| io.wait(Some(limit)).map(|ready| (!ready.timed_out).then_some(ready));
        let ready = self.waiter.wait(limit, look).map_err(|error| broken(&error))?;
        if ready.is_some_and(|ready| ready.readable) {
            let now = self.now();
            let mut sink = Sink { connection: &mut self.connection, keys: self.keys.as_mut(), now };
            // One round at a time: what came may be worth an answer.
            self.io.receive(&mut sink, TRAINS_PER_TURN).map_err(|error| broken(&error))?;
        }
        let now = self.now();
        if self.connection.poll_timeout().is_some_and(|at| at <= now) {
            self.connection.handle_timeout(now);
        }
        if let Some(keys) = &mut self.keys {
            keys.turn(now, &mut *self.io)?;
        }
        self.transmit()
    }

    fn transmit(&mut self) -> Result<(), Failure> {
        let Some(peer) = self.peer else { return Ok(()) };
        loop {
            let taken = match self.taken.take() {
                Some(taken) => taken,
                None => match self.connection.poll_transmit_into(self.now(), &mut self.train) {
                    None => return Ok(()),
                    Some(Next::Train) => 0,
                    Some(Next::Control(control)) => {
                        // What is not sent counts as lost.
                        let _lost = self.io.send_control(peer, &control.header, control.body());
                        continue;
                    }
                },
            };
            match self.io.send_train(peer, &self.train[taken..]) {
                Ok(sent) if taken + sent.chunks < self.train.len() => self.taken = Some(taken + sent.chunks),
                Ok(_) => {}
                Err(SendError::WouldBlock | SendError::Seal(SealError::NoSession | SealError::Exhausted)) => {
                    self.taken = Some(taken);
                    return Ok(());
                }
                Err(SendError::TooLarge { len_bytes }) => {
                    let cause = format!("the path does not take datagrams of {len_bytes} bytes");
                    return Err(Failure::run("bench", "the link broke", cause).fix("give a smaller --chunk"));
                }
                // The end of the other process comes as a message of its own.
                Err(SendError::Unreachable) => return Ok(()),
                Err(error) => return Err(broken(&error)),
            }
        }
    }
}

/// The other end is there, and takes nothing.
pub(crate) fn stalled() -> Failure {
    let cause = format!("nothing came from it for {} s", STALL_LIMIT.as_secs());
    Failure { exit: Exit::Unreachable, ..Failure::run("bench-peer", "the other end stopped reading", cause) }
        .fix("see whether its process is stopped or starved, then run again")
}

fn gone() -> Failure {
    let cause = "it closed the connection";
    Failure { exit: Exit::Unreachable, ..Failure::run("bench-peer", "the other end is gone", cause) }
        .fix("see why it ended, then run again")
}

fn refused(error: OpenError) -> Failure {
    let exit = if matches!(error, OpenError::Backend { .. }) { Exit::Missing } else { Exit::Failed };
    Failure { exit, ..Failure::run("bench", "cannot open the data port", error) }
        .fix("give another --bind, or --backend auto")
}

fn broken(error: &dyn std::fmt::Display) -> Failure {
    Failure::run("bench", "the link broke", error)
}

struct Sink<'a> {
    connection: &'a mut Connection,
    keys: Option<&'a mut Keys>,
    now: Moment,
}

impl Sink<'_> {
    /// Sealed datagrams carry the session's index, under which they were opened.
    fn own(&self, header: &Header) -> Header {
        let receiver = if self.keys.is_some() { SESSION } else { header.receiver };
        Header { receiver, ..*header }
    }
}

impl DatagramSink for Sink<'_> {
    fn place(&mut self, _peer: Peer, header: &Header) -> Option<Span> {
        self.connection.place(&self.own(header))
    }

    // What the connection refuses is counted there.
    fn handle_chunk(&mut self, _peer: Peer, header: &Header, _span: Span) {
        let _counted = self.connection.handle_datagram(self.now, &self.own(header), &[]);
    }

    fn handle_unplaced(&mut self, _peer: Peer, header: &Header) {
        let _counted = self.connection.handle_unplaced(self.now, &self.own(header));
    }

    fn handle_control(&mut self, _peer: Peer, header: &Header, payload: &[u8]) {
        let _counted = self.connection.handle_datagram(self.now, &self.own(header), payload);
    }

    fn handle_confirmed(&mut self, _peer: Peer, local: u32) {
        if let Some(keys) = &mut self.keys {
            keys.handle_confirmed(self.now, local);
        }
    }

    fn handle_own(&mut self, _peer: Peer, local: u32) {
        if let Some(keys) = &mut self.keys {
            keys.handle_own(self.now, local);
        }
    }

    fn handle_stranger(&mut self, from: SocketAddr, datagram: &[u8]) {
        if let Some(keys) = &mut self.keys {
            keys.handle_stranger(self.now, from, datagram);
        }
    }
}

/// One session between two ends of one bench.
const SESSION: u32 = 0x706c_6573;
const TRAINS_PER_TURN: usize = 16;
/// How long one wait lasts at most: who waits also looks for orders.
pub(crate) const WAIT_MAX: Duration = Duration::from_millis(20);
/// An end that owes something and is silent for so long is given up.
pub(crate) const STALL_LIMIT: Duration = Duration::from_secs(5);
