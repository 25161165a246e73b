//! The machine: all sessions of one node, the handshakes that make them, and when they end.
//!
//! Knows peers by their public keys and addresses; owns no socket and no clock, and hands what seals and opens
//! packets to whoever has the bytes. Keeps: a stranger leaves no state and gets no reply larger than what it sent; a
//! session exists only between holders of the pool's key whose tickets or listed keys were proved; what is dropped
//! is counted by cause and changes nothing.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;

use plesio_wire::data::VERSION;
use plesio_wire::handshake::{INIT_BYTES, Role, Suite};
use plesio_wire::{Incarnation, Instant};

use crate::config::Config;
use crate::identity::{NodePublic, PoolKey};
use crate::limit::{SourceLimit, TotalLimit};
use crate::mac::{CookieJar, MacKeys};
use crate::noise::Local;
use crate::peer::{Epoch, Facts, Peer};
use crate::refusal::{Counters, Refusal};
use crate::seal::{DataOpener, DataSealer, KeySet, SidebandOpener, SidebandSealer};
use crate::secret::Entropy;

mod initiate;
mod respond;
mod timers;

/// Most datagrams that wait to be fetched.
const TRANSMITS_MAX: usize = 256;
/// Events waiting from which on nothing new is begun: who fetches none gets no more sessions.
const EVENTS_FULL: usize = 64;

/// A peer, as this machine numbers it; stays the same while the peer has a session or is wanted.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct PeerId(pub u16);

/// A datagram to send.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transmit {
    /// Where to.
    pub to: SocketAddr,
    bytes: [u8; INIT_BYTES],
    len_bytes: usize,
}

impl Transmit {
    fn new(to: SocketAddr, datagram: &[u8]) -> Self {
        let mut bytes = [0; INIT_BYTES];
        bytes[..datagram.len()].copy_from_slice(datagram);
        Self { to, bytes, len_bytes: datagram.len() }
    }

    /// The datagram.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len_bytes]
    }
}

/// The lives between which keys were made: connections of other lives have no business under them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lives {
    /// This node's.
    pub own: Incarnation,
    /// The peer's.
    pub peer: Incarnation,
}

/// What happened to a session.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// What comes in may be sealed for these; their index is [`DataOpener::local`].
    Open {
        /// Whose.
        peer: PeerId,
        /// Its keys.
        node: NodePublic,
        /// Where it is.
        address: SocketAddr,
        /// Whom they were made between.
        lives: Lives,
        /// Of the data plane.
        data: DataOpener,
        /// Of the sideband.
        sideband: SidebandOpener,
    },
    /// What goes out is to be sealed with these from now on, and no longer with those before.
    Seal {
        /// For whom.
        peer: PeerId,
        /// Where it is.
        address: SocketAddr,
        /// Whom they were made between.
        lives: Lives,
        /// On the data plane.
        data: DataSealer,
        /// On the sideband.
        sideband: SidebandSealer,
    },
    /// The openers of this index are to be dropped.
    Close {
        /// Whose.
        peer: PeerId,
        /// Which.
        local: u32,
    },
    /// There is a session with a peer, or with a new life of it; what the old life sent opens no more.
    Establish {
        /// Whom with.
        peer: PeerId,
        /// Its keys.
        node: NodePublic,
        /// Its life.
        incarnation: Incarnation,
        /// Largest datagram it receives.
        mtu: u16,
        /// What its ticket admits it as; `None`: this node asked, and knows the peer from the view.
        role: Option<Role>,
    },
    /// The session has new keys; the old ones receive for a while.
    Rekey {
        /// Whose.
        peer: PeerId,
    },
    /// A handshake that this node began found no answer until its deadline.
    Fail {
        /// Whose.
        peer: PeerId,
    },
    /// The session is over, and its sealers are to be dropped: its keys reached their limit, the peer's ticket its
    /// last view, or the peer was removed.
    Expire {
        /// Whose.
        peer: PeerId,
    },
}

