//! Two guards whose keys come from real sessions: nothing passes unsealed, under another name, twice, or altered.

use super::*;
use plesio_session::{
    Config, Entropy, Event, Limits, NodeSecret, OperatorSecret, PoolKey, Secret, Sessions, Ticket,
};
use plesio_wire::Incarnation;
use plesio_wire::handshake::Role;
use plesio_wire::sideband::{self, DATAGRAM_BYTES_MAX, HEADER_BYTES, Header, Leave, Message};

const NOW: Instant = Instant(0);
const A: NodeKey = NodeKey(1);
const B: NodeKey = NodeKey(2);

fn at(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

fn sessions(seed: u8) -> Sessions {
    let secret = |byte| Entropy::new(&Secret::new([byte; 32]));
    let (node, operator) =
        (NodeSecret::generate(&mut secret(seed)), OperatorSecret::generate(&mut secret(99)));
    let ticket = Ticket::sign(&operator, 9, node.public(), Role::Member, 10);
    let config = Config {
        pool: PoolKey::generate(9, &mut secret(98)),
        ticket,
        operators: vec![operator.public()],
        incarnation: Incarnation(u64::from(seed)),
        mtu: 1500,
        suites: plesio_session::Suites::available(),
        peers_max: 4,
        limits: Limits::default(),
        seed: Secret::new([seed; 32]),
        node,
    };
    Sessions::new(NOW, config)
}

/// Keys of the initiator and of the responder.
fn keys(seed: u8) -> [Vec<KeyChange>; 2] {
    let (mut a, mut b) = (sessions(seed), sessions(seed + 1));
    a.handle_connect(NOW, *b.public(), at(1)).unwrap();
    b.handle_datagram(NOW, at(2), a.poll_transmit().unwrap().as_bytes()).unwrap();
    a.handle_datagram(NOW, at(1), b.poll_transmit().unwrap().as_bytes()).unwrap();
    let take = |sessions: &mut Sessions| {
        let mut changes = Vec::new();
        let mut locals = Vec::new();
        while let Some(event) = sessions.poll_event() {
            match event {
                Event::Open { data, sideband, .. } => {
                    locals.push(data.local());
                    changes.push(KeyChange::Open(sideband));
                }
                Event::Seal { sideband, .. } => changes.push(KeyChange::Seal(sideband)),
                _ => {}
            }
        }
        (changes, locals)
    };
    let (ours, _) = take(&mut a);
    let (mut theirs, locals) = take(&mut b);
    b.handle_confirmed(NOW, locals[0]);
    theirs.extend(take(&mut b).0);
    [ours, theirs]
}

fn guards(seed: u8) -> (Guard, Guard) {
    let (mut a, mut b) = (Guard::new(NOW), Guard::new(NOW));
    let [ours, theirs] = keys(seed);
    ours.into_iter().for_each(|change| a.handle_keys(B, change));
    theirs.into_iter().for_each(|change| b.handle_keys(A, change));
    a.handle_address(B, at(2));
    (a, b)
}

fn plain(buffer: &mut [u8; DATAGRAM_BYTES_MAX]) -> &[u8] {
    let header = Header { mesh: 9, view: 1, src: 0, dst: 1, sequence: 77 };
    sideband::encode(&header, &Message::Leave(Leave::default()), buffer)
}

fn sealed(guard: &mut Guard, to: SocketAddr) -> Vec<u8> {
    let (mut buffer, mut datagram) = ([0; DATAGRAM_BYTES_MAX], [0; DATAGRAM_BYTES_MAX]);
    let len_bytes = guard.seal(to, plain(&mut buffer), &mut datagram).unwrap();
    datagram[..len_bytes].to_vec()
}

#[test]
fn what_is_sealed_comes_in_once_and_under_its_own_name() {
    let (mut a, mut b) = guards(1);
    let datagram = sealed(&mut a, at(2));
    let mut opened = [0; DATAGRAM_BYTES_MAX];
    // Nobody told where A is: its datagram shows it.
    let first = b.open(NOW, at(7), &datagram, &mut opened).unwrap();
    assert_eq!((first.by, first.confirms.is_some()), (A, true));
    let (header, message) = sideband::decode(&opened[..first.len_bytes]).unwrap();
    assert_eq!((header.src, message), (0, Message::Leave(Leave::default())));
    assert_eq!(b.open(NOW, at(7), &datagram, &mut opened), Err(Kept::Refused(Refusal::Replay)));
    let back = sealed(&mut b, at(7));
    assert_eq!(a.open(NOW, at(2), &back, &mut opened).unwrap().by, B);
    // It moves, and is still itself; what is sent goes after it.
    let moved = sealed(&mut a, at(2));
    assert_eq!(b.open(NOW, at(8), &moved, &mut opened).unwrap().confirms, None);
    assert!(matches!(b.seal(at(7), &back, &mut opened), Err(SealError::NoSession)));
    sealed(&mut b, at(8));
}

#[test]
fn c9_01_no_flipped_bit_no_plaintext_and_nobody_elses_datagram_comes_in() {
    let ((mut a, mut b), (mut other, _)) = (guards(1), guards(5));
    let (mut buffer, mut opened) = ([0; DATAGRAM_BYTES_MAX], [0; DATAGRAM_BYTES_MAX]);
    let datagram = sealed(&mut a, at(2));
    for bit in 0..datagram.len() * 8 {
        let mut bad = datagram.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        // Once a second, so that the limit of trials is not what refuses it.
        let now = Instant(bit as u64 * 1_000_000_000);
        assert!(b.open(now, at(7), &bad, &mut opened).is_err(), "bit {bit}");
    }
    for len_bytes in 0..datagram.len() {
        assert!(b.open(NOW, at(7), &datagram[..len_bytes], &mut opened).is_err());
    }
    assert_eq!(b.open(NOW, at(7), plain(&mut buffer), &mut opened), Err(Kept::Plaintext));
    let foreign = sealed(&mut other, at(2));
    assert_eq!(b.open(NOW, at(7), &foreign, &mut opened), Err(Kept::Refused(Refusal::Authentication)));
    assert!(b.open(NOW, at(7), &datagram, &mut opened).is_ok());
    assert!(opened[HEADER_BYTES..].iter().any(|byte| *byte != 0) || opened[0] != 0);
}

#[test]
fn strangers_cost_so_many_trials_and_no_more() {
    let ((mut a, mut b), (mut other, _)) = (guards(1), guards(5));
    let foreign = sealed(&mut other, at(2));
    let mut opened = [0; DATAGRAM_BYTES_MAX];
    let tried = (0..1_000)
        .filter(|port| {
            b.open(NOW, at(*port), &foreign, &mut opened) == Err(Kept::Refused(Refusal::Authentication))
        })
        .count();
    assert_eq!(tried as u64, TRIALS_BURST);
    // Who is known where it is never waits for strangers.
    b.handle_address(A, at(7));
    assert!(b.open(NOW, at(7), &sealed(&mut a, at(2)), &mut opened).is_ok());
}

#[test]
fn without_keys_nothing_goes_out_or_comes_in() {
    let (mut a, mut b) = guards(1);
    let (mut buffer, mut room) = ([0; DATAGRAM_BYTES_MAX], [0; DATAGRAM_BYTES_MAX]);
    let datagram = sealed(&mut a, at(2));
    a.handle_keys(B, KeyChange::Expire);
    assert_eq!(a.seal(at(2), plain(&mut buffer), &mut room), Err(SealError::NoSession));
    assert_eq!(a.seal(at(3), plain(&mut buffer), &mut room), Err(SealError::NoSession));
    let local = b.known[0].keys.locals().next().unwrap();
    b.handle_keys(A, KeyChange::Close(local));
    assert!(b.open(NOW, at(7), &datagram, &mut room).is_err());
    // Addresses without keys are forgotten first, and keys never.
    for key in 10..1_000 {
        b.handle_address(NodeKey(key), at(key as u16));
    }
    assert_eq!(b.known.len(), KNOWN_MAX);
    assert!(b.known.iter().any(|known| known.key == A), "it can still seal for A");
}
