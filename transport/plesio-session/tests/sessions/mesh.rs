//! Two nodes of one mesh and the datagrams between them, told in time.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::ops::{Deref, DerefMut};

use plesio_session::{
    Config, DataOpener, DataSealer, Entropy, Event, Limits, NodePublic, NodeSecret, OperatorSecret, PeerId,
    PoolKey, Refusal, SealError, Secret, Sessions, SidebandKeys, Ticket, Transmit,
};
use plesio_wire::data::{Flags, HEADER_BYTES, Header, Kind, OWN_PACKET_FIRST};
use plesio_wire::handshake::Role;
use plesio_wire::{Incarnation, Instant};

pub(crate) const S: u64 = 1_000_000_000;
pub(crate) const A: &str = "10.0.0.1:7000";
pub(crate) const B: &str = "10.0.1.2:7000";

pub(crate) fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn operator() -> OperatorSecret {
    OperatorSecret::generate(&mut Entropy::new(&Secret::new([0xEE; 32])))
}

/// A node's configuration; `seed` is its whole identity.
pub(crate) fn config(seed: u8) -> Config {
    let mut entropy = Entropy::new(&Secret::new([seed; 32]));
    let node = NodeSecret::generate(&mut entropy);
    let ticket = Ticket::sign(&operator(), 9, node.public(), Role::Member, 100);
    Config {
        pool: PoolKey::generate(9, &mut Entropy::new(&Secret::new([0xDD; 32]))),
        ticket,
        operators: vec![operator().public()],
        incarnation: Incarnation(u64::from(seed)),
        mtu: 1500,
        suites: plesio_session::Suites::available(),
        peers_max: 8,
        limits: Limits::default(),
        seed: Secret::new([seed ^ 0x55; 32]),
        node,
    }
}

/// A node as its shell has it: the machine, and what seals and opens where the bytes are.
pub(crate) struct Node {
    sessions: Sessions,
    lanes: BTreeMap<PeerId, Lane>,
    events: Vec<Event>,
}

#[derive(Default)]
struct Lane {
    sealer: Option<DataSealer>,
    openers: Vec<(DataOpener, bool)>,
    sideband: SidebandKeys,
}

impl Deref for Node {
    type Target = Sessions;
    fn deref(&self) -> &Sessions {
        &self.sessions
    }
}

impl DerefMut for Node {
    fn deref_mut(&mut self) -> &mut Sessions {
        &mut self.sessions
    }
}

impl Node {
    pub(crate) fn new(now: Instant, config: Config) -> Self {
        Self { sessions: Sessions::new(now, config), lanes: BTreeMap::new(), events: Vec::new() }
    }

    /// Takes the keys that events bring; keeps the other events for the test.
    pub(crate) fn take_keys(&mut self) {
        while let Some(event) = self.sessions.poll_event() {
            match event {
                Event::Open { peer, data, sideband, .. } => {
                    let lane = self.lanes.entry(peer).or_default();
                    lane.openers.push((data, false));
                    lane.sideband.add_opener(sideband);
                    assert!(lane.openers.len() <= 3, "current, previous, next");
                }
                Event::Seal { peer, data, sideband, .. } => {
                    let lane = self.lanes.entry(peer).or_default();
                    lane.sealer = Some(data);
                    lane.sideband.set_sealer(sideband);
                }
                Event::Close { peer, local } => {
                    let lane = self.lanes.get_mut(&peer).expect("opened before");
                    let before = lane.openers.len();
                    lane.openers.retain(|(opener, _)| opener.local() != local);
                    assert_eq!(lane.openers.len(), before - 1, "closed once");
                    lane.sideband.remove_opener(local);
                }
                event => {
                    if let Event::Expire { peer } = event {
                        let lane = self.lanes.get_mut(&peer).expect("sealed before");
                        lane.sealer = None;
                        lane.sideband.remove_sealer();
                    }
                    self.events.push(event);
                }
            }
        }
    }

    /// As a data socket opens: by the receiver index, and the session's own goes to the machine.
    pub(crate) fn open_with(
        &mut self,
        now: Instant,
        datagram: &[u8],
        open: impl FnOnce(&mut DataOpener) -> Result<Header, Refusal>,
    ) -> Result<Option<(PeerId, Header)>, Refusal> {
        self.take_keys();
        let header = Header::parse_sealed(datagram).map_err(|_| Refusal::Malformed)?;
        let lanes = self.lanes.iter_mut();
        let mut openers =
            lanes.flat_map(|(peer, lane)| lane.openers.iter_mut().map(|opener| (*peer, opener)));
        let found = openers.find(|(_, (opener, _))| opener.local() == header.receiver);
        let (peer, (opener, used)) = found.ok_or(Refusal::UnknownReceiver)?;
        let header = open(opener)?;
        if !std::mem::replace(used, true) {
            self.sessions.handle_confirmed(now, header.receiver);
        }
        if header.packet >= OWN_PACKET_FIRST {
            self.sessions.handle_own(now, header.receiver);
        }
        self.take_keys();
        Ok((header.packet < OWN_PACKET_FIRST).then_some((peer, header)))
    }

