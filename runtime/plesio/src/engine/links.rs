//! The sessions with every peer, served in turn.
//!
//! Two members exchange contributions and results in a session that lasts one view: afterwards ranges differ, and a
//! slot that is sent again under its own number must not be taken for the one received before. Beside it stand two
//! that last as long as both lives do, because who follows without a seat or needs a snapshot is in another view. Each
//! has a channel of packet numbers, which says whom a datagram is for.
//!
//! On this host nothing queues but a receive buffer of the peer's own: there credit is all. On the way to any other
//! trains are paced, chunks are as large as the path carries, and what peers may send is granted out of one budget.

mod budget;

use crate::sealing::receiver_of;
use budget::Budget;
use plesio_proto::{Config, Congestion, Connection, Event, Grants, Next, Stats, Train};
use plesio_wire::data::{CHANNEL_MAX, HEADER_BYTES, TAG_BYTES, channel_of};
use plesio_wire::digest::Hasher;
use plesio_wire::{Incarnation, Instant, NodeKey};
use std::cell::Cell;
use std::collections::BTreeMap;

/// A node's life: receiver indices are drawn from both ends' lives, so a stale session never matches.
type Life = (NodeKey, Incarnation);

#[derive(Debug)]
struct Link {
    incarnation: Incarnation,
    /// It is on this host.
    near: bool,
    /// Everything with an observer: lasts as long as both lives do.
    standing: Session,
    /// Snapshots: as long, with little in flight, so that results do not wait behind a state that takes its time.
    bulk: Session,
    /// Contributions and results between two members of one view.
    view: Option<(u32, Session)>,
    /// Since when the peer is neither member nor observer.
    gone: Option<Instant>,
    /// When it asked to be let in last.
    asked: Option<Instant>,
    seen: Seen,
}

/// What was found when a link's sessions were looked at last; void as soon as one of them is touched. A node that does
/// something hundreds of times a second does it with one peer, and need not ask all sessions of all others each time.
#[derive(Debug, Default)]
struct Seen {
    /// The next moment at which time alone changes something.
    due: Cell<Option<Option<Instant>>>,
    /// They have nothing to send before that.
    at_rest: bool,
    /// They have nothing to tell.
    is_silent: bool,
    /// No peer waits for a grant.
    is_granted: bool,
}

#[derive(Debug)]
struct Session {
    channel: u32,
    /// Its name in the budget.
    key: u32,
    connection: Connection,
}

/// Payload of a node in all, each byte once as far as that is known.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flow {
    pub(super) sent_bytes: u64,
    pub(super) delivered_bytes: u64,
    pub(super) received_bytes: u64,
}

impl Flow {
    fn add(&mut self, stats: &Stats) {
        self.sent_bytes += stats.sent_bytes.saturating_sub(stats.retransmitted_bytes);
        self.delivered_bytes += stats.delivered_bytes;
        self.received_bytes += stats.received_bytes;
    }
}

#[derive(Debug)]
pub(super) struct Links {
    mesh: u64,
    me: Life,
    chunk_bytes: u32,
    receive_buffer_bytes: u64,
    window_bytes: u64,
    budget: Budget,
    /// Datagrams are found by the keys that open them, and need no receiver index.
    sealed: bool,
    links: BTreeMap<NodeKey, Link>,
    /// The peer served last: the next train comes from the one after it.
    last: NodeKey,
    retransmitted_bytes: u64,
    /// What sessions that are over have done.
    ended: Flow,
}

impl Links {
    pub(super) fn new(
        mesh: u64,
        me: Life,
        chunk_bytes: u32,
        receive_buffer_bytes: u64,
        sealed: bool,
    ) -> Self {
        // However little the kernel grants, a chunk has to fit.
        let receive_buffer_bytes = receive_buffer_bytes.max(4 * u64::from(chunk_bytes));
        let window_bytes = (receive_buffer_bytes / 2).min(WINDOW_BYTES_MAX);
        Self {
            mesh,
            me,
            chunk_bytes,
            receive_buffer_bytes,
            window_bytes,
            budget: Budget::new(window_bytes, chunk_bytes),
            sealed,
            links: BTreeMap::new(),
            last: NodeKey(0),
            retransmitted_bytes: 0,
            ended: Flow::default(),
        }
    }

    /// From here on this node is another incarnation; all connections were closed.
    pub(super) fn begin_life(&mut self, incarnation: Incarnation) {
        self.me.1 = incarnation;
    }

