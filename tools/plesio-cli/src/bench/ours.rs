//! Our end: a data port with a connection for each flow that ends in it, driven by one thread.
//!
//! Knows how to move time, trains, datagrams and keys; what is sent and counted is in `ours/patterns.rs`.

mod keys;
mod patterns;

pub(crate) use keys::pool;
pub(crate) use patterns::run;

use super::link::{Mode, Run};
use super::memory::Memory;
use crate::args::PlacementArg;
use crate::demo::requested;
use crate::failure::{Exit, Failure};
use keys::Keys;
use plesio_proto::{Config, Congestion, Connection, Granter, Grants, Next, Stats, Train, Turn};
use plesio_session::SealError;
use plesio_udp::{
    DatagramIo, DatagramSink, OpenError, Peer, Placement, Protection, SendError, SocketConfig, Waiter, open,
};
use plesio_wire::Instant as Moment;
use plesio_wire::Span;
use plesio_wire::data::{Header, TAG_BYTES};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

pub(crate) struct End {
    io: Box<dyn DatagramIo>,
    pub(crate) tier: String,
    pub(crate) notes: Vec<String>,
    flows: Vec<Flow>,
    /// Flow of every peer of the port.
    by_peer: Vec<usize>,
    /// Where several flows share one budget of credit.
    granter: Option<Granter>,
    begin: Instant,
    waiter: Waiter,
    /// Chunks become smaller where the path wants them so.
    search: bool,
}

/// One connection, and the other end of it.
struct Flow {
    connection: Connection,
    peer: Option<Peer>,
    address: Option<SocketAddr>,
    /// Of a sealed run.
    keys: Option<Keys>,
    train: Box<Train>,
    /// How much of the train the socket has taken, while there is a rest.
    taken: Option<usize>,
}

impl End {
    /// A port where so many flows end. `pool` is the text of the key that both ends of a sealed run hold.
    pub(crate) fn open(run: &Run, pool: &str, memory: &Memory, count: usize) -> Result<Self, Failure> {
        let here = run.bind.to_canonical().is_loopback();
        let protection = match run.protection {
            Mode::Sealed => Protection::Sealed,
            // Who drives both ends has looked whether the network is trusted.
            Mode::Plaintext if here => Protection::Plaintext,
            Mode::Plaintext => Protection::Captive,
        };
        let sealed = run.protection == Mode::Sealed;
        let placement = match run.placement {
            PlacementArg::Auto => {
                let opens_apart = run.protection == Mode::Sealed && keys::suites(run.suite)?.opens_apart();
                Placement::for_chunk(run.chunk_bytes.min(run.bytes), opens_apart)
            }
            PlacementArg::Scatter => Placement::Scatter,
            PlacementArg::Bounce => Placement::Bounce,
        };
        let config = SocketConfig { protection, placement, ..SocketConfig::new((run.bind, 0).into()) };
        let opened = open(requested(run.backend), &config, memory.arena.clone()).map_err(refused)?;
        let budget = opened.io.receive_buffer_bytes() as u64 / 2;
        let config = Config {
            local: SESSION,
            remote: SESSION,
            chunk_bytes: run.chunk_bytes,
            search: run.search,
            tag_bytes: if sealed { TAG_BYTES as u32 } else { 0 },
            window_bytes: budget,
            receive_budget_bytes: budget.max(u64::from(run.chunk_bytes)),
            grants: if count > 1 { Grants::Shared } else { Grants::Own },
            congestion: if here && !run.relayed { Congestion::Credit } else { Congestion::RateDelay },
            ..Config::default()
        };
        let flow = |_| {
            let connection = Connection::new(&config, Moment(0))
                .map_err(|error| Failure::usage("bench", "cannot use this chunk size", error))?;
            let keys = if sealed { Some(Keys::new(pool, run.suite, session_fix(run))?) } else { None };
            Ok(Flow { connection, peer: None, address: None, keys, train: Box::default(), taken: None })
        };
        let grant_bytes = (budget / GRANTS).max(run.chunk_bytes.into());
        let granter = Granter::new(budget, grant_bytes, Turn::RoundRobin, count);
        Ok(Self {
            io: opened.io,
            tier: opened.probe.tier.to_string(),
            notes: opened.notes,
            flows: (0..count).map(flow).collect::<Result<_, Failure>>()?,
            by_peer: Vec::new(),
            granter: (count > 1).then_some(granter),
            begin: Instant::now(),
            waiter: Waiter::new(run.wait.mode()),
            search: run.search,
        })
    }

    /// For every flow where it is, and what the other end of a sealed one has to know.
    pub(crate) fn addresses(&self) -> Vec<(u16, String)> {
        let word = |flow: &Flow| flow.keys.as_ref().map_or_else(String::new, Keys::word);
        let port = self.io.local_address().port();
        self.flows.iter().map(|flow| (port, word(flow))).collect()
    }

