//! Sessions with peers, as the thread of a node or the rank of a group keeps them: handshakes over the data socket, keys to
//! the lanes of the data plane, and the sideband's to whoever has one.
//!
//! Decides nothing about sessions; `plesio_session` does. Keys go where the address is that they were made with: to the
//! lane there, or they wait here until its user wants one. A lane is kept with its keys when a node lets go of the peer, for
//! the session goes on: whoever was let go may come back, and asks over its sideband.
//!
//! A connection belongs to two lives, and so do the keys under which its datagrams go: what was sealed between others
//! is handed up as another receiver's, and nothing is sealed with keys of others. Without that, a new life of one end
//! would speak with the connection that the other end still has with the former one.

use crate::node::{Identity, draw};
use plesio_session::{
    Config, Counters, DataOpener, DataSealer, Event, Limits, Lives, NodePublic, PeerId, Refusal, Sessions,
    Suites,
};
use plesio_sideband::KeyChange;
use plesio_udp::{DatagramIo, OpenError, Peer};
use plesio_wire::data::{DATAGRAM_BYTES_MAX, HEADER_BYTES, Header, OWN_PACKET_FIRST, TAG_BYTES, VERSION};
use plesio_wire::digest::Hasher;
use plesio_wire::handshake::{self, Suite};
use plesio_wire::{Incarnation, Instant, NodeId, NodeKey};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// All sessions of a node or a rank.
pub(crate) struct Sealing {
    sessions: Sessions,
    known: BTreeMap<NodeKey, Known>,
    names: BTreeMap<PeerId, NodeKey>,
    incarnation: Incarnation,
    /// This node, if its connections and those of its peers belong to one life each.
    me: Option<NodeKey>,
    /// How many sealers there were.
    sealers: u64,
    /// What was sealed with last.
    suite: Option<Suite>,
    /// What was refused when it was last looked at.
    seen: Counters,
}

#[derive(Default)]
struct Known {
    peer: Option<PeerId>,
    /// Asked for a session until it answers.
    wanted: Option<(NodeId, SocketAddr)>,
    lane: Option<(Peer, SocketAddr)>,
    /// Whose connections run there.
    lives: Option<Lives>,
    /// The lane has a sealer.
    sealed: bool,
    /// Its user wants the lane.
    linked: bool,
    /// Connections ran under the keys there are.
    used: bool,
    /// Openers that were handed out and are not closed.
    open: usize,
    /// Keys for an address that has no lane.
    openers: Vec<(DataOpener, SocketAddr, Lives)>,
    /// For one that has none, or where connections of others run.
    sealer: Option<(DataSealer, SocketAddr, Lives)>,
}

impl Known {
    fn lane_at(&self, address: SocketAddr) -> Option<Peer> {
        self.lane.filter(|(_, known)| *known == address).map(|(lane, _)| lane)
    }

    /// Whether the connections there, if anybody cares whose they are, are those of these lives.
    fn is_of(&self, lives: Lives) -> bool {
        self.lives.is_none_or(|known| known == lives)
    }
}

/// The receiver index of what one life of a node sent to one of another.
pub(crate) fn receiver_of(to: (NodeKey, Incarnation), from: (NodeKey, Incarnation)) -> u32 {
    let mut hasher = Hasher::default();
    for (key, incarnation) in [to, from] {
        hasher.update(&key.0.to_le_bytes());
        hasher.update(&incarnation.0.to_le_bytes());
    }
    let digest = hasher.finish().0;
    u32::from_le_bytes([digest[0], digest[1], digest[2], digest[3]])
}

impl Sealing {
    /// `me`: for connections that belong to one life each of both ends, as [`receiver_of`] tells them apart; else all
    /// that is opened has receiver 0.
    pub(crate) fn new(
        now: Instant,
        identity: &Identity,
        incarnation: Incarnation,
        me: Option<NodeKey>,
    ) -> Self {
        let config = Config {
            node: identity.node.clone(),
            pool: identity.pool.clone(),
            ticket: identity.ticket,
            operators: identity.operators.clone(),
            incarnation,
            mtu: DATAGRAM_BYTES_MAX as u16,
            suites: Suites::available(),
            peers_max: PEERS_MAX,
            limits: Limits::default(),
            // Whoever shows one identity twice shall not make the same keys twice.
            seed: identity.seed.salted(draw()),
        };
        let sessions = Sessions::new(now, config);
        Self {
            sessions,
            known: BTreeMap::new(),
            names: BTreeMap::new(),
            incarnation,
            me,
            sealers: 0,
            suite: None,
            seen: Counters::default(),
        }
    }

