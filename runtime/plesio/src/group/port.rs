//! A rank's socket and its links to the other ranks: what they have to send goes out, what comes is handed to them.

use super::GroupError;
use super::network::NetworkPlan;
use plesio_memory::Arena;
use plesio_proto::{Config, Congestion, Connection, Event, Next, Train};
use plesio_udp::{
    DatagramIo, DatagramSink, Peer, Placement, Protection, SendError, SocketConfig, Waiter, Waker, open,
};
use plesio_wire::data::{Header, MessageId};
use plesio_wire::digest::Hasher;
use plesio_wire::{Instant as Moment, Span};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The link to one other rank.
struct Link {
    connection: Connection,
    peer: Peer,
    train: Box<Train>,
    /// How much of the train the socket has taken, while there is a rest.
    taken: Option<usize>,
}

pub(super) struct Port {
    io: Box<dyn DatagramIo>,
    notes: Vec<String>,
    /// By rank; none to this one, or to one that is gone.
    links: Vec<Option<Link>>,
    /// Rank of every peer of the port.
    by_peer: Vec<usize>,
    begin: Instant,
    waiter: Waiter,
}

impl Port {
    pub(super) fn open(plan: &NetworkPlan, arena: &Arena) -> Result<Self, GroupError> {
        if plan.protection == Protection::Sealed {
            return Err(GroupError::Plan {
                rule: "a group by datagrams has no keys: its network has to be trusted",
            });
        }
        let placement = Placement::for_chunk(plan.chunk_bytes, false);
        let config = SocketConfig { protection: plan.protection, placement, ..SocketConfig::new(plan.bind) };
        let opened = open(plan.backend, &config, arena.clone()).map_err(GroupError::Open)?;
        Ok(Self {
            io: opened.io,
            notes: opened.notes,
            links: (0..plan.ranks).map(|_| None).collect(),
            by_peer: Vec::new(),
            begin: Instant::now(),
            waiter: Waiter::new(plan.wait),
        })
    }

    pub(super) fn ranks(&self) -> usize {
        self.links.len()
    }

    pub(super) fn local_address(&self) -> SocketAddr {
        self.io.local_address()
    }

    pub(super) fn notes(&self) -> &[String] {
        &self.notes
    }

    /// Ends a wait from another thread.
    pub(super) fn waker(&self) -> Waker {
        self.io.waker()
    }

    /// Links to where all others are.
    pub(super) fn meet(&mut self, plan: &NetworkPlan, addresses: &[SocketAddr]) -> Result<(), GroupError> {
        let here = addresses.iter().all(|address| address.ip().to_canonical().is_loopback());
        let budget = self.io.receive_buffer_bytes() as u64 / 2;
        let me = usize::from(plan.rank);
        for (rank, address) in addresses.iter().enumerate().filter(|(rank, _)| *rank != me) {
            let peer = self.io.add_peer(*address).map_err(GroupError::Open)?;
            let place = usize::from(peer.0);
            self.by_peer.resize(self.by_peer.len().max(place + 1), 0);
            self.by_peer[place] = rank;
            let config = Config {
                local: receiver(plan.session, me, rank),
                remote: receiver(plan.session, rank, me),
                chunk_bytes: plan.chunk_bytes,
                search: !here,
                window_bytes: budget,
                receive_budget_bytes: budget.max(plan.chunk_bytes.into()),
                congestion: if here { Congestion::Credit } else { Congestion::RateDelay },
                ..Config::default()
            };
            let connection = Connection::new(&config, self.now()).map_err(|_| GroupError::Plan {
                rule: "its chunks are a multiple of 64 bytes, 64 to 65,408",
            })?;
            self.links[rank] = Some(Link { connection, peer, train: Box::default(), taken: None });
        }
        Ok(())
    }

    /// Nothing more goes to a rank or is taken of it. Whether there was a link.
    pub(super) fn exclude(&mut self, rank: usize) -> bool {
        let link = self.links.get_mut(rank).and_then(Option::take);
        link.inspect(|link| self.io.remove_peer(link.peer)).is_some()
    }

    // A link that takes no window or message is ending, and its end is an event of its own.

    pub(super) fn post(&mut self, from: u8, handle: u16, sequence: u16, span: Span) {
        if let Some(link) = self.link(from) {
            let _ending = link.connection.handle_post(handle, Some(sequence), span);
        }
    }

    pub(super) fn withdraw(&mut self, from: u8, handle: u16) {
        if let Some(link) = self.link(from) {
            link.connection.handle_withdraw(handle);
        }
    }

    pub(super) fn send(&mut self, to: u8, message: MessageId, span: Span) {
        let now = self.now();
        if let Some(link) = self.link(to) {
            let _ending = link.connection.handle_send(now, message, span);
        }
    }

    pub(super) fn abort(&mut self, to: u8, message: MessageId) {
        if let Some(link) = self.link(to) {
            link.connection.handle_abort(message);
        }
    }

    /// The next thing that a link has to say, and whose it is.
    pub(super) fn poll_event(&mut self) -> Option<(usize, Event)> {
        let links = self.links.iter_mut().enumerate();
        links.filter_map(|(rank, link)| Some((rank, link.as_mut()?.connection.poll_event()?))).next()
    }

    /// Waits at most so long for something to come, and takes it; whether something came.
    pub(super) fn receive(&mut self, limit: Duration) -> Result<(), GroupError> {
        let now = self.now();
        let due = self.links.iter().flatten().filter_map(|link| link.connection.poll_timeout()).min();
        let limit = due.map_or(limit, |at| Duration::from_nanos(at.since(now)).min(limit));
        let io = &mut self.io;
        let look = |limit| io.wait(Some(limit)).map(|ready| (!ready.timed_out).then_some(ready));
        let ready = self.waiter.wait(limit, look).map_err(|cause| GroupError::Port(cause.to_string()))?;
        let now = self.now();
        if ready.is_some_and(|ready| ready.readable) {
            let mut sink = Sink { links: &mut self.links, by_peer: &self.by_peer, now };
            let received = self.io.receive(&mut sink, TRAINS_PER_TURN);
            received.map_err(|cause| GroupError::Port(cause.to_string()))?;
        }
        if due.is_some_and(|at| at <= now) {
            self.links.iter_mut().flatten().for_each(|link| link.connection.handle_timeout(now));
        }
        Ok(())
    }

    /// Sends what is due, as far as the socket takes it.
    pub(super) fn transmit(&mut self) -> Result<(), GroupError> {
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

    /// Whether everything that was to be sent has arrived.
    pub(super) fn is_settled(&self) -> bool {
        self.links.iter().flatten().all(|link| link.connection.stats().messages == 0)
    }

    /// Tells all others that nothing more comes from here.
    pub(super) fn say_goodbye(&mut self) {
        for link in self.links.iter_mut().flatten() {
            // What is left of a train would go first, to no purpose.
            link.taken = None;
            link.connection.handle_close(REASON_LEFT);
        }
        // Whoever does not hear it waits until its deadline.
        let _unheard = self.transmit();
    }

    fn link(&mut self, rank: u8) -> Option<&mut Link> {
        self.links.get_mut(usize::from(rank))?.as_mut()
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
/// Why a rank says goodbye: it has left.
const REASON_LEFT: u16 = 1;