    /// What the first flow is sealed with, once it is.
    fn suite(&self) -> String {
        let suite = self.flows.first().and_then(|flow| flow.keys.as_ref()?.suite());
        suite.map_or_else(String::new, |suite| suite.to_string())
    }

    fn meet(&mut self, others: &[(SocketAddr, String)], begins: bool) -> Result<(), Failure> {
        let now = self.now();
        for (index, (flow, (address, word))) in self.flows.iter_mut().zip(others).enumerate() {
            let peer = self.io.add_peer(*address).map_err(refused)?;
            let place = usize::from(peer.0);
            self.by_peer.resize(self.by_peer.len().max(place + 1), 0);
            self.by_peer[place] = index;
            (flow.peer, flow.address) = (Some(peer), Some(*address));
            if let Some(keys) = &mut flow.keys {
                keys.meet(now, peer, *address, word, begins)?;
            }
        }
        Ok(())
    }

    /// Turns until there is a session, where there has to be one.
    fn establish(&mut self, run: &Run) -> Result<(), Failure> {
        let begin = Instant::now();
        while !self.is_established() {
            self.turn()?;
            if begin.elapsed() > run.silence_limit() {
                return Err(unmet(run));
            }
        }
        Ok(())
    }

    /// Whether every flow can send.
    fn is_established(&self) -> bool {
        self.flows.iter().all(|flow| flow.keys.as_ref().is_none_or(Keys::are_there))
    }

    fn now(&self) -> Moment {
        Moment(self.begin.elapsed().as_nanos() as u64)
    }

    fn post(&mut self, flow: usize, handle: u16, span: Span) -> Result<(), Failure> {
        self.flows[flow].connection.handle_post(handle, None, span).map_err(|error| broken(&error))
    }

    fn stats(&self, flow: usize) -> Stats {
        self.flows[flow].connection.stats()
    }

    /// Sends what is due, waits once as the mode says, and takes what has come.
    fn turn(&mut self) -> Result<(), Failure> {
        self.transmit()?;
        let due = self.flows.iter().filter_map(|flow| flow.connection.poll_timeout()).min();
        let now = self.now();
        let limit = due.map_or(WAIT_MAX, |at| Duration::from_nanos(at.since(now)).min(WAIT_MAX));
        let io = &mut self.io;
        let look = |limit| io.wait(Some(limit)).map(|ready| (!ready.timed_out).then_some(ready));
        let ready = self.waiter.wait(limit, look).map_err(|error| broken(&error))?;
        let now = self.now();
        if ready.is_some_and(|ready| ready.readable) {
            let mut sink = Sink { flows: &mut self.flows, by_peer: &self.by_peer, now };
            // One round at a time: what came may be worth an answer.
            self.io.receive(&mut sink, TRAINS_PER_TURN).map_err(|error| broken(&error))?;
        }
        // What has come may have moved the next moment; then the next turn sees it.
        let is_due = due.is_some_and(|at| at <= now);
        for flow in &mut self.flows {
            if is_due {
                flow.connection.handle_timeout(now);
            }
            if let Some(keys) = &mut flow.keys {
                keys.turn(now, &mut *self.io)?;
            }
        }
        self.grant();
        self.transmit()
    }

    /// Credit for all flows out of one budget.
    fn grant(&mut self) {
        let Some(granter) = &mut self.granter else { return };
        for (key, flow) in (0..).zip(&self.flows) {
            granter.handle_demand(key, flow.connection.demand());
        }
        while let Some((key, bytes)) = granter.poll_grant() {
            self.flows[key as usize].connection.handle_grant(bytes);
        }
    }

    fn transmit(&mut self) -> Result<(), Failure> {
        (0..self.flows.len()).try_for_each(|flow| self.transmit_flow(flow))
    }

    fn transmit_flow(&mut self, flow: usize) -> Result<(), Failure> {
        let begin = self.begin;
        let now = || Moment(begin.elapsed().as_nanos() as u64);
        let flow = &mut self.flows[flow];
        let Some(peer) = flow.peer else { return Ok(()) };
        loop {
            let taken = match flow.taken.take() {
                Some(taken) => taken,
                None => match flow.connection.poll_transmit_into(now(), &mut flow.train) {
                    None => return Ok(()),
                    Some(Next::Train) => 0,
                    Some(Next::Control(control)) => {
                        // What is not sent counts as lost.
                        let _lost = self.io.send_control(peer, &control.header, control.body());
                        continue;
                    }
                },
            };
            match self.io.send_train(peer, &flow.train[taken..]) {
                Ok(sent) if taken + sent.chunks < flow.train.len() => flow.taken = Some(taken + sent.chunks),
                Ok(_) => {}
                Err(SendError::WouldBlock | SendError::Seal(SealError::NoSession | SealError::Exhausted)) => {
                    flow.taken = Some(taken);
                    return Ok(());
                }
                Err(SendError::TooLarge { len_bytes }) if self.search => {
                    flow.connection.handle_path_limit(now(), (len_bytes as u32).saturating_sub(1));
                }
                Err(SendError::TooLarge { len_bytes }) => {
                    let cause = format!("the path does not take datagrams of {len_bytes} bytes");
                    return Err(Failure::run("bench", "the link broke", cause)
                        .fix("give a smaller --chunk, or --chunk path"));
                }
                // The end of the other process comes as a message of its own.
                Err(SendError::Unreachable) => return Ok(()),
                Err(error) => return Err(broken(&error)),
            }
        }
    }
}

