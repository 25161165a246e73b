//! Every decoder of `plesio-wire`: no bytes make it panic or allocate, and what it takes encodes back to the same
//! bytes (I11).
//!
//! A liar can compute a checksum; so whatever is refused for its checksum or length is also tried with them mended.

use super::Target;
use plesio_wire::data::{self, Ack, Bye, Credit, Flags, Header, Kind, MessageId, Ping};
use plesio_wire::draw::{Draw, Near};
use plesio_wire::handshake::{Cookie, Init, InitPayload, Response, ResponsePayload, Role, Suite};
use plesio_wire::near::{NearSays, NearWord, Notice};
use plesio_wire::shares::SHARE_ONE;
use plesio_wire::sideband::{
    self, Accept, Address, Beat, Commit, Epoch, Have, HaveEntry, Join, Last, Leave, Message, Nack, Order,
    OrderAck, OrderKind, OrderSignature, Probe, ProbeReply, Propose, Query, Ready, Relay, Roster,
    RosterEntry, SIGNERS_MAX, Shard, ShortBeat, Snapshot,
};
use plesio_wire::value::{Entry, Manifest, Seat, Value, View};
use plesio_wire::{
    Ballot, Bounded, DecodeError, Digest, Frame, Incarnation, LogIndex, MEMBERS_MAX, MemberSet, NodeId,
    NodeKey, Reader, Span, Version, Wire, Writer, handshake,
};
use std::fmt::Debug;

/// Headers and control bodies of the data plane.
pub const DATA: Target = Target {
    name: "data",
    begin: || Box::new(take_data),
    life: 1,
    seeds: data_seeds,
    bytes_max: 1_200,
    allocates: false,
};

/// What nodes of one host say about memory.
pub const NEAR: Target = Target {
    name: "near",
    begin: || Box::new(take_near),
    life: 1,
    seeds: near_seeds,
    bytes_max: 64,
    allocates: false,
};

/// The handshake's datagrams and what they carry sealed.
pub const HANDSHAKE: Target = Target {
    name: "handshake",
    begin: || Box::new(take_handshake),
    life: 1,
    seeds: handshake_seeds,
    bytes_max: 300,
    allocates: false,
};

/// Whole sideband datagrams, plaintext and sealed.
pub const SIDEBAND: Target = Target {
    name: "sideband",
    begin: || Box::new(take_sideband),
    life: 1,
    seeds: sideband_seeds,
    bytes_max: sideband::DATAGRAM_BYTES_MAX + 8,
    allocates: false,
};

/// Values of the log and the words they are made of.
pub const VALUES: Target = Target {
    name: "values",
    begin: || Box::new(take_values),
    life: 1,
    seeds: value_seeds,
    bytes_max: 1_200,
    allocates: false,
};

/// Room for anything that is encoded again.
const ROOM: usize = 2_048;

/// What `bytes` are as a `T`; if they are one, it encodes back to them.
fn check<T: Wire + Debug>(bytes: &[u8]) -> Option<T> {
    let mut reader = Reader::new(bytes);
    let value: T = reader.read().ok()?;
    let taken = bytes.len() - reader.remaining();
    let mut room = [0; ROOM];
    let mut writer = Writer::new(&mut room);
    writer.write(&value);
    let len_bytes = writer.len_bytes();
    assert_eq!(&room[..len_bytes], &bytes[..taken], "{value:?}");
    Some(value)
}

