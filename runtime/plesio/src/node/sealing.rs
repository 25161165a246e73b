//! Sessions with peers, as the node's thread keeps them: handshakes over the data socket, keys to the lanes of the data
//! plane and to the sideband's thread.
//!
//! Decides nothing about sessions; `plesio_session` does. Keys go where the address is that they were made with: to the
//! lane there, or they wait here until the engine wants one. A lane is kept with its keys when the engine lets go of the
//! peer, for the session goes on: whoever was let go may come back, and asks over its sideband.

use super::{Identity, Seed};
use plesio_session::{
    Config, Counters, DataOpener, DataSealer, Event, Limits, NodePublic, PeerId, Refusal, Sessions, Suites,
};
use plesio_sideband::{KeyChange, Sideband};
use plesio_udp::{DatagramIo, OpenError, Peer};
use plesio_wire::data::{DATAGRAM_BYTES_MAX, HEADER_BYTES, Header, OWN_PACKET_FIRST, TAG_BYTES, VERSION};
use plesio_wire::sideband::RosterEntry;
use plesio_wire::{Incarnation, Instant, NodeId, NodeKey, handshake};
use std::collections::BTreeMap;
use std::net::SocketAddr;

/// All sessions of a node.
pub(super) struct Sealing {
    sessions: Sessions,
    known: BTreeMap<NodeKey, Known>,
    names: BTreeMap<PeerId, NodeKey>,
    incarnation: Incarnation,
    /// There was a session with somebody.
    answered: bool,
    /// What was refused when it was last looked at.
    seen: Counters,
}

#[derive(Default)]
struct Known {
    peer: Option<PeerId>,
    /// Asked for a session until it answers.
    wanted: Option<(NodeId, SocketAddr)>,
    lane: Option<(Peer, SocketAddr)>,
    /// The lane has a sealer.
    sealed: bool,
    /// The engine wants the lane.
    linked: bool,
    /// Connections ran under the keys there are.
    used: bool,
    /// Openers that were handed out and are not closed.
    open: usize,
    /// Keys for an address that has no lane.
    openers: Vec<(DataOpener, SocketAddr)>,
    sealer: Option<(DataSealer, SocketAddr)>,
}

impl Known {
    fn lane_at(&self, address: SocketAddr) -> Option<Peer> {
        self.lane.filter(|(_, known)| *known == address).map(|(lane, _)| lane)
    }
}