/// The other end is there, and takes nothing.
pub(crate) fn stalled(run: &Run) -> Failure {
    let cause = format!("nothing came from it for {:.0} s", run.silence_limit().as_secs_f64());
    Failure { exit: Exit::Unreachable, ..Failure::run("bench-peer", "the other end stopped reading", cause) }
        .fix(silence_fix(run))
}

/// A handshake went out, and nothing came back that is one.
fn unmet(run: &Run) -> Failure {
    let cause = format!("no handshake was answered within {:.0} s", run.silence_limit().as_secs_f64());
    Failure { exit: Exit::Unreachable, ..Failure::run("bench-peer", "there is no session", cause) }
        .fix(silence_fix(run))
}

/// What to look at when there is no session.
fn session_fix(run: &Run) -> &'static str {
    if run.relayed || run.bind.to_canonical().is_loopback() {
        silence_fix(run)
    } else {
        "give both machines the same --key-file and version"
    }
}

/// What to look at when nothing comes.
pub(crate) fn silence_fix(run: &Run) -> &'static str {
    if run.relayed {
        "see that the path lets something through in time: less --loss, --corrupt or --delay, a higher --rate"
    } else if run.bind.to_canonical().is_loopback() {
        "see whether its process is stopped or starved, then run again"
    } else {
        "see whether its process is stopped or starved, and whether a firewall lets UDP through, then run again"
    }
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
    flows: &'a mut [Flow],
    by_peer: &'a [usize],
    now: Moment,
}

impl Sink<'_> {
    fn flow(&mut self, peer: Peer) -> &mut Flow {
        &mut self.flows[self.by_peer[usize::from(peer.0)]]
    }

    /// The connection, and the header as it is for it: sealed datagrams carry the session's index, under which they were
    /// opened.
    fn addressed(&mut self, peer: Peer, header: &Header) -> (&mut Connection, Header) {
        let flow = self.flow(peer);
        let receiver = if flow.keys.is_some() { SESSION } else { header.receiver };
        (&mut flow.connection, Header { receiver, ..*header })
    }
}

impl DatagramSink for Sink<'_> {
    fn place(&mut self, peer: Peer, header: &Header) -> Option<Span> {
        let (connection, header) = self.addressed(peer, header);
        connection.place(&header)
    }

    // What the connection refuses is counted there.
    fn handle_chunk(&mut self, peer: Peer, header: &Header, _span: Span) {
        let now = self.now;
        let (connection, header) = self.addressed(peer, header);
        let _counted = connection.handle_datagram(now, &header, &[]);
    }

    fn handle_unplaced(&mut self, peer: Peer, header: &Header) {
        let now = self.now;
        let (connection, header) = self.addressed(peer, header);
        let _counted = connection.handle_unplaced(now, &header);
    }

    fn handle_control(&mut self, peer: Peer, header: &Header, payload: &[u8]) {
        let now = self.now;
        let (connection, header) = self.addressed(peer, header);
        let _counted = connection.handle_datagram(now, &header, payload);
    }

    fn handle_confirmed(&mut self, peer: Peer, local: u32) {
        let now = self.now;
        if let Some(keys) = &mut self.flow(peer).keys {
            keys.handle_confirmed(now, local);
        }
    }

    fn handle_own(&mut self, peer: Peer, local: u32) {
        let now = self.now;
        if let Some(keys) = &mut self.flow(peer).keys {
            keys.handle_own(now, local);
        }
    }

    /// A handshake is of the flow whose other end is where it comes from.
    fn handle_stranger(&mut self, from: SocketAddr, datagram: &[u8]) {
        let flow = self.flows.iter_mut().find(|flow| flow.address == Some(from));
        if let Some(keys) = flow.and_then(|flow| flow.keys.as_mut()) {
            keys.handle_stranger(self.now, from, datagram);
        }
    }
}

/// One session between two ends of one bench.
const SESSION: u32 = 0x706c_6573;
/// One budget of credit is given out in so many parts.
const GRANTS: u64 = 8;
const TRAINS_PER_TURN: usize = 16;
/// How long one wait lasts at most: who waits also looks for orders.
pub(crate) const WAIT_MAX: Duration = Duration::from_millis(20);
