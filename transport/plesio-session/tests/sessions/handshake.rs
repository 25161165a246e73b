//! Handshakes: what is accepted, what is refused and under which name, and that a refusal leaves nothing.

use super::mesh::{
    A, B, Node, S, address, config, deliver, established, events, node, ordered, pair, seal, sent, settle,
};
use plesio_session::{
    ConnectError, Entropy, Event, NodeSecret, OperatorSecret, PoolKey, Refusal, Secret, Ticket,
};
use plesio_wire::handshake::{COOKIE_BYTES, INIT_BYTES, RESPONSE_BYTES, Role};
use plesio_wire::{Incarnation, Instant};
use proptest::prelude::*;

const NOW: Instant = Instant(0);

/// The INIT of a new node `a` for a new node `b`.
fn init(a: &mut Node, b: &Node) -> Vec<u8> {
    a.handle_connect(NOW, *b.public(), address(B)).unwrap();
    sent(a)[0].as_bytes().to_vec()
}

fn refused(a: plesio_session::Config, b: plesio_session::Config, view: u32) -> Refusal {
    let (mut a, mut b) = (Node::new(NOW, a), Node::new(NOW, b));
    b.handle_view(view);
    let datagram = init(&mut a, &b);
    let refusal = b.handle_datagram(NOW, address(A), &datagram).unwrap_err();
    assert_eq!((b.counters().of(refusal), b.counters().total()), (1, 1));
    assert!(sent(&mut b).is_empty() && b.poll_timeout(NOW).is_none(), "nothing is left of it");
    refusal
}

#[test]
fn two_nodes_agree_on_a_session_both_ways() {
    let (mut a, mut b, b_of_a, a_of_b) = pair(config(1), config(2));
    let mut payload = [0; 100];
    let there = seal(&mut a, b_of_a, 0, b"there");
    let opened = b.open_data(NOW, &there, &mut payload).unwrap().unwrap();
    assert_eq!((opened.0, &payload[..5]), (a_of_b, &b"there"[..]));
    let mut back = seal(&mut b, a_of_b, 0, b"back");
    assert!(a.open_data_in_place(NOW, &mut back).unwrap().is_some());
    assert_eq!(&back[32..36], b"back");
    assert_eq!((a.counters().total(), b.counters().total()), (0, 0));
}

#[test]
fn t3_the_messages_have_their_sizes_and_no_reply_is_larger_than_its_request() {
    let (mut a, mut b) = (node(1), node(2));
    let asked = init(&mut a, &b);
    b.handle_datagram(NOW, address(A), &asked).unwrap();
    let answer = sent(&mut b);
    assert_eq!((asked.len(), answer.len(), answer[0].as_bytes().len()), (INIT_BYTES, 1, RESPONSE_BYTES));
    const { assert!(RESPONSE_BYTES <= INIT_BYTES && COOKIE_BYTES <= INIT_BYTES) };
}

#[test]
fn t6_every_altered_byte_of_an_init_is_refused_and_leaves_nothing() {
    let (mut a, mut b) = (node(1), node(2));
    let good = init(&mut a, &b);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        let before = *b.counters();
        let refusal = b.handle_datagram(NOW, address(A), &bad).unwrap_err();
        let expected = match at {
            0 => Refusal::Version,
            1 => Refusal::Malformed,
            2 | 3 => Refusal::Pool,
            4..248 => Refusal::Mac1,
            _ => Refusal::Mac2,
        };
        assert_eq!(refusal, expected, "byte {at}");
        assert_eq!(b.counters().of(refusal), before.of(refusal) + 1);
        assert!(events(&mut b).is_empty() && b.poll_timeout(NOW).is_none());
        let replies: Vec<usize> = sent(&mut b).iter().map(|reply| reply.as_bytes().len()).collect();
        let told = if refusal == Refusal::Mac2 { vec![COOKIE_BYTES] } else { Vec::new() };
        assert_eq!(replies, told, "a cookie that is not the right one is answered with the right one");
    }
    for len_bytes in (0..good.len()).chain([good.len() + 1]) {
        let mut bad = good.clone();
        bad.resize(len_bytes, 0);
        assert_eq!(b.handle_datagram(NOW, address(A), &bad), Err(Refusal::Malformed));
    }
    assert_eq!(b.handle_datagram(NOW, address(A), &good), Ok(()), "the right one still counts");
}

