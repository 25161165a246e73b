//! The table of T16 with a stand-in for the cipher, what a disk may do, and laws over random orders.

use super::*;
use crate::Operators;
use plesio_wire::digest::Hasher;
use plesio_wire::sideband::OrderSignature;
use proptest::prelude::*;
use std::vec;

const MESH: u64 = 5;
const MS: u64 = 1_000_000;
const KEYS: [[u8; 32]; 4] = [[1; 32], [2; 32], [3; 32], [4; 32]];

fn stand_in(key: &[u8; 32], message: &[u8]) -> [u8; 64] {
    let mut hasher = Hasher::default();
    hasher.update(key);
    hasher.update(message);
    let mut signature = [7; 64];
    signature[..16].copy_from_slice(&hasher.finish().0);
    signature
}

fn verify(key: &[u8; 32], message: &[u8], signature: &[u8; 64]) -> bool {
    *signature == stand_in(key, message)
}

fn signed(mesh: u64, kind: OrderKind, sequence: u64, signers: &[u8]) -> Given {
    let mut order = Order { sequence, ..Order::default() };
    let message = order.signed_bytes(mesh, kind);
    for signer in signers {
        let key = KEYS.get(usize::from(*signer)).copied().unwrap_or([9; 32]);
        let signature = OrderSignature { signer: *signer, signature: stand_in(&key, &message) };
        order.signatures.push(signature).unwrap();
    }
    Given { kind, order }
}

fn halt(sequence: u64) -> Given {
    signed(MESH, OrderKind::Halt, sequence, &[0, 2])
}

fn resume(sequence: u64) -> Given {
    signed(MESH, OrderKind::Resume, sequence, &[1, 3])
}

fn machine(stored: Option<Given>) -> Halt {
    Halt::new(NodeId([8; 32]), MESH, Operators::new(&KEYS, 2).unwrap(), verify, stored)
}

fn bearer(given: &Given) -> Bearer {
    Bearer::Address { from: address(), token: 77, len_bytes: given.len_bytes() }
}

fn address() -> SocketAddr {
    SocketAddr::from(([10, 0, 0, 9], 5))
}

fn give(machine: &mut Halt, given: Given) {
    machine.handle_order(Instant(0), bearer(&given), given, || true);
}

/// The disk does as it is told; what is sent.
fn settle(machine: &mut Halt) -> Vec<(Target, Message)> {
    while let Some(given) = machine.poll_store() {
        machine.handle_stored(Instant(0), given.order.sequence, true);
    }
    core::iter::from_fn(|| machine.poll_transmit()).collect()
}

fn ack(given: &Given) -> (Target, Message) {
    let (kind, sequence) = (given.kind, given.order.sequence);
    let ack = OrderAck { id: NodeId([8; 32]), sequence, token: 77, kind, ..OrderAck::default() };
    (Target::Address(address()), Message::OrderAck(ack))
}

#[test]
fn an_order_is_stored_then_in_force_forwarded_and_acknowledged() {
    let mut machine = machine(None);
    give(&mut machine, halt(1));
    assert_eq!((machine.is_halted(), machine.poll_transmit()), (false, None), "not before it is stored");
    assert_eq!(machine.poll_store(), Some(halt(1)));
    assert_eq!(machine.poll_store(), None, "told once");
    machine.handle_stored(Instant(0), 1, true);
    assert!(machine.is_halted() && machine.is_stored() && machine.sequence() == 1);
    assert_eq!(settle(&mut machine), [(Target::All, halt(1).message()), ack(&halt(1))]);
    give(&mut machine, resume(2));
    assert_eq!(settle(&mut machine), [(Target::All, resume(2).message()), ack(&resume(2))]);
    assert!(!machine.is_halted());
    // Whoever of the operators signed it: what is kept is as many signatures as it takes.
    let more = signed(MESH, OrderKind::Halt, 3, &[0, 1, 2, 3]);
    give(&mut machine, more);
    let kept = signed(MESH, OrderKind::Halt, 3, &[0, 1]);
    assert_eq!(settle(&mut machine)[0], (Target::All, kept.message()));
}

