//! The sideband's socket over loopback.

use std::net::UdpSocket;
use std::time::{Duration, Instant};

use plesio_udp::{OpenError, Report, SendError, StampKind, TimestampedSocket, clock};

fn open() -> TimestampedSocket {
    let (socket, notes) = TimestampedSocket::bind("127.0.0.1:0".parse().unwrap()).unwrap();
    notes.iter().for_each(|note| println!("{note}"));
    socket
}

/// The number and the stamp of the next datagram that left.
fn stamp(socket: &mut TimestampedSocket) -> Option<(u32, i64)> {
    match socket.poll_report()? {
        Report::Left { id, stamp_realtime_ns } => Some((id, stamp_realtime_ns)),
        report => panic!("{report:?}"),
    }
}

fn receive(socket: &mut TimestampedSocket, into: &mut [u8]) -> plesio_udp::Received {
    let deadline = Instant::now() + Duration::from_secs(5);
    loop {
        if let Some(received) = socket.recv_from(into).unwrap() {
            return received;
        }
        assert!(Instant::now() < deadline, "nothing came");
        socket.wait(Some(Duration::from_millis(100))).unwrap();
    }
}

#[test]
fn stamps_lie_between_the_calls_around_them() {
    let (mut near, mut far) = (open(), open());
    if near.stamps() != StampKind::Kernel {
        println!("skipped: no kernel stamps");
        return;
    }
    let mut into = [0; 2_048];
    // The kernel switches stamping on from a work queue, which has its own time where cores are busy.
    let (mut warm, deadline) = (0, Instant::now() + Duration::from_secs(5));
    loop {
        near.send_to(b"warm", far.local_address()).unwrap();
        warm += 1;
        if receive(&mut far, &mut into).stamp_realtime_ns.is_some() {
            break;
        }
        assert!(Instant::now() < deadline, "no receive stamp");
    }
    while stamp(&mut near).is_some() {}
    let mut stamped = 0;
    for round in 0..50_u32 {
        let text = format!("probe {round}");
        let before_ns = clock::realtime_ns();
        let id = near.send_to(text.as_bytes(), far.local_address()).unwrap();
        assert_eq!(id, warm + round);
        let received = receive(&mut far, &mut into);
        let after_ns = clock::realtime_ns();
        assert_eq!(&into[..received.len], text.as_bytes());
        assert_eq!(received.from, near.local_address());
        let deadline = Instant::now() + Duration::from_secs(5);
        let (stamped_id, sent_ns) = loop {
            if let Some(found) = stamp(&mut near) {
                break found;
            }
            assert!(Instant::now() < deadline, "no transmit stamp");
            near.wait(Some(Duration::from_millis(10))).unwrap();
        };
        assert_eq!(stamped_id, id);
        assert!(
            before_ns <= sent_ns && sent_ns <= after_ns,
            "{before_ns} to {after_ns}: {sent_ns}, {:?}",
            received.stamp_realtime_ns
        );
        // Receive stamping is one switch for the whole kernel, thrown from a work queue: while other sockets close, a
        // datagram may go without.
        if let Some(received_ns) = received.stamp_realtime_ns {
            stamped += 1;
            assert!(sent_ns <= received_ns && received_ns <= after_ns);
        }
    }
    assert!(stamped >= 25, "{stamped} of 50 datagrams carried a receive stamp");
}

#[test]
fn transmit_stamps_end_a_wait_until_they_are_taken() {
    let (mut near, far) = (open(), open());
    if near.stamps() != StampKind::Kernel {
        println!("skipped: no kernel stamps");
        return;
    }
    near.send_to(b"x", far.local_address()).unwrap();
    let ready = near.wait(Some(Duration::from_secs(5))).unwrap();
    assert!(ready.reports && !ready.readable, "{ready:?}");
    assert_eq!(stamp(&mut near).map(|stamp| stamp.0), Some(0));
    assert_eq!(stamp(&mut near), None);
    assert!(near.wait(Some(Duration::from_millis(5))).unwrap().timed_out);
}

#[test]
fn numbers_and_stamps_agree_after_a_refused_send() {
    let (mut near, far) = (open(), open());
    if near.stamps() != StampKind::Kernel {
        println!("skipped: no kernel stamps");
        return;
    }
    near.send_to(b"x", far.local_address()).unwrap();
    // A broadcast without permission: refused after the kernel has looked at it.
    let refused = near.send_to(b"x", "255.255.255.255:9".parse().unwrap());
    assert!(matches!(refused, Err(SendError::System { .. })), "{refused:?}");
    let id = near.send_to(b"y", far.local_address()).unwrap();
    assert_eq!(id, 1);
    assert_eq!(stamp(&mut near).map(|stamp| stamp.0), Some(0));
    near.wait(Some(Duration::from_secs(5))).unwrap();
    assert_eq!(stamp(&mut near).map(|stamp| stamp.0), Some(1));
}

#[test]
fn a_host_that_refuses_is_told_and_costs_others_no_datagram() {
    for host in ["127.0.0.1:0", "[::1]:0"] {
        let (mut near, _notes) = TimestampedSocket::bind(host.parse().unwrap()).unwrap();
        let (mut far, _notes) = TimestampedSocket::bind(host.parse().unwrap()).unwrap();
        let gone = TimestampedSocket::bind(host.parse().unwrap()).unwrap().0.local_address();
        let mut into = [0; 64];
        for round in 0..20_u32 {
            near.send_to(b"anybody?", gone).unwrap();
            assert_eq!(near.send_to(b"you", far.local_address()), Ok(2 * round + 1));
            assert_eq!(receive(&mut far, &mut into).len, 3, "what was sent right behind has come");
            let deadline = Instant::now() + Duration::from_secs(5);
            let (mut refused, mut left) = (false, near.stamps() == StampKind::User);
            while !(refused && left) {
                match near.poll_report() {
                    Some(Report::Refused { to }) => refused |= to == gone,
                    Some(Report::Left { id, .. }) => left |= id == 2 * round + 1,
                    _ => drop(near.wait(Some(Duration::from_millis(10)))),
                }
                assert!(Instant::now() < deadline, "refused {refused}, left {left}");
            }
        }
    }
}

#[test]
fn waits_end_and_long_datagrams_are_no_harm() {
    let mut node = open();
    let start = Instant::now();
    assert!(node.wait(Some(Duration::from_micros(300))).unwrap().timed_out);
    assert!(start.elapsed() >= Duration::from_micros(300));
    let waker = node.waker();
    let thread = std::thread::spawn(move || waker.wake());
    assert!(node.wait(Some(Duration::from_secs(5))).unwrap().woken);
    thread.join().unwrap();
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    other.send_to(&[1; 3_000], node.local_address()).unwrap();
    other.send_to(&[2; 2_049], node.local_address()).unwrap();
    other.send_to(&[], node.local_address()).unwrap();
    other.send_to(&[3; 40], node.local_address()).unwrap();
    let mut into = [0; 2_048];
    assert_eq!(receive(&mut node, &mut into).len, 0);
    assert_eq!(receive(&mut node, &mut into[..64]).len, 40);
    assert_eq!(node.recv_from(&mut into).unwrap(), None);
    assert_eq!(
        node.send_to(&[0; 2_049], other.local_addr().unwrap()),
        Err(SendError::TooLarge { len_bytes: 2_049 })
    );
    let taken = TimestampedSocket::bind(node.local_address()).err();
    assert_eq!(taken, Some(OpenError::InUse { address: node.local_address() }));
}
