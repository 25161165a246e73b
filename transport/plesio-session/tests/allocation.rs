//! Sealing and opening allocate nothing: neither what fits nor what is refused, on neither plane.

use counting::COUNT;
use plesio_session::{
    Config, DataOpener, DataSealer, Entropy, Event, Limits, NodeSecret, OperatorSecret, PoolKey, Secret,
    Sessions, SidebandKeys, Suites, Ticket,
};
use plesio_wire::data::{CONTROL_PACKET_FIRST, Flags, Header, Kind, packet_first};
use plesio_wire::handshake::{Role, Suite};
use plesio_wire::sideband::{self, Leave, Message};
use plesio_wire::{Incarnation, Instant};

#[path = "../../../tests/counting.rs"]
mod counting;

const NOW: Instant = Instant(0);

fn sessions(seed: u8, suites: Suites) -> Sessions {
    let entropy = |byte| Entropy::new(&Secret::new([byte; 32]));
    let (node, operator) =
        (NodeSecret::generate(&mut entropy(seed)), OperatorSecret::generate(&mut entropy(99)));
    let config = Config {
        pool: PoolKey::generate(9, &mut entropy(98)),
        ticket: Ticket::sign(&operator, 9, node.public(), Role::Member, 10),
        operators: vec![operator.public()],
        incarnation: Incarnation(u64::from(seed)),
        mtu: 1500,
        suites,
        peers_max: 4,
        limits: Limits::default(),
        seed: Secret::new([seed; 32]),
        node,
    };
    Sessions::new(NOW, config)
}

/// The initiator's sealers and the responder's openers.
fn keys(suites: Suites) -> (DataSealer, DataOpener, SidebandKeys, SidebandKeys) {
    let (mut a, mut b) = (sessions(1, suites), sessions(2, suites));
    let address = "10.0.0.1:1".parse().unwrap();
    a.handle_connect(NOW, *b.public(), address).unwrap();
    b.handle_datagram(NOW, address, a.poll_transmit().unwrap().as_bytes()).unwrap();
    a.handle_datagram(NOW, address, b.poll_transmit().unwrap().as_bytes()).unwrap();
    let (mut sealer, mut opener) = (None, None);
    let (mut sends, mut receives) = (SidebandKeys::default(), SidebandKeys::default());
    while let Some(event) = a.poll_event() {
        if let Event::Seal { data, sideband, .. } = event {
            sealer = Some(data);
            sends.set_sealer(sideband);
        }
    }
    while let Some(event) = b.poll_event() {
        if let Event::Open { data, sideband, .. } = event {
            opener = Some(data);
            receives.add_opener(sideband);
        }
    }
    (sealer.unwrap(), opener.unwrap(), sends, receives)
}

#[test]
fn no_datagram_allocates() {
    let aes = Suites::only(Suite::Aes128Gcm).unwrap_or(Suites::PORTABLE);
    for suites in [Suites::available(), aes, Suites::PORTABLE] {
        let (mut sealer, mut opener, mut sends, mut receives) = keys(suites);
        let payload = vec![7_u8; 65_408];
        let (mut datagram, mut window) = (vec![0_u8; 65_500], vec![0_u8; 65_408]);
        let mut plain = [0; sideband::DATAGRAM_BYTES_MAX];
        let header = sideband::Header { mesh: 9, view: 1, src: 0, dst: 1, sequence: 0 };
        let message = Message::Leave(Leave::default());
        let (mut sealed, mut opened) = ([0; sideband::DATAGRAM_BYTES_MAX], [0; sideband::DATAGRAM_BYTES_MAX]);
        let before = COUNT.get();
        for round in 0..2_000_u64 {
            let size = [1, 64, 1_408, 65_408][(round % 4) as usize];
            // Channels come and go, as views do.
            let lane = if round % 3 == 0 { CONTROL_PACKET_FIRST } else { 0 };
            let mut head = Header {
                kind: Kind::Data,
                flags: Flags::NONE,
                payload_bytes: 0,
                receiver: 0,
                packet: lane | packet_first((round / 100) as u32) | round,
                message: Default::default(),
                chunk: 0,
                clock_us: 0,
                crc32: 0,
            };
            let len_bytes = sealer.seal_data(&mut head, &payload[..size], &mut datagram).unwrap();
            assert!(sealer.seal_data(&mut head, &payload[..size], &mut datagram).is_err(), "used");
            datagram[40] ^= 1;
            assert!(opener.open_data(&datagram[..len_bytes], &mut window).is_err(), "altered");
            datagram[40] ^= 1;
            assert!(opener.open_data(&datagram[..len_bytes], &mut window).is_ok());
            assert!(opener.open_data_in_place(&mut datagram[..len_bytes]).is_err(), "repeated");

            let plain = sideband::encode(&header, &message, &mut plain);
            let len_bytes = sends.seal(plain, &mut sealed).unwrap();
            assert!(receives.open(&sealed[..len_bytes], &mut opened).is_ok());
            assert!(receives.open(&sealed[..len_bytes], &mut opened).is_err(), "repeated");
        }
        assert_eq!(COUNT.get(), before, "allocations of 2,000 rounds");
    }
}
