//! A sealed mesh and those who are not admitted: each is refused under its own name, and nothing stops for it.

use plesio::{Identity, NodeConfig, What};
use plesio_session::{
    Config, Entropy, Limits, NodeSecret, OperatorSecret, PoolKey, Secret, Sessions, Suites, Ticket,
};
use plesio_tests::mesh::{
    ELEMENTS, MESH, Member, begin, begin_as, config, identity, join_as, settle_and_end, ticket, wait,
};
use plesio_udp::Requested;
use plesio_wire::handshake::Role;
use plesio_wire::{Incarnation, Instant as Moment};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// One mesh at a time: they count the threads of the process, and a flood is for one mesh.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn said(member: &Member, words: &str) -> bool {
    member.has(|what| matches!(what, What::Note(note) if note.contains(words)))
}

fn stranger(what: u8) -> Entropy {
    Entropy::new(&Secret::new([what; 32]))
}

/// Another operator's ticket, which that operator's nodes would take.
fn other_operator(index: u64) -> Identity {
    let operator = OperatorSecret::generate(&mut stranger(1));
    let known = identity(index);
    let ticket = Ticket::sign(&operator, MESH, known.node.public(), Role::Member, u32::MAX);
    Identity { ticket, operators: vec![operator.public()], ..known }
}

fn other_pool(index: u64) -> Identity {
    Identity { pool: PoolKey::generate(MESH, &mut stranger(2)), ..identity(index) }
}

#[test]
fn t6_who_is_not_admitted_is_refused_by_name_and_the_mesh_goes_on() {
    let _alone = alone();
    let members = begin(3, Requested::Auto);
    wait("versions", || members.iter().all(|member| member.version() >= 4));
    let seed = members[1].hello.seed();
    let told = |identity: Identity| NodeConfig {
        period_ns: 100_000_000,
        ..NodeConfig::new(identity, Incarnation(77), ELEMENTS)
    };
    let cases = [
        (told(other_operator(20)), seed, "not signed by an operator"),
        (told(other_pool(21)), seed, "of another pool"),
        // Its seed's key is somebody else's.
        (config(22, Requested::Auto), plesio::Seed { id: config(8, Requested::Auto).id, ..seed }, "mac1"),
    ];
    for (config, seed, words) in cases {
        let joiner = join_as(config, seed);
        let key = joiner.hello.id.key();
        wait(words, || said(&members[1], words));
        joiner.control.stop();
        assert!(!members.iter().any(|member| member.view().contains(&key)));
        assert!(!joiner.has(|what| matches!(what, What::View { .. } | What::Installed(_))));
    }
    // Another version of the protocol.
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a loopback socket");
    wait("the other version", || {
        socket.send_to(&[0x21; 264], seed.data).expect("loopback takes it");
        said(&members[1], "of another version")
    });
    // Who is admitted still gets in, and all of that cost nobody a seat.
    let mut members = members;
    let joiner = join_as(config(9, Requested::Auto), seed);
    let key = joiner.hello.id.key();
    members.push(joiner);
    wait("the view with it", || members.iter().all(|member| member.view().contains(&key)));
    assert!(members.iter().all(|member| member.view().len() == 4));
    settle_and_end(members);
}

#[test]
fn t9_a_ticket_ends_with_its_last_view() {
    let _alone = alone();
    let mut members = begin(3, Requested::Auto);
    wait("versions", || members.iter().all(|member| member.version() >= 4));
    let dead = members.pop().expect("there are three");
    dead.control.stop();
    wait("a view without it", || members.iter().all(|member| member.view().len() == 2));
    // The tests' operator signs for views up to the first only.
    let known = identity(30);
    let expired =
        NodeConfig::new(Identity { ticket: ticket(&known.node, 0), ..known }, Incarnation(78), ELEMENTS);
    let joiner = join_as(NodeConfig { period_ns: 100_000_000, ..expired }, members[0].hello.seed());
    wait("the refusal", || said(&members[0], "the ticket has ended"));
    joiner.control.stop();
    assert!(members.iter().all(|member| member.view().len() == 2));
    settle_and_end(members);
}