fn take_data(bytes: &[u8]) {
    for parse in [Header::parse, Header::parse_sealed] {
        let Ok(header) = parse(bytes) else { continue };
        assert_eq!(header.to_bytes(), bytes[..data::HEADER_BYTES]);
        let body = &bytes[data::HEADER_BYTES..];
        if header.flags.has(Flags::SEALED) {
            assert_eq!(body.len(), usize::from(header.payload_bytes) + data::TAG_BYTES);
            continue;
        }
        let accepted = header.verify(body);
        let mut mended = Header { payload_bytes: body.len() as u16, ..header };
        mended.protect(body);
        assert_eq!(mended.verify(body), Ok(()));
        if accepted.is_ok() {
            assert_eq!(mended, header);
        }
        // What is behind the body of an ACK are further blocks: as many as there are whole ones.
        match header.kind {
            Kind::Ack => drop(check::<Ack>(body)),
            Kind::Credit => drop(check::<Credit>(body)),
            Kind::Ping => drop(check::<Ping>(body)),
            Kind::Bye => drop(check::<Bye>(body)),
            _ => {}
        }
        let packet = header.packet;
        assert!(data::channel_of(packet) <= data::CHANNEL_MAX && data::count_of(packet) <= data::COUNT_MAX);
        let again =
            packet & (3 << 62) | data::packet_first(data::channel_of(packet)) | data::count_of(packet);
        assert_eq!(again, packet);
    }
}

fn take_near(bytes: &[u8]) {
    check::<NearWord>(bytes);
    if let Some(notice) = check::<Notice>(bytes) {
        assert!(notice.generation.is_multiple_of(2) && notice.span.len_bytes > 0);
    }
}

fn near_seeds() -> Vec<Vec<u8>> {
    let span = Span { region: 3, offset_bytes: 64, len_bytes: 4_096 };
    let notice = Notice { generation: 8, arena: 5, span };
    let words = [NearSays::Open, NearSays::Mapped, NearSays::Unmapped];
    let words = words.into_iter().map(|says| encoded(&NearWord { says, arena: 5 }));
    words.chain([encoded(&notice)]).collect()
}

fn take_handshake(bytes: &[u8]) {
    let kind = handshake::kind_of(bytes);
    if let Ok(init) = Init::parse(bytes) {
        assert_eq!((kind, &init.to_bytes()[..]), (Some(handshake::Kind::Init), bytes));
    }
    if let Ok(response) = Response::parse(bytes) {
        assert_eq!((kind, &response.to_bytes()[..]), (Some(handshake::Kind::Response), bytes));
    }
    if let Ok(cookie) = Cookie::parse(bytes) {
        assert_eq!((kind, &cookie.to_bytes()[..]), (Some(handshake::Kind::Cookie), bytes));
    }
    check::<InitPayload>(bytes);
    check::<ResponsePayload>(bytes);
}

fn take_sideband(bytes: &[u8]) {
    take_drawn(bytes);
    let refused = read_sideband(bytes).err();
    let mut room = [0; sideband::DATAGRAM_BYTES_MAX];
    let Some(copy) = room.get_mut(..bytes.len()).filter(|copy| copy.len() >= sideband::HEADER_BYTES) else {
        return;
    };
    copy.copy_from_slice(bytes);
    if sideband::sealed_sequence(copy).is_ok() {
        let end = copy.len() - data::TAG_BYTES;
        let plain = &mut copy[..end];
        if sideband::restore_plain(plain).is_ok() {
            let _any = read_sideband(plain);
            let again = sideband::sealed_header(plain, 7).expect("it fitted with its tag");
            assert_eq!(again[..4], plain[..4]);
        }
    } else if refused.is_some() {
        mend(copy);
        let _any = read_sideband(copy);
    }
}

/// The bytes as chance: what every test draws of the agreement, the way that it takes between two nodes.
fn take_drawn(bytes: &[u8]) {
    let mut rest = bytes.chunks(8);
    let mut beyond = 0u64;
    let mut source = || match rest.next() {
        Some(chunk) => chunk.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)),
        None => {
            beyond = beyond.wrapping_add(0x9E37_79B9_7F4A_7C15);
            beyond
        }
    };
    let near = Near { view: view(3), index: LogIndex(6), frame: Frame(41), version: Version(5) };
    let message = Draw::new(&mut source).message(&near);
    let mut room = [0; sideband::DATAGRAM_BYTES_MAX];
    let _sound = read_sideband(sideband::encode(&sideband::Header::default(), &message, &mut room));
}

