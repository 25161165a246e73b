//! Packets of a session: what opens, what does not, and how keys change while packets are under way.

use super::mesh::{A, B, Node, S, address, config, data, deliver, events, pair, seal, sent, settle};
use plesio_session::{Config, Event, Limits, PeerId, Refusal, SealError, Suites};
use plesio_wire::Instant;
use plesio_wire::handshake::Suite;
use plesio_wire::sideband::{self, Header, Leave, Message};

const NOW: Instant = Instant(0);

/// With one suite that needs instructions, or none where this CPU lacks them.
fn with(seed: u8, suite: Suite) -> Config {
    Config { suites: Suites::only(suite).unwrap_or(Suites::PORTABLE), ..config(seed) }
}

fn limited(seed: u8, limits: Limits) -> Config {
    Config { limits, ..config(seed) }
}

fn leave(buffer: &mut [u8; sideband::DATAGRAM_BYTES_MAX]) -> &[u8] {
    let header = Header { mesh: 9, view: 1, src: 0, dst: 1, sequence: 4_000_000_000 };
    sideband::encode(&header, &Message::Leave(Leave::default()), buffer)
}

#[test]
fn no_flipped_bit_of_a_sealed_datagram_is_accepted() {
    for suite in [Suite::Aegis128L, Suite::Aes128Gcm, Suite::ChaCha20Poly1305] {
        let (a, b) = (with(1, suite), config(2));
        let (mut a, mut b, b_of_a, a_of_b) = pair(a, b);
        let good = seal(&mut a, b_of_a, 0, b"thirty-three bytes of a gradient.");
        let mut payload = [0; 64];
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            payload.fill(0);
            assert!(b.open_data(NOW, &bad, &mut payload).is_err(), "bit {bit}");
            assert!(b.open_data_in_place(NOW, &mut bad).is_err(), "bit {bit}");
            assert_eq!(payload, [0; 64], "nothing of it is left in the window");
        }
        for len_bytes in 0..good.len() {
            assert!(b.open_data(NOW, &good[..len_bytes], &mut payload).is_err());
        }
        assert!(b.open_data(NOW, &good, &mut payload).is_ok());
        assert_eq!(b.open_data(NOW, &good, &mut payload), Err(Refusal::Replay));
        assert_eq!(a.open_data(NOW, &good, &mut payload), Err(Refusal::UnknownReceiver), "reflected");

        let (mut plain, mut sealed, mut opened) = ([0; 1_232], [0; 1_232], [0; 1_232]);
        let len_bytes = a.seal_sideband(b_of_a, leave(&mut plain), &mut sealed).unwrap();
        for bit in 0..len_bytes * 8 {
            let mut bad = sealed;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(b.open_sideband(NOW, a_of_b, &bad[..len_bytes], &mut opened).is_err(), "bit {bit}");
        }
        let plain_bytes = b.open_sideband(NOW, a_of_b, &sealed[..len_bytes], &mut opened).unwrap();
        let (header, message) = sideband::decode(&opened[..plain_bytes]).unwrap();
        assert_eq!((header.sequence, message), (0, Message::Leave(Leave::default())));
        let again = b.open_sideband(NOW, a_of_b, &sealed[..len_bytes], &mut opened);
        assert_eq!(again, Err(Refusal::Replay));
    }
}

/// Large payloads are opened from one place to another, which is a way of its own through the cipher.
#[test]
fn an_altered_large_datagram_leaves_nothing_in_its_window() {
    for suite in [Suite::Aegis128L, Suite::Aes128Gcm, Suite::ChaCha20Poly1305] {
        let (mut a, mut b, b_of_a, _) = pair(with(1, suite), config(2));
        let good = seal(&mut a, b_of_a, 0, &[7; 5_000]);
        let mut payload = [0; 5_000];
        for bit in (0..good.len() * 8).step_by(97).chain(good.len() * 8 - 128..good.len() * 8) {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            payload.fill(9);
            assert!(b.open_data(NOW, &bad, &mut payload).is_err(), "{suite:?}, bit {bit}");
            let untouched = payload == [9; 5_000];
            assert!(untouched || payload == [0; 5_000], "{suite:?}, bit {bit}");
        }
        assert!(b.open_data(NOW, &good, &mut payload).is_ok());
        assert_eq!(payload, [7; 5_000]);
        assert_eq!(b.open_data(NOW, &good, &mut payload), Err(Refusal::Replay));
        assert_eq!(payload, [7; 5_000], "a repetition is refused before anything is written");
    }
}

