//! A protected port: sessions made over the data sockets, and what attackers on the path achieve.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use plesio_session::{
    Config, Entropy, Event, Limits, NodePublic, NodeSecret, OperatorSecret, PoolKey, Secret, Sessions, Ticket,
};
use plesio_udp::{Peer, Protection, SendError};
use plesio_wire::data::{HEADER_BYTES, Header, Kind, MessageId, TAG_BYTES};
use plesio_wire::handshake::Role;
use plesio_wire::{Incarnation, Instant as Moment};

use crate::node::{How, Node, WINDOWS, for_each_backend, header, raw};

const SEALED_PING_BYTES: usize = HEADER_BYTES + 8 + TAG_BYTES;

/// A node with sessions, as a shell drives them.
struct End {
    node: Node,
    sessions: Sessions,
    begin: Instant,
    /// The lane of the one peer it has.
    lane: Option<Peer>,
}

impl End {
    fn new(how: How, chunk_bytes: u32, seed: u8) -> Self {
        let node = Node::open(how, chunk_bytes, true, Protection::Sealed);
        let operator = OperatorSecret::generate(&mut Entropy::new(&Secret::new([1; 32])));
        let secret = NodeSecret::generate(&mut Entropy::new(&Secret::new([seed; 32])));
        let config = Config {
            pool: PoolKey::generate(9, &mut Entropy::new(&Secret::new([2; 32]))),
            ticket: Ticket::sign(&operator, 9, secret.public(), Role::Member, 100),
            operators: vec![operator.public()],
            incarnation: Incarnation(u64::from(seed)),
            mtu: 65_535,
            suites: plesio_session::Suites::available(),
            peers_max: 4,
            limits: Limits::default(),
            seed: Secret::new([seed ^ 0x55; 32]),
            node: secret,
        };
        Self { node, sessions: Sessions::new(Moment(0), config), begin: Instant::now(), lane: None }
    }

    fn public(&self) -> NodePublic {
        *self.sessions.public()
    }

    fn now(&self) -> Moment {
        Moment(self.begin.elapsed().as_nanos() as u64)
    }

    /// Gives what came to the sessions, keys to the port, and datagrams to the network.
    fn turn(&mut self) {
        let now = self.now();
        if self.node.io.wait(Some(Duration::from_millis(1))).unwrap().readable {
            while self.node.io.receive(&mut self.node.sink, 16).unwrap() {}
        }
        let sink = &mut self.node.sink;
        for (from, datagram) in sink.handshakes.drain(..) {
            // What is refused is counted there.
            let _refused = self.sessions.handle_datagram(now, from, &datagram);
        }
        sink.confirmed.drain(..).for_each(|local| self.sessions.handle_confirmed(now, local));
        sink.own.drain(..).for_each(|local| self.sessions.handle_own(now, local));
        self.sessions.handle_timeout(now);
        let io = &mut self.node.io;
        while let Some(event) = self.sessions.poll_event() {
            let lane = self.lane.expect("met before");
            match event {
                Event::Open { data, .. } => io.add_opener(lane, data, 0),
                Event::Seal { data, .. } => io.set_sealer(lane, data),
                Event::Close { local, .. } => io.remove_opener(lane, local),
                Event::Expire { .. } => io.remove_sealer(lane),
                _ => {}
            }
        }
        while let Some(transmit) = self.sessions.poll_transmit() {
            io.send_stranger(transmit.to, transmit.as_bytes()).unwrap();
        }
    }

    fn lane(&self) -> Peer {
        self.lane.expect("met before")
    }

    fn send(&mut self, packet: u64, kind: Kind, payload: &[u8]) -> Result<(), SendError> {
        let header = Header { packet, ..header(kind, MessageId::default(), 0) };
        let lane = self.lane();
        self.node.io.send_control(lane, &header, payload)
    }
}

/// Two ends with a session between them.
fn ends(how: How, chunk_bytes: u32) -> [End; 2] {
    let mut ends = [End::new(how, chunk_bytes, 10), End::new(how, chunk_bytes, 11)];
    let [near, far] = &mut ends;
    near.lane = Some(near.node.meet(&far.node));
    far.lane = Some(far.node.meet(&near.node));
    let far_address = far.node.io.local_address();
    near.sessions.handle_connect(near.now(), far.public(), far_address).unwrap();
    let deadline = Instant::now() + Duration::from_secs(10);
    let ready = |end: &mut End| end.send(1 << 63, Kind::Ping, &[0; 8]) == Ok(());
    let (mut near_ready, mut far_ready) = (false, false);
    while !(near_ready && far_ready) {
        assert!(
            Instant::now() < deadline,
            "no session: {:?} {:?}",
            near.sessions.counters(),
            far.sessions.counters()
        );
        near.turn();
        far.turn();
        near_ready = near_ready || ready(near);
        far_ready = far_ready || ready(far);
    }
    ends
}