/// Gives a datagram the length and the checksum that it should have, and no flag that a plaintext one never has.
fn mend(datagram: &mut [u8]) {
    datagram[..2].copy_from_slice(&0x4350_u16.to_le_bytes());
    datagram[2] = 1;
    datagram[4] &= 2;
    datagram[5] = 0;
    let len_bytes = datagram.len() as u16;
    datagram[6..8].copy_from_slice(&len_bytes.to_le_bytes());
    datagram[28..32].fill(0);
    let crc = crc32fast::hash(datagram);
    datagram[28..32].copy_from_slice(&crc.to_le_bytes());
}

fn read_sideband(bytes: &[u8]) -> Result<(), DecodeError> {
    let (header, message) = sideband::decode(bytes)?;
    let mut room = [0; sideband::DATAGRAM_BYTES_MAX];
    assert_eq!(sideband::encode(&header, &message, &mut room), bytes, "{message:?}");
    Ok(())
}

fn take_values(bytes: &[u8]) {
    let Some((selector, bytes)) = bytes.split_first() else { return };
    match selector % 12 {
        0 => drop(check::<Value>(bytes)),
        1 => drop(check::<Option<Value>>(bytes)),
        2 => drop(check::<Manifest>(bytes)),
        3 => {
            if let Some(view) = check::<View>(bytes) {
                // Members need not be sorted here: whoever takes a view checks that. A search only has to end.
                let _place = view.index_of(NodeKey(u64::from(view.number)));
                let _digest = view.digest();
            }
        }
        4 => drop(check::<Have>(bytes)),
        5 => drop(check::<Propose>(bytes)),
        6 => drop(check::<Last>(bytes)),
        7 => drop(check::<Roster>(bytes)),
        8 => drop(check::<Join>(bytes)),
        9 => {
            if let Some(ballot) = check::<Ballot>(bytes) {
                for members in [0, 1, 3, MEMBERS_MAX] {
                    assert!(usize::from(ballot.owner(members)) < members.max(1));
                }
            }
        }
        10 => {
            if let Some(set) = check::<MemberSet>(bytes) {
                assert_eq!(set.iter().count(), set.len());
                assert!(set.iter().all(|member| set.contains(member)));
            }
        }
        _ => drop(check::<Bounded<HaveEntry, 64>>(bytes)),
    }
}

fn encoded<T: Wire>(value: &T) -> Vec<u8> {
    let mut room = [0; ROOM];
    let mut writer = Writer::new(&mut room);
    writer.write(value);
    let len_bytes = writer.len_bytes();
    room[..len_bytes].to_vec()
}

fn data_seeds() -> Vec<Vec<u8>> {
    let ack = Ack { cumulative: 900, largest: 1_000, selective: [0xA5; 32], ..Ack::default() };
    let bodies = [
        (Kind::Data, vec![7; 64]),
        (Kind::Ack, encoded(&ack)),
        (Kind::Ack, [encoded(&ack), vec![0xFF; 64]].concat()),
        (Kind::Credit, encoded(&Credit { credit_limit_bytes: 1 << 30 })),
        (Kind::Probe, vec![0; 100]),
        (Kind::Ping, encoded(&Ping { floor: 12 })),
        (Kind::Bye, encoded(&Bye { reason: 1 })),
    ];
    let datagram = |(kind, body): &(Kind, Vec<u8>), sealed: bool| {
        let lane = if *kind == Kind::Data { 0 } else { data::CONTROL_PACKET_FIRST };
        let mut header = Header {
            kind: *kind,
            flags: Flags::LAST_OF_MSG,
            payload_bytes: body.len() as u16,
            receiver: 7,
            packet: lane | data::packet_first(3) | 1_000,
            message: MessageId { handle: 3, sequence: 9 },
            chunk: 2,
            clock_us: 5,
            crc32: 0,
        };
        let mut tag = [0x5A; data::TAG_BYTES].as_slice();
        if sealed {
            header.flags = header.flags.sealed();
        } else {
            header.protect(body);
            tag = &[];
        }
        [&header.to_bytes()[..], body, tag].concat()
    };
    let both = |body| [datagram(body, false), datagram(body, true)];
    bodies.iter().flat_map(both).collect()
}