    /// Makes sure there is a connection to this life of `peer`, which is on this host or not; true when it is new.
    pub(super) fn open(&mut self, now: Instant, peer: NodeKey, incarnation: Incarnation, near: bool) -> bool {
        if peer == self.me.0 {
            return false;
        }
        if let Some(link) = self.links.get_mut(&peer).filter(|link| link.incarnation == incarnation) {
            link.gone = None;
            return false;
        }
        self.close(peer);
        let life = (peer, incarnation);
        let standing = self.session(now, life, near, (0, STANDING), self.window_bytes);
        let bulk_bytes = BULK_WINDOW_BYTES.min(self.window_bytes);
        let bulk = self.session(now, life, near, (BULK_ERA, BULK), bulk_bytes);
        let seen = Seen::default();
        self.links.insert(
            peer,
            Link { incarnation, near, standing, bulk, view: None, gone: None, asked: None, seen },
        );
        true
    }

    /// The life of `peer` that there is a connection to asks to be let in.
    pub(super) fn handle_asking(&mut self, now: Instant, peer: NodeKey) {
        if let Some(link) = self.links.get_mut(&peer) {
            link.asked = Some(now);
        }
    }

    /// Whether another life of `peer` than this one has just asked to be let in.
    pub(super) fn asks_already(&self, now: Instant, peer: NodeKey, life: Incarnation) -> bool {
        let link = self.links.get(&peer).filter(|link| link.incarnation != life);
        link.and_then(|link| link.asked).is_some_and(|asked| now.since(asked) < ASKING_NS)
    }

    /// Begins the session of a view in which both have a seat, or ends the one there is; true when it is new. A connection to
    /// another life of the peer than the view seats has none.
    pub(super) fn open_view(&mut self, now: Instant, (peer, life): Life, view: Option<u32>) -> bool {
        let Some(link) = self.links.get(&peer) else { return false };
        let view = view.filter(|_| link.incarnation == life);
        if link.view.as_ref().map(|(number, _)| *number) == view {
            return false;
        }
        let (life, near) = ((peer, link.incarnation), link.near);
        let session = view.map(|number| {
            let era = (number.wrapping_add(1), channel_of_view(number));
            (number, self.session(now, life, near, era, self.window_bytes))
        });
        let link = self.links.get_mut(&peer).expect("was found above");
        let ended = std::mem::replace(&mut link.view, session);
        link.seen = Seen::default();
        if let Some((_, session)) = ended {
            self.end(&session);
        }
        view.is_some()
    }

    fn session(
        &mut self,
        now: Instant,
        peer: Life,
        near: bool,
        (era, channel): (u32, u32),
        window_bytes: u64,
    ) -> Session {
        let index = |to, from| match self.sealed {
            // What goes out has the index of its keys.
            true => receiver_of(to, from),
            false => self.receiver(to, from, era),
        };
        let config = Config {
            local: index(self.me, peer),
            remote: index(peer, self.me),
            channel,
            chunk_bytes: self.chunk_bytes,
            search: !near,
            tag_bytes: if self.sealed { TAG_BYTES as u32 } else { 0 },
            window_bytes,
            receive_budget_bytes: self.window_bytes,
            receive_buffer_bytes: self.receive_buffer_bytes,
            grants: if near { Grants::Own } else { Grants::Shared },
            congestion: if near { Congestion::Credit } else { Congestion::RateDelay },
            ..Config::default()
        };
        let connection = Connection::new(&config, now).expect("the node checked its chunk size");
        Session { channel, key: self.budget.name(), connection }
    }

    /// Drops the connection; true when there was one.
    pub(super) fn close(&mut self, peer: NodeKey) -> bool {
        let Some(mut link) = self.links.remove(&peer) else { return false };
        for session in link.sessions() {
            self.end(session);
        }
        true
    }

    /// What a session did counts when it is over, too.
    fn end(&mut self, session: &Session) {
        let stats = session.connection.stats();
        self.retransmitted_bytes += stats.retransmitted_bytes;
        self.ended.add(&stats);
        self.budget.forget(session.key);
    }

    /// What went over all sessions so far.
    pub(super) fn flow(&self) -> Flow {
        let mut flow = self.ended;
        for session in self.links.values().flat_map(Link::views) {
            flow.add(&session.connection.stats());
        }
        flow
    }