#[test]
fn t16_what_the_operators_did_not_order_is_counted_and_changes_nothing() {
    let wrong_kind = Given { kind: OrderKind::Halt, ..resume(9) };
    let scope = Given { order: Order { scope: 1, ..halt(9).order }, ..halt(9) };
    let action = Given { order: Order { action: 1, ..halt(9).order }, ..halt(9) };
    let mut moved = halt(9);
    moved.order.sequence = 10;
    type Counted = fn(&OrderCounters) -> u64;
    let table: [(&str, Given, Counted); 13] = [
        ("another mesh", signed(6, OrderKind::Halt, 9, &[0, 2]), |count| count.forged),
        ("RESUME's signatures under HALT", wrong_kind, |count| count.forged),
        ("another sequence", moved, |count| count.forged),
        ("one signer too few", signed(MESH, OrderKind::Halt, 9, &[0]), |count| count.signers),
        ("no signer", signed(MESH, OrderKind::Halt, 9, &[]), |count| count.signers),
        ("one signer twice", signed(MESH, OrderKind::Halt, 9, &[1, 1]), |count| count.signers),
        ("signers out of order", signed(MESH, OrderKind::Halt, 9, &[2, 0]), |count| count.signers),
        ("a signer that is not listed", signed(MESH, OrderKind::Halt, 9, &[0, 4]), |count| count.signers),
        ("another scope", scope, |count| count.unsupported),
        ("another action", action, |count| count.unsupported),
        ("a sequence that no beat can carry", halt(1 << 32), |count| count.unsupported),
        ("a RESUME after which there is no HALT", resume(SEQUENCE_MAX), |count| count.unsupported),
        ("a sequence that is over", halt(4), |count| count.replayed),
    ];
    for (what, given, counter) in table {
        let mut machine = machine(Some(resume(5)));
        give(&mut machine, given);
        machine.handle_order(Instant(0), Bearer::Node, given, || true);
        assert!(counter(&machine.counters()) >= 1, "{what}: {:?}", machine.counters());
        assert_eq!(machine.counters().refused(), 2, "{what}: {:?}", machine.counters());
        assert_eq!(
            (machine.poll_store(), machine.is_halted(), machine.sequence()),
            (None, false, 5),
            "{what}"
        );
        let answers: Vec<_> = core::iter::from_fn(|| machine.poll_transmit()).collect();
        // The operators' own old order is answered with the newer one, everything else with silence.
        let expected = if what == "a sequence that is over" {
            vec![(Target::Address(address()), resume(5).message())]
        } else {
            vec![]
        };
        assert_eq!(answers, expected, "{what}");
    }
}

#[test]
fn every_altered_byte_is_refused() {
    use plesio_wire::{Reader, Writer};
    let mut bytes = [0; 11 + 2 * 65];
    Writer::new(&mut bytes).write(&halt(7).order);
    for at in 0..bytes.len() {
        let mut bad = bytes;
        bad[at] ^= 0x10;
        let mut machine = machine(None);
        if let Ok(order) = Reader::new(&bad).read::<Order>() {
            give(&mut machine, Given { kind: OrderKind::Halt, order });
            assert_eq!(machine.counters().refused(), 1, "byte {at}");
        }
        assert_eq!(settle(&mut machine), [], "byte {at}");
        assert!(!machine.is_halted());
    }
}

#[test]
fn t16_a_replay_is_ignored_and_the_order_in_force_is_acknowledged_again() {
    let mut machine = machine(None);
    give(&mut machine, halt(1));
    let again = Bearer::Address { from: address(), token: 78, len_bytes: 500 };
    machine.handle_order(Instant(0), again, halt(1), || unreachable!("it was looked at before"));
    assert_eq!(settle(&mut machine).len(), 3, "forwarded, and both who asked are told");
    give(&mut machine, halt(1));
    assert_eq!(settle(&mut machine), [ack(&halt(1))]);
    give(&mut machine, signed(MESH, OrderKind::Halt, 1, &[1, 3]));
    assert_eq!(settle(&mut machine), [ack(&halt(1))], "the same order by other operators");
    machine.handle_order(Instant(0), Bearer::Node, halt(1), || unreachable!("it is known"));
    give(&mut machine, resume(2));
    settle(&mut machine);
    machine.handle_order(Instant(0), Bearer::Node, halt(1), || unreachable!("it is over"));
    assert!(!machine.is_halted() && settle(&mut machine).is_empty());
    assert_eq!((machine.counters().repeated, machine.counters().replayed), (4, 1));
}

#[test]
fn a_flood_of_forgeries_costs_counters() {
    let mut machine = machine(None);
    for sequence in 1..1_000 {
        let mut forged = halt(sequence);
        forged.order.signatures[0].signature[0] ^= 1;
        machine.handle_order(Instant(0), bearer(&forged), forged, || sequence <= 10);
    }
    assert_eq!((machine.counters().forged, machine.counters().unverified), (10, 989));
    assert_eq!(settle(&mut machine), []);
}

#[test]
fn a_disk_that_hangs_stops_no_halt_and_keeps_a_resume_from_counting() {
    let mut machine = machine(None);
    give(&mut machine, halt(1));
    assert_eq!(machine.poll_store(), Some(halt(1)));
    assert_eq!(machine.poll_timeout(), Some(Instant(STORE_WAIT_NS)));
    machine.handle_timeout(Instant(STORE_WAIT_NS - 1));
    assert!(!machine.is_halted());
    machine.handle_timeout(Instant(STORE_WAIT_NS));
    assert!(machine.is_halted() && !machine.is_stored());
    assert_eq!(settle(&mut machine), [(Target::All, halt(1).message())], "not acknowledged");
    machine.handle_stored(Instant(900 * MS), 1, true);
    assert_eq!(settle(&mut machine), [ack(&halt(1))]);
    give(&mut machine, resume(2));
    assert_eq!((machine.poll_store(), machine.poll_timeout()), (Some(resume(2)), None));
    machine.handle_timeout(Instant(1 << 40));
    assert!(machine.is_halted());
}

