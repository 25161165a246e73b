//! The data port over real loopback sockets, the same stories for every backend.

#[path = "../../../../tests/counting.rs"]
mod counting;
mod node;
mod sealed;

use node::{Node, WINDOWS, for_each_backend, header, raw};

use std::net::{SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use plesio_udp::{
    DatagramIo, DatagramSink, OpenError, Peer, Protection, Requested, SendError, SocketConfig, Tier, open,
    probe, refuse_off_host,
};
use plesio_wire::Span;
use plesio_wire::data::{Header, Kind, MessageId};

#[test]
fn messages_of_every_size_arrive_byte_for_byte_without_a_copy() {
    for_each_backend(|how| {
        for (chunk_bytes, offload) in
            [(1_408, true), (1_408, false), (8_896, true), (65_408, true), (1_152, true)]
        {
            let mut sender = Node::with(how, chunk_bytes, offload);
            let mut receiver = Node::with(how, chunk_bytes, offload);
            let to = sender.meet(&receiver);
            let from = receiver.meet(&sender);
            let bytes = sender.write_source(WINDOWS, u64::from(chunk_bytes));
            let chunk = chunk_bytes as usize;
            for len_bytes in [1, chunk - 1, chunk, chunk + 1, 10 * chunk + 7, 1 << 20, 64 * chunk] {
                let len_bytes = len_bytes.min(1 << 20);
                receiver.sink.received.clear();
                let chunks = sender.chunks(WINDOWS, 0, len_bytes);
                sender.send_all(to, &chunks);
                let arrived = receiver.receive_until(|sink| sink.received.len() == chunks.len());
                assert!(arrived, "{how} {chunk_bytes} {len_bytes}: {:?}", receiver.io.counters());
                assert!(receiver.sink.received.keys().all(|(peer, ..)| *peer == from));
                assert!(
                    receiver.window(0, len_bytes) == bytes[..len_bytes],
                    "{how} {chunk_bytes} {len_bytes}"
                );
            }
            let (sent, received) = (sender.io.counters(), receiver.io.counters());
            assert_eq!(
                received.copied_bytes_received,
                how.moved(received.payload_bytes_received),
                "{received:?}"
            );
            assert_eq!(sent.payload_bytes_sent, received.payload_bytes_received);
            assert_eq!(sent.datagrams_sent, received.datagrams_received);
            if offload && chunk_bytes == 1_408 {
                assert!(sent.send_calls * 16 < sent.datagrams_sent, "trains were used: {sent:?}");
                assert!(received.trains_received * 16 < received.datagrams_received, "{received:?}");
            }
        }
    });
}

#[test]
fn interleaved_peers_do_not_mix() {
    for_each_backend(|how| {
        let mut receiver = Node::new(how, 1_408);
        let mut senders: Vec<Node> = (0..3).map(|_| Node::new(how, 1_408)).collect();
        let mut expected = Vec::new();
        let mut routes = Vec::new();
        for (index, sender) in senders.iter_mut().enumerate() {
            let bytes = sender.write_source(WINDOWS, index as u64 + 1);
            let peer = receiver.meet(sender);
            routes.push((sender.meet(&receiver), sender.chunks(WINDOWS, index as u16, 1 << 20)));
            expected.push((peer, bytes));
        }
        let longest = routes.iter().map(|(_, chunks)| chunks.len()).max().unwrap();
        for start in (0..longest).step_by(40) {
            for (sender, (peer, chunks)) in senders.iter_mut().zip(&routes) {
                let end = (start + 40).min(chunks.len());
                sender.send_all(*peer, &chunks[start..end]);
            }
            let total: usize = routes.iter().map(|(_, chunks)| (start + 40).min(chunks.len())).sum();
            assert!(
                receiver.receive_until(|sink| sink.received.len() == total),
                "{:?}",
                receiver.io.counters()
            );
        }
        for (handle, (peer, bytes)) in expected.iter().enumerate() {
            assert!(receiver.window(handle as u16, 1 << 20) == bytes[..1 << 20]);
            let of_peer = receiver
                .sink
                .received
                .keys()
                .filter(|(from, message, _)| from == peer && usize::from(message.handle) == handle);
            assert_eq!(of_peer.count(), routes[handle].1.len());
        }
        let counters = receiver.io.counters();
        assert_eq!(counters.copied_bytes_received, how.moved(counters.payload_bytes_received));
        receiver.check_ledger();
    });
}

/// Two trains of one round wanted the same region: the second was read aside and moved (2 % of the demo's bytes).
#[test]
fn two_peers_fill_one_window_without_a_copy() {
    for_each_backend(|how| {
        let mut receiver = Node::new(how, 65_408);
        let mut senders: Vec<Node> = (0..2).map(|_| Node::new(how, 65_408)).collect();
        let len_bytes = 32 * 65_408;
        let bytes = senders[0].write_source(WINDOWS, 1);
        assert_eq!(senders[1].write_source(WINDOWS, 1), bytes);
        let mut routes = Vec::new();
        for sender in &mut senders {
            receiver.meet(sender);
            routes.push((sender.meet(&receiver), sender.chunks(WINDOWS, 0, len_bytes)));
        }
        for start in (0..16).step_by(4) {
            for (half, (sender, (peer, chunks))) in senders.iter_mut().zip(&routes).enumerate() {
                sender.send_all(*peer, &chunks[16 * half + start..16 * half + start + 4]);
            }
            assert!(receiver.receive_until(|sink| sink.received.len() == 2 * (start + 4)));
        }
        assert!(receiver.window(0, len_bytes) == bytes[..len_bytes]);
        let counters = receiver.io.counters();
        assert_eq!(counters.copied_bytes_received, how.moved(counters.payload_bytes_received));
        receiver.check_ledger();
    });
}

#[test]
fn control_goes_both_ways_beside_bulk() {
    for_each_backend(|how| {
        let mut near = Node::new(how, 1_408);
        let mut far = Node::new(how, 1_408);
        let to_far = near.meet(&far);
        let to_near = far.meet(&near);
        near.write_source(WINDOWS, 5);
        let chunks = near.chunks(WINDOWS, 1, 100_000);
        near.send_all(to_far, &chunks[..30]);
        near.io.send_control(to_far, &header(Kind::Ping, MessageId::default(), 0), &[]).unwrap();
        near.send_all(to_far, &chunks[30..]);
        assert!(far.receive_until(|sink| sink.received.len() == chunks.len() && sink.control.len() == 1));
        assert_eq!(far.sink.control, [(to_near, Kind::Ping, vec![])]);
        let body = [9; 64];
        far.io.send_control(to_near, &header(Kind::Ack, MessageId::default(), 0), &body).unwrap();
        assert!(near.receive_until(|sink| !sink.control.is_empty()));
        assert_eq!(near.sink.control, [(to_far, Kind::Ack, body.to_vec())]);
        let counters = far.io.counters();
        assert_eq!(counters.copied_bytes_received, how.moved(counters.payload_bytes_received));
        let long = near.io.send_control(to_far, &header(Kind::Ack, MessageId::default(), 0), &[0; 65_500]);
        assert_eq!(long, Err(SendError::TooLarge { len_bytes: 65_532 }));
        // A padded probe is as long as a chunk.
        near.io.send_control(to_far, &header(Kind::Probe, MessageId::default(), 0), &[0; 65_408]).unwrap();
        assert!(far.receive_until(|sink| sink.control.last().is_some_and(|last| last.2.len() == 65_408)));
    });
}

/// Sends a message over and over and counts what both ends allocate for it, once all is warm.
fn assert_frugal(what: &str, mut send: impl FnMut(u64), mut receive: impl FnMut() -> usize, chunks: usize) {
    let mut begin = None;
    for round in 0..24 {
        if round == 4 {
            begin = Some(counting::COUNT.get());
        }
        send(round);
        let deadline = Instant::now() + Duration::from_secs(5);
        let mut arrived = 0;
        while arrived < chunks {
            assert!(Instant::now() < deadline, "{what}: {arrived} of {chunks}");
            arrived += receive();
        }
    }
    assert_eq!(begin, Some(counting::COUNT.get()), "{what}: allocations in 20 rounds of {chunks} datagrams");
}

/// A sink that only counts, and takes every chunk into the same window.
struct Frugal {
    chunk_bytes: u32,
    arrived: usize,
}

impl DatagramSink for Frugal {
    fn place(&mut self, _peer: Peer, header: &Header) -> Option<Span> {
        let offset_bytes = header.chunk * self.chunk_bytes;
        Some(Span { region: 0, offset_bytes, len_bytes: u32::from(header.payload_bytes) })
    }

    fn handle_chunk(&mut self, _peer: Peer, _header: &Header, _span: Span) {
        self.arrived += 1;
    }

    fn handle_control(&mut self, _peer: Peer, _header: &Header, _payload: &[u8]) {}
}

/// Sends `chunks` again and again from one end to the other, as new packets each time.
pub(crate) fn send_again_and_again(
    what: &str,
    sender: &mut dyn DatagramIo,
    to: Peer,
    receiver: &mut dyn DatagramIo,
    mut chunks: Vec<(Header, Span)>,
) {
    let count = chunks.len();
    let chunk_bytes = chunks[0].1.len_bytes;
    let mut sink = Frugal { chunk_bytes, arrived: 0 };
    let send = |round: u64| {
        for (index, (header, _)) in chunks.iter_mut().enumerate() {
            header.packet = round * count as u64 + index as u64;
        }
        let mut sent = 0;
        while sent < count {
            sent += sender.send_train(to, &chunks[sent..]).map_or(0, |some| some.chunks);
        }
    };
    let receive = || {
        let before = sink.arrived;
        if receiver.wait(Some(Duration::from_millis(20))).unwrap().readable {
            while receiver.receive(&mut sink, 16).unwrap() {}
        }
        sink.arrived - before
    };
    assert_frugal(what, send, receive, count);
}

#[test]
fn datagrams_allocate_nothing() {
    for_each_backend(|how| {
        for chunk_bytes in [1_408, 65_408] {
            let mut sender = Node::new(how, chunk_bytes);
            let mut receiver = Node::new(how, chunk_bytes);
            let to = sender.meet(&receiver);
            receiver.meet(&sender);
            let chunks = sender.chunks(WINDOWS, 0, 1 << 20);
            let what = format!("{how} {chunk_bytes}");
            send_again_and_again(&what, &mut *sender.io, to, &mut *receiver.io, chunks);
        }
    });
}

/// Chunks that do not follow each other inside one train are moved to where they belong, and the move is counted.
#[test]
fn a_train_that_is_not_as_predicted_is_put_right() {
    for_each_backend(|how| {
        let mut receiver = Node::new(how, 1_000);
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        let from = receiver.io.add_peer(stranger.local_addr().unwrap()).unwrap();
        // Chunks 3, 1, 1, 2 and an ACK of the same length in one segmented send.
        let parts = [(3, 3_u8), (1, 1), (1, 1), (2, 2)];
        let mut train: Vec<u8> =
            parts.iter().flat_map(|(chunk, fill)| raw(Kind::Data, 2, *chunk, &[*fill; 1_000])).collect();
        train.extend(raw(Kind::Ack, 0, 0, &[8; 1_000]));
        nix::sys::socket::setsockopt(&stranger, nix::sys::socket::sockopt::UdpGsoSegment, &1_032).unwrap();
        stranger.send_to(&train, receiver.io.local_address()).unwrap();
        assert!(receiver.receive_until(|sink| !sink.control.is_empty() && sink.unplaced == 1));
        let window = receiver.window(2, 4_000);
        for fill in 1..4 {
            assert!(window[fill * 1_000..][..1_000].iter().all(|byte| *byte == fill as u8), "chunk {fill}");
        }
        let chunks: Vec<_> = receiver.sink.received.keys().map(|(peer, _, chunk)| (*peer, *chunk)).collect();
        assert_eq!(chunks, [(from, 1), (from, 2), (from, 3)]);
        assert_eq!(receiver.sink.control[0].2, [8; 1_000]);
        let counters = receiver.io.counters();
        assert_eq!(counters.dropped_unplaced, 1, "the duplicate");
        assert!(counters.copied_bytes_received >= 2_000, "{counters:?}");
        receiver.check_ledger();
    });
}

#[test]
fn malformed_datagrams_are_counted_and_nothing_else() {
    for_each_backend(|how| {
        let mut receiver = Node::new(how, 1_408);
        let peer_socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.io.add_peer(peer_socket.local_addr().unwrap()).unwrap();
        let to = receiver.io.local_address();
        let before = receiver.window(0, 100_000);
        let mut state = 12_345_u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            state >> 8
        };
        let mut sent: u64 = 0;
        for round in 0..4_000 {
            let mut bytes: Vec<u8> = (0..random() % 200).map(|_| random() as u8).collect();
            match round % 4 {
                // Right but for one bit.
                0 => {
                    bytes = raw(Kind::Data, (random() % 6) as u16, random() % 10, &bytes);
                    let bit = random() as usize % (bytes.len() * 8);
                    bytes[bit / 8] ^= 1 << (bit % 8);
                }
                // Cut short.
                1 => {
                    bytes = raw(Kind::Data, 0, 1, &bytes);
                    bytes.truncate(random() as usize % bytes.len());
                }
                // Long.
                2 => bytes = raw(Kind::Ack, 0, 1, &bytes).into_iter().chain([0]).collect(),
                _ => {}
            }
            let socket = if round % 3 == 0 { &stranger } else { &peer_socket };
            socket.send_to(&bytes, to).unwrap();
            sent += 1;
            if round % 100 == 99 {
                let target = sent;
                for _ in 0..100 {
                    if receiver.io.counters().datagrams_received >= target {
                        break;
                    }
                    receiver.io.wait(Some(Duration::from_millis(20))).unwrap();
                    while receiver.io.receive(&mut receiver.sink, 64).unwrap() {}
                }
            }
        }
        let counters = receiver.io.counters();
        assert_eq!(counters.datagrams_received, sent, "{counters:?}");
        assert_eq!(counters.dropped_stranger, sent.div_ceil(3));
        assert_eq!(receiver.sink.received.len() + receiver.sink.control.len(), 0, "nothing was accepted");
        assert!(counters.dropped_malformed > 0 && counters.dropped_checksum > 0);
        assert_eq!(receiver.sink.strangers.len() as u64, counters.dropped_stranger);
        receiver.check_ledger();
        // A hole may have been scribbled on; a window that takes its chunks afterwards is right all the same.
        drop(before);
        peer_socket.send_to(&raw(Kind::Data, 0, 0, &[7; 1_408]), to).unwrap();
        assert!(receiver.receive_until(|sink| sink.received.len() == 1));
        assert_eq!(receiver.window(0, 1_408), [7; 1_408]);
    });
}