/// Whoever knows the public key can make mac1 fit again: then Noise has to notice.
#[test]
fn an_altered_init_with_a_fitting_mac1_does_not_open() {
    let (mut a, mut b) = (node(1), node(2));
    let good = init(&mut a, &b);
    let public = b.public().x25519;
    for at in (4..232).step_by(3) {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        sign(&mut bad, &public);
        let now = Instant(at as u64 * S); // below the rate limit
        assert_eq!(b.handle_datagram(now, address(A), &bad), Err(Refusal::Handshake), "byte {at}");
        assert!(sent(&mut b).is_empty());
    }
}

fn sign(datagram: &mut [u8], public: &[u8; 32]) {
    use blake2::digest::{Digest, KeyInit, Mac, consts::U16};
    let key = blake2::Blake2s256::new().chain_update(b"mac1----").chain_update(public).finalize();
    let body = datagram.len() - 32;
    let mut mac = <blake2::Blake2sMac<U16> as KeyInit>::new_from_slice(&key).unwrap();
    Mac::update(&mut mac, &datagram[..body]);
    datagram[body..body + 16].copy_from_slice(&mac.finalize().into_bytes());
}

#[test]
fn every_altered_byte_of_a_response_is_refused_and_the_right_one_still_counts() {
    let (mut a, mut b) = (node(1), node(2));
    let asked = init(&mut a, &b);
    b.handle_datagram(NOW, address(A), &asked).unwrap();
    let good = sent(&mut b)[0].as_bytes().to_vec();
    let public = a.public().x25519;
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        let refusal = a.handle_datagram(NOW, address(B), &bad).unwrap_err();
        let expected = match at {
            0 => Refusal::Version,
            1 => Refusal::Malformed,
            2 | 3 => Refusal::Pool,
            4..108 => Refusal::Mac1,
            _ => Refusal::Mac2,
        };
        assert_eq!(refusal, expected, "byte {at}");
        if (8..92).contains(&at) {
            sign(&mut bad, &public);
            let refusal = a.handle_datagram(NOW, address(B), &bad).unwrap_err();
            let expected = if at < 12 { Refusal::UnknownReceiver } else { Refusal::Handshake };
            assert_eq!(refusal, expected, "byte {at}, mac1 fitting");
        }
        assert!(events(&mut a).is_empty() && sent(&mut a).is_empty());
    }
    a.handle_datagram(NOW, address(B), &good).unwrap();
    established(&events(&mut a), b.public());
}

#[test]
fn an_altered_index_of_the_responder_gives_keys_that_open_nothing() {
    let (mut a, mut b) = (node(1), node(2));
    let asked = init(&mut a, &b);
    b.handle_datagram(NOW, address(A), &asked).unwrap();
    let mut bad = sent(&mut b)[0].as_bytes().to_vec();
    bad[4] ^= 1;
    sign(&mut bad, &a.public().x25519);
    a.handle_datagram(NOW, address(B), &bad).unwrap();
    settle(NOW, &mut a, &mut b);
    assert!(events(&mut b).is_empty(), "the responder never sees a packet that opens");
    let end = a.poll_timeout(NOW).unwrap();
    assert!(end <= Instant(S));
    a.handle_timeout(Instant(5 * S));
    assert!(events(&mut a).iter().any(|event| matches!(event, Event::Expire { .. })));
}

