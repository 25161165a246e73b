//! Three sidebands with real sockets and wrong clocks: one mesh time, a death noticed, garbage counted.

use plesio_sideband::{
    Bound, ClockSeam, Event, LocalClock, MachineConfig, MeshClock, Sideband, SidebandConfig, Status, To,
};
use plesio_wire::sideband::{Accept, Message, state};
use plesio_wire::value::{Seat, View};
use plesio_wire::{Incarnation, LogIndex, NodeKey};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// The tests of this file measure time: one at a time.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

struct Node {
    key: NodeKey,
    clock: LocalClock,
    address: SocketAddr,
    sideband: Sideband,
    line: MeshClock,
    events: Vec<(Instant, Event)>,
    notified: Arc<AtomicU64>,
}

impl Node {
    fn poll(&mut self) {
        while let Some(event) = self.sideband.poll_event() {
            if let Event::Clock(line) = event {
                self.line = line;
                if line.usable {
                    self.sideband.status(Status { state: state::LOCKED, ..Status::default() });
                }
            }
            self.events.push((Instant::now(), event));
        }
    }

    fn saw(&self, wanted: impl Fn(&Event) -> bool) -> Option<Instant> {
        self.events.iter().find(|(_, event)| wanted(event)).map(|(at, _)| *at)
    }
}

fn mesh(seams: &[ClockSeam]) -> Vec<Node> {
    let bound: Vec<Bound> =
        seams.iter().map(|_| Bound::bind("127.0.0.1:0".parse().unwrap()).unwrap()).collect();
    let mut view = View { period_us: 250_000, ..View::default() };
    let mut addresses = Vec::new();
    for (at, port) in bound.iter().enumerate() {
        let key = NodeKey(10 + at as u64);
        view.members.push(Seat { key, incarnation: Incarnation(1), admitted: LogIndex(0) }).unwrap();
        addresses.push((key, port.local_address()));
        for note in port.notes() {
            println!("note: {note}");
        }
    }
    let start = |(at, port): (usize, Bound)| {
        let key = NodeKey(10 + at as u64);
        let clock = LocalClock::new(seams[at]);
        let address = port.local_address();
        let notified = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&notified);
        let config = SidebandConfig { machine: MachineConfig::new(5, key, at as u64), clock, sealed: false };
        let sideband = port
            .start(config, move || {
                counter.fetch_add(1, Ordering::Relaxed);
            })
            .unwrap();
        sideband.view(view, addresses.clone());
        Node { key, clock, address, sideband, line: MeshClock::default(), events: Vec::new(), notified }
    };
    bound.into_iter().enumerate().map(start).collect()
}

fn run(nodes: &mut [Node], time: Duration) {
    let end = Instant::now() + time;
    while Instant::now() < end {
        nodes.iter_mut().for_each(Node::poll);
        sleep(Duration::from_millis(2));
    }
}

fn skewed() -> [ClockSeam; 3] {
    [
        ClockSeam::default(),
        ClockSeam { offset_ns: 5_000_000_000, rate_ppm: 200.0 },
        ClockSeam { offset_ns: -3_000_000_000, rate_ppm: -150.0 },
    ]
}

#[test]
fn three_agree_on_mesh_time_within_their_bounds_and_see_the_third_die() {
    let _alone = alone();
    let started = Instant::now();
    let mut nodes = mesh(&skewed());
    run(&mut nodes, Duration::from_secs(5));
    for node in &nodes {
        let locked = node.saw(|event| matches!(event, Event::Clock(line) if line.usable));
        let took = locked.expect("locked").duration_since(started);
        println!("node {}: locked after {} ms, {:?}", node.key.0, took.as_millis(), node.line);
        assert!(took < Duration::from_secs(5));
        assert!(node.notified.load(Ordering::Relaxed) > 0);
    }
    // One true moment, read on every clock: bracketed, so that being preempted widens the check and fails nothing.
    for _ in 0..20 {
        run(&mut nodes, Duration::from_millis(50));
        let before = nodes[0].line.at(nodes[0].clock.now()).0;
        let others: Vec<(i64, u32)> = nodes[1..]
            .iter()
            .map(|node| {
                let local = node.clock.now();
                (node.line.at(local).0, node.line.bound_at(local))
            })
            .collect();
        let after = nodes[0].line.at(nodes[0].clock.now()).0;
        for (mesh, eps_ns) in others {
            let eps_ns = i64::from(eps_ns);
            assert!(
                before - eps_ns <= mesh && mesh <= after + eps_ns,
                "{before}..{after}: {mesh}, eps {eps_ns}"
            );
        }
    }
    nodes[1].sideband.send(To::All, Message::Accept(Accept { term: 3, ..Accept::default() }));
    run(&mut nodes, Duration::from_millis(100));
    let heard = |event: &Event| {
        matches!(event, Event::Message { from: Some(NodeKey(11)), message: Message::Accept(_), .. })
    };
    assert!(nodes[0].saw(heard).is_some() && nodes[2].saw(heard).is_some());
    let counters = nodes[1].sideband.counters();
    println!("node 11: {counters:?}");
    assert_eq!(nodes[1].sideband.failure(), None);

    drop(nodes.pop());
    let killed = Instant::now();
    run(&mut nodes, Duration::from_millis(1_500));
    for node in &nodes {
        let suspected = node.saw(|event| matches!(event, Event::Suspect { key: NodeKey(12) }));
        let dead = node.saw(|event| matches!(event, Event::Dead { key: NodeKey(12) }));
        let (suspected, dead) = (suspected.expect("suspected") - killed, dead.expect("dead") - killed);
        println!("node {}: suspected {} ms, dead {} ms", node.key.0, suspected.as_millis(), dead.as_millis());
        assert!(suspected <= Duration::from_millis(600), "{suspected:?}");
        assert!(dead <= Duration::from_millis(1_200), "{dead:?}");
    }
}

#[test]
fn garbage_is_counted_and_nothing_else() {
    let _alone = alone();
    let mut nodes = mesh(&skewed());
    run(&mut nodes, Duration::from_secs(2));
    let stranger = UdpSocket::bind("127.0.0.1:0").unwrap();
    let mut dice = 0x2545_F491_4F6C_DD1Du64;
    for round in 0..2_000usize {
        let bytes: Vec<u8> = (0..round % 1_300)
            .map(|_| {
                dice ^= dice << 13;
                dice ^= dice >> 7;
                dice ^= dice << 17;
                dice as u8
            })
            .collect();
        stranger.send_to(&bytes, nodes[0].address).unwrap();
        if round % 50 == 0 {
            run(&mut nodes, Duration::from_millis(5));
        }
    }
    run(&mut nodes, Duration::from_millis(1_500));
    let counters = nodes[0].sideband.counters();
    println!("{counters:?}");
    assert!(counters.drops.total() >= 1_900, "{counters:?}");
    for node in &nodes {
        assert!(node.line.usable);
        let verdict = |event: &Event| {
            matches!(event, Event::Suspect { .. } | Event::Dead { .. } | Event::Message { .. })
        };
        assert!(node.saw(verdict).is_none());
    }
}