    /// Asks a member, of whom nothing but this is known, for a session.
    pub(crate) fn seek(&mut self, now: Instant, id: NodeId, address: SocketAddr) {
        self.ask(now, id, address);
    }

    /// A lane to a peer, to a life of it where that matters, whose connections begin now.
    ///
    /// # Errors
    /// As [`DatagramIo::add_peer`].
    pub(crate) fn connect(
        &mut self,
        now: Instant,
        io: &mut dyn DatagramIo,
        id: NodeId,
        address: SocketAddr,
        life: Incarnation,
    ) -> Result<Peer, OpenError> {
        let key = id.key();
        let lives = self.me.map(|_| Lives { own: self.incarnation, peer: life });
        let lane = match self.known.get(&key).and_then(|known| known.lane_at(address)) {
            Some(lane) => lane,
            None => {
                self.close_lane(io, key);
                match io.add_peer(address) {
                    Err(OpenError::TooManyPeers { .. }) if self.close_idle(io) => io.add_peer(address)?,
                    added => added?,
                }
            }
        };
        let known = self.known.entry(key).or_default();
        known.lane = Some((lane, address));
        known.linked = true;
        if known.lives != lives {
            // Theirs may be here still, if another pair of lives was connected meanwhile: unused, or they are made anew.
            io.remove_sealer(lane);
            (known.lives, known.sealed, known.used) = (lives, false, false);
        }
        let used = std::mem::replace(&mut known.used, true);
        for (opener, _, lives) in known.openers.extract_if(.., |(_, at, _)| *at == address) {
            io.add_opener(lane, opener, receiver(self.me, key, lives));
        }
        let fits = |(_, at, of): &mut (DataSealer, SocketAddr, Lives)| {
            *at == address && lives.is_none_or(|lives| lives == *of)
        };
        if let Some((sealer, ..)) = known.sealer.take_if(fits) {
            io.set_sealer(lane, sealer);
            known.sealed = true;
        }
        let stale = used || !known.sealed;
        if let Some(peer) = self.ask(now, id, address).filter(|_| stale) {
            self.sessions.handle_rekey(now, peer);
        }
        Ok(lane)
    }

    /// Keys that are in a lane go with it: they were made with who is there.
    fn close_lane(&mut self, io: &mut dyn DatagramIo, key: NodeKey) {
        let Some(known) = self.known.get_mut(&key) else { return };
        known.sealed = false;
        if let Some((lane, _)) = known.lane.take() {
            io.remove_peer(lane);
        }
    }

    /// Makes room for a lane; a session that loses its own ends.
    fn close_idle(&mut self, io: &mut dyn DatagramIo) -> bool {
        let idle = self.known.iter().find(|(_, known)| !known.linked && known.lane.is_some());
        let Some(key) = idle.map(|(key, _)| *key) else { return false };
        self.end(io, key);
        true
    }

    /// Ends a peer's session with its lane: nothing is sent to it or opened of it any more.
    pub(crate) fn end(&mut self, io: &mut dyn DatagramIo, key: NodeKey) {
        self.close_lane(io, key);
        let Some(known) = self.known.get_mut(&key) else { return };
        (known.linked, known.wanted) = (false, None);
        if let Some(peer) = known.peer.filter(|peer| self.names.get(peer) == Some(&key)) {
            self.sessions.handle_remove(peer);
        }
    }

    /// Its user lets go of a peer, whose session may go on.
    pub(crate) fn disconnect(&mut self, io: &mut dyn DatagramIo, key: NodeKey) {
        let Some(known) = self.known.get_mut(&key) else { return };
        (known.linked, known.wanted) = (false, None);
        if let Some(peer) = known.peer.filter(|peer| self.names.get(peer) == Some(&key)) {
            self.sessions.handle_release(peer);
        }
        self.tidy(io, key);
    }

