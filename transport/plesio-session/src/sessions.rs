//! The machine: all sessions of one node, the handshakes that make them, and when they end.
//!
//! Knows peers by their public keys and addresses; owns no socket and no clock. Keeps: a stranger leaves no
//! state and gets no reply larger than what it sent; a session exists only between holders of the pool's key
//! whose tickets or listed keys were proved; what is dropped is counted by cause and changes nothing.

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::SocketAddr;

use plesio_wire::data::{HEADER_BYTES, Header, TAG_BYTES};
use plesio_wire::handshake::{CAPABILITY_AES, INIT_BYTES, Role, Suite};
use plesio_wire::{Incarnation, Instant};

use crate::config::Config;
use crate::identity::{NodePublic, PoolKey};
use crate::limit::{SourceLimit, TotalLimit};
use crate::mac::{CookieJar, MacKeys};
use crate::noise::Local;
use crate::peer::{Epoch, Facts, Peer};
use crate::refusal::{Counters, Refusal};
use crate::seal::{OWN_PACKET_FIRST, SealError};
use crate::secret::Entropy;

mod initiate;
mod respond;
mod timers;

/// Most datagrams and events that wait to be fetched.
const QUEUE_MAX: usize = 256;
/// Bytes of a session's own datagram.
const OWN_BYTES: usize = HEADER_BYTES + TAG_BYTES;

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

/// What happened to a session.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Event {
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
    /// The session is over: its keys reached their limit, or the peer's ticket its last view.
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

/// What a sealed datagram turned out to be.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Opened {
    /// Who sealed it.
    pub peer: PeerId,
    /// Its header.
    pub header: Header,
}