/// Why a session cannot be asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum ConnectError {
    /// That is this node itself; leave it out.
    OwnKey,
    /// All places are taken; remove a peer first.
    Full,
    /// No key exchange accepts this public key; ask the peer for its right one.
    Key,
}

impl core::fmt::Display for ConnectError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            Self::OwnKey => "the peer is this node itself; leave it out",
            Self::Full => "no room for another peer; remove one first",
            Self::Key => "no key exchange accepts the peer's public key; ask it for the right one",
        })
    }
}

impl core::error::Error for ConnectError {}

/// Whose a receiver index is.
#[derive(Clone, Copy, Debug)]
struct Owner {
    peer: PeerId,
    /// Openers with this index were handed out.
    open: bool,
}

/// All sessions of one node.
pub struct Sessions {
    config: Config,
    public: NodePublic,
    macs: MacKeys,
    pool_tag: u16,
    entropy: Entropy,
    view: u32,
    /// A view was in force here: before, this node is about to join one.
    seated: bool,
    jar: CookieJar,
    total: TotalLimit,
    unproven: SourceLimit,
    proven: SourceLimit,
    peers: Vec<Option<Peer>>,
    by_index: BTreeMap<u32, Owner>,
    attempts: u64,
    transmits: VecDeque<Transmit>,
    events: VecDeque<Event>,
    counters: Counters,
}

impl Sessions {
    /// A node without sessions. All memory that strangers can make it use is taken here.
    #[must_use]
    pub fn new(now: Instant, config: Config) -> Self {
        let mut entropy = Entropy::new(&config.seed);
        let public = config.node.public();
        let (jar, unproven_key, proven_key) =
            (CookieJar::new(now, &mut entropy), entropy.draw(), entropy.draw());
        let limits = config.limits;
        Self {
            public,
            macs: MacKeys::new(&public.x25519),
            pool_tag: config.pool.tag(),
            view: 0,
            seated: false,
            jar,
            total: TotalLimit::new(now, limits.inits_per_second),
            unproven: SourceLimit::new(now, limits.inits_per_source_and_second, unproven_key),
            proven: SourceLimit::new(now, limits.inits_per_source_and_second, proven_key),
            peers: (0..config.peers_max).map(|_| None).collect(),
            by_index: BTreeMap::new(),
            attempts: 0,
            transmits: VecDeque::with_capacity(TRANSMITS_MAX),
            events: VecDeque::with_capacity(2 * EVENTS_FULL),
            counters: Counters::default(),
            entropy,
            config,
        }
    }

    /// A handshake datagram arrived.
    ///
    /// # Errors
    /// Why it was dropped; it is counted.
    pub fn handle_datagram(
        &mut self,
        now: Instant,
        from: SocketAddr,
        datagram: &[u8],
    ) -> Result<(), Refusal> {
        use plesio_wire::handshake::Kind;
        self.jar.rotate(now, &mut self.entropy);
        let handled = match plesio_wire::handshake::kind_of(datagram) {
            Some(_) if self.events.len() >= EVENTS_FULL => Err(Refusal::Full),
            None if datagram.first().is_some_and(|first| first >> 4 != VERSION) => Err(Refusal::Version),
            Some(Kind::Init) => self.handle_init(now, from, datagram),
            Some(Kind::Response) => self.handle_response(now, datagram),
            Some(Kind::Cookie) => self.handle_cookie(now, datagram),
            None => Err(Refusal::Malformed),
        };
        self.counted(handled)
    }

    /// Something opened under the index `local`, on either plane, for the first time: the peer has these keys.
    /// Once per index is enough; an index that is gone is ignored.
    pub fn handle_confirmed(&mut self, now: Instant, local: u32) {
        let overlap = now.after(self.config.limits.overlap_ns);
        let Some(Owner { peer: id, .. }) = self.by_index.get(&local).copied() else { return };
        let Some(peer) = self.peer(id) else { return };
        if let Some(epoch) = peer.epoch(local) {
            epoch.confirmed = true;
        }
        let Some(pending) = peer.next.take_if(|pending| pending.epoch.local == local) else { return };
        // Ours, if one is under way, has become idle: there are keys that both ends have.
        peer.attempt = None;
        self.establish(id, pending.epoch, pending.facts, overlap);
    }