#[test]
fn every_altered_byte_of_a_cookie_is_refused() {
    let mut asking = config(1);
    asking.limits.retry_ns = S;
    let mut b_config = config(2);
    b_config.limits.inits_per_second = 1;
    let (mut a, mut b) = (Node::new(NOW, asking), Node::new(NOW, b_config));
    let mut other = node(3);
    let first = init(&mut other, &b);
    b.handle_datagram(NOW, address("10.9.9.9:1"), &first).unwrap();
    sent(&mut b);
    let asked = init(&mut a, &b);
    assert_eq!(b.handle_datagram(NOW, address(A), &asked), Err(Refusal::CookieDue));
    let good = sent(&mut b)[0].as_bytes().to_vec();
    assert_eq!(good.len(), COOKIE_BYTES);
    for at in 0..good.len() {
        let mut bad = good.clone();
        bad[at] ^= 0x41;
        let expected = match at {
            0 => Refusal::Version,
            1 => Refusal::Malformed,
            2 | 3 => Refusal::Pool,
            4..8 => Refusal::UnknownReceiver,
            _ => Refusal::Cookie,
        };
        assert_eq!(a.handle_datagram(NOW, address(B), &bad), Err(expected), "byte {at}");
    }
    // Under load, who brings the cookie back gets in; who brings it from elsewhere does not.
    a.handle_datagram(NOW, address(B), &good).unwrap();
    a.handle_timeout(NOW);
    let again = sent(&mut a)[0].as_bytes().to_vec();
    assert_eq!(b.handle_datagram(NOW, address("10.0.0.1:7001"), &again), Err(Refusal::Mac2));
    assert_eq!(b.handle_datagram(NOW, address(A), &again), Ok(()));
}

#[test]
fn t6_a_wrong_key_pool_or_ticket_is_refused_by_name() {
    let mut entropy = Entropy::new(&Secret::new([77; 32]));
    let stranger = NodeSecret::generate(&mut entropy);
    let stranger_operator = OperatorSecret::generate(&mut entropy);

    let other_pool = plesio_session::Config { pool: PoolKey::generate(9, &mut entropy), ..config(1) };
    assert_eq!(refused(other_pool, config(2), 0), Refusal::Pool);
    let stolen = plesio_session::Config { node: stranger, ..config(1) };
    assert_eq!(refused(stolen, config(2), 0), Refusal::TicketSignature, "another's ticket");
    let mut forged = config(1);
    forged.ticket = Ticket::sign(&stranger_operator, 9, forged.node.public(), Role::Member, 100);
    assert_eq!(refused(forged, config(2), 0), Refusal::TicketSignature, "another operator's");
    let mut elsewhere = config(1);
    elsewhere.ticket = Ticket::sign(&super::mesh::operator(), 8, elsewhere.node.public(), Role::Member, 100);
    assert_eq!(refused(elsewhere, config(2), 0), Refusal::TicketSignature, "another mesh's");
    assert_eq!(refused(config(1), config(2), 101), Refusal::TicketExpire);

    let (mut a, mut b) = (node(1), node(2));
    let elsewhere = *node(3).public();
    a.handle_connect(NOW, elsewhere, address(B)).unwrap();
    let wrong_static = sent(&mut a)[0].as_bytes().to_vec();
    assert_eq!(b.handle_datagram(NOW, address(A), &wrong_static), Err(Refusal::Mac1));
    let own = *a.public();
    assert_eq!(a.handle_connect(NOW, own, address(B)), Err(ConnectError::OwnKey));
}

/// The pool key goes into the second message: even where the tag happens to fit, nothing is established.
#[test]
fn a_wrong_psk_with_a_forged_tag_establishes_nothing() {
    let mut entropy = Entropy::new(&Secret::new([78; 32]));
    let wrong = plesio_session::Config { pool: PoolKey::generate(9, &mut entropy), ..config(1) };
    let (mut a, mut b) = (Node::new(NOW, wrong), node(2));
    let mut asked = init(&mut a, &b);
    let tag = init(&mut node(3), &b)[2..4].to_vec();
    asked[2..4].copy_from_slice(&tag);
    sign(&mut asked, &b.public().x25519);
    // The tag is bound by the transcript as well.
    assert_eq!(b.handle_datagram(NOW, address(A), &asked), Err(Refusal::Handshake));
    assert!(events(&mut a).is_empty() && events(&mut b).is_empty());
}

