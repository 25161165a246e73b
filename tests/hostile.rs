//! Malformed datagrams, 10^5 to each port of a live node: they are counted, and that is all that comes of them.
//!
//! A stranger sends from a socket of its own. Where raw sockets are allowed, the same comes once more with a member's
//! address on it; there only what the checks of a plaintext link can tell from the member's own is sent.

use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, SockaddrIn, sendto, socket,
};
use plesio::engine::node_id;
use plesio::{Counters, NodeConfig, Protection, What};
use plesio_tests::mesh::{MESH, Member, begin_as, config, join_as, plaintext, settle_and_end, wait};
use plesio_tests::say_skipped;
use plesio_udp::Requested;
use plesio_wire::data::{self, Flags, Kind, MessageId};
use plesio_wire::sideband::{
    self, Accept, Address, Beat, Commit, Epoch, Have, Join, Last, Leave, Message, Nack, Order, OrderAck,
    Probe, ProbeReply, Propose, Query, Ready, Relay, Roster, Shard, ShortBeat, Snapshot,
};
use plesio_wire::value::{Value, View};
use plesio_wire::{Bounded, Incarnation, LogIndex, NodeId};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

const DATAGRAMS_PER_PORT: usize = 100_000;
const FIRST_PER_PORT: usize = 50_000;
const SPOOFED_PER_PORT: usize = 10_000;
/// Sent, then a pause: what a stranger floods is one node, not the processor under all three.
const BURST: usize = 50;
const PAUSE: Duration = Duration::from_millis(1);
/// Longest that the mesh may stand still. Its versions are 0.1 s apart; the machine may be busy with other tests.
const STANDSTILL_MAX: Duration = Duration::from_secs(2);
const GROWTH_KIB_MAX: u64 = 8 << 10;

/// xorshift64*: the flood is the same each time.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        bytes
            .chunks_mut(8)
            .for_each(|chunk| chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]));
    }

    /// Mostly small, as datagrams are, and up to the largest.
    fn len_bytes(&mut self) -> usize {
        match self.below(16) {
            0 => self.below(data::DATAGRAM_BYTES_MAX + 1),
            1 => data::DATAGRAM_BYTES_MAX,
            2 => 0,
            _ => self.below(1_500),
        }
    }
}

/// Makes bad datagrams, one after the other.
struct Forge {
    random: Random,
    buffer: Vec<u8>,
    /// Where answers to a JOIN would go.
    own: SocketAddr,
}

impl Forge {
    fn new(seed: u64, own: SocketAddr) -> Self {
        Self { random: Random(seed), buffer: vec![0; data::DATAGRAM_BYTES_MAX], own }
    }

    fn noise(&mut self) -> &[u8] {
        let len_bytes = self.random.len_bytes();
        self.random.fill(&mut self.buffer[..len_bytes]);
        &self.buffer[..len_bytes]
    }

    /// A header in order behind which the payload is anything, of a session that is not.
    fn data_header(&mut self) -> &[u8] {
        let kinds = [Kind::Data, Kind::Ack, Kind::Credit, Kind::Probe, Kind::Ping, Kind::Bye];
        let payload_bytes = match self.random.below(8) {
            0 => data::CHUNK_BYTES_LOOPBACK as usize,
            1 => self.random.below(data::CHUNK_BYTES_LOOPBACK as usize),
            _ => self.random.below(256),
        };
        let payload = &mut self.buffer[data::HEADER_BYTES..data::HEADER_BYTES + payload_bytes];
        self.random.fill(payload);
        let mut header = data::Header {
            kind: kinds[self.random.below(kinds.len())],
            flags: [Flags::NONE, Flags::ACK_REQ, Flags::RETX, Flags::LAST_OF_MSG][self.random.below(4)],
            payload_bytes: payload_bytes as u16,
            receiver: self.random.next() as u32,
            packet: self.random.next() >> self.random.below(64),
            message: MessageId {
                handle: self.random.below(64) as u16,
                sequence: self.random.below(64) as u16,
            },
            chunk: self.random.below(4) as u32,
            clock_us: self.random.next() as u32,
            crc32: 0,
        };
        header.protect(payload);
        self.buffer[..data::HEADER_BYTES].copy_from_slice(&header.to_bytes());
        let len_bytes = data::HEADER_BYTES + payload_bytes;
        // One in four is broken after its checksum was made.
        if self.random.below(4) == 0 {
            self.flip(len_bytes);
        }
        &self.buffer[..len_bytes]
    }

