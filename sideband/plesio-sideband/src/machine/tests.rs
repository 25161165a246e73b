//! Meshes of machines on virtual time, and what the gate does with everything that should not come in.

mod orders;
mod relay;
mod strangers;

use super::*;
use plesio_phase::ClockState;
use plesio_wire::sideband::{Accept, Join, Roster, state};
use plesio_wire::value::Seat;
use plesio_wire::{LogIndex, MeshTime, NodeId, Version};

const MS: u64 = 1_000_000;
const SECOND: u64 = 1_000 * MS;
const MESH: u64 = 0x7_1E51_0000;

fn address(node: u64) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 40_000 + node as u16))
}

fn view(number: u32, members: impl Iterator<Item = u64>) -> View {
    let mut view = View { number, period_us: 250_000, ..View::default() };
    for key in members {
        let seat = Seat { key: NodeKey(key), incarnation: Incarnation(key + 100), admitted: LogIndex(0) };
        view.members.push(seat).unwrap();
    }
    view
}

fn addresses(view: &View) -> Vec<(NodeKey, SocketAddr)> {
    view.members.iter().map(|seat| (seat.key, address(seat.key.0))).collect()
}

struct Net {
    machines: Vec<Machine>,
    offsets: Vec<u64>,
    stopped: Vec<bool>,
    wire: VecDeque<(u64, SocketAddr, SocketAddr, Vec<u8>)>, // due, from, to, bytes
    now: u64,
    events: Vec<(u64, usize, Event)>,
    dice: u64,
    loss_percent: u64,
    duplicate: bool,
    /// They tell nobody of orders.
    liars: Vec<usize>,
    /// Nothing gets from the first to the second.
    cut: Vec<(usize, usize)>,
}

impl Net {
    /// `count` machines, all members of view 0 but the last `joiners`.
    fn new(count: u64, joiners: u64) -> Self {
        let view = view(0, 0..count - joiners);
        let mut net = Self {
            machines: Vec::new(),
            offsets: Vec::new(),
            stopped: vec![false; count as usize],
            wire: VecDeque::new(),
            now: 0,
            events: Vec::new(),
            dice: 88_172_645_463_325_252,
            loss_percent: 0,
            duplicate: false,
            liars: Vec::new(),
            cut: Vec::new(),
        };
        for key in 0..count {
            let offset = SECOND * (1 + key * 3);
            let config = MachineConfig::new(MESH, NodeKey(key), 7);
            let mut machine = Machine::new(Instant(offset), config);
            if key < count - joiners {
                machine.handle_view(Instant(offset), &view, &addresses(&view));
            }
            net.machines.push(machine);
            net.offsets.push(offset);
        }
        net
    }

    fn at(&self, node: usize) -> Instant {
        Instant(self.now + self.offsets[node])
    }

    fn roll(&mut self) -> u64 {
        self.dice ^= self.dice << 13;
        self.dice ^= self.dice >> 7;
        self.dice ^= self.dice << 17;
        self.dice >> 11
    }

    fn run(&mut self, until: u64) {
        while self.now < until {
            self.now += MS / 4;
            while self.wire.front().is_some_and(|(due, ..)| *due <= self.now) {
                let (_, from, to, bytes) = self.wire.pop_front().unwrap();
                let node = usize::from(to.port() - 40_000);
                if node < self.machines.len() && !self.stopped[node] {
                    let now = self.at(node);
                    self.machines[node].handle_datagram(now, from, &bytes, None);
                    if self.duplicate {
                        self.machines[node].handle_datagram(now, from, &bytes, None);
                    }
                    while let Some(Carried { by, datagram }) = self.machines[node].poll_carried() {
                        self.machines[node].handle_carried(now, by, &datagram, false);
                    }
                    self.pump(node);
                }
            }
            for node in 0..self.machines.len() {
                if !self.stopped[node] && self.at(node) >= self.machines[node].poll_timeout() {
                    let now = self.at(node);
                    self.machines[node].handle_timeout(now);
                    self.pump(node);
                }
            }
        }
    }