#[test]
fn ends_with_different_suites_come_to_one_that_both_have() {
    let every = [Suite::Aegis128L, Suite::Aes128Gcm, Suite::ChaCha20Poly1305];
    for (of_a, of_b) in every.into_iter().flat_map(|suite| every.map(|other| (suite, other))) {
        let (mut a, mut b, b_of_a, _) = pair(with(1, of_a), with(2, of_b));
        let there = seal(&mut a, b_of_a, 0, b"x");
        assert!(b.open_data(NOW, &there, &mut [0; 1]).is_ok(), "{of_a:?} {of_b:?}");
    }
}

#[test]
fn t7_f28_a_number_is_sealed_once_and_a_key_carries_no_more_than_its_limit() {
    let limits = Limits { packets_max: 3, ..Limits::default() };
    let (mut a, _, b_of_a, _) = pair(limited(1, limits), config(2));
    let mut datagram = [0; 64];
    assert_eq!(a.seal_data(b_of_a, &mut data(5), b"x", &mut datagram), Ok(49));
    let again = a.seal_data(b_of_a, &mut data(5), b"y", &mut datagram);
    assert_eq!(again, Err(SealError::NumberUsed { next: 6 }));
    datagram[32] = b'z';
    assert_eq!(a.sealer(b_of_a).unwrap().seal_data_in_place(&mut data(1 << 63), 1, &mut datagram), Ok(49));
    let unused = a.seal_data(b_of_a, &mut data(1 << 62), b"y", &mut datagram);
    assert!(matches!(unused, Err(SealError::NumberUsed { .. })));
    let large = a.seal_data(b_of_a, &mut data(6), &[0; 17], &mut datagram);
    assert_eq!(large, Err(SealError::Size { needed_bytes: 65 }));
    assert_eq!(a.seal_data(b_of_a, &mut data(6), b"x", &mut datagram), Ok(49));
    assert_eq!(a.seal_data(b_of_a, &mut data(7), b"x", &mut datagram), Err(SealError::Exhausted));
    let mut sealed = [0; 1_232];
    assert_eq!(a.seal_sideband(b_of_a, b"nothing", &mut sealed), Err(SealError::Sideband));
    let nobody = a.seal_data(PeerId(7), &mut data(7), b"x", &mut datagram);
    assert_eq!(nobody, Err(SealError::NoSession));
}

/// Both sides send all the time over a link that loses a quarter and reorders, through many changes of keys.
#[test]
fn keys_change_under_loss_and_reordering_without_losing_what_arrives() {
    const STEP: u64 = S / 100;
    let limits = Limits { rekey_ns: S, session_ns_max: 30 * S, overlap_ns: S, ..Limits::default() };
    let (mut a, mut b, b_of_a, a_of_b) = pair(limited(1, limits), limited(2, limits));
    let (mut rekeys, mut opened, mut sealed) = ([0; 2], [0_u64; 2], 0_u64);
    let mut under_way: Vec<(u64, bool, Vec<u8>)> = Vec::new();
    let mut random = 12_345_u64;
    for step in 1..3_000_u64 {
        let now = Instant(step * STEP);
        let mut fresh = vec![
            (true, seal(&mut a, b_of_a, step, b"from a")),
            (false, seal(&mut b, a_of_b, step, b"from b")),
        ];
        sealed += 2;
        fresh.extend(sent(&mut a).into_iter().map(|t| (true, t.as_bytes().to_vec())));
        fresh.extend(sent(&mut b).into_iter().map(|t| (false, t.as_bytes().to_vec())));
        for (to_b, datagram) in fresh {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            if !(random >> 40).is_multiple_of(4) {
                under_way.push((step + (random >> 50) % 20, to_b, datagram));
            }
        }
        let (due, later) = std::mem::take(&mut under_way).into_iter().partition(|(at, ..)| *at <= step);
        under_way = later;
        let due: Vec<(u64, bool, Vec<u8>)> = due;
        for (_, to_b, datagram) in due {
            let node = if to_b { &mut b } else { &mut a };
            let mut payload = [0; 16];
            if plesio_wire::handshake::kind_of(&datagram).is_some() {
                let _ = node.handle_datagram(now, address(if to_b { A } else { B }), &datagram);
            } else if node.open_data(now, &datagram, &mut payload).unwrap().is_some() {
                opened[usize::from(to_b)] += 1;
            }
        }
        for (at, node) in [&mut a, &mut b].into_iter().enumerate() {
            node.handle_timeout(now);
            let seen = events(node);
            assert!(seen.iter().all(|event| matches!(event, Event::Rekey { .. })), "{seen:?}");
            rekeys[at] += seen.len();
        }
    }
    assert!(rekeys[0] >= 10 && rekeys[1] >= 10, "{rekeys:?}");
    assert!(opened[0] + opened[1] > sealed * 7 / 10, "{opened:?} of {sealed}");
}