    pub(crate) fn open_data(
        &mut self,
        now: Instant,
        datagram: &[u8],
        payload: &mut [u8],
    ) -> Result<Option<(PeerId, Header)>, Refusal> {
        self.open_with(now, datagram, |opener| opener.open_data(datagram, payload))
    }

    pub(crate) fn open_data_in_place(
        &mut self,
        now: Instant,
        datagram: &mut [u8],
    ) -> Result<Option<(PeerId, Header)>, Refusal> {
        let mut head = datagram.to_vec();
        head[HEADER_BYTES.min(datagram.len())..].fill(0);
        self.open_with(now, &head, |opener| opener.open_data_in_place(datagram))
    }

    pub(crate) fn seal_data(
        &mut self,
        to: PeerId,
        header: &mut Header,
        payload: &[u8],
        datagram: &mut [u8],
    ) -> Result<usize, SealError> {
        self.sealer(to)?.seal_data(header, payload, datagram)
    }

    pub(crate) fn sealer(&mut self, to: PeerId) -> Result<&mut DataSealer, SealError> {
        self.take_keys();
        self.lanes.get_mut(&to).and_then(|lane| lane.sealer.as_mut()).ok_or(SealError::NoSession)
    }

    pub(crate) fn seal_sideband(
        &mut self,
        to: PeerId,
        plain: &[u8],
        datagram: &mut [u8],
    ) -> Result<usize, SealError> {
        self.take_keys();
        self.lanes.get_mut(&to).ok_or(SealError::NoSession)?.sideband.seal(plain, datagram)
    }

    pub(crate) fn open_sideband(
        &mut self,
        now: Instant,
        from: PeerId,
        datagram: &[u8],
        plain: &mut [u8],
    ) -> Result<usize, Refusal> {
        self.take_keys();
        let lane = self.lanes.get_mut(&from).ok_or(Refusal::UnknownReceiver)?;
        let opened = lane.sideband.open(datagram, plain)?;
        if let Some(local) = opened.confirms {
            self.sessions.handle_confirmed(now, local);
        }
        Ok(opened.len_bytes)
    }
}

pub(crate) fn node(seed: u8) -> Node {
    Node::new(Instant(0), config(seed))
}

/// The two seeds in the order of the nodes' keys: the first one's handshake goes first.
pub(crate) fn ordered() -> (u8, u8) {
    let key = |seed| config(seed).node.public().x25519;
    if key(1) < key(2) { (1, 2) } else { (2, 1) }
}

pub(crate) fn sent(node: &mut Sessions) -> Vec<Transmit> {
    std::iter::from_fn(|| node.poll_transmit()).collect()
}

/// What happened but for keys, which are where they belong.
pub(crate) fn events(node: &mut Node) -> Vec<Event> {
    node.take_keys();
    std::mem::take(&mut node.events)
}

/// Hands one datagram to a node as its socket would; refusals are what the counters say.
pub(crate) fn deliver(now: Instant, to: &mut Node, from: &str, datagram: &[u8]) {
    let mut payload = [0; 2_000];
    if plesio_wire::handshake::kind_of(datagram).is_some() {
        let _ = to.handle_datagram(now, address(from), datagram);
    } else {
        let _ = to.open_data(now, datagram, &mut payload);
    }
}

/// Delivers everything both ways until nothing is under way.
pub(crate) fn settle(now: Instant, a: &mut Node, b: &mut Node) {
    for _ in 0..20 {
        let (from_a, from_b) = (sent(a), sent(b));
        if from_a.is_empty() && from_b.is_empty() {
            return;
        }
        from_a.iter().for_each(|transmit| deliver(now, b, A, transmit.as_bytes()));
        from_b.iter().for_each(|transmit| deliver(now, a, B, transmit.as_bytes()));
    }
    panic!("two nodes talk for ever");
}

/// A session between two new nodes, and how each calls the other.
pub(crate) fn pair(a: Config, b: Config) -> (Node, Node, PeerId, PeerId) {
    let (mut a, mut b) = (Node::new(Instant(0), a), Node::new(Instant(0), b));
    let b_of_a = a.handle_connect(Instant(0), *b.public(), address(B)).unwrap();
    settle(Instant(0), &mut a, &mut b);
    let a_of_b = established(&events(&mut b), a.public());
    assert_eq!(established(&events(&mut a), b.public()), b_of_a);
    (a, b, b_of_a, a_of_b)
}

pub(crate) fn established(events: &[Event], with: &NodePublic) -> PeerId {
    events
        .iter()
        .find_map(|event| match event {
            Event::Establish { peer, node, .. } if node == with => Some(*peer),
            _ => None,
        })
        .unwrap_or_else(|| panic!("no session in {events:?}"))
}

pub(crate) fn data(packet: u64) -> Header {
    Header {
        kind: Kind::Data,
        flags: Flags::NONE,
        payload_bytes: 0,
        receiver: 0,
        packet,
        message: Default::default(),
        chunk: 3,
        clock_us: 5,
        crc32: 0,
    }
}

/// A sealed datagram of `payload`.
pub(crate) fn seal(from: &mut Node, to: PeerId, packet: u64, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; payload.len() + 48];
    let len_bytes = from.seal_data(to, &mut data(packet), payload, &mut datagram).unwrap();
    assert_eq!(len_bytes, datagram.len());
    datagram
}