    /// What a node does after every call: LOCKED as soon as the clock is, and everything out.
    fn pump(&mut self, node: usize) {
        let now = self.at(node);
        while let Some(event) = self.machines[node].poll_event() {
            if let Event::Clock(line) = event
                && line.state == ClockState::Locked
            {
                let status =
                    Status { state: state::LOCKED, depth: 4, version: 9, index: 17, ..Status::default() };
                self.machines[node].handle_status(now, status);
            }
            self.events.push((self.now, node, event));
        }
        while let Some(given) = self.machines[node].poll_store() {
            self.machines[node].handle_stored(now, given.order.sequence, true);
        }
        while let Some(mut transmit) = self.machines[node].poll_transmit(now) {
            if let Some(through) = transmit.through {
                let (to, inner) = (transmit.to, transmit.bytes.to_vec());
                transmit = self.machines[node].enclose(to, through, &inner);
            }
            let (to, bytes) = (transmit.to, transmit.bytes.to_vec());
            if self.liars.contains(&node) && matches!(bytes[3], 16 | 17) {
                continue;
            }
            let due = self.now + MS / 2;
            let receiver = usize::from(to.port().saturating_sub(40_000));
            if self.cut.contains(&(node, receiver)) {
                continue;
            }
            if self.roll() % 100 >= self.loss_percent {
                self.wire.push_back((due, address(node as u64), to, bytes));
            }
        }
    }

    fn send(&mut self, node: usize, to: To, message: Message) {
        let now = self.at(node);
        self.machines[node].handle_send(now, to, message).unwrap();
        self.pump(node);
    }

    fn received(&self, node: usize) -> Vec<(Option<NodeKey>, Message)> {
        let of_node = self.events.iter().filter(|(_, at, _)| *at == node);
        of_node
            .filter_map(|(_, _, event)| match event {
                Event::Message { from, message, .. } => Some((*from, *message)),
                _ => None,
            })
            .collect()
    }
}

fn accept(term: u32) -> Message {
    Message::Accept(Accept { term, ..Accept::default() })
}

#[test]
fn three_machines_agree_on_mesh_time_and_on_who_has_died() {
    let mut net = Net::new(3, 0);
    net.run(10 * SECOND);
    for node in 0..3 {
        let line = net.machines[node].mesh_clock();
        assert!(line.usable && line.state == ClockState::Locked, "node {node}: {line:?}");
        let error = line.at(net.at(node)).0 - net.machines[0].mesh_clock().at(net.at(0)).0;
        assert!(error.unsigned_abs() <= u64::from(line.eps_ns), "node {node} is off by {error} ns");
    }
    let holds = net.events.iter().filter(|(_, at, event)| {
        *at == 2 && matches!(event, Event::Hold { from: NodeKey(1), version: Version(9), index, .. } if index.is_none_or(|index| index == LogIndex(17)))
    });
    assert!(holds.count() > 50, "HOLD rides in every beat");
    net.events.clear();
    net.stopped[2] = true;
    net.run(11_200 * MS);
    for node in 0..2 {
        let dead = (net.events.iter())
            .find(|(_, at, event)| (*at, *event) == (node, Event::Dead { key: NodeKey(2) }));
        assert!(dead.expect("dead within 1.2 s").0 >= 10 * SECOND + 900 * MS);
        assert_eq!(net.machines[node].dead(), MemberSet(0b100));
        assert!(net.machines[node].has_quorum());
    }
    let liveness = net.events.iter().rev().find_map(|(_, _, event)| match event {
        Event::Liveness { suspects, dead, quorum, view } => Some((*suspects, *dead, *quorum, *view)),
        _ => None,
    });
    assert_eq!(liveness, Some((MemberSet(0b100), MemberSet(0b100), true, 0)));
}

#[test]
fn a_reference_that_dies_before_anybody_has_locked_leaves_a_mesh_that_founds_its_clock_anew() {
    let mut net = Net::new(3, 0);
    net.run(300 * MS);
    assert!(!net.machines[1].mesh_clock().usable && !net.machines[2].mesh_clock().usable);
    net.stopped[0] = true;
    net.run(2_500 * MS);
    let line = net.machines[1].mesh_clock();
    assert!(line.usable && !net.machines[2].mesh_clock().usable);
    let behind_ns = 2_500 * MS as i64 - line.at(net.at(1)).0;
    assert!((0..2 * MS as i64).contains(&behind_ns), "it goes on where the first one was: {behind_ns} ns");
    // What the members then do: a view without the dead, decided at frame 40.
    let new = View { origin: plesio_wire::Frame(40), ..view(1, 1..3) };
    for node in 1..3 {
        let now = net.at(node);
        net.machines[node].handle_view(now, &new, &addresses(&new));
    }
    net.run(8 * SECOND);
    let (first, second) = (net.machines[1].mesh_clock(), net.machines[2].mesh_clock());
    assert_eq!((first.state, second.state), (ClockState::Locked, ClockState::Locked));
    let apart_ns = second.at(net.at(2)).0 - first.at(net.at(1)).0;
    assert!(apart_ns.unsigned_abs() <= u64::from(second.eps_ns), "{apart_ns} ns");
    let reference = |node| {
        net.events.iter().rev().find_map(|(_, at, event)| match event {
            Event::Reference { key } if *at == node => Some(*key),
            _ => None,
        })
    };
    assert_eq!((reference(1), reference(2)), (Some(Some(NodeKey(1))), Some(Some(NodeKey(1)))));
}