impl Sealing {
    pub(super) fn new(now: Instant, identity: &Identity, incarnation: Incarnation) -> Self {
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
            seed: identity.seed.clone(),
        };
        let sessions = Sessions::new(now, config);
        Self {
            sessions,
            known: BTreeMap::new(),
            names: BTreeMap::new(),
            incarnation,
            answered: false,
            seen: Counters::default(),
        }
    }

    /// Asks a member, of whom nothing but this is known, for a session.
    pub(super) fn seek(&mut self, now: Instant, sideband: &Sideband, seed: &Seed) {
        sideband.address(seed.id.key(), seed.sideband);
        self.ask(now, seed.id, seed.data);
    }

    /// A lane to a peer whose connections begin now.
    ///
    /// # Errors
    /// As [`DatagramIo::add_peer`].
    pub(super) fn connect(
        &mut self,
        now: Instant,
        io: &mut dyn DatagramIo,
        sideband: &Sideband,
        entry: &RosterEntry,
    ) -> Result<Peer, OpenError> {
        let (key, address) = (entry.id.key(), entry.data.0);
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
        let used = std::mem::replace(&mut known.used, true);
        for (opener, _) in known.openers.extract_if(.., |(_, at)| *at == address) {
            io.add_opener(lane, opener);
        }
        if let Some((sealer, _)) = known.sealer.take_if(|(_, at)| *at == address) {
            io.set_sealer(lane, sealer);
            known.sealed = true;
        }
        let stale = used || !known.sealed;
        sideband.address(key, entry.sideband.0);
        if let Some(peer) = self.ask(now, entry.id, address).filter(|_| stale) {
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
        let Some((key, peer)) = idle.map(|(key, known)| (*key, known.peer)) else { return false };
        self.close_lane(io, key);
        if let Some(peer) = peer.filter(|peer| self.names.get(peer) == Some(&key)) {
            self.sessions.handle_remove(peer);
        }
        true
    }

    /// The engine lets go of a peer.
    pub(super) fn disconnect(&mut self, io: &mut dyn DatagramIo, key: NodeKey) {
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
    pub(super) fn handle_stranger(&mut self, now: Instant, from: SocketAddr, datagram: &[u8]) {
        let foreign = datagram.first().is_some_and(|first| first >> 4 != VERSION);
        if foreign || handshake::kind_of(datagram).is_some() {
            // What is refused is counted there.
            let _ = self.sessions.handle_datagram(now, from, datagram);
            return;
        }
        // A peer that the engine does not know yet shows its keys: nothing else of it is heard.
        let Ok(header) = Header::parse_sealed(datagram) else { return };
        if header.packet < OWN_PACKET_FIRST || datagram.len() != OWN_BYTES {
            return;
        }
        let mut waiting = self.known.values_mut().flat_map(|known| known.openers.iter_mut());
        let Some((opener, _)) = waiting.find(|(opener, _)| opener.local() == header.receiver) else { return };
        if opener.open_data(datagram, &mut []).is_ok() {
            self.sessions.handle_own(now, header.receiver);
        }
    }

    /// The first datagram opened under this index, on either plane.
    pub(super) fn handle_confirmed(&mut self, now: Instant, local: u32) {
        self.sessions.handle_confirmed(now, local);
    }

    /// A datagram of the session's own opened under this index.
    pub(super) fn handle_own(&mut self, now: Instant, local: u32) {
        self.sessions.handle_own(now, local);
    }

    /// A view is in force: tickets that end before it are over, and so is the search for somebody who knows it.
    pub(super) fn handle_view(&mut self, number: u32) {
        self.sessions.handle_view(number);
        self.known.values_mut().filter(|known| !known.linked).for_each(|known| known.wanted = None);
    }

    /// Which life of the node this is.
    pub(super) fn handle_life(&mut self, incarnation: Incarnation) {
        if self.incarnation != incarnation {
            self.incarnation = incarnation;
            self.sessions.handle_life(incarnation);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.sessions.poll_timeout(now).is_some_and(|due| due <= now) {
            self.sessions.handle_timeout(now);
        }
    }

    pub(super) fn poll_timeout(&self, now: Instant) -> Option<Instant> {
        self.sessions.poll_timeout(now)
    }

    /// Whether there ever was a session.
    pub(super) const fn is_answered(&self) -> bool {
        self.answered
    }

    /// How many handshake datagrams were refused.
    pub(super) fn refused(&self) -> u64 {
        self.sessions.counters().total()
    }

    /// Causes that ask for somebody's attention and came up since the last call, for the first time ever.
    pub(super) fn poll_refusals(&mut self) -> impl Iterator<Item = Refusal> {
        let now = *self.sessions.counters();
        let before = std::mem::replace(&mut self.seen, now);
        let told = SAID.iter().filter(move |refusal| now.of(**refusal) > 0 && before.of(**refusal) == 0);
        told.copied()
    }

    /// Sends what the sessions want sent, and gives their keys away.
    pub(super) fn turn(&mut self, now: Instant, io: &mut dyn DatagramIo, sideband: &Sideband) {
        while let Some(event) = self.sessions.poll_event() {
            self.handle_event(now, io, sideband, event);
        }
        while let Some(transmit) = self.sessions.poll_transmit() {
            // Lost, as on the way: handshakes are repeated.
            let _ = io.send_stranger(transmit.to, transmit.as_bytes());
        }
    }

    fn handle_event(&mut self, now: Instant, io: &mut dyn DatagramIo, sideband: &Sideband, event: Event) {
        match event {
            Event::Open { peer, node, address, data, sideband: opener } => {
                let key = node.id().key();
                self.names.insert(peer, key);
                let known = self.known.entry(key).or_default();
                known.peer = Some(peer);
                known.open += 1;
                match known.lane_at(address) {
                    Some(lane) => io.add_opener(lane, data),
                    None => known.openers.push((data, address)),
                }
                sideband.keys(key, KeyChange::Open(opener));
            }
            Event::Seal { peer, address, data, sideband: sealer } => {
                let Some((key, known)) = self.find(peer) else { return };
                known.used = known.linked;
                let lane = known.lane_at(address);
                known.sealed = lane.is_some();
                match lane {
                    Some(lane) => io.set_sealer(lane, data),
                    None => {
                        if let Some((lane, _)) = known.lane {
                            io.remove_sealer(lane);
                        }
                        known.sealer = Some((data, address));
                    }
                }
                sideband.keys(key, KeyChange::Seal(sealer));
            }
            Event::Close { peer, local } => {
                let Some((key, known)) = self.find(peer) else { return };
                known.open = known.open.saturating_sub(1);
                known.openers.retain(|(opener, _)| opener.local() != local);
                if let Some((lane, _)) = known.lane {
                    io.remove_opener(lane, local);
                }
                sideband.keys(key, KeyChange::Close(local));
                self.tidy(io, key);
            }
            Event::Expire { peer } => {
                let Some((key, known)) = self.find(peer) else { return };
                known.sealer = None;
                known.sealed = false;
                if let Some((lane, _)) = known.lane {
                    io.remove_sealer(lane);
                }
                sideband.keys(key, KeyChange::Expire);
                self.tidy(io, key);
            }
            Event::Establish { .. } => self.answered = true,
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

    /// Closes the lane of a peer whose session is over and whom the engine does not want.
    fn tidy(&mut self, io: &mut dyn DatagramIo, key: NodeKey) {
        let idle = |known: &Known| !known.linked && known.open == 0 && known.wanted.is_none();
        if self.known.get(&key).is_some_and(idle) {
            self.close_lane(io, key);
            self.known.remove(&key);
        }
    }
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