/// A view comes into force for which a member's ticket is not good: whoever was shown it hears that member no more.
#[test]
fn t10_a_member_whose_ticket_ends_is_shut_out_and_the_others_go_on() {
    let _alone = alone();
    // The lowest key asks all others for their sessions, so all of them have seen its ticket.
    let lowest = (0..4).min_by_key(|index| identity(*index).node.public().x25519).expect("four of them");
    let told = |index| {
        let known = identity(index);
        let not_after_view = if index == lowest { 0 } else { u32::MAX };
        let shown = Identity { ticket: ticket(&known.node, not_after_view), ..known };
        NodeConfig { period_ns: 100_000_000, ..NodeConfig::new(shown, Incarnation(1_000 + index), ELEMENTS) }
    };
    let mut members = begin_as(4, told);
    wait("versions", || members.iter().all(|member| member.version() >= 4));
    let ended = members.remove(lowest as usize);
    let dead = members.pop().expect("there are three left");
    let gone = [ended.hello.id.key(), dead.hello.id.key()];
    dead.control.stop();
    wait("a view without either", || {
        members.iter().all(|member| !member.view().iter().any(|key| gone.contains(key)))
    });
    let version = members[0].version();
    wait("versions of the two", || members.iter().all(|member| member.version() >= version + 4));
    // What it still sends under its old keys opens nowhere; asking anew, it is told why.
    ended.control.stop();
    let again = join_as(told(lowest), members[0].hello.seed());
    wait("the refusal", || said(&members[0], "the ticket has ended"));
    again.control.stop();
    assert!(members.iter().all(|member| member.view().len() == 2));
    settle_and_end(members);
}

/// An outsider that holds the pool's key and a ticket of nobody's: its INITs cost the most that a stranger's can.
fn outsider(to: SocketAddr, member: &Member) -> Vec<u8> {
    let identity = other_operator(40);
    let config = Config {
        node: NodeSecret::generate(&mut stranger(9)),
        pool: identity.pool,
        ticket: identity.ticket,
        operators: identity.operators,
        incarnation: Incarnation(5),
        mtu: 1500,
        suites: Suites::available(),
        peers_max: 2,
        limits: Limits::default(),
        seed: identity.seed,
    };
    let mut sessions = Sessions::new(Moment(0), config);
    let whom = plesio_session::NodePublic { x25519: member.hello.id.0, ed25519: [0; 32] };
    sessions.handle_connect(Moment(0), whom, to).expect("room for one");
    sessions.poll_transmit().expect("an INIT").as_bytes().to_vec()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has VmRSS");
    line.trim().trim_end_matches("kB").trim().parse().expect("VmRSS is a number of kB")
}

/// What a flood came to.
#[derive(Default)]
struct Flooded {
    inits: u64,
    sent_bytes: u64,
    replies_bytes: u64,
    seconds: f64,
}