#[test]
fn t5_a_replayed_init_is_refused_and_never_moves_a_living_session() {
    let (mut a, mut b) = (node(1), node(2));
    let asked = init(&mut a, &b);
    b.handle_datagram(NOW, address(A), &asked).unwrap();
    assert_eq!(b.handle_datagram(NOW, address(A), &asked), Err(Refusal::Replay));
    settle(NOW, &mut a, &mut b);
    let a_of_b = established(&events(&mut b), a.public());
    assert_eq!(b.handle_datagram(NOW, address("10.6.6.6:1"), &asked), Err(Refusal::Replay));
    // An INIT of another life of the same node gets an answer, and changes nothing until it is confirmed.
    let mut old_life = Node::new(NOW, plesio_session::Config { incarnation: Incarnation(7), ..config(1) });
    let recorded = init(&mut old_life, &b);
    b.handle_datagram(NOW, address("10.6.6.6:1"), &recorded).unwrap();
    assert!(events(&mut b).is_empty());
    let mut payload = [0; 8];
    let still = seal(&mut b, a_of_b, 0, b"still");
    assert!(a.open_data(NOW, &still, &mut payload).is_ok(), "the living session goes on");
}

#[test]
fn who_asks_at_once_on_both_sides_gets_one_session() {
    let (low, high) = ordered();
    let (mut a, mut b) = (node(low), node(high));
    a.handle_connect(NOW, *b.public(), address(B)).unwrap();
    b.handle_connect(NOW, *a.public(), address(A)).unwrap();
    settle(NOW, &mut a, &mut b);
    assert_eq!(a.counters().of(Refusal::Simultaneous), 1);
    assert_eq!((a.counters().total(), b.counters().total()), (1, 0));
    let (b_of_a, a_of_b) =
        (established(&events(&mut a), b.public()), established(&events(&mut b), a.public()));
    let mut payload = [0; 8];
    let there = seal(&mut a, b_of_a, 0, b"there");
    assert!(b.open_data(NOW, &there, &mut payload).is_ok());
    let back = seal(&mut b, a_of_b, 0, b"back");
    assert!(a.open_data(NOW, &back, &mut payload).is_ok());
}

/// A joiner learnt where a member was that had just died, and asked there for a session. The member's next life, at another
/// address, was refused for as long as that went on: each waited for the other's handshake, the lower key for one that
/// nobody would answer.
#[test]
fn a_new_life_elsewhere_is_answered_while_its_former_one_is_asked() {
    let (low, high) = ordered();
    let elsewhere = address("10.0.1.2:9000");
    for (waits, comes) in [(low, high), (high, low)] {
        let (mut a, mut b) = (node(waits), node(comes));
        a.handle_connect(NOW, *b.public(), address(B)).unwrap();
        assert_eq!(sent(&mut a).len(), 1, "nobody is there");
        let asked = init(&mut b, &a);
        a.handle_datagram(NOW, elsewhere, &asked).expect("an answer");
        for transmit in sent(&mut a) {
            assert_eq!(transmit.to, elsewhere);
            deliver(NOW, &mut b, A, transmit.as_bytes());
        }
        for transmit in sent(&mut b) {
            deliver(NOW, &mut a, "10.0.1.2:9000", transmit.as_bytes());
        }
        let (b_of_a, a_of_b) =
            (established(&events(&mut a), b.public()), established(&events(&mut b), a.public()));
        let mut payload = [0; 8];
        let there = seal(&mut a, b_of_a, 0, b"there");
        assert!(b.open_data(NOW, &there, &mut payload).is_ok());
        let back = seal(&mut b, a_of_b, 0, b"back");
        assert!(a.open_data(NOW, &back, &mut payload).is_ok());
        a.handle_timeout(Instant(S));
        assert!(sent(&mut a).iter().all(|transmit| transmit.to == elsewhere), "the dead is asked no more");
    }
}

#[test]
fn who_is_found_elsewhere_is_asked_there_at_once() {
    let (mut a, b) = (node(1), node(2));
    a.handle_connect(NOW, *b.public(), address(B)).unwrap();
    assert_eq!(sent(&mut a)[0].to, address(B));
    let later = Instant(S / 10);
    a.handle_connect(later, *b.public(), address("10.0.1.2:9000")).unwrap();
    let asked = sent(&mut a);
    assert_eq!(asked.iter().map(|transmit| transmit.to).collect::<Vec<_>>(), [address("10.0.1.2:9000")]);
    a.handle_connect(later, *b.public(), address("10.0.1.2:9000")).unwrap();
    assert!(sent(&mut a).is_empty(), "once is enough");
}