#[test]
fn the_clock_that_is_founded_starts_where_the_log_has_been() {
    let mut net = Net::new(3, 0);
    let late = View { origin: plesio_wire::Frame(40), ..view(1, 0..3) };
    net.stopped[0] = true;
    for node in 1..3 {
        let now = net.at(node);
        net.machines[node].handle_view(now, &late, &addresses(&late));
    }
    net.run(5 * SECOND);
    let line = net.machines[1].mesh_clock();
    assert!(line.usable && line.base_mesh >= MeshTime(10 * SECOND as i64), "{line:?}");
}

#[test]
fn one_of_three_founds_no_clock() {
    let mut net = Net::new(3, 0);
    net.run(300 * MS);
    net.stopped[0] = true;
    net.stopped[2] = true;
    net.run(20 * SECOND);
    assert!(!net.machines[1].has_quorum() && !net.machines[1].mesh_clock().usable);
}

#[test]
fn messages_reach_whom_they_are_for_once() {
    let mut net = Net::new(4, 0);
    net.duplicate = true;
    net.run(SECOND);
    net.send(1, To::All, accept(1));
    net.send(1, To::Member(3), accept(2));
    net.send(1, To::Node(NodeKey(0)), accept(3));
    net.run(2 * SECOND);
    let from = Some(NodeKey(1));
    assert_eq!(net.received(0), [(from, accept(1)), (from, accept(3))]);
    assert_eq!(net.received(1), []);
    assert_eq!(net.received(2), [(from, accept(1))]);
    assert_eq!(net.received(3), [(from, accept(1)), (from, accept(2))]);
    assert!(net.machines[0].drops().replay > 0, "every datagram came twice");
    let now = net.at(1);
    assert_eq!(net.machines[1].handle_send(now, To::Member(7), accept(0)), Err(SendError::UnknownNode));
    assert_eq!(
        net.machines[1].handle_send(now, To::Node(NodeKey(7)), accept(0)),
        Err(SendError::UnknownNode)
    );
    while net.machines[1].handle_send(now, To::All, accept(0)).is_ok() {}
    assert_eq!(net.machines[1].handle_send(now, To::All, accept(0)), Err(SendError::QueueFull));
}

#[test]
fn a_joiner_is_heard_watches_and_becomes_a_member() {
    let mut net = Net::new(4, 1);
    net.run(2 * SECOND);
    // The node before it has anything: JOIN to one member, ROSTER back.
    let join = Join { id: id_of(3), incarnation: Incarnation(103), ..Join::default() };
    net.send(3, To::Address(address(1)), Message::Join(join));
    net.run(2_010 * MS);
    assert_eq!(net.received(1), [(None, Message::Join(join))]);
    net.send(1, To::Address(address(3)), Message::Roster(Roster::default()));
    net.run(2_020 * MS);
    assert_eq!(net.received(3), [(None, Message::Roster(Roster::default()))]);
    // It is told the view, and the members register it.
    let old = view(0, 0..3);
    for node in 0..3 {
        let now = net.at(node);
        net.machines[node].handle_observer(now, NodeKey(3), Some((Incarnation(103), address(3))));
    }
    let now = net.at(3);
    net.machines[3].handle_view(now, &old, &addresses(&old));
    net.send(2, To::Everyone, accept(5));
    net.send(2, To::All, accept(6));
    net.run(6 * SECOND);
    assert_eq!(net.received(3)[1..], [(Some(NodeKey(2)), accept(5))], "an observer is not `All`");
    assert!(net.machines[3].mesh_clock().usable, "an observer has the clock before it is a member");
    assert_eq!(net.machines[3].mesh_clock().state, ClockState::Locked);
    let new = view(1, 0..4);
    for node in 0..4 {
        let now = net.at(node);
        net.machines[node].handle_view(now, &new, &addresses(&new));
        net.pump(node);
    }
    net.events.clear();
    net.run(12 * SECOND);
    net.send(3, To::All, accept(8));
    net.run(13 * SECOND);
    assert!((0..3).all(|node| net.received(node) == [(Some(NodeKey(3)), accept(8))]));
    let verdicts =
        net.events.iter().filter(|(_, _, event)| matches!(event, Event::Suspect { .. } | Event::Dead { .. }));
    assert_eq!(verdicts.count(), 0);
}