#[test]
fn a_disk_that_refuses_is_asked_again() {
    let mut machine = machine(None);
    give(&mut machine, halt(1));
    machine.poll_store();
    machine.handle_stored(Instant(0), 1, false);
    assert!(machine.is_halted() && !machine.is_stored());
    assert_eq!(settle(&mut machine), [(Target::All, halt(1).message())]);
    let retry = machine.poll_timeout().expect("it is tried again");
    machine.handle_timeout(retry);
    assert_eq!(settle(&mut machine), []);
    assert!(machine.is_stored());
    give(&mut machine, resume(2));
    machine.poll_store();
    machine.handle_stored(retry, 2, false);
    assert!(machine.is_halted() && machine.counters().unstored == 2);
    give(&mut machine, resume(2));
    settle(&mut machine);
    assert!(!machine.is_halted(), "said again, and the disk took it");
}

#[test]
fn who_lags_is_told_and_not_too_often() {
    let mut machine = machine(Some(halt(3)));
    let peer = NodeKey(4);
    machine.handle_sequence(Instant(0), peer, 3);
    machine.handle_sequence(Instant(0), peer, 9);
    assert_eq!(machine.poll_transmit(), None);
    for ms in 0..1_000 {
        machine.handle_sequence(Instant(ms * MS), peer, 0);
    }
    let told: Vec<_> = core::iter::from_fn(|| machine.poll_transmit()).collect();
    assert_eq!((told.len(), told[0]), (12, (Target::Node(peer), halt(3).message())));
    for ms in 0..1_000 {
        machine.handle_join(Instant((2_000 + ms) * MS), NodeKey(6), address());
    }
    assert_eq!(settle(&mut machine).len(), 2);
}

#[test]
fn with_0_the_operators_ask_which_order_is_in_force() {
    let ask = signed(MESH, OrderKind::Halt, 0, &[0, 1]);
    let mut new = machine(None);
    give(&mut new, ask);
    let nothing = OrderAck { id: NodeId([8; 32]), token: 77, kind: OrderKind::Resume, ..OrderAck::default() };
    assert_eq!(settle(&mut new), [(Target::Address(address()), Message::OrderAck(nothing))]);
    let mut old = machine(Some(resume(6)));
    give(&mut old, ask);
    assert_eq!(settle(&mut old), [(Target::Address(address()), resume(6).message())]);
    // Nobody is answered with more than was sent.
    let short = Bearer::Address { from: address(), token: 0, len_bytes: resume(6).len_bytes() - 1 };
    old.handle_order(Instant(0), short, ask, || true);
    old.handle_order(Instant(0), Bearer::Node, ask, || true);
    assert_eq!((settle(&mut old), old.counters().refused()), (vec![], 1));
}

#[derive(Clone, Debug)]
enum Step {
    Give(u8, u64, Vec<u8>, bool),
    Stored(bool),
    Wait(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let signers = proptest::collection::vec(0..5_u8, 0..4);
    let give = (0..2_u8, 0..6_u64, signers, any::<bool>())
        .prop_map(|(kind, sequence, signers, damaged)| Step::Give(kind, sequence, signers, damaged));
    let step = prop_oneof![
        4 => give,
        2 => any::<bool>().prop_map(Step::Stored),
        1 => (0..400 * MS).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    #[test]
    fn the_sequence_never_falls_and_nothing_is_acknowledged_that_is_not_stored(steps in steps()) {
        let mut machine = machine(None);
        let (mut now, mut asked, mut disk) = (Instant(0), None, vec![]);
        for step in steps {
            let before = (machine.sequence(), machine.is_halted());
            match step {
                Step::Give(kind, sequence, signers, damaged) => {
                    let kind = if kind == 0 { OrderKind::Halt } else { OrderKind::Resume };
                    let mut given = signed(MESH, kind, sequence, &signers);
                    if let Some(first) = given.order.signatures.first_mut().filter(|_| damaged) {
                        first.signature[3] ^= 1;
                    }
                    machine.handle_order(now, bearer(&given), given, || true);
                }
                Step::Stored(done) => {
                    asked = machine.poll_store().or(asked);
                    if let Some(given) = asked.take() {
                        if done {
                            disk.push((given.kind, given.order.sequence));
                        }
                        machine.handle_stored(now, given.order.sequence, done);
                    }
                }
                Step::Wait(ns) => {
                    now = now.after(ns);
                    machine.handle_timeout(now);
                }
            }
            let after = (machine.sequence(), machine.is_halted());
            prop_assert!(after.0 >= before.0);
            prop_assert!(after == before || after.0 > before.0);
            prop_assert!(after.1 || after.0 == 0 || disk.contains(&(OrderKind::Resume, after.0)));
            while let Some((_, message)) = machine.poll_transmit() {
                if let Message::OrderAck(ack) = message {
                    prop_assert!(ack.sequence == 0 || disk.contains(&(ack.kind, ack.sequence)));
                }
            }
        }
    }
}
