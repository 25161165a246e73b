//! Whatever a peer sends, the machine neither panics nor loops nor believes what cannot be.

use plesio_proto::{
    Config, ConfigError, Congestion, Connection, Event, Grants, PostError, Refused, Train, Transmit,
};
use plesio_wire::data::{
    Ack, CONTROL_PACKET_FIRST, Credit, Flags, HEADER_BYTES, Header, Kind, MessageId, Ping, packet_first,
};
use plesio_wire::{Instant, Span, Wire, Writer};
use proptest::prelude::*;

const CHUNK: u32 = 64;
const WINDOW: Span = Span { region: 3, offset_bytes: 4096, len_bytes: 1000 };

fn machine() -> Connection {
    let config = Config { local: 7, remote: 9, chunk_bytes: CHUNK, ..Config::default() };
    Connection::new(&config, Instant(0)).unwrap()
}

fn data(packet: u64, chunk: u32) -> Header {
    Header {
        kind: Kind::Data,
        flags: Flags::NONE,
        payload_bytes: CHUNK as u16,
        receiver: 7,
        packet,
        message: MessageId { handle: 1, sequence: 5 },
        chunk,
        clock_us: 0,
        crc32: 0,
    }
}

fn control(kind: Kind) -> Header {
    Header { kind, message: MessageId::default(), packet: CONTROL_PACKET_FIRST, ..data(0, 0) }
}

fn body<T: Wire>(value: &T) -> Vec<u8> {
    let mut bytes = [0; 128];
    let mut writer = Writer::new(&mut bytes);
    writer.write(value);
    let len_bytes = writer.len_bytes();
    bytes[..len_bytes].to_vec()
}

#[test]
fn only_holes_of_the_right_message_have_a_place() {
    let mut machine = machine();
    assert_eq!(machine.place(&data(0, 0)), None, "no window");
    machine.handle_post(1, Some(5), WINDOW).unwrap();
    let at = |offset: u32, len_bytes| Some(Span { region: 3, offset_bytes: 4096 + offset, len_bytes });
    assert_eq!(machine.place(&data(0, 2)), at(128, 64));
    let last = Header { flags: Flags::LAST_OF_MSG, payload_bytes: 40, ..data(1, 15) };
    assert_eq!(machine.place(&last), at(960, 40));
    for bad in [
        Header { receiver: 8, ..data(0, 0) },
        Header { kind: Kind::Ack, ..data(0, 0) },
        Header { packet: CONTROL_PACKET_FIRST, ..data(0, 0) },
        Header { packet: packet_first(1), ..data(0, 0) },
        Header { packet: 1 << 62, ..data(0, 0) },
        Header { packet: 32_768, ..data(0, 0) },
        Header { payload_bytes: 63, ..data(0, 0) },
        Header { payload_bytes: 0, flags: Flags::LAST_OF_MSG, ..data(0, 0) },
        Header { payload_bytes: 65, flags: Flags::LAST_OF_MSG, ..data(0, 0) },
        Header { payload_bytes: 41, ..last },
        data(0, 15), // a whole chunk would cross the window's end
        data(0, 16),
        data(0, u32::MAX),
        data(0, u32::MAX / CHUNK + 2), // its offset wraps to 64
        Header { message: MessageId { handle: 1, sequence: 6 }, ..data(0, 0) },
        Header { message: MessageId { handle: 1, sequence: 4 }, ..data(0, 0) },
        Header { message: MessageId { handle: 2, sequence: 5 }, ..data(0, 0) },
    ] {
        assert_eq!(machine.place(&bad), None, "{bad:?}");
    }

    machine.handle_datagram(Instant(0), &data(0, 2), &[]).unwrap();
    assert_eq!(machine.place(&data(0, 3)), None, "packet number used twice");
    assert_eq!(machine.place(&data(1, 2)), None, "chunk is here");
    assert_eq!(machine.handle_datagram(Instant(0), &data(1, 2), &[]), Err(Refused::Duplicate));
    let too_short = Header { flags: Flags::LAST_OF_MSG, ..data(2, 1) };
    assert_eq!(machine.place(&too_short), None, "ends before a chunk that is here");
    let end = Header { flags: Flags::LAST_OF_MSG, payload_bytes: 10, ..data(2, 4) };
    machine.handle_datagram(Instant(0), &end, &[]).unwrap();
    for bad in [
        data(3, 5),
        data(3, 4),
        Header { flags: Flags::LAST_OF_MSG, ..data(3, 3) },
        Header { flags: Flags::LAST_OF_MSG, ..data(3, 6) },
    ] {
        assert_eq!(machine.place(&bad), None, "{bad:?}");
    }
    for (packet, chunk) in [(3, 0), (4, 1), (5, 3)] {
        assert_eq!(machine.poll_event(), None);
        machine.handle_datagram(Instant(0), &data(packet, chunk), &[]).unwrap();
    }
    let message = MessageId { handle: 1, sequence: 5 };
    let span = Span { len_bytes: 4 * CHUNK + 10, ..WINDOW };
    assert_eq!(machine.poll_event(), Some(Event::Received { message, span }));
    assert_eq!(machine.place(&data(9, 3)), None, "complete");
    assert_eq!(machine.handle_unplaced(Instant(0), &data(9, 3)), Refused::Duplicate);
    assert_eq!(machine.handle_post(1, Some(5), WINDOW), Err(PostError::Done));
}