    fn ask(&mut self, now: Instant, id: NodeId, address: SocketAddr) -> Option<PeerId> {
        self.known.entry(id.key()).or_default().wanted = Some((id, address));
        let node = NodePublic { x25519: id.0, ed25519: [0; 32] };
        // Full, ourselves, or a key that is none: there is no session, so nothing passes; the machine counts.
        let peer = self.sessions.handle_connect(now, node, address).ok()?;
        self.names.insert(peer, id.key());
        self.known.entry(id.key()).or_default().peer = Some(peer);
        Some(peer)
    }

    /// A datagram of no lane, or one of a handshake.
    pub(crate) fn handle_stranger(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let foreign = datagram.first().is_some_and(|first| first >> 4 != VERSION);
        if foreign || handshake::kind_of(datagram).is_some() {
            // What is refused is counted there.
            let _ = self.sessions.handle_datagram(now, from, datagram);
            return;
        }
        // A peer that its user does not know yet shows its keys: nothing else of it is heard.
        let Ok(header) = Header::parse_sealed(datagram) else { return };
        if header.packet < OWN_PACKET_FIRST || datagram.len() != OWN_BYTES {
            return;
        }
        let mut waiting = self.known.values_mut().flat_map(|known| known.openers.iter_mut());
        let Some((opener, ..)) = waiting.find(|(opener, ..)| opener.local() == header.receiver) else {
            return;
        };
        if opener.open_data(datagram, &mut []).is_ok() {
            self.sessions.handle_own(now, header.receiver);
        }
    }

    /// The first datagram opened under this index, on either plane.
    pub(crate) fn handle_confirmed(&mut self, now: Instant, local: u32) {
        self.sessions.handle_confirmed(now, local);
    }

    /// A datagram of the session's own opened under this index.
    pub(crate) fn handle_own(&mut self, now: Instant, local: u32) {
        self.sessions.handle_own(now, local);
    }

    /// A view is in force: tickets that end before it are over, and so is the search for somebody who knows it.
    pub(crate) fn handle_view(&mut self, number: u32) {
        self.sessions.handle_view(number);
        self.known.values_mut().filter(|known| !known.linked).for_each(|known| known.wanted = None);
    }

    /// Which life of the node this is.
    pub(crate) fn handle_life(&mut self, incarnation: Incarnation) {
        if self.incarnation != incarnation {
            self.incarnation = incarnation;
            self.sessions.handle_life(incarnation);
        }
    }

    pub(crate) fn handle_timeout(&mut self, now: Instant) {
        if self.sessions.poll_timeout(now).is_some_and(|due| due <= now) {
            self.sessions.handle_timeout(now);
        }
    }