    /// A message in order, bits of its body turned; with `checked` the checksum is right again afterwards, else it never is.
    fn message(&mut self, checked: bool) -> &[u8] {
        let mut bytes = [0; sideband::DATAGRAM_BYTES_MAX];
        let header = sideband::Header {
            mesh: if self.random.below(16) == 0 { self.random.next() } else { MESH },
            view: self.random.below(3) as u32,
            src: self.random.below(4) as u16,
            dst: sideband::INDEX_NONE,
            sequence: self.random.next() as u32,
        };
        let message = self.any_message();
        let len_bytes = sideband::encode(&header, &message, &mut bytes).len();
        self.buffer[..len_bytes].copy_from_slice(&bytes[..len_bytes]);
        for _ in 0..self.random.below(8) {
            let at = sideband::HEADER_BYTES + self.random.below((len_bytes - sideband::HEADER_BYTES).max(1));
            self.buffer[at.min(len_bytes - 1)] ^= 1 << self.random.below(8);
        }
        self.buffer[CRC_AT..CRC_AT + 4].fill(0);
        let crc = crc32fast::hash(&self.buffer[..len_bytes]) ^ u32::from(!checked);
        self.buffer[CRC_AT..CRC_AT + 4].copy_from_slice(&crc.to_le_bytes());
        &self.buffer[..len_bytes]
    }

    fn any_message(&mut self) -> Message {
        match self.random.below(24) {
            0 => Message::Probe(Probe::default()),
            1 => Message::ProbeReply(ProbeReply::default()),
            2 => Message::Beat(Beat { eps_ns: 1, stride: 1, depth: 4, ..Beat::default() }),
            3 => Message::Ready(Ready::default()),
            4 => Message::Have(Have::default()),
            5 => Message::Propose(Propose::default()),
            6 => Message::Accept(Accept::default()),
            7 => Message::Commit(Commit::default()),
            8 => Message::Query(Query::default()),
            9 => Message::Last(Last::default()),
            10 => Message::Join(self.ghost()),
            11 => Message::Epoch(Epoch::default()),
            12 => Message::Leave(Leave::default()),
            13 => Message::Nack(Nack::default()),
            14 => Message::ShortBeat(ShortBeat::default()),
            15 => Message::Shard(Shard::default()),
            16 => Message::Roster(Roster::default()),
            17 => Message::Decided { index: LogIndex(0), value: Value::View(View::default()) },
            18 => Message::Seal(Accept::default()),
            19 => Message::Halt(Order { sequence: 1, ..Order::default() }),
            20 => Message::Resume(Order { sequence: 2, ..Order::default() }),
            21 => Message::OrderAck(OrderAck::default()),
            22 => Message::Relay(Relay { datagram: Bounded::from_slice(&[0; 40]), ..Relay::default() }),
            _ => Message::Snapshot(Snapshot::default()),
        }
    }

    /// A node that does not exist asks to be let in, and names a data address where nobody may be sent to.
    fn ghost(&mut self) -> Join {
        let id = node_id(&self.random.next().to_le_bytes());
        let mut data = [0; 6];
        self.random.fill(&mut data);
        let ip = [data[0], data[1], data[2], data[3]];
        Join {
            id: NodeId(id.0),
            incarnation: Incarnation(self.random.next()),
            model: config(0, Requested::Auto).common().digest(),
            sideband: Address(self.own),
            data: Address(SocketAddr::from((ip, u16::from_le_bytes([data[4], data[5]])))),
            ..Join::default()
        }
    }

