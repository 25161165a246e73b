//! A mesh that is told to stand still, member by member, in the middle of whatever it was doing, and to go on.

use super::cluster::{Cluster, Links, MS};
use plesio_wire::{Instant, NodeKey};
use std::vec::Vec;

/// Everybody within half a second, in whatever order.
fn tell_all(cluster: &mut Cluster, is_halted: bool) {
    let mut keys: Vec<NodeKey> = cluster.live.keys().copied().collect();
    while !keys.is_empty() {
        let at = cluster.rng.below(keys.len() as u64) as usize;
        let process = cluster.live.get_mut(&keys.swap_remove(at)).unwrap();
        process.engine.machine.handle_halt(Instant(cluster.now), is_halted);
        let pause_ns = cluster.rng.below(100) * MS;
        cluster.run_until(cluster.now + pause_ns);
    }
}

#[test]
fn c9_16_nothing_is_decided_while_all_stand_still_and_nobody_is_put_out_afterwards() {
    let mut recoveries_ms = Vec::new();
    for seed in 0..30 {
        let members = 2 + seed % 6;
        let links = Links { loss: 5 * (seed % 3), duplicate: 2, delay_ms: 2, data_ms: 60 };
        let mut cluster = Cluster::new(members, seed, links);
        cluster.run_until((2_000 + 61 * seed) * MS);
        tell_all(&mut cluster, true);
        let (version, view) = (cluster.checker.version(), *cluster.checker.view());
        let messages = cluster.messages;
        let proposed: Vec<_> = cluster.live.values().map(|process| process.engine.machine.index()).collect();
        let stood_ns = (1_000 + 700 * (seed % 40)) * MS;
        cluster.run_until(cluster.now + stood_ns);
        assert_eq!((cluster.checker.version(), *cluster.checker.view()), (version, view), "seed {seed}");
        assert!(cluster.live.values().map(|process| process.engine.machine.index()).eq(proposed));
        // Beats alone: ten a second to each other member.
        let beats = (stood_ns / (100 * MS) + 10) * members * (members - 1);
        assert!(cluster.messages - messages <= beats, "seed {seed}: {}", cluster.messages - messages);
        cluster.check_mass();
        tell_all(&mut cluster, false);
        recoveries_ms.push(cluster.await_health(seed, 3_000 * MS) / MS);
        assert_eq!(cluster.checker.view().members.len() as u64, members, "seed {seed}: nobody was put out");
        cluster.check_mass();
    }
    recoveries_ms.sort_unstable();
    std::eprintln!("from the last RESUME to two more versions everywhere, ms: {recoveries_ms:?}");
}

#[test]
fn who_dies_in_a_halt_is_excluded_after_it() {
    let mut cluster = Cluster::new(4, 3, Links { loss: 0, duplicate: 0, delay_ms: 2, data_ms: 20 });
    cluster.run_until(2_100 * MS);
    tell_all(&mut cluster, true);
    cluster.crash(NodeKey(12));
    cluster.run_until(cluster.now + 20_000 * MS);
    assert_eq!(cluster.checker.view().members.len(), 4, "nothing is decided in a halt");
    tell_all(&mut cluster, false);
    cluster.await_health(3, 3_000 * MS);
    assert_eq!(cluster.checker.view().members.len(), 3);
    cluster.check_mass();
}
