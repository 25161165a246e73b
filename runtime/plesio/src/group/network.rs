//! Ranks that reach each other by datagrams: the same calls as [`super::SharedGroup`], bit for bit, over sockets.
//!
//! The schedule is `plesio_collective`'s [`Network`], the links are `plesio-proto`'s; here are the port, the memory and the
//! time. Everything happens inside the caller's calls. Between them [`NetworkGroup::turn`] keeps the links alive: other
//! ranks may still wait for the last of this one's words.

use super::GroupError;
use super::sum::{Elements, copy, sum};
use plesio_collective::{
    Call, CallError, Element, Network, NetworkAction as Action, Operation, Places, Ranks, TensorSpans, range,
};
use plesio_memory::{Arena, ArenaPlan, ArenaReport};
use plesio_proto::{Config, Congestion, Connection, Event, Next, Train};
use plesio_udp::{
    DatagramIo, DatagramSink, Peer, Placement, Protection, Requested, SendError, SocketConfig, WaitMode,
    Waiter, open,
};
use plesio_wire::data::Header;
use plesio_wire::digest::Hasher;
use plesio_wire::{Instant as Moment, Span};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::Range;
use std::time::{Duration, Instant};

/// What every rank of a group knows before they meet.
#[derive(Clone, Debug)]
pub struct NetworkPlan {
    /// The same number on every rank, another one for every group.
    pub session: u64,
    /// This rank.
    pub rank: u8,
    /// How many ranks there are, 1 to 32.
    pub ranks: u8,
    /// Bytes of this rank's tensors, less than 4 GiB.
    pub tensor_bytes: u32,
    /// This rank's address; port 0 lets the kernel choose.
    pub bind: SocketAddr,
    /// Largest payload of a datagram; a multiple of 64, the same on every rank.
    pub chunk_bytes: u32,
    /// How datagrams reach the kernel.
    pub backend: Requested,
    /// How a call waits.
    pub wait: WaitMode,
    /// How datagrams are protected; sealed needs keys, which this group has not.
    pub protection: Protection,
    /// How long a call may take.
    pub deadline: Duration,
}

/// The link to one other rank.
struct Link {
    connection: Connection,
    peer: Peer,
    train: Box<Train>,
    /// How much of the train the socket has taken, while there is a rest.
    taken: Option<usize>,
    /// Windows that are open, by handle.
    windows: BTreeMap<u16, Span>,
}

/// The ranks of one group, by datagrams.
pub struct NetworkGroup {
    io: Box<dyn DatagramIo>,
    notes: Vec<String>,
    arena: Arena,
    report: ArenaReport,
    network: Network,
    plan: NetworkPlan,
    /// By rank; none to this one.
    links: Vec<Option<Link>>,
    /// Rank of every peer of the port.
    by_peer: Vec<usize>,
    begin: Instant,
    waiter: Waiter,
    met: bool,
    broken: bool,
}

const TENSORS: u16 = 0;
const WORK: u16 = 1;

impl NetworkGroup {
    /// Takes memory and a port; [`Self::local_address`] says which.
    ///
    /// # Errors
    /// A plan that cannot be, memory that cannot be had, a port or a backend that is refused.
    pub fn open(plan: &NetworkPlan) -> Result<Self, GroupError> {
        let ranks = usize::from(plan.ranks);
        if ranks == 0 || ranks > Ranks::MAX || plan.rank >= plan.ranks {
            return Err(GroupError::Plan { rule: "a group has 1 to 32 ranks, numbered from 0" });
        }
        if plan.protection == Protection::Sealed {
            return Err(GroupError::Plan {
                rule: "a group by datagrams has no keys: its network has to be trusted",
            });
        }
        let mut layout = ArenaPlan::new("plesio-group", 0);
        layout.push(plan.tensor_bytes.max(1) as usize);
        layout.push(Network::region_bytes(ranks) as usize);
        // All that this group will ever take.
        layout.budget_bytes = layout.needed_bytes();
        let (arena, report) = Arena::map(&layout).map_err(GroupError::Arena)?;
        let placement = Placement::for_chunk(plan.chunk_bytes, false);
        let config = SocketConfig { protection: plan.protection, placement, ..SocketConfig::new(plan.bind) };
        let opened = open(plan.backend, &config, arena.clone()).map_err(GroupError::Open)?;
        Ok(Self {
            io: opened.io,
            notes: opened.notes,
            arena,
            report,
            network: Network::new(plan.rank.into(), ranks, WORK),
            plan: plan.clone(),
            links: (0..ranks).map(|_| None).collect(),
            by_peer: Vec::new(),
            begin: Instant::now(),
            waiter: Waiter::new(plan.wait),
            met: false,
            broken: false,
        })
    }