fn handshake_seeds() -> Vec<Vec<u8>> {
    let init = Init { pool_tag: 7, sender: 9, noise: [1; 224], mac1: [2; 16], mac2: [0; 16] };
    let response =
        Response { pool_tag: 7, sender: 8, receiver: 9, noise: [3; 80], mac1: [4; 16], mac2: [0; 16] };
    let cookie = Cookie { pool_tag: 7, receiver: 9, nonce: [5; 24], sealed: [6; 32] };
    let asked = InitPayload {
        incarnation: Incarnation(4),
        capabilities: 1,
        mtu: 1_500,
        role: Role::Member,
        not_after_view: 40,
        ed25519: [1; 32],
        ticket: [2; 64],
        attempt: 3,
    };
    let answered = ResponsePayload {
        incarnation: Incarnation(2),
        capabilities: 1,
        mtu: 1_500,
        suite: Suite::Aes128Gcm,
        view: 3,
    };
    vec![
        init.to_bytes().to_vec(),
        response.to_bytes().to_vec(),
        cookie.to_bytes().to_vec(),
        encoded(&asked),
        encoded(&answered),
    ]
}

fn view(members: u64) -> View {
    let mut view = View { number: 3, period_us: 250_000, scale_exponent: -7, elements: 9, ..View::default() };
    for index in 0..members {
        let seat = Seat { key: NodeKey(index * 5), incarnation: Incarnation(index), admitted: LogIndex(1) };
        view.members.push(seat).expect("there is room for 32");
    }
    view.share_factor = 4;
    for index in 0..members {
        let shares = if index == 0 { SHARE_ONE } else { 0 };
        view.shares.push(shares).expect("there is room for 32");
    }
    view
}

fn manifest(members: u16) -> Manifest {
    let mut manifest = Manifest { origin: Frame(40), close: -5, period_next_us: 7, ..Manifest::default() };
    for member in 0..members {
        let entry = Entry { member, slot_seq: 8, weight: 1 << 19, ..Entry::default() };
        manifest.entries.push(entry).expect("there is room for 32");
    }
    manifest
}

fn roster(members: u8) -> Roster {
    let mut roster = Roster { view: 3, ..Roster::default() };
    for member in 0..members {
        let address = Address(([10, 1, 2, member], 65_535).into());
        let entry = RosterEntry { id: NodeId([member; 32]), data: address, sideband: address, weight: 1_000 };
        roster.entries.push(entry).expect("there is room for 16");
    }
    roster
}

fn have(entries: u16) -> Have {
    let mut have = Have { frame: Frame(77), ..Have::default() };
    for member in 0..entries {
        let entry = HaveEntry { member, sumsq: u64::MAX, ..HaveEntry::default() };
        have.entries.push(entry).expect("there is room for 64");
    }
    have
}

fn order(signers: usize) -> Order {
    let mut order = Order { sequence: 9, ..Order::default() };
    for signer in 0..signers as u8 {
        let signature = OrderSignature { signer, signature: [signer; 64] };
        order.signatures.push(signature).expect("there is room for 16");
    }
    order
}