    /// The peer is no member and no observer any more, but may still need the state to learn that: true when it had
    /// its time and is to be closed.
    pub(super) fn is_over(&mut self, now: Instant, peer: NodeKey) -> bool {
        let Some(link) = self.links.get_mut(&peer) else { return true };
        let since = *link.gone.get_or_insert(now);
        let life = link.incarnation;
        self.open_view(now, (peer, life), None);
        now.since(since) >= FORMER_NS || self.links.len() > LINKS_MAX
    }

    pub(super) fn peers(&self) -> Vec<NodeKey> {
        self.links.keys().copied().collect()
    }

    /// The session that a datagram of `peer` is for.
    pub(super) fn addressed(&self, peer: NodeKey, packet: u64) -> Option<&Connection> {
        let link = self.links.get(&peer)?;
        let session = link.views().find(|session| session.channel == channel_of(packet));
        Some(&session.unwrap_or(&link.standing).connection)
    }

    /// The same, to take the datagram.
    pub(super) fn addressed_mut(&mut self, peer: NodeKey, packet: u64) -> Option<&mut Connection> {
        let link = self.links.get_mut(&peer)?;
        let at = link.views().position(|session| session.channel == channel_of(packet));
        let standing = usize::from(link.view.is_some());
        link.sessions().nth(at.unwrap_or(standing)).map(|session| &mut session.connection)
    }

    /// The session for contributions and results.
    pub(super) fn exchange_mut(&mut self, peer: NodeKey) -> Option<&mut Connection> {
        let link = self.links.get_mut(&peer)?;
        link.seen = Seen::default();
        let view = link.view.as_mut();
        Some(view.map_or(&mut link.standing.connection, |(_, session)| &mut session.connection))
    }

    /// The session that lasts as long as both lives do.
    pub(super) fn standing_mut(&mut self, peer: NodeKey) -> Option<&mut Connection> {
        self.links.get_mut(&peer).map(|link| {
            link.seen = Seen::default();
            &mut link.standing.connection
        })
    }

    /// The session for snapshots.
    pub(super) fn bulk_mut(&mut self, peer: NodeKey) -> Option<&mut Connection> {
        self.links.get_mut(&peer).map(|link| {
            link.seen = Seen::default();
            &mut link.bulk.connection
        })
    }

    /// Payload of snapshots that came from a peer, or that it has taken.
    pub(super) fn bulk_bytes(&self, peer: NodeKey) -> u64 {
        let Some(link) = self.links.get(&peer) else { return 0 };
        let stats = link.bulk.connection.stats();
        let taken = stats.sent_bytes.saturating_sub(stats.retransmitted_bytes + stats.in_flight_bytes);
        taken + stats.received_bytes
    }

    /// Payload of snapshots that came from anybody connected.
    pub(super) fn bulk_received_bytes(&self) -> u64 {
        self.links.values().map(|link| link.bulk.connection.stats().received_bytes).sum()
    }

    /// All sessions with a peer.
    pub(super) fn sessions_mut(&mut self, peer: NodeKey) -> impl Iterator<Item = &mut Connection> {
        self.links.get_mut(&peer).into_iter().flat_map(Link::sessions).map(|session| &mut session.connection)
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        for link in self.links.values_mut().filter(|link| link.due().is_some_and(|due| due <= now)) {
            link.sessions().for_each(|session| session.connection.handle_timeout(now));
        }
    }

    /// What came in is taken: who waits for a grant gets it, as far as the budget goes.
    pub(super) fn grant(&mut self, now: Instant) {
        for link in self.links.values_mut().filter(|link| !link.near && !link.seen.is_granted) {
            let mut waits = false;
            for session in link.views() {
                waits |= self.budget.handle_session(now, session.key, &session.connection);
            }
            link.seen.is_granted = !waits;
        }
        while let Some((key, bytes)) = self.budget.poll_grant() {
            let is_it = |link: &&mut Link| link.views().any(|session| session.key == key);
            let link = self.links.values_mut().find(is_it);
            if let Some(session) = link.and_then(|link| link.sessions().find(|session| session.key == key)) {
                session.connection.handle_grant(bytes);
            }
        }
    }

    /// The way to a peer took no datagram with so much payload.
    pub(super) fn handle_path_limit(&mut self, now: Instant, peer: NodeKey, payload_bytes: u32) {
        let around_bytes = (HEADER_BYTES + if self.sealed { TAG_BYTES } else { 0 }) as u32;
        for connection in self.sessions_mut(peer) {
            connection.handle_path_limit(now, around_bytes + payload_bytes.saturating_sub(1));
        }
    }