fn id_of(key: u64) -> NodeId {
    let mut id = [0; 32];
    id[..8].copy_from_slice(&key.to_le_bytes());
    NodeId(id)
}

#[test]
fn a_restarted_process_at_the_same_address_starts_a_new_sequence() {
    let mut net = Net::new(3, 0);
    net.run(3 * SECOND);
    let config = MachineConfig::new(MESH, NodeKey(2), 7);
    net.machines[2] = Machine::new(net.at(2), config);
    let join = Join { id: id_of(2), incarnation: Incarnation(999), ..Join::default() };
    net.send(2, To::Address(address(0)), Message::Join(join));
    net.run(3_010 * MS);
    assert_eq!(net.received(0), [(None, Message::Join(join))], "its address is that of its former life");
    // Excluded, then registered: its sequence starts at 0 again, far below the former one.
    let old = view(1, 0..2);
    for node in 0..2 {
        let now = net.at(node);
        net.machines[node].handle_view(now, &old, &addresses(&old));
        net.machines[node].handle_observer(now, NodeKey(2), Some((Incarnation(999), address(2))));
    }
    let now = net.at(2);
    net.machines[2].handle_view(now, &old, &addresses(&old));
    net.send(2, To::All, accept(4));
    net.run(4 * SECOND);
    assert_eq!(net.received(1), [(Some(NodeKey(2)), accept(4))]);
}

#[test]
fn a_removed_member_may_still_ask_and_is_no_longer_believed() {
    let mut net = Net::new(3, 0);
    net.run(SECOND);
    let new = view(1, 0..2);
    for node in 0..2 {
        let now = net.at(node);
        net.machines[node].handle_view(now, &new, &addresses(&new));
    }
    net.send(2, To::All, accept(1));
    net.send(0, To::Node(NodeKey(2)), accept(2));
    net.run(2 * SECOND);
    assert_eq!(net.received(1), [(Some(NodeKey(2)), accept(1))]);
    assert_eq!(net.received(2), [(Some(NodeKey(0)), accept(2))]);
    assert!(net.machines[0].drops().clock_exchange > 0, "its probes are not answered");
}

/// A datagram as node `src` of view `number` would send it.
fn datagram(src: u16, number: u32, sequence: u32, message: &Message) -> Vec<u8> {
    let header = Header { mesh: MESH, view: number, src, dst: INDEX_NONE, sequence };
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    encode(&header, message, &mut buffer).to_vec()
}