    fn flip(&mut self, len_bytes: usize) {
        let at = self.random.below(len_bytes);
        self.buffer[at] ^= 1 << self.random.below(8);
    }

    fn data(&mut self) -> &[u8] {
        if self.random.below(2) == 0 { self.noise() } else { self.data_header() }
    }

    fn sideband(&mut self) -> &[u8] {
        if self.random.below(2) == 0 { self.noise() } else { self.message(true) }
    }
}

/// `n` to each port; how many of them the kernel took.
fn flood(n: usize, forge: &mut Forge, mut send: impl FnMut(bool, &[u8]) -> bool) -> [u64; 2] {
    let mut taken = [0; 2];
    for index in 0..n {
        taken[0] += u64::from(send(false, forge.data()));
        taken[1] += u64::from(send(true, forge.sideband()));
        if index % BURST == 0 {
            std::thread::sleep(PAUSE);
        }
    }
    taken
}

/// From a socket of its own.
fn flood_as_stranger(n: usize, forge: &mut Forge, socket: &UdpSocket, victim: &Member) -> [u64; 2] {
    let (data, sideband) = (victim.hello.data, victim.hello.sideband);
    flood(n, forge, |aside, bytes| socket.send_to(bytes, if aside { sideband } else { data }).is_ok())
}

/// With the addresses of `member` on them. On the sideband nothing whose checksum is right: in plaintext that would
/// be the member's word.
fn flood_as_member(n: usize, forge: &mut Forge, raw: &OwnedFd, member: &Member, victim: &Member) -> [u64; 2] {
    let mut taken = [0; 2];
    for index in 0..n {
        let packet = packet(member.hello.data, victim.hello.data, forge.data());
        taken[0] += u64::from(send_raw(raw, &packet, victim.hello.data));
        let wrong = if index % 2 == 0 { forge.noise() } else { forge.message(false) };
        let packet = self::packet(member.hello.sideband, victim.hello.sideband, wrong);
        taken[1] += u64::from(send_raw(raw, &packet, victim.hello.sideband));
        if index % BURST == 0 {
            std::thread::sleep(PAUSE);
        }
    }
    taken
}

fn send_raw(raw: &OwnedFd, packet: &[u8], to: SocketAddr) -> bool {
    let SocketAddr::V4(to) = to else { panic!("the nodes are on 127.0.0.1") };
    sendto(raw.as_raw_fd(), packet, &SockaddrIn::from(to), MsgFlags::empty()).is_ok()
}