#[test]
fn a_window_that_somebody_holds_is_left_alone() {
    for_each_backend(|how| {
        let mut sender = Node::new(how, 1_408);
        let mut receiver = Node::new(how, 1_408);
        let to = sender.meet(&receiver);
        receiver.meet(&sender);
        let bytes = sender.write_source(WINDOWS, 3);
        let chunks = sender.chunks(WINDOWS, 0, 14_080);
        let reading = receiver.arena.share(receiver.arena.whole(0).unwrap()).unwrap();
        sender.send_all(to, &chunks);
        let deadline = Instant::now() + Duration::from_secs(5);
        while receiver.io.counters().dropped_busy < 10 && Instant::now() < deadline {
            receiver.io.wait(Some(Duration::from_millis(50))).unwrap();
            receiver.io.receive(&mut receiver.sink, 64).unwrap();
        }
        assert!(reading.as_bytes().iter().all(|byte| *byte == 0));
        drop(reading);
        sender.send_all(to, &chunks);
        assert!(receiver.receive_until(|sink| sink.received.len() == 10));
        assert!(receiver.window(0, 14_080) == bytes[..14_080]);
        // The other way round: what is being written cannot be sent.
        let lease = sender.arena.lease(WINDOWS).unwrap();
        assert!(matches!(sender.io.send_train(to, &chunks), Err(SendError::Access(_))));
        let in_flight = lease.launch();
        assert_eq!(sender.io.send_train(to, &chunks).unwrap().chunks, 10);
        drop(in_flight);
        let outside = [(chunks[0].0, Span { region: 99, offset_bytes: 0, len_bytes: 1 })];
        assert!(matches!(sender.io.send_train(to, &outside), Err(SendError::Access(_))));
    });
}

