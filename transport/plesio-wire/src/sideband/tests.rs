//! Every message round-trips, every flipped bit is refused, no bytes panic the decoder.

use super::*;
use crate::value::{Entry, Manifest, Seat, Value, View};
use crate::*;
use std::{vec, vec::Vec};

fn view(members: usize) -> View {
    let mut view = View { number: 3, period_us: 250_000, scale_exponent: -7, elements: 9, ..View::default() };
    for index in 0..members as u64 {
        let seat = Seat { key: NodeKey(index * 5), incarnation: Incarnation(index), admitted: LogIndex(1) };
        view.members.push(seat).unwrap();
    }
    view
}

fn manifest() -> Manifest {
    let mut manifest = Manifest { origin: Frame(40), close: -5, period_next_us: 7, ..Manifest::default() };
    for member in 0..MEMBERS_MAX as u16 {
        manifest.entries.push(Entry { member, slot_seq: 8, weight: 1 << 19, ..Entry::default() }).unwrap();
    }
    manifest
}

fn order(signers: usize) -> Order {
    let mut order = Order { sequence: u64::MAX, scope: 1, action: 2, ..Order::default() };
    for signer in 0..signers as u8 {
        order.signatures.push(OrderSignature { signer, signature: [signer; 64] }).unwrap();
    }
    order
}

fn every_message() -> Vec<Message> {
    let ballot = Ballot { frame: Frame(41), term: 2 };
    let mut have = Have { frame: Frame(77), entries: Bounded::default() };
    let mut roster = Roster::default();
    for member in 0..16 {
        have.entries.push(HaveEntry { member, sumsq: u64::MAX, ..HaveEntry::default() }).unwrap();
        let address = Address("10.1.2.3:65535".parse().unwrap());
        roster.entries.push(RosterEntry { data: address, ..RosterEntry::default() }).unwrap();
    }
    vec![
        Message::Probe(Probe { t1: i64::MIN, ..Probe::default() }),
        Message::ProbeReply(ProbeReply { pos: 1, t3: -1, ..ProbeReply::default() }),
        Message::Beat(Beat { suspect: MemberSet(5), index: u64::MAX, ..Beat::default() }),
        Message::Ready(Ready { slot_seq: 1 << 33, ..Ready::default() }),
        Message::Have(have),
        Message::Propose(Propose { index: LogIndex(9), ballot, manifest: manifest() }),
        Message::Accept(Accept { digest: Digest([9; 16]), ..Accept::default() }),
        Message::Commit(Commit { accepted: MemberSet(7), ..Commit::default() }),
        Message::Query(Query { index: LogIndex(2), ..Query::default() }),
        Message::Last(Last { value: None, ballot, ..Last::default() }),
        Message::Last(Last { value: Some(Value::View(view(32))), ballot, ..Last::default() }),
        Message::Last(Last { value: Some(Value::Seal(Frame(4))), ..Last::default() }),
        Message::Join(Join { id: NodeId([3; 32]), ..Join::default() }),
        Message::Epoch(Epoch { index: LogIndex(3), ballot, view: view(32) }),
        Message::Leave(Leave { incarnation: Incarnation(3) }),
        Message::Nack(Nack { code: nack::STALE, ..Nack::default() }),
        Message::ShortBeat(ShortBeat { flags: 1, ..ShortBeat::default() }),
        Message::Halt(Order { sequence: 9, ..Order::default() }),
        Message::Halt(order(2)),
        Message::Resume(order(SIGNERS_MAX)),
        Message::Shard(Shard { digest: Digest([1; 16]), ..Shard::default() }),
        Message::Roster(roster),
        Message::Decided { index: LogIndex(6), value: Value::Manifest(manifest()) },
        Message::Decided { index: LogIndex(6), value: Value::View(view(32)) },
        Message::Seal(Accept::default()),
        Message::Snapshot(Snapshot { op: 1, len_bytes: 5, ..Snapshot::default() }),
        Message::OrderAck(OrderAck { kind: OrderKind::Resume, token: 7, ..OrderAck::default() }),
        Message::Relay(Relay { datagram: Bounded::from_slice(&[9; HEADER_BYTES]), ..Relay::default() }),
        Message::Relay(Relay {
            leg: Leg::Second,
            whose: 31,
            datagram: Bounded::from_slice(&[7; CARRIED_BYTES_MAX]),
        }),
        Message::Revive(Revive { op: revive::PROPOSE, view: view(32), ..Revive::default() }),
    ]
}