#[test]
fn a_datagram_of_another_channel_or_lane_is_refused() {
    let config = Config { local: 7, remote: 9, channel: 3, chunk_bytes: CHUNK, ..Config::default() };
    let mut machine = Connection::new(&config, Instant(0)).unwrap();
    machine.handle_post(1, Some(5), WINDOW).unwrap();
    let ours = Header { packet: packet_first(3), ..data(0, 0) };
    assert!(machine.place(&ours).is_some());
    for packet in [0, packet_first(2), packet_first(4), 1 << 62 | packet_first(3)] {
        let header = Header { packet, ..ours };
        assert_eq!(machine.place(&header), None);
        assert_eq!(machine.handle_unplaced(Instant(0), &header), Refused::Packet);
        for lane in [CONTROL_PACKET_FIRST, 3 << 62] {
            let ping = Header { packet: lane | packet, ..control(Kind::Ping) };
            let refused = machine.handle_datagram(Instant(0), &ping, &body(&Ping { floor: 0 }));
            assert_eq!(refused, Err(Refused::Packet), "{packet:x}");
        }
    }
    assert_eq!(machine.stats().dropped_control, 12);
    machine.handle_datagram(Instant(0), &ours, &[]).unwrap();
    let Some(Transmit::Control(ack)) = machine.poll_transmit(Instant(10_000_000)) else { panic!("an ACK") };
    assert_eq!(ack.header.packet, CONTROL_PACKET_FIRST | packet_first(3));
}

#[test]
fn a_damaged_header_cannot_turn_a_begun_window_to_another_message() {
    let mut machine = machine();
    machine.handle_post(1, None, WINDOW).unwrap();
    machine.handle_datagram(Instant(0), &data(0, 0), &[]).unwrap();
    let newer = Header { message: MessageId { handle: 1, sequence: 6 }, ..data(1, 0) };
    assert_eq!(machine.place(&newer), None, "not checked yet: chunk 0 of the begun message stays");
    assert!(machine.place(&data(1, 1)).is_some());
    // Checked, it proves that the sender gave the begun one up.
    assert_eq!(machine.handle_unplaced(Instant(0), &newer), Refused::Unposted);
    assert_eq!(machine.place(&data(1, 1)), None);
    assert!(machine.place(&newer).is_some());
}