/// An IPv4 and a UDP header and the payload; the kernel fills in what is zero.
fn packet(from: SocketAddr, to: SocketAddr, payload: &[u8]) -> Vec<u8> {
    let (SocketAddr::V4(from), SocketAddr::V4(to)) = (from, to) else { panic!("the nodes are on 127.0.0.1") };
    let (udp_bytes, ip_bytes) = (payload.len() as u16 + 8, payload.len() as u16 + 28);
    let mut packet = vec![0x45, 0];
    packet.extend(ip_bytes.to_be_bytes());
    packet.extend([0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(from.ip().octets());
    packet.extend(to.ip().octets());
    for half in [from.port(), to.port(), udp_bytes, 0] {
        packet.extend(half.to_be_bytes());
    }
    packet.extend(payload);
    packet
}

fn counters(member: &Member) -> Counters {
    let newest = |what: &What| match what {
        What::Progress(progress) => Some(progress.counters),
        _ => None,
    };
    member.newest(newest).unwrap_or_default()
}

fn resident_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("/proc is mounted");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("every process has VmRSS");
    line.trim().trim_end_matches("kB").trim().parse().expect("VmRSS is a number of kB")
}

/// The longest that `member` held no new version.
fn standstill(member: &Member) -> Duration {
    let versions: Vec<i64> = member
        .events()
        .iter()
        .filter(|event| matches!(event.what, What::Version { .. }))
        .map(|event| event.raw_ns)
        .collect();
    let longest = versions.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(0);
    Duration::from_nanos(longest as u64)
}

fn nothing_came_of_it(members: &[Member]) {
    for member in members {
        let changed = |what: &What| match what {
            What::View { members: seated, .. } => seated.len() != members.len(),
            What::Excluded | What::Dead(_) | What::Diverged { .. } | What::Failed(_) => true,
            _ => false,
        };
        assert!(
            !member.has(changed),
            "{:?}",
            member.events().iter().filter(|e| changed(&e.what)).collect::<Vec<_>>()
        );
    }
}

fn under_fire(backend: Requested, config: fn(u64, Requested) -> NodeConfig) {
    let mut members = begin_as(3, |index| config(index, backend));
    wait("versions", || members.iter().all(|member| member.version() >= 4));
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a loopback socket");
    let mut forge = Forge::new(0x9E37_79B9_7F4A_7C15, socket.local_addr().expect("it is bound"));

    let (before, begun) = (counters(&members[1]), Instant::now());
    // Memory that receiving takes at all is taken once.
    let first = flood_as_stranger(FIRST_PER_PORT, &mut forge, &socket, &members[1]);
    let resident_before_kib = resident_kib();
    let rest = flood_as_stranger(DATAGRAMS_PER_PORT - FIRST_PER_PORT, &mut forge, &socket, &members[1]);
    let mut sent = [first[0] + rest[0], first[1] + rest[1]];
    match socket_raw() {
        Ok(raw) => {
            let more = flood_as_member(SPOOFED_PER_PORT, &mut forge, &raw, &members[0], &members[1]);
            sent = [sent[0] + more[0], sent[1] + more[1]];
        }
        Err(error) => {
            say_skipped(&format!("datagrams with a member's address need a raw socket: {error}"));
        }
    }
    let took = begun.elapsed();
    let version = members[1].version();
    wait("versions after it", || {
        nothing_came_of_it(&members);
        members.iter().all(|member| member.version() >= version + 4)
    });
    let growth_kib = resident_kib().saturating_sub(resident_before_kib);
    let longest = members.iter().map(standstill).max().expect("there are three");
    let after = counters(&members[1]);
    let (data, aside) =
        (after.data_dropped - before.data_dropped, after.sideband_dropped - before.sideband_dropped);
    println!(
        "{sent:?} sent in {took:?}; {data} and {aside} counted; standstill {longest:?}; {growth_kib} KiB more"
    );

    nothing_came_of_it(&members);
    assert!(longest <= STANDSTILL_MAX, "no version for {longest:?}");
    assert!(growth_kib <= GROWTH_KIB_MAX, "{growth_kib} KiB more resident");
    assert!(sent.iter().all(|sent| *sent >= DATAGRAMS_PER_PORT as u64 * 9 / 10), "{sent:?}");
    // The data socket counts what the kernel could not queue too; the sideband only what it has read.
    assert!(data >= sent[0] * 9 / 10, "{data} of {} counted", sent[0]);
    assert!(aside >= sent[1] / 10, "{aside} of {} counted", sent[1]);

    // Once, a stranger's JOIN with an address that cannot be sent to ended the node. In plaintext it is heard, and said;
    // a sealed mesh hears nobody who was not admitted.
    let heard = members[1].has(|what| matches!(what, What::Note(note) if note.contains("no data link")));
    assert_eq!(heard, matches!(config(0, backend).protection, Protection::Plaintext));

    // Nor is anything used up: a node that does exist is let in.
    let joiner = join_as(config(9, backend), members[1].hello.seed());
    let key = joiner.hello.id.key();
    members.push(joiner);
    wait("the view with it", || members.iter().all(|member| member.view().contains(&key)));
    settle_and_end(members);
}

fn socket_raw() -> nix::Result<OwnedFd> {
    socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Raw)
}

/// One after the other: they are told apart by the process's memory and threads.
#[test]
fn t1_c9_18_a_flood_of_malformed_datagrams_is_counted_and_nothing_else() {
    under_fire(Requested::Auto, config);
    under_fire(Requested::Mio, config);
    under_fire(Requested::Auto, plaintext);
}

const CRC_AT: usize = 28;