#[test]
fn peers_come_and_go_on_one_port() {
    for_each_backend(|how| {
        let mut receiver = Node::new(how, 1_408);
        let address = receiver.io.local_address();
        for round in 0..20 {
            let mut sender = Node::new(how, 1_408);
            let to = sender.meet(&receiver);
            sender.write_source(WINDOWS, round);
            let chunks = sender.chunks(WINDOWS, 0, 5_000);
            // Before it is known, a peer is a stranger.
            sender.send_all(to, &chunks[..1]);
            let strangers = receiver.sink.strangers.len();
            let seen = receiver.receive_until(|sink| sink.strangers.len() > strangers);
            assert!(seen, "{how}, round {round}: {:?}", receiver.io.counters());
            let peer = receiver.meet(&sender);
            assert_eq!(peer, Peer(0), "the place of the one before");
            receiver.sink.received.clear();
            sender.send_all(to, &chunks);
            assert!(receiver.receive_until(|sink| sink.received.len() == chunks.len()));
            receiver.io.remove_peer(peer);
            assert_eq!(receiver.io.send_train(peer, &chunks), Err(SendError::UnknownPeer));
        }
        let taken = UdpSocket::bind(address);
        assert!(taken.is_err(), "the port is still ours");
        drop(receiver);
        UdpSocket::bind(address).expect("the port is free at once");
    });
}