#[test]
fn keys_change_after_their_packets_and_old_ones_open_until_the_overlap_ends() {
    let limits = Limits { rekey_packets: 10, ..Limits::default() };
    let (mut a, mut b, b_of_a, _) = pair(limited(1, limits), limited(2, limits));
    let old: Vec<Vec<u8>> = (0..10).map(|packet| seal(&mut a, b_of_a, packet, b"old")).collect();
    assert_eq!(a.poll_timeout(NOW), Some(NOW), "a change is due at once");
    a.handle_timeout(NOW);
    settle(NOW, &mut a, &mut b);
    assert!(matches!(events(&mut a)[..], [Event::Rekey { peer }] if peer == b_of_a));
    let mut payload = [0; 8];
    assert!(b.open_data(NOW, &old[0], &mut payload).is_ok());
    let later = Instant(10 * S);
    b.handle_timeout(later);
    assert_eq!(b.open_data(later, &old[1], &mut payload), Err(Refusal::UnknownReceiver), "an old session");
    let fresh = seal(&mut a, b_of_a, 0, b"fresh");
    assert!(b.open_data(later, &fresh, &mut payload).is_ok());
}

#[test]
fn what_a_former_life_sealed_opens_no_more() {
    let (mut a, mut b, b_of_a, _) = pair(config(1), config(2));
    let stale = seal(&mut a, b_of_a, 0, b"stale");
    let reborn = Config { incarnation: plesio_wire::Incarnation(50), ..config(1) };
    let mut a = Node::new(NOW, reborn);
    a.handle_connect(NOW, *b.public(), address(B)).unwrap();
    settle(NOW, &mut a, &mut b);
    assert!(matches!(events(&mut b)[..], [Event::Establish { .. }]));
    assert_eq!(b.open_data(NOW, &stale, &mut [0; 8]), Err(Refusal::UnknownReceiver));
}

#[test]
fn a_session_ends_with_its_ticket_its_time_or_its_removal() {
    let (mut a, mut b, b_of_a, a_of_b) = pair(config(1), config(2));
    b.handle_view(100);
    assert!(b.is_established(a_of_b));
    b.handle_view(101);
    assert!(matches!(events(&mut b)[..], [Event::Expire { peer }] if peer == a_of_b));
    assert!(!b.is_established(a_of_b));
    assert!(a.is_established(b_of_a));
    a.handle_remove(b_of_a);
    assert!(!a.is_established(b_of_a) && a.poll_timeout(NOW).is_none());

    let (mut a, _, b_of_a, _) = pair(config(1), config(2));
    let late = Instant(180 * S);
    a.handle_timeout(late);
    assert!(matches!(events(&mut a)[..], [Event::Expire { peer }] if peer == b_of_a));
    assert_eq!(a.seal_data(b_of_a, &mut data(1), b"x", &mut [0; 64]), Err(SealError::NoSession));
    for transmit in sent(&mut a) {
        deliver(late, &mut Node::new(late, config(2)), A, transmit.as_bytes());
    }
}

/// In a mesh of two the member that is left would have lost its quorum for good.
#[test]
fn nobody_joins_a_view_that_its_ticket_does_not_outlast() {
    for (view, joins) in [(99, true), (100, false)] {
        let (mut a, mut b) = (Node::new(NOW, config(1)), Node::new(NOW, config(2)));
        b.handle_view(view);
        a.handle_connect(NOW, *b.public(), address(B)).unwrap();
        settle(NOW, &mut a, &mut b);
        assert_eq!(a.counters().of(Refusal::TicketExpire), u64::from(!joins), "view {view}");
        assert_eq!(matches!(events(&mut a)[..], [Event::Establish { .. }]), joins, "view {view}");
    }
    // Who is a member stays one until its ticket ends.
    let (mut a, mut b) = (Node::new(NOW, config(1)), Node::new(NOW, config(2)));
    a.handle_view(100);
    b.handle_view(100);
    a.handle_connect(NOW, *b.public(), address(B)).unwrap();
    settle(NOW, &mut a, &mut b);
    assert!(matches!(events(&mut a)[..], [Event::Establish { .. }]));
}

