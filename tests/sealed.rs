//! A sealed mesh and those who are not admitted: each is refused under its own name, and nothing stops for it.

use plesio::{Identity, NodeConfig, What};
use plesio_session::{
    Config, Entropy, Limits, NodeSecret, OperatorSecret, PoolKey, Secret, Sessions, Ticket, aes_available,
};
use plesio_tests::mesh::{ELEMENTS, MESH, Member, begin, config, identity, join_as, settle_and_end, wait};
use plesio_udp::Requested;
use plesio_wire::handshake::Role;
use plesio_wire::{Incarnation, Instant as Moment};
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

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
fn who_is_not_admitted_is_refused_by_name_and_the_mesh_goes_on() {
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
fn a_ticket_ends_with_its_last_view() {
    let _alone = alone();
    let mut members = begin(3, Requested::Auto);
    wait("versions", || members.iter().all(|member| member.version() >= 4));
    let dead = members.pop().expect("there are three");
    dead.control.stop();
    wait("a view without it", || members.iter().all(|member| member.view().len() == 2));
    // The tests' operator signs for views up to the first only.
    let known = identity(30);
    let expired = NodeConfig::new(
        Identity { ticket: plesio_tests::mesh::ticket(&known.node, 0), ..known },
        Incarnation(78),
        ELEMENTS,
    );
    let joiner = join_as(NodeConfig { period_ns: 100_000_000, ..expired }, members[0].hello.seed());
    wait("the refusal", || said(&members[0], "the ticket has ended"));
    joiner.control.stop();
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
        aes: aes_available(),
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

/// 50,000 bad INITs a second, as far as this machine gets them out, while the mesh works.
#[test]
fn a_flood_of_handshakes_stops_nothing_and_gets_nothing() {
    const BURST: u64 = 500;
    const GROWTH_KIB_MAX: u64 = 8 << 10;
    let _alone = alone();
    let members = begin(3, Requested::Auto);
    wait("versions", || members.iter().all(|member| member.version() >= 4));
    let to = members[1].hello.data;
    let good = outsider(to, &members[1]);
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a loopback socket");
    socket.set_nonblocking(true).expect("it can be");
    let over = Arc::new(AtomicBool::new(false));
    let end = Arc::clone(&over);
    let flood = std::thread::spawn(move || {
        let (mut sent, mut replies, mut round) = (0_u64, 0_u64, 0_usize);
        let mut buffer = [0; 2_048];
        while !end.load(Ordering::Relaxed) {
            for _ in 0..BURST {
                round += 1;
                let mut bad = good.clone();
                // One in fifty has a fitting mac1; the others are wrong in every byte in turn.
                if !round.is_multiple_of(50) {
                    bad[round % good.len()] ^= 1 << (round % 8);
                }
                sent += socket.send_to(&bad, to).map_or(0, |len_bytes| len_bytes as u64);
            }
            while let Ok((len_bytes, _)) = socket.recv_from(&mut buffer) {
                assert!(len_bytes <= good.len(), "a reply larger than what was sent");
                replies += len_bytes as u64;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        (sent, replies)
    });
    // Memory that receiving takes at all is taken once.
    let version = members[1].version();
    wait("versions under the flood", || members.iter().all(|member| member.version() >= version + 4));
    let before_kib = resident_kib();
    let version = members[1].version();
    wait("more versions under the flood", || members.iter().all(|member| member.version() >= version + 20));
    let growth_kib = resident_kib().saturating_sub(before_kib);
    over.store(true, Ordering::Relaxed);
    let (sent, replies) = flood.join().expect("the flood does not panic");
    println!("{} INITs sent, {replies} bytes of replies, {growth_kib} KiB more", sent / 264);
    assert!(sent > 0 && replies <= sent, "{replies} bytes for {sent}");
    assert!(growth_kib <= GROWTH_KIB_MAX, "{growth_kib} KiB more resident");
    assert!(
        members.iter().all(|member| !member.has(|what| matches!(what, What::Excluded | What::Failed(_))))
    );
    settle_and_end(members);
}
