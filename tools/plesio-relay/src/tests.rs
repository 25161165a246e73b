//! Ends that see each other where they are told to be, paths that are bad in one direction, and ends that come unasked.

use super::*;
use std::time::{Duration, Instant};

fn local() -> SocketAddr {
    "127.0.0.1:0".parse().unwrap()
}

fn node() -> UdpSocket {
    let socket = UdpSocket::bind(local()).unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    socket
}

/// A relay, nodes, and where it says that they are.
fn mesh(impairment: Impairment, count: usize) -> (Relay, Vec<(UdpSocket, EndId, SocketAddr)>) {
    let relay = Relay::start(RelayConfig { impairment, ..RelayConfig::default() }).unwrap();
    let nodes = (0..count).map(|_| {
        let node = node();
        let (end, advertised) = relay.open(local()).unwrap();
        relay.stands_for(end, node.local_addr().unwrap());
        (node, end, advertised)
    });
    let nodes = nodes.collect();
    (relay, nodes)
}

fn hear(node: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut bytes = [0; 2_000];
    let (len, from) = node.recv_from(&mut bytes).expect("a datagram in time");
    (bytes[..len].to_vec(), from)
}

/// The report once it is as wanted, or what it has become in the end.
fn report_when(relay: &Relay, wanted: impl Fn(&Report) -> bool) -> Report {
    let begun = Instant::now();
    loop {
        let report = relay.report().unwrap();
        if wanted(&report) || begun.elapsed() > Duration::from_secs(20) {
            return report;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn everybody_is_seen_where_the_relay_says() {
    let (relay, nodes) = mesh(Impairment::default(), 3);
    for (from, (node, ..)) in nodes.iter().enumerate() {
        for (to, (other, _, advertised)) in nodes.iter().enumerate().filter(|(to, _)| *to != from) {
            node.send_to(&[from as u8, to as u8], advertised).unwrap();
            assert_eq!(hear(other), (vec![from as u8, to as u8], nodes[from].2));
        }
    }
    // Itself and a stranger: nobody hears of it.
    nodes[0].0.send_to(b"me", nodes[0].2).unwrap();
    node().send_to(b"who", nodes[0].2).unwrap();
    let report = report_when(&relay, |report| report.strangers == 2);
    assert_eq!((report.strangers, report.tally.taken, report.tally.sent, report.unsent), (2, 6, 6, 0));
    assert!(report.to_string().contains("6 sent on, 2 from nobody known"), "{report}");
}

#[test]
fn one_way_is_cut_and_the_other_is_not() {
    let (relay, nodes) = mesh(Impairment::default(), 2);
    let cut = Impairment { cut: true, ..Impairment::default() };
    relay.impair_way(nodes[0].1, nodes[1].1, cut).unwrap();
    nodes[0].0.send_to(b"lost", nodes[1].2).unwrap();
    nodes[1].0.send_to(b"kept", nodes[0].2).unwrap();
    assert_eq!(hear(&nodes[0].0), (b"kept".to_vec(), nodes[1].2));
    assert_eq!(report_when(&relay, |report| report.tally.taken == 2).tally.lost, 1);
    // What is said about all directions holds for this one again.
    relay.impair(Impairment::default()).unwrap();
    nodes[0].0.send_to(b"back", nodes[1].2).unwrap();
    assert_eq!(hear(&nodes[1].0).0, b"back");
}

#[test]
fn a_delay_is_never_shorter_and_keeps_the_order() {
    let delay = Impairment { delay_ns: 30_000_000, duplicate_ppm: 1_000_000, ..Impairment::default() };
    let (_relay, nodes) = mesh(delay, 2);
    let begun = Instant::now();
    for number in 0..100 {
        nodes[0].0.send_to(&[number], nodes[1].2).unwrap();
    }
    let heard: Vec<u8> = (0..200).map(|_| hear(&nodes[1].0).0[0]).collect();
    assert!(begun.elapsed() >= Duration::from_millis(30));
    assert!((0..100).all(|number| heard.iter().filter(|other| **other == number).count() == 2));
}

#[test]
fn guests_get_ends_of_their_own() {
    let server = node();
    let relay = Relay::start(RelayConfig {
        impairment: Impairment { loss_ppm: 500_000, ..Impairment::default() },
        back: false,
        ..RelayConfig::default()
    })
    .unwrap();
    let (end, at) = relay.open(local()).unwrap();
    relay.stands_for(end, server.local_addr().unwrap());
    relay.admit_at(end);
    let guests = [node(), node()];
    let mut seen = Vec::new();
    for (number, guest) in guests.iter().enumerate() {
        for _ in 0..60 {
            guest.send_to(&[number as u8], at).unwrap();
        }
        // The first one's last datagrams may come late.
        let (_, from) =
            std::iter::from_fn(|| Some(hear(&server))).find(|(bytes, _)| *bytes == [number as u8]).unwrap();
        seen.push(from);
        // The way back is sound.
        for _ in 0..60 {
            server.send_to(b"answer", from).unwrap();
        }
        assert!((0..60).all(|_| hear(guest) == (b"answer".to_vec(), at)));
    }
    assert!(seen[0] != seen[1] && !seen.contains(&at));
    let report = relay.report().unwrap();
    assert!((30..90).contains(&report.tally.lost), "{report}");
}

#[test]
fn what_no_path_is_and_what_no_host_has_are_refused() {
    let wild = Impairment { loss_ppm: u32::MAX, ..Impairment::default() };
    let refused = Relay::start(RelayConfig { impairment: wild, ..RelayConfig::default() });
    assert!(matches!(refused, Err(RelayError::Impairment(_))));
    let relay = Relay::start(RelayConfig::default()).unwrap();
    assert!(relay.impair(wild).is_err());
    let (end, taken) = relay.open(local()).unwrap();
    assert_eq!((relay.end_at(taken), relay.end_at(local())), (Some(end), None));
    let error = relay.open(taken).expect_err("in use");
    assert!(error.to_string().contains("free port"), "{error}");
    let mut ends = 1;
    let full = loop {
        match relay.open(local()) {
            Ok(_) => ends += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(full, RelayError::Full) && ends == ENDS_MAX, "{full} {ends}");
    // Orders about ends of another relay do no harm.
    relay.stands_for(EndId(9_999), taken);
    relay.admit_at(EndId(9_999));
    relay.impair_way(EndId(0), EndId(9_999), Impairment::default()).unwrap();
    assert_eq!(relay.report().unwrap(), Report::default());
}
