//! Orders of the operators in meshes on virtual time: how fast they spread, who is answered, what a flood costs.

use super::*;
use plesio_membership::{Given, Halt, Operators};
use plesio_session::{Entropy, OperatorSecret, Secret, SignedOrder, verify_signature};
use plesio_wire::Bounded;
use plesio_wire::sideband::{Order, OrderKind, OrderSignature};

/// Three operators, of whom two are enough.
struct Desk {
    secrets: Vec<OperatorSecret>,
    operators: Operators,
}

impl Desk {
    fn new() -> Self {
        let mut entropy = Entropy::new(&Secret::new([6; 32]));
        let secrets: Vec<_> = (0..3).map(|_| OperatorSecret::generate(&mut entropy)).collect();
        let keys: Vec<[u8; 32]> = secrets.iter().map(OperatorSecret::public).collect();
        Self { secrets, operators: Operators::new(&keys, 2).unwrap() }
    }

    fn order(&self, kind: OrderKind, sequence: u64) -> Message {
        let mut signatures: Vec<_> = self.secrets[..2]
            .iter()
            .map(|secret| {
                let signed = SignedOrder::sign(secret, MESH, kind, sequence);
                let signer = self.operators.index_of(&signed.operator).unwrap();
                OrderSignature { signer, signature: signed.signature }
            })
            .collect();
        signatures.sort_by_key(|one| one.signer);
        let order = Order { sequence, signatures: Bounded::from_slice(&signatures), ..Order::default() };
        Given { kind, order }.message()
    }

    fn mesh(&self, count: u64, joiners: u64) -> Net {
        let mut net = Net::new(count, joiners);
        for node in 0..count as usize {
            self.man(&mut net, node, None);
        }
        net
    }

    fn man(&self, net: &mut Net, node: usize, stored: Option<Given>) {
        let halt = Halt::new(id_of(node as u64), MESH, self.operators.clone(), verify_signature, stored);
        let now = net.at(node);
        net.machines[node].handle_operators(now, halt, Secret::new([node as u8; 32]));
    }
}

/// What somebody outside says to a node, and how many bytes that is.
fn say(net: &mut Net, node: usize, from: SocketAddr, message: &Message) -> usize {
    let header = Header { mesh: MESH, src: INDEX_NONE, sequence: 0xBEEF, ..Header::default() };
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    let bytes = encode(&header, message, &mut buffer).to_vec();
    let now = net.at(node);
    net.machines[node].handle_unsealed(now, from, &bytes);
    net.pump(node);
    bytes.len()
}

/// What was sent to an address outside the mesh.
fn answers(net: &Net, to: SocketAddr) -> Vec<(Message, usize)> {
    let to_it = net.wire.iter().filter(|(_, _, target, _)| *target == to);
    to_it.map(|(.., bytes)| (plesio_wire::sideband::decode(bytes).unwrap().1, bytes.len())).collect()
}

fn operator() -> SocketAddr {
    SocketAddr::from(([127, 0, 9, 9], 60_000))
}

fn halted(net: &Net) -> usize {
    net.machines.iter().filter(|machine| machine.halt_state().halted).count()
}

#[test]
fn t17_one_honest_node_is_enough_for_all_to_stand_still_within_a_second() {
    let desk = Desk::new();
    let mut slowest = 0;
    for (trial, loss_percent) in (0..20).map(|trial| (trial, 10)).chain((20..40).map(|trial| (trial, 20))) {
        let mut net = desk.mesh(8, 0);
        net.dice = net.dice.wrapping_add(trial * 0x9E37_79B9);
        net.loss_percent = loss_percent;
        net.liars = vec![2, 5];
        net.run(2 * SECOND);
        say(&mut net, 7, operator(), &desk.order(OrderKind::Halt, 1));
        let begun = net.now;
        while halted(&net) < 8 {
            net.run(net.now + MS);
            assert!(net.now - begun <= SECOND, "trial {trial}: {} of 8 after a second", halted(&net));
        }
        slowest = slowest.max(net.now - begun);
        net.run(net.now + SECOND);
        say(&mut net, 6, operator(), &desk.order(OrderKind::Resume, 2));
        net.run(net.now + SECOND);
        assert_eq!(halted(&net), 0, "trial {trial}");
        assert!(net.machines.iter().all(|machine| machine.halt_state().sequence == 2));
    }
    println!("8 nodes, 2 of them silent about orders, 10 and 20 % lost: {} ms at most", slowest / MS);
}

#[test]
fn who_was_away_hears_of_it_with_the_first_beats_and_who_asks_to_join_with_the_answer() {
    let desk = Desk::new();
    let mut net = desk.mesh(4, 1);
    net.run(SECOND);
    net.stopped[2] = true;
    say(&mut net, 0, operator(), &desk.order(OrderKind::Halt, 1));
    net.run(3 * SECOND);
    assert_eq!(halted(&net), 2);
    net.stopped[2] = false;
    net.run(3_400 * MS);
    assert_eq!(halted(&net), 3, "all but the one that nobody knows");
    let join = Join { id: id_of(3), incarnation: Incarnation(103), ..Join::default() };
    net.send(3, To::Address(address(1)), Message::Join(join));
    net.run(3_500 * MS);
    assert!(net.machines[3].halt_state().halted);
    // A member that starts anew with what its disk holds.
    let config = MachineConfig::new(MESH, NodeKey(1), 7);
    net.machines[1] = Machine::new(net.at(1), config);
    let Message::Halt(order) = desk.order(OrderKind::Halt, 1) else { unreachable!("it is one") };
    desk.man(&mut net, 1, Some(Given { kind: OrderKind::Halt, order }));
    let state = net.machines[1].halt_state();
    assert!(state.halted && state.stored && state.sequence == 1);
}

