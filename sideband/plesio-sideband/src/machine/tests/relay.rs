//! F6: one direction between two is dead, and what the deaf one misses comes through others.

use super::*;
use plesio_wire::sideband::{Leg, Relay};

/// Says it to everybody, a hundred times a second for a second; how often node 1 has heard node 0.
fn heard_of_hundred(net: &mut Net) -> usize {
    net.events.clear();
    for term in 0..100 {
        net.send(0, To::All, accept(term));
        let until = net.now + 10 * MS;
        net.run(until);
    }
    net.received(1).iter().filter(|(from, _)| *from == Some(NodeKey(0))).count()
}

fn counters(net: &Net) -> Vec<crate::RelayCounters> {
    net.machines.iter().map(Machine::relay_counters).collect()
}

#[test]
fn f6_what_one_dead_direction_keeps_back_comes_through_a_third_member() {
    let mut net = Net::new(4, 0);
    net.run(3 * SECOND);
    net.cut = vec![(0, 1)];
    net.run(4 * SECOND);
    // Suspected for as long as it takes to say so and to be helped; and then nobody is, and nobody dies.
    net.events.clear();
    net.run(20 * SECOND);
    let verdict =
        |event: &Event| matches!(event, Event::Suspect { .. } | Event::Dead { .. } | Event::Sick { .. });
    assert!(!net.events.iter().any(|(_, _, event)| verdict(event)), "{:?}", net.events);
    assert!(net.machines.iter().all(|machine| machine.suspects().is_empty() && machine.has_quorum()));
    assert_eq!(heard_of_hundred(&mut net), 100, "each once");
    // Two carriers take turns; of the way that is whole nothing is carried.
    let [handed, deaf, one, other] = counters(&net)[..] else { panic!("four nodes") };
    assert!(handed.handed > 100 && handed.received == 0, "{handed:?} {deaf:?}");
    // Until it was told that it is heard itself.
    assert!(deaf.handed <= 4, "{deaf:?}");
    assert!(one.carried > 100 && other.carried > 100 && deaf.received == one.carried + other.carried);
    assert_eq!(net.machines.iter().map(|machine| machine.drops().relay).sum::<u64>(), deaf.handed);

    // Whole again, nobody carries anything.
    net.cut.clear();
    let settled = net.now + SECOND / 2;
    net.run(settled);
    let before = counters(&net);
    assert_eq!(heard_of_hundred(&mut net), 100);
    assert_eq!(counters(&net), before);
}

#[test]
fn f6_a_pair_that_hears_nothing_of_each_other_goes_on_through_a_third() {
    let mut net = Net::new(3, 0);
    net.run(3 * SECOND);
    net.cut = vec![(0, 1), (1, 0)];
    net.run(5 * SECOND);
    net.events.clear();
    net.run(10 * SECOND);
    assert!(
        !net.events.iter().any(|(_, _, event)| matches!(event, Event::Suspect { .. } | Event::Dead { .. }))
    );
    assert_eq!(heard_of_hundred(&mut net), 100);
    let [one, two, carrier] = counters(&net)[..] else { panic!("three nodes") };
    assert_eq!((one.carried, two.carried), (0, 0));
    assert_eq!(carrier.carried, one.received + two.received);
}

#[test]
fn f6_whom_a_majority_does_not_hear_dies_all_the_same() {
    let mut net = Net::new(5, 0);
    net.run(3 * SECOND);
    net.cut = vec![(0, 1), (0, 2), (0, 3)];
    net.run(3 * SECOND + 1_300 * MS);
    for node in 1..4 {
        assert!(net.machines[node].dead().contains(0), "node {node}");
    }
}

#[test]
fn nothing_is_carried_that_nobody_lacks_nor_twice_nor_without_bound() {
    let mut net = Net::new(4, 0);
    net.run(3 * SECOND);
    let mut buffer = [0; DATAGRAM_BYTES_MAX];
    let header = |src, dst, sequence| Header { mesh: MESH, view: 0, src, dst, sequence };
    let inner = encode(&header(0, 1, 900), &accept(7), &mut buffer).to_vec();
    let mut say = |net: &mut Net, from: u16, to: usize, relay: Relay, sequence| {
        let bytes = encode(&header(from, to as u16, sequence), &Message::Relay(relay), &mut buffer).to_vec();
        let now = net.at(to);
        net.machines[to].handle_datagram(now, address(from.into()), &bytes, None);
        while let Some(carried) = net.machines[to].poll_carried() {
            net.machines[to].handle_carried(now, carried.by, &carried.datagram, false);
        }
        net.pump(to);
    };
    let relay =
        |leg, whose, bytes: &[u8]| Relay { leg, whose, datagram: plesio_wire::Bounded::from_slice(bytes) };
    // Node 1 hears node 0: it asks for nothing, and takes nothing that others say is of node 0.
    net.events.clear();
    say(&mut net, 0, 2, relay(Leg::First, 1, &inner), 1_000);
    say(&mut net, 2, 1, relay(Leg::Second, 0, &inner), 1_001);
    assert_eq!((net.machines[2].drops().relay, net.machines[1].drops().relay), (1, 1));
    assert!(net.received(1).is_empty());
    // It hears nothing of node 0 any more. To itself, to the carrier, to nobody: refused.
    net.cut = vec![(0, 1)];
    let until = net.now + SECOND;
    net.run(until);
    let refused = net.machines[2].drops().relay;
    for (at, whose) in [0, 2, 4, 77].into_iter().enumerate() {
        say(&mut net, 0, 2, relay(Leg::First, whose, &inner), 2_000 + at as u32);
    }
    assert_eq!(net.machines[2].drops().relay, refused + 4);
    // What is carried cannot be carried on, and is nobody's but its sender's.
    let within = encode(
        &header(0, 1, 901),
        &Message::Relay(relay(Leg::First, 1, &inner)),
        &mut [0; DATAGRAM_BYTES_MAX],
    )
    .to_vec();
    let of_another = encode(&header(3, 1, 902), &accept(8), &mut [0; DATAGRAM_BYTES_MAX]).to_vec();
    net.events.clear();
    let before = *net.machines[1].drops();
    say(&mut net, 2, 1, relay(Leg::Second, 0, &within), 3_000);
    say(&mut net, 2, 1, relay(Leg::Second, 0, &of_another), 3_001);
    say(&mut net, 2, 1, relay(Leg::Second, 0, &inner[..inner.len() - 1]), 3_002);
    let after = net.machines[1].drops();
    assert_eq!(
        (after.relay, after.spoof, after.length + after.field),
        (before.relay + 1, before.spoof + 1, before.length + before.field + 1)
    );
    assert!(net.received(1).is_empty());
    // Twice is once.
    say(&mut net, 2, 1, relay(Leg::Second, 0, &inner), 3_003);
    say(&mut net, 3, 1, relay(Leg::Second, 0, &inner), 3_004);
    assert_eq!(net.received(1), [(Some(NodeKey(0)), accept(7))]);
    // A sender without measure is carried with one: a second's worth at once, and no more.
    let before = net.machines[2].relay_counters().carried;
    for sequence in 0..5_000 {
        say(&mut net, 0, 2, relay(Leg::First, 1, &inner), 10_000 + sequence);
    }
    assert!(net.machines[2].relay_counters().carried - before <= 100);
    // A stranger's is a stranger's.
    let strangers = net.machines[2].drops().stranger;
    say(&mut net, 99, 2, relay(Leg::First, 1, &inner), 1);
    assert_eq!(net.machines[2].drops().stranger, strangers + 1);
}
