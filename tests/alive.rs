//! The sideband beside a data path that is full. In a process of its own: nothing else of this crate fills the machine.

use plesio::{Counters, DataPath, Hello, Node, NodeConfig, What};
use plesio_tests::mesh::{Member, config, employ_on, wait};
use plesio_udp::Requested;
use std::time::Instant;

/// Two nodes exchange as much as this machine carries, and their beats come all the same. How late is printed: on a busy
/// machine a thread waits for a core longer than a datagram for its way.
#[test]
fn the_sideband_is_alive_while_the_data_path_is_full() {
    const WIDE: usize = 4_000_000;
    let bind = |index| {
        let mut config = NodeConfig { elements: WIDE, path: DataPath::Udp, ..config(index, Requested::Auto) };
        config.period_ns = 200_000_000;
        Node::bind(config).expect("loopback sockets and a hundred megabytes")
    };
    let nodes: Vec<Node> = (0..2).map(bind).collect();
    let roster: Vec<Hello> = nodes.iter().map(Node::hello).collect();
    let enter = |node: Node| {
        let hello = node.hello();
        employ_on(WIDE, node.start(&roster).expect("the roster is whole"), hello, 1e-4)
    };
    let members: Vec<Member> = nodes.into_iter().map(enter).collect();
    let counters = |member: &Member| {
        member.newest(|what| match what {
            What::Progress(progress) => Some(progress.counters),
            _ => None,
        })
    };
    wait("versions", || members.iter().all(|member| member.version() >= 3));
    let told = || -> Vec<_> { members.iter().filter_map(counters).collect() };
    let before = told();
    let begun = Instant::now();
    wait("beats", || told().iter().all(|counters| counters.sideband_pace.delays >= 60));
    let (after, seconds) = (told(), begun.elapsed().as_secs_f64());
    let sent = |all: &[Counters]| all.iter().map(|counters| counters.data_sent_bytes).sum::<u64>();
    let rate = (sent(&after) - sent(&before)) as f64 / seconds / 1e6;
    let p99: Vec<u64> = after.iter().map(|counters| counters.sideband_pace.delay_p99_ns / 1_000).collect();
    println!("{rate:.0} MB/s of payload; full beats took {p99:?} us (p99 at each)");
    assert!(rate > 20.0, "{rate} MB/s fill nothing");
    assert!(p99.iter().all(|us| *us < 100_000), "{p99:?} us");
    assert!(!members.iter().any(|member| member.has(|what| matches!(what, What::Dead(_)))));
    members.into_iter().for_each(|member| member.control.stop());
}