    /// A datagram of the session's own (its packet number says so) opened under the index `local`. The initiator
    /// says something until it hears something: tell it that its keys work.
    pub fn handle_own(&mut self, now: Instant, local: u32) {
        self.handle_confirmed(now, local);
        let Some(Owner { peer: id, .. }) = self.by_index.get(&local).copied() else { return };
        if self.peer(id).and_then(|peer| peer.epoch(local)).is_some_and(|epoch| !epoch.initiator) {
            self.say_own(id, local);
        }
    }

    /// A view is in force: tickets that ended before it admit nobody any more.
    pub fn handle_view(&mut self, view: u32) {
        self.view = self.view.max(view);
        self.seated = true;
        for id in self.ids() {
            let ended = self.peer(id).and_then(|peer| peer.facts).and_then(|facts| facts.admission);
            if ended.is_some_and(|(_, not_after_view)| not_after_view < self.view) {
                self.drop_peer(id);
            }
        }
    }

    /// The connections that the peer's keys protect begin anew, and so must the keys: their numbers are used.
    pub fn handle_rekey(&mut self, now: Instant, peer: PeerId) {
        let rests = |known: &mut Peer| known.attempt.is_none() && known.next.is_none();
        if self.peer(peer).is_some_and(rests) {
            self.start(now, peer);
        }
    }

    /// Nobody here asks for the peer any more: the session there is lives as long as the peer keeps it alive.
    pub fn handle_release(&mut self, peer: PeerId) {
        if let Some(known) = self.peer(peer) {
            known.wanted = false;
        }
    }

    /// This node goes on as another life; the sessions of the one before stay until the peers have new ones.
    pub fn handle_life(&mut self, incarnation: Incarnation) {
        self.config.incarnation = incarnation;
    }

    /// The peer has left: its keys are wiped, and nothing of it opens any more.
    pub fn handle_remove(&mut self, peer: PeerId) {
        self.drop_peer(peer);
    }

    /// The next datagram to send.
    pub fn poll_transmit(&mut self) -> Option<Transmit> {
        self.transmits.pop_front()
    }

    /// What happened next.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// What was dropped, by cause.
    #[must_use]
    pub const fn counters(&self) -> &Counters {
        &self.counters
    }

    /// This node's public keys.
    #[must_use]
    pub const fn public(&self) -> &NodePublic {
        &self.public
    }

    /// Whether there is a session that can seal.
    #[must_use]
    pub fn is_established(&self, peer: PeerId) -> bool {
        self.peers
            .get(usize::from(peer.0))
            .and_then(Option::as_ref)
            .is_some_and(|peer| peer.current.is_some())
    }

    fn counted<T>(&mut self, result: Result<T, Refusal>) -> Result<T, Refusal> {
        result.inspect_err(|refusal| self.counters.count(*refusal))
    }

    fn ids(&self) -> impl Iterator<Item = PeerId> + use<> {
        (0..self.peers.len() as u16).map(PeerId) // Config::peers_max is a u16
    }

    fn peer(&mut self, id: PeerId) -> Option<&mut Peer> {
        self.peers.get_mut(usize::from(id.0))?.as_mut()
    }

    fn peer_of(&self, x25519: &[u8; 32]) -> Option<PeerId> {
        let is_it = |peer: &Option<Peer>| peer.as_ref().is_some_and(|peer| peer.node.x25519 == *x25519);
        self.peers.iter().position(is_it).map(|at| PeerId(at as u16))
    }

    fn place(&mut self, node: NodePublic, address: SocketAddr) -> Option<PeerId> {
        if let Some(known) = self.peer_of(&node.x25519) {
            return Some(known);
        }
        let at = self.peers.iter().position(Option::is_none)?;
        self.peers[at] = Some(Peer::new(node, address));
        Some(PeerId(at as u16))
    }