/// Two threads send to each other at once, with windows of credit so small that both must wait for the other.
#[test]
fn both_directions_at_once_lose_nothing() {
    const BLOCK: usize = 8;
    for_each_backend(|how| {
        let (tell_one, hear_one) = std::sync::mpsc::channel();
        let (tell_two, hear_two) = std::sync::mpsc::channel();
        let talk = move |tell: std::sync::mpsc::Sender<SocketAddr>,
                         hear: std::sync::mpsc::Receiver<SocketAddr>,
                         salt| {
            let mut node = Node::new(how, 1_408);
            tell.send(node.io.local_address()).unwrap();
            let other = node.io.add_peer(hear.recv().unwrap()).unwrap();
            // Neither sends before the other listens.
            tell.send(node.io.local_address()).unwrap();
            hear.recv().unwrap();
            node.write_source(WINDOWS, salt);
            let chunks = node.chunks(WINDOWS, 0, 1 << 20);
            let (mut sent, mut acknowledged) = (0, 0);
            let deadline = Instant::now() + Duration::from_secs(20);
            let all = chunks.len();
            while node.sink.received.len() < all || node.sink.control.len() * BLOCK < all {
                assert!(Instant::now() < deadline, "{sent} {:?}", node.io.counters());
                while sent < all && sent < (node.sink.control.len() + 2) * BLOCK {
                    let end = (sent + BLOCK).min(all);
                    node.send_all(other, &chunks[sent..end]);
                    sent = end;
                }
                if node.io.wait(Some(Duration::from_millis(100))).unwrap().readable {
                    node.io.receive(&mut node.sink, 3).unwrap();
                }
                let ack = header(Kind::Ack, MessageId::default(), 0);
                let received = node.sink.received.len();
                while acknowledged * BLOCK + BLOCK <= received
                    || (received == all && acknowledged * BLOCK < all)
                {
                    acknowledged += 1;
                    node.io.send_control(other, &ack, &[1; 64]).unwrap();
                }
            }
            node.check_ledger();
            let counters = node.io.counters();
            assert_eq!(counters.copied_bytes_received, how.moved(counters.payload_bytes_received));
            node.window(0, 1 << 20)
        };
        let one = std::thread::spawn(move || talk(tell_one, hear_two, 1));
        let two = std::thread::spawn(move || talk(tell_two, hear_one, 2));
        let (at_one, at_two) = (one.join().unwrap(), two.join().unwrap());
        let source = |salt| Node::new(how, 1_408).write_source(WINDOWS, salt);
        assert!(at_one == source(2)[..1 << 20] && at_two == source(1)[..1 << 20]);
    });
}