fn until(ends: &mut [End; 2], what: &str, done: impl Fn(&[End; 2]) -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !done(ends) {
        let counters = ends.each_ref().map(|end| end.node.io.counters());
        assert!(Instant::now() < deadline, "{what}: {counters:?}");
        ends.iter_mut().for_each(End::turn);
    }
}

#[test]
fn sealed_messages_arrive_byte_for_byte() {
    for_each_backend(|how| {
        for chunk_bytes in [1_344, 8_832, 65_408] {
            let mut ends = ends(how, chunk_bytes);
            let bytes = ends[0].node.write_source(WINDOWS, u64::from(chunk_bytes));
            let apart = plesio_session::Suites::available().opens_apart();
            let (mut packet, mut moved_bytes) = (0, 0);
            for len_bytes in [1, chunk_bytes as usize, chunk_bytes as usize + 1, 1 << 20] {
                ends[1].node.sink.received.clear();
                let mut chunks = ends[0].node.chunks(WINDOWS, 0, len_bytes);
                for (header, _) in &mut chunks {
                    header.packet = packet;
                    packet += 1;
                }
                let lane = ends[0].lane();
                ends[0].node.send_all(lane, &chunks);
                let small = chunks.iter().filter(|(_, span)| !apart || span.len_bytes < 4_096);
                moved_bytes += small.map(|(_, span)| u64::from(span.len_bytes)).sum::<u64>();
                let count = chunks.len();
                until(&mut ends, "the message", |ends| ends[1].node.sink.received.len() == count);
                assert!(
                    ends[1].node.window(0, len_bytes) == bytes[..len_bytes],
                    "{how} {chunk_bytes} {len_bytes}"
                );
            }
            let (sent, received) = (ends[0].node.io.counters(), ends[1].node.io.counters());
            // The cipher's pass, and a move where that cannot do both.
            assert_eq!(sent.copied_bytes_sent, sent.payload_bytes_sent + moved_bytes, "into the packet");
            let moved = how.moved(moved_bytes);
            assert_eq!(
                received.copied_bytes_received,
                received.payload_bytes_received + moved,
                "into its place"
            );
            assert_eq!(received.dropped(), 0, "{received:?}");
            // The clear text is not what travelled; see also the altered datagrams below.
            assert_eq!(sent.dropped_unsent, 0);
        }
    });
}

#[test]
fn sealed_datagrams_allocate_nothing() {
    for_each_backend(|how| {
        for chunk_bytes in [1_344, 65_408] {
            let [mut near, mut far] = ends(how, chunk_bytes);
            let chunks = near.node.chunks(WINDOWS, 0, 1 << 20);
            let (what, lane) = (format!("sealed {how} {chunk_bytes}"), near.lane());
            crate::send_again_and_again(&what, &mut *near.node.io, lane, &mut *far.node.io, chunks);
        }
    });
}

/// A lane whose sealer was gone sent what its last train had been, as empty datagrams, and said that it went well.
#[test]
fn a_lane_without_its_sealer_sends_nothing_more() {
    for_each_backend(|how| {
        let [mut near, far] = ends(how, 1_344);
        let chunks = near.node.chunks(WINDOWS, 0, 3 * 1_344);
        let lane = near.lane();
        near.node.send_all(lane, &chunks);
        near.node.io.remove_sealer(lane);
        let before = near.node.io.counters().datagrams_sent;
        let sent = near.node.io.send_train(lane, &chunks[..1]);
        assert!(matches!(sent, Err(SendError::Seal(_))), "{how}: {sent:?}");
        assert_eq!(near.node.io.counters().datagrams_sent, before, "{how}");
        drop(far);
    });
}

#[test]
fn without_a_session_nothing_goes_out_and_nothing_comes_in() {
    for_each_backend(|how| {
        let mut end = End::new(how, 1_344, 10);
        let other = UdpSocket::bind("127.0.0.1:0").unwrap();
        let lane = end.node.io.add_peer(other.local_addr().unwrap()).unwrap();
        end.lane = Some(lane);
        end.node.write_source(WINDOWS, 1);
        let chunks = end.node.chunks(WINDOWS, 0, 3_000);
        assert!(matches!(end.node.io.send_train(lane, &chunks), Err(SendError::Seal(_))));
        assert!(matches!(end.send(1 << 63, Kind::Ping, &[]), Err(SendError::Seal(_))));
        other.send_to(&raw(Kind::Data, 0, 0, &[7; 100]), end.node.io.local_address()).unwrap();
        let deadline = Instant::now() + Duration::from_secs(5);
        while end.node.io.counters().dropped_plaintext == 0 {
            assert!(Instant::now() < deadline, "{:?}", end.node.io.counters());
            end.turn();
        }
        assert!(end.node.sink.received.is_empty());
        other.set_nonblocking(true).unwrap();
        assert!(other.recv(&mut [0; 2_048]).is_err(), "nothing left this port");
    });
}