#[test]
fn acknowledgements_of_packets_never_sent_are_refused() {
    let mut machine = machine();
    let message = MessageId { handle: 1, sequence: 5 };
    machine.handle_send(Instant(0), message, Span { len_bytes: 192, ..WINDOW }).unwrap();
    assert!(matches!(machine.poll_transmit(Instant(0)), Some(Transmit::Train(train)) if train.len() == 3));
    let mut bit = [0; 32];
    bit[0] = 0b1000;
    for bad in [
        Ack { cumulative: 4, largest: 2, ..Ack::default() },
        Ack { cumulative: u64::MAX, largest: 2, ..Ack::default() },
        Ack { largest: 3, ..Ack::default() },
        Ack { selective: bit, ..Ack::default() },
    ] {
        let refused = machine.handle_datagram(Instant(1_000), &control(Kind::Ack), &body(&bad));
        assert_eq!(refused, Err(Refused::Unsent), "{bad:?}");
    }
    let good = body(&Ack { cumulative: 3, largest: 2, ..Ack::default() });
    for len_bytes in [0, 63, 65, 95] {
        let bytes = &good.repeat(2)[..len_bytes];
        assert!(machine.handle_datagram(Instant(1_000), &control(Kind::Ack), bytes).is_err());
    }
    assert_eq!(machine.poll_event(), None);
    assert_eq!(machine.stats().srtt_ns, None);
    machine.handle_datagram(Instant(500_000), &control(Kind::Ack), &good).unwrap();
    assert_eq!(machine.poll_event(), Some(Event::Delivered { message }));
    assert_eq!(machine.stats().srtt_ns, Some(500_000));
    assert_eq!(machine.stats().in_flight_bytes, 0);
}

#[test]
fn configurations_out_of_range_are_refused() {
    let good = Config::default();
    for chunk_bytes in [0, 32, 100, 65_472, u32::MAX - 63] {
        let refused = Connection::new(&Config { chunk_bytes, ..good }, Instant(0)).err();
        assert_eq!(refused, Some(ConfigError::Chunk { chunk_bytes }));
    }
    for bad in [
        Config { channel: 1 << 22, ..good },
        Config { window_bytes: 0, ..good },
        Config { receive_budget_bytes: 1_407, ..good },
        Config { messages_max: 256, ..good },
        Config { windows_max: 0, ..good },
    ] {
        assert!(Connection::new(&bad, Instant(0)).is_err(), "{bad:?}");
    }
    let widest = Config { window_bytes: u64::MAX, receive_budget_bytes: u64::MAX, ..good };
    assert!(Connection::new(&widest, Instant(u64::MAX)).is_ok());
}