fn header() -> Header {
    Header { mesh: 0xABCD, view: 3, src: 1, dst: INDEX_NONE, sequence: u32::MAX }
}

#[test]
fn every_message_survives_the_wire() {
    for message in every_message() {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let datagram = encode(&header(), &message, &mut buffer).to_vec();
        let (read, body) = decode(&datagram).unwrap();
        assert_eq!((read, body), (header(), message));
        assert!(datagram.len() + crate::data::TAG_BYTES <= DATAGRAM_BYTES_MAX, "room for a tag: {message:?}");
        let mut again = [0; DATAGRAM_BYTES_MAX];
        assert_eq!(encode(&read, &body, &mut again), datagram);
    }
}

#[test]
fn c9_01_f9_every_flipped_bit_and_every_cut_is_refused() {
    for message in every_message() {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        let datagram = encode(&header(), &message, &mut buffer).to_vec();
        for bit in 0..datagram.len() * 8 {
            let mut bad = datagram.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bad).is_err(), "type {} bit {bit}", message.code());
        }
        for len_bytes in 0..datagram.len() {
            assert!(decode(&datagram[..len_bytes]).is_err());
        }
    }
}

#[test]
fn sizes_are_those_of_the_specification() {
    let size = |message: Message| {
        let mut buffer = [0; DATAGRAM_BYTES_MAX];
        encode(&header(), &message, &mut buffer).len() - HEADER_BYTES
    };
    assert_eq!(size(Message::Probe(Probe::default())), 32);
    assert_eq!(size(Message::ProbeReply(ProbeReply::default())), 48);
    assert_eq!(size(Message::Ready(Ready::default())), 48);
    assert_eq!(size(Message::Propose(Propose { manifest: manifest(), ..Propose::default() })), 56 + 20 * 32);
    assert_eq!(size(Message::Accept(Accept::default())), 40);
    assert_eq!(size(Message::Commit(Commit::default())), 48);
    assert_eq!(size(Message::Query(Query::default())), 24);
    assert_eq!(size(Message::Nack(Nack::default())), 16);
    assert_eq!(size(Message::ShortBeat(ShortBeat::default())), 24);
    assert_eq!(size(Message::Halt(order(2))), 11 + 2 * 65);
    // Nobody is answered with more than was asked with.
    assert!(size(Message::OrderAck(OrderAck::default())) < size(Message::Resume(order(1))));
}

#[test]
fn c9_17_bodies_of_random_bytes_behind_a_good_checksum_never_panic() {
    // A liar can compute a CRC; only the body decoders stand between it and the machines.
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..20_000u32 {
        let len_bytes = HEADER_BYTES + (next() % (DATAGRAM_BYTES_MAX - HEADER_BYTES) as u64) as usize;
        let mut bytes: Vec<u8> = (0..len_bytes).map(|_| next() as u8).collect();
        bytes[0..2].copy_from_slice(&0x4350u16.to_le_bytes());
        bytes[2] = 1;
        bytes[3] = (round % 26) as u8;
        bytes[4..6].fill(0);
        bytes[6..8].copy_from_slice(&(len_bytes as u16).to_le_bytes());
        bytes[28..32].fill(0);
        let crc = crc32fast::hash(&bytes);
        bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        if let Ok((header, message)) = decode(&bytes) {
            let mut buffer = [0; DATAGRAM_BYTES_MAX];
            assert_eq!(encode(&header, &message, &mut buffer), bytes);
        }
    }
}
