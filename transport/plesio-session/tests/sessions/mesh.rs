//! Two nodes of one mesh and the datagrams between them, told in time.

use std::net::SocketAddr;

use plesio_session::{
    Config, Entropy, Event, Limits, NodePublic, NodeSecret, OperatorSecret, PeerId, PoolKey, Secret,
    Sessions, Ticket, Transmit,
};
use plesio_wire::data::{Flags, Header, Kind};
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
        aes: plesio_session::aes_available(),
        peers_max: 8,
        limits: Limits::default(),
        seed: Secret::new([seed ^ 0x55; 32]),
        node,
    }
}

pub(crate) fn node(seed: u8) -> Sessions {
    Sessions::new(Instant(0), config(seed))
}

/// The two seeds in the order of the nodes' keys: the first one's handshake goes first.
pub(crate) fn ordered() -> (u8, u8) {
    let key = |seed| config(seed).node.public().x25519;
    if key(1) < key(2) { (1, 2) } else { (2, 1) }
}

pub(crate) fn sent(node: &mut Sessions) -> Vec<Transmit> {
    std::iter::from_fn(|| node.poll_transmit()).collect()
}

pub(crate) fn events(node: &mut Sessions) -> Vec<Event> {
    std::iter::from_fn(|| node.poll_event()).collect()
}

/// Hands one datagram to a node as its socket would; refusals are what the counters say.
pub(crate) fn deliver(now: Instant, to: &mut Sessions, from: &str, datagram: &[u8]) {
    let mut payload = [0; 2_000];
    if plesio_wire::handshake::kind_of(datagram).is_some() {
        let _ = to.handle_datagram(now, address(from), datagram);
    } else {
        let _ = to.open_data(now, datagram, &mut payload);
    }
}

/// Delivers everything both ways until nothing is under way.
pub(crate) fn settle(now: Instant, a: &mut Sessions, b: &mut Sessions) {
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
pub(crate) fn pair(a: Config, b: Config) -> (Sessions, Sessions, PeerId, PeerId) {
    let (mut a, mut b) = (Sessions::new(Instant(0), a), Sessions::new(Instant(0), b));
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
pub(crate) fn seal(now: Instant, from: &mut Sessions, to: PeerId, packet: u64, payload: &[u8]) -> Vec<u8> {
    let mut datagram = vec![0; payload.len() + 48];
    let len_bytes = from.seal_data(now, to, &mut data(packet), payload, &mut datagram).unwrap();
    assert_eq!(len_bytes, datagram.len());
    datagram
}