    /// This rank's number.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.plan.rank.into()
    }

    /// How many ranks the group began with.
    #[must_use]
    pub fn ranks(&self) -> usize {
        self.links.len()
    }

    /// Where this rank is.
    #[must_use]
    pub fn local_address(&self) -> SocketAddr {
        self.io.local_address()
    }

    /// What memory was obtained.
    #[must_use]
    pub fn report(&self) -> &ArenaReport {
        &self.report
    }

    /// Remarks about this machine's sockets.
    #[must_use]
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Where all ranks are, this one included.
    ///
    /// # Errors
    /// Not one address a rank, or one that the port refuses.
    pub fn meet(&mut self, addresses: &[SocketAddr]) -> Result<(), GroupError> {
        if addresses.len() != self.links.len() {
            return Err(GroupError::Plan { rule: "there has to be one address for each rank" });
        }
        if std::mem::replace(&mut self.met, true) {
            return Err(GroupError::Plan { rule: "its ranks meet once" });
        }
        let here = addresses.iter().all(|address| address.ip().to_canonical().is_loopback());
        let budget = self.io.receive_buffer_bytes() as u64 / 2;
        let me = usize::from(self.plan.rank);
        for (rank, address) in addresses.iter().enumerate().filter(|(rank, _)| *rank != me) {
            let peer = self.io.add_peer(*address).map_err(GroupError::Open)?;
            let place = usize::from(peer.0);
            self.by_peer.resize(self.by_peer.len().max(place + 1), 0);
            self.by_peer[place] = rank;
            let config = Config {
                local: receiver(self.plan.session, me, rank),
                remote: receiver(self.plan.session, rank, me),
                chunk_bytes: self.plan.chunk_bytes,
                search: !here,
                window_bytes: budget,
                receive_budget_bytes: budget.max(self.plan.chunk_bytes.into()),
                congestion: if here { Congestion::Credit } else { Congestion::RateDelay },
                ..Config::default()
            };
            let connection = Connection::new(&config, self.now()).map_err(|_| GroupError::Plan {
                rule: "its chunks are a multiple of 64 bytes, 64 to 65,408",
            })?;
            let windows = BTreeMap::new();
            self.links[rank] = Some(Link { connection, peer, train: Box::default(), taken: None, windows });
        }
        Ok(())
    }

    /// Writes into this rank's tensors.
    ///
    /// # Errors
    /// Bytes that do not lie there.
    pub fn write(&self, offset_bytes: u32, from: &[u8]) -> Result<(), GroupError> {
        let len_bytes = u32::try_from(from.len()).map_err(|_| GroupError::Range)?;
        self.arena.write(Span { region: TENSORS, offset_bytes, len_bytes }, from).map_err(GroupError::Access)
    }

    /// Reads this rank's tensors.
    ///
    /// # Errors
    /// Bytes that do not lie there.
    pub fn read(&self, offset_bytes: u32, into: &mut [u8]) -> Result<(), GroupError> {
        let len_bytes = u32::try_from(into.len()).map_err(|_| GroupError::Range)?;
        self.arena.read(Span { region: TENSORS, offset_bytes, len_bytes }, into).map_err(GroupError::Access)
    }

    /// As [`super::SharedGroup::all_reduce`].
    ///
    /// # Errors
    /// See [`Self::call`].
    pub fn all_reduce(&mut self, element: Element, count: u64, places: Places) -> Result<Ranks, GroupError> {
        self.call(Call { operation: Operation::AllReduce, element, count }, places)
    }

    /// Makes one call together with all ranks that live.
    ///
    /// # Errors
    /// The ranks called for different things (told to all, and the group goes on); or it was not over at its deadline,
    /// or the sockets broke: then the group is broken. A tensor that does not lie in this rank's memory is this rank's
    /// error alone: nothing was sent, and the others wait for a call that can be made, until their deadline.
    pub fn call(&mut self, call: Call, places: Places) -> Result<Ranks, GroupError> {
        if self.broken {
            return Err(GroupError::Broken);
        }
        if !self.met {
            return Err(GroupError::Plan { rule: "its ranks have to meet before the first call" });
        }
        if !places.fit(&call, self.plan.tensor_bytes.into()) {
            return Err(GroupError::Range);
        }
        let len_bytes = call.bytes().unwrap_or(0) as u32;
        let span = |offset: u64| Span { region: TENSORS, offset_bytes: offset as u32, len_bytes };
        let spans = TensorSpans { input: span(places.input), output: span(places.output) };
        let ranks = self.links.len();
        let shares: Vec<Range<u64>> = (0..ranks).map(|rank| range(call.count, ranks, rank)).collect();
        let began = Instant::now();
        let outcome = match self.network.begin(call, spans, &shares) {
            Ok(()) => self.finish(call.element, began),
            Err(error) => Err(GroupError::Call(error)),
        };
        let goes_on = !matches!(outcome, Err(GroupError::Call(CallError::Late { .. })));
        self.broken = !(goes_on && matches!(outcome, Ok(_) | Err(GroupError::Call(_))));
        outcome
    }

    fn finish(&mut self, element: Element, began: Instant) -> Result<Ranks, GroupError> {
        loop {
            if let Some(outcome) = self.act(element)? {
                self.transmit()?;
                return outcome.map_err(GroupError::Call);
            }
            self.turn(WAIT_MAX)?;
            if began.elapsed() > self.plan.deadline {
                self.network.handle_deadline();
            }
        }
    }

    /// Sends what is due, waits at most so long for something to come, and takes it.
    ///
    /// # Errors
    /// The sockets broke.
    pub fn turn(&mut self, limit: Duration) -> Result<(), GroupError> {
        self.transmit()?;
        let now = self.now();
        let due = self.links.iter().flatten().filter_map(|link| link.connection.poll_timeout()).min();
        let limit = due.map_or(limit, |at| Duration::from_nanos(at.since(now)).min(limit));
        let io = &mut self.io;
        let look = |limit| io.wait(Some(limit)).map(|ready| (!ready.timed_out).then_some(ready));
        let ready = self.waiter.wait(limit, look).map_err(|cause| GroupError::Port(cause.to_string()))?;
        let now = self.now();
        if ready.is_some_and(|ready| ready.readable) {
            let mut sink = Sink { links: &mut self.links, by_peer: &self.by_peer, now };
            self.io
                .receive(&mut sink, TRAINS_PER_TURN)
                .map_err(|cause| GroupError::Port(cause.to_string()))?;
        }
        if due.is_some_and(|at| at <= now) {
            self.links.iter_mut().flatten().for_each(|link| link.connection.handle_timeout(now));
        }
        self.hear()
    }

    /// A rank's process is gone for certain: nothing of it is taken any more.
    pub fn exclude(&mut self, rank: u8) {
        if let Some(link) = self.links.get_mut(usize::from(rank)).and_then(Option::take) {
            self.io.remove_peer(link.peer);
            self.network.handle_dead(rank);
        }
    }

    /// What the links have to say, to the machine.
    fn hear(&mut self) -> Result<(), GroupError> {
        for rank in 0..self.links.len() {
            while let Some(link) = &mut self.links[rank]
                && let Some(event) = link.connection.poll_event()
            {
                match event {
                    Event::Received { message, span } => {
                        link.windows.remove(&message.handle);
                        let head_bytes = Network::head_bytes(message.handle).min(span.len_bytes as usize);
                        let mut head = vec![0; head_bytes];
                        let at = Span { len_bytes: head_bytes as u32, ..span };
                        self.arena.read(at, &mut head).map_err(GroupError::Access)?;
                        self.network.handle_received(rank as u8, message, span.len_bytes, &head);
                    }
                    Event::Delivered { message } => self.network.handle_sent(rank as u8, message),
                    // It said so itself: its group is dropped, and it sends nothing more.
                    Event::Gone { .. } => self.exclude(rank as u8),
                    _ => {}
                }
            }
        }
        Ok(())
    }

    /// Does what the machine wants done; the call's outcome when it is over.
    fn act(&mut self, element: Element) -> Result<Option<Result<Ranks, CallError>>, GroupError> {
        while let Some(action) = self.network.poll_action() {
            let now = self.now();
            match action {
                Action::Post { from, handle, sequence, span } => {
                    if let Some(link) = self.link(from) {
                        link.windows.insert(handle, span);
                        // A link that takes no window is ending, and its end is an event of its own.
                        let _ending = link.connection.handle_post(handle, Some(sequence), span);
                    }
                }
                Action::Withdraw { from, handle } => {
                    if let Some(link) = self.link(from) {
                        link.windows.remove(&handle);
                        link.connection.handle_withdraw(handle);
                    }
                }
                Action::Send { to, message, span } => {
                    if let Some(link) = self.link(to) {
                        let _ending = link.connection.handle_send(now, message, span);
                    }
                }
                Action::Abort { to, message } => {
                    if let Some(link) = self.link(to) {
                        link.connection.handle_abort(message);
                    }
                }
                Action::Write { span, bytes } => {
                    self.arena.write(span, &bytes).map_err(GroupError::Access)?
                }
                Action::Copy { from, to } => copy(&self.arena, from, to).map_err(GroupError::Access)?,
                Action::Reduce { token, inputs, output, elements } => {
                    let elements = Elements { element, count: elements as usize };
                    sum(&self.arena, elements, &inputs, output).map_err(GroupError::Access)?;
                    self.network.handle_reduced(token);
                }
                Action::Over(outcome) => return Ok(Some(outcome)),
                _ => {}
            }
        }
        Ok(None)
    }

    fn link(&mut self, rank: u8) -> Option<&mut Link> {
        self.links.get_mut(usize::from(rank))?.as_mut()
    }

    fn transmit(&mut self) -> Result<(), GroupError> {
        let begin = self.begin;
        let now = || Moment(begin.elapsed().as_nanos() as u64);
        for link in self.links.iter_mut().flatten() {
            loop {
                let taken = match link.taken.take() {
                    Some(taken) => taken,
                    None => match link.connection.poll_transmit_into(now(), &mut link.train) {
                        None => break,
                        Some(Next::Train) => 0,
                        Some(Next::Control(control)) => {
                            // What is not sent counts as lost.
                            let _lost = self.io.send_control(link.peer, &control.header, control.body());
                            continue;
                        }
                    },
                };
                match self.io.send_train(link.peer, &link.train[taken..]) {
                    Ok(sent) if taken + sent.chunks < link.train.len() => {
                        link.taken = Some(taken + sent.chunks)
                    }
                    Ok(_) => {}
                    Err(SendError::WouldBlock) => {
                        link.taken = Some(taken);
                        break;
                    }
                    Err(SendError::TooLarge { len_bytes }) => {
                        link.connection.handle_path_limit(now(), (len_bytes as u32).saturating_sub(1));
                    }
                    // Nobody is there, now; the link goes on asking.
                    Err(SendError::Unreachable) => break,
                    Err(error) => return Err(GroupError::Port(error.to_string())),
                }
            }
        }
        Ok(())
    }

    fn now(&self) -> Moment {
        Moment(self.begin.elapsed().as_nanos() as u64)
    }
}