    pub(crate) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.sessions.poll_timeout(now)
    }

    /// Whether something can be sent on the peer's lane.
    pub(crate) fn is_sealed(&self, key: NodeKey) -> bool {
        self.known.get(&key).is_some_and(|known| known.sealed)
    }

    /// What was sealed with last, if there ever was a session.
    pub(crate) const fn suite(&self) -> Option<Suite> {
        self.suite
    }

    /// Whether there ever was a session.
    pub(crate) const fn is_answered(&self) -> bool {
        self.sealers > 0
    }

    /// How often there were new keys to seal with.
    #[cfg(test)]
    pub(crate) const fn key_changes(&self) -> u64 {
        self.sealers
    }

    /// How many handshake datagrams were refused.
    pub(crate) fn refused(&self) -> u64 {
        self.sessions.counters().total()
    }

    /// Causes that ask for somebody's attention and came up since the last call, for the first time ever.
    pub(crate) fn poll_refusals(&mut self) -> impl Iterator<Item = Refusal> {
        let now = *self.sessions.counters();
        let before = std::mem::replace(&mut self.seen, now);
        let told = SAID.iter().filter(move |refusal| now.of(**refusal) > 0 && before.of(**refusal) == 0);
        told.copied()
    }

    /// Sends what the sessions want sent, and gives their keys away; those of the sideband to `tell`.
    pub(crate) fn turn(
        &mut self,
        now: Instant,
        io: &mut dyn DatagramIo,
        mut tell: impl FnMut(NodeKey, KeyChange),
    ) {
        while let Some(event) = self.sessions.poll_event() {
            self.handle_event(now, io, &mut tell, event);
        }
        while let Some(transmit) = self.sessions.poll_transmit() {
            // Lost, as on the way: handshakes are repeated.
            let _ = io.send_stranger(transmit.to, transmit.as_bytes());
        }
    }

    fn handle_event(
        &mut self,
        now: Instant,
        io: &mut dyn DatagramIo,
        tell: &mut impl FnMut(NodeKey, KeyChange),
        event: Event,
    ) {
        match event {
            Event::Open { peer, node, address, lives, data, sideband: opener } => {
                let key = node.id().key();
                self.names.insert(peer, key);
                let known = self.known.entry(key).or_default();
                known.peer = Some(peer);
                known.open += 1;
                match known.lane_at(address) {
                    Some(lane) => io.add_opener(lane, data, receiver(self.me, key, lives)),
                    None => known.openers.push((data, address, lives)),
                }
                tell(key, KeyChange::Open(opener));
            }
            Event::Seal { peer, address, lives, data, sideband: sealer } => {
                self.suite = Some(data.suite());
                self.sealers += 1;
                let own = self.incarnation;
                let Some((key, known)) = self.find(peer) else { return };
                let lane = known.lane_at(address).filter(|_| known.is_of(lives));
                known.sealed = lane.is_some();
                known.used = known.linked && known.sealed;
                match lane {
                    Some(lane) => io.set_sealer(lane, data),
                    None => {
                        if let Some((lane, _)) = known.lane {
                            io.remove_sealer(lane);
                        }
                        known.sealer = Some((data, address, lives));
                    }
                }
                // Asked for by a former life of this node; of a later one of the peer, its user hears in time.
                let is_old = known.linked && self.me.is_some() && lives.own != own;
                tell(key, KeyChange::Seal(sealer));
                if is_old {
                    self.sessions.handle_rekey(now, peer);
                }
            }
            Event::Close { peer, local } => {
                let Some((key, known)) = self.find(peer) else { return };
                known.open = known.open.saturating_sub(1);
                known.openers.retain(|(opener, ..)| opener.local() != local);
                if let Some((lane, _)) = known.lane {
                    io.remove_opener(lane, local);
                }
                tell(key, KeyChange::Close(local));
                self.tidy(io, key);
            }
            Event::Expire { peer } => {
                let Some((key, known)) = self.find(peer) else { return };
                known.sealer = None;
                known.sealed = false;
                if let Some((lane, _)) = known.lane {
                    io.remove_sealer(lane);
                }
                tell(key, KeyChange::Expire);
                self.tidy(io, key);
            }
            Event::Fail { peer } => {
                let wanted = self.find(peer).and_then(|(_, known)| known.wanted);
                if let Some((id, address)) = wanted {
                    self.ask(now, id, address);
                }
            }
            _ => {}
        }
    }

    fn find(&mut self, peer: PeerId) -> Option<(NodeKey, &mut Known)> {
        let key = *self.names.get(&peer)?;
        Some((key, self.known.get_mut(&key)?))
    }

    /// Closes the lane of a peer whose session is over and whom its user does not want.
    fn tidy(&mut self, io: &mut dyn DatagramIo, key: NodeKey) {
        let idle = |known: &Known| !known.linked && known.open == 0 && known.wanted.is_none();
        if self.known.get(&key).is_some_and(idle) {
            self.close_lane(io, key);
            self.known.remove(&key);
        }
    }
}

/// What a lane hands up with what was sealed between these lives.
fn receiver(me: Option<NodeKey>, peer: NodeKey, lives: Lives) -> u32 {
    me.map_or(0, |me| receiver_of((me, lives.own), (peer, lives.peer)))
}

/// Members, observers, former members, and some who only shook hands.
const PEERS_MAX: u16 = 64;
/// Refusals that mean that a node was set up wrongly, or that somebody tries the door.
const SAID: [Refusal; 9] = [
    Refusal::Version,
    Refusal::Pool,
    Refusal::Mac1,
    Refusal::Handshake,
    Refusal::TicketSignature,
    Refusal::TicketExpire,
    Refusal::OwnKey,
    Refusal::Suite,
    Refusal::Full,
];
const OWN_BYTES: usize = HEADER_BYTES + TAG_BYTES;