#[test]
fn the_operators_are_answered_with_no_more_than_they_sent_and_others_with_silence() {
    let desk = Desk::new();
    let mut net = desk.mesh(2, 0);
    net.run(SECOND);
    let mut forged = desk.order(OrderKind::Halt, 1);
    if let Message::Halt(order) = &mut forged {
        order.signatures[1].signature[9] ^= 1;
    }
    say(&mut net, 0, operator(), &forged);
    say(&mut net, 0, operator(), &Message::Leave(plesio_wire::sideband::Leave::default()));
    assert_eq!((answers(&net, operator()), halted(&net)), (vec![], 0));
    let asked = say(&mut net, 0, operator(), &desk.order(OrderKind::Halt, 5));
    let told = answers(&net, operator());
    let [(Message::OrderAck(ack), len_bytes)] = told[..] else { panic!("{told:?}") };
    assert_eq!((ack.id, ack.sequence, ack.token, ack.kind), (id_of(0), 5, 0xBEEF, OrderKind::Halt));
    assert!(len_bytes <= asked);
    net.wire.clear();
    // With 0 they ask what is in force; the answer proves itself.
    let asked = say(&mut net, 0, operator(), &desk.order(OrderKind::Halt, 0));
    let told = answers(&net, operator());
    assert_eq!(told, [(desk.order(OrderKind::Halt, 5), asked)]);
    let drops = net.machines[0].drops();
    assert_eq!((drops.plaintext, net.machines[0].halt_state().counters.forged), (1, 1));
}

#[test]
fn a_flood_of_forgeries_costs_fifty_looks_a_second_for_each_source() {
    let desk = Desk::new();
    let mut net = desk.mesh(2, 0);
    net.run(SECOND);
    let mut forged = desk.order(OrderKind::Halt, 1);
    if let Message::Halt(order) = &mut forged {
        order.signatures[0].signature[9] ^= 1;
    }
    let counters = |net: &Net| net.machines[0].halt_state().counters;
    for _ in 0..2_000 {
        say(&mut net, 0, SocketAddr::from(([10, 0, 0, 1], 60_000)), &forged);
    }
    assert_eq!((counters(&net).forged, counters(&net).unverified), (50, 1_950));
    for source in 0..2_000_u16 {
        let [high, low] = source.to_be_bytes();
        say(&mut net, 0, SocketAddr::from(([11, high, low, 1], 60_000)), &forged);
    }
    assert_eq!(counters(&net).forged, 200, "all of them together");
    // Members are heard all the same: the flood comes to one, the order to the other.
    say(&mut net, 1, operator(), &desk.order(OrderKind::Halt, 1));
    let header = Header { mesh: MESH, ..Header::default() };
    let now = net.at(0);
    net.machines[0].take_order(now, address(1), true, &header, &desk.order(OrderKind::Halt, 1));
    net.pump(0);
    assert_eq!(halted(&net), 2);
}

#[test]
fn an_order_of_another_mesh_is_nobodys() {
    let desk = Desk::new();
    let mut net = desk.mesh(2, 0);
    let header = Header { mesh: MESH + 1, src: INDEX_NONE, ..Header::default() };
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    let bytes = encode(&header, &desk.order(OrderKind::Halt, 1), &mut buffer).to_vec();
    let now = net.at(0);
    net.machines[0].handle_unsealed(now, operator(), &bytes);
    assert_eq!((net.machines[0].drops().mesh, halted(&net)), (1, 0));
    // A node without operators follows nobody.
    let mut bare = Net::new(2, 0);
    say(&mut bare, 0, operator(), &desk.order(OrderKind::Halt, 1));
    assert_eq!((bare.machines[0].drops().plaintext, halted(&bare)), (1, 0));
}

#[test]
fn f17_a_full_outbox_keeps_back_neither_beats_nor_orders() {
    let desk = Desk::new();
    let mut net = desk.mesh(4, 0);
    net.run(3 * SECOND);
    let now = net.at(0);
    let machine = &mut net.machines[0];
    // Nobody drains it, as when the socket takes nothing: the node's messages find no place any more.
    while machine.handle_send(now, To::All, accept(1)).is_ok() {}
    assert_eq!(machine.handle_send(now, To::All, accept(1)), Err(SendError::QueueFull));
    let later = now.after(SECOND / 5);
    machine.handle_timeout(later);
    let given = desk.order(OrderKind::Halt, 1);
    let header = Header { mesh: MESH, src: INDEX_NONE, ..Header::default() };
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    let bytes = encode(&header, &given, &mut buffer).to_vec();
    machine.handle_unsealed(later, operator(), &bytes);
    while let Some(given) = machine.poll_store() {
        machine.handle_stored(later, given.order.sequence, true);
    }
    let mut kinds = Vec::new();
    while let Some(transmit) = machine.poll_transmit(later) {
        kinds.push(transmit.bytes[3]);
    }
    let first = |wanted: &[u8]| kinds.iter().position(|kind| wanted.contains(kind)).expect("it is sent");
    assert_eq!(kinds.iter().filter(|kind| **kind == given.code()).count(), 3, "HALT to all three others");
    assert!(first(&[16]) < first(&[7]) && first(&[3, 15]) < first(&[7]), "{:?}", &kinds[..20]);
    assert!(machine.drops().queue_full >= 2 && machine.halt_state().halted);
}