#[test]
fn who_gets_no_answer_asks_again_and_gives_up_at_the_deadline() {
    let (mut a, b) = (node(1), node(2));
    let peer = a.handle_connect(NOW, *b.public(), address(B)).unwrap();
    let (mut asked, mut now) = (sent(&mut a).len(), NOW);
    while let Some(next) = a.poll_timeout(now) {
        assert!(next > now, "time goes on");
        now = next;
        a.handle_timeout(now);
        asked += sent(&mut a).len();
    }
    assert_eq!((asked, now), (5, Instant(10 * S)), "at 0, 0.5, 1.5, 3.5 and 7.5 s");
    assert!(matches!(events(&mut a)[..], [Event::Fail { peer: failed }] if failed == peer));
}

#[test]
fn a_lost_response_or_confirmation_is_made_good() {
    for lost in 0..3 {
        let (mut a, mut b) = (node(1), node(2));
        a.handle_connect(NOW, *b.public(), address(B)).unwrap();
        let (mut now, mut count) = (NOW, 0);
        for _ in 0..40 {
            for transmit in sent(&mut a) {
                if count != lost {
                    deliver(now, &mut b, A, transmit.as_bytes());
                }
                count += 1;
            }
            for transmit in sent(&mut b) {
                if count != lost {
                    deliver(now, &mut a, B, transmit.as_bytes());
                }
                count += 1;
            }
            now = now.after(S / 10);
            a.handle_timeout(now);
            b.handle_timeout(now);
        }
        established(&events(&mut a), b.public());
        established(&events(&mut b), a.public());
    }
}

/// Half a million INITs that are wrong in every way leave nothing but counters.
#[test]
fn t2_memory_is_flat_under_half_a_million_bad_inits() {
    let (mut a, mut b) = (node(1), node(2));
    let good = init(&mut a, &b);
    let mut forged = good.clone();
    forged[40] ^= 1;
    sign(&mut forged, &b.public().x25519);
    let (mut replies, mut noise) = (0_u64, 0);
    for round in 0..500_000_u64 {
        let from = std::net::SocketAddr::new([10, (round >> 16) as u8, (round >> 8) as u8, 1].into(), 9);
        let now = Instant(round * 20_000); // 50,000 a second
        let mut bad = if round % 50 == 0 { forged.clone() } else { good.clone() };
        if round % 50 != 0 {
            bad[8 + (round % 200) as usize] ^= 1 << (round % 8);
        }
        let refusal = b.handle_datagram(now, from, &bad).unwrap_err();
        noise += u64::from(refusal == Refusal::Handshake);
        for reply in sent(&mut b) {
            assert!(reply.as_bytes().len() <= bad.len());
            replies += 1;
        }
    }
    assert_eq!(b.counters().total(), 500_000);
    assert!(noise <= 200 * 11, "{noise} cost private-key work in 10 s");
    assert_eq!(replies, b.counters().of(Refusal::CookieDue), "cookies, and nothing else");
    assert!(replies > 0);
    assert!(b.poll_timeout(Instant(0)).is_none() && events(&mut b).is_empty(), "no peer, no timer, no event");
    let now = Instant(60 * S);
    assert_eq!(b.handle_datagram(now, address(A), &good), Ok(()), "and who is right still gets in");
}