/// An attacker with the peer's address: replays, flips every bit, cuts, and speaks plaintext.
#[test]
fn what_was_altered_or_came_twice_is_dropped_and_counted() {
    for_each_backend(|how| {
        // The near end's lane leads to a tap that hands on what it likes: both ends know each other by its addresses.
        let mut ends = [End::new(how, 1_344, 10), End::new(how, 1_344, 11)];
        let tap = [UdpSocket::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap()];
        let addresses = ends.each_ref().map(|end| end.node.io.local_address());
        for (index, end) in ends.iter_mut().enumerate() {
            tap[index].set_read_timeout(Some(Duration::from_millis(1))).unwrap();
            end.lane = Some(end.node.io.add_peer(tap[index].local_addr().unwrap()).unwrap());
        }
        let (far, now) = (ends[1].public(), ends[0].now());
        ends[0].sessions.handle_connect(now, far, tap[0].local_addr().unwrap()).unwrap();
        let relay = |ends: &mut [End; 2], from: usize| {
            let mut buffer = [0; 2_048];
            let mut seen = Vec::new();
            ends[from].turn();
            while let Ok(len_bytes) = tap[from].recv(&mut buffer) {
                seen.push(buffer[..len_bytes].to_vec());
                tap[1 - from].send_to(&buffer[..len_bytes], addresses[1 - from]).unwrap();
            }
            seen
        };
        let deadline = Instant::now() + Duration::from_secs(10);
        let mut packet = 1 << 63;
        while ends[0].send(packet, Kind::Ping, &[5; 8]).is_err() {
            assert!(Instant::now() < deadline, "no session");
            relay(&mut ends, 0);
            relay(&mut ends, 1);
        }
        while ends[1].node.sink.control.is_empty() {
            assert!(Instant::now() < deadline, "the first word");
            relay(&mut ends, 0);
            relay(&mut ends, 1);
        }
        // The next word is held back.
        packet += 1;
        ends[0].send(packet, Kind::Ping, &[6; 8]).unwrap();
        let mut buffer = [0; 2_048];
        let original = loop {
            assert!(Instant::now() < deadline, "the next word");
            if let Ok(len_bytes @ SEALED_PING_BYTES) = tap[0].recv(&mut buffer) {
                break buffer[..len_bytes].to_vec();
            }
        };
        let mut bad: Vec<Vec<u8>> = (0..original.len() * 8)
            .map(|bit| {
                let mut datagram = original.clone();
                datagram[bit / 8] ^= 1 << (bit % 8);
                datagram
            })
            .collect();
        bad.extend((0..original.len()).map(|len_bytes| original[..len_bytes].to_vec()));
        let before = ends[1].node.io.counters();
        let taken = |ends: &mut [End; 2], count: u64| {
            while ends[1].node.io.counters().datagrams_received < before.datagrams_received + count {
                assert!(Instant::now() < deadline, "{:?}", ends[1].node.io.counters());
                ends[1].turn();
            }
            ends[1].node.io.counters()
        };
        for (count, datagram) in (1..).zip(&bad) {
            tap[1].send_to(datagram, addresses[1]).unwrap();
            taken(&mut ends, count);
        }
        let after = taken(&mut ends, bad.len() as u64);
        assert_eq!(ends[1].node.sink.control.len(), 1, "{how}: nothing was accepted");
        assert_eq!(after.dropped() - before.dropped(), bad.len() as u64, "{after:?}");
        assert!(after.dropped_forged - before.dropped_forged > 300, "{after:?}");
        assert!(after.dropped_malformed > before.dropped_malformed, "{after:?}");
        assert!(after.dropped_session > before.dropped_session, "{after:?}");
        // The session is none the worse; and what comes twice is taken once.
        for count in 1..3 {
            tap[1].send_to(&original, addresses[1]).unwrap();
            taken(&mut ends, bad.len() as u64 + count);
        }
        assert_eq!(ends[1].node.sink.control.len(), 2);
        assert_eq!(ends[1].node.sink.control[1].2, [6; 8]);
        assert_eq!(ends[1].node.io.counters().dropped_replayed, after.dropped_replayed + 1);
    });
}