#[test]
fn c9_01_c9_03_c9_04_c9_06_c9_07_every_bad_datagram_is_counted_by_reason_and_changes_nothing() {
    let mut net = Net::new(3, 0);
    net.run(5 * SECOND);
    let machine = &mut net.machines[0];
    let now = Instant(net.now + net.offsets[0]);
    while machine.poll_event().is_some() {}
    let before = *machine.drops();
    let good = datagram(1, 0, 1 << 20, &accept(1));
    let feed = |machine: &mut Machine, from, bytes: &[u8]| machine.handle_datagram(now, from, bytes, None);
    let mut version = good.clone();
    version[2] = 9;
    let mut checksum = good.clone();
    checksum[40] ^= 1;
    let mut magic = good.clone();
    magic[0] ^= 1;
    // A flag that nobody knows, a type that nobody knows, a length that is not the datagram's: with a sum that fits.
    let altered = |at: usize, value: u8| {
        let mut bytes = good.clone();
        bytes[at] = value;
        bytes[28..32].fill(0);
        let sum = crc32fast::hash(&bytes);
        bytes[28..32].copy_from_slice(&sum.to_le_bytes());
        bytes
    };
    feed(machine, address(1), &altered(4, 4));
    feed(machine, address(1), &altered(3, 200));
    feed(machine, address(1), &altered(6, good.len() as u8 + 1));
    feed(machine, address(1), &good[..20]);
    feed(machine, address(1), &magic);
    feed(machine, address(1), &version);
    feed(machine, address(1), &checksum);
    feed(machine, address(1), &datagram(2, 0, 1 << 20, &accept(1))); // another's index
    feed(machine, address(1), &datagram(77, 0, 1 << 20, &accept(1))); // out of range
    feed(machine, address(9), &good); // a stranger
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    let foreign = Header { mesh: 1, src: 1, ..Header::default() };
    feed(machine, address(1), encode(&foreign, &accept(1), &mut buffer));
    assert_eq!(machine.poll_event(), None);
    feed(machine, address(1), &good);
    assert!(matches!(machine.poll_event(), Some(Event::Message { from: Some(NodeKey(1)), .. })));
    feed(machine, address(1), &good); // again
    feed(machine, address(1), &datagram(1, 0, (1 << 20) - 1_024, &accept(1))); // older than the window
    assert_eq!(machine.poll_event(), None);
    let drops = machine.drops();
    let counted = [
        drops.length - before.length,
        drops.magic - before.magic,
        drops.version - before.version,
        drops.checksum - before.checksum,
        drops.spoof - before.spoof,
        drops.stranger - before.stranger,
        drops.mesh - before.mesh,
        drops.replay - before.replay,
        drops.field - before.field,
        drops.kind - before.kind,
    ];
    assert_eq!(counted, [2, 1, 1, 1, 2, 1, 1, 2, 1, 1]);
    assert_eq!(drops.total() - before.total(), 13);
    // Nothing of it is answered, the unknown version apart.
    let answers = core::iter::from_fn(|| machine.poll_transmit(now).map(|out| out.bytes[3]));
    assert!(answers.filter(|kind| *kind == 14).count() <= 1, "NACK VERSION and no other");
}

#[test]
fn c9_02_t3_an_unknown_version_is_refused_once_a_second_and_never_with_more_than_was_sent() {
    let mut net = Net::new(2, 0);
    net.run(SECOND);
    let machine = &mut net.machines[0];
    let mut bytes = datagram(1, 0, 1 << 20, &accept(1));
    bytes[2] = 2;
    let mut answers = 0;
    for ms in 0..3_000u64 {
        let now = Instant(net.offsets[0] + SECOND + ms * MS);
        machine.handle_datagram(now, address(99), &bytes, None);
        machine.handle_datagram(now, address(98), &bytes[..47], None);
        while let Some(transmit) = machine.poll_transmit(now) {
            assert_ne!(transmit.to, address(98));
            answers += usize::from(transmit.to == address(99));
            assert!(transmit.to != address(99) || transmit.bytes.len() <= bytes.len());
        }
    }
    assert_eq!(answers, 3);
}

#[test]
fn c9_09_a_beat_that_contradicts_itself_is_a_sign_of_life_and_nothing_more() {
    let mut net = Net::new(2, 0);
    net.run(2 * SECOND);
    net.stopped[1] = true;
    let sound = Beat { eps_ns: 1, stride: 1, fill: 2, depth: 4, ..Beat::default() };
    let mut sequence = 1 << 20;
    let mut feed = |machine: &mut Machine, at: u64, beat: Beat| {
        sequence += 1;
        machine.handle_datagram(
            Instant(at),
            address(1),
            &datagram(1, 0, sequence, &Message::Beat(beat)),
            None,
        );
        core::iter::from_fn(|| machine.poll_event()).any(|event| matches!(event, Event::Beat { .. }))
    };
    let machine = &mut net.machines[0];
    let start = net.now + net.offsets[0];
    assert!(!feed(machine, start, Beat { eps_ns: 0, ..sound }));
    assert!(!feed(machine, start, Beat { stride: 0, ..sound }));
    assert!(!feed(machine, start, Beat { fill: 5, ..sound }));
    assert!(feed(machine, start, sound), "the phase stands still since it was 0 two seconds ago");
    assert!(feed(machine, start + SECOND, Beat { phase: 4 << 32, ..sound }), "a second is four frames");
    assert!(!feed(machine, start + SECOND, Beat { phase: 13 << 32, ..sound }));
    assert!(!feed(machine, start + SECOND, Beat { phase: i64::MIN, ..sound }));
    assert!(feed(machine, start + SECOND, Beat { phase: 13 << 32, ..sound }), "it stays where it is");
    assert_eq!(machine.drops().beat_fields, 5);
    assert!(machine.suspects().is_empty());
}

