//! All sessions of two nodes, with datagrams of strangers, altered ones of their own and time between them.
//!
//! Knows what a stranger may not reach: no reply larger than what it sent, no session with anybody else, and no
//! live session ended or held up. One world takes many inputs: making sessions costs far more than using them.

use super::{Script, Target, World};
use plesio_session::{
    Config, DataOpener, DataSealer, Entropy, Event, Limits, NodeSecret, OperatorSecret, PoolKey, Refusal,
    Secret, Sessions, SidebandKeys, Ticket,
};
use plesio_wire::data::{Flags, HEADER_BYTES, Header, Kind, MessageId, OWN_PACKET_FIRST, TAG_BYTES};
use plesio_wire::handshake::{self, INIT_BYTES, Role};
use plesio_wire::sideband::{self, Beat, Message};
use plesio_wire::{Incarnation, Instant};
use std::net::SocketAddr;

/// The machine of all sessions.
pub const TARGET: Target =
    Target { name: "session", begin: world, life: 200, seeds, bytes_max: 600, allocates: true };

/// Handshake datagrams that are kept, to be altered.
const KEPT_MAX: usize = 16;
/// Most time that one input lets pass; sessions outlive a world.
const PASS_NS: u64 = 1_000_000;
const PAYLOAD_BYTES: usize = 200;

/// A node, and the keys that its sockets hold.
struct Node {
    sessions: Sessions,
    sealer: Option<DataSealer>,
    /// The flag says that something was opened.
    openers: Vec<(DataOpener, bool)>,
    sideband: SidebandKeys,
}

struct Pair {
    now: Instant,
    nodes: [Node; 2],
    packet: u64,
    kept: Vec<Vec<u8>>,
}

fn world() -> World {
    let mut pair = Pair::new();
    Box::new(move |bytes| pair.take(bytes))
}

fn address(node: usize) -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 1 + node as u8], 7_000))
}

fn config(node: u8) -> Config {
    let operator = OperatorSecret::generate(&mut Entropy::new(&Secret::new([0xEE; 32])));
    let secret = NodeSecret::generate(&mut Entropy::new(&Secret::new([node + 1; 32])));
    Config {
        pool: PoolKey::generate(9, &mut Entropy::new(&Secret::new([0xDD; 32]))),
        ticket: Ticket::sign(&operator, 9, secret.public(), Role::Member, 100),
        operators: vec![operator.public()],
        incarnation: Incarnation(u64::from(node)),
        mtu: 1_500,
        // Every machine has to make the same inputs.
        suites: plesio_session::Suites::PORTABLE,
        peers_max: 4,
        limits: Limits::default(),
        seed: Secret::new([node ^ 0x55; 32]),
        node: secret,
    }
}

impl Node {
    fn new(node: u8) -> Self {
        Self {
            sessions: Sessions::new(Instant(0), config(node)),
            sealer: None,
            openers: Vec::new(),
            sideband: SidebandKeys::default(),
        }
    }

    /// Takes the keys that events bring; sessions with anybody but `other` must not come about.
    fn take_keys(&mut self, other: [u8; 32]) {
        while let Some(event) = self.sessions.poll_event() {
            match event {
                Event::Open { data, sideband, .. } => {
                    self.openers.push((data, false));
                    self.sideband.add_opener(sideband);
                    assert!(self.openers.len() <= 3, "current, previous, next");
                }
                Event::Seal { data, sideband, .. } => {
                    self.sealer = Some(data);
                    self.sideband.set_sealer(sideband);
                }
                Event::Close { local, .. } => {
                    self.openers.retain(|(opener, _)| opener.local() != local);
                    self.sideband.remove_opener(local);
                }
                Event::Establish { node, .. } => assert_eq!(node.x25519, other, "a session with a stranger"),
                Event::Rekey { .. } => {}
                other => panic!("the live session ended: {other:?}"),
            }
        }
    }

    /// As a data socket opens: by the receiver index; what is the session's own goes to the machine.
    fn open_data(&mut self, now: Instant, datagram: &[u8], payload: &mut [u8]) -> Result<(), Refusal> {
        let header = Header::parse_sealed(datagram).map_err(|_| Refusal::Malformed)?;
        let found = self.openers.iter_mut().find(|(opener, _)| opener.local() == header.receiver);
        let (opener, used) = found.ok_or(Refusal::UnknownReceiver)?;
        let header = opener.open_data(datagram, payload)?;
        if !std::mem::replace(used, true) {
            self.sessions.handle_confirmed(now, header.receiver);
        }
        if header.packet >= OWN_PACKET_FIRST {
            self.sessions.handle_own(now, header.receiver);
        }
        Ok(())
    }