/// The peer has new keys only when it has shown them: until then what we send must open with what it surely has.
#[test]
fn the_old_keys_send_until_the_new_ones_are_shown() {
    let limits = Limits { rekey_packets: 10, ..Limits::default() };
    let (mut a, mut b, b_of_a, a_of_b) = pair(limited(1, limits), limited(2, limits));
    for packet in 0..10 {
        seal(&mut a, b_of_a, packet, b"old");
    }
    let before = a.sealer(b_of_a).unwrap().receiver();
    a.handle_timeout(NOW);
    deliver(NOW, &mut b, A, sent(&mut a)[0].as_bytes());
    deliver(NOW, &mut a, B, sent(&mut b)[0].as_bytes());
    // The handshake is done, and the word that says so is lost: both still send with the old keys.
    let lost = sent(&mut a);
    assert_eq!((lost.len(), events(&mut a).len(), events(&mut b).len()), (1, 0, 0));
    assert_eq!(a.sealer(b_of_a).unwrap().receiver(), before);
    let there = seal(&mut a, b_of_a, 10, b"old");
    assert!(b.open_data(NOW, &there, &mut [0; 8]).is_ok());
    let back = seal(&mut b, a_of_b, 0, b"old");
    assert!(a.open_data(NOW, &back, &mut [0; 8]).is_ok());
    // It is said again, answered, and then both change.
    let again = a.poll_timeout(NOW).unwrap();
    assert_eq!(again, Instant(S / 2));
    a.handle_timeout(again);
    settle(again, &mut a, &mut b);
    assert!(matches!(events(&mut a)[..], [Event::Rekey { .. }]));
    assert!(matches!(events(&mut b)[..], [Event::Rekey { .. }]));
    assert_ne!(a.sealer(b_of_a).unwrap().receiver(), before);
    // When no word ever arrives, the new keys are dropped and the change begins anew.
    for packet in 11..30 {
        seal(&mut a, b_of_a, packet, b"more");
    }
    a.handle_timeout(again);
    deliver(again, &mut b, A, sent(&mut a)[0].as_bytes());
    deliver(again, &mut a, B, sent(&mut b)[0].as_bytes());
    let over = again.after(Limits::default().unconfirmed_ns);
    sent(&mut a);
    a.handle_timeout(over);
    let fresh = sent(&mut a);
    assert_eq!(fresh.len(), 1);
    assert!(plesio_wire::handshake::kind_of(fresh[0].as_bytes()).is_some(), "another INIT");
    assert!(a.is_established(b_of_a));
}

/// Several connections share a session: each numbers its own packets, and none repeats another's.
#[test]
fn channels_number_their_packets_apart() {
    let (mut a, mut b, b_of_a, _) = pair(config(1), config(2));
    let numbered = |lane: u64, channel: u64, count: u64| lane << 62 | channel << 40 | count;
    let mut opened = 0;
    for count in 0..3 {
        for (lane, channel) in [(0, 0), (2, 0), (0, 1), (2, 1), (0, 7), (2, 7), (0, 8)] {
            let packet = numbered(lane, channel, count);
            let datagram = seal(&mut a, b_of_a, packet, b"x");
            assert_eq!(
                a.seal_data(b_of_a, &mut data(packet), b"y", &mut [0; 64]),
                Err(SealError::NumberUsed { next: packet + 1 })
            );
            assert!(b.open_data(NOW, &datagram, &mut [0; 1]).is_ok());
            assert_eq!(b.open_data(NOW, &datagram, &mut [0; 1]), Err(Refusal::Replay));
            opened += 1;
        }
    }
    assert_eq!(opened, 21);
    // The newest six views' channels have windows; what is older is neither sealed nor opened.
    let old = seal(&mut a, b_of_a, numbered(0, 7, 9), b"x");
    for channel in 9..=13 {
        let datagram = seal(&mut a, b_of_a, numbered(0, channel, 0), b"x");
        assert!(b.open_data(NOW, &datagram, &mut [0; 1]).is_ok());
    }
    assert_eq!(b.open_data(NOW, &old, &mut [0; 1]), Err(Refusal::Replay));
    let stale = a.seal_data(b_of_a, &mut data(numbered(0, 7, 10)), b"x", &mut [0; 64]);
    assert!(matches!(stale, Err(SealError::NumberUsed { .. })));
    assert!(a.seal_data(b_of_a, &mut data(numbered(0, 0, 3)), b"x", &mut [0; 64]).is_ok(), "standing");
    let own = a.seal_data(b_of_a, &mut data(numbered(3, 0, 0)), b"x", &mut [0; 64]);
    assert!(matches!(own, Err(SealError::NumberUsed { .. })), "the session's own lane is the session's");
}