struct Sink<'a> {
    links: &'a mut [Option<Link>],
    by_peer: &'a [usize],
    now: Moment,
}

impl Sink<'_> {
    fn connection(&mut self, peer: Peer) -> Option<&mut Connection> {
        let rank = *self.by_peer.get(usize::from(peer.0))?;
        self.links.get_mut(rank)?.as_mut().map(|link| &mut link.connection)
    }
}

impl DatagramSink for Sink<'_> {
    fn place(&mut self, peer: Peer, header: &Header) -> Option<Span> {
        self.connection(peer)?.place(header)
    }

    // What the connection refuses is counted there.
    fn handle_chunk(&mut self, peer: Peer, header: &Header, _span: Span) {
        let now = self.now;
        let _counted = self.connection(peer).map(|connection| connection.handle_datagram(now, header, &[]));
    }

    fn handle_unplaced(&mut self, peer: Peer, header: &Header) {
        let now = self.now;
        let _counted = self.connection(peer).map(|connection| connection.handle_unplaced(now, header));
    }

    fn handle_control(&mut self, peer: Peer, header: &Header, payload: &[u8]) {
        let now = self.now;
        let _counted =
            self.connection(peer).map(|connection| connection.handle_datagram(now, header, payload));
    }
}

/// What datagrams of `from` to `to` carry, so that another group's are none.
fn receiver(session: u64, to: usize, from: usize) -> u32 {
    let mut hasher = Hasher::default();
    for word in [session, to as u64, from as u64] {
        hasher.update(&word.to_le_bytes());
    }
    let digest = hasher.finish().0;
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
}

const TRAINS_PER_TURN: usize = 16;
const WAIT_MAX: Duration = Duration::from_millis(20);