/// All sessions of one node.
pub struct Sessions {
    config: Config,
    public: NodePublic,
    macs: MacKeys,
    pool_tag: u16,
    entropy: Entropy,
    view: u32,
    jar: CookieJar,
    total: TotalLimit,
    unproven: SourceLimit,
    proven: SourceLimit,
    peers: Vec<Option<Peer>>,
    by_index: BTreeMap<u32, PeerId>,
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
            jar,
            total: TotalLimit::new(now, limits.inits_per_second),
            unproven: SourceLimit::new(now, limits.inits_per_source_and_second, unproven_key),
            proven: SourceLimit::new(now, limits.inits_per_source_and_second, proven_key),
            peers: (0..config.peers_max).map(|_| None).collect(),
            by_index: BTreeMap::new(),
            attempts: 0,
            transmits: VecDeque::with_capacity(QUEUE_MAX),
            events: VecDeque::with_capacity(QUEUE_MAX),
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
            Some(Kind::Init) => self.handle_init(now, from, datagram),
            Some(Kind::Response) => self.handle_response(now, datagram),
            Some(Kind::Cookie) => self.handle_cookie(now, datagram),
            None => Err(Refusal::Malformed),
        };
        self.counted(handled)
    }

    /// Opens a sealed data-plane datagram straight into `payload`, room that nobody reads yet. `None`: it was
    /// the session's own and is dealt with.
    ///
    /// # Errors
    /// Why it was dropped; it is counted, and `payload` is zero where it was written.
    pub fn open_data(
        &mut self,
        now: Instant,
        datagram: &[u8],
        payload: &mut [u8],
    ) -> Result<Option<Opened>, Refusal> {
        let opened = Header::parse_sealed(datagram).map_err(|_| Refusal::Malformed).and_then(|header| {
            let (peer, epoch) = self.find(header.receiver)?;
            Ok((peer, epoch.opener.open_data(datagram, payload)?))
        });
        self.opened(now, opened)
    }

    /// As [`open_data`](Self::open_data), opened where it lies.
    ///
    /// # Errors
    /// As [`open_data`](Self::open_data).
    pub fn open_data_in_place(
        &mut self,
        now: Instant,
        datagram: &mut [u8],
    ) -> Result<Option<Opened>, Refusal> {
        let opened = Header::parse_sealed(datagram).map_err(|_| Refusal::Malformed).and_then(|header| {
            let (peer, epoch) = self.find(header.receiver)?;
            Ok((peer, epoch.opener.open_data_in_place(datagram)?))
        });
        self.opened(now, opened)
    }

    fn opened(
        &mut self,
        now: Instant,
        opened: Result<(PeerId, Header), Refusal>,
    ) -> Result<Option<Opened>, Refusal> {
        let (peer, header) = self.counted(opened)?;
        self.confirm(now, peer, header.receiver);
        if header.packet < OWN_PACKET_FIRST {
            return Ok(Some(Opened { peer, header }));
        }
        // The initiator says something until it hears something: tell it that its keys work.
        if self.peer(peer).and_then(|peer| peer.epoch(header.receiver)).is_some_and(|epoch| !epoch.initiator)
        {
            self.say_own(peer, header.receiver);
        }
        Ok(None)
    }

    /// Opens a sealed sideband datagram of `peer` into its plaintext form; returns its length.
    ///
    /// # Errors
    /// Why it was dropped; it is counted, and `plain` is zero where it was written.
    pub fn open_sideband(
        &mut self,
        now: Instant,
        peer: PeerId,
        datagram: &[u8],
        plain: &mut [u8],
    ) -> Result<usize, Refusal> {
        let mut opened = Err(Refusal::UnknownReceiver);
        if let Some(known) = self.peer(peer) {
            // The sideband's header names no session: the newest keys that fit are meant.
            let previous = known.previous.as_mut().map(|(epoch, _)| epoch);
            let next = known.next.as_mut().map(|pending| &mut pending.epoch);
            for epoch in [known.current.as_mut(), next, previous].into_iter().flatten() {
                opened =
                    epoch.opener.open_sideband(datagram, plain).map(|len_bytes| (epoch.local, len_bytes));
                if !matches!(opened, Err(Refusal::Authentication | Refusal::Replay)) {
                    break;
                }
            }
        }
        let (local, len_bytes) = self.counted(opened)?;
        self.confirm(now, peer, local);
        Ok(len_bytes)
    }

    /// Seals `payload` for `peer` into `datagram`, and returns the datagram's length. The header's receiver,
    /// length, flags and checksum are set here; its packet number is the caller's and only rises.
    ///
    /// # Errors
    /// As [`SealError`]; nothing was used up then.
    pub fn seal_data(
        &mut self,
        now: Instant,
        peer: PeerId,
        header: &mut Header,
        payload: &[u8],
        datagram: &mut [u8],
    ) -> Result<usize, SealError> {
        self.current(now, peer)?.sealer.seal_data(header, payload, datagram)
    }

    /// As [`seal_data`](Self::seal_data), with the payload already lying behind the header's place.
    ///
    /// # Errors
    /// As [`seal_data`](Self::seal_data).
    pub fn seal_data_in_place(
        &mut self,
        now: Instant,
        peer: PeerId,
        header: &mut Header,
        payload_bytes: usize,
        datagram: &mut [u8],
    ) -> Result<usize, SealError> {
        self.current(now, peer)?.sealer.seal_data_in_place(header, payload_bytes, datagram)
    }

    /// Seals an encoded sideband datagram for `peer`, and returns the sealed one's length.
    ///
    /// # Errors
    /// As [`SealError`]; nothing was used up then.
    pub fn seal_sideband(
        &mut self,
        now: Instant,
        peer: PeerId,
        plain: &[u8],
        datagram: &mut [u8],
    ) -> Result<usize, SealError> {
        self.current(now, peer)?.sealer.seal_sideband(plain, datagram)
    }

    /// A view is in force: tickets that ended before it admit nobody any more.
    pub fn handle_view(&mut self, view: u32) {
        self.view = self.view.max(view);
        for id in self.ids() {
            let ended = self.peer(id).and_then(|peer| peer.facts).and_then(|facts| facts.admission);
            if ended.is_some_and(|(_, not_after_view)| not_after_view < self.view) {
                self.drop_peer(id);
                self.push_event(Event::Expire { peer: id });
            }
        }
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

    fn find(&mut self, receiver: u32) -> Result<(PeerId, &mut Epoch), Refusal> {
        let id = *self.by_index.get(&receiver).ok_or(Refusal::UnknownReceiver)?;
        let epoch = self.peer(id).and_then(|peer| peer.epoch(receiver));
        Ok((id, epoch.ok_or(Refusal::UnknownReceiver)?))
    }

    fn current(&mut self, now: Instant, id: PeerId) -> Result<&mut Epoch, SealError> {
        let limit_ns = self.config.limits.session_ns_max;
        let epoch = self.peer(id).and_then(|peer| peer.current.as_mut()).ok_or(SealError::NoSession)?;
        if now.since(epoch.born) >= limit_ns { Err(SealError::Exhausted) } else { Ok(epoch) }
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
        self.by_index.retain(|index, owner| *owner != id || alive.contains(index));
    }

    fn drop_peer(&mut self, id: PeerId) {
        if let Some(place) = self.peers.get_mut(usize::from(id.0)) {
            *place = None;
        }
        self.reindex(id);
    }

    /// A packet of `peer` opened with the keys of index `local`.
    fn confirm(&mut self, now: Instant, id: PeerId, local: u32) {
        let overlap = now.after(self.config.limits.overlap_ns);
        let Some(peer) = self.peer(id) else { return };
        if let Some(epoch) = peer.epoch(local) {
            epoch.confirmed = true;
        }
        let Some(pending) = peer.next.take_if(|pending| pending.epoch.local == local) else { return };
        // The peer has keys from its own handshake: ours, if one is under way, has become idle.
        peer.attempt = None;
        self.establish(id, pending.epoch, pending.facts, overlap);
    }

    fn establish(&mut self, id: PeerId, epoch: Epoch, facts: Facts, overlap: Instant) {
        let Some(peer) = self.peer(id) else { return };
        let known =
            peer.current.is_some() && peer.facts.is_some_and(|known| known.incarnation == facts.incarnation);
        peer.promote(epoch, facts, overlap);
        let (node, role) = (peer.node, peer.facts.and_then(|facts| facts.admission).map(|(role, _)| role));
        self.reindex(id);
        self.push_event(if known {
            Event::Rekey { peer: id }
        } else {
            Event::Establish { peer: id, node, incarnation: facts.incarnation, mtu: facts.mtu, role }
        });
    }

    /// Sends an empty datagram of the session's own, so that the other end learns that the keys work.
    fn say_own(&mut self, id: PeerId, local: u32) {
        let mut datagram = [0; OWN_BYTES];
        let Some(peer) = self.peer(id) else { return };
        let to = peer.address;
        let sealed = peer.epoch(local).map(|epoch| epoch.sealer.seal_own(&mut datagram));
        if let Some(Ok(len_bytes)) = sealed {
            self.push_transmit(Transmit::new(to, &datagram[..len_bytes]));
        }
    }

    /// A caller that fetches nothing loses the newest.
    fn push_transmit(&mut self, transmit: Transmit) {
        if self.transmits.len() < QUEUE_MAX {
            self.transmits.push_back(transmit);
        }
    }

    fn push_event(&mut self, event: Event) {
        if self.events.len() == QUEUE_MAX {
            self.events.pop_front();
        }
        self.events.push_back(event);
    }

    fn capabilities(&self) -> u64 {
        if self.config.aes { CAPABILITY_AES } else { 0 }
    }

    /// What both ends' capabilities come to.
    fn suite(&self, theirs: u64) -> Suite {
        let both = self.capabilities() & theirs;
        if both & CAPABILITY_AES != 0 { Suite::Aes128Gcm } else { Suite::ChaCha20Poly1305 }
    }
}

/// What Noise needs of the configuration, borrowed apart from the rest of the machine.
const fn local(config: &Config) -> Local<'_> {
    let pool: &PoolKey = &config.pool;
    Local { private: config.node.x25519(), psk: pool.key(), mesh: pool.mesh }
}