/// One of every message, and some that are as full as they get.
#[must_use]
pub fn messages() -> Vec<Message> {
    let ballot = Ballot { frame: Frame(41), term: 2 };
    let index = LogIndex(6);
    let last = Last { index, ballot, accepted: ballot, version: Version(5), ..Last::default() };
    vec![
        Message::Probe(Probe { pair: 1, t1: i64::MIN, ..Probe::default() }),
        Message::ProbeReply(ProbeReply { pos: 1, t3: -1, ..ProbeReply::default() }),
        Message::Beat(Beat { suspect: MemberSet(5), index: u64::MAX, ..Beat::default() }),
        Message::Ready(Ready { slot_seq: 1 << 33, n_steps: 4, ..Ready::default() }),
        Message::Have(have(3)),
        Message::Have(have(64)),
        Message::Propose(Propose { index, ballot, manifest: manifest(3) }),
        Message::Propose(Propose { index, ballot, manifest: manifest(32) }),
        Message::Accept(Accept { index, digest: Digest([9; 16]), ..Accept::default() }),
        Message::Commit(Commit { index, accepted: MemberSet(7), ..Commit::default() }),
        Message::Query(Query { index, ..Query::default() }),
        Message::Last(last),
        Message::Last(Last { value: Some(Value::Manifest(manifest(2))), ..last }),
        Message::Last(Last { value: Some(Value::View(view(32))), ..last }),
        Message::Last(Last { value: Some(Value::Seal(Frame(4))), ..last }),
        Message::Join(Join { id: NodeId([3; 32]), incarnation: Incarnation(2), ..Join::default() }),
        Message::Epoch(Epoch { index, ballot, view: view(4) }),
        Message::Leave(Leave { incarnation: Incarnation(3) }),
        Message::Nack(Nack { code: sideband::nack::STALE, arg: 4, ..Nack::default() }),
        Message::ShortBeat(ShortBeat { flags: 1, version: 9, ..ShortBeat::default() }),
        Message::Shard(Shard { index, digest: Digest([1; 16]), ..Shard::default() }),
        Message::Roster(roster(2)),
        Message::Roster(roster(16)),
        Message::Decided { index, value: Value::Manifest(manifest(3)) },
        Message::Decided { index, value: Value::View(view(3)) },
        Message::Seal(Accept::default()),
        Message::Snapshot(Snapshot { op: 1, len_bytes: 5, ..Snapshot::default() }),
        Message::Halt(order(2)),
        Message::Resume(order(SIGNERS_MAX)),
        Message::OrderAck(OrderAck { kind: OrderKind::Resume, sequence: 9, ..OrderAck::default() }),
        Message::Relay(Relay { datagram: Bounded::from_slice(&[5; 64]), ..Relay::default() }),
    ]
}

fn sideband_seeds() -> Vec<Vec<u8>> {
    let header =
        sideband::Header { mesh: 0xABCD, view: 3, src: 1, dst: sideband::INDEX_NONE, sequence: u32::MAX };
    let mut room = [0; sideband::DATAGRAM_BYTES_MAX];
    let mut seeds: Vec<Vec<u8>> =
        messages().iter().map(|message| sideband::encode(&header, message, &mut room).to_vec()).collect();
    let plain = seeds[2].clone();
    let sealed = sideband::sealed_header(&plain, 9).expect("a beat leaves room for a tag");
    seeds.push([&sealed[..], &plain[sideband::HEADER_BYTES..], &[0x5A; data::TAG_BYTES]].concat());
    seeds
}

fn value_seeds() -> Vec<Vec<u8>> {
    let ballot = Ballot { frame: Frame(41), term: 2 };
    let join = Join { id: NodeId([3; 32]), incarnation: Incarnation(2), ..Join::default() };
    let propose = Propose { index: LogIndex(6), ballot, manifest: manifest(3) };
    let last = Last { ballot, value: Some(Value::View(view(2))), ..Last::default() };
    let counted: Bounded<HaveEntry, 64> = Bounded::from_slice(&have(5).entries);
    let bodies = [
        encoded(&Value::Manifest(manifest(3))),
        encoded(&Some(Value::Seal(Frame(4)))),
        encoded(&manifest(32)),
        encoded(&view(32)),
        encoded(&have(3)),
        encoded(&propose),
        encoded(&last),
        encoded(&roster(2)),
        encoded(&join),
        encoded(&ballot),
        encoded(&MemberSet(0xF00D)),
        encoded(&counted),
    ];
    bodies.iter().enumerate().map(|(selector, body)| [&[selector as u8][..], body].concat()).collect()
}