/// SplitMix64.
fn random(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mixed = (*state ^ (*state >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    mixed ^ (mixed >> 31)
}

/// A datagram whose checksum is right and everything else is anybody's.
fn noise(state: &mut u64) -> (Header, Vec<u8>) {
    let mut pick = |near: u64| {
        let draw = random(state);
        if draw & 3 == 0 { random(state) } else { (draw >> 8) % near }
    };
    let kinds = [Kind::Data, Kind::Data, Kind::Ack, Kind::Ack, Kind::Credit, Kind::Ping, Kind::Probe];
    let kind = kinds[pick(u64::MAX) as usize % kinds.len()];
    let lane = if kind == Kind::Data || pick(20) == 0 { 0 } else { CONTROL_PACKET_FIRST };
    let mut flags = Flags::NONE.with_step(if pick(4) == 0 { pick(8) as u8 } else { 0 });
    for flag in [Flags::ACK_REQ, Flags::RETX, Flags::LAST_OF_MSG] {
        flags = if pick(4) == 0 { flags.with(flag) } else { flags };
    }
    let mut bytes = vec![0; [0, 2, 8, 64, 64, 96, 1_056, 200][pick(8) as usize % 8]];
    if pick(2) == 0 {
        bytes.iter_mut().for_each(|byte| *byte = pick(256) as u8);
    } else if bytes.len() >= 64 {
        let (cumulative, largest) = (pick(200), pick(200));
        let ack = Ack { cumulative, largest, credit_limit_bytes: pick(1 << 20), ..Ack::default() };
        bytes[..64].copy_from_slice(&body(&ack));
    }
    let payload_bytes = if kind == Kind::Data {
        [64, 512, pick(70), 960][pick(4) as usize % 4] as u16
    } else {
        bytes.len() as u16
    };
    let header = Header {
        kind,
        flags,
        payload_bytes,
        receiver: 7,
        packet: (lane | pick(300)) & !(1 << 62),
        message: MessageId { handle: pick(4) as u16, sequence: pick(6) as u16 },
        chunk: pick(80) as u32,
        clock_us: pick(1_000) as u32,
        crc32: 0,
    };
    (header, bytes)
}

/// Also of chunks that can be cut smaller, paced, with credit from outside.
#[test]
fn a_hundred_thousand_datagrams_of_noise_break_no_live_connection() {
    for seed in 0..4 {
        let mut state = seed;
        let config = Config {
            local: 7,
            remote: 9,
            chunk_bytes: if seed == 0 { CHUNK } else { 8_832 },
            congestion: if seed == 1 { Congestion::Credit } else { Congestion::RateDelay },
            grants: if seed == 2 { Grants::Shared } else { Grants::Own },
            search: seed > 1,
            ..Config::default()
        };
        let mut machine = Connection::new(&config, Instant(0)).unwrap();
        let mut train = Train::default();
        let mut now = Instant(0);
        let (mut taken, mut refused, mut asked) = (0, 0, 0);
        for count in 0..25_000u16 {
            now = now.after(random(&mut state) % 50_000);
            let handle = count % 3;
            let span = Span { region: handle, offset_bytes: 0, len_bytes: 60_000 };
            let _ = machine.handle_post(handle, None, span);
            let _ = machine.handle_send(now, MessageId { handle, sequence: count / 500 }, span);
            let (header, bytes) = noise(&mut state);
            let result = if header.kind != Kind::Data {
                machine.handle_datagram(now, &header, &bytes)
            } else if let Some(place) = machine.place(&header) {
                assert!(place.region < 3 && place.offset_bytes + place.len_bytes <= 60_000);
                machine.handle_datagram(now, &header, &[])
            } else {
                Err(machine.handle_unplaced(now, &header))
            };
            if result.is_ok() {
                taken += 1
            } else {
                refused += 1
            }
            asked += u64::from(header.kind == Kind::Ping && result == Err(Refused::Unposted));
            machine.handle_timeout(now);
            machine.handle_grant(machine.demand().wanted_bytes);
            for drained in 0.. {
                assert!(drained < 10_000, "seed {seed}: sends without end");
                if machine.poll_transmit_into(now, &mut train).is_none() {
                    break;
                }
            }
            while machine.poll_event().is_some() {}
            if count % 1_000 == 999 {
                machine.handle_abort(MessageId { handle, sequence: count / 500 });
            }
        }
        let stats = machine.stats();
        assert!(machine.is_open() && taken > 1_000 && refused > 1_000, "{taken} taken, {refused} refused");
        assert!(stats.in_flight_bytes <= config.window_bytes);
        let dropped =
            stats.dropped_unposted + stats.dropped_stale + stats.dropped_range + stats.dropped_credit;
        // A PING about a message without a window is a question, not an offence.
        let counted = dropped + stats.duplicates + stats.dropped_control;
        assert_eq!(counted, refused - asked, "every refusal is counted");
    }
}

#[test]
fn a_peer_that_lies_about_credit_is_refused_and_counted() {
    let mut machine = machine();
    let wide = Span { len_bytes: 1 << 20, ..WINDOW };
    machine.handle_post(1, Some(5), wide).unwrap();
    // Sends more than it was given: 4 MiB at first, once it was told.
    let far = 64 * 1_024 / CHUNK + 5;
    assert_eq!(machine.place(&data(0, far)), None, "told nothing yet");
    assert_eq!(machine.handle_unplaced(Instant(0), &data(0, far)), Refused::Credit);
    assert_eq!(machine.stats().dropped_credit, 1);
    let Some(Transmit::Control(credit)) = machine.poll_transmit(Instant(0)) else { panic!("a grant") };
    assert_eq!(credit.header.kind, Kind::Credit);
    assert!(machine.place(&data(0, far)).is_some());
    assert!(machine.place(&Header { flags: Flags::RETX, ..data(9, far) }).is_some());

    // Gives more than anybody can use.
    let lie = body(&Credit { credit_limit_bytes: u64::MAX });
    assert_eq!(machine.handle_datagram(Instant(0), &control(Kind::Credit), &lie), Err(Refused::Credit));
    let lie = body(&Ack { credit_limit_bytes: u64::MAX, ..Ack::default() });
    assert_eq!(machine.handle_datagram(Instant(0), &control(Kind::Ack), &lie), Err(Refused::Credit));
    assert_eq!(machine.stats().dropped_control, 2);
    // Gives much: no more flies than the window takes.
    let much = body(&Credit { credit_limit_bytes: 1 << 40 });
    machine.handle_datagram(Instant(0), &control(Kind::Credit), &much).unwrap();
    machine
        .handle_send(Instant(0), MessageId { handle: 1, sequence: 5 }, Span { len_bytes: 64 << 20, ..WINDOW })
        .unwrap();
    while machine.poll_transmit(Instant(0)).is_some() {}
    assert!(machine.stats().in_flight_bytes <= Config::default().window_bytes);
}

/// A repetition needs no credit, and nobody can tell it from a first chunk that calls itself one: what bounds it are the
/// windows that the receiver has posted, and how far ahead of what is missing a number may stand.
#[test]
fn a_peer_that_calls_everything_a_repetition_fills_open_windows_once_and_nothing_else() {
    const CHUNKS: u32 = 16_384;
    let mut machine = machine();
    machine.handle_post(1, Some(5), Span { len_bytes: CHUNKS * CHUNK, ..WINDOW }).unwrap();
    let again = |packet: u64, chunk: u32| Header { flags: Flags::RETX, ..data(packet, chunk) };
    // Whoever leaves a number out to claim a loss is held by it.
    assert!(machine.place(&again(32_767, 1)).is_some());
    assert_eq!(machine.handle_unplaced(Instant(0), &again(32_768, 1)), Refused::Packet);
    for chunk in 0..CHUNKS - 1 {
        let header = again(u64::from(chunk), chunk);
        machine.handle_datagram(Instant(0), &header, &[]).unwrap();
    }
    let last = Header { flags: Flags::RETX.with(Flags::LAST_OF_MSG), ..again(u64::from(CHUNKS), CHUNKS - 1) };
    machine.handle_datagram(Instant(0), &last, &[]).unwrap();
    let received = |machine: &mut Connection| {
        std::iter::from_fn(|| machine.poll_event())
            .filter(|event| matches!(event, Event::Received { .. }))
            .count()
    };
    assert_eq!(received(&mut machine), 1);
    // The window is full: all that goes on coming is a copy, and so is said and counted.
    for chunk in 0..1_000 {
        let header = again(u64::from(CHUNKS + 1 + chunk), chunk);
        assert_eq!(machine.place(&header), None);
        assert_eq!(machine.handle_unplaced(Instant(0), &header), Refused::Duplicate);
    }
    let next = Header { message: MessageId { handle: 1, sequence: 6 }, ..again(30_000, 9_000) };
    assert_eq!(machine.handle_unplaced(Instant(0), &next), Refused::Unposted);
    let stats = machine.stats();
    assert_eq!(stats.received_bytes, u64::from(CHUNKS * CHUNK), "what was asked for, once");
    assert_eq!((stats.duplicates, stats.dropped_unposted, stats.dropped_range), (1_000, 1, 1));
    assert_eq!(received(&mut machine), 0);
}

/// What a caller or a peer may do next.
#[derive(Clone, Debug)]
enum Step {
    Bytes(Vec<u8>),
    Data(Header),
    Ack(Ack, Vec<u8>, u32),
    Credit(u64),
    Ping(u64, MessageId, u32),
    Post(u16, Option<u16>, u32),
    Withdraw(u16),
    Send(MessageId, u32),
    Abort(MessageId),
    Wait(u64),
}

fn number() -> impl Strategy<Value = u64> {
    prop_oneof![0..50u64, 32_000..33_000u64, any::<u64>()]
}

/// A question's number, or an answer to one of the first.
fn question() -> impl Strategy<Value = u32> {
    prop_oneof![0..12u32, any::<u32>()]
}

fn message() -> impl Strategy<Value = MessageId> {
    (0..3u16, 0..4u16).prop_map(|(handle, sequence)| MessageId { handle, sequence })
}

fn header() -> impl Strategy<Value = Header> {
    let chunk = prop_oneof![0..20u32, any::<u32>()];
    let flags = prop_oneof![Just(Flags::NONE), Just(Flags::LAST_OF_MSG), Just(Flags::ACK_REQ)];
    let len = prop_oneof![Just(64u16), 0..70u16, any::<u16>()];
    (number(), message(), chunk, flags, len).prop_map(|(packet, message, chunk, flags, payload_bytes)| {
        Header { message, flags, payload_bytes, ..data(packet, chunk) }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let ack = (number(), number(), any::<u32>(), any::<u64>(), any::<[u8; 32]>(), any::<bool>()).prop_map(
        |(cumulative, largest, delay_us, credit_limit_bytes, bits, some)| Ack {
            cumulative,
            largest,
            delay_us,
            credit_limit_bytes,
            selective: if some { bits } else { [0; 32] },
            ..Ack::default()
        },
    );
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200).prop_map(Step::Bytes),
        8 => header().prop_map(Step::Data),
        4 => (ack, prop::collection::vec(Just(0u8), 0..70), question()).prop_map(|(ack, more, answer)| Step::Ack(ack, more, answer)),
        1 => number().prop_map(Step::Credit),
        1 => (number(), message(), question()).prop_map(|(floor, message, number)| Step::Ping(floor, message, number)),
        2 => (0..3u16, prop::option::of(0..4u16), 0..2_000u32).prop_map(|(h, s, l)| Step::Post(h, s, l)),
        1 => (0..3u16).prop_map(Step::Withdraw),
        3 => (message(), 0..200_000u32).prop_map(|(m, l)| Step::Send(m, l)),
        1 => message().prop_map(Step::Abort),
        3 => prop_oneof![0..100_000_000u64, any::<u64>()].prop_map(Step::Wait),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn nothing_a_peer_sends_breaks_the_machine(steps in prop::collection::vec(step(), 1..80)) {
        let mut machine = machine();
        let mut now = Instant(0);
        for step in steps {
            match step {
                Step::Bytes(bytes) => {
                    if let Ok(header) = Header::parse(&bytes) {
                        let header = Header { receiver: 7, ..header };
                        let _ = machine.place(&header);
                        let _ = machine.handle_datagram(now, &header, &bytes[HEADER_BYTES..]);
                    }
                }
                Step::Data(header) => match machine.place(&header) {
                    Some(span) => {
                        prop_assert_eq!(span.len_bytes, u32::from(header.payload_bytes));
                        prop_assert!(machine.handle_datagram(now, &header, &[]).is_ok());
                        prop_assert_eq!(machine.place(&header), None);
                    }
                    None => { machine.handle_unplaced(now, &header); }
                },
                Step::Ack(ack, more, answer) => {
                    let bytes = [body(&ack), more].concat();
                    let header = Header { chunk: answer, ..control(Kind::Ack) };
                    let _ = machine.handle_datagram(now, &header, &bytes);
                }
                Step::Credit(credit_limit_bytes) => {
                    let bytes = body(&Credit { credit_limit_bytes });
                    let _ = machine.handle_datagram(now, &control(Kind::Credit), &bytes);
                }
                Step::Ping(floor, message, number) => {
                    let header = Header { message, chunk: number, ..control(Kind::Ping) };
                    let _ = machine.handle_datagram(now, &header, &body(&Ping { floor }));
                }
                Step::Post(handle, sequence, len_bytes) => {
                    let _ = machine.handle_post(handle, sequence, Span { len_bytes, ..WINDOW });
                }
                Step::Withdraw(handle) => machine.handle_withdraw(handle),
                Step::Send(message, len_bytes) => {
                    let _ = machine.handle_send(now, message, Span { len_bytes, ..WINDOW });
                }
                Step::Abort(message) => machine.handle_abort(message),
                Step::Wait(wait_ns) => {
                    now = now.after(wait_ns);
                    machine.handle_timeout(now);
                }
            }
            // Draining ends, and what is due is never left behind it.
            let mut count = 0;
            while machine.poll_transmit(now).is_some() {
                count += 1;
                prop_assert!(count < 100_000);
            }
            machine.handle_timeout(now);
            while machine.poll_transmit(now).is_some() {}
            let due = machine.poll_timeout();
            prop_assert!(now.0 == u64::MAX || due.is_none_or(|at| at > now), "{due:?} is past at {now:?}");
            while machine.poll_event().is_some() {}
        }
    }
}
