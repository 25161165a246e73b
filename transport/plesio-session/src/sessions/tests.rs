//! What only a responder with valid keys could try: an answer whose suite is not what both ends' capabilities come to.

use super::*;
use crate::Limits;
use crate::identity::{NodeSecret, OperatorSecret};
use crate::noise::{CLEAR_BYTES, Responder};
use crate::secret::Secret;
use crate::suites::Suites;
use crate::ticket::Ticket;
use plesio_wire::handshake::{
    CAPABILITY_AEGIS, CAPABILITY_AES, Init, InitPayload, RESPONSE_PAYLOAD_BYTES, Response, ResponsePayload,
};
use plesio_wire::{Reader, Writer};

const NOW: Instant = Instant(0);

fn config(seed: u8) -> Config {
    let entropy = |byte| Entropy::new(&Secret::new([byte; 32]));
    let (node, operator) =
        (NodeSecret::generate(&mut entropy(seed)), OperatorSecret::generate(&mut entropy(99)));
    Config {
        pool: PoolKey::generate(9, &mut entropy(98)),
        ticket: Ticket::sign(&operator, 9, node.public(), Role::Member, 10),
        operators: alloc::vec![operator.public()],
        incarnation: Incarnation(u64::from(seed)),
        mtu: 1500,
        suites: Suites::available(),
        peers_max: 4,
        limits: Limits::default(),
        seed: Secret::new([seed; 32]),
        node,
    }
}

/// RESPONSE of `config` to an INIT, saying whatever it is told to say.
fn answer(config: &Config, asked: &[u8], capabilities: u64, suite: Suite) -> alloc::vec::Vec<u8> {
    let init = Init::parse(asked).unwrap();
    let clear: [u8; CLEAR_BYTES] = asked[..CLEAR_BYTES].try_into().unwrap();
    let responder = Responder::read(&local(config), &clear, &init.noise, Secret::new([5; 32])).unwrap();
    let said: InitPayload = Reader::new(&responder.payload).read().unwrap();
    assert_eq!(said.capabilities, config.suites.capabilities());
    let remote = responder.remote;
    let mut payload = [0; RESPONSE_PAYLOAD_BYTES];
    let incarnation = config.incarnation;
    Writer::new(&mut payload).write(&ResponsePayload {
        incarnation,
        capabilities,
        mtu: 1500,
        suite,
        view: 0,
    });
    let (noise, _) = responder.answer(&payload).unwrap();
    let (mac1, mac2) = ([0; 16], [0; 16]);
    let response = Response { pool_tag: init.pool_tag, sender: 77, receiver: init.sender, noise, mac1, mac2 };
    let mut datagram = response.to_bytes();
    MacKeys::new(&remote).sign(&mut datagram, None);
    datagram.to_vec()
}

#[test]
fn t8_a_suite_that_was_not_agreed_to_is_refused_by_name() {
    let from = "10.0.0.2:1".parse().unwrap();
    let responder = config(2);
    let every = [Suite::Aegis128L, Suite::Aes128Gcm, Suite::ChaCha20Poly1305];
    let cases = [0, CAPABILITY_AES, CAPABILITY_AEGIS, u64::MAX].into_iter().flat_map(|capabilities| {
        let agreed = responder.suites.common(capabilities);
        every.map(|suite| (capabilities, suite, if suite == agreed { Ok(()) } else { Err(Refusal::Suite) }))
    });
    for (capabilities, suite, expected) in cases {
        let mut a = Sessions::new(NOW, config(1));
        a.handle_connect(NOW, responder.node.public(), from).unwrap();
        let asked = a.poll_transmit().unwrap();
        let datagram = answer(&responder, asked.as_bytes(), capabilities, suite);
        assert_eq!(a.handle_datagram(NOW, from, &datagram), expected, "{capabilities} {suite:?}");
        assert_eq!(a.counters().of(Refusal::Suite), u64::from(expected.is_err()));
        assert_eq!(a.is_established(PeerId(0)), expected.is_ok());
    }
}

#[test]
fn another_version_is_refused_by_name() {
    let mut a = Sessions::new(NOW, config(1));
    let from = "10.0.0.2:1".parse().unwrap();
    for version in (0..16).filter(|version| *version != VERSION) {
        let datagram = [version << 4 | 1; INIT_BYTES];
        assert_eq!(a.handle_datagram(NOW, from, &datagram), Err(Refusal::Version));
    }
    assert_eq!((a.counters().of(Refusal::Version), a.counters().total()), (15, 15));
    assert!(a.poll_transmit().is_none());
}