#[test]
fn what_the_kernel_drops_is_counted() {
    for_each_backend(|how| {
        let mut sender = Node::new(how, 65_408);
        let mut receiver = Node::new(how, 65_408);
        let to = sender.meet(&receiver);
        receiver.meet(&sender);
        sender.write_source(WINDOWS, 3);
        let chunks = sender.chunks(WINDOWS, 0, 48 * 65_408);
        // More than the receive buffer holds, four windows' worth, and nobody receives.
        let mut sent: u64 = 0;
        for handle in 0..WINDOWS {
            let chunks: Vec<_> = chunks
                .iter()
                .map(|(header, span)| {
                    (Header { message: MessageId { handle, sequence: 1 }, ..*header }, *span)
                })
                .collect();
            sender.send_all(to, &chunks);
            sent += chunks.len() as u64;
        }
        while receiver.io.wait(Some(Duration::from_millis(50))).unwrap().readable {
            while receiver.io.receive(&mut receiver.sink, 8).unwrap() {}
        }
        // The count travels with the next datagram that is taken in.
        sender.io.send_control(to, &header(Kind::Ping, MessageId::default(), 0), &[]).unwrap();
        assert!(receiver.receive_until(|sink| !sink.control.is_empty()));
        let counters = receiver.io.counters();
        assert!(counters.dropped_kernel > 0, "{counters:?}");
        assert_eq!(counters.datagrams_received + counters.dropped_kernel, sent + 1);
    });
}

