//! A rank's socket and its links to the other ranks: what they have to send goes out, what comes is handed to them.
//!
//! Sealed, a link sleeps while its rank and this one have no session: nothing is sent, and no time runs for it.

use super::GroupError;
use super::network::NetworkPlan;
use crate::node::{Identity, Protection};
use crate::sealing::Sealing;
use plesio_collective::Ranks;
use plesio_memory::Arena;
use plesio_proto::{Config, Congestion, Connection, Event, Next, Train};
use plesio_session::{Refusal, SealError, Suites};
use plesio_udp::{
    Counters, DatagramIo, DatagramSink, Peer, Placement, SendError, SocketConfig, Waiter, Waker, open,
};
use plesio_wire::data::{Header, MessageId, TAG_BYTES};
use plesio_wire::digest::Hasher;
use plesio_wire::handshake::Suite;
use plesio_wire::{Incarnation, Instant as Moment, NodeId, NodeKey, Span};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

/// The link to one other rank.
struct Link {
    connection: Connection,
    peer: Peer,
    /// Whose it is, in a sealed group.
    key: NodeKey,
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
    sealing: Option<Sealing>,
    begin: Instant,
    waiter: Waiter,
}

impl Port {
    pub(super) fn open(plan: &NetworkPlan, arena: &Arena) -> Result<Self, GroupError> {
        let begin = Instant::now();
        let sealing = match &plan.protection {
            Protection::Sealed(identity) => Some(sealing(plan, identity)?),
            Protection::Plaintext => None,
        };
        let opens_apart = sealing.is_some() && Suites::available().opens_apart();
        let placement = Placement::for_chunk(plan.chunk_bytes, opens_apart);
        let protection = plan.protection.of_socket(plan.trust);
        let config = SocketConfig { protection, placement, ..SocketConfig::new(plan.bind) };
        let opened = open(plan.backend, &config, arena.clone()).map_err(GroupError::Open)?;
        Ok(Self {
            io: opened.io,
            notes: opened.notes,
            links: (0..plan.ranks).map(|_| None).collect(),
            by_peer: Vec::new(),
            sealing,
            begin,
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
        let now = self.now();
        for (rank, address) in addresses.iter().enumerate().filter(|(rank, _)| *rank != me) {
            let id = plan.ids.get(rank).copied().unwrap_or_default();
            let peer = match &mut self.sealing {
                Some(sealing) => {
                    sealing.connect(now, self.io.as_mut(), id, *address, Incarnation(plan.session))
                }
                None => self.io.add_peer(*address),
            };
            let peer = peer.map_err(GroupError::Open)?;
            let place = usize::from(peer.0);
            self.by_peer.resize(self.by_peer.len().max(place + 1), 0);
            self.by_peer[place] = rank;
            // What is sealed has the index of its session, which is looked at where it is opened.
            let index = |to, from| if self.sealing.is_some() { 0 } else { receiver(plan.session, to, from) };
            let config = Config {
                local: index(me, rank),
                remote: index(rank, me),
                chunk_bytes: plan.chunk_bytes,
                search: !here,
                tag_bytes: if self.sealing.is_some() { TAG_BYTES as u32 } else { 0 },
                window_bytes: budget,
                receive_budget_bytes: budget.max(plan.chunk_bytes.into()),
                congestion: if here { Congestion::Credit } else { Congestion::RateDelay },
                ..Config::default()
            };
            let connection = Connection::new(&config, self.now()).map_err(|_| GroupError::Plan {
                rule: "its chunks are a multiple of 64 bytes, 64 to 65,408",
            })?;
            let key = id.key();
            self.links[rank] = Some(Link { connection, peer, key, train: Box::default(), taken: None });
        }
        self.seal(now);
        Ok(())
    }

    /// Nothing more goes to a rank or is taken of it. Whether there was a link.
    pub(super) fn exclude(&mut self, rank: usize) -> bool {
        let Some(link) = self.links.get_mut(rank).and_then(Option::take) else { return false };
        match &mut self.sealing {
            Some(sealing) => sealing.end(self.io.as_mut(), link.key),
            None => self.io.remove_peer(link.peer),
        }
        true
    }

    /// What has happened at the socket.
    pub(super) fn counters(&self) -> Counters {
        self.io.counters()
    }

    /// What is sealed with; none in plaintext, or before there was a session.
    pub(super) fn suite(&self) -> Option<Suite> {
        self.sealing.as_ref().and_then(Sealing::suite)
    }

    /// How often this rank got keys to seal with.
    #[cfg(test)]
    pub(super) fn key_changes(&self) -> u64 {
        self.sealing.as_ref().map_or(0, Sealing::key_changes)
    }

    /// So much time passes for this rank at once.
    #[cfg(test)]
    pub(super) fn advance(&mut self, by: Duration) {
        self.begin -= by;
    }

    /// Ranks to which there is no session, where there has to be one, and a handshake's refusal that may say why.
    pub(super) fn unmet(&mut self) -> Option<(Ranks, Option<Refusal>)> {
        let sealing = self.sealing.as_mut()?;
        let links = self.links.iter().enumerate().filter_map(|(rank, link)| Some((rank, link.as_ref()?)));
        let without = links.filter(|(_, link)| !sealing.is_sealed(link.key));
        let unmet = without.fold(Ranks::default(), |ranks, (rank, _)| ranks.with(rank));
        (!unmet.is_empty()).then(|| (unmet, sealing.poll_refusals().next()))
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
        let links = self.links.iter().flatten().filter(|link| is_awake(&self.sealing, link));
        let handshakes = self.sealing.as_ref().and_then(|sealing| sealing.poll_timeout(now));
        let due = links.filter_map(|link| link.connection.poll_timeout()).chain(handshakes).min();
        let limit = due.map_or(limit, |at| Duration::from_nanos(at.since(now)).min(limit));
        let io = &mut self.io;
        let look = |limit| io.wait(Some(limit)).map(|ready| (!ready.timed_out).then_some(ready));
        let ready = self.waiter.wait(limit, look).map_err(|cause| GroupError::Port(cause.to_string()))?;
        let now = self.now();
        if ready.is_some_and(|ready| ready.readable) {
            let sealing = self.sealing.as_mut();
            let mut sink = Sink { links: &mut self.links, by_peer: &self.by_peer, sealing, now };
            let received = self.io.receive(&mut sink, TRAINS_PER_TURN);
            received.map_err(|cause| GroupError::Port(cause.to_string()))?;
        }
        let is_due = due.is_some_and(|at| at <= now);
        for link in self.links.iter_mut().flatten().filter(|_| is_due) {
            if is_awake(&self.sealing, link) {
                link.connection.handle_timeout(now);
            }
        }
        self.seal(now);
        Ok(())
    }

    /// Moves the sessions: what is due, what is to be sent, and the keys that have changed.
    fn seal(&mut self, now: Moment) {
        if let Some(sealing) = &mut self.sealing {
            sealing.handle_timeout(now);
            // There is no sideband whose keys anybody wants.
            sealing.turn(now, self.io.as_mut(), |_, _| {});
        }
    }

    /// Sends what is due, as far as the socket takes it.
    pub(super) fn transmit(&mut self) -> Result<(), GroupError> {
        let begin = self.begin;
        let now = || Moment(begin.elapsed().as_nanos() as u64);
        for link in self.links.iter_mut().flatten() {
            while is_awake(&self.sealing, link) {
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
                    // With the keys that come next, where these are used up.
                    Err(
                        SendError::WouldBlock | SendError::Seal(SealError::NoSession | SealError::Exhausted),
                    ) => {
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

/// Whether a link can send.
fn is_awake(sealing: &Option<Sealing>, link: &Link) -> bool {
    sealing.as_ref().is_none_or(|sealing| sealing.is_sealed(link.key))
}

/// The sessions of a rank: with ranks of this group only, and under keys that no other group has.
fn sealing(plan: &NetworkPlan, identity: &Identity) -> Result<Sealing, GroupError> {
    let ids = &plan.ids;
    let is_twice = |id: &NodeId| ids.iter().filter(|other| other.key() == id.key()).count() > 1;
    if ids.len() != usize::from(plan.ranks) || ids.iter().any(is_twice) {
        return Err(GroupError::Plan { rule: "a sealed group has one id for each rank, no two alike" });
    }
    if ids[usize::from(plan.rank)] != identity.node.public().id() {
        return Err(GroupError::Plan { rule: "a sealed rank's id is the one that its key makes" });
    }
    identity.check().map_err(GroupError::Ticket)?;
    let own = Identity { pool: identity.pool.of_group(plan.session), ..identity.clone() };
    let mut sealing = Sealing::new(Moment(0), &own, Incarnation(plan.session), None);
    // A group has no views: every ticket that counts in the first one counts.
    sealing.handle_view(0);
    Ok(sealing)
}

struct Sink<'a> {
    links: &'a mut [Option<Link>],
    by_peer: &'a [usize],
    sealing: Option<&'a mut Sealing>,
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

    fn handle_confirmed(&mut self, _peer: Peer, local: u32) {
        if let Some(sealing) = &mut self.sealing {
            sealing.handle_confirmed(self.now, local);
        }
    }

    fn handle_own(&mut self, _peer: Peer, local: u32) {
        if let Some(sealing) = &mut self.sealing {
            sealing.handle_own(self.now, local);
        }
    }

    fn handle_stranger(&mut self, from: SocketAddr, datagram: &[u8]) {
        if let Some(sealing) = &mut self.sealing {
            sealing.handle_stranger(self.now, from, datagram);
        }
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