    fn open_sideband(&mut self, now: Instant, datagram: &[u8], plain: &mut [u8]) -> Result<(), Refusal> {
        let opened = self.sideband.open(datagram, plain)?;
        if let Some(local) = opened.confirms {
            self.sessions.handle_confirmed(now, local);
        }
        Ok(())
    }
}

impl Pair {
    fn new() -> Self {
        let mut pair = Self { now: Instant(0), nodes: [0, 1].map(Node::new), packet: 0, kept: Vec::new() };
        let public = *pair.nodes[1].sessions.public();
        pair.nodes[0].sessions.handle_connect(Instant(0), public, address(1)).expect("a fresh node");
        pair.settle();
        pair.live();
        pair
    }

    fn take(&mut self, bytes: &[u8]) {
        let mut script = Script::new(bytes);
        let how = script.byte();
        let to = usize::from(how >> 7);
        match how % 6 {
            0 => self.strange(to, script.take(bytes.len())),
            1 => self.altered(to, &mut script),
            2 => self.dressed(to, &mut script),
            3 => self.data(to, &mut script),
            4 => self.side(to, &mut script),
            _ => {
                self.now = self.now.after(u64::from(script.short()) * PASS_NS / 0xFFFF);
                self.nodes.iter_mut().for_each(|node| node.sessions.handle_timeout(self.now));
            }
        }
        self.settle();
        self.live();
        self.settle();
    }

    /// Bytes from nowhere: refused, and answered with no more than they are.
    fn strange(&mut self, to: usize, datagram: &[u8]) {
        let from = SocketAddr::from(([192, 0, 2, 7], 9));
        let taken = self.nodes[to].sessions.handle_datagram(self.now, from, datagram);
        assert!(taken.is_err(), "{datagram:x?}");
        let mut said = 0;
        while let Some(transmit) = self.nodes[to].sessions.poll_transmit() {
            assert_eq!(transmit.to, from);
            said += transmit.as_bytes().len();
        }
        assert!(said <= datagram.len(), "{said} bytes answer {}", datagram.len());
    }

    /// A datagram of their own with some of its bytes changed.
    fn altered(&mut self, to: usize, script: &mut Script<'_>) {
        if self.kept.is_empty() {
            return;
        }
        let mut datagram = self.kept[usize::from(script.byte()) % self.kept.len()].clone();
        let genuine = datagram.clone();
        while !script.is_over() {
            let at = usize::from(script.short()) % datagram.len();
            datagram[at] ^= script.byte();
        }
        if datagram != genuine {
            self.strange(to, &datagram);
        }
    }

    /// Bytes with the kind and the length of a handshake message.
    fn dressed(&mut self, to: usize, script: &mut Script<'_>) {
        let kind = script.byte() % 3;
        let len_bytes = [INIT_BYTES, handshake::RESPONSE_BYTES, handshake::COOKIE_BYTES][usize::from(kind)];
        let mut datagram = script.take(len_bytes).to_vec();
        datagram.resize(len_bytes, 0);
        datagram[0] = 0x11 + kind;
        datagram[1] = 0;
        if let Some(own) = self.kept.first() {
            datagram[2..4].copy_from_slice(&own[2..4]);
        }
        self.strange(to, &datagram);
    }

    /// A sealed datagram with bits of the script in it.
    fn data(&mut self, to: usize, script: &mut Script<'_>) {
        let mut datagram = self.seal(1 - to, &[0xA5; 40]);
        let genuine = datagram.clone();
        for _ in 0..=script.byte() % 4 {
            let at = usize::from(script.short()) % datagram.len();
            datagram[at] ^= script.byte();
        }
        if script.byte() & 3 == 0 {
            datagram.truncate(usize::from(script.short()) % (datagram.len() + 1));
        }
        let mut payload = [0xFF; PAYLOAD_BYTES];
        let opened = self.nodes[to].open_data(self.now, &datagram, &mut payload);
        assert_eq!(opened.is_ok(), datagram == genuine, "{opened:?}");
        if opened.is_err() {
            let mut again = [0xFF; PAYLOAD_BYTES];
            let first = self.nodes[to].open_data(self.now, &genuine, &mut again);
            assert!(first.is_ok(), "an altered datagram took the number of the real one: {first:?}");
        }
        assert!(self.nodes[to].open_data(self.now, &genuine, &mut payload).is_err(), "opened twice");
    }