#[test]
fn f7_words_from_a_seat_are_signs_of_life_and_those_of_a_new_life_are_none() {
    for (src, number, lives) in [(1, 0, true), (INDEX_NONE, 0, false), (INDEX_NONE, 7, false), (1, 7, false)]
    {
        let mut net = Net::new(2, 0);
        net.run(2 * SECOND);
        net.stopped[1] = true;
        for word in 0..10 {
            net.run(2 * SECOND + u64::from(word) * 200 * MS);
            let now = net.at(0);
            let word = datagram(src, number, (1 << 20) + word, &accept(word));
            net.machines[0].handle_datagram(now, address(1), &word, None);
        }
        assert_eq!(net.machines[0].suspects().is_empty(), lives, "as {src} of view {number}");
    }
}

#[test]
fn the_budget_is_kept() {
    for (count, budget) in [(16, 32_000), (32, 64_000)] {
        let mut net = Net::new(count, 0);
        net.run(9 * SECOND); // the first 8 s probe faster
        let before: Vec<u64> = net.machines.iter().map(Machine::bytes_sent).collect();
        net.run(13 * SECOND);
        for (machine, before) in net.machines.iter().zip(before) {
            let rate = (machine.bytes_sent() - before) / 4;
            println!("N = {count}: {rate} B/s");
            assert!(rate < budget, "{rate} B/s of {budget} at N = {count}");
        }
    }
}

#[test]
fn twenty_percent_loss_excludes_nobody_and_the_clock_stays_locked() {
    let mut net = Net::new(5, 0);
    net.loss_percent = 20;
    net.run(60 * SECOND);
    assert!(!net.events.iter().any(|(_, _, event)| matches!(event, Event::Dead { .. })));
    assert!(net.machines.iter().all(|machine| machine.mesh_clock().state == ClockState::Locked));
}

#[test]
fn the_same_run_twice_is_the_same_run() {
    let run = || {
        let mut net = Net::new(4, 0);
        net.loss_percent = 10;
        net.run(5 * SECOND);
        net.stopped[3] = true;
        net.run(8 * SECOND);
        net.events
    };
    assert_eq!(run(), run());
}

#[test]
fn c9_17_garbage_and_lies_behind_a_good_checksum_never_panic() {
    let mut net = Net::new(4, 0);
    net.run(2 * SECOND);
    for step in 0..60_000u64 {
        let len_bytes = 32 + (net.roll() % 200) as usize;
        let mut bytes: Vec<u8> = (0..len_bytes).map(|_| 0).collect();
        bytes.fill_with(|| net.roll() as u8);
        if step % 4 != 0 {
            let kinds = [(1u8, 32), (2, 48), (3, 80), (15, 24)];
            let (kind, body) = kinds[(net.roll() % 4) as usize];
            bytes.resize(32 + body, 7);
            bytes[0..2].copy_from_slice(&0x4350u16.to_le_bytes());
            (bytes[2], bytes[3]) = (1, kind);
            bytes[4..6].fill(0);
            bytes[6..8].copy_from_slice(&((32 + body) as u16).to_le_bytes());
            bytes[8..16].copy_from_slice(&MESH.to_le_bytes());
            bytes[16..20].fill(0);
            bytes[20..22].copy_from_slice(&1u16.to_le_bytes());
            match kind {
                1 => {
                    bytes[37..40].fill(0);
                    bytes[60..64].fill(0)
                }
                2 => {
                    bytes[37..40].fill(0);
                    bytes[77..80].fill(0)
                }
                3 => bytes[95] = 0,
                15 => bytes[50..56].fill(0),
                _ => {}
            }
            bytes[28..32].fill(0);
            let crc = crc32fast::hash(&bytes);
            bytes[28..32].copy_from_slice(&crc.to_le_bytes());
        }
        let now = net.at(0).after(step * MS / 8);
        net.machines[0].handle_datagram(now, address(1), &bytes, None);
        net.machines[0].handle_timeout(now);
        while net.machines[0].poll_transmit(now).is_some() {}
        while net.machines[0].poll_event().is_some() {}
    }
    assert!(net.machines[0].drops().checksum + net.machines[0].drops().magic > 10_000);
    assert!(net.machines[0].drops().clock_exchange > 1_000 && net.machines[0].drops().beat_fields > 100);
}
