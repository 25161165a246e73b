//! Two hosts with a cable between them: what goes through arrives, as fast and as sound as the cable lets it, and two
//! nodes, one on each, commit one model over it.
//!
//! Each test skips aloud where the kernel grants no namespaces, no rate or no packet filter.

use plesio::{DataPath, Final, Hello, Node, NodeError, What};
use plesio_netns::{Pair, Side};
use plesio_tests::mesh::{Member, config, employ_on, settle_and_end, wait};
use plesio_tests::say_skipped;
use plesio_udp::Requested;
use plesio_wire::data::CHUNK_BYTES_JUMBO;
use std::net::{SocketAddr, UdpSocket};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Ends the test where this machine cannot run it.
macro_rules! or_skip {
    ($asked:expr) => {
        match $asked {
            Ok(got) => got,
            Err(why) => return say_skipped(&why),
        }
    };
}

fn socket(pair: &Pair, side: Side) -> Result<UdpSocket, String> {
    let socket = pair.run(side, || UdpSocket::bind((side.address(), 0)))?;
    let socket = socket.map_err(|error| format!("{}: {error}", side.address()))?;
    socket.set_read_timeout(Some(Duration::from_secs(3))).map_err(|error| error.to_string())?;
    Ok(socket)
}

#[test]
fn hosts_see_each_other_lose_what_they_are_told_and_leave_nothing() {
    let pair = or_skip!(Pair::open(1_500));
    let names = [Side::Left, Side::Right].map(|side| pair.name(side).to_owned());
    let (left, right) = (or_skip!(socket(&pair, Side::Left)), or_skip!(socket(&pair, Side::Right)));
    let to = right.local_addr().expect("it is bound");
    let mut bytes = [0; 2_000];
    left.send_to(b"hello", to).expect("a cable");
    let (len, from) = right.recv_from(&mut bytes).expect("the other host's datagram");
    assert_eq!((&bytes[..len], from), (&b"hello"[..], left.local_addr().expect("it is bound")));
    or_skip!(pair.lose(Side::Right, 500));
    for _ in 0..400 {
        left.send_to(&[7; 100], to).expect("a cable");
    }
    let mut heard = 0;
    while right.recv_from(&mut bytes).is_ok() {
        heard += 1;
    }
    let lost = pair.lost(Side::Right).expect("a counter");
    assert_eq!((heard + lost, (100..300).contains(&lost)), (400, true), "{heard} heard, {lost} lost");
    or_skip!(pair.narrow(Side::Right, 1_000));
    left.send_to(&[7; 1_200], to).expect("a cable");
    left.send_to(&[7; 800], to).expect("a cable");
    assert_eq!(right.recv_from(&mut bytes).expect("the small one").0, 800);
    drop(pair);
    for name in names {
        assert!(!std::path::Path::new("/run/netns").join(&name).exists(), "{name} is left behind");
    }
}

/// Nodes of one test at a time: the end of a mesh is that no thread of any node is left in this process.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A sealed node on each host, with a state of so many elements, at work.
fn mesh(pair: &Pair, elements: usize, backend: Requested) -> Result<Vec<Member>, String> {
    let bind = |(index, side): (u64, Side)| {
        let mut config = config(index, backend);
        let address = SocketAddr::from((side.address(), 0));
        (config.data, config.sideband, config.elements) = (address, address, elements);
        config.chunk_bytes = CHUNK_BYTES_JUMBO;
        // One host all the same: through memory nothing would go over the cable.
        config.path = DataPath::Udp;
        config.period_ns = 250_000_000;
        let node: Result<Node, NodeError> = pair.run(side, || Node::bind(config))?;
        node.map_err(|error| format!("{address}: {error}"))
    };
    let nodes: Result<Vec<Node>, String> =
        [(0, Side::Left), (1, Side::Right)].into_iter().map(bind).collect();
    let nodes = nodes?;
    let roster: Vec<Hello> = nodes.iter().map(Node::hello).collect();
    let enter = |node: Node| {
        let hello = node.hello();
        let running = node.start(&roster).map_err(|error| error.to_string())?;
        Ok(employ_on(elements, running, hello, 1e-4))
    };
    nodes.into_iter().map(enter).collect()
}

/// Waits until both cut what they send the other by so much, and for so many versions more.
fn wait_for(members: &[Member], chunk_bytes: u32, versions: u64) {
    let way = |what: &What| match what {
        What::Ways(ways) => ways.first().copied(),
        _ => None,
    };
    wait(&format!("chunks of {chunk_bytes} bytes"), || {
        members.iter().all(|member| member.newest(way).is_some_and(|way| way.chunk_bytes == chunk_bytes))
    });
    assert!(
        members.iter().all(|member| member.newest(way).is_some_and(|way| way.congestion == "rate-delay"))
    );
    let before = members[0].version();
    wait("versions", || members.iter().all(|member| member.version() > before + versions));
}

/// How many of a thousand payload bytes went more than once.
fn resent(ends: &[Final]) -> u64 {
    let counters = || ends.iter().map(|end| end.progress.counters);
    let (sent, again): (u64, u64) = (
        counters().map(|counters| counters.data_sent_bytes).sum(),
        counters().map(|counters| counters.retransmitted_bytes).sum(),
    );
    println!("{again} of {sent} payload bytes were sent again");
    again * 1_000 / sent.max(1)
}

#[test]
fn chunks_are_as_large_as_the_cable_carries() {
    let _alone = alone();
    for (mtu, chunk_bytes, backend) in [
        (1_500, 1_408, Requested::Auto),
        (9_000, CHUNK_BYTES_JUMBO, Requested::Auto),
        (9_000, CHUNK_BYTES_JUMBO, Requested::Mio),
    ] {
        let pair = or_skip!(Pair::open(mtu));
        let members = or_skip!(mesh(&pair, 50_000, backend));
        wait_for(&members, chunk_bytes, 4);
        settle_and_end(members);
    }
}

#[test]
fn a_cable_that_becomes_narrower_costs_time_and_no_bit() {
    let _alone = alone();
    // Messages of many chunks, and such as are shorter than one and still too long.
    for elements in [50_000, 2_000] {
        // A black hole tells nobody; the host's own kernel does.
        for told in [false, true] {
            let pair = or_skip!(Pair::open(9_000));
            let members = or_skip!(mesh(&pair, elements, Requested::Auto));
            wait_for(&members, CHUNK_BYTES_JUMBO, 2);
            for side in [Side::Left, Side::Right] {
                or_skip!(if told { pair.set_mtu(side, 1_500) } else { pair.narrow(side, 1_500) });
            }
            wait_for(&members, 1_344, 6);
            settle_and_end(members);
        }
    }
}

#[test]
fn a_cable_of_100_mbit_is_not_overrun() {
    let _alone = alone();
    let pair = or_skip!(Pair::open(1_500));
    for side in [Side::Left, Side::Right] {
        or_skip!(pair.shape(side, 100, 20));
    }
    // A contribution is a megabyte: half of it goes over the cable, and a megabyte of results.
    let members = or_skip!(mesh(&pair, 250_000, Requested::Auto));
    wait_for(&members, 1_408, 12);
    let resent = resent(&settle_and_end(members));
    assert!(resent < 50, "{resent} of a thousand bytes were sent again");
}