/// What strangers spend is theirs: who shows a cookie gets in during the flood, from the prefix of the flood.
#[test]
fn t2_an_honest_node_gets_in_while_a_flood_from_its_own_prefix_goes_on() {
    let (mut a, mut b, mut outsider) = (node(1), node(2), node(3));
    let mut forged = init(&mut outsider, &b);
    forged[40] ^= 1;
    sign(&mut forged, &b.public().x25519);
    let flood = |now: Instant, b: &mut Node| {
        for port in 1..=50 {
            let from = std::net::SocketAddr::new([10, 0, 0, 77].into(), port);
            assert!(b.handle_datagram(now, from, &forged).is_err());
            let replies: usize = sent(b).iter().map(|reply| reply.as_bytes().len()).sum();
            assert!(replies <= forged.len());
        }
    };
    for ms in 0..1_000 {
        flood(Instant(ms * S / 1_000), &mut b);
    }
    a.handle_connect(Instant(S), *b.public(), address(B)).unwrap();
    // One step there, one back, a millisecond each: INIT, COOKIE, INIT, RESPONSE, and the first word under the keys.
    for ms in 1_000..1_006 {
        let now = Instant(ms * S / 1_000);
        flood(now, &mut b);
        a.handle_timeout(now);
        sent(&mut a).iter().for_each(|transmit| deliver(now, &mut b, A, transmit.as_bytes()));
        let replies = sent(&mut b);
        replies.iter().for_each(|transmit| deliver(now, &mut a, B, transmit.as_bytes()));
    }
    established(&events(&mut a), b.public());
    established(&events(&mut b), a.public());
    assert_eq!((b.counters().of(Refusal::RateLimit), b.counters().of(Refusal::Mac2)), (0, 0));
    assert_eq!(b.counters().of(Refusal::CookieDue) + b.counters().of(Refusal::Handshake), 50 * 1_006 + 1);
}

/// A cookie was good for two minutes in the eyes of who had it, and worth nothing to a peer that had started anew, which
/// met it with silence: no session for two minutes.
#[test]
fn a_cookie_of_a_former_life_is_exchanged_for_one_that_counts() {
    let mut busy = config(2);
    busy.limits.inits_per_second = 1;
    let (mut a, mut b, mut other) = (node(1), Node::new(NOW, busy.clone()), node(3));
    let first = init(&mut other, &b);
    b.handle_datagram(NOW, address("10.9.9.9:1"), &first).unwrap();
    sent(&mut b);
    let asked = init(&mut a, &b);
    assert_eq!(b.handle_datagram(NOW, address(A), &asked), Err(Refusal::CookieDue));
    deliver(NOW, &mut a, B, sent(&mut b)[0].as_bytes());
    a.handle_timeout(NOW);
    let shown = sent(&mut a)[0].as_bytes().to_vec();
    let mut again = Node::new(NOW, plesio_session::Config { seed: Secret::new([77; 32]), ..busy });
    assert_eq!(again.handle_datagram(NOW, address(A), &shown), Err(Refusal::Mac2));
    deliver(NOW, &mut a, B, sent(&mut again)[0].as_bytes());
    let now = a.poll_timeout(NOW).unwrap();
    assert!(now <= Instant(S), "no later than the next retry");
    a.handle_timeout(now);
    settle(now, &mut a, &mut again);
    established(&events(&mut again), a.public());
}

#[test]
fn a_full_table_takes_no_more_peers_and_forgets_who_never_came_back() {
    let mut small = config(2);
    small.peers_max = 1;
    let mut b = Node::new(NOW, small);
    let first = init(&mut node(1), &b);
    let second = init(&mut node(3), &b);
    b.handle_datagram(NOW, address(A), &first).unwrap();
    assert_eq!(b.handle_datagram(NOW, address(A), &second), Err(Refusal::Full));
    let later = b.poll_timeout(NOW).unwrap();
    b.handle_timeout(later);
    assert_eq!(b.handle_datagram(later, address(A), &second), Ok(()));
}

proptest! {
    #[test]
    fn t3_no_bytes_make_the_machine_panic_or_answer_more_than_it_got(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..300), kind in 0u8..12, exact in 0usize..4,
    ) {
        if exact < 3 {
            bytes.resize([INIT_BYTES, RESPONSE_BYTES, COOKIE_BYTES][exact], 7);
        }
        if let Some(first) = bytes.first_mut() {
            *first = 0x10 | kind;
        }
        let mut b = node(2);
        let mut payload = [0; 400];
        prop_assert!(b.handle_datagram(NOW, address(A), &bytes).is_err());
        prop_assert!(b.open_data(NOW, &bytes, &mut payload).is_err());
        prop_assert!(sent(&mut b).is_empty());
        prop_assert_eq!(b.counters().total(), 1);
    }
}