/// Sends bad INITs while `on`, in bursts of [`FLOOD_BURST`], as many as are due and the machine gets out; until `over`.
fn flood(good: &[u8], to: SocketAddr, on: &AtomicBool, over: &AtomicBool) -> Flooded {
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a loopback socket");
    socket.set_nonblocking(true).expect("it can be");
    let mut flooded = Flooded::default();
    let (mut buffer, mut last) = ([0; 2_048], Instant::now());
    while !over.load(Ordering::Relaxed) {
        let elapsed_s = last.elapsed().as_secs_f64();
        last = Instant::now();
        if on.load(Ordering::Relaxed) {
            flooded.seconds += elapsed_s;
            let due = (flooded.seconds * FLOOD_PER_SECOND) as u64;
            for _ in 0..due.saturating_sub(flooded.inits).min(FLOOD_BURST) {
                flooded.inits += 1;
                let mut bad = good.to_vec();
                // One in fifty has a fitting mac1; the others are wrong in every byte in turn.
                let at = flooded.inits as usize;
                if !at.is_multiple_of(50) {
                    bad[at % good.len()] ^= 1 << (at % 8);
                }
                flooded.sent_bytes += socket.send_to(&bad, to).map_or(0, |len_bytes| len_bytes as u64);
            }
        }
        while let Ok((len_bytes, _)) = socket.recv_from(&mut buffer) {
            assert!(len_bytes <= good.len(), "a reply larger than what was sent");
            flooded.replies_bytes += len_bytes as u64;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    flooded
}

/// Time, versions of the flooded member, and payload that all members received.
#[derive(Clone, Copy, Default)]
struct Traffic {
    seconds: f64,
    versions: u64,
    bytes: u64,
}

impl Traffic {
    /// At least a second of the mesh's life, and at least one version of it.
    fn add_slice(&mut self, members: &[Member]) {
        let received = |what: &What| match what {
            What::Progress(progress) => Some(progress.counters.data_received_bytes),
            _ => None,
        };
        let bytes = || members.iter().filter_map(|member| member.newest(received)).sum::<u64>();
        let (begun, version, before) = (Instant::now(), members[1].version(), bytes());
        wait("a version in this second", || {
            begun.elapsed() >= Duration::from_secs(1) && members[1].version() > version
        });
        self.seconds += begun.elapsed().as_secs_f64();
        self.versions += members[1].version() - version;
        self.bytes += bytes() - before;
    }

    fn bytes_per_s(&self) -> f64 {
        self.bytes as f64 / self.seconds
    }
}

const FLOOD_PER_SECOND: f64 = 50_000.0;
const FLOOD_BURST: u64 = 500;

/// 50,000 bad INITs a second, as far as this machine gets them out, for ten seconds of twenty, while the mesh works. Who
/// floods has the same cores as who is flooded, so what the traffic lost is said and not judged.
#[test]
fn t2_a_flood_of_handshakes_stops_nothing_and_gets_nothing() {
    const SLICES: usize = 10;
    const GROWTH_KIB_MAX: u64 = 2 << 10;
    let _alone = alone();
    let mut members = begin(3, Requested::Auto);
    wait("versions", || members.iter().all(|member| member.version() >= 4));
    let to = members[1].hello.data;
    let good = outsider(to, &members[1]);
    let (on, over) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(false)));
    let (flows, ends) = (Arc::clone(&on), Arc::clone(&over));
    let thread = std::thread::spawn(move || flood(&good, to, &flows, &ends));
    let (mut with, mut without) = (Traffic::default(), Traffic::default());
    let mut half_kib = 0;
    for slice in 0..SLICES {
        // Memory that a flood and a mesh at work take at all they have taken by now.
        if slice == SLICES / 2 {
            half_kib = resident_kib();
        }
        on.store(false, Ordering::Relaxed);
        without.add_slice(&members);
        on.store(true, Ordering::Relaxed);
        with.add_slice(&members);
    }
    let growth_kib = resident_kib().saturating_sub(half_kib);
    // Who is admitted gets in through the member that is flooded, while it is.
    let joiner = join_as(config(9, Requested::Auto), members[1].hello.seed());
    let key = joiner.hello.id.key();
    members.push(joiner);
    wait("the view with it", || members.iter().all(|member| member.view().contains(&key)));
    over.store(true, Ordering::Relaxed);
    let flooded = thread.join().expect("the flood does not panic");
    println!(
        "{:.0} INITs a second, {} bytes of replies to {}; versions a second {:.2} with, {:.2} without; {:.0} and {:.0} \
         bytes a second: {:.1} % lost; {growth_kib} KiB more in the second half",
        flooded.inits as f64 / flooded.seconds,
        flooded.replies_bytes,
        flooded.sent_bytes,
        with.versions as f64 / with.seconds,
        without.versions as f64 / without.seconds,
        with.bytes_per_s(),
        without.bytes_per_s(),
        100.0 * (1.0 - with.bytes_per_s() / without.bytes_per_s()),
    );
    assert!(flooded.replies_bytes <= flooded.sent_bytes);
    assert!(flooded.inits >= 1_000 * SLICES as u64, "{} INITs are no flood", flooded.inits);
    assert!(growth_kib <= GROWTH_KIB_MAX, "{growth_kib} KiB more resident in the second half");
    // Refused by name where a name is due, and counted, each of them that arrived.
    for words in ["mac1", "of another pool", "not signed by an operator"] {
        assert!(said(&members[1], words), "{words}");
    }
    assert!(members.iter().all(|member| !member.has(|what| matches!(what, What::Failed(_)))));
    settle_and_end(members);
}