    /// A random index that no session and no attempt has.
    fn draw_index(&mut self) -> u32 {
        loop {
            let index = self.entropy.draw_u32();
            if !self.by_index.contains_key(&index) {
                return index;
            }
        }
    }

    /// Gives up the indices that no session of the peer has any more.
    fn reindex(&mut self, id: PeerId) {
        let alive: Vec<u32> = self.peer(id).map(|peer| peer.indices().collect()).unwrap_or_default();
        let events = &mut self.events;
        self.by_index.retain(|index, owner| {
            let stays = owner.peer != id || alive.contains(index);
            if !stays && owner.open {
                events.push_back(Event::Close { peer: id, local: *index });
            }
            stays
        });
    }

    fn drop_peer(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get_mut(usize::from(id.0)).and_then(Option::take) else { return };
        self.reindex(id);
        if peer.current.is_some() {
            self.events.push_back(Event::Expire { peer: id });
        }
    }

    /// Takes the keys of a handshake: what opens is handed out, what seals waits.
    fn open_epoch(
        &mut self,
        now: Instant,
        id: PeerId,
        (node, address, lives): (NodePublic, SocketAddr, Lives),
        initiator: bool,
        local: u32,
        keys: KeySet,
    ) -> Epoch {
        self.by_index.insert(local, Owner { peer: id, open: true });
        let (data, sideband) = (keys.data_opener, keys.sideband_opener);
        self.events.push_back(Event::Open { peer: id, node, address, lives, data, sideband });
        let retry = now.after(self.config.limits.retry_ns);
        Epoch {
            local,
            initiator,
            address,
            lives,
            born: now,
            own: keys.own_sealer,
            sealers: Some((keys.data_sealer, keys.sideband_sealer)),
            usage: keys.usage,
            confirmed: false,
            confirm_at: if initiator { retry } else { Instant(u64::MAX) },
        }
    }

    /// Makes `epoch` the one that sends.
    fn establish(&mut self, id: PeerId, mut epoch: Epoch, facts: Facts, overlap: Instant) {
        let (sealers, address, lives) = (epoch.sealers.take(), epoch.address, epoch.lives);
        let Some(peer) = self.peer(id) else { return };
        let known = peer.knows(facts.incarnation);
        peer.promote(epoch, facts, overlap);
        let (node, role) = (peer.node, peer.facts.and_then(|facts| facts.admission).map(|(role, _)| role));
        self.reindex(id);
        if let Some((data, sideband)) = sealers {
            self.events.push_back(Event::Seal { peer: id, address, lives, data, sideband });
        }
        self.events.push_back(if known {
            Event::Rekey { peer: id }
        } else {
            Event::Establish { peer: id, node, incarnation: facts.incarnation, mtu: facts.mtu, role }
        });
    }

    /// Sends an empty datagram of the session's own, so that the other end learns that the keys work.
    fn say_own(&mut self, id: PeerId, local: u32) {
        let epoch = self.peer(id).and_then(|peer| peer.epoch(local));
        if let Some((to, datagram)) = epoch.map(|epoch| (epoch.address, epoch.own.seal())) {
            self.push_transmit(Transmit::new(to, &datagram));
        }
    }

    /// A caller that fetches nothing loses the newest.
    fn push_transmit(&mut self, transmit: Transmit) {
        if self.transmits.len() < TRANSMITS_MAX {
            self.transmits.push_back(transmit);
        }
    }

    fn capabilities(&self) -> u64 {
        self.config.suites.capabilities()
    }

    /// What both ends' capabilities come to.
    fn suite(&self, theirs: u64) -> Suite {
        self.config.suites.common(theirs)
    }
}

/// What Noise needs of the configuration, borrowed apart from the rest of the machine.
const fn local(config: &Config) -> Local<'_> {
    let pool: &PoolKey = &config.pool;
    Local { private: config.node.x25519(), psk: pool.key(), mesh: pool.mesh }
}

#[cfg(test)]
mod tests;