    /// Per peer: what messages are cut by now, and whether they are paced.
    pub(super) fn ways(&self) -> impl Iterator<Item = (NodeKey, u32, Congestion)> {
        self.links.iter().map(|(peer, link)| {
            let session = link.view.as_ref().map_or(&link.standing, |(_, session)| session);
            let congestion = if link.near { Congestion::Credit } else { Congestion::RateDelay };
            (*peer, session.connection.stats().chunk_bytes, congestion)
        })
    }

    /// The next train, into the caller's, or a control datagram; round robin.
    pub(super) fn poll_transmit_into(&mut self, now: Instant, train: &mut Train) -> Option<(NodeKey, Next)> {
        let last = self.last;
        let mut next = |link: &mut Link| {
            if link.seen.at_rest && link.due().is_none_or(|due| now < due) {
                return None;
            }
            let seen = std::mem::take(&mut link.seen);
            let next = link.sessions().find_map(|s| s.connection.poll_transmit_into(now, train));
            if next.is_none() && link.views().all(|session| session.connection.is_idle()) {
                link.seen = Seen { due: Cell::default(), at_rest: true, ..seen };
            }
            next
        };
        let after = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
        let mut found = self.links.range_mut(after).find_map(|(peer, link)| Some((*peer, next(link)?)));
        if found.is_none() {
            found = self.links.range_mut(..=last).find_map(|(peer, link)| Some((*peer, next(link)?)));
        }
        if let Some((peer, _)) = &found {
            self.last = *peer;
        }
        found
    }

    pub(super) fn poll_event(&mut self) -> Option<(NodeKey, Event)> {
        self.links.iter_mut().filter(|(_, link)| !link.seen.is_silent).find_map(|(peer, link)| {
            let event = link.sessions().find_map(|session| session.connection.poll_event());
            link.seen.is_silent = event.is_none();
            event.map(|event| (*peer, event))
        })
    }

    pub(super) fn poll_timeout(&self) -> Option<Instant> {
        self.links.values().filter_map(Link::due).min()
    }

    pub(super) fn retransmitted_bytes(&self) -> u64 {
        let sessions = self.links.values().flat_map(Link::views);
        let live: u64 = sessions.map(|session| session.connection.stats().retransmitted_bytes).sum();
        live + self.retransmitted_bytes
    }

    fn receiver(&self, receiver: Life, sender: Life, era: u32) -> u32 {
        let mut hasher = Hasher::default();
        hasher.update(&self.mesh.to_le_bytes());
        for (key, incarnation) in [receiver, sender] {
            hasher.update(&key.0.to_le_bytes());
            hasher.update(&incarnation.0.to_le_bytes());
        }
        hasher.update(&era.to_le_bytes());
        let digest = hasher.finish().0;
        u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
    }
}

impl Link {
    /// The view's session before the standing one, snapshots last; whatever was seen of them is void.
    fn sessions(&mut self) -> impl Iterator<Item = &mut Session> {
        self.seen = Seen::default();
        self.view.iter_mut().map(|(_, session)| session).chain([&mut self.standing, &mut self.bulk])
    }

    /// When something is due.
    fn due(&self) -> Option<Instant> {
        if let Some(due) = self.seen.due.get() {
            return due;
        }
        let due = self.views().filter_map(|session| session.connection.poll_timeout()).min();
        self.seen.due.set(Some(due));
        due
    }

    fn views(&self) -> impl Iterator<Item = &Session> {
        self.view.iter().map(|(_, session)| session).chain([&self.standing, &self.bulk])
    }
}

/// Channels of the two that stand.
const STANDING: u32 = 0;
const BULK: u32 = 1;

const fn channel_of_view(number: u32) -> u32 {
    2 + number % (CHANNEL_MAX - 1)
}

/// What tells the session of snapshots from those of views, which are numbered from 1, and the standing one, 0.
const BULK_ERA: u32 = u32::MAX;
/// Payload of a snapshot in flight: on a slow link, what a result waits for.
const BULK_WINDOW_BYTES: u64 = 32 << 10;
/// Payload in flight on one session, however large the buffers: what its packets are remembered for.
const WINDOW_BYTES_MAX: u64 = 4 << 20;
/// How long one that was removed can still fetch the state from here.
const FORMER_NS: u64 = 60_000_000_000;
/// Beyond so many peers those that were removed are let go at once.
const LINKS_MAX: usize = 48;
/// A life that asks does so every tenth of a second; one that has not for so long may have been followed by another.
const ASKING_NS: u64 = 500_000_000;