/// Keys are handed out once: who fetches no events gets no more sessions, and loses none that it has.
#[test]
fn who_fetches_no_events_gets_no_more_sessions() {
    let mut b = Config { peers_max: 64, ..config(200) };
    b.limits.inits_per_second = 1_000_000;
    b.limits.inits_per_source_and_second = 1_000_000;
    let mut b = Node::new(NOW, b);
    let mut refused = 0;
    for seed in 0..80 {
        let mut a = Node::new(NOW, config(seed));
        a.handle_connect(NOW, *b.public(), address(B)).unwrap();
        let asked = sent(&mut a);
        refused += u8::from(b.handle_datagram(NOW, address(A), asked[0].as_bytes()) == Err(Refusal::Full));
    }
    assert_eq!(refused, 16);
    assert!(events(&mut b).is_empty(), "keys only");
    let mut a = Node::new(NOW, config(3));
    a.handle_connect(NOW, *b.public(), address(B)).unwrap();
    let asked = sent(&mut a);
    assert_eq!(b.handle_datagram(NOW, address(A), asked[0].as_bytes()), Err(Refusal::Replay), "it goes on");
}

/// Every kind of datagram of either plane, sealed: whatever bit is turned on the way, it does not come in.
#[test]
fn no_flipped_bit_of_any_kind_is_accepted() {
    use plesio_wire::data::Kind;
    use plesio_wire::sideband::{
        Accept, Beat, Commit, Epoch, Have, Join, Last, Nack, Probe, ProbeReply, Propose, Query, Ready,
        Roster, RosterEntry, Shard, ShortBeat, Snapshot,
    };
    let (mut a, mut b, b_of_a, a_of_b) = pair(config(1), config(2));
    let mut opened = [0; 64];
    let kinds = [Kind::Data, Kind::Ack, Kind::Credit, Kind::Probe, Kind::Ping, Kind::Bye];
    for (count, kind) in kinds.into_iter().enumerate() {
        let lane = if kind == Kind::Data { 0 } else { 1 << 63 };
        let mut header = plesio_wire::data::Header { kind, ..data(lane | count as u64) };
        let mut datagram = [0; 112];
        a.seal_data(b_of_a, &mut header, &[count as u8; 64], &mut datagram).unwrap();
        for bit in 0..datagram.len() * 8 {
            let mut bad = datagram;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(b.open_data(NOW, &bad, &mut opened).is_err(), "{kind:?} bit {bit}");
        }
        assert_eq!(b.open_data(NOW, &datagram, &mut opened).map(|o| o.map(|(_, h)| h.kind)), Ok(Some(kind)));
    }

    let mut roster = Roster::default();
    for _ in 0..16 {
        roster.entries.push(RosterEntry::default()).unwrap();
    }
    let view = plesio_wire::value::Value::View(plesio_wire::value::View::default());
    let messages = [
        Message::Probe(Probe::default()),
        Message::ProbeReply(ProbeReply::default()),
        Message::Beat(Beat::default()),
        Message::Ready(Ready::default()),
        Message::Have(Have::default()),
        Message::Propose(Propose::default()),
        Message::Accept(Accept::default()),
        Message::Commit(Commit::default()),
        Message::Query(Query::default()),
        Message::Last(Last::default()),
        Message::Join(Join::default()),
        Message::Epoch(Epoch::default()),
        Message::Leave(Leave::default()),
        Message::Nack(Nack::default()),
        Message::ShortBeat(ShortBeat::default()),
        Message::Shard(Shard::default()),
        Message::Roster(roster),
        Message::Decided { index: plesio_wire::LogIndex(0), value: view },
        Message::Seal(Accept::default()),
        Message::Snapshot(Snapshot::default()),
    ];
    let header = Header { mesh: 9, view: 1, src: 0, dst: 1, sequence: 0 };
    for message in messages {
        let (mut plain, mut sealed, mut opened) = ([0; 1_232], [0; 1_232], [0; 1_232]);
        let plain = sideband::encode(&header, &message, &mut plain);
        let len_bytes = a.seal_sideband(b_of_a, plain, &mut sealed).unwrap();
        for bit in 0..len_bytes * 8 {
            let mut bad = sealed;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(
                b.open_sideband(NOW, a_of_b, &bad[..len_bytes], &mut opened).is_err(),
                "{message:?} bit {bit}"
            );
        }
        let len_bytes = b.open_sideband(NOW, a_of_b, &sealed[..len_bytes], &mut opened).unwrap();
        assert_eq!(sideband::decode(&opened[..len_bytes]).unwrap().1, message);
    }
}