    /// The same on the sideband.
    fn side(&mut self, to: usize, script: &mut Script<'_>) {
        let header = sideband::Header { mesh: 9, view: 1, src: 0, dst: 1, sequence: 0 };
        let mut room = [0; sideband::DATAGRAM_BYTES_MAX];
        let plain = sideband::encode(&header, &Message::Beat(Beat::default()), &mut room);
        let mut datagram = vec![0; plain.len() + TAG_BYTES];
        let from = 1 - to;
        self.nodes[from].sideband.seal(plain, &mut datagram).expect("a session");
        let genuine = datagram.clone();
        for _ in 0..=script.byte() % 4 {
            let at = usize::from(script.short()) % datagram.len();
            datagram[at] ^= script.byte();
        }
        let mut opened = [0; sideband::DATAGRAM_BYTES_MAX];
        let altered = self.nodes[to].open_sideband(self.now, &datagram, &mut opened);
        assert_eq!(altered.is_ok(), datagram == genuine, "{altered:?}");
        let first = self.nodes[to].open_sideband(self.now, &genuine, &mut opened);
        assert_eq!(first.is_ok(), altered.is_err(), "once, and not kept out by the altered one: {first:?}");
    }

    fn seal(&mut self, from: usize, payload: &[u8]) -> Vec<u8> {
        self.packet += 1;
        let mut header = Header {
            kind: Kind::Data,
            flags: Flags::NONE,
            payload_bytes: 0,
            receiver: 0,
            packet: self.packet,
            message: MessageId::default(),
            chunk: 0,
            clock_us: 0,
            crc32: 0,
        };
        let mut datagram = vec![0; HEADER_BYTES + payload.len() + TAG_BYTES];
        let sealer = self.nodes[from].sealer.as_mut().expect("a session that can seal");
        let sealed = sealer.seal_data(&mut header, payload, &mut datagram);
        assert_eq!(sealed, Ok(datagram.len()));
        datagram
    }

    /// The live session carries what it is given, both ways.
    fn live(&mut self) {
        for from in 0..2 {
            let datagram = self.seal(from, b"alive");
            let mut payload = [0; PAYLOAD_BYTES];
            let opened = self.nodes[1 - from].open_data(self.now, &datagram, &mut payload);
            assert!(opened.is_ok() && payload.starts_with(b"alive"), "the live session is dead: {opened:?}");
        }
    }

    /// Carries what the two say to each other until they are silent; nobody else may hear anything.
    fn settle(&mut self) {
        let publics = [0, 1].map(|node| self.nodes[node].sessions.public().x25519);
        for _ in 0..20 {
            let mut silent = true;
            for from in 0..2 {
                while let Some(transmit) = self.nodes[from].sessions.poll_transmit() {
                    silent = false;
                    assert_eq!(transmit.to, address(1 - from), "a datagram to a stranger");
                    let (now, datagram, to) = (self.now, transmit.as_bytes(), &mut self.nodes[1 - from]);
                    to.take_keys(publics[from]);
                    if handshake::kind_of(datagram).is_some() {
                        if self.kept.len() < KEPT_MAX {
                            self.kept.push(datagram.to_vec());
                        }
                        let _told = to.sessions.handle_datagram(now, address(from), datagram);
                    } else {
                        let _told = to.open_data(now, datagram, &mut [0; PAYLOAD_BYTES]);
                    }
                    to.take_keys(publics[from]);
                }
                self.nodes[from].take_keys(publics[1 - from]);
            }
            if silent {
                return;
            }
        }
        panic!("two nodes talk for ever");
    }
}

fn seeds() -> Vec<Vec<u8>> {
    let stranger = Sessions::new(Instant(0), config(7));
    let mut asking = Sessions::new(Instant(0), config(8));
    asking.handle_connect(Instant(0), *stranger.public(), address(3)).expect("a fresh node");
    let init = asking.poll_transmit().expect("it asks at once");
    vec![
        [&[0][..], init.as_bytes()].concat(),
        vec![1, 0, 8, 0, 1],
        vec![0x81, 1, 40, 0, 0x80, 100, 0, 1],
        [&[2, 0][..], init.as_bytes()].concat(),
        [&[2, 1][..], &[0x5A; 124]].concat(),
        [&[2, 2][..], &[0xA5; 64]].concat(),
        vec![3, 1, 9, 0, 4, 40, 0, 1, 0, 50, 0],
        vec![0x83, 0, 0, 0, 0, 1],
        vec![4, 0, 3, 0, 1],
        vec![0x84, 2, 60, 0, 1, 70, 0, 2, 0, 0, 3],
        vec![5, 0xFF, 0x10],
    ]
}