#[test]
fn a_peer_that_is_gone_is_an_answer() {
    for_each_backend(|how| {
        let mut sender = Node::new(how, 1_408);
        let gone = UdpSocket::bind("127.0.0.1:0").unwrap();
        let to = sender.io.add_peer(gone.local_addr().unwrap()).unwrap();
        drop(gone);
        let ping = header(Kind::Ping, MessageId::default(), 0);
        for _ in 0..10 {
            let _first_is_sent_later_ones_refused = sender.io.send_control(to, &ping, &[]);
            sender.io.wait(Some(Duration::from_millis(5))).unwrap();
            sender.io.receive(&mut sender.sink, 8).unwrap();
        }
        assert!(sender.io.counters().refused > 0, "{:?}", sender.io.counters());
    });
}

#[test]
fn a_wait_ends_for_the_clock_and_for_the_waker() {
    for_each_backend(|how| {
        let mut node = Node::new(how, 1_408);
        node.io.wait(Some(Duration::ZERO)).unwrap();
        node.io.receive(&mut node.sink, 1).unwrap();
        let start = Instant::now();
        let ready = node.io.wait(Some(Duration::from_millis(30))).unwrap();
        assert!(ready.timed_out && start.elapsed() >= Duration::from_millis(29), "{ready:?}");
        for _ in 0..3 {
            let waker = node.io.waker();
            let thread = std::thread::spawn(move || {
                std::thread::sleep(Duration::from_millis(10));
                waker.wake();
                waker.wake();
            });
            let ready = node.io.wait(Some(Duration::from_secs(10))).unwrap();
            assert!(ready.woken && !ready.timed_out, "{ready:?}");
            thread.join().unwrap();
            node.io.wait(Some(Duration::ZERO)).unwrap();
        }
        assert!(node.io.wait(Some(Duration::from_millis(1))).unwrap().timed_out);
    });
}

#[test]
fn bad_addresses_are_clear_errors() {
    for_each_backend(|how| {
        let mut node = Node::new(how, 1_408);
        let far: SocketAddr = "192.0.2.1:4000".parse().unwrap();
        assert_eq!(node.io.add_peer(far), Err(OpenError::OffHost { address: far }));
        assert!(matches!(node.io.add_peer("[::1]:4000".parse().unwrap()), Err(OpenError::Family { .. })));
        let arena = node.arena.clone();
        let mut config = SocketConfig::new(node.io.local_address());
        config.protection = Protection::Plaintext;
        let again = open(how.backend, &config, arena.clone()).err();
        assert_eq!(again, Some(OpenError::InUse { address: node.io.local_address() }));
        let mut small = SocketConfig::new("127.0.0.1:0".parse().unwrap());
        small.protection = Protection::Plaintext;
        small.peers_max = 1;
        small.receive_buffer_bytes = 1 << 30;
        let mut opened = open(how.backend, &small, arena).unwrap();
        assert!(opened.notes.iter().any(|note| note.contains("net.core.rmem_max")), "{:?}", opened.notes);
        opened.io.add_peer("127.0.0.1:4000".parse().unwrap()).unwrap();
        let full = opened.io.add_peer("127.0.0.1:4001".parse().unwrap());
        assert_eq!(full, Err(OpenError::TooManyPeers { peers_max: 1 }));
    });
    for off_host in ["0.0.0.0:1", "10.0.0.1:1", "[::]:1", "[2001:db8::1]:1", "[::ffff:8.8.8.8]:1"] {
        assert!(refuse_off_host(off_host.parse().unwrap()).is_err(), "{off_host}");
    }
    for on_host in ["127.0.0.1:1", "127.9.9.9:1", "[::1]:1", "[::ffff:127.0.0.1]:1"] {
        assert!(refuse_off_host(on_host.parse().unwrap()).is_ok(), "{on_host}");
    }
}

#[test]
fn the_choice_of_a_backend_has_a_reason() {
    let auto = probe(Requested::Auto).unwrap();
    println!("auto: {} ({})", auto.tier, auto.reason);
    assert_eq!(probe(Requested::Mio).unwrap().tier, Tier::Mio);
    assert_eq!("uring".parse(), Ok(Requested::Uring));
    assert!("epoll\n".parse::<Requested>().unwrap_err().to_string().contains("epoll\\n"));
}
